"""Fits that hold or leave no trace, whatever a subclass writes."""

import pytest
from sklearn.base import BaseEstimator

from skfair.base._fresh_fit import FreshFit


class Base(FreshFit, BaseEstimator):
    def fit(self, X, y=None):
        self.seen_ = sorted(vars(self))
        if X is None:
            raise ValueError("nothing")
        self.base_ = X
        return self


class Extended(Base):
    def fit(self, X, y=None):
        self.first_ = 1  # is there still after the fit of the base
        super().fit(X)
        if y is None:
            raise KeyboardInterrupt
        self.extended_ = y
        return self


def test_a_fit_starts_without_what_an_earlier_fit_left():
    estimator = Base().fit(1)
    estimator.other_ = 2
    assert estimator.fit(3).seen_ == []
    assert not hasattr(estimator, "other_")


def test_a_fit_that_calls_the_fit_of_its_base_is_one_fit():
    estimator = Extended().fit(1, 2)
    assert (estimator.first_, estimator.base_, estimator.extended_) == (1, 1, 2)


@pytest.mark.parametrize("X, y, error", [(None, 3, ValueError), (5, None, KeyboardInterrupt)])
def test_a_fit_that_fails_in_the_base_or_after_it_leaves_no_trace(X, y, error):
    estimator = Extended().fit(1, 2)
    before = dict(vars(estimator))
    with pytest.raises(error):
        estimator.fit(X, y)
    assert vars(estimator) == before
    fresh = Extended()
    with pytest.raises(error):
        fresh.fit(X, y)
    assert vars(fresh) == {}
