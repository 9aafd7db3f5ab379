"""Copies torch modules of any kind, and refuses those that torch cannot copy, run or pickle."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

# The largest difference by rounding between the outputs for one row in two batches, relative to
# the largest output: in single precision, and in lower precision.
CLOSE, ROUGH = 1e-3, 0.05
_DOUBLE_BYTES = 1 << 26
_NOTHING = 1e-3  # outputs below this size may be rounding errors only
_DICTS = dict, OrderedDict
# Whose classes write no weights where a mode is set, and do not remember results by the identity
# of a copy.
KNOWN_PACKAGES = ("torch.", "skfair.", "transformers.", "peft.")


def copied(
    module: nn.Module,
    *,
    weight_of: Callable[[torch.Tensor], torch.Tensor] | None = None,
    device: torch.device | None = None,
    memo: dict[int, Any] | None = None,
) -> nn.Module:
    """Copy a module, also one that stores the result of its last run, as weight norm does.

    Parameters
    ----------
    module : torch.nn.Module
    weight_of : callable, default=None
        Returns a weight of the copy for a weight of `module`; these weights are frozen. None copies
        the weights unchanged.
    device : torch.device, default=None
        Device of the buffers, if `weight_of` is given; None keeps their device.
    memo : dict, default=None
        Objects that are already copied, as in ``copy.deepcopy``; this function adds to it.

    Returns
    -------
    torch.nn.Module
    """
    memo = {} if memo is None else memo
    for part in _parts(module):
        # A part has a dozen empty dicts, and copying these takes most of the time.
        for value in vars(part).values():
            if type(value) in _DICTS and not value:
                memo.setdefault(id(value), type(value)())
        plain = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
        if weight_of is None:
            # torch cannot copy a tensor that was computed with gradients.
            memo |= {id(t): t.detach().clone() for t in plain if not t.is_leaf}
            continue
        for weight in part.parameters(recurse=False):
            memo[id(weight)] = nn.Parameter(weight_of(weight), requires_grad=False)
        for buffer in [*part.buffers(recurse=False), *plain]:
            memo[id(buffer)] = buffer.detach().to(device or buffer.device, copy=True)
    return copy.deepcopy(module, memo)


def written_parameters(module: nn.Module) -> set[int]:
    """Find the parameters that a copy must not share, since parts write to them by themselves.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    set of int
        Ids of the parameters of embeddings with `max_norm`, which scale their rows as they run,
        and of the parts whose class has its own ``train`` or ``eval``: some of these merge an
        adapter into a frozen weight.
    """
    return {id(w) for part in module.modules() if writes_weights(part) for w in part.parameters()}


def writes_weights(part: nn.Module) -> bool:
    """Whether a part may write weights in a run, or where its mode is set."""
    if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None:
        return True
    for name in ("train", "eval"):
        first = next(base for base in type(part).__mro__ if name in vars(base))
        if name in vars(part) or not first.__module__.startswith(KNOWN_PACKAGES):
            return True
    return False


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts in Python; TorchScript copies its own parts, with new tensors."""
    return (part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule))


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            yield from (tensor for tensor in tensors.values() if tensor is not None)


def floating_dtype(module: nn.Module) -> torch.dtype | None:
    """Return the dtype of a module's computation: of its first floating weight, else buffer.

    Returns
    -------
    torch.dtype or None
        None if it has neither.
    """
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)


def may_run_double(module: nn.Module) -> bool:
    """Whether a module computes in single or double precision alone, and is not large.

    Returns
    -------
    bool
        Whether a copy in float64 has the same decisions but for rounding, at 64 MiB of weights at
        most. False without floating weights and buffers.
    """
    tensors = [
        tensor
        for tensor in chain(module.parameters(), module.buffers())
        if tensor.is_floating_point() or tensor.is_complex()
    ]
    exact = all(tensor.dtype in (torch.float32, torch.float64) for tensor in tensors)
    return exact and 0 < 8 * sum(tensor.numel() for tensor in tensors) <= _DOUBLE_BYTES


def check_initialised(module: nn.Module, what: str) -> None:
    """Refuse a module without weights: its copies would differ, or could not run.

    Parameters
    ----------
    module : torch.nn.Module
    what : str
        The parameter that holds the module, for the message.

    Raises
    ------
    ValueError
        A weight or buffer is not yet initialised, or is on the device "meta".
    """
    # Without names first: names cost more than the checks.
    if not any(is_lazy(tensor) or tensor.is_meta for tensor in _tensors(module)):
        return
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(
                f"{what} holds a {type(module).__name__} that has no weights yet: {name} is "
                "created at the first batch. Run the module on a batch, and train it or load "
                "its weights."
            )
        if tensor.is_meta:
            raise ValueError(
                f"{what} holds a {type(module).__name__} whose {name} is on the device 'meta', "
                "without values. Create the module on a device, as with torch.device('cpu'), and "
                "train it or load its weights."
            )


def check_picklable(module: nn.Module, what: str) -> None:
    """Refuse a module that torch cannot pickle, or cannot load again.

    Parameters
    ----------
    module : torch.nn.Module
    what : str
        The attribute that holds the module, for the message.

    Raises
    ------
    TypeError
        A part of the module cannot be pickled.
    """
    for name, part in module.named_modules():
        try:
            if isinstance(part, torch.jit.ScriptModule):
                raise TypeError("TorchScript has a format of its own")
            if isinstance(part, fx.GraphModule):
                if "train" in vars(part):
                    raise TypeError("the output of torch.export holds functions without a name")
                continue
            make, arguments, *state = part.__reduce_ex__(2)
            if type(part).__setstate__ is not nn.Module.__setstate__ and state:
                made = make(*arguments)  # as a pickle does; some quantised layers fail here
                made.__setstate__(state[0])
                next(made.parameters(), None)
        except Exception as error:
            raise TypeError(
                f"{what} holds a {type(module).__name__} that cannot be pickled, because of its "
                f"part {name!r}, a {type(part).__name__} ({error}). skfair.save keeps the weights, "
                "for a function that makes the network. Or pass the original module, without "
                "parametrizations (torch.nn.utils.parametrize)."
            ) from error


def rounding(module: nn.Module, rows: Any) -> float:
    """Return the largest difference by rounding between outputs for one row in two batches.

    Parameters
    ----------
    module : torch.nn.Module
    rows : object with a device
        It is the one on which the module runs.

    Returns
    -------
    float
        Relative to the largest output.
    """
    exact = floating_dtype(module) in (None, torch.float32, torch.float64)
    quantised = any("quantized" in type(part).__module__ for part in module.modules())
    # Other devices than the CPU may compute in shorter formats, such as TF32.
    return CLOSE if exact and not quantised and rows.device.type == "cpu" else ROUGH


_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def have_same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Whether two tensors hold the same bits, in one shape and type and on one device.

    Zeros of different signs differ, and NaN equals NaN.

    Parameters
    ----------
    one, two : tensor

    Returns
    -------
    bool
        False for sparse tensors and those in other special layouts, which are not compared.
    """
    tensors = [one.detach(), two.detach()]
    kinds = {(t.shape, t.dtype, t.device, t.layout, t.is_quantized) for t in tensors}
    if len(kinds) > 1 or one.layout != torch.strided:
        return False
    if one.is_quantized:
        return torch.equal(*tensors)
    if one.is_complex():
        tensors = [torch.view_as_real(tensor.resolve_conj()) for tensor in tensors]
    same_size = _NUMBERS[tensors[0].itemsize]
    return torch.equal(*(tensor.resolve_neg().view(same_size) for tensor in tensors))


def are_alike(
    one: torch.Tensor, two: torch.Tensor, tolerance: float, among: torch.Tensor | None = None
) -> bool:
    """Whether two outputs differ by rounding only; other checks refuse outputs that are not finite.

    Parameters
    ----------
    one, two : tensor of one shape, float64
    tolerance : float
        From :func:`rounding`.
    among : tensor, default=None
        Outputs whose largest value `tolerance` is relative to; by default `one` and `two`.

    Returns
    -------
    bool
    """
    largest = float(
        torch.maximum(one.abs(), two.abs()).max() if among is None else among.abs().max()
    )
    return not float((one - two).abs().max()) > tolerance * max(largest, _NOTHING)
