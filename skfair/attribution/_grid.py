"""Patch attribution, geometry: positions of patches, and pixel maps from values of patches."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

_PATCH = 16  # pixels


def grid_steps(
    patch_size: int | str, stride: int | str, height: int, width: int
) -> tuple[int, int]:
    """Choose the size and the distance of patches, where they are "auto".

    Parameters
    ----------
    patch_size, stride : int or "auto"
        The parameters.
    height, width : int
        Size of the images, in pixels.

    Returns
    -------
    patch_size, stride : int

    Examples
    --------
    >>> [grid_steps("auto", "auto", side, side) for side in (28, 64, 128, 224, 512)]
    [(7, 1), (16, 2), (16, 2), (32, 4), (64, 8)]
    """
    side = min(height, width)
    if isinstance(patch_size, str):
        patch_size = max(1, min(side // 4, _PATCH))
        # Objects in larger images have more pixels, and the time of a fit stays the same.
        while 12 * patch_size < side:
            patch_size *= 2
    if isinstance(stride, str):
        stride = max(1, patch_size // 8)
    return patch_size, stride


@dataclass(frozen=True)
class PatchGrid:
    """Positions of a square patch that moves over an image.

    Positions are counted row by row: position i has its upper left corner at row
    ``i // n_cols * stride`` and column ``i % n_cols * stride``. The last patches may reach beyond
    the image, by less than a stride; :meth:`pad` gives images the pixels that patches see there.

    Parameters
    ----------
    height, width : int
        Size of the image, in pixels.
    patch_size : int
        Height and width of the patch, in pixels.
    stride : int
        Pixels from one position to the next.

    Raises
    ------
    ValueError
        The patch does not fit into the image, or its positions leave gaps.
    """

    height: int
    width: int
    patch_size: int
    stride: int

    def __post_init__(self):
        size, k, stride = (self.height, self.width), self.patch_size, self.stride
        if k > min(size):
            raise ValueError(
                f"patch_size={k} is larger than the images, which are {size[0]} x {size[1]} "
                f"pixels. Take patch_size={min(size)} or less, or larger images."
            )
        if stride > k:
            raise ValueError(
                f"stride={stride} is larger than patch_size={k}: no patch would see the pixels "
                f"between two patches. Take stride={k} or less."
            )

    @property
    def n_rows(self) -> int:
        """Positions from top to bottom."""
        return -(-(self.height - self.patch_size) // self.stride) + 1

    @property
    def n_cols(self) -> int:
        """Positions from left to right."""
        return -(-(self.width - self.patch_size) // self.stride) + 1

    def __len__(self) -> int:
        return self.n_rows * self.n_cols

    def pad(self, images: torch.Tensor) -> torch.Tensor:
        """Repeat the last row and column of images up to the end of the last patches.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)

        Returns
        -------
        tensor of shape (n, n_channels, padded height, padded width)
            `images` itself if the grid ends at the border of the images.
        """
        below, right = (
            (n - 1) * self.stride + self.patch_size - side
            for n, side in ((self.n_rows, self.height), (self.n_cols, self.width))
        )
        if not (below or right):
            return images
        return F.pad(images, (0, right, 0, below), mode="replicate")

    def corners(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the row and the column of the upper left pixel of each position.

        Returns
        -------
        tuple of two tensors, int64, of the shape of `positions`
        """
        rows = torch.div(positions, self.n_cols, rounding_mode="floor")
        return rows * self.stride, (positions - rows * self.n_cols) * self.stride

    def patches(
        self, images: torch.Tensor, positions: torch.Tensor, which: torch.Tensor
    ) -> torch.Tensor:
        """Cut patches out of images.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)
            Padded by :meth:`pad`.
        positions : tensor of shape (n_patches,), int64
            Position of each patch.
        which : tensor of shape (n_patches,), int64
            Image of each patch.

        Returns
        -------
        tensor of shape (n_patches, n_channels, patch_size, patch_size)
        """
        y, x = self.corners(positions)
        k = self.patch_size
        windows = images.unfold(2, k, 1).unfold(3, k, 1)  # a view
        return windows[which, :, y, x]

    def pixel_map(self, region_map: torch.Tensor) -> torch.Tensor:
        """Average over all patches that contain a pixel: Algorithm 1 of the paper.

        The sum over the patches is a sum over rows and a sum over columns, so that two products
        with small matrices compute it.

        Parameters
        ----------
        region_map : tensor of shape (..., n_rows, n_cols)

        Returns
        -------
        tensor of shape (..., height, width)
        """
        rows, columns = (
            self._cover(n, side).to(region_map)
            for n, side in ((self.n_rows, self.height), (self.n_cols, self.width))
        )
        return rows.mT @ region_map @ columns

    def _cover(self, n_positions: int, side: int) -> torch.Tensor:
        """Share of each position (row) in the mean of each pixel (column) along one side."""
        start = torch.arange(n_positions)[:, None] * self.stride
        pixel = torch.arange(side)
        covers = ((pixel >= start) & (pixel < start + self.patch_size)).double()
        return covers / covers.sum(0)
