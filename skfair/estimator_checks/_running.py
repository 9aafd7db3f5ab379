"""Running an estimator and comparing results: outputs, fitted attributes, module calls."""

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
    """List the public methods that need only X, for example ``transform``."""
    names = []
    for name in dir(type(estimator)):
        if name.startswith(("_", "fit", "set_", "score")) or name == "inverse_transform":
            continue
        method = getattr(estimator, name, None)  # some exist only for some parameter values
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
    """Call all these methods with X, and return their outputs by name."""
    return {name: getattr(estimator, name)(X) for name in output_methods(estimator)}


def row_methods(estimator: Any, X: np.ndarray) -> list[str]:
    """List the methods whose output for a row does not depend on the other rows.

    Predictions are always in the list. Another method is not, if the estimator is tagged as
    non-deterministic and the method adds different noise to two equal rows. Methods that return a
    list with one entry per row are not in the list either: the entries may have any length, so
    they are not comparable as arrays.
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
    """Return an output as a list of arrays. Most outputs are one array."""
    return [np.asarray(part) for part in value] if isinstance(value, list) else [np.asarray(value)]


def fitted_attributes(estimator: Any) -> dict[str, Any]:
    """Return the public attributes that a fit has set."""
    return {
        name: value
        for name, value in sorted(vars(estimator).items())
        if name.endswith("_") and not name.startswith("_")
    }


def assert_identical(one: Any, two: Any, what: str, seen: dict | None = None) -> None:
    """Compare two values of any type, to the last bit.

    `seen` holds the pairs of objects under comparison, because objects may refer to each other.
    """
    seen = {} if seen is None else seen
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):  # also memory maps
        assert one.dtype == two.dtype, f"{what} is {one.dtype} and {two.dtype}."
        if one.dtype == object:  # NumPy would compare the elements by == only
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
        seen[id(one), id(two)] = one, two  # a reference, so that no other object gets these ids
        states = _state(one), _state(two)
        assert None not in states, f"{what} is {one!r} and {two!r}."
        assert_identical(*states, what, seen)


def _are_equal(one: Any, two: Any) -> bool:
    """Whether both are equal by ``==``; False if ``==`` gives no single truth value."""
    try:
        return one is two or bool(one == two) or bool(one != one and two != two)
    except Exception:
        return False


def _state(value: Any) -> dict | None:
    """Return the state of an object, as its pickle would hold it; None if ``==`` is enough."""
    if type(value).__eq__ is not object.__eq__ and not hasattr(value, "__dict__"):
        return None  # a number, for instance
    try:
        reduced = value.__reduce_ex__(2)
    except Exception:  # it cannot be pickled, for example a lock
        return None
    if isinstance(reduced, str):  # a global object, pickled by its name
        return None
    made, arguments, state, elements, items = [*reduced, None, None, None][:5]
    return {
        "made by": (made, arguments),
        "attributes": state,
        "elements": list(elements or ()),
        "items": list(items or ()),
    }


def assert_same_fit(one: Any, two: Any, X: Any) -> None:
    """Compare all outputs for X and all fitted attributes of two fits, to the last bit."""
    assert_identical(outputs(one, X), outputs(two, X), "outputs")
    assert_identical(fitted_attributes(one), fitted_attributes(two), "fitted attributes")


def assert_close(one: Any, two: Any, what: str, *, single: bool) -> None:
    """Compare two outputs with the tolerance for different batches.

    Values that are not floats must be equal. Predictions from features are computed in float64.
    `single` means that single precision is possible, as for images.
    """
    for first, second in zip(as_parts(one), as_parts(two), strict=True):
        if first.dtype.kind != "f":
            np.testing.assert_array_equal(first, second, err_msg=what)
            continue
        tolerance = 1e-4 if single or first.dtype != np.float64 else 1e-10
        np.testing.assert_allclose(first, second, rtol=tolerance, atol=tolerance, err_msg=what)


def assert_unchanged(before: dict[str, Any], estimator: Any, what: str) -> None:
    """Check that the attributes of an estimator are the same objects as before."""
    after = vars(estimator)
    changed = [key for key in {**before, **after} if before.get(key) is not after.get(key)]
    assert not changed, f"{what} changes {changed}."


class Stopped(Exception):
    """Raised in the middle of a fit, to see what the fit leaves behind."""


@contextmanager
def module_calls(on_call: Callable[[int], None] = lambda n: None) -> Iterator[list[nn.Module]]:
    """Record each torch module that runs in the block. `on_call` gets the number of the call."""
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
    """Return everything about a network that a fit could change."""
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
