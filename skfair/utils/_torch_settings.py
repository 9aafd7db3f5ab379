"""The part of a fit's own settings that concerns torch."""

from contextlib import ExitStack
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_ACCELERATORS = ("cuda", "mps", "xpu")
_FLOATS = {
    torch.empty, torch.empty_strided, torch.zeros, torch.ones, torch.eye, torch.rand, torch.randn,
    torch.normal, torch.linspace, torch.logspace,
}  # fmt: skip
# These functions infer the type from the given numbers.
_OF_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.full}
_OF_NUMBERS |= {torch.arange}


def enter_default_settings(stack: ExitStack) -> None:
    """Enter the contexts that give this thread the default settings of torch.

    Parameters
    ----------
    stack : ExitStack
        Leaves the contexts.
    """
    if torch.is_inference_mode_enabled():
        stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    for kind in ("cpu", *_ACCELERATORS):
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    made = torch.empty(0)  # quicker than to ask for both defaults
    if made.device.type != "cpu":
        stack.enter_context(torch.device("cpu"))
    if made.dtype != torch.float32:
        stack.enter_context(_SinglePrecision())


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
