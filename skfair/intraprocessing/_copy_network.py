"""Intra-processing, all methods: copy the user's network, and say which weights may change."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from skfair.base._net import load_weights
from skfair.base._networks import check_initialised, copied, have_same_bits, written_parameters
from skfair.utils._shown import shown

_MOST_SHOWN = 20  # names of parameters in a message


def copy_network(
    module: nn.Module,
    weights: Mapping[str, torch.Tensor] | None = None,
    parameters: str | Sequence[str] | None = None,
) -> nn.Module:
    """Copy a network, so that the user's network never changes.

    Parameters with ``requires_grad=False`` stay frozen, unless all parameters are frozen. The copy
    shares the memory of frozen parameters with `module`, except where a part writes to them itself.

    Parameters
    ----------
    module : torch.nn.Module
    weights : mapping of str to tensor, default=None
        Tensors that the copy keeps as its weights, by their names in `module`. A weight of another
        name, shape, dtype, device or memory format is copied from `module`, or shared with it.
    parameters : str or list of str, default=None
        Patterns for names of parameters: the others are frozen. None freezes no others.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        The network cannot be copied, or has no weights yet. Or `parameters` leaves none of them.
    """
    check_initialised(module, "estimator")
    trainable = _trainable(dict(module.named_parameters()), parameters)
    memo = {}
    written = written_parameters(module)
    for name, own in module.named_parameters():
        if type(own) is not nn.Parameter:
            continue
        given = (weights or {}).get(name)
        if given is not None and _are_interchangeable(own, given):
            memo[id(own)] = nn.Parameter(given, requires_grad=name in trainable)
        elif name not in trainable and id(own) not in written:
            # Not the same parameter: `to` changes a parameter itself.
            memo[id(own)] = nn.Parameter(own.detach(), requires_grad=False)
    try:
        network = copied(module, memo=memo)
    except Exception as error:
        raise ValueError(
            f"estimator holds a {type(module).__name__} that cannot be deep-copied "
            f"({type(error).__name__}: {error}), and debiasing changes a copy of the network only. "
            "Give a network without open files, locks, or tensors that are results of a "
            "computation with gradients."
        ) from error
    for name, parameter in network.named_parameters():
        if parameter.requires_grad != (name in trainable):
            parameter.requires_grad_(name in trainable)
    return network


def _trainable(parameters: Mapping[str, nn.Parameter], patterns: str | Sequence[str] | None) -> set:
    """Names of the parameters that a search may change."""
    floating = {name for name, p in parameters.items() if p.is_floating_point()}
    free = {name for name, p in parameters.items() if p.requires_grad}
    if not free & floating:
        free |= floating
    if patterns is None:
        return free
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            f"parameters is {shown(str(list(patterns)))}; expected a name pattern or a list of "
            "them, such as 'head.*' or ['lora', 'classifier.*']."
        )
    for pattern in patterns:
        found = _matching(parameters, [pattern])
        if not found & free:
            why = "matches no name of a parameter"
            if found:
                why = "matches frozen parameters only (requires_grad=False)"
            raise ValueError(
                f"parameters has the pattern {shown(pattern)}, which {why}. Parameters of the "
                f"network in estimator that may change: {_listed(free)}. A pattern without *, ? "
                "and [ matches the names that contain it."
            )
    chosen = _matching(parameters, patterns) & free
    if not chosen:
        raise ValueError(
            "parameters names nothing, and leaves no weight to change. Give a name pattern, or "
            "None for all parameters that require gradients."
        )
    return chosen


def _matching(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    full = [p if any(sign in p for sign in "*?[") else f"*{p}*" for p in patterns]
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in full)}


def _listed(names: set[str]) -> str:
    some = sorted(names)[:_MOST_SHOWN]
    more = f" and {len(names) - len(some)} more" if len(names) > len(some) else ""
    return ", ".join(some) + more


def own_weights(network: nn.Module, original: nn.Module) -> dict[str, torch.Tensor]:
    """State of a debiased network, without the frozen parameters that it shares with the original.

    Parameters
    ----------
    network : torch.nn.Module
        Contains a copy of `original` by :func:`copy_network`.
    original : torch.nn.Module

    Returns
    -------
    dict of str to tensor
    """
    originals = dict(original.named_parameters(remove_duplicate=False))
    shared = {
        name
        for name, parameter in network.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad and _is_one_of(originals, name, parameter)
    }
    return {name: tensor for name, tensor in network.state_dict().items() if name not in shared}


def _is_one_of(originals: Mapping[str, nn.Parameter], name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is an original one, by its name in whatever module, and by its values."""
    parts = name.split(".")
    names = (".".join(parts[start:]) for start in range(len(parts)))
    own = next((originals[each] for each in names if each in originals), None)
    if own is None:
        return False
    # On another device, or after unpickling, it has its own memory.
    return own is parameter or have_same_bits(own.cpu(), parameter.cpu())


def load_own_weights(network: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
    """Load weights from a file, the reverse of :func:`own_weights`.

    Parameters
    ----------
    network : torch.nn.Module
        Contains a copy of the user's network. It keeps its frozen parameters that the file lacks.
    weights : dict of str to tensor

    Returns
    -------
    torch.nn.Module
        `network`.

    Raises
    ------
    ValueError
        The names, shapes or dtypes differ.
    """
    own = network.state_dict()
    lacking = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad and name in weights:
            # Files of earlier versions hold all weights: not into the memory of the user's network.
            parameter.data = parameter.detach().clone()
        elif not parameter.requires_grad and name in own:
            lacking[name] = own[name]
    return load_weights(network, lacking | weights, "module_")


def _are_interchangeable(one: torch.Tensor, two: torch.Tensor) -> bool:
    return (
        (one.shape, one.dtype, one.device, one.stride())
        == (two.shape, two.dtype, two.device, two.stride())
    )  # fmt: skip
