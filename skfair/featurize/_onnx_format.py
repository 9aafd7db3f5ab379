"""The ONNX format: parse a model within limits, find its tensors, refuse what is unsafe."""

import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from skfair.utils._imports import import_optional
from skfair.utils._shown import plain, shown, shown_all

# Operators that can open files or call functions of the process.
_REFUSED_OPERATORS = {"EPContext", "PyOp", "PythonOp", "ATen"}
_MAX_REPEATS = 4  # how often tensors may use the same bytes of a file, on average
_MAX_PARTS = 2**19  # fields of all messages; some 20 to 60 for each operation of a network
# How many numbers of a packed list count as one part, by protobuf's 32- and 64-bit types. A number
# takes 12 or 24 bytes, since such lists grow by doubling and keep the earlier halves.
_NUMBERS_A_PART = {1: 32, 3: 32, 2: 16, 4: 16}
_NOT_LAST_BYTES = bytes(range(128, 256))  # every byte of a number but its last is one of these
_MAX_DIMS = 64
_MAX_LOCATION = 4096  # characters, the longest path of Linux


def parse_model(name: str, data: bytes) -> Any:
    """Parse the bytes of a model; refuse bytes that are not one, or would take too much memory."""
    onnx = import_optional("onnx", extra="onnx", purpose="An .onnx file as encoder")
    protobuf = import_optional("google.protobuf.message", extra="onnx", purpose="An .onnx file")
    proto = onnx.ModelProto()
    if _has_more_parts(data, proto.DESCRIPTOR, _MAX_PARTS):
        raise ValueError(
            f"encoder={shown(name)} has more than {_MAX_PARTS} parts, or numbers that take as much "
            "memory. A network that keeps its large tensors as raw_data has fewer: save it so."
        )
    try:
        proto.ParseFromString(data)  # refuses more than 100 nested messages
    except protobuf.DecodeError as error:
        raise ValueError(
            f"encoder={shown(name)} cannot be opened as an ONNX model: {reason_of(error)}"
        ) from error
    # onnxruntime may know newer fields. It must see only what this module has checked.
    proto.DiscardUnknownFields()
    return proto


def _has_more_parts(data: bytes, descriptor: Any, most: int) -> bool:
    """Count the parts of a message before parsing, which makes each an object of 80 times its size.

    Returns whether there are more than `most`.
    """
    inner: dict[Any, dict[int, Any]] = {}
    stack = [(descriptor, 0, len(data))]
    n_parts = 0
    try:
        while stack and n_parts <= most and len(stack) < 300:  # the parser goes 100 deep
            kind, at, end = stack.pop()
            if kind not in inner:
                inner[kind] = {
                    field.number: field.message_type or _NUMBERS_A_PART.get(field.cpp_type)
                    for field in kind.fields
                }
            fields = inner[kind]
            while at < end and n_parts <= most:
                n_parts += 1
                tag, at = _varint(data, at)
                if tag & 7 == 0:
                    _, at = _varint(data, at)
                elif tag & 7 == 2:
                    size, at = _varint(data, at)
                    field = fields.get(tag >> 3)
                    if isinstance(field, int):  # each number ends with one last byte
                        numbers = data[at : at + size].translate(None, _NOT_LAST_BYTES)
                        n_parts += len(numbers) // field
                    elif field is not None:
                        stack.append((kind, at + size, end))
                        stack.append((field, at, min(at + size, end)))
                        break
                    at += size
                else:
                    at += {1: 8, 5: 4}.get(tag & 7, 0)
    except IndexError:  # cut short: the parser reports it
        pass
    return n_parts > most


def reason_of(error: Exception) -> str:
    """Return the text of an error, cut and printable."""
    return plain(str(error)[:1000])  # the text may contain names from the file


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] > 127 and shift < 63:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
    return value | (data[at] & 127) << shift, at + 1


def _messages(message: Any) -> Iterator[Any]:
    """Yield a message and all messages nested in it."""
    stack = [iter((message,))]  # nested generators would pass each part on up to 100 times
    while stack:
        part = next(stack[-1], None)
        if part is None:
            stack.pop()
            continue
        yield part
        for field, value in part.ListFields():
            if field.message_type is not None:
                stack.append(iter((value,) if hasattr(value, "ListFields") else value))


def is_external(message: Any) -> bool:
    """Whether a message is a tensor that another file holds."""
    name = message.DESCRIPTOR.name
    return name == "TensorProto" and (
        message.data_location == message.EXTERNAL or bool(message.external_data)
    )


def external_tensors(name: str, proto: Any) -> Iterator[tuple[Any, str, int, int]]:
    """Yield the tensors that are stored in other files, each with its location, offset and size."""
    for message in _messages(proto):
        if is_external(message):
            yield message, *place_of(name, message)


def is_file_name(location: str) -> bool:
    """Whether a location is a relative file name within a folder, on every system."""
    return (
        isinstance(location, str)  # and not bytes
        and len(location) <= _MAX_LOCATION
        and str(PurePosixPath(location)) != "."
        and not PurePosixPath(location).is_absolute()
        and not PureWindowsPath(location).drive
        and ".." not in PurePosixPath(location).parts
        and not set(location)
        & set("\\*\0")  # onnxruntime takes some names with * for memory addresses
    )


def place_of(name: str, tensor: Any) -> tuple[str, int, int]:
    """Return location, offset and size in bytes of a tensor that another file holds."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if len(entries) < len(tensor.external_data) or not is_file_name(location):
        raise ValueError(
            f"encoder={shown(name)} keeps weights in {shown(location)}; expected the name of a "
            "file in the folder of the model. Save it again with onnx.save."
        )
    bits = _bits(tensor)
    try:
        offset = int(entries.get("offset") or 0)
        # Limited, since the time for the product grows with the square of the number of factors.
        size = -(-math.prod(tensor.dims[:_MAX_DIMS]) * bits // 8)
        fits = min(tensor.dims, default=0) >= 0 and int(entries.get("length") or size) == size
    except ValueError:  # an entry is not a number
        fits = False
    if not (fits and bits and len(tensor.dims) <= _MAX_DIMS and 0 <= offset < 2**63 > size):
        raise ValueError(
            f"encoder={shown(name)} has a tensor {shown(tensor.name)} whose bytes in "
            f"{shown(location)} are not those of its shape and type. Save it again with onnx.save."
        )
    return str(PurePosixPath(location)), offset, size


def _bits(tensor: Any) -> int:
    """Return the bits of one value, or 0 for types without a fixed size."""
    try:
        kind = type(tensor).DataType.Name(tensor.data_type)
    except ValueError:
        return 0
    named = re.search(r"\d+", kind)  # as in INT8 and FLOAT4E2M1
    return int(named[0]) if named else {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}.get(kind, 0)


def check_model(name: str, proto: Any, files: dict[str, bytes]) -> list[str]:
    """Check that a model is complete and uses only its own files; list those with weights."""
    used: dict[str, int] = {}
    for message in _messages(proto):
        kind = message.DESCRIPTOR.name
        if kind == "NodeProto" and message.op_type in _REFUSED_OPERATORS:
            raise ValueError(
                f"encoder={shown(name)} has the operator {shown(message.op_type)}, which can open "
                "files or call functions. Export the model without this operator."
            )
        if kind != "TensorProto" or not is_external(message):
            continue
        location, offset, size = place_of(name, message)
        if location not in files:
            raise ValueError(
                f"encoder={shown(name)} keeps weights in {shown(location)}, which is not among its "
                f"files [{shown_all(files)}]. Add this file, or use OnnxModel.read(path)."
            )
        if offset + size > len(files[location]):
            raise ValueError(
                f"encoder={shown(name)} has a tensor {shown(message.name)} in the bytes {offset} "
                f"to {offset + size} of {shown(location)}, which has {len(files[location])} "
                "bytes. The file may be cut short: copy or export it again."
            )
        used[location] = used.get(location, 0) + size
    for location, size in used.items():
        if size > _MAX_REPEATS * len(files[location]):
            raise ValueError(
                f"encoder={shown(name)} makes {size} bytes of weights out of "
                f"{len(files[location])} in {shown(location)}. Save it again with onnx.save."
            )
    return list(used)
