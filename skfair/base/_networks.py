"""Torch modules of whatever kind: copied, and refused in words where torch cannot do a thing."""

import copy
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

# How far rounding may take outputs for one row in two batches apart, by the largest of them: in
# single precision, and in less.
CLOSE, ROUGH = 1e-3, 0.05
_NOTHING = 1e-3  # a size of outputs below which all may be rounding


def copied(
    module: nn.Module,
    *,
    weight_of: Callable[[torch.Tensor], torch.Tensor] | None = None,
    device: torch.device | None = None,
    memo: dict[int, Any] | None = None,
) -> nn.Module:
    """Copy a module, also one that keeps the result of its last run, as weight norm does.

    Parameters
    ----------
    module : torch.nn.Module
    weight_of : callable, default=None
        Makes the weights of the copy, which are frozen. None copies them as they are.
    device : torch.device, default=None
        Where the buffers of a copy with other weights are; None leaves them.
    memo : dict, default=None
        What was copied already, as ``copy.deepcopy`` keeps it; filled.

    Returns
    -------
    torch.nn.Module
    """
    memo = {} if memo is None else memo
    for part in _parts(module):
        plain = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
        if weight_of is None:
            # What was computed with gradients: torch does not copy it.
            memo |= {id(t): t.detach().clone() for t in plain if not t.is_leaf}
            continue
        for weight in part.parameters(recurse=False):
            memo[id(weight)] = nn.Parameter(weight_of(weight), requires_grad=False)
        for buffer in [*part.buffers(recurse=False), *plain]:
            memo[id(buffer)] = buffer.detach().to(device or buffer.device, copy=True)
    return copy.deepcopy(module, memo)


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The parts that are Python's; TorchScript copies its own, and makes its tensors anew."""
    return (part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule))


def floating_dtype(module: nn.Module) -> torch.dtype | None:
    """Tell in what a module computes: the type of its first floating weight, else buffer.

    Returns
    -------
    torch.dtype or None
        None where it has neither.
    """
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)


def check_initialised(module: nn.Module, what: str) -> None:
    """Refuse a module without weights, of which each copy would be another, or of no use.

    Parameters
    ----------
    module : torch.nn.Module
    what : str
        The parameter that holds it, for the message.

    Raises
    ------
    ValueError
    """
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(
                f"{what} holds a {type(module).__name__} that has no weights yet: {name} is made "
                "when it first sees data. Run it on a batch, and train it or load its weights."
            )
        if tensor.is_meta:
            raise ValueError(
                f"{what} holds a {type(module).__name__} of which {name} is on the device 'meta', "
                "without values. Make it on a device, as with torch.device('cpu'), and train it or "
                "load its weights."
            )


def check_picklable(module: nn.Module, what: str) -> None:
    """Refuse to pickle what torch does not pickle, or would not open again.

    Parameters
    ----------
    module : torch.nn.Module
    what : str
        The attribute that holds it, for the message.

    Raises
    ------
    TypeError
    """
    for name, part in module.named_modules():
        try:
            if isinstance(part, torch.jit.ScriptModule):
                raise TypeError("TorchScript has a format of its own")
            if isinstance(part, fx.GraphModule):
                if "train" in vars(part):
                    raise TypeError("what torch.export makes holds functions without a name")
                continue
            make, arguments, *state = part.__reduce_ex__(2)
            if type(part).__setstate__ is not nn.Module.__setstate__ and state:
                made = make(*arguments)  # as a pickle does; some quantised layers do not come back
                made.__setstate__(state[0])
                next(made.parameters(), None)
        except Exception as error:
            raise TypeError(
                f"{what} holds a {type(module).__name__} that cannot be pickled, because of its "
                f"part {name!r}, a {type(part).__name__} ({error}). skfair.save keeps the weights, "
                "for a function that makes the network; or give the module that it was made of, "
                "without parametrizations (torch.nn.utils.parametrize)."
            ) from error


def rounding(module: nn.Module, rows: torch.Tensor) -> float:
    """Tell how far rounding may take the outputs of a module for one row in two batches apart.

    Parameters
    ----------
    module : torch.nn.Module
    rows : tensor
        Where it runs.

    Returns
    -------
    float
        Of the largest output.
    """
    exact = floating_dtype(module) in (None, torch.float32, torch.float64)
    quantised = any("quantized" in type(part).__module__ for part in module.modules())
    # Not on a CPU there are shorter formats, such as TF32.
    return CLOSE if exact and not quantised and rows.device.type == "cpu" else ROUGH


def are_alike(
    one: torch.Tensor, two: torch.Tensor, tolerance: float, among: torch.Tensor | None = None
) -> bool:
    """Whether two outputs differ by rounding only; those that are not finite are left to others.

    Parameters
    ----------
    one, two : tensor of one shape, float64
    tolerance : float
        From :func:`rounding`.
    among : tensor, default=None
        Outputs of which the largest is what `tolerance` is a share of; these two if not given.

    Returns
    -------
    bool
    """
    largest = float(
        torch.maximum(one.abs(), two.abs()).max() if among is None else among.abs().max()
    )
    return not float((one - two).abs().max()) > tolerance * max(largest, _NOTHING)
