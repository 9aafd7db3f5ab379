"""Splits of rows in which every cell (a class, a group, or both) has its share on each side."""

import numpy as np


def split_cells(
    cell: np.ndarray, fraction: float | np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a share of each cell.

    Parameters
    ----------
    cell : ndarray of shape (n_samples,), int64
        Cell of each row, counted from zero: its class, its group, or a number for both.
    fraction : float or ndarray of shape (n_cells,)
        Share to hold out, in (0, 1): one number for all cells, or one per cell. At least one row
        of each cell is held out, and at least one row is kept.
    seed : int
        Seed of the draw.

    Returns
    -------
    kept, held_out : ndarray of int64
        Sorted row numbers. If a cell has only one row, the row is in both.

    Examples
    --------
    >>> import numpy as np
    >>> kept, held_out = split_cells(np.repeat([0, 1], [6, 2]), 0.3, seed=0)
    >>> len(kept), len(held_out)
    (5, 3)
    """
    order = _shuffle_by_cell(cell, seed)
    sizes = np.bincount(cell)
    rank = np.arange(len(cell)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    wanted = np.ceil(fraction * sizes)
    held_out = rank < np.clip(wanted, 1, np.maximum(sizes - 1, 1))[cell[order]]
    alone = sizes[cell[order]] == 1
    return np.sort(order[~held_out | alone]), np.sort(order[held_out])


def draw_folds(cell: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Assign rows to folds at random, so that the rows of each cell spread evenly over all folds.

    Parameters
    ----------
    cell : ndarray of shape (n_samples,), int64
        Class, group or both of each row.
    n_folds : int
        Number of folds.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of shape (n_samples,), int64
        Fold of each row, from 0 to ``n_folds - 1``. In two folds the numbers of rows differ by at
        most one, and so do the numbers of rows of each cell.

    Examples
    --------
    >>> import numpy as np
    >>> cell = np.repeat([0, 1], [6, 3])
    >>> fold = draw_folds(cell, 3, seed=0)
    >>> [np.bincount(cell[fold == k]).tolist() for k in range(3)]
    [[2, 1], [2, 1], [2, 1]]
    """
    fold = np.empty(len(cell), dtype=np.int64)
    fold[_shuffle_by_cell(cell, seed)] = np.arange(len(cell)) % n_folds
    return fold


def _shuffle_by_cell(cell: np.ndarray, seed: int) -> np.ndarray:
    """Rows in random order, cell after cell."""
    order = np.random.RandomState(seed).permutation(len(cell))
    return order[np.argsort(cell[order], kind="stable")]
