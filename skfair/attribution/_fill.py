"""Patch attribution, stage 4, fills: the colours of hidden pixels."""

import numpy as np
import torch
from torch.nn import functional as F

from skfair.utils import import_optional

_N_PASSES = 4  # of a mean filter on each level


def _blur(images: torch.Tensor, hidden: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Continue the visible surroundings of a hole, smoother towards its middle.

    The image is halved again and again; each pixel is the mean of the visible pixels below it. On
    the way back, hidden pixels get the values of the coarser image and are smoothed. Without this
    smoothing, a slope would be off by up to a quarter of its rise over the hole, as the mean of
    half a block would stand for the whole block.
    """
    visible = (~hidden[:, None]).to(images.dtype)
    levels = [(images * visible, visible)]
    while max(levels[-1][0].shape[2:]) > 1:
        total, weight = (F.avg_pool2d(part, 2, ceil_mode=True) for part in levels[-1])
        levels.append((total, weight))
    total, weight = levels.pop()
    filled = torch.where(weight > 0, total / weight.clamp(min=1e-12), mean)
    for total, weight in reversed(levels):
        coarse = F.interpolate(filled, size=total.shape[2:], mode="bilinear", align_corners=False)
        known = total / weight.clamp(min=1e-12)
        filled = torch.where(weight > 0, known, coarse)
        for _ in range(_N_PASSES):
            smooth = F.avg_pool2d(F.pad(filled, (1, 1, 1, 1), mode="replicate"), 3, 1)
            filled = torch.where(weight > 0, known, smooth)
    return filled


def _inpaint(images: torch.Tensor, hidden: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Solve the biharmonic equation over the hidden pixels, in scikit-image."""
    restoration = import_optional("skimage.restoration", extra="inpaint", purpose="fill='inpaint'")
    filled = mean.expand_as(images).clone()
    for image, pixels, out in zip(images, hidden, filled, strict=True):
        if pixels.all() or not pixels.any():
            continue  # no pixel to start from, or no pixel to fill
        array = image.double().cpu().numpy()
        result = restoration.inpaint_biharmonic(array, pixels.cpu().numpy(), channel_axis=0)
        out.copy_(torch.from_numpy(np.asarray(result)))
    return filled


# Functions of images, their hidden pixels and the mean colour, that return the filled images.
FILLS = {"blur": _blur, "inpaint": _inpaint}
