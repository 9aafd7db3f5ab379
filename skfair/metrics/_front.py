"""The Pareto front: models that no other model beats in both performance and disparity."""

import numpy as np
from numpy.typing import ArrayLike


def non_dominated(performance: ArrayLike, disparity: ArrayLike) -> np.ndarray:
    """Mark the models on the Pareto front, which no other model beats.

    A model beats another model if it is at least as good in both numbers and better in one. Models
    that are equal in both numbers do not beat each other: all of them are on the front, or none.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        Performance of each model; larger is better.
    disparity : array-like of shape (n_models,)
        Disparity of each model; smaller is better.

    Returns
    -------
    ndarray of shape (n_models,), bool
        A model with a number that is not finite is not on the front and beats none.

    Examples
    --------
    >>> non_dominated([0.9, 0.8, 0.7], [0.2, 0.1, 0.1])
    array([ True,  True, False])
    """
    performance, disparity = np.asarray(performance, float), np.asarray(disparity, float)
    rows = np.flatnonzero(np.isfinite(performance) & np.isfinite(disparity))
    rows = rows[np.lexsort((-performance[rows], disparity[rows]))]
    p, d = performance[rows], disparity[rows]
    # Among models of equal disparity, the first one has the best performance. All models before it
    # have a smaller disparity.
    first = np.searchsorted(d, d)
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(p)])[first]
    front = np.zeros(performance.shape, dtype=bool)
    front[rows] = (p == p[first]) & (p > best_before)
    return front
