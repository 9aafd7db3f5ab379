"""The list of checks, each with the estimators to which it applies."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from skfair.utils._warnings import FairnessWarning


class Check(NamedTuple):
    """A check and a function that says to which estimators it applies."""

    function: Callable[[str, Any], None]
    applies: Callable[[Any], object]  # its truth value counts, so it may return a list


CHECKS: list[Check] = []


def promise(applies: Callable[[Any], object] = lambda estimator: True) -> Callable:
    """Register ``check_...(name, estimator)``, for the estimators to which it applies.

    The docstring of the check is the promise. The data of a check are few, so skfair warns about
    them often. These warnings are not the subject of the check and are not shown.
    """

    def register(function: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
        @functools.wraps(function)
        def check(name: str, estimator: Any) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FairnessWarning)
                try:
                    function(name, estimator)
                except Exception as error:
                    error.add_note(f"{name} must keep this promise: {function.__doc__}")
                    raise

        CHECKS.append(Check(check, applies))
        return check

    return register
