"""Performance and a limit on the disparity as one number."""

import pickle

import numpy as np
import pytest
import sklearn
from fairlearn.metrics import demographic_parity_difference
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, get_scorer, make_scorer, recall_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfair.metrics import make_fairness_scorer
from skfair.model_selection import (
    GroupStratifiedKFold,
    constrained_refit,
    make_constrained_scorer,
)


def make_data():
    rng = np.random.default_rng(0)
    sex = np.array(list("fm"))[rng.integers(0, 2, 240)]
    y = (rng.random(240) < np.where(sex == "m", 0.7, 0.3)).astype(int)
    X = np.column_stack([sex == "m", y + rng.normal(size=240), rng.normal(size=240)])
    return X.astype(float), y, sex


X, Y, SEX = make_data()
SPLITS = GroupStratifiedKFold(3)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def parity(sign=-1):
    scorer = make_scorer(demographic_parity_difference, greater_is_better=sign > 0)
    with sklearn.config_context(enable_metadata_routing=True):
        return scorer.set_score_request(sensitive_features=True)


def scorer(performance="accuracy", max_disparity=0.1, **options):
    return make_constrained_scorer(performance, parity(), max_disparity=max_disparity, **options)


class Given(ClassifierMixin, BaseEstimator):
    """Predicts the first column and counts how often it was asked."""

    def fit(self, X, y):
        self.classes_, self.calls_ = np.array([0, 1]), 0
        return self

    def predict(self, X):
        self.calls_ += 1
        return np.asarray(X)[:, 0].astype(int)


# Accuracy 6/8; selection rates 1/2 and 1/4: a disparity of 1/4.
PREDICTED = np.array([[1, 1, 0, 0, 1, 0, 0, 0]]).T
TRUE = np.array([1, 1, 1, 0, 1, 1, 0, 0])
GROUPS = list("aaaabbbb")


@pytest.mark.parametrize(
    "max_disparity, penalty, expected",
    [(0.25, 10, 0.75), (0.5, 10, 0.75), (0.15, 10, -0.25), (0.15, 1, 0.65), (0, 2, 0.25)],
)
@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("skfairs", [False, True])
def test_value_by_hand(max_disparity, penalty, expected, on, skfairs):
    model = Given().fit(PREDICTED, TRUE)
    score = make_constrained_scorer(
        "accuracy",
        make_fairness_scorer("demographic_parity") if skfairs else parity(),
        max_disparity=max_disparity,
        penalty=penalty,
    )
    with sklearn.config_context(enable_metadata_routing=on):
        got = score(model, PREDICTED, TRUE, sensitive_features=GROUPS)
        assert sklearn.get_config()["enable_metadata_routing"] is on
    assert got == pytest.approx(expected, abs=1e-12)
    assert model.calls_ == 1  # for both


def test_performance_may_be_a_scorer_or_a_function():
    model = Given().fit(PREDICTED, TRUE)

    def function(estimator, X, y):
        return accuracy_score(y, estimator.predict(X))

    for performance in ("accuracy", get_scorer("accuracy"), function):
        score = scorer(performance, max_disparity=0.15)
        assert score(model, PREDICTED, TRUE, sensitive_features=GROUPS) == pytest.approx(-0.25)


def test_an_undefined_disparity_makes_an_undefined_score():
    # max(0, nan) is 0 in Python: an undefined disparity would be none.
    undefined = make_scorer(lambda y, prediction: np.nan)
    score = make_constrained_scorer("accuracy", undefined, max_disparity=0.1)
    assert np.isnan(score(Given().fit(PREDICTED, TRUE), PREDICTED, TRUE))


def test_a_disparity_of_the_wrong_sign():
    score = make_constrained_scorer("accuracy", parity(sign=1), max_disparity=0.1)
    model = Given().fit(PREDICTED, TRUE)
    with pytest.raises(ValueError, match=r"scored 0\.25, above zero.*greater_is_better=False"):
        score(model, PREDICTED, TRUE, sensitive_features=GROUPS)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"performance": None}, TypeError, "performance must be"),
        ({"performance": "acuracy"}, ValueError, "acuracy"),
        ({"disparity": "demographic_parity"}, TypeError, "make_fairness_scorer"),
        ({"max_disparity": -1}, ValueError, "max_disparity must be finite"),
        ({"max_disparity": None}, TypeError, "max_disparity must be a number"),
        ({"penalty": 0}, ValueError, "penalty is 0"),
        ({"penalty": np.inf}, ValueError, "penalty must be finite"),
    ],
)
def test_bad_arguments(arguments, error, message):
    given = {"performance": "accuracy", "disparity": parity(), "max_disparity": 0.1, **arguments}
    with pytest.raises(error, match=message):
        make_constrained_scorer(given.pop("performance"), given.pop("disparity"), **given)


def test_repr_and_pickle():
    score = scorer(max_disparity=0.15)
    assert repr(score) == (
        "make_constrained_scorer('accuracy', make_scorer(demographic_parity_difference, "
        "greater_is_better=False, response_method='predict'), max_disparity=0.15, penalty=10.0)"
    )
    model = Given().fit(PREDICTED, TRUE)
    again = pickle.loads(pickle.dumps(score))
    assert again(model, PREDICTED, TRUE, sensitive_features=GROUPS) == pytest.approx(-0.25)


# ---------------------------------------------------------------- in scikit-learn


@pytest.mark.usefixtures("routing")
def test_cross_val_score_by_hand():
    model = make_pipeline(StandardScaler(), LogisticRegression())
    got = cross_val_score(
        model, X, Y, scoring=scorer(), cv=SPLITS, params={"sensitive_features": SEX}
    )
    for value, (train, test) in zip(got, SPLITS.split(X, Y, sensitive_features=SEX), strict=True):
        prediction = clone(model).fit(X[train], Y[train]).predict(X[test])
        gap = demographic_parity_difference(Y[test], prediction, sensitive_features=SEX[test])
        assert gap > 0.1
        assert value == pytest.approx(accuracy_score(Y[test], prediction) - 10 * (gap - 0.1))


GRID = {"C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]}


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("kind", [HalvingGridSearchCV, HalvingRandomSearchCV])
@pytest.mark.parametrize("resource", ["n_samples", "max_iter"])
def test_halving(kind, resource, n_jobs):
    options = {"n_candidates": 6} if kind is HalvingRandomSearchCV else {}
    if resource == "max_iter":
        options |= {"max_resources": 90, "min_resources": 10}
    search = kind(
        LogisticRegression(tol=0.1),
        GRID,
        scoring=scorer(max_disparity=0.2),
        cv=SPLITS,
        resource=resource,
        random_state=0,
        n_jobs=n_jobs,
        **options,
    )
    search = clone(search).fit(X, Y, sensitive_features=SEX)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # On its own folds: what the best one scored in the last iteration.
    last = np.flatnonzero(search.cv_results_["iter"] == max(search.cv_results_["iter"]))
    scores = search.cv_results_["mean_test_score"]
    assert search.best_index_ == last[np.argmax(scores[last])]
    assert np.isfinite(search.score(X, Y, sensitive_features=SEX))


@pytest.mark.usefixtures("routing")
def test_with_a_large_penalty_it_chooses_as_the_limit_does():
    def search(**options):
        return GridSearchCV(LogisticRegression(), GRID, cv=SPLITS, n_jobs=2, **options).fit(
            X, Y, sensitive_features=SEX
        )

    both = {"accuracy": "accuracy", "dp": parity()}
    plain = search(scoring=both, refit="accuracy")
    folds = -np.array([plain.cv_results_[f"split{i}_test_dp"] for i in range(3)])
    limit = float(np.sort(folds.max(axis=0))[2])  # three candidates hold it on each fold
    refit = constrained_refit(performance="accuracy", disparity="dp", max_disparity=limit)
    one = search(scoring=scorer(max_disparity=limit, penalty=1e6))
    holds = np.flatnonzero(folds.max(axis=0) <= limit)
    accuracy = plain.cv_results_["mean_test_accuracy"]
    assert one.best_score_ == accuracy[one.best_index_] == accuracy[holds].max()
    assert accuracy[search(scoring=both, refit=refit).best_index_] >= one.best_score_


@pytest.mark.usefixtures("routing")
def test_weights_reach_the_part_that_asks_for_them():
    weight = np.where(TRUE == 1, 3.0, 1.0)
    model = Given().fit(PREDICTED, TRUE)
    weighted = make_scorer(recall_score).set_score_request(sample_weight=True)
    unweighted = parity().set_score_request(sensitive_features=True, sample_weight=False)
    score = make_constrained_scorer(weighted, unweighted, max_disparity=0.25)
    got = score(model, PREDICTED, TRUE, sensitive_features=GROUPS, sample_weight=weight)
    assert got == pytest.approx(3 / 5)


@pytest.mark.usefixtures("routing")
def test_predictions_are_shared_with_the_other_scorers_of_a_search():
    calls = []

    class Counting(LogisticRegression):
        def predict(self, X):
            calls.append(len(X))
            return super().predict(X)

    for scoring in (
        {"constrained": scorer()},
        {"accuracy": "accuracy", "constrained": scorer(), "dp": parity()},
    ):
        calls.clear()
        cross_validate(
            Counting(), X, Y, scoring=scoring, cv=SPLITS, params={"sensitive_features": SEX}
        )
        assert len(calls) == 3  # once a fold


# ---------------------------------------------------------------- thresholds


THRESHOLDS = np.linspace(0.02, 0.98, 41)


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("limit", [0.05, 0.2])
@pytest.mark.parametrize("skfairs", [False, True])
def test_the_threshold_is_that_of_brute_force(limit, skfairs):
    model = LogisticRegression().fit(X, Y)
    dp = make_fairness_scorer("demographic_parity") if skfairs else parity()
    tuned = TunedThresholdClassifierCV(
        model,
        scoring=make_constrained_scorer("accuracy", dp, max_disparity=limit, penalty=2),
        thresholds=THRESHOLDS,
        cv="prefit",
        refit=False,
        store_cv_results=True,
    ).fit(X, Y, sensitive_features=SEX)
    probability = model.predict_proba(X)[:, 1]
    predictions = [(probability >= threshold).astype(int) for threshold in THRESHOLDS]
    gaps = [demographic_parity_difference(Y, p, sensitive_features=SEX) for p in predictions]
    excess = np.maximum(0, np.array(gaps) - limit)
    expected = [accuracy_score(Y, p) for p in predictions] - 2 * excess
    np.testing.assert_allclose(tuned.cv_results_["scores"], expected, atol=1e-12)
    assert tuned.best_threshold_ == THRESHOLDS[np.argmax(expected)]
    assert excess.max() > 0
    assert len(np.unique(tuned.predict(X))) == 2


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_threshold_of_labels_that_are_text_over_folds(n_jobs):
    y = np.array(["no", "yes"])[Y]
    score = make_constrained_scorer(
        make_scorer(f1_score, pos_label="yes"),
        make_fairness_scorer("demographic_parity", pos_label="yes"),
        max_disparity=0.1,
    )
    tuned = TunedThresholdClassifierCV(
        LogisticRegression(), scoring=score, thresholds=THRESHOLDS, cv=3, n_jobs=n_jobs
    )
    with sklearn.config_context(enable_metadata_routing=True):
        tuned = clone(tuned).fit(X, y, sensitive_features=SEX)
    expected = []
    for train, test in StratifiedKFold(3).split(X, y):
        model = LogisticRegression().fit(X[train], Y[train])
        probability = model.predict_proba(X[test])[:, 1]
        for threshold in THRESHOLDS:
            prediction = (probability >= threshold).astype(int)
            gap = demographic_parity_difference(Y[test], prediction, sensitive_features=SEX[test])
            f1 = f1_score(Y[test], prediction, zero_division=0)
            expected.append(f1 - 10 * max(0, gap - 0.1))
    expected = np.reshape(expected, (3, -1)).mean(axis=0)
    assert tuned.best_score_ == pytest.approx(expected.max())
    assert tuned.best_threshold_ == THRESHOLDS[np.argmax(expected)]
    again = pickle.loads(pickle.dumps(tuned))
    np.testing.assert_array_equal(again.predict(X), tuned.predict(X))


@pytest.mark.usefixtures("routing")
def test_each_part_is_given_what_it_requests_at_a_threshold():
    weight = np.where(Y == 1, 3.0, 1.0)
    model = LogisticRegression().fit(X, Y)
    scorers = {
        "performance": make_scorer(accuracy_score).set_score_request(sample_weight="w"),
        "disparity": make_fairness_scorer("demographic_parity").set_score_request(
            sensitive_features="sex"
        ),
    }
    tuned = TunedThresholdClassifierCV(
        model,
        scoring=make_constrained_scorer(*scorers.values(), max_disparity=1),
        thresholds=THRESHOLDS,
        cv="prefit",
        refit=False,
        store_cv_results=True,
    ).fit(X, Y, sex=SEX, w=weight)
    probability = model.predict_proba(X)[:, 1]
    expected = [accuracy_score(Y, probability >= t, sample_weight=weight) for t in THRESHOLDS]
    np.testing.assert_allclose(tuned.cv_results_["scores"], expected)


@pytest.mark.usefixtures("routing")
def test_a_tuned_threshold_in_a_search():
    grid = {"estimator__C": [1e-3]}
    model = TunedThresholdClassifierCV(
        LogisticRegression(), scoring=scorer(max_disparity=0.2), thresholds=5, cv=2
    )
    search = GridSearchCV(model, grid, scoring=scorer(max_disparity=0.2), cv=SPLITS)
    search.fit(X, Y, sensitive_features=SEX)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.usefixtures("routing")
def test_a_function_of_an_estimator_tunes_no_threshold():
    def function(estimator, X, y):
        return accuracy_score(y, estimator.predict(X))

    tuned = TunedThresholdClassifierCV(LogisticRegression(), scoring=scorer(function), cv=3)
    with pytest.raises(TypeError, match=r"function of an estimator.*make_scorer"):
        tuned.fit(X, Y, sensitive_features=SEX)


@pytest.mark.usefixtures("routing")
def test_requests_are_those_of_the_parts():
    with pytest.raises(TypeError, match="after these scorers, before"):
        scorer().set_score_request(sample_weight=True)


def test_halving_does_what_the_docstring_of_constrained_refit_says():
    # It refuses several scorers, and ignores a callable refit. Should scikit-learn change
    # this, the docstring changes.
    refit = constrained_refit(performance="accuracy", disparity="dp", max_disparity=0.1)
    several = HalvingGridSearchCV(
        LogisticRegression(), GRID, scoring={"accuracy": "accuracy", "dp": parity()}, refit=refit
    )
    with pytest.raises(ValueError, match="'scoring' parameter of HalvingGridSearchCV"):
        several.fit(X, Y)
    one = HalvingGridSearchCV(LogisticRegression(), GRID, refit=refit, random_state=0)
    assert hasattr(one.fit(X, Y), "best_index_")


@pytest.mark.parametrize("value", [np.inf, -np.inf, "0.5", 0.5 + 0j, np.array([0.5, 0.5])])
@pytest.mark.parametrize("part", ["performance", "disparity"])
def test_a_part_that_gives_no_finite_number_is_refused(part, value):
    parts = {"performance": lambda *_: 0.5, "disparity": lambda *_: -0.1} | {part: lambda *_: value}
    scorer = make_constrained_scorer(**parts, max_disparity=0.2)
    with pytest.raises(ValueError, match=rf"as {part}, expected one finite number"):
        scorer(None, np.zeros((2, 1)), [0, 1])
