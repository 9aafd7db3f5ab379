"""Hiding pixels: which pixels, how, and that all others stay unchanged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skfair.attribution._perturbation import Perturbation, auto_margin, hidden_pixels


def perturbation(kind="mask", fill=(10.0, 20.4), noise_scale=(1.0, 2.0), low=0.0, high=255.0):
    return Perturbation(
        kind=kind,
        fill=fill if isinstance(fill, str) else torch.tensor(fill, dtype=torch.float64),
        mean=torch.tensor([33.0, 77.0], dtype=torch.float64),
        noise_scale=torch.tensor(noise_scale, dtype=torch.float64),
        low=low,
        high=high,
    )


@given(
    height=st.integers(2, 12),
    width=st.integers(2, 12),
    quantile=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_the_share_that_is_hidden(height, width, quantile, seed):
    rng = np.random.default_rng(seed)
    maps = rng.permutation(height * width * 2).reshape(2, 1, height, width).astype(np.float32)
    hidden = hidden_pixels(torch.from_numpy(maps), quantile, 0)[:, 0].numpy()
    assert hidden.shape == (2, height, width)
    for one, mask in zip(maps[:, 0], hidden, strict=True):
        # Rounded to whole pixels; at least one pixel is kept.
        assert abs(mask.sum() - (1 - quantile) * mask.size) <= 1
        if mask.any():
            assert one[mask].min() > one[~mask].max()


@given(arrays(np.float32, (2, 1, 4, 5), elements=st.integers(0, 3)), st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_ties_hide_less_and_never_more(maps, quantile):
    hidden = hidden_pixels(torch.from_numpy(maps), quantile, 0).numpy()
    for one, mask in zip(maps, hidden, strict=True):
        assert mask.sum() <= (1 - quantile) * 20 + 0.5
        assert not mask.any() or one[mask].min() > one[~mask].max()


def test_the_published_rule():
    # map > quantile(map, q)
    maps = torch.rand(3, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    expected = maps > torch.quantile(maps.flatten(1), 0.7, dim=1).reshape(3, 1, 1, 1)
    assert torch.equal(hidden_pixels(maps, 0.7, 0), expected)


def test_each_map_has_its_own_quantile():
    maps = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    together = hidden_pixels(maps, 0.8, 1)
    assert together.shape == maps.shape
    for row in range(2):
        for column in range(3):
            alone = hidden_pixels(maps[row, column][None, None], 0.8, 1)
            assert torch.equal(together[row, column], alone[0, 0])


@pytest.mark.parametrize("margin", [0, 1, 3])
def test_a_map_of_one_value_hides_nothing(margin):
    assert not hidden_pixels(torch.full((1, 1, 4, 4), 0.5), 0.7, margin).any()


def test_a_margin_by_hand():
    # The two highest of 35 pixels, one of them in the corner.
    one = torch.zeros(1, 1, 5, 7)
    one[0, 0, 0, 0] = one[0, 0, 3, 4] = 1
    found = hidden_pixels(one, 33 / 35, 1)[0, 0].int().tolist()
    assert found == [
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 1, 0],
    ]


@pytest.mark.parametrize("margin", [1, 2, 4, 20])
def test_a_margin_is_all_pixels_that_are_near(margin):
    maps = torch.rand(2, 2, 9, 13, generator=torch.Generator().manual_seed(1))
    core, found = hidden_pixels(maps, 0.95, 0), hidden_pixels(maps, 0.95, margin)
    rows, columns = np.indices((9, 13))
    for one, grown in zip(core.reshape(4, 9, 13), found.reshape(4, 9, 13), strict=True):
        near = np.zeros((9, 13), dtype=bool)
        for y, x in np.argwhere(one.numpy()):
            near |= np.maximum(abs(rows - y), abs(columns - x)) <= margin
        np.testing.assert_array_equal(grown, near)


@pytest.mark.parametrize(
    "patch_size, stride, expected",
    [(16, 2, 4), (32, 4, 8), (4, 2, 1), (1, 1, 1), (8, 8, 4), (22, 1, 5)],
)
def test_the_margin_that_goes_with_a_grid(patch_size, stride, expected):
    # A quarter of the patch, half of the stride and one pixel at least.
    assert auto_margin(patch_size, stride) == expected


DTYPES = [torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("kind", ["mask", "noise"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_other_pixels_stay_to_the_bit(kind, dtype):
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(3, 2, 6, 5, generator=generator) * 255).to(dtype)
    hidden = torch.rand(3, 6, 5, generator=generator) < 0.4
    before = images.clone()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = perturbation(kind, noise_scale=(40.0, 40.0))(images, hidden)
    assert found.dtype == dtype
    assert torch.equal(images, before)
    kept = ~hidden[:, None].expand_as(images)
    assert torch.equal(found[kept], images[kept])
    changed = (found != images).any(1)
    assert (changed & ~hidden).sum() == 0
    assert changed.sum() > 0.9 * hidden.sum()


@pytest.mark.parametrize(
    "dtype, expected", [(torch.uint8, [10, 20]), (torch.float32, [10, 20.4])], ids=str
)
def test_the_fill_is_one_colour_a_channel(dtype, expected):
    images = torch.full((2, 2, 3, 3), 200).to(dtype)
    hidden = torch.zeros(2, 3, 3, dtype=torch.bool)
    hidden[0, 1, 2] = True
    found = perturbation()(images, hidden)
    assert found[0, :, 1, 2].tolist() == pytest.approx(expected)
    assert (found == 200).sum() == found.numel() - 2


def test_noise_has_the_scale_of_its_channel():
    images = torch.full((100, 2, 20, 20), 100.0)
    hidden = torch.ones(100, 20, 20, dtype=torch.bool)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        added = perturbation("noise", low=-1e9, high=1e9)(images, hidden) - images
    for channel, scale in enumerate((1.0, 2.0)):
        values = added[:, channel].flatten()
        error = scale / len(values) ** 0.5
        assert abs(values.mean().item()) < 5 * error
        assert values.std().item() == pytest.approx(scale, abs=5 * error)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_noise_stays_in_the_range(dtype):
    images = torch.full((4, 2, 8, 8), 3).to(dtype)
    images[:, :, 4:] = 98
    hidden = torch.ones(4, 8, 8, dtype=torch.bool)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = perturbation("noise", noise_scale=(30.0, 30.0), high=100.0)(images, hidden)
    assert found.min() == 0
    assert found.max() == 100
    assert len(found.unique()) > 20


def test_noise_that_is_given_is_used():
    images = torch.full((1, 2, 2, 2), 100, dtype=torch.uint8)
    noise = torch.tensor([[[[0.6, -1.0], [0.0, 2.4]], [[0.2, -3.0], [0.3, 100.0]]]])
    found = perturbation("noise")(images, torch.ones(1, 2, 2, dtype=torch.bool), noise)
    assert found.tolist() == [[[[101, 99], [100, 102]], [[100, 94], [101, 255]]]]


# Fills that use the surroundings ----------------------------------------------------------


def box(height, width, top, left, side):
    hidden = torch.zeros(1, height, width, dtype=torch.bool)
    hidden[:, top : top + side, left : left + side] = True
    return hidden


@pytest.fixture(params=["blur", "inpaint"])
def around(request):
    if request.param == "inpaint":
        pytest.importorskip("skimage")
    return request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_visible_stays_to_the_bit(around, dtype):
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(2, 2, 9, 7, generator=generator) * 255).to(dtype)
    hidden = torch.rand(2, 9, 7, generator=generator) < 0.3
    before = images.clone()
    found = perturbation(fill=around)(images, hidden)
    assert found.dtype == dtype
    assert torch.equal(images, before)
    kept = ~hidden[:, None].expand_as(images)
    assert torch.equal(found[kept], images[kept])
    assert (found[~kept] != images[~kept]).double().mean() > 0.9


def test_what_was_hidden_is_not_looked_at(around):
    images = torch.rand(2, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    hidden = box(9, 8, 2, 3, 4).expand(2, -1, -1)
    other = torch.where(hidden[:, None], 7 - images, images)
    fill = perturbation(fill=around)
    assert torch.equal(fill(images, hidden), fill(other, hidden))


def test_constant_surroundings_are_continued(around):
    colours = torch.tensor([[0.25, 3.0], [40.0, 200.0]])[:, :, None, None]
    images = colours.repeat(1, 1, 11, 14)
    hidden = torch.cat([box(11, 14, 3, 4, 5), box(11, 14, 0, 0, 7)])
    spoilt = torch.where(hidden[:, None], 99.0, images)
    found = perturbation(fill=around)(spoilt, hidden)
    torch.testing.assert_close(found, images, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side, top, left", [(2, 8, 10), (4, 8, 8), (4, 9, 10), (9, 6, 11)])
def test_a_slope_is_continued(around, side, top, left):
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(30.0), indexing="ij")
    images = torch.stack([3 * x + 2 * y, 100 - x])[None]
    hidden = box(24, 30, top, left, side)
    found = perturbation(fill=around)(torch.where(hidden[:, None], 250.0, images), hidden)
    off = (found - images).abs()[0, :, hidden[0]]
    # In units of the rise over the hole; the best single colour is off by half of it.
    assert off[0].max() < 0.05 * 5 * side
    assert off[1].max() < 0.05 * side
    if around == "inpaint":  # a plane solves the equation
        assert off.max() < 1e-2


def test_images_of_which_nothing_is_visible_get_the_mean(around):
    images = torch.rand(2, 2, 5, 6, generator=torch.Generator().manual_seed(0)) * 200
    hidden = torch.stack([torch.ones(5, 6), torch.zeros(5, 6)]) > 0
    found = perturbation(fill=around)(images, hidden)
    for channel, mean in zip(found[0], (33.0, 77.0), strict=True):
        torch.testing.assert_close(channel, torch.full((5, 6), mean))
    assert torch.equal(found[1], images[1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 2), (17, 23)])
def test_fills_of_images_of_any_size_lie_within_what_is_visible(shape):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 2, *shape, generator=generator) * 200
    hidden = torch.rand(3, *shape, generator=generator) < 0.6
    hidden[:, 0, 0] = shape == (1, 1)
    found = perturbation(fill="blur")(images, hidden)
    for image, filled, pixels in zip(images, found, hidden, strict=True):
        if pixels.all():
            continue
        for before, after in zip(image, filled, strict=True):
            seen = before[~pixels]
            assert seen.min() - 1e-4 <= after.min() <= after.max() <= seen.max() + 1e-4


def test_an_image_is_filled_alone(around):
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(3, 2, 9, 8, generator=generator)
    hidden = torch.rand(3, 9, 8, generator=generator) < 0.3
    together = perturbation(fill=around)(images, hidden)
    for row in range(3):
        alone = perturbation(fill=around)(images[row : row + 1], hidden[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-6, atol=1e-6)


def test_inpainting_is_that_of_scikit_image():
    restoration = pytest.importorskip("skimage.restoration")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(2, 2, 12, 10), dtype=np.uint8)
    hidden = torch.cat([box(12, 10, 3, 2, 4), box(12, 10, 0, 6, 3)])
    found = perturbation(fill="inpaint")(torch.from_numpy(images), hidden).numpy()
    for image, pixels, filled in zip(images, hidden.numpy(), found, strict=True):
        last = image.transpose(1, 2, 0) / 255
        expected = restoration.inpaint_biharmonic(last, pixels, channel_axis=2) * 255
        expected = np.round(expected).clip(0, 255).transpose(2, 0, 1)
        assert abs(filled - expected)[:, pixels].max() <= 1
        assert (filled == expected)[:, pixels].mean() > 0.95


# Swaps ------------------------------------------------------------------------------------


def test_a_swap_by_hand():
    images = torch.tensor([[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]], dtype=torch.uint8)
    hidden = torch.tensor([[[True, True], [False, False]], [[False, False], [False, True]]])
    pasted = torch.tensor([[[False, True], [True, False]], [[False, False], [False, False]]])
    found = perturbation("swap", fill=(9.0,)).swap(images, hidden, images.flip(0), pasted)
    # The first is filled above and gets two pixels of the second, one of them where it was not
    # filled; the second is only filled.
    assert found.tolist() == [[[[9, 6], [7, 4]]], [[[5, 6], [7, 9]]]]
    assert found.dtype == torch.uint8
