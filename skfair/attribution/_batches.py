"""Patch attribution, images in batches: read them, check their values, run a network over them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from skfair._images._view import Images
from skfair.attribution._statistics import DataRange
from skfair.base._net import aligned, as_tensor
from skfair.utils._device import resolve_device
from skfair.utils._progress import progress_bar
from skfair.utils._validation import check_logits


@dataclass(frozen=True)
class BatchRunner:
    """Reads images batch by batch, and runs functions over the batches on a device.

    Parameters
    ----------
    batch_size : int
        Images in a batch.
    device : str or torch.device
        Where functions run, as in :func:`~skfair.utils.resolve_device`.
    verbose : bool
        Whether to show a progress bar.
    data_range : DataRange or None
        Range that the values must have; None if it is not known yet.
    """

    batch_size: int
    device: str | torch.device
    verbose: bool
    data_range: DataRange | None

    def batches(self, images: Images) -> Iterator[tuple[slice, np.ndarray]]:
        """Read images batch by batch, and check their values.

        Yields
        ------
        rows : slice
        batch : ndarray of shape (n, n_channels, height, width)
        """
        for start in range(0, images.n_samples, self.batch_size):
            rows = slice(start, min(start + self.batch_size, images.n_samples))
            batch = images.read(rows.start, rows.stop)
            if self.data_range is not None and batch.size:
                self.data_range.check(batch)
            yield rows, batch

    def run(
        self, function: Callable[[torch.Tensor], torch.Tensor], images: Images
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Call a function with each batch, on the device and without gradients.

        Yields
        ------
        rows : slice
        result : tensor
            What the function returned, on the CPU.
        """
        device = resolve_device(self.device)
        with (
            progress_bar(
                "maps", total=images.n_samples, unit="image", show=self.verbose
            ) as progress,
            torch.no_grad(),
        ):
            for rows, batch in self.batches(images):
                yield rows, function(aligned(as_tensor(batch).to(device))).cpu()
                progress.update(len(batch))

    def collect(
        self, function: Callable[[torch.Tensor], torch.Tensor], images: Images
    ) -> np.ndarray:
        """Do as :meth:`run`, and join the results along their first axis.

        Returns
        -------
        ndarray of shape (n_samples, ...)

        Raises
        ------
        ValueError
            A result is NaN or infinite.
        """
        out = None
        for rows, block in self.run(function, images):
            if out is None:
                out = np.empty((images.n_samples, *block.shape[1:]), block.numpy().dtype)
            out[rows] = block.numpy()
        assert out is not None  # `Images` holds at least one image
        check_logits(out)
        return out
