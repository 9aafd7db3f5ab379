"""Images from one array or tensor, channels first or last, or from rows of pixels."""

import mmap
from typing import Any

import numpy as np
import torch

from skfair._images._layout import (
    CHANNELS,
    Layout,
    check_dtype,
    check_n_samples,
    sample_dtype,
    shape_of_rows,
)
from skfair._images._view import Images
from skfair.utils._arrays import as_numpy


class ImageArray(Images):
    """An array or tensor of images, or of rows."""

    def __init__(self, X: Any, layout: Layout):
        if not (isinstance(X, torch.Tensor) or is_sliced(X)):
            X = np.asanyarray(X)  # unlike asarray, this keeps a memmap a memmap
        self.n_samples = check_n_samples(len(X))
        shape = tuple(int(size) for size in X.shape[1:])
        is_rows = len(shape) == 1
        if len(shape) == 2:
            self._check_grey(tuple(X.shape), layout)
            shape = (1, *shape)
        if len(shape) > 3:
            raise ValueError(
                f"X has {len(shape) + 1} dimensions, shape {tuple(X.shape)}; expected 4: "
                "(n, channels, height, width). Reshape it."
            )
        if is_rows and layout.image_shape is not None:
            shape = shape_of_rows(shape[0], layout.image_shape)
        elif not is_rows:
            if min(shape) == 0:
                raise ValueError(
                    f"X has shape {tuple(X.shape)}: images without pixels. Pass images with "
                    "at least one pixel."
                )
            check_dtype(X.dtype, "X")
        self._X = X
        self._is_image = len(shape) == 3
        if not self._is_image or X.ndim == 3:
            self._channels_last = False
        elif is_rows:
            self._channels_last = layout.data_format == "channels_last"
        else:
            self._channels_last = layout.is_channels_last(shape, "X")
        # The order of the axes in the data, before the channels move to the front.
        self._stored_shape = (
            (shape[1], shape[2], shape[0]) if is_rows and self._channels_last else shape
        )
        if self._channels_last and not is_rows:
            shape = (shape[2], shape[0], shape[1])
        layout.check(shape, "X")
        self.shape = shape
        self.dtype = sample_dtype(X.dtype)

    @staticmethod
    def _check_grey(shape: tuple[int, ...], layout: Layout) -> None:
        """Raise if an array of three dimensions looks like one image with channels."""
        if layout.known is not None and layout.fits((1, *shape[1:])):
            return
        if shape[2] in CHANNELS or (shape[0] in (3, 4) and min(shape[1:]) > 4):
            raise ValueError(
                f"X has shape {shape}: {shape[0]} grey images, or one image with channels? Give a "
                "single image as X[None], and grey images with an axis of one channel, X[:, None]."
            )

    def to_array(self, *, copy: bool) -> tuple[np.ndarray, np.ndarray]:
        array = np.array(as_numpy(self._X), order="C") if copy else as_numpy(self._X)
        return array, self._channels_first(array)

    def _channels_first(self, block: np.ndarray) -> np.ndarray:
        block = block.reshape(-1, *self._stored_shape)
        return block.transpose(0, 3, 1, 2) if self._channels_last else block

    def _read(self, start: int, stop: int) -> np.ndarray:
        block = self._channels_first(as_numpy(self._X[start:stop]))
        with np.errstate(over="ignore"):  # too large values become infinity, which `read` reports
            batch = np.array(block, dtype=self.dtype, order="C")
        release_pages(self._X)
        return batch


def is_sliced(X: Any) -> bool:
    """Whether X is an array of another package that NumPy would read whole, as of zarr or h5py."""
    known = all(hasattr(X, name) for name in ("shape", "__getitem__", "__len__"))
    is_numpy = isinstance(X, (np.ndarray, torch.Tensor))
    return known and not is_numpy and isinstance(getattr(X, "dtype", None), np.dtype)


def release_pages(array: Any) -> None:
    """Return the resident pages of a memory map to the system; the data do not change.

    Pages that were read or written count as memory of the process until the system reclaims them.
    So reading through a large file looks like growing memory, and hits the memory limit.
    This function ignores maps that keep private changes (mode "c") and arrays that are not maps.
    """
    mapping = getattr(array, "_mmap", None)
    if (
        isinstance(mapping, mmap.mmap)
        and hasattr(mmap, "MADV_DONTNEED")
        and getattr(array, "mode", "c") != "c"
    ):
        mapping.madvise(mmap.MADV_DONTNEED)
