"""Subsets of labelled data in which class and sensitive feature correlate, or do not."""

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

    A model that is trained on men without glasses and on women, two thirds of them with glasses,
    learns glasses as a shortcut for women. With such a subset of your own data you choose the
    strength of the bias, and measure its effect and the effect of a method.

    Split off validation and test data first: this function draws from all samples that it gets.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels of any type.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        The feature that will correlate with the class, labels of any type: array, Series,
        DataFrame or dict of columns (intersections).
    counts : dict of (class, sensitive feature) to int
        Number of samples of each cell, for instance ``{("man", "no glasses"): 3000,
        ("woman", "glasses"): 2000}``; with several columns, of (class, first column, second
        column, ...). The subset has no samples of cells that are not named.
    random_state : int, RandomState or None, default=None
        Decides which samples of a cell are drawn. With the same integer, this choice does not
        depend on the counts of other cells, and a larger count adds samples to those of a
        smaller one.

    Returns
    -------
    indices : ndarray of shape (sum of the counts,), int64
        Positions of the samples, ascending, without repetition. For an array or a memory map, or a
        list of files as an array, use ``X[indices]``, for a DataFrame ``X.iloc[indices]``. The
        samples keep the order of the data; shuffle them if the training does not.

    Raises
    ------
    TypeError
        `counts` is not a dict from tuples to integers, or `y` or `sensitive_features` has a type
        that cannot be labels.
    ValueError
        A cell has too few samples, or labels or sensitive features are missing or differ in
        length.

    See Also
    --------
    make_balanced_subset : Draws the same number of samples of each cell.

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
            "counts asks for more samples than the data have: "
            + "; ".join(
                f"{n} of {shown(key)}, the data have {there.get(key, 0)}"
                for key, n in islice(short.items(), _CELLS_SHOWN)
            )
            + f". Ask for at most {_list(there)}."
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

    In the subset the sensitive feature is independent of the class. As a test set the subset shows
    what a model trained on biased data has learned. As a training set it shows what a model can
    learn without the bias. If one cell is so small that few samples remain, use
    :func:`make_biased_subset` with counts that are proportional in all classes: it draws a larger
    subset in which class and sensitive feature are independent, with groups of different sizes.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels of any type.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Labels of any type: array, Series, DataFrame or dict of columns (intersections).
    n_samples : int, default=None
        Total number of samples, a multiple of the number of cells; None draws as many as the
        smallest cell allows.
    random_state : int, RandomState or None, default=None
        Decides which samples of a cell are drawn. With the same integer, a larger subset
        contains the smaller ones.

    Returns
    -------
    indices : ndarray of shape (n_samples,), int64
        Positions of the samples, ascending, without repetition. For an array or a memory map, or a
        list of files as an array, use ``X[indices]``, for a DataFrame ``X.iloc[indices]``. The
        samples keep the order of the data; shuffle them if the training does not.

    Raises
    ------
    TypeError
        `y` or `sensitive_features` has a type that cannot be labels.
    ValueError
        A class lacks a group that another class has, `n_samples` is not a multiple of the number of
        cells or is too large, or labels or sensitive features are missing or differ in length.

    See Also
    --------
    make_biased_subset : Draws any number of samples of each cell.

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
            f"There is no sample of {_list(sorted(absent, key=str))}, so no subset has the same "
            "number of each class and sensitive feature. Leave out the class or the group, merge "
            "it with another, or draw the existing cells by make_biased_subset."
        )
    most = len(cells) * int(there.min())
    if n_samples is None:
        n_samples = most
    elif n_samples > most or n_samples % len(cells):
        smallest = cells[there.argmin()]
        nearest = max(min(n_samples // len(cells) * len(cells), most), len(cells))
        raise ValueError(
            f"n_samples={n_samples} cannot be drawn; expected a multiple of {len(cells)}, the "
            f"number of combinations of class and sensitive feature, up to {most}, since "
            f"{shown(smallest)} has {there.min()} samples. Pass for instance {nearest}."
        )
    return _draw(cell, np.full(len(cells), n_samples // len(cells)), random_state)


def _encode_cells(y: Any, sensitive_features: Any) -> tuple[np.ndarray, list[tuple]]:
    """Return the cell of each sample, and the class and group of each existing cell, sorted."""
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
    """Refuse anything but a dict from cells to numbers of samples."""
    shape = "(class, sensitive feature)" if width == 2 else f"(class, {width - 1} features)"
    if not isinstance(counts, Mapping):
        raise TypeError(
            f"counts is {type(counts).__name__}; expected a dict. Give the number of "
            f"samples of each cell, {{{shape}: number}}."
        )
    for key, n in counts.items():
        if not isinstance(key, tuple) or len(key) != width:
            raise TypeError(
                f"counts has the key {shown(key)}; expected a tuple {shape}. Name each "
                "cell by its class and all of its sensitive features."
            )
        if not isinstance(n, Integral) or isinstance(n, bool):
            raise TypeError(
                f"counts has {shown(n)} for {shown(key)}; expected a number of samples. "
                "Give integers."
            )
        if n < 0:
            raise ValueError(
                f"counts has {n} for {shown(key)}; expected a number of samples. Give 0 or more."
            )
    if not any(counts.values()):
        raise ValueError("counts asks for no samples. Give at least one cell a number above 0.")
    return dict(counts)


def _draw(cell: np.ndarray, counts: np.ndarray, random_state: Any) -> np.ndarray:
    """Draw the given number of samples of each cell, sorted by position."""
    # Shuffle all samples once; each cell takes its first ones. So the samples of a cell depend
    # neither on the other counts nor on the names of the labels.
    shuffled = check_random_state(random_state).permutation(len(cell))
    shuffled = shuffled[np.argsort(cell[shuffled], kind="stable")]
    sizes = np.bincount(cell)
    rank = np.arange(len(cell)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(shuffled[rank < np.repeat(counts, sizes)])


def _list(cells: Any) -> str:
    """Spell out cells, with their numbers of samples if `cells` is a mapping."""
    first = [shown(key) for key in islice(cells, _CELLS_SHOWN)]
    if isinstance(cells, Mapping):
        first = [f"{words}: {cells[key]}" for words, key in zip(first, cells, strict=False)]
    return ", ".join(first) + (", ..." if len(cells) > _CELLS_SHOWN else "")
