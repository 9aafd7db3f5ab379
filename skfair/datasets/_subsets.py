"""Subsets of any labelled data in which a class and a sensitive feature go together, or do not."""

from collections.abc import Mapping
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval

from skfair.utils._groups import encode_groups
from skfair.utils._labels import describe_rows, encode_labels
from skfair.utils._random_state import check_random_state
from skfair.utils._rows import check_rows
from skfair.utils._shown import shown
from skfair.utils._typed import validate_params

_CELLS_SHOWN = 8


@validate_params({"random_state": ["random_state"]}, prefer_skip_nested_validation=True)
def make_biased_subset(
    y: Any,
    sensitive_features: Any,
    *,
    counts: Mapping[tuple, int],
    random_state: int | np.random.RandomState | None = None,
) -> np.ndarray:
    """Draw given numbers of samples of each class and sensitive feature, to plant a bias.

    A model trained on men without glasses and women of whom two in three wear them will take
    glasses for a sign of women. So drawn from your own data, the bias is as strong as you like,
    and you can see what it does, and what a method does about it.

    Split off validation and test data first: the subset is drawn from all samples that are given.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels of any type.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        What goes along with the class, labels of any type: array, Series, DataFrame or dict of
        columns (intersections).
    counts : dict of (class, sensitive feature) to int
        Number of samples of each cell, for instance ``{("man", "no glasses"): 3000,
        ("woman", "glasses"): 2000}``; with several columns, of (class, first column, second
        column, ...). Of cells that are not named there are none in the subset.
    random_state : int, RandomState or None, default=None
        Decides which samples of a cell are drawn. With the same integer, which ones does not
        depend on the counts of other cells, and a larger count adds samples to those of a
        smaller one.

    Returns
    -------
    indices : ndarray of shape (sum of the counts,), int64
        Positions of the samples, ascending, none twice: of an array, a memory map or a list of
        files, take ``X[indices]``, of a DataFrame ``X.iloc[indices]``. The samples are in the
        order in which they are in the data; shuffle where training does not.

    Raises
    ------
    TypeError
        `counts` is no dict from tuples to integers, or there is nothing that could be labels.
    ValueError
        There are too few samples of a cell, or labels and sensitive features do not fit together
        or are missing.

    See Also
    --------
    make_balanced_subset : The same number of samples of each cell.

    Examples
    --------
    The proportions of De Coninck, Leroux and Simoens, "Mitigating Bias Using Model-Agnostic Data
    Attribution" (CVPR Workshops 2024), a thousand times smaller:

    >>> import numpy as np
    >>> sex = np.array(["man"] * 4 + ["woman"] * 4)
    >>> glasses = np.array([True, False, False, False, True, True, False, False])
    >>> counts = {
    ...     ("man", True): 0,
    ...     ("man", False): 3,
    ...     ("woman", True): 2,
    ...     ("woman", False): 1,
    ... }
    >>> indices = make_biased_subset(sex, glasses, counts=counts, random_state=0)
    >>> sex[indices]
    array(['man', 'man', 'man', 'woman', 'woman', 'woman'], dtype='<U5')
    >>> glasses[indices]
    array([False, False, False,  True,  True, False])
    """
    cell, cells = _encode_cells(y, sensitive_features)
    wanted = dict.fromkeys(cells, 0) | _check_counts(counts, width=len(cells[0]))
    there = dict(zip(cells, np.bincount(cell).tolist(), strict=True))
    short = {key: n for key, n in wanted.items() if n > there.get(key, 0)}
    if short:
        raise ValueError(
            "counts asks for more samples than there are: "
            + "; ".join(
                f"{n} of {shown(key)}, there are {there.get(key, 0)}"
                for key, n in islice(short.items(), _CELLS_SHOWN)
            )
            + f". Ask for no more than these: {_list(there)}."
        )
    return _draw(cell, np.array([wanted[key] for key in cells]), random_state)


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_balanced_subset(
    y: Any,
    sensitive_features: Any,
    *,
    n_samples: int | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> np.ndarray:
    """Draw the same number of samples of each class and sensitive feature.

    In the subset the sensitive feature says nothing about the class: as a test set it shows what
    a model trained on biased data has learned, as a training set what a model can learn without
    the bias. Where one cell is so small that little remains, :func:`make_biased_subset` draws a
    larger subset in which class and sensitive feature are independent but not equally frequent,
    from counts that are proportional in all classes.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels of any type.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Labels of any type: array, Series, DataFrame or dict of columns (intersections).
    n_samples : int, default=None
        Number of samples in all, a multiple of the number of cells; None draws as many as the
        smallest cell allows.
    random_state : int, RandomState or None, default=None
        Decides which samples of a cell are drawn. With the same integer, a larger subset
        contains the smaller ones.

    Returns
    -------
    indices : ndarray of shape (n_samples,), int64
        Positions of the samples, ascending, none twice: of an array, a memory map or a list of
        files, take ``X[indices]``, of a DataFrame ``X.iloc[indices]``. The samples are in the
        order in which they are in the data; shuffle where training does not.

    Raises
    ------
    TypeError
        There is nothing that could be labels.
    ValueError
        A class lacks a group that another class has, `n_samples` is no multiple of the number of
        cells or more than there are, or labels and sensitive features do not fit together or are
        missing.

    See Also
    --------
    make_biased_subset : Any number of samples of each cell.

    Examples
    --------
    >>> import numpy as np
    >>> sex = np.array(["man"] * 4 + ["woman"] * 4)
    >>> glasses = np.array([True, False, False, False, True, True, False, False])
    >>> indices = make_balanced_subset(sex, glasses, random_state=0)
    >>> sex[indices]
    array(['man', 'man', 'woman', 'woman'], dtype='<U5')
    >>> glasses[indices]
    array([ True, False,  True, False])
    """
    cell, cells = _encode_cells(y, sensitive_features)
    there = np.bincount(cell)
    classes, groups = ({key[part] for key in cells} for part in (slice(1), slice(1, None)))
    if len(cells) < len(classes) * len(groups):
        absent = {a + b for a in classes for b in groups}.difference(cells)
        raise ValueError(
            f"There is no sample of {_list(sorted(absent, key=str))}, so that no subset holds the "
            "same number of each class and sensitive feature. Leave out the class or the group, "
            "merge it with another, or draw what there is by make_biased_subset."
        )
    most = len(cells) * int(there.min())
    if n_samples is None:
        n_samples = most
    elif n_samples > most or n_samples % len(cells):
        smallest = cells[there.argmin()]
        nearest = max(min(n_samples // len(cells) * len(cells), most), len(cells))
        raise ValueError(
            f"n_samples={n_samples} cannot be drawn: wanted was a multiple of {len(cells)}, the "
            f"number of combinations of class and sensitive feature, up to {most}, since of "
            f"{shown(smallest)} there are {there.min()}. Ask for {nearest}, say."
        )
    return _draw(cell, np.full(len(cells), n_samples // len(cells)), random_state)


def _encode_cells(y: Any, sensitive_features: Any) -> tuple[np.ndarray, list[tuple]]:
    """Give the cell of each sample, and what the cells that occur are: class and group, sorted."""
    check_rows(y=y, sensitive_features=sensitive_features)
    codes, classes = encode_labels(y, name="y")
    if codes.min() < 0:
        raise ValueError(
            f"y is missing for {describe_rows(codes < 0)}. Drop these samples from all arguments."
        )
    groups = encode_groups(sensitive_features, n_samples=len(codes))
    rows = groups.rows()
    occurring, cell = np.unique(codes * len(rows) + groups.codes, return_inverse=True)
    return cell, [(classes[i // len(rows)], *rows[i % len(rows)]) for i in occurring.tolist()]


def _check_counts(counts: Any, width: int) -> dict[tuple, int]:
    """Refuse what is no dict from cells to numbers of samples."""
    shape = "(class, sensitive feature)" if width == 2 else f"(class, {width - 1} features)"
    if not isinstance(counts, Mapping):
        raise TypeError(
            f"counts is {type(counts).__name__}, where a dict was wanted. Give the number of "
            f"samples of each cell, {{{shape}: number}}."
        )
    for key, n in counts.items():
        if not isinstance(key, tuple) or len(key) != width:
            raise TypeError(
                f"counts has the key {shown(key)}, where a tuple {shape} was wanted. Name each "
                "cell by its class and all of its sensitive features."
            )
        if not isinstance(n, Integral) or isinstance(n, bool):
            raise TypeError(
                f"counts has {shown(n)} for {shown(key)}, where a number of samples was wanted. "
                "Give integers."
            )
        if n < 0:
            raise ValueError(
                f"counts has {n} for {shown(key)}, where a number of samples was wanted. Give 0 "
                "or more."
            )
    if not any(counts.values()):
        raise ValueError(
            "counts asks for no sample at all. Give at least one cell a number above 0."
        )
    return dict(counts)


def _draw(cell: np.ndarray, counts: np.ndarray, random_state: Any) -> np.ndarray:
    """Draw so many samples of each cell, sorted by position."""
    # One shuffle of everything, of which each cell takes its first: what is drawn from a cell
    # depends neither on the other counts nor on what the labels are called.
    shuffled = check_random_state(random_state).permutation(len(cell))
    shuffled = shuffled[np.argsort(cell[shuffled], kind="stable")]
    sizes = np.bincount(cell)
    rank = np.arange(len(cell)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(shuffled[rank < np.repeat(counts, sizes)])


def _list(cells: Any) -> str:
    """Spell out cells, and how many there are of each where this is known."""
    first = [shown(key) for key in islice(cells, _CELLS_SHOWN)]
    if isinstance(cells, Mapping):
        first = [f"{words}: {cells[key]}" for words, key in zip(first, cells, strict=False)]
    return ", ".join(first) + (", ..." if len(cells) > _CELLS_SHOWN else "")
