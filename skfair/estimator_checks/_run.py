"""Running the checks: on one estimator, or as pytest tests.

Each check is a function ``check_...(name, estimator)``. Its docstring is the promise. It raises if
the estimator does not keep the promise. The estimator itself determines which checks apply to it,
and on which data it is fitted.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sklearn.exceptions import EstimatorCheckFailedWarning
from sklearn.utils.metaestimators import _BaseComposition

from skfair.estimator_checks import (  # noqa: F401  (each registers its checks)
    _construction,
    _copies,
    _failures,
    _groups,
    _inputs,
    _networks,
    _predictions,
    _reproducible,
)
from skfair.estimator_checks._case import takes_groups
from skfair.estimator_checks._registry import CHECKS, Check

if TYPE_CHECKING:
    import pytest


def _place(check: Check) -> tuple[bool, str, int]:
    """Sort the checks by their place in the source, independent of the order of imports."""
    function = inspect.unwrap(check.function)
    # Documentation comes last, after behaviour.
    is_last = check.function is _construction.check_documented
    return is_last, function.__module__, function.__code__.co_firstlineno


CHECKS.sort(key=_place)

# Checks of scikit-learn that call fit(X, y) without groups and need the fit to succeed.
_FIT_WITHOUT_GROUPS = (
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_decision_proba_consistency",
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit2d_predict1d",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_supervised_y_2d",
    "check_transformer_data_not_an_array",
    "check_transformer_general",
    "check_transformer_preserve_dtypes",
)


def estimator_checks_generator(estimator: Any) -> Iterator[tuple[Any, functools.partial]]:
    """Yield all checks that apply to an estimator.

    Parameters
    ----------
    estimator : object
        An instance with the parameters to check. It is not changed.

    Yields
    ------
    estimator : object
        The given estimator.
    check : functools.partial
        Takes the estimator, and raises if the estimator does not keep the promise.

    Raises
    ------
    TypeError
        `estimator` is a class, contains other estimators as a pipeline does, or is no estimator.

    Examples
    --------
    >>> from skfair.margin import ClusterMarginClassifier
    >>> from skfair.estimator_checks import estimator_checks_generator
    >>> checks = estimator_checks_generator(ClusterMarginClassifier(n_clusters=4))
    >>> estimator, check = next(checks)
    >>> check.func.__name__
    'check_constructor'
    >>> check(estimator)
    """
    if isinstance(estimator, type):
        raise TypeError(
            f"estimator is the class {estimator.__name__}. Pass an instance, with the parameters "
            "to check."
        )
    if isinstance(estimator, _BaseComposition):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}, which contains other estimators. Pass "
            "each of them alone."
        )
    if not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}, which has no fit or no get_params. Pass "
            "an instance of a subclass of sklearn.base.BaseEstimator."
        )
    name = type(estimator).__name__
    for check in CHECKS:
        if check.applies(estimator):
            yield estimator, functools.partial(check.function, name)


def expected_failed_checks(estimator: Any) -> dict[str, str]:
    """Name the checks of scikit-learn that an estimator of skfair is expected to fail, and why.

    Pass the result as ``expected_failed_checks`` to the functions of
    :mod:`sklearn.utils.estimator_checks`. The checks of skfair have no exceptions.

    Parameters
    ----------
    estimator : object
        An instance.

    Returns
    -------
    dict of str to str
        Names of checks, and reasons. If ``fit`` takes ``sample_weight``, the check that weighted
        and repeated samples are equivalent. If ``fit`` needs ``sensitive_features``, all checks
        that fit, because scikit-learn's checks pass no groups. A subclass whose ``fit`` derives
        the groups from `X` passes those checks, so the result does not contain them.

    Raises
    ------
    TypeError
        `estimator` is a class.

    See Also
    --------
    check_estimator : The promises of skfair.

    Examples
    --------
    >>> from sklearn.utils.estimator_checks import check_estimator
    >>> from skfair.margin import ClusterMarginClassifier
    >>> from skfair.estimator_checks import expected_failed_checks
    >>> list(expected_failed_checks(ClusterMarginClassifier()))
    ['check_sample_weight_equivalence_on_dense_data']
    """
    if isinstance(estimator, type):
        raise TypeError(f"estimator is the class {estimator.__name__}. Pass an instance.")
    expected = {}
    takes_weights = "sample_weight" in inspect.signature(estimator.fit).parameters
    # Estimators of skfair that take weights can also be fitted without groups.
    ours = type(estimator).fit.__module__.startswith("skfair.")
    if ours and takes_groups(estimator) and not takes_weights:
        reason = "fit needs sensitive_features, and scikit-learn's checks pass none"
        expected = dict.fromkeys(_FIT_WITHOUT_GROUPS, reason)
    if takes_weights:
        expected["check_sample_weight_equivalence_on_dense_data"] = (
            "weighted and repeated samples give different batches or halves; the tests of the "
            "estimator check that they are equivalent in expectation"
        )
    return expected


def check_estimator(
    estimator: Any,
    *,
    expected_failed_checks: dict[str, str] | None = None,
    on_fail: Literal["raise", "warn"] | None = "raise",
) -> list[dict[str, Any]]:
    """Check that an estimator keeps all promises that apply to it.

    The checks generate a few dozen rows or images, of the shape that the parameters and networks
    of the estimator need. They shorten trainings and searches. They do not include the checks of
    scikit-learn: see :func:`sklearn.utils.estimator_checks.check_estimator`.

    Parameters
    ----------
    estimator : object
        An instance with the parameters to check: an estimator of skfair or your own. It is not
        changed.
    expected_failed_checks : dict of str to str, default=None
        Names of checks that may fail, and why.
    on_fail : {"raise", "warn"} or None, default="raise"
        What to do if a check fails. "raise" raises the error of a check that is not expected to
        fail, and runs no more checks. "warn" runs all checks, and issues scikit-learn's
        `EstimatorCheckFailedWarning` for each failure, expected or not. None runs all checks
        without warnings.

    Returns
    -------
    list of dict
        One dict for each check, in the format of scikit-learn's function: `estimator`,
        `check_name`, `exception` or None, `status` ("passed", "failed", or "xfail" for an expected
        failure), `expected_to_fail` and `expected_to_fail_reason`.

    Raises
    ------
    AssertionError
        The estimator breaks a promise. A note of the error quotes the promise. Errors that the
        estimator itself raises are not changed, and get the same note.
    TypeError
        `estimator` is a class, contains other estimators as a pipeline does, or is no estimator.
    ValueError
        `on_fail` has another value.

    See Also
    --------
    parametrize_with_checks : A test for each check, with pytest.

    Examples
    --------
    >>> import torch
    >>> from skfair.intraprocessing import ThresholdDebiaser
    >>> from skfair.estimator_checks import check_estimator
    >>> results = check_estimator(ThresholdDebiaser(torch.nn.Linear(6, 1)))
    >>> {result["status"] for result in results}
    {'passed'}
    """
    if on_fail not in ("raise", "warn", None):
        raise ValueError(f"on_fail is {on_fail!r}. Use 'raise', 'warn' or None.")
    expected = expected_failed_checks or {}
    results = []
    for instance, check in estimator_checks_generator(estimator):
        check_name = check.func.__name__
        may_fail = check_name in expected
        exception, status = None, "passed"
        try:
            check(instance)
        except Exception as error:
            if on_fail == "raise" and not may_fail:
                raise
            exception, status = error, "xfail" if may_fail else "failed"
        result = {
            "estimator": instance,
            "check_name": check_name,
            "exception": exception,
            "status": status,
            "expected_to_fail": may_fail,
            "expected_to_fail_reason": expected.get(check_name, "Check is not expected to fail"),
        }
        if exception is not None and on_fail == "warn":
            warnings.warn(EstimatorCheckFailedWarning(**result), stacklevel=2)
        results.append(result)
    return results


def parametrize_with_checks(
    estimators: Sequence[Any],
    *,
    expected_failed_checks: Callable[[Any], dict[str, str]] | None = None,
) -> "pytest.MarkDecorator":
    """Parametrize a pytest test: one test for each estimator and each check that applies to it.

    Parameters
    ----------
    estimators : sequence of object
        Instances with the parameters to check.
    expected_failed_checks : callable, default=None
        Takes an estimator and returns a dict: names of checks that may fail, and why. The tests
        of these checks are marked as xfail.

    Returns
    -------
    pytest.MarkDecorator
        For a test function with the arguments ``estimator`` and ``check``.

    Raises
    ------
    TypeError
        An element of `estimators` is a class, contains other estimators, or is no estimator.

    See Also
    --------
    check_estimator : Run all checks on one estimator, without pytest.

    Examples
    --------
    >>> import torch
    >>> from skfair.intraprocessing import ThresholdDebiaser
    >>> from skfair.estimator_checks import parametrize_with_checks
    >>> @parametrize_with_checks([ThresholdDebiaser(torch.nn.Linear(6, 1))])
    ... def test_promises(estimator, check):
    ...     check(estimator)
    >>> test_promises.pytestmark[0].args[1][0].id
    'ThresholdDebiaser-check_constructor'
    """
    import pytest

    tests = []
    for estimator in estimators:
        expected = expected_failed_checks(estimator) if expected_failed_checks else {}
        for instance, check in estimator_checks_generator(estimator):
            check_name = check.func.__name__
            marks = (
                [pytest.mark.xfail(reason=expected[check_name])] if check_name in expected else []
            )
            test_id = f"{type(estimator).__name__}-{check_name}"
            tests.append(pytest.param(instance, check, marks=marks, id=test_id))
    return pytest.mark.parametrize("estimator, check", tests)
