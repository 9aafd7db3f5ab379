"""Holding out rows, so that both parts contain each class and each group."""

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
    everything = np.arange(len(cell))
    order = np.random.RandomState(seed).permutation(len(cell))
    order = order[np.argsort(cell[order], kind="stable")]
    sizes = np.bincount(cell)
    rank = everything - np.repeat(np.cumsum(sizes) - sizes, sizes)
    wanted = np.ceil(fraction * sizes)
    held_out = rank < np.clip(wanted, 1, np.maximum(sizes - 1, 1))[cell[order]]
    alone = sizes[cell[order]] == 1
    return np.sort(order[~held_out | alone]), np.sort(order[held_out])
