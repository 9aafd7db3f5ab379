"""The region classifier: inputs of its network in training and for maps, and its loss."""

import numpy as np
import pytest
import torch
from torch import nn

from skfair.attribution._grid import PatchGrid
from skfair.attribution._region_classifier import (
    RegionClassifier,
    RegionLoss,
    train_region_classifier,
)
from skfair.attribution._region_networks import DenseRegionNet, ResNetRegionNet

MEAN, STD = torch.tensor([100.0, 20.0]), torch.tensor([50.0, 10.0])
GRID = PatchGrid(9, 7, patch_size=3, stride=2)


class Recorder(nn.Module):
    """Records its inputs; its logits are the mean of the patch and the position."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, patches, positions):
        self.seen.append((patches.detach().clone(), positions.clone(), self.training))
        means = patches.mean((1, 2, 3))
        return torch.stack([means, positions + 0.0 * means], 1) + self.weight


def classifier_of(network, n_classes=(2,), grid=GRID):
    return RegionClassifier(
        network,
        n_classes=n_classes,
        mean=MEAN,
        std=STD,
        patch_size=grid.patch_size,
        stride=grid.stride,
    ).eval()


def images_of(n, grid=GRID, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(
        rng.integers(0, 256, size=(n, 2, grid.height, grid.width), dtype=np.uint8)
    )


def standardised(images):
    return (images.double() - MEAN[:, None, None]) / STD[:, None, None]


@pytest.mark.parametrize("n", [1, 2, 5, 11])
def test_a_network_of_patches_sees_every_patch_once(n):
    recorder = Recorder()
    images = images_of(n)
    (logits,) = classifier_of(recorder).logits(images)
    assert logits.shape == (n, 2, GRID.n_rows, GRID.n_cols)
    assert not logits.requires_grad
    at_once = [len(positions) for _, positions, _ in recorder.seen]
    assert sum(at_once) == n * len(GRID)
    # No batch of patches has more pixels than the images.
    assert max(at_once) * GRID.patch_size**2 <= n * GRID.height * GRID.width
    for image in range(n):
        for row in range(GRID.n_rows):
            for column in range(GRID.n_cols):
                y, x = 2 * row, 2 * column
                patch = standardised(images[image])[:, y : y + 3, x : x + 3]
                found = logits[image, :, row, column]
                assert found[0].item() == pytest.approx(patch.mean().item(), abs=1e-5)
                assert found[1].item() == row * GRID.n_cols + column


@pytest.mark.parametrize("kind", ["dense", "resnet18"])
@torch.no_grad()
def test_logits_are_those_of_the_network_on_each_patch(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "dense":
            network = DenseRegionNet(2, 3, 5, (GRID.n_rows, GRID.n_cols))
        else:
            network = ResNetRegionNet(2, 3, 5, len(GRID))
    images = images_of(3)
    first, second = classifier_of(network, (2, 3)).logits(images)
    assert first.shape == (3, 2, 4, 3)
    assert second.shape == (3, 3, 4, 3)
    for position in range(len(GRID)):
        y, x = position // 3 * 2, position % 3 * 2
        patches = standardised(images)[..., y : y + 3, x : x + 3].float()
        expected = network(patches, torch.full((3,), position))
        found = torch.cat([first, second], 1)[:, :, position // 3, position % 3]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_probabilities_are_those_of_tempered_logits():
    network = DenseRegionNet(2, 3, 5, (GRID.n_rows, GRID.n_cols))
    classifier = classifier_of(network, (2, 3))
    classifier.temperature[:] = torch.tensor([2.0, 0.5])
    images = images_of(2)
    for logits, probability, temperature in zip(
        classifier.logits(images), classifier.probabilities(images), (2.0, 0.5), strict=True
    ):
        exponentials = torch.exp(logits.double() / temperature)
        expected = exponentials / exponentials.sum(1, keepdim=True)
        torch.testing.assert_close(probability.double(), expected, rtol=1e-5, atol=1e-7)
        assert not probability.requires_grad


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.int64])
def test_images_of_any_type_are_standardised(dtype):
    recorder = Recorder()
    classifier_of(recorder).logits(images_of(1).to(dtype))
    patches = torch.cat([patches for patches, _, _ in recorder.seen])
    assert patches.dtype == torch.float32
    expected = standardised(images_of(1))[0, :, :3, :3]
    torch.testing.assert_close(patches[0].double(), expected, rtol=1e-5, atol=1e-6)


def test_training_sees_one_random_patch_an_image():
    recorder = Recorder()
    images = images_of(400)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = classifier_of(recorder)(images)
    assert out.shape == (400, 2)
    assert out.requires_grad
    ((patches, positions, _),) = recorder.seen
    assert patches.shape == (400, 2, 3, 3)
    counts = torch.bincount(positions, minlength=len(GRID))
    assert len(counts) == len(GRID)
    assert counts.min() > 10  # 33 are expected, with a standard deviation of 5.5
    for image, position, patch in zip(images, positions.tolist(), patches, strict=True):
        y, x = position // 3 * 2, position % 3 * 2
        expected = standardised(image)[:, y : y + 3, x : x + 3]
        torch.testing.assert_close(patch.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side, n_positions", [(9, {81}), (39, {169})])
def test_training_of_a_dense_network_sees_a_grid_of_many(side, n_positions):
    # 7 x 7 positions are all computed; of 37 x 37 every third one, 13 x 13 of them or 12 x 12.
    n_positions = {49} if side == 9 else {13 * 13, 13 * 12, 12 * 12}
    grid = PatchGrid(side, side, 3, 1)
    network = DenseRegionNet(2, 3, 2, (grid.n_rows, grid.n_cols)).eval()
    classifier = classifier_of(network, grid=grid)
    images = images_of(1, grid)
    (every_one,) = classifier.logits(images)
    every_one = every_one[0].flatten(1).T
    seen, covered = set(), torch.zeros(len(every_one), dtype=torch.bool)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for _ in range(40):
            out = classifier(images)
            seen.add(out[0, 0].numel())
            # Numbers of the order of one, in float32: for fewer positions other kernels may be
            # chosen, which differ by some 1e-6. No two positions are closer than 5e-4.
            off = (out[0].flatten(1).T[:, None] - every_one).abs().amax(2)
            assert (off.amin(1) < 1e-4).all()
            covered |= (off < 1e-4).any(0)
    assert seen <= n_positions
    assert covered.all()


def cross_entropy(logits, code, smoothing):
    """The definition: a share of the label is spread over all classes."""
    log_probability = logits - np.log(np.exp(logits).sum())
    target = np.full(len(logits), smoothing / len(logits))
    target[code] += 1 - smoothing
    return -(target * log_probability).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_by_hand(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5, 2, 3))
    codes = np.array([[0, 2], [1, 0], [1, 1], [0, 0]])
    loss = RegionLoss((2, 3), smoothing)
    found = loss(torch.from_numpy(logits), torch.from_numpy(codes))
    expected = [
        np.mean(
            [
                cross_entropy(one[:2, row, column], first, smoothing)
                + cross_entropy(one[2:, row, column], second, smoothing)
                for row in range(2)
                for column in range(3)
            ]
        )
        for one, (first, second) in zip(logits, codes, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    # For a network that sees one patch of each image.
    single = loss(torch.from_numpy(logits[..., 1, 2]), torch.from_numpy(codes))
    expected = [
        cross_entropy(one[:2, 1, 2], first, smoothing)
        + cross_entropy(one[2:, 1, 2], second, smoothing)
        for one, (first, second) in zip(logits, codes, strict=True)
    ]
    np.testing.assert_allclose(single, expected, rtol=1e-10)


def trained(n, weight, **parameters):
    recorder = Recorder()
    parameters = {"batch_size": 8, "max_epochs": 2, "lr": 0.01, **parameters}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        train_region_classifier(
            classifier_of(recorder),
            torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 2, 9, 7),
            torch.zeros(n, 1, dtype=torch.int64),
            weight,
            label_smoothing=0.1,
            weight_decay=0.0,
            device=torch.device("cpu"),
            description=None,
            **parameters,
        )
    return recorder


def rows_of(recorder):
    """The images that a recorder saw: image i has the grey value i."""
    values = torch.cat([patches[:, 1, 0, 0] for patches, _, _ in recorder.seen])
    return (values * STD[1] + MEAN[1]).round().long()


def test_images_are_drawn_by_their_weight():
    weight = torch.zeros(200, dtype=torch.float64)
    weight[:50], weight[50:60] = 1 / 100, 1 / 20  # fifty that count as much as ten
    rows = rows_of(trained(200, weight, max_epochs=10, batch_size=16))
    assert rows.max() < 60
    share = (rows < 50).double().mean().item()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / len(rows) ** 0.5)


def test_every_batch_is_full_and_in_training_mode():
    recorder = trained(33, torch.ones(33, dtype=torch.float64))
    sizes = [len(patches) for patches, _, _ in recorder.seen]
    assert set(sizes) == {3}  # a tenth of the images, less than the eight asked for
    assert sum(sizes) == 2 * 33
    assert all(training for _, _, training in recorder.seen)
    assert not recorder.training


def test_the_learning_rate_rises_fast_and_falls_to_zero():
    # The gradient of the weight has one sign here, so that AdamW's steps are of the size of the
    # learning rate.
    values = []

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, patches, positions):
            values.append(self.weight.item())
            logits = torch.stack([self.weight, -self.weight], 1)
            return logits.expand(len(patches), -1)

    network = Slope()
    train_region_classifier(
        classifier_of(network),
        images_of(20),
        torch.zeros(20, 1, dtype=torch.int64),
        torch.ones(20, dtype=torch.float64),
        label_smoothing=0.0,
        lr=0.01,
        weight_decay=0.0,
        batch_size=2,
        max_epochs=10,
        device=torch.device("cpu"),
        description=None,
    )
    steps = np.diff([*values, network.weight.item()])
    assert len(steps) == 100
    peak = steps.argmax()
    assert 5 <= peak <= 15
    assert steps[peak] == pytest.approx(0.01, rel=0.15)
    assert steps[0] < 0.002
    assert (np.diff(steps[:peak]) > 0).all()
    assert (np.diff(steps[peak:]) < 0).all()
    assert steps[-1] < 0.0003
