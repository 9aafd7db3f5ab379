"""Encoding groups: every container, every kind of missing value, every error."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skfair.utils._groups import encode_groups
from skfair.utils._labels import encode_labels


def groups_of(features, n_samples=4, **kwargs):
    groups = encode_groups(features, n_samples=n_samples, **kwargs)
    assert groups.codes.dtype == np.int64
    return groups.codes.tolist(), groups.labels


class OtherFrame:
    """A data frame of another library: it has ``columns``, and returns columns by name."""

    def __init__(self, data):
        self.data = data
        self.columns = list(data)

    def __getitem__(self, name):
        return np.array(self.data[name], dtype=object)


@pytest.mark.parametrize(
    "features",
    [
        ["m", "f", "m", "f"],
        ("m", "f", "m", "f"),
        np.array(["m", "f", "m", "f"]),
        np.array(["m", "f", "m", "f"], dtype=object),
        np.array([["m"], ["f"], ["m"], ["f"]]),
        [["m"], ["f"], ["m"], ["f"]],
        pd.Series(["m", "f", "m", "f"], index=[7, 7, 1, 0]),
        pd.Series(["m", "f", "m", "f"], dtype="string"),
        pd.Series(["m", "f", "m", "f"], dtype="category"),
        pd.Categorical(["m", "f", "m", "f"], categories=["x", "m", "f"], ordered=True),
        pd.Index(["m", "f", "m", "f"]),
        pd.DataFrame({"sex": ["m", "f", "m", "f"]}),
        {"sex": ["m", "f", "m", "f"]},
        OtherFrame({"sex": ["m", "f", "m", "f"]}),
    ],
    ids=lambda f: type(f).__name__,
)
def test_containers_of_strings(features):
    assert groups_of(features) == ([1, 0, 1, 0], ("f", "m"))


@pytest.mark.parametrize(
    "features, labels",
    [
        ([10, 2, 10, 2], (2, 10)),
        (np.array([10, 2, 10, 2], dtype=np.uint8), (2, 10)),
        (torch.tensor([10, 2, 10, 2]), (2, 10)),
        (pd.Series([10, 2, 10, 2], dtype="Int64"), (2, 10)),
        (np.array([10.0, 2.0, 10.0, 2.0]), (2, 10)),
        ([True, False, True, False], (False, True)),
        (pd.Series([True, False, True, False], dtype="boolean"), (False, True)),
        ([1, "a", 1, "a"], (1, "a")),
        ([("b", 1), ("a", 2), ("b", 1), ("a", 2)], (("a", 2), ("b", 1))),
    ],
    ids=str,
)
def test_types_of_labels(features, labels):
    codes, found = groups_of(features)
    expected = [0, 1, 0, 1] if labels == (1, "a") else [1, 0, 1, 0]
    assert (codes, found) == (expected, labels)
    assert all(not isinstance(label, np.generic) for label in found)


def test_dates_stay_dates():
    days = np.array(["2020-02-01", "2020-01-01"], dtype="datetime64[ns]")
    assert groups_of(days, 2)[1] == (pd.Timestamp("2020-01-01"), pd.Timestamp("2020-02-01"))


@pytest.mark.parametrize("container", [pd.DataFrame, dict, OtherFrame])
def test_intersections(container):
    features = container({"sex": ["m", "f", "m", "f"], "old": [True, False, False, False]})
    groups = encode_groups(features, n_samples=4)
    assert groups.labels == (("f", False), ("m", False), ("m", True))
    assert groups.codes.tolist() == [2, 0, 1, 0]
    assert groups.names == ("sex", "old")
    assert groups.rows() == list(groups.labels)
    assert encode_groups(["b", "a"], n_samples=2).rows() == [("a",), ("b",)]


def test_array_of_two_columns_and_default_names():
    groups = encode_groups(np.array([[1, 2], [1, 0], [0, 2]]), n_samples=3)
    assert groups.labels == ((0, 2), (1, 0), (1, 2))
    assert groups.names == ("sensitive_feature_0", "sensitive_feature_1")
    assert encode_groups(pd.Series([1], name="sex"), n_samples=1).names == ("sex",)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["", "a", "B"]), st.booleans()), min_size=1
    )
)
def test_intersections_equal_sorted_distinct_rows(rows):
    columns = {f"c{i}": list(column) for i, column in enumerate(zip(*rows, strict=True))}
    groups = encode_groups(columns, n_samples=len(rows))
    assert groups.labels == tuple(sorted(set(rows)))
    assert [groups.labels[code] for code in groups.codes] == rows


def test_many_wide_columns_do_not_overflow():
    rng = np.random.default_rng(0)
    table = rng.integers(1000, size=(1000, 10)).astype(str)
    groups = encode_groups(table, n_samples=1000)
    assert [groups.labels[code] for code in groups.codes] == list(map(tuple, table.tolist()))


@pytest.mark.parametrize("dtype", [int, float])
def test_many_numbers_are_a_measurement(dtype):
    ages = np.arange(18, 90, dtype=dtype)
    with pytest.raises(
        ValueError, match=r"age.* has 72 different numbers, from 18 to 89.*pandas.cut"
    ):
        encode_groups({"age": ages, "sex": ["f", "m"] * 36}, n_samples=72)
    assert len(encode_groups(ages[:30], n_samples=30).labels) == 30
    assert len(encode_groups(ages.astype(str), n_samples=72).labels) == 72


MISSING = {
    "None": ["b", None, "a", "b"],
    "nan": ["b", np.nan, "a", "b"],
    "NA": ["b", pd.NA, "a", "b"],
    "NaT": ["b", pd.NaT, "a", "b"],
    "string": pd.Series(["b", None, "a", "b"], dtype="string"),
    "mask": np.ma.array(["b", "x", "a", "b"], mask=[False, True, False, False]),
    "category": pd.Series(["b", None, "a", "b"], dtype="category"),
}


@pytest.mark.parametrize("features", MISSING.values(), ids=MISSING)
def test_missing_values(features):
    with pytest.raises(
        ValueError, match=r"sensitive_features is missing for 1 of 4 samples \(rows 1\).*Drop"
    ):
        encode_groups(features, n_samples=4)
    assert groups_of(features, missing="keep") == ([1, -1, 0, 1], ("a", "b"))
    assert groups_of(features, missing="group") == ([1, 2, 0, 1], ("a", "b", "missing"))


@pytest.mark.parametrize(
    "features", [np.array([2.0, np.nan, 0]), pd.Series([2, None, 0], dtype="Int64")]
)
def test_missing_integers(features):
    assert groups_of(features, 3, missing="keep") == ([1, -1, 0], (0, 2))


def test_missing_in_one_of_several_columns():
    features = {"sex": ["f", None, "m"], "old": [0, 1, None]}
    with pytest.raises(ValueError, match="column 'sex' of sensitive_features"):
        encode_groups(features, n_samples=3)
    kept = encode_groups(features, n_samples=3, missing="keep")
    assert (kept.codes.tolist(), kept.labels) == ([0, -1, -1], (("f", 0),))
    grouped = encode_groups(features, n_samples=3, missing="group")
    assert grouped.labels == (("f", 0), ("m", "missing"), ("missing", 1))
    assert grouped.codes.tolist() == [0, 2, 1]


def test_all_missing():
    with pytest.raises(ValueError, match="3 of 3 samples"):
        encode_groups([None] * 3, n_samples=3)
    assert groups_of([None] * 3, 3, missing="keep") == ([-1] * 3, ())
    assert groups_of({"a": [None] * 3, "b": [1, 2, 3]}, 3, missing="keep") == ([-1] * 3, ())


def test_a_label_called_missing_is_not_merged():
    codes, labels = groups_of(["missing", None, "a", "a"], missing="group")
    assert (codes, labels) == ([2, 0, 1, 1], ("(missing)", "a", "missing"))


@pytest.mark.parametrize(
    "features, error, message",
    [
        (["f", "m"], ValueError, "has 2 values for 4 samples"),
        ({"a": [1, 2, 3, 4], "b": [1]}, ValueError, "'b' of sensitive_features has 1 values"),
        ([0.5, 1.5, 2.5, 3.5], ValueError, "continuous values, such as 0.5.*pandas.cut"),
        ([0.0, 1.0, np.inf, 1.0], ValueError, "continuous"),
        (pd.Series([0.1, None, 1.0, 1.0]), ValueError, "continuous"),
        ([], ValueError, "is empty"),
        ({}, ValueError, "has no columns"),
        (pd.DataFrame(index=range(4)), ValueError, "has no columns"),
        (np.empty((4, 0)), ValueError, "has no columns"),
        (pd.DataFrame(np.zeros((4, 2)), columns=["a", "a"]), ValueError, "same name"),
        (np.zeros((4, 1, 1)), ValueError, "must be 1-D, or 2-D"),
        ({"a": [[1, 2], [3, 4], [1, 2], [1, 2]]}, TypeError, "cannot be hashed"),
        ({"a": np.zeros((4, 2))}, ValueError, "one label per sample"),
        ([{}, {}, {}, {}], TypeError, "cannot be hashed"),
        (
            None,
            ValueError,
            "sensitive_features is None.*enable_metadata_routing",
        ),
        ("fmfm", TypeError, "got str"),
        ({"f"}, TypeError, "got set"),
        (SimpleNamespace(), ValueError, "must be 1-D"),
    ],
    ids=str,
)
def test_refusals(features, error, message):
    with pytest.raises(error, match=message):
        encode_groups(features, n_samples=4)


def test_refusals_name_the_argument():
    with pytest.raises(ValueError, match=r"^groups_val has 1 values"):
        encode_groups([1], n_samples=2, name="groups_val")
    with pytest.raises(ValueError, match="missing='drop' is not one of"):
        encode_groups([1], n_samples=1, missing="drop")


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=2)), min_size=1))
def test_labels_round_trip(values):
    codes, labels = encode_labels(values, name="y")
    assert [labels[c] if c >= 0 else None for c in codes] == values
    assert len(set(labels)) == len(labels)
    assert set(codes[codes >= 0]) == set(range(len(labels)))


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=30), st.integers(1, 3))
def test_text_arrays_are_encoded_as_lists_are(texts, step):
    array = np.array(texts * 2)[::step]  # texts of any width, contiguous or not
    codes, labels = encode_labels(array, name="texts")
    assert [labels[code] for code in codes] == array.tolist()
    assert labels == sorted(set(array.tolist()))


@pytest.mark.parametrize("made", [list, np.array, lambda x: np.array(x, dtype=object), pd.Series])
def test_text_does_not_end_at_a_nul(made):
    values = ["a", "a\0b", "x" * 17, "a", "\0b"]
    codes, labels = encode_labels(made(values), name="texts")
    assert [labels[code] for code in codes] == values
    assert labels == ["\0b", "a", "a\0b", "x" * 17]


def test_text_of_the_other_byte_order():
    array = np.array(["b", "a", "b"]).astype(">U1")
    codes, labels = encode_labels(array, name="texts")
    assert (codes.tolist(), labels) == ([1, 0, 1], ["a", "b"])


class Dask:
    __dask_graph__ = None

    def __len__(self):
        return 4


TWO = [0, 0, 1, 1], [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda: scipy.sparse.csr_matrix(np.eye(2)[TWO[0]]), r"csr_matrix.*toarray\(\)\.argmax"),
        (lambda: scipy.sparse.coo_array(np.eye(2)[TWO[0]]), r"coo_array.*toarray\(\), whose col"),
        (lambda: iter(TWO[0]), r"read only once.*Give list\(sensitive_features\)"),
        (lambda: dict(enumerate(TWO[0])).values(), r"Give list\(sensitive_features\)"),
        (lambda: pl.LazyFrame({"a": TWO[0]}), r"Give sensitive_features\.collect\(\)"),
        (Dask, r"Give sensitive_features\.compute\(\)"),
        (lambda: list(map(pd.Series, TWO)), r"2 columns without names.*'name': column"),
        (lambda: tuple(map(pl.Series, TWO)), r"2 columns without names.*DataFrame"),
        (lambda: list(map(torch.tensor, TWO)), r"2 columns without names"),
        (lambda: np.array([[0, 1, 0, 1]] * 2), r"numpy\.column_stack"),
        (lambda: len, r"got builtin_function_or_method"),
    ],
)
def test_what_holds_no_label_for_each_sample_is_refused_with_what_to_give(features, message):
    with pytest.raises((TypeError, ValueError), match=message):
        encode_groups(features(), n_samples=4)


def test_a_list_of_numbers_of_torch():
    groups = encode_groups([torch.tensor(i) for i in (3, 1, 3)], n_samples=3)
    assert (groups.codes.tolist(), groups.labels) == ([1, 0, 1], (1, 3))
