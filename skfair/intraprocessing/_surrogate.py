"""Intra-processing, layerwise: what was found so far as a model, and where to look next."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

_QUANTILES = np.array([0.16, 0.5, 0.84])  # the median, and one deviation to both sides
_LEARNING_RATE = 0.3
_N_STAGES = 10
_N_SAMPLES = 1000


def propose(
    points: np.ndarray, values: np.ndarray, rng: np.random.RandomState, n: int
) -> list[np.ndarray]:
    """Choose points of a cube where the largest improvements over the best one are expected.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_features)
        At least two points, with coordinates from -1 to 1.
    values : ndarray of shape (n_points,)
        Their values, the larger the better.
    rng : RandomState
        Draws the points that are compared.
    n : int
        How many to choose.

    Returns
    -------
    list of `n` ndarrays of shape (n_features,)
        The most promising one last.
    """
    stumps = fit_stumps(points, values)
    # Only these coordinates make a difference; the others come out of the same box anyhow.
    used, column = np.unique(stumps.feature, return_inverse=True)
    sampled = rng.uniform(-1, 1, (_N_SAMPLES, len(used)))
    stumps = stumps._replace(feature=column.reshape(stumps.feature.shape))
    low, median, high = stumps.predict(sampled).T
    deviation = np.maximum((high - low) / 2, 1e-12)
    gain = median - values.max()
    ratio = gain / deviation
    expected = gain * ndtr(ratio) + deviation * np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
    chosen = rng.uniform(-1, 1, (n, points.shape[1]))
    chosen[:, used] = sampled[np.argsort(expected)[-n:]]
    return list(chosen)


class Stumps(NamedTuple):
    """Gradient-boosted trees of one split, for several quantiles at once.

    Attributes
    ----------
    start : ndarray of shape (n_quantiles,)
        Quantiles of all values.
    feature, threshold, low, high : ndarray of shape (n_stages, n_quantiles)
        What each split adds: `low` to points whose `feature` is at most `threshold`, `high` to
        the others.
    """

    start: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Predict the quantiles at some points.

        Parameters
        ----------
        points : ndarray of shape (n_points, n_features)

        Returns
        -------
        ndarray of shape (n_points, n_quantiles)
        """
        below = points[:, self.feature] <= self.threshold
        return self.start + np.where(below, self.low, self.high).sum(1)


def fit_stumps(
    points: np.ndarray,
    values: np.ndarray,
    quantiles: np.ndarray = _QUANTILES,
    *,
    n_stages: int = _N_STAGES,
    learning_rate: float = _LEARNING_RATE,
) -> Stumps:
    """Fit what scikit-learn's ``GradientBoostingRegressor(loss="quantile", max_depth=1)`` fits.

    That takes some 30 ms a quantile, for twenty points, which is several times what a network
    takes for all rows; here all quantiles and features go together.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_features)
        At least two points.
    values : ndarray of shape (n_points,)
    quantiles : ndarray of shape (n_quantiles,)
    n_stages : int
    learning_rate : float

    Returns
    -------
    Stumps
    """
    n, m = len(values), len(quantiles)
    order = np.argsort(points, axis=0)
    ordered = np.take_along_axis(points, order, axis=0)
    middle = (ordered[:-1] + ordered[1:]) / 2
    apart = (ordered[1:] > ordered[:-1])[..., None]
    n_low = np.arange(1, n)[:, None, None]
    start = _lower_quantile(np.repeat(values[:, None], m, 1), np.ones((n, m), bool), quantiles)
    residual = values[:, None] - start
    stages = []
    for _ in range(n_stages):
        gradient = np.where(residual >= 0, quantiles, quantiles - 1)
        total = gradient.sum(0)
        cumulated = np.cumsum(gradient[order], axis=0)[:-1]
        gain = cumulated**2 / n_low + (total - cumulated) ** 2 / (n - n_low)
        best = np.where(apart, gain, -1.0).reshape(-1, m).argmax(0)
        feature, threshold = best % points.shape[1], middle.reshape(-1)[best]
        below = points[:, feature] <= threshold
        low = learning_rate * _lower_quantile(residual, below, quantiles)
        high = learning_rate * _lower_quantile(residual, ~below, quantiles)
        residual = residual - np.where(below, low, high)
        stages.append((feature, threshold, low, high))
    return Stumps(start, *map(np.stack, zip(*stages, strict=True)))


def _lower_quantile(values: np.ndarray, taken: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Quantile of the taken values of each column: the smallest with enough at or below it."""
    order = values.argsort(0)
    columns = np.arange(values.shape[1])
    below = np.cumsum(taken[order, columns], axis=0)
    # Where nothing is taken no point is asked for either.
    position = (below >= np.maximum(quantiles * below[-1] - 1e-9, 1)).argmax(0)
    return values[order[position, columns], columns]
