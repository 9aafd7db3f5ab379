"""Checks of the promises that every estimator of skfair keeps. They check your estimators, too."""

from skfair.estimator_checks._run import (
    check_estimator,
    estimator_checks_generator,
    expected_failed_checks,
    parametrize_with_checks,
)

__all__ = [
    "check_estimator",
    "estimator_checks_generator",
    "expected_failed_checks",
    "parametrize_with_checks",
]
