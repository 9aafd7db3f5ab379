"""Items of any kind that are not images: texts, sounds, rows of a table, read slice by slice."""

import copy
from collections.abc import Generator, Iterator, Mapping, Set
from typing import Any

import numpy as np
import torch

from skfair._images._containers import is_dataset
from skfair._images._forms import as_items, count_columns, is_missing
from skfair.utils._arrays import evaluation, item_at

_MUTABLE = np.ndarray, torch.Tensor, list, dict, tuple


class Items:
    """Items that are read slice by slice, as :class:`~skfair._images._view.Images` are.

    Parameters
    ----------
    X : sequence, column, table or map-style Dataset
        Its entries are the items. Those of a table with several columns are its rows, as dicts.

    Attributes
    ----------
    n_samples : int
        Number of items.
    shape : tuple
        Empty: items have no common shape.

    Raises
    ------
    TypeError
        X has no length or no index, or is one item.
    ValueError
        X is empty, an item is missing, or two columns of a table have one name.
    """

    shape: tuple[int, ...] = ()

    def __init__(self, X: Any):
        _check_sequence(X)
        self._is_table = (count_columns(X) or 0) > 1
        names = getattr(X, "column_names", X.columns) if self._is_table else ()  # as of pyarrow
        if len(set(names)) < len(names):
            raise ValueError(
                "X has several columns of one name, and its rows become dicts. Rename the columns."
            )
        # The rows of a data set are its items, and not only its images.
        whole = isinstance(X, torch.utils.data.Dataset) or any(
            is_dataset(source) for source in (X, getattr(X, "source", None))
        )
        items = None if self._is_table or whole else as_items(X)
        self._items = X if items is None else items
        self.n_samples = len(self._items)
        if self.n_samples == 0:
            raise ValueError("X is empty; expected at least one item. Give at least one item.")
        if isinstance(self._items, (list, tuple, np.ndarray)):
            for row, item in enumerate(self._items):
                _check_item(item, row)

    def read(self, start: int, stop: int) -> list:
        """Return a list of items, whose arrays share no memory with X.

        Raises
        ------
        ValueError
            An item is missing.
        """
        if self._is_table:
            return _rows_of_table(self._items, start, stop)
        return [self._item(row) for row in range(start, stop)]

    def batches(
        self, n_rows: int, size: int, n_jobs: int | None = None
    ) -> Generator[tuple[int, list]]:
        """Read the first rows, batch after batch; `n_jobs` is for images, which are decoded."""
        for start in range(0, n_rows, size):
            yield start, self.read(start, min(start + size, n_rows))

    def _item(self, row: int) -> Any:
        item = item_at(self._items, row)
        _check_item(item, row)
        return own_copy(item)


def own_copy(item: Any) -> Any:
    """Copy an item that an encoder might write to."""
    return copy.deepcopy(item) if isinstance(item, _MUTABLE) else item


def _check_sequence(X: Any) -> None:
    advice = ""
    if isinstance(X, (str, bytes, bytearray)):
        advice = "it is one item. Give [X]"
    elif isinstance(X, (Mapping, Set, Iterator)):
        advice = "it is not a sequence. Give a list of items, each with its own data"
    elif lazy := evaluation(X, "X"):
        advice = f"it is not computed yet. Give {lazy}"
    elif not (hasattr(X, "__len__") and hasattr(X, "__getitem__")) or getattr(X, "shape", 0) == ():
        advice = "it has no length or no index. Give a list of items"
    if advice:
        raise TypeError(f"X ({type(X).__name__}) cannot be used as a sequence of items: {advice}.")


def _check_item(item: Any, row: int) -> None:
    if is_missing(item):
        raise ValueError(
            f"X[{row}] is missing. Remove the row from X and from everything with the same rows."
        )


def _rows_of_table(table: Any, start: int, stop: int) -> list[dict]:
    if hasattr(table, "iloc"):
        return table.iloc[start:stop].to_dict("records")
    if hasattr(table, "to_dicts"):
        return table[start:stop].to_dicts()
    if hasattr(table, "to_pylist"):
        return table.slice(start, stop - start).to_pylist()
    raise TypeError(
        f"X is a {type(table).__name__} of several columns; expected a table of pandas, polars or "
        "pyarrow. Give a list of dicts, one a row."
    )
