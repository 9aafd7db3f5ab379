"""Opening files from untrusted sources: only regular files, so that reading ends."""

import os
import stat
from typing import BinaryIO

from skfair.utils._shown import shown

# Without these flags, opening a pipe without a writer would block, and opening a terminal would
# make it control the process. On Windows, O_BINARY switches off the translation of line ends.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY", "O_NOINHERIT"):
    _FLAGS |= getattr(os, _name, 0)
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: str | os.PathLike, what: str) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Pipes, devices, sockets and folders are refused: reading them may block, may never end, or may
    change their content.

    Parameters
    ----------
    path : path-like
        The file.
    what : str
        Name of the argument in messages, for example ``"path"`` or ``"X[3]"``.

    Returns
    -------
    binary file
        The open file, at its first byte. The caller must close it.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    ValueError
        `path` is not a regular file, or not a valid path.
    OSError
        The system cannot open the file.

    Examples
    --------
    >>> open_regular("/", "path")
    Traceback (most recent call last):
        ...
    ValueError: path='/' is a folder, not a file. Give a regular file.
    """
    name = f"{what}={shown(os.fspath(path), 200)}"
    try:
        # Checked before opening, because opening a device may already have an effect. Checked again
        # after opening, because the file may have been replaced in the meantime.
        mode = os.stat(path).st_mode
        descriptor = os.open(path, _FLAGS) if stat.S_ISREG(mode) else None
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name} does not exist. Give a file.") from error
    except OSError as error:
        raise type(error)(f"{name} cannot be opened: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"{name} is not a path: {error}.") from error
    if descriptor is not None:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    raise ValueError(f"{name} is {kind}, not a file. Give a regular file.")
