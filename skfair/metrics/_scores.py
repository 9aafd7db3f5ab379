"""Worst and average group accuracy, the two standard measures of group robustness."""

from typing import Any

import numpy as np

from skfair.metrics._samples import class_accuracy, encode_samples
from skfair.utils._rows import check_rows


def worst_group_accuracy_score(
    y_true: Any, y_pred: Any, *, sensitive_features: Any, sample_weight: Any = None
) -> float:
    """Accuracy of the worst group.

    As in the literature on group robustness, a group is a combination of class and sensitive
    features, for instance blue even digits, and not all blue digits. Only combinations that occur
    in `y_true` count. The minimum over many small groups is biased downwards: look at the counts in
    :func:`~skfair.metrics.fairness_report`.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    y_pred : array-like of shape (n_samples,)
        Predicted labels. A label that does not occur in `y_true` counts as wrong.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group labels: array, Series, DataFrame or dict of columns (intersections).
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups; None counts each sample once. A group
        without weight is left out.

    Returns
    -------
    float
        Accuracy of the worst group, between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        See :func:`~skfair.metrics.count_groups`.

    Examples
    --------
    >>> y_true = [0, 0, 0, 1, 1, 1]
    >>> y_pred = [0, 0, 1, 1, 1, 1]
    >>> worst_group_accuracy_score(y_true, y_pred, sensitive_features=list("abbabb"))
    0.5
    """
    return float(np.nanmin(_group_accuracies(y_true, y_pred, sensitive_features, sample_weight)))


def average_group_accuracy_score(
    y_true: Any, y_pred: Any, *, sensitive_features: Any, sample_weight: Any = None
) -> float:
    """Mean of the accuracies of all groups; each group has the same weight.

    A group is a combination of class and sensitive features, as in
    :func:`worst_group_accuracy_score`.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    y_pred : array-like of shape (n_samples,)
        Predicted labels. A label that does not occur in `y_true` counts as wrong.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group labels: array, Series, DataFrame or dict of columns (intersections).
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups; None counts each sample once. A group
        without weight is left out.

    Returns
    -------
    float
        Mean accuracy of the groups, between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        See :func:`~skfair.metrics.count_groups`.

    Examples
    --------
    >>> y_true = [0, 0, 0, 1, 1, 1]
    >>> y_pred = [0, 0, 1, 1, 1, 1]
    >>> average_group_accuracy_score(y_true, y_pred, sensitive_features=list("abbabb"))
    0.875
    """
    return float(np.nanmean(_group_accuracies(y_true, y_pred, sensitive_features, sample_weight)))


def _group_accuracies(
    y_true: Any, y_pred: Any, sensitive_features: Any, sample_weight: Any
) -> np.ndarray:
    check_rows(
        y_true=y_true,
        y_pred=y_pred,
        sensitive_features=sensitive_features,
        sample_weight=sample_weight,
    )
    samples = encode_samples(y_true, sensitive_features, sample_weight)
    prediction, labels = samples.encode_prediction(y_pred)
    return class_accuracy(samples.table(prediction, len(labels)))
