"""The tests behind certificates: do two binomial rates differ by less than epsilon?"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
from scipy.special import betaincinv, gammaln, ndtr, ndtri

# Share of delta with which the confidence region may miss the nuisance parameter (Berger and Boos).
_NUISANCE = 0.02
_NODES = 48  # rates at which the size is computed, over some seven standard deviations
_DEVIATIONS = 6.5  # counts further out are not enumerated; their probability is added to the size
_CHUNK = 2**21  # numbers held at a time, 16 MiB
# Tolerance of the bound on a difference, in standard errors.
_NEAR = 0.01


def score(x1: Any, n1: int, x2: Any, n2: int, epsilon: float) -> Any:
    """Score statistic of r1 - r2 = epsilon, the variance by maximum likelihood under it.

    O. S. Miettinen and M. Nurminen, "Comparative analysis of two rates", Statistics in Medicine 4
    (1985), 213-226; the closed form is that of C. P. Farrington and G. Manning, ibid. 9 (1990).

    Parameters
    ----------
    x1, x2 : int or ndarray
        Hits among `n1` and `n2` rows.
    n1, n2 : int
        Numbers of rows.
    epsilon : float
        Between 0 and 1, both excluded.

    Returns
    -------
    float or ndarray
        Negative if the observed r1 - r2 is smaller than epsilon.
    """
    r1, r2 = x1 / n1, x2 / n2
    theta = n2 / n1
    a = 1 + theta
    b = (1 + theta + r1 + theta * r2 + epsilon * (theta + 2)) / (3 * a)
    c = (epsilon**2 + epsilon * (2 * r1 + theta + 1) + r1 + theta * r2) / (3 * a)
    d = -r1 * epsilon * (1 + epsilon) / (2 * a)
    v = 1.5 * b * c - b**3 + d
    u = np.copysign(np.sqrt(np.maximum(b**2 - c, 1e-300)), v)
    angle = (np.pi + np.arccos(np.clip(v / u**3, -1, 1))) / 3
    p1 = np.clip(2 * u * np.cos(angle) + b, max(epsilon, 0.0), min(1.0, 1 + epsilon))
    p2 = p1 - epsilon
    variance = p1 * (1 - p1) / n1 + p2 * (1 - p2) / n2
    return (r1 - r2 - epsilon) / np.sqrt(np.maximum(variance, 1e-300))


@np.errstate(under="ignore")  # probabilities of outcomes that hardly occur
def exact_p_value(
    x1: int, n1: int, x2: int, n2: int, epsilon: float, delta: float, two_sided: bool = True
) -> float:
    """Exact p-value of |r1 - r2| >= epsilon, to be compared with `delta`.

    There are two one-sided tests, of r1 - r2 >= epsilon and of r2 - r1 >= epsilon. They need no
    correction, since the hypothesis is rejected only if both tests reject. Each test is
    unconditional: its p-value is the largest probability, over all rates that the hypothesis and
    the data allow, of counts at least as extreme as the observed counts by the score statistic.

    Parameters
    ----------
    x1, n1, x2, n2 : int
        Hits and rows of both groups.
    epsilon : float
        Between 0 and 1, both excluded.
    delta : float
        The level. The p-value depends on it, since the confidence region of the rates does.
    two_sided : bool, default=True
        False omits the second test.

    Returns
    -------
    float

    Notes
    -----
    The region of the rates is a rectangle of Clopper-Pearson intervals. It misses the true rates
    with a probability of at most delta / 50, which is added to the p-value: R. L. Berger and D. D.
    Boos, "P values maximized over a confidence set for the nuisance parameter", Journal of the
    American Statistical Association 89 (1994), 1012-1016. The set of extreme counts contains, with
    (x1, x2), all counts with smaller x1 and larger x2. Its probability is therefore largest on the
    boundary, r1 - r2 = epsilon.

    Examples
    --------
    >>> round(exact_p_value(500, 1000, 490, 1000, 0.05, 0.05), 3)
    0.039
    """
    sides = [(x1, n1, x2, n2)] + ([(x2, n2, x1, n1)] if two_sided else [])
    return max(_one_sided(*side, epsilon, delta) for side in sides)


def _one_sided(x1: int, n1: int, x2: int, n2: int, epsilon: float, delta: float) -> float:
    """P-value of r1 - r2 >= epsilon."""
    observed = score(x1, n1, x2, n2, epsilon)
    if observed >= 0:  # no evidence against the hypothesis
        return 1.0
    beta = _NUISANCE * delta
    (low1, high1), (low2, high2) = (_interval(x, n, beta / 4) for x, n in ((x1, n1), (x2, n2)))
    low, high = max(low2, low1 - epsilon), min(high2, high1 - epsilon)
    if low > high:  # no rates in the region differ by epsilon
        return beta
    # Rates r2 in the interval, equally spaced on the scale that stabilises the variance.
    nodes = np.linspace(np.arcsin(sqrt(low)), np.arcsin(sqrt(high)), _NODES)
    first1, last1 = _window(n1, max(low + epsilon, 0.0), high + epsilon)
    first2, last2 = _window(n2, low, high)
    hits1, hits2 = np.arange(first1, last1 + 1), np.arange(first2, last2 + 1)
    # For each x1 the smallest x2 that is at least as extreme as the observed counts.
    start, stop = np.zeros(len(hits1), dtype=np.int64), np.full(len(hits1), len(hits2))
    while np.any(start < stop):
        middle = (start + stop) // 2
        far = score(hits1, n1, first2 + middle, n2, epsilon) <= observed + 1e-9
        open_ = start < stop
        start = np.where(open_ & ~far, middle + 1, start)
        stop = np.where(open_ & far, middle, stop)
    start = np.minimum.accumulate(start[::-1])[::-1]

    def size(angles: np.ndarray) -> np.ndarray:
        rate = np.sin(angles) ** 2
        mass1 = _mass(hits1, n1, np.clip(rate + epsilon, 0.0, 1.0))
        mass2 = _mass(hits2, n2, rate)
        above = np.zeros((len(rate), len(hits2) + 1))
        np.cumsum(mass2[:, ::-1], axis=1, out=above[:, -2::-1])
        missed = 2 - mass1.sum(1) - mass2.sum(1)
        return (mass1 * above[:, start]).sum(1) + np.maximum(missed, 0)

    step = max(1, _CHUNK // (len(hits1) + len(hits2)))
    sizes = np.concatenate([size(nodes[i : i + step]) for i in range(0, _NODES, step)])
    return min(1.0, _peak(sizes) + beta)


def _peak(values: np.ndarray) -> float:
    """Estimate the maximum of a smooth function from equally spaced values, by parabolas."""
    left, middle, right = values[:-2], values[1:-1], values[2:]
    top = (middle >= left) & (middle >= right) & (left + right < 2 * middle)
    left, middle, right = left[top], middle[top], right[top]
    vertex = middle + (right - left) ** 2 / (8 * (2 * middle - left - right))
    return float(max(values.max(), *vertex)) if len(vertex) else float(values.max())


def _interval(x: int, n: int, tail: float) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate, with `tail` at each end."""
    low = betaincinv(x, n - x + 1, tail) if x > 0 else 0.0
    high = betaincinv(x + 1, n - x, 1 - tail) if x < n else 1.0
    return float(low), float(high)


def _window(n: int, low: float, high: float) -> tuple[int, int]:
    """Range of counts that has nearly all probability, for all rates from `low` to `high`."""
    below, above = (_DEVIATIONS * sqrt(n * p * max(1 - p, 0.0)) + 10 for p in (low, high))
    return max(0, int(n * low - below)), min(n, int(n * high + above) + 1)


def _mass(hits: np.ndarray, n: int, rate: np.ndarray) -> np.ndarray:
    """Binomial probabilities, (n_rates, n_hits)."""
    ways = gammaln(n + 1) - gammaln(hits + 1) - gammaln(n - hits + 1)
    rate = np.clip(rate, 1e-300, 1 - 1e-16)[:, None]
    return np.exp(ways + hits * np.log(rate) + (n - hits) * np.log1p(-rate))


def wald_p_value(hits: np.ndarray, sizes: np.ndarray, epsilon: float) -> float:
    """P-value of |mean of r1 - r2 over some rates| >= epsilon; approximate.

    These are two one-sided tests with adjusted counts: R. M. Price and D. G. Bonett, "An improved
    confidence interval for a linear function of binomial proportions", Computational Statistics &
    Data Analysis 45 (2004), 449-456. If some rates are 0 or 1, these tests reject too often, up to
    .08 instead of .05. As a correction, the difference is enlarged by one row of the smallest
    group.

    Parameters
    ----------
    hits, sizes : ndarray of shape (n_rates, 2)
        Counts of both groups for each rate.
    epsilon : float
        Largest difference.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> hits, sizes = np.array([[250, 255], [50, 45]]), np.array([[500, 500], [500, 500]])
    >>> round(wald_p_value(hits, sizes, 0.05), 4)
    0.0038
    """
    if abs((hits[:, 0] / sizes[:, 0] - hits[:, 1] / sizes[:, 1]).mean()) >= epsilon:
        return 1.0  # no evidence against the hypothesis
    rates = (hits + 2 / hits.size) / (sizes + 4 / hits.size)
    variance = (rates * (1 - rates) / (sizes + 4 / hits.size)).sum() / len(hits) ** 2
    difference = abs((rates[:, 0] - rates[:, 1]).mean()) + 1 / (len(hits) * sizes.min())
    return float(ndtr((difference - epsilon) / np.sqrt(variance)))


def upper_bound(
    p_value: Callable[[float], float],
    delta: float,
    difference: float,
    error: float,
    tested: tuple[float, float],
) -> float:
    """Smallest epsilon that a test rejects: an upper confidence bound on a difference.

    Parameters
    ----------
    p_value : callable
        ``p_value(epsilon)`` -> float, for epsilon between `difference` and 1.
    delta : float
        The level.
    difference : float
        Observed absolute difference.
    error : float
        Approximate standard error of the difference. It gives the first guess and the tolerance.
    tested : tuple of float
        An epsilon and its p-value, which tells on which side of this epsilon the bound lies.

    Returns
    -------
    float
        At most 1. It exceeds the exact bound by at most 1 % of `error`.

    Examples
    --------
    >>> p = lambda epsilon: exact_p_value(500, 1000, 490, 1000, epsilon, 0.05)
    >>> round(upper_bound(p, 0.05, 0.01, 0.022, (0.05, p(0.05))), 3)
    0.047
    """
    aim, near = float(ndtri(delta)), _NEAR * error

    def above(p: float) -> float:
        """Distance from rejection, on a scale that is nearly linear in epsilon."""
        return float(ndtri(min(max(p, 1e-12), 1 - 1e-12))) - aim

    low, high = difference, 1.0
    at_low, at_high = -aim, -aim  # at the observed difference p is about one half
    if tested[1] <= delta:
        high, at_high = tested[0], above(tested[1])
    elif tested[0] > low:
        low, at_low = tested[0], above(tested[1])
    guess = difference - aim * error
    while high - low > near:
        if not low < guess < high:
            guess = 0.5 * (low + high)
        value = above(p_value(guess))
        if value > 0:
            low, at_low = guess, value
        else:
            high, at_high = guess, value
        if high == 1:
            guess = low + 1.1 * error * max(at_low, 0.2)
            continue
        step = at_low / max(at_low - at_high, 1e-12) * (high - low)
        step += 0.45 * near if value > 0 else -0.45 * near  # so that both ends enclose the root
        guess = low + min(max(step, 0.05 * (high - low)), 0.95 * (high - low))
    return high
