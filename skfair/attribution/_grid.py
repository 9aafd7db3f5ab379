"""Patch attribution, geometry: where the patches lie, and from their values to those of pixels."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

_PATCH = 16  # pixels


def grid_steps(
    patch_size: int | str, stride: int | str, height: int, width: int
) -> tuple[int, int]:
    """Choose size and distance of patches where they are not given.

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
        # The larger the images, the more pixels has what is on them; and the time of a fit stays.
        while 12 * patch_size < side:
            patch_size *= 2
    if isinstance(stride, str):
        stride = max(1, patch_size // 8)
    return patch_size, stride


@dataclass(frozen=True)
class PatchGrid:
    """Positions of a square patch that is moved over an image.

    Positions are counted row by row: position i has its upper left corner at row
    ``i // n_cols * stride`` and column ``i % n_cols * stride``. The last ones may reach beyond the
    image, by less than a stride; :meth:`pad` gives images the pixels that they see there.

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
                f"between two of them. Take stride={k} or less."
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
        """Repeat the last row and column of images as far as the last patches reach.

        Parameters
        ----------
        images : tensor of shape (n, n_channels, height, width)

        Returns
        -------
        tensor of shape (n, n_channels, padded height, padded width)
            `images` itself where the grid ends at their border.
        """
        below, right = (
            (n - 1) * self.stride + self.patch_size - side
            for n, side in ((self.n_rows, self.height), (self.n_cols, self.width))
        )
        if not (below or right):
            return images
        return F.pad(images, (0, right, 0, below), mode="replicate")

    def corners(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column of the upper left pixel of each position.

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
            Where each patch lies.
        which : tensor of shape (n_patches,), int64
            The image that it is of.

        Returns
        -------
        tensor of shape (n_patches, n_channels, patch_size, patch_size)
        """
        y, x = self.corners(positions)
        k = self.patch_size
        windows = images.unfold(2, k, 1).unfold(3, k, 1)  # a view
        return windows[which, :, y, x]

    def pixel_map(self, region_map: torch.Tensor) -> torch.Tensor:
        """Mean of all patches that a pixel lies in, Algorithm 1 of the paper.

        The sum over the patches is one over rows and one over columns, so that it takes two
        products with small matrices.

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
