"""Positions of patches and their pixel maps, against counting by hand and plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skfair.attribution._grid import PatchGrid


@st.composite
def grids(draw):
    """Any valid grid, square or not."""
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
    """Algorithm 1 of the paper, as printed."""
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


# Images at whose border the grid does not end ---------------------------------------------


@st.composite
def any_grids(draw):
    k = draw(st.integers(1, 7))
    height, width = draw(st.integers(k, 20)), draw(st.integers(k, 20))
    return PatchGrid(height, width, k, draw(st.integers(1, k)))


@given(grid=any_grids(), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_every_pixel_is_seen_and_no_patch_is_in_vain(grid, seed):
    k, stride = grid.patch_size, grid.stride
    for n, side in ((grid.n_rows, grid.height), (grid.n_cols, grid.width)):
        reach = (n - 1) * stride + k
        assert side <= reach < side + stride
    images = torch.rand(
        2, 3, grid.height, grid.width, generator=torch.Generator().manual_seed(seed)
    )
    padded = grid.pad(images)
    assert padded.shape[2:] == ((grid.n_rows - 1) * stride + k, (grid.n_cols - 1) * stride + k)
    expected = np.pad(
        images.numpy(),
        [
            (0, 0),
            (0, 0),
            (0, padded.shape[2] - grid.height),
            (0, padded.shape[3] - grid.width),
        ],
        mode="edge",
    )
    np.testing.assert_array_equal(padded, expected)
    # The patches are those of the padded images, and maps are of the images.
    positions = torch.arange(len(grid))
    which = torch.zeros(len(grid), dtype=torch.int64)
    last = grid.patches(padded, positions, which)[-1]
    assert torch.equal(last, padded[0, :, -k:, -k:])
    region_map = np.random.default_rng(seed).normal(size=(grid.n_rows, grid.n_cols))
    found = grid.pixel_map(torch.from_numpy(region_map)).numpy()
    np.testing.assert_allclose(found, algorithm_1(region_map, grid), rtol=1e-12, atol=1e-12)


def test_a_grid_that_ends_at_the_border_pads_nothing():
    images = torch.rand(1, 3, 9, 11)
    assert PatchGrid(9, 11, patch_size=5, stride=2).pad(images) is images


def test_a_padded_grid_by_hand():
    grid = PatchGrid(height=6, width=8, patch_size=4, stride=3)
    assert (grid.n_rows, grid.n_cols) == (2, 3)  # rows 0 and 3, columns 0, 3 and 6
    image = torch.arange(48.0).reshape(1, 1, 6, 8)
    padded = grid.pad(image)[0, 0]
    assert padded.shape == (7, 10)
    assert padded[:, 7].tolist() == padded[:, 8].tolist() == padded[:, 9].tolist()
    assert padded[6].tolist() == padded[5].tolist()
    found = grid.pixel_map(torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]))
    # Row 3 lies in both rows of patches, columns 3 and 6 in two columns.
    assert found[0].tolist() == [1, 1, 1, 1.5, 2, 2, 3, 4]
    assert found[3].tolist() == [4.5, 4.5, 4.5, 6.75, 9, 9, 13.5, 18]
    assert found[5].tolist() == [8, 8, 8, 12, 16, 16, 24, 32]
