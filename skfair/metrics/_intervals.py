"""Intervals: Wilson's and an exact one for shares, a bootstrap of counts for other numbers."""

from collections.abc import Iterator

import numpy as np
from scipy.special import betaincinv

LEVELS = (0.025, 0.975)  # of all intervals: 95 %
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_CHUNK = 2**22  # numbers in memory at a time, 32 MiB


def wilson_interval(share: np.ndarray, n_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a binomial share.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.

    Parameters
    ----------
    share : ndarray
        Observed shares, 0 to 1.
    n_samples : ndarray of the same shape
        Number of samples behind each share; with weights the effective number. NaN gives NaN.

    Returns
    -------
    low, high : ndarray

    Examples
    --------
    >>> import numpy as np
    >>> low, high = wilson_interval(np.array([0.5]), np.array([10]))
    >>> low.round(3), high.round(3)
    (array([0.237]), array([0.763]))
    """
    ratio = _Z**2 / n_samples
    middle = (share + ratio / 2) / (1 + ratio)
    variance = (share * (1 - share) + ratio / 4) / n_samples
    half = _Z * np.sqrt(variance) / (1 + ratio)
    # Exact at the ends: with rounding, the interval would not quite reach 0 or 1.
    low = np.where(share <= 0, 0.0, middle - half)
    return low, np.where(share >= 1, 1.0, middle + half)


def exact_interval(hits: np.ndarray, n_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's 95 % interval of a binomial share, for any number of samples.

    C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the
    case of the binomial", Biometrika 26 (1934), 404-413.

    Parameters
    ----------
    hits : ndarray
        Number of hits.
    n_samples : ndarray of the same shape
        Number of samples, at least the number of hits. 0 gives NaN.

    Returns
    -------
    low, high : ndarray

    Examples
    --------
    >>> import numpy as np
    >>> low, high = exact_interval(np.array([5, 10]), np.array([10, 10]))
    >>> low.round(3), high.round(3)
    (array([0.187, 0.692]), array([0.813, 1.   ]))
    """
    misses = n_samples - hits
    empty = n_samples == 0
    # betaincinv is not defined where one of its numbers is 0: the end is 0 or 1 there.
    low = np.where(hits > 0, betaincinv(np.maximum(hits, 1), misses + 1, LEVELS[0]), 0.0)
    high = np.where(misses > 0, betaincinv(hits + 1, np.maximum(misses, 1), LEVELS[1]), 1.0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def resample_sizes(size: np.ndarray, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """Draw bootstrap samples of the same size, and count the samples of each cell.

    Parameters
    ----------
    size : ndarray of shape (n_cells,), int64
        Number of samples in each cell.
    n_boot : int
        Number of draws.
    seed : int
        The same seed and sizes give the same draws.

    Yields
    ------
    ndarray of shape (n_draws, n_cells), int64
        Some of the draws at a time, so that memory is bounded.

    Examples
    --------
    >>> import numpy as np
    >>> [draws.shape for draws in resample_sizes(np.array([3, 1]), 5, seed=0)]
    [(5, 2)]
    """
    rng = np.random.default_rng(seed)
    n_samples, n_cells = int(size.sum()), len(size)
    # The time to draw sizes grows with the number of cells, the time to draw samples with the
    # number of samples. If all weights differ, there are as many cells as samples.
    cell = np.repeat(np.arange(n_cells), size) if n_samples < 8 * n_cells else None
    step = max(1, _CHUNK // n_cells)
    for start in range(0, n_boot, step):
        n_draws = min(step, n_boot - start)
        if cell is None:
            yield rng.multinomial(n_samples, size / n_samples, size=n_draws)
        else:
            yield np.stack(
                [
                    np.bincount(cell[rng.integers(n_samples, size=n_samples)], minlength=n_cells)
                    for _ in range(n_draws)
                ]
            )


def percentile_interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute 95 % percentile intervals of statistics from draws; NaN draws are left out.

    Parameters
    ----------
    draws : ndarray of shape (n_boot, ...)

    Returns
    -------
    low, high : ndarray of shape (...)
        NaN if no draw is a number, or if all draws are equal: three samples that are all correct
        are correct in every draw, which does not make the value certain.

    Examples
    --------
    >>> import numpy as np
    >>> low, high = percentile_interval(np.arange(101.0)[:, None])
    >>> low, high
    (array([2.5]), array([97.5]))
    """
    flat = draws.reshape(len(draws), -1)
    result = np.full((2, flat.shape[1]), np.nan)
    gaps = np.isnan(flat)
    whole = ~gaps.any(axis=0)
    if whole.any():
        result[:, whole] = np.quantile(flat[:, whole], LEVELS, axis=0)
    for i in np.flatnonzero(~whole & ~gaps.all(axis=0)):  # nanquantile loops, too
        result[:, i] = np.quantile(flat[~gaps[:, i], i], LEVELS)
    result[:, np.isclose(result[0], result[1], rtol=0, atol=1e-12)] = np.nan
    low, high = result.reshape(2, *draws.shape[1:])
    return low, high
