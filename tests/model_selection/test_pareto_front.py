"""The front of performance against disparity."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfair.metrics._front import non_dominated
from skfair.model_selection import pareto_front
from skfair.utils import FairnessWarning

# Few different values, so that there are ties; and some that are not finite.
VALUES = st.sampled_from([0.0, 0.1, 0.2, 0.3, -0.1, np.nan, np.inf, -np.inf])
NAMES = {"performance": "accuracy", "disparity": "dp"}


def slow_front(performance, disparity):
    def counts(i):
        return np.isfinite(performance[i]) and np.isfinite(disparity[i])

    def beats(i, j):
        at_least = performance[i] >= performance[j] and disparity[i] <= disparity[j]
        return at_least and (performance[i] > performance[j] or disparity[i] < disparity[j])

    rows = range(len(performance))
    return [counts(j) and not any(counts(i) and beats(i, j) for i in rows) for j in rows]


@given(points=st.lists(st.tuples(VALUES, VALUES), max_size=30))
def test_front_is_that_of_all_pairs(points):
    performance, disparity = [p for p, _ in points], [d for _, d in points]
    front = non_dominated(performance, disparity)
    assert front.dtype == bool
    assert front.tolist() == slow_front(performance, disparity)


def test_a_long_front():
    performance = np.linspace(0, 1, 200_000)
    assert non_dominated(performance, performance**2).all()
    assert non_dominated(performance, -performance).sum() == 1


def results(accuracy, dp, **more):
    accuracy, dp = np.array(accuracy, float), np.array(dp, float)
    folds = {
        f"split{i}_test_{name}": scores[:, i]
        for name, scores in (("accuracy", accuracy), ("dp", dp))
        for i in range(scores.shape[1])
    }
    means = {"mean_test_accuracy": accuracy.mean(axis=1), "mean_test_dp": dp.mean(axis=1)}
    params = [{"C": 10.0**i} for i in range(len(accuracy))]
    return {"params": params, **folds, **means, **more}


def test_table_by_hand():
    table = pareto_front(
        results(
            accuracy=[[0.8, 1.0], [0.6, 0.8], [0.5, 0.7], [0.7, 0.7]],
            dp=[[-0.3, -0.1], [-0.1, -0.1], [-0.1, -0.1], [0.0, -0.2]],
        ),
        **NAMES,
    )
    assert list(table) == [
        "candidate",
        "performance",
        "performance_se",
        "disparity",
        "disparity_se",
        "param_C",
    ]
    # Candidates 1 and 3 agree in both means: both are on the front, in their order.
    assert table["candidate"].tolist() == [1, 3, 0]
    np.testing.assert_allclose(table["performance"], [0.7, 0.7, 0.9])
    np.testing.assert_allclose(table["disparity"], [0.1, 0.1, 0.2])
    # Two scores d apart: standard deviation d / sqrt(2), standard error d / 2.
    np.testing.assert_allclose(table["performance_se"], [0.1, 0.0, 0.1], atol=1e-12)
    np.testing.assert_allclose(table["disparity_se"], [0.0, 0.1, 0.1], atol=1e-12)
    assert table["param_C"].tolist() == [10.0, 1000.0, 1.0]


def test_one_fold_has_no_standard_error():
    table = pareto_front(results([[0.8], [0.7]], [[-0.2], [-0.1]]), **NAMES)
    assert table["disparity_se"].isna().all()
    assert table["performance_se"].isna().all()


def test_no_disparity_is_a_plain_zero():
    table = pareto_front(results([[0.8, 0.8]], [[-0.0, 0.0]]), **NAMES)
    assert not np.signbit(table["disparity"]).any()


def test_candidates_without_a_score_are_left_out():
    cv_results = results([[0.9, np.nan], [0.5, 0.5]], [[-0.1, -0.1], [-0.2, -0.2]])
    with pytest.warns(FairnessWarning, match="1 of 2 candidates"):
        assert pareto_front(cv_results, **NAMES)["candidate"].tolist() == [1]


def test_parameters_of_any_kind():
    cv_results = results([[0.9, 0.9], [0.8, 0.8], [0.7, 0.7]], [[-0.3] * 2, [-0.2] * 2, [-0.1] * 2])
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    cv_results["params"] = [
        {"clf": pipe, "layers": (10, 10)},
        {"clf": pipe, "layers": (10,), "C": 1.0},
        {"clf": None, "C": 2.0},
    ]
    table = pareto_front(cv_results, **NAMES)
    assert table["param_clf"].tolist()[1:] == [pipe, pipe]
    assert table["param_layers"].tolist() == [None, (10,), (10, 10)]
    np.testing.assert_array_equal(table["param_C"].astype(float), [2.0, 1.0, np.nan])


def test_results_search_and_table_give_the_same():
    X, y = np.zeros((12, 1)), [0, 1] * 6
    search = GridSearchCV(
        DummyClassifier(random_state=0),
        {"strategy": ["prior", "stratified", "uniform"]},
        # A scorer that gives both numbers; a disparity need not come from skfair.
        scoring=lambda model, X, y: {
            "accuracy": model.score(X, y),
            "dp": -(model.score(X, y) ** 2),
        },
        refit=False,
        cv=3,
    )
    with pytest.raises(TypeError, match="Fit the search first"):
        pareto_front(search, **NAMES)
    search.fit(X, y)
    expected = pareto_front(search.cv_results_, **NAMES)
    pd.testing.assert_frame_equal(pareto_front(search, **NAMES), expected)
    pd.testing.assert_frame_equal(pareto_front(pd.DataFrame(search.cv_results_), **NAMES), expected)
    assert expected["param_strategy"].isin(["prior", "stratified", "uniform"]).all()


def test_only_the_last_iteration_of_halving_counts():
    cv_results = results(
        [[0.9, 0.9], [0.8, 0.8], [0.7, 0.7]],
        [[-0.1, -0.1], [-0.2, -0.2], [-0.3, -0.3]],
        iter=np.array([0, 1, 1]),
    )
    assert pareto_front(cv_results, **NAMES)["candidate"].tolist() == [1]


def test_scores_of_the_wrong_sign():
    with pytest.raises(ValueError, match=r"'dp' scored 0\.2, above zero"):
        pareto_front(results([[0.9, 0.9]], [[0.1, 0.2]]), **NAMES)
