"""Fairness metrics: counts by group, scorers, reports, certificates, plots and calibration."""

from skfair.metrics._assert_fair import assert_fair
from skfair.metrics._calibration import expected_calibration_error
from skfair.metrics._certificate import FairnessCertificate
from skfair.metrics._certify import fairness_certificate
from skfair.metrics._check import FairnessCheck, FairnessCheckError, FairnessRuleResult
from skfair.metrics._counts import GroupCounts, count_groups
from skfair.metrics._display import TradeoffDisplay
from skfair.metrics._group_display import GroupMetricsDisplay
from skfair.metrics._reliability import ReliabilityDisplay
from skfair.metrics._report import FairnessReport, fairness_report
from skfair.metrics._rules import FairnessRule
from skfair.metrics._scorer import FairnessScorer, make_fairness_scorer
from skfair.metrics._scores import average_group_accuracy_score, worst_group_accuracy_score

__all__ = [
    "FairnessCertificate",
    "FairnessCheck",
    "FairnessCheckError",
    "FairnessReport",
    "FairnessRule",
    "FairnessRuleResult",
    "FairnessScorer",
    "GroupCounts",
    "GroupMetricsDisplay",
    "ReliabilityDisplay",
    "TradeoffDisplay",
    "assert_fair",
    "average_group_accuracy_score",
    "count_groups",
    "expected_calibration_error",
    "fairness_certificate",
    "fairness_report",
    "make_fairness_scorer",
    "worst_group_accuracy_score",
]
