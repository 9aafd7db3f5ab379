"""Saved estimators: describing an estimator as JSON and tensors."""

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

from skfair.base._saved import SavedState
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
from skfair.persistence._tensors import digest_of
from skfair.persistence._values import Unsaveable, ValueWriter
from skfair.utils._shown import shown

# A path on one machine: another machine does not have it, and a stranger must not choose it.
LOCAL = "memory"
REQUESTS, OUTPUT = "_metadata_request", "_sklearn_output_config"
_FEWEST_ROWS = 10  # the mean of so many rows says little about each of them


class EstimatorWriter:
    """Collects the JSON and tensors of one save, and the parts that the caller must make."""

    def __init__(self, root: BaseEstimator, *, training_rows: bool, frozen_weights: bool):
        self.values = ValueWriter(self._other)
        self.made_by_caller: dict[str, str] = {}
        self._training_rows = training_rows
        self._frozen_weights = frozen_weights
        self._names = {id(value): name for name, value in root.get_params(deep=True).items()}

    def estimator(self, estimator: BaseEstimator, path: str) -> dict:
        """Convert an estimator to JSON. `path` is the prefix for the names of its parts."""
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
        if state and isinstance(estimator, SavedState):
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
                "not saved, because it is a path on this machine. Set it after loading: "
                f"set_params({path}{LOCAL}=...).",
                UserWarning,
            )
        try:
            check_state(estimator, state)
        except ValueError as error:
            raise TypeError(
                f"{error}, so the estimator cannot be saved as data. Use joblib.dump, for files "
                "that only you load."
            ) from error
        made = list(self.made_by_caller)[made_before:]
        if made and state and isinstance(estimator, SavedState):
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
            made |= self._network(value.module_, path, whole=self._frozen_weights)
            made["classes"] = self.values.write(classes, f"{path}.classes")
        elif isinstance(value, nn.Module):
            made |= self._network(value, path, whole=self._frozen_weights)
        return {"made_by_caller": made}

    def _network(self, network: nn.Module, path: str, *, whole: bool = True) -> dict:
        weights = dict(network.state_dict())
        if any(is_lazy(value) for value in weights.values()):
            raise Unsaveable(f"a {type(network).__name__} without weights, as it has seen no data")
        if not all(isinstance(value, torch.Tensor) for value in weights.values()):
            raise Unsaveable(f"a {type(network).__name__} with state that is not a tensor")
        frozen: dict[str, torch.Tensor] = {}
        if not whole:
            parameters = network.named_parameters(remove_duplicate=False)
            names = {name for name, p in parameters if not p.requires_grad}
            frozen = {name: weights.pop(name) for name in names & set(weights)}
        return {
            **({"digest": digest_of(frozen)} if frozen else {}),
            "weights": self.values.write(weights, path),
            "frozen": [n for n, p in network.named_parameters() if not p.requires_grad],
            "training": getattr(network, "training", False),  # frozen TorchScript has none
        }


def probe(compute: Callable[[np.random.Generator], np.ndarray | None]) -> np.ndarray | None:
    """Compute a few outputs to save. After loading, they show whether the network is the same.

    Return None if the network does not run on such data, or returns NaN or infinity.
    """
    try:
        outputs = compute(np.random.default_rng(0))
    except Exception:  # the network of the user may raise anything
        return None
    return outputs if outputs is not None and np.isfinite(outputs).all() else None


def _without_training_rows(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out data about single rows, and centres that are the mean of very few rows."""
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
            f"estimator is a {type(estimator).__name__}, and a search cannot be saved as data. "
            "Give estimator.best_estimator_."
        )
    return (
        f"{name} cannot be saved as data. Classes that can: the estimators of skfair, and from "
        f"scikit-learn {', '.join(n.rpartition('.')[2] for n in sklearn_classes())}. Save the "
        "estimators of skfair in it alone, and the rest with skops, or with joblib.dump for files "
        "that only you load."
    )
