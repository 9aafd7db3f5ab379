"""Counts from the partitions of dask collections: counted where they are, and added."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from skfair.metrics._samples import check_weight
from skfair.utils._imports import import_optional
from skfair.utils._rows import check_rows, indices_of
from skfair.utils._shown import shown

_ADDED_AT_ONCE = 8  # counts in one step of the tree
_HASHES = 2**64


def is_partitioned(*arguments: Any) -> bool:
    """Tell whether an argument is a dask array, series or frame, or a dict of them."""
    return any(map(_is_collection, _columns(dict(enumerate(arguments))).values()))


def count_partitions(count: Callable, left_out: Callable, arguments: Mapping[str, Any]) -> Any:
    """Count each partition by itself, and add the counts.

    Parameters
    ----------
    count : callable
        Takes a dict like `arguments` of one partition, and returns its counts.
    left_out : callable
        Leaves out all samples of counts, as if their weight was zero.
    arguments : dict of str to object
        What has one value for each sample: dask collections, dicts of them, or None. ``y_true`` is
        among them.

    Returns
    -------
    GroupCounts
        The same, bit for bit, as of all samples at once.

    Raises
    ------
    TypeError
        One argument is in memory.
    ValueError
        The arguments have different numbers of partitions, chunks along axis 1, no samples, or the
        labels of their indices in different orders.
    """
    dask = import_optional("dask", extra="dask", purpose="Counting the partitions of dask")
    parts: dict[str, list] = {}
    for name, column in _columns(arguments).items():
        if not _is_collection(column):
            raise TypeError(
                f"{name} is a {type(column).__name__}, and other arguments are dask collections. "
                "Give all of them as columns of one dask frame, or all computed, X.compute()."
            )
        if len(getattr(column, "numblocks", ())) > 1 and column.numblocks[1] > 1:
            raise ValueError(
                f"{name} is a dask array in {column.numblocks[1]} chunks along axis 1; expected "
                "all columns of a row in one chunk. Give it as rechunk({1: -1})."
            )
        parts[name] = np.ravel(np.array(column.to_delayed(), dtype=object)).tolist()
    n_parts = {name: len(part) for name, part in parts.items()}
    if len(set(n_parts.values())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in n_parts.items())
        raise ValueError(
            f"The arguments have different numbers of partitions: {listed}. Rows are matched by "
            "position within a partition. Give columns of one dask frame, or the same divisions "
            "with repartition."
        )
    counted = dask.delayed(partial(_count, count, left_out), pure=False)
    add = dask.delayed(_add, pure=False)
    counts = [
        counted(_with_parts(arguments, {name: part[i] for name, part in parts.items()}))
        for i in range(min(n_parts.values()))
    ]
    while len(counts) > 1:
        counts = [
            add(counts[start : start + _ADDED_AT_ONCE])
            for start in range(0, len(counts), _ADDED_AT_ONCE)
        ]
    ((total, moved),) = dask.compute(counts[0])
    for name, difference in moved.items():
        if difference % _HASHES == 0:
            raise ValueError(
                f"{name} has the index of another argument in another order, but rows are matched "
                "by position within a partition. Give columns of one dask frame, for example after "
                f"a merge, or, if the rows already match, give {name}.to_dask_array()."
            )
    if total is None:
        raise ValueError("y_true is empty. Give at least one sample.")
    if not len(total.cells):
        check_weight(np.zeros(1), 1)  # raises what it raises for all samples at once
    return total


def _is_collection(value: Any) -> bool:
    is_dask = type(value).__module__.split(".")[0] == "dask" and hasattr(value, "__dask_graph__")
    return is_dask and hasattr(value, "to_delayed")


def _columns(arguments: Mapping) -> dict[str, Any]:
    """List the arguments and the values of dicts, each under a name for messages."""
    found = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            found.update({f"{name}[{shown(key)}]": column for key, column in value.items()})
        elif value is not None:
            found[str(name)] = value
    return found


def _with_parts(arguments: Mapping, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Put one partition of each column in its place; the inverse of :func:`_columns`."""
    return {
        name: {key: parts[f"{name}[{shown(key)}]"] for key in value}
        if isinstance(value, Mapping)
        else parts.get(name)
        for name, value in arguments.items()
    }


def _count(count: Callable, left_out: Callable, arguments: dict[str, Any]) -> tuple[Any, dict]:
    """Count one partition, None if it has no rows; and find what has another index."""
    if not any(len(column) for column in _columns(arguments).values()):
        return None, {}
    moved = _moved(arguments)
    weight = arguments["sample_weight"]
    if weight is None or np.any(np.asarray(weight) != 0):
        return count(arguments), moved
    # Beside samples of other partitions, these are left out; alone, they would be an error.
    check_rows(**arguments)
    return left_out(count({**arguments, "sample_weight": np.ones(len(weight))})), moved


def _moved(arguments: dict[str, Any]) -> dict[str, int]:
    """Compare the indices with the first one, for each that differs: the sums of label hashes.

    If the differences add up to zero over all partitions, the index has the same labels in another
    order.
    """
    indices = [pair for name, value in arguments.items() for pair in indices_of(name, value)]
    first = indices[0][1] if indices else None
    return {name: _hash(index) - _hash(first) for name, index in indices if not index.equals(first)}


def _hash(index: pd.Index) -> int:
    return int(pd.util.hash_pandas_object(index).to_numpy().sum())


def _add(counts: list[tuple[Any, dict]]) -> tuple[Any, dict]:
    moved: dict[str, int] = {}
    for name, difference in chain.from_iterable(part.items() for _, part in counts):
        moved[name] = moved.get(name, 0) + difference
    found = [part for part, _ in counts if part is not None]
    return sum(found[1:], start=found[0]) if found else None, moved
