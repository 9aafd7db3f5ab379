"""Which of many models no other beats in both performance and disparity."""

import numpy as np
from numpy.typing import ArrayLike


def non_dominated(performance: ArrayLike, disparity: ArrayLike) -> np.ndarray:
    """Mark the models that no other beats: the Pareto front.

    A model is beaten by another that is at least as good in both and better in one. Models
    that agree in both do not beat each other: all of them are on the front, or none.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        How well each predicts, the larger the better.
    disparity : array-like of shape (n_models,)
        How unequal it treats the groups, the smaller the better.

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
    # The first of those that are equal in disparity is the best of them; before it lie all
    # that are less disparate.
    first = np.searchsorted(d, d)
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(p)])[first]
    front = np.zeros(performance.shape, dtype=bool)
    front[rows] = (p == p[first]) & (p > best_before)
    return front
