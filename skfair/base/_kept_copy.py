"""Copies of networks in another dtype, kept from one prediction to the next."""

import functools
import sys
import types
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter, is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from skfair.base._networks import copied

# Copies are kept after predictions of few rows. For more rows, the copy is a small part of the
# work; a batch job then leaves no copy in memory.
_FEW_ROWS = 256
_MOST_BYTES = 1 << 28  # of all kept copies of one network
_CACHE = 1 << 20  # bytes that fit into a cache of one core

_PLAIN = {
    *(type(None), bool, int, float, complex, str, bytes),
    *(torch.dtype, torch.device, torch.Size),
}
_DICTS = (dict, OrderedDict)
_LAYOUT = attrgetter("shape", "dtype", "device", "requires_grad")
# A class that overrides one of these may change weights where a copy is made or set to eval mode,
# or hide parts.
_OF_COPIES = (
    *("_apply", "to", "train", "eval", "__getstate__", "__reduce__", "__reduce_ex__"),
    *("modules", "named_modules", "children", "named_children"),
)


@contextmanager
def converted(
    module: nn.Module, device: torch.device, dtype: torch.dtype | None, *, n_rows: int
) -> Iterator[nn.Module]:
    """Lend a copy of a network: on a device, in a dtype, in eval mode.

    The copy has the present weights, buffers and attributes of the network. Nobody else uses it
    before the block ends, so that several threads can run the same network.

    With ``dtype=None``, a network that is on the device already is not copied if it is in eval
    mode and consists of layers of torch alone, which do not change while they run. Any other one
    on the device lends a copy of its parts and buffers, which shares its parameters.

    Parameters
    ----------
    module : torch.nn.Module
        It does not change.
    device : torch.device
    dtype : torch.dtype or None
        Dtype of the floating parameters and buffers; None leaves each in its own.
    n_rows : int
        Number of rows that will run. After few rows, the copy is kept for the next call.

    Yields
    ------
    torch.nn.Module
        The copy, or the network itself.

    Notes
    -----
    A kept copy saves the time that copying the parts takes. Its tensors are written again in each
    block, from those of the network. So no change of weights is missed, whether torch notices the
    change (``load_state_dict``) or not (``weight.data.mul_(2)``, writes by NumPy). All other
    attributes of all parts must still be the same objects as when the copy was made; otherwise a
    new copy is made. A copy whose attributes changed while it ran (a counter, stored activations,
    gradients, weights that took the memory of other tensors) is thrown away.

    A copy is kept only if the attributes of all parts are known completely: tensors, numbers,
    text, functions of importable modules, and collections of these. Other networks are copied at
    each call, among them recurrent layers, scripted networks, graphs and parametrizations of torch.

    Kept copies are neither pickled nor copied with the network, and they are freed with it. Those
    of one network take 256 MiB at most; a larger copy is not kept.
    """
    if dtype is None and all(tensor.device == device for tensor in _tensors(module)):
        yield module if _runs_as_it_is(module) else _shares_parameters(module)
        return
    kept: list[_Copy] = []
    if type(module).__hash__ is object.__hash__:
        kept = _KEPT.setdefault(module, kept)
    copy = _take(kept, module, device, dtype)
    keep = copy is not None or n_rows <= _FEW_ROWS
    copy = copy or _Copy(module, device, dtype)
    yield copy.network
    # Not after an error, which may have interrupted the network anywhere.
    n_bytes = copy.n_bytes + sum(other.n_bytes for other in kept)
    if keep and n_bytes <= _MOST_BYTES and copy.is_unchanged():
        kept.append(copy)


class _Copy:
    """A copy of a network, and the state of both when it was made."""

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype | None):
        self.kind = device, dtype
        self.network = copied(module).to(device=device, dtype=dtype).eval()
        self.n_bytes = 0
        self._states: tuple[_State, _State] | None = None
        self._places: list[int] = []
        self._writes_itself = False
        self._only_computes = all(map(_only_computes, self.network.modules()))
        try:
            theirs, ours = _State(module), _State(self.network)
        except (_Unknown, RecursionError):  # collections may contain themselves
            return
        if list(map(torch.Tensor.size, theirs.tensors)) != list(
            map(torch.Tensor.size, ours.tensors)
        ):
            return  # tensors that were one are now two
        self._states = theirs, ours
        self._places = list(map(torch.Tensor.data_ptr, ours.tensors))
        self.n_bytes = sum(tensor.nbytes for tensor in ours.tensors)
        if self._only_computes and self.n_bytes > _CACHE:
            self._write_by_layer(dict(zip(map(id, ours.tensors), theirs.tensors, strict=True)))

    def fits(self, module: nn.Module) -> bool:
        """Whether only numbers in the tensors of the network changed since the copy was made."""
        return self._states is not None and self._states[0].holds(module)

    def is_unchanged(self) -> bool:
        """Whether only numbers in the tensors of the copy changed while it ran."""
        if self._states is None:
            return False
        if self._only_computes:
            return True
        ours = self._states[1]
        # A tensor in other memory may share it with a tensor that the next call must not write.
        return (
            ours.holds(self.network)
            and list(map(torch.Tensor.data_ptr, ours.tensors)) == self._places
            and all(tensor.grad is None for tensor in ours.tensors if tensor.is_leaf)
        )

    def refresh(self) -> None:
        """Write the present numbers of the network into the copy."""
        assert self._states is not None
        theirs, ours = self._states
        if not self._writes_itself:
            _write(ours.tensors, theirs.tensors)

    def _write_by_layer(self, originals: dict[int, torch.Tensor]) -> None:
        """Let each layer write its tensors right before it runs, to memory that layers share.

        This memory stays in the cache of the processor. The network must be a sequence of layers
        that read no tensors but their own.

        Parameters
        ----------
        originals : dict of int to tensor
            The tensor of the network for the id of each tensor of the copy.
        """
        layers = {}
        for part in self.network.modules():
            if type(part) is not nn.Sequential:
                if part._modules:
                    return
                tensors = chain(part._parameters.values(), part._buffers.values())
                layers[part] = [tensor for tensor in tensors if tensor is not None]
        # Each tensor belongs to exactly one layer.
        if sorted(map(id, chain.from_iterable(layers.values()))) != sorted(originals):
            return
        shared: dict[tuple, torch.Tensor] = {}
        for layer, ours in layers.items():
            for position, tensor in enumerate(ours):
                like = position, tensor.shape, tensor.stride(), tensor.dtype
                tensor.data = shared.setdefault(like, tensor.data)
            theirs = [originals[id(tensor)] for tensor in ours]
            if ours:
                layer.register_forward_pre_hook(functools.partial(_write, ours, theirs))
        self._writes_itself = True
        self.n_bytes = sum(tensor.nbytes for tensor in shared.values())


@torch.no_grad()
def _write(ours: list[torch.Tensor], theirs: list[torch.Tensor], *_: Any) -> None:
    if ours:  # a network may have no weights, which torch refuses here
        torch._foreach_copy_(ours, theirs)


# Copies that nobody uses now. Threads share the lists without a lock, since `pop` and `append` are
# atomic: another thread could hold a lock while the process forks.
_KEPT: WeakKeyDictionary[nn.Module, list[_Copy]] = WeakKeyDictionary()


def _take(
    kept: list[_Copy], module: nn.Module, device: torch.device, dtype: torch.dtype | None
) -> _Copy | None:
    """Take a copy that fits, and write the present numbers into it; drop those that do not fit."""
    while kept:
        try:
            copy = kept.pop()
        except IndexError:  # another thread took it
            break
        if copy.kind == (device, dtype) and copy.fits(module):
            copy.refresh()
            return copy
    return None


class _Unknown(Exception):
    """The attributes of a network do not tell its whole state."""


class _State:
    """What a network consists of, except for the numbers in its tensors.

    Parameters
    ----------
    network : torch.nn.Module
        This state does not refer to it, so that it can be freed.

    Attributes
    ----------
    tensors : list of tensor
        All tensors, each once.

    Raises
    ------
    _Unknown
        An attribute of a part is of an unknown type, or a class has its own way to be copied.
    """

    def __init__(self, network: nn.Module):
        self._tensors: dict[int, torch.Tensor] = {}
        self._dicts: list[dict] = []
        self._others: list[Collection] = []  # lists and sets
        self._empty: list[Collection] = []  # apart, since most are: hooks of layers without hooks
        _, *self._parts = network.modules()
        for part in (network, *self._parts):
            _check_class(type(part))
            children = vars(part)["_modules"]
            if type(children) not in _DICTS or any(part is network for part in children.values()):
                raise _Unknown
            (self._dicts if children else self._empty).append(children)
            for name, value in vars(part).items():
                if name in _OF_COPIES:
                    raise _Unknown
                if name != "_modules":
                    self._add(value)
        self.tensors = list(self._tensors.values())
        self._seen = self._look(network)

    def _add(self, value: Any) -> None:
        """Add a value, and the values in it."""
        kind = type(value)
        if kind in _PLAIN or isinstance(value, type) or _is_importable(value):
            return
        if kind in (torch.Tensor, nn.Parameter):
            if not _has_plain_numbers(value):
                raise _Unknown
            if id(value) not in self._tensors:
                self._tensors[id(value)] = value
                self._add(vars(value))
        elif kind in (*_DICTS, list, set) and not value:
            self._empty.append(value)
        elif kind in _DICTS:
            # Keys are compared by value, and tensors have no single `==`.
            if any(isinstance(key, torch.Tensor) for key in value):
                raise _Unknown
            self._dicts.append(value)
            for item in chain(value, value.values()):
                self._add(item)
        elif kind is list or (isinstance(value, tuple) and not hasattr(value, "__dict__")):
            if kind is list:
                self._others.append(value)
            for item in value:
                self._add(item)
        elif kind is set and all(type(item) in _PLAIN for item in value):
            self._others.append(value)
        else:
            raise _Unknown

    def _look(self, network: nn.Module) -> tuple[list, list]:
        """List the objects in the network, and what is compared by value."""
        parts = (network, *self._parts)
        dicts = [*map(vars, parts), *self._dicts]
        return (
            list(chain.from_iterable([*map(dict.values, dicts), *self._others])),
            [
                *chain.from_iterable(dicts),
                *map(len, dicts),
                *map(len, self._others),
                *map(type, parts),
                *map(_LAYOUT, self.tensors),
                *map(torch.Tensor.stride, self.tensors),
            ],
        )

    def holds(self, network: nn.Module) -> bool:
        """Whether all parts and attributes of the network are the same objects as before."""
        if any(self._empty):
            return False
        (objects, rest), (objects_before, rest_before) = self._look(network), self._seen
        # Objects by identity: 1 == True, and tensors have no single `==`.
        return rest == rest_before and all(map(is_, objects, objects_before))


def _check_class(kind: Any) -> None:
    """Refuse classes whose copies are not what :func:`converted` takes them to be."""
    if issubclass(kind, torch.jit.ScriptModule):
        raise _Unknown
    known = kind.__module__.startswith("torch.nn.modules.")
    for name in (*_OF_COPIES, *(() if known else ("__setstate__",))):
        if getattr(kind, name) is not getattr(nn.Module, name):
            raise _Unknown
    if hasattr(kind, "__deepcopy__") or getattr(kind, "__slots__", None):
        raise _Unknown
    own = (base for base in kind.__mro__ if not base.__module__.startswith(("torch.", "skfair.")))
    if any(map(_remembers, chain.from_iterable(vars(base).values() for base in own))):
        raise _Unknown


def _remembers(member: Any) -> bool:
    """Whether a member of a class remembers results by the identity of a copy or its tensors."""
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, staticmethod | classmethod):
        member = member.__func__
    while isinstance(member, types.FunctionType):
        called = map(member.__globals__.get, member.__code__.co_names)
        if any(isinstance(function, functools._lru_cache_wrapper) for function in called):
            return True
        member = getattr(member, "__wrapped__", None)
    return isinstance(member, functools._lru_cache_wrapper)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    return chain(module.parameters(), module.buffers())


def _runs_as_it_is(module: nn.Module) -> bool:
    """Whether a run changes nothing in a network, and its layers are in eval mode."""
    return all(not part.training and _only_computes(part) for part in module.modules())


def _shares_parameters(module: nn.Module) -> nn.Module:
    """Copy all of a network but its parameters, which a run in eval mode only reads."""
    return copied(module, memo={id(weight): weight for weight in module.parameters()}).eval()


def _only_computes(part: nn.Module) -> bool:
    """Whether the forward pass of a part changes no attribute in eval mode."""
    known = type(part).__module__.startswith(("torch.nn.modules.", "skfair."))
    return known and not (part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part))


def _has_plain_numbers(tensor: torch.Tensor) -> bool:
    """Whether the numbers of a tensor can be written, each alone."""
    strided = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested)
    # An expanded tensor has several numbers in one place of its memory.
    return strided and not (
        tensor.is_complex() or tensor.is_meta or (0 in tensor.stride() and tensor.numel() > 1)
    )


def _is_importable(value: Any) -> bool:
    """Whether a value is a function of a module, which copies share."""
    if isinstance(value, types.BuiltinFunctionType):
        return isinstance(value.__self__, type | types.ModuleType | None)
    if not isinstance(value, types.FunctionType):
        return False
    return getattr(sys.modules.get(value.__module__), value.__name__, None) is value
