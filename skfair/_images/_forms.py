"""Recognises the forms in which users hold images; refuses others with advice."""

import math
import os
from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
import pandas as pd
import torch

from skfair._images._containers import stored_column
from skfair._images._files import FILE_SUFFIXES, UnreadableImageError
from skfair._images._sources import is_encoded, picture_of
from skfair.utils._arrays import evaluation
from skfair.utils._shown import shown, shown_all

_MOST_MISSING = 100  # leading entries that may be missing before the form is unknown


def check_form(X: Any) -> None:
    """Refuse image containers that cannot be used, and say what to pass instead."""
    if hasattr(X, "toarray"):
        return  # sparse: scikit-learn refuses it with its own message
    kind, advice = type(X).__name__, ""
    if isinstance(X, torch.utils.data.DataLoader):
        advice = (
            "it returns batches in its own order. Give its dataset, X.dataset, with labels and "
            "groups in the order of the dataset"
        )
    elif type(X).__module__.startswith("h5py.") and not X:
        advice = "its file is closed. Open the file, and pass its dataset while it is open"
    elif isinstance(X, (bytes, bytearray)):
        advice = "expected several images. If X holds the bytes of a file, give [X]"
    elif is_pillow(X):
        advice = "it is one image; expected several. Give [X]"
    elif isinstance(X, np.ndarray) and X.ndim == 0:
        advice = "it has no dimension. Give a list, [X.item()]"
    elif isinstance(X, Mapping) or (
        type(X).__module__.startswith("zarr.") and not hasattr(X, "shape")  # a group of arrays
    ):
        advice = (
            "it is a mapping; expected a list of images. Give one entry, "
            f"X[{shown(next(iter(X), 'images'))}]"
        )
    elif isinstance(X, (Set, Iterator)):
        advice = (
            "it has no order or no length; expected a sequence. Give a list, sorted(X) or list(X)"
        )
    elif (getattr(X, "ndim", 1) == 1 or count_columns(X) == 1) and (lazy := evaluation(X, "X")):
        advice = f"it is not computed yet. Give {lazy}, and groups and labels in the same order"
    elif not any(hasattr(X, name) for name in ("__getitem__", "__array__", "__fspath__")):
        advice = (
            "expected images. Give an array of shape (n, channels, height, width), a list of "
            "files or Pillow images, a folder, or a map-style Dataset"
        )
    if advice:
        raise TypeError(f"X ({kind}) cannot be used: {advice}.")


def check_columns(X: Any) -> None:
    """Refuse a table of several columns, one of them with image files."""
    if count_columns(X) is None or not hasattr(X, "to_numpy") or len(X) == 0:
        return
    first = X.head(1).to_numpy()[0]
    if first.dtype.kind not in "OU":
        return
    for name, item in zip(X.columns, first, strict=True):
        is_file = isinstance(item, (os.PathLike, bytes))
        if is_file or str(item).lower().endswith(FILE_SUFFIXES):
            raise TypeError(
                f"X has {len(first)} columns, and {shown(name)} holds image files. Give that "
                f"column alone, X[[{shown(name)}]]. In a pipeline that needs the other columns, "
                f"use a ColumnTransformer with ('images', estimator, [{shown(name)}])."
            )


def count_columns(X: Any, *, of_arrays: bool = False) -> int | None:
    """Number of columns of a table of pandas, polars, pyarrow or dask; None for anything else."""
    if evaluation(X, "X").endswith(("collect()", "toPandas()")):
        return None  # to list the columns, it would have to compute
    if hasattr(X, "columns"):
        return len(X.columns)
    return X.shape[1] if of_arrays and getattr(X, "ndim", 1) == 2 else None


def as_items(X: Any) -> Any:
    """Return X as items with a length and an index from zero; None if it has no such items."""
    if isinstance(X, (list, tuple)):
        return X
    if hasattr(X, "toarray"):  # sparse
        return None
    if (column := stored_column(X)) is not None:
        return column
    shape = getattr(X, "shape", None)
    if (n_columns := count_columns(X)) is not None:
        if n_columns != 1:
            return None
        X = X.iloc[:, 0] if hasattr(X, "iloc") else X[getattr(X, "column_names", X.columns)[0]]
        if (column := stored_column(X)) is not None:
            return column
    elif shape is not None and len(shape) == 2 and shape[1] == 1:
        X = X[:, 0]
    elif shape is not None and len(shape) != 1:
        return None
    if isinstance(X, np.ndarray):
        return X
    for convert in (
        "to_pylist",
        "to_numpy",
    ):  # pyarrow has the first; pandas, polars and others the second
        if hasattr(X, convert):
            return getattr(X, convert)()
    known = hasattr(X, "__len__") and hasattr(X, "__getitem__")
    return X if known and not isinstance(X, torch.Tensor) else None


def are_images(items: Any) -> bool:
    """Tell whether items are images, by the first one that is not missing."""
    for row in range(min(len(items), _MOST_MISSING)):
        item = picture_of(items[row])
        if not is_missing(item):
            if isinstance(item, Mapping) or _is_path_in_a_row(item):
                check_item(item, f"X[{row}]")
            return is_encoded(item) or is_pillow(item) or getattr(item, "ndim", 0) >= 2
    return False


def check_item(item: Any, name: str) -> None:
    """Refuse an item that is not an image, and say what to pass instead."""
    advice = ""
    if is_missing(item):
        advice = "is missing. Remove the row from X and from everything with the same rows"
    elif isinstance(item, Mapping):
        keys = list(item)
        advice = (
            f"is a {type(item).__name__} with {shown_all(keys)}. Give the images alone, "
            f"for instance [item[{shown(keys[0] if keys else 'image')}] for item in X]"
        )
    elif _is_path_in_a_row(item):
        advice = f"is a {type(item).__name__}; expected a file. Give [row[0] for row in X]"
    if advice:
        raise UnreadableImageError(f"{name} {advice}.")


def is_missing(item: Any) -> bool:
    return item is None or item is pd.NA or (isinstance(item, float) and math.isnan(item))


def _is_path_in_a_row(item: Any) -> bool:
    if not isinstance(item, (list, np.ndarray)) or len(np.shape(item)) != 1 or len(item) != 1:
        return False
    return isinstance(item[0], (str, os.PathLike))


def is_pillow(item: Any) -> bool:
    return hasattr(item, "convert") and hasattr(item, "getbands")
