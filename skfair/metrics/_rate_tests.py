"""Tests of the difference between rates of two groups, and the number of rows that they need."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from skfair.metrics._binomial_tests import exact_p_value, wald_p_value
from skfair.metrics._rates import binary_counts, constraint_rates
from skfair.utils._shown import tell_apart

_POWER = 0.8  # probability of a certificate with the number of rows that is called enough
_MOST_ROWS = 10**9


class RateCounts(NamedTuple):
    """Counts behind one rate of each group, which a constraint compares.

    Attributes
    ----------
    name : str
        Name in tables.
    hits : ndarray of shape (..., n_groups) or, for a mean, (..., n_parts, n_groups)
        Numerators of the rate.
    sizes : ndarray, same shape or one that broadcasts to it
        Denominators of the rate.
    is_mean : bool
        True for the mean of several rates.
    """

    name: str
    hits: np.ndarray
    sizes: np.ndarray
    is_mean: bool = False


def rate_counts(constraint: str, counts: np.ndarray, totals: np.ndarray) -> list[RateCounts]:
    """Collect the rates of a constraint from counts of positive predictions of two classes.

    Parameters
    ----------
    constraint : str
        One of :data:`~skfair.metrics._rates.CONSTRAINTS`.
    counts : ndarray of shape (..., n_groups, 2)
        Numbers of rows that are predicted positive: false positives, true positives.
    totals : ndarray of shape (n_groups, 2)
        Numbers of rows: negatives, positives.

    Returns
    -------
    list of RateCounts
    """
    (false, true), (negatives, positives) = np.moveaxis(counts, -1, 0), np.moveaxis(totals, -1, 0)
    return _binary_rates(constraint, true, false, positives, negatives)


def table_rates(
    constraint: str, table: np.ndarray, labels: Sequence, positive: int | None
) -> list[RateCounts]:
    """Collect the rates of a constraint from a table of groups, classes and predictions.

    Parameters
    ----------
    constraint : str
        One of :data:`~skfair.metrics._rates.CONSTRAINTS`.
    table : ndarray of shape (..., n_groups, n_classes, n_predicted)
        Numbers of rows; the first predicted labels are the classes.
    labels : sequence of length n_predicted
        The labels.
    positive : int or None
        Position of the positive label; all other labels are negative. None compares every class;
        the constraint is then "demographic_parity" or "equalized_odds".

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

    This is the verdict of a certificate. Pairs with the largest differences are tested first, and
    the first pair that fails ends the search.

    Parameters
    ----------
    rates : sequence of RateCounts
        Rates of one candidate.
    epsilon, delta : float
        Largest difference, and level of the tests.

    Returns
    -------
    bool
        False if a rate of a group has no rows.
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


@np.errstate(under="ignore")  # probabilities that are nearly zero
def power(
    rates: Sequence[RateCounts], sizes: Sequence[np.ndarray], epsilon: float, delta: float
) -> np.ndarray:
    """Probability that new rows give a certificate, if the true rates are the measured rates.

    The probability is zero if a rate of a group has no rows. It is a normal approximation, computed
    as if pairs were independent; with many groups it is therefore somewhat too small.

    Parameters
    ----------
    rates : sequence of RateCounts
        Rates of one or several candidates.
    sizes : sequence of ndarray, shapes as in `rates`
        Number of new rows behind each rate.
    epsilon, delta : float
        Largest difference, and level of the tests.

    Returns
    -------
    ndarray of shape (...), float64
        The probability for each candidate.
    """
    z = ndtri(1 - delta)
    result = np.ones(())
    for rate, n in zip(rates, sizes, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):  # a rate without rows
            value, variance = estimates(rate, n)
        first, second = np.triu_indices(value.shape[-1], 1)
        difference = np.abs(value[..., first] - value[..., second])
        error = np.sqrt(variance[..., first] + variance[..., second])
        within = ndtr((epsilon - difference) / error - z) - ndtr(z - (epsilon + difference) / error)
        result = result * np.maximum(np.nan_to_num(within), 0).prod(-1)
    return result


def estimates(rate: RateCounts, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimate a rate, and the variance of its estimate.

    Parameters
    ----------
    rate : RateCounts
        The observed counts.
    sizes : ndarray, shape as ``rate.sizes``
        Number of rows for which the variance is computed.

    Returns
    -------
    value, variance : ndarray of shape (..., n_groups), float64
    """
    value = rate.hits / rate.sizes
    # An observed rate of 0 or 1 on a few rows is not certain.
    inner = np.clip(rate.hits, 0.5, rate.sizes - 0.5) / rate.sizes
    variance = inner * (1 - inner) / sizes
    if rate.is_mean:
        return value.mean(-2), variance.sum(-2) / value.shape[-2] ** 2
    return value, variance


def pair_p_value(rate: RateCounts, g: int, h: int, epsilon: float, delta: float) -> float:
    """P-value of the hypothesis that two groups differ by epsilon or more.

    Parameters
    ----------
    rate : RateCounts
        Rate of one candidate.
    g, h : int
        Positions of the groups.
    epsilon, delta : float
        Difference, and level of the test.

    Returns
    -------
    float
        1 if a group has no rows.
    """
    hits, sizes = rate.hits[..., [g, h]], rate.sizes[..., [g, h]]
    if not np.all(sizes > 0):
        return 1.0
    if rate.is_mean:
        return wald_p_value(hits, sizes, epsilon)
    (x1, x2), (n1, n2) = map(int, hits), map(int, sizes)
    return exact_p_value(x1, n1, x2, n2, epsilon, delta)


def least_rows(epsilon: float, delta: float, is_mean: bool = False) -> int:
    """Smallest number of rows of each group that can give a certificate, with rates of zero.

    Parameters
    ----------
    epsilon, delta : float
        Largest difference, and level of the tests.
    is_mean : bool, default=False
        True for the mean of two rates.

    Returns
    -------
    int
        More than 10**9 if `epsilon` is so small that no number up to that is enough.
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
    """Number of rows behind each rate of each group that gives a certificate, in 8 of 10 cases.

    All groups with fewer rows than some number are enlarged to that number. The other groups keep
    their rows.

    Parameters
    ----------
    rates : sequence of RateCounts
        Rates of one candidate.
    epsilon, delta : float
        Largest difference, and level of the tests.
    at_parity : bool, default=False
        True assumes that each group has the rate of all rows together; False assumes that each
        group has its measured rate.

    Returns
    -------
    list of ndarray of shape (n_groups,), int64
        One array for each rate; for a mean, the sum over its parts. None if no number is enough.
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
