"""Rows of features that stay in a file: which X they are, and how they are checked and read."""

import mmap
import os
import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skfair.utils._shown import shown
from skfair.utils._validation import validate_rows

# Bytes of a row of chunks that is decoded at once and kept for the next rows.
_MOST_DECODED = 1 << 26


def in_file(X: Any) -> bool:
    """Tell whether X is a table of numbers in a file: a memory map, or an array of zarr or h5py.

    Parameters
    ----------
    X : object
        Anything.

    Returns
    -------
    bool
        False for what is not a table of numbers as well; the checks of arrays say why.
    """
    if isinstance(X, np.ndarray):
        found = type(X) in (np.ndarray, np.memmap) and _mapped(X) is not None
    else:
        found = hasattr(X, "chunks") and not hasattr(X, "__dask_graph__")
    dtype = getattr(X, "dtype", None) if found else None
    return (
        isinstance(dtype, np.dtype) and dtype.kind in "biuf" and len(X.shape) == 2 and all(X.shape)
    )


def _mapped(array: np.ndarray) -> np.memmap | None:
    """The memory map whose memory an array views, or None."""
    while isinstance(array, np.ndarray):
        if isinstance(array.base, mmap.mmap):
            return array if isinstance(array, np.memmap) else None
        array = array.base  # type: ignore[assignment]
    return None


class BlockRows:
    """Rows that are read a block at a time, as float32.

    A slice of rows is an array of floats. Positions of rows give another :class:`BlockRows`, which
    has read nothing yet.

    Parameters
    ----------
    source : array, memory map, zarr array or h5py dataset, of shape (n_rows, n_features)
        Where the rows are.
    positions : ndarray of int, optional
        The rows that count, in this order; by default all of them.

    Attributes
    ----------
    dtype : dtype
        Of what is read: float32.

    Examples
    --------
    >>> import numpy as np
    >>> rows = BlockRows(np.arange(6, dtype=np.float16).reshape(3, 2))
    >>> rows[1:]
    array([[2., 3.],
           [4., 5.]], dtype=float32)
    >>> len(rows[np.array([2, 0])]), rows[np.array([2, 0])][:1].tolist()
    (2, [[4.0, 5.0]])
    """

    dtype = np.dtype(np.float32)

    def __init__(self, source: Any, positions: np.ndarray | None = None):
        self.source = source
        self.positions = positions
        n_rows = source.shape[0] if positions is None else len(positions)
        self.shape = (n_rows, source.shape[1])
        self.row_bytes = max(1, source.dtype.itemsize * source.shape[1])
        # Arrays in chunks decode a whole chunk for each of its rows.
        self.chunk = (getattr(source, "chunks", None) or (None,))[0]
        self._decoded: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return BlockRows(
                self.source, index if self.positions is None else self.positions[index]
            )
        start, stop, _ = index.indices(len(self))
        if self.positions is None:
            return self._floats(self.read(start, stop), np.arange(start, stop))
        positions = self.positions[start:stop]
        return self._floats(self._pick(positions), positions)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read rows of the source from `start` to `stop`, in its dtype; unchecked."""
        if isinstance(self.source, np.ndarray):
            check_length(self.source)
            return np.asarray(self.source[start:stop])
        size = self._block_size()
        blocks = range(start // size, -(-stop // size))
        parts = [self._block(k)[max(start - k * size, 0) : stop - k * size] for k in blocks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _block_size(self) -> int:
        at_most = max(1, _MOST_DECODED // self.row_bytes)
        return min(self.chunk or 1024, at_most)

    def _block(self, number: int) -> np.ndarray:
        """One block of whole chunks, which is kept for the next rows."""
        if self._decoded is None or self._decoded[0] != number:
            size = self._block_size()
            self._decoded = None  # frees the last block before the next one is read
            block = np.asarray(self.source[number * size : (number + 1) * size])
            self._decoded = number, block
        return self._decoded[1]

    def _pick(self, positions: np.ndarray) -> np.ndarray:
        """Read rows at any positions; each block of chunks is decoded once."""
        if isinstance(self.source, np.ndarray):
            check_length(self.source)
            return np.asarray(self.source)[positions]
        rows = np.empty((len(positions), self.shape[1]), dtype=self.source.dtype)
        size = self._block_size()
        order = np.argsort(positions, kind="stable")
        for of_block in np.split(order, np.flatnonzero(np.diff(positions[order] // size)) + 1):
            if len(of_block):
                number = positions[of_block[0]] // size
                rows[of_block] = self._block(number)[positions[of_block] - number * size]
        return rows

    def _floats(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Cast rows to float32; refuse NaN, infinity and what float32 cannot hold."""
        with np.errstate(over="ignore", invalid="ignore"):
            floats = rows.astype(np.float32, copy=False)
            if np.isfinite(np.add.reduce(floats, axis=None)):
                return floats
        bad = np.argwhere(~np.isfinite(floats))
        if len(bad):
            row, column = bad[0]
            value = rows[row, column]
            reason = "which is not finite"
            if np.isfinite(value):
                reason = "which float32 cannot hold"
            elif np.isinf(value) and rows.dtype == np.float16:
                reason = "and float16 holds no number above 65,504: write the features in float32"
            raise ValueError(
                f"X holds {value} in row {positions[row]}, column {column}, {reason}. Give finite "
                "numbers. The rows after the block of this row were not read yet."
            )
        return floats


def check_length(array: np.ndarray) -> None:
    """Refuse a memory map whose file became shorter: reading past its end kills the process.

    Parameters
    ----------
    array : ndarray
        A memory map, a view of one, or any other array.

    Raises
    ------
    ValueError
        The file is shorter than the map.
    """
    mapped = _mapped(array)
    if mapped is None:
        return
    pages: Any = mapped.base
    # A map begins at a multiple of the granularity, not at the offset of the array.
    needed = mapped.offset - mapped.offset % mmap.ALLOCATIONGRANULARITY + len(pages)
    if (found := pages.size()) < needed:
        name = "" if mapped.filename is None else f" of {shown(os.path.basename(mapped.filename))}"
        raise ValueError(
            f"X is a memory map{name}, and the file has {found:,} bytes where the map needs "
            f"{needed:,}: the file became shorter after it was opened. Write the file again, and "
            "open it again."
        )


def validate_block_rows(
    estimator: BaseEstimator, X: Any, *, reset: bool, least: int = 1
) -> BlockRows:
    """Check all of X that can be checked without reading it.

    Values are checked where they are read.

    Parameters
    ----------
    estimator : object
        Its ``n_features_in_`` and ``feature_names_in_`` are set, or compared with X.
    X : object
        An X for which :func:`in_file` holds.
    reset : bool
        Whether to set these attributes. True in ``fit``.
    least : int, default=1
        Number of rows that X must have.

    Returns
    -------
    BlockRows

    Raises
    ------
    ValueError
        X has another number of features or too few rows, or its file became shorter.

    Warns
    -----
    UserWarning
        Parts of a zarr array were never written. Only in ``fit``.
    """
    # A few rows of zeros have all that is compared: the columns, and whether there are enough rows.
    few = np.zeros((min(X.shape[0], least), X.shape[1]), dtype=np.float32)
    validate_rows(estimator, few, reset=reset, dtype=np.float32, ensure_min_samples=least)
    if isinstance(X, np.ndarray):
        check_length(X)
    elif reset and getattr(X, "shards", None) is None:
        n_chunks, n_written = getattr(X, "nchunks", 0), getattr(X, "nchunks_initialized", 0)
        if 0 < n_written < n_chunks:
            warnings.warn(
                f"X has {n_chunks} chunks, and {n_chunks - n_written} of them were never written: "
                f"their rows read as {X.fill_value}. If the chunks should hold features, write "
                "them again.",
                UserWarning,
            )
    return BlockRows(X)
