"""Inputs that PatchAttributionMasker refuses before the training, with the fix in the message."""

import copy
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import nn

from skfair.attribution import PatchAttributionMasker, _masker
from skfair.utils import UninformativeAttributionWarning


@pytest.fixture
def refused(data, quick, monkeypatch):
    """Fit, and assert that the error comes before the training."""

    def trained(*args, **kwargs):
        pytest.fail("the training was reached")

    def refused(match, X=None, sensitive_features="has", error=ValueError, **parameters):
        monkeypatch.setattr(_masker, "train_region_classifier", trained)
        X = data.X if X is None else X
        groups = data.has if isinstance(sensitive_features, str) else sensitive_features
        masker = quick(**parameters)
        with pytest.raises(error, match=match):
            masker.fit(X, sensitive_features=groups)
        assert not [name for name in vars(masker) if name.endswith("_")]
        with pytest.raises(error, match=match):
            masker.fit_transform(X, sensitive_features=groups)
        return True

    return refused


# The images and the grid ------------------------------------------------------------------


def test_images_smaller_than_the_patch(refused):
    assert refused(
        r"patch_size=13 is larger than the images, .* 12 x 14 .* patch_size=12", patch_size=13
    )


def test_a_stride_that_leaves_gaps(refused):
    assert refused(r"stride=5 is larger than patch_size=4", stride=5)


class OnePatch(nn.Module):
    """A network that gets one patch at a time."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
        for parameter in self.parameters():  # the default depends on which tests were collected
            nn.init.zeros_(parameter)

    def forward(self, patches, positions):
        return self.layers(patches)


@pytest.mark.parametrize("network", ["dense", OnePatch()], ids=["dense", "patch by patch"])
def test_images_off_the_grid(planted, quick, network):
    # 13 x 12 pixels: patches 3 apart start at 0, 3, 6 and 9, the last columns would end at 13.
    data = planted(n=100, shape=(13, 12), at=(9, 8), bright=128)
    masker = quick(stride=3, max_epochs=8, region_classifier=network)
    masked = masker.fit_transform(data.X, sensitive_features=data.has)
    assert masked.shape == data.X.shape
    assert masker.mean_map_.shape == (13, 12)
    assert masker.region_accuracy_.shape == (4, 4)
    assert masker.attribute(data.X).shape == (100, 13, 12)
    assert masker.masks(data.X).shape == (100, 13, 12)
    assert data.share(masker.mean_map_) > 0.5
    # Beyond the image the network sees the last column again.
    padded = np.pad(data.X, ((0, 0), (0, 0), (0, 0), (0, 1)), mode="edge")
    other = copy.deepcopy(masker)
    other.image_shape_ = (3, 13, 13)
    np.testing.assert_allclose(other.region_proba(padded), masker.region_proba(data.X), atol=1e-6)


def test_images_that_are_not_square(planted, quick):
    data = planted(shape=(8, 20), at=(4, 12))
    masker = quick().fit(data.X, sensitive_features=data.has)
    assert masker.mean_map_.shape == (8, 20)
    assert masker.region_accuracy_.shape == (3, 9)
    assert data.share(masker.mean_map_) > 0.8


@pytest.mark.parametrize("value, what", [(np.nan, "NaN"), (np.inf, "infinity")])
def test_missing_values(refused, data, value, what):
    X = data.X / 255
    X[7, 1, 3, 3] = value
    match = f"Input X contains {what}.*row 7"
    assert refused(match, X)
    assert refused(match, X.reshape(200, -1), image_shape=(3, 12, 14))
    assert refused(match, torch.from_numpy(X))


@pytest.mark.parametrize("colour", [0, 117])
def test_images_of_one_colour(refused, colour):
    X = np.full((20, 3, 12, 14), colour, dtype=np.uint8)
    assert refused("X holds images of one constant colour", X, np.arange(20) % 2)
    assert refused("X holds images of one constant colour", X / 255, np.arange(20) % 2)


def test_a_channel_of_one_value_is_no_error(data, quick):
    X = data.X.copy()
    X[:, 2] = 50
    masker = quick(perturbation="noise").fit(X, sensitive_features=data.has)
    assert masker.channel_std_[2] == 1
    assert masker.channel_mean_[2] == 50
    assert data.share(masker.mean_map_) > 0.8
    assert np.isfinite(masker.attribute(X)).all()


def test_one_constant_image_among_others(data, quick):
    X = data.X.copy()
    X[0] = 0
    masker = quick(scope="specific").fit(X, sensitive_features=data.has)
    maps = masker.attribute(X[:1])
    assert np.isfinite(maps).all()
    assert 0 <= maps.min() <= maps.max() <= 1


def test_rows_without_their_shape(refused, data):
    rows = data.X.reshape(200, -1)
    assert refused(r"X has rows of 504 features, .* Pass image_shape=\(channels,", rows)
    assert refused(r"image_shape=\(3, 12, 13\) does not fit the 504", rows, image_shape=(3, 12, 13))
    assert refused(r"image_shape=\(3, 12\) is not", rows, image_shape=(3, 12))


@pytest.mark.parametrize(
    "X, match",
    [
        (np.zeros((20, 12, 3)), r"one image with channels\?.*X\[:, None\]"),
        (np.zeros((20, 3, 12, 14), dtype=int), "X has dtype int64; images are uint8"),
        (np.zeros((0, 3, 12, 14)), "0 sample"),
        (np.zeros((20, 3, 12, 3)), "channel axis cannot be told.*data_format"),
        (np.zeros((20, 7, 12, 14)), "channel axis cannot be told.*data_format"),
        (["no.png"] * 20, r"X\[0\]='no\.png' does not exist"),
    ],
    ids=["grey", "integers", "empty", "ambiguous", "channels", "files"],
)
def test_what_are_no_images(refused, X, match):
    assert refused(match, X, np.arange(len(X)) % 2)


def test_sparse_rows(refused):
    X = scipy.sparse.csr_array(np.eye(20))
    assert refused("Sparse", X, np.arange(20) % 2, error=TypeError, image_shape=(1, 4, 5))


def test_files_of_several_sizes(refused, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(10)]
    for i, file in enumerate(files):
        Image.new("RGB", (14, 12 + (i == 6)), (i, i, i)).save(file)
    assert refused(r"2 sizes.* to 14 x 13 \(X\[6\] = .*6\.png", files, np.arange(10) % 2)


def test_damaged_files_are_all_named(refused, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(10)]
    for i, file in enumerate(files):
        Image.new("RGB", (14, 12), (i, i, i)).save(file)
    for row in (2, 8):
        files[row].write_bytes(files[row].read_bytes()[:-30])
    assert refused(r"X has 2 images of 10[^$]*2\.png[^$]*8\.png", files, np.arange(10) % 2)


def test_images_smaller_than_the_patch_after_resizing(refused):
    X = [Image.new("RGB", (40, 30 + i), (i, i, i)) for i in range(10)]
    match = "patch_size=4 is larger than the images, .* 3 x 8 .* patch_size=3"
    assert refused(match, X, np.arange(10) % 2, image_shape=(3, 3, 8))


def test_a_folder_is_the_same_as_its_files(data, quick, tmp_path):
    rows = np.r_[np.flatnonzero(data.has)[:10], np.flatnonzero(~data.has)[:10]]
    for i, row in enumerate(rows):
        Image.fromarray(data.X[row].transpose(1, 2, 0)).save(tmp_path / f"{i:02}.png")
    masked = []
    for X in (tmp_path, str(tmp_path), data.X[rows]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UninformativeAttributionWarning)
            masked.append(quick().fit_transform(X, sensitive_features=data.has[rows]))
    np.testing.assert_array_equal(masked[0], masked[2])
    np.testing.assert_array_equal(masked[1], masked[2])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_grey_images_without_channels(planted, quick, dtype):
    data = planted(n_channels=1)
    X = data.X.astype(dtype)
    masker, same = quick(perturb_at_predict=True), quick(perturb_at_predict=True)
    masked = masker.fit_transform(X[:, 0], sensitive_features=data.has)
    expected = same.fit_transform(X, sensitive_features=data.has)
    assert masked.dtype == dtype
    np.testing.assert_array_equal(masked, expected[:, 0])
    np.testing.assert_array_equal(masker.transform(X[:5, 0]), same.transform(X[:5])[:, 0])
    assert masker.masks(X[:5, 0]).shape == (5, 12, 14)


# The attribute ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, "glasses", True])
def test_one_value_of_the_attribute(refused, value):
    match = f"sensitive_features has one class only, {value!r}, in all 200 images. Give images"
    assert refused(match, sensitive_features=np.full(200, value))


def test_one_value_in_one_of_several_columns(refused, data):
    columns = {"glasses": data.has, "hat": ["no"] * 200}
    match = "hat has one class only, 'no', in all 200 images"
    assert refused(match, sensitive_features=columns, combine_attributes=False)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_the_attribute_is_missing_for_some(refused, data, missing):
    column = pd.Series(np.where(data.has, "yes", "no"), dtype=object)
    column[[3, 8]] = missing
    match = r"missing for 2 of 200 samples \(rows 3, 8\)\. Drop these samples"
    assert refused(f"sensitive_features is {match}", sensitive_features=column)
    frame = pd.DataFrame({"glasses": column, "hat": data.has})
    for combine in (True, False):
        assert refused(
            f"column 'glasses' of sensitive_features is {match}",
            sensitive_features=frame,
            combine_attributes=combine,
        )


def test_continuous_values(refused):
    assert refused("continuous values, such as", sensitive_features=np.linspace(0, 1, 200))


def test_a_single_image(refused, data):
    assert refused("one class only", data.X[:1], data.has[:1])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_images_with_the_attribute(refused, data, n):
    rows = np.r_[np.flatnonzero(data.has)[:n], np.flatnonzero(~data.has)[: 60 - n]]
    match = (
        rf"sensitive_features has the value 'with' in {n} of 60 images, too few to learn where it "
        r"shows\. Give at least 4 images of each value, better fifty, or leave"
    )
    names = np.where(data.has[rows], "with", "without")
    assert refused(match, data.X[rows], names)
    columns = {"glasses": names, "hat": [0, 1] * 30}
    match = rf"glasses has the value 'with' in {n} of 60 images"
    assert refused(match, data.X[rows], columns, combine_attributes=False)


def test_a_rare_combination_of_attributes(refused, data):
    hat = np.arange(200) % 2
    hat[data.has] = 0
    hat[np.flatnonzero(data.has)[:2]] = 1
    match = r"has the value \(True, 1\) in 2 of 200 images, too few"
    assert refused(match, sensitive_features={"glasses": data.has, "hat": hat})


def test_four_images_with_the_attribute_are_enough_to_try(data, quick):
    rows = np.r_[np.flatnonzero(data.has)[:4], np.flatnonzero(~data.has)[:56]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UninformativeAttributionWarning)
        masker = quick().fit(data.X[rows], sensitive_features=data.has[rows])
    assert np.isfinite(masker.attribute(data.X[:5])).all()
    assert np.isfinite(masker.mask(data.X[:5])).all()


# Parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"quantile": 0.0},
        {"quantile": 1.0},
        {"quantile": -0.1},
        {"quantile": 70},
        {"quantile": "high"},
        {"patch_size": 0},
        {"patch_size": 4.0},
        {"stride": 0},
        {"scope": "local"},
        {"margin": -1},
        {"margin": 1.5},
        {"margin": "wide"},
        {"margin": None},
        {"pos_label": ["yes"]},
        {"check_leakage": "no"},
        {"perturbation": "blur"},
        {"confidence": "entropy"},
        {"region_classifier": "vit"},
        {"region_classifier": nn.Linear},
        {"noise_std": 0.0},
        {"noise_std": -1},
        {"fill": "median"},
        {"data_range": "0-1"},
        {"data_range": None},
        {"calibration": "platt"},
        {"validation_fraction": 0.0},
        {"validation_fraction": 1.0},
        {"label_smoothing": 1.0},
        {"lr": 0.0},
        {"weight_decay": -0.1},
        {"batch_size": 0},
        {"max_epochs": 0},
        {"attribution_batch_size": 0},
        {"data_format": "NCHW"},
        {"perturb_at_predict": "yes"},
        {"combine_attributes": None},
        {"random_state": "seed"},
    ],
    ids=str,
)
def test_parameters_out_of_range(refused, parameters):
    (name,) = parameters
    assert refused(f"The '{name}' parameter of PatchAttributionMasker", **parameters)


def test_a_device_that_is_not_there(refused):
    assert refused("device='warp' is not a device", device="warp")


@pytest.mark.parametrize("data_range", [(1, 0), (0, 0), (0,), (0, 1, 2), (0, np.nan)], ids=repr)
def test_ranges_that_are_none(refused, data, data_range):
    match = rf"data_range={re.escape(repr(data_range))} is not \(lowest, highest\).*'auto'"
    assert refused(match, data.X / 255, data_range=data_range)


def test_images_outside_the_range_that_is_given(refused, data):
    match = "X has values from 0 to 2.., where data_range says 0 to 1. Bring the images to that"
    for parameters in ({"perturbation": "noise"}, {"fill": 0.5}, {}):
        assert refused(match, data.X.astype(np.float32), data_range=(0, 1), **parameters)
    assert refused(match, data.X, data_range=(0, 1))


@pytest.mark.parametrize(
    "fill, match",
    [
        ((0, 0), r"fill=\(0, 0\) has shape \(2,\)\. Give one number, one for each of the 3"),
        (np.zeros((3, 1)), r"has shape \(3, 1\)\. Give one number"),
        (256, "fill=256 is outside the range of the images, 0 to 255"),
        ((0, 0, -1), r"fill=\(0, 0, -1\) is outside the range"),
        (np.nan, "fill=nan is outside the range"),
        (["a", "b", "c"], r"fill=\['a', .* is not a colour"),
        (10**400, r"fill=1000.* is not a colour"),
    ],
    ids=str,
)
def test_colours_that_are_none_of_the_images(refused, fill, match):
    assert refused(match, fill=fill)


def test_a_colour_in_the_units_of_another_scale(refused, data):
    assert refused("fill=128 is outside the range of the images, 0 to 0.89", data.X / 255, fill=128)


# Networks ---------------------------------------------------------------------------------


class Broken(nn.Linear):
    """Takes patches only, or returns something else than logits."""

    def __init__(self, answer):
        super().__init__(1, 1)
        self.answer = answer

    def forward(self, patches, positions):
        return self.answer(patches)


@pytest.mark.parametrize(
    "network, match",
    [
        (nn.Flatten(), r"raised TypeError.*forward\(patches, positions\).*\(2, 2\)"),
        (Broken(lambda p: p.new_zeros(len(p), 3)), r"returned .*2, 3.*logits of shape \(2, 2\)"),
        (Broken(lambda p: p[:, 0, :2]), r"returned .*2, 2, 4"),
        (Broken(lambda p: (p, p)), "returned tuple"),
        (Broken(lambda p: p @ torch.zeros(7, 7)), r"patches of shape \(2, 3, 4, 4\).*RuntimeError"),
    ],
    ids=["patches only", "three logits", "a map", "a tuple", "another size"],
)
def test_networks_that_do_not_fit(refused, network, match):
    assert refused(match, region_classifier=network)


def test_training_that_diverges(data, quick):
    class Hot(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, patches, positions):
            return patches.new_ones(len(patches), 2) * self.weight / 0

    with pytest.raises(ValueError, match=r"Training diverged.*Lower lr"):
        quick(region_classifier=Hot()).fit(data.X, sensitive_features=data.has)


# Later calls ------------------------------------------------------------------------------

METHODS = ["transform", "mask", "attribute", "region_map", "region_proba", "perturbed_pixels"]
METHODS += ["attribute_score", "masks", "boxes"]


def test_an_augmentation_needs_a_fit():
    with pytest.raises(NotFittedError):
        PatchAttributionMasker().augmentation()


@pytest.mark.parametrize("method", METHODS)
def test_images_of_another_kind(data, fitted, method):
    call = getattr(fitted, method)
    X = data.X[:4]
    size = r"images of shape \(3, 14, 12\), fit saw \(3, 12, 14\).*position_embedding=False and"
    with pytest.raises(ValueError, match=size):
        call(X.transpose(0, 1, 3, 2))
    with pytest.raises(ValueError, match=r"images of shape \(1, 12, 14\), fit saw \(3, any, any\)"):
        call(X[:, :1])
    with pytest.raises(ValueError, match="X holds float32 values, fit saw uint8"):
        call(X / 255)
    with pytest.raises(ValueError, match=r"is of another form than X in fit \(images of shape"):
        call(X.reshape(4, -1))
    with pytest.raises(ValueError, match="0 sample"):
        call(X[:0])


@pytest.mark.parametrize("method", METHODS)
def test_values_of_another_kind(data, quick, method):
    X = (data.X / 255).astype(np.float32)
    masker = quick().fit(X, sensitive_features=data.has)
    call = getattr(masker, method)
    broken = X[:40].copy()
    broken[37, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"Input X contains NaN.*row 37"):
        call(broken)
    with pytest.raises(ValueError, match=r"X has values from 0 to 2.., where fit saw 0 to 0\.89"):
        call(data.X.astype(np.float32))
    call(X[:3] + np.float32(0.1))  # values a little outside of the range of fit are accepted
    masker = quick(data_range=(0, 1)).fit(X, sensitive_features=data.has)
    with pytest.raises(ValueError, match=r"where data_range says 0 to 1\."):
        getattr(masker, method)(X[:3] + np.float32(0.5))


@pytest.mark.parametrize(
    "parameters",
    [
        {"position_embedding": True, "scope": "specific"},
        {"position_embedding": False, "scope": "general"},
    ],
    ids=str,
)
def test_sizes_that_have_no_meaning(data, quick, parameters):
    masker = quick(**parameters).fit(data.X, sensitive_features=data.has)
    larger = np.pad(data.X[:3], ((0, 0), (0, 0), (0, 4), (0, 4)))
    with pytest.raises(ValueError, match=r"shape \(3, 16, 18\), fit saw \(3, 12, 14\)"):
        masker.mask(larger)


def test_larger_images_have_to_hold_a_patch(data, quick):
    masker = quick(position_embedding=False, scope="specific")
    masker.fit(data.X, sensitive_features=data.has)
    assert masker.mask(np.pad(data.X[:3], ((0, 0), (0, 0), (0, 1), (0, 1)))).shape[2:] == (13, 15)
    with pytest.raises(ValueError, match=r"patch_size=4 is larger than the images, .* 2 x 14"):
        masker.mask(data.X[:3, :, :2])


def test_a_colour_set_after_fit_is_checked_too(data, fitted):
    masker = copy.deepcopy(fitted).set_params(fill=300)
    with pytest.raises(ValueError, match="fill=300 is outside the range"):
        masker.mask(data.X[:3])


@pytest.mark.parametrize(
    "parameters",
    [{"quantile": 1.5}, {"scope": "local"}, {"perturbation": "blur"}, {"margin": -1}],
    ids=str,
)
def test_parameters_set_after_fit_are_checked_too(data, fitted, parameters):
    masker = copy.deepcopy(fitted).set_params(**parameters)
    (name,) = parameters
    for call in (masker.mask, masker.perturbed_pixels, lambda X: masker.augmentation()):
        with pytest.raises(ValueError, match=f"The '{name}' parameter of PatchAttributionMasker"):
            call(data.X[:3])


def test_a_confidence_set_after_fit_is_checked_too(data, fitted):
    masker = copy.deepcopy(fitted).set_params(confidence="loud")
    with pytest.raises(ValueError, match="The 'confidence' parameter of PatchAttributionMasker"):
        masker.attribute(data.X[:3])


def test_a_network_that_was_told_positions_stays_one(data, fitted):
    masker = copy.deepcopy(fitted).set_params(position_embedding=False, scope="specific")
    larger = np.pad(data.X[:3], ((0, 0), (0, 0), (0, 4), (0, 4)))
    with pytest.raises(ValueError, match=r"shape \(3, 16, 18\), fit saw \(3, 12, 14\)"):
        masker.mask(larger)


def test_a_colour_may_lie_a_bit_outside_of_what_was_seen(data, quick):
    X = data.X / 255 + 0.1
    masker = quick(fill=0.0).fit(X, sensitive_features=data.has)
    assert masker.data_range_[0] > 0
    assert (masker.mask(X[:3]).min((1, 2, 3)) == 0).all()
    with pytest.raises(ValueError, match=r"fill=-9 is outside the range"):
        quick(fill=-9).fit(X, sensitive_features=data.has)


def test_a_colour_of_another_scale_than_bytes(data, quick):
    with pytest.raises(ValueError, match=r"fill=0\.5 is a colour on a scale from 0 to 1"):
        quick(fill=0.5).fit(data.X, sensitive_features=data.has)


def test_what_tells_images_apart_is_no_attribute(data, quick):
    with pytest.raises(ValueError, match="200 values in 200 images, another one for each"):
        quick().fit(data.X, sensitive_features=[f"image {i}" for i in range(200)])
    with pytest.raises(ValueError, match="200 different numbers"):
        quick().fit(data.X, sensitive_features=np.arange(200))
