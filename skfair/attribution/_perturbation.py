"""Patch attribution, stage 4: perturb the pixels with the highest values in the map."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from skfair.attribution._fill import FILLS


def auto_margin(patch_size: int, stride: int) -> int:
    """Choose the margin: how far a map ends before the border of the attribute.

    Parameters
    ----------
    patch_size, stride : int
        Size and distance of the patches.

    Returns
    -------
    int
        Margin in pixels.
    """
    return max(1, patch_size // 4, stride // 2)


def hidden_pixels(pixel_map: torch.Tensor, quantile: float, margin: int) -> torch.Tensor:
    """Mark the pixels above a quantile of their map, and the pixels around them.

    Parameters
    ----------
    pixel_map : tensor of shape (n, n_maps, height, width)
    quantile : float
        Share of the pixels that are not above the quantile.
    margin : int
        Pixels, in rows and in columns, by which the marked area grows on all sides.

    Returns
    -------
    tensor of the shape of `pixel_map`, bool
        Before the area grows, at most a share of ``1 - quantile`` is marked; less where values are
        equal.
    """
    flat = pixel_map.flatten(2)
    n_pixels = flat.shape[2]
    kept = min(max(round(quantile * n_pixels), 1), n_pixels)
    threshold = flat.kthvalue(kept, dim=2, keepdim=True).values
    marked = (flat > threshold).reshape(pixel_map.shape)
    if margin == 0:
        return marked
    grown = marked.float()
    for kernel, padding in (((2 * margin + 1, 1), (margin, 0)), ((1, 2 * margin + 1), (0, margin))):
        grown = F.max_pool2d(grown, kernel, stride=1, padding=padding)
    return grown > 0


@dataclass(frozen=True)
class Perturbation:
    """Change of the marked pixels (Section 3.3 of the paper); all others stay, to the bit.

    Attributes
    ----------
    kind : {"mask", "noise", "swap"}
        Fill the pixels, add noise to them, or fill them and paste pixels of another image.
    fill : str or tensor of shape (n_channels,), float64
        One of :data:`FILLS`, or a colour in the units of the images.
    mean : tensor of shape (n_channels,), float64
        The colour of images whose pixels are all hidden.
    noise_scale : tensor of shape (n_channels,), float64
        Standard deviation of the noise, in the units of the images.
    low, high : float
        Noise does not leave this range.
    """

    kind: str
    fill: str | torch.Tensor
    mean: torch.Tensor
    noise_scale: torch.Tensor
    low: float
    high: float

    def __call__(
        self, images: torch.Tensor, hidden: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Fill the marked pixels, or add noise to them.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
            Images of any type.
        hidden : tensor of shape (n, height, width), bool
            Pixels to perturb.
        noise : tensor of the shape of `images`, optional
            Standard normal numbers; by default from torch's own generator.

        Returns
        -------
        tensor of the shape and type of `images`
        """
        floats = images.is_floating_point()
        exact = torch.promote_types(images.dtype, torch.float32) if floats else torch.float32
        if self.kind == "noise":
            if noise is None:
                noise = torch.randn(images.shape, device=images.device)
            scale = self.noise_scale.to(images.device, exact).reshape(1, -1, 1, 1)
            changed = (images + noise.to(exact) * scale).clamp(self.low, self.high)
        elif isinstance(self.fill, str):
            mean = self.mean.to(images.device, exact).reshape(1, -1, 1, 1)
            changed = FILLS[self.fill](images.to(exact), hidden, mean).clamp(self.low, self.high)
        else:
            colour = self.fill.to(images.device, exact).reshape(1, -1, 1, 1)
            changed = colour.expand_as(images)
        if not floats:
            changed = changed.round()
        return torch.where(hidden[:, None], changed.to(images.dtype), images)

    def swap(
        self,
        images: torch.Tensor,
        hidden: torch.Tensor,
        donors: torch.Tensor,
        pasted: torch.Tensor,
    ) -> torch.Tensor:
        """Fill the marked pixels, then paste pixels of other images.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
        hidden : tensor of shape (n, height, width), bool
            Pixels to fill.
        donors : tensor of the shape and type of `images`
            For each image, the image whose pixels it gets.
        pasted : tensor of shape (n, height, width), bool
            The pixels that are pasted; all False for an image that gets none.

        Returns
        -------
        tensor of the shape and type of `images`
        """
        return torch.where(pasted[:, None], donors, self(images, hidden))
