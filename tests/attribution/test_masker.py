"""PatchAttributionMasker finds the planted attribute, and hides it and nothing else."""

import copy
import pickle
import random
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from PIL import Image
from sklearn.base import clone
from torch import nn
from torch.utils.data import DataLoader, Dataset

import skfair
from skfair.attribution import PatchAttributionMasker, _evaluation
from skfair.metrics import expected_calibration_error
from skfair.utils import UninformativeAttributionWarning


def changed(X, other):
    """Pixels in which images, channels first, differ."""
    return (np.asarray(X) != np.asarray(other)).any(1)


def with_parameters(fitted, **parameters):
    return copy.deepcopy(fitted).set_params(**parameters)


# It finds the attribute -------------------------------------------------------------------


def test_the_stamp_is_found(data, fitted):
    assert data.share(fitted.mean_map_) > 0.9
    assert data.share(fitted.attribute(data.X[data.has])) > 0.6
    assert fitted.informative_ is True
    assert fitted.scope_ == "general"
    assert fitted.attribute_auc_ > 0.9
    assert fitted.classes_.tolist() == [False, True]
    # Patches without a pixel of the stamp tell nothing, the patch on the stamp tells all.
    assert fitted.region_accuracy_[2, 3] == pytest.approx(1)
    assert fitted.region_accuracy_[:, :2].mean() < 0.75
    proba = fitted.region_proba(data.X)
    assert proba[data.has, 2, 3, 1].mean() > 0.8
    assert proba[~data.has, 2, 3, 1].mean() < 0.45  # without the position a patch tells little


@pytest.mark.parametrize("scope", ["general", "specific"])
def test_the_stamp_is_what_is_hidden(data, fitted, scope):
    masked = with_parameters(fitted, scope=scope, margin=0).mask(data.X)
    hidden = changed(masked, data.X)[data.has]
    assert hidden[:, data.inside].mean() > 0.6
    assert hidden[:, ~data.inside].mean() < 0.05
    # A margin hides more of it, and more of its surroundings.
    more = changed(with_parameters(fitted, scope=scope).mask(data.X), data.X)[data.has]
    assert more[:, data.inside].mean() > 0.85
    assert hidden.sum() < more.sum() < 3 * hidden.sum()


class Forms:
    """The same images in every accepted form; the functions return them channels first."""

    @staticmethod
    def channels_last(X, folder):
        return X.transpose(0, 2, 3, 1), {}, lambda Z: Z.transpose(0, 3, 1, 2)

    @staticmethod
    def rows(X, folder):
        return X.reshape(len(X), -1), {"image_shape": X.shape[1:]}, lambda Z: Z.reshape(X.shape)

    @staticmethod
    def rows_of_channels_last(X, folder):
        last = X.transpose(0, 2, 3, 1)
        parameters = {"image_shape": X.shape[1:], "data_format": "channels_last"}
        back = lambda Z: Z.reshape(last.shape).transpose(0, 3, 1, 2)  # noqa: E731
        return last.reshape(len(X), -1), parameters, back

    @staticmethod
    def table(X, folder):
        rows = pd.DataFrame(X.reshape(len(X), -1)).rename(columns="pixel {}".format)
        return rows, {"image_shape": X.shape[1:]}, lambda Z: Z.reshape(X.shape)

    @staticmethod
    def memory_map(X, folder):
        path = folder / "images.npy"
        np.save(path, X)
        return np.load(path, mmap_mode="r"), {}, np.asarray

    @staticmethod
    def tensor(X, folder):
        return torch.from_numpy(X.copy()), {}, np.asarray

    @staticmethod
    def files(X, folder):
        paths = [str(folder / f"{i}.png") for i in range(len(X))]
        for path, image in zip(paths, X, strict=True):
            Image.fromarray(image.transpose(1, 2, 0)).save(path)
        return paths, {}, np.asarray

    @staticmethod
    def images_of_pillow(X, folder):
        return [Image.fromarray(image.transpose(1, 2, 0)) for image in X], {}, np.asarray

    @staticmethod
    def dataset(X, folder):
        class Pairs(Dataset):
            def __len__(self):
                return len(X)

            def __getitem__(self, row):
                return torch.from_numpy(X[row].copy()), row

        return Pairs(), {}, np.asarray


@pytest.mark.parametrize("form", [name for name in vars(Forms) if not name.startswith("_")])
def test_all_forms_of_images_are_the_same_to_it(data, fitted, quick, form, tmp_path):
    X, parameters, back = getattr(Forms, form)(data.X, tmp_path)
    masker = quick(**parameters, scope="specific", perturbation="noise")
    found = masker.fit_transform(X, sensitive_features=data.has)
    np.testing.assert_array_equal(masker.mean_map_, fitted.mean_map_)
    assert masker.image_shape_ == (3, 12, 14)
    assert masker.input_dtype_ == np.uint8
    assert type(found) is np.ndarray
    assert found.dtype == np.uint8
    expected = with_parameters(fitted, scope="specific", perturbation="noise").mask(data.X)
    np.testing.assert_array_equal(back(found), expected)
    np.testing.assert_array_equal(masker.attribute(X), fitted.attribute(data.X))
    np.testing.assert_array_equal(back(masker.transform(X)), data.X)


@pytest.mark.parametrize("n_channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_and_channels(planted, quick, n_channels, dtype):
    data = planted(n_channels=n_channels, seed=n_channels)
    X = (data.X / 255).astype(dtype)
    masker = quick()
    masked = masker.fit_transform(X, sensitive_features=data.has)
    assert data.share(masker.mean_map_) > 0.7
    assert masked.dtype == dtype
    assert masker.input_dtype_ == np.float32
    assert masker.data_range_ == pytest.approx((X.min(), X.max()))
    np.testing.assert_allclose(
        masker.channel_mean_, X.mean((0, 2, 3), dtype=np.float64), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        masker.channel_std_, X.std((0, 2, 3), dtype=np.float64), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble], ids=str)
@pytest.mark.parametrize("perturbation", ["mask", "noise"])
def test_types_that_torch_does_not_know(data, quick, dtype, perturbation):
    X = (data.X / 255).astype(dtype)
    X[:, :, 0, 0] += np.asarray(1, dtype) / 3
    masker = quick(perturbation=perturbation)
    masked = masker.fit_transform(X, sensitive_features=data.has)
    assert masked.dtype == X.dtype
    hidden = masker.perturbed_pixels(X[:1])[0]
    np.testing.assert_array_equal(masked[:, :, ~hidden], X[:, :, ~hidden])
    expected = masker.mask(X.astype(np.float64 if dtype != ">f4" else np.float32))
    np.testing.assert_allclose(masked.astype(np.float64), expected, rtol=1e-6)


class Own(nn.Module):
    """A network of the user that counts its calls."""

    def __init__(self, n_outputs=2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, n_outputs)
        )
        self.place = nn.Embedding(30, 48)
        self.calls = 0

    def forward(self, patches, positions):
        self.calls += 1
        return self.layers(patches.flatten(1) + self.place(positions))


def test_a_network_of_ones_own(data, quick):
    masker = quick(region_classifier=Own(), max_epochs=20)
    masker.fit(data.X, sensitive_features=data.has)
    assert masker.informative_
    assert data.share(masker.mean_map_) > 0.6


@pytest.mark.thorough
def test_the_published_network(planted, quick):
    data = planted(n=120, shape=(8, 8), at=(0, 4))
    # Four passes are enough for any start, two only for some: then 12 of 12 held-out images are
    # right at the stamp, and 11 would do.
    masker = quick(stride=4, region_classifier="resnet18", max_epochs=4, quantile=0.75, margin=0)
    masker.fit(data.X, sensitive_features=data.has)
    assert masker.informative_
    # The evidence of the attribute is hidden, the other three quarters are not.
    X, has = data.X[:20], data.has[:20]
    hidden = changed(masker.mask(X), X)
    assert not hidden[:, ~data.inside].any()
    assert hidden[has][:, data.inside].mean() > 0.9


def test_a_network_of_ones_own_is_left_alone(data, quick):
    network = Own().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    masker = quick(region_classifier=network, max_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UninformativeAttributionWarning)
        masker.fit(data.X, sensitive_features=data.has)
    masker.attribute(data.X[:2])
    assert masker.region_classifier is network
    assert network.training
    assert network.calls == 0
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == before[name].dtype
    assert masker.module_.network is not network
    assert masker.module_.network.calls > 0


@pytest.mark.parametrize("confidence", ["negative_entropy", "top", "margin"])
def test_a_rare_attribute_is_found(planted, quick, confidence):
    data = planted(n=600, share=0.05)
    masker = quick(confidence=confidence).fit(data.X, sensitive_features=data.has)
    assert masker.informative_
    assert data.share(masker.mean_map_) > 0.8
    assert data.share(masker.attribute(data.X[data.has])) > 0.6
    # In an image without the stamp, the place of the stamp shows that there is none.
    assert data.share(masker.attribute(data.X[~data.has])) > 0.5


def test_three_classes(planted, quick):
    data = planted(share=0.66, n=300)
    bright = np.zeros(300, dtype=int)
    bright[data.has] = 1 + np.arange(data.has.sum()) % 2
    X = data.X.copy()
    X[np.ix_(bright == 2, [1, 2])] = np.where(data.inside, 0, X[bright == 2][:, 1:])
    names = np.array(["none", "white", "red"])[bright]
    masker = quick(max_epochs=6).fit(X, sensitive_features=names)
    assert masker.classes_.tolist() == ["none", "red", "white"]
    assert data.share(masker.mean_map_) > 0.8
    proba = masker.region_proba(X)
    assert proba.shape == (300, 5, 6, 3)
    np.testing.assert_allclose(proba.sum(3), 1, rtol=1e-5)
    predicted = masker.classes_[proba[:, 2, 3].argmax(1)]
    assert (predicted == names).mean() > 0.9
    # With three values, none of them means "absent".
    assert masker.pos_label_ is None
    assert masker.score_threshold_.tolist() == [0.5]
    scores = masker.attribute_score(X)
    assert scores.shape == (300, 3)
    np.testing.assert_allclose(scores, proba.max((1, 2)), rtol=1e-6)


@pytest.fixture(scope="module")
def two_stamps(planted):
    """A stamp at the upper right, another at the lower left, independent of each other."""
    upper, lower = planted(n=300, seed=1), planted(n=300, at=(8, 0), seed=2)
    X = np.maximum(upper.X, lower.X)
    return X, upper, lower


def test_attributes_with_a_map_each(two_stamps, quick):
    X, upper, lower = two_stamps
    columns = pd.DataFrame({"upper": upper.has, "lower": np.where(lower.has, "yes", "no")})
    masker = quick(combine_attributes=False, max_epochs=6)
    masked = masker.fit_transform(X, sensitive_features=columns)
    assert [classes.tolist() for classes in masker.classes_] == [[False, True], ["no", "yes"]]
    assert masker.mean_map_.shape == (2, 12, 14)
    assert masker.region_accuracy_.shape == (2, 5, 6)
    assert masker.temperature_.tolist() == [1, 1]
    maps, regions, proba = masker.attribute(X), masker.region_map(X), masker.region_proba(X)
    assert maps.shape == (300, 2, 12, 14)
    assert regions.shape == (300, 2, 5, 6)
    assert [part.shape for part in proba] == [(300, 5, 6, 2)] * 2
    for i, one in enumerate((upper, lower)):
        assert one.share(masker.mean_map_[i]) > 0.8
        assert one.share(maps[one.has, i]) > 0.6
        assert (proba[i].argmax(3) == one.has[:, None, None]).mean(0).max() > 0.95
    # Pixels that either map hides are hidden.
    hidden = changed(masked, X).any(0)
    assert hidden[upper.inside].mean() > 0.8
    assert hidden[lower.inside].mean() > 0.8
    for row in (0, 1):
        one_map = masker.mean_map_[row]
        assert hidden[one_map > np.quantile(one_map, 0.9)].all()


def test_attributes_combined(two_stamps, quick):
    X, upper, lower = two_stamps
    columns = {"upper": upper.has, "lower": lower.has}
    masker = quick(max_epochs=6, quantile=0.8, validation_fraction=0.3)
    masker.fit(X, sensitive_features=columns)
    assert list(masker.classes_) == [(False, False), (False, True), (True, False), (True, True)]
    assert masker.mean_map_.shape == (12, 14)
    hidden = masker.perturbed_pixels(X[:1])[0]
    assert hidden[upper.inside].mean() > 0.7
    assert hidden[lower.inside].mean() > 0.7


def test_larger_images_without_positions(data, planted, quick):
    masker = quick(position_embedding=False, scope="specific", max_epochs=8, quantile=0.95)
    masker.fit(data.X, sensitive_features=data.has)
    elsewhere = planted(n=20, share=1.0, at=(14, 4), shape=(20, 30), seed=3)
    maps = masker.attribute(elsewhere.X)
    assert maps.shape == (20, 20, 30)
    assert masker.region_map(elsewhere.X).shape == (20, 9, 14)
    # The stamp is a fortieth of these images.
    assert elsewhere.share(maps, top=16 / 600) > 0.5
    masked = masker.mask(elsewhere.X)
    assert changed(masked, elsewhere.X)[:, elsewhere.inside].mean() > 0.7


# Maps -------------------------------------------------------------------------------------


def algorithm_1(region):
    """Algorithm 1 of the paper, on 5 x 6 patches of 4 x 4 pixels."""
    total, count = np.zeros((12, 14)), np.zeros((12, 14))
    for row in range(5):
        for column in range(6):
            patch = np.s_[2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
            total[patch] += region[row, column]
            count[patch] += 1
    return total / count


def from_0_to_1(values):
    return (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize("confidence", ["probability", "negative_entropy", "margin"])
def test_pixel_maps_are_algorithm_1(data, fitted, confidence):
    masker = with_parameters(fitted, confidence=confidence)
    maps, regions = masker.attribute(data.X[:6]), masker.region_map(data.X[:6])
    assert maps.shape == (6, 12, 14)
    assert maps.dtype == np.float32
    for one, region in zip(maps, regions.astype(np.float64), strict=True):
        expected = algorithm_1(region)
        if confidence == "probability":  # a number on the same scale in all images
            assert 0 <= one.min() < one.max() <= 1
        else:
            expected = from_0_to_1(expected)
            assert (one.min(), one.max()) == (0, 1)
        np.testing.assert_allclose(one, expected, atol=1e-5)


def test_maps_of_images_without_it_are_dark(data, fitted):
    maps = fitted.attribute(data.X)
    assert maps[data.has].max((1, 2)).mean() > maps[~data.has].max((1, 2)).mean() + 0.3


@pytest.mark.parametrize(
    "confidence, of, low, high",
    [
        ("probability", lambda p: p[..., 1], 0, 1),
        ("negative_entropy", lambda p: (p * np.log(p)).sum(3), -np.log(2), 0),
        ("top", lambda p: p.max(3), 0.5, 1),
        ("margin", lambda p: np.abs(p[..., 0] - p[..., 1]), 0, 1),
    ],
)
def test_region_maps_are_in_the_units_of_the_confidence(data, fitted, confidence, of, low, high):
    masker = with_parameters(fitted, confidence=confidence)
    regions = masker.region_map(data.X)
    assert regions.dtype == np.float32
    proba = masker.region_proba(data.X).astype(np.float64)
    np.testing.assert_allclose(regions, of(proba), atol=1e-5)
    assert low - 1e-6 <= regions.min() < regions.max() <= high + 1e-6


@pytest.mark.parametrize(
    "n, share, fraction, with_it, without",
    [
        (200, 0.5, 0.1, 16, 16),  # a tenth of 100 are 10, too few
        (200, 0.1, 0.1, 8, 18),  # not more than 40 % of 20
        (600, 0.5, 0.1, 30, 30),
        (200, 0.5, 0.3, 30, 30),
        (10, 0.4, 0.1, 2, 3),  # 40 % of 4 and of 6, rounded up
        (10, 0.4, 0.9, 3, 5),  # some are left to learn from
    ],
)
def test_how_many_images_are_held_out(
    planted, quick, monkeypatch, n, share, fraction, with_it, without
):
    data = planted(n=n, share=share)
    tested = []

    def note(probability, code):
        tested.append(code)
        return True

    monkeypatch.setattr(_evaluation, "is_informative", note)
    masker = quick(max_epochs=1, validation_fraction=fraction)
    masker.fit(data.X, sensitive_features=data.has)
    (code,) = tested
    assert np.bincount(code).tolist() == [without, with_it]


def test_the_mean_map_is_of_images_that_have_it_and_were_not_trained_on(data, fitted, held_out):
    rows = held_out(data.has)
    assert len(rows) == 32
    proba = fitted.region_proba(data.X[rows[data.has[rows]]])[..., 1]
    assert len(proba) == 16
    np.testing.assert_allclose(fitted.mean_map_, algorithm_1(proba.mean(0)), atol=1e-5)


def test_the_mean_map_of_other_confidences_is_of_all_held_out(data, quick, held_out):
    masker = quick(confidence="negative_entropy").fit(data.X, sensitive_features=data.has)
    mean = masker.region_map(data.X[held_out(data.has)]).mean(0)
    np.testing.assert_allclose(masker.mean_map_, from_0_to_1(algorithm_1(mean)), atol=1e-5)
    assert (masker.mean_map_.min(), masker.mean_map_.max()) == (0, 1)


def test_the_mean_map_of_three_values(planted, quick, held_out):
    data = planted(n=240)
    code = data.has + np.arange(240) % 2 * data.has
    names = np.array(["a", "b", "c"])[code]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UninformativeAttributionWarning)
        masker = quick(max_epochs=1, validation_fraction=0.4).fit(data.X, sensitive_features=names)
    rows = held_out(code, 0.4)
    proba = masker.region_proba(data.X[rows]).astype(np.float64)
    # The mean of each value over its own images, then the highest of them, above a third.
    means = [proba[code[rows] == c][..., c].mean(0) for c in range(3)]
    expected = algorithm_1((np.max(means, 0) - 1 / 3).clip(0) * 1.5)
    np.testing.assert_allclose(masker.mean_map_, expected, atol=1e-5)


class Records(Own):
    """Records the value of the third channel of its training images."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, patches, positions):
        if self.training:
            self.seen += patches[:, 2, 0, 0].tolist()
        return super().forward(patches, positions)


def test_training_draws_all_values_alike_and_nothing_held_out(planted, quick, held_out):
    data = planted(share=0.1)
    X = data.X.copy()
    X[:, 2] = np.arange(200)[:, None, None]  # a number for each image
    masker = quick(region_classifier=Records(), max_epochs=10, validation_fraction=0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UninformativeAttributionWarning)
        masker.fit(X, sensitive_features=data.has)
    values = np.array(masker.module_.network.seen)
    rows = np.rint(values * masker.channel_std_[2] + masker.channel_mean_[2]).astype(int)
    assert len(rows) == 2000
    assert set(rows).isdisjoint(held_out(data.has, 0.25))
    assert data.has[rows].mean() == pytest.approx(0.5, abs=4 * 0.5 / 2000**0.5)
    # Each of 12 images with the stamp (40 % are held out), and nearly each of 135 without.
    assert len(set(rows[data.has[rows]])) == 12
    assert len(set(rows)) > 137


def test_what_is_measured_is_measured_on_images_not_trained_on(planted, quick, held_out):
    data = planted(n=300, share=0.2)
    masker = quick(validation_fraction=0.3).fit(data.X, sensitive_features=data.has)
    rows = held_out(data.has, 0.3)
    assert data.has[rows].sum() == 18
    assert len(rows) == 90
    proba, has = masker.region_proba(data.X[rows]), data.has[rows]
    hits = (proba[..., 1] > 0.5) == has[:, None, None]
    expected = (hits[has].mean(0) + hits[~has].mean(0)) / 2
    np.testing.assert_allclose(masker.region_accuracy_, expected, atol=1e-12)
    assert masker.region_accuracy_.dtype == np.float64
    weight = np.where(has, 1 / 18, 1 / 72)
    error = expected_calibration_error(
        np.repeat(has, 30), proba.reshape(-1, 2), sample_weight=np.repeat(weight, 30)
    )
    assert masker.calibration_error_ == pytest.approx(error, abs=1e-6)
    assert isinstance(masker.calibration_error_, float)


def test_batches_do_not_matter(data, fitted):
    for size in (1, 7, 1000):
        other = with_parameters(fitted, attribution_batch_size=size)
        for method in ("attribute", "region_map", "region_proba"):
            expected = getattr(fitted, method)(data.X[:23])
            np.testing.assert_allclose(getattr(other, method)(data.X[:23]), expected, atol=1e-5)


# Calibration ------------------------------------------------------------------------------


def nll(masker, X, has):
    proba = masker.region_proba(X)
    true = np.where(has[:, None, None], proba[..., 1], proba[..., 0])
    return -np.log(true.astype(np.float64)).mean()


def test_temperature_makes_the_held_out_labels_likeliest(planted, quick, held_out):
    # Few images and many epochs: an overconfident network.
    data = planted(n=120, bright=30, seed=4)
    parameters = {"max_epochs": 20, "lr": 1e-2, "validation_fraction": 0.5}
    plain = quick(**parameters).fit(data.X, sensitive_features=data.has)
    assert plain.temperature_.tolist() == [1]
    masker = quick(**parameters, calibration="temperature").fit(data.X, sensitive_features=data.has)
    (temperature,) = masker.temperature_
    assert temperature > 1.2
    assert masker.calibration_error_ < plain.calibration_error_
    rows = held_out(data.has, 0.5)
    X, has = data.X[rows], data.has[rows]
    best = nll(masker, X, has)
    assert best < nll(plain, X, has)
    for factor in (0.9, 1.1):
        other = copy.deepcopy(masker)
        other.module_.temperature *= factor
        assert nll(other, X, has) > best
    # The temperature divides the logits.
    odds = [np.log(p[..., 1] / p[..., 0]) for p in (plain.region_proba(X), masker.region_proba(X))]
    np.testing.assert_allclose(odds[0], odds[1] * temperature, rtol=1e-2, atol=1e-2)
    # One temperature for each attribute.
    np.testing.assert_array_equal(plain.region_accuracy_, masker.region_accuracy_)


def test_labels_at_random_are_reported(data, quick):
    shuffled = np.random.default_rng(5).permutation(data.has)
    with pytest.warns(UninformativeAttributionWarning) as record:
        masker = quick().fit(data.X, sensitive_features=shuffled)
    assert masker.informative_ is False
    (message,) = [str(w.message) for w in record]
    assert "On 32 held-out images, patches do not tell sensitive_features better" in message
    assert record[0].filename == __file__


def test_of_several_attributes_the_uninformative_one_is_named(two_stamps, quick):
    X, upper, lower = two_stamps
    columns = {"upper": upper.has, "noise": np.random.default_rng(0).permutation(lower.has)}
    with pytest.warns(UninformativeAttributionWarning, match="patches do not tell noise better"):
        masker = quick(combine_attributes=False).fit(X, sensitive_features=columns)
    assert masker.informative_ is False


# Hiding -----------------------------------------------------------------------------------

MODES = [(scope, kind) for scope in ("general", "specific") for kind in ("mask", "noise")]


@pytest.mark.parametrize("quantile", [0.5, 0.7, 0.95])
@pytest.mark.parametrize("scope, perturbation", MODES)
def test_exactly_the_pixels_above_the_quantile_change(data, fitted, scope, perturbation, quantile):
    masker = with_parameters(
        fitted, scope=scope, perturbation=perturbation, quantile=quantile, fill=200, margin=0
    )
    before = data.X.copy()
    masked, hidden = masker.mask(data.X), masker.perturbed_pixels(data.X)
    np.testing.assert_array_equal(data.X, before)
    assert hidden.dtype == bool
    assert hidden.shape == (200, 12, 14)
    wanted, n_hidden = round((1 - quantile) * 168), hidden.sum((1, 2))
    # Blocks of 2 x 2 pixels have one value in the map; no block is hidden in part.
    assert ((wanted - 4 < n_hidden) & (n_hidden <= wanted)).all()
    found = changed(masked, data.X)
    assert not (found & ~hidden).any()
    assert (found & hidden).sum() > 0.98 * hidden.sum()
    # Pixels with the highest values, in the general map or in that of each image with a find.
    maps = fitted.attribute(data.X) if scope == "specific" else [fitted.mean_map_] * 200
    if scope == "specific":
        there = fitted.attribute_score(data.X) >= fitted.score_threshold_
        assert 60 < there.sum() < 140
        maps, hidden = maps[there], hidden[there]
    for one, mask in zip(maps, hidden, strict=True):
        assert one[mask].min() >= one[~mask].max()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_masked_pixels_get_the_mean_colour(data, quick, fitted, dtype):
    X = data.X if dtype is np.uint8 else data.X.astype(dtype) / dtype(255)
    masker = fitted if dtype is np.uint8 else quick().fit(X, sensitive_features=data.has)
    masked = masker.mask(X)
    hidden = masker.perturbed_pixels(X[:1])[0]
    for channel in range(3):
        mean = X[:, channel].astype(np.float64).mean()
        values = np.unique(masked[:, channel][:, hidden])
        assert len(values) == 1
        if dtype is np.uint8:
            assert values[0] == round(mean)
        else:
            assert values[0] == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize(
    "fill, expected", [(17, [17, 17, 17]), ((1, 2.6, 255), [1, 3, 255]), ([0, 0, 9], [0, 0, 9])]
)
def test_masked_pixels_get_the_colour_asked_for(data, fitted, fill, expected):
    masker = with_parameters(fitted, fill=fill)
    hidden = masker.perturbed_pixels(data.X[:1])[0]
    assert (masker.mask(data.X)[:, :, hidden] == np.array(expected)[:, None]).all()


def test_noise_is_in_units_of_the_standard_deviation(data, quick):
    X = data.X / 255.0
    X[:, 1] *= 0.1
    masker = quick(perturbation="noise", noise_std=0.3, data_range=(-50, 50), quantile=0.5)
    masked = masker.fit_transform(X, sensitive_features=data.has)
    hidden = masker.perturbed_pixels(X[:1])[0]
    for channel in range(3):
        added = (masked - X)[:, channel][:, hidden].ravel()
        expected = 0.3 * X[:, channel].std()
        error = expected / added.size**0.5
        assert abs(added.mean()) < 4.5 * error
        assert added.std() == pytest.approx(expected, abs=4.5 * error)
    # Each image and each channel has its own noise.
    first, second = (masked - X)[0, :, hidden].T[:2]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


@pytest.mark.parametrize("data_range, expected", [("auto", (0, 255)), ((0, 228), (0, 228))])
def test_noise_stays_in_the_range_of_the_data(data, fitted, quick, data_range, expected):
    X = np.minimum(data.X, 228)
    masker = quick(
        perturbation="noise", noise_std=5, quantile=0.5, data_range=data_range, max_epochs=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UninformativeAttributionWarning)
        masked = masker.fit_transform(X, sensitive_features=data.has)
    assert masker.data_range_ == expected
    assert (masked.min(), masked.max()) == expected
    # Rounded, not cut off: a wave that ran over would be somewhere in the middle.
    assert masked.dtype == np.uint8


def test_a_range_that_float32_cannot_hold(data, quick):
    X = data.X / data.X.max() * 0.1
    assert float(np.float32(X.max())) > 0.1  # rounded up, and still in the range
    masker = quick(data_range=(0, 0.1), perturbation="noise")
    assert masker.fit_transform(X, sensitive_features=data.has).max() <= np.float32(0.1)
    assert masker.transform(X) is X


def test_floats_keep_to_what_fit_saw(data, quick):
    X = (data.X / 100 - 1).astype(np.float32)
    masker = quick(perturbation="noise", noise_std=5, quantile=0.5)
    masked = masker.fit_transform(X, sensitive_features=data.has)
    assert masker.data_range_ == (X.min(), X.max())
    assert (masked.min(), masked.max()) == (X.min(), X.max())
    # Values a little outside of the range stay where nothing is hidden.
    outside = X + np.float32(0.5)
    hidden = masker.perturbed_pixels(outside[:1])[0]
    result = masker.mask(outside)
    np.testing.assert_array_equal(result[:, :, ~hidden], outside[:, :, ~hidden])
    assert result[:, :, hidden].max() == X.max()


def test_noise_does_not_depend_on_batches_and_layout(data, fitted):
    masker = with_parameters(fitted, perturbation="noise", scope="general")
    expected = masker.mask(data.X)
    np.testing.assert_array_equal(masker.mask(data.X), expected)
    for size in (1, 13):
        masker.set_params(attribution_batch_size=size)
        np.testing.assert_array_equal(masker.mask(data.X), expected)
    last = masker.mask(data.X.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), expected)
    assert (masker.set_params(random_state=1).mask(data.X) != expected).any()


def test_without_a_seed_noise_is_new_each_time(data, fitted):
    masker = with_parameters(fitted, perturbation="noise", random_state=None)
    assert (masker.mask(data.X[:3]) != masker.mask(data.X[:3])).any()


def test_training_masks_and_predicting_does_not(data, quick, fitted):
    masker = quick()
    masked = masker.fit_transform(data.X, sensitive_features=data.has)
    np.testing.assert_array_equal(masked, fitted.mask(data.X))
    assert changed(masked, data.X).any()
    assert masker.transform(data.X) is data.X
    assert masker.mask(data.X) is not data.X
    always = with_parameters(fitted, perturb_at_predict=True)
    np.testing.assert_array_equal(always.transform(data.X), masked)


def test_parameters_of_hiding_can_be_set_after_fit(data, fitted, quick):
    parameters = {"scope": "specific", "perturbation": "noise", "quantile": 0.6, "noise_std": 1.0}
    changed_later = with_parameters(fitted, **parameters).mask(data.X)
    from_the_start = quick(**parameters).fit(data.X, sensitive_features=data.has).mask(data.X)
    np.testing.assert_array_equal(changed_later, from_the_start)


# In a training loop -----------------------------------------------------------------------


@pytest.fixture
def torch_seed():
    """Torch's own generator, restored after the test."""
    with torch.random.fork_rng():
        yield torch.manual_seed


@pytest.mark.parametrize("scope", ["general", "specific"])
def test_augmentation_masks_as_the_masker_does(data, fitted, scope):
    masker = with_parameters(fitted, scope=scope)
    augment = masker.augmentation()
    # The holes of images in which nothing is found are drawn.
    X = data.X[fitted.attribute_score(data.X) >= fitted.score_threshold_][:32]
    images = torch.from_numpy(X)
    expected = masker.mask(X)
    np.testing.assert_array_equal(augment(images), expected)
    np.testing.assert_array_equal(images, X)
    np.testing.assert_array_equal(augment(images[5]), expected[5])
    hidden = torch.from_numpy(masker.perturbed_pixels(X))
    np.testing.assert_array_equal(augment(images, hidden), expected)
    np.testing.assert_array_equal(augment(images[5], hidden[5]), expected[5])


def test_hidden_pixels_that_are_given_are_those_hidden(data, fitted):
    augment = with_parameters(fitted, scope="specific", fill=255).augmentation()
    hidden = torch.zeros(4, 12, 14, dtype=torch.bool)
    hidden[:, 3, 5] = True
    images = torch.from_numpy(data.X[:4])
    found = augment(images, hidden)
    assert (found[:, :, 3, 5] == 255).all()
    assert (found != images).sum() == 12


@pytest.mark.parametrize("scope", ["general", "specific"])
def test_augmentation_draws_new_noise_from_torch(data, fitted, scope, torch_seed):
    augment = with_parameters(fitted, scope=scope, perturbation="noise").augmentation()
    images = torch.from_numpy(data.X[:8])
    torch_seed(3)
    first, second = augment(images), augment(images)
    assert (first != second).any()
    torch_seed(3)
    assert torch.equal(augment(images), first)
    assert torch.equal(augment(images), second)
    assert first.dtype == torch.uint8


def test_augmentation_stays_as_it_was_fitted(data, fitted):
    masker = with_parameters(fitted, scope="specific")
    augment = masker.augmentation()
    images = torch.from_numpy(data.X[fitted.attribute_score(data.X) > fitted.score_threshold_][:8])
    before = augment(images)
    model = nn.Sequential(augment, nn.Flatten(), nn.Linear(1, 1)).train()
    assert not any(module.training for module in augment.modules())
    assert model[1].training
    assert torch.equal(augment(images), before)


def test_what_is_done_to_the_augmentation_does_not_reach_the_masker(data, fitted):
    masker = with_parameters(fitted, scope="specific")
    expected = masker.attribute(data.X[:8])
    for parameter in masker.augmentation().parameters():
        parameter.data += 5
    np.testing.assert_array_equal(masker.attribute(data.X[:8]), expected)


def test_augmentation_can_be_pickled(data, fitted, tmp_path):
    for scope in ("general", "specific"):
        augment = with_parameters(fitted, scope=scope).augmentation()
        found = fitted.attribute_score(data.X) > fitted.score_threshold_
        images = torch.from_numpy(data.X[found][:4])
        expected = augment(images)
        assert torch.equal(pickle.loads(pickle.dumps(augment))(images), expected)
        assert torch.equal(copy.deepcopy(augment)(images), expected)


class Augmented(Dataset):
    def __init__(self, X, augment):
        self.X, self.augment = X, augment

    def __len__(self):
        return len(self.X)

    def __getitem__(self, row):
        return self.augment(torch.from_numpy(self.X[row])), row


@pytest.mark.parametrize("scope", ["general", "specific"])
def test_augmentation_in_a_data_loader(data, fitted, scope, torch_seed):
    torch_seed(0)
    masker = with_parameters(fitted, scope=scope, perturbation="noise")
    X = data.X[fitted.attribute_score(data.X) > fitted.score_threshold_][:20]
    loader = DataLoader(Augmented(X, masker.augmentation()), batch_size=8)
    hidden = masker.perturbed_pixels(X)
    epochs = [torch.cat([images for images, _ in loader]).numpy() for _ in range(2)]
    assert (epochs[0] != epochs[1]).any()
    for epoch in epochs:
        found = changed(epoch, X)
        assert not (found & ~hidden).any()
        assert found.sum() > 0.9 * hidden.sum()


@pytest.mark.parametrize("scope", ["general", "specific"])
def test_augmentation_of_images_of_another_kind(data, fitted, scope):
    augment = with_parameters(fitted, scope=scope).augmentation()
    images = torch.from_numpy(data.X[:2])
    for other in (images[:, :, :10], images.permute(0, 2, 3, 1)):
        with pytest.raises(
            ValueError, match=r"images has shape .*; expected .* \(3, 12, 14\), as in fit"
        ):
            augment(other)
    with pytest.raises(ValueError, match=r"type torch.float32, fit saw torch.uint8"):
        augment(images / 255)
    with pytest.raises(ValueError, match=r"hidden has shape \(2, 12\); expected .* \(2, 12, 14\)"):
        augment(images, torch.ones(2, 12, dtype=torch.bool))


def test_augmentation_takes_what_perturbed_pixels_gives(data, fitted):
    masker = with_parameters(fitted, scope="specific")
    hidden = masker.perturbed_pixels(data.X[:5])
    found = masker.augmentation()(torch.from_numpy(data.X[:5]), hidden)
    np.testing.assert_array_equal(found, masker.mask(data.X[:5]))


def test_augmentation_of_doubles(data, quick):
    X = data.X / 255
    masker = quick().fit(X, sensitive_features=data.has)
    found = masker.augmentation()(torch.from_numpy(X[:4]))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, masker.mask(X[:4]))


@pytest.mark.parametrize("n", [8, 9, 18, 19])
def test_trainings_of_a_few_steps(data, quick, n):
    has = np.arange(n) % 2 == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UninformativeAttributionWarning)
        masker = quick(max_epochs=1).fit(data.X[:n], sensitive_features=has)
    assert np.isfinite(masker.mean_map_).all()


def test_an_attribute_that_moves_is_no_false_alarm(quick):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 100, size=(400, 16, 16, 1), dtype=np.uint8)
    has = rng.random(400) < 0.5
    rows, columns = rng.integers(0, 12, size=(2, 400))
    for image, y, x in zip(np.flatnonzero(has), rows[has], columns[has], strict=True):
        X[image, y : y + 4, x : x + 4] = 255
    masker = quick(scope="specific", stride=1, max_epochs=12, position_embedding=False)
    masker.fit(X, sensitive_features=has)
    assert masker.region_accuracy_.max() < 0.8  # no single place tells it
    assert masker.informative_


# Reproducible, and nothing global ---------------------------------------------------------


def assert_same_fit(one, other):
    np.testing.assert_array_equal(one.mean_map_, other.mean_map_)
    np.testing.assert_array_equal(one.region_accuracy_, other.region_accuracy_)
    assert one.calibration_error_ == other.calibration_error_
    state = other.module_.state_dict()
    for name, value in one.module_.state_dict().items():
        assert torch.equal(value, state[name])


def test_same_seed_same_bits(data, fitted, quick):
    torch.rand(3)
    again = quick().fit(data.X, sensitive_features=data.has)
    assert_same_fit(again, fitted)
    other = quick(random_state=1).fit(data.X, sensitive_features=data.has)
    assert (other.mean_map_ != fitted.mean_map_).any()
    # Labels of another type give the same fit.
    named = quick().fit(data.X, sensitive_features=np.where(data.has, "with", "out"))
    assert_same_fit(quick().fit(data.X, sensitive_features=pd.Series(data.has)), fitted)
    assert named.classes_.tolist() == ["out", "with"]
    assert_same_fit(named, fitted)


def test_a_random_state_instance_moves_on(data, quick):
    def run():
        generator = np.random.RandomState(0)
        return [
            quick(random_state=generator).fit(data.X, sensitive_features=data.has).mean_map_
            for _ in range(2)
        ]

    (first, second), (again, _) = run(), run()
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)


def global_state():
    return {
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "python": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "filters": list(warnings.filters),
        "sklearn": sklearn.get_config(),
    }


@pytest.mark.parametrize("random_state", [0, "instance"])
def test_nothing_global_changes(data, quick, random_state):
    if random_state == "instance":
        random_state = np.random.RandomState(0)
    masker = quick(
        random_state=random_state, scope="specific", perturbation="noise", calibration="temperature"
    )
    before = global_state()
    masker.fit_transform(data.X, sensitive_features=data.has)
    masker.attribute(data.X[:3])
    masker.augmentation()
    assert global_state() == before


def test_a_second_fit_is_as_good_as_a_first(data, fitted, planted, quick):
    other = planted(n_channels=1, shape=(16, 16))
    masker = quick(image_shape=(1, 16, 16), calibration="temperature")
    rows = pd.DataFrame(other.X.reshape(200, -1)).rename(columns=str)
    masker.fit(rows, sensitive_features=other.has)
    assert masker.n_features_in_ == 256
    assert hasattr(masker, "feature_names_in_")
    masker.set_params(image_shape=None, calibration=None)
    masker.fit(data.X, sensitive_features=data.has)
    assert not hasattr(masker, "n_features_in_")
    assert not hasattr(masker, "feature_names_in_")
    assert_same_fit(masker, fitted)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_fit_that_fails_leaves_the_last_one(data, fitted, monkeypatch, error):
    masker = copy.deepcopy(fitted)
    before = dict(vars(masker))
    expected = masker.mask(data.X[:5])
    with pytest.raises(ValueError, match="one class only"):
        masker.fit(data.X, sensitive_features=np.zeros(200))
    with pytest.raises(ValueError, match="is larger than the images"):
        masker.fit(data.X[:, :, :3], sensitive_features=data.has)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(_evaluation, "is_informative", fail)  # after the training
    with pytest.raises(error):
        masker.fit(data.X / 255, sensitive_features=data.has)
    assert vars(masker) == before
    np.testing.assert_array_equal(masker.mask(data.X[:5]), expected)


def test_an_interrupt_in_training_is_an_interrupt(data, quick):
    class Interrupts(Own):
        def forward(self, patches, positions):
            if self.training and self.calls > 5:
                raise KeyboardInterrupt
            return super().forward(patches, positions)

    masker = quick(region_classifier=Interrupts())
    with pytest.raises(KeyboardInterrupt):
        masker.fit(data.X, sensitive_features=data.has)
    assert not hasattr(masker, "module_")


def through_joblib(masker, folder):
    joblib.dump(masker, folder / "masker.joblib")
    return joblib.load(folder / "masker.joblib", mmap_mode="r")


WAYS = {
    "pickle": lambda masker, folder: pickle.loads(pickle.dumps(masker)),
    "joblib": through_joblib,
    "deepcopy": lambda masker, folder: copy.deepcopy(masker),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scope, perturbation", MODES)
def test_a_copy_does_the_same(data, fitted, way, scope, perturbation, tmp_path):
    masker = with_parameters(fitted, scope=scope, perturbation=perturbation)
    loaded = WAYS[way](masker, tmp_path)
    np.testing.assert_array_equal(loaded.mask(data.X), masker.mask(data.X))
    np.testing.assert_array_equal(loaded.attribute(data.X), masker.attribute(data.X))
    assert_same_fit(loaded, masker)


def test_clone_copies_the_parameters_and_nothing_else(data, fitted):
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    assert set(vars(fresh)) == set(fitted.get_params())
    assert_same_fit(fresh.fit(data.X, sensitive_features=data.has), fitted)


def test_using_it_leaves_it_alone(data, fitted):
    before = {name: value.clone() for name, value in fitted.module_.state_dict().items()}
    names = set(vars(fitted))
    for method in ("attribute", "region_map", "region_proba", "perturbed_pixels", "mask"):
        getattr(fitted, method)(data.X[:5])
    assert set(vars(fitted)) == names
    assert not fitted.module_.training
    for name, value in fitted.module_.state_dict().items():
        assert torch.equal(value, before[name])


def test_progress_is_shown_when_asked_for(data, quick, capsys):
    masker = quick().fit(data.X, sensitive_features=data.has)
    masker.attribute(data.X[:5])
    assert capsys.readouterr().err == ""
    masker = quick(verbose=1).fit(data.X, sensitive_features=data.has)
    assert "PatchAttributionMasker: 100%" in capsys.readouterr().err
    masker.attribute(data.X[:5])
    assert "5/5" in capsys.readouterr().err


def test_it_is_exported():
    assert skfair.PatchAttributionMasker is PatchAttributionMasker
    assert repr(PatchAttributionMasker(24, scope="specific")) == (
        "PatchAttributionMasker(patch_size=24, scope='specific')"
    )
