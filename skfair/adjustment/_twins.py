"""Logit adjustment without labels: what two classifiers that see half of the data each agree on.

Each of two twins is trained on its half and predicts the other one. Where they confidently
predict another class than the sample's, that class becomes its label for the next round: the
twins come to agree on what both find easiest, which is the spurious correlation where that is
easier than the class. What a twin predicts in the end for samples that it has not seen stands for
an attribute with as many values as there are classes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from skfair.adjustment._linear import Linear, balanced_weight, fit_softmax, mean_map

_ROUNDS = 3
_REPEATS, _FEW_REPEATS = 5, 2
_MANY = 40_000  # samples times classes, from which there are few repeats
_STEPS = 60
_MOST_TRAINED = 20_000  # samples that a twin sees; of those that none sees, the mean is taken
# Added to each count of a class and a predicted class.
_PRIOR_COUNT = 0.5


@dataclass(frozen=True)
class Twins:
    """What twins say.

    Attributes
    ----------
    predicted : ndarray of shape (n_repeats, n_samples), int
        Class that the twin which has not seen the sample predicts, in each repeat.
    logits : ndarray of shape (n_samples, n_classes)
        Mean over the repeats of its logits.
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
        Draws halves and flips.

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
        unseen = mean(Z)  # of samples that neither has seen
        for half, twin in zip(halves, pair[::-1], strict=True):
            unseen[half] = twin(Z[half])
        predicted.append(unseen.argmax(axis=1))
        logits += unseen / n_repeats
        twins.append(mean)
    return Twins(np.array(predicted), logits, mean_map(twins))


def _halves(codes: np.ndarray, rng: np.random.RandomState) -> list[np.ndarray]:
    """Halves with half of each class, or of many samples a part of each half."""
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
    """Train two twins, which change one another's labels."""
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
    """Take the predicted class for the label, the more often the surer it is."""
    n_classes = logits.shape[1]
    chance = 1 / n_classes
    sure = (softmax(logits, axis=1).max(axis=1) - chance) / (1 - chance)
    return np.where(rng.random_sample(len(labels)) < sure, logits.argmax(axis=1), labels)


def log_prior_given_guess(
    guess: np.ndarray, codes: np.ndarray, weight: np.ndarray, n_classes: int
) -> np.ndarray:
    """Log P(class | predicted class) for each sample, as if classes were equally frequent.

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
    """Weighted counts of shape (n_values, n_classes), in units of a sample."""
    weight = weight * (len(weight) / weight.sum())
    return np.bincount(
        values * n_classes + codes, weights=weight, minlength=n_values * n_classes
    ).reshape(n_values, n_classes)


def expected_counts(posterior: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted counts of shape (n_values, n_classes) where each value has a probability."""
    return np.stack([np.bincount(codes, weights=weight * p) for p in posterior.T])
