"""Patch attribution, stage 2: what the region classifier is worth, on images it has not seen."""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score, roc_curve
from torch.nn import functional as F

# One region classifier in twenty that knows nothing passes for one that does.
_LEVEL = 0.05


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


def highest_probability(probability: np.ndarray) -> np.ndarray:
    """Find the highest probability of each class over the patches of an image.

    Parameters
    ----------
    probability : ndarray of shape (n_samples, n_classes, n_rows, n_cols)

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
    """
    return probability.max((2, 3))


def is_informative(probability: np.ndarray, code: np.ndarray) -> bool:
    """Tell whether images that are held out show their class in some way.

    Of each class the highest probability over the patches, which finds what is in one place or
    in any, and the mean of its logarithm, which finds what is everywhere, are compared between
    the images of the class and the others. The region classifier has not seen these images, so
    that the rank test (Mann-Whitney) keeps its level whatever the classifier has learned.

    Parameters
    ----------
    probability : ndarray of shape (n_samples, n_classes, n_rows, n_cols)
    code : ndarray of shape (n_samples,), int64
        Class of each image.

    Returns
    -------
    bool
        Whether one of the comparisons is significant; all of them together say so of a
        classifier that knows nothing in at most one fit of twenty (Bonferroni).
    """
    n_classes = probability.shape[1]
    log_odds = np.log(np.clip(probability, 1e-7, 1 - 1e-7))
    log_odds = (log_odds - np.log(np.clip(1 - probability, 1e-7, 1))).mean((2, 3))
    if n_classes == 2:
        log_odds = log_odds[:, 1:]  # that of the other class is its negative
    highest = highest_probability(probability)
    tests = [(highest[:, c], c) for c in range(n_classes)]
    tests += [(column, n_classes - len(log_odds.T) + i) for i, column in enumerate(log_odds.T)]
    p_values = [
        mannwhitneyu(score[code == c], score[code != c], alternative="greater").pvalue
        for score, c in tests
    ]
    return bool(min(p_values) * len(tests) <= _LEVEL)


def auc_of_classes(score: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class's score against all other classes.

    Parameters
    ----------
    score : ndarray of shape (n_samples, n_classes)
    code : ndarray of shape (n_samples,), int64

    Returns
    -------
    ndarray of shape (n_classes,), float64
    """
    return np.array([roc_auc_score(code == c, score[:, c]) for c in range(score.shape[1])])


def choose_positive(score: np.ndarray, code: np.ndarray) -> int:
    """Tell which of two classes means that the attribute is there.

    Where it can be anywhere, a patch can be sure of it, and none of its absence: the highest
    probability of the class tells the images apart, and that of the other class does not.

    Parameters
    ----------
    score : ndarray of shape (n_samples, 2)
        The highest probability of each class over the patches of images that are held out.
    code : ndarray of shape (n_samples,), int64

    Returns
    -------
    int
        1, unless class 0 tells better by more than chance.
    """
    auc = auc_of_classes(score, code)
    sizes = np.bincount(code)
    error = np.sqrt(len(code) / 12 / sizes.prod())  # of an area of one half
    return 0 if auc[0] > auc[1] + 2 * error else 1


def best_threshold(score: np.ndarray, has: np.ndarray) -> float:
    """Find the threshold with the highest balanced accuracy.

    Parameters
    ----------
    score : ndarray of shape (n_samples,)
    has : ndarray of shape (n_samples,), bool

    Returns
    -------
    float
        Half way between the scores that it separates.
    """
    below, above, thresholds = roc_curve(has, score)
    best = 1 + int((above - below)[1:].argmax())  # the first threshold is above all scores
    # The next lower score is that of an image which counts as without.
    lower = score[score < thresholds[best]]
    return float((thresholds[best] + lower.max()) / 2) if len(lower) else float(thresholds[best])
