"""ONNX models by their contents: read once, checked, and opened from what was read."""

import hashlib
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

import torch

from skfair.featurize._onnx_format import (
    check_model,
    external_tensors,
    is_external,
    is_file_name,
    parse_model,
    place_of,
    reason_of,
)
from skfair.utils._device import resolve_device
from skfair.utils._imports import import_optional
from skfair.utils._regular_files import open_regular
from skfair.utils._shown import shown, shown_all

_LARGE = 2**16  # bytes of a tensor
_JUST_NOW = 100_000_000  # ns; a file may change twice within one tick of its file system's clock


class OnnxModel:
    """An ONNX model in memory: its file and the files that hold its weights.

    It needs no file any more: a pickle of it holds the bytes. onnxruntime opens it from them and
    no path that the model names.

    Parameters
    ----------
    files : dict of str to bytes
        Contents by name. The first is the model; the others hold weights, by the locations that
        the model names, relative to it.

    Attributes
    ----------
    files : dict of str to bytes
        The model, and of the others those that it names, in the order in which it does.
    digest : str
        SHA-256 of the contents that matter, in hexadecimal. Equal models have the same.

    Raises
    ------
    ImportError
        The package onnx is not installed.
    ValueError
        The bytes are no ONNX model; it names a file that is not among `files`, or one outside of
        its folder, or more bytes than the file has; or it has an operator that reads files.

    Examples
    --------
    >>> from onnx import TensorProto, helper
    >>> x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    >>> OnnxModel({"relu.onnx": helper.make_model(graph).SerializeToString()})
    OnnxModel('relu.onnx', 0.0 MB, ...)
    """

    def __init__(self, files: dict[str, bytes]):
        if not files or not is_file_name(next(iter(files))):
            raise ValueError(
                f"files=[{shown_all(files)}] must start with the model, under a relative name."
            )
        self.name = next(iter(files))
        used = check_model(self.name, parse_model(self.name, files[self.name]), files)
        self.files = {name: files[name] for name in dict.fromkeys([self.name, *used])}
        digest = hashlib.sha256()
        for content in self.files.values():  # their names stand in the model, its own says nothing
            digest.update(hashlib.sha256(content).digest())
        self.digest = digest.hexdigest()
        self._lock = threading.Lock()
        self._sessions: dict[tuple, Any] = {}

    @classmethod
    def read(cls, path: str | os.PathLike) -> "OnnxModel":
        """Read a model, and the files in which it keeps its weights, each once.

        Parameters
        ----------
        path : path-like
            The ``.onnx`` file.

        Returns
        -------
        OnnxModel

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            As in the constructor; or a file is none but a device, a pipe or a directory, or lies
            outside of the folder of `path`, by way of a link. The folder may be that of `path`
            or of what `path` is a link to.
        """
        return _read(path)[0]

    def session(self, provider: str) -> Any:
        """Open the model in onnxruntime; kept for the next call in this process.

        Parameters
        ----------
        provider : str
            One of ``onnxruntime.get_available_providers()``.

        Returns
        -------
        onnxruntime.InferenceSession
        """
        key = (provider, os.getpid())  # a session does not survive a fork
        with self._lock:
            if key not in self._sessions:
                self._sessions = {key: _open_session(self, provider)}
            return self._sessions[key]

    def __reduce__(self) -> tuple:
        return OnnxModel, (self.files,)

    def __deepcopy__(self, memo: dict) -> "OnnxModel":
        return self  # it never changes

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, OnnxModel) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        size = sum(map(len, self.files.values())) / 1e6
        return f"OnnxModel({shown(self.name)}, {size:.1f} MB, {self.digest[:12]})"


class OpenedFile:
    """An ``.onnx`` file as it was when it was read: what it holds, and a session of just that.

    Parameters
    ----------
    path : str
        The file.
    provider : str
        As in :meth:`OnnxModel.session`.
    """

    def __init__(self, path: str, provider: str):
        self._wanted = (path, provider, os.getpid())
        started = time.time_ns()
        model, self._states = _read(path)
        newest = max(max(state.st_mtime_ns, state.st_ctime_ns) for state in self._states.values())
        self._settled = started - newest > _JUST_NOW
        self.digest = model.digest
        self._lock = threading.Lock()
        self._model: OnnxModel | None = model
        self._session: Any = None

    def serves(self, path: str, provider: str) -> bool:
        """Whether it is that file still, unchanged, in this process."""
        return self._wanted == (path, provider, os.getpid()) and self._settled and self._unchanged()

    def holds(self, digest: str | None, provider: str) -> bool:
        """Whether it is of that content, in this process, wherever its file is now."""
        return self.digest == digest and self._wanted[1:] == (provider, os.getpid())

    def _unchanged(self) -> bool:
        try:
            return all(
                _version(os.stat(file)) == _version(state) for file, state in self._states.items()
            )
        except OSError:
            return False

    def session(self) -> Any:
        """Open it, once; the bytes are let go of then."""
        with self._lock:
            if self._model is not None:
                self._session = self._model.session(self._wanted[1])
                self._model = None
            return self._session


_last_opened: OpenedFile | None = None  # a service predicts row by row


def open_onnx(
    encoder: "str | os.PathLike | OnnxModel",
    device: str | torch.device,
    fitted: str | None = None,
) -> Any:
    """Take a model, or a file as it is now, to run on a device.

    Parameters
    ----------
    encoder : path-like or OnnxModel
    device : str or torch.device
    fitted : str, default=None
        Digest of the model that an estimator was fitted with. A file of this content that was
        opened before need not be there any more.

    Returns
    -------
    tuple of str and callable
        Its digest, and what opens the session of these contents.

    Raises
    ------
    ImportError
        onnxruntime is not installed.
    FileNotFoundError
        There is no such file.
    ValueError
        It cannot run on `device`, or is another model than `fitted`; or as
        :meth:`OnnxModel.read`.
    """
    global _last_opened
    provider = _provider(device)
    if isinstance(encoder, OnnxModel):
        _check_same(encoder, encoder.digest, fitted)
        return encoder.digest, lambda: encoder.session(provider)
    path = os.path.abspath(encoder)
    opened = _last_opened
    gone = fitted is not None and not os.path.exists(path)
    if gone and opened is not None and opened.holds(fitted, provider):
        return opened.digest, opened.session
    if opened is None or not opened.serves(path, provider):
        _last_opened = opened = OpenedFile(path, provider)
    _check_same(os.fspath(encoder), opened.digest, fitted)
    return opened.digest, opened.session


def _check_same(encoder: "str | OnnxModel", digest: str, fitted: str | None) -> None:
    if fitted is not None and digest != fitted:
        raise ValueError(
            f"encoder={encoder!r} is another model now ({digest[:12]} by its SHA-256) than the one "
            f"that was fitted ({fitted[:12]}), and its features are others. Put the files of that "
            "model back, or fit again: what was trained on its features, too."
        )


def _provider(device: str | torch.device) -> str:
    onnxruntime = import_optional("onnxruntime", extra="onnx", purpose="An .onnx file as encoder")
    kind = resolve_device(device).type
    if kind == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return "CUDAExecutionProvider"
    if kind == "cpu" or device == "auto":
        return "CPUExecutionProvider"
    raise ValueError(
        f"device={device!r} is not one on which the installed onnxruntime can run "
        f"({onnxruntime.get_available_providers()}). Use device='cpu' or install its GPU build."
    )


def _read(path: str | os.PathLike) -> tuple[OnnxModel, dict[str, os.stat_result]]:
    path = Path(path)
    model, state = _read_file(str(path))
    files, states = {path.name: model}, {str(path): state}
    folders = {os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))}
    for _, location, _, _ in external_tensors(path.name, parse_model(path.name, model)):
        if location in files:
            continue
        named = path.parent / location
        file = os.path.realpath(named)
        if not any(Path(file).is_relative_to(folder) for folder in folders):
            raise ValueError(
                f"encoder={str(path)!r} keeps weights in {shown(location)}, which is a link to "
                "outside of its folder. Put the file itself there."
            )
        try:
            files[location], states[str(named)] = _read_file(file)
        except FileNotFoundError as error:
            raise ValueError(
                f"encoder={str(path)!r} keeps weights in {shown(location)}, which is not there. "
                "Put the file into the folder of the model."
            ) from error
    return OnnxModel(files), states


def _read_file(file: str) -> tuple[bytes, os.stat_result]:
    with open_regular(file, "encoder") as opened:
        state = os.fstat(opened.fileno())  # of what was opened, whatever takes its place
        return opened.read(state.st_size), state


def _version(state: os.stat_result) -> tuple:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _open_session(model: OnnxModel, provider: str) -> Any:
    onnxruntime = import_optional("onnxruntime", extra="onnx", purpose="An .onnx file as encoder")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # which joblib limits in its workers
    options.add_session_config_entry("session.load_model_format", "ONNX")  # and no other format
    content, weights = _without_paths(model)
    if weights:
        options.add_external_initializers_from_files_in_memory(
            list(weights), list(weights.values()), list(map(len, weights.values()))
        )
    try:
        return onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # of many classes, without a common one
        raise ValueError(
            f"encoder={shown(model.name)} cannot be opened as an ONNX model: {reason_of(error)}"
        ) from error


def _without_paths(model: OnnxModel) -> tuple[bytes, dict[str, bytes]]:
    """Write a model for onnxruntime, with names that no file has for what is kept outside.

    onnxruntime takes large weights of the graph itself from memory. All else that is kept outside
    (shapes, subgraphs, functions) it would look for on the disk, and so that goes inside.
    """
    proto = parse_model(model.name, model.files[model.name])
    proto.ClearField("metadata_props")  # in which onnxruntime may be told to find settings
    large = []
    for tensor in filter(is_external, proto.graph.initializer):
        location, offset, size = place_of(model.name, tensor)
        if size >= _LARGE:
            large.append((tensor, location, offset, size))
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    for tensor, location, offset, size in list(external_tensors(model.name, proto)):
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = model.files[location][offset : offset + size]
    names: dict[str, str] = {}
    for tensor, location, offset, size in large:
        names.setdefault(location, secrets.token_hex(16))
        tensor.data_location = tensor.EXTERNAL
        tensor.external_data.add(key="location", value=names[location])
        tensor.external_data.add(key="offset", value=str(offset))
        tensor.external_data.add(key="length", value=str(size))
    weights = {name: model.files[location] for location, name in names.items()}
    return proto.SerializeToString(), weights
