"""Odd data: what users pass by mistake, or rightly in a form that nobody thought of.

Each change is a function of a random generator and of good data. The strategies draw names of
changes and a seed, so that an example that fails is short to read, and easy to make again.
"""

import itertools
import tempfile
from collections.abc import Callable

import numpy as np
import pandas as pd
import polars
import scipy.sparse
import torch
from hypothesis import strategies as st

Change = Callable[[np.random.Generator, np.ndarray], object]


def _cast(dtype) -> Change:
    def change(rng, a):
        a = np.asarray(a)
        return (a.real if a.dtype.kind == "c" else a).astype(dtype)

    return change


def _one(value, dtype=np.float64) -> Change:
    def change(rng, a):
        a = np.array(a, dtype=dtype)
        a[tuple(rng.integers(size) for size in a.shape)] = value
        return a

    return change


def _times(factor, dtype=np.float64) -> Change:
    return lambda rng, a: np.asarray(a, dtype=dtype) * factor


def _column(value) -> Change:
    def change(rng, a):
        a = np.array(a, dtype=np.float64)
        a[:, rng.integers(a.shape[1])] = value
        return a

    return change


def _memmap(rng, a):
    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, dtype=a.dtype, mode="w+", shape=a.shape)
    mapped[...] = a
    return mapped


def _read_only(rng, a):
    a = np.array(a)
    a.flags.writeable = False
    return a


def _masked(rng, a):
    return np.ma.MaskedArray(a, rng.random(a.shape) < 0.1)


def _flat(a):
    return np.asarray(a).reshape(len(a), -1)


def _frame(columns=None, dtype=None) -> Change:
    def change(rng, a):
        frame = pd.DataFrame(_flat(a), dtype=dtype)
        if columns is not None:
            frame.columns = list(itertools.islice(itertools.cycle(columns), frame.shape[1]))
        return frame

    return change


def _frame_with(column) -> Change:
    def change(rng, a):
        frame = pd.DataFrame(_flat(a)).astype(object)
        frame[0] = column(len(frame))
        return frame.infer_objects()

    return change


def _ragged(rng, a):
    rows = _flat(a).tolist()
    rows[rng.integers(len(rows))].pop()
    return rows


def _tensor(dtype, *, grad=False) -> Change:
    return lambda rng, a: torch.tensor(np.ascontiguousarray(a)).to(dtype).requires_grad_(grad)


# Same data, or nearly, in another form. What is refused has to be refused in words.
FORMS: dict[str, Change] = {
    **{
        f"as {dtype}": _cast(dtype)
        for dtype in (
            *("bool", "i1", "i4", "i8", "u1", "u2", "u8", "f2", "f4", "f8", "g", ">f4", ">f8"),
            *("O", "U8", "S8", "c8", "M8[D]", "m8[s]"),
        )
    },
    "reversed": lambda rng, a: a[::-1],
    "mirrored": lambda rng, a: a[:, ::-1],
    "Fortran order": lambda rng, a: np.asfortranarray(a),
    "every second of twice": lambda rng, a: np.repeat(a, 2, axis=0)[::2],
    "broadcast row": lambda rng, a: np.broadcast_to(a[:1], a.shape),
    "broadcast column": lambda rng, a: np.broadcast_to(a[:, :1], a.shape),
    "read-only": _read_only,
    "memmap": _memmap,
    "masked": _masked,
    "masked nowhere": lambda rng, a: np.ma.MaskedArray(a),
    "matrix": lambda rng, a: _flat(a).view(np.ndarray).tolist(),
    "tuples": lambda rng, a: tuple(map(tuple, _flat(a).tolist())),
    "list of arrays": lambda rng, a: list(a),
    "object rows": lambda rng, a: np.fromiter(list(a), dtype=object, count=len(a)),
    "structured": lambda rng, a: np.zeros(len(a), dtype=[("a", "f4"), ("b", "i4")]),
    "csr": lambda rng, a: scipy.sparse.csr_matrix(_flat(a).astype(float)),
    "coo array": lambda rng, a: scipy.sparse.coo_array(_flat(a).astype(float)),
    "tensor": _tensor(torch.float32),
    "tensor with gradient": _tensor(torch.float64, grad=True),
    "bfloat16 tensor": _tensor(torch.bfloat16),
    "uint8 tensor": _tensor(torch.uint8),
    "frame": _frame(),
    "frame with names": _frame("abcdefghij"),
    "frame with equal names": _frame("a"),
    "frame with mixed names": _frame(["a", 1]),
    "frame with tuples": _frame([("a", 1), ("b", 2)]),
    "nullable frame": _frame(dtype="Float64"),
    "frame with NA": _frame_with(lambda n: pd.array([None, *[1] * (n - 1)], dtype="Int64")),
    "frame with categories": _frame_with(lambda n: pd.Categorical(["x", "y"] * n)[:n]),
    "frame with dates": _frame_with(lambda n: pd.date_range("2020", periods=n)),
    "frame with text": _frame_with(lambda n: ["1"] * n),
    "frame with arrays": _frame_with(lambda n: [np.zeros(2)] * n),
    "polars": lambda rng, a: polars.DataFrame(_flat(a)),
    "dict": lambda rng, a: {"a": a},
    "set": lambda rng, a: {1.0, 2.0},
    "generator": lambda rng, a: (row for row in a),
    "text": lambda rng, a: "data.csv",
    "None": lambda rng, a: None,
    "number": lambda rng, a: 3.5,
    "object": lambda rng, a: object(),
    "nested array": lambda rng, a: [[[[[[0.0]]]]]],
    "ragged": _ragged,
}

VALUES: dict[str, Change] = {
    "NaN": _one(np.nan),
    "infinity": _one(np.inf),
    "minus infinity": _one(-np.inf),
    "None in it": _one(None, dtype=object),
    "text in it": _one("a", dtype=object),
    "NA in it": _one(pd.NA, dtype=object),
    "1e20 once": _one(1e20),
    "1e38 once": _one(1e38),
    "1e300 once": _one(1e300),
    "1e400 once": _one(np.longdouble("1e400"), dtype=np.longdouble),
    "big integer": _one(10**30, dtype=object),
    "times 1e10": _times(1e10),
    "times 1e18": _times(1e18),
    "times 1e30": _times(1e30),
    "times 1e37": _times(1e37),
    "times 1e300": _times(1e300),
    "times 1e-20": _times(1e-20),
    "times 1e-30": _times(1e-30),
    "times 1e-40": _times(1e-40),
    "times 1e-310": _times(1e-310),
    "plus 1e8": lambda rng, a: np.asarray(a, dtype=float) + 1e8,
    "constant": lambda rng, a: np.full(a.shape, 0.1),
    "zeros": lambda rng, a: np.zeros_like(a),
    "constant column": _column(0.1),
    "column of 1e30": _column(1e30),
    "column of NaN": _column(np.nan),
    "column of 1e-40": _column(1e-40),
    "two values": lambda rng, a: np.asarray(a > np.median(a), dtype=float),
}

SHAPES: dict[str, Change] = {
    "no sample": lambda rng, a: a[:0],
    "no feature": lambda rng, a: a[:, :0],
    "no height": lambda rng, a: a[:, :, :0],
    "no width": lambda rng, a: a[..., :0],
    "one sample": lambda rng, a: a[:1],
    "two samples": lambda rng, a: a[:2],
    "three samples": lambda rng, a: a[:3],
    "one sample less": lambda rng, a: a[:-1],
    "twice": lambda rng, a: np.concatenate([a, a]),
    "one feature": lambda rng, a: a[:, :1],
    "one feature more": lambda rng, a: np.concatenate([a, a[:, :1]], axis=1),
    "one axis": lambda rng, a: np.asarray(a).ravel(),
    "one axis more": lambda rng, a: a[..., None],
    "two axes more": lambda rng, a: a[..., None, None],
    "no axis": lambda rng, a: np.asarray(a).ravel()[0],
    "rows": lambda rng, a: _flat(a),
    "one image": lambda rng, a: a[0],
    "grey": lambda rng, a: a[:, 0],
    "channels last": lambda rng, a: np.moveaxis(a, 1, -1),
    "transposed": lambda rng, a: np.asarray(a).T,
    "one pixel": lambda rng, a: a[:, :, :1, :1],
    "narrower": lambda rng, a: a[..., :-1],
}

DATA = FORMS | VALUES | SHAPES


def _labels(*values) -> Change:
    def change(rng, a):
        array = np.empty(len(values), dtype=object)
        array[:] = values
        codes = np.unique(np.asarray(a), return_inverse=True)[1]
        return array[codes % len(values)]

    return change


def _plain_labels(*values) -> Change:
    return lambda rng, a: np.array(_labels(*values)(rng, a).tolist())


# Of labels and of groups: one value a sample.
LABELS: dict[str, Change] = {
    **{
        name: change for name, change in FORMS.items() if not name.startswith(("mirrored", "frame"))
    },
    **{name: SHAPES[name] for name in ("no sample", "one sample", "two samples", "three samples")},
    **{name: SHAPES[name] for name in ("one sample less", "twice", "no axis", "one axis more")},
    "text labels": _plain_labels("yes", "no"),
    "empty text": _plain_labels("", " "),
    "control characters": _plain_labels("\x1b[2J", "a\r\n\u202eb"),
    "markup": _plain_labels("<script>", "$\\frac$"),
    "lone surrogates": _labels("\ud800", "\udfff"),
    "very long text": _plain_labels("a" * 3000, "b" * 3000),
    "identifiers": lambda rng, a: np.array([f"person\x1b {i}" for i in range(len(a))]),
    "unicode": _plain_labels("\u00e4", "\U0001f600"),
    "bytes": _plain_labels(b"yes", b"no"),
    "object labels": _labels("yes", "no"),
    "text and numbers": _labels("yes", 1),
    "text and None": _labels("yes", None),
    "text and NaN": _labels("yes", np.nan),
    "number and NA": _labels(1, pd.NA),
    "truth and number": _labels(True, 2),
    "tuples as labels": _labels((0, 1), (1, 0)),
    "lists as labels": _labels([0], [1]),
    "classes as labels": _labels(int, str),
    "minus one and one": _plain_labels(-1, 1),
    "negative": _plain_labels(-7, -3),
    "large": _plain_labels(2**53 + 1, 2**53),
    "too large": _labels(2**70, 1),
    "floats": _plain_labels(0.0, 1.0),
    "fractions": _plain_labels(0.5, 1.5),
    "infinite": _plain_labels(0.0, np.inf),
    "NaN among them": _one(np.nan),
    "None among them": _one(None, dtype=object),
    "one value": lambda rng, a: np.zeros(len(a), dtype=int),
    "one of another": lambda rng, a: (np.arange(len(a)) == 3).astype(int),
    "three values": lambda rng, a: np.arange(len(a)) % 3,
    "many values": lambda rng, a: np.arange(len(a)),
    "continuous": lambda rng, a: rng.normal(size=len(a)),
    "dates": lambda rng, a: np.datetime64("2020-01-01") + np.asarray(a).astype(int),
    "time differences": lambda rng, a: pd.to_timedelta(np.asarray(a).astype(int), unit="D"),
    "categories": lambda rng, a: pd.Categorical(np.asarray(a), categories=[9, 1, 0]),
    "category series": lambda rng, a: pd.Series(np.asarray(a), name="c").astype("category"),
    "series with gaps": lambda rng, a: pd.Series(a, index=np.arange(len(a)) * 7, dtype="Int64"),
    "series": lambda rng, a: pd.Series(np.asarray(a), index=rng.permutation(len(a))),
    "index": lambda rng, a: pd.Index(np.asarray(a)),
    "polars series": lambda rng, a: polars.Series("a", np.asarray(a)),
    "one column": lambda rng, a: pd.DataFrame({"a": a}),
    "two columns": lambda rng, a: pd.DataFrame({"a": a, "b": np.arange(len(a)) % 2}),
    "two equal names": lambda rng, a: pd.DataFrame({"a": a, "b": a}).set_axis(["a", "a"], axis=1),
    "nested": lambda rng, a: pd.DataFrame({"a": a, "b": a}),
    "no columns": lambda rng, a: pd.DataFrame(index=range(len(a))),
    "dict of columns": lambda rng, a: {"a": a, "b": a},
    "dict of two lengths": lambda rng, a: {"a": a, "b": a[:-1]},
    "empty dict": lambda rng, a: {},
    "one-hot": lambda rng, a: np.eye(2)[np.asarray(a)],
    "probabilities": lambda rng, a: rng.random((len(a), 2)),
    "three axes": lambda rng, a: np.zeros((len(a), 2, 2)),
    "list": lambda rng, a: np.asarray(a).tolist(),
    "list of lists": lambda rng, a: [[value, value] for value in np.asarray(a).tolist()],
    "ragged list": lambda rng, a: [[value] * (1 + i % 2) for i, value in enumerate(a)],
    "empty list": lambda rng, a: [],
}

WEIGHTS: dict[str, Change] = {
    **{
        name: change for name, change in FORMS.items() if not name.startswith(("mirrored", "frame"))
    },
    **{name: VALUES[name] for name in VALUES if "column" not in name},
    **{name: SHAPES[name] for name in ("no sample", "one sample", "one sample less", "twice")},
    **{name: SHAPES[name] for name in ("no axis", "one axis more", "two axes more")},
    "negative": lambda rng, a: -np.asarray(a),
    "zero but for one": lambda rng, a: np.eye(len(a))[0],
    "zero for half": lambda rng, a: np.arange(len(a)) % 2.0,
    "zero and denormal": lambda rng, a: np.where(np.arange(len(a)) % 2, 0, 1e-45),
    "very unequal": lambda rng, a: np.logspace(-30, 30, len(a)),
}


@st.composite
def changed(draw, good: np.ndarray, changes: dict[str, Change], most: int = 1):
    """Good data after up to `most` changes, and their names."""
    names = draw(st.lists(st.sampled_from(sorted(changes)), max_size=most, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 99)) if names else 0)
    data, done = good, []
    for name in names:
        try:
            with np.errstate(all="ignore"):
                data = changes[name](rng, data)
        except Exception:  # not everything can be changed twice
            continue
        done.append(name)
    return data, done
