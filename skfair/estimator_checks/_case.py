"""The input of a check: an instance that is quick to fit, and data of a suitable shape.

Both come from the estimator itself (its parameters, their values, the arguments of its ``fit``).
A new estimator is therefore checked without being listed anywhere.
"""

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from torch import nn

from skfair.base._estimator import TorchEstimator
from skfair.utils._random import seeded

_N_SAMPLES = 64
_SIDE = 12  # of images, in pixels
_N_FEATURES = 4
_SHAPE_OF_X = (
    "The checks generated X, of shape {shape} as {dtype}. The shape follows from image_shape, "
    "patch_size and the first layer with in_channels or in_features in the network of a parameter. "
    "If the estimator needs another shape, set these parameters{instance}."
)
# Trainings and searches are as short as possible: the checks do not judge their results.
_SHORT = {
    "max_epochs": 1,
    "amplifier_max_epochs": 1,
    "n_trials": 3,
    "n_calls": 2,
    "n_layers": 1,
    "check_leakage": False,
    "random_state": 0,
    "verbose": 0,
}
# Small values for instances that the checks make. An instance of the user keeps its own values.
_SMALL = {"n_units": 8, "patch_size": 4, "stride": 2}


class PatchNetwork(nn.Module):
    """A network for the parameter ``region_classifier``, for patches of any size."""

    def __init__(self, n_channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(n_channels, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(4, 2)

    def forward(self, patches, positions):
        return self.head(self.layers(patches))


def _classifier_network() -> nn.Module:
    return nn.Sequential(nn.Linear(_N_FEATURES, 8), nn.ReLU(), nn.Linear(8, 1))


def _encoder_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


# Parameters that take a network, and a function that makes a suitable one.
_NETWORKS = {
    "estimator": _classifier_network,
    "encoder": _encoder_network,
    "region_classifier": lambda: PatchNetwork(3),
}


def make_network(parameter: str) -> nn.Module:
    """Make a small network for this parameter, with the same weights at each call."""
    with seeded(0):
        return _NETWORKS[parameter]()


@dataclass(frozen=True)
class Case:
    """An estimator and data to fit it on.

    Attributes
    ----------
    estimator : object
        Not fitted, with parameters for a short training.
    X : ndarray of shape (n_samples, ...)
        Rows of features or images, channels first.
    y : ndarray of shape (n_samples,), int64
        Classes.
    fit_params : dict
        Other arguments of ``fit``: ``sensitive_features``, if ``fit`` takes them.
    image_shape : tuple of three int or None
        Shape of an image in `X`, if the estimator has a parameter of this name.
    """

    estimator: Any
    X: np.ndarray
    y: np.ndarray
    fit_params: dict
    image_shape: tuple[int, int, int] | None = None

    @property
    def groups(self) -> np.ndarray:
        """The group labels of ``fit_params``."""
        return self.fit_params["sensitive_features"]

    def with_parameters(self, **parameters: Any) -> "Case":
        """Return a case with the same data and with other parameters of the estimator."""
        return replace(self, estimator=clone(self.estimator).set_params(**parameters))

    def fit(self, X: Any = None, y: Any = None, **fit_params: Any) -> Any:
        """Fit a clone: on X and y, or on the data of the case if they are None."""
        return fit_on(clone(self.estimator), self, X=X, y=y, **fit_params)


def fit_on(estimator: Any, case: Case, X: Any = None, y: Any = None, **fit_params: Any) -> Any:
    """Fit this estimator itself, not a clone: on X and y, or on the data of the case."""
    try:
        fitted = estimator.fit(
            case.X if X is None else X,
            case.y if y is None else y,
            **{**case.fit_params, **fit_params},
        )
    except Exception as error:
        if X is None:
            images = has_parameters(estimator, "image_shape")
            instance = ", for instance with image_shape=(3, 32, 32)" if images else ""
            error.add_note(
                _SHAPE_OF_X.format(shape=case.X.shape, dtype=case.X.dtype, instance=instance)
            )
        raise
    assert fitted is estimator, (
        f"fit of {type(estimator).__name__} returns {fitted!r}. It must return self."
    )
    return fitted


def small_instance(estimator_class: type) -> Any:
    """Make an instance that is quick to fit.

    Parameters
    ----------
    estimator_class : type
        The class. Each parameter without a default must take a network.

    Returns
    -------
    object
    """
    parameters = inspect.signature(estimator_class).parameters
    required = {name for name, p in parameters.items() if p.default is p.empty}
    if unknown := required - set(_NETWORKS):
        raise TypeError(
            f"{estimator_class.__name__} needs the parameters {sorted(unknown)}, and the checks "
            "know no value for them. Make an instance yourself, and pass the instance."
        )
    return estimator_class(
        **{name: make_network(name) for name in required},
        **{name: value for name, value in (_SHORT | _SMALL).items() if name in parameters},
    )


def make_case(estimator: BaseEstimator) -> Case:
    """Make a clone that is quick to fit, and data for it.

    Parameters
    ----------
    estimator : object
        The estimator of the user. It is not changed.

    Returns
    -------
    Case
    """
    parameters = estimator.get_params(deep=False)
    estimator = clone(estimator).set_params(
        **{name: value for name, value in _SHORT.items() if name in parameters}
    )
    shape = _sample_shape(parameters)
    multi_class = is_classifier(estimator) and get_tags(estimator).classifier_tags.multi_class
    # A given network has a fixed number of outputs: one per class, or one for two classes.
    multi_class = multi_class and "estimator" not in parameters
    y = np.arange(_N_SAMPLES) % (3 if multi_class else 2)
    group = np.arange(_N_SAMPLES) // 6 % 2
    X = _draw(shape, y, group, eight_bit="image_shape" in parameters and len(shape) == 3)
    if X.dtype == np.float32 and not has_network(estimator):
        X = X.astype(np.float64)  # scikit-learn's estimators return float32 for float32
    if parameters.get("image_shape") is not None:
        X = X.reshape(_N_SAMPLES, -1)
    fit_params = {}
    if takes_groups(estimator):
        fit_params["sensitive_features"] = np.array(["f", "m"])[group]
    image_shape = shape if "image_shape" in parameters and len(shape) == 3 else None
    return Case(estimator, X, y, fit_params, image_shape)


def _sample_shape(parameters: dict[str, Any]) -> tuple[int, ...]:
    """Return the shape of a sample that an estimator with these parameters takes."""
    own = next(
        (_input_shape(find_module(parameters[n])) for n in _NETWORKS if n in parameters), None
    )
    if "image_shape" not in parameters:
        return own or (_N_FEATURES,)
    patches = "patch_size" in parameters
    side = parameters["patch_size"] + 4 * parameters["stride"] if patches else _SIDE
    if parameters["image_shape"] is not None:
        return tuple(side if size == -1 else size for size in parameters["image_shape"])
    if own and len(own) == 1 and not patches:
        return own
    return own[0] if own and len(own) == 3 else 3, side, side


def _input_shape(module: nn.Module | None) -> tuple[int, ...] | None:
    """Return the shape of a sample, from the first layer with a known input width."""
    for layer in module.modules() if module is not None else ():
        if n_channels := getattr(layer, "in_channels", 0):
            return n_channels, _SIDE, _SIDE
        if n_features := getattr(layer, "in_features", 0):
            return (n_features,)
    return None


def _draw(shape: tuple[int, ...], y: np.ndarray, group: np.ndarray, eight_bit: bool) -> np.ndarray:
    """Draw samples whose values depend on both the class and the group."""
    rng = np.random.default_rng(0)
    if eight_bit:
        X = rng.integers(0, 128, size=(len(y), *shape), dtype=np.uint8)
        third = shape[1] // 3 + 1, shape[2] // 3 + 1
        X[group == 1, :, : third[0], : third[1]] += 100
        X[:, :, -1] += (40 * y[:, None, None]).astype(np.uint8)
        return X
    X = rng.normal(size=(len(y), *shape)).astype(np.float32)
    flat = X.reshape(len(y), -1)
    flat[:, 0] += 2 * y
    flat[:, -1] += 2 * group
    return X


# Properties of an estimator that decide which checks run ------------------------------------


def find_module(value: Any) -> nn.Module | None:
    """Return the module in a parameter value, whatever its container; None if there is none."""
    if isinstance(value, FrozenEstimator):
        value = value.estimator
    if isinstance(value, nn.Module):
        return value
    module = getattr(value, "module_", None)
    return module if isinstance(module, nn.Module) else None


def takes_groups(estimator: Any) -> bool:
    """Whether ``fit`` takes ``sensitive_features``."""
    return "sensitive_features" in inspect.signature(estimator.fit).parameters


def has_parameters(estimator: Any, *names: str) -> bool:
    """Whether the constructor takes all these parameters."""
    return set(names) <= set(estimator.get_params(deep=False))


def takes_images(estimator: Any) -> bool:
    """Whether the estimator takes images in all their forms, and their shape is known."""
    return has_parameters(estimator, "image_shape", "data_format") and (
        len(_sample_shape(estimator.get_params(deep=False))) == 3
    )


def has_network(estimator: Any) -> bool:
    """Whether the estimator takes a network or trains one."""
    return bool(network_parameters(estimator)) or isinstance(estimator, TorchEstimator)


def network_parameters(estimator: Any) -> list[str]:
    """List the parameters that hold a torch module, or that take one of the networks above."""
    constraints = getattr(estimator, "_parameter_constraints", {})
    return [
        name
        for name, value in estimator.get_params(deep=False).items()
        if find_module(value) is not None
        or (name in _NETWORKS and nn.Module in constraints.get(name, ()))
    ]


def memory_parameters(estimator: Any) -> list[str]:
    """List the parameters that only limit memory.

    If the estimator trains nothing, ``batch_size`` only limits memory. If it trains, only a
    parameter such as ``predict_batch_size`` does.
    """
    trains = has_parameters(estimator, "max_epochs")
    return [
        name
        for name in estimator.get_params(deep=False)
        if name.endswith("_batch_size") or (name == "batch_size" and not trains)
    ]
