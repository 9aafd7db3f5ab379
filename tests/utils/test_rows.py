"""Every function with two arguments of rows refuses indices in different orders."""

from functools import partial

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, make_scorer

from skfair.datasets import make_balanced_subset, make_biased_subset
from skfair.metrics import (
    GroupMetricsDisplay,
    ReliabilityDisplay,
    TradeoffDisplay,
    average_group_accuracy_score,
    count_groups,
    expected_calibration_error,
    fairness_certificate,
    fairness_report,
    make_fairness_scorer,
    worst_group_accuracy_score,
)
from skfair.model_selection import (
    GroupStratifiedKFold,
    GroupStratifiedShuffleSplit,
    make_constrained_scorer,
)
from skfair.utils._rows import check_rows

mpl.use("agg")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


N = 24
INDEX = [f"row {i}" for i in range(N)]
Y = np.arange(N) % 2
ROWS = {
    "X": pd.DataFrame({"x": np.zeros(N)}, INDEX),
    "y": pd.Series(Y, INDEX),
    "y_true": pd.Series(Y, INDEX),
    "y_pred": pd.Series(1 - Y, INDEX),
    "predictions": pd.Series(1 - Y, INDEX),
    "y_proba": pd.DataFrame({0: Y * 0.5, 1: 1 - Y * 0.5}, INDEX),
    "sensitive_features": pd.Series(list("ffmm") * (N // 4), INDEX),
    "control_features": pd.Series(list("abba") * (N // 4), INDEX),
    "sample_weight": pd.Series(np.ones(N), INDEX),
}
MODEL = DummyClassifier(strategy="prior").fit(np.zeros((4, 1)), [0, 1, 1, 0])


def plain(value):
    return value.to_numpy() if isinstance(value, pd.Series | pd.DataFrame) else value


def from_predictions(display):
    return lambda predictions, **rows: display.from_predictions(
        predictions={"model": predictions}, **rows
    )


def parity(y_true, y_pred, sensitive_features):
    return demographic_parity_difference(y_true, y_pred, sensitive_features=sensitive_features)


def scored(scorer):
    return partial(scorer, MODEL)


CONSTRAINED = make_constrained_scorer(
    make_scorer(accuracy_score),
    make_fairness_scorer("demographic_parity"),
    max_disparity=1.0,
)
GROUPS = "sensitive_features"
FUNCTIONS = {
    "worst": (worst_group_accuracy_score, ["y_true", "y_pred", GROUPS, "sample_weight"]),
    "average": (average_group_accuracy_score, ["y_true", "y_pred", GROUPS, "sample_weight"]),
    "count_groups": (
        count_groups,
        ["y_true", "y_pred", GROUPS, "control_features", "sample_weight"],
    ),
    "report": (
        fairness_report,
        ["y_true", "predictions", GROUPS, "control_features", "sample_weight"],
    ),
    "certificate": (
        partial(fairness_certificate, constraint="demographic_parity", epsilon=0.9),
        ["y_true", "y_pred", GROUPS],
    ),
    "ece": (expected_calibration_error, ["y_true", "y_proba", "sample_weight"]),
    "reliability": (ReliabilityDisplay.from_predictions, ["y_true", "y_proba", "sample_weight"]),
    "reliability of a model": (
        partial(ReliabilityDisplay.from_estimator, MODEL),
        ["X", "y", "sample_weight"],
    ),
    "groups": (
        from_predictions(GroupMetricsDisplay),
        ["y_true", "predictions", GROUPS, "sample_weight"],
    ),
    "groups of a model": (
        partial(GroupMetricsDisplay.from_estimator, MODEL),
        ["X", "y", GROUPS, "sample_weight"],
    ),
    "tradeoff": (from_predictions(TradeoffDisplay), ["y_true", "predictions", GROUPS]),
    "scorer": (
        scored(make_fairness_scorer("worst_group_accuracy")),
        ["X", "y_true", GROUPS, "sample_weight"],
    ),
    "scorer of a function": (
        scored(make_fairness_scorer(parity, greater_is_better=False)),
        ["X", "y_true", GROUPS],
    ),
    "constrained scorer": (scored(CONSTRAINED), ["X", "y_true", GROUPS]),
    "folds": (lambda **rows: list(GroupStratifiedKFold(2).split(**rows)), ["X", "y", GROUPS]),
    "splits": (
        lambda **rows: list(GroupStratifiedShuffleSplit(1).split(**rows)),
        ["X", "y", GROUPS],
    ),
    "balanced": (make_balanced_subset, ["y", GROUPS]),
    "biased": (partial(make_biased_subset, counts={(0, "f"): 1}), ["y", GROUPS]),
}
PAIRS = [
    (name, one, two)
    for name, (_, arguments) in FUNCTIONS.items()
    for one in arguments
    for two in arguments
    if arguments.index(one) < arguments.index(two)
]


@pytest.mark.parametrize("name, one, two", PAIRS)
def test_two_orders_of_the_same_labels_are_refused(name, one, two):
    function, arguments = FUNCTIONS[name]
    given = {key: plain(ROWS[key]) for key in arguments}
    given[one] = ROWS[one]
    function(**given)
    # Equal indices, and indices with other labels, are accepted.
    function(**{**given, two: ROWS[two]})
    function(**{**given, two: ROWS[two].set_axis(range(N))})
    for other in ([*range(1, N), 0], list(range(N))[::-1]):
        with pytest.raises(ValueError, match=f"{two}.* has the index of {one}.* in another order"):
            function(**{**given, two: ROWS[two].iloc[other]})


@pytest.mark.parametrize("name", [n for n, (_, a) in FUNCTIONS.items() if GROUPS in a])
def test_series_in_a_dict_and_frames_are_refused_alike(name):
    function, arguments = FUNCTIONS[name]
    given = {key: plain(ROWS[key]) for key in arguments} | {arguments[0]: ROWS[arguments[0]]}
    turned = ROWS[GROUPS][::-1]
    features = {"age": ROWS[GROUPS].to_numpy(), "sex": turned}
    with pytest.raises(ValueError, match=r"sensitive_features\['sex'\] has the index of"):
        function(**{**given, GROUPS: features})
    with pytest.raises(ValueError, match=r"sensitive_features has the index of"):
        function(**{**given, GROUPS: turned.to_frame()})


def test_each_model_of_several_is_compared():
    predictions = {"one": ROWS["y_pred"].to_numpy(), "two": ROWS["y_pred"][::-1]}
    with pytest.raises(ValueError, match=r"predictions\['two'\] has the index of y_true"):
        fairness_report(ROWS["y"], predictions, sensitive_features=ROWS[GROUPS])
    predictions["one"] = ROWS["y_pred"]
    with pytest.raises(ValueError, match=r"y_pred\['two'\] has the index of y_pred\['one'\]"):
        count_groups(Y, predictions, sensitive_features=ROWS[GROUPS].to_numpy())


@pytest.mark.parametrize(
    "one, two",
    [
        ([0, 0, 1], [0, 1, 0]),
        ([("a", 1), ("a", 2)], [("a", 2), ("a", 1)]),
        ([1, "x", None], ["x", 1, None]),
        ([1.0, np.nan], [np.nan, 1.0]),
        (pd.date_range("2020-01-01", periods=3), pd.date_range("2020-01-01", periods=3)[::-1]),
        (pd.CategoricalIndex(["a", "b"]), ["b", "a"]),
        ([1, 2], [2.0, 1.0]),
    ],
)
def test_labels_of_any_type_that_contradict(one, two):
    a, b = (pd.Series(0, index=pd.Index(labels)) for labels in (one, two))
    with pytest.raises(ValueError, match="b has the index of a in another order"):
        check_rows(a=a, b=b)
    check_rows(a=a, b=a.copy(), c=b.to_numpy())


@pytest.mark.parametrize(
    "one, two",
    [([0, 1, 2], [3, 4, 5]), ([0, 1, 2], [2, 1, 3]), ([0, 1], [0, 1, 2]), ([0, 1], "10")],
)
def test_labels_that_say_nothing(one, two):
    check_rows(a=pd.Series(0, index=list(one)), b=pd.Series(0, index=list(two)))


def test_labels_that_occur_twice_have_no_loc_to_be_brought_into_order_by():
    a, b = pd.Series(0, index=[0, 0, 1]), pd.Series(0, index=[0, 1, 0])
    with pytest.raises(ValueError, match="Sort b in the order of a, or"):
        check_rows(a=a, b=b)


def columns(values):
    polars = pytest.importorskip("polars")
    yield np.asarray(values)[:, None]
    yield [[value] for value in values]
    yield pd.DataFrame({"label": values})
    yield polars.DataFrame({"label": values})


@pytest.mark.parametrize("form", range(4))
def test_a_column_of_labels_is_labels(form):
    labels, predicted = list("abab"), list("abba")
    groups = ["f", "f", "m", "m"]
    y, p, g = (list(columns(values))[form] for values in (labels, predicted, groups))
    assert worst_group_accuracy_score(y, p, sensitive_features=groups) == 0.0
    assert average_group_accuracy_score(y, p, sensitive_features=groups) == 0.5
    report = fairness_report(y, {"model": p}, sensitive_features=groups)
    expected = fairness_report(labels, {"model": predicted}, sensitive_features=groups)
    assert str(report) == str(expected)
    assert count_groups(y, p, sensitive_features=g).groups == ("f", "m")


@pytest.mark.parametrize("form", range(4))
def test_a_column_of_labels_is_split_as_labels_are(form):
    splitter, groups = GroupStratifiedKFold(2), ROWS[GROUPS]
    y = list(columns(Y.tolist()))[form]
    for (_, found), (_, expected) in zip(
        splitter.split(np.zeros(N), y, sensitive_features=groups),
        splitter.split(np.zeros(N), Y, sensitive_features=groups),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)
