"""Where an encoded image is: in a file, at an address that fsspec opens, or in memory."""

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from skfair.utils._regular_files import open_regular
from skfair.utils._shown import plain, shown

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # at least two letters: "C://" is a drive
_PARTS = {"bytes", "path"}  # of an image in a parquet file that Hugging Face's datasets wrote


def picture_of(item: Any) -> Any:
    """Return the image of an item: the first entry of a tuple, the bytes or the path of a record.

    Parameters
    ----------
    item : object
        As a sequence of images holds it.

    Returns
    -------
    object
        A path, an address or bytes for an encoded image; None for a record without both; any
        other item as it is.
    """
    if isinstance(item, tuple) and len(item) > 0:
        item = item[0]
    if isinstance(item, np.ndarray) and item.ndim == 0:
        item = item[()]
    if isinstance(item, Mapping) and set(item) == _PARTS:
        item = item["path"] if item["bytes"] is None else item["bytes"]
    return bytes(item) if isinstance(item, (bytearray, memoryview)) else item


def is_encoded(picture: Any) -> bool:
    """Whether an image has to be decoded by Pillow: it is a path, an address or bytes."""
    return isinstance(picture, (str, os.PathLike, bytes))


def is_address(picture: Any) -> bool:
    """Whether fsspec has to open an image, as "s3://bucket/a.png"."""
    return isinstance(picture, str) and _ADDRESS.match(picture) is not None


def name_of(picture: Any, row: int) -> str:
    """Name an image in messages, with its path if it has one."""
    if isinstance(picture, bytes) or not is_encoded(picture):
        return f"X[{row}]"
    return f"X[{row}] = {shown(os.fspath(picture), 200)}"


@contextmanager
def open_source(source: str | os.PathLike | bytes, row: str) -> Iterator[BinaryIO]:
    """Open an encoded image for reading.

    Parameters
    ----------
    source : path-like, str or bytes
        A regular file, an address ("memory://a.png"), or the contents of a file.
    row : str
        Its name in messages.

    Yields
    ------
    binary file

    Raises
    ------
    OSError, ValueError
        It cannot be opened, or is not a regular file. The message names it.
    ImportError
        An address needs a package that is not installed.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    if not is_address(source):
        with open_regular(source, row) as file:
            yield file
        return
    import fsspec  # torch depends on it, and does not import it by itself

    *_, inner = str(source).split("::")  # "zip://a.png::file:///images.zip"
    if not is_address(inner) or inner.startswith(("file://", "local://")):
        # fsspec would wait for a pipe without end.
        open_regular(fsspec.core.strip_protocol(inner), row).close()
    try:
        opened = fsspec.open(source, "rb")  # an archive is closed with this object
        file = opened.open()
    except ImportError as error:
        raise ImportError(f"{row}={shown(source, 200)} cannot be opened: {error}") from error
    except Exception as error:  # each file system raises its own
        raise OSError(
            f"{row}={shown(source, 200)} cannot be opened by fsspec "
            f"({type(error).__name__}: {plain(str(error))[:200]}). Check the address."
        ) from error
    with file:
        yield file
