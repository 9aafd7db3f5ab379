"""Saved estimators: what of an estimator goes into the file.

An estimator may say more than its attributes do:

- ``_state_to_save(state)`` turns its fitted state into data, networks into their weights;
- ``_restore_state(state)`` takes that back;
- ``_outputs_of_noise(rng)`` returns a few outputs of the fitted estimator, by which a network that
  the caller makes again is told from another; None where running it is not free.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import skorch
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._metadata_requests import SIMPLE_METHODS
from torch import nn
from torch.nn.parameter import is_lazy

from skfair.featurize import Normalize
from skfair.featurize._onnx_model import OnnxModel
from skfair.persistence._schema import (
    check_parameters,
    check_state,
    class_name,
    estimator_class,
    module_name,
    sklearn_classes,
)
from skfair.persistence._table import TRAINING_ROWS
from skfair.persistence._values import Unsaveable, ValueWriter
from skfair.utils._shown import shown

# Where one machine keeps what it has computed is not for another one, nor for a stranger to say.
LOCAL = "memory"
REQUESTS, OUTPUT = "_metadata_request", "_sklearn_output_config"
_FEWEST_ROWS = 10  # whose mean says little of each of them


class EstimatorWriter:
    """One save: the JSON of estimators, their tensors, and what the caller makes."""

    def __init__(self, root: BaseEstimator, *, training_rows: bool):
        self.values = ValueWriter(self._other)
        self.made_by_caller: dict[str, str] = {}
        self._training_rows = training_rows
        self._names = {id(value): name for name, value in root.get_params(deep=True).items()}

    def estimator(self, estimator: BaseEstimator, path: str) -> dict:
        """Write an estimator; `path` is a prefix for the names of its parts."""
        name = class_name(type(estimator))
        if estimator_class(name) is not type(estimator):
            raise TypeError(_refusal(estimator, name))
        check_parameters(estimator)
        parameters = estimator.get_params(deep=False)
        state = {
            key: value
            for key, value in vars(estimator).items()
            if key not in parameters and key not in (REQUESTS, OUTPUT)
        }
        if state and hasattr(estimator, "_state_to_save"):
            state = estimator._state_to_save(state)
        if not self._training_rows:
            state = _without_training_rows(state)
        made_before = len(self.made_by_caller)
        written: dict[str, Any] = {
            "class": name,
            "parameters": {
                key: self._write(estimator, key, value, path)
                for key, value in parameters.items()
                if key != LOCAL
            },
            "state": {
                key: self._write(estimator, key, value, path) for key, value in state.items()
            },
        }
        if parameters.get(LOCAL) is not None:
            warnings.warn(
                f"memory={shown(str(parameters[LOCAL]), 200)} of {type(estimator).__name__} is "
                "left out of the saved model: it belongs to this machine. Set it after loading: "
                f"set_params({path}{LOCAL}=...).",
                UserWarning,
            )
        try:
            check_state(estimator, state)
        except ValueError as error:
            raise TypeError(
                f"{error}, and this is not saved as data. Use joblib.dump, for files that only you "
                "load."
            ) from error
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
            if key == "encoder" and isinstance(value, str | os.PathLike):
                value = OnnxModel.read(value)
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
        if type(value) is OnnxModel:
            contents = {
                file: torch.frombuffer(bytearray(content), dtype=torch.uint8)
                for file, content in value.files.items()
            }
            return {"onnx": {f: self.values.keep(t, f"{path}.{f}") for f, t in contents.items()}}
        if type(value) is Normalize:
            return {"Normalize": {"mean": list(value.mean), "std": list(value.std)}}
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
            "training": getattr(network, "training", False),  # frozen TorchScript has none
        }


def probe(compute: Callable[[np.random.Generator], np.ndarray | None]) -> np.ndarray | None:
    """Compute a few outputs that are saved, so that a loaded network can be told from another.

    None where the network does not run on such data, or puts out no finite numbers.
    """
    try:
        outputs = compute(np.random.default_rng(0))
    except Exception:  # it is the user's network
        return None
    return outputs if outputs is not None and np.isfinite(outputs).all() else None


def _without_training_rows(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out what belongs to single rows, and centres that are hardly more than one row."""
    kept = {key: value for key, value in state.items() if key not in TRAINING_ROWS}
    if "cluster_centers_" in kept:
        centres = kept["cluster_centers_"].copy()
        small = kept.get("_cluster_sizes", np.zeros(len(centres))) < _FEWEST_ROWS
        centres[small] = np.nan
        kept["cluster_centers_"] = centres
        if small.all():
            del kept["cluster_centers_"]
    return kept


def _refusal(estimator: Any, name: str) -> str:
    if hasattr(estimator, "best_estimator_"):
        return (
            f"estimator is a {type(estimator).__name__}; what it has found is saved, not the "
            "search. Give estimator.best_estimator_."
        )
    return (
        f"{name} is not among the classes that can be saved as data: the estimators of skfair, and "
        f"of scikit-learn {', '.join(n.rpartition('.')[2] for n in sklearn_classes())}. Save the "
        "estimators of skfair in it by themselves, and the rest with joblib.dump, for files that "
        "only you load, or with skops."
    )
