"""The view of images that every image estimator reads, independent of their form."""

from abc import ABC, abstractmethod
from collections.abc import Generator

import numpy as np


class Images(ABC):
    """Images that are read slice by slice.

    :func:`~skfair._images._open.open_images` makes it.

    Attributes
    ----------
    n_samples : int
        Number of images.
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
        """Read samples `start` to `stop` into a new array.

        Returns
        -------
        ndarray of shape (stop - start, *shape)
            C-contiguous, of type `dtype`. It shares no memory with the data; the caller may
            write to it.

        Raises
        ------
        ValueError
            A sample has NaN or infinity, or its shape or dtype differs from that of the first one.
        """
        return self._checked(self._read(start, stop), start, stop)

    def batches(
        self, n_rows: int, size: int, n_jobs: int | None = None
    ) -> Generator[tuple[int, np.ndarray]]:
        """Read the first rows, batch after batch.

        Parameters
        ----------
        n_rows : int
            Number of rows to read.
        size : int
            Rows in a batch; the last one may have fewer.
        n_jobs : int, optional
            Threads that decode images ahead, as joblib counts. Images that need no decoding are
            read by the calling thread.

        Yields
        ------
        start : int
            The first row of the batch.
        batch : ndarray
            As :meth:`read` returns it. Its errors are those of :meth:`read`.
        """
        for start in range(0, n_rows, size):
            yield start, self.read(start, min(start + size, n_rows))

    def _checked(self, batch: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Check that a batch is complete and finite."""
        if len(batch) != stop - start:
            raise ValueError(
                f"X had {self.n_samples} rows at first, and has now {start + len(batch)}. Do not "
                "change X, or the file that it reads, during a call."
            )
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
        """Return all samples as one array, in the form that they have.

        Parameters
        ----------
        copy : bool
            Whether to copy an array that was opened. Files and datasets are always read.

        Returns
        -------
        array : ndarray
            For an array or tensor: its layout and dtype. For files and datasets: images of shape
            (n_samples, *shape) and dtype `dtype`.
        view : ndarray of shape (n_samples, *shape)
            The same memory, channels first.
        """

    @abstractmethod
    def _read(self, start: int, stop: int) -> np.ndarray:
        """Read without the check for NaN and infinity."""
