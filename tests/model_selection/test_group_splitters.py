"""Splits on class and sensitive features: no part misses a group."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skfair.model_selection import GroupStratifiedKFold, GroupStratifiedShuffleSplit
from skfair.utils import SmallGroupWarning

Y = np.array([0, 0, 1, 1, 0, 1] * 10)
SEX = np.array(list("fmfmmmmfff") * 6)
X = np.random.default_rng(0).normal(size=(60, 3)) + Y[:, None]

SPLITTERS = [
    GroupStratifiedKFold(3),
    GroupStratifiedKFold(3, shuffle=True, random_state=0),
    GroupStratifiedShuffleSplit(3, random_state=0),
]


def rows_of_groups(least):
    """Classes and groups of the rows, in any order; a group may lack a class or have few of it."""
    classes = st.lists(
        st.lists(st.integers(0, 3), min_size=least, max_size=25), min_size=2, max_size=4
    )
    return classes.map(
        lambda classes: [(y, group) for group, ys in enumerate(classes) for y in ys]
    ).flatmap(lambda rows: st.permutations(rows).map(lambda rows: np.array(rows).T))


def split_quietly(splitter, y, groups):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallGroupWarning)
        return list(splitter.split(np.zeros(len(y)), y, sensitive_features=groups))


def random_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002


# ---------------------------------------------------------------- what is promised


@given(
    rows=rows_of_groups(5),
    n_splits=st.integers(2, 5),
    seed=st.one_of(st.none(), st.integers(0, 99)),
)
def test_kfold_keeps_its_promises(rows, n_splits, seed):
    y, groups = rows
    splitter = GroupStratifiedKFold(n_splits, shuffle=seed is not None, random_state=seed)
    parts = split_quietly(splitter, y, groups)
    assert len(parts) == n_splits
    everything = np.arange(len(y))
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in parts])), everything)
    cells = 10 * groups + y
    for train, test in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), everything)
        assert (np.diff(train) > 0).all()
        assert (np.diff(test) > 0).all()
        assert set(groups[test]) == set(groups[train]) == set(groups)
    # Sizes, groups and combinations are the same in each fold, to within a row: a combination
    # with as many rows as folds is in each, and one with fewer in as many folds as it has rows.
    for labels in (np.zeros(len(y)), groups, cells):
        for label in np.unique(labels):
            counts = [np.count_nonzero(labels[test] == label) for _, test in parts]
            assert max(counts) - min(counts) <= 1


@given(
    rows=rows_of_groups(2),
    test_size=st.one_of(st.floats(0.01, 0.99), st.integers(1, 100)),
    seed=st.integers(0, 99),
)
def test_shuffle_split_keeps_its_promises(rows, test_size, seed):
    y, groups = rows
    n = len(y)
    test_size = min(test_size, n - 1)
    splitter = GroupStratifiedShuffleSplit(2, test_size=test_size, random_state=seed)
    parts = split_quietly(splitter, y, groups)
    share = test_size if test_size < 1 else test_size / n
    sizes = np.unique(10 * groups + y, return_counts=True)[1]
    for train, test in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(n))
        assert (np.diff(train) > 0).all()
        assert (np.diff(test) > 0).all()
        assert set(groups[test]) == set(groups[train]) == set(groups)
        if sizes.min() < 2:
            continue
        low = high = 0
        for cell, size in zip(*np.unique(10 * groups + y, return_counts=True), strict=True):
            n_test = np.count_nonzero((10 * groups + y)[test] == cell)
            assert 1 <= n_test <= size - 1
            assert abs(n_test - share * size) < 1 + 1e-9 or n_test in (1, size - 1)
            low += min(max(1, np.floor(share * size)), size - 1)
            high += min(max(1, np.ceil(share * size)), size - 1)
        assert len(test) == min(max(round(share * n), low), high)


@given(
    sizes=st.lists(st.integers(3, 12), min_size=4, max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_without_rare_cells_kfold_is_stratified_kfold_on_the_cells(sizes, order):
    # StratifiedKFold numbers labels as they appear: one row of each first, in order.
    tail = [cell for cell, size in enumerate(sizes) for _ in range(size - 1)]
    order.shuffle(tail)
    cells = np.array([0, 1, 2, 3, *tail])
    X = np.zeros(len(cells))
    ours = GroupStratifiedKFold(3).split(X, cells % 2, sensitive_features=cells // 2)
    for one, other in zip(ours, StratifiedKFold(3).split(X, cells), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_folds_by_hand():
    y = np.array([0, 0, 0, 0, 1, 1])
    groups = list("aabbab")
    with pytest.warns(SmallGroupWarning):  # one row each of class 1
        parts = list(GroupStratifiedKFold(3).split(y, y, sensitive_features=groups))
    # Dealt in the order a0, a0, a1, b0, b0, b1.
    assert [test.tolist() for _, test in parts] == [[0, 2], [1, 3], [4, 5]]


def test_rows_are_tested_equally_often():
    y, groups = np.repeat([0, 1], [30, 10]), np.tile([0, 1], 20)
    counts = np.zeros(40)
    splitter = GroupStratifiedShuffleSplit(400, test_size=0.2, random_state=0)
    for _, test in splitter.split(y, y, sensitive_features=groups):
        counts[test] += 1
    # One in five; the standard deviation of a count is 8.
    assert counts.min() > 80 - 40
    assert counts.max() < 80 + 40


def test_chance_decides_which_of_equal_strata_gets_the_odd_row():
    y, groups = np.repeat([0, 1], 10), np.tile([0, 1], 10)  # four strata of five
    n_test = np.zeros(4)
    splitter = GroupStratifiedShuffleSplit(200, test_size=6, random_state=0)  # 1.5 from each
    for _, test in splitter.split(y, y, sensitive_features=groups):
        taken = np.bincount((2 * y + groups)[test], minlength=4)
        assert sorted(taken) == [1, 1, 2, 2]
        n_test += taken
    assert (np.abs(n_test - 300) < 40).all()  # standard deviation 7


def test_strata_furthest_below_their_share_get_the_odd_rows():
    y, groups = np.repeat([0, 1, 0, 1], [9, 11, 10, 10]), np.repeat([0, 1], 20)
    splitter = GroupStratifiedShuffleSplit(20, test_size=10, random_state=0)
    seen = set()
    for _, test in splitter.split(y, y, sensitive_features=groups):
        seen.add(tuple(np.bincount((2 * groups + y)[test])))
    assert seen == {(2, 3, 3, 2), (2, 3, 2, 3)}  # a quarter: 2.25, 2.75, 2.5 and 2.5


@pytest.mark.parametrize("test_size, expected", [(1, 4), (4, 4), (9, 9), (19, 16), (0.999, 16)])
def test_a_size_that_cannot_be_is_met_as_nearly_as_can_be(test_size, expected):
    y, groups = np.repeat([0, 1], 10), np.tile([0, 1], 10)
    splitter = GroupStratifiedShuffleSplit(1, test_size=test_size, random_state=0)
    ((_, test),) = splitter.split(y, y, sensitive_features=groups)
    assert len(test) == expected


# ---------------------------------------------------------------- rare combinations


def test_rare_cells_are_merged_with_the_next_larger_one_and_named():
    # In group "a": 1, 2, 9 and 20 rows of the four classes; group "b" has 10 of each.
    y = np.repeat([0, 1, 2, 3] * 2, [1, 2, 9, 20, 10, 10, 10, 10])
    groups = np.repeat(["a", "b"], [32, 40])
    with pytest.warns(SmallGroupWarning) as caught:
        parts = list(GroupStratifiedKFold(4).split(y, y, sensitive_features=groups))
    message = str(caught[0].message)
    assert "n_splits=4: class 0 in group 'a' (1 row), class 1 in group 'a' (2 rows). " in message
    assert "undefined" in message
    assert len(caught) == 1
    for _, test in parts:  # 1 + 2 + 9 in one stratum
        assert np.count_nonzero((groups[test] == "a") & (y[test] < 3)) == 3
        assert np.count_nonzero((groups[test] == "a") & (y[test] == 3)) == 5
    # The two rows of class 1 are in two folds.
    assert sorted(np.count_nonzero(y[test][groups[test] == "a"] == 1) for _, test in parts) == [
        0,
        0,
        1,
        1,
    ]


def test_a_single_row_is_on_one_side_of_each_split():
    y = np.array([0] * 9 + [1] + [0, 1] * 5)
    groups = np.repeat(["a", "b"], 10)
    splitter = GroupStratifiedShuffleSplit(50, test_size=0.3, random_state=0)
    with pytest.warns(SmallGroupWarning, match=r"class 1 in group 'a' \(1 row\)\. "):
        parts = list(splitter.split(y, y, sensitive_features=groups))
    where = [9 in test for _, test in parts]
    assert 5 < sum(where) < 25
    assert all((9 in test) != (9 in train) for train, test in parts)


def test_many_rare_cells_are_counted():
    y = np.concatenate([np.arange(15), np.arange(15)])
    with pytest.warns(SmallGroupWarning, match=r"\(1 row\), 20 more\. Each"):
        GroupStratifiedKFold(2).split(y, y, sensitive_features=np.repeat([0, 1], 15))


@pytest.mark.parametrize(
    "splitter, fix",
    [(GroupStratifiedKFold(5), "Use fewer splits, merge"), (SPLITTERS[2], "or drop their rows")],
)
def test_a_group_that_is_too_small(splitter, fix):
    groups = {"sex": ["f"] * 59 + ["m"], "old": [True] * 60}
    with pytest.raises(ValueError, match=r"sex='m', old=True \(1 row\)") as caught:
        splitter.split(X, Y, sensitive_features=groups)
    assert fix in str(caught.value)


# ---------------------------------------------------------------- inputs


TWO = np.column_stack([SEX, np.tile(["old", "young"], 30)])


@pytest.mark.parametrize("splitter", SPLITTERS, ids=repr)
@pytest.mark.parametrize(
    "groups, y",
    [
        (SEX.tolist(), Y.tolist()),
        (pd.Series(SEX, index=range(100, 160)), pd.Series(Y, index=range(200, 260))),
        (pl.Series("sex", SEX), pl.Series("y", Y)),
        (torch.tensor((SEX == "m").astype(int)), torch.tensor(Y)),
        (pd.DataFrame({"sex": SEX}), Y.astype(bool)),
        (pl.DataFrame({"sex": SEX}), Y.astype(float)),
        ({"sex": SEX}, np.array(["no", "yes"], dtype=object)[Y]),
    ],
)
def test_any_container_gives_the_same_splits(splitter, groups, y):
    expected = list(splitter.split(X, Y, sensitive_features=SEX))
    got = list(splitter.split(pd.DataFrame(X), y, sensitive_features=groups))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("splitter", SPLITTERS, ids=repr)
def test_several_columns_are_intersections(splitter):
    frame = pd.DataFrame(TWO, columns=["sex", "age"])
    joint = np.char.add(TWO[:, 0], TWO[:, 1])
    for train, test in splitter.split(X, Y, sensitive_features=frame):
        assert set(joint[test]) == set(joint[train]) == set(joint)
        assert len(set(joint)) == 4


@pytest.mark.parametrize("splitter", SPLITTERS, ids=repr)
@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({}, "enable_metadata_routing=True"),
        ({}, r"cv=list\(splitter\.split\("),
        ({"groups": SEX}, "as sensitive_features"),
        ({"sensitive_features": SEX[:-1]}, "59 values for 60 samples"),
        ({"sensitive_features": [None, *SEX[1:]]}, r"missing for 1 of 60 samples \(rows 0\)"),
        ({"sensitive_features": [None] * 60}, "missing for 60 of 60.*cv=sklearn.*PredefinedSplit"),
        ({"sensitive_features": X[:, 0]}, "pandas.cut"),
        ({"sensitive_features": ["f"] * 60}, r"one group only \('f'\)"),
        ({"sensitive_features": SEX, "y": None}, "needs y"),
        ({"sensitive_features": SEX, "y": X[:, 0]}, "bin the target"),
        ({"sensitive_features": SEX, "y": Y[:-1]}, "59 labels for the 60 samples"),
        ({"sensitive_features": SEX, "y": [None, *Y[1:]]}, "y is missing for 1 of 60"),
        ({"sensitive_features": SEX, "y": np.zeros((60, 2))}, r"shape \(60, 2\)"),
    ],
)
def test_bad_input_is_refused_at_once(splitter, kwargs, message):
    with pytest.raises(ValueError, match=message):
        splitter.split(X, **{"y": Y, **kwargs})  # not only when the first split is asked for


@pytest.mark.parametrize("n_splits", [1, 0, -2, 2.0, "5", None, True])
def test_bad_number_of_folds(n_splits):
    with pytest.raises(ValueError, match="n_splits must be an integer of at least 2"):
        GroupStratifiedKFold(n_splits)


@pytest.mark.parametrize("n_splits", [0, -2, 2.5, "5", None, True])
def test_bad_number_of_splits(n_splits):
    with pytest.raises(ValueError, match="n_splits must be an integer of at least 1"):
        GroupStratifiedShuffleSplit(n_splits)


@pytest.mark.parametrize("test_size", [0, 1.0, 0.0, -0.1, 1.5, -3, np.nan, "0.2", None, True])
def test_bad_test_size(test_size):
    with pytest.raises(ValueError, match="test_size must be"):
        GroupStratifiedShuffleSplit(test_size=test_size)


def test_a_test_part_of_everything():
    splitter = GroupStratifiedShuffleSplit(test_size=60)
    with pytest.raises(ValueError, match="leaves none of 60 samples"):
        splitter.split(X, Y, sensitive_features=SEX)


def test_bad_shuffling():
    with pytest.raises(TypeError, match="shuffle must be"):
        GroupStratifiedKFold(shuffle="yes")
    with pytest.raises(ValueError, match="Set shuffle=True"):
        GroupStratifiedKFold(random_state=0)


# ---------------------------------------------------------------- in scikit-learn


def test_reprs():
    assert repr(GroupStratifiedKFold(3)) == (
        "GroupStratifiedKFold(n_splits=3, random_state=None, shuffle=False)"
    )
    assert repr(GroupStratifiedShuffleSplit(test_size=7)) == (
        "GroupStratifiedShuffleSplit(n_splits=10, random_state=None, test_size=7)"
    )


@pytest.mark.parametrize("splitter", SPLITTERS, ids=repr)
def test_number_of_splits(splitter):
    assert splitter.get_n_splits() == splitter.get_n_splits(X, Y, sensitive_features=SEX) == 3


@pytest.mark.parametrize("splitter", SPLITTERS[1:], ids=repr)
def test_the_seed_decides(splitter):
    def rows(splitter):
        return [test.tolist() for _, test in splitter.split(X, Y, sensitive_features=SEX)]

    assert rows(splitter) == rows(splitter)
    other = clone(splitter, safe=False)
    other.random_state = 1
    assert rows(splitter) != rows(other)


@pytest.mark.parametrize("splitter", SPLITTERS, ids=repr)
@pytest.mark.parametrize(
    "groups", [SEX, pd.Series(SEX), pl.Series("sex", SEX), pd.DataFrame(TWO), SEX.tolist()]
)
def test_routed_without_a_request_set(splitter, groups):
    model = make_pipeline(StandardScaler(), LogisticRegression())
    expected = cross_val_score(
        model, X, Y, cv=list(splitter.split(X, Y, sensitive_features=groups))
    )
    params = {"sensitive_features": groups}
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_validate(model, X, Y, cv=splitter, params=params)["test_score"]
        np.testing.assert_array_equal(scores, expected)
        search = GridSearchCV(model, {"logisticregression__C": [0.1, 1]}, cv=splitter, n_jobs=2)
        search.fit(X, Y, **params)
    for i in range(3):
        assert search.cv_results_[f"split{i}_test_score"][1] == expected[i]


def test_cross_val_predict():
    splitter = GroupStratifiedKFold(3)
    model = LogisticRegression()
    expected = cross_val_predict(model, X, Y, cv=list(splitter.split(X, Y, sensitive_features=SEX)))
    with sklearn.config_context(enable_metadata_routing=True):
        got = cross_val_predict(
            model, X, Y, cv=splitter, params={"sensitive_features": pd.Series(SEX)}
        )
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("splitter", SPLITTERS, ids=repr)
def test_successive_halving(splitter):
    grid = {"C": [0.01, 0.1, 1.0, 10.0]}
    options = {"resource": "max_iter", "max_resources": 100, "min_resources": 30}
    # Few iterations do not converge.
    model = LogisticRegression(tol=1)
    with sklearn.config_context(enable_metadata_routing=True):
        search = HalvingGridSearchCV(model, grid, cv=splitter, **options)
        search.fit(X, Y, sensitive_features=SEX)
        assert search.n_splits_ == 3
        if splitter.random_state is not None:
            unsteady = clone(splitter, safe=False)
            unsteady.random_state = None
            with pytest.raises(ValueError, match="consistent folds"):
                HalvingGridSearchCV(model, grid, cv=unsteady, **options).fit(
                    X, Y, sensitive_features=SEX
                )


@pytest.mark.parametrize("routing", [False, True])
def test_a_search_that_was_not_given_the_groups(routing):
    search = GridSearchCV(LogisticRegression(), {"C": [1]}, cv=GroupStratifiedKFold(3))
    with (
        sklearn.config_context(enable_metadata_routing=routing),
        pytest.raises(ValueError, match="enable_metadata_routing=True"),
    ):
        search.fit(X, Y)
    with pytest.raises(ValueError, match="Pass the group labels to stratify on as sensitive"):
        search.fit(X, Y, groups=SEX)


@settings(max_examples=20)
@given(seed=st.integers(0, 99))
def test_splitting_changes_nothing_that_it_was_given(seed):
    splitter = GroupStratifiedShuffleSplit(2, random_state=seed)
    y, groups = Y.copy(), SEX.copy()
    state = random_state()
    list(splitter.split(X, y, sensitive_features=groups))
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(groups, SEX)
    np.testing.assert_array_equal(random_state(), state)
