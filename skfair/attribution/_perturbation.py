"""Patch attribution, last stage: hide the pixels under a part of the map."""

from dataclasses import dataclass

import torch


def hidden_pixels(pixel_map: torch.Tensor, quantile: float) -> torch.Tensor:
    """Mark the pixels above a quantile of their map.

    Parameters
    ----------
    pixel_map : tensor of shape (n, n_maps, height, width)
        Maps of one image each; a pixel is marked if it is in any of them.
    quantile : float
        Share of the pixels that are not above it.

    Returns
    -------
    tensor of shape (n, height, width), bool
        Where values are equal, fewer than a share of ``1 - quantile`` may be marked, never more.
    """
    flat = pixel_map.flatten(2)
    n_pixels = flat.shape[2]
    kept = min(max(round(quantile * n_pixels), 1), n_pixels)
    threshold = flat.kthvalue(kept, dim=2, keepdim=True).values
    return (flat > threshold).any(1).reshape(len(flat), *pixel_map.shape[2:])


@dataclass(frozen=True)
class Perturbation:
    """What happens to the marked pixels; all others are left as they are, to the bit.

    Attributes
    ----------
    kind : {"mask", "noise"}
        A colour instead of the pixel, or noise added to it.
    fill : tensor of shape (n_channels,), float64
        The colour, in the units of the images.
    noise_scale : tensor of shape (n_channels,), float64
        Standard deviation of the noise, in the units of the images.
    low, high : float
        Noise does not leave this range.
    """

    kind: str
    fill: torch.Tensor
    noise_scale: torch.Tensor
    low: float
    high: float

    def __call__(
        self, images: torch.Tensor, hidden: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Perturb images.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
            Of any type.
        hidden : tensor of shape (n, height, width), bool
            Pixels to perturb.
        noise : tensor of the shape of `images`, optional
            Standard normal; drawn from torch's own generator if not given.

        Returns
        -------
        tensor of the shape and type of `images`
        """
        exact = images.dtype if images.is_floating_point() else torch.float32
        fill, scale = (
            values.to(images.device, exact).reshape(1, -1, 1, 1)
            for values in (self.fill, self.noise_scale)
        )
        if self.kind == "mask":
            changed = fill.expand_as(images)
        else:
            if noise is None:
                noise = torch.randn(images.shape, device=images.device)
            changed = (images + noise.to(exact) * scale).clamp(self.low, self.high)
        if not images.is_floating_point():
            changed = changed.round()
        return torch.where(hidden[:, None], changed.to(images.dtype), images)
