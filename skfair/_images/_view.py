"""The view of images that every image estimator reads, whatever form the images have."""

from abc import ABC, abstractmethod

import numpy as np


class Images(ABC):
    """Images that are read slice by slice.

    Made by :func:`open_images`.

    Attributes
    ----------
    n_samples : int
        How many there are.
    shape : tuple of int
        Shape of one sample: (channels, height, width), or (n_features,) for rows that are
        not images.
    dtype : numpy.dtype
        ``uint8`` or ``float32``.
    """

    n_samples: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read samples `start` to `stop` into an array of their own.

        Returns
        -------
        ndarray of shape (stop - start, *shape)
            C-contiguous, of type `dtype`, not shared with the data: who gets it may write to it.

        Raises
        ------
        ValueError
            A sample has NaN or infinity, or another shape or type than the first one.
        """
        batch = self._read(start, stop)
        if batch.dtype != np.uint8:
            finite = np.isfinite(batch)
            if not finite.all():
                row, *_ = np.argwhere(~finite)[0]
                what = "NaN" if np.isnan(batch[row]).any() else "infinity"
                raise ValueError(
                    f"Input X contains {what} or a value too large for dtype('float32'), first "
                    f"in row {start + row}. Impute or remove such rows."
                )
        return batch

    @abstractmethod
    def to_array(self, *, copy: bool) -> tuple[np.ndarray, np.ndarray]:
        """Give all samples as one array, in the form they have.

        Parameters
        ----------
        copy : bool
            Whether to copy an array that was opened. Files and datasets are read in any case.

        Returns
        -------
        array : ndarray
            As an array or tensor that was opened, in layout and type; of files and datasets,
            images of shape (n_samples, *shape) and type `dtype`.
        view : ndarray of shape (n_samples, *shape)
            The same memory, channels first.
        """

    @abstractmethod
    def _read(self, start: int, stop: int) -> np.ndarray:
        """Read without the check for NaN and infinity."""
