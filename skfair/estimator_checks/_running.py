"""Running an estimator and looking at it: outputs, comparisons, and what a fit set going."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import get_tags
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

PREDICTIONS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


def output_methods(estimator: Any) -> list[str]:
    """Names of the public methods that need rows and nothing else, ``transform`` for instance."""
    names = []
    for name in dir(type(estimator)):
        if name.startswith(("_", "fit", "set_", "score")) or name == "inverse_transform":
            continue
        method = getattr(estimator, name, None)  # some exist under some parameters only
        if not inspect.ismethod(method):
            continue
        needed = [
            p.name
            for p in inspect.signature(method).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        if needed == ["X"]:
            names.append(name)
    return names


def outputs(estimator: Any, X: Any) -> dict[str, Any]:
    """What all these methods return for X."""
    return {name: getattr(estimator, name)(X) for name in output_methods(estimator)}


def row_methods(estimator: Any, X: np.ndarray) -> list[str]:
    """Names of the methods that treat each row by itself.

    Predictions do. Another method need not where the estimator is tagged as not deterministic
    and the method adds noise to each row of an array, so that twice the same row is two things.
    Lists with an entry for each row, which may be of any length, are left out: they are no arrays
    whose rows could be compared.
    """
    twice, once = outputs(estimator, X[[0, 0]]), outputs(estimator, X[:1])
    names = [
        name
        for name, value in twice.items()
        if not (isinstance(value, list) and (len(value), len(once[name])) == (2, 1))
    ]
    if get_tags(estimator).non_deterministic:
        names = [
            name
            for name in names
            if name in PREDICTIONS or all(np.array_equal(*part) for part in as_parts(twice[name]))
        ]
    return names


def as_parts(value: Any) -> list[np.ndarray]:
    """An output as a list of arrays, of which most have one."""
    return [np.asarray(part) for part in value] if isinstance(value, list) else [np.asarray(value)]


def fitted_attributes(estimator: Any) -> dict[str, Any]:
    """The public attributes that a fit has set."""
    return {
        name: value
        for name, value in sorted(vars(estimator).items())
        if name.endswith("_") and not name.startswith("_")
    }


def assert_identical(one: Any, two: Any, what: str, seen: dict | None = None) -> None:
    """Compare to the last bit, whatever it is.

    `seen` holds the pairs of objects that are being compared, as they may refer to each other.
    """
    seen = {} if seen is None else seen
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):  # or one of a memory map
        assert one.dtype == two.dtype, f"{what} is {one.dtype} and {two.dtype}."
        if one.dtype == object:  # of which NumPy asks only whether they are equal
            one, two = one.tolist(), two.tolist()
            assert_identical(one, two, what, seen)
            return
        np.testing.assert_array_equal(one, two, err_msg=f"{what} differs.")
        return
    assert type(one) is type(two), f"{what} is a {type(one).__name__} and a {type(two).__name__}."
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), f"{what} differs."
    elif isinstance(one, nn.Module):
        assert_identical(dict(one.state_dict()), dict(two.state_dict()), what, seen)
    elif isinstance(one, pd.DataFrame | pd.Series):
        assert one.equals(two), f"{what} differs:\n{one}\n{two}"
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), f"{what} has the keys {list(one)} and {list(two)}."
        for key in one:
            assert_identical(one[key], two[key], f"{what}[{key!r}]", seen)
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), f"{what} has {len(one)} and {len(two)} elements."
        for i, pair in enumerate(zip(one, two, strict=True)):
            assert_identical(*pair, f"{what}[{i}]", seen)
    elif not _are_equal(one, two) and (id(one), id(two)) not in seen:
        seen[id(one), id(two)] = one, two  # kept, so that no other gets their ids
        states = _state(one), _state(two)
        assert None not in states, f"{what} is {one!r} and {two!r}."
        assert_identical(*states, what, seen)


def _are_equal(one: Any, two: Any) -> bool:
    """Whether they say so themselves; an array of answers says nothing."""
    try:
        return one is two or bool(one == two) or bool(one != one and two != two)
    except Exception:
        return False


def _state(value: Any) -> dict | None:
    """What an object consists of, as a pickle of it would hold; None where `==` says it all."""
    if type(value).__eq__ is not object.__eq__ and not hasattr(value, "__dict__"):
        return None  # a number, for instance
    try:
        reduced = value.__reduce_ex__(2)
    except Exception:  # it cannot be pickled, a lock for instance
        return None
    if isinstance(reduced, str):  # something by its name
        return None
    made, arguments, state, elements, items = [*reduced, None, None, None][:5]
    return {
        "made by": (made, arguments),
        "attributes": state,
        "elements": list(elements or ()),
        "items": list(items or ()),
    }


def assert_same_fit(one: Any, two: Any, X: Any) -> None:
    """Two fits gave the same, to the last bit: all outputs for X and all fitted attributes."""
    assert_identical(outputs(one, X), outputs(two, X), "outputs")
    assert_identical(fitted_attributes(one), fitted_attributes(two), "fitted attributes")


def assert_close(one: Any, two: Any, what: str, *, single: bool) -> None:
    """Two outputs agree as well as two batches do.

    What is no float has to be the same. Features are predicted from in float64; `single` says
    that it may have been single precision, as for images.
    """
    for first, second in zip(as_parts(one), as_parts(two), strict=True):
        if first.dtype.kind != "f":
            np.testing.assert_array_equal(first, second, err_msg=what)
            continue
        tolerance = 1e-4 if single or first.dtype != np.float64 else 1e-10
        np.testing.assert_allclose(first, second, rtol=tolerance, atol=tolerance, err_msg=what)


def assert_unchanged(before: dict[str, Any], estimator: Any, what: str) -> None:
    """The attributes of an estimator are the very objects that they were."""
    after = vars(estimator)
    changed = [key for key in {**before, **after} if before.get(key) is not after.get(key)]
    assert not changed, f"{what} changes {changed}."


class Stopped(Exception):
    """Raised in the middle of a fit, to see what it leaves behind."""


@contextmanager
def module_calls(on_call: Callable[[int], None] = lambda n: None) -> Iterator[list[nn.Module]]:
    """Write down each torch module that runs in the block; `on_call` gets its number."""
    called = []

    def note(module, inputs):
        called.append(module)
        on_call(len(called))

    handle = register_module_forward_pre_hook(note)
    try:
        yield called
    finally:
        handle.remove()


def network_state(module: nn.Module) -> dict[str, Any]:
    """Everything about a network that somebody could change."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "weights": {key: value.clone() for key, value in module.state_dict().items()},
        "devices": [str(value.device) for value in module.state_dict().values()],
        "identity": [id(value) for value in (*module.parameters(), *module.buffers())],
        "training": [part.training for part in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "gradients": [p.grad is None for p in module.parameters()],
        "hooks": [len(getattr(part, name)) for part in module.modules() for name in hooks],
    }
