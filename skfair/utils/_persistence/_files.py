"""Saved estimators: the files, written so that a kill leaves the old model or the new one.

``config.json`` is the model: to replace it is to replace the model, in one step. It names the
other files with their sizes and digests. Weights are written beside those of the old model and
get their plain name when nothing refers to the old ones any more.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

try:
    import fcntl
except ImportError:  # Windows has no locks on directories
    fcntl = None  # type: ignore[assignment]  # a module, or nothing in its place

FORMAT = "skfair"
SCHEMA_VERSION = 1
_CONFIG, _WEIGHTS, _FILES = "config.json", "model.safetensors", "files"
_STAGING = ".saving"  # a folder for what is half written, that of safetensors itself included
_MAX_CONFIG = 1 << 24  # bytes; what is large is among the tensors
# Names that a save gives and takes away again; nothing else is ever removed.
_UNCOMMITTED = re.compile(r"model\.safetensors\.[0-9a-f]{16}")
_CONTENT = re.compile(r"[0-9a-f]{16}")


class InvalidModelError(ValueError):
    """A saved model that is not loaded: damaged, altered, of another version, or made to harm."""


def write_model(
    path: Path, body: dict, tensors: dict[str, torch.Tensor], files: dict[str, list[Path]]
) -> None:
    """Write a model, in place of one that is there.

    Parameters
    ----------
    path : Path
        The directory; made where it is missing.
    body : dict
        What ``config.json`` says, but for the files.
    tensors : dict of str to tensor
    files : dict of str to list of Path
        Files that go along, by the name of what they are: the first one, and what lies beside
        it.

    Raises
    ------
    FileExistsError
        `path` is something else than an empty directory or a saved model.
    OSError
        The files cannot be written; what was there is as it was.
    """
    _check_target(path)
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        _check_target(path)
        try:
            _remove_unnamed(path)  # what a kill has left
            _replace(path, body, tensors, files)
        finally:
            _remove_unnamed(path)  # the old model, or what there is of the new one
            if not any(path.iterdir()):
                path.rmdir()


def _replace(
    path: Path, body: dict, tensors: dict[str, torch.Tensor], files: dict[str, list[Path]]
) -> None:
    (path / _STAGING).mkdir()
    new = path / _STAGING / _WEIGHTS
    try:
        save_file(tensors, new)
    except SafetensorError as error:  # which is no OSError, whatever the disk said
        raise OSError(f"{new} cannot be written ({error}). The old model is as it was.") from error
    (path / _STAGING / _CONFIG).touch()
    new.chmod((path / _STAGING / _CONFIG).stat().st_mode)  # safetensors lets nobody else read
    _sync(new)
    weights = {"name": _WEIGHTS, **_describe(new)}
    os.replace(new, path / _name_until_committed(weights))
    listed = [_store(path, name, sources) for name, sources in files.items()]
    body = {**body, "weights": weights, "files": dict(listed)}
    config = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "sha256": _digest(body),
        "body": body,
    }
    text = json.dumps(config, indent=1, allow_nan=False)
    if len(text) > _MAX_CONFIG:
        raise ValueError(
            f"{_CONFIG} would have {len(text)} bytes, and {_MAX_CONFIG} at most are read: the "
            "estimator holds too many names or labels. Use joblib."
        )
    new = path / _STAGING / _CONFIG
    new.write_bytes(text.encode())
    _sync(new)
    _sync(path)
    os.replace(new, path / _CONFIG)  # from here on it is the new model
    os.replace(path / _name_until_committed(weights), path / _WEIGHTS)
    _sync(path)


def read_model(path: Path) -> tuple[dict, dict[str, torch.Tensor], dict[str, Path]]:
    """Read a model, after its sizes, digests and names have been checked.

    Parameters
    ----------
    path : Path
        The directory.

    Returns
    -------
    body : dict
    tensors : dict of str to tensor
    files : dict of str to Path
        The first file of each name.

    Raises
    ------
    FileNotFoundError
        There is no saved model.
    InvalidModelError
        It is damaged, or not of this format.
    """
    if not path.is_dir():
        raise FileNotFoundError(_nothing_at(path))
    with _locked(path, shared=True):
        body = _parse(_read_config(path))
        return body, _read_tensors(path, body["weights"]), _check_files(path, body["files"])


def _nothing_at(path: Path) -> str:
    return f"path={str(path)!r} holds no {_CONFIG}. Give the directory that save was given."


# -- config.json -------------------------------------------------------------------------------


def _check_target(path: Path) -> None:
    if os.path.lexists(path) and not path.is_dir():
        raise FileExistsError(
            f"path={str(path)!r} is a file or leads nowhere; a model is saved to a directory. Give "
            "another name."
        )
    if not path.is_dir():
        return
    if not os.path.lexists(path / _CONFIG):
        others = sorted(p.name for p in path.iterdir() if not _is_left_by_a_kill(p))
        if others:
            raise FileExistsError(
                f"path={str(path)!r} holds other files ({others[0]!r}) and no saved model. Give a "
                "directory that is empty, new, or has a model that may be replaced."
            )
        return
    try:
        found = json.loads(_read_config(path))["format"]
    except (ValueError, TypeError, KeyError, RecursionError):
        found = None
    if found != FORMAT:
        raise FileExistsError(
            f"path={str(path)!r} holds a {_CONFIG} that is not of skfair, or was damaged. Give "
            "another directory, or remove what is there."
        )


def _is_left_by_a_kill(file: Path) -> bool:
    if file.name == _FILES and file.is_dir():
        return all(_CONTENT.fullmatch(part.name) for part in file.iterdir())
    return file.name == _STAGING or _UNCOMMITTED.fullmatch(file.name) is not None


def _read_config(path: Path) -> bytes:
    config = path / _CONFIG
    if not os.path.lexists(config):
        raise FileNotFoundError(_nothing_at(path))
    _check_inside(path, config)
    if not config.is_file():
        raise InvalidModelError(f"{config} is not a file.")
    if config.stat().st_size > _MAX_CONFIG:
        raise InvalidModelError(
            f"{config} has {config.stat().st_size} bytes; at most {_MAX_CONFIG} are read."
        )
    return config.read_bytes()


def _parse(text: bytes) -> dict:
    try:
        config = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
        if config["format"] != FORMAT:
            raise InvalidModelError(f"{_CONFIG} is not that of a model saved by skfair.")
        if config["schema_version"] != SCHEMA_VERSION:
            raise InvalidModelError(
                f"{_CONFIG} has the schema version {config['schema_version']!r}; this skfair reads "
                f"{SCHEMA_VERSION}. Load it with the version of skfair that saved it, or a later "
                "one."
            )
        if set(config) != {"format", "schema_version", "sha256", "body"}:
            raise InvalidModelError(f"{_CONFIG} has other entries than skfair writes.")
        if _digest(config["body"]) != config["sha256"]:
            raise InvalidModelError(
                f"{_CONFIG} was altered after it was saved: its digest is another one. Save the "
                "model again."
            )
        body = config["body"]
        for part in ("weights", "files", "versions", "made_by_caller", "estimator"):
            if not isinstance(body[part], dict):
                raise TypeError(part)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, InvalidModelError):
            raise
        raise InvalidModelError(f"{_CONFIG} cannot be read ({error}).") from error
    return body


def _distinct(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _digest(body: Any) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# -- other files -------------------------------------------------------------------------------


def _describe(file: Path) -> dict:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def _name_until_committed(weights: dict) -> str:
    return f"{_WEIGHTS}.{weights['sha256'][:16]}"


def _store(path: Path, name: str, sources: list[Path]) -> tuple[str, list[dict]]:
    """Copy files into a folder named by their content, so that they are in no old model's way."""
    first = sources[0].parent
    parts = []
    for source in sources:
        if not source.resolve().is_relative_to(first.resolve()):
            raise ValueError(
                f"{name}={str(sources[0])!r} refers to {str(source)!r}, outside of its own folder. "
                "Put the files of a model into one folder."
            )
        parts.append({"name": source.relative_to(first).as_posix(), **_describe(source)})
    folder = path / _FILES / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    for source, part in zip(sources, parts, strict=True):
        target = folder / part["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or {"name": part["name"], **_describe(target)} != part:
            new = path / _STAGING / target.name
            shutil.copyfile(source, new)
            _sync(new)
            os.replace(new, target)
    written = [
        {**part, "name": (folder / part["name"]).relative_to(path).as_posix()} for part in parts
    ]
    return name, written


def _check_files(path: Path, files: dict[str, list[dict]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    checked: dict[str, dict] = {}  # two encoders may share a file, which is read once
    try:
        for name, parts in files.items():
            for part in parts:
                if checked.setdefault(part["name"], part) is part:
                    _check(path, part["name"], part)
                elif checked[part["name"]] != part:
                    raise InvalidModelError(f"{_CONFIG} describes {part['name']} twice.")
            found[name] = path / parts[0]["name"]
    except (TypeError, LookupError) as error:
        raise InvalidModelError(f"{_CONFIG} lists no files for {error}.") from error
    return found


def _check(path: Path, name: str, part: dict) -> Path:
    """Find a file inside of the directory, of the size and digest that it should have."""
    file = path / name
    _check_inside(path, file)
    if not file.is_file():
        raise InvalidModelError(f"{name} is missing in {path}.")
    size = file.stat().st_size
    if size != part["size"]:
        raise InvalidModelError(f"{name} has {size} bytes where {part['size']} were saved.")
    if _describe(file)["sha256"] != part["sha256"]:
        raise InvalidModelError(
            f"{name} was altered after it was saved: its digest is another one."
        )
    return file


def _check_inside(path: Path, file: Path) -> None:
    try:
        inside = file.resolve().is_relative_to(path.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null character
        raise InvalidModelError(f"{file} is no file of a saved model ({error}).") from error
    if not inside:
        raise InvalidModelError(f"{file} lies outside of {path}, and nothing there is read.")


def _read_tensors(path: Path, weights: dict) -> dict[str, torch.Tensor]:
    try:
        name = _name_until_committed(weights)
        if weights["name"] != _WEIGHTS:
            raise InvalidModelError(f"{_CONFIG} names other weights than {_WEIGHTS}.")
        # The save was killed before it could give the file its name.
        file = _check(path, name if (path / name).is_file() else _WEIGHTS, weights)
    except (TypeError, KeyError) as error:
        raise InvalidModelError(f"{_CONFIG} does not describe {_WEIGHTS}.") from error
    try:
        with safe_open(file, framework="pt") as opened:
            # Copies: what is mapped would change with the file.
            return {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InvalidModelError(f"{_WEIGHTS} is no safetensors file ({error}).") from error


def _remove_unnamed(path: Path) -> None:
    """Remove what earlier saves have left and the model does not name."""
    shutil.rmtree(path / _STAGING, ignore_errors=True)
    named = set()
    if (path / _CONFIG).is_file():
        try:
            body = _parse(_read_config(path))
        except InvalidModelError:
            body = {"weights": {"sha256": ""}, "files": {}}
        until = _name_until_committed(body["weights"])
        if (path / until).is_file():  # a kill came between the two names
            os.replace(path / until, path / _WEIGHTS)
        named = {part["name"] for parts in body["files"].values() for part in parts}
    contents = [p for p in (path / _FILES).glob("*") if _CONTENT.fullmatch(p.name)]
    left = [p for p in path.iterdir() if _UNCOMMITTED.fullmatch(p.name)]
    left += [file for folder in contents for file in folder.rglob("*") if file.is_file()]
    for file in left:
        if file.relative_to(path).as_posix() not in named:
            file.unlink()
    for folder in contents:
        for part in sorted(folder.glob("**/"), reverse=True):
            if not any(part.iterdir()):
                part.rmdir()
    if contents and not any((path / _FILES).iterdir()):
        (path / _FILES).rmdir()


# -- durability --------------------------------------------------------------------------------


@contextmanager
def _locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Let processes save to a directory one at a time, and load while none does.

    A killed process lets go of its lock.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks; there it is up to the caller
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Have a file or a directory on the disk before what refers to it is."""
    if fcntl is None:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
