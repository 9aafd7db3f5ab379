"""Fitted estimators of all classes, for the packages that store, search and show them."""

import functools

import pytest

from skfair.discovery import all_estimators
from skfair.estimator_checks._case import make_case, small_instance
from skfair.estimator_checks._running import assert_same_fit

CLASSES = dict(all_estimators())


@functools.cache
def _fitted(name):
    case = make_case(small_instance(CLASSES[name]))
    return case, case.fit()


@pytest.fixture(params=sorted(CLASSES))
def fitted(request):
    """An estimator that is fitted, and a function that compares another one with it."""
    case, estimator = _fitted(request.param)
    return estimator, functools.partial(assert_same_fit, estimator, X=case.X)
