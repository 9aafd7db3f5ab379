"""Whether an image has the attribute, and where: scores, masks, boxes and the positive class."""

import copy
import warnings

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from skfair.utils import UninformativeAttributionWarning

# Scores -----------------------------------------------------------------------------------


def test_the_score_is_the_highest_probability_of_a_patch(data, fitted):
    scores = fitted.attribute_score(data.X)
    assert scores.shape == (200,)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, fitted.region_proba(data.X)[..., 1].max((1, 2)))
    assert fitted.pos_label_ == True  # noqa: E712 - the value of the attribute, not the truth
    assert roc_auc_score(data.has, scores) > 0.9


def test_the_area_is_that_of_images_not_trained_on(planted, quick, held_out):
    data = planted(bright=16, seed=3)
    masker = quick(max_epochs=3, validation_fraction=0.25).fit(data.X, sensitive_features=data.has)
    rows = held_out(data.has, 0.25)
    scores, has = masker.attribute_score(data.X[rows]), data.has[rows]
    pairs = scores[has][:, None] - scores[~has]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert 0.5 < expected < 1
    assert masker.attribute_auc_ == pytest.approx(expected, abs=1e-12)
    assert isinstance(masker.attribute_auc_, float)


def test_the_area_of_three_values_is_a_mean(planted, quick, held_out):
    data = planted(n=240)
    code = data.has + np.arange(240) % 2 * data.has  # nothing tells the last two
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UninformativeAttributionWarning)
        masker = quick(validation_fraction=0.4).fit(data.X, sensitive_features=code)
    rows = held_out(code, 0.4)
    scores = masker.attribute_score(data.X[rows])
    areas = [roc_auc_score(code[rows] == c, scores[:, c]) for c in range(3)]
    assert masker.attribute_auc_ == pytest.approx(np.mean(areas), abs=1e-12)


@pytest.fixture(scope="module")
def two(planted, quick):
    """A bright stamp at the upper right, a dark one at the lower left, and a map for each stamp."""
    upper, lower = planted(n=240, seed=1), planted(n=240, at=(8, 0), seed=2)
    X = upper.X.copy()
    X[lower.has] *= ~lower.inside
    columns = {"upper": upper.has, "lower": np.where(lower.has, "with", "without")}
    masker = quick(combine_attributes=False, max_epochs=8, pos_label="with")
    return masker.fit(X, sensitive_features=columns), X, upper, lower


def test_scores_of_several_attributes(two, held_out):
    masker, X, upper, lower = two
    scores = masker.attribute_score(X)
    assert [score.shape for score in scores] == [(240,)] * 2
    rows = held_out(2 * upper.has + (1 - lower.has), 0.1)
    areas = [
        roc_auc_score(one.has[rows], score[rows])
        for one, score in zip((upper, lower), scores, strict=True)
    ]
    assert min(areas) > 0.9
    assert masker.attribute_auc_ == pytest.approx(min(areas), abs=1e-12)
    assert masker.score_threshold_.shape == (2,)
    assert masker.pos_label_ == [True, "with"]


# The value that means present -------------------------------------------------------------


@pytest.mark.parametrize("present, absent", [("with", "without"), ("yes", "no"), (0, 1)])
def test_it_is_found_out_which_value_means_present(anywhere, quick, present, absent):
    masker, X, has, _ = anywhere
    named = quick(stride=1, max_epochs=8, position_embedding=False)
    named.fit(X, sensitive_features=np.where(has, present, absent))
    assert named.pos_label_ == present
    assert named.attribute_auc_ > 0.95
    assert named.masks(X)[has].any((1, 2)).mean() > 0.9
    assert masker.pos_label_ == True  # noqa: E712


@pytest.mark.parametrize("pos_label", ["with", "without"])
def test_or_it_is_told(data, quick, pos_label):
    names = np.where(data.has, "with", "without")
    masker = quick(pos_label=pos_label).fit(data.X, sensitive_features=names)
    assert masker.classes_.tolist() == ["with", "without"]
    assert masker.pos_label_ == pos_label
    which = masker.classes_.tolist().index(pos_label)
    proba = masker.region_proba(data.X)[..., which]
    np.testing.assert_array_equal(masker.region_map(data.X), proba)
    np.testing.assert_array_equal(masker.attribute_score(data.X), proba.max((1, 2)))


def test_labels_that_are_not_there(data, quick):
    names = np.where(data.has, "with", "without")
    masker = quick(pos_label="glasses")
    match = r"pos_label='glasses' is not a value of .* two values; the values are \[\['with', 'wi"
    with pytest.raises(ValueError, match=match):
        masker.fit(data.X, sensitive_features=names)
    assert not hasattr(masker, "module_")
    masker = quick(pos_label=1)
    with pytest.raises(ValueError, match="pos_label=1 is not a value of"):
        masker.fit(data.X, sensitive_features=names)


# Masks and boxes --------------------------------------------------------------------------


def test_masks_by_hand(data, fitted):
    masks = fitted.masks(data.X)
    assert masks.shape == (200, 12, 14)
    assert masks.dtype == bool
    maps = fitted.attribute(data.X)
    scores = fitted.attribute_score(data.X)
    for mask, one, score in zip(masks, maps, scores, strict=True):
        if score < fitted.score_threshold_[0]:
            assert not mask.any()
            continue
        # For an even number of values torch's median is the lower one of the two in the middle.
        middle = np.sort(one.ravel())[one.size // 2 - 1]
        np.testing.assert_array_equal(mask, one > (middle + one.max()) / 2)
        assert mask.any()
    found = masks.any((1, 2))
    assert ((found == data.has).mean()) > 0.85


def test_masks_do_not_depend_on_the_confidence(data, fitted):
    other = copy.deepcopy(fitted).set_params(confidence="margin", scope="specific", quantile=0.5)
    np.testing.assert_array_equal(other.masks(data.X[:40]), fitted.masks(data.X[:40]))


def test_masks_of_what_moves(anywhere, squares):
    masker, _, _, _ = anywhere
    X, has, inside = squares(seed=1)
    masks = masker.masks(X)
    found = masks.any((1, 2))
    assert found[has].mean() > 0.95
    assert found[~has].mean() < 0.1
    both, either = (masks & inside)[has].sum((1, 2)), (masks | inside)[has].sum((1, 2))
    # 4 x 4 pixels within 6 x 6: patches that see half of the square are as sure.
    assert (both == 16).mean() > 0.9
    assert np.median(both / either) > 0.35


def test_boxes_of_what_moves(anywhere, squares):
    masker, _, _, _ = anywhere
    X, has, inside = squares(seed=2)
    boxes = masker.boxes(X)
    assert len(boxes) == 240
    near = []
    for found, there, pixels in zip(boxes, has, inside, strict=True):
        assert found.dtype == np.int64
        assert found.shape[1:] == (4,)
        if there and len(found) == 1:
            (rows, columns) = np.nonzero(pixels)
            x, y, width, height = found[0]
            centre = np.array([x + width / 2, y + height / 2])
            true = np.array([columns.min() + 2, rows.min() + 2])
            near.append(np.abs(centre - true).max() <= 2)
    assert len(near) > 0.8 * has.sum()
    assert np.mean(near) > 0.9
    assert np.mean([len(found) == 0 for found in np.array(boxes, dtype=object)[~has]]) > 0.9


def test_boxes_by_hand(data, fitted, monkeypatch):
    masks = np.zeros((3, 6, 8), dtype=bool)
    masks[0, 1, 2] = True  # one pixel at row 1, column 2
    masks[0, 3:6, 4:8] = True
    masks[2, 0, :3] = masks[2, 1, 2] = masks[2, 2, 2] = True  # one part, a corner
    masks[2, 5, 0] = masks[2, 4, 1] = True  # touching corners are two parts
    monkeypatch.setattr(type(fitted), "masks", lambda self, X: masks)
    boxes = fitted.boxes(data.X)
    # x, y, width, height
    assert boxes[0].tolist() == [[2, 1, 1, 1], [4, 3, 4, 3]]
    assert boxes[1].shape == (0, 4)
    assert boxes[1].dtype == np.int64
    assert sorted(boxes[2].tolist()) == [[0, 0, 3, 3], [0, 5, 1, 1], [1, 4, 1, 1]]


def test_boxes_hold_the_masks(data, fitted):
    masks, boxes = fitted.masks(data.X), fitted.boxes(data.X)
    for mask, found in zip(masks, boxes, strict=True):
        _, n_parts = ndimage.label(mask)
        assert len(found) == n_parts
        filled = np.zeros_like(mask)
        for x, y, width, height in found:
            part = mask[y : y + height, x : x + width]
            assert part.shape == (height, width)
            assert part[0].any()
            assert part[-1].any()
            assert part[:, 0].any()
            assert part[:, -1].any()
            filled[y : y + height, x : x + width] = True
        assert filled[mask].all()


def test_masks_and_boxes_of_several_attributes(two):
    masker, X, upper, lower = two
    masks, boxes = masker.masks(X), masker.boxes(X)
    assert masks.shape == (240, 2, 12, 14)
    assert [len(column) for column in boxes] == [240, 240]
    for i, one in enumerate((upper, lower)):
        found = masks[:, i].any((1, 2))
        assert (found == one.has).mean() > 0.85
        assert (masks[one.has, i] & one.inside).sum() > 0.3 * masks[one.has, i].sum()
        assert [len(some) > 0 for some in boxes[i]] == found.tolist()


def test_scores_and_masks_do_not_depend_on_batches(data, fitted):
    for size in (1, 7):
        other = copy.deepcopy(fitted).set_params(attribution_batch_size=size)
        scores = other.attribute_score(data.X[:23])
        np.testing.assert_allclose(scores, fitted.attribute_score(data.X[:23]), atol=1e-6)
        differ = other.masks(data.X[:23]) != fitted.masks(data.X[:23])
        assert differ.mean() < 1e-3  # a last bit at the threshold


def test_an_artefact_on_half_of_the_image(planted, quick):
    data = planted(shape=(8, 8), at=(0, 0))
    X = data.X.copy()
    X[data.has, :, :, :4] = 255 - X[data.has, :, :, :4] // 4
    masker = quick(max_epochs=6).fit(X, sensitive_features=data.has)
    inside = np.zeros((8, 8), dtype=bool)
    inside[:, :4] = True
    assert masker.informative_
    assert masker.attribute_auc_ > 0.95
    masks = masker.masks(X)
    assert (masks.any((1, 2)) == data.has).mean() > 0.95
    # A third of the patches see both halves, so that the border is not sharp.
    assert masks[data.has][:, inside].mean() > 0.6
    assert masks[data.has][:, ~inside].mean() < 0.3
    # The share of `quantile` is hidden, first in the half that the attribute covers.
    hidden = masker.set_params(quantile=0.6).perturbed_pixels(X[:1])[0]
    assert hidden[inside].mean() > 0.7
