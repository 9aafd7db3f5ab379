"""Intra-processing, layerwise: what was found so far as a model, and where to look next."""

import numpy as np
from scipy.special import ndtr
from sklearn.ensemble import GradientBoostingRegressor

_QUANTILES = (0.16, 0.5, 0.84)  # the median, and one deviation to both sides
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
    # Few and small trees: there are some twenty points, and a fit takes longer than a network.
    models = [
        GradientBoostingRegressor(
            loss="quantile",
            alpha=quantile,
            n_estimators=10,
            learning_rate=0.3,
            max_depth=1,
            random_state=rng,
        ).fit(points, values)
        for quantile in _QUANTILES
    ]
    sampled = rng.uniform(-1, 1, (_N_SAMPLES, points.shape[1]))
    low, median, high = (model.predict(sampled) for model in models)
    deviation = np.maximum((high - low) / 2, 1e-12)
    gain = median - values.max()
    ratio = gain / deviation
    expected = gain * ndtr(ratio) + deviation * np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
    return list(sampled[np.argsort(expected)[-n:]])
