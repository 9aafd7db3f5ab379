"""The layout of one image: its shape, where its channels are, and its dtype."""

import math
from typing import Any

import numpy as np
import torch

from skfair.utils._shown import shown

CHANNELS = (1, 3, 4)


def check_image_shape(image_shape: Any) -> tuple[int, int, int] | None:
    """Check the parameter ``image_shape``.

    Parameters
    ----------
    image_shape : sequence of three int, or None
        (channels, height, width); one of them may be -1.

    Returns
    -------
    tuple of three int, or None

    Raises
    ------
    ValueError
        `image_shape` is not three integers, of which at most one is -1.
    """
    if image_shape is None:
        return None
    shape = tuple(image_shape)
    if (
        len(shape) != 3
        or any(not isinstance(size, (int, np.integer)) or size == 0 or size < -1 for size in shape)
        or shape.count(-1) > 1
    ):
        raise ValueError(
            f"image_shape={shown(image_shape)} is not (channels, height, width): three positive "
            "integers; one of them may be -1, which is then computed from the data."
        )
    channels, height, width = (int(size) for size in shape)
    return channels, height, width


class Layout:
    """What is known about the shape of an image in advance, and how to read its axes."""

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None,
        data_format: str,
        expected_shape: tuple[int, ...] | None,
        resize: str,
    ):
        self.image_shape = image_shape
        self.resize = resize
        self.data_format = data_format
        self.expected_shape = expected_shape
        self.known = expected_shape if expected_shape is not None else image_shape

    def is_channels_last(self, shape: tuple[int, ...], what: str) -> bool:
        """Tell whether an image array of this shape is (height, width, channels)."""
        last = (shape[2], shape[0], shape[1])
        if self.data_format != "auto":
            channels_last = self.data_format == "channels_last"
            self.check(last if channels_last else shape, what)
            return channels_last
        if self.known is not None:
            fits_first, fits_last = self.fits(shape), self.fits(last)
            if not (fits_first or fits_last):
                self.check(shape, what)
            wanted = f"both ends fit {self.known}"
        else:
            fits_first, fits_last = shape[0] in CHANNELS, shape[2] in CHANNELS
            wanted = "the channel axis is the one at either end with 1, 3 or 4 entries"
        if fits_first == fits_last:
            raise ValueError(
                f"{what} has images of shape {shape}, whose channel axis cannot be told: "
                f"{wanted}. Pass data_format='channels_first' or 'channels_last'."
            )
        return fits_last

    def check(self, shape: tuple[int, ...], what: str) -> None:
        """Raise if a sample of this (channels-first) shape does not fit the known shape."""
        if not self.fits(shape):
            source = "fit saw" if self.expected_shape is not None else "image_shape says"
            wanted = str(self.known).replace("-1", "any")
            raise ValueError(
                f"{what} has images of shape {shape}, {source} {wanted} (channels, height, "
                "width). Resize or convert the images, or fit again."
            )

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape agrees with the known one; every shape does where none is known."""
        return self.known is None or (
            len(shape) == len(self.known)
            and all(wanted in (-1, size) for wanted, size in zip(self.known, shape, strict=True))
        )


def shape_of_rows(n_features: int, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Shape of the image in a row of this many features: `image_shape` with its -1 worked out."""
    known = math.prod(size for size in image_shape if size != -1)
    partial = -1 in image_shape
    if (n_features % known if partial else n_features != known) or n_features == 0:
        raise ValueError(
            f"image_shape={image_shape} does not fit the {n_features} features of X: it needs "
            f"{'a multiple of ' if partial else ''}{known}."
        )
    return tuple(n_features // known if size == -1 else size for size in image_shape)


def sample_dtype(dtype: Any) -> np.dtype:
    return np.dtype(np.uint8 if dtype in (torch.uint8, np.uint8) else np.float32)


def check_dtype(dtype: Any, what: str) -> None:
    floating = (
        dtype.is_floating_point
        if isinstance(dtype, torch.dtype)
        else np.issubdtype(dtype, np.floating)
    )
    if floating or dtype in (torch.uint8, np.uint8):
        return
    x = "X" if what == "X" else "image"  # in a list, each item is one image
    if isinstance(dtype, torch.dtype):
        scaled, exact = f"({x}.float() / 257).byte()", f"{x}.float() / 65535"
        same, others = f"{x}.byte()", f"{x}.float()"
    else:
        scaled, exact = f"({x} / 257).astype('uint8')", f"({x} / 65535).astype('float32')"
        same, others = f"{x}.astype('uint8')", f"{x}.astype('float32')"
    if dtype in (torch.uint16, np.uint16):
        advice = (
            f"If the values use all 16 bits, {scaled} keeps the upper 8 bits, and {exact} keeps "
            "everything, from 0 to 1. If they use 12 bits, replace 65535 by 4095"
        )
    else:
        advice = f"For values from 0 to 255 use {same}; for other values use {others}"
    raise ValueError(
        f"{what} has dtype {dtype}; images are uint8 (0 to 255) or floating. {advice}. Give new "
        "images in the same units."
    )


def check_n_samples(n_samples: int) -> int:
    if n_samples == 0:
        raise ValueError(
            "X is empty: Found array with 0 sample(s) in X while a minimum of 1 is required. Give "
            "at least one image."
        )
    return n_samples
