"""Rows to predict are checked as scikit-learn checks them."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from skfair.utils._validation import validate_rows


class Plain(BaseEstimator):
    n_features_in_ = 2


@pytest.mark.parametrize("dtype", [np.float32, "numeric"])
@pytest.mark.parametrize(
    "X",
    [
        np.array([[1.5, -2.0]]),
        np.array([[1.5, -2.0]], dtype=np.float32),
        np.array([[1.5, -2.0]], dtype=np.float16),
        np.array([[1.5, -2.0]], dtype=">f8"),
        np.asfortranarray(np.arange(6.0).reshape(3, 2)),
        np.arange(6.0).reshape(3, 2)[::-1],
        np.full((2, 2), 3e38, dtype=np.float32),  # the sum overflows
        np.array([[1, 2]]),
    ],
)
def test_rows_to_predict_are_those_of_scikit_learn(X, dtype):
    expected = validate_data(Plain(), X, reset=False, dtype=dtype)
    found = validate_rows(Plain(), X, reset=False, dtype=dtype)
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.strides) == (expected.dtype, expected.strides)
    assert np.shares_memory(found, X) == np.shares_memory(expected, X)


@pytest.mark.parametrize(
    "X, message",
    [
        (np.array([[1.0, np.nan]]), "X contains NaN"),
        (np.array([[np.inf, -np.inf]]), "X contains infinity"),
        (np.array([[1e39, 0.0]]), "X contains infinity"),  # in float32
        (np.ones((1, 3)), "X has 3 features, but Plain is expecting 2 features"),
        (np.ones(2), "Expected 2D array, got 1D array"),
        (np.ones((0, 2)), "Found array with 0 sample"),
    ],
)
def test_rows_to_predict_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        validate_rows(Plain(), X, reset=False, dtype=np.float32)


def test_rows_without_names_after_a_fit_with_names_warn():
    named = Plain()
    named.feature_names_in_ = np.array(["a", "b"], dtype=object)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        validate_rows(named, np.ones((1, 2)), reset=False, dtype=np.float32)
