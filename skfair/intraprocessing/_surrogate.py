"""Intra-processing, layerwise: a model of the objective, and the next points to evaluate."""

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr
from sklearn.tree import DecisionTreeRegressor

from skfair.utils._inner_fit import fit_inner

_QUANTILES = (0.16, 0.5, 0.84)  # the median, and one deviation to both sides
_N_SAMPLES = 1000
# Few and small trees: there are about twenty points, and a fit takes longer than a network.
_N_TREES, _LEARNING_RATE = 10, 0.3


def propose(
    points: np.ndarray, values: np.ndarray, rng: np.random.RandomState, n: int
) -> list[np.ndarray]:
    """Choose points of a cube with the largest expected improvement over the best value.

    The model is gradient boosting of quantiles, as in the layerwise optimisation of Savani et al.
    2020, arXiv 2006.08564 (``gbrt_minimize`` of scikit-optimize in the released code).

    Parameters
    ----------
    points : ndarray of shape (n_points, n_features)
        At least two evaluated points, with coordinates from -1 to 1.
    values : ndarray of shape (n_points,)
        Values at these points; larger is better.
    rng : RandomState
        Draws the candidate points.
    n : int
        Number of points to choose.

    Returns
    -------
    list of `n` ndarrays of shape (n_features,)
        The point with the largest expected improvement is the last one.
    """
    boosted = [boosted_quantile(points, values, quantile, rng) for quantile in _QUANTILES]
    sampled = rng.uniform(-1, 1, (_N_SAMPLES, points.shape[1]))
    low, median, high = (predict(sampled) for predict in boosted)
    deviation = np.maximum((high - low) / 2, 1e-12)
    gain = median - values.max()
    ratio = gain / deviation
    expected = gain * ndtr(ratio) + deviation * np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi)
    return list(sampled[np.argsort(expected)[-n:]])


def boosted_quantile(
    points: np.ndarray, values: np.ndarray, quantile: float, rng: np.random.RandomState
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a quantile of the values by gradient boosting.

    The result is, bit for bit, that of scikit-learn's ``GradientBoostingRegressor``. MLflow's
    autologging would log each fit of that class as a run of its own, in the middle of the run of
    the debiaser.

    Parameters
    ----------
    points, values, rng
        As in :func:`propose`; `rng` breaks ties between features.
    quantile : float
        Level of the quantile, from 0 to 1.

    Returns
    -------
    callable
        Takes points and returns that quantile of their values.
    """
    points = np.ascontiguousarray(points, dtype=np.float32)  # the type that trees use
    start = np.percentile(values, 100 * quantile)
    fitted, trees = np.full(len(values), start), []
    for _ in range(_N_TREES):
        tree = DecisionTreeRegressor(max_depth=1, random_state=rng)
        # The negative gradient of the quantile loss.
        gradient = np.where(values >= fitted, quantile, -(1 - quantile))
        fit_inner(tree, points, gradient, check_input=False)
        leaf, steps = tree.tree_.apply(points), np.zeros(tree.tree_.node_count)
        for node in np.unique(leaf):
            missing = (values - fitted)[leaf == node]
            steps[node] = np.percentile(missing, 100 * quantile, method="inverted_cdf")
        fitted = fitted + _LEARNING_RATE * steps[leaf]
        trees.append((tree.tree_, steps))

    def predict(at: np.ndarray) -> np.ndarray:
        at = np.ascontiguousarray(at, dtype=np.float32)
        predicted = np.full(len(at), start)
        for tree, steps in trees:
            predicted += _LEARNING_RATE * steps[tree.apply(at)]
        return predicted

    return predict
