"""Made features in which an attribute goes along with the class, and stands out more."""

import numpy as np


def spurious(
    n_samples, n_classes=2, n_values=None, agree=0.95, *, seed=0, bias=4.0, target=2.0, width=16
):
    """Draw rows, classes and attribute values.

    The value is the class, modulo the number of values, for the share `agree` of the samples, and
    any other one elsewhere. Class and value each have an axis of their own for each of theirs.

    Returns
    -------
    X : ndarray of shape (n_samples, width), float32
    y, a : ndarray of shape (n_samples,), int
    """
    rng = np.random.default_rng(seed)
    n_values = n_values or n_classes
    y = rng.permutation(np.arange(n_samples) % n_classes)
    other = (y + rng.integers(1, n_values, size=n_samples)) % n_values
    a = np.where(rng.random(n_samples) < agree, y % n_values, other)
    X = rng.normal(size=(n_samples, width))
    X[:, :n_values] += bias * np.eye(n_values)[a]
    X[:, n_values : n_values + n_classes] += target * np.eye(n_classes)[y]
    return X.astype(np.float32), y, a


def only(values, rows):
    """The values of some rows, and None for the others."""
    known = np.full(len(values), None)
    known[rows] = values[rows]
    return known
