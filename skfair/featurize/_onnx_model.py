"""ONNX models as bytes in memory: read once, checked, and opened from these bytes."""

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
_JUST_NOW = 100_000_000  # ns; a file may change twice within one tick of the file system's clock


class OnnxModel:
    """An ONNX model in memory: its file and the files that hold its weights.

    The object does not depend on the files: a pickle of it holds the bytes. onnxruntime opens the
    model from these bytes, and opens no path that the model names.

    Parameters
    ----------
    files : dict of str to bytes
        Contents by name. The first entry is the model. The others hold weights; their names are
        the locations that the model names, relative to itself.

    Attributes
    ----------
    files : dict of str to bytes
        The model, then the files that it names, in that order.
    digest : str
        SHA-256 of `files`, in hexadecimal. Equal models have equal digests.

    Raises
    ------
    ImportError
        The package onnx is not installed.
    ValueError
        The bytes are not an ONNX model; the model names a file that is not in `files`, a file
        outside of its folder, or more bytes than the file has; or it has an operator that reads
        files.

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
                f"files=[{shown_all(files)}] must start with the model, under a relative name. Use "
                "OnnxModel.read(path), or {'model.onnx': bytes, ...}."
            )
        self.name = next(iter(files))
        used = check_model(self.name, parse_model(self.name, files[self.name]), files)
        self.files = {name: files[name] for name in dict.fromkeys([self.name, *used])}
        digest = hashlib.sha256()
        for (
            content
        ) in self.files.values():  # the model holds their names, and its own name does not matter
            digest.update(hashlib.sha256(content).digest())
        self.digest = digest.hexdigest()
        self._lock = threading.Lock()
        self._sessions: dict[tuple, Any] = {}

    @classmethod
    def read(cls, path: str | os.PathLike) -> "OnnxModel":
        """Read a model and the files that hold its weights, each once.

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
            The file does not exist.
        ValueError
            As in the constructor; or a file is a device, a pipe or a directory; or a link leads
            outside of the folder of the model. That folder is the one of `path`, or of the
            target of `path` if `path` is a link.
        """
        return _read(path)[0]

    def session(self, provider: str) -> Any:
        """Open the model in onnxruntime; the session is kept for the next call in this process.

        Parameters
        ----------
        provider : str
            One of ``onnxruntime.get_available_providers()``.

        Returns
        -------
        onnxruntime.InferenceSession
        """
        key = (provider, os.getpid())  # a session does not work after a fork
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
    """An ``.onnx`` file at the time it was read: its digest, and a session of these contents.

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
        """Whether this is the file at `path`, unchanged since it was read, in this process."""
        return self._wanted == (path, provider, os.getpid()) and self._settled and self._unchanged()

    def holds(self, digest: str | None, provider: str) -> bool:
        """Whether the content has this digest, in this process; the file may be gone."""
        return self.digest == digest and self._wanted[1:] == (provider, os.getpid())

    def _unchanged(self) -> bool:
        try:
            return all(
                _version(os.stat(file)) == _version(state) for file, state in self._states.items()
            )
        except OSError:
            return False

    def session(self) -> Any:
        """Open the session once, and release the bytes."""
        with self._lock:
            if self._model is not None:
                self._session = self._model.session(self._wanted[1])
                self._model = None
            return self._session


_last_opened: OpenedFile | None = None  # kept for services, which predict row by row


def open_onnx(
    encoder: "str | os.PathLike | OnnxModel",
    device: str | torch.device,
    fitted: str | None = None,
) -> Any:
    """Prepare a model, or the current contents of a file, to run on a device.

    Parameters
    ----------
    encoder : path-like or OnnxModel
    device : str or torch.device
    fitted : str, default=None
        Digest of the model with which the estimator was fitted. If a file of this content was
        opened before, it need not exist any more.

    Returns
    -------
    tuple of str and callable
        The digest, and a function that opens the session of these contents.

    Raises
    ------
    ImportError
        onnxruntime is not installed.
    FileNotFoundError
        The file does not exist.
    ValueError
        The model cannot run on `device`, or has another digest than `fitted`; or as
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
            f"encoder={encoder!r} is another model now (SHA-256 {digest[:12]}) than in fit "
            f"({fitted[:12]}), so its features differ. Restore the files of that model, or fit "
            "again, together with everything that was trained on its features."
        )


def _provider(device: str | torch.device) -> str:
    onnxruntime = import_optional("onnxruntime", extra="onnx", purpose="An .onnx file as encoder")
    kind = resolve_device(device).type
    if kind == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return "CUDAExecutionProvider"
    if kind == "cpu" or device == "auto":
        return "CPUExecutionProvider"
    raise ValueError(
        f"device={device!r} is not supported by the installed onnxruntime "
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
                "outside of its folder. Replace the link by the file."
            )
        try:
            files[location], states[str(named)] = _read_file(file)
        except FileNotFoundError as error:
            raise ValueError(
                f"encoder={str(path)!r} keeps weights in {shown(location)}, which does not exist. "
                "Put the file into the folder of the model."
            ) from error
    return OnnxModel(files), states


def _read_file(file: str) -> tuple[bytes, os.stat_result]:
    with open_regular(file, "encoder") as opened:
        state = os.fstat(opened.fileno())  # of the opened file, even if another one replaces it
        return opened.read(state.st_size), state


def _version(state: os.stat_result) -> tuple:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _open_session(model: OnnxModel, provider: str) -> Any:
    onnxruntime = import_optional("onnxruntime", extra="onnx", purpose="An .onnx file as encoder")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # joblib limits it in its workers
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never the format ORT
    content, weights = _without_paths(model)
    if weights:
        options.add_external_initializers_from_files_in_memory(
            list(weights), list(weights.values()), list(map(len, weights.values()))
        )
    try:
        return onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # onnxruntime's errors have no common class
        raise ValueError(
            f"encoder={shown(model.name)} cannot be opened as an ONNX model: {reason_of(error)}"
        ) from error


def _without_paths(model: OnnxModel) -> tuple[bytes, dict[str, bytes]]:
    """Rewrite a model for onnxruntime so that it names no file; return it with its weights by name.

    onnxruntime takes large weights of the main graph from memory, here under random names. It would
    look on the disk for other external tensors (shapes, subgraphs, functions): those go inside.
    """
    proto = parse_model(model.name, model.files[model.name])
    proto.ClearField("metadata_props")  # onnxruntime may read settings from it
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
