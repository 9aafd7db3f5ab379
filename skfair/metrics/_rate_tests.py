"""Whether rates of groups are proven to be alike: all pairs, and the rows that it takes."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from skfair.metrics._binomial_tests import exact_p_value, wald_p_value
from skfair.metrics._rates import binary_counts, constraint_rates
from skfair.utils._shown import tell_apart

_POWER = 0.8  # probability of a certificate with as many rows as are said to be needed
_MOST_ROWS = 10**9


class RateCounts(NamedTuple):
    """Counts behind one rate of each group, which a constraint wants to be alike.

    Attributes
    ----------
    name : str
        What it is called in tables.
    hits : ndarray of shape (..., n_groups) or, of a mean, (..., n_parts, n_groups)
        Rows that count.
    sizes : ndarray, same shape or one that goes with it
        Of how many.
    is_mean : bool
        Whether it is the mean of several rates.
    """

    name: str
    hits: np.ndarray
    sizes: np.ndarray
    is_mean: bool = False


def rate_counts(constraint: str, counts: np.ndarray, totals: np.ndarray) -> list[RateCounts]:
    """Collect what a constraint compares from counts of positive predictions, of two classes.

    Parameters
    ----------
    constraint : str
        One of :data:`~skfair.metrics._rates.CONSTRAINTS`.
    counts : ndarray of shape (..., n_groups, 2)
        Rows predicted positive: false positives, true positives.
    totals : ndarray of shape (n_groups, 2)
        Rows: negatives, positives.

    Returns
    -------
    list of RateCounts
    """
    (false, true), (negatives, positives) = np.moveaxis(counts, -1, 0), np.moveaxis(totals, -1, 0)
    return _binary_rates(constraint, true, false, positives, negatives)


def table_rates(
    constraint: str, table: np.ndarray, labels: Sequence, positive: int | None
) -> list[RateCounts]:
    """Collect what a constraint compares from a table of groups, classes and predictions.

    Parameters
    ----------
    constraint : str
        One of :data:`~skfair.metrics._rates.CONSTRAINTS`.
    table : ndarray of shape (..., n_groups, n_classes, n_predicted)
        Rows; the first predicted labels are the classes.
    labels : sequence of length n_predicted
        The labels.
    positive : int or None
        Position of the positive one, as against all others; None for every class by itself,
        where the constraint is "demographic_parity" or "equalized_odds".

    Returns
    -------
    list of RateCounts
    """
    if positive is not None:
        return _binary_rates(constraint, *binary_counts(table, positive))
    told = list(tell_apart(labels).values())
    names = [f"predicted {label}" for label in told]
    if constraint == "demographic_parity":
        hits = table.sum(-2)
        return [RateCounts(name, hits[..., k], hits.sum(-1)) for k, name in enumerate(names)]
    return [
        RateCounts(f"{name} of {told[y]}", table[..., y, k], table[..., y, :].sum(-1))
        for y in range(table.shape[-2])
        for k, name in enumerate(names)
    ]


def _binary_rates(constraint: str, *counts: np.ndarray) -> list[RateCounts]:
    collected = []
    for rates in constraint_rates(constraint, *counts):
        name = " and ".join(rate.name.replace("_", " ") for rate in rates) + " rate"
        if len(rates) == 1:
            collected.append(RateCounts(name, rates[0].hits, rates[0].size))
        else:
            hits = np.stack([rate.hits for rate in rates], -2)
            sizes = np.stack([rate.size for rate in rates], -2)
            collected.append(RateCounts(f"mean of {name}", hits, sizes, True))
    return collected


def holds(rates: Sequence[RateCounts], epsilon: float, delta: float) -> bool:
    """Tell whether all pairs of groups are proven to differ by less than epsilon.

    The verdict of a certificate, found as soon as one pair says no; the largest differences come
    first.

    Parameters
    ----------
    rates : sequence of RateCounts
        Of one candidate.
    epsilon, delta : float

    Returns
    -------
    bool
        Where a rate of a group has no rows, False.
    """
    pairs = []
    for rate in rates:
        if not np.all(rate.sizes > 0):
            return False
        value, variance = estimates(rate, rate.sizes)
        for g, h in combinations(range(len(value)), 2):
            gap = (abs(value[g] - value[h]) - epsilon) / np.sqrt(variance[g] + variance[h])
            if gap >= 0:
                return False
            pairs.append((gap, rate, g, h))
    pairs.sort(key=lambda pair: -pair[0])
    return all(pair_p_value(rate, g, h, epsilon, delta) <= delta for _, rate, g, h in pairs)


@np.errstate(under="ignore")  # of what is next to impossible
def power(
    rates: Sequence[RateCounts], sizes: Sequence[np.ndarray], epsilon: float, delta: float
) -> np.ndarray:
    """Probability that rows yet to come prove it, if the rates were those that were measured.

    Zero where a rate of a group has no rows. By normal approximation, and as if pairs were
    independent, which makes it somewhat too small where there are many groups.

    Parameters
    ----------
    rates : sequence of RateCounts
        Of one or several candidates.
    sizes : sequence of ndarray, shapes as those in `rates`
        Rows to come behind each.
    epsilon, delta : float

    Returns
    -------
    ndarray of shape (...), float64
        One for each candidate.
    """
    z = ndtri(1 - delta)
    result = np.ones(())
    for rate, n in zip(rates, sizes, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):  # where there are no rows
            value, variance = estimates(rate, n)
        first, second = np.triu_indices(value.shape[-1], 1)
        difference = np.abs(value[..., first] - value[..., second])
        error = np.sqrt(variance[..., first] + variance[..., second])
        within = ndtr((epsilon - difference) / error - z) - ndtr(z - (epsilon + difference) / error)
        result = result * np.maximum(np.nan_to_num(within), 0).prod(-1)
    return result


def estimates(rate: RateCounts, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value of a rate, and its variance on as many rows as `sizes` says.

    Parameters
    ----------
    rate : RateCounts
    sizes : ndarray
        As in it.

    Returns
    -------
    value, variance : ndarray of shape (..., n_groups), float64
    """
    value = rate.hits / rate.sizes
    # A rate of 0 or 1 among a few rows is not certain.
    inner = np.clip(rate.hits, 0.5, rate.sizes - 0.5) / rate.sizes
    variance = inner * (1 - inner) / sizes
    if rate.is_mean:
        return value.mean(-2), variance.sum(-2) / value.shape[-2] ** 2
    return value, variance


def pair_p_value(rate: RateCounts, g: int, h: int, epsilon: float, delta: float) -> float:
    """P-value of two groups differing by epsilon or more, 1 where there are no rows.

    Parameters
    ----------
    rate : RateCounts
        Of one candidate.
    g, h : int
        Positions of the groups.
    epsilon, delta : float

    Returns
    -------
    float
    """
    hits, sizes = rate.hits[..., [g, h]], rate.sizes[..., [g, h]]
    if not np.all(sizes > 0):
        return 1.0
    if rate.is_mean:
        return wald_p_value(hits, sizes, epsilon)
    (x1, x2), (n1, n2) = map(int, hits), map(int, sizes)
    return exact_p_value(x1, n1, x2, n2, epsilon, delta)


def least_rows(epsilon: float, delta: float, is_mean: bool = False) -> int:
    """Rows of each group below which no outcome is a certificate: where no row counts at all.

    Parameters
    ----------
    epsilon, delta : float
    is_mean : bool, default=False
        For the mean of two rates.

    Returns
    -------
    int
        A number that nobody has where `epsilon` is so small.
    """

    def enough(m: int) -> bool:
        shape = (2, 2) if is_mean else (2,)
        rate = RateCounts("", np.zeros(shape), np.full(shape, m), is_mean)
        return pair_p_value(rate, 0, 1, epsilon, delta) <= delta

    high = 1
    while not enough(high):
        high *= 2
        if high > _MOST_ROWS:
            return high
    low = high // 2  # not enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def rows_for(
    rates: Sequence[RateCounts], epsilon: float, delta: float, *, at_parity: bool = False
) -> list[np.ndarray] | None:
    """Rows behind each rate of each group that would do, with a probability of 0.8.

    Groups keep the rows that they have; those with fewer than some number get that number.

    Parameters
    ----------
    rates : sequence of RateCounts
        Of one candidate.
    epsilon, delta : float
    at_parity : bool, default=False
        If all groups had the rates of all rows; else those that were measured.

    Returns
    -------
    list of ndarray of shape (n_groups,), int64
        One for each rate, of a mean the sum of its parts. None where no number would do.
    """
    if at_parity:
        rates = [
            rate._replace(hits=rate.sizes * (rate.hits.sum(-1) / rate.sizes.sum(-1))[..., None])
            for rate in rates
        ]
    least = [least_rows(epsilon, delta, rate.is_mean) for rate in rates]

    def sizes(m: int) -> list[np.ndarray]:
        return [np.maximum(rate.sizes, max(m, n)) for rate, n in zip(rates, least, strict=True)]

    low, high = 0, 1
    while power(rates, sizes(high), epsilon, delta) < _POWER:
        low, high = high, 2 * high
        if high > _MOST_ROWS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(rates, sizes(middle), epsilon, delta) >= _POWER
        low, high = (low, middle) if enough else (middle, high)
    found = [n.sum(-2) if rate.is_mean else n for rate, n in zip(rates, sizes(high), strict=True)]
    return [n.astype(np.int64) for n in found]
