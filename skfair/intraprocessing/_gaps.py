"""Intra-processing, all methods: differences between groups, from rates and their variances."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

# One statistic of all groups: its mean and its sampling variance, each of shape (..., n_groups).
Statistic = tuple[np.ndarray, np.ndarray]

# A bias is measured on n rows and occurs again on 2 n new rows: the variance of the difference, in
# sampling variances of the measured bias.
NEW_VARIANCE = 1.5
# The integral for the probability that more than two normal variables lie within epsilon: its step
# in smallest deviations, and the limit of the ratio of the largest deviation to the smallest.
_STEP, _LARGEST_TO_SMALLEST = 0.6, 64
_CERTAIN = 6  # deviations
# A candidate is feasible if the constraint holds on new rows with at least this probability. The
# estimate is slightly too high where choices are hard. With a limit of one half, the constraint
# would hold less often than in half of the cases.
SURE = 0.8
_DRAWS, _DRAWS_OF_INTERVAL = 64, 4000
_LEVELS = (0.025, 0.975)
_SPREADS = np.linspace(0, 0.5, 101)  # between groups; the spread of rates is at most a half


class Gap(NamedTuple):
    """The largest difference between groups, over all statistics; arrays of shape (...).

    Attributes
    ----------
    bias : ndarray
        With two groups and one statistic, the statistic of the first group minus that of the
        second; otherwise the size of the largest difference.
    error : ndarray
        Standard error of the bias.
    probability : ndarray
        Probability that all differences lie within epsilon on new rows, twice as many as were
        measured.
    excess : ndarray
        Expected excess of the largest difference over epsilon.
    """

    bias: np.ndarray
    error: np.ndarray
    probability: np.ndarray
    excess: np.ndarray


def measure_gap(
    statistics: Sequence[Statistic], epsilon: float, room: float = 0.0, *, likely: bool = True
) -> Gap:
    """Measure the largest difference between the groups.

    With more than two groups the rates are shrunk (:func:`shrink`): the largest of many differences
    is too large by chance alone, and the rate of a small group is inaccurate.

    Parameters
    ----------
    statistics : list of (mean, variance)
        Each of shape (..., n_groups).
    epsilon : float
        The allowed difference.
    room : float, default=0.0
        Addition to each measured difference, as a safety margin.
    likely : bool, default=True
        Whether to compute the probability for more than two groups, which takes long; NaN
        otherwise.

    Returns
    -------
    Gap
    """
    n_groups = statistics[0][0].shape[-1]
    if n_groups > 2:
        statistics = [shrink(*statistic, epsilon) for statistic in statistics]
    probability = np.ones(statistics[0][0].shape[:-1])
    for mean, variance in statistics:
        likely_so = within(mean, variance, epsilon, room) if likely or n_groups == 2 else np.nan
        probability = probability * likely_so
    if n_groups > 2:
        draws = _draws(statistics, _DRAWS)
        excess = np.maximum(draws + room - epsilon, 0).mean(-1)
        return Gap(draws.mean(-1), draws.std(-1), probability, excess)
    pairs = [(mean[..., 0] - mean[..., 1], np.sqrt(var.sum(-1))) for mean, var in statistics]
    bias, error = pairs[0]
    if len(pairs) > 1:
        bias = np.abs(bias)
        for other, its_error in pairs[1:]:
            larger = np.abs(other) > bias
            bias = np.where(larger, np.abs(other), bias)
            error = np.where(larger, its_error, error)
    return Gap(bias, error, probability, np.maximum(np.abs(bias) - epsilon, 0))


def gap_interval(statistics: Sequence[Statistic], epsilon: float) -> tuple[float, float]:
    """Compute a 95 % interval for the largest difference in the population.

    Parameters
    ----------
    statistics : list of (mean, variance)
        Each of shape (n_groups,).
    epsilon : float
        The allowed difference.

    Returns
    -------
    low, high : float
        Not below zero for a bias without a sign.
    """
    bias, error, _, _ = measure_gap(statistics, epsilon)
    if len(statistics[0][0]) > 2:
        low, high = np.quantile(_posterior_draws(statistics), _LEVELS)
        return min(float(low), float(bias)), max(float(high), float(bias))
    if len(statistics) == 1:
        return normal_interval(float(bias), float(error), signed=True)
    # The largest difference in the population may be another one than the largest here: one of a
    # small group. And one of several differences is far from zero more easily than a single one.
    sizes = [abs(float(mean[0] - mean[1])) for mean, _ in statistics]
    errors = [float(np.sqrt(variance.sum())) for _, variance in statistics]
    below, above = (float(ndtri(1 - _LEVELS[0] / many)) for many in (len(statistics), 1))
    low, high = (np.add(sizes, np.multiply(z, errors)).max() for z in (-below, above))
    return max(float(low), 0.0), float(high)


def normal_interval(bias: float, error: float, *, signed: bool) -> tuple[float, float]:
    """Compute a 95 % interval by normal approximation.

    Returns
    -------
    low, high : float
    """
    half = float(ndtri(_LEVELS[1])) * error
    low, high = bias - half, bias + half
    return (low if signed else max(low, 0.0)), high


def table_of_pairs(
    names: Sequence[str], labels: Sequence[Any], statistics: Sequence[Statistic], epsilon: float
) -> pd.DataFrame:
    """Compute the difference of each pair of groups, and its uncertainty.

    Parameters
    ----------
    names : list of str
        Name of each statistic.
    labels : list
        The groups.
    statistics : list of (mean, variance)
        Each of shape (n_groups,).
    epsilon : float
        The allowed difference.

    Returns
    -------
    DataFrame
        Columns "rate", "group_1", "group_2", "difference", "low" and "high" (95 % interval), and
        "probability" (that this pair lies within epsilon on new rows). The rates are not shrunk.
    """
    rows = []
    for name, (mean, variance) in zip(names, statistics, strict=True):
        for one, two in combinations(range(len(labels)), 2):
            pair = [one, two]
            difference = float(mean[one] - mean[two])
            error = float(np.sqrt(variance[pair].sum()))
            low, high = normal_interval(difference, error, signed=True)
            probability = float(within(mean[pair], variance[pair], epsilon))
            rows.append((name, labels[one], labels[two], difference, low, high, probability))
    columns = ["rate", "group_1", "group_2", "difference", "low", "high", "probability"]
    # An empty table has the same types.
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[3:], np.float64))


def shrink(mean: np.ndarray, variance: np.ndarray, epsilon: float) -> Statistic:
    """Shrink rates of groups towards their common mean; rates with a large variance move most.

    Empirical Bayes for normal means. The spread between groups is estimated from all groups
    (DerSimonian and Laird), and is at least half of epsilon: a few groups that happen to have
    similar rates are no proof that all groups have.

    Parameters
    ----------
    mean, variance : ndarray of shape (..., n_groups)
        Rates and their sampling variances, above zero.
    epsilon : float
        The allowed difference.

    Returns
    -------
    mean, variance : ndarray of shape (..., n_groups)
        Posterior means and variances of the rates.
    """
    weight = 1 / variance
    total = weight.sum(-1, keepdims=True)
    centre = (weight * mean).sum(-1, keepdims=True) / total
    scatter = (weight * (mean - centre) ** 2).sum(-1, keepdims=True) - (mean.shape[-1] - 1)
    between = scatter / (total - (weight**2).sum(-1, keepdims=True) / total)
    between = np.maximum(between, (epsilon / 2) ** 2)
    weight = 1 / (between + variance)
    total = weight.sum(-1, keepdims=True)
    centre = (weight * mean).sum(-1, keepdims=True) / total
    kept = between * weight
    return centre + kept * (mean - centre), kept * variance + (1 - kept) ** 2 / total


def _draws(statistics: Sequence[Statistic], n_draws: int) -> np.ndarray:
    """Draw the largest difference, (..., n_draws); all calls use the same normal numbers."""
    n_groups = statistics[0][0].shape[-1]
    rng = np.random.default_rng(0)
    largest: Any = 0.0
    for mean, variance in statistics:
        half = rng.standard_normal((n_draws // 2, n_groups))
        normal = np.concatenate([half, -half])
        rates = mean[..., None, :] + np.sqrt(variance)[..., None, :] * normal
        rates = np.clip(rates, 0, 1)
        largest = np.maximum(largest, rates.max(-1) - rates.min(-1))
    return largest


def _posterior_draws(statistics: Sequence[Statistic]) -> np.ndarray:
    """Draw the largest difference, and with it the unknown spread between groups.

    The prior of the spread is uniform. A single estimate of the spread, as in :func:`shrink`, would
    make the interval too narrow where there are few groups.
    """
    rng, n = np.random.default_rng(0), _DRAWS_OF_INTERVAL
    largest: Any = 0.0
    for mean, variance in statistics:
        weight = 1 / (_SPREADS[:, None] ** 2 + variance)
        total = weight.sum(-1)
        centre = (weight * mean).sum(-1) / total
        misfit = (weight * (mean - centre[:, None]) ** 2).sum(-1)
        log = 0.5 * (np.log(weight).sum(-1) - np.log(total) - misfit)
        share = np.exp(log - log.max())
        place = rng.choice(len(_SPREADS), size=n, p=share / share.sum())
        common = centre[place] + rng.standard_normal(n) / np.sqrt(total[place])
        between = _SPREADS[place, None] ** 2
        kept = between / (between + variance)
        rates = common[:, None] + kept * (mean - common[:, None])
        rates += np.sqrt(kept * variance) * rng.standard_normal((n, len(mean)))
        largest = np.maximum(largest, np.ptp(np.clip(rates, 0, 1), axis=1))
    return largest


def within(mean: np.ndarray, variance: np.ndarray, epsilon: float, room: float = 0.0) -> np.ndarray:
    """Compute the probability that independent normal variables lie within epsilon of each other.

    The variables are the statistics on new rows, given the measured statistics and their variances.

    Parameters
    ----------
    mean, variance : ndarray of shape (..., n_groups)
    epsilon : float
    room : float, default=0.0
        Addition to the measured difference of two groups, as a safety margin.

    Returns
    -------
    ndarray of shape (...)
    """
    deviation = np.sqrt(NEW_VARIANCE * variance)
    if mean.shape[-1] == 2:
        difference = np.abs(mean[..., 0] - mean[..., 1]) + room
        spread = np.hypot(deviation[..., 0], deviation[..., 1])
        spread = np.maximum(spread, np.finfo(float).tiny)
        return ndtr((epsilon - difference) / spread) - ndtr((-epsilon - difference) / spread)
    spread, widest = np.ptp(mean, axis=-1), deviation.max(-1)
    result = np.array(spread < epsilon, dtype=np.float64)
    uncertain = np.abs(spread - epsilon) < 2 * _CERTAIN * widest
    if not uncertain.any():
        return result
    mean, widest = mean[uncertain], widest[uncertain, None]
    deviation = np.maximum(deviation[uncertain], widest / _LARGEST_TO_SMALLEST)
    step = _STEP * deviation.min(-1, keepdims=True)
    # The range of the lowest variable: all others lie between it and epsilon above it.
    start = (mean - epsilon - _CERTAIN * deviation).max(-1, keepdims=True)
    end = (mean + _CERTAIN * deviation).min(-1, keepdims=True)
    total, one = np.zeros(len(mean)), np.ones((len(mean), 1))
    for node in range(int(np.ceil(((end - start) / step).max())) + 1):
        distance = (start + node * step - mean) / deviation
        density = np.exp(-(distance**2) / 2) / (np.sqrt(2 * np.pi) * deviation)
        above = ndtr(distance + epsilon / deviation) - ndtr(distance)
        # Each is the lowest in turn. The products of all others come from both ends, in time that
        # grows with the number of groups and not with its square.
        before = np.hstack([one, above[:, :-1]]).cumprod(1)
        after = np.hstack([one, above[:, :0:-1]]).cumprod(1)[:, ::-1]
        total += (density * before * after).sum(1)
    result[uncertain] = np.minimum(total * step[:, 0], 1.0)
    return result


def power_to_certify(
    statistics: Sequence[Statistic],
    sizes: Sequence[np.ndarray],
    epsilon: float,
    delta: float,
) -> np.ndarray:
    """Estimate the probability of a certificate on calibration rows from statistics on other rows.

    By normal approximation, for the pair of groups with the lowest probability. The variance of
    the measured statistics counts, unlike in :func:`skfair.metrics._rate_tests.power`, which takes
    the measured rates for the true ones.

    Parameters
    ----------
    statistics : list of (mean, variance)
        Measured on other rows; each of shape (..., n_groups).
    sizes : list of ndarray of shape (n_groups,)
        Calibration rows behind each statistic.
    epsilon, delta : float
        The allowed difference, and the risk of a false certificate.

    Returns
    -------
    ndarray of shape (...)
    """
    power = np.ones(statistics[0][0].shape[:-1])
    z = float(ndtri(1 - delta))
    for (mean, variance), size in zip(statistics, sizes, strict=True):
        inner = np.clip(mean, 0.5 / size, 1 - 0.5 / size)
        calibrated = inner * (1 - inner) / size
        for one, two in combinations(range(mean.shape[-1]), 2):
            error2 = calibrated[..., one] + calibrated[..., two]
            room = epsilon - z * np.sqrt(error2)
            spread = np.sqrt(error2 + variance[..., one] + variance[..., two])
            difference = mean[..., one] - mean[..., two]
            passed = ndtr((room - difference) / spread) - ndtr((-room - difference) / spread)
            power = np.minimum(power, np.maximum(passed, 0.0))
    return power
