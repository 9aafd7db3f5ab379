"""Copies of networks in another dtype, kept from one prediction to the next."""

import copyreg
import enum
import functools
import sys
import types
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from itertools import chain
from operator import attrgetter, is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from skfair.base._networks import KNOWN_PACKAGES, copied, writes_weights, written_parameters

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
    on the device lends a copy of its parts, buffers and attributes, which shares its parameters,
    except :func:`those that parts write <skfair.base._networks.written_parameters>`.

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
    attributes of all parts must still be the same objects as when the copy was made, and so must
    all items of collections and all attributes of objects in them, such as the ``config`` of a
    transformer; otherwise a new copy is made. A copy whose attributes changed while it ran (a
    counter, stored activations, gradients, weights that took the memory of other tensors) is
    thrown away.

    A copy is kept only if the attributes of all parts are known completely: tensors, numbers,
    text, functions without closures, collections of these, and objects that hold these in their
    ``__dict__`` alone and are copied as Python does by default. Other networks are copied at each
    call, among them recurrent layers, scripted networks, graphs and parametrizations of torch,
    networks that hold arrays, tokenizers or anything else whose state is not in Python, tensors
    that are views of one another, and classes whose code may remember results by the identity of
    the copy: in mappings whose keys are not text, by ``functools.lru_cache`` or in descriptors.

    Kept copies are neither pickled nor copied with the network, and they are freed with it. Those
    of one network take 256 MiB at most; a larger copy is not kept.
    """
    shared = dtype is None and all(tensor.device == device for tensor in _tensors(module))
    if shared and _runs_as_it_is(module):
        yield module
        return
    kept: list[_Copy] = []
    if type(module).__hash__ is object.__hash__:
        kept = _KEPT.setdefault(module, kept)
    copy = _take(kept, module, device, dtype)
    keep = copy is not None or n_rows <= _FEW_ROWS
    copy = copy or _Copy(module, device, dtype, shared=shared)
    yield copy.network
    # Not after an error, which may have interrupted the network anywhere.
    n_bytes = copy.n_bytes + sum(other.n_bytes for other in kept)
    if keep and n_bytes <= _MOST_BYTES and copy.is_unchanged():
        kept.append(copy)


class _Copy:
    """A copy of a network, and the state of both when it was made.

    Parameters
    ----------
    module : torch.nn.Module
    device : torch.device
    dtype : torch.dtype or None
    shared : bool
        Whether the copy shares the parameters that a run in eval mode only reads.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        dtype: torch.dtype | None,
        *,
        shared: bool,
    ):
        self.kind = device, dtype
        if shared:
            written = written_parameters(module)
            memo = {id(w): w for w in module.parameters() if id(w) not in written}
            self.network = copied(module, memo=memo).eval()
        else:
            self.network = copied(module).to(device=device, dtype=dtype).eval()
        self.n_bytes = 0
        self._states: tuple[_State, _State] | None = None
        self._own: list[torch.Tensor] = []  # tensors of the copy, apart from those it shares
        self._originals: list[torch.Tensor] = []
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
        for own, original in zip(ours.tensors, theirs.tensors, strict=True):
            if own is not original:
                self._own.append(own)
                self._originals.append(original)
        memories = [tensor.untyped_storage().data_ptr() for tensor in self._own if tensor.numel()]
        if len(set(memories)) < len(memories):
            return  # views of one tensor, which may become two in the network
        self._states = theirs, ours
        self._places = list(map(torch.Tensor.data_ptr, self._own))
        self.n_bytes = sum(tensor.nbytes for tensor in self._own)
        if self._only_computes and not shared and self.n_bytes > _CACHE:
            self._write_by_layer(dict(zip(map(id, self._own), self._originals, strict=True)))

    def fits(self, module: nn.Module) -> bool:
        """Whether only numbers in the tensors of the network changed since the copy was made."""
        return self._states is not None and self._states[0].holds(module)

    def is_unchanged(self) -> bool:
        """Whether only numbers in the tensors of the copy changed while it ran."""
        if self._states is None:
            return False
        if self._only_computes:
            return True
        # A tensor in other memory may share it with a tensor that the next call must not write.
        return (
            self._states[1].holds(self.network)
            and list(map(torch.Tensor.data_ptr, self._own)) == self._places
            and all(tensor.grad is None for tensor in self._own if tensor.is_leaf)
        )

    def refresh(self) -> None:
        """Write the present numbers of the network into the copy."""
        if not self._writes_itself:
            _write(self._own, self._originals)

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
        self._objects: dict[int, Any] = {}
        self._partials: list[functools.partial] = []
        self._empty: list[Collection] = []  # apart, since most are: hooks of layers without hooks
        _, *self._parts = network.modules()
        if any(map(_has_a_memory, {type(part) for part in network.modules()})):
            raise _Unknown
        for part in (network, *self._parts):
            _check_class(part)
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
        if kind in _PLAIN or isinstance(value, type | enum.Enum) or _is_shared(value):
            return
        if kind in (torch.Tensor, nn.Parameter):
            # The gradient of a tensor is copied too, but not that of a parameter.
            if not _has_plain_numbers(value) or (kind is torch.Tensor and value.requires_grad):
                raise _Unknown
            if id(value) not in self._tensors:
                self._tensors[id(value)] = value
                self._add(vars(value))
        elif kind in (*_DICTS, list, set) and not value:
            self._empty.append(value)
        elif kind in _DICTS:
            if kind is OrderedDict:
                self._add(vars(value))
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
        elif kind is functools.partial:
            self._partials.append(value)
            for item in (value.func, value.args, value.keywords, vars(value)):
                self._add(item)
        elif _is_in_its_dict(kind):
            if id(value) not in self._objects:
                self._objects[id(value)] = value
                for item in vars(value).values():
                    self._add(item)
        else:
            raise _Unknown

    def _look(self, network: nn.Module) -> tuple[list, list]:
        """List the objects in the network, and what is compared by value."""
        holders = (network, *self._parts, *self._objects.values())
        dicts: list[dict] = [*(each.__dict__ for each in holders), *self._dicts]
        called = [(each.func, each.args, each.keywords) for each in self._partials]
        return (
            list(chain.from_iterable([*dicts, *map(dict.values, dicts), *self._others, *called])),
            [
                *map(len, dicts),
                *map(len, self._others),
                *map(type, holders),
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


def _check_class(part: nn.Module) -> None:
    """Refuse classes whose copies are not what :func:`converted` takes them to be."""
    kind: Any = type(part)
    if issubclass(kind, torch.jit.ScriptModule):
        raise _Unknown
    known = kind.__module__.startswith("torch.nn.modules.")
    for name in (*_OF_COPIES, *(() if known else ("__setstate__",))):
        if not (getattr(kind, name) is getattr(nn.Module, name) or _only_checks(part, name)):
            raise _Unknown
    if hasattr(kind, "__deepcopy__") or getattr(kind, "__slots__", None):
        raise _Unknown


def _only_checks(part: nn.Module, name: str) -> bool:
    """Whether a method is one of transformers that does what torch does, after checks."""
    first = next(base for base in type(part).__mro__ if name in vars(base))
    of_transformers = first.__module__ == "transformers.modeling_utils"
    # Kernels from elsewhere may be put into the network in train mode or in eval mode.
    return (
        of_transformers
        and name in ("to", "train", "eval")
        and not getattr(part, "use_kernels", True)
    )


def _has_a_memory(kind: type) -> bool:
    """Whether the code of a class may remember results by the identity of a copy or its tensors."""
    own = (base for base in kind.__mro__ if not base.__module__.startswith(KNOWN_PACKAGES))
    return _remember(
        member
        for base in own
        for name, member in vars(base).items()
        if not (name.startswith("__") and isinstance(member, Mapping))  # such as the annotations
    )


def _remember(members: Iterable[Any]) -> bool:
    """Whether members of a class, or functions, may remember results by identity.

    They are searched with the functions that they call, in their package and in modules without a
    package.
    """
    left, seen = list(members), set[int]()
    while left:
        member = left.pop()
        if id(member) in seen:
            continue
        seen.add(id(member))
        if isinstance(member, property):
            left.append(member.fget)
        elif isinstance(member, staticmethod | classmethod):
            left.append(member.__func__)
        elif isinstance(member, types.FunctionType):
            left += _reached_from(member)
        elif isinstance(member, functools._lru_cache_wrapper) or _is_a_memory(member):
            return True
    return False


def _is_a_memory(value: Any) -> bool:
    """Whether a value is a mapping by identity, or a descriptor, which may have one."""
    if isinstance(value, MutableMapping):
        by_name = all(isinstance(key, str | type | torch.dtype | torch.device) for key in value)
        return not (value and by_name)
    kind = type(value)
    return hasattr(kind, "__get__") and kind.__module__ not in ("builtins", "functools")


def _reached_from(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function wraps, and what it names in modules and in its closure."""
    yield getattr(function, "__wrapped__", None)
    scope = function.__globals__
    home = scope.get("__name__") or ""
    if home.startswith(KNOWN_PACKAGES):
        return
    codes = [function.__code__]
    for code in codes:
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    names = set(chain.from_iterable(code.co_names for code in codes))
    values = [scope[name] for name in names & scope.keys()]
    modules = [vars(value) for value in values if isinstance(value, types.ModuleType)]
    values += [module[name] for module in modules for name in names & module.keys()]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # it is still empty
            values.append(cell.cell_contents)
    for value in values:
        if isinstance(value, types.FunctionType):
            there = value.__globals__.get("__name__") or ""
            alone = "." not in there and there not in sys.stdlib_module_names
            if alone or there.partition(".")[0] == home.partition(".")[0]:
                yield value
            else:
                yield getattr(value, "__wrapped__", None)
        elif isinstance(value, functools._lru_cache_wrapper | MutableMapping):
            yield value


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    return chain(module.parameters(), module.buffers())


def _runs_as_it_is(module: nn.Module) -> bool:
    """Whether a run changes nothing in a network, and its layers are in eval mode."""
    return all(not part.training and _only_computes(part) for part in module.modules())


def _only_computes(part: nn.Module) -> bool:
    """Whether the forward pass of a part changes no attribute and no weight in eval mode."""
    known = type(part).__module__.startswith(("torch.nn.modules.", "skfair."))
    hooked = part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part)
    return known and not hooked and not writes_weights(part)


def _has_plain_numbers(tensor: torch.Tensor) -> bool:
    """Whether the numbers of a tensor can be written, each alone."""
    strided = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested)
    # An expanded tensor has several numbers in one place of its memory.
    expanded = tensor.layout == torch.strided and any(
        step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
    return strided and not (tensor.is_complex() or tensor.is_meta or expanded)


def _is_shared(value: Any) -> bool:
    """Whether a value is a function that copies share, and that refers to no network."""
    if isinstance(value, types.BuiltinFunctionType):
        return isinstance(value.__self__, type | types.ModuleType | None)
    if not isinstance(value, types.FunctionType):
        return False
    if not (value.__module__ or "").startswith(KNOWN_PACKAGES) and _remember([value]):
        return False
    if getattr(sys.modules.get(value.__module__), value.__name__, None) is value:
        return True
    return not (value.__closure__ or value.__defaults__ or value.__kwdefaults__ or vars(value))


class _Empty:
    pass


def _is_in_its_dict(kind: type) -> bool:
    """Whether the ``__dict__`` of an object of a class tells its whole state."""
    return (
        # As small as an object without slots, and without anything that C code keeps.
        (kind.__basicsize__, kind.__itemsize__) == (_Empty.__basicsize__, 0)
        and kind.__dictoffset__ == _Empty.__dictoffset__
        and not issubclass(kind, nn.Module)
        and kind not in copyreg.dispatch_table
        and not hasattr(kind, "__deepcopy__")
        and not hasattr(kind, "__setstate__")
        and all(
            getattr(kind, name) is getattr(object, name)
            for name in ("__reduce__", "__reduce_ex__", "__getstate__")
        )
        and not _has_a_memory(kind)
    )
