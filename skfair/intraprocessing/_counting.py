"""Intra-processing, all methods: counts of positive predictions, and the rates of the groups.

A cell is a group and a label, numbered twice the group plus the label. A stratum holds rows of a
cell to which the original network gives similar scores. Counts have the shape
(..., n_cells, n_strata).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skfair.intraprocessing._gaps import Statistic
from skfair.metrics._rates import count_rates

CHUNK = 1 << 22  # counts held at once, which bounds the memory of a search
# Rows in a stratum, rows of a stratum in the smaller part of a split, and strata in a cell.
_STRATUM, _FEWEST, _MOST_STRATA = 20, 4, 20
_POSITIVE = np.array([0, 1])  # positives among one row of each label
_TINY = 1e-9


def find_strata(cell: np.ndarray, scores: np.ndarray, part: float = 0.5) -> np.ndarray:
    """Group rows of the same cell that have similar scores.

    Parameters
    ----------
    cell : ndarray of shape (n_samples,), int64
        Group and label of each row.
    scores : ndarray of shape (n_samples,)
        Scores by a network that was trained without these rows.
    part : float, default=0.5
        Share of the rows in the smaller part of the split that follows. Each stratum gets several
        rows in that part: a single row would not tell how much the stratum varies.

    Returns
    -------
    ndarray of shape (n_samples,), int64
        Stratum within the cell, counted from zero.
    """
    order = np.lexsort((scores, cell))
    sizes = np.bincount(cell)
    most = max(1, min(_MOST_STRATA, CHUNK * 4 // (len(sizes) * len(cell))))
    rank = np.arange(len(cell)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    n_strata = np.clip(sizes // max(_STRATUM, int(np.ceil(_FEWEST / part))), 1, most)
    stratum = np.empty(len(cell), dtype=np.int64)
    stratum[order] = rank * n_strata[cell[order]] // sizes[cell[order]]
    return stratum


def count_rows(cell: np.ndarray, stratum: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Count the rows of each cell and stratum.

    Parameters
    ----------
    cell, stratum : ndarray of shape (n_samples,), int
    shape : tuple of two int
        ``(n_cells, n_strata)``.

    Returns
    -------
    ndarray of shape (n_cells, n_strata), int64
    """
    return np.bincount(cell * shape[1] + stratum, minlength=shape[0] * shape[1]).reshape(shape)


def cumulate(
    scores: np.ndarray, cell: np.ndarray, stratum: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sort the scores in descending order, and count the rows among the first k for each k.

    Parameters
    ----------
    scores : ndarray of shape (n_networks, n_samples)
    cell, stratum : ndarray of shape (n_samples,), int
    sizes : ndarray of shape (n_cells, n_strata)
        Rows of each cell and stratum.

    Returns
    -------
    ordered : ndarray of shape (n_networks, n_samples), float64
    counts : ndarray of shape (n_cells, n_strata, n_networks, n_samples + 1), float64
    """
    order = np.argsort(-scores, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1).astype(np.float64)
    n_cells, n_strata = sizes.shape
    counts = np.zeros((n_cells * n_strata, len(scores), scores.shape[1] + 1))
    place = (cell * n_strata + stratum)[order]
    for one in np.flatnonzero(sizes):
        np.cumsum(place == one, axis=1, out=counts[one, :, 1:])
    return ordered, counts.reshape(n_cells, n_strata, *counts.shape[1:])


def thresholds_between(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List the thresholds at which scores predict the k largest positive, for each k.

    Parameters
    ----------
    ordered : ndarray of shape (n_networks, n_samples), float64
        Scores in descending order.

    Returns
    -------
    threshold : ndarray of shape (n_networks, n_samples + 1), float64
        Halfway between two scores; the first and last lie beyond all scores.
    distinct : ndarray of shape (n_networks, n_samples + 1), bool
        Whether the threshold separates the two scores. Nothing separates equal scores.
    """
    threshold = np.empty((len(ordered), ordered.shape[1] + 1))
    threshold[:, 1:-1] = ordered[:, 1:] + 0.5 * (ordered[:, :-1] - ordered[:, 1:])
    threshold[:, 0], threshold[:, -1] = ordered[:, 0] + 1, ordered[:, -1] - 1
    distinct = np.ones(threshold.shape, dtype=bool)
    distinct[:, 1:-1] = (ordered[:, :-1] > threshold[:, 1:-1]) & (
        threshold[:, 1:-1] >= ordered[:, 1:]
    )
    return threshold, distinct


def thin(distinct: np.ndarray, most: int) -> np.ndarray:
    """Keep at most `most` true positions of each row, evenly spread, with the first and last.

    Parameters
    ----------
    distinct : ndarray of shape (n_rows, n_positions), bool
    most : int

    Returns
    -------
    ndarray of shape (n_rows, n_positions), bool
    """
    result = np.zeros_like(distinct)
    for row, found in zip(result, distinct, strict=True):
        places = np.flatnonzero(found)
        row[places[np.unique(np.linspace(0, len(places) - 1, most).astype(int))]] = True
    return result


class RateParts(NamedTuple):
    """A mean of rates by group and the parts of its variance; arrays (..., n_groups).

    Attributes
    ----------
    mean : ndarray
        Mean of the rates in the population.
    inside : ndarray
        Variance from rows of one stratum with different predictions: the sample estimates their
        share in the stratum.
    between : ndarray
        Variance from differences between strata: the population tells the size of each stratum.
    least : ndarray
        Lower limit of ``inside + between``.
    """

    mean: np.ndarray
    inside: np.ndarray
    between: np.ndarray
    least: np.ndarray


def rate_parts(
    rates: Sequence[str],
    counts: np.ndarray,
    sizes: np.ndarray,
    population: np.ndarray,
    compared: np.ndarray,
) -> RateParts:
    """Estimate a mean of rates by group, and its variance, by post-stratification.

    Parameters
    ----------
    rates : sequence of str
        Names in :data:`~skfair.metrics._rates.RATES`.
    counts : ndarray of shape (..., n_cells, n_strata)
        Positive predictions.
    sizes, population : ndarray of shape (n_cells, n_strata)
        Rows of the sample, and of the population that the sample represents.
    compared : ndarray of int
        Groups to return.

    Returns
    -------
    RateParts
    """
    share = counts / np.maximum(sizes, 1)
    mean = inside = between = least = np.zeros((*counts.shape[:-2], len(compared)))
    for rate in count_rates(rates, 0, 0, _POSITIVE, 1 - _POSITIVE):
        # Labels of the rows that the rate is about: both, the positive or the negative one.
        cells = (2 * compared[:, None] + np.flatnonzero(rate.size > 0)).astype(int)
        shape = (*counts.shape[:-2], len(compared), -1)
        p = share[..., cells, :].reshape(shape)
        rows = population[cells].reshape(shape[-2:])
        sample = sizes[cells].reshape(shape[-2:])
        of, measured = np.maximum(rows.sum(-1), 1), sample.sum(-1)
        known = measured > 0
        weight = rows / of[:, None]
        value = (weight * p).sum(-1)
        # A group without rows, as in a fold, gets the rate of all other groups.
        pooled = (of * known * value).sum(-1, keepdims=True) / max((of * known).sum(), 1)
        value = np.where(known, value, pooled)
        # With several strata the estimate is unbiased; a single row gives no estimate.
        freedom = np.maximum(sample - (sizes.shape[1] > 1), 1)
        part = 1 / len(rates) ** 2
        mean = mean + value / len(rates)
        apart = (weight**2 * p * (1 - p) / freedom).sum(-1)
        # A small sample of a large population is uncertain, even if each stratum is predicted
        # as one.
        half = 0.5 / np.maximum(measured, 1)
        unseen = half * (1 - half) / np.maximum(measured, 1) * (1 - measured / of)
        inside = inside + part * np.maximum(apart, unseen)
        spread = ((weight * p**2).sum(-1) - value**2).clip(min=0)
        between = between + part * spread / of
        # A rate of 0 or 1 among a few rows is not certain.
        inner = np.clip(value, half, 1 - half)
        least = least + part * inner * (1 - inner) / np.where(known, of, 1)
    return RateParts(mean, inside, between, least)


def combine_tuned(
    mean: np.ndarray, variance: np.ndarray, tuned: np.ndarray, tuned_variance: np.ndarray
) -> Statistic:
    """Combine rates on held-out rows with rates on the rows that tuned the network.

    The weights are the inverse variances. The variance of the tuned rates grows by their squared
    distance from the held-out rates, as far as chance does not explain that distance.

    Parameters
    ----------
    mean, variance : ndarray of shape (..., n_groups)
        Rates on held-out rows and their variances.
    tuned, tuned_variance : ndarray of shape (..., n_groups)
        Rates on tuned rows and their variances.

    Returns
    -------
    mean, variance : ndarray of shape (..., n_groups)
    """
    apart = (tuned - mean) ** 2 - variance - tuned_variance
    tuned_variance = tuned_variance + np.maximum(apart.mean(-1, keepdims=True), 0) + _TINY
    variance = variance + _TINY
    weight = tuned_variance / (variance + tuned_variance)
    return weight * mean + (1 - weight) * tuned, weight * variance
