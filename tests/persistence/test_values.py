"""Values that are converted to JSON and tensors and back are unchanged."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skfair.persistence import InvalidModelError
from skfair.persistence._values import Unsaveable, ValueReader, ValueWriter


def refuse(value, path):
    raise Unsaveable(f"a {type(value).__name__}")


def refuse_kind(kind, content, path):
    raise InvalidModelError(kind)


def through_json(value):
    writer = ValueWriter(refuse)
    text = json.dumps(writer.write(value, "root"), allow_nan=False)
    return ValueReader(writer.tensors, refuse_kind).read(json.loads(text), "root")


def same(one, two):
    """Whether two values are equal in type and value. NaN is equal to itself."""
    if type(one) is not type(two):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return len(one) == len(two) and all(
            same(k, j) and same(v, w)
            for (k, v), (j, w) in zip(one.items(), two.items(), strict=True)
        )
    if isinstance(one, np.ndarray):
        if one.dtype == object:
            return one.shape == two.shape and all(map(same, one.flat, two.flat))
        order = one.flags.f_contiguous == two.flags.f_contiguous
        return one.dtype == two.dtype and one.shape == two.shape and order and same_bits(one, two)
    if isinstance(one, float):
        return one == two or (math.isnan(one) and math.isnan(two))
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    return one == two


def same_bits(one, two):
    return one.tobytes() == two.tobytes()


numbers = st.sampled_from(["?", "i1", "i2", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
arrays = st.builds(
    lambda array, order: np.array(array, order=order),
    hnp.arrays(
        numbers.map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6)
    ),
    st.sampled_from("CF"),
)
texts = hnp.arrays(st.sampled_from(["U1", "U7"]).map(np.dtype), hnp.array_shapes(max_dims=2))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)
keys = st.one_of(
    st.text(max_size=5), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    st.one_of(scalars, arrays, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(values)
def test_data_comes_back_as_it_was(value):
    assert same(through_json(value), value)


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.1),
        np.int64(3),
        np.str_("a"),
        np.bool_(True),
        np.float64("nan"),
        np.dtype("uint8"),
        torch.float64,
        torch.bfloat16,
        torch.device("cuda:1"),
        torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        {"weight": torch.ones(2), "bias": torch.zeros(0)},
        {3: torch.ones(2)},
        {},
        np.array([("a", 1), ("b", 2), None, 0.5], dtype="O"),
        np.array([[None, "x"]], dtype=object),
        np.linspace(0, 1, 100),
        np.asfortranarray(np.arange(12.0).reshape(3, 4) / 7),
        np.array([np.nan, -0.0, np.inf]),
    ],
    ids=repr,
)
def test_one_of_each_kind(value):
    assert same(through_json(value), value)


def test_arrays_in_other_orders_and_layouts():
    array = np.arange(100, dtype=">i4")
    found = through_json(array)
    assert found.dtype == np.dtype("i4")
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(through_json(np.arange(100)[::-3]), np.arange(100)[::-3])
    np.testing.assert_array_equal(
        through_json(np.broadcast_to(1.5, (40, 2))), np.full((40, 2), 1.5)
    )


def test_wide_text_of_few_letters_becomes_narrow():
    words = np.array(["no", "yes"], dtype="<U5000")
    found = through_json(words)
    assert found.dtype == np.dtype("<U3")
    np.testing.assert_array_equal(found, words)
    assert same(through_json(words.astype("<U64")), words.astype("<U64"))


def test_tables():
    table = pd.DataFrame(
        {
            "text": ["a", None, "c"],
            "number": [0.1, np.nan, 3.0],
            "count": [1, 2, 3],
            "flag": [True, False, True],
            "mixed": np.array([1, "x", None], dtype=object),
        }
    ).rename_axis("epoch")
    pd.testing.assert_frame_equal(through_json(table), table)
    empty = pd.DataFrame({}).rename_axis("epoch")
    pd.testing.assert_frame_equal(through_json(empty), empty)


def test_a_generator_goes_on_where_it_was():
    generator = np.random.RandomState(3)
    generator.normal(size=5)
    np.testing.assert_array_equal(through_json(generator).normal(size=9), generator.normal(size=9))


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        1j,
        np.array([1j]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.longdouble(1),
        np.ma.masked_array([1, 2], [True, False]),
        np.zeros(2, dtype=[("a", int)]),
        pd.DataFrame({"a": [1]}, index=["x"]),
        pd.DataFrame({"a": pd.Categorical(["x"])}),
        dict.fromkeys(range(10_001)),
        np.random.default_rng(0),
        len,
        [1, {"a": (object(),)}],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_data_is_refused(value):
    with pytest.raises(Unsaveable):
        through_json(value)


ONE = {"array": {"dtype": "f8", "shape": [1], "items": [1.0]}}

SCALAR = {"array": {"dtype": "f8", "shape": [], "items": [1.0]}}
TENSOR = {"array": {"dtype": "f8", "shape": [2], "tensor": "t"}}


@pytest.mark.parametrize(
    "written",
    [
        {"array": {"dtype": "<U1000000000", "shape": [1], "items": ["a"]}},
        {"array": {"dtype": "V99999999999", "shape": [1], "items": [1]}},
        {"array": {"dtype": "f8", "shape": [10**12], "items": [1.0]}},
        {"array": {"dtype": "f8", "shape": [-1, -1], "items": [1.0]}},
        {"array": {"dtype": "f8", "shape": [3], "tensor": "t"}},
        {"array": {"dtype": "i8", "shape": [2], "tensor": "t"}},
        {"array": {"dtype": "f8", "shape": [2], "tensor": "missing"}},
        {"array": {"dtype": "f8", "shape": [1], "items": ["text"]}},
        {"array": {"dtype": "u1", "shape": [1], "items": [256]}},
        {"array": {"dtype": "O", "shape": [1], "items": [{"call": "os.system"}]}},
        {"array": {}},
        {"array": 3},
        {"tensor": "missing"},
        {"tensor": []},
        {"weights": {"a": "missing"}},
        {"weights": []},
        {"float": "1e400"},
        {"float": "__import__('os')"},
        {"dtype": "O"},
        {"dtype": "nothing"},
        {"torch dtype": "load"},
        {"torch dtype": 3},
        {"type": "eval"},
        {"scalar": ONE},
        {"scalar": {"array": {"dtype": "O", "shape": [], "items": [{"tuple": []}]}}},
        {"array": {"dtype": "f8", "shape": [1] * 9, "items": [1.0]}},
        {"array": {"dtype": "f16", "shape": [1], "items": [1.0]}},
        {"array": {"dtype": ">f8", "shape": [1], "items": [1.0]}},
        {"array": {"dtype": "<U3", "shape": [1], "items": [1]}},
        {"device": "nowhere"},
        {"dict": [[ONE, 1]]},
        {"dict": [[1]]},
        {"dict": 7},
        {"slice": [1]},
        {"tuple": 7},
        {
            "DataFrame": {
                "rows": 2,
                "index": None,
                "columns": [["a", "f8", {"array": {"dtype": "f8", "shape": [1], "items": [1.0]}}]],
            }
        },
        {"DataFrame": {"rows": "x", "index": None, "columns": []}},
        {
            "RandomState": {
                "tuple": [
                    "MT19937",
                    {"array": {"dtype": "u4", "shape": [1], "items": [1]}},
                    0,
                    0,
                    0.0,
                ]
            }
        },
        {"torch dtype": "_inductor"},
        {"dict": [[i, 0] for i in range(1001)]},
        {"dict": [[None, 0]]},
        {"DataFrame": {"rows": 1, "index": None, "columns": [[3, "float64", ONE]]}},
        {"array": {"dtype": "<U65", "shape": [2], "items": ["", ""]}},
        {"array": {"dtype": "f8", "shape": [2**31, 0], "items": []}},
        {"array": {"dtype": "b,b,b", "shape": [0], "items": []}},
        {"array": {"dtype": "datetime64[s]", "shape": [0], "items": []}},
        {"device": "hpu"},
        {"device": "meta"},
        {"DataFrame": {"rows": 10**9, "index": None, "columns": [["a", "float64", SCALAR]]}},
        {"DataFrame": {"rows": 2, "index": None, "columns": [["a", "float64", TENSOR]] * 3}},
        {"DataFrame": {"rows": 1, "index": None, "columns": [["a", "int8", ONE]]}},
        {
            "DataFrame": {
                "rows": 1,
                "index": None,
                "columns": [["a", "datetime64[ns, dateutil//etc/passwd]", ONE]],
            }
        },
        {"DataFrame": {"rows": 1, "index": None, "columns": [["a", "int64[pyarrow]", ONE]]}},
        {"other": 1},
        {"tuple": [], "list": []},
        {},
        {"__class__": "x"},
        {"read": 1},
        {"array__": 1},
    ],
    ids=lambda written: json.dumps(written)[:60],
)
def test_values_that_nothing_writes_are_refused(written):
    reader = ValueReader({"t": torch.zeros(2, dtype=torch.float64)}, refuse_kind)
    with pytest.raises(InvalidModelError):
        reader.read(written, "root")


def test_a_generator_that_would_read_beyond_its_numbers():
    writer = ValueWriter(refuse)
    written = writer.write(np.random.RandomState(0), "root")
    written["RandomState"]["tuple"][2] = 10**6
    with pytest.raises(InvalidModelError, match="position"):
        ValueReader(writer.tensors, refuse_kind).read(written, "root")
