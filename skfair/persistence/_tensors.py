"""Saved estimators: the bytes of tensors in a file, in the layout of safetensors.

An entry of the header describes one tensor: its dtype, its shape and the place of its bytes. The
bytes of all tensors follow each other without gaps. :func:`read_tensors` reads each tensor
directly into its own memory, and trusts no entry.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import torch

from skfair.utils._errors import InvalidModelError
from skfair.utils._shown import shown

MAX_DIMENSIONS, _MAX_EMPTY = 8, 1 << 20
_ALIGNMENT = 64  # bytes
_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
    **{"C64": torch.complex64, "BOOL": torch.bool},
}
CODES = {dtype: code for code, dtype in _DTYPES.items()}
_KEYS = {"dtype", "shape", "data_offsets"}


def describe_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """Describe tensors for the header of a file, in the order of their bytes.

    The bytes of wide types come first, so that each tensor is aligned in the file.
    """
    described: dict[str, dict[str, Any]] = {}
    end = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        described[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    return described


def _empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Allocate a tensor with the alignment of torch, as the last bits may depend on it.

    The memory comes from NumPy, which asks Linux for huge pages: they are faster to fill.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(n_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return torch.from_numpy(memory[start : start + n_bytes]).view(dtype).reshape(list(shape))


def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor on the CPU to contiguous memory of its own."""
    return tensor.clone(memory_format=torch.contiguous_format)


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """View the memory of a contiguous tensor, for reading or writing bytes."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Digest of the names, types, shapes and bytes of tensors, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(repr((name, CODES.get(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def read_tensors(
    stream: BinaryIO, described: Mapping[str, Any], size: int
) -> dict[str, torch.Tensor]:
    """Read the tensors of a file.

    Parameters
    ----------
    stream : binary file
        At the first byte after the header.
    described : mapping of str to object
        The header without its metadata.
    size : int
        Number of bytes after the header. The tensors take exactly these bytes, so memory is in
        proportion to the file.

    Returns
    -------
    dict of str to tensor

    Raises
    ------
    InvalidModelError
        The description is malformed, or its tensors overlap, leave gaps, or do not end with the
        file.
    """
    entries = [(*_checked(name, entry), name) for name, entry in described.items()]
    entries.sort(key=lambda entry: entry[:2])
    end = 0
    for start, stop, _, _, name in entries:
        _require(start == end, f"the bytes of {shown(name)} start at {start}, expected {end}")
        end = stop
    _require(end == size, f"its tensors take {end} bytes, but {size} bytes follow the header")
    tensors = {}
    for _, _, dtype, shape, name in entries:
        tensor = _empty(shape, dtype)
        if tensor.numel():
            # A buffered stream fills the memory completely, or the file has ended.
            n_read = stream.readinto(bytes_of(tensor))  # type: ignore[attr-defined]
            _require(n_read == tensor.nbytes, "the file ended while it was read")
        tensors[name] = tensor
    return tensors


def check_bytes_of_truth(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse truth values other than 0 and 1.

    Compiled code counts true values by adding up bytes.
    """
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool and tensor.numel() and tensor.view(torch.uint8).max() > 1:
            raise InvalidModelError(
                f"The model has truth values in {shown(name)} other than 0 and 1."
            )


def check_shape(shape: Sequence[int]) -> None:
    """Refuse a shape that no saved tensor has."""
    if len(shape) > MAX_DIMENSIONS or is_long_and_empty(shape):
        raise InvalidModelError(
            f"The model has a tensor of shape {shown(list(shape), 80)}, which no saved model has."
        )


def is_long_and_empty(shape: Sequence[int]) -> bool:
    """Whether a sum along an empty side would take much memory, because other sides are long."""
    return 0 in shape and math.prod(max(1, side) for side in shape) > _MAX_EMPTY


def _checked(name: str, entry: Any) -> tuple[int, int, torch.dtype, list[int]]:
    """Return first byte, end, dtype and shape of an entry of the header."""
    what = f"the entry {shown(name)} of its header"
    _require(isinstance(entry, dict) and entry.keys() == _KEYS, f"{what} is malformed")
    dtype, shape, place = (entry[key] for key in ("dtype", "shape", "data_offsets"))
    _require(isinstance(dtype, str) and dtype in _DTYPES, f"{what} has an unknown dtype")
    _require(_are_sizes(shape) and _are_sizes(place) and len(place) == 2, f"{what} is malformed")
    check_shape(shape)
    n_bytes = math.prod(shape) * _DTYPES[dtype].itemsize
    _require(place[1] - place[0] == n_bytes, f"{what} has another number of bytes than its shape")
    return place[0], place[1], _DTYPES[dtype], shape


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(_is_size(value) for value in values)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _require(fits: bool, problem: str) -> None:
    if not fits:
        raise InvalidModelError(
            f"The file of the model is not a safetensors file, or was cut or altered: {problem}. "
            "Copy the file again from its source, or save the model again."
        )
