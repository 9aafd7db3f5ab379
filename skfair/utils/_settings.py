"""Fits and predictions compute the same, whatever the process or the thread has set."""

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
# They look at the numbers that they are given.
_OF_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.full}
_OF_NUMBERS |= {torch.arange}


@contextmanager
def own_settings() -> Iterator[None]:
    """Run a block as if the thread had just started, and torch's defaults were its own.

    Gradients are on, autocast and inference mode are off, NumPy warns of overflows, and what does
    not name its type or device is float32 on the CPU. Nothing of the process is changed for this:
    it holds for the block in this thread.

    Yields
    ------
    None
        The block runs.

    Notes
    -----
    Under another default type or device, what runs is watched by a mode, and torch computes its
    attention layers without fused kernels then: their last digits differ. What a network makes
    of integers without naming a type (their ratio) has torch's default type.

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
    """Gives tensors that are made without a type float32; torch's default is every thread's."""

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
    """Whether these are numbers of Python's own, and not all integers."""
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


# Python's filters are every thread's; two blocks that overlap would put back each other's.
_FILTERS = threading.RLock()


@contextmanager
def warning_filter(
    action: Literal["ignore", "error"], category: type[Warning] = Warning, message: str = ""
) -> Iterator[None]:
    """Filter warnings in a block; one such block at a time.

    Parameters
    ----------
    action : {"ignore", "error"}
    category : type, default=Warning
    message : str, default=""
        What the message has to begin with.

    Yields
    ------
    None
        The block runs.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings(action, message=message, category=category)
        yield
