"""Frozen features with labels and groups, read from files that cannot run code."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from sklearn.utils import Bunch

_FEATURES = "features.npy"
_TABLE = "labels.csv"


def load_features(
    path: str | os.PathLike,
    *,
    features: str = "features",
    target: str = "labels",
    sensitive_features: str | list[str] | None = "groups",
    mmap: bool = False,
) -> Bunch:
    """Load features, labels and groups from a file or folder.

    Nothing in the files is executed: arrays of Python objects are refused.

    Parameters
    ----------
    path : path-like
        An ``.npz`` or ``.safetensors`` file of named arrays, or a folder with the features
        in ``features.npy`` and a column for each of the others in ``labels.csv``.
    features : str, default="features"
        Name of the array of features; a folder does not need it.
    target : str, default="labels"
        Name of the array or column of labels.
    sensitive_features : str, list of str or None, default="groups"
        Name or names of the arrays or columns of group labels; None where there are none.
    mmap : bool, default=False
        Leave the features of a folder on the disk and read what is used, when it is used.

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
        There is no such file or folder, or the folder lacks one of the two files.
    ValueError
        The file is damaged or of another format, an array or column is missing or of the
        wrong shape, or ``mmap`` is asked of a file.

    Notes
    -----
    A compressed ``.npz`` takes the memory that its arrays claim, a thousand times the size of the
    file at worst: take files of strangers as ``.safetensors`` or a folder.

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
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist. Give a file or a folder.")
    names = [sensitive_features] if isinstance(sensitive_features, str) else sensitive_features
    columns = [target, *(names or [])]
    if path.is_dir():
        X, table = _read_folder(path, columns, mmap)
    else:
        if mmap:
            raise ValueError(
                f"mmap=True needs a folder with {_FEATURES} and {_TABLE}; {str(path)!r} is a "
                "file. Use mmap=False, or save the features with numpy.save."
            )
        readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
        if path.suffix not in readers:
            raise ValueError(
                f"path={str(path)!r} is neither a folder nor an .npz or .safetensors file. Save "
                "the arrays with numpy.savez or safetensors.numpy.save_file."
            )
        table = readers[path.suffix](path, [features, *columns])
        X = table.pop(features)

    if X.ndim != 2 or X.dtype.kind not in "fiu":
        raise ValueError(
            f"The features in {str(path)!r} have shape {X.shape} and dtype {X.dtype}, expected "
            "numbers of shape (n_samples, n_features)."
        )
    for name, column in table.items():
        if column.shape != X.shape[:1]:
            raise ValueError(
                f"{name!r} in {str(path)!r} has shape {column.shape}, expected {X.shape[:1]}: one "
                "value for each row of the features."
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
                f"The folder {str(path)!r} lacks {file.name}; it needs {_FEATURES} and {_TABLE}."
            )
    try:
        X = np.lib.format.open_memmap(path / _FEATURES, mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{str(path / _FEATURES)!r} is not an array of plain numbers ({error}). Write it with "
            "numpy.save."
        ) from error
    try:
        table = pd.read_csv(path / _TABLE)
    except ValueError as error:
        raise ValueError(f"{str(path / _TABLE)!r} is not a table ({error}).") from error
    _require(columns, list(table.columns), path / _TABLE)
    return X if mmap else np.array(X), {name: table[name].to_numpy() for name in columns}


def _read_npz(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        try:
            archive = np.lib.npyio.NpzFile(file, allow_pickle=False)
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"{str(path)!r} is not an .npz archive ({error}). Write it with numpy.savez."
            ) from error
        _require(names, archive.files, path)
        arrays = {}
        for name in names:
            try:
                arrays[name] = archive[name]
            except (ValueError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(
                    f"The array {name!r} in {str(path)!r} cannot be read ({error}). Arrays of "
                    "Python objects are refused; convert labels with astype(str)."
                ) from error
    return arrays


def _read_safetensors(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as archive:
            _require(names, list(archive.keys()), path)
            return {name: archive.get_tensor(name) for name in names}
    except (SafetensorError, TypeError) as error:  # TypeError: bfloat16, which NumPy lacks
        raise ValueError(
            f"{str(path)!r} is not a safetensors file of NumPy's types ({error}). Write it with "
            "safetensors.numpy.save_file."
        ) from error


def _require(names: list[str], present: list[str], path: Path) -> None:
    absent = [name for name in names if name not in present]
    if absent:
        raise ValueError(
            f"{str(path)!r} lacks {', '.join(map(repr, absent))}; it has "
            f"{', '.join(map(repr, present))}. Name the features, target and sensitive_features."
        )
