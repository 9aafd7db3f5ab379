"""Fitting an estimator of scikit-learn inside another fit."""

import inspect
from typing import Any, TypeVar

Estimator = TypeVar("Estimator")


def fit_inner(estimator: Estimator, *args: Any, **kwargs: Any) -> Estimator:
    """Fit an estimator of scikit-learn inside another fit, hidden from tools that log fits.

    A tool such as MLflow's autologging wraps ``fit`` of each class of scikit-learn. It would record
    the inner fit in place of the estimator that the user fits. This function therefore calls the
    original, unwrapped ``fit``. Parameters are not validated.

    Parameters
    ----------
    estimator : object
        An estimator whose ``fit`` does not fit other estimators.
    *args, **kwargs
        Arguments of ``fit``.

    Returns
    -------
    object
        `estimator`.
    """
    fit: Any = type(estimator).fit  # type: ignore[attr-defined]
    inspect.unwrap(fit)(estimator, *args, **kwargs)
    return estimator
