"""Settings of a fit or a prediction: the same ones, independent of the process and the thread."""

import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

Function = TypeVar("Function", bound=Callable[..., Any])

_ACCELERATORS = ("cuda", "mps", "xpu")
_FLOATS = {
    torch.empty, torch.empty_strided, torch.zeros, torch.ones, torch.eye, torch.rand, torch.randn,
    torch.normal, torch.linspace, torch.logspace,
}  # fmt: skip
# These functions infer the type from the given numbers.
_OF_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.full}
_OF_NUMBERS |= {torch.arange}


@contextmanager
def own_settings() -> Iterator[None]:
    """Run a block with the default settings of torch and NumPy.

    Gradients are on, autocast and inference mode are off, and NumPy warns of overflows. A tensor
    that is created without a type or device is float32 on the CPU. The settings of the process do
    not change: these settings apply only to the block, in this thread.

    Yields
    ------
    None
        The block runs.

    Notes
    -----
    Under another default type or device of torch, the block runs under a mode. torch then computes
    attention layers without fused kernels, so their last digits differ. If a network computes a
    float from integers without naming a type (their ratio), the result has torch's default type.

    Examples
    --------
    >>> with torch.no_grad(), np.errstate(all="raise"), own_settings():
    ...     torch.is_grad_enabled(), np.geterr()["under"]
    (True, 'ignore')
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", *_ACCELERATORS):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(_SinglePrecision())
        yield


class _SinglePrecision(TorchFunctionMode):
    """Makes new tensors float32. torch's default type would change for all threads."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") is None:
            numbers = kwargs.get("data", kwargs.get("fill_value", args))
            if func in _FLOATS or (func in _OF_NUMBERS and _has_floats(numbers)):
                kwargs["dtype"] = torch.float32
        return func(*args, **kwargs)


def _has_floats(numbers: Any) -> bool:
    """Whether these are Python numbers, and at least one of them is a float."""
    if isinstance(numbers, list | tuple):
        return any(map(_has_floats, numbers))
    return type(numbers) is float


def with_own_settings(function: Function) -> Function:
    """Run a function as :func:`own_settings` runs a block."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with own_settings():
            return function(*args, **kwargs)

    return cast(Function, run)


# All threads share Python's warning filters. Two overlapping blocks would restore wrong filters.
_FILTERS = threading.RLock()


@contextmanager
def warning_filter(
    action: Literal["ignore", "error"], category: type[Warning] = Warning, message: str = ""
) -> Iterator[None]:
    """Filter warnings in a block. Only one such block runs at a time.

    Parameters
    ----------
    action : {"ignore", "error"}
        What to do with the warnings.
    category : type, default=Warning
        Class of the warnings.
    message : str, default=""
        Regular expression that the start of the message must match.

    Yields
    ------
    None
        The block runs.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings(action, message=message, category=category)
        yield
