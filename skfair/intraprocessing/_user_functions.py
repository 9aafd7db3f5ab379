"""Intra-processing, all methods: functions of the user as constraint or performance."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from skfair.metrics._group_metric import unwrap
from skfair.utils._shown import shown

_N_BOOTSTRAP = 50


def named(parameter: str, function: Callable) -> str:
    """Name a function in a message, as ``parameter=function``.

    Returns
    -------
    str
    """
    return f"{parameter}={getattr(function, '__name__', repr(function))}"


def call_performance(function: Callable, y: np.ndarray, predicted: np.ndarray) -> float:
    """Measure the performance of predictions.

    Parameters
    ----------
    function : callable
        ``function(y_true, y_pred)`` -> number.
    y, predicted : ndarray of shape (n_samples,), of 0 and 1

    Returns
    -------
    float
        May be NaN.

    Raises
    ------
    ValueError
        The function fails, or returns anything but one finite number or NaN.
    """
    return _call("performance", function, y, predicted)


def call_constraint(
    function: Callable, y: np.ndarray, predicted: np.ndarray, features: Any
) -> float:
    """Measure the bias of predictions.

    Parameters
    ----------
    function : callable
        ``function(y_true, y_pred, sensitive_features=...)`` -> number.
    y, predicted : ndarray of shape (n_samples,), of 0 and 1
    features : DataFrame or ndarray
        Sensitive features.

    Returns
    -------
    float
        May be NaN.

    Raises
    ------
    ValueError
        As :func:`call_performance`.
    """
    return _call("constraint", function, y, predicted, sensitive_features=features)


def bootstrap_error(
    function: Callable, y: np.ndarray, predicted: np.ndarray, features: Any, *, defined: bool
) -> float:
    """Estimate the standard error of the bias by resampling the rows.

    Parameters
    ----------
    function, y, predicted, features
        As in :func:`call_constraint`.
    defined : bool
        Whether the bias of any predictions was a number.

    Returns
    -------
    float
        Zero where no bias is a number.

    Raises
    ------
    ValueError
        The bias is a number for fewer than two resamples, although it was one on all rows.
    """
    rng, n = np.random.RandomState(0), len(y)
    found = []
    for _ in range(_N_BOOTSTRAP):
        rows = rng.randint(n, size=n)
        bias = call_constraint(function, y[rows], predicted[rows], _safe_indexing(features, rows))
        if np.isfinite(bias):
            found.append(bias)
    if len(found) < 2 and defined:
        raise ValueError(
            f"{named('constraint', function)} returned a number for {len(found)} of "
            f"{_N_BOOTSTRAP} resamples of the rows, expected at least 2 for its standard error. "
            "Give a function that is defined for these labels and groups, or more rows."
        )
    return float(np.std(found)) if found else 0.0


def _call(parameter: str, function: Callable, *arguments: Any, **keywords: Any) -> float:
    """Call a function of the user, and name it where it does not return a number."""
    called = (
        f"{named(parameter, function)}, called as "
        f"({', '.join(['y_true', 'y_pred', *keywords])}) with labels 0 and 1,"
    )
    try:
        value = function(*arguments, **keywords)
    except Exception as error:
        raise ValueError(
            f"{called} raised {type(error).__name__}: {error}. Give a function that takes these "
            "arguments, also where all predictions are the same."
        ) from error
    number = unwrap(value)
    # A truth value is no measure: it may say that the bias is small, or that there is one.
    if isinstance(number, bool | np.bool_) or not isinstance(number, Real):
        raise ValueError(
            f"{called} returned {shown(value)}, expected one number. Return NaN where the measure "
            "is not defined."
        )
    number = float(number)
    if np.isinf(number):
        raise ValueError(
            f"{called} returned {number}, expected a finite number. Return NaN where the measure "
            "is not defined."
        )
    return number
