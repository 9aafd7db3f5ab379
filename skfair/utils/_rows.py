"""Checking that several pandas arguments have their rows in the same order."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from skfair.utils._shown import shown


def check_rows(**arguments: Any) -> None:
    """Refuse arguments whose indices have the same labels in different orders.

    As in scikit-learn, rows are matched by position. Two pandas arguments with the same labels in
    a different order contradict this. Indices with different labels say nothing about the order,
    so they are accepted.

    Parameters
    ----------
    **arguments : object
        All arguments with one row per sample, by name. The values of a dict are checked, too.
        Arguments without an index are ignored.

    Raises
    ------
    ValueError
        Two arguments have the same labels in a different order.

    Examples
    --------
    >>> y = pd.Series([0, 1, 1], index=["a", "b", "c"])
    >>> check_rows(y_true=y, y_pred=[0, 1, 1], sensitive_features=y + 1)
    >>> check_rows(y_true=y, y_pred={"model": y[::-1]})
    Traceback (most recent call last):
    ...
    ValueError: y_pred['model'] has the index of y_true in another order, but rows are matched by \
position. Give y_pred['model'].loc[y_true.index], or, if the rows already match by position, \
give y_pred['model'].reset_index(drop=True).
    """
    known: list[tuple[str, pd.Index]] = []
    for argument, value in arguments.items():
        for name, index in indices_of(argument, value):
            if any(index.equals(other) for _, other in known):
                continue  # already compared
            for other_name, other in known:
                if _in_another_order(other, index):
                    fix = f"Give {name}.loc[{other_name}.index]"
                    if not index.is_unique:
                        fix = f"Sort {name} in the order of {other_name}"
                    raise ValueError(
                        f"{name} has the index of {other_name} in another order, but rows are "
                        f"matched by position. {fix}, or, if the rows already match by position, "
                        f"give {name}.reset_index(drop=True)."
                    )
            known.append((name, index))


def indices_of(name: str, value: Any) -> Iterator[tuple[str, pd.Index]]:
    if isinstance(value, pd.Series | pd.DataFrame):
        yield name, value.index
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from indices_of(f"{name}[{shown(key)}]", part)


def _in_another_order(one: pd.Index, two: pd.Index) -> bool:
    """Whether both have the same labels, equally often, but not at the same positions."""
    if len(one) != len(two) or one.nlevels != two.nlevels:
        return False
    codes, found = pd.factorize(one.append(two), use_na_sentinel=False)
    first, second = codes[: len(one)], codes[len(one) :]
    as_often = np.bincount(first, minlength=len(found)) == np.bincount(second, minlength=len(found))
    return bool(as_often.all()) and not np.array_equal(first, second)
