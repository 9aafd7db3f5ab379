"""Patch attribution, stage 1: train a network to predict the attribute from single patches."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skfair.attribution._confidence import CONFIDENCES
from skfair.attribution._grid import PatchGrid
from skfair.attribution._region_networks import DenseRegionNet, ResNetRegionNet
from skfair.base._net import EpochBar, FullBatches, TensorData, TensorNet, one_cycle
from skfair.utils._random import generator

# Positions along a side in the coarsest grid of one training pass. Neighbouring patches share most
# of their pixels, and a grid that starts at another position each time sees all of them.
_POSITIONS_A_SIDE = 12


class RegionClassifier(nn.Module):
    """A network that sees patches, and the grid on which it runs over images (Section 3.1).

    Parameters
    ----------
    network : torch.nn.Module
        Takes standardised patches and their positions, and returns logits.
    n_classes : sequence of int
        Number of classes of each attribute. The logits of all attributes follow one another.
    mean, std : tensor of shape (n_channels,)
        Statistics that standardise the images.
    patch_size, stride : int
        Size and distance of the patches.
    any_size : bool, default=False
        Whether images may have another size than those of training. They may not if the network
        uses the number of a position.

    Attributes
    ----------
    positive : list of int or None
        Class of each attribute that means "the attribute is here"; None if there is none.
        Set after the training.
    """

    mean: torch.Tensor
    std: torch.Tensor
    temperature: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        n_classes: Sequence[int],
        mean: torch.Tensor,
        std: torch.Tensor,
        patch_size: int,
        stride: int,
        any_size: bool = False,
    ):
        super().__init__()
        self.network = network
        self.to_channels_last()
        self.n_classes = tuple(n_classes)
        self.patch_size = patch_size
        self.stride = stride
        self.any_size = any_size
        self.positive: list[int | None] = [None] * len(self.n_classes)
        self.register_buffer("mean", mean.float().reshape(-1, 1, 1))
        self.register_buffer("std", std.float().reshape(-1, 1, 1))
        self.register_buffer("temperature", torch.ones(len(self.n_classes)))

    def grid(self, images: torch.Tensor) -> PatchGrid:
        """Give the positions on images of this size."""
        return PatchGrid(images.shape[-2], images.shape[-1], self.patch_size, self.stride)

    def show(self, positive: np.ndarray) -> None:
        """Set which class of each attribute maps show.

        Parameters
        ----------
        positive : ndarray of shape (n_attributes,), int64
            Class that means "the attribute is here"; -1 if there is none.
        """
        self.positive = [None if i < 0 else i for i in positive.tolist()]

    def to_channels_last(self) -> None:
        """Set the layout of weights with which convolutions take up to a third less CPU time."""
        # torch's type hints of `to` lack this argument.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the logits of patches at random positions, for training.

        A dense network sees many patches of each image, on a coarse grid that starts at a
        random position. Any other network sees one patch of each image.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)

        Returns
        -------
        tensor of shape (n, n_outputs) or (n, n_outputs, n_rows, n_cols)
        """
        grid = self.grid(images)
        images = self._standardise(images, grid)
        # On the CPU, so that a seed gives the same patches on every device.
        if isinstance(self.network, DenseRegionNet):
            every = max(1, min(grid.n_rows, grid.n_cols) // _POSITIONS_A_SIDE)
            first = tuple(torch.randint(every, (2,), generator=generator()).tolist())
            return self.network.regions(images, self.stride, every, first)
        positions = torch.randint(len(grid), (len(images),), generator=generator())
        positions = positions.to(images.device)
        every_image = torch.arange(len(images), device=images.device)
        return self.network(grid.patches(images, positions, every_image), positions)

    @torch.no_grad()
    def probabilities(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Compute the probabilities of each attribute's classes at all positions.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)

        Returns
        -------
        list of tensors of shape (n, n_classes, n_rows, n_cols)
        """
        return [
            F.softmax(logits / temperature, 1)
            for logits, temperature in zip(self.logits(images), self.temperature, strict=True)
        ]

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the logits of each attribute at all positions, without the temperature."""
        grid = self.grid(images)
        images = self._standardise(images, grid)
        if isinstance(self.network, DenseRegionNet):
            logits = self.network.regions(images, self.stride)
        else:
            logits = self._patch_by_patch(grid, images)
        return logits.split(self.n_classes, 1)

    def region_map(self, images: torch.Tensor, confidence: str) -> torch.Tensor:
        """Compute the confidence at all positions.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
        confidence : str
            One of :data:`CONFIDENCES`.

        Returns
        -------
        tensor of shape (n, n_attributes, n_rows, n_cols)
        """
        return self.confidence(self.probabilities(images), confidence)

    def confidence(self, probabilities: Sequence[torch.Tensor], confidence: str) -> torch.Tensor:
        """Compute the result of :meth:`region_map` from that of :meth:`probabilities`."""
        pairs = zip(probabilities, self.positive, strict=True)
        return torch.stack([CONFIDENCES[confidence](*pair) for pair in pairs], 1)

    def pixel_map(self, images: torch.Tensor, confidence: str) -> torch.Tensor:
        """Compute the mean confidence of the patches that contain each pixel (Algorithm 1).

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
        confidence : str
            One of :data:`CONFIDENCES`.

        Returns
        -------
        tensor of shape (n, n_attributes, height, width)
        """
        return self.grid(images).pixel_map(self.region_map(images, confidence))

    def _standardise(self, images: torch.Tensor, grid: PatchGrid) -> torch.Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return grid.pad((images.float() - self.mean) / self.std)

    def _patch_by_patch(self, grid: PatchGrid, images: torch.Tensor) -> torch.Tensor:
        n_patches = len(images) * len(grid)
        at_once = images[:, 0].numel() // self.patch_size**2  # as many pixels as the images
        logits = []
        for patch in torch.arange(n_patches, device=images.device).split(at_once):
            positions = patch % len(grid)
            patches = grid.patches(images, positions, patch // len(grid))
            logits.append(self.network(patches, positions))
        return torch.cat(logits).reshape(len(images), grid.n_rows, grid.n_cols, -1).movedim(3, 1)


NETWORKS = {"dense": DenseRegionNet, "resnet18": ResNetRegionNet}


def make_region_classifier(
    region_classifier: str | nn.Module,
    grid: PatchGrid,
    *,
    n_classes: Sequence[int],
    mean: np.ndarray,
    std: np.ndarray,
    position_embedding: bool,
) -> RegionClassifier:
    """Make a region classifier with new weights.

    Parameters
    ----------
    region_classifier : {"dense", "resnet18"} or torch.nn.Module
        The network, or a module that is copied.
    grid : PatchGrid
        Positions of the patches on the images of training.
    n_classes : sequence of int
        Number of classes of each attribute.
    mean, std : ndarray of shape (n_channels,)
        Statistics that standardise the images.
    position_embedding : bool
        Whether the networks of skfair are told the position.

    Returns
    -------
    RegionClassifier

    Raises
    ------
    ValueError
        A module of the user fails, or returns something else than logits.
    """
    arguments = len(mean), grid.patch_size, sum(n_classes)
    if isinstance(region_classifier, nn.Module):
        network = copy.deepcopy(region_classifier).cpu()  # where check_network calls it
        check_network(network, *arguments)
    elif region_classifier == "dense":
        shape = (grid.n_rows, grid.n_cols) if position_embedding else None
        network = DenseRegionNet(*arguments, shape)
    else:
        network = ResNetRegionNet(*arguments, len(grid) if position_embedding else None)
    return RegionClassifier(
        network,
        n_classes=n_classes,
        mean=torch.from_numpy(mean),
        std=torch.from_numpy(std),
        patch_size=grid.patch_size,
        stride=grid.stride,
        any_size=not position_embedding,
    )


def check_network(network: nn.Module, n_channels: int, patch_size: int, n_outputs: int) -> None:
    """Call a user's network with two patches.

    Parameters
    ----------
    network : torch.nn.Module
        Takes patches and their positions, and returns logits.
    n_channels, patch_size, n_outputs : int
        Shape of its patches, and number of its logits.

    Raises
    ------
    ValueError
        It fails, or returns something else.
    """
    patches = torch.zeros(2, n_channels, patch_size, patch_size)
    called = (
        f"region_classifier, called with patches of shape {tuple(patches.shape)}, float32, and "
        "positions of shape (2,), int64,"
    )
    wanted = f"Its forward(patches, positions) must return logits of shape (2, {n_outputs})."
    try:
        with torch.no_grad():
            logits = network.eval()(patches, torch.zeros(2, dtype=torch.int64))
    except Exception as error:
        raise ValueError(f"{called} raised {type(error).__name__}: {error}. {wanted}") from error
    if getattr(logits, "shape", None) != (2, n_outputs):
        came = getattr(logits, "shape", type(logits).__name__)
        raise ValueError(f"{called} returned {came}. {wanted}")


class RegionLoss(nn.Module):
    """Cross-entropy of each attribute, averaged over the positions of an image.

    Parameters
    ----------
    n_classes : sequence of int
        Number of classes of each attribute.
    label_smoothing : float
        Share of the label that is spread over all classes.
    """

    def __init__(self, n_classes: Sequence[int], label_smoothing: float):
        super().__init__()
        self.n_classes = tuple(n_classes)
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Compute the loss of each image.

        Parameters
        ----------
        logits : tensor of shape (n, n_outputs) or (n, n_outputs, n_rows, n_cols)
        codes : tensor of shape (n, n_attributes), int64

        Returns
        -------
        tensor of shape (n,)
        """
        logits = logits.flatten(2) if logits.ndim > 2 else logits[:, :, None]
        total = logits.new_zeros(len(logits))
        for part, code in zip(logits.split(self.n_classes, 1), codes.T, strict=True):
            total = total + F.cross_entropy(
                part,
                code[:, None].expand(-1, part.shape[2]),
                label_smoothing=self.label_smoothing,
                reduction="none",
            ).mean(1)
        return total


def train_region_classifier(
    classifier: RegionClassifier,
    images: torch.Tensor,
    codes: torch.Tensor,
    sampling_weight: torch.Tensor,
    *,
    label_smoothing: float,
    lr: float,
    weight_decay: float,
    batch_size: int,
    max_epochs: int,
    device: torch.device,
    description: str | None,
) -> None:
    """Train with AdamW; the learning rate rises to `lr` and falls to zero.

    Parameters
    ----------
    classifier : RegionClassifier
        Trained in place; ends in eval mode.
    images : tensor of shape (n_samples, n_channels, height, width)
        In the type of the user's images, which takes the least memory.
    codes : tensor of shape (n_samples, n_attributes), int64
        Class of each attribute.
    sampling_weight : tensor of shape (n_samples,)
        Images are drawn with replacement, in proportion to their weight.
    description : str or None
        Name on the progress bar; None shows none.
    """
    # At least ten steps an epoch, so that an epoch trains enough with few images too.
    batch_size = min(batch_size, max(2, len(images) // 10))
    n_steps = max_epochs * -(-len(images) // batch_size)
    bar = [] if description is None else [EpochBar(description)]
    net = TensorNet(
        classifier,
        RegionLoss,
        criterion__n_classes=classifier.n_classes,
        criterion__label_smoothing=label_smoothing,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=weight_decay,
        optimizer__fused=True,
        lr=lr,
        batch_size=batch_size,
        max_epochs=max_epochs,
        iterator_train=FullBatches,
        iterator_train__sampling_weight=sampling_weight,
        callbacks=[one_cycle(lr, n_steps, anneal="linear"), *bar],
        device=device,
    )
    net.fit(TensorData(codes, images=images).to(device), None)
    classifier.eval()
