"""The promises that every estimator keeps, as checks that anybody's estimator can be put to."""

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
