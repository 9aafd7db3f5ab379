"""Rows in which the class shows, and the group, which goes along with the class."""

import numpy as np


def biased_rows(rng, n_samples):
    """Draw rows, classes and groups.

    Returns
    -------
    X : ndarray of shape (n_samples, 4), float32
    y : ndarray of shape (n_samples,), the classes 0 and 1
    groups : ndarray of shape (n_samples,), equal to the class for 70 %
    """
    y = np.arange(n_samples) % 2
    groups = np.where(rng.random(n_samples) < 0.7, y, 1 - y)
    X = rng.normal(size=(n_samples, 4)).astype(np.float32)
    X[:, 0] += 2 * y
    X[:, 1] += 2 * groups
    return X, y, groups
