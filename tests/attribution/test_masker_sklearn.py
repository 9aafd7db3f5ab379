"""PatchAttributionMasker in scikit-learn: pipelines, searches, routing, tables."""

import copy

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch import NeuralNetClassifier
from torch import nn

from skfair.attribution import PatchAttributionMasker
from skfair.featurize import FrozenEncoderFeaturizer


def test_tags_say_when_fitting_and_transforming_differ():
    def tag(**parameters):
        return sklearn.utils.get_tags(PatchAttributionMasker(**parameters)).non_deterministic

    assert tag()
    assert tag(perturbation="noise", perturb_at_predict=True)
    assert not tag(perturb_at_predict=True)
    assert sklearn.utils.get_tags(PatchAttributionMasker()).input_tags.three_d_array


# Pipelines and searches -------------------------------------------------------------------


@pytest.fixture(scope="module")
def confounded(planted):
    """One class is a bit brighter; the stamp agrees with the class in four of five images."""
    data = planted(n=240, seed=6)
    y = np.where(np.random.default_rng(1).random(240) < 0.8, data.has, ~data.has)
    X = data.X.copy()
    X[y] += 6
    return X, y, data.has, data.inside


def flat():
    return FunctionTransformer(lambda X: X.reshape(len(X), -1) / 255 - 64 / 255)


def classifier():
    return LogisticRegression(C=0.01, max_iter=2000)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


class Seen(FunctionTransformer):
    """Keeps the images that it gets."""

    def fit(self, X, y=None):
        self.trained_on_ = X
        return super().fit(X, y)

    def transform(self, X):
        self.last_ = X
        return super().transform(X)


@pytest.mark.usefixtures("routing")
def test_training_images_are_masked_and_new_ones_are_not(confounded, quick):
    X, y, has, inside = confounded
    pipeline = make_pipeline(
        quick(fill=64, max_epochs=8, quantile=0.85), Seen(), flat(), classifier()
    )
    pipeline.fit(X, y, sensitive_features=has)
    masker, seen = pipeline[0], pipeline[1]
    np.testing.assert_array_equal(seen.trained_on_, masker.mask(X))
    assert (seen.trained_on_ != X).any()
    hidden = masker.perturbed_pixels(X[:1])[0]
    assert hidden[inside].mean() > 0.9
    # Pixels of one constant colour in training get no weight.
    weight = pipeline[-1].coef_.reshape(3, 12, 14)
    assert np.abs(weight[:, hidden]).max() < 1e-6
    plain = make_pipeline(flat(), classifier()).fit(X, y)
    assert np.abs(plain[-1].coef_.reshape(3, 12, 14)[:, hidden]).max() > 1e-2
    pipeline.predict(X[:9])
    np.testing.assert_array_equal(seen.last_, X[:9])
    # On images where the stamp speaks for the other class, the masked model is better.
    against = X[y != has], y[y != has]
    assert pipeline.score(*against) > plain.score(*against) + 0.3


def test_an_attribute_for_the_masker_without_routing(confounded, quick):
    X, y, has, _ = confounded
    pipeline = make_pipeline(quick(), flat(), classifier())
    pipeline.fit(X, y, patchattributionmasker__sensitive_features=has)
    assert pipeline.score(X, y) > 0.6
    with pytest.raises(ValueError, match=r"sensitive_features is None.*enable_metadata_routing"):
        pipeline.fit(X, y)


@pytest.mark.usefixtures("routing")
def test_before_a_skorch_net(confounded, quick):
    X, y, has, _ = confounded
    net = NeuralNetClassifier(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)),
        criterion=nn.CrossEntropyLoss,
        max_epochs=2,
        train_split=None,
        verbose=0,
    )
    floats, codes = (X / 255).astype(np.float32), y.astype(np.int64)
    pipeline = make_pipeline(quick(scope="specific", perturbation="noise"), net)
    pipeline.fit(floats, codes, sensitive_features=has)
    assert pipeline.predict_proba(floats).shape == (240, 2)


@pytest.mark.usefixtures("routing")
def test_a_search_over_quantile_and_mode(confounded, quick):
    X, y, has, _ = confounded
    grid = {
        "patchattributionmasker__quantile": [0.7, 0.9],
        "patchattributionmasker__scope": ["general", "specific"],
        "patchattributionmasker__perturbation": ["mask", "noise"],
    }
    masker = quick(max_epochs=3, validation_fraction=0.2)
    search = GridSearchCV(make_pipeline(masker, flat(), classifier()), grid, cv=2)
    search.fit(X, y, sensitive_features=has)
    assert len(search.cv_results_["params"]) == 8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_[0]
    assert best.quantile in (0.7, 0.9)
    assert search.predict(X).shape == (240,)
    # The refit gets all images, and the attribute of all.
    expected = quick(max_epochs=3, validation_fraction=0.2).fit(X, sensitive_features=has)
    np.testing.assert_array_equal(best.mean_map_, expected.mean_map_)


# Rows and their names ---------------------------------------------------------------------


def test_tables_stay_tables(data, quick):
    names = [f"pixel {i}" for i in range(504)]
    table = pd.DataFrame(data.X.reshape(200, -1), columns=names, index=range(1000, 1200))
    masker = quick(image_shape=(3, 12, 14), perturb_at_predict=True).set_output(transform="pandas")
    masked = masker.fit_transform(table, sensitive_features=data.has)
    assert masker.n_features_in_ == 504
    assert masker.feature_names_in_.tolist() == names
    assert masker.get_feature_names_out().tolist() == names
    assert list(masked.columns) == names
    assert masked.index.equals(table.index)
    assert (masked.dtypes == np.uint8).all()
    np.testing.assert_array_equal(masked.to_numpy(), masker.mask(table))
    pd.testing.assert_frame_equal(masker.transform(table), masked)
    masker.set_params(perturb_at_predict=False)
    pd.testing.assert_frame_equal(masker.transform(table), table)
    with pytest.raises(ValueError, match="feature names should match"):
        masker.transform(table.rename(columns=str.upper))


def test_rows_of_integers_are_images_too(data, quick):
    rows = data.X.reshape(200, -1).astype(np.int64)
    masker = quick(image_shape=(3, 12, 14))
    masked = masker.fit_transform(rows, sensitive_features=data.has)
    assert data.share(masker.mean_map_) > 0.8
    assert masked.dtype == np.int64
    assert masker.data_range_ == (0, 227)
    hidden = np.repeat(masker.perturbed_pixels(rows[:1])[0][None], 3, axis=0).ravel()
    np.testing.assert_array_equal(masked[:, ~hidden], rows[:, ~hidden])
    colour = np.round(rows.reshape(200, 3, -1).mean((0, 2))).repeat(168)
    np.testing.assert_array_equal(masked[:, hidden], np.tile(colour[hidden], (200, 1)))


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_images_are_no_table(container, fitted, data, quick):
    masker = copy.deepcopy(fitted)
    assert not hasattr(masker, "get_feature_names_out")
    expected = fitted.transform(data.X)
    np.testing.assert_array_equal(
        masker.set_output(transform=container).transform(data.X), expected, strict=True
    )
    with sklearn.config_context(transform_output=container):
        np.testing.assert_array_equal(fitted.transform(data.X), expected, strict=True)
    # In a pipeline, images go to the next step, which makes features.
    pipeline = make_pipeline(copy.deepcopy(fitted), FrozenEncoderFeaturizer(nn.Flatten()))
    pipeline[-1].fit(data.X)
    found = pipeline.set_output(transform=container).transform(data.X)
    assert type(found).__module__.startswith(container)
    # Rows are a table.
    X = data.X.reshape(len(data.X), -1)
    rows = quick(image_shape=data.X.shape[1:], max_epochs=1, check_leakage=False)
    found = rows.set_output(transform=container).fit_transform(X, sensitive_features=data.has)
    assert type(found).__module__.startswith(container)
    assert list(found.columns)[:2] == ["x0", "x1"]


def test_names_of_features_that_images_have_not(fitted):
    with pytest.raises(AttributeError, match="no attribute 'get_feature_names_out'") as error:
        fitted.get_feature_names_out()
    assert "only rows of pixels have" in str(error.value.__cause__)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        PatchAttributionMasker().get_feature_names_out()
