"""Patch attribution, stage 1: networks that predict an attribute from a patch and its position."""

import math

import torch
from torch import nn
from torch.nn import functional as F

_WIDTHS = (32, 48, 64, 96)  # of the last convolutions; earlier ones have the first width
_POSITION_CHANNELS = 16
_HIDDEN = 64
_FINE_PATCH = 16  # pixels; a mean filter brings larger patches down to this size


def receptive_kernels(patch_size: int) -> list[int]:
    """Compute kernel sizes of convolutions that together see exactly one patch.

    The taps of layer i are ``2**i`` pixels apart, so that few layers see far. All kernels have
    at least three taps. The pixels that are then missing to `patch_size` are written as a binary
    number: each digit adds a tap to its layer, and the last layer gets the rest.

    Parameters
    ----------
    patch_size : int
        Height and width of the patch, in pixels.

    Returns
    -------
    list of int
        ``1 + sum((kernel - 1) * 2**i)`` is `patch_size`.

    Examples
    --------
    >>> receptive_kernels(32), receptive_kernels(24), receptive_kernels(2)
    ([4, 3, 3, 3], [4, 3, 5], [2])
    """
    n_layers = int(math.log2((patch_size - 1) / 2 + 1))
    if n_layers == 0:
        return [patch_size]
    missing = patch_size - 1 - 2 * (2**n_layers - 1)
    digits = [missing >> i & 1 for i in range(n_layers - 1)]
    return [*(3 + digit for digit in digits), 3 + (missing >> (n_layers - 1))]


class DenseRegionNet(nn.Module):
    """Network of unpadded convolutions whose receptive field is one patch.

    One pass over a whole image gives the same logits as one pass for each patch. The published
    network gets the position as a channel of its input; here the position enters after the
    convolutions, where each output belongs to one patch.

    Each layer computes its output only where a later layer needs it. The same weights
    therefore serve any stride, and a coarse stride, for training, takes little time.

    A mean filter shrinks patches of 32 pixels and more. With a layer of weights in place of the
    filter, training on faces took twice as long and found less.

    Parameters
    ----------
    n_channels : int
        Channels of the images.
    patch_size : int
        Height and width of the patch, in pixels.
    n_outputs : int
        Logits for each patch.
    grid_shape : tuple of two int, or None
        (n_rows, n_cols) of the positions; None for a network that does not use the position.
    """

    def __init__(
        self,
        n_channels: int,
        patch_size: int,
        n_outputs: int,
        grid_shape: tuple[int, int] | None,
    ):
        super().__init__()
        self.shrink = max(1, patch_size // _FINE_PATCH)
        self.blur = self.shrink + patch_size % self.shrink
        kernels = receptive_kernels(patch_size // self.shrink)
        n_first = len(kernels) - len(_WIDTHS)
        widths = [n_channels, *_WIDTHS[:1] * n_first, *_WIDTHS[-len(kernels) :]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel, bias=False)
            for before, after, kernel in zip(widths[:-1], widths[1:], kernels, strict=True)
        )
        # Without normalisation, training takes many times as long.
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.position = None
        n_place = 0
        if grid_shape is not None:
            self.position = nn.Parameter(_cosines(*grid_shape))
            n_place = len(self.position)
            # The meaning of a feature depends on its position. On faces this gate, and a smooth
            # initial position map, halve the time of training.
            self.gate = nn.Conv2d(n_place, _HIDDEN, 1)
        self.hidden = nn.Conv2d(widths[-1] + n_place, _HIDDEN, 1)
        self.output = nn.Conv2d(_HIDDEN, n_outputs, 1)

    def forward(self, patches: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Compute the logits of single patches.

        Parameters
        ----------
        patches : tensor of shape (n, n_channels, patch_size, patch_size)
        positions : tensor of shape (n,), int64

        Returns
        -------
        tensor of shape (n, n_outputs)
        """
        features = self._features(patches, self.shrink * 2 ** len(self.convolutions))
        place = None
        if self.position is not None:
            place = self.position.flatten(1)[:, positions].T[..., None, None]
        return self._classify(features, place)[..., 0, 0]

    def regions(
        self, images: torch.Tensor, stride: int, every: int = 1, first: tuple[int, int] = (0, 0)
    ) -> torch.Tensor:
        """Compute the logits of all patches of images in one pass.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
        stride : int
            Pixels from one position to the next.
        every : int, default=1
            Compute only every so many rows and columns of positions.
        first : tuple of two int, default=(0, 0)
            First row and column of positions to compute.

        Returns
        -------
        tensor of shape (n, n_outputs, n_rows, n_cols)
        """
        row, column = first
        images = images[..., row * stride :, column * stride :]
        features = self._features(images, stride * every)
        place = None
        if self.position is not None:
            place = self.position[None, :, row::every, column::every]
        return self._classify(features, place)

    def _classify(self, features: torch.Tensor, place: torch.Tensor | None) -> torch.Tensor:
        if place is None:
            return self.output(F.relu(self.hidden(features)))
        features = torch.cat([features, place.expand(len(features), -1, -1, -1)], 1)
        return self.output(F.relu(self.hidden(features)) * (1 + self.gate(place)))

    def _features(self, images: torch.Tensor, stride: int) -> torch.Tensor:
        spacings = [self.shrink * 2**i for i in range(len(self.convolutions))]
        jump = 1  # pixels of the image between neighbours in the input of a layer
        if self.blur > 1:
            jump = math.gcd(stride, *spacings)
            images = F.avg_pool2d(images, self.blur, jump)
        for i, (layer, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            needed = math.gcd(stride, *spacings[i + 1 :])
            images = F.conv2d(
                images,
                layer.get_parameter("weight"),
                stride=needed // jump,
                dilation=spacings[i] // jump,
            )
            images = F.relu(norm(images), inplace=True)
            jump = needed
        return images


def _cosines(n_rows: int, n_cols: int) -> torch.Tensor:
    """The waves of lowest frequency on a grid, shape (_POSITION_CHANNELS, n_rows, n_cols)."""
    waves = [(u, v) for u in range(_POSITION_CHANNELS) for v in range(_POSITION_CHANNELS)]
    waves = sorted(waves, key=lambda wave: (sum(wave), wave))[1:]  # without the constant wave
    y, x = (torch.pi * (torch.arange(n, dtype=torch.float32) + 0.5) / n for n in (n_rows, n_cols))
    return torch.stack(
        [torch.outer(torch.cos(u * y), torch.cos(v * x)) for u, v in waves[:_POSITION_CHANNELS]]
    )


class ResNetRegionNet(nn.Module):
    """The published network (Section 3.1): a ResNet-18 with the position as one more channel.

    Parameters
    ----------
    n_channels : int
        Channels of the images.
    patch_size : int
        Height and width of the patch, in pixels.
    n_outputs : int
        Logits for each patch.
    n_positions : int or None
        Number of positions; None for a network that does not use the position.
    """

    def __init__(self, n_channels: int, patch_size: int, n_outputs: int, n_positions: int | None):
        super().__init__()
        self.patch_size = patch_size
        self.position = None
        if n_positions is not None:
            self.position = nn.Embedding(n_positions, patch_size**2)
        blocks = []
        before = 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [_ResidualBlock(before, width, stride), _ResidualBlock(width, width, 1)]
            before = width
        self.layers = nn.Sequential(
            nn.Conv2d(n_channels + (n_positions is not None), 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512, n_outputs),
        )

    def forward(self, patches: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Compute the logits of single patches.

        Parameters
        ----------
        patches : tensor of shape (n, n_channels, patch_size, patch_size)
        positions : tensor of shape (n,), int64

        Returns
        -------
        tensor of shape (n, n_outputs)
        """
        if self.position is not None:
            place = self.position(positions).reshape(-1, 1, self.patch_size, self.patch_size)
            patches = torch.cat([patches, place], 1)
        return self.layers(patches)


class _ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return F.relu(self.layers(X) + self.shortcut(X))
