"""Saved estimators: reading and writing the file of a model.

A model is a folder with the file ``model.safetensors``: tensors, and a JSON description in the
metadata of the header. The file is read once. A new file is written beside the old one and then
renamed, which replaces the model in one step. The digest is there to find damage: a person who
alters a file can also compute its digest.
"""

import hashlib
import json
import os
import re
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError

from skfair.persistence._tensors import (
    bytes_of,
    check_bytes_of_truth,
    check_shape,
    describe_tensors,
    read_tensors,
)
from skfair.utils._errors import InvalidModelError
from skfair.utils._regular_files import open_regular
from skfair.utils._shown import plain, shown

FILE = "model.safetensors"
_FORMAT = "skfair"
# In files of version 2, each value has a tensor of its own, and the digest is slower to compute.
_SCHEMA_VERSION, _READ_VERSIONS = "3", ("2", "3")
_OLD_CONFIG = "config.json"  # a file of skfair 0.1, and of models of other programs
_MAX_HEADER = 1 << 22  # bytes; large values are stored as tensors
_MAX_PARTS = 200_000  # lists and objects in JSON
_MAX_HOLES = 1 << 20  # bytes
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
    with _opened(path / FILE) as (stream, size):
        header, start = _header(stream, size)
        metadata = header.pop("__metadata__", None)
        if not _is_ours(metadata):
            raise InvalidModelError(
                f"{FILE} was not saved by skfair. Give the folder of a model that skfair.save "
                "wrote."
            )
        version = metadata.get("schema_version")
        if version not in _READ_VERSIONS:
            raise InvalidModelError(
                f"{FILE} has the schema version {shown(version)}. This version of skfair reads "
                f"{' and '.join(_READ_VERSIONS)}. Load the model with the version of skfair that "
                "saved it, or a later one."
            )
        tensors = read_tensors(stream, header, size - start)
    config = metadata.get("config")
    blocks = map(bytes_of, tensors.values())
    if metadata.get("sha256") != _DIGESTS[version](config, header, blocks):
        raise InvalidModelError(
            f"{FILE} was cut or altered after it was saved: its digest does not match. Copy the "
            "file again from its source, or save the model again."
        )
    check_bytes_of_truth(tensors)
    return parse_json(config), tensors


def is_old_model(path: Path) -> bool:
    """Whether a folder holds a model of skfair 0.1, which consists of two files."""
    if not os.path.lexists(path / _OLD_CONFIG) or (path / FILE).is_symlink():
        return False
    return os.path.lexists(path / FILE) and not _is_ours(_metadata(path / FILE))


def read_file(file: Path) -> bytes:
    """Read a whole file of a model at once, so that later changes to the file have no effect."""
    with _opened(file) as (stream, size):
        return stream.read(size)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file of a model, and yield it with its size. Refuse links, holes and other files."""
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
        stream = open_regular(file, "path")
    except ValueError as error:
        raise InvalidModelError(str(error)) from error
    with stream:
        state = os.fstat(stream.fileno())
        there = getattr(state, "st_blocks", state.st_size) * 512
        if state.st_size > _MAX_HOLES + 2 * there:
            raise InvalidModelError(
                f"{file.name} claims {state.st_size} bytes, but only {there} are on the disk: the "
                "rest are holes. If the file system compresses files, load a copy from another "
                "file system."
            )
        yield stream, state.st_size


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
    for tensor in tensors.values():
        check_shape(tensor.shape)
    check_bytes_of_truth(tensors)
    return tensors


# -- the header --------------------------------------------------------------------------------


def _pack(body: dict, tensors: dict[str, torch.Tensor]) -> list[bytes | memoryview]:
    header = describe_tensors(tensors)
    blocks = [bytes_of(tensors[name]) for name in header]
    config = json.dumps(body, allow_nan=False, separators=(",", ":"))
    metadata = {
        "format": _FORMAT,
        "schema_version": _SCHEMA_VERSION,
        "sha256": _DIGESTS[_SCHEMA_VERSION](config, header, blocks),
        "config": config,
    }
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    text += b" " * (-len(text) % 8)  # aligned tensors can be memory-mapped
    if len(text) > _MAX_HEADER:
        raise ValueError(
            f"The description of the model would take {len(text)} bytes, but load reads at most "
            f"{_MAX_HEADER}: the estimator holds too many names or labels. Use joblib."
        )
    return [struct.pack("<Q", len(text)), text, *blocks]


def _header(stream: BinaryIO, size: int) -> tuple[dict, int]:
    """Parse the header of a safetensors file. Return the header, and where the tensors begin."""
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > min(_MAX_HEADER, size - 8):
        raise InvalidModelError(
            f"{FILE} is not a safetensors file, or was cut, or its header has more than "
            f"{_MAX_HEADER} bytes."
        )
    return parse_json(stream.read(length)), 8 + length


def _metadata(file: Path) -> Any:
    """Return the metadata in the header of a safetensors file; None for any other file."""
    try:
        with open_regular(file, "path") as stream:
            return _header(stream, os.fstat(stream.fileno()).st_size)[0].get("__metadata__")
    except (OSError, ValueError):
        return None


def _is_ours(metadata: Any) -> bool:
    return isinstance(metadata, dict) and metadata.get("format") == _FORMAT


def _digest_2(config: Any, header: dict, blocks: Iterable[memoryview]) -> str:
    digest = hashlib.sha256(json.dumps([config, header], sort_keys=True).encode())
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _digest(config: Any, header: dict, blocks: Iterable[memoryview]) -> str:
    """Digest a description and a checksum of the tensors.

    A checksum takes less than half of the time of a digest. It finds each change within four bytes,
    and misses other random damage once in four billion cases.
    """
    checksum = 0
    for block in blocks:
        checksum = zlib.crc32(block, checksum)
    return _digest_2([config, checksum], header, [])


_DIGESTS = {"2": _digest_2, "3": _digest}


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
