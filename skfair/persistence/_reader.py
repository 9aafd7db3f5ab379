"""Saved estimators: estimators from what the file says, and from what the caller makes."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sklearn
import skorch
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._metadata_requests import SIMPLE_METHODS
from torch import nn

from skfair.base._net import load_weights
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
from skfair.persistence._values import ValueReader
from skfair.persistence._writer import LOCAL, probe
from skfair.utils._errors import InvalidModelError
from skfair.utils._random import seeded
from skfair.utils._shown import plain, shown

_OUTPUTS = [("transform", container) for container in ("default", "pandas", "polars", None)]
# What a parameter may be beside numbers and text. An estimator stands nowhere else: code that
# expects an array or a function takes whatever has the right attributes.
_PARTS = {
    "steps": ("estimator",),
    "estimator": ("estimator", "made_by_caller"),
    "encoder": ("module", "onnx", "made_by_caller"),
    "preprocess": ("Normalize", "made_by_caller"),
    **dict.fromkeys(("constraint", "performance", "region_classifier"), ("made_by_caller",)),
}


def match_factories(factories: Any, needed: dict[str, str]) -> Mapping[str, Callable[[], Any]]:
    """Give each part that was not saved its factory, or say which are needed."""
    parts = ", ".join(f"{shown(n)} (was {plain(kind)[:80]})" for n, kind in needed.items())
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
        wanted = ", ".join(f"{shown(name)}: function" for name in missing)
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


class EstimatorReader:
    """One load: estimators from their JSON and tensors, and what the caller makes."""

    def __init__(
        self, tensors: dict[str, torch.Tensor], factories: Mapping[str, Callable[[], Any]]
    ):
        self._values = ValueReader(tensors, self._other)
        self._allowed: tuple[str, ...] = ()
        self._made: dict[str, Any] = {}
        for name, factory in factories.items():
            try:
                # Its weights are of no matter, but the caller's generators are not to move.
                with seeded(0):
                    self._made[name] = factory()
            except Exception as error:
                error.add_note(f"This came from factories[{name!r}], called without arguments.")
                raise
        self.made_sklearn = False

    def root(self, written: Any) -> BaseEstimator:
        """Make the estimator that was saved, of all that the file holds."""
        try:
            check_nesting(written)
            estimator = self._estimator(written, "")
            if self._values.tensors:
                name = next(iter(self._values.tensors))
                raise ValueError(f"the tensor {shown(name)} is of nothing")
        except InvalidModelError:
            raise
        except MALFORMED as error:
            raise InvalidModelError(
                "The model does not describe an estimator "
                f"({type(error).__name__}: {plain(str(error))[:1000]})."
            ) from error
        return estimator

    def _estimator(self, written: dict, path: str) -> BaseEstimator:
        name = written["class"]
        cls = estimator_class(name)
        if cls is None:
            raise InvalidModelError(
                f"The model names the class {shown(name, 80)}, which is none that is saved. "
                "Nothing of that name is imported."
            )
        self.made_sklearn |= name.startswith("sklearn.")
        names = set(written["parameters"])
        if unknown := names - set(cls._get_param_names()) | names & {LOCAL}:
            raise InvalidModelError(
                f"The model has the parameters {shown(sorted(unknown)[0])} for {cls.__name__}, "
                "which has none of that name to load. Was it saved by a later version?"
            )
        parameters = {
            key: self._read(value, f"{path}{key}", _PARTS.get(key, ()))
            for key, value in written["parameters"].items()
        }
        state = {key: self._read(value, f"{path}{key}") for key, value in written["state"].items()}
        estimator = cls(**parameters)
        check_parameters(estimator)
        if isinstance(parameters.get("encoder"), str):
            raise ValueError("encoder is a path outside of the model")
        check_state(estimator, state)
        if state and hasattr(estimator, "_restore_state"):
            estimator._restore_state(state)
        else:
            vars(estimator).update(state)
        if "probe" in written:
            outputs = self._read(written["probe"]["outputs"], path)
            self._check_probe(estimator, written["probe"]["made"], outputs)
        if "output" in written:
            ((method, container),) = written["output"].items()
            if (method, container) not in _OUTPUTS:
                raise InvalidModelError("The model sets an output that there is none of.")
            estimator.set_output(transform=container)
        if "requests" in written:
            with sklearn.config_context(enable_metadata_routing=True):
                for method in SIMPLE_METHODS:
                    if requests := written["requests"][method]:
                        getattr(estimator, f"set_{method}_request")(**requests)
        return estimator

    def _check_probe(self, estimator: Any, made: list[str], saved: Any) -> None:
        """Compare outputs with those that the network had when it was saved."""
        if saved is None or not made or any(name not in self._made for name in made):
            return
        array = isinstance(saved, np.ndarray) and saved.dtype.kind == "f"
        found = probe(estimator._outputs_of_noise) if array else None
        if found is None or found.shape != saved.shape or not _are_close(found, saved):
            raise InvalidModelError(
                f"The network of {plain(', '.join(made))[:80]} computes other values than it did "
                "when it was saved, with the same weights: what has no weights is another, such as "
                "an activation, the preprocessing or a buffer that is not in the state_dict. Let "
                "factories make the same."
            )

    def _read(self, written: Any, path: str, allowed: tuple[str, ...] = ()) -> Any:
        """Read a value in which these parts may stand, and no others."""
        outside, self._allowed = self._allowed, allowed
        value = self._values.read(written, path)
        self._allowed = outside
        return value

    def _other(self, kind: str, content: Any, path: str) -> Any:
        if kind not in self._allowed:
            raise InvalidModelError(
                f"The model holds a {shown(kind)} at {shown(path, 100)}, where there is none."
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
            raise ValueError("a file is no bytes")
        return tensor.numpy().tobytes()

    def _known_module(self, content: dict, path: str) -> nn.Module:
        cls = module_class(content["class"])
        if cls is None:
            raise InvalidModelError(f"The model names the network {shown(content['class'])}.")
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
                with seeded(0):
                    made.initialize()
            network = made.module_
        if not isinstance(network, nn.Module):
            raise InvalidModelError(
                f"factories[{name!r}] makes a {type(made).__name__} where a network was saved."
            )
        self._fill(network, content, f"factories[{name!r}]", path)
        if "classes" in content:
            made.classes_inferred_ = self._read(content["classes"], path)
            check_labels(made.classes_inferred_)
        return made

    def _fill(self, network: nn.Module, content: dict, what: str, path: str) -> nn.Module:
        try:
            load_weights(network, self._read(content["weights"], path), what)
        except ValueError as error:
            raise InvalidModelError(str(error)) from error
        frozen = set(content["frozen"])
        for name, parameter in network.named_parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(name not in frozen)
        with contextlib.suppress(NotImplementedError):  # what torch.export makes has one mode
            network.train(bool(content["training"]))
        return network


def _are_close(found: np.ndarray, saved: np.ndarray) -> bool:
    return bool(np.abs(found - saved).max() <= 0.01 * np.abs(saved).max() + 1e-6)
