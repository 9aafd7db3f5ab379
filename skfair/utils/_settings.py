"""Settings of a fit or a prediction: the same ones, independent of the process and the thread."""

import functools
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeVar, cast

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])


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
    >>> import torch
    >>> with torch.no_grad(), np.errstate(all="raise"), own_settings():
    ...     torch.is_grad_enabled(), np.geterr()["under"]
    (True, 'ignore')
    """
    floats = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
    with floats, ExitStack() as stack:
        if sys.modules.get("torch"):  # otherwise nothing has changed the settings of torch
            from skfair.utils._torch_settings import enter_default_settings

            enter_default_settings(stack)
        yield


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
