"""Fits of scikit-learn's estimators that are a part of another fit."""

import inspect
from typing import Any, TypeVar

Estimator = TypeVar("Estimator")


def fit_inner(estimator: Estimator, *args: Any, **kwargs: Any) -> Estimator:
    """Fit an estimator of scikit-learn inside of the fit of another, unseen from outside.

    What watches fits, as MLflow's autologging does, wraps ``fit`` of each class of scikit-learn,
    and would record this one in place of the estimator that the user fits. The plain function
    lies below what wraps it. Parameters are not validated.

    Parameters
    ----------
    estimator : object
        One whose own fit calls no other.
    *args, **kwargs
        What ``fit`` takes.

    Returns
    -------
    object
        `estimator`.
    """
    fit: Any = type(estimator).fit  # type: ignore[attr-defined]
    inspect.unwrap(fit)(estimator, *args, **kwargs)
    return estimator
