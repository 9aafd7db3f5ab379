"""The content of an item as bytes for a hash: equal bytes only for items of the same content."""

import datetime
import decimal
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import torch

from skfair._images._forms import is_pillow
from skfair.utils._shown import shown

_ORIENTATION = 0x0112  # the EXIF tag
_DEEPEST = 50  # containers in each other; more are one that contains itself
# Their repr is their whole value.
_BY_REPR = {
    *(datetime.date, datetime.time, datetime.timedelta, decimal.Decimal),
    *(pd.Timestamp, pd.Timedelta, type(pd.NaT), type(pd.NA)),
}


def add_content(add: Callable[[bytes], Any], item: Any, name: str, depth: int = 0) -> None:
    """Add the content of an item to a hash.

    Each part is preceded by its kind and its length, so that two items give the same bytes only
    if they have the same types and values: ``1``, ``1.0``, ``True``, ``"1"`` and ``b"1"`` differ,
    and so do ``["ab"]`` and ``["a", "b"]``, ``0.0`` and ``-0.0``, arrays of another dtype or shape,
    and dicts in another order, which an encoder might see. All NaN of one type are the same.

    Parameters
    ----------
    add : callable
        ``update`` of a hash.
    item : object
        None, bool, number, str, bytes, date or time, array, tensor, Pillow image; or list, tuple
        or dict of these.
    name : str
        Of the item, for messages.

    Raises
    ------
    TypeError
        The content of the item, or of a part of it, is not known; also a Pillow image of several
        frames.

    Examples
    --------
    >>> import hashlib
    >>> one, other = hashlib.sha256(), hashlib.sha256()
    >>> add_content(one.update, ["ab"], "X[0]")
    >>> add_content(other.update, ["a", "b"], "X[0]")
    >>> one.digest() == other.digest()
    False
    """

    def part(kind: str, *values: bytes | memoryview) -> None:
        add(f"{kind}:{','.join(str(len(value)) for value in values)};".encode())
        for value in values:
            add(value)  # type: ignore[arg-type]

    kind = type(item)
    if depth > _DEEPEST:
        raise TypeError(f"{name} contains itself, or is nested too deeply. Give plain values.")
    if kind in (type(None), bool):
        part(kind.__name__, repr(item).encode())
    elif kind is int:
        part("int", hex(item).encode())  # not in decimals, of which Python writes some thousand
    elif kind in (float, complex):
        part(kind.__name__, *(_bits(value) for value in (item.real, item.imag)))
    elif kind in (str, np.str_):
        part("str", str(item).encode("utf-8", "surrogatepass"))
    elif kind in (bytes, bytearray, np.bytes_):
        part("bytes", bytes(item))
    elif kind in _BY_REPR or (kind is datetime.datetime and item.tzinfo is None):
        part(f"{kind.__module__}.{kind.__qualname__}", repr(item).encode())
    elif kind in (list, tuple):
        part(kind.__name__, struct.pack("<q", len(item)))
        for position, entry in enumerate(item):
            add_content(add, entry, f"{name}[{position}]", depth + 1)
    elif kind is dict:
        part("dict", struct.pack("<q", len(item)))
        for key, entry in item.items():
            add_content(add, key, f"a key of {name}", depth + 1)
            add_content(add, entry, f"{name}[{shown(key)}]", depth + 1)
    elif kind in (np.ndarray, np.memmap) and item.dtype.hasobject and item.dtype.names is None:
        part("objects", repr(item.shape).encode())
        for position, entry in enumerate(item.flat):
            add_content(add, entry, f"{name}.flat[{position}]", depth + 1)
    elif isinstance(item, np.generic) or kind in (np.ndarray, np.memmap):
        array = np.asarray(item)
        if array.dtype.hasobject or array.dtype.names is not None:
            raise TypeError(_refusal(item, name))
        part("array", repr((array.dtype.str, array.shape)).encode(), array.tobytes())
    elif kind in (torch.Tensor, torch.nn.Parameter) and _is_plain(item):
        values = item.detach().resolve_conj().resolve_neg().cpu().contiguous()
        data = values.flatten().view(torch.uint8).numpy().data if values.numel() else b""
        part("tensor", repr((str(item.dtype), tuple(item.shape))).encode(), data)
    elif is_pillow(item):
        if getattr(item, "n_frames", 1) > 1:
            raise TypeError(
                f"{name} is a Pillow image of {item.n_frames} frames, of which memory knows one. "
                f"Give {name}.copy() for this one, or a list of the frames."
            )
        add_content(add, _of_pillow(item), name, depth + 1)
    else:
        raise TypeError(_refusal(item, name))


def _of_pillow(image: Any) -> tuple:
    """Return what decides how an image is read; other entries of `info` describe the file."""
    pixels = image.tobytes()  # the file is read now, which may set what is asked next
    palette = None
    if image.palette is not None:
        palette = image.palette.mode, image.getpalette(None)  # in this mode, maybe with alpha
    info = [image.info.get(entry) for entry in ("transparency", "exif", "icc_profile")]
    turned = None
    with suppress(Exception):  # damaged EXIF data turn nothing
        turned = image.getexif().get(_ORIENTATION)  # also from XMP data, or as set in memory
    return "pillow", image.mode, image.size, pixels, palette, *info, turned


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def _bits(value: float) -> bytes:
    return struct.pack("<d", value) if value == value else b"nan"


def _refusal(item: Any, name: str) -> str:
    return (
        f"{name} is a {type(item).__module__}.{type(item).__qualname__}, whose content is not "
        "known, so that memory cannot tell it from others. Give items of str, bytes, numbers, "
        "None, arrays, tensors, Pillow images, or lists, tuples and dicts of these; or leave "
        "memory out."
    )
