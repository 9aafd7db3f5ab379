"""Rows that belong together: the one place where the labels of rows are held against positions."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from skfair.utils._shown import shown


def check_rows(**arguments: Any) -> None:
    """Refuse arguments of which the index has the rows in different orders.

    Rows are taken as they come, as everywhere in scikit-learn. Where two of the arguments are of
    pandas, and the same labels stand in another order, they contradict that. Indices of different
    labels say nothing of the order, and pass.

    Parameters
    ----------
    **arguments : object
        Everything with a row for each sample, by name; dicts are looked into, and all that has no
        index is left alone.

    Raises
    ------
    ValueError
        Two of them have the same labels in another order.

    Examples
    --------
    >>> y = pd.Series([0, 1, 1], index=["a", "b", "c"])
    >>> check_rows(y_true=y, y_pred=[0, 1, 1], sensitive_features=y + 1)
    >>> check_rows(y_true=y, y_pred={"model": y[::-1]})
    Traceback (most recent call last):
    ...
    ValueError: y_pred['model'] has the index of y_true in another order, and rows are taken as \
they come. Give y_pred['model'].loc[y_true.index], or, if the rows do belong together as they \
are, y_pred['model'].reset_index(drop=True).
    """
    known: list[tuple[str, pd.Index]] = []
    for argument, value in arguments.items():
        for name, index in _indices(argument, value):
            if any(index.equals(other) for _, other in known):
                continue  # compared already
            for other_name, other in known:
                if _in_another_order(other, index):
                    fix = f"Give {name}.loc[{other_name}.index]"
                    if not index.is_unique:
                        fix = f"Bring it into the order of {other_name}"
                    raise ValueError(
                        f"{name} has the index of {other_name} in another order, and rows are "
                        f"taken as they come. {fix}, or, if the rows do belong together as they "
                        f"are, {name}.reset_index(drop=True)."
                    )
            known.append((name, index))


def _indices(name: str, value: Any) -> Iterator[tuple[str, pd.Index]]:
    if isinstance(value, pd.Series | pd.DataFrame):
        yield name, value.index
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _indices(f"{name}[{shown(key)}]", part)


def _in_another_order(one: pd.Index, two: pd.Index) -> bool:
    """Whether both have the same labels, each as often, and not at the same places."""
    if len(one) != len(two) or one.nlevels != two.nlevels:
        return False
    codes, found = pd.factorize(one.append(two), use_na_sentinel=False)
    first, second = codes[: len(one)], codes[len(one) :]
    as_often = np.bincount(first, minlength=len(found)) == np.bincount(second, minlength=len(found))
    return bool(as_often.all()) and not np.array_equal(first, second)
