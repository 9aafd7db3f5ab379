"""Reads frozen features with labels and groups from files, without running code from them."""

import csv
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import pandas as pd
from safetensors import safe_open
from sklearn.utils import Bunch

from skfair.utils._regular_files import open_regular
from skfair.utils._shown import plain, shown, shown_all

_FEATURES = "features.npy"
_TABLE = "labels.csv"
_HEADERS: dict[tuple[int, int], Callable] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_HEADER_BYTES = 2**16  # NumPy refuses headers of more than 10,000
# The most bytes that one byte of an archive can hold, by the compressions that NumPy writes.
_MOST_TIMES = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
_CHUNK = 2**20


def load_features(
    path: str | os.PathLike,
    *,
    features: str = "features",
    target: str = "labels",
    sensitive_features: str | list[str] | None = "groups",
    mmap: bool = False,
) -> Bunch:
    """Load features, labels and groups from a file or folder.

    This function executes nothing from the files: it refuses arrays of Python objects.

    Parameters
    ----------
    path : path-like
        An ``.npz`` or ``.safetensors`` file of named arrays, or a folder with the features
        in ``features.npy`` and a column for each of the others in ``labels.csv``.
    features : str, default="features"
        Name of the array of features; ignored for a folder.
    target : str, default="labels"
        Name of the array or column of labels.
    sensitive_features : str, list of str or None, default="groups"
        Name or names of the arrays or columns of group labels; None if there are none.
    mmap : bool, default=False
        Keep the features of a folder on the disk, as a memory map.

    Returns
    -------
    Bunch
        - ``X``: ndarray (or :class:`numpy.memmap`) of shape (n_samples, n_features)
        - ``y``: ndarray of shape (n_samples,)
        - ``sensitive_features``: ndarray of shape (n_samples,) for one name, DataFrame for
          a list, None for None. Missing values stay missing.

    Raises
    ------
    FileNotFoundError
        The file or folder does not exist, or the folder lacks one of the two files.
    OSError
        The system cannot open the file.
    ValueError
        The file is damaged, claims more than it holds or has another format; an array or column
        is missing, duplicated or of the wrong shape; or ``mmap=True`` with a file.

    Notes
    -----
    This function refuses pipes, devices, and an array that claims more than its file can hold. A
    compressed ``.npz`` can take a thousand times its size in memory. Prefer ``.safetensors`` or a
    folder for files from strangers: these take no more memory than their size.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", features=np.eye(2), labels=[0, 1], groups=["f", "m"])
    ...     data = load_features(f"{folder}/a.npz")
    >>> data.X.shape, data.y.tolist(), data.sensitive_features.tolist()
    ((2, 2), [0, 1], ['f', 'm'])
    """
    path = Path(path)
    names = [sensitive_features] if isinstance(sensitive_features, str) else sensitive_features
    columns = [target, *(names or [])]
    if path.is_dir():
        X, table = _read_folder(path, columns, mmap)
    else:
        readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
        with open_regular(path, "path") as file:
            if mmap:
                raise ValueError(
                    f"mmap=True needs a folder with {_FEATURES} and {_TABLE}; {_name(path)} is a "
                    "file. Use mmap=False, or save the features with numpy.save."
                )
            if path.suffix not in readers:
                raise ValueError(
                    f"path={_name(path)} is neither a folder nor an .npz or .safetensors file. "
                    "Save the arrays with numpy.savez or safetensors.numpy.save_file."
                )
            table = readers[path.suffix](file, path, [features, *columns])
        X = table.pop(features)

    if X.ndim != 2 or X.dtype.kind not in "fiu":
        raise ValueError(
            f"The features in {_name(path)} have shape {X.shape} and dtype {X.dtype}, expected "
            "numbers of shape (n_samples, n_features)."
        )
    for name, column in table.items():
        if column.shape != X.shape[:1]:
            raise ValueError(
                f"{shown(name)} in {_name(path)} has shape {column.shape}, expected "
                f"{X.shape[:1]}: one value for each row of the features."
            )
    groups: Any = None
    if isinstance(sensitive_features, str):
        groups = table[sensitive_features]
    elif names:
        groups = pd.DataFrame({name: table[name] for name in names})
    return Bunch(X=X, y=table[target], sensitive_features=groups)


def _read_folder(
    path: Path, columns: list[str], mmap: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    for file in (path / _FEATURES, path / _TABLE):
        if not file.is_file():
            raise FileNotFoundError(
                f"The folder {_name(path)} lacks {file.name}; it needs {_FEATURES} and {_TABLE}."
            )
    features, labels = path / _FEATURES, path / _TABLE
    with (
        open_regular(features, "path") as opened,
        _in_words(
            f"{_name(features)} is not an array of plain numbers", "Write it with numpy.save."
        ),
    ):
        n_bytes = os.fstat(opened.fileno()).st_size
        if mmap:
            _read_header(opened, n_bytes)
            # Opened by path, which joblib needs.
            X: np.ndarray = np.lib.format.open_memmap(features, mode="r")
        else:
            X = _read_array(opened, n_bytes)
    said = f"{_name(labels)} is not a table", "Write it with pandas.DataFrame.to_csv."
    with open_regular(labels, "path") as opened:
        with _in_words(*said):
            # pandas would rename one of two equal names.
            text = io.TextIOWrapper(opened, encoding="utf-8-sig", newline="")
            header = next(filter(None, csv.reader(text)))
            present = [name or f"Unnamed: {i}" for i, name in enumerate(header)]  # as pandas does
            text.detach()
            opened.seek(0)
        _require(columns, present, labels)
        with _in_words(*said):
            table = pd.read_csv(opened)
    return X, {name: table[name].to_numpy() for name in columns}


def _read_npz(file: BinaryIO, path: Path, names: list[str]) -> dict[str, np.ndarray]:
    with _in_words(f"{_name(path)} is not an .npz archive", "Write it with numpy.savez."):
        archive = zipfile.ZipFile(file)
    entries = archive.infolist()
    _require(names, [entry.filename.removesuffix(".npy") for entry in entries], path)
    n_bytes = os.fstat(file.fileno()).st_size
    arrays = {}
    for name in names:
        with _in_words(
            f"The array {shown(name)} in {_name(path)} cannot be read",
            "Arrays of Python objects are refused; convert labels with astype(str).",
        ):
            entry = next(e for e in entries if e.filename.removesuffix(".npy") == name)
            if entry.compress_type not in _MOST_TIMES:
                raise ValueError("it is compressed in a way that numpy.savez does not have")
            # The directory of the archive may claim any size, and the claim decides the memory.
            held = min(entry.compress_size, n_bytes) * _MOST_TIMES[entry.compress_type]
            with archive.open(entry) as opened:
                arrays[name] = _read_array(opened, min(entry.file_size, held))
                opened.read(1)  # compares the checksum at the end
    return arrays


def _read_header(file: IO[bytes], n_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype, IO]:
    """Check the header of an array of plain values that has at most `n_bytes` bytes.

    Returns
    -------
    shape, fortran_order, dtype : as NumPy returns them
    start : binary file
        The values that were read with the header.
    """
    start = io.BytesIO(file.read(_HEADER_BYTES))
    version = np.lib.format.read_magic(start)
    if version not in _HEADERS:
        raise ValueError(f"its format has the version {version}")
    shape, fortran_order, dtype = _HEADERS[version](start)
    if dtype.kind not in "biufcSUmM" or dtype.itemsize == 0:
        raise ValueError(f"its values have the dtype {shown(dtype)}")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"its shape is {shown(shape)}")
    claimed, there = math.prod(shape) * dtype.itemsize, n_bytes - start.tell()
    if claimed > there:
        raise ValueError(f"it claims {claimed:,} bytes and has {there:,} at most")
    return shape, fortran_order, dtype, start


def _read_array(file: IO[bytes], n_bytes: int) -> np.ndarray:
    """Read an array; NumPy would allocate the memory that a header claims before reading data."""
    shape, fortran_order, dtype, start = _read_header(file, n_bytes)
    array = np.empty(shape[::-1] if fortran_order else shape, dtype)
    room = array.reshape(-1).view(np.uint8)
    filled = 0
    while filled < len(room):
        part = start.read(_CHUNK) or file.read(_CHUNK)
        part = part[: len(room) - filled]
        if not part:
            raise ValueError(f"it claims {len(room):,} bytes and has {filled:,}")
        room[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    return array.transpose() if fortran_order else array


def _read_safetensors(file: BinaryIO, path: Path, names: list[str]) -> dict[str, np.ndarray]:
    said = (
        f"{_name(path)} is not a safetensors file of NumPy's types",
        "Write it with safetensors.numpy.save_file.",
    )
    with _in_words(*said):
        archive = safe_open(path, framework="numpy")
        # The library silently takes one of two equal names.
        header = file.read(int.from_bytes(file.read(8), "little"))
        present = json.loads(header, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
    with archive:
        _require(names, present, path)
        with _in_words(*said):
            return {name: archive.get_tensor(name) for name in names}


def _require(names: list[str], present: list[str], path: Path) -> None:
    absent = [name for name in names if name not in present]
    if absent:
        raise ValueError(
            f"{_name(path)} lacks {shown_all(absent)}; it has {shown_all(present)}. Name the "
            "features, target and sensitive_features."
        )
    for name in names:
        if present.count(name) > 1:
            raise ValueError(
                f"{_name(path)} has {shown(name)} {present.count(name)} times. Rename all but one."
            )


@contextmanager
def _in_words(what: str, cure: str) -> Iterator[None]:
    """Name the file that cannot be read; a reader raises errors of any type on damaged files."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{what} ({plain(str(error))[:200]}). {cure}") from error


def _name(path: Path) -> str:
    return shown(str(path), 200)
