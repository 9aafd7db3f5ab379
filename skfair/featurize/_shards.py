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
from pathlib import Path

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
            found.update(_find(left, *shard))
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


def _open(path: Path) -> list[np.ndarray] | None:
    """Map the three arrays of a shard; None for a file that is no shard, or is cut off."""
    arrays: list[np.ndarray] = []
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
                if n_axes == 2 and shape[1] * dtype.itemsize > LARGEST_ROW:
                    raise ValueError("the rows are too large")
                if math.prod(shape) * dtype.itemsize > size - file.tell():
                    raise ValueError("the file is too short")
                array = np.memmap(file, dtype, "r", file.tell(), shape)
                file.seek(array.offset + array.nbytes)
                arrays.append(np.asarray(array))  # views of a memmap cost ten times as much
            if len({len(array) for array in arrays}) > 1:
                raise ValueError("arrays of different lengths")
    except Exception as error:  # Python's parser raises errors of many types on damaged headers
        warnings.warn(
            f"{shown(os.fspath(path), 200)} is not read: {plain(str(error))[:200]}. "
            "Its rows are encoded again; delete the file.",
            UserWarning,
        )
        return None
    return arrays


def _find(
    keys: list[bytes], prefixes: np.ndarray, rests: np.ndarray, values: np.ndarray
) -> dict[bytes, np.ndarray]:
    """Look some keys up in one shard."""
    found = {}
    wanted = _prefixes(keys)
    first = np.searchsorted(prefixes, wanted)
    near = np.minimum(first, len(prefixes) - 1)
    for place in np.flatnonzero(prefixes[near] == wanted).tolist():  # mostly none, or all
        key, row = keys[place], first[place]
        while row < len(prefixes) and prefixes[row] == wanted[place]:
            rest, value = rests[row], np.array(values[row])
            if rest["key"].tobytes() == key[8:]:
                if rest["checksum"].tobytes() == row_checksum(key, value.tobytes()):
                    found[key] = value
                break
            row += 1
    return found


def _prefixes(keys: list[bytes]) -> np.ndarray:
    """Read the first eight bytes of keys as numbers, which have the order of the keys."""
    # In the processor's own order of bytes: otherwise each search would convert all numbers.
    return np.frombuffer(b"".join(key[:8] for key in keys), dtype=">u8").astype(_PREFIX)


def row_checksum(key: bytes, value: bytes) -> bytes:
    """Return the checksum of a row of features, 8 bytes."""
    return hashlib.sha256(key + value).digest()[:8]
