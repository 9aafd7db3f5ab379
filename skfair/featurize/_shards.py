"""Shards of the feature store: files of features that are written once, found by content.

A SQLite file is no store for several machines: its locks do not work on network disks, and its
writers wait for each other. So each task writes one new file, which nobody changes later, and
every reader looks into all files of the folder.
"""

import hashlib
import io
import math
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skfair.utils._regular_files import open_regular
from skfair.utils._shown import plain, shown
from skfair.utils._write import write_whole

_PATTERN = "features-*.shard"
# A shard holds three arrays, one after the other in NumPy's format: the first bytes of the keys,
# sorted, in which a key is found; the other bytes with the checksum of the row; and the rows.
_PREFIX = np.dtype("<u8")
_REST = np.dtype([("key", "V12"), ("checksum", "V8")])
_VALUE = np.dtype("<f4")
_MOST_ROWS = 2**24  # of a shard; a task has all of them in memory before it writes them
_MOST_ALIKE = 4  # rows whose keys, which are hashes, begin with the same eight bytes
LARGEST_ROW = 2**26  # bytes of a row in a store; larger than any features, and fits in memory


class Shards:
    """The shards of a folder, as they are at the first look; the files are only read.

    Parameters
    ----------
    folder : path-like
    """

    def __init__(self, folder: str | os.PathLike):
        self._shards = [
            shard for path in sorted(Path(folder).glob(_PATTERN)) if (shard := _open(path))
        ]

    def get(self, keys: list[bytes]) -> dict[bytes, np.ndarray]:
        """Return the rows of some keys; without rows that are missing or damaged.

        Parameters
        ----------
        keys : list of bytes
            Without duplicates.

        Returns
        -------
        dict of bytes to ndarray of shape (n_features,)
        """
        found: dict[bytes, np.ndarray] = {}
        for place, shard in enumerate(self._shards):
            left = [key for key in keys if key not in found]
            if not left:
                # The next batch is probably of the same earlier task.
                self._shards.insert(0, self._shards.pop(place - 1))
                break
            found.update(shard.find(left))
        return found


def write_shard(folder: Path, rows: dict[bytes, np.ndarray]) -> Path:
    """Write rows to a new file in a folder.

    Parameters
    ----------
    folder : path
        An existing folder.
    rows : dict of bytes to ndarray of shape (n_features,)
        At least one row; all of one length.

    Returns
    -------
    path
    """
    keys = sorted(rows)
    values = np.stack([rows[key] for key in keys]).astype(_VALUE)
    rests = [
        (key[8:], row_checksum(key, row.tobytes())) for key, row in zip(keys, values, strict=True)
    ]
    content = io.BytesIO()
    for array in (
        _prefixes(keys),
        np.array(rests, dtype=_REST),
        values,
    ):
        np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
    name = hashlib.sha256(b"".join(keys)).hexdigest()[:32]
    return write_whole(folder / _PATTERN.replace("*", name), content.getvalue())


class _Shard(NamedTuple):
    """One file. Only the first bytes of the keys stay in memory.

    The rest is not mapped into memory: if somebody shortens a mapped file, reading the mapping
    ends the process.
    """

    path: Path
    prefixes: np.ndarray
    rests: int  # where in the file these begin
    values: int
    n_features: int

    def find(self, keys: list[bytes]) -> dict[bytes, np.ndarray]:
        """Look some keys up; without rows that are missing or damaged."""
        wanted = _prefixes(keys)
        first, end = (np.searchsorted(self.prefixes, wanted, side) for side in ("left", "right"))
        here = np.flatnonzero(first < end).tolist()  # mostly none, or all
        if not here:
            return {}
        found = {}
        # The file may be gone, or another one, since it was opened first.
        with suppress(OSError, ValueError), open_regular(self.path, "memory") as file:
            for place in here:
                key = keys[place]
                for row in range(first[place], min(first[place] + _MOST_ALIKE, end[place])):
                    file.seek(self.rests + row * _REST.itemsize)
                    rest = file.read(_REST.itemsize)
                    if rest[:-8] != key[8:]:
                        continue
                    file.seek(self.values + row * self.n_features * _VALUE.itemsize)
                    value = file.read(self.n_features * _VALUE.itemsize)
                    if rest[-8:] == row_checksum(key, value):
                        found[key] = np.frombuffer(value, dtype=_VALUE).copy()
                    break
        return found


def _open(path: Path) -> _Shard | None:
    """Look into a shard; None for a file that is no shard, or is cut off."""
    starts, shapes = [], []
    try:
        with open_regular(path, "memory") as file:
            size = os.fstat(file.fileno()).st_size
            for dtype, n_axes in ((_PREFIX, 1), (_REST, 1), (_VALUE, 2)):
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError("another version of NumPy's format")
                shape, by_column, found = np.lib.format.read_array_header_1_0(file)
                if by_column or found != dtype or len(shape) != n_axes or not min(shape):
                    raise ValueError("other arrays than those of a shard")
                # A sparse file may claim more than the memory holds, at no cost.
                if shape[0] > _MOST_ROWS:
                    raise ValueError("it has too many rows")
                if n_axes == 2 and shape[1] * dtype.itemsize > LARGEST_ROW:
                    raise ValueError("the rows are too large")
                starts.append(file.tell())
                shapes.append(shape)
                if math.prod(shape) * dtype.itemsize > size - starts[-1]:
                    raise ValueError("the file is too short")
                file.seek(starts[-1] + math.prod(shape) * dtype.itemsize)
            if len({shape[0] for shape in shapes}) > 1:
                raise ValueError("arrays of different lengths")
            file.seek(starts[0])
            prefixes = np.fromfile(file, dtype=_PREFIX, count=shapes[0][0])
            if len(prefixes) < shapes[0][0]:
                raise ValueError("the file was cut in the meantime")
    except Exception as error:  # Python's parser raises errors of many types on damaged headers
        warnings.warn(
            f"{shown(os.fspath(path), 200)} is not read: {plain(str(error))[:200]}. "
            "Its rows are encoded again; delete the file.",
            UserWarning,
        )
        return None
    return _Shard(path, prefixes, rests=starts[1], values=starts[2], n_features=shapes[2][1])


def _prefixes(keys: list[bytes]) -> np.ndarray:
    """Read the first eight bytes of keys as numbers, which have the order of the keys."""
    # In the processor's own order of bytes: otherwise each search would convert all numbers.
    return np.frombuffer(b"".join(key[:8] for key in keys), dtype=">u8").astype(_PREFIX)


def row_checksum(key: bytes, value: bytes) -> bytes:
    """Return the checksum of a row of features, 8 bytes."""
    return hashlib.sha256(key + value).digest()[:8]
