"""Region networks: one pass over an image gives the logits of its patches one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skfair.attribution._grid import PatchGrid
from skfair.attribution._region_networks import (
    DenseRegionNet,
    ResNetRegionNet,
    receptive_kernels,
)


def lively(network):
    """Set double precision, and normalisations that change their input."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean = 0.3 * torch.randn(shape, generator=generator)
            module.running_var = 0.5 + torch.rand(shape, generator=generator)
    return network.double().eval()


def dense(n_channels, k, n_outputs, grid):
    shape = None if grid is None else (grid.n_rows, grid.n_cols)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lively(DenseRegionNet(n_channels, k, n_outputs, shape))


def images_of(n, n_channels, grid):
    generator = torch.Generator().manual_seed(2)
    shape = (n, n_channels, grid.height, grid.width)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def patch_by_patch(network, images, grid):
    """Logits of shape (n, n_outputs, n_rows, n_cols), by cutting out every patch."""
    k, rows = grid.patch_size, []
    for row in range(grid.n_rows):
        columns = []
        for column in range(grid.n_cols):
            y, x = row * grid.stride, column * grid.stride
            position = torch.full((len(images),), row * grid.n_cols + column)
            columns.append(network(images[..., y : y + k, x : x + k], position))
        rows.append(torch.stack(columns, -1))
    return torch.stack(rows, -2)


@given(st.integers(1, 300))
@settings(deadline=None)
def test_kernels_see_exactly_the_patch(patch_size):
    kernels = receptive_kernels(patch_size)
    assert 1 + sum((kernel - 1) * 2**i for i, kernel in enumerate(kernels)) == patch_size
    assert all(1 <= kernel <= 6 for kernel in kernels)
    assert min(kernels) >= 3 or len(kernels) == 1


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7, 8, 12, 13])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("position", [True, False])
@torch.no_grad()
def test_one_pass_is_what_the_patches_give(k, stride, position):
    if stride > k:
        k = stride
    grid = PatchGrid(k + 3 * stride, k + 2 * stride, k, stride)
    network = dense(2, k, 3, grid if position else None)
    images = images_of(2, 2, grid)
    found = network.regions(images, stride)
    assert found.shape == (2, 3, 4, 3)
    expected = patch_by_patch(network, images, grid)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert expected.std() > 1e-4  # the logits differ, so that the comparison means something


@pytest.mark.parametrize("k", [31, 32, 33, 47, 48, 50, 64])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@torch.no_grad()
def test_one_pass_over_large_patches(k, stride):
    grid = PatchGrid(k + 2 * stride, k + stride, k, stride)
    network = dense(1, k, 2, grid)
    images = images_of(1, 1, grid)
    expected = patch_by_patch(network, images, grid)
    torch.testing.assert_close(network.regions(images, stride), expected, rtol=0, atol=1e-10)
    assert expected.std() > 1e-4


@given(st.data())
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_a_coarse_grid_is_a_part_of_the_fine_one(data):
    k = data.draw(st.integers(1, 9))
    stride = data.draw(st.integers(1, k))
    n_rows, n_cols = data.draw(st.integers(2, 9)), data.draw(st.integers(2, 9))
    grid = PatchGrid(k + (n_rows - 1) * stride, k + (n_cols - 1) * stride, k, stride)
    every = data.draw(st.integers(1, min(n_rows, n_cols)))
    row, column = (data.draw(st.integers(0, every - 1)) for _ in range(2))
    network = dense(1, k, 2, grid)
    images = images_of(1, 1, grid)
    found = network.regions(images, stride, every, (row, column))
    expected = network.regions(images, stride)[..., row::every, column::every]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("k, stride", [(4, 1), (5, 2), (8, 3), (32, 8), (49, 24)])
@torch.no_grad()
def test_the_receptive_field_is_the_patch(k, stride):
    grid = PatchGrid(k + 2 * stride, k + 2 * stride, k, stride)
    network = dense(1, k, 2, grid)
    image = images_of(1, 1, grid)
    reference = network.regions(image, stride)[0, :, 1, 1]
    # At the border of the patch and beside it, and some of the rest.
    edges = [0, stride - 1, stride, stride + 1, k // 2, stride + k - 1, stride + k, grid.height - 1]
    for row in edges:
        touched = image.repeat(len(edges), 1, 1, 1)
        touched[torch.arange(len(edges)), 0, row, torch.tensor(edges)] += 30
        found = network.regions(touched, stride)[:, :, 1, 1]
        changed = ((found - reference).abs() > 1e-10).any(1)
        inside = [stride <= row < stride + k and stride <= x < stride + k for x in edges]
        assert changed.tolist() == inside


@torch.no_grad()
def test_positions_are_counted_row_by_row():
    grid = PatchGrid(5, 7, patch_size=3, stride=1)
    network = dense(1, 3, 2, grid)
    patch = images_of(1, 1, PatchGrid(3, 3, 3, 1)).expand(len(grid), -1, -1, -1)
    alone = network(patch, torch.arange(len(grid)))
    assert len(torch.unique(alone[:, 0])) == len(grid)  # the network uses the position
    # In an image of one colour only the positions differ.
    flat = torch.full((1, 1, 5, 7), 0.3, dtype=torch.float64)
    expected = network(flat[..., :3, :3].expand(len(grid), -1, -1, -1), torch.arange(len(grid)))
    torch.testing.assert_close(
        network.regions(flat, 1)[0].flatten(1).T, expected, rtol=0, atol=1e-10
    )


@torch.no_grad()
def test_without_positions_any_size_and_any_place_do():
    network = dense(1, 4, 2, None)
    patch = images_of(3, 1, PatchGrid(4, 4, 4, 1))
    here, there = network(patch, torch.zeros(3).long()), network(patch, torch.full((3,), 99))
    assert torch.equal(here, there)
    assert network.regions(images_of(1, 1, PatchGrid(10, 14, 4, 2)), 2).shape == (1, 2, 4, 6)


@pytest.mark.parametrize("n_channels, k, n_outputs", [(3, 8, 2), (1, 5, 4), (2, 1, 3)])
@torch.no_grad()
def test_resnet_has_the_published_layers(n_channels, k, n_outputs):
    network = ResNetRegionNet(n_channels, k, n_outputs, 6).eval()
    assert network.position.weight.shape == (6, k * k)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions[0].in_channels == n_channels + 1
    assert convolutions[0].stride == (1, 1)
    # 17 convolutions and the linear layer, and a projection where the width changes.
    assert sum(m.kernel_size == (3, 3) for m in convolutions) == 17
    assert [m.out_channels for m in convolutions if m.kernel_size == (1, 1)] == [128, 256, 512]
    patches = torch.randn(4, n_channels, k, k)
    logits = network(patches, torch.tensor([0, 1, 2, 5]))
    assert logits.shape == (4, n_outputs)


@torch.no_grad()
def test_resnet_is_told_the_position_or_not():
    patch = torch.randn(1, 1, 4, 4).expand(2, -1, -1, -1)
    positions = torch.tensor([0, 3])
    told = ResNetRegionNet(1, 4, 2, 4).eval()(patch, positions)
    assert not torch.equal(told[0], told[1])
    untold = ResNetRegionNet(1, 4, 2, None).eval()
    one, other = untold(patch, positions)
    torch.testing.assert_close(one, other)
    assert untold.layers[0].in_channels == 1


@torch.no_grad()
def test_the_position_of_a_resnet_is_a_channel_of_the_patch():
    network = ResNetRegionNet(2, 3, 2, 5).eval()
    patch = torch.randn(1, 2, 3, 3)
    channel = network.position.weight[4].reshape(1, 1, 3, 3)
    expected = network.layers(torch.cat([patch, channel], 1))
    torch.testing.assert_close(network(patch, torch.tensor([4])), expected)
