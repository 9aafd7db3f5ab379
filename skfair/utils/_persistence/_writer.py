"""Saved estimators: what of an estimator goes into the files.

An estimator may say more than its attributes do:

- ``_state_to_save()`` returns its fitted state as data, in place of its attributes;
- ``_restore_state(state)`` takes that back;
- ``_outputs_of_noise(rng)`` returns a few outputs of the fitted estimator, by which a network that
  the caller makes again is told from another; None where running it is not free;
- ``_file_parameters`` are parameters that may be the path of a file, which is then copied into
  the model, and ``_files_of(name)`` lists that file and those that belong to it.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import skorch
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._metadata_requests import SIMPLE_METHODS
from torch import nn
from torch.nn.parameter import is_lazy

from skfair.utils._persistence._classes import (
    check_state,
    class_name,
    estimator_class,
    module_name,
    sklearn_classes,
)
from skfair.utils._persistence._files import InvalidModelError
from skfair.utils._persistence._networks import probe
from skfair.utils._persistence._values import Unsaveable, ValueWriter

# Where one machine keeps what it has computed is not for another one, nor for a stranger to say.
LOCAL = "memory"
REQUESTS, OUTPUT = "_metadata_request", "_sklearn_output_config"


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
        if name not in parameters and name not in (REQUESTS, OUTPUT)
    }


def is_path(cls: type, key: str, value: Any) -> bool:
    return key in getattr(cls, "_file_parameters", ()) and isinstance(value, str | os.PathLike)


class EstimatorWriter:
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
        made_before = len(self.made_by_caller)
        for key, value in estimator.get_params(deep=False).items():
            if key == LOCAL:
                _warn_of_local(estimator, f"{path}{key}", value)
                continue
            if is_path(type(estimator), key, value):
                self.files[f"{path}{key}"] = estimator._files_of(key)
                written["parameters"][key] = {"file": f"{path}{key}"}
            else:
                written["parameters"][key] = self._write(estimator, key, value, path)
        for key, value in state.items():
            written["state"][key] = self._write(estimator, key, value, path)
        made = list(self.made_by_caller)[made_before:]
        if made and state and hasattr(estimator, "_outputs_of_noise"):
            outputs = self._write(estimator, "probe", probe(estimator._outputs_of_noise), path)
            written["probe"] = {"made": made, "outputs": outputs}
        if vars(estimator).get(OUTPUT):
            written["output"] = dict(vars(estimator)[OUTPUT])
        if REQUESTS in vars(estimator):
            requests = vars(estimator)[REQUESTS]
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
