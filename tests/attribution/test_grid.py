"""Where patches lie and what a pixel gets of them, against counting by hand and plain loops."""

import re

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skfair.attribution._grid import PatchGrid


@st.composite
def grids(draw):
    """Any grid that works, square or not."""
    k = draw(st.integers(1, 7))
    stride = draw(st.integers(1, k))
    n_rows, n_cols = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return PatchGrid(k + (n_rows - 1) * stride, k + (n_cols - 1) * stride, k, stride)


def test_positions_of_a_small_grid_by_hand():
    grid = PatchGrid(height=7, width=11, patch_size=5, stride=2)
    assert (grid.n_rows, grid.n_cols, len(grid)) == (2, 4, 8)
    rows, columns = grid.corners(torch.arange(8))
    assert rows.tolist() == [0, 0, 0, 0, 2, 2, 2, 2]
    assert columns.tolist() == [0, 2, 4, 6, 0, 2, 4, 6]
    assert rows.dtype == columns.dtype == torch.int64


def test_the_published_grid():
    grid = PatchGrid(128, 128, patch_size=32, stride=2)
    assert len(grid) == 2401
    assert [int(corner) for corner in grid.corners(torch.tensor(2400))] == [96, 96]
    assert [int(corner) for corner in grid.corners(torch.tensor(49))] == [2, 0]


@given(grid=grids(), n=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_patches_are_slices(grid, n, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, grid.height, grid.width, generator=generator)
    positions = torch.randint(len(grid), (2 * n,), generator=generator)
    which = torch.randint(n, (2 * n,), generator=generator)
    patches = grid.patches(images, positions, which)
    assert patches.shape == (2 * n, 3, grid.patch_size, grid.patch_size)
    for image, position, patch in zip(images[which], positions.tolist(), patches, strict=True):
        y = position // grid.n_cols * grid.stride
        x = position % grid.n_cols * grid.stride
        expected = image[:, y : y + grid.patch_size, x : x + grid.patch_size]
        assert torch.equal(patch, expected)


def algorithm_1(region_map, grid):
    """Algorithm 1 of the paper, as it is printed."""
    total = np.zeros((grid.height, grid.width))
    count = np.zeros((grid.height, grid.width))
    k, s = grid.patch_size, grid.stride
    for row in range(grid.n_rows):
        for column in range(grid.n_cols):
            y, x = row * s, column * s
            total[y : y + k, x : x + k] += region_map[row, column]
            count[y : y + k, x : x + k] += 1
    return total / count


@given(grid=grids(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_pixel_maps_are_those_of_the_plain_loop(grid, seed):
    region_map = np.random.default_rng(seed).normal(size=(2, 3, grid.n_rows, grid.n_cols))
    found = grid.pixel_map(torch.from_numpy(region_map)).numpy()
    assert found.shape == (2, 3, grid.height, grid.width)
    expected = [[algorithm_1(one, grid) for one in some] for some in region_map]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    single = grid.pixel_map(torch.from_numpy(region_map).float()).numpy()
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-5)


def test_a_pixel_map_by_hand():
    # 1 x 2 patches of 2 x 2 pixels, one pixel apart: the middle column lies in both.
    grid = PatchGrid(2, 3, patch_size=2, stride=1)
    found = grid.pixel_map(torch.tensor([[1.0, 5.0]]))
    assert found.tolist() == [[1.0, 3.0, 5.0], [1.0, 3.0, 5.0]]


@pytest.mark.parametrize("height, width", [(4, 9), (9, 4), (4, 4)])
def test_a_patch_larger_than_the_images(height, width):
    with pytest.raises(
        ValueError,
        match=rf"patch_size=5 is larger than the images, .* {height} x {width} .*patch_size=4 or",
    ):
        PatchGrid(height, width, 5, 1)
    PatchGrid(height, width, 4, 1)


def test_a_stride_that_leaves_gaps():
    with pytest.raises(ValueError, match=r"stride=3 is larger than patch_size=2.*stride=2 or less"):
        PatchGrid(8, 8, 2, 3)
    PatchGrid(8, 8, 2, 2)


@given(
    stride=st.integers(2, 12),
    overlap=st.integers(0, 8),
    more_height=st.integers(0, 20),
    more_width=st.integers(0, 20),
)
@settings(max_examples=150, deadline=None)
def test_what_the_message_names_works(stride, overlap, more_height, more_width):
    k = stride + overlap
    height, width = k + more_height, k + more_width
    assume((height - k) % stride or (width - k) % stride)
    with pytest.raises(ValueError, match="multiples of the stride") as caught:
        PatchGrid(height, width, k, stride)
    message = str(caught.value)
    assert f"patch_size={k} moved by stride={stride}" in message
    assert f"{height} x {width}" in message
    nearest = message.split("The nearest that work:")[1]
    PatchGrid(height, width, k, int(re.search(r"stride=(\d+)", nearest)[1]))
    size = [int(side) for side in re.search(r"cropped to (\d+) x (\d+)", nearest).groups()]
    PatchGrid(*size, k, stride)
    assert 0 <= height - size[0] < stride
    assert 0 <= width - size[1] < stride

    def works(k):
        return (height - k) % stride == (width - k) % stride == 0

    sizes = [p for p in range(stride, min(height, width) + 1) if works(p)]
    if sizes:
        named = int(re.search(r"patch_size=(\d+)", nearest)[1])
        assert abs(named - k) == min(abs(p - k) for p in sizes)
        PatchGrid(height, width, named, stride)
    else:
        assert "patch_size" not in nearest


def test_the_message_names_the_nearest():
    with pytest.raises(ValueError, match=r"stride=3, patch_size=28, or .* 125 x 125\.$"):
        PatchGrid(128, 128, 29, 4)
