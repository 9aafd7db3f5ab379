"""Logit adjustment with some labels: a model of the attribute, and its relation to the class."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from skfair.adjustment._linear import Linear, fit_softmax
from skfair.adjustment._twins import class_counts, expected_counts

_RIDGE = 0.1
# Ridge on the logits of the twins, which tell more than any single component.
_TWIN_RIDGE = 0.003
# Weight of a label that is not from the random part, where values in a class are counted.
_ASKED_WEIGHT = 0.1
# Weight in the attribute model of a sample outside the random part that does not conflict.
_ASKED_ALIGNED = 0.2
_EM_STEPS = 20


@dataclass(frozen=True)
class Attribute:
    """An attribute that was inferred from some labels.

    Attributes
    ----------
    model : Linear
        Maps projected rows to scores of the values. With two values, both count as equally
        frequent in each class; with more values, the most frequent value of a class counts as
        frequent as all its other values together.
    posterior : ndarray of shape (n_samples, n_values)
        P(value | features, class) of the training samples. A labelled sample has 1 for its value.
    softened : ndarray of shape (n_samples, n_values)
        The same with the square root of P(value | class), for the offset of the head.
    prior : ndarray of shape (n_values, n_classes)
        P(class | value), for equally frequent classes.
    conflicting : ndarray of shape (n_labelled,), bool
        True for the labelled samples whose value is not the most frequent value of their class.
    """

    model: Linear
    posterior: np.ndarray
    softened: np.ndarray
    prior: np.ndarray
    conflicting: np.ndarray


def infer_attribute(
    Z: np.ndarray,
    codes: np.ndarray,
    weight: np.ndarray,
    values: np.ndarray,
    at_random: np.ndarray,
    twin_logits: np.ndarray,
    twins: Linear,
) -> Attribute:
    """Infer the attribute of all samples from the labels of some samples.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_components)
        Projected rows.
    codes, weight : ndarray of shape (n_samples,)
        Class and weight of each sample.
    values : ndarray of shape (n_samples,), int
        Value of the attribute, -1 where it is not known.
    at_random : ndarray of shape (n_samples,), bool
        True for the labelled samples that are taken for a random sample.
    twin_logits : ndarray of shape (n_samples, n_classes)
        Logits of each sample, from twins that have not seen the sample.
    twins : Linear
        Mean of the twins, for new samples.

    Returns
    -------
    Attribute
    """
    n_classes, n_values = codes.max() + 1, values.max() + 1
    rows = np.flatnonzero(values >= 0)
    a, y, random = values[rows], codes[rows], at_random[rows]
    own = weight[rows] / weight[rows].mean(dtype=np.float64)  # in units of a label
    known = class_counts(a, y, own * np.where(random, 1.0, _ASKED_WEIGHT), n_values, n_classes)
    usual = known.argmax(axis=0)
    conflicting = a != usual[y]

    said = twin_logits - twin_logits.mean(axis=0)
    spread = said.std(axis=0)
    factor = np.sqrt(_RIDGE / _TWIN_RIDGE) / np.where(spread > 0, spread, 1)
    features = np.hstack([said[rows] * factor, Z[rows]])
    cell = y * n_values + (a if n_values == 2 else conflicting)
    w = own * np.where(random | conflicting, 1.0, _ASKED_ALIGNED)
    w /= np.bincount(cell, weights=w)[cell]
    raw = fit_softmax(features, a, w, n_values, ridge=_RIDGE)
    # One map of projected rows is enough, because the logits of the twins are linear in them.
    first = raw.coef[:, :n_classes] * factor
    offset = raw.intercept - first @ twin_logits.mean(axis=0)
    model = Linear(first @ twins.coef + raw.coef[:, n_classes:], first @ twins.intercept + offset)
    # The logits of a training sample come from twins that have not seen the sample.
    scores = twin_logits @ first.T + Z @ raw.coef[:, n_classes:].T + offset

    share = (own[conflicting & random].sum() + 0.5) / (own[random].sum() + 5)
    within = np.full((n_values, n_classes), share / max(1, n_values - 1))
    within[usual, np.arange(n_classes)] = 1 - share
    within[:, known.sum(axis=0) == 0] = 1 / n_values
    likelihood = softmax(scores, axis=1)
    weight = weight * (len(weight) / weight.sum())  # in units of a sample
    for _ in range(_EM_STEPS):
        posterior = likelihood * within.T[codes]
        posterior /= posterior.sum(axis=1, keepdims=True)
        posterior[rows] = np.eye(n_values)[a]
        sums = expected_counts(posterior, codes, weight)
        within = (sums + 1) / (np.bincount(codes, weights=weight) + n_values)
    # With the features alone, the offset depends on an attribute model from few labels. With all of
    # P(value | class), a conflicting sample is too often taken for an aligned one. The square root
    # lies between the two.
    softened = likelihood * np.sqrt(within.T[codes])
    softened /= softened.sum(axis=1, keepdims=True)
    softened[rows] = np.eye(n_values)[a]
    prior = within / within.sum(axis=1, keepdims=True)
    return Attribute(model, posterior, softened, prior, conflicting)
