"""X of image estimators: what `fit` notes of it, and what later calls have to bring."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator

from skfair._images._input import validate_images

X = np.random.default_rng(0).integers(0, 256, size=(6, 3, 8, 5), dtype=np.uint8)
ROWS = X.reshape(6, -1)


class Estimator(BaseEstimator):
    def __init__(self, image_shape=None, resize="stretch", data_format="auto"):
        self.image_shape = image_shape
        self.resize = resize
        self.data_format = data_format


def fitted(X, **parameters):
    estimator = Estimator(**parameters)
    validate_images(estimator, X, reset=True)
    return estimator


def test_of_images_the_shape_and_type_are_noted():
    estimator = fitted(X)
    assert estimator.image_shape_ == (3, 8, 5)
    assert estimator.input_dtype_ == np.uint8
    assert not hasattr(estimator, "n_features_in_")
    assert fitted(X / 255).input_dtype_ == np.float32


def test_of_rows_the_number_and_the_names_too():
    frame = pd.DataFrame(ROWS).rename(columns="c{}".format)
    estimator = fitted(frame, image_shape=(3, -1, 5))
    assert estimator.image_shape_ == (3, 8, 5)
    assert estimator.n_features_in_ == 120
    assert estimator.feature_names_in_.tolist() == [f"c{i}" for i in range(120)]
    assert fitted(ROWS).image_shape_ is None  # rows that are no images
    assert fitted(ROWS.tolist()).n_features_in_ == 120


def test_a_second_fit_forgets_the_first():
    estimator = fitted(pd.DataFrame(ROWS).rename(columns=str))
    validate_images(estimator, X, reset=True)
    assert not hasattr(estimator, "n_features_in_")
    assert not hasattr(estimator, "feature_names_in_")


@pytest.mark.parametrize("fit_on", [X, X.transpose(0, 2, 3, 1), list(X), torch.from_numpy(X)])
@pytest.mark.parametrize("later", [X, X.transpose(0, 2, 3, 1), list(X), torch.from_numpy(X)])
def test_later_images_may_have_another_form(fit_on, later):
    images = validate_images(fitted(fit_on), later, reset=False)
    np.testing.assert_array_equal(images.read(0, 6), X)


def test_rows_in_any_form():
    estimator = fitted(ROWS, image_shape=(3, 8, 5))
    for rows in (ROWS, ROWS[::-1][::-1], torch.from_numpy(ROWS)):
        images = validate_images(estimator, rows, reset=False)
        np.testing.assert_array_equal(images.read(0, 6), X)


def test_rows_of_a_memory_map_stay_one(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    array, _ = validate_images(Estimator((3, 8, 5)), rows, reset=True).to_array(copy=False)
    assert np.shares_memory(array, rows)


def test_an_expected_shape_of_ones_own():
    estimator = fitted(X)
    larger = np.zeros((2, 3, 9, 9), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"\(3, 9, 9\), fit saw \(3, 8, 5\)"):
        validate_images(estimator, larger, reset=False)
    images = validate_images(estimator, larger, reset=False, expected_shape=(3, -1, -1))
    assert images.shape == (3, 9, 9)
    with pytest.raises(ValueError, match=r"\(1, 9, 9\), fit saw \(3, any, any\)"):
        validate_images(estimator, larger[:, :1], reset=False, expected_shape=(3, -1, -1))


@pytest.mark.parametrize(
    "fit_on, later, match",
    [
        (X, ROWS, r"shape \(6, 120\)\) is of another form than X in fit \(images of shape \(3, 8"),
        (X, ROWS.tolist(), r"X \(list\) is of another form"),
        (ROWS, X, r"is of another form than X in fit \(rows of 120 features"),
        (ROWS, ROWS[:, 1:], "119 features"),
        (X, X / 255, "X holds float32 values, fit saw uint8"),
        (X / 255, X, "X holds uint8 values, fit saw float32"),
    ],
    ids=range(6),
)
def test_what_does_not_go_together(fit_on, later, match):
    estimator = fitted(fit_on)
    with pytest.raises(ValueError, match=match):
        validate_images(estimator, later, reset=False)
