"""Saved estimators: reading and writing the file of a model.

A model is a folder with the file ``model.safetensors``: tensors, and a JSON description in the
metadata of the header. The file is read once. A new file is written beside the old one and then
renamed, which replaces the model in one step.
"""

import hashlib
import json
import math
import os
import re
import secrets
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from skfair.utils._errors import InvalidModelError
from skfair.utils._regular_files import open_regular
from skfair.utils._shown import plain, shown

FILE = "model.safetensors"
_FORMAT = "skfair"
_SCHEMA_VERSION = "2"
_OLD_CONFIG = "config.json"  # a file of skfair 0.1, and of models of other programs
_MAX_HEADER = 1 << 22  # bytes; large values are stored as tensors
_MAX_PARTS = 200_000  # lists and objects in JSON
_MAX_HOLES = 1 << 20  # bytes
MAX_DIMENSIONS, _MAX_EMPTY = 8, 1 << 20
# A file that a killed save leaves behind. No code here reads it or deletes it.
_PART = re.compile(r"\.model\.[0-9a-f]{16}\.part")
# Errors that json, torch, NumPy, pandas and scikit-learn raise for malformed content.
MALFORMED = (
    *(TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(MemoryError, SafetensorError),
)


def write_model(path: Path, body: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Write a model into a folder, and replace an existing model.

    `body` is the JSON description of the tensors. After an error, the old model is unchanged.
    """
    _check_target(path)
    content = _pack(body, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
        made = [path]
    except FileExistsError:
        made = []
    part = path / f".model.{secrets.token_hex(8)}.part"
    try:
        with part.open("xb") as stream:  # "x": a new file, never the target of a link
            made.insert(0, part)
            if (path / FILE).is_file():  # the same permissions as the old model
                os.chmod(part, (path / FILE).stat().st_mode & 0o777)
            for block in content:
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path / FILE)  # from here on, the folder holds the new model
        made = []
        _sync(path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The model cannot be saved ({error.strerror}); an existing model is unchanged",
            str(path),
        ) from error
    finally:
        for own in made:
            with suppress(OSError):
                own.rmdir() if own == path else own.unlink()


def read_model(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read a model of :func:`write_model`, and check its digest. Return body and tensors."""
    content = read_file(path / FILE)
    header, start = _header(content)
    metadata = header.pop("__metadata__", None)
    if not _is_ours(metadata):
        raise InvalidModelError(
            f"{FILE} was not saved by skfair. Give the folder of a model that skfair.save wrote."
        )
    if metadata.get("schema_version") != _SCHEMA_VERSION:
        raise InvalidModelError(
            f"{FILE} has the schema version {shown(metadata.get('schema_version'))}. This version "
            f"of skfair reads {_SCHEMA_VERSION}. Load the model with the version of skfair that "
            "saved it, or a later one."
        )
    config = metadata.get("config")
    if metadata.get("sha256") != _digest(config, header, memoryview(content)[start:]):
        raise InvalidModelError(
            f"{FILE} was cut or altered after it was saved: its digest does not match. Copy the "
            "file again from its source, or save the model again."
        )
    return parse_json(config), tensors_of(content)


def is_old_model(path: Path) -> bool:
    """Whether a folder holds a model of skfair 0.1, which consists of two files."""
    if not os.path.lexists(path / _OLD_CONFIG) or (path / FILE).is_symlink():
        return False
    return os.path.lexists(path / FILE) and not _is_ours(_metadata(path / FILE))


def read_file(file: Path) -> bytes:
    """Read a whole file of a model at once, so that later changes to the file have no effect."""
    if not file.parent.is_dir() or not os.path.lexists(file):
        what = "is a file" if file.parent.is_file() else f"holds no {file.name}"
        raise FileNotFoundError(
            f"path={shown(str(file.parent), 200)} {what}. Give the same folder as to save."
        )
    if file.is_symlink():
        raise InvalidModelError(
            f"{file.name} is a link, and load reads no file outside the model. Copy the model with "
            "the targets of its links (cp -L), or download it to a folder of its own."
        )
    try:
        with open_regular(file, "path") as stream:
            state = os.fstat(stream.fileno())
            there = getattr(state, "st_blocks", state.st_size) * 512
            if state.st_size > _MAX_HOLES + 2 * there:
                raise InvalidModelError(
                    f"{file.name} claims {state.st_size} bytes, but only {there} are on the disk: "
                    "the rest are holes. If the file system compresses files, load a copy from "
                    "another file system."
                )
            return stream.read(state.st_size)
    except InvalidModelError:
        raise
    except ValueError as error:
        raise InvalidModelError(str(error)) from error


def parse_json(text: Any) -> dict:
    """Parse the JSON of a file. Refuse everything but an object, and NaN or infinity in it."""
    if not isinstance(text, str | bytes) or len(text) > _MAX_HEADER:
        raise InvalidModelError(
            f"The description of the model has more than {_MAX_HEADER} bytes, or is missing."
        )
    data = text.encode(errors="replace") if isinstance(text, str) else text
    if data.count(b"[") + data.count(b"{") > _MAX_PARTS:  # each takes 20 times its size in memory
        raise InvalidModelError(f"The description of the model has more than {_MAX_PARTS} lists.")
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = plain(str(error))[:200]
        raise InvalidModelError(f"The JSON of the model cannot be read ({reason}).") from error
    if not isinstance(found, dict):
        raise InvalidModelError("The JSON of the model is not an object.")
    return found


def tensors_of(content: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, and refuse shapes and values that are not safe to use."""
    try:
        tensors = safetensors.torch.load(content)
    except MALFORMED as error:
        reason = plain(str(error))[:200]
        raise InvalidModelError(f"{FILE} is not a safetensors file ({reason}).") from error
    for name, tensor in tensors.items():
        if tensor.ndim > MAX_DIMENSIONS or is_long_and_empty(tensor.shape):
            shape = shown(list(tensor.shape), 80)
            raise InvalidModelError(
                f"{FILE} has a tensor of shape {shape}, which no saved model has."
            )
        # Compiled code counts true values by adding up bytes, and relies on bytes of 0 or 1.
        if tensor.dtype == torch.bool and tensor.numel() and tensor.view(torch.uint8).max() > 1:
            raise InvalidModelError(f"{FILE} has truth values in {shown(name)} other than 0 and 1.")
    return tensors


def is_long_and_empty(shape: Sequence[int]) -> bool:
    """Whether a sum along an empty side would take much memory, because other sides are long."""
    return 0 in shape and math.prod(max(1, side) for side in shape) > _MAX_EMPTY


# -- the header --------------------------------------------------------------------------------


def _pack(body: dict, tensors: dict[str, torch.Tensor]) -> list[bytes | memoryview]:
    packed = memoryview(safetensors.torch.save(tensors))
    header, start = _header(packed)
    config = json.dumps(body, allow_nan=False, separators=(",", ":"))
    metadata = {
        "format": _FORMAT,
        "schema_version": _SCHEMA_VERSION,
        "sha256": _digest(config, header, packed[start:]),
        "config": config,
    }
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    text += b" " * (-len(text) % 8)  # aligned tensors can be memory-mapped
    if len(text) > _MAX_HEADER:
        raise ValueError(
            f"The description of the model would take {len(text)} bytes, but load reads at most "
            f"{_MAX_HEADER}: the estimator holds too many names or labels. Use joblib."
        )
    return [struct.pack("<Q", len(text)), text, packed[start:]]


def _header(content: bytes | memoryview) -> tuple[dict, int]:
    """Parse the header of a safetensors file. Return the header, and where the tensors begin."""
    (length,) = struct.unpack_from("<Q", content) if len(content) >= 8 else (_MAX_HEADER + 1,)
    if length > min(_MAX_HEADER, len(content) - 8):
        raise InvalidModelError(
            f"{FILE} is not a safetensors file, or was cut, or its header has more than "
            f"{_MAX_HEADER} bytes."
        )
    return parse_json(bytes(content[8 : 8 + length])), 8 + length


def _metadata(file: Path) -> Any:
    """Return the metadata in the header of a safetensors file; None for any other file."""
    try:
        with open_regular(file, "path") as stream:
            start = stream.read(8)
            length = min(int.from_bytes(start, "little"), _MAX_HEADER)
            return _header(start + stream.read(length))[0].get("__metadata__")
    except (OSError, ValueError):
        return None


def _is_ours(metadata: Any) -> bool:
    return isinstance(metadata, dict) and metadata.get("format") == _FORMAT


def _digest(config: Any, header: dict, data: memoryview) -> str:
    digest = hashlib.sha256(json.dumps([config, header], sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


# -- the folder --------------------------------------------------------------------------------


def _check_target(path: Path) -> None:
    what, others = f"path={shown(str(path), 200)}", []
    if path.is_symlink():
        raise FileExistsError(
            f"{what} is a link, and save does not follow links. Give the folder itself."
        )
    if os.path.lexists(path) and not path.is_dir():
        raise FileExistsError(f"{what} is a file; a model is saved to a folder. Give another name.")
    if path.is_dir():
        others = [name for name in sorted(os.listdir(path)) if not _PART.fullmatch(name)]
    if _OLD_CONFIG in others:
        raise FileExistsError(
            f"{what} holds a {_OLD_CONFIG}. It belongs to a model of skfair 0.1, which consists of "
            "several files, or to another program. Give another folder, or empty this one."
        )
    if FILE in others and ((path / FILE).is_symlink() or not _is_ours(_metadata(path / FILE))):
        raise FileExistsError(
            f"{what} holds a {FILE} that is not from skfair, is damaged, or is a link. Give "
            "another folder, or empty this one."
        )
    if others and FILE not in others:
        raise FileExistsError(
            f"{what} holds other files ({shown(others[0])}) and no saved model. Give a new folder, "
            "an empty folder, or a folder with a model to replace."
        )


def _sync(folder: Path) -> None:
    """Write the new file name to the disk, on systems that can sync a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
