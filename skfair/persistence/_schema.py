"""Saved estimators: checking values against the table, and finding classes by name."""

import importlib
import math
from typing import Any

import numpy as np
import pandas as pd
import skorch
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from torch import nn

from skfair.discovery import all_estimators
from skfair.persistence._table import SIDE, TABLE
from skfair.persistence._values import DEVICE
from skfair.utils._shown import shown

_LARGEST_SAMPLE = 1 << 26  # numbers
_LONGEST = 10_000  # characters of a text, entries of a tuple
# Characters of a label, since every prediction holds one; values of a tuple, one per column.
_LONGEST_LABEL, _LONGEST_TUPLE = 1000, 32
_LARGEST_INT = 1 << 53
_MOST_ENTRIES, _MOST_STEPS = 1000, 100  # entries of a parameter; steps of a pipeline
_MANY_OBJECTS = 1000  # more numbers could be chosen to collide in a set, which takes long
# To show a pipeline or to set its parameters, scikit-learn takes time that doubles with each level.
_DEEPEST, _MOST_ESTIMATORS = 6, 100
_MODULES = {"DigitsEncoder": "skfair.datasets"}


def check_state(estimator: BaseEstimator, state: dict[str, Any]) -> None:
    """Check fitted state against the table. Empty state means that the estimator is not fitted."""
    name = class_name(type(estimator))
    if state:
        rows, relation = TABLE.get(name) or TABLE["skfair.*Debiaser"]
        sizes: dict[str, int] = {}
        _check_entries(state, rows, sizes, f"{type(estimator).__name__}: the attribute")
        if relation is not None and not relation(estimator, state, sizes):
            raise ValueError(
                f"{type(estimator).__name__}: its attributes must satisfy: {relation.__doc__}"
            )


def check_parameters(estimator: Any) -> None:
    """Refuse parameters that the class does not accept, or that no user would set."""
    parameters = estimator.get_params(deep=False)
    for name, value in parameters.items():
        try:
            _count_entries(value)
        except ValueError as error:
            raise ValueError(f"the parameter {name} {error}") from error
    if hasattr(estimator, "_parameter_constraints"):
        estimator._validate_params()
    if isinstance(estimator, Pipeline):
        names = [name for name, _ in estimator.steps]
        if len(names) > _MOST_STEPS or not all(type(name) is str for name in names):
            raise ValueError(f"a pipeline has more than {_MOST_STEPS} steps, or names of no text")
        estimator._validate_steps()
    if isinstance(estimator, FrozenEstimator):
        fits = isinstance(estimator.estimator, BaseEstimator | nn.Module | skorch.NeuralNet)
        _require(fits, estimator.estimator, "an estimator")
    device = parameters.get("device", "auto")
    if isinstance(device, str) and device != "auto" and not DEVICE.fullmatch(device):
        raise ValueError(f"device={shown(device)} is not a device for a model")
    if parameters.get("image_shape") is not None:
        _check_sample_shape(tuple(max(0, side) for side in parameters["image_shape"]))


def _check_sample_shape(shape: Any) -> None:
    """Refuse a shape of a sample that takes more memory than any real sample."""
    _check(shape, "sample shape", {})


def _count_entries(value: Any, depth: int = 0) -> int:
    """Count the entries of a parameter, and refuse values that would take long to show."""
    _require(depth < 4, value, "lists in lists")
    if isinstance(value, dict | list | tuple):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        n_entries = len(items)
        _require(n_entries <= _MOST_ENTRIES, n_entries, f"at most {_MOST_ENTRIES} entries")
        n_entries += sum(_count_entries(item, depth + 1) for item in items)
        _require(n_entries <= _MOST_ENTRIES, n_entries, f"at most {_MOST_ENTRIES} entries")
        return n_entries
    if isinstance(value, np.ndarray):
        fits = value.dtype.kind in "biuf" and value.size <= _MOST_ENTRIES
    elif type(value) is str:
        fits = len(value) <= _LONGEST
    elif isinstance(value, int):
        fits = abs(value) < 1 << 63
    else:
        fits = not isinstance(value, pd.DataFrame | torch.Tensor)
    _require(fits, type(value), "such a parameter")
    return 0


def check_labels(labels: Any) -> None:
    """Refuse everything but labels of classes and None."""
    _check(labels, ("either", ("one of", None), ("labels", "_")), {})


def check_nesting(written: Any) -> None:
    """Refuse too many estimators, or too deep nesting, before any estimator is made."""
    n_estimators, left = 0, [(written, 0)]
    while left:
        part, depth = left.pop()
        if isinstance(part, dict) and "parameters" in part:
            n_estimators, depth = n_estimators + 1, depth + 1
        if n_estimators > _MOST_ESTIMATORS or depth > _DEEPEST:
            raise ValueError(
                f"The model has more than {_MOST_ESTIMATORS} estimators, or more than {_DEEPEST} "
                "levels of nested estimators."
            )
        inner = part.values() if isinstance(part, dict) else part
        left += [(item, depth) for item in inner if isinstance(item, dict | list)]


# -- the vocabulary of the table ---------------------------------------------------------------


def _check(value: Any, wanted: Any, sizes: dict[str, int]) -> None:
    """Check a value against its entry in the table. `sizes` maps names in shapes to numbers."""
    match (wanted,) if isinstance(wanted, str) else wanted:
        case ("number" | "whole" as word, low, high, *name):
            kinds = (int, np.integer, *((float, np.floating) if word == "number" else ()))
            _require(isinstance(value, kinds) and type(value) is not bool, value, word)
            _require(not isinstance(value, int) or abs(value) <= _LARGEST_INT, word, "so large")
            _require(low <= value <= high, value, f"from {low:.3g} to {high:.3g}")
            for one in name:
                _match((int(value),), one, sizes)
        case ("undefined",):
            _require(isinstance(value, float | np.floating) and math.isnan(value), value, "NaN")
        case ("truth",):
            _require(type(value) is bool, value, "a truth value")
        case ("text", *options):
            _require(type(value) is str and len(value) <= _LONGEST, value, "a text")
            _require(not options or value in options, value, f"one of {options}")
        case ("one of", *options):
            fits = any(type(value) is type(one) and value == one for one in options)
            _require(fits, value, f"one of {options}")
        case ("either", *words):
            _check_either(value, words, sizes)
        case ("array", kinds, shape, low, high, *or_nan):
            _require(type(value) is np.ndarray and value.dtype.kind in kinds, value, "an array")
            _match(value.shape, shape, sizes)
            known = value[~np.isnan(value).all(axis=1)] if or_nan else value
            high = sizes[high] - 1 if isinstance(high, str) else high
            inside = bool(((known >= low) & (known <= high)).all())
            _require(inside, value, f"numbers from {low:.3g} to {high:.3g}")
        case ("measured", shape):  # no code computes with it, so any values are safe
            _require(type(value) is np.ndarray and value.dtype.kind == "f", value, "an array")
            _match(value.shape, shape, sizes)
        case ("tensor", shape, low, high):
            kinds = (torch.float32, torch.float64)
            _require(type(value) is torch.Tensor and value.dtype in kinds, value, "a tensor")
            _check(value.double().numpy(), ("array", "f", shape, low, high), sizes)
        case ("labels" | "names" as word, shape):
            _check_labels(value, word, shape, sizes)
        case ("tuple", *each):
            _require(type(value) is tuple and len(value) == len(each), value, f"{len(each)} values")
            for item, one in zip(value, each, strict=True):
                _check(item, one, sizes)
            if each[0][0] == "whole":  # the shape of an image
                _check_sample_shape(value)
        case ("all", kind, each, shape):
            _require(type(value) is kind and len(value) <= _LONGEST, value, f"a {kind.__name__}")
            _match((len(value),), shape, sizes)
            for item in value:
                _check(item, each, sizes)
        case ("sample shape",):
            _check(value, ("all", tuple, ("whole", 0, SIDE), "_"), sizes)
            fits = 1 <= len(value) <= 8 and math.prod(value) <= _LARGEST_SAMPLE
            _require(fits, value, f"a shape of at most {_LARGEST_SAMPLE} numbers")
        case ("dict", entries):
            _require(type(value) is dict, value, "a dict")
            _check_entries(value, entries, sizes, "the key")
        case ("by name", each):
            _require(type(value) is dict and all(type(k) is str for k in value), value, "by name")
            for item in value.values():
                _check(item, each, sizes)
        case ("weights",):  # the network compares them with its own weights
            fits = type(value) is dict and all(isinstance(w, torch.Tensor) for w in value.values())
            _require(fits, value, "the state of a network")
        case ("table", index, columns, shape):
            _check_table(value, index, columns)
            _match((len(value),), shape, sizes)


def _require(fits: bool, value: Any, wanted: str) -> None:
    if not fits:
        plain = value is None or isinstance(value, bool | int | float | str)
        raise ValueError(f"is {shown(value) if plain else type(value).__name__}, not {wanted}")


def _check_either(value: Any, words: list, sizes: dict[str, int]) -> None:
    reasons = []
    for word in words:
        found = dict(sizes)
        try:
            _check(value, word, found)
        except ValueError as error:
            reasons.append(str(error))
        else:
            sizes.update(found)
            return
    raise ValueError(", and ".join(reasons))


def _check_labels(value: Any, word: str, shape: str, sizes: dict[str, int]) -> None:
    kinds = "O" if word == "names" else "biufUO"
    _require(type(value) is np.ndarray and value.dtype.kind in kinds, value, f"an array of {word}")
    _match(value.shape, shape, sizes)
    items = value.tolist() if value.dtype.kind in "OUf" else []
    only_text = all(type(item) is str for item in items)
    plain = only_text or value.dtype.kind == "f"
    fits = all(map(_is_label, items)) and (plain or len(items) <= _MANY_OBJECTS)
    _require(fits and (only_text or word == "labels"), value, f"{word} of the usual types")
    n_different = len(set(items)) if value.dtype.kind in "OU" else len(np.unique(value))
    _require(0 < n_different == len(value) or word == "names", value, "labels, each of them once")


def _is_label(item: Any) -> bool:
    if type(item) is tuple:
        return len(item) <= _LONGEST_TUPLE and all(map(_is_label, item))
    if isinstance(item, str):
        return len(item) <= _LONGEST_LABEL
    if isinstance(item, float):
        return math.isfinite(item)
    return item is None or isinstance(item, bool | int | np.generic)


def _check_table(value: Any, index: str, columns: dict[str, str]) -> None:
    _require(type(value) is pd.DataFrame and value.index.name == index, value, f"by {index}")
    for name, column in value.items():
        kind = columns.get(name)
        if kind == "O":
            fits = all(type(item) is str for item in column[column.notna()].tolist())
        else:
            fits = isinstance(column.dtype, np.dtype) and column.dtype.kind in (kind or "")
        _require(fits, name, f"one of the columns {list(columns)}, or of another type")


def _match(found: tuple[int, ...], shape: str, sizes: dict[str, int]) -> None:
    wanted = shape.split()
    _require(len(found) == len(wanted), len(found), f"of {len(wanted)} dimensions")
    for length, name in zip(found, wanted, strict=True):
        if name != "_":
            due = int(name) if name.isdigit() else sizes.setdefault(name, length)
            _require(length == due, length, f"{due}, as in other attributes")


def _check_entries(found: dict, wanted: dict[str, Any], sizes: dict[str, int], what: str) -> None:
    # In the order of the table: a size gets its number before indices are compared with it.
    for name, words in wanted.items():
        optional = words[0] == "maybe"
        if name in found:
            try:
                _check(found[name], words[1] if optional else words, sizes)
            except ValueError as error:
                raise ValueError(f"{what} {name} {error}") from error
        elif not optional:
            raise ValueError(f"{what} {name} is missing")
    if unknown := [name for name in found if name not in wanted]:
        raise ValueError(f"{what} {shown(unknown[0])} does not exist in such an estimator")


# -- classes by name ---------------------------------------------------------------------------


def sklearn_classes() -> list[str]:
    """List the estimators of scikit-learn that can be saved, as ``module.Name``."""
    return [name for name in TABLE if name.startswith("sklearn.")]


def estimator_class(name: Any) -> type[Any] | None:
    """Find the class of an estimator by name; None for a class that is not in the table."""
    if not isinstance(name, str):
        return None
    module, _, short = name.rpartition(".")
    if module == "skfair":
        return dict(all_estimators()).get(short)
    return getattr(importlib.import_module(module), short) if name in sklearn_classes() else None


def class_name(cls: type) -> str:
    """Name a class by the package from which users import it: "skfair.Name" for our classes."""
    parts = cls.__module__.split(".")
    n_parts = {"skfair": 1, "sklearn": 2}.get(parts[0], len(parts))
    return ".".join([*parts[:n_parts], cls.__qualname__])


def module_class(name: Any) -> type[nn.Module] | None:
    """Find a network class of skfair that takes no arguments; None for any other name."""
    if isinstance(name, str) and name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    return None


def module_name(module: nn.Module) -> str | None:
    """Return the name of the class of such a network; None for any other network."""
    name = type(module).__name__
    return name if module_class(name) is type(module) else None
