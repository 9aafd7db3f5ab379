"""Fairness of predictions: group counts, worst and average group accuracy, the report."""

from skfair.metrics._counts import GroupCounts, count_groups
from skfair.metrics._display import TradeoffDisplay
from skfair.metrics._report import FairnessReport, fairness_report
from skfair.metrics._scores import average_group_accuracy_score, worst_group_accuracy_score

__all__ = [
    "FairnessReport",
    "GroupCounts",
    "TradeoffDisplay",
    "average_group_accuracy_score",
    "count_groups",
    "fairness_report",
    "worst_group_accuracy_score",
]
