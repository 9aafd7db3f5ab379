"""Patch attribution, stage 5: whether networks still tell the attribute from perturbed images."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from torch import nn
from torch.nn import functional as F

from skfair.base._net import FullBatches, TensorData, train_with_adam
from skfair.utils._split import draw_folds

_WIDTHS = (16, 32, 64)
_LONGEST_SIDE = 128  # pixels; larger images are halved before the network sees them
_LR = 3e-3
_N_STEPS, _BATCH = 200, 32
_N_FOLDS = 2
_LEVEL = 0.05
_FEWEST = 4  # images of a class with one value of the attribute, or the class is left out


class Leakage(NamedTuple):
    """Accuracy with which networks tell the attribute from images that they have not seen.

    Attributes
    ----------
    accuracy : float
        Mean recall over all cells of class and attribute; NaN if it cannot be measured.
    low, high : float
        95 % interval of the accuracy of these networks over the test images.
    chance : float
        Accuracy of guessing.
    """

    accuracy: float
    low: float
    high: float
    chance: float


class WholeImageNet(nn.Module):
    """Small convolutional network that pools the highest and the mean output over the image.

    Parameters
    ----------
    n_classes : int
        Values of the attribute.
    mean, std : tensor of shape (n_channels,)
        Statistics that standardise the images.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, n_classes: int, mean: torch.Tensor, std: torch.Tensor):
        super().__init__()
        self.register_buffer("mean", mean.float().reshape(-1, 1, 1))
        self.register_buffer("std", std.float().reshape(-1, 1, 1))
        layers: list[nn.Module] = []
        before = len(self.mean)
        for i, width in enumerate(_WIDTHS):
            kernel = 3 if i else 5
            layers += [
                nn.Conv2d(before, width, kernel, stride=2, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            before = width
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.output = nn.Linear(2 * before, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute logits.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)

        Returns
        -------
        tensor of shape (n, n_classes)
        """
        images = (images.float() - self.mean) / self.std
        shrink = -(-max(images.shape[2:]) // _LONGEST_SIDE)
        if shrink > 1:
            images = F.avg_pool2d(images, shrink, ceil_mode=True)
        found = self.layers(images.contiguous(memory_format=torch.channels_last))
        return self.output(torch.cat([found.amax((2, 3)), found.mean((2, 3))], 1))


def comparable_images(code: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """List the images of classes in which all values of the attribute occur.

    Parameters
    ----------
    code : ndarray of shape (n_samples,), int64
        Value of the attribute.
    strata : ndarray of shape (n_samples,), int64
        Class of each image.

    Returns
    -------
    ndarray of int64
        Rows; empty if no class has each value of the attribute four times.
    """
    counts = np.zeros((strata.max() + 1, code.max() + 1), dtype=np.int64)
    np.add.at(counts, (strata, code), 1)
    enough = np.asarray((counts >= _FEWEST).all(1))
    return np.flatnonzero(enough[strata])


def measure_leakage(
    images: torch.Tensor,
    code: np.ndarray,
    strata: np.ndarray,
    *,
    n_classes: int,
    mean: np.ndarray,
    std: np.ndarray,
    seed: int,
    device: torch.device,
) -> Leakage:
    """Train networks to tell the attribute on one fold of the images, and test them on the other.

    All cells of class and attribute count the same, in training and in the test. The class then
    tells nothing about the attribute, so that evidence of the class is not a leak.

    Parameters
    ----------
    images : tensor of shape (n_samples, n_channels, height, width)
        The perturbed images.
    code : ndarray of shape (n_samples,), int64
        Value of the attribute.
    strata : ndarray of shape (n_samples,), int64
        Class of each image; zeros if there are no classes.
    n_classes : int
        Number of values of the attribute.
    mean, std : ndarray of shape (n_channels,)
        Statistics that standardise the images.
    seed : int
        Seeds the networks, the folds and the batches.
    device : torch.device
        Where to train.

    Returns
    -------
    Leakage
    """
    chance = 1 / n_classes
    rows = comparable_images(code, strata)
    if not len(rows):
        return Leakage(np.nan, np.nan, np.nan, chance)
    cell = np.unique(strata[rows] * n_classes + code[rows], return_inverse=True)[1]
    fold = draw_folds(cell, _N_FOLDS, seed)
    hits = np.empty(len(rows), dtype=bool)
    target = torch.from_numpy(code)
    for i in range(_N_FOLDS):
        train, test = rows[fold != i], rows[fold == i]
        weight = 1 / np.bincount(cell)[cell[fold != i]]
        # The size that the training takes; with it few images get as many steps as many images.
        batch_size = min(_BATCH, max(1, len(train) // 10))
        network, _ = train_with_adam(
            WholeImageNet,
            TensorData(target[train], images=images[train]),
            seed=seed + i,
            device=device,
            batch_size=batch_size,
            max_epochs=-(-_N_STEPS * batch_size // len(train)),
            anneal=True,
            description=None,
            lr=_LR,
            iterator_train=FullBatches,
            iterator_train__sampling_weight=torch.from_numpy(weight),
            module__n_classes=n_classes,
            module__mean=torch.from_numpy(mean),
            module__std=torch.from_numpy(std),
        )
        with torch.no_grad():
            for part in np.array_split(test, -(-len(test) // _BATCH)):
                found = network(images[part].to(device)).argmax(1).cpu().numpy()
                hits[np.searchsorted(rows, part)] = found == code[part]
    n, right = np.bincount(cell), np.bincount(cell, weights=hits)
    accuracy = float((right / n).mean())
    # Agresti and Coull: two more hits and two more misses in each cell, so that a cell without a
    # miss does not get an interval of length zero.
    recall = (right + 2) / (n + 4)
    error = norm.isf(_LEVEL / 2) * np.sqrt((recall * (1 - recall) / (n + 4)).sum()) / len(n)
    low, high = max(accuracy - float(error), 0.0), min(accuracy + float(error), 1.0)
    return Leakage(accuracy, low, high, chance)
