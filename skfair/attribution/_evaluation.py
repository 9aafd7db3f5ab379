"""Patch attribution, stage 2: calibrate and evaluate the region classifier on held-out images."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score, roc_curve
from torch.nn import functional as F

from skfair.attribution._attributes import Attributes, balanced_weight
from skfair.metrics import expected_calibration_error
from skfair.utils._split import split_cells

# Images of each value that are held out at least, for the test of what was found, but no more than
# this share of them.
_HELD_OUT, _MOST_HELD_OUT = 16, 0.4
# One in twenty classifiers that learned nothing counts as informative.
_LEVEL = 0.05


class Evaluation(NamedTuple):
    """Results of a region classifier on images that it was not trained on.

    Attributes
    ----------
    probabilities : list of ndarray of shape (n_samples, n_classes, n_rows, n_cols)
        Calibrated probabilities of each attribute.
    temperature : tensor of shape (n_attributes,), float32
        Divisor of the logits.
    positive : ndarray of shape (n_attributes,), int64
        Class that means "the attribute is here"; -1 if there is none.
    threshold : ndarray of shape (n_attributes,), float64
        Score from which on the attribute is found in an image.
    auc : float
        Area under the ROC curve of the scores, the lowest of all attributes.
    accuracy : ndarray of shape (n_attributes, n_rows, n_cols), float64
        Accuracy at each position.
    calibration_error : float
        Expected calibration error of the patches, the largest of all attributes.
    uninformative : list of str
        Names of the attributes that patches do not tell better than guessing.
    """

    probabilities: list[np.ndarray]
    temperature: torch.Tensor
    positive: np.ndarray
    threshold: np.ndarray
    auc: float
    accuracy: np.ndarray
    calibration_error: float
    uninformative: list[str]


def hold_out(cell: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split images into those to train on and those to evaluate on.

    Parameters
    ----------
    cell : ndarray of shape (n_samples,), int64
        Combination of the attributes of each image.
    fraction : float
        Share of each cell to hold out. It is more of a cell with few images, as a test on a
        handful of images says nothing.
    seed : int
        Seed of the draw.

    Returns
    -------
    train, held_out : ndarray of int64
        Rows, sorted.
    """
    enough = np.minimum(_HELD_OUT / np.bincount(cell), _MOST_HELD_OUT)
    return split_cells(cell, np.maximum(fraction, enough), seed)


def evaluate(
    logits: np.ndarray, attributes: Attributes, wanted: list[int | None], *, calibrate: bool
) -> Evaluation:
    """Calibrate a region classifier, and evaluate it, from its logits on held-out images.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_outputs, n_rows, n_cols)
        Logits of all attributes, one after the other.
    attributes : Attributes
        True attributes of these images.
    wanted : list of int or None
        Class of each attribute that the user says means "it is here"; None to find it out.
    calibrate : bool
        Whether to fit the temperature; 1 if not.

    Returns
    -------
    Evaluation
    """
    n_attributes = len(attributes.classes)
    parts = torch.from_numpy(logits).split([len(c) for c in attributes.classes], 1)
    weight = balanced_weight(attributes.cell)
    temperature, positive = torch.ones(n_attributes), np.full(n_attributes, -1)
    probabilities, threshold, auc, accuracy, error, uninformative = [], [], [], [], [], []
    for i, (name, code) in enumerate(zip(attributes.names, attributes.codes.T, strict=True)):
        if calibrate:
            temperature[i] = fit_temperature(
                parts[i], torch.from_numpy(code), torch.from_numpy(weight)
            )
        proba = torch.softmax(parts[i] / temperature[i], 1).numpy()
        probabilities.append(proba)
        hits = proba.argmax(1) == code[:, None, None]
        accuracy.append(position_accuracy(hits, weight))
        n_patches = hits[0].size
        error.append(
            expected_calibration_error(
                np.repeat(code, n_patches),
                np.moveaxis(proba, 1, 3).reshape(-1, proba.shape[1]),
                labels=np.arange(proba.shape[1]),
                sample_weight=np.repeat(weight, n_patches),
            )
        )
        if not is_informative(proba, code):
            uninformative.append(name)
        highest = highest_probability(proba)
        areas = auc_of_classes(highest, code)
        if proba.shape[1] > 2:
            auc.append(areas.mean())
            threshold.append(0.5)  # of the excess over guessing
            continue
        there = wanted[i]
        positive[i] = there = choose_positive(highest, code) if there is None else there
        auc.append(areas[there])
        threshold.append(best_threshold(highest[:, there], code == there))
    return Evaluation(
        probabilities,
        temperature,
        positive,
        np.array(threshold, dtype=np.float64),
        float(min(auc)),
        np.stack(accuracy),
        max(error),
        uninformative,
    )


def describe_uninformative(names: list[str], n_images: int) -> str:
    """Say that the maps show nothing.

    Parameters
    ----------
    names : list of str
        From :class:`Evaluation`.
    n_images : int
        Number of held-out images.

    Returns
    -------
    str
        The text of a warning.
    """
    return (
        f"On {n_images} held-out images, patches do not tell {' and '.join(names)} better than "
        "guessing: the maps show nothing, and the masker would hide pixels at random. Train longer "
        "(max_epochs), on more images or with larger patches, or ask whether the attribute is "
        "visible in the images. Hold out more images (validation_fraction) if these are too few "
        "for the test."
    )


def fit_temperature(logits: torch.Tensor, code: torch.Tensor, weight: torch.Tensor) -> float:
    """Find the divisor of the logits that makes the labels most likely.

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes, n_rows, n_cols)
        Logits of all patches.
    code : tensor of shape (n_samples,), int64
        Class of each image.
    weight : tensor of shape (n_samples,)
        Weight of each image; the sum is 1.

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
        Whether the classifier is right about each patch.
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
    """Test whether patches of held-out images tell the class of the image.

    For each class, two scores are compared between the images of the class and the others: the
    highest probability over the patches, which finds an attribute in one place, and the mean
    log odds, which finds an attribute that is everywhere. The region classifier has not seen these
    images, so that the rank test (Mann-Whitney) keeps its level whatever it has learned.

    Parameters
    ----------
    probability : ndarray of shape (n_samples, n_classes, n_rows, n_cols)
    code : ndarray of shape (n_samples,), int64
        Class of each image.

    Returns
    -------
    bool
        Whether one of the comparisons is significant. All comparisons together find a classifier
        that learned nothing informative in at most one fit of twenty (Bonferroni).
    """
    n_classes = probability.shape[1]
    log_odds = np.log(np.clip(probability, 1e-7, 1 - 1e-7))
    log_odds = (log_odds - np.log(np.clip(1 - probability, 1e-7, 1))).mean((2, 3))
    if n_classes == 2:
        log_odds = log_odds[:, 1:]  # the log odds of the other class are the negative
    highest = highest_probability(probability)
    tests = [(highest[:, c], c) for c in range(n_classes)]
    tests += [(column, n_classes - len(log_odds.T) + i) for i, column in enumerate(log_odds.T)]
    p_values = [
        mannwhitneyu(score[code == c], score[code != c], alternative="greater").pvalue
        for score, c in tests
    ]
    return bool(min(p_values) * len(tests) <= _LEVEL)


def auc_of_classes(score: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Compute the area under the ROC curve of each class's score, against all other classes.

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
    """Choose which of two classes means "the attribute is here".

    If the attribute can be at any place, a patch can be sure that it is present, but no patch can
    be sure that it is absent. Then only the highest probability of "present" tells the images.

    Parameters
    ----------
    score : ndarray of shape (n_samples, 2)
        Highest probability of each class over the patches of held-out images.
    code : ndarray of shape (n_samples,), int64

    Returns
    -------
    int
        1, unless class 0 tells the images better, by more than chance.
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
        The middle between the scores that it separates.
    """
    below, above, thresholds = roc_curve(has, score)
    best = 1 + int((above - below)[1:].argmax())  # the first threshold is above all scores
    # The next lower score belongs to an image that counts as without the attribute.
    lower = score[score < thresholds[best]]
    return float((thresholds[best] + lower.max()) / 2) if len(lower) else float(thresholds[best])
