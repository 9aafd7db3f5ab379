"""Selection under a limit on the disparity, in scikit-learn's searches."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from fairlearn.metrics import (
    demographic_parity_difference,
    demographic_parity_ratio,
    selection_rate,
)
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfair.metrics import make_fairness_scorer
from skfair.model_selection import GroupStratifiedKFold, constrained_refit, pareto_front
from skfair.utils import FairnessWarning, InfeasibleConstraintWarning

NAMES = {"performance": "accuracy", "disparity": "dp"}


def results(accuracy, dp, **more):
    accuracy, dp = np.array(accuracy, float), np.array(dp, float)
    folds = {
        f"split{i}_test_{name}": scores[:, i]
        for name, scores in (("accuracy", accuracy), ("dp", dp))
        for i in range(scores.shape[1])
    }
    means = {"mean_test_accuracy": accuracy.mean(axis=1), "mean_test_dp": dp.mean(axis=1)}
    params = [{"C": i} for i in range(len(accuracy))]
    return {"params": params, **folds, **means, **more}


def one_fold(accuracy, dp, **more):
    return results(np.reshape(accuracy, (-1, 1)), np.reshape(dp, (-1, 1)), **more)


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    "accuracy, dp, expected",
    [
        ([0.9, 0.8, 0.7], [-0.2, -0.1, 0.0], 1),  # the limit itself holds
        ([0.9, 0.8, 0.8], [-0.2, -0.1, -0.05], 2),  # of equals the less disparate
        ([0.8, 0.9, 0.9], [-0.1, -0.05, -0.05], 1),  # then the first
        ([0.9, 0.8, 0.7], [0.0, 0.0, 0.0], 0),
    ],
)
def test_best_of_those_that_hold(accuracy, dp, expected):
    refit = constrained_refit(**NAMES, max_disparity=0.1)
    best = refit(one_fold(accuracy, dp))
    assert best == expected
    assert type(best) is int


def test_the_mean_over_folds_is_not_refused_for_its_rounding():
    dp = [-0.1] * 3
    assert -np.mean(dp) > 0.1
    assert constrained_refit(**NAMES, max_disparity=0.1)(results([[0.9] * 3], [dp])) == 0


@pytest.mark.parametrize(
    "accuracy, dp, expected",
    [
        ([0.9, 0.8, 0.7], [-0.4, -0.3, -0.2], 2),
        ([0.7, 0.9, 0.9], [-0.2, -0.2, -0.2], 1),  # of equals the best, then the first
    ],
)
def test_least_disparate_where_none_holds(accuracy, dp, expected):
    refit = constrained_refit(**NAMES, max_disparity=0.125)
    with pytest.warns(InfeasibleConstraintWarning) as caught:
        assert refit(one_fold(accuracy, dp)) == expected
    message = str(caught[0].message)
    for part in (
        "None of 3",
        "reached 0.2 ",
        "0.125",
        f"{{'C': {expected}}}",
        "'dp' (mean)",
        "few rows",
    ):
        assert part in message


def test_standard_errors_by_hand():
    # Means .10 and .12; standard errors .10 and .01 (two folds d apart: d / 2).
    cv_results = results([[0.9, 0.9], [0.8, 0.8]], [[0.0, -0.2], [-0.11, -0.13]])

    def chosen(max_disparity, standard_errors):
        return constrained_refit(
            **NAMES, max_disparity=max_disparity, standard_errors=standard_errors
        )(cv_results)

    assert chosen(0.11, 0) == 0
    assert chosen(0.14, 0.3) == 0  # .13 and .123
    assert chosen(0.14, 1) == 1  # .20 and .13
    assert chosen(0.14, np.float32(2)) == 1  # .30 and .14
    with pytest.warns(
        InfeasibleConstraintWarning, match=r"\(mean \+ 2 standard errors\).*reached 0\.14 "
    ):
        assert chosen(0.12, 2) == 1


def test_standard_errors_need_two_folds():
    refit = constrained_refit(**NAMES, max_disparity=0.1, standard_errors=1)
    with pytest.raises(ValueError, match="at least two folds"):
        refit(one_fold([0.9], [-0.1]))


SCORE = st.sampled_from([0.0, 0.1, 0.2, 0.3, np.nan])


@given(
    candidates=st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=8),
    max_disparity=st.sampled_from([0.0, 0.05, 0.1, 0.25]),
)
@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_rule_by_sorting(candidates, max_disparity):
    cv_results = one_fold([p for p, _ in candidates], [-d for _, d in candidates])
    refit = constrained_refit(**NAMES, max_disparity=max_disparity)
    scored = [(p, d, i) for i, (p, d) in enumerate(candidates) if p == p and d == d]
    if not scored:
        with pytest.raises(ValueError, match="has a finite mean"):
            refit(cv_results)
        return
    best = min(
        scored,
        key=lambda c: (0, -c[0], c[1], c[2]) if c[1] <= max_disparity else (1, c[1], -c[0], c[2]),
    )
    assert refit(cv_results) == best[2]
    assert refit(pd.DataFrame(cv_results)) == best[2]


def test_only_the_last_iteration_counts():
    cv_results = one_fold([0.9, 0.8, 0.7], [-0.1, -0.1, -0.1], iter=np.array([0, 1, 1]))
    assert constrained_refit(**NAMES, max_disparity=0.1)(cv_results) == 1


def test_candidates_without_a_score_are_left_out_and_counted():
    cv_results = one_fold([0.9, np.nan, 0.5, 0.4], [np.nan, -0.1, -0.1, -0.1])
    with pytest.warns(FairnessWarning, match="2 of 4 candidates .* GroupStratifiedKFold"):
        assert constrained_refit(**NAMES, max_disparity=0.1)(cv_results) == 2


@pytest.mark.parametrize(
    "accuracy, dp, counts",
    [
        ([[0.9] * 3] * 2, [[np.nan] * 3] * 2, "'dp' is .* 6 of 6 fits, 'accuracy' in none"),
        (
            [[np.nan, 0.9, 0.9], [0.8, np.nan, np.nan]],
            [[-0.1] * 3, [-0.1, np.nan, -0.1]],
            "'accuracy' is .* 3 of 6 fits, 'dp' in 1",
        ),
        ([[np.inf, 0.9]] * 2, [[-0.1] * 2] * 2, "'accuracy' is .*infinite in 2 of 4 fits"),
    ],
)
def test_the_scorer_that_fails_is_named_and_counted(accuracy, dp, counts):
    failed = results(accuracy, dp)
    with pytest.raises(ValueError, match=counts + r".*\. Set error_score='raise'"):
        constrained_refit(**NAMES, max_disparity=0.1)(failed)
    with pytest.raises(ValueError, match=counts):
        pareto_front(failed, **NAMES)
    # One candidate more, that can be chosen; one of an earlier iteration of halving, that cannot.
    more = results([*accuracy, [0.5] * len(accuracy[0])], [*dp, [-0.1] * len(dp[0])])
    last = counts.replace("6 fits", "9 fits").replace("4 fits", "6 fits")
    with pytest.warns(FairnessWarning, match=f"2 of 3 candidates were left out: {last}"):
        assert constrained_refit(**NAMES, max_disparity=0.1)(more) == 2
    more["iter"] = np.array([0, 1, 1])
    with pytest.warns(FairnessWarning, match="1 of 2 candidates were left out: .* of [46] fits"):
        assert constrained_refit(**NAMES, max_disparity=0.1)(more) == 2


def test_counts_of_means_alone():
    means = {"mean_test_accuracy": [0.9, 0.8], "mean_test_dp": [np.nan, np.nan]}
    with pytest.raises(ValueError, match=r"'dp' is .* in 2 of 2 fits, 'accuracy' in none"):
        constrained_refit(**NAMES, max_disparity=0.1)(means)


# ---------------------------------------------------------------- a limit that limits nothing


@pytest.mark.parametrize("max_disparity", [1, 5])
def test_a_limit_in_percent(max_disparity):
    cv_results = results([[0.9, 0.9], [0.8, 0.8]], [[-1.0, -0.2], [-0.1, -0.1]])
    percent = f"write 0.0{max_disparity} for {max_disparity} percent"
    with pytest.warns(FairnessWarning, match=f"max_disparity={max_disparity} limits .*{percent}"):
        assert constrained_refit(**NAMES, max_disparity=max_disparity)(cv_results) == 0


@pytest.mark.parametrize(
    "dp, max_disparity, standard_errors",
    [
        ([[-1.0, -0.2], [-0.1, -0.1]], 0.99, 0),
        ([[-1.2, -0.2], [-0.1, -0.1]], 5, 0),  # a difference of another unit
        ([[-1.0, -0.8], [-0.1, -0.1]], 1, 2),  # .9 and two standard errors of .1: above the limit
    ],
)
def test_a_limit_that_may_be_meant(dp, max_disparity, standard_errors):
    refit = constrained_refit(**NAMES, max_disparity=max_disparity, standard_errors=standard_errors)
    assert refit(results([[0.9, 0.9], [0.8, 0.8]], dp)) == int(standard_errors > 0)


# ---------------------------------------------------------------- what it cannot choose by


@pytest.mark.parametrize(
    "cv_results, message",
    [
        (one_fold([0.9], [0.1]), r"'dp' scored 0\.1, above zero.*greater_is_better=False"),
        (one_fold([0.9], [0.8]), "1 - by_group"),
        (results([[0.9, 0.9]], [[-0.5, 0.1]]), r"scored 0\.1, above zero"),  # a signed difference
        (one_fold([np.nan], [np.nan]), r"error_score='raise'.*pos_label.*GroupStrat"),
        ({"mean_test_score": [1.0]}, r"scoring=\{'accuracy': \.\.\., 'dp': \.\.\.\}"),
        ({"mean_test_dp": [0.0], "mean_test_f1": [0.0]}, r"performance='accuracy'.*\['dp', 'f1'\]"),
        ({"mean_test_accuracy": [0.0], "mean_test_gap": [0.0]}, r"disparity='dp'.*\['acc.*'gap'\]"),
    ],
)
def test_errors_carry_the_results(cv_results, message):
    with pytest.raises(ValueError, match=message) as caught:
        constrained_refit(**NAMES, max_disparity=0.1)(cv_results)
    assert caught.value.cv_results_ is cv_results
    assert "attribute cv_results_" in str(caught.value)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"performance": None}, TypeError, "performance must be the name"),
        ({"disparity": demographic_parity_difference}, TypeError, "disparity must be the name"),
        ({"disparity": "accuracy"}, ValueError, "both 'accuracy'"),
        ({"max_disparity": -0.1}, ValueError, "max_disparity must be finite and not negative"),
        ({"max_disparity": np.nan}, ValueError, "max_disparity must be finite"),
        ({"max_disparity": "0.1"}, TypeError, "max_disparity must be a number"),
        ({"standard_errors": -1}, ValueError, "standard_errors must be finite"),
        ({"standard_errors": True}, TypeError, "standard_errors must be a number"),
    ],
)
def test_bad_arguments_are_refused_before_the_search(arguments, error, message):
    with pytest.raises(error, match=message):
        constrained_refit(**{**NAMES, "max_disparity": 0.1, **arguments})


def test_it_is_a_value():
    refit = constrained_refit(**NAMES, max_disparity=0.1)
    assert repr(refit) == (
        "constrained_refit(performance='accuracy', disparity='dp', max_disparity=0.1, "
        "standard_errors=0.0)"
    )
    for other in (pickle.loads(pickle.dumps(refit)), copy.deepcopy(refit)):
        assert other == refit
        assert other(one_fold([0.9, 0.8], [-0.2, -0.1])) == 1
    with pytest.raises(AttributeError):
        refit.max_disparity = 0.5


# ---------------------------------------------------------------- in scikit-learn


def make_data():
    rng = np.random.default_rng(0)
    sex = np.array(list("fm"))[rng.integers(0, 2, 240)]
    y = (rng.random(240) < np.where(sex == "m", 0.7, 0.3)).astype(int)
    X = np.column_stack([sex == "m", y + rng.normal(size=240), rng.normal(size=240)])
    return X.astype(float), y, sex


X, Y, SEX = make_data()
GRID = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}
MODEL = make_pipeline(StandardScaler(), LogisticRegression())


def parity():
    scorer = make_scorer(demographic_parity_difference, greater_is_better=False)
    with sklearn.config_context(enable_metadata_routing=True):
        return scorer.set_score_request(sensitive_features=True)


def fitted(kind, refit, *, grid=GRID, groups=SEX, **options):
    search = kind(
        MODEL,
        grid,
        scoring={"accuracy": "accuracy", "dp": parity()},
        refit=refit,
        cv=GroupStratifiedKFold(3),
        **options,
    )
    with sklearn.config_context(enable_metadata_routing=True):
        return clone(search).fit(X, Y, sensitive_features=groups)


@pytest.mark.parametrize(
    "kind, options",
    [
        (GridSearchCV, {}),
        (GridSearchCV, {"n_jobs": 2}),
        (RandomizedSearchCV, {"n_iter": 4, "random_state": 0}),
    ],
)
def test_search(kind, options):
    plain = fitted(kind, "accuracy", **options)
    scores = plain.cv_results_
    disparities = -scores["mean_test_dp"]
    limit = float(disparities[plain.best_index_] + disparities.min()) / 2
    assert disparities.min() < limit  # the limit changes the choice
    search = fitted(kind, constrained_refit(**NAMES, max_disparity=limit), **options)
    holds = np.flatnonzero(disparities <= limit)
    best = holds[np.argmax(scores["mean_test_accuracy"][holds])]
    assert scores["mean_test_accuracy"][search.best_index_] == scores["mean_test_accuracy"][best]
    assert search.best_index_ in holds
    assert search.best_params_ == scores["params"][search.best_index_]
    assert search.predict(X).shape == Y.shape
    front = pareto_front(search, **NAMES)
    assert front["candidate"].isin(range(len(disparities))).all()
    assert (front["disparity"].diff().dropna() >= 0).all()


def test_infeasible_search_still_fits():
    refit = constrained_refit(**NAMES, max_disparity=0.0)
    # The weakest models predict one class for everybody, and are not disparate.
    grid = {"logisticregression__C": [0.5, 1.0]}
    with pytest.warns(InfeasibleConstraintWarning, match="'logisticregression__C'"):
        search = fitted(GridSearchCV, refit, grid=grid, groups=pd.Series(SEX))
    assert search.best_index_ == np.argmax(search.cv_results_["mean_test_dp"])


def test_results_of_a_search_survive_a_misnamed_scorer():
    refit = constrained_refit(performance="acuracy", disparity="dp", max_disparity=0.1)
    with pytest.raises(ValueError, match=r"performance='acuracy'.*\['accuracy', 'dp'\]") as caught:
        fitted(GridSearchCV, refit)
    rescued = constrained_refit(**NAMES, max_disparity=0.99)(caught.value.cv_results_)
    assert rescued == fitted(GridSearchCV, "accuracy").best_index_


def test_a_search_with_one_scorer():
    search = GridSearchCV(MODEL, GRID, refit=constrained_refit(**NAMES, max_disparity=0.1))
    with pytest.raises(ValueError, match="one scorer only"):
        search.fit(X, Y)


def test_the_four_fifths_rule_as_the_message_has_it():
    # One column gives the group away, the other does not: small weights of the first hold.
    columns = ColumnTransformer([("sex", "passthrough", [0]), ("other", "passthrough", [1])])
    grid = {"columntransformer__transformer_weights": [{"sex": w} for w in (1, 0.1, 0.01)]}
    model = make_pipeline(columns, LogisticRegression())
    search = GridSearchCV(
        model,
        grid,
        scoring={
            "accuracy": "accuracy",
            "lacks": make_fairness_scorer(
                selection_rate,
                lambda by_group: 1 - by_group.min() / by_group.max(),
                greater_is_better=False,
            ),
            "ratio": make_fairness_scorer(selection_rate, "ratio"),
        },
        refit=constrained_refit(performance="accuracy", disparity="lacks", max_disparity=0.7),
        cv=GroupStratifiedKFold(3),
        n_jobs=2,
    )
    with sklearn.config_context(enable_metadata_routing=True):
        search.fit(X, Y, sensitive_features=SEX)
    scores = search.cv_results_
    np.testing.assert_allclose(-scores["mean_test_lacks"], 1 - scores["mean_test_ratio"])
    assert search.best_index_ > 0
    _, test = next(GroupStratifiedKFold(3).split(X, Y, sensitive_features=SEX))
    train = np.setdiff1d(np.arange(len(Y)), test)
    prediction = clone(search.best_estimator_).fit(X[train], Y[train]).predict(X[test])
    ratio = demographic_parity_ratio(Y[test], prediction, sensitive_features=SEX[test])
    assert scores["split0_test_ratio"][search.best_index_] == pytest.approx(ratio, abs=1e-12)
    # The ratio itself is no disparity.
    search.set_params(
        refit=constrained_refit(performance="accuracy", disparity="ratio", max_disparity=0.8)
    )
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match="four-fifths"),
    ):
        search.fit(X, Y, sensitive_features=SEX)


@pytest.mark.filterwarnings("ignore:One or more of the test", "ignore:Scoring failed")
def test_a_forgotten_pos_label():
    search = GridSearchCV(
        MODEL,
        {"logisticregression__C": [0.1, 1.0]},
        scoring={"accuracy": "accuracy", "dp": make_fairness_scorer("demographic_parity")},
        refit=constrained_refit(**NAMES, max_disparity=0.1),
        cv=GroupStratifiedKFold(3),
    )
    y = np.array(["no", "yes"])[Y]
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match=r"'dp' is NaN .* in 6 of 6 fits, 'accuracy' in none"),
    ):
        search.fit(X, y, sensitive_features=SEX)


def test_scoring_as_the_notes_have_it():
    # Should scikit-learn mend search.score, the docstring changes.
    search = fitted(GridSearchCV, constrained_refit(**NAMES, max_disparity=0.9))
    with pytest.raises(KeyError), sklearn.config_context(enable_metadata_routing=True):
        search.score(X, Y)
    got = search.scorer_["accuracy"](search.best_estimator_, X, Y)
    assert got == np.mean(search.predict(X) == Y)
