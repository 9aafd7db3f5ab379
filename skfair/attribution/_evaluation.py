"""Patch attribution, stage 2: what the region classifier is worth, on images it has not seen."""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import norm
from torch.nn import functional as F

# One region classifier in a hundred that knows nothing passes for one that does.
_LEVEL = 0.01


def fit_temperature(logits: torch.Tensor, code: torch.Tensor, weight: torch.Tensor) -> float:
    """Find the number by which to divide logits so that the labels are likeliest.

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes, n_rows, n_cols)
        Of all patches.
    code : tensor of shape (n_samples,), int64
        Class of each image.
    weight : tensor of shape (n_samples,)
        Weight of each image; their sum is one.

    Returns
    -------
    float
        From 0.05 to 20.
    """
    target = code[:, None, None].expand(-1, *logits.shape[2:])

    def loss(log_temperature: float) -> float:
        losses = F.cross_entropy(logits / np.exp(log_temperature), target, reduction="none")
        return float(losses.double().mean((1, 2)) @ weight.double())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def position_accuracy(hits: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Compute the accuracy of each position.

    Parameters
    ----------
    hits : ndarray of shape (n_samples, n_rows, n_cols), bool
        Whether the patch of an image is classified right.
    weight : ndarray of shape (n_samples,)
        Weight of each image.

    Returns
    -------
    ndarray of shape (n_rows, n_cols), float64
    """
    return np.tensordot(weight / weight.sum(), hits.astype(np.float64), 1)


def is_informative(hits: np.ndarray, code: np.ndarray) -> bool:
    """Tell whether some predictor of the attribute is better than guessing.

    The best of many is above chance by chance alone. So it is found on one half of the
    images and measured on the other, and the other way round.

    Parameters
    ----------
    hits : ndarray of shape (n_samples, ...), bool
        Whether an image is classified right, by each of many predictors: positions of the patch.
    code : ndarray of shape (n_samples,), int64
        Class of each image.

    Returns
    -------
    bool
        Whether the mean of the classes' accuracies is above chance by more than the error of a
        sample of this size, at a level of one percent.
    """
    classes, sizes = np.unique(code, return_counts=True)
    hits = hits.reshape(len(hits), -1)
    order = np.argsort(code, kind="stable")
    halves = order[::2], order[1::2]
    accuracy = []
    for search, measure in (halves, halves[::-1]):
        best = _balanced_accuracy(hits[search], code[search]).argmax()
        accuracy.append(_balanced_accuracy(hits[measure][:, [best]], code[measure])[0])
    chance = 1 / len(classes)
    error = np.sqrt(chance * (1 - chance) * np.sum(1 / sizes)) / len(classes)
    return bool(np.mean(accuracy) > chance + norm.isf(_LEVEL) * error)


def _balanced_accuracy(hits: np.ndarray, code: np.ndarray) -> np.ndarray:
    return np.mean([hits[code == c].mean(0) for c in np.unique(code)], axis=0)
