"""Intra-processing by training: the optimizer, which trains half precision in single precision."""

from collections.abc import Callable
from typing import Any

import torch

HALF = torch.float16, torch.bfloat16  # types in half precision


class HalfAdam(torch.optim.Adam):
    """Adam that trains weights in half precision as float32 copies of them.

    In half precision a small update of a large weight is lost. In float16 the mean square of the
    gradients becomes zero too, and Adam divides by its root. After each step the weights get the
    rounded values of their copies. Weights in other types are trained as by Adam itself.

    Attributes
    ----------
    state : dict
        As that of Adam. It holds the copies too: once it is cleared, they are freed.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        weights = [weight for group in self.param_groups for weight in group["params"]]
        halves = [weight for weight in weights if weight.dtype in HALF]
        if not halves:
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        given = [group["params"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                group["params"] = [self._trained(weight) for weight in group["params"]]
            super().step()
        finally:  # also where the user interrupts the training
            for group, weights in zip(self.param_groups, given, strict=True):
                group["params"] = weights
        with torch.no_grad():
            for weight in halves:
                copy = self._trained(weight)
                weight.copy_(copy)
                copy.grad = None
        return loss

    def _trained(self, weight: torch.Tensor) -> torch.Tensor:
        """What is trained in place of a weight, with its gradient in the same type."""
        if weight.dtype not in HALF:
            return weight
        kept = self.state[weight]
        if "copy" not in kept:
            kept["copy"] = weight.detach().float()
        if kept["copy"].grad is None and weight.grad is not None:
            kept["copy"].grad = weight.grad.float()
        return kept["copy"]
