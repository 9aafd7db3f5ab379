"""Hidden pixels and what replaces them: scope, holes of other images, swaps, fills."""

import copy
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.utils.data import DataLoader, Dataset

from skfair.attribution import _masker
from skfair.attribution._augmentation import PatchAugmentation
from skfair.attribution._decisions import (
    donor_maps,
    likely_scopes,
    map_agreement,
    quantiles_of_levels,
    some_of_each,
)
from skfair.attribution._region_classifier import RegionClassifier


def with_parameters(fitted, **parameters):
    return copy.deepcopy(fitted).set_params(**parameters)


# One place or many ------------------------------------------------------------------------


def test_the_scope_is_found_out(fitted, anywhere, data):
    assert fitted.scope_ == "general"
    masker, X, _, _ = anywhere
    assert masker.scope_ == "specific"
    # `fit` takes this scope, unless the parameter asks for another.
    for one, images, scope in ((fitted, data.X, "general"), (masker, X, "specific")):
        expected = with_parameters(one, scope=scope).perturbed_pixels(images)
        np.testing.assert_array_equal(one.perturbed_pixels(images), expected)
    assert (masker.perturbed_pixels(X) != masker.perturbed_pixels(X)[:1]).any()
    assert (fitted.perturbed_pixels(data.X) == fitted.perturbed_pixels(data.X)[:1]).all()
    general = with_parameters(masker, scope="general").perturbed_pixels(X)
    assert (general == general[:1]).all()


@pytest.mark.parametrize("scope", ["general", "specific"])
def test_a_scope_that_is_asked_for_is_taken(data, quick, scope):
    masker = quick(scope=scope, max_epochs=2).fit(data.X, sensitive_features=data.has)
    assert masker.scope_ == scope


def test_agreement_by_hand():
    # Maps of 1 x 3 positions: two are equal, one is reversed. Images without it do not count.
    maps = np.array([[1.0, 2, 3], [1, 2, 3], [3, 2, 1], [9, 0, 5]]) / 10
    proba = np.stack([1 - maps, maps], 1)[:, :, None]
    found = map_agreement([proba], np.array([[1], [1], [1], [0]]), np.array([1]), np.array([0.0]))
    # Twice (1, 2, 3) with the mean of the others, (2, 2, 2), which is flat: 0. The reversed
    # map with (1, 2, 3): -1.
    assert found == pytest.approx(-1 / 3, abs=1e-4)
    # The same map at other heights agrees fully.
    proba = np.stack([1 - maps[:2] * [[1], [2]], maps[:2] * [[1], [2]]], 1)[:, :, None]
    found = map_agreement([proba], np.array([[1], [1]]), np.array([1]), np.array([0.0]))
    assert found == pytest.approx(1)


def test_images_in_which_it_is_not_found_do_not_count_for_agreement():
    maps = np.array([[0.1, 0.2, 0.9], [0.2, 0.2, 0.8], [0.3, 0.2, 0.1]])
    proba = np.stack([1 - maps, maps], 1)[:, :, None]
    code = np.ones((3, 1), dtype=int)
    assert map_agreement([proba], code, np.array([1]), np.array([0.5])) > 0.9
    assert map_agreement([proba], code, np.array([1]), np.array([0.0])) < 0.5


def test_of_several_attributes_the_one_that_agrees_least_counts():
    rng = np.random.default_rng(0)
    place = np.broadcast_to(rng.random((1, 4, 5)), (20, 4, 5))
    anywhere = rng.random((20, 4, 5))
    probabilities = [np.stack([1 - m, m], 1) for m in (place, anywhere)]
    code, positive = np.ones((20, 2), dtype=int), np.array([1, 1])
    both = map_agreement(probabilities, code, positive, np.zeros(2))
    second = map_agreement(probabilities[1:], code[:, 1:], positive[1:], np.zeros(1))
    assert both == second < 0.3
    assert map_agreement(probabilities[:1], code[:, :1], positive[:1], np.zeros(1)) > 0.99


def test_scopes_in_order():
    assert likely_scopes(0.99) == ["general"]
    assert likely_scopes(0.0) == ["specific"]
    assert likely_scopes(0.8) == ["general", "specific"]
    assert likely_scopes(0.2) == ["specific", "general"]


def test_areas_at_heights_by_hand():
    # Median 0, highest 8: half of the height is 4, and two of ten values are above 4.
    one = np.array([0, 0, 0, 0, 0, 0, 2, 4, 6, 8.0]).reshape(1, 1, 2, 5)
    assert quantiles_of_levels(one, [0.5, 0.2, 0.75]) == pytest.approx([0.8, 0.6, 0.9])
    # The median over several maps, for the attribute with the largest area.
    wide = np.array([0, 0, 0, 0, 0, 1, 8, 8, 8, 8.0]).reshape(1, 1, 2, 5)
    maps = np.concatenate([one, one, wide], 1)
    assert quantiles_of_levels(maps, [0.5]) == pytest.approx([0.8])
    maps = np.concatenate([np.repeat(one, 3, 1), np.repeat(wide, 3, 1)])
    assert quantiles_of_levels(maps, [0.5]) == pytest.approx([0.6])
    # A constant map, and a map with one peak.
    assert quantiles_of_levels(np.full((1, 1, 4, 4), 0.5), [0.5]) == [0.995]
    assert quantiles_of_levels(np.eye(30)[None, None, :1], [0.0]) == [pytest.approx(29 / 30)]


def test_one_map_for_all_images_needs_no_network(data, fitted, monkeypatch):
    hidden = fitted.perturbed_pixels(data.X)
    masked = fitted.mask(data.X)
    augmented = fitted.augmentation()(torch.from_numpy(data.X))
    monkeypatch.setattr(RegionClassifier, "probabilities", None)
    np.testing.assert_array_equal(fitted.perturbed_pixels(data.X), hidden)
    np.testing.assert_array_equal(fitted.mask(data.X), masked)
    assert torch.equal(fitted.augmentation()(torch.from_numpy(data.X)), augmented)
    with pytest.raises(TypeError):
        with_parameters(fitted, scope="specific").mask(data.X)


# Margins ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["general", "specific"])
@pytest.mark.parametrize("margin", [1, 3])
def test_a_margin_grows_what_is_hidden(data, fitted, scope, margin):
    X = data.X[fitted.attribute_score(data.X) >= fitted.score_threshold_][:30]
    core = with_parameters(fitted, scope=scope, margin=0).perturbed_pixels(X)
    grown = with_parameters(fitted, scope=scope, margin=margin).perturbed_pixels(X)
    square = np.ones((2 * margin + 1, 2 * margin + 1))
    for one, found in zip(core, grown, strict=True):
        np.testing.assert_array_equal(found, ndimage.binary_dilation(one, square))


def test_the_margin_by_default_is_that_of_the_patch_that_was_fitted(data, fitted):
    expected = with_parameters(fitted, margin=1).perturbed_pixels(data.X)  # a quarter of 4
    np.testing.assert_array_equal(fitted.perturbed_pixels(data.X), expected)
    other = with_parameters(fitted, patch_size=12, stride=4)  # for a later fit
    np.testing.assert_array_equal(other.perturbed_pixels(data.X), expected)


# Holes of other images --------------------------------------------------------------------


@pytest.fixture(scope="module")
def new(squares):
    return squares(seed=5)


def missing(masker, X):
    return masker.attribute_score(X) < masker.score_threshold_


def test_images_without_it_get_the_holes_of_others(anywhere, new, held_out):
    masker, X, has, _ = anywhere
    X_new, has_new, _ = new
    rows = held_out(has)
    donors = X[rows[has[rows]]]
    donors = donors[~missing(masker, donors)]
    bank = {hole.tobytes() for hole in masker.perturbed_pixels(donors)}
    without = missing(masker, X_new)
    assert 100 < without.sum() < 140
    holes = masker.perturbed_pixels(X_new)[without]
    assert {hole.tobytes() for hole in holes} <= bank
    assert len({hole.tobytes() for hole in holes}) > len(bank) / 2
    # The number of hidden pixels does not tell which images have the attribute.
    sizes = masker.perturbed_pixels(X_new).mean((1, 2))
    assert sizes[has_new].mean() == pytest.approx(sizes[~has_new].mean(), rel=0.1)


def test_a_hole_depends_on_the_image_alone(anywhere, new):
    masker, X, _ = anywhere[0], *new[:2]
    expected = masker.perturbed_pixels(X)
    for size in (1, 7, 1000):
        other = with_parameters(masker, attribution_batch_size=size)
        np.testing.assert_array_equal(other.perturbed_pixels(X), expected)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(masker.perturbed_pixels(X[order]), expected[order])
    last = np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(masker.perturbed_pixels(last), expected)
    np.testing.assert_array_equal(masker.perturbed_pixels(torch.from_numpy(X)), expected)
    np.testing.assert_array_equal(masker.perturbed_pixels(X[3:4]), expected[3:4])
    np.testing.assert_array_equal(with_parameters(masker, random_state=9).mask(X), masker.mask(X))


def test_donors_are_images_that_have_it_and_in_which_it_is_found():
    proba = np.full((6, 2, 1, 2), 0.5)
    proba[:, 1, 0, 0] = [0.9, 0.2, 0.8, 0.95, 0.7, 0.1]
    proba[:, 0] = 1 - proba[:, 1]
    code = np.array([[1], [1], [1], [0], [0], [0]])
    kept = donor_maps([proba], code, np.array([1]), np.array([0.6]), "probability")
    assert kept.shape[:2] + kept.shape[2:] == (1, len(kept[0]), 1, 2)
    assert {tuple(one) for one in kept[0, :, 0].tolist()} == {(0.9, 0.5), (0.8, 0.5)}
    # If the attribute is found in no image, the donors are all images that have it.
    kept = donor_maps([proba], code, np.array([1]), np.array([0.99]), "probability")
    assert {one[0] for one in kept[0, :, 0].tolist()} == {0.9, 0.2, 0.8}
    # With more than two values, the donors are all images.
    kept = donor_maps([proba], code, np.array([-1]), np.array([0.5]), "top")
    assert {one[0] for one in kept[0, :, 0].tolist()} == {0.9, 0.8, 0.95, 0.7}


def test_larger_images_get_holes_too(anywhere, squares):
    masker, X, has, _ = anywhere
    larger = np.pad(X[~has][:20], ((0, 0), (0, 0), (0, 9), (0, 5)), mode="reflect")
    hidden = masker.perturbed_pixels(larger)
    assert hidden.shape == (20, 25, 21)
    assert hidden.any((1, 2)).all()


# Swaps ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swapping(anywhere):
    return with_parameters(anywhere[0], perturbation="swap", fill=7)


def test_a_swap_is_a_fill_and_a_part_of_another_image(swapping, new):
    X, _, _ = new
    before = X.copy()
    swapped, hidden = swapping.mask(X), swapping.perturbed_pixels(X)
    np.testing.assert_array_equal(X, before)
    assert swapped.dtype == X.dtype
    filled = np.where(hidden[:, None], 7, X)
    donors = np.flatnonzero(~missing(swapping, X))
    pasted = 0
    for image, alone in zip(swapped, filled, strict=True):
        if (image == alone).all():
            continue
        pasted += 1
        assert any((image == np.where(hidden[j], X[j], alone)).all() for j in donors)
    assert 0.3 * len(X) < pasted < 0.7 * len(X)


@pytest.mark.parametrize("coincide", [False, True])
def test_half_of_the_images_get_it_whatever_they_are(swapping, squares, coincide):
    X, has, _ = squares(n=1000, seed=8)
    y = has if coincide else np.random.default_rng(0).random(1000) < 0.5
    swapped = swapping.mask(X)
    shows = (swapped == 255).any((1, 2, 3))
    for rows in (has, ~has, y, ~y, has & y, ~has & ~y):
        # A few squares are not found, and remain; a few holes cut one.
        error = 0.5 / rows.sum() ** 0.5
        assert shows[rows].mean() == pytest.approx(0.5, abs=3.5 * error + 0.04)


def test_what_is_swapped_depends_on_the_seed_and_not_on_batches(swapping, new):
    X, _, _ = new
    expected = swapping.mask(X)
    for size in (1, 7):
        found = with_parameters(swapping, attribution_batch_size=size).mask(X)
        np.testing.assert_array_equal(found, expected)
    last = swapping.mask(np.ascontiguousarray(X.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), expected)
    assert (with_parameters(swapping, random_state=1).mask(X) != expected).any()


def test_a_swap_where_nothing_is_found_fills(swapping, new):
    X, _, _ = new
    X = X[missing(swapping, X)]
    expected = np.where(swapping.perturbed_pixels(X)[:, None], 7, X)
    np.testing.assert_array_equal(swapping.mask(X), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_swaps_of_other_types(data, quick, dtype):
    X = data.X.astype(dtype)
    parameters = {"perturbation": "swap", "fill": 0}
    if dtype is np.int64:
        X, parameters = X.reshape(200, -1), {**parameters, "image_shape": (3, 12, 14)}
    masker = quick(**parameters)
    swapped = masker.fit_transform(X, sensitive_features=data.has)
    assert swapped.dtype == dtype
    assert swapped.shape == X.shape
    swapped = swapped.reshape(data.X.shape)
    hidden = masker.perturbed_pixels(X)
    np.testing.assert_array_equal(swapped[:, :, ~hidden[0]], data.X[:, :, ~hidden[0]])
    # In the hole, each image has the fill colour or the pixels that another image had there.
    inside = swapped[:, :, hidden[0]].reshape(200, -1)
    known = {row.tobytes() for row in data.X.astype(dtype)[:, :, hidden[0]].reshape(200, -1)}
    filled = (inside == 0).all(1)
    assert 0.35 < filled.mean() < 0.65
    assert all(row.tobytes() in known for row in inside[~filled])


@pytest.mark.parametrize(
    "columns, parameters",
    [
        ({"a": [0, 1] * 100, "b": [0, 0, 1, 1] * 50}, {"combine_attributes": False}),
        ({"a": [0, 1] * 100, "b": [0, 0, 1, 1] * 50}, {}),
        (np.arange(200) % 3, {}),
    ],
    ids=["columns", "combinations", "three values"],
)
def test_what_cannot_be_swapped(data, quick, monkeypatch, columns, parameters):
    def trained(*args, **kwargs):
        pytest.fail("the training was reached")

    monkeypatch.setattr(_masker, "train_region_classifier", trained)
    masker = quick(perturbation="swap", **parameters)
    match = r"perturbation='swap' moves one thing.*several columns or more than two values\. Pass"
    with pytest.raises(ValueError, match=match):
        masker.fit(data.X, sensitive_features=columns)
    assert not hasattr(masker, "classes_")


def test_new_images_are_not_swapped(data, quick, swapping, new):
    match = "perturb_at_predict=True and perturbation='swap' exclude.*Pass perturb_at_predict=False"
    masker = quick(perturbation="swap", perturb_at_predict=True)
    with pytest.raises(ValueError, match=match):
        masker.fit(data.X, sensitive_features=data.has)
    later = with_parameters(swapping, perturb_at_predict=True)
    with pytest.raises(ValueError, match=match):
        later.transform(new[0])
    assert swapping.transform(new[0]) is new[0]


def test_augmentation_swaps_anew(swapping, new):
    X, has, _ = new
    images = torch.from_numpy(X)
    augment = swapping.augmentation()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = torch.stack([augment(images) for _ in range(12)])
        torch.manual_seed(0)
        assert torch.equal(augment(images), draws[0])
    assert torch.equal(images, torch.from_numpy(X))
    shows = (draws == 255).flatten(2).any(2).double().mean(0).numpy()
    assert (draws[0] != draws[1]).any()
    for rows in (has, ~has):
        error = 0.5 / (12 * rows.sum()) ** 0.5
        assert shows[rows].mean() == pytest.approx(0.5, abs=3.5 * error + 0.04)
    # It takes the hidden pixels that it gets, and looks again for the rest.
    hidden = torch.from_numpy(swapping.perturbed_pixels(X))
    found = augment(images, hidden)
    filled = torch.where(hidden[:, None], 7, images)
    changed = (found != filled).flatten(1).any(1).double().mean()
    assert 0.3 < changed < 0.7


def test_augmentation_of_batches_in_which_nothing_is_found_fills(swapping, new):
    X = new[0][missing(swapping, new[0])][:8]
    found = swapping.augmentation()(torch.from_numpy(X), swapping.perturbed_pixels(X))
    np.testing.assert_array_equal(found, swapping.mask(X))


def test_a_single_image_cannot_be_swapped(swapping, new):
    augment = swapping.augmentation()
    images = torch.from_numpy(new[0][:3])
    for one in (images[0], images[:1]):
        with pytest.raises(ValueError, match=r"images is a single image.*Give batches"):
            augment(one)

    class Each(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, row):
            return augment(images[row])

    with pytest.raises(ValueError, match="images is a single image"):
        next(iter(DataLoader(Each(), batch_size=3)))


# Fills ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["blur", "inpaint"])
@pytest.mark.parametrize("perturbation", ["mask", "swap"])
def test_fills_from_what_is_visible(data, fitted, fill, perturbation):
    if fill == "inpaint":
        pytest.importorskip("skimage")
    masker = with_parameters(fitted, fill=fill, scope="specific", perturbation=perturbation)
    X = data.X[:12]
    masked, hidden = masker.mask(X), masker.perturbed_pixels(X)
    if perturbation == "swap":
        assert (masked != X).any()
        return
    for image, before, pixels in zip(masked, X, hidden, strict=True):
        np.testing.assert_array_equal(image[:, ~pixels], before[:, ~pixels])
        for after, visible in zip(image[:, pixels], before[:, ~pixels], strict=True):
            if fill == "blur":
                assert visible.min() <= after.min() <= after.max() <= visible.max()
            assert len(np.unique(after)) > 3  # not one colour
    # The result depends on the images, and not on their batches.
    np.testing.assert_array_equal(with_parameters(masker, attribution_batch_size=5).mask(X), masked)


def test_masked_images_are_inpainted_by_scikit_image(data, fitted):
    restoration = pytest.importorskip("skimage.restoration")
    masker = with_parameters(fitted, fill="inpaint")
    hidden = masker.perturbed_pixels(data.X[:1])[0]
    last = data.X[0].transpose(1, 2, 0) / 255
    expected = restoration.inpaint_biharmonic(last, hidden, channel_axis=2).transpose(2, 0, 1)
    found = masker.mask(data.X[:1])[0]
    assert np.abs(found - expected * 255)[:, hidden].max() <= 1


def test_inpainting_without_scikit_image(data, quick, monkeypatch):
    for name in ("skimage", "skimage.restoration"):
        monkeypatch.setitem(sys.modules, name, None)
    masker = quick(fill="inpaint")
    with pytest.raises(ImportError, match=r"fill='inpaint'.*inpaint"):
        masker.fit(data.X, sensitive_features=data.has)
    assert not hasattr(masker, "module_")


def test_no_augmentation_inpaints(fitted):
    with pytest.raises(ValueError, match=r"fill='inpaint'.*too slow.*masker\.mask\(X\)"):
        with_parameters(fitted, fill="inpaint").augmentation()
    assert isinstance(with_parameters(fitted, fill="blur").augmentation(), PatchAugmentation)


# Images on which leakage is measured ------------------------------------------------------


def test_all_images_if_they_are_not_too_many():
    assert some_of_each(np.zeros(5, int), np.zeros(5, int), 5, 0).tolist() == [0, 1, 2, 3, 4]


def test_rare_combinations_are_all_drawn():
    cell, strata = np.zeros(1000, dtype=int), np.arange(1000) % 2
    cell[:50] = 1  # 25 of each class
    rows = some_of_each(cell, strata, 200, seed=3)
    assert len(set(rows)) == 200
    assert (np.diff(rows) > 0).all()
    counts = np.bincount(2 * cell[rows] + strata[rows])
    assert counts.tolist() == [75, 75, 25, 25]
    assert rows.tolist() == some_of_each(cell, strata, 200, seed=3).tolist()
    assert rows.tolist() != some_of_each(cell, strata, 200, seed=4).tolist()
