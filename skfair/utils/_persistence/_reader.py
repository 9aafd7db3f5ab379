"""Saved estimators: estimators from what the files say, and from what the caller makes."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import sklearn
import skorch
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._metadata_requests import SIMPLE_METHODS
from torch import nn

from skfair.utils._device import resolve_device
from skfair.utils._persistence._classes import check_state, estimator_class, module_class
from skfair.utils._persistence._files import InvalidModelError
from skfair.utils._persistence._networks import check_probe, load_weights
from skfair.utils._persistence._values import ValueReader
from skfair.utils._persistence._writer import LOCAL, is_path
from skfair.utils._random import seeded

_OUTPUTS = [("transform", container) for container in ("default", "pandas", "polars", None)]


def match_factories(factories: Any, needed: dict[str, str]) -> Mapping[str, Callable[[], Any]]:
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


def _draws_of_its_own() -> AbstractContextManager:
    """Keep the weights that a new network draws from moving the caller's generators."""
    return seeded(0, resolve_device("auto"))


class EstimatorReader:
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
        if unknown := names - set(cls._get_param_names()) | {LOCAL} & names:
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
        if "probe" in written:
            outputs = self._values.read(written["probe"]["outputs"], path)
            what = f"The network of {', '.join(written['probe']['made'])}"
            check_probe(estimator._outputs_of_noise, outputs, what)
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
        if is_path(cls, key, value) and not of_model:
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
