"""The promises that every estimator keeps, as checks that anybody's estimator can be put to.

Each check is a function ``check_...(name, estimator)`` that raises where the promise, which is
its docstring, is not kept. What an estimator needs to be fitted is read off the estimator, as is
which promises are about it.
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
    """Order the checks as they are written, whatever was imported first."""
    function = inspect.unwrap(check.function)
    # What is said of an estimator comes after what it does.
    is_last = check.function is _construction.check_documented
    return is_last, function.__module__, function.__code__.co_firstlineno


CHECKS.sort(key=_place)

# Of scikit-learn, those that call fit(X, y) and want it to do more than refuse what is wrong.
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
    """Yield the checks of all promises that are about an estimator.

    Parameters
    ----------
    estimator : object
        An instance with the parameters that it is to be checked with. It is not changed.

    Yields
    ------
    estimator : object
        The one that was given.
    check : functools.partial
        Takes the estimator; raises where it does not keep the promise.

    Examples
    --------
    >>> from skfair.margin import ClusterMarginClassifier
    >>> from skfair.estimator_checks import estimator_checks_generator
    >>> checks = estimator_checks_generator(ClusterMarginClassifier(n_clusters=4))
    >>> estimator, check = next(checks)
    >>> check(estimator)
    """
    if isinstance(estimator, type):
        raise TypeError(
            f"estimator is the class {estimator.__name__}. Pass an instance, with the parameters "
            "that it is to be checked with."
        )
    if isinstance(estimator, _BaseComposition):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}, which is made of other estimators. Pass "
            "each of these by itself."
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

    This is about the checks of :mod:`sklearn.utils.estimator_checks`, and what its functions take
    as ``expected_failed_checks``. The promises of skfair have no exceptions.

    Parameters
    ----------
    estimator : object
        An instance.

    Returns
    -------
    dict of str to str
        Names of checks, and reasons. Where ``fit`` takes ``sample_weight``, the equivalence of a
        weighted sample and a repeated one. Where it needs ``sensitive_features``, all checks that
        fit, as scikit-learn's pass none; a subclass whose ``fit`` makes groups of `X` passes
        them, and has none of these here.

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
    # Those of skfair that take weights learn without groups, too.
    ours = type(estimator).fit.__module__.startswith("skfair.")
    if ours and takes_groups(estimator) and not takes_weights:
        reason = "fit needs sensitive_features, and scikit-learn's checks pass none"
        expected = dict.fromkeys(_FIT_WITHOUT_GROUPS, reason)
    if takes_weights:
        expected["check_sample_weight_equivalence_on_dense_data"] = (
            "a weighted sample and a repeated one make other batches or halves; that they are "
            "equal in expectation is tested with the estimator"
        )
    return expected


def check_estimator(
    estimator: Any,
    *,
    expected_failed_checks: dict[str, str] | None = None,
    on_fail: Literal["raise", "warn"] | None = "raise",
) -> list[dict[str, Any]]:
    """Check that an estimator keeps all promises that are about it.

    The data are made up, a few dozen rows or images of the shape that the parameters and the
    networks in them take; trainings and searches are made short. The checks that scikit-learn
    has are not among these: see :func:`sklearn.utils.estimator_checks.check_estimator`.

    Parameters
    ----------
    estimator : object
        An instance with the parameters that it is to be checked with, of skfair or your own. It
        is not changed.
    expected_failed_checks : dict of str to str, default=None
        Names of checks that may fail, and why.
    on_fail : {"raise", "warn"} or None, default="raise"
        What happens where another check fails. With "raise", its error is raised, and no more
        checks run. With "warn", there is an `EstimatorCheckFailedWarning` of scikit-learn for
        each that fails, expected or not, and with None there is none; all checks run.

    Returns
    -------
    list of dict
        One for each check, as scikit-learn's function gives them: `estimator`, `check_name`,
        `exception` or None, `status` ("passed", "failed", or "xfail" where it was expected to
        fail and did), `expected_to_fail` and `expected_to_fail_reason`.

    Raises
    ------
    AssertionError
        A promise is not kept; a note to the error says which. Errors of the estimator
        itself come as they are, with that note.
    TypeError
        `estimator` is a class, is made of other estimators as a pipeline is, or is no estimator.
    ValueError
        `on_fail` is none of these.

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
        raise ValueError(f"on_fail is {on_fail!r}; it takes 'raise', 'warn' or None.")
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
    """Make a test for each estimator and each promise that is about it.

    Parameters
    ----------
    estimators : sequence of object
        Instances with the parameters that they are to be checked with.
    expected_failed_checks : callable, default=None
        Takes an estimator and gives a dict of the names of checks that may fail, and why. Where
        one does, its test is an xfail.

    Returns
    -------
    pytest.MarkDecorator
        For a test function with the arguments ``estimator`` and ``check``.

    See Also
    --------
    check_estimator : All checks of one estimator, without pytest.

    Examples
    --------
    >>> import torch
    >>> from skfair.intraprocessing import ThresholdDebiaser
    >>> from skfair.estimator_checks import parametrize_with_checks
    >>> @parametrize_with_checks([ThresholdDebiaser(torch.nn.Linear(6, 1))])
    ... def test_promises(estimator, check):
    ...     check(estimator)
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
