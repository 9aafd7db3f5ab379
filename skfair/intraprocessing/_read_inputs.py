"""Intra-processing, all methods: recognise what X is, and refuse what no network can take."""

import os
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler

from skfair._images._open import open_images
from skfair.intraprocessing._inputs import ONLY, ItemRows, Rows, Signature
from skfair.utils._arrays import as_numpy, item_at
from skfair.utils._shown import shown, shown_all
from skfair.utils._validation import validate_rows

_COLUMNS = "n_features_in_", "feature_names_in_"


def read_loader(X: Any, y: Any, sensitive_features: Any) -> tuple[Any, Any, Any]:
    """Read a DataLoader, once, into memory; leave all else as it is.

    Parameters
    ----------
    X : object
        A DataLoader gives (inputs, label, group) in each batch; without y and groups only, since
        they come from it. One that does not shuffle may give inputs alone, beside y and groups.
    y : array-like or None
    sensitive_features : object or None

    Returns
    -------
    X : object
        An array, a dict or a tuple.
    y : array-like or None
    sensitive_features : object or None

    Raises
    ------
    ValueError
        The loader gives no batch, no labels, or no groups; or it shuffles, and y or the groups are
        given apart from it.
    """
    if not isinstance(X, DataLoader):
        return X, y, sensitive_features
    if (y is not None or sensitive_features is not None) and _shuffles(X):
        raise ValueError(
            "X is a DataLoader that shuffles, and y or sensitive_features are given apart from it, "
            "in another order. Let the loader give (inputs, label, group), and leave both out, or "
            "make it with shuffle=False."
        )
    batches = [_split_batch(batch) for batch in X]
    if not batches:
        raise ValueError("X is a DataLoader that gives no batch. Give one with rows.")
    for place, (what, given) in enumerate(
        {"y": y, "sensitive_features": sensitive_features}.items()
    ):
        if given is None and min(len(rest) for _, rest in batches) <= place:
            raise ValueError(
                f"X is a DataLoader whose batches hold no {'labels' if what == 'y' else 'groups'}, "
                f"and {what} is None. Let it give (inputs, label, group), or give {what}."
            )
    if y is None:
        y = _joined("label", [(inputs, rest[0]) for inputs, rest in batches])
    if sensitive_features is None:
        sensitive_features = _joined("group", [(inputs, rest[1]) for inputs, rest in batches])
    return _joined_inputs([inputs for inputs, _ in batches]), y, sensitive_features


def _shuffles(loader: DataLoader) -> bool:
    if isinstance(loader.dataset, IterableDataset):
        return False
    batches = loader.batch_sampler
    # A loader with a batch sampler of the user has another sampler, which it does not use.
    sampler = batches.sampler if type(batches) is BatchSampler else loader.sampler
    return type(sampler) is not SequentialSampler or (
        batches is not None and type(batches) is not BatchSampler
    )


def _split_batch(batch: Any) -> tuple[Any, tuple]:
    if isinstance(batch, tuple | list):
        return batch[0], tuple(batch[1:])
    return batch, ()


def _inputs_of(item: Any) -> Any:
    """The first entry of a tuple, as in (inputs, label); other items are the inputs."""
    return item[0] if isinstance(item, tuple) and len(item) else item


def _joined(what: str, batches: list[tuple[Any, Any]]) -> Any:
    """Join labels or groups, which are beside the inputs of each batch."""
    for number, (inputs, part) in enumerate(batches):
        n_rows = len(next(iter(_parts_of(inputs)[1].values())))
        one_each = isinstance(part, torch.Tensor | np.ndarray) and part.ndim > 0
        if isinstance(part, list | tuple):  # texts
            one_each = not any(map(_has_items, part))
        if not one_each or len(part) != n_rows:
            raise ValueError(
                f"X is a DataLoader whose batch {number} has {n_rows} rows, and its {what} "
                f"is {_described(part)}. Give one {what} for each row, as a tensor or a list; "
                "several columns of groups as a tensor with a row for each sample."
            )
    parts = [part for _, part in batches]
    if all(isinstance(part, torch.Tensor | np.ndarray) for part in parts):
        return np.concatenate([as_numpy(part) for part in parts])
    return [item for part in parts for item in part]


def _has_items(item: Any) -> bool:
    known = isinstance(item, str | bytes) or getattr(item, "ndim", 1) == 0
    return isinstance(item, Sized) and not known


def _described(part: Any) -> str:
    size = f", with length {len(part)}" if isinstance(part, list | tuple | dict) else ""
    return f"of type {type(part).__name__}{size}"


def _joined_inputs(batches: list) -> Any:
    form, _ = _parts_of(batches[0])
    split = [_parts_of(batch)[1] for batch in batches]
    joined = {}
    for number, named in enumerate(split):
        if named.keys() != split[0].keys():
            raise ValueError(
                f"X is a DataLoader whose batch {number} has the inputs [{shown_all(named)}], the "
                f"first one has [{shown_all(split[0])}]. Give the same inputs in each batch."
            )
    for name in split[0]:
        parts = [torch.as_tensor(_as_array(batch[name], _named(form, name))) for batch in split]
        shapes = {tuple(part.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise ValueError(
                f"{_named(form, name)} has rows of the shapes {sorted(shapes)} in the batches of "
                "the DataLoader. Give rows of one shape; pad sequences to one length in all "
                "batches, as with padding='max_length'."
            )
        joined[name] = torch.cat(parts)
    if form == "dict":
        return joined
    return tuple(joined.values()) if form == "tuple" else joined[ONLY]


def open_rows(estimator: BaseEstimator, X: Any, *, reset: bool) -> Rows:
    """Open X of any kind as rows.

    Parameters
    ----------
    estimator : object
        Its ``n_features_in_`` and ``feature_names_in_`` are set where X is one array, or compared
        with X.
    X : array-like, Mapping, tuple of arrays, Dataset, list of files or DataLoader
    reset : bool
        Whether `estimator` is being fitted: then a dataset is read once, to check it.

    Returns
    -------
    Rows

    Raises
    ------
    ValueError, TypeError
        X is none of these. Parts have unequal lengths. Values are no finite numbers.
    """
    if isinstance(X, DataLoader):
        if _shuffles(X):
            raise ValueError(
                "X is a DataLoader that shuffles, and predictions have the order of its rows. Make "
                "it with shuffle=False."
            )
        batches = [_split_batch(batch)[0] for batch in X]
        if not batches:
            raise ValueError("X is a DataLoader that gives no batch. Give one with rows.")
        X = _joined_inputs(batches)
    rows = _open_other(X)
    if rows is None:
        least = {"ensure_min_samples": 2} if reset else {}
        array = validate_rows(estimator, X, reset=reset, dtype="numeric", allow_nd=True, **least)
        return Rows("array", {ONLY: array})
    if len(rows) < 1 + reset:
        raise ValueError(f"X holds {len(rows)} rows; expected at least {1 + reset}. Give more.")
    if reset:
        for name in _COLUMNS:
            vars(estimator).pop(name, None)  # of an earlier fit
        if isinstance(rows, ItemRows):
            rows.remember()
    return rows


def check_like_fit(
    rows: Rows, signature: Signature, shapes: dict[str, tuple[int, ...]], who: str
) -> None:
    """Refuse rows that the fitted network would take in another way than those of ``fit``.

    Parameters
    ----------
    rows : Rows
    signature : Signature
        Of ``fit``.
    shapes : dict of str to tuple of int
        Shape of a sample of each part, in ``fit``. Sequences of integers in a dict or a tuple may
        be longer or shorter, as texts are.
    who : str
        Name of the debiaser.
    """
    if rows.form != signature.form or set(rows.shapes) != set(shapes):
        raise ValueError(
            f"X is {_kind(rows.form, rows.shapes)}, {who} was fitted with "
            f"{_kind(signature.form, shapes)}. Give X in the same form, with the same inputs."
        )
    for name, shape in rows.shapes.items():
        what, known = _named(rows.form, name), shapes[name]
        whole = name in signature.integers
        any_length = whole and rows.form != "array" and len(shape) == len(known)
        if shape != known and not any_length:
            raise ValueError(
                f"{what} has samples of shape {shape}, {who} was fitted with "
                f"samples of shape {known}. Give samples of that shape."
            )
        if whole and name not in rows.integers:
            raise ValueError(
                f"{what} holds floating numbers, {who} was fitted with integers, which the network "
                "takes as they are. Give integers."
            )


def _kind(form: str, shapes: dict[str, tuple[int, ...]]) -> str:
    if form == "array":
        return "an array"
    if form == "tuple":
        return f"a tuple of {len(shapes)} arrays"
    return f"a dict of [{shown_all(shapes)}]"


def is_one_array(X: Any) -> bool:
    """Whether X is an array of rows, or else what only this module can open."""
    several = _is_dict(X) or isinstance(X, DataLoader) or _is_dataset(X)
    return not (several or _is_tuple_of_arrays(X) or _is_list_of_files(X))


def _open_other(X: Any) -> Rows | None:
    """Open all but an array of rows."""
    if is_one_array(X):
        return None
    if _is_dataset(X):
        if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
            raise TypeError(
                f"X is a {type(X).__name__}, a dataset without length or random access. Give a "
                "map-style Dataset, with __len__ and __getitem__, or a DataLoader of it."
            )
        return _open_items(X)
    if _is_list_of_files(X):
        first = X[0]
        if isinstance(first, str) and "://" not in first and not os.path.exists(first):
            raise ValueError(
                "X is a list of texts, which are taken as names of image files, and there is no "
                f"file X[0]={shown(first, 60)}. Give names of files. If X holds texts for a "
                "network of token ids, tokenize them first: fit(tokenizer(X, ...), y, ...)."
            )
        return _open_items(_Files(X))
    form, parts = _parts_of(X)
    arrays = {name: _as_array(part, _named(form, name)) for name, part in parts.items()}
    lengths = {_named(form, name): len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(
            f"The inputs in X have unequal numbers of rows: {said}. Give one row for each sample "
            "in each of them."
        )
    return Rows(form, arrays)


def _is_dict(X: Any) -> bool:
    # SciPy's dok arrays are dicts in older versions.
    return isinstance(X, Mapping) and not sparse.issparse(X)


def _is_dataset(X: Any) -> bool:
    return isinstance(X, Dataset) or type(X).__module__.startswith("datasets.")  # Hugging Face's


def _is_tuple_of_arrays(X: Any) -> bool:
    return isinstance(X, tuple) and len(X) > 0 and all(hasattr(part, "shape") for part in X)


def _is_list_of_files(X: Any) -> bool:
    return isinstance(X, list) and len(X) > 0 and isinstance(X[0], str | os.PathLike)


class _Files:
    """Image files as items: floating, from 0 to 1, channels first."""

    def __init__(self, files: Sequence):
        self._images = open_images(files)

    def __len__(self) -> int:
        return self._images.n_samples

    def __getitem__(self, row: int) -> np.ndarray:
        image = self._images.read(row, row + 1)[0]
        return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image


def _open_items(items: Any) -> Rows:
    if not len(items):
        raise ValueError("X is a dataset without items. Give at least one.")
    first = item_at(items, 0)
    form, _ = _parts_of(_inputs_of(first))

    def split(item: Any, row: int) -> dict[str, torch.Tensor]:
        found, parts = _parts_of(_inputs_of(item))
        if found != form:
            raise ValueError(
                f"X[{row}] is of another kind than X[0]: one array, a dict or a tuple of arrays. "
                "Give items of one kind."
            )
        return {
            name: torch.as_tensor(_as_array(part, f"X[{row}]", least=0, finite=False))
            for name, part in parts.items()
        }

    return ItemRows(items, form, split(first, 0), split)


def _parts_of(X: Any) -> tuple[str, dict[str, Any]]:
    """Name the parts of X, of a batch or of an item."""
    if _is_dict(X):
        if not len(X.keys()) or not all(isinstance(name, str) for name in X):
            raise ValueError(
                f"X is a dict with the keys [{shown_all(X)}]; expected a text for each argument of "
                "the network's forward, and an array for each of them."
            )
        return "dict", {name: X[name] for name in X}
    if isinstance(X, tuple | list) and not all(isinstance(x, int | float) for x in X):
        return "tuple", {str(place): part for place, part in enumerate(X)}
    return "array", {ONLY: X}


def _named(form: str, name: str) -> str:
    if form == "array":
        return "X"
    return f"X[{name}]" if form == "tuple" else f"X[{shown(name)}]"


def _as_array(part: Any, name: str, *, least: int = 1, finite: bool = True) -> Any:
    """Convert a part to an array, or to a tensor on the CPU."""
    if isinstance(part, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array. Fill in the values, or drop the samples.")
    if isinstance(part, torch.Tensor):
        if part.layout != torch.strided or part.is_complex() or part.is_quantized:
            raise TypeError(
                f"{name} is a {part.layout} tensor of {part.dtype}. Give plain numbers."
            )
        part = part.detach().cpu()
    else:
        try:
            part = np.asarray(part)
        except ValueError as error:
            raise ValueError(
                f"{name} has rows of unequal lengths ({error}). Pad them to one length."
            ) from error
        if part.dtype.kind not in "biuf":
            raise TypeError(
                f"{name} holds values of type {part.dtype}, which are not numbers. Encode them "
                "first; texts with a tokenizer."
            )
    if part.ndim < least:
        raise ValueError(f"{name} is a single number. Give one row for each sample.")
    if finite:
        _check_finite(part, name)
    return part


def _check_finite(part: Any, name: str, at_once: int = 4096) -> None:
    floating = (
        part.is_floating_point() if isinstance(part, torch.Tensor) else part.dtype.kind == "f"
    )
    if not floating:
        return
    for start in range(0, len(part), at_once):
        block = (
            torch.as_tensor(np.array(part[start : start + at_once]))
            if isinstance(part, np.ndarray)
            else part[start : start + at_once]
        )
        finite = block.isfinite().reshape(len(block), -1).all(1).numpy()
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise ValueError(
                f"{name} contains NaN or infinity, first in row {row}. Leave such rows out, "
                "or mend them."
            )
