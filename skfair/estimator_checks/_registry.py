"""The list of checks: each says which estimators its promise is about."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from skfair.utils._warnings import FairnessWarning


class Check(NamedTuple):
    """A check and the estimators that it is about."""

    function: Callable[[str, Any], None]
    applies: Callable[[Any], object]  # by truth: a list of parameters will do


CHECKS: list[Check] = []


def promise(applies: Callable[[Any], object] = lambda estimator: True) -> Callable:
    """Register ``check_...(name, estimator)``, for the estimators to which it applies.

    Its docstring is the promise. What it finds out about little data is not what it checks, so
    that skfair's warnings about a method are not shown.
    """

    def register(function: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
        @functools.wraps(function)
        def check(name: str, estimator: Any) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FairnessWarning)
                try:
                    function(name, estimator)
                except Exception as error:
                    error.add_note(f"{name} was to keep this promise: {function.__doc__}")
                    raise

        CHECKS.append(Check(check, applies))
        return check

    return register
