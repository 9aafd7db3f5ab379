"""Hiding pixels: which, by what, and that all others stay as they are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skfair.attribution._perturbation import Perturbation, hidden_pixels


def perturbation(kind="mask", fill=(10.0, 20.4), noise_scale=(1.0, 2.0), low=0.0, high=255.0):
    return Perturbation(
        kind=kind,
        fill=torch.tensor(fill, dtype=torch.float64),
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
    hidden = hidden_pixels(torch.from_numpy(maps), quantile).numpy()
    assert hidden.shape == (2, height, width)
    for one, mask in zip(maps[:, 0], hidden, strict=True):
        # To the nearest pixel, and of all pixels not one.
        assert abs(mask.sum() - (1 - quantile) * mask.size) <= 1
        if mask.any():
            assert one[mask].min() > one[~mask].max()


@given(arrays(np.float32, (2, 1, 4, 5), elements=st.integers(0, 3)), st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_ties_hide_less_and_never_more(maps, quantile):
    hidden = hidden_pixels(torch.from_numpy(maps), quantile).numpy()
    for one, mask in zip(maps[:, 0], hidden, strict=True):
        assert mask.sum() <= (1 - quantile) * 20 + 0.5
        assert not mask.any() or one[mask].min() > one[~mask].max()


def test_the_published_rule():
    # map > quantile(map, q)
    maps = torch.rand(3, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    hidden = hidden_pixels(maps, 0.7)[:, None]
    expected = maps > torch.quantile(maps.flatten(1), 0.7, dim=1).reshape(3, 1, 1, 1)
    assert torch.equal(hidden, expected)


def test_of_several_maps_any_hides():
    maps = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    single = [hidden_pixels(maps[:, i : i + 1], 0.8) for i in range(3)]
    assert torch.equal(hidden_pixels(maps, 0.8), single[0] | single[1] | single[2])


def test_a_map_of_one_value_hides_nothing():
    assert not hidden_pixels(torch.full((1, 1, 4, 4), 0.5), 0.7).any()


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
