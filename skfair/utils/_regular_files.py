"""Files of strangers: opened only where they are files, so that reading them ends."""

import os
import stat
from typing import BinaryIO

from skfair.utils._shown import shown

# A pipe without a writer blocks whoever opens it; a terminal takes over the process. Not so with
# these flags. Windows has others, and translates line ends unless told not to.
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

    Pipes, devices, sockets and folders are refused: to read them may block, never end, or change
    what is read.

    Parameters
    ----------
    path : path-like
        The file.
    what : str
        What messages call it, such as ``"path"`` or ``"X[3]"``.

    Returns
    -------
    binary file
        At its first byte. The caller closes it.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is something else than a file, or no path at all.
    OSError
        The system does not open it.

    Examples
    --------
    >>> open_regular("/", "path")
    Traceback (most recent call last):
        ...
    ValueError: path='/' is a folder, not a file. Give a regular file.
    """
    name = f"{what}={shown(os.fspath(path), 200)}"
    try:
        # Asked before, since to open a device may already do something; and once more after, since
        # somebody may have put another thing in its place.
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
