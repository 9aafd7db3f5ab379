"""Saved estimators: ``save`` and ``load``, and what of an estimator goes into the files.

An estimator may say more than its attributes do:

- ``_state_to_save()`` returns its fitted state as data, in place of its attributes;
- ``_restore_state(state)`` takes that back;
- ``_file_parameters`` are parameters that may be the path of a file, which is then copied into
  the model, and ``_files_of(name)`` lists that file and those that belong to it.
"""

import os
import platform
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import sklearn
import skorch
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils._metadata_requests import SIMPLE_METHODS
from torch import nn
from torch.nn.parameter import is_lazy

import skfair
from skfair.utils._device import resolve_device
from skfair.utils._persistence._classes import (
    check_state,
    class_name,
    estimator_class,
    module_class,
    module_name,
    sklearn_classes,
)
from skfair.utils._persistence._files import InvalidModelError, read_model, write_model
from skfair.utils._persistence._values import MALFORMED, Unsaveable, ValueReader, ValueWriter
from skfair.utils._random import seeded

Network = TypeVar("Network", bound=nn.Module)
# Where one machine keeps what it has computed is not for another one, nor for a stranger to say.
_LOCAL = "memory"
_OUTPUTS = [("transform", container) for container in ("default", "pandas", "polars", None)]
_REQUESTS, _OUTPUT = "_metadata_request", "_sklearn_output_config"


def save(estimator: BaseEstimator, path: str | os.PathLike) -> None:
    """Save an estimator as a directory of data, which can be loaded without trust.

    The directory holds ``config.json`` (class, parameters, fitted attributes, versions) and
    ``model.safetensors`` (weights and arrays), and the files of an encoder that is an ``.onnx``
    file. What is there of an earlier save is replaced, in one step: a process that is killed
    leaves the old model or the new one.

    Parameters
    ----------
    estimator : estimator of skfair, or a scikit-learn pipeline with such
        Fitted or not. Of scikit-learn the usual steps before a classifier are known: scalers,
        encoders, imputers, ``PCA``, ``ColumnTransformer``, linear classifiers; an error names
        what is not. Of a search, give ``best_estimator_``.
    path : path-like
        The directory: new, empty, or with a model to replace.

    Raises
    ------
    TypeError
        The estimator, or something in it, cannot be saved as data; use joblib for it.
    FileExistsError
        `path` is a file, or holds something else than a model.
    OSError
        The disk is full or cannot be written to; a model that was there is as it was.

    Warns
    -----
    UserWarning
        A parameter `memory` is left out, which says where this machine keeps what it has
        computed.

    See Also
    --------
    load : The way back.

    Notes
    -----
    Code is not saved: of a network of your own, the weights are, and the network is made again
    by a function that you pass to :func:`load`; the same goes for functions (`preprocess`, an
    encoder that is a callable, a callable constraint).

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import skfair
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(100, 3)), np.arange(100) % 2
    >>> X[:, 0] += 3 * y
    >>> model = skfair.ClusterMarginClassifier(loss="cross_entropy").fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skfair.save(model, f"{folder}/model")
    ...     loaded = skfair.load(f"{folder}/model")
    >>> bool((loaded.predict_proba(X) == model.predict_proba(X)).all())
    True
    """
    if not isinstance(estimator, BaseEstimator):
        raise TypeError(
            f"estimator is a {type(estimator).__name__}, where an estimator of skfair or a "
            "pipeline was wanted."
        )
    writer = _Writer(estimator)
    body = {
        "class": class_name(type(estimator)),
        "versions": _versions(),
        "estimator": writer.estimator(estimator, ""),
        "made_by_caller": writer.made_by_caller,
    }
    write_model(Path(path), body, writer.values.tensors, writer.files)


def load(
    path: str | os.PathLike,
    *,
    factories: Callable[[], Any] | Mapping[str, Callable[[], Any]] | None = None,
) -> Any:
    """Load an estimator that :func:`save` has saved, without running code from the files.

    Parameters
    ----------
    path : path-like
        The directory.
    factories : callable or dict of str to callable, default=None
        Functions without arguments that make what was not saved: your network, whose saved
        weights are then loaded into it, or a function. By the name of the parameter, as
        ``set_params`` has it: ``{"estimator": make_network}``, in a pipeline
        ``{"featurizer__encoder": make_encoder}``; the function alone where it is one only.

    Returns
    -------
    estimator
        It predicts the same bits as the one that was saved, on the same kind of device.

    Raises
    ------
    FileNotFoundError
        There is no saved model at `path`.
    InvalidModelError
        The files are damaged, altered, of an unknown schema, name a class that is not known or
        a file outside of the directory, or hold tensors of other names or shapes than the
        networks have, those that `factories` make included. It is a ``ValueError``.
    TypeError, ValueError
        `factories` lacks what is needed, has a name that is not, or holds no functions.

    Warns
    -----
    InconsistentVersionWarning
        A step of scikit-learn was saved with another version of it.

    See Also
    --------
    save : The way there.

    Notes
    -----
    Digests find damage, not malice: whoever makes a file can make its digests. What protects
    from malice is that the files hold no code, and that only classes of skfair and a list of
    scikit-learn's are made of them. An ``.onnx`` encoder is a program for onnxruntime, though.

    Examples
    --------
    A network of your own is made by your own code:

    >>> import tempfile
    >>> import numpy as np, torch
    >>> import skfair
    >>> def make_network():
    ...     return torch.nn.Linear(2, 1)
    >>> rng = np.random.default_rng(0)
    >>> group, y = rng.integers(2, size=(2, 200))
    >>> X = np.column_stack([y + rng.normal(size=200), group]).astype("float32")
    >>> model = skfair.ThresholdDebiaser(make_network(), epsilon=0.5)
    >>> model = model.fit(X, y, sensitive_features=group)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     skfair.save(model, f"{folder}/model")
    ...     loaded = skfair.load(f"{folder}/model", factories=make_network)
    >>> bool((loaded.predict(X) == model.predict(X)).all())
    True
    """
    body, tensors, files = read_model(Path(path).absolute())
    reader = _Reader(tensors, files, _match_factories(factories, body["made_by_caller"]))
    try:
        estimator = reader.estimator(body["estimator"], "")
    except InvalidModelError:
        raise
    except MALFORMED as error:
        raise InvalidModelError(
            f"config.json does not describe an estimator ({type(error).__name__}: {error})."
        ) from error
    saved_with = str(body["versions"].get("scikit-learn"))
    if reader.made_sklearn and saved_with != sklearn.__version__:
        warnings.warn(
            InconsistentVersionWarning(
                estimator_name=type(estimator).__name__,
                current_sklearn_version=sklearn.__version__,
                original_sklearn_version=saved_with,
            )
        )
    return estimator


def load_weights(module: Network, weights: dict[str, torch.Tensor], what: str) -> Network:
    """Give a network the weights from a file, if they are its own.

    Parameters
    ----------
    module : torch.nn.Module
        On the device "meta", where no memory is taken before the shapes are compared, or ready.
    weights : dict of str to tensor
        The state of such a network.
    what : str
        What it is, for messages.

    Returns
    -------
    torch.nn.Module
        `module`.

    Raises
    ------
    InvalidModelError
        The names, shapes or types are others.
    """
    wanted = {name: (tuple(t.shape), t.dtype) for name, t in module.state_dict().items()}
    found = {name: (tuple(t.shape), t.dtype) for name, t in weights.items()}
    if wanted != found:
        differing = [n for n in {**wanted, **found} if wanted.get(n) != found.get(n)]
        name = differing[0]
        raise InvalidModelError(
            f"{what} is not the network whose weights were saved: {name!r} is "
            f"{_shape(wanted.get(name))} in the network and {_shape(found.get(name))} in the file"
            f"{f', and so on for {len(differing)} tensors' if len(differing) > 1 else ''}."
        )
    on_meta = any(tensor.is_meta for tensor in module.state_dict().values())
    module.load_state_dict(weights, assign=on_meta)
    return module


def probe(compute: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray | None:
    """Compute a few outputs that are saved, so that a loaded network can be told from another.

    Parameters
    ----------
    compute : callable
        Runs the network on what it draws from a generator.

    Returns
    -------
    ndarray or None
        None where the network does not run on such data, or puts out no finite numbers.
    """
    try:
        outputs = compute(np.random.default_rng(0))
    except Exception:  # it is the user's network
        return None
    return outputs if np.isfinite(outputs).all() else None


def check_probe(
    compute: Callable[[np.random.Generator], np.ndarray], saved: np.ndarray | None, what: str
) -> None:
    """Compare outputs with those that :func:`probe` gave when the network was saved.

    Parameters
    ----------
    compute : callable
        As for :func:`probe`.
    saved : ndarray or None
        None compares nothing.
    what : str
        What made the network, for the message.

    Raises
    ------
    InvalidModelError
        They differ by more than a hundredth of the largest.
    """
    if saved is None:
        return
    found = probe(compute)
    close = found is not None and found.shape == saved.shape
    if not close or np.abs(found - saved).max() > 0.01 * np.abs(saved).max() + 1e-6:
        raise InvalidModelError(
            f"{what} computes other values than it did when it was saved, with the same weights: "
            "what has no weights is another, such as an activation, the preprocessing or a buffer "
            "that is not in the state_dict. Let factories make the same."
        )


def _shape(described: tuple | None) -> str:
    return "not" if described is None else f"{described[1]} of shape {described[0]}"


def _versions() -> dict[str, str]:
    return {
        "skfair": skfair.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }


def fitted_state(estimator: BaseEstimator) -> dict[str, Any]:
    """Everything that an estimator has beyond its parameters.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    dict of str to object
        Its fitted attributes, by name.
    """
    parameters = estimator.get_params(deep=False)
    return {
        name: value
        for name, value in vars(estimator).items()
        if name not in parameters and name not in (_REQUESTS, _OUTPUT)
    }


class _Writer:
    """One save: the JSON of estimators, their tensors and files, and what the caller makes."""

    def __init__(self, root: BaseEstimator):
        self.values = ValueWriter(self._other)
        self.files: dict[str, list[Path]] = {}
        self.made_by_caller: dict[str, str] = {}
        self._names = {id(value): name for name, value in root.get_params(deep=True).items()}

    def estimator(self, estimator: BaseEstimator, path: str) -> dict:
        """Write an estimator; `path` is a prefix for the names of its parts."""
        name = class_name(type(estimator))
        if estimator_class(name) is not type(estimator):
            raise TypeError(_refusal(estimator, name))
        state = getattr(estimator, "_state_to_save", lambda: fitted_state(estimator))()
        try:
            check_state(estimator)
        except InvalidModelError as error:
            raise TypeError(f"{error} Use joblib.dump, for files that only you load.") from error
        written: dict[str, Any] = {"class": name, "parameters": {}, "state": {}}
        for key, value in estimator.get_params(deep=False).items():
            if key == _LOCAL:
                _warn_of_local(estimator, f"{path}{key}", value)
                continue
            if _is_path(type(estimator), key, value):
                self.files[f"{path}{key}"] = estimator._files_of(key)
                written["parameters"][key] = {"file": f"{path}{key}"}
            else:
                written["parameters"][key] = self._write(estimator, key, value, path)
        for key, value in state.items():
            written["state"][key] = self._write(estimator, key, value, path)
        if vars(estimator).get(_OUTPUT):
            written["output"] = dict(vars(estimator)[_OUTPUT])
        if _REQUESTS in vars(estimator):
            requests = vars(estimator)[_REQUESTS]
            written["requests"] = {
                method: dict(getattr(requests, method).requests) for method in SIMPLE_METHODS
            }
        return written

    def _write(self, estimator: BaseEstimator, key: str, value: Any, path: str) -> Any:
        try:
            return self.values.write(value, f"{path}{key}")
        except Unsaveable as error:
            raise TypeError(
                f"{key} of {type(estimator).__name__} holds {error}, which cannot be saved as "
                "data. Use joblib.dump, for files that only you load."
            ) from error

    def _other(self, value: Any, path: str) -> dict:
        name = self._names.get(id(value))
        if isinstance(value, BaseEstimator) and not isinstance(value, skorch.NeuralNet):
            return {"estimator": self.estimator(value, f"{name or path}__")}
        if isinstance(value, nn.Module) and (known := module_name(value)) is not None:
            return {"module": {"class": known, **self._network(value, path)}}
        if name is None or not (callable(value) or isinstance(value, skorch.NeuralNet)):
            raise Unsaveable(f"a {type(value).__name__}")
        kind = type(value)
        if not isinstance(value, nn.Module | skorch.NeuralNet):
            kind = value if hasattr(value, "__qualname__") else kind
        self.made_by_caller[name] = f"{kind.__module__}.{kind.__qualname__}"
        made = {"name": name}
        if isinstance(value, skorch.NeuralNet) and value.initialized_:
            classes = getattr(value, "classes_inferred_", None)
            made |= self._network(value.module_, path)
            made["classes"] = self.values.write(classes, f"{path}.classes")
        elif isinstance(value, nn.Module):
            made |= self._network(value, path)
        return {"made_by_caller": made}

    def _network(self, network: nn.Module, path: str) -> dict:
        weights = dict(network.state_dict())
        if any(is_lazy(value) for value in weights.values()):
            raise Unsaveable(f"a {type(network).__name__} that has seen no data and has no weights")
        if not all(isinstance(value, torch.Tensor) for value in weights.values()):
            raise Unsaveable(f"a {type(network).__name__} with state that is no tensor")
        return {
            "weights": self.values.write(weights, path),
            "frozen": [n for n, p in network.named_parameters() if not p.requires_grad],
            "training": network.training,
        }


def _is_path(cls: type, key: str, value: Any) -> bool:
    return key in getattr(cls, "_file_parameters", ()) and isinstance(value, str | os.PathLike)


def _refusal(estimator: Any, name: str) -> str:
    if hasattr(estimator, "best_estimator_"):
        return (
            f"estimator is a {type(estimator).__name__}; what it has found is saved, not the "
            "search. Give estimator.best_estimator_."
        )
    return (
        f"{name} is not among the classes that can be saved as data: the estimators of skfair, and "
        f"of scikit-learn {', '.join(n.rpartition('.')[2] for n in sklearn_classes())}. Use "
        "joblib.dump, for files that only you load."
    )


def _warn_of_local(estimator: BaseEstimator, name: str, value: Any) -> None:
    if value is not None:
        warnings.warn(
            f"memory={value!r} of {type(estimator).__name__} is left out of the saved model: it "
            f"belongs to this machine. Set it after loading: set_params({name}=...).",
            UserWarning,
        )


def _draws_of_its_own() -> AbstractContextManager:
    """Keep the weights that a new network draws from moving the caller's generators."""
    return seeded(0, resolve_device("auto"))


class _Reader:
    """One load: estimators from their JSON, tensors and files, and what the caller makes."""

    def __init__(
        self,
        tensors: dict[str, torch.Tensor],
        files: dict[str, Path],
        factories: Mapping[str, Callable[[], Any]],
    ):
        self._values = ValueReader(tensors, self._other)
        self._files = files
        self._made: dict[str, Any] = {}
        for name, factory in factories.items():
            try:
                with _draws_of_its_own():
                    self._made[name] = factory()
            except Exception as error:
                error.add_note(f"This came from factories[{name!r}], called without arguments.")
                raise
        self.made_sklearn = False

    def estimator(self, written: dict, path: str) -> BaseEstimator:
        """Make an estimator of its JSON."""
        name = written["class"]
        cls = estimator_class(name) if isinstance(name, str) else None
        if cls is None:
            raise InvalidModelError(
                f"config.json names the class {name!r}, which is none that is saved. Nothing of "
                "that name is imported."
            )
        self.made_sklearn |= name.startswith("sklearn.")
        names = set(written["parameters"])
        if unknown := names - set(cls._get_param_names()) | {_LOCAL} & names:
            raise InvalidModelError(
                f"config.json has the parameters {sorted(unknown)} for {cls.__name__}, which has "
                "none of that name to load. Was it saved by a later version?"
            )
        parameters = {
            key: self._parameter(cls, key, value, path)
            for key, value in written["parameters"].items()
        }
        estimator = cls(**parameters)
        state = {}
        for key, value in written["state"].items():
            known = hasattr(cls, key) or key in cls._get_param_names()
            if not key.isidentifier() or len(key) > 100 or known:
                raise InvalidModelError(f"config.json has no fitted attribute in {key!r}.")
            state[key] = self._values.read(value, f"{path}{key}")
        if hasattr(estimator, "_restore_state"):
            if state:
                estimator._restore_state(state)
        else:
            vars(estimator).update(state)
        check_state(estimator)
        if "output" in written:
            ((method, container),) = written["output"].items()
            if (method, container) not in _OUTPUTS:
                raise InvalidModelError(f"config.json sets the output of {method} to {container}.")
            estimator.set_output(transform=container)
        if "requests" in written:
            with sklearn.config_context(enable_metadata_routing=True):
                for method in SIMPLE_METHODS:
                    if requests := written["requests"][method]:
                        getattr(estimator, f"set_{method}_request")(**requests)
        return estimator

    def _parameter(self, cls: type, key: str, written: Any, path: str) -> Any:
        value = self._values.read(written, f"{path}{key}")
        of_model = isinstance(written, dict) and "file" in written
        if _is_path(cls, key, value) and not of_model:
            raise InvalidModelError(
                f"config.json gives {key}={value!r}, a path outside of the model."
            )
        return value

    def _other(self, kind: str, content: Any, path: str) -> Any:
        if kind == "estimator":
            return self.estimator(content, f"{path}__")
        if kind == "file":
            return str(self._files[content])
        if kind == "module":
            return self._known_module(content, path)
        if kind == "made_by_caller":
            return self._make(content, path)
        raise InvalidModelError(f"config.json holds a {kind!r}, which is nothing that is saved.")

    def _known_module(self, content: dict, path: str) -> nn.Module:
        cls = module_class(content["class"])
        if cls is None:
            raise InvalidModelError(f"config.json names the network {content['class']!r}.")
        with torch.device("meta"):
            network = cls()
        return self._fill(network, content, cls.__name__, path)

    def _make(self, content: dict, path: str) -> Any:
        name = content["name"]
        made = network = self._made[name]
        if not callable(made) and not isinstance(made, skorch.NeuralNet):
            raise InvalidModelError(
                f"factories[{name!r}] makes a {type(made).__name__}, where a network or a function "
                "was saved."
            )
        if "weights" not in content:
            return made
        if isinstance(made, skorch.NeuralNet):
            if not made.initialized_:
                with _draws_of_its_own():
                    made.initialize()
            network = made.module_
        if not isinstance(network, nn.Module):
            raise InvalidModelError(
                f"factories[{name!r}] makes a {type(made).__name__} where a network was saved."
            )
        self._fill(network, content, f"factories[{name!r}]", path)
        if "classes" in content:
            made.classes_inferred_ = self._values.read(content["classes"], path)
        return made

    def _fill(self, network: nn.Module, content: dict, what: str, path: str) -> nn.Module:
        load_weights(network, self._values.read(content["weights"], path), what)
        for name, parameter in network.named_parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(name not in content["frozen"])
        return network.train(bool(content["training"]))


def _match_factories(factories: Any, needed: dict[str, str]) -> Mapping[str, Callable[[], Any]]:
    """Give each part that was not saved its factory, or say which are needed."""
    parts = ", ".join(f"{name!r} (was {kind})" for name, kind in needed.items())
    if factories is None:
        factories = {}
    elif not isinstance(factories, Mapping):
        if len(needed) != 1:
            raise ValueError(
                f"factories is one function, and {len(needed) or 'no'} parts of this model have to "
                f"be made: {parts or 'all of it was saved'}. "
                + ("Pass a dict from these names to functions." if needed else "Leave it out.")
            )
        factories = dict.fromkeys(needed, factories)
    if missing := [name for name in needed if name not in factories]:
        wanted = ", ".join(f"{name!r}: function" for name in missing)
        raise ValueError(
            f"Code is not saved, and this model needs some: {parts}. Pass factories={{{wanted}}}, "
            "with functions without arguments that make them."
        )
    if unknown := [name for name in factories if name not in needed]:
        raise ValueError(
            f"factories has {unknown[0]!r}, which is no part of this model that has to be made. "
            f"Needed: {parts or 'none'}."
        )
    for name, factory in factories.items():
        if not callable(factory) or isinstance(factory, nn.Module):
            raise TypeError(
                f"factories[{name!r}] is a {type(factory).__name__}, where a function without "
                "arguments was wanted that makes the object. Pass for instance lambda: object."
            )
    return factories
