"""Where a fairness scorer is used, with which estimator, and in what the groups come.

Every score is compared with one that is computed by hand: a loop over the folds that fits a
clone, predicts, and asks fairlearn.
"""

from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
    false_positive_rate,
)
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import DemographicParity, ExponentiatedGradient
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skfair.adjustment import LogitAdjustedClassifier
from skfair.intraprocessing import DistillationDebiaser, ThresholdDebiaser
from skfair.margin import ClusterMarginClassifier
from skfair.metrics import make_fairness_scorer
from skfair.model_selection import GroupStratifiedKFold

pytestmark = [
    # Of 240 rows little can be learned; what is tested is the way of the groups.
    pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning"),
    pytest.mark.filterwarnings("ignore::skfair.utils.OvercorrectionWarning"),
    pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning"),
    # fairlearn's reductions under pandas 3
    pytest.mark.filterwarnings("ignore:Setting a value on a Series via .at:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Setting an item of incompatible:DeprecationWarning"),
]

N = 240


def make_data():
    rng = np.random.default_rng(0)
    sex, age = np.array(["f", "m"])[rng.integers(2, size=N)], rng.integers(2, size=N)
    X = rng.normal(size=(N, 3)) + (sex == "m")[:, None]
    y = (X[:, 0] + rng.normal(size=N) > 0.5).astype(int)
    return X, y, pd.DataFrame({"sex": sex, "age": age})


X, Y, GROUPS = make_data()
SHUFFLED = np.random.default_rng(1).permutation(N)
FOLDS = list(GroupStratifiedKFold(2).split(X, Y, sensitive_features=GROUPS))

NETWORK = nn.Sequential(nn.Linear(3, 1))
with torch.no_grad():
    NETWORK[0].weight.copy_(torch.tensor([[1.0, 0.3, 0.3]]))
    NETWORK[0].bias.fill_(-1.0)


class RoutedGradient(ExponentiatedGradient):
    """What makes fairlearn's reductions take part: their fit hides its arguments in **kwargs."""

    __metadata_request__fit = {"sensitive_features": True}


def optimizer(requests=True):
    optimizer = ThresholdOptimizer(
        estimator=LogisticRegression(), predict_method="predict_proba", grid_size=50
    )
    if requests and sklearn.get_config()["enable_metadata_routing"]:
        optimizer.set_fit_request(sensitive_features=True)
        optimizer.set_predict_request(sensitive_features=True, random_state=True)
    return optimizer


# How it is made, and what a search tries.
ESTIMATORS = {
    "logistic": (LogisticRegression, {"C": [0.01, 1.0]}),
    "margin": (
        lambda: ClusterMarginClassifier(
            n_clusters=2, max_epochs=2, n_units=8, batch_size=64, random_state=0
        ),
        {"n_units": [4, 8]},
    ),
    "adjusted": (
        lambda: LogitAdjustedClassifier(head="linear", random_state=0),
        {"strength": [0.0, 1.0]},
    ),
    "threshold debiaser": (
        lambda: ThresholdDebiaser(NETWORK, random_state=0),
        {"epsilon": [0.05, 0.3]},
    ),
    "distillation debiaser": (
        lambda: DistillationDebiaser(NETWORK, max_epochs=1, random_state=0),
        {"epsilon": [0.05, 0.3]},
    ),
    "threshold optimizer": (
        optimizer,
        {"constraints": ["demographic_parity", "equalized_odds"]},
    ),
    "exponentiated gradient": (
        lambda: RoutedGradient(LogisticRegression(), DemographicParity(), max_iter=2),
        {"eps": [0.01, 0.2]},
    ),
}
FIT_WITHOUT = ("logistic",)
PREDICT_WITH = ("threshold optimizer",)

ATTRIBUTES = {
    "NumPy": lambda: GROUPS["sex"].to_numpy(),
    "list": lambda: GROUPS["sex"].tolist(),
    "Series, shuffled index": lambda: GROUPS["sex"].set_axis(SHUFFLED),
    "DataFrame of two": lambda: GROUPS.set_axis(SHUFFLED),
    "polars Series": lambda: pl.Series("sex", GROUPS["sex"].tolist()),
    "polars DataFrame of two": lambda: pl.DataFrame(GROUPS.to_dict("list")),
}


def scorers():
    return {
        "parity": make_fairness_scorer("demographic_parity"),
        "odds": make_fairness_scorer(equalized_odds_difference, greater_is_better=False),
        "false alarms": make_fairness_scorer(false_positive_rate, "group_max"),
    }


def by_fairlearn(y, prediction, groups):
    given = {"sensitive_features": groups}
    frame = MetricFrame(metrics=false_positive_rate, y_true=y, y_pred=prediction, **given)
    return {
        "parity": -demographic_parity_difference(y, prediction, **given),
        "odds": -equalized_odds_difference(y, prediction, **given),
        "false alarms": -frame.group_max(),
    }


def predict_by_hand(name, parameters, scaled, several, train, test):
    """Fit on some rows, predict others; no pipeline, no routing."""
    groups = GROUPS if several else GROUPS[["sex"]]
    estimator = ESTIMATORS[name][0]().set_params(**parameters)
    A, B = X[train], X[test]
    if scaled:
        scaler = StandardScaler().fit(A)
        A, B = scaler.transform(A), scaler.transform(B)
    fit = {} if name in FIT_WITHOUT else {"sensitive_features": groups.iloc[train]}
    predict = {"sensitive_features": groups.iloc[test], "random_state": 0}
    with sklearn.config_context(enable_metadata_routing=False):
        estimator.fit(A, Y[train], **fit)
        return np.asarray(estimator.predict(B, **(predict if name in PREDICT_WITH else {})))


@cache
def truth(name, scaled, several, candidate):
    """Scores of each fold by scorer; `candidate` is a position in the grid, None for no grid."""
    parameters = {}
    if candidate is not None:
        parameters = {key: values[candidate] for key, values in grid(name).items()}
    groups = GROUPS if several else GROUPS["sex"]
    scores = [
        by_fairlearn(
            Y[test],
            predict_by_hand(name, parameters, scaled, several, train, test),
            groups.iloc[test],
        )
        for train, test in FOLDS
    ]
    return {key: np.array([fold[key] for fold in scores]) for key in scores[0]}


@cache
def truth_of_all(name, scaled, several):
    """Scores where all rows are fitted and predicted."""
    rows = np.arange(N)
    prediction = predict_by_hand(name, {}, scaled, several, rows, rows)
    return by_fairlearn(Y, prediction, GROUPS if several else GROUPS["sex"])


def grid(name):
    return ESTIMATORS[name][1]


def assert_search(search, name, scaled, several):
    for candidate in range(2):
        for key, expected in truth(name, scaled, several, candidate).items():
            got = [search.cv_results_[f"split{k}_test_{key}"][candidate] for k in range(len(FOLDS))]
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


# Every container with the three ways there are: groups in the scorer only, in fit, and in
# predict. The other estimators, which take longer, with one of two columns.
QUICK = ("logistic", "threshold debiaser", "threshold optimizer")
PAIRS = [
    (name, attribute)
    for name in ESTIMATORS
    for attribute in ATTRIBUTES
    if name in QUICK or attribute == "polars DataFrame of two"
]
# All containers in a search over a pipeline, which does all that the others do with them.
FEWER = [pair for pair in PAIRS if pair[1] not in ("list", "polars Series")]


# ---------------------------------------------------------------- alone


@pytest.mark.parametrize("on", [False, True], ids=["routing off", "routing on"])
@pytest.mark.parametrize("scaled", [False, True], ids=["alone", "pipeline"])
@pytest.mark.parametrize("name, attribute", PAIRS)
def test_scorer_of_a_fitted_estimator(name, attribute, scaled, on):
    several = "two" in attribute
    groups = ATTRIBUTES[attribute]()
    with sklearn.config_context(enable_metadata_routing=on):
        estimator, given = ESTIMATORS[name][0](), {"sensitive_features": groups}
        if scaled:
            estimator = make_pipeline(StandardScaler(), estimator)
            step = estimator.steps[-1][0]
            if not on:
                given = {f"{step}__sensitive_features": groups}
        estimator.fit(X, Y, **({} if name in FIT_WITHOUT else given))
        got = {
            key: scorer(estimator, X, Y, sensitive_features=groups)
            for key, scorer in scorers().items()
        }
    assert got == pytest.approx(truth_of_all(name, scaled, several), abs=1e-12)


# ---------------------------------------------------------------- searches


@pytest.mark.parametrize("name, attribute", FEWER)
def test_search(name, attribute, routing):
    search = GridSearchCV(
        ESTIMATORS[name][0](), grid(name), scoring=scorers(), refit="parity", cv=FOLDS
    )
    groups = ATTRIBUTES[attribute]()
    search.fit(X, Y, sensitive_features=groups)
    assert_search(search, name, scaled=False, several="two" in attribute)
    # The search as a whole is scored by its scorer, on its best estimator.
    parity = scorers()["parity"](search.best_estimator_, X, Y, sensitive_features=groups)
    assert search.score(X, Y, sensitive_features=groups) == parity


@pytest.mark.parametrize("name, attribute", PAIRS)
def test_search_over_a_pipeline(name, attribute, routing):
    pipeline = make_pipeline(StandardScaler(), ESTIMATORS[name][0]())
    step = pipeline.steps[-1][0]
    search = GridSearchCV(
        pipeline,
        {f"{step}__{key}": values for key, values in grid(name).items()},
        scoring=scorers(),
        refit=False,
        cv=GroupStratifiedKFold(2),  # which asks for the groups too
    )
    if "two" in attribute:  # and splits by the groups it is given
        search.fit(X, Y, sensitive_features=ATTRIBUTES[attribute]())
    else:
        search.set_params(cv=FOLDS).fit(X, Y, sensitive_features=ATTRIBUTES[attribute]())
    assert_search(search, name, scaled=True, several="two" in attribute)


@pytest.mark.parametrize("name, attribute", FEWER)
def test_cross_validate(name, attribute, routing):
    several = "two" in attribute
    for scaled in (False, True):
        estimator = ESTIMATORS[name][0]()
        result = cross_validate(
            make_pipeline(StandardScaler(), estimator) if scaled else estimator,
            X,
            Y,
            scoring=scorers(),
            cv=FOLDS,
            params={"sensitive_features": ATTRIBUTES[attribute]()},
            error_score="raise",
        )
        for key, expected in truth(name, scaled, several, None).items():
            np.testing.assert_allclose(result[f"test_{key}"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["logistic", "threshold debiaser", "threshold optimizer"])
def test_two_processes_do_what_one_does(name, routing):
    pipeline = make_pipeline(StandardScaler(), ESTIMATORS[name][0]())
    step = pipeline.steps[-1][0]
    search = GridSearchCV(
        pipeline,
        {f"{step}__{key}": values for key, values in grid(name).items()},
        scoring=scorers(),
        refit="parity",
        cv=FOLDS,
        n_jobs=2,
    ).fit(X, Y, sensitive_features=GROUPS["sex"])
    assert_search(search, name, scaled=True, several=False)
    arguments = {
        "scoring": scorers(),
        "cv": FOLDS,
        "params": {"sensitive_features": pl.Series(GROUPS["sex"].tolist())},
    }
    one, two = (cross_validate(pipeline, X, Y, n_jobs=jobs, **arguments) for jobs in (1, 2))
    for key in scorers():
        np.testing.assert_array_equal(one[f"test_{key}"], two[f"test_{key}"])


# ---------------------------------------------------------------- cross_val_predict


@pytest.mark.parametrize("scaled", [False, True], ids=["alone", "pipeline"])
@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in PREDICT_WITH])
def test_cross_val_predict(name, scaled, routing):
    for attribute in ("NumPy", "polars DataFrame of two"):
        several = "two" in attribute
        groups = {"sensitive_features": ATTRIBUTES[attribute]()}
        estimator = ESTIMATORS[name][0]()
        got = cross_val_predict(
            make_pipeline(StandardScaler(), estimator) if scaled else estimator,
            X,
            Y,
            cv=FOLDS,
            params={} if name in FIT_WITHOUT else groups,
        )
        for train, test in FOLDS:
            expected = predict_by_hand(name, {}, scaled, several, train, test)
            np.testing.assert_array_equal(got[test], expected)


def test_cross_val_predict_passes_nothing_on_to_predict(routing):
    """A limit of scikit-learn's: `params` go to fit and to the splitter only."""
    with pytest.raises(TypeError, match=r"predict\(\) missing 1 .* 'sensitive_features'"):
        cross_val_predict(optimizer(), X, Y, cv=FOLDS, params={"sensitive_features": GROUPS["sex"]})


# ---------------------------------------------------------------- predictions that are drawn


@pytest.mark.parametrize("scaled", [False, True], ids=["alone", "pipeline"])
def test_drawn_predictions_are_the_same_for_all_scorers_and_runs(scaled, routing):
    rates = []

    def spread(by_group):
        rates.append(by_group.tolist())
        return by_group.max() - by_group.min()

    scoring = {
        "counted": make_fairness_scorer("demographic_parity"),
        "fairlearn": make_fairness_scorer(demographic_parity_difference, greater_is_better=False),
        "first": make_fairness_scorer(false_positive_rate, spread, greater_is_better=False),
        "second": make_fairness_scorer(false_positive_rate, spread, greater_is_better=False),
    }
    estimator = make_pipeline(StandardScaler(), optimizer()) if scaled else optimizer()
    runs = [
        cross_validate(
            estimator,
            X,
            Y,
            cv=FOLDS,
            scoring=scoring,
            params={"sensitive_features": GROUPS["sex"]},
        )
        for _ in range(2)
    ]
    for key in scoring:
        np.testing.assert_array_equal(runs[0][f"test_{key}"], runs[1][f"test_{key}"])
    np.testing.assert_allclose(runs[0]["test_counted"], runs[0]["test_fairlearn"], atol=1e-12)
    assert rates[::2] == rates[1::2]
    # And they are drawn: without the seed they differ from call to call.
    fitted = optimizer().fit(X, Y, sensitive_features=GROUPS["sex"])
    draws = {
        tuple(np.asarray(fitted.predict(X, sensitive_features=GROUPS["sex"], random_state=seed)))
        for seed in range(5)
    }
    assert len(draws) > 1


# ---------------------------------------------------------------- what cannot work says what does


ROUTE = r"sensitive_features did not reach .*enable_metadata_routing=True.*search\.fit\(X, y, sens"


def search_over(estimator, parameters=None, **options):
    options = {"scoring": scorers()["parity"], "cv": FOLDS, "error_score": "raise", **options}
    return GridSearchCV(estimator, parameters or {}, **options)


def test_routing_off_an_estimator_whose_fit_takes_no_groups():
    """scikit-learn's own error, which comes before the scorer is asked."""
    groups = GROUPS["sex"]
    message = r"fit\(\) got an unexpected keyword argument 'sensitive_features'"
    with pytest.raises(TypeError, match=message):
        search_over(LogisticRegression()).fit(X, Y, sensitive_features=groups)
    with pytest.raises(TypeError, match=message):
        cross_validate(
            LogisticRegression(),
            X,
            Y,
            cv=FOLDS,
            scoring=scorers(),
            params={"sensitive_features": groups},
            error_score="raise",
        )
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    with pytest.raises(ValueError, match="fit does not accept the sensitive_features parameter"):
        search_over(pipeline).fit(X, Y, sensitive_features=groups)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in FIT_WITHOUT])
def test_routing_off_an_estimator_whose_fit_takes_groups(name):
    with pytest.raises(TypeError, match=ROUTE):
        search_over(ESTIMATORS[name][0]()).fit(X, Y, sensitive_features=GROUPS["sex"])
    with pytest.raises(TypeError, match=ROUTE):
        cross_validate(
            ESTIMATORS[name][0](),
            X,
            Y,
            cv=FOLDS,
            scoring=scorers(),
            params={"sensitive_features": GROUPS["sex"]},
            error_score="raise",
        )


def test_routing_off_by_default_is_a_warning_that_says_so():
    """scikit-learn makes NaN of what a scorer raises, and a warning of the text."""
    search = search_over(ESTIMATORS["threshold debiaser"][0](), error_score=np.nan)
    with (
        pytest.warns(UserWarning, match="test scores are non-finite"),
        pytest.warns(UserWarning, match=f"(?s)Scoring failed.*{ROUTE}"),
    ):
        search.fit(X, Y, sensitive_features=GROUPS["sex"])
    assert np.isnan(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("on", [False, True], ids=["routing off", "routing on"])
def test_no_groups_at_all(on):
    with (
        sklearn.config_context(enable_metadata_routing=on),
        pytest.raises(TypeError, match=ROUTE),
    ):
        search_over(LogisticRegression()).fit(X, Y)


REQUESTS = r"{} needs sensitive_features and has not requested them. Write .set_fit_request\(sens.*"
REQUESTS += r"set_predict_request\(sensitive_features=True\).*enable_metadata_routing=True"


@pytest.mark.parametrize("scaled", [False, True], ids=["alone", "pipeline"])
def test_an_estimator_that_has_not_requested_groups(scaled, routing):
    def wrapped(estimator):
        return make_pipeline(StandardScaler(), estimator) if scaled else estimator

    groups = GROUPS["sex"]
    with pytest.raises(UnsetMetadataPassedError, match=r"Call `ThresholdOptimizer.set_fit_request"):
        search_over(wrapped(optimizer(requests=False))).fit(X, Y, sensitive_features=groups)
    half = wrapped(optimizer(requests=False).set_fit_request(sensitive_features=True))
    message = REQUESTS.format(f"{type(half).__name__}.predict")
    with pytest.raises(TypeError, match=message):
        search_over(half).fit(X, Y, sensitive_features=groups)
    half.fit(X, Y, sensitive_features=groups)
    for scorer in scorers().values():
        with pytest.raises(TypeError, match=message):
            scorer(half, X, Y, sensitive_features=groups)


@pytest.mark.parametrize("on", [False, True], ids=["routing off", "routing on"])
def test_a_search_cannot_pass_groups_to_predict(on):
    groups = GROUPS["sex"]
    with sklearn.config_context(enable_metadata_routing=True):
        search = search_over(optimizer(), grid("threshold optimizer"))
        search.fit(X, Y, sensitive_features=groups)
    scorer = scorers()["parity"]
    with sklearn.config_context(enable_metadata_routing=on):
        with pytest.raises(TypeError, match=r"GridSearchCV.predict cannot .* its best_estimator_"):
            scorer(search, X, Y, sensitive_features=groups)
        assert scorer(search.best_estimator_, X, Y, sensitive_features=groups) <= 0


def test_a_search_over_an_estimator_that_predicts_without_groups(routing):
    search = search_over(LogisticRegression(), grid("logistic"))
    search.fit(X, Y, sensitive_features=GROUPS["sex"])
    for scorer in scorers().values():
        given = {"sensitive_features": GROUPS["sex"]}
        assert scorer(search, X, Y, **given) == scorer(search.best_estimator_, X, Y, **given)


def test_a_clone_keeps_its_requests(routing):
    search = search_over(clone(optimizer()), grid("threshold optimizer"))
    assert np.isfinite(search.fit(X, Y, sensitive_features=GROUPS["sex"]).best_score_)
