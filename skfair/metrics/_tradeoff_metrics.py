"""Metrics of performance and of disparity, as a trade-off display takes them."""

from typing import Any

from skfair.metrics._group_metric import (
    LOSS_NAMES,
    WORST_GROUP,
    GroupMetric,
    accepts,
    is_ratio,
    metric_name,
    passes,
)
from skfair.metrics._rates import CONSTRAINTS, find_count_metric
from skfair.metrics._samples import encode_samples


def performance_metric(metric: Any, pos_label: Any) -> GroupMetric:
    """Check a metric of performance; parameters as of :meth:`TradeoffDisplay.from_predictions`.

    Returns
    -------
    GroupMetric
    """
    if metric != WORST_GROUP and not callable(metric):
        raise TypeError(
            f"performance={metric!r} is neither {WORST_GROUP!r} nor a function of y_true and "
            "y_pred. Give a function such as sklearn.metrics.balanced_accuracy_score."
        )
    if callable(metric) and metric_name(metric).endswith(LOSS_NAMES):
        raise ValueError(
            f"performance={metric_name(metric)} is a loss, expected a score (larger is better). "
            "Give for instance sklearn.metrics.accuracy_score."
        )
    if metric == WORST_GROUP or accepts(metric, "sensitive_features"):
        return GroupMetric(metric, None, _if_taken(metric, pos_label), {})
    return GroupMetric(metric, "overall", _if_taken(metric, pos_label), {})


def disparity_metric(
    metric: Any, pos_label: Any, y_true: Any, sensitive_features: Any
) -> GroupMetric:
    """Check a metric of disparity; parameters as of :meth:`TradeoffDisplay.from_predictions`.

    Returns
    -------
    GroupMetric
    """
    known = isinstance(metric, str) and metric in CONSTRAINTS
    if not known and not (callable(metric) and passes(metric, "sensitive_features")):
        raise TypeError(
            f"disparity={metric!r} is neither one of {list(CONSTRAINTS)} nor a function that takes "
            "sensitive_features. Give a function such as "
            "fairlearn.metrics.equalized_odds_difference."
        )
    if known:
        return GroupMetric(metric, None, _if_taken(metric, pos_label), {})
    samples = encode_samples(y_true, sensitive_features)
    if is_ratio(metric, samples.groups.features(), samples.classes):
        raise ValueError(
            f"disparity={metric_name(metric)} is 1 if groups are equal, expected 0. Give the "
            "difference, or a function that returns 1 minus the ratio."
        )
    return GroupMetric(metric, None, _if_taken(metric, pos_label), {})


def _if_taken(metric: Any, pos_label: Any) -> Any:
    """Return the positive label, or None if the function has no such parameter."""
    if isinstance(metric, str):
        return None if metric == WORST_GROUP else pos_label
    counted = find_count_metric(metric, 2) is not None
    return pos_label if counted or passes(metric, "pos_label") else None
