"""Reading models of skfair 0.1: folders with config.json, model.safetensors and copied files."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from skfair.persistence._files import FILE, MALFORMED, parse_json, read_file, tensors_of
from skfair.utils._errors import InvalidModelError
from skfair.utils._shown import plain, shown

_CONFIG = "config.json"
_FORMAT, _SCHEMA_VERSION = "skfair", 1
_MOST_FILES = 200


def read_old_model(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read a model of skfair 0.1, and convert its description to that of this version.

    The copied files become tensors of bytes.
    """
    config = parse_json(read_file(path / _CONFIG))
    if config.get("format") != _FORMAT or config.get("schema_version") != _SCHEMA_VERSION:
        raise InvalidModelError(
            f"{_CONFIG} was not saved by skfair 0.1, or has another schema version "
            f"({shown(config.get('schema_version'))}). Load the model with the version of skfair "
            "that saved it, or a later one."
        )
    try:
        body = config["body"]
        if _digest(body) != config["sha256"]:
            raise InvalidModelError(
                f"{_CONFIG} was altered after it was saved: its digest does not match. Copy the "
                "model again from its source."
            )
        weights = body.pop("weights")
        # A killed save may have left the weights under this name.
        early = f"{FILE}.{weights['sha256'][:16]}"
        name = early if _is_name(early) and (path / early).is_file() else FILE
        tensors = tensors_of(_read(path, {**weights, "name": name}))
        files: dict[str, dict[str, str]] = {}
        listed = body.pop("files")
        if sum(map(len, listed.values())) > _MOST_FILES:
            raise ValueError(f"more than {_MOST_FILES} files")
        for parameter, parts in listed.items():
            first = Path(parts[0]["name"]).parent
            files[parameter] = {}
            for part in parts:
                key = f"file {part['name']}"
                if key in tensors:  # otherwise a small model could take much memory
                    raise InvalidModelError(f"{_CONFIG} names {shown(part['name'])} twice.")
                content = bytearray(_read(path, part))
                tensors[key] = torch.frombuffer(content, dtype=torch.uint8)
                files[parameter][Path(part["name"]).relative_to(first).as_posix()] = key
        made = list(body["made_by_caller"])
        body["estimator"] = _renew(body["estimator"], files, made, depth=0)
    except InvalidModelError:
        raise
    except MALFORMED as error:
        raise InvalidModelError(
            f"{_CONFIG} does not describe a model ({type(error).__name__}: "
            f"{plain(str(error))[:200]})."
        ) from error
    return body, tensors


def _renew(written: Any, files: dict, made: list[str], depth: int) -> Any:
    """Convert old forms of values to those of this version, in place."""
    if depth > 100:
        raise ValueError("too deep")
    if not isinstance(written, dict | list):
        return written
    if isinstance(written, dict) and written.keys() == {"file"}:
        return {"onnx": files[written["file"]]}
    place: Any = written
    for key, item in list(written.items() if isinstance(written, dict) else enumerate(written)):
        place[key] = _renew(item, files, made, depth + 1)
    if "class" in written and isinstance(place.get("state"), dict):
        outputs = place["state"].pop("_probe", None)
        if outputs is not None and made:
            place["probe"] = {"made": made, "outputs": outputs}
    return written


def _read(path: Path, part: dict) -> bytes:
    name = part["name"]
    if not all(map(_is_name, name.split("/"))):
        raise InvalidModelError(f"{shown(name)} is a path outside the model.")
    file = path
    try:
        for step in name.split("/"):
            file = file / step
            if file.is_symlink():
                raise InvalidModelError(
                    f"{shown(name)} is a link, and load reads no file outside the model."
                )
        content = read_file(file)
    except OSError as error:
        raise InvalidModelError(f"{shown(name)} is missing in {path}.") from error
    if len(content) != part["size"] or hashlib.sha256(content).hexdigest() != part["sha256"]:
        raise InvalidModelError(
            f"{shown(name)} was altered after it was saved: its size or digest does not match. "
            "Copy the model again from its source."
        )
    return content


def _is_name(step: str) -> bool:
    return step not in ("", ".", "..") and not set(step) & set("\0/\\:")


def _digest(body: Any) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
