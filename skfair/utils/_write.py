"""Writing a file completely or not at all."""

import os
import secrets
import stat
from pathlib import Path

from skfair.utils._shown import shown


def check_target(path: str | os.PathLike) -> Path:
    """Refuse a path where no file can be written, before the work begins.

    Parameters
    ----------
    path : str or path-like
        Path of the file, which may exist.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    FileNotFoundError
        The folder of the file does not exist.
    IsADirectoryError
        The path is a folder.
    ValueError
        The path is a device or a pipe.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"path={shown(str(path), 200)} is in a folder that does not exist. Make it first."
        )
    if path.is_dir():
        raise IsADirectoryError(f"path={shown(str(path), 200)} is a folder. Name a file in it.")
    if path.exists() and not path.is_file():
        raise ValueError(f"path={shown(str(path), 200)} is a device or a pipe. Name a file.")
    return path


def write_whole(path: str | os.PathLike, content: str | bytes) -> Path:
    """Write a file; an existing file is replaced when the new one is complete.

    The new file has the permissions of the old one. If the path is a link, the file replaces the
    link; the target of the link does not change.

    Parameters
    ----------
    path : str or path-like
        Path of the file. Its folder must exist.
    content : str or bytes
        Text is written as UTF-8 with the line ends that it has.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, ValueError
        As of :func:`check_target`.
    OSError
        The file cannot be written. An existing file is unchanged.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/a.txt", "words").read_text()
    'words'
    """
    path = check_target(path)
    data = content.encode() if isinstance(content, str) else content
    mode = None
    if os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode):
        mode = path.lstat().st_mode & 0o777
    part = path.with_name(f".{secrets.token_hex(16)}.part")
    try:
        # "x" makes only a new file, and follows no link. The file is private until it has the mode
        # of the old file. Without an old file, it has the system's default.
        with open(part, "xb", opener=None if mode is None else _open_private) as file:
            if mode is not None:
                os.chmod(part, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # complete on the disk before the old file goes
        os.replace(part, path)
    except OSError as error:
        why = error.strerror or error
        reason = f"The file cannot be written ({why}); an existing file is unchanged"
        raise type(error)(error.errno, reason, str(path)) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
