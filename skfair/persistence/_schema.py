"""Saved estimators: the classes that a file may name, and what each of them has, in one table.

An attribute that is not in the table is neither written nor read; one that is has the type, the
shape and the range that the table says. Letters in a shape stand for a number that is the same
wherever the letter stands in one estimator: that compiled code never leaves an array follows
from relations between attributes, and not from each of them alone.

The list of classes of scikit-learn is short on purpose. Trees, kernel machines and encoders of
categories hold tables that compiled code follows without looking.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from torch import nn

from skfair.utils._discovery import all_estimators
from skfair.utils._shown import shown

Check = Callable[[Any, dict[str, int]], None]
_LARGE = 1e30  # of what is multiplied and divided, so that the result is finite
_LARGEST_SAMPLE = 1 << 26  # numbers in one sample
_LONGEST_TEXT = 10_000
_MANY_OBJECTS = 1000  # numbers can be made to meet in a set
# scikit-learn takes time that doubles with each level, to show a pipeline or to set its parameters.
_DEEPEST, _MOST_ESTIMATORS = 6, 100


# -- kinds of values ---------------------------------------------------------------------------


def number(
    low: float = -_LARGE,
    high: float = _LARGE,
    *,
    whole: bool = False,
    name: str | None = None,
    undefined: bool = False,
) -> Check:
    """A number between bounds; with `name` the one for which this letter stands."""

    def check(value: Any, sizes: dict[str, int]) -> None:
        kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"is a {type(value).__name__}, not a number")
        if math.isnan(value) and undefined:
            return
        if not low <= value <= high:
            raise ValueError(f"is {value:.3g}, not from {low:.3g} to {high:.3g}")
        if name is not None:
            _bind(sizes, name, int(value))

    return check


count = partial(number, 0, whole=True)
size = partial(number, 1, whole=True)


def truth(value: Any, sizes: dict[str, int]) -> None:
    if type(value) is not bool:
        raise ValueError(f"is a {type(value).__name__}, not a truth value")


def text(*options: str) -> Check:
    """One of some texts; any one without them."""

    def check(value: Any, sizes: dict[str, int]) -> None:
        if type(value) is not str or len(value) > _LONGEST_TEXT:
            raise ValueError(f"is a {type(value).__name__}, not a short text")
        if options and value not in options:
            raise ValueError(f"is {shown(value)}, not one of {options}")

    return check


def nothing(value: Any, sizes: dict[str, int]) -> None:
    if value is not None:
        raise ValueError(f"is a {type(value).__name__}, not None")


def either(*checks: Check) -> Check:
    def check(value: Any, sizes: dict[str, int]) -> None:
        reasons = []
        for one in checks:
            found = dict(sizes)
            try:
                one(value, found)
            except ValueError as error:
                reasons.append(str(error))
            else:
                sizes.update(found)
                return
        raise ValueError(" or ".join(reasons))

    return check


def array(
    shape: str,
    kinds: str = "f",
    low: float = -_LARGE,
    high: float | str = _LARGE,
    *,
    undefined: bool = False,
) -> Check:
    """An array of numbers; where `high` is a letter, of indices below that number.

    With `undefined` whole rows may be NaN.
    """

    def check(value: Any, sizes: dict[str, int]) -> None:
        if type(value) is not np.ndarray or value.dtype.kind not in kinds:
            raise ValueError(f"is no array of the kinds {kinds!r}")
        _match(value.shape, shape, sizes)
        rows = value
        if undefined and value.ndim == 2:
            rows = value[~np.isnan(value).all(axis=1)]
        most = sizes[high] - 1 if isinstance(high, str) else high
        if rows.size and not bool(((rows >= low) & (rows <= most)).all()):
            raise ValueError(f"has entries that are not from {low:.3g} to {most:.3g}")

    return check


def tensor(shape: str, low: float = -_LARGE) -> Check:
    def check(value: Any, sizes: dict[str, int]) -> None:
        if type(value) is not torch.Tensor or value.dtype not in (torch.float32, torch.float64):
            raise ValueError("is no tensor of floating numbers")
        array(shape, low=low)(value.numpy(), sizes)

    return check


def weights(value: Any, sizes: dict[str, int]) -> None:
    """State of a network, which compares names, shapes and types with its own."""
    if not isinstance(value, dict) or not value:
        raise ValueError("is no state of a network")
    for name, weight in value.items():
        if type(name) is not str or not isinstance(weight, torch.Tensor):
            raise ValueError("is no state of a network")


def labels(length: str) -> Check:
    """Different labels, in one array."""

    def check(value: Any, sizes: dict[str, int]) -> None:
        if type(value) is not np.ndarray or value.ndim != 1 or value.dtype.kind not in "biufUO":
            raise ValueError("is no array of labels")
        _match(value.shape, length, sizes)
        if value.dtype.kind == "O":
            items = value.tolist()
            if not all(map(_is_label, items)):
                raise ValueError("holds labels that are neither text nor numbers")
            if len(items) > _MANY_OBJECTS and not all(type(item) is str for item in items):
                raise ValueError(f"holds more than {_MANY_OBJECTS} labels of several types")
            n_different = len(set(items))
        else:
            n_different = len(np.unique(value))
        if n_different < len(value) or not len(value):
            raise ValueError("holds no labels, or one twice")

    return check


def names(length: str) -> Check:
    """Names of columns, an array of text."""

    def check(value: Any, sizes: dict[str, int]) -> None:
        if type(value) is not np.ndarray or value.ndim != 1 or value.dtype != object:
            raise ValueError("is no array of names")
        _match(value.shape, length, sizes)
        if not all(type(name) is str for name in value.tolist()):
            raise ValueError("holds names that are no text")

    return check


def sequence(kind: type, each: Check, length: str) -> Check:
    """A list or tuple of one kind of values."""

    def check(value: Any, sizes: dict[str, int]) -> None:
        if not isinstance(value, list | tuple) or type(value) is not kind:
            raise ValueError(f"is a {type(value).__name__}, not a {kind.__name__}")
        if len(value) > _LONGEST_TEXT:
            raise ValueError(f"has {len(value)} entries")
        _match((len(value),), length, sizes)
        for item in value:
            each(item, sizes)

    return check


def pack(*each: Check) -> Check:
    """A tuple with a check for each entry."""

    def check(value: Any, sizes: dict[str, int]) -> None:
        if type(value) is not tuple or len(value) != len(each):
            raise ValueError(f"is no tuple of {len(each)}")
        for item, one in zip(value, each, strict=True):
            one(item, sizes)

    return check


def mapping(**each: Check | tuple[Check]) -> Check:
    """A dict with these keys; those of ``maybe`` may be missing."""

    def check(value: Any, sizes: dict[str, int]) -> None:
        if type(value) is not dict:
            raise ValueError(f"is a {type(value).__name__}, not a dict")
        _check_entries(value, each, sizes, "the key")

    return check


def diagnostics(value: Any, sizes: dict[str, int]) -> None:
    """What was measured in a fit, by name: nothing computes with it."""
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise ValueError("is no dict by names")
    measured = either(number(undefined=True), truth, text(), nothing)
    for item in value.values():
        measured(item, sizes)


def table(index: str, *text_columns: str, length: str = "rows", **columns: str) -> Check:
    """A DataFrame of numbered rows, of some of these columns."""
    kinds = {**dict.fromkeys(text_columns, "O"), **columns}

    def check(value: Any, sizes: dict[str, int]) -> None:
        if type(value) is not pd.DataFrame or value.index.name != index:
            raise ValueError(f"is no table by {index!r}")
        _match((len(value),), length, sizes)
        for name, column in value.items():
            if name not in kinds:
                raise ValueError(f"has the column {shown(name)}")
            if name in text_columns:
                missing = column.isna()
                if not all(type(item) is str for item in column[~missing].tolist()):
                    raise ValueError(f"has the column {name!r}, which is no text")
            elif not isinstance(column.dtype, np.dtype) or column.dtype.kind not in kinds[name]:
                raise ValueError(f"has the column {name!r} as {column.dtype}")

    return check


def maybe(check: Check) -> tuple[Check]:
    """An attribute that need not be there."""
    return (check,)


def torch_type(value: Any, sizes: dict[str, int]) -> None:
    if value not in (torch.float32, torch.float64):
        raise ValueError(f"is {shown(value)}, not torch.float32 or torch.float64")


def image_type(value: Any, sizes: dict[str, int]) -> None:
    if not isinstance(value, np.dtype) or value not in (np.uint8, np.float32):
        raise ValueError(f"is {shown(value)}, not the type uint8 or float32")


def sample_shape(value: Any, sizes: dict[str, int]) -> None:
    sequence(tuple, count(1 << 16), "dimensions")(value, sizes)
    if not 1 <= len(value) <= 8 or math.prod(value) > _LARGEST_SAMPLE:
        raise ValueError(f"is a shape of more than {_LARGEST_SAMPLE} numbers, or of none")


def image_shape(value: Any, sizes: dict[str, int]) -> None:
    side = partial(size, 1 << 16)
    pack(side(name="channels"), side(name="height"), side(name="width"))(value, sizes)
    sample_shape(value, dict(sizes))


def _bind(sizes: dict[str, int], name: str, value: int) -> None:
    if sizes.setdefault(name, value) != value:
        raise ValueError(f"has {value} where other attributes have {sizes[name]}")


def _match(found: tuple[int, ...], shape: str, sizes: dict[str, int]) -> None:
    wanted = shape.split()
    if len(found) != len(wanted):
        raise ValueError(f"has {len(found)} dimensions, not {len(wanted)}")
    for length, name in zip(found, wanted, strict=True):
        if name.isdigit():
            if length != int(name):
                raise ValueError(f"has {length} entries, not {name}")
        elif name != "_":
            _bind(sizes, name, length)


def _is_label(item: Any) -> bool:
    if type(item) is tuple:
        return all(map(_is_label, item))
    return item is None or isinstance(item, str | bool | int | float | np.generic)


def _check_entries(
    found: Mapping[str, Any], wanted: Mapping[str, Any], sizes: dict[str, int], what: str
) -> None:
    # In the table's order: letters are bound before indices are compared with them.
    for name, check in wanted.items():
        optional = isinstance(check, tuple)
        if name in found:
            try:
                (check[0] if optional else check)(found[name], sizes)
            except ValueError as error:
                raise ValueError(f"{what} {name} {error}") from error
        elif not optional:
            raise ValueError(f"{what} {name} is missing")
    if unknown := [name for name in found if name not in wanted]:
        raise ValueError(f"{what} {shown(unknown[0])} is none that such an estimator has")


# -- relations that letters do not say ---------------------------------------------------------


def _of_margin(estimator: Any, state: dict, sizes: dict[str, int]) -> None:
    if ("_head" in state) != (state["loss_"] == "margin"):
        raise ValueError("loss_ is not that of module_")
    if "_head" in state and "margins_" not in state:
        raise ValueError("margins_ is missing")
    if "cluster_centers_" in state:
        width = "units" if estimator.cluster_on == "amplified" else "features"
        if sizes["space"] != sizes[width] or not {"amplifier_", "margins_"} <= state.keys():
            raise ValueError(
                "cluster_centers_ are not of the space that cluster_on names, or stand alone"
            )


def _of_debiaser(estimator: Any, state: dict, sizes: dict[str, int]) -> None:
    if sizes.get("features", state["_sample_shape"][0]) != state["_sample_shape"][0]:
        raise ValueError("_sample_shape is not that of n_features_in_ features")


def _of_masker(estimator: Any, state: dict, sizes: dict[str, int]) -> None:
    low, high = state["data_range_"]
    if not low <= high:
        raise ValueError("data_range_ ends before it begins")
    several = isinstance(state["classes_"], list)
    n_attributes = len(state["classes_"]) if several else 1
    if sizes["attributes"] != n_attributes or (state["mean_map_"].ndim == 3) != several:
        raise ValueError("classes_ are not those of as many attributes as there are maps")


def _of_featurizer(estimator: Any, state: dict, sizes: dict[str, int]) -> None:
    if state["image_shape_"] is None and "features" not in sizes:
        raise ValueError("image_shape_ and n_features_in_ are both missing")


def _of_scaler(estimator: Any, state: dict, sizes: dict[str, int]) -> None:
    standard = hasattr(estimator, "with_mean")
    centre, scale = ("mean_", "scale_") if standard else ("center_", "scale_")
    centred = estimator.with_mean if standard else estimator.with_centering
    scaled = estimator.with_std if standard else estimator.with_scaling
    if (centred and state[centre] is None) or (scaled and state[scale] is None):
        raise ValueError(f"{centre} or {scale} is None, which the parameters ask for")


def _of_min_max(estimator: Any, state: dict, sizes: dict[str, int]) -> None:
    low, high = estimator.feature_range
    number()(low, sizes)
    number()(high, sizes)
    if not low < high:
        raise ValueError("feature_range ends before it begins")


def _of_linear(estimator: Any, state: dict, sizes: dict[str, int]) -> None:
    n_rows = 1 if sizes["classes"] == 2 else sizes["classes"]
    if sizes["classes"] < 2 or sizes["rows"] != n_rows:
        raise ValueError("coef_ is not of as many rows as there are classes")


# -- the table ---------------------------------------------------------------------------------

_TINY = 1e-30
_COLUMNS = {
    "n_features_in_": maybe(size(name="features")),
    "feature_names_in_": maybe(names("features")),
}
_SCALED = array("features", low=_TINY)
_PER_FEATURE = array("features")
_BY_EPOCH = table("epoch", train_loss="f", length="epochs")
_ANY_EPOCHS = partial(table, "epoch", train_loss="f")
_NETWORK = mapping(
    module__n_features=size(name="features"),
    module__n_units=size(name="units"),
    module__mean=tensor("features"),
    module__spread=tensor("", low=_TINY),
)
_MARGIN = {
    **_COLUMNS,
    "n_features_in_": size(name="features"),
    "classes_": labels("classes"),
    "_network_parameters": _NETWORK,
    "loss_": text("margin", "cluster_weighted", "loss_weighted", "cross_entropy"),
    "history_": mapping(
        amplifier=maybe(_ANY_EPOCHS(length="amplified")), classifier=_ANY_EPOCHS(length="trained")
    ),
    "diagnostics_": diagnostics,
    "cluster_centers_": maybe(array("clusters space", undefined=True)),
    "_cluster_sizes": maybe(array("clusters", low=0)),
    "margins_": maybe(array("clusters classes", low=0, high=1)),
    "labels_": maybe(array("samples", "i", 0, "clusters")),
    "_hard": maybe(array("hard", "i", 0)),
    "_easy": maybe(array("easy", "i", 0)),
    "amplifier_": maybe(weights),
    "module_": weights,
    "_head": maybe(mapping(margin_std=number(0), scale=number(_TINY))),
}
_DEBIASER = {
    **_COLUMNS,
    "classes_": labels("2"),
    "_sample_shape": sample_shape,
    "_output": pack(text("logits", "probabilities"), number(1, 2, whole=True)),
    "interrupted_": truth,
    "history_": maybe(_BY_EPOCH),
    "module_": weights,
    "_dtype": torch_type,
    "threshold_": number(),
    "bias_": number(undefined=True),
    "bias_interval_": pack(number(undefined=True), number(undefined=True)),
    "performance_": number(undefined=True),
    "objective_": number(undefined=True),
    "feasible_": truth,
    "trials_": table(
        "trial",
        "candidate",
        "layer",
        length="trials",
        **dict.fromkeys(("epoch", "step", "threshold", "bias", "performance"), "f"),
        **dict.fromkeys(("probability", "objective"), "f"),
        feasible="b",
    ),
    "best_trial_": count(),
}
_MASKER = {
    **_COLUMNS,
    "image_shape_": image_shape,
    "input_dtype_": image_type,
    "data_range_": pack(number(), number()),
    "channel_mean_": array("channels"),
    "channel_std_": array("channels", low=_TINY),
    "attribute_names_": sequence(tuple, text(), "attributes"),
    "classes_": either(labels("classes"), sequence(list, labels("_"), "attributes")),
    "module_": weights,
    "temperature_": array("attributes", low=_TINY),
    "mean_map_": either(array("height width"), array("attributes height width")),
    "region_accuracy_": either(array("rows columns"), array("attributes rows columns")),
    "calibration_error_": number(undefined=True),
    "informative_": truth,
    "_network_parameters": mapping(
        patch_size=size(1 << 16),
        stride=size(1 << 16),
        position_embedding=truth,
        region_classifier=maybe(text("dense", "resnet18")),
    ),
}
_FEATURIZER = {
    **_COLUMNS,
    "image_shape_": either(nothing, image_shape),
    "input_dtype_": image_type,
    "n_features_out_": size(),
}
_PCA = {
    **_COLUMNS,
    "n_features_in_": size(name="features"),
    "n_samples_": count(),
    "n_components_": count(name="components"),
    "components_": array("components features"),
    "mean_": _PER_FEATURE,
    "explained_variance_": array("components", low=0),
    "explained_variance_ratio_": array("components", undefined=True),
    "singular_values_": array("components", low=0),
    "noise_variance_": number(undefined=True),
    "_fit_svd_solver": text(),
}
_LOGISTIC = {
    **_COLUMNS,
    "n_features_in_": size(name="features"),
    "classes_": labels("classes"),
    "coef_": array("rows features"),
    "intercept_": either(array("rows"), number()),
    "n_iter_": array("iterations", "iu", 0),
}
_SKLEARN: dict[str, tuple[dict[str, Any], Any]] = {
    "sklearn.decomposition.PCA": (_PCA, None),
    "sklearn.frozen.FrozenEstimator": ({}, None),
    "sklearn.linear_model.LogisticRegression": (_LOGISTIC, _of_linear),
    "sklearn.pipeline.Pipeline": ({}, None),
    "sklearn.preprocessing.MaxAbsScaler": (
        {
            **_COLUMNS,
            "n_samples_seen_": count(),
            "max_abs_": array("features", low=0),
            "scale_": _SCALED,
        },
        None,
    ),
    "sklearn.preprocessing.MinMaxScaler": (
        {
            **_COLUMNS,
            "n_samples_seen_": count(),
            **dict.fromkeys(("scale_", "min_", "data_min_", "data_max_"), _PER_FEATURE),
            "data_range_": array("features", low=0),
        },
        _of_min_max,
    ),
    "sklearn.preprocessing.Normalizer": (_COLUMNS, None),
    "sklearn.preprocessing.RobustScaler": (
        {
            **_COLUMNS,
            "center_": either(nothing, _PER_FEATURE),
            "scale_": either(nothing, _SCALED),
        },
        _of_scaler,
    ),
    "sklearn.preprocessing.StandardScaler": (
        {
            **_COLUMNS,
            "n_samples_seen_": either(number(0), array("features", "iuf", 0)),
            "mean_": either(nothing, _PER_FEATURE),
            "var_": either(nothing, array("features", low=0)),
            "scale_": either(nothing, _SCALED),
        },
        _of_scaler,
    ),
}
_SKFAIR = {
    "ClusterMarginClassifier": (_MARGIN, _of_margin),
    "FrozenEncoderFeaturizer": (_FEATURIZER, _of_featurizer),
    "PatchAttributionMasker": (_MASKER, _of_masker),
}
# What belongs to single rows of the training data.
TRAINING_ROWS = ("labels_", "_hard", "_easy")
_MODULES = {"DigitsEncoder": "skfair.datasets"}


def sklearn_classes() -> list[str]:
    """List the estimators of scikit-learn that can be saved, as ``module.Name``."""
    return list(_SKLEARN)


def estimator_class(name: Any) -> type[Any] | None:
    """Find the class of an estimator by its name; None for any that is not in the table."""
    if not isinstance(name, str):
        return None
    module, _, short = name.rpartition(".")
    if module == "skfair":
        return dict(all_estimators()).get(short)
    return getattr(importlib.import_module(module), short) if name in _SKLEARN else None


def class_name(cls: type) -> str:
    """Name a class by the package from which users import it.

    Parameters
    ----------
    cls : type

    Returns
    -------
    str
        "skfair.Name", "sklearn.module.Name" or, for all others, where it was defined.
    """
    parts = cls.__module__.split(".")
    n_parts = {"skfair": 1, "sklearn": 2}.get(parts[0], len(parts))
    return ".".join([*parts[:n_parts], cls.__qualname__])


def module_class(name: Any) -> type[nn.Module] | None:
    """Find a network class of skfair that is made without arguments; None for any other name."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    return None


def module_name(module: nn.Module) -> str | None:
    """Name a network of such a class; None for any other."""
    name = type(module).__name__
    return name if module_class(name) is type(module) else None


def check_nesting(written: Any) -> None:
    """Count the estimators in the JSON of one, before any is made.

    Raises
    ------
    ValueError
        There are too many, or too many in one another.
    """
    n_estimators, left = 0, [(written, 0)]
    while left:
        part, depth = left.pop()
        if isinstance(part, dict) and "parameters" in part:
            n_estimators, depth = n_estimators + 1, depth + 1
        if n_estimators > _MOST_ESTIMATORS or depth > _DEEPEST:
            raise ValueError(
                f"The model has more than {_MOST_ESTIMATORS} estimators, or more than {_DEEPEST} "
                "in one another."
            )
        if isinstance(part, dict | list):
            inner = part.values() if isinstance(part, dict) else part
            left += [(item, depth) for item in inner if isinstance(item, dict | list)]


def check_state(estimator: BaseEstimator, state: dict[str, Any]) -> None:
    """Hold fitted state against the table.

    Parameters
    ----------
    estimator : estimator
        Of a class in the table, with its parameters.
    state : dict of str to object
        What it has beyond them; empty where it is not fitted.

    Raises
    ------
    ValueError
        The message says which attribute is not as it has to be.
    """
    if state:
        name = class_name(type(estimator))
        rows, relation = _SKLEARN.get(name) or _SKFAIR.get(
            name.rpartition(".")[2], (_DEBIASER, _of_debiaser)
        )
        sizes: dict[str, int] = {}
        _check_entries(state, rows, sizes, f"{type(estimator).__name__}: the attribute")
        if relation is not None:
            relation(estimator, state, sizes)
