"""Saved estimators: making estimators from a file, and from the parts that the caller makes."""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import sklearn
import skorch
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._metadata_requests import SIMPLE_METHODS
from torch import nn

from skfair.base._net import load_weights
from skfair.base._saved import SavedState
from skfair.featurize import Normalize
from skfair.featurize._onnx_model import OnnxModel
from skfair.persistence._files import MALFORMED
from skfair.persistence._schema import (
    check_labels,
    check_nesting,
    check_parameters,
    check_state,
    estimator_class,
    module_class,
)
from skfair.persistence._tensors import digest_of
from skfair.persistence._values import ValueReader
from skfair.persistence._writer import LOCAL, probe
from skfair.utils._errors import InvalidModelError
from skfair.utils._random import seeded
from skfair.utils._shown import plain, shown

_OUTPUTS = [("transform", container) for container in ("default", "pandas", "polars", None)]
# Values that a parameter may have besides numbers and text. No other parameter may be an estimator:
# code that expects an array or a function would accept any object with the right attributes.
_PARTS = {
    "steps": ("estimator",),
    "estimator": ("estimator", "made_by_caller"),
    "encoder": ("module", "onnx", "made_by_caller"),
    "preprocess": ("Normalize", "made_by_caller"),
    **dict.fromkeys(("constraint", "performance", "region_classifier"), ("made_by_caller",)),
}


def match_factories(factories: Any, needed: dict[str, str]) -> Mapping[str, Callable[[], Any]]:
    """Return the factory of each part that was not saved. The errors say which are needed."""
    parts = ", ".join(f"{shown(n)} (was {plain(kind)[:80]})" for n, kind in needed.items())
    if factories is None:
        factories = {}
    elif not isinstance(factories, Mapping):
        if len(needed) != 1:
            raise ValueError(
                f"factories is one function, but {len(needed) or 'no'} parts of this model need a "
                f"function: {parts or 'everything was saved'}. "
                + ("Pass a dict from these names to functions." if needed else "Leave it out.")
            )
        factories = dict.fromkeys(needed, factories)
    if missing := [name for name in needed if name not in factories]:
        wanted = ", ".join(f"{shown(name)}: function" for name in missing)
        raise ValueError(
            f"A model file holds no code, and this model needs parts made by code: {parts}. Pass "
            f"factories={{{wanted}}}. Each function takes no arguments and returns the part."
        )
    if unknown := [name for name in factories if name not in needed]:
        raise ValueError(
            f"factories has the name {unknown[0]!r}, but this model needs no function for it. "
            f"Needed: {parts or 'none'}."
        )
    for name, factory in factories.items():
        if not callable(factory) or isinstance(factory, nn.Module):
            raise TypeError(
                f"factories[{name!r}] is a {type(factory).__name__}. It must be a function without "
                "arguments that returns the object. Pass, for example, lambda: object."
            )
    return factories


class EstimatorReader:
    """Makes the estimators of one load from JSON, tensors and the factories of the caller."""

    def __init__(
        self, tensors: dict[str, torch.Tensor], factories: Mapping[str, Callable[[], Any]]
    ):
        self._values = ValueReader(tensors, self._other)
        self._allowed: tuple[str, ...] = ()
        self._made: dict[str, Any] = {}
        for name, factory in factories.items():
            try:
                # The drawn weights are replaced later. The caller's generators must not advance.
                with seeded(0):
                    self._made[name] = factory()
            except Exception as error:
                error.add_note(f"factories[{name!r}] raised this when called without arguments.")
                raise
        self.made_sklearn = False

    def root(self, written: Any) -> BaseEstimator:
        """Make the saved estimator. Every tensor of the file must be used."""
        try:
            check_nesting(written)
            estimator = self._estimator(written, "")
            if unused := self._values.unused:
                raise ValueError(f"the tensor {shown(unused[0])} is not used")
        except InvalidModelError:
            raise
        except MALFORMED as error:
            raise InvalidModelError(
                "The file does not describe an estimator "
                f"({type(error).__name__}: {plain(str(error))[:1000]})."
            ) from error
        return estimator

    def _estimator(self, written: dict, path: str) -> BaseEstimator:
        name = written["class"]
        cls = estimator_class(name)
        if cls is None:
            raise InvalidModelError(
                f"The model names the class {shown(name, 80)}, which is not a class that skfair "
                "saves. load imports only classes that skfair saves."
            )
        self.made_sklearn |= name.startswith("sklearn.")
        names = set(written["parameters"])
        if unknown := names - set(cls._get_param_names()) | names & {LOCAL}:
            raise InvalidModelError(
                f"The model sets the parameter {shown(sorted(unknown)[0])} of {cls.__name__}, "
                "but load knows no such parameter. Was the model saved by a later version?"
            )
        parameters = {
            key: self._read(value, f"{path}{key}", _PARTS.get(key, ()))
            for key, value in written["parameters"].items()
        }
        state = {key: self._read(value, f"{path}{key}") for key, value in written["state"].items()}
        estimator = cls(**parameters)
        check_parameters(estimator)
        if isinstance(parameters.get("encoder"), str):
            raise ValueError("encoder is a path outside the model")
        check_state(estimator, state)
        if state and isinstance(estimator, SavedState):
            estimator._restore_state(state)
        else:
            vars(estimator).update(state)
        if "probe" in written:
            outputs = self._read(written["probe"]["outputs"], path)
            self._check_probe(estimator, written["probe"]["made"], outputs)
        if "output" in written:
            ((method, container),) = written["output"].items()
            if (method, container) not in _OUTPUTS:
                raise InvalidModelError(
                    f"The model sets the output container of {shown(method)} to "
                    f"{shown(container)}, which scikit-learn does not have."
                )
            estimator.set_output(transform=container)
        if "requests" in written:
            with sklearn.config_context(enable_metadata_routing=True):
                for method in SIMPLE_METHODS:
                    if requests := written["requests"][method]:
                        getattr(estimator, f"set_{method}_request")(**requests)
        return estimator

    def _check_probe(self, estimator: Any, made: list[str], saved: Any) -> None:
        """Compare a few outputs of the network with its outputs at the time of saving."""
        if saved is None or not made or any(name not in self._made for name in made):
            return
        if not (
            isinstance(saved, np.ndarray)
            and saved.dtype.kind == "f"
            and any(
                _are_close(probe(partial(estimator._outputs_of_noise, quick=quick)), saved)
                for quick in (True, False)  # the second time only where rounding may matter
            )
        ):
            raise InvalidModelError(
                f"With the same weights, the network of {plain(', '.join(made))[:80]} computes "
                "other values than when it was saved. A part without weights differs, such as "
                "an activation, the preprocessing or a buffer that is not in the state_dict. Let "
                "factories make the same network."
            )

    def _read(self, written: Any, path: str, allowed: tuple[str, ...] = ()) -> Any:
        """Read a value that may contain the allowed kinds of parts, and no others."""
        outside, self._allowed = self._allowed, allowed
        value = self._values.read(written, path)
        self._allowed = outside
        return value

    def _other(self, kind: str, content: Any, path: str) -> Any:
        if kind not in self._allowed:
            raise InvalidModelError(
                f"The model holds a {shown(kind)} at {shown(path, 100)}, where none is allowed."
            )
        if kind == "estimator":
            return self._estimator(content, f"{path}__")
        if kind == "onnx":
            return OnnxModel({name: self._bytes(key) for name, key in content.items()})
        if kind == "Normalize":
            return Normalize(tuple(content["mean"]), tuple(content["std"]))
        if kind == "module":
            return self._known_module(content, path)
        return self._make(content, path)

    def _bytes(self, key: str) -> bytes:
        tensor = self._values.take(key)
        if tensor.dtype != torch.uint8 or tensor.ndim != 1:
            raise ValueError("a file is not stored as bytes")
        return tensor.numpy().tobytes()

    def _known_module(self, content: dict, path: str) -> nn.Module:
        cls = module_class(content["class"])
        if cls is None:
            raise InvalidModelError(
                f"The model names the network {shown(content['class'])}, which skfair does not "
                "have."
            )
        with torch.device("meta"):
            network = cls()
        return self._fill(network, content, cls.__name__, path)

    def _make(self, content: dict, path: str) -> Any:
        name = content["name"]
        made = network = self._made[name]
        if not callable(made) and not isinstance(made, skorch.NeuralNet):
            raise InvalidModelError(
                f"factories[{name!r}] returns a {type(made).__name__}. The saved estimator had a "
                "network or a function. Return the same kind of object."
            )
        if "weights" not in content:
            return made
        if isinstance(made, skorch.NeuralNet):
            if not made.initialized_:
                with seeded(0):
                    made.initialize()
            network = made.module_
        if not isinstance(network, nn.Module):
            raise InvalidModelError(
                f"factories[{name!r}] returns a {type(made).__name__}. The saved estimator had a "
                "network. Return a network."
            )
        self._fill(network, content, f"factories[{name!r}]", path)
        if "classes" in content:
            made.classes_inferred_ = self._read(content["classes"], path)
            check_labels(made.classes_inferred_)
        return made

    def _fill(self, network: nn.Module, content: dict, what: str, path: str) -> nn.Module:
        # A network on the device "meta" keeps the tensors; another one copies them.
        on_meta = any(tensor.is_meta for tensor in network.state_dict().values())
        try:
            weights = self._values.weights(content["weights"], take=on_meta)
            if "digest" in content:
                weights = _frozen_weights(network, weights, content["digest"], what) | weights
            load_weights(network, weights, what)
        except ValueError as error:
            raise InvalidModelError(str(error)) from error
        frozen = set(content["frozen"])
        for name, parameter in network.named_parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(name not in frozen)
        with contextlib.suppress(NotImplementedError):  # modules of torch.export have one mode only
            network.train(bool(content["training"]))
        return network


def _frozen_weights(
    network: nn.Module, weights: Mapping[str, torch.Tensor], digest: Any, what: str
) -> dict[str, torch.Tensor]:
    """Weights of a network that the file lacks; they must be those of the time of saving."""
    lacking = {n: tensor for n, tensor in network.state_dict().items() if n not in weights}
    if any(tensor.is_meta for tensor in lacking.values()) or digest_of(lacking) != digest:
        raise ValueError(
            f"{what} returns a network with other frozen weights than the saved one, and the file "
            "holds none, as it was saved with frozen_weights=False. Return the network with the "
            "frozen weights on which the saved model was made: read them from a file. Weights that "
            "the function draws are drawn under a seed of load, whatever torch.manual_seed says."
        )
    return lacking


def _are_close(found: np.ndarray | None, saved: np.ndarray) -> bool:
    if found is None or found.shape != saved.shape:
        return False
    return bool(np.abs(found - saved).max() <= 0.01 * np.abs(saved).max() + 1e-6)
