"""Evidence against a rule that stays valid however often one looks: e-processes.

An e-process is a wealth that starts at 1 and that no bet can make grow on average while the rule
holds. By Ville's inequality, the wealth then reaches 1 / delta ever with probability delta or less.

Each arrival of counts multiplies the wealth by an e-value, a likelihood ratio. The numerator is an
alternative beyond the limit, chosen before the arrival. The denominator is the point within the
limit that is closest to the alternative (in Kullback-Leibler divergence weighted by the numbers of
samples of this arrival). R. Turner, A. Ly, P. Grünwald, "Generic E-variables for exact sequential
k-sample tests that allow for optional stopping", Journal of Statistical Planning and Inference 230
(2024), prove that this ratio is an e-value for every point of a convex null hypothesis. The rates
may therefore be different in every arrival, as long as they are within the limit, and the numbers
of samples may depend on the past.

The wealth is spread over starting points: the share 1 / (j (j + 1)) is bet from arrival j on. A
change after a long good time is therefore found.
"""

import numpy as np
from scipy.special import logsumexp

# Distances of the alternatives from the limit: in logits for one rate, and as a share of the
# largest possible distance for two rates. Neighbours differ by a factor of two, so that one of
# them is close to any true distance.
_LOGITS = np.array([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
_SHARES = np.array([0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64])
# Levels of the lower rate while no past counts tell the level.
_LEVELS = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
_KNOWN = 20  # samples of the past that tell a level
_STEPS = 60  # halvings of an interval: more change nothing in double precision


def one_rate(hits: np.ndarray, size: np.ndarray, limit: float) -> np.ndarray:
    """Compute the logarithm of e-values for "the rate is at most `limit`".

    Parameters
    ----------
    hits, size : ndarray of shape (n,)
        Numerator and denominator of each rate in this arrival.
    limit : float
        Between 0 and 1, both excluded.

    Returns
    -------
    ndarray of shape (n, n_alternatives), float64

    Examples
    --------
    >>> one_rate(np.array([8]), np.array([10]), 0.5).max().round(2)
    np.float64(1.89)
    """
    odds = limit / (1 - limit) * np.exp(_LOGITS)
    q = odds / (1 + odds)
    hits, misses = hits[:, None], (size - hits)[:, None]
    # (1 - q) / (1 - limit) is 1 / (1 - limit + limit exp(logit)), without cancellation.
    return hits * np.log(q / limit) - misses * np.log1p(limit * np.expm1(_LOGITS))


def two_rates(
    hits: np.ndarray, size: np.ndarray, level: np.ndarray, known: np.ndarray, line: tuple
) -> np.ndarray:
    """Compute the logarithm of e-values for "the first rate is at most a line of the second".

    Parameters
    ----------
    hits, size : ndarray of shape (n, 2)
        Numerators and denominators of the two rates in this arrival.
    level : ndarray of shape (n, 2)
        The two rates as the past shows them.
    known : ndarray of shape (n, 2)
        Numbers of samples behind `level`.
    line : tuple of float
        ``(slope, shift)``: the rule says first <= slope * second + shift, with slope >= 1 and
        0 <= shift < 1.

    Returns
    -------
    ndarray of shape (n, n_alternatives), float64
        Zero where one of the two rates has no sample in this arrival.

    Examples
    --------
    >>> even = np.full((1, 2), 0.5), np.full((1, 2), 100)
    >>> two_rates(np.array([[60, 40]]), np.array([[100, 100]]), *even, (1, 0.05)).max().round(2)
    np.float64(2.28)
    """
    result = np.zeros((len(hits), len(_SHARES)))
    both = (size > 0).all(axis=1)
    told = both & (known >= _KNOWN).all(axis=1)
    result[told] = _ratio(hits[told], size[told], _alternatives(level[told], line), line)
    if (new := both & ~told).any():
        # A mean of e-values is an e-value.
        values = [
            _ratio(hits[new], size[new], _from_lower(np.full((new.sum(), 1), low), line), line)
            for low in _LEVELS
        ]
        result[new] = logsumexp(values, axis=0) - np.log(len(_LEVELS))
    return result


def _alternatives(level: np.ndarray, line: tuple) -> np.ndarray:
    """Choose rates beyond the line whose mean is close to the mean that the past shows."""
    slope, shift = line
    middle = level.mean(axis=1, keepdims=True)
    # On the line, rates of this mean have the lower rate `low`; the distance moves both.
    low = (2 * middle - shift) / (1 + slope)
    return _from_lower(np.clip(low, 0.001, 0.999), line)


def _from_lower(low: np.ndarray, line: tuple) -> np.ndarray:
    """Choose pairs of rates at each distance beyond the line, near a lower rate on the line.

    Returns
    -------
    ndarray of shape (n, n_alternatives, 2)
        First and second rate, with first > slope * second + shift.
    """
    slope, shift = line
    distance = (1 - shift) * _SHARES
    edge = 1e-4 * (1 - shift)
    # The second rate leaves room for the first one below 1.
    second = np.minimum(low - distance / (1 + slope), (1 - shift - distance - edge) / slope)
    second = np.maximum(second, edge / slope)
    return np.stack([slope * second + shift + distance, second], axis=-1)


def _ratio(hits: np.ndarray, size: np.ndarray, theta: np.ndarray, line: tuple) -> np.ndarray:
    """Compute the logarithm of the likelihood ratio of `theta` to its projection on the line."""
    slope, shift = line
    n_first, n_second = size[:, :1], size[:, 1:]
    first, second = theta[..., 0], theta[..., 1]

    def derivative(x: np.ndarray) -> np.ndarray:
        y = slope * x + shift
        return slope * n_first * (y - first) / (y * (1 - y)) + n_second * (x - second) / (
            x * (1 - x)
        )

    # The divergence from `theta` is convex along the line, and its minimum lies between the two
    # points of the line that share one rate with `theta`.
    low, high = second, (first - shift) / slope
    for _ in range(_STEPS):
        x = (low + high) / 2
        right = derivative(x) < 0
        low, high = np.where(right, x, low), np.where(right, high, x)
    x = (low + high) / 2
    y = slope * x + shift
    value = np.zeros(x.shape)
    for k, n, new, old in (
        (hits[:, :1], n_first, first, y),
        (hits[:, 1:], n_second, second, x),
    ):
        value += k * np.log(new / old) + (n - k) * np.log1p((old - new) / (1 - old))
    # What rounding left of the derivative is the most by which the mean of the ratio exceeds 1.
    return value - np.abs(derivative(x))


class Evidence:
    """Wealth of many bets over time, one for each unit (a group, or two groups).

    Parameters
    ----------
    n_alternatives : int
        Number of alternatives of each unit.

    Attributes
    ----------
    clock : ndarray of shape (n_units,), int64
        Number of arrivals of each unit.
    wealth : ndarray of shape (n_units, n_alternatives), float64
        Logarithm of the wealth that was bet on each alternative.
    run : ndarray of shape (n_units, n_alternatives), float64
        Largest sum of log e-values of arrivals that end now; it tells where a change began.
    start : ndarray of shape (n_units, n_alternatives), int64
        Number of the window in which this sum begins.

    Examples
    --------
    >>> evidence = Evidence(1)
    >>> evidence.grow(1)
    >>> evidence.update(np.array([0]), np.array([[5.0]]), window=0)
    >>> evidence.total(np.array([0])).round(2)  # half of the wealth was bet
    array([4.31])
    """

    def __init__(self, n_alternatives: int):
        self.clock = np.zeros(0, dtype=np.int64)
        self.wealth = np.zeros((0, n_alternatives))
        self.run = np.zeros((0, n_alternatives))
        self.start = np.zeros((0, n_alternatives), dtype=np.int64)

    def grow(self, n_units: int) -> None:
        """Add units at the end."""
        width = self.wealth.shape[1]
        self.clock = np.concatenate([self.clock, np.zeros(n_units, dtype=np.int64)])
        self.wealth = np.concatenate([self.wealth, np.full((n_units, width), -np.inf)])
        self.run = np.concatenate([self.run, np.zeros((n_units, width))])
        self.start = np.concatenate([self.start, np.zeros((n_units, width), dtype=np.int64)])

    def update(self, units: np.ndarray, log_e: np.ndarray, window: int) -> None:
        """Bet once on each of some units.

        Parameters
        ----------
        units : ndarray of shape (n,), int64
            Positions, each once.
        log_e : ndarray of shape (n, n_alternatives), float64
        window : int
            Number of the window.
        """
        self.clock[units] += 1
        clock = self.clock[units][:, None]
        new = -np.log(clock) - np.log1p(clock) - np.log(log_e.shape[1])
        self.wealth[units] = np.logaddexp(self.wealth[units], new) + log_e
        fresh = self.run[units] <= 0
        self.start[units] = np.where(fresh, window, self.start[units])
        self.run[units] = np.where(fresh, 0, self.run[units]) + log_e

    def total(self, units: np.ndarray) -> np.ndarray:
        """Compute the logarithm of the wealth of some units, with what was not bet yet.

        Returns
        -------
        ndarray of shape (n,), float64
        """
        kept = -np.log1p(self.clock[units])
        return np.logaddexp(logsumexp(self.wealth[units], axis=1), kept)

    def began(self, unit: int) -> int:
        """Estimate the number of the window in which the violation of a unit began.

        Returns
        -------
        int
        """
        return int(self.start[unit, np.argmax(self.wealth[unit])])
