"""The attribution display draws the results of the masker, for all kinds of images."""

import copy
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from skfair.attribution import AttributionDisplay, PatchAttributionMasker
from skfair.attribution._display import _outline

# The maskers are trained for a moment only; what they have learned does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore::skfair.utils.UninformativeAttributionWarning")

# The results that a masker would have with other parameters.
MODES = {
    "general\nmask": ("general", "mask"),
    "general\nnoise": ("general", "noise"),
    "specific\nmask": ("specific", "mask"),
    "specific\nnoise": ("specific", "noise"),
}


def make_images(n=40, channels=3, height=16, width=12):
    """Dark noise; a bright stamp in every second image, and another in every third."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 100, size=(n, channels, height, width), dtype=np.uint8)
    X[::2, :, 2:6, 6:10] += 120
    X[::3, :, 10:14, 2:6] += 120
    stamps = np.zeros((n, 2), dtype=bool)
    stamps[::2, 0] = stamps[::3, 1] = True
    return X, stamps


def make_masker(**parameters):
    settings = {"patch_size": 4, "stride": 4, "max_epochs": 2, "random_state": 0}
    settings |= {"check_leakage": False, "margin": 0, "batch_size": 32}
    return PatchAttributionMasker(**(settings | parameters))


X, STAMPS = make_images()


@pytest.fixture(autouse=True)
def close_figures():
    plt.close("all")  # those of other tests
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def masker():
    return make_masker(scope="specific", quantile=0.8).fit(X, sensitive_features=STAMPS[:, 0])


@pytest.fixture(scope="module")
def two_columns():
    masker = make_masker(combine_attributes=False, quantile=0.9)
    return masker.fit(X, sensitive_features={"ring": STAMPS[:, 0], "cross": STAMPS[:, 1]})


def row_names(display):
    return [label.get_text() for label in display.ax_.get_yticklabels()]


def drawn(images):
    return np.stack([np.asarray(image.get_array()) for image in images])


def meanings(masker):
    """Names of the rows for two columns that say whether an image has a stamp."""
    pairs = zip(("ring", "cross"), masker.pos_label_, strict=True)
    return [name if label else f"{name} = False" for name, label in pairs]


def channels_last(images):
    return np.moveaxis(images, 1, 3)


def inside(line, corner, size):
    """Pixels inside of an outline: those with an odd number of upright edges to their left."""
    edges = line.get_xydata().reshape(-1, 3, 2)[:, :2] - corner
    filled = np.zeros(size, dtype=bool)
    for (x0, y0), (x1, y1) in edges:
        if x0 == pytest.approx(x1):
            filled[round(y0) : round(y1), round(x0) :] ^= True
        else:
            assert y0 == pytest.approx(y1)
    return filled


def outlined(display, name, lines):
    """Pixels inside the lines of one row of maps."""
    corners = [(left, top) for left, _, _, top in extents(display.maps_[name])]
    size = display.images.shape[1:3]
    return np.stack([inside(line, c, size) for line, c in zip(lines[name], corners, strict=True)])


def assert_outlined(display, name, own, borrowed=None):
    """Solid lines go around the pixels of the image itself, dashed ones around borrowed pixels."""
    np.testing.assert_array_equal(outlined(display, name, display.outlines_), own)
    assert {line.get_linestyle() for line in display.outlines_[name]} == {"-"}
    if borrowed is None or not borrowed.any():
        assert display.borrowed_outlines_ == {}
        assert "dashed" not in display.ax_.get_xlabel()
        return
    np.testing.assert_array_equal(outlined(display, name, display.borrowed_outlines_), borrowed)
    assert {line.get_linestyle() for line in display.borrowed_outlines_[name]} == {"--"}
    assert "dashed: hole of another image" in display.ax_.get_xlabel()


def title_texts(display, name):
    return [title.get_text() for title in display.titles_[name]]


def extents(images):
    return [image.get_extent() for image in images]


def all_rows(display):
    return [display.images_, *display.maps_.values(), *display.perturbed_.values()]


def assert_nothing_is_cut_off(figure):
    figure.canvas.draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.02
    assert box.x1 <= width + 0.02
    assert box.y0 >= -0.02
    assert box.y1 <= height + 0.02


def test_maps(masker):
    display = AttributionDisplay.from_estimator(masker, X, n_images=3)
    np.testing.assert_array_equal(drawn(display.images_), channels_last(X[:3]) / 255)
    np.testing.assert_allclose(drawn(display.maps_["maps"]), masker.attribute(X[:3]), atol=1e-6)
    assert row_names(display) == ["first 3\nof 40 images", "maps"]
    share = masker.perturbed_pixels(X[:3]).mean()
    assert f"outlined: hidden, {share:.0%} of pixels" in display.ax_.get_xlabel().split("\n")
    assert 0.1 < share <= 0.2  # there is something to compare
    assert display.perturbed_ == {}


def test_outlines_go_around_what_is_hidden(masker):
    found = masker.attribute_score(X) >= masker.score_threshold_[0]
    assert 0 < found[:8].sum() < 8
    hidden = masker.perturbed_pixels(X[:8])
    display = AttributionDisplay.from_estimator(masker, X)
    there = found[:8, None, None]
    assert hidden[~found[:8]].any((1, 2)).all()
    assert_outlined(display, "maps", hidden & there, hidden & ~there)
    # If it is found in all images, all holes are their own; if in none, all are borrowed.
    for some, own in [(X[found][:4], True), (X[~found][:4], False)]:
        display = AttributionDisplay.from_estimator(masker, some)
        hidden = masker.perturbed_pixels(some)
        assert_outlined(display, "maps", hidden & own, hidden & (not own))


def test_general_pixels_are_those_of_all_images(masker):
    general = copy.copy(masker).set_params(scope="general")
    display = AttributionDisplay.from_estimator(general, X, n_images=2)
    assert_outlined(display, "maps", general.perturbed_pixels(X[:2]))
    assert (display.hidden[0] == display.hidden[1]).all()


def test_of_each_attribute_that_is_not_found_the_hole_is_of_another_image(two_columns):
    masker = copy.copy(two_columns).set_params(scope="specific")
    scores = np.stack(masker.attribute_score(X[:8]))
    found = scores >= masker.score_threshold_[:, None]
    assert (found.sum(0) == 1).any()  # one attribute has its own hole, the other borrows one
    # Without the image's own pixels, those above the quantile of its map, with margin 0.
    maps = masker.attribute(X[:8])
    above = maps > np.quantile(maps, 0.9, axis=(2, 3), keepdims=True, method="inverted_cdf")
    own = (above & found.T[..., None, None]).any(1)
    display = AttributionDisplay.from_estimator(masker, X)
    for name in display.maps_:
        assert_outlined(display, name, own, masker.perturbed_pixels(X[:8]) & ~own)


def test_scores_above_the_maps(masker):
    display = AttributionDisplay.from_estimator(masker, X, n_images=20)
    score, least = masker.attribute_score(X[:20]), masker.score_threshold_[0]
    wanted = [f"max P {p:.2f}" if p >= least else "not found" for p in score]
    assert len(set(wanted)) > 1
    assert title_texts(display, "maps") == wanted
    assert display.ax_.get_xlabel().split("\n")[:2] == [
        "above each map: highest P of a patch",
        f"not found: below {least:.2f}",
    ]
    # With the paper's confidences the score is the probability, too.
    entropy = copy.copy(masker).set_params(confidence="negative_entropy")
    display = AttributionDisplay.from_estimator(entropy, X, n_images=20)
    assert title_texts(display, "maps") == wanted


def test_scores_of_separate_attributes(two_columns):
    display = AttributionDisplay.from_estimator(two_columns, X)
    scores, least = two_columns.attribute_score(X[:8]), two_columns.score_threshold_
    names = meanings(two_columns)
    for name, score, threshold in zip(names, scores, least, strict=True):
        wanted = [f"max P {p:.2f}" if p >= threshold else "not found" for p in score]
        assert title_texts(display, name) == wanted
    below = ",\n".join(f"{t:.2f} ({name})" for t, name in zip(least, names, strict=True))
    assert f"not found: below {below}" in display.ax_.get_xlabel()


def test_of_more_than_two_values_the_likeliest_is_named():
    values = np.array(["none", "$1", "$2"])[STAMPS @ [1, 2] % 3]
    masker = make_masker(scope="specific").fit(X, sensitive_features=values)
    display = AttributionDisplay.from_estimator(masker, X)
    score = masker.attribute_score(X[:8])
    assert title_texts(display, "maps") == [
        f"{masker.classes_[i]} {p:.2f}" for i, p in zip(score.argmax(1), score.max(1), strict=True)
    ]
    assert "not found" not in display.ax_.get_xlabel()
    assert_outlined(display, "maps", masker.perturbed_pixels(X[:8]))
    assert display.colorbar_.ax.get_ylabel() == "P above guessing"
    assert_nothing_is_cut_off(display.figure_)  # a dollar is not the start of a formula


def test_combined_columns_are_named_by_their_values():
    features = {"ring": np.where(STAMPS[:, 0], "gold", "none"), "cross": STAMPS[:, 1]}
    masker = make_masker(scope="specific").fit(X, sensitive_features=features)
    display = AttributionDisplay.from_estimator(masker, X)
    names = {"gold, False", "gold, True", "none, False", "none, True"}
    assert {title.rsplit(" ", 1)[0] for title in title_texts(display, "maps")} <= names


@pytest.mark.parametrize(
    ("values", "pos_label", "name"),
    [
        ([False, True], True, "P(attribute)"),
        ([False, True], False, "P(attribute = False)"),
        ([0, 1], 1, "P(attribute = 1)"),
        (["no", "yes"], "yes", "P(attribute = yes)"),
    ],
)
def test_the_scale_says_what_it_is(values, pos_label, name):
    masker = make_masker(pos_label=pos_label, max_epochs=1)
    masker.fit(X, sensitive_features=np.array(values)[STAMPS[:, 0].astype(int)])
    for kind in ("maps", "mean_map"):
        display = AttributionDisplay.from_estimator(masker, X, kind=kind)
        assert display.colorbar_.ax.get_ylabel() == name
        assert_nothing_is_cut_off(display.figure_)
    masker.set_params(confidence="margin")
    display = AttributionDisplay.from_estimator(masker, X)
    assert display.colorbar_.ax.get_ylabel() == "confidence,\nscaled in each map"
    maps = drawn(display.maps_["maps"])
    np.testing.assert_array_equal(maps.min((1, 2)), 0)
    np.testing.assert_array_equal(maps.max((1, 2)), 1)


def test_maps_of_a_network_that_is_sure_of_everything():
    # Rounding can bring a mean of ones above one.
    images = np.tile(X, (1, 1, 8, 10))[:, :, :128, :120]
    masker = make_masker(patch_size=24, stride=2, max_epochs=1, scope="specific")
    masker.fit(images, sensitive_features=STAMPS[:, 0])
    masker.module_.temperature[:] = 1e-6
    assert masker.attribute(images).max() <= 1
    AttributionDisplay.from_estimator(masker, images, n_images=2)


def test_which_images_of_how_many(masker):
    def first(images, **how):
        return row_names(AttributionDisplay.from_estimator(masker, images, **how))[0]

    for kind in ("maps", "perturbations"):
        assert first(X, kind=kind) == "first 8\nof 40 images"
        assert first(X[:8], kind=kind) == "8 images"
        assert first(X[:1], kind=kind) == "1 image"
    assert first(X, kind="mean_map") == "mean of\n40 images"
    assert first(np.tile(X, (30, 1, 1, 1)), n_images=1) == "first 1\nof 1,200 images"
    data = torch.utils.data.TensorDataset(torch.from_numpy(X.copy()))
    assert first(data) == "first 8\nof 40 images"


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_nothing_is_cut_off_of_any_number_of_images(n, masker, two_columns):
    several = copy.copy(two_columns).set_params(scope="specific")
    for estimator, kind in [(masker, "maps"), (several, "maps"), (several, "mean_map")]:
        display = AttributionDisplay.from_estimator(estimator, X, n_images=n, kind=kind)
        assert_nothing_is_cut_off(display.figure_)


@pytest.mark.parametrize("n", [1, 8, 16])
@pytest.mark.parametrize("height, width", [(128, 96), (28, 28), (12, 40)])
@pytest.mark.parametrize("given", [False, True])
def test_titles_are_between_the_images(n, height, width, given):
    images = np.random.default_rng(0).random((n, height, width))
    maps = {"ring": images, "cross": images, "none": images}
    titles = {"ring": ["max P 0.97"] * n, "cross": ["not found"] * n}
    ax = plt.subplots(1, 2, figsize=(8, 5), layout="constrained")[1][1] if given else None
    display = AttributionDisplay(images, maps=maps, titles=titles).plot(ax)
    assert_nothing_is_cut_off(display.figure_)
    assert list(display.titles_) == ["ring", "cross"]
    above = {"ring": display.images_, "cross": display.maps_["ring"]}
    for name, row in display.titles_.items():
        for title, upper, lower in zip(row, above[name], display.maps_[name], strict=True):
            box, upper, lower = (one.get_window_extent() for one in (title, upper, lower))
            assert lower.y1 <= box.y0 + 1
            assert box.y1 <= upper.y0 + 1
            assert lower.x0 - 1 <= box.x0 <= box.x1 <= lower.x1 + 1


def test_one_scale_for_all_maps(two_columns):
    display = AttributionDisplay.from_estimator(two_columns, X, n_images=2)
    maps = [image for row in display.maps_.values() for image in row]
    assert {(image.norm.vmin, image.norm.vmax) for image in maps} == {(0, 1)}
    assert {image.get_cmap().name for image in maps} == {"viridis"}
    assert display.colorbar_.mappable in maps
    assert (display.colorbar_.vmin, display.colorbar_.vmax) == (0, 1)
    # Beside the maps, from the upper end of the first row to the lower end of the last.
    display.figure_.canvas.draw()
    scale = display.colorbar_.ax.get_window_extent()
    boxes = [image.get_window_extent() for image in maps]
    assert scale.y1 == pytest.approx(max(box.y1 for box in boxes), abs=1)
    assert scale.y0 == pytest.approx(min(box.y0 for box in boxes), abs=1)
    assert scale.x0 > max(box.x1 for box in boxes)


def test_the_scale_does_not_depend_on_the_maps():
    images = np.random.default_rng(0).random((2, 4, 4))
    display = AttributionDisplay(images, maps={"maps": 0.25 + images / 4}).plot()
    assert {(image.norm.vmin, image.norm.vmax) for image in display.maps_["maps"]} == {(0, 1)}


def test_separate_attributes_have_a_row_each(two_columns):
    display = AttributionDisplay.from_estimator(two_columns, X, n_images=2)
    maps = two_columns.attribute(X[:2])
    names = meanings(two_columns)
    assert row_names(display)[1:] == list(display.maps_) == names
    for i, name in enumerate(names):
        np.testing.assert_allclose(drawn(display.maps_[name]), maps[:, i], atol=1e-6)
    assert display.colorbar_.ax.get_ylabel() == "P(attribute)"
    display = AttributionDisplay.from_estimator(two_columns, X, kind="mean_map")
    names = [f"mean map,\n{name}" for name in names]
    assert row_names(display)[1:] == names
    np.testing.assert_array_equal(drawn(display.maps_[names[1]])[0], two_columns.mean_map_[1])


def test_mean_map(masker):
    display = AttributionDisplay.from_estimator(masker, X, kind="mean_map", n_images=1)
    mean = channels_last(X.mean(0, keepdims=True)) / 255
    np.testing.assert_allclose(drawn(display.images_), mean)
    np.testing.assert_array_equal(drawn(display.maps_["mean map"])[0], masker.mean_map_)
    general = copy.copy(masker).set_params(scope="general").perturbed_pixels(X[:1])
    assert_outlined(display, "mean map", general)
    assert row_names(display) == ["mean of\n40 images", "mean map"]
    assert "with scope='general' (it is 'specific')" in display.ax_.get_xlabel()
    masker = copy.copy(masker).set_params(scope="general")
    display = AttributionDisplay.from_estimator(masker, X, kind="mean_map")
    assert "scope" not in display.ax_.get_xlabel()


@pytest.mark.parametrize("perturbation", ["mask", "noise", "swap"])
@pytest.mark.parametrize("scope", ["general", "specific", "auto"])
def test_perturbations(masker, scope, perturbation):
    masker = copy.copy(masker).set_params(scope=scope, perturbation=perturbation)
    display = AttributionDisplay.from_estimator(masker, X, kind="perturbations", n_images=3)
    # The current parameters come first, and only once.
    first = f"{'specific' if scope == 'auto' else scope}\n{perturbation}"
    modes = {name: mode for name, mode in MODES.items() if name != first}
    assert row_names(display)[1:] == [f"{first}\n(as set)", *modes]
    wanted = masker.mask(X)[:3]
    np.testing.assert_array_equal(
        drawn(display.perturbed_[f"{first}\n(as set)"]), channels_last(wanted) / 255
    )
    for name, (scope_, perturbation_) in modes.items():
        mode = copy.copy(masker).set_params(scope=scope_, perturbation=perturbation_)
        np.testing.assert_array_equal(
            drawn(display.perturbed_[name]), channels_last(mode.mask(X[:3])) / 255
        )
    assert display.colorbar_ is None
    assert display.outlines_ == {}


def test_a_swap_is_shown_with_parts_of_a_hundred_images(masker):
    masker = copy.copy(masker).set_params(perturbation="swap")
    many = np.tile(X, (4, 1, 1, 1))
    display = AttributionDisplay.from_estimator(masker, many, kind="perturbations", n_images=4)
    row = display.perturbed_["specific\nswap\n(as set)"]
    np.testing.assert_array_equal(drawn(row), channels_last(masker.mask(many[:100])[:4]) / 255)
    assert row_names(display)[0] == "first 4\nof 160 images"


@pytest.mark.parametrize("kind", ["maps", "mean_map", "perturbations"])
def test_the_masker_stays_as_it_was(kind):
    masker = make_masker(perturbation="noise", random_state=np.random.RandomState(0))
    masker.fit(X, sensitive_features=STAMPS[:, 0])
    before = dict(vars(masker))
    twin = copy.deepcopy(masker)
    original = X.copy()
    AttributionDisplay.from_estimator(masker, X, kind=kind)
    assert vars(masker).keys() == before.keys()
    assert all(vars(masker)[name] is value for name, value in before.items())
    np.testing.assert_array_equal(X, original)
    # The masker draws the same noise as without the plot.
    np.testing.assert_array_equal(masker.mask(X), twin.mask(X))


def forms(tmp_path):
    files = []
    for i, image in enumerate(channels_last(X)):
        files.append(tmp_path / f"{i:02}.png")
        Image.fromarray(image).save(files[-1])
    rows = X.reshape(len(X), -1)
    shape = {"image_shape": X.shape[1:]}
    return {
        "channels_last": (channels_last(X), {}),
        "explicit": (channels_last(X), {"data_format": "channels_last"}),
        "tensor": (torch.from_numpy(X.copy()), {}),
        "list": (list(X), {}),
        "files": (files, {}),
        "folder": (str(tmp_path), {}),
        "dataset": (torch.utils.data.TensorDataset(torch.from_numpy(X.copy())), {}),
        "rows": (rows, shape),
        "frame": (pd.DataFrame(rows).rename(columns="pixel {}".format), shape),
    }


FORMS = [
    "channels_last",
    "explicit",
    "tensor",
    "list",
    "files",
    "folder",
    "dataset",
    "rows",
    "frame",
]


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_images_does_not_matter(form, masker, tmp_path):
    images, parameters = forms(tmp_path)[form]
    other = make_masker(scope="specific", quantile=0.8, **parameters)
    other.fit(images, sensitive_features=STAMPS[:, 0])
    for kind in ("maps", "mean_map", "perturbations"):
        one = AttributionDisplay.from_estimator(other, images, kind=kind, n_images=2)
        two = AttributionDisplay.from_estimator(masker, X, kind=kind, n_images=2)
        for here, there in zip(all_rows(one), all_rows(two), strict=True):
            np.testing.assert_allclose(drawn(here), drawn(there), atol=1e-6)
        assert row_names(one) == row_names(two)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("low, high", [(0, 1), (-3, 5), (0, 255)])
def test_float_images_are_scaled_by_the_range_of_the_data(channels, low, high):
    images, stamps = make_images(20, channels, 8, 16)
    images = (low + (high - low) * (images / 255)).astype(np.float32)
    masker = make_masker(data_range=(low, high), max_epochs=1)
    masker.fit(images, sensitive_features=stamps[:, 0])
    display = AttributionDisplay.from_estimator(masker, images, n_images=2)
    wanted = np.broadcast_to(
        (channels_last(images[:2]) - low) / (high - low), (2, 8, 16, max(channels, 3))
    )
    np.testing.assert_allclose(drawn(display.images_), wanted, atol=1e-5)
    noisy = AttributionDisplay.from_estimator(masker, images, kind="perturbations")
    for row in noisy.perturbed_.values():
        assert drawn(row).min() >= 0
        assert drawn(row).max() <= 1
    assert_nothing_is_cut_off(noisy.figure_)


def test_range_that_is_not_given():
    for images, wanted in [
        (np.array([[[0, 255]]], np.uint8), [0, 1]),
        (np.array([[[0, 51]]], np.uint8), [0, 0.2]),
        (np.array([[[-2.0, 2.0]]]), [0, 1]),
        (np.array([[[3.0, 3.0]]]), [0, 0]),
    ]:
        display = AttributionDisplay(images).plot()
        np.testing.assert_allclose(drawn(display.images_)[0, 0, :, 0], wanted)
    display = AttributionDisplay([[[-1.0, 0.5, 2.0]]], data_range=(0, 1)).plot()
    np.testing.assert_allclose(drawn(display.images_)[0, 0, :, 0], [0, 0.5, 1])


def test_each_pixel_is_seen_where_it_is():
    images = np.zeros((2, 3, 4))
    images[0, 0, 1] = images[1, 2, 3] = 1
    display = AttributionDisplay(
        images, maps={"maps": images}, perturbed={"inverted": 1 - images}
    ).plot(map_kw={"cmap": "gray", "alpha": 1})
    figure = display.figure_
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())[..., 0] / 255
    rows = [display.images_, display.maps_["maps"], display.perturbed_["inverted"]]
    for row, wanted in zip(rows, [images, images, 1 - images], strict=True):
        for (left, _, _, top), image in zip(extents(row), wanted, strict=True):
            y, x = np.mgrid[:3, :4].reshape(2, -1) + 0.5
            centres = np.stack([left + x, top + y], 1)
            column, line = display.ax_.transData.transform(centres).astype(int).T
            seen = canvas[len(canvas) - 1 - line, column].reshape(3, 4)
            np.testing.assert_allclose(seen, image, atol=0.01)


def test_where_images_are_transparent_maps_lie_on_white():
    images = np.zeros((1, 1, 2, 4))
    images[0, 0, 0, 3] = 1  # black, and next to it nothing
    display = AttributionDisplay(images, maps={"maps": np.zeros((1, 1, 2))}).plot()
    (under,) = (
        image
        for image in display.ax_.images
        if image.get_cmap().name == "gray" and image not in display.images_
    )
    np.testing.assert_allclose(np.asarray(under.get_array()), [[0.5, 1]])


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(max_examples=60, deadline=None)
def test_outline(hidden):
    line = _outline(hidden)
    assert np.isnan(line[2::3]).all()
    figure, ax = plt.subplots()
    np.testing.assert_array_equal(inside(ax.plot(*line.T)[0], (0, 0), hidden.shape), hidden)
    plt.close(figure)
    # Just as long as there are pairs of neighbours that differ, one of them maybe outside.
    framed = np.pad(hidden, 1).astype(int)
    n_edges = np.abs(np.diff(framed, axis=0)).sum() + np.abs(np.diff(framed, axis=1)).sum()
    assert np.abs(line[1::3] - line[::3]).sum() == n_edges


def test_the_outline_of_a_rectangle_has_four_lines():
    hidden = np.zeros((6, 5), dtype=bool)
    hidden[1:4, 2:5] = True
    ends = {tuple(map(tuple, line)) for line in _outline(hidden).reshape(-1, 3, 2)[:, :2]}
    assert ends == {((2, 1), (5, 1)), ((2, 4), (5, 4)), ((2, 1), (2, 4)), ((5, 1), (5, 4))}


@pytest.mark.parametrize("n", [1, 2, 8])
@pytest.mark.parametrize("height, width", [(28, 28), (128, 96), (12, 40)])
def test_rows_and_columns(n, height, width):
    images = np.random.default_rng(0).random((n, height, width))
    display = AttributionDisplay(
        images,
        maps={"glasses": images, "a longer name": images},
        hidden=images > 0.9,
        perturbed={"general\nmask": 1 - images},
    ).plot()
    rows = all_rows(display)
    boxes = np.array([extents(row) for row in rows])  # left, right, bottom, top
    assert boxes.shape == (4, n, 4)
    np.testing.assert_allclose(boxes[..., 1] - boxes[..., 0], width)
    np.testing.assert_allclose(boxes[..., 2] - boxes[..., 3], height)
    # No two of them overlap, and each row is level.
    assert (boxes[:, 1:, 0] > boxes[:, :-1, 1]).all()
    assert (boxes[1:, :, 3] > boxes[:-1, :, 2]).all()
    assert (boxes[:, :, 2:] == boxes[:, :1, 2:]).all()
    # The name of a row is at the middle of its height.
    np.testing.assert_allclose(display.ax_.get_yticks(), boxes[:, 0, 2:].mean(1))
    assert row_names(display) == ["images", "glasses", "a longer name", "general\nmask"]
    assert display.ax_.get_aspect() == 1
    assert_nothing_is_cut_off(display.figure_)
    labels = [label.get_window_extent() for label in display.ax_.get_yticklabels()]
    assert all(a.y0 >= b.y1 for a, b in pairwise(labels))


def test_draws_into_given_axes(masker):
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.5), layout="constrained")
    display = AttributionDisplay.from_estimator(masker, X, n_images=3, ax=right)
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]
    assert_nothing_is_cut_off(figure)


def test_as_many_images_as_there_are(masker):
    assert len(AttributionDisplay.from_estimator(masker, X).images_) == 8
    assert len(AttributionDisplay.from_estimator(masker, X[:5]).images_) == 5
    data = torch.utils.data.TensorDataset(torch.from_numpy(X[:5].copy()))
    assert len(AttributionDisplay.from_estimator(masker, data).images_) == 5


def test_style_of_the_maps(masker):
    style = {"cmap": "magma", "alpha": 0.25}
    display = AttributionDisplay.from_estimator(masker, X, map_kw=style)
    image = display.maps_["maps"][0]
    assert (image.get_cmap().name, image.get_alpha()) == ("magma", 0.25)
    assert (image.norm.vmin, image.norm.vmax) == (0, 1)
    again = display.plot(map_kw={"alpha": 0.5})
    assert again is display
    image = display.maps_["maps"][0]
    assert (image.get_cmap().name, image.get_alpha()) == ("viridis", 0.5)


def test_larger_images_than_at_fit():
    masker = make_masker(scope="specific", position_embedding=False)
    masker.fit(X, sensitive_features=STAMPS[:, 0])
    larger = np.tile(X[:3], (1, 1, 2, 2))
    display = AttributionDisplay.from_estimator(masker, larger)
    np.testing.assert_allclose(drawn(display.maps_["maps"]), masker.attribute(larger), atol=1e-6)
    for kind in ("mean_map", "perturbations"):
        with pytest.raises(ValueError, match=r"\(3, 32, 24\).*\(3, 16, 12\).*kind='maps'"):
            AttributionDisplay.from_estimator(masker, larger, kind=kind)


def test_what_from_estimator_refuses(masker):
    with pytest.raises(TypeError, match=r"LogisticRegression.*pipeline\[0\]"):
        AttributionDisplay.from_estimator(LogisticRegression(), X)
    with pytest.raises(NotFittedError):
        AttributionDisplay.from_estimator(make_masker(), X)
    with pytest.raises(ValueError, match=r"kind='mean'.*maps, mean_map, perturbations"):
        AttributionDisplay.from_estimator(masker, X, kind="mean")
    for n_images in (0, -1, 2.5, None):
        with pytest.raises(ValueError, match=r"n_images=.*1 or more"):
            AttributionDisplay.from_estimator(masker, X, n_images=n_images)
    with pytest.raises(ValueError, match=r"float32.*fit saw uint8"):
        AttributionDisplay.from_estimator(masker, X / 255)
    for nothing in (None, 3):
        with pytest.raises(TypeError, match=rf"X \({type(nothing).__name__}\) cannot be used"):
            AttributionDisplay.from_estimator(masker, nothing)
    for folder in ("no_such_folder", Path("no_such_folder")):
        with pytest.raises(ValueError, match=r"no_such_folder.*does not exist"):
            AttributionDisplay.from_estimator(masker, folder)
    five = np.concatenate([X, X[:, :2]], axis=1)
    other = make_masker(data_format="channels_first").fit(five, sensitive_features=STAMPS[:, 0])
    with pytest.raises(ValueError, match=r"\(8, 16, 12, 5\).*1, 3 or 4 channels"):
        AttributionDisplay.from_estimator(other, five)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": np.zeros((4, 4))}, ValueError, r"images has shape \(4, 4\)"),
        ({"images": np.zeros((2, 3, 4, 4, 1))}, ValueError, r"images has shape \(2, 3, 4, 4, 1\)"),
        ({"images": np.zeros((2, 3, 4, 5))}, ValueError, r"np.moveaxis\(images, 1, -1\)"),
        ({"images": np.zeros((0, 4, 4))}, ValueError, r"images has shape \(0, 4, 4\)"),
        ({"images": np.full((2, 4, 4), np.nan)}, ValueError, "images has NaN"),
        ({"data_range": (1, 0)}, ValueError, r"data_range=\(1, 0\)"),
        ({"data_range": (0, 1, 2)}, ValueError, r"data_range=\(0, 1, 2\)"),
        ({"maps": np.zeros((2, 4, 4))}, TypeError, r"maps is ndarray.*maps=\{name: array\}"),
        (
            {"maps": {"m": np.zeros((2, 4, 5))}},
            ValueError,
            r"maps\['m'\].*\(2, 4, 5\)",
        ),
        ({"maps": {"m": np.full((2, 4, 4), 2.0)}}, ValueError, r"maps\['m'\] has values from 2"),
        ({"maps": {"m": np.full((2, 4, 4), np.nan)}}, ValueError, r"maps\['m'\].*nan"),
        ({"hidden": np.zeros((2, 4, 4), int)}, ValueError, "hidden .* dtype int64"),
        ({"hidden": np.zeros((1, 4, 4), bool)}, ValueError, r"hidden has shape \(1, 4, 4\)"),
        (
            {"maps": None, "hidden": np.zeros((2, 4, 4), bool)},
            ValueError,
            "hidden .* 0 rows of maps",
        ),
        ({"borrowed": np.ones((2, 4, 4), bool)}, ValueError, "borrowed .* Pass hidden too"),
        (
            {"hidden": np.zeros((2, 4, 4), bool), "borrowed": np.ones((2, 4, 4), bool)},
            ValueError,
            "a part of the pixels of hidden",
        ),
        (
            {"hidden": np.ones((2, 4, 4), bool), "borrowed": np.ones((2, 4, 4), int)},
            ValueError,
            "borrowed .* dtype int64",
        ),
        (
            {"hidden": np.ones((2, 4, 4), bool), "borrowed": np.ones(2, bool)},
            ValueError,
            r"borrowed has shape \(2,\)",
        ),
        ({"titles": ["a", "b"]}, TypeError, "titles is list"),
        ({"titles": {"m": ["a", "b"]}}, ValueError, r"titles\['m'\].*rows of maps are: maps"),
        ({"titles": {"maps": ["a"]}}, ValueError, r"titles\['maps'\] has shape \(1,\).*2 str"),
        ({"titles": {"maps": [0.5, 1.0]}}, ValueError, r"titles\['maps'\].*dtype float64"),
        ({"perturbed": {"p": np.zeros((2, 4, 3))}}, ValueError, r"perturbed\['p'\].*\(2, 4, 3\)"),
        ({"perturbed": [1]}, TypeError, "perturbed is list"),
    ],
)
def test_arrays_that_do_not_fit(changes, error, message):
    arguments = {"images": np.zeros((2, 4, 4)), "maps": {"maps": np.zeros((2, 4, 4))}} | changes
    with pytest.raises(error, match=message):
        AttributionDisplay(**arguments)


def test_without_matplotlib(monkeypatch, masker):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'AttributionDisplay needs .*"skfair-debias\[plot\]"'):
        AttributionDisplay.from_estimator(masker, X)
