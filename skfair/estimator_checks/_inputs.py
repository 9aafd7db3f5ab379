"""Promises about the accepted forms of rows and images."""

import importlib.util
import inspect
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.base import clone

from skfair.estimator_checks._case import (
    Case,
    has_network,
    make_case,
    takes_groups,
    takes_images,
)
from skfair.estimator_checks._registry import promise
from skfair.estimator_checks._running import (
    as_parts,
    assert_close,
    assert_identical,
    module_calls,
    outputs,
)

_CHANNELS = (1, 3, 4)  # possible numbers of channels of an image


def _read_only(X: np.ndarray) -> np.ndarray:
    X = X.copy()
    X.flags.writeable = False
    return X


def _strided(X: np.ndarray) -> np.ndarray:
    """Return a view with the same values that skips every second value along each axis."""
    wide = np.zeros(tuple(2 * size for size in X.shape), X.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in X.shape)]
    view[...] = X
    return view


def _memory_map(X: np.ndarray, folder: Path, mode: Literal["r", "r+"]) -> np.ndarray:
    path = folder / f"{mode.strip('+')}.npy"
    np.save(path, X)
    return np.load(path, mmap_mode=mode)


def _array_forms(X: np.ndarray, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the same values in the same shape, stored in different ways."""
    yield "read-only", _read_only(X)
    yield "not contiguous", _strided(X)
    yield "in Fortran's order", np.asfortranarray(X)
    yield "backwards in memory", X[::-1].copy()[::-1]
    yield "a memory map", _memory_map(X, folder, "r")
    yield "a memory map to be written to", _memory_map(X, folder, "r+")
    yield "a tensor", torch.from_numpy(X.copy())
    if X.ndim == 2 and X.dtype.kind == "f":  # a list of integers would lose the dtype uint8
        yield "a list of lists", X.tolist()
    if X.ndim == 2:
        yield "a table", pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    if X.dtype.kind == "f":
        yield "float64", X.astype(np.float64)


def _values(fitted: Any, form: Any, X: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Return outputs as float64 in the shape of X: a transformer keeps the form of its input."""
    plain = {}
    for method, value in outputs(fitted, form).items():
        parts = as_parts(value)
        if parts[0].size == X.size and parts[0].shape[0] == len(X):
            last = getattr(fitted, "data_format", None) == "channels_last"
            parts = [_as_given(part, X.shape, last).astype(np.float64) for part in parts]
        plain[method] = parts
    return plain


def _as_given(part: np.ndarray, shape: tuple[int, ...], channels_last: bool) -> np.ndarray:
    """Bring samples to this shape, channels first."""
    if len(shape) == 4 and (channels_last or (part.ndim == 4 and part.shape != shape)):
        n, n_channels, height, width = shape
        part = np.moveaxis(part.reshape(n, height, width, n_channels), -1, 1)
    return part.reshape(shape)


def _compare_forms(name: str, case: Case, forms: Iterator[tuple[str, Any, Case]]) -> None:
    expected = _values(case.fit(), case.X, case.X)
    for what, X, other in forms:
        found = _values(other.fit(X), X, case.X)
        if has_network(case.estimator):
            assert_identical(expected, found, f"outputs of {name} where X is {what}")
            continue
        # The last bits of a matrix product in NumPy depend on the memory layout.
        for method, value in expected.items():
            said = f"{method} of {name} where X is {what}"
            assert_close(value, found[method], said, single=False)


@promise()
def check_array_forms(name: str, estimator: Any) -> None:
    """Results do not depend on how X is stored: strided, read-only, mapped, list or table."""
    case = make_case(estimator)
    with tempfile.TemporaryDirectory() as folder:
        forms = _array_forms(case.X, Path(folder))
        _compare_forms(name, case, ((what, X, case) for what, X in forms))


def _labelled_rows(case: Case) -> dict[str, Any]:
    """Return all arguments of ``fit`` with one row per sample, with the same index."""
    parameters = inspect.signature(case.estimator.fit).parameters
    index = np.arange(len(case.X)) + 1000
    rows: dict[str, Any] = {"y": pd.Series(case.y, index)}
    if case.X.ndim == 2:
        rows["X"] = pd.DataFrame(case.X, index, [f"x{i}" for i in range(case.X.shape[1])])
    rows["sensitive_features"] = pd.Series(case.groups, index)
    if "sample_weight" in parameters:
        rows["sample_weight"] = pd.Series(np.ones(len(index)), index)
    return rows


@promise(takes_groups)  # other classifiers ignore an index, as scikit-learn does
def check_row_labels(name: str, estimator: Any) -> None:
    """Arguments with the same index in another order are refused before a network runs."""
    case = make_case(estimator)
    rows = _labelled_rows(case)
    case.fit(**rows)  # the same order is accepted
    plain = {"X": case.X, **{key: value.to_numpy() for key, value in rows.items()}}
    fitted = case.fit(**plain)
    for one, two in combinations(rows, 2):
        turned = rows[two][::-1]
        forms = [turned, {"sex": turned}] if two == "sensitive_features" else [turned]
        for form in forms:
            given = {**plain, one: rows[one], two: form}
            for method in ("fit", "fit_transform"):
                call = getattr(clone(case.estimator), method, None)
                if call is not None:
                    _assert_order_is_refused(f"{name}.{method}", call, given, one, two)
            if isinstance(form, dict) or not hasattr(fitted, "score"):
                continue
            taken = inspect.signature(fitted.score).parameters
            if {one, two} <= set(taken):
                given = {key: value for key, value in given.items() if key in taken}
                _assert_order_is_refused(f"{name}.score", fitted.score, given, one, two)


def _assert_order_is_refused(what: str, call: Any, given: dict, one: str, two: str) -> None:
    with module_calls() as called:
        try:
            call(**given)
        except ValueError as error:
            said = str(error)
        else:
            raise AssertionError(f"{what} accepts {two} with the index of {one} in another order.")
    assert "another order" in said, f"The error of {what} must contain 'another order': {said}"
    assert one in said, f"The error of {what} does not name {one}: {said}"
    assert two in said, f"The error of {what} does not name {two}: {said}"
    assert not called, f"{what} refuses the order of rows only after {len(called)} module calls."


class _Dataset(torch.utils.data.Dataset):
    """A dataset whose items are an image and a label."""

    def __init__(self, X: np.ndarray):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        if not 0 <= row < len(self.X):
            raise IndexError(row)
        return self.X[row], 0


def _image_forms(X: np.ndarray, folder: Path) -> Iterator[tuple[str, Any, dict]]:
    """Yield the same images in different forms, each with the parameters that it needs."""
    last = X.transpose(0, 2, 3, 1)
    shape = X.shape[1:]
    first, behind = {"data_format": "channels_first"}, {"data_format": "channels_last"}
    rows = {"image_shape": shape}
    yield "a list of images", list(X), first
    yield "a dataset", _Dataset(X), first
    yield "channels last", last, behind
    yield "channels last, contiguous", np.ascontiguousarray(last), behind
    yield "rows of pixels", X.reshape(len(X), -1), rows | first
    yield (
        "rows with one size left open",
        X.reshape(len(X), -1),
        {
            "image_shape": (shape[0], -1, shape[2]),
            **first,
        },
    )
    yield "rows, channels last", last.reshape(len(X), -1), rows | behind
    if shape[0] in _CHANNELS and shape[1] not in _CHANNELS:
        yield "channels last, of itself", last, {"data_format": "auto"}
    if shape[0] in (1, 3) and importlib.util.find_spec("PIL"):
        from PIL import Image

        pictures = [Image.fromarray(image.squeeze()) for image in np.ascontiguousarray(last)]
        files = [folder / f"{i}.png" for i in range(len(X))]
        for picture, file in zip(pictures, files, strict=True):
            picture.save(file)
        form = {"data_format": "auto", "image_shape": shape}
        yield "Pillow images", pictures, form
        yield "image files", [str(file) for file in files], form
        yield "paths of image files", files, form


@promise(takes_images)
def check_image_forms(name: str, estimator: Any) -> None:
    """Images as arrays of either layout, rows, lists, files and datasets give the same results."""
    case = make_case(estimator)
    assert case.image_shape is not None  # takes_images is true
    X = case.X.reshape(len(case.X), *case.image_shape)
    plain = {"image_shape": None, "data_format": "channels_first"}
    base = case.with_parameters(**plain)
    base = Case(base.estimator, X, case.y, case.fit_params, case.image_shape)
    with tempfile.TemporaryDirectory() as folder:
        forms = _image_forms(X, Path(folder))
        _compare_forms(
            name,
            base,
            ((what, form, base.with_parameters(**{**plain, **how})) for what, form, how in forms),
        )


@promise()
def check_output_containers(name: str, estimator: Any) -> None:
    """If tables are requested, features are tables, images are arrays, and values are the same."""
    case = make_case(estimator)
    expected = outputs(case.fit(), case.X)
    with sklearn.config_context(transform_output="pandas"):
        fitted = case.fit()
        found = outputs(fitted, case.X)
        if hasattr(fitted, "fit_transform"):
            again = clone(case.estimator).fit_transform(case.X, case.y, **case.fit_params)
            _check_container(again, f"fit_transform of {name}")
    if "transform" in found:
        _check_container(found["transform"], f"transform of {name}")
        # set_output of a fitted pipeline sets the container of all its steps.
        table = case.fit().set_output(transform="pandas").transform(case.X)
        _check_container(table, f"transform of {name} after set_output")
        found["transform"] = np.asarray(found["transform"])
    assert_identical(expected, found, f"outputs of {name} under transform_output='pandas'")


def _check_container(value: Any, what: str) -> None:
    wanted = pd.DataFrame if value.ndim == 2 else np.ndarray
    assert isinstance(value, wanted), (
        f"{what} returns a {type(value).__name__} under transform_output='pandas'. Expected a "
        f"{wanted.__name__}."
    )
