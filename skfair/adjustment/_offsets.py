"""Logit adjustment, the offsets: from no labels, some, or all to log P(class | attribute)."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skfair.adjustment._attributes import Attribute, infer_attribute
from skfair.adjustment._linear import Linear, balanced_weight, fit_softmax, log_softmax
from skfair.adjustment._twins import (
    Twins,
    class_counts,
    expected_counts,
    log_prior_given_guess,
    train_twins,
)
from skfair.utils import FallbackWarning, Groups, encode_groups
from skfair.utils._shown import shown

_STRENGTH, _STRENGTH_ALL = 0.75, 0.85
# Where all samples are labelled, the weight of a group is its share of its class to the power of
# minus this times the strength. A part of the adjustment by weights is better than all by offsets.
_BALANCED = 0.3
_ENOUGH = 10  # conflicting labelled samples, from which the full strength is used
_FLOOR = 1e-6  # of a probability in a logarithm
_MOST_UPWEIGHTED = 10.0
# A class with this many labels and no conflicting sample among them may lack a group.
_LABELS_OF_A_CLASS = 10


@dataclass(frozen=True)
class Samples:
    """Training data, projected to principal components.

    Attributes
    ----------
    Z : ndarray of shape (n_samples, n_components)
        Projected rows.
    codes : ndarray of shape (n_samples,), int64
        Classes, as positions in ``classes_``. Each class has at least one sample.
    weight : ndarray of shape (n_samples,), float32
        Sample weights from the user, all above zero.
    values : ndarray of shape (n_samples,), int
        Value of the attribute, -1 where it is not known.
    at_random : ndarray of shape (n_samples,), bool
        True for the labelled samples that are taken for a random sample.
    """

    Z: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    values: np.ndarray
    at_random: np.ndarray

    def __len__(self) -> int:
        return len(self.Z)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.codes.max()) + 1


@dataclass(frozen=True)
class Offsets:
    """Offsets and weights for the training of the head, and the inferred attribute.

    Attributes
    ----------
    log_prior : ndarray of shape (n_samples, n_classes)
        Log P(class | attribute) of each sample, as far as its attribute is known.
    strength : float
        Factor on `log_prior`, for a linear head.
    boost : ndarray of shape (n_samples,)
        Factor on the weight of each sample.
    attribute : Linear
        Maps projected rows to scores of the attribute values.
    posterior : ndarray of shape (n_samples, n_values)
        P(value) of each sample.
    prior : ndarray of shape (n_values, n_classes)
        P(class | value).
    surprise : ndarray of shape (n_samples,)
        The larger, the more a label of the sample would tell.
    n_conflicting : int
        Number of labelled samples with another value than most of their class.
    """

    log_prior: np.ndarray
    strength: float
    boost: np.ndarray
    attribute: Linear
    posterior: np.ndarray
    prior: np.ndarray
    surprise: np.ndarray
    n_conflicting: int


def validate_groups(
    sensitive_features: Any, codes: np.ndarray, weight: np.ndarray, classes: np.ndarray
) -> Groups:
    """Encode the attribute of the samples that have a weight; all other samples get the code -1.

    Parameters
    ----------
    sensitive_features : array-like or None
        The attribute, from the user.
    codes, weight : ndarray of shape (n_samples,)
        Class and weight of each sample.
    classes : ndarray of shape (n_classes,)
        Class labels, for a message.

    Returns
    -------
    Groups

    Raises
    ------
    ValueError
        No label is known; the labels are of one class only; or there are more different values
        than half of the labels.
    """
    if sensitive_features is None:
        return Groups(np.full(len(codes), -1), (), ())
    groups = encode_groups(sensitive_features, n_samples=len(codes), missing="keep")
    known = (groups.codes >= 0) & (weight > 0)
    if not known.any():
        raise ValueError(
            "sensitive_features is missing for every sample that has a weight. Pass None to "
            "train without labels, or label the samples that suggest_labels() names."
        )
    labelled = np.unique(codes[known])
    if len(labelled) == 1:
        raise ValueError(
            "sensitive_features is known for samples of one class only "
            f"({shown(classes.tolist()[labelled[0]])}), which does not show the relation between "
            "groups and classes. Label samples of the other classes, too, for instance those that "
            "suggest_labels() names."
        )
    present, values = np.unique(groups.codes[known], return_inverse=True)
    if 2 * len(present) > known.sum() and len(present) > 1:
        raise ValueError(
            f"sensitive_features has {len(present)} different values in {known.sum()} labels: "
            "too few labels of each value to learn from. Label more samples, or merge values."
        )
    renamed = np.full(len(known), -1)
    renamed[known] = values
    return Groups(renamed, tuple(groups.labels[i] for i in present), groups.names)


def infer_offsets(
    samples: Samples,
    labels: tuple,
    *,
    strength: float | Literal["auto"],
    ridge: float,
    random_state: np.random.RandomState,
) -> Offsets:
    """Infer the attribute as far as it is not known, and compute the offsets of the head.

    Parameters
    ----------
    samples : Samples
        Training data.
    labels : tuple
        Values of the attribute among the labels; empty without labels.
    strength : float or "auto"
        Factor on the offsets, from the user.
    ridge : float
        Ridge of each regression.
    random_state : RandomState
        Draws the halves and the flips of the twins.

    Returns
    -------
    Offsets

    Warns
    -----
    FallbackWarning
        All labels have one value, or no labelled sample conflicts. The offsets are zero then.
    """
    n_labels = int((samples.values >= 0).sum())
    if len(labels) == 1:
        warnings.warn(
            f"All {n_labels} labels in sensitive_features are {shown(labels[0])}: they show no "
            "spurious correlation, because nothing differs from sample to sample. Ordinary "
            "training was used.",
            FallbackWarning,
        )
    if n_labels == len(samples) or len(labels) == 1:
        return _with_all_labels(samples, len(labels), strength, ridge)
    twins = train_twins(samples.Z, samples.codes, samples.weight, ridge, random_state)
    if not labels:
        return _without_labels(samples, twins, strength)
    return _with_some_labels(samples, twins, strength)


def _with_all_labels(
    samples: Samples, n_values: int, strength: float | Literal["auto"], ridge: float
) -> Offsets:
    """All samples are labelled, or all labels have one value: count P(class | value)."""
    Z, codes, weight = samples.Z, samples.codes, samples.weight
    values = np.maximum(samples.values, 0)
    counts = class_counts(values, codes, weight, n_values, samples.n_classes) + 1
    within = counts / counts.sum(axis=0)
    prior = within / within.sum(axis=1, keepdims=True)
    model = Linear(np.zeros((1, Z.shape[1])), np.zeros(1))
    if n_values > 1:
        balanced = balanced_weight(values, weight)
        model = fit_softmax(Z, values, balanced, n_values, ridge=ridge)
    usual = counts.argmax(axis=0)
    n_conflicting = int((values != usual[codes]).sum())
    used = _STRENGTH_ALL if strength == "auto" else strength
    if not n_conflicting:
        if used and n_values > 1:
            warnings.warn(_none_conflicts(len(values)), FallbackWarning)
        used = 0.0
    boost = within ** (-_BALANCED * min(1, used))
    boost /= (within * boost).sum(axis=0)  # keeps the total weight of each class
    return Offsets(
        log_prior=np.log(prior)[values],
        strength=used,
        boost=boost[values, codes],
        attribute=model,
        posterior=np.eye(n_values)[values],
        prior=prior,
        surprise=np.ones(len(Z)),
        n_conflicting=n_conflicting,
    )


def _without_labels(samples: Samples, twins: Twins, strength: float | Literal["auto"]) -> Offsets:
    """No sample is labelled: the class that twins predict stands for the attribute."""
    codes, weight, n_classes = samples.codes, samples.weight, samples.n_classes
    log_priors = [
        log_prior_given_guess(guess, codes, weight, n_classes) for guess in twins.predicted
    ]
    posterior = np.mean([np.eye(n_classes)[guess] for guess in twins.predicted], axis=0)
    within = expected_counts(posterior, codes, weight)
    within /= within.sum(axis=0)
    totals = within.sum(axis=1, keepdims=True)
    prior = np.where(totals > 0, within / np.where(totals > 0, totals, 1), 1 / n_classes)
    return Offsets(
        log_prior=np.mean(log_priors, axis=0),
        strength=_STRENGTH if strength == "auto" else strength,
        boost=np.ones(len(codes)),
        attribute=twins.mean,
        posterior=posterior,
        prior=prior,
        surprise=-log_softmax(twins.logits)[np.arange(len(codes)), codes],
        n_conflicting=0,
    )


def _with_some_labels(samples: Samples, twins: Twins, strength: float | Literal["auto"]) -> Offsets:
    """Some samples are labelled: infer the attribute of the others."""
    Z, codes, weight, values = samples.Z, samples.codes, samples.weight, samples.values
    attribute = infer_attribute(
        Z, codes, weight, values, samples.at_random, twins.logits, twins.mean
    )
    rows = np.flatnonzero(values >= 0)
    n_labels, n_found = len(rows), int(attribute.conflicting.sum())
    full_strength = _STRENGTH if strength == "auto" else strength
    if full_strength and not n_found:
        more = "Label more of the samples that suggest_labels() names."
        warnings.warn(f"{_none_conflicts(n_labels)} {more}", FallbackWarning)
    return Offsets(
        log_prior=np.log(attribute.softened @ attribute.prior + _FLOOR),
        strength=full_strength * min(1, n_found / _ENOUGH),
        boost=_boost_of_conflicting(samples, attribute, full_strength),
        attribute=attribute.model,
        posterior=attribute.posterior,
        prior=attribute.prior,
        surprise=(attribute.posterior * rare(attribute.prior).T[codes]).sum(axis=1),
        n_conflicting=n_found,
    )


def _boost_of_conflicting(samples: Samples, attribute: Attribute, strength: float) -> np.ndarray:
    """Compute factors on the weights: labelled samples that conflict weigh more."""
    codes, n_classes = samples.codes, samples.n_classes
    rows = np.flatnonzero(samples.values >= 0)
    found = rows[attribute.conflicting]
    per_class = np.bincount(codes[found], minlength=n_classes)
    asked = np.bincount(codes[rows[~samples.at_random[rows]]], minlength=n_classes)
    boost = np.ones(len(codes))
    if ((asked >= _LABELS_OF_A_CLASS) & (per_class == 0)).any():
        return boost
    most = _MOST_UPWEIGHTED * (1 - len(rows) / len(codes))
    sizes = np.bincount(codes, minlength=n_classes)
    factor = np.clip(sizes / np.maximum(per_class, 1), 1, max(1, most))[codes[found]]
    against = (1 - n_classes * attribute.prior[samples.values[found], codes[found]]).clip(min=0)
    boost[found] += against * (factor - 1)
    return boost ** min(1, strength / _STRENGTH)  # a strength of 0 is ordinary training


def _none_conflicts(n_labels: int) -> str:
    return (
        f"In each class, all of the {n_labels} labels in sensitive_features have one value: they "
        "show no sample in which another value goes along with the class. Ordinary training was "
        "used."
    )


def rare(prior: np.ndarray) -> np.ndarray:
    """Mark where a class is less frequent given a value than by chance, beyond rounding."""
    return prior * prior.shape[1] < 1 - 1e-9
