"""Promises about fits that fail or are interrupted."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from skfair.estimator_checks._case import Case, make_case
from skfair.estimator_checks._registry import promise
from skfair.estimator_checks._running import (
    Stopped,
    assert_close,
    assert_identical,
    assert_unchanged,
    module_calls,
    outputs,
)


@promise()
def check_failed_fit(name: str, estimator: Any) -> None:
    """A fit that fails, early or late, leaves the estimator unchanged."""
    # A method may skip a step that fails (some networks cannot be traced). The fit must then be
    # complete.
    case = make_case(estimator)
    bad = np.full(case.X.shape, np.nan)
    for X in (bad, bad[:0]):
        assert not _was_fitted(name, case, partial(_fit, case=case, X=X)), (
            f"fit of {name} accepts X of NaN alone, or X without rows."
        )
    for number in _some_calls(case):
        _was_fitted(name, case, partial(_stop, case=case, number=number, error=Stopped))


@promise()
def check_interrupted_fit(name: str, estimator: Any) -> None:
    """After Ctrl-C, ``fit`` leaves the estimator unchanged, or sets ``interrupted_`` to True."""
    case = make_case(estimator)
    for number in _some_calls(case):
        fitted = case.fit()
        before, expected = dict(vars(fitted)), outputs(fitted, case.X)
        try:
            _stop(fitted, case, number, KeyboardInterrupt)
        except KeyboardInterrupt:
            _assert_as_before(name, fitted, case, before, expected)
        else:
            assert getattr(fitted, "interrupted_", False) is True, (
                f"{name} ends an interrupted fit without interrupted_ = True."
            )
            found = outputs(fitted, case.X)
            assert found.keys() == expected.keys()


def _fit(fitted: Any, case: Case, X: np.ndarray) -> None:
    fitted.fit(X, case.y[: len(X)], **case.fit_params)


def _some_calls(case: Case) -> list[int]:
    """Number the module calls of a fit, and return the first, a middle and the last number."""
    with module_calls() as called:
        case.fit()
    return sorted({1, len(called) // 2, len(called)} - {0}) if called else []


def _stop(fitted: Any, case: Case, number: int, error: type[BaseException]) -> None:
    """Fit, and raise the error at the module call with this number."""

    def raise_there(n: int) -> None:
        if n == number:
            raise error

    with module_calls(raise_there):
        _fit(fitted, case, case.X)


def _was_fitted(name: str, case: Case, fit: Callable[[Any], None]) -> bool:
    """Fit once more. Check that the new fit is complete, or that the old one is unchanged."""
    fitted = case.fit()
    before, expected = dict(vars(fitted)), outputs(fitted, case.X)
    try:
        fit(fitted)
    except Exception:
        _assert_as_before(name, fitted, case, before, expected)
        return False
    found = outputs(fitted, case.X)
    for method in expected:
        assert_close(
            found[method], expected[method], f"{name}.{method}, without a step", single=True
        )
    return True


def _assert_as_before(name: str, fitted: Any, case: Case, before: dict, expected: dict) -> None:
    assert_unchanged(before, fitted, f"A fit of {name} that failed")
    assert_identical(expected, outputs(fitted, case.X), "outputs after a fit that failed")
