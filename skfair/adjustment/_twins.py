"""Logit adjustment without labels: two classifiers, each trained on half of the data.

The procedure follows XRM (Pezeshki et al., ICML 2024, section 3). Each of two twins is trained on
one half of the samples and predicts the other half. If a twin confidently predicts another class
than the class of a sample, the predicted class becomes the sample's label for the next round. The
twins then agree on the rule that both find easiest. This is the spurious correlation if it is
easier to learn than the class. In the last round, the class that a twin predicts for a sample it
has not seen stands for an attribute with as many values as there are classes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from skfair.adjustment._linear import Linear, balanced_weight, fit_softmax, mean_map

_ROUNDS = 3
_REPEATS, _FEW_REPEATS = 5, 2
_MANY = 40_000  # samples times classes, from which on there are few repeats
_STEPS = 60
# Largest number of samples that a twin sees. A sample that neither twin sees gets their mean.
_MOST_TRAINED = 20_000
# Added to each count of a class and a predicted class.
_PRIOR_COUNT = 0.5


@dataclass(frozen=True)
class Twins:
    """Predictions of the twins.

    Attributes
    ----------
    predicted : ndarray of shape (n_repeats, n_samples), int
        In each repeat, the class that is predicted by the twin that has not seen the sample.
    logits : ndarray of shape (n_samples, n_classes)
        Mean over the repeats of the logits of these twins.
    mean : Linear
        Mean of all twins, for new rows.
    """

    predicted: np.ndarray
    logits: np.ndarray
    mean: Linear


def train_twins(
    Z: np.ndarray, codes: np.ndarray, weight: np.ndarray, ridge: float, rng: np.random.RandomState
) -> Twins:
    """Train twins on halves of the samples, several times.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_components)
        Projected rows.
    codes, weight : ndarray of shape (n_samples,)
        Class and weight of each sample.
    ridge : float
        Ridge of each regression.
    rng : RandomState
        Draws the halves and the flips.

    Returns
    -------
    Twins
    """
    n_classes = codes.max() + 1
    n_repeats = _FEW_REPEATS if len(Z) * n_classes >= _MANY else _REPEATS
    predicted, logits, twins = [], np.zeros((len(Z), n_classes)), []
    for _ in range(n_repeats):
        halves = _halves(codes, rng)
        pair = _train_pair(Z, codes, weight, halves, ridge, rng)
        mean = mean_map(pair)
        unseen = mean(Z)  # stays for samples that neither twin has seen
        for half, twin in zip(halves, pair[::-1], strict=True):
            unseen[half] = twin(Z[half])
        predicted.append(unseen.argmax(axis=1))
        logits += unseen / n_repeats
        twins.append(mean)
    return Twins(np.array(predicted), logits, mean_map(twins))


def _halves(codes: np.ndarray, rng: np.random.RandomState) -> list[np.ndarray]:
    """Draw two halves with half of each class; with many samples, a part of each half."""
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    step = max(1, -(-len(order) // (2 * _MOST_TRAINED)))
    return [order[:: 2 * step], order[step :: 2 * step]]


def _train_pair(
    Z: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray,
    halves: list[np.ndarray],
    ridge: float,
    rng: np.random.RandomState,
) -> list[Linear]:
    """Train two twins; each changes the labels of the other one's samples."""
    n_classes = codes.max() + 1
    parts, weights = [Z[half] for half in halves], [weight[half] for half in halves]
    labels = [codes[half] for half in halves]
    pair: list = [None, None]
    for round_ in range(_ROUNDS):
        pair = [
            fit_softmax(
                part, y, balanced_weight(y, w), n_classes, ridge=ridge, start=twin, max_iter=_STEPS
            )
            for part, y, w, twin in zip(parts, labels, weights, pair, strict=True)
        ]
        if round_ < _ROUNDS - 1:
            labels = [
                _flip(twin(part), y, rng)
                for part, y, twin in zip(parts, labels, pair[::-1], strict=True)
            ]
    return pair


def _flip(logits: np.ndarray, labels: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Replace labels by the predicted class; the surer a prediction, the more often."""
    n_classes = logits.shape[1]
    chance = 1 / n_classes
    sure = (softmax(logits, axis=1).max(axis=1) - chance) / (1 - chance)
    return np.where(rng.random_sample(len(labels)) < sure, logits.argmax(axis=1), labels)


def log_prior_given_guess(
    guess: np.ndarray, codes: np.ndarray, weight: np.ndarray, n_classes: int
) -> np.ndarray:
    """Estimate log P(class | predicted class) of each sample, for equally frequent classes.

    Parameters
    ----------
    guess, codes, weight : ndarray of shape (n_samples,)
        Predicted class, class and weight of each sample.
    n_classes : int
        Number of classes.

    Returns
    -------
    ndarray of shape (n_samples, n_classes)
    """
    joint = class_counts(guess, codes, weight, n_classes, n_classes) + _PRIOR_COUNT
    given_class = joint / joint.sum(axis=0)
    return np.log(given_class / given_class.sum(axis=1, keepdims=True))[guess]


def class_counts(
    values: np.ndarray, codes: np.ndarray, weight: np.ndarray, n_values: int, n_classes: int
) -> np.ndarray:
    """Count samples by value and class, with weights of mean one: (n_values, n_classes)."""
    weight = weight * (len(weight) / weight.sum())
    return np.bincount(
        values * n_classes + codes, weights=weight, minlength=n_values * n_classes
    ).reshape(n_values, n_classes)


def expected_counts(posterior: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sum the weights by value and class, for probabilities of the values."""
    return np.stack([np.bincount(codes, weights=weight * p) for p in posterior.T])
