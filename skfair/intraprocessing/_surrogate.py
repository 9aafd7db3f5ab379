"""Intra-processing, layerwise: what was found so far as a model, and where to look next."""

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr
from sklearn.tree import DecisionTreeRegressor

from skfair.utils._inner_fit import fit_inner

_QUANTILES = (0.16, 0.5, 0.84)  # the median, and one deviation to both sides
_N_SAMPLES = 1000
# Few and small trees: there are some twenty points, and a fit takes longer than a network.
_N_TREES, _LEARNING_RATE = 10, 0.3


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

    The bits are those of scikit-learn's ``GradientBoostingRegressor``, of which MLflow's
    autologging would make runs of their own, in the middle of a debiaser's.

    Parameters
    ----------
    points, values, rng
        As for :func:`propose`; `rng` breaks ties between features.
    quantile : float
        Which, from 0 to 1.

    Returns
    -------
    callable
        From points to that quantile of their values.
    """
    points = np.ascontiguousarray(points, dtype=np.float32)  # what trees work on
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
