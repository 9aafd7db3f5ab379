"""Fingerprints of encoders: the part of a stored row's key that changes with the encoder.

Only data and modules whose code is torch's own have a fingerprint, since only these are known
completely. Other code can depend on things that no search finds (attributes of functions, files,
the environment). A wrong guess would return the features of another encoder, so this module
never guesses.
"""

import collections
import hashlib
import operator
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode

from skfair._version import __version__

_KEYS_VERSION = 2  # increase it when the keys are computed in another way
_OWN_MODULES = ("torch.nn.modules.", "skfair.datasets._encoder")
_PLAIN = {
    *(type(None), bool, int, float, complex, str, bytes, range, slice),
    *(torch.dtype, torch.device, torch.Size),
}
_CONTAINERS = {tuple, list, dict, collections.OrderedDict, set, frozenset}
_MAX_DEPTH = 20  # of nested containers
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_READ_OF_EVERY_MODULE = (*_FORWARD_HOOKS, "_parameters", "_buffers", "_modules")
_TORCH_FOLDER = str(Path(torch.__file__).parent)
# torch sets these members of nn.Module at its first compilation in a process. They tag new modules,
# and do not change what a module computes.
_TAGGED = "__init__", "__setstate__"
# Members that packages add to nn.Module, and that no code of torch reads when a module runs: torch
# at its first compilation, and transformers with its first model of the process.
_ADDED = {"___needs_generation_tag_patch", "smart_apply"}
_TAGGING_FILE = str(Path(_TORCH_FOLDER, "_dynamo", "mutation_guard.py"))
_KINDS = (
    *(types.BuiltinFunctionType, types.FunctionType),
    *(types.MethodDescriptorType, types.ModuleType),
)
_SPECIAL_DATA = (type(None), str, dict, list, tuple, types.GetSetDescriptorType)  # of a class


def _names(owner: Any) -> dict[str, Any]:
    """List the members of a torch module or class that code of torch may call."""
    # torch replaces its own functions, such as manual_seed when it compiles.
    kinds = _KINDS[:1] if owner is torch else _KINDS
    return {name: member for name, member in vars(owner).items() if isinstance(member, kinds)}


# The members at the time when this module was imported.
_NAMES = {owner: _names(owner) for owner in (F, torch, torch._C._nn, torch.Tensor)}
_NAMES |= {
    module: _names(module)
    for name, module in sorted(sys.modules.items())
    if name.startswith("torch.nn.modules.")
}
# Functions that a package replaced before that: their code is not in the folder of torch.
_BUILT_IN = {torch: torch._C._VariableFunctions, torch.Tensor: torch._C.TensorBase}
_REPLACED = [
    name
    for owner in (F, torch, torch._C._nn, torch.Tensor)
    for name, member in vars(owner).items()
    if isinstance(member, types.FunctionType)
    and not member.__code__.co_filename.startswith(_TORCH_FOLDER)
    and hasattr(_BUILT_IN.get(owner, owner), name)  # not functions that a package added
]


class UnknownEncoder(ValueError):
    """The contents of an encoder do not define what it computes; the message says why."""


def fingerprint(**parts: Any) -> bytes:
    """Fingerprint named plain data.

    Parameters
    ----------
    **parts : None, bool, int, float, str, bytes, torch.dtype or containers of them
        The data.

    Returns
    -------
    bytes
        32 bytes, the same in each process.

    Raises
    ------
    UnknownEncoder
        A part has another type.

    Examples
    --------
    >>> fingerprint(scale=2.0) == fingerprint(scale=2.0)
    True
    >>> fingerprint(scale=2.0) == fingerprint(scale=2)
    False
    """
    return _digest((_KEYS_VERSION, Walk().plain("parts", parts)))


def module_digest(module: nn.Module) -> bytes:
    """Digest everything that decides what a module of torch's own layers computes.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    bytes
        32 bytes, the same in each process that has the same contents and the same torch.

    Raises
    ------
    UnknownEncoder
        As :func:`check_module`.
    """
    _check_torch()
    versions = [version.partition("+")[0] for version in (torch.__version__, __version__)]
    return _digest((Walk().module("encoder", module), versions, torch.get_default_dtype()))


def check_module(module: nn.Module) -> None:
    """Refuse a module without a complete fingerprint; reads no weights.

    Parameters
    ----------
    module : torch.nn.Module

    Raises
    ------
    UnknownEncoder
        A submodule has a class that is not torch's, a replaced method, forward hooks, or an
        attribute that is not plain data; or torch itself has been modified.
    """
    _check_torch()
    Walk(read=False).module("encoder", module)


class Walk:
    """Turns data or a module into tuples with a unique ``repr``; reads each tensor once.

    Parameters
    ----------
    read : bool, default=True
        Whether to read the values of the tensors.

    Attributes
    ----------
    tensors : list of torch.Tensor
        The tensors that the walk met, each once.
    parts : list of torch.nn.Module
        The modules in the module of the walk, each once.
    """

    def __init__(self, *, read: bool = True) -> None:
        self.tensors: list[torch.Tensor] = []
        self.parts: list[nn.Module] = []
        self._read = read
        self._modules: dict[int, int] = {}
        self._tensors: dict[int, tuple] = {}
        self._classes: dict[type, list] = {}
        self._settings: dict[type, list] = {}
        # What the walk saw, for `is_unchanged`. States and collections change with the data.
        self._kinds: list[type] = []
        self._states: list[dict[str, Any]] = []
        self._lengths: list[int] = []
        self._getters: list[Callable] = []
        self._attributes: list[Any] = []
        self._collections: list[Collection] = []
        self._sizes: list[int] = []
        self._items: list[Any] = []

    def is_unchanged(self, module: nn.Module) -> bool:
        """Whether the walk would return the same again, if no tensor and no class has changed.

        The method compares by identity, so that it can return False for data that are equal.

        Parameters
        ----------
        module : torch.nn.Module
            The module of the walk, of which the walk holds the parts only.

        Returns
        -------
        bool
        """
        try:
            attributes = [*chain.from_iterable(map(operator.call, self._getters, self._states))]
            return (
                vars(module) is self._states[0]
                and [*map(type, chain([module], self.parts))] == self._kinds
                and [*map(len, self._states)] == self._lengths
                and [*map(len, self._collections)] == self._sizes
                and _are_the_same(attributes, self._attributes)
                and _are_the_same(chain.from_iterable(self._collections), self._items)
            )
        except (KeyError, RuntimeError):  # no such attribute; or another thread changes one
            return False

    def module(self, path: str, module: nn.Module) -> tuple:
        if id(module) in self._modules:  # a shared layer, or one that contains itself
            return ("again", self._modules[id(module)])
        if self._modules:
            self.parts.append(module)
        self._modules[id(module)] = len(self._modules)
        cls = type(module)
        if cls not in self._classes:
            self._classes[cls] = self._own_class(path, cls)
        state = vars(module)
        if any(state[name] for name in _FORWARD_HOOKS):
            raise UnknownEncoder(f"{path} has forward hooks")
        names = state.keys() - _OF_EVERY_MODULE
        if isinstance(module, nn.RNNBase):
            names -= {"_flat_weight_refs"}  # references to weights that are read anyway
        for name in _READ_OF_EVERY_MODULE:
            self._saw(state[name])
        self._kinds.append(cls)
        get = operator.itemgetter(*_READ_OF_EVERY_MODULE, *names)
        self._states.append(state)
        self._getters.append(get)
        self._attributes += get(state)
        self._lengths.append(len(state))
        tensors = [*state["_parameters"].items(), *state["_buffers"].items()]
        return (
            (cls.__module__, cls.__qualname__, self._classes[cls]),
            [(name, self.plain(f"{path}.{name}", state[name])) for name in sorted(names)],
            [(name, self.plain(f"{path}.{name}", tensor)) for name, tensor in tensors],
            [
                (name, None if part is None else self.module(f"{path}.{name}", part))
                for name, part in state["_modules"].items()
            ],
        )

    def plain(self, path: str, value: Any, depth: int = 0) -> tuple:
        kind = type(value)
        if kind in _PLAIN:
            return (kind.__name__, repr(value))
        if kind in (torch.Tensor, nn.Parameter):
            return self._tensor(path, value)
        if kind in _CONTAINERS and depth < _MAX_DEPTH:
            self._saw(value)
            items = value.items() if isinstance(value, dict) else value
            parts = [self.plain(path, item, depth + 1) for item in items]
            return (kind.__name__, sorted(parts) if kind in (set, frozenset) else parts)
        for owner in (F, torch):  # for example an activation that is passed as a function
            name = getattr(value, "__name__", None)
            if isinstance(name, str) and _NAMES[owner].get(name) is value:
                return (owner.__name__, name)
        raise UnknownEncoder(f"{path} is a {kind.__module__}.{kind.__qualname__}")

    def _tensor(self, path: str, tensor: torch.Tensor) -> tuple:
        if id(tensor) not in self._tensors:
            if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
                raise UnknownEncoder(f"{path} is a tensor whose values cannot be read")
            self.tensors.append(tensor)
            data = b""
            if self._read:
                values = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
                data = _sha256(values.flatten().view(torch.uint8).numpy().data)
            self._tensors[id(tensor)] = (repr(tensor.dtype), tuple(tensor.shape), data)
        return self._tensors[id(tensor)]

    def _own_class(self, path: str, cls: type) -> list:
        """Check that a class is an unmodified one of torch or skfair; list its settings."""
        home = sys.modules.get(cls.__module__)
        if not (
            cls.__module__.startswith(_OWN_MODULES)
            and getattr(home, cls.__qualname__, None) is cls
            and type(cls) is type
        ):
            raise UnknownEncoder(f"{path} is a {cls.__module__}.{cls.__qualname__}")
        bases = [base for base in cls.__mro__ if issubclass(base, nn.Module)]
        return [setting for base in bases for setting in self._own_members(base)]

    def _own_members(self, base: type) -> list:
        if base not in self._settings:
            self._settings[base] = [
                (name, self.plain(f"{base.__qualname__}.{name}", member))
                for name, member in sorted(vars(base).items())
                if not is_as_written(base, name, _untagged(base, name, member))
                and not (base is nn.Module and name in _ADDED)
                # Such as __doc__, and __slotnames__, which pickle adds.
                and not (name.startswith("__") and isinstance(member, _SPECIAL_DATA))
            ]
        return self._settings[base]

    def _saw(self, collection: Collection) -> None:
        parts = [collection]
        if collection and isinstance(collection, dict):
            parts.append(collection.values())
        for part in parts:
            self._collections.append(part)
            self._items += part
            self._sizes.append(len(part))


def _untagged(base: type, name: str, member: Any) -> Any:
    """Return a method of nn.Module as it was before torch compiled."""
    code = getattr(member, "__code__", None)
    if base is nn.Module and name in _TAGGED and getattr(code, "co_filename", 0) == _TAGGING_FILE:
        return member.__closure__[0].cell_contents
    return member


def _are_the_same(some: Iterable, others: Iterable) -> bool:
    return all(map(operator.is_, some, others))


def is_as_written(cls: type, name: str, member: Any) -> bool:
    """Tell whether a member of a class is an unmodified method from the file of the class.

    Parameters
    ----------
    cls : type
    name : str
    member : object
        The member of `cls` with this name.

    Returns
    -------
    bool
    """
    if isinstance(member, typing.TypeVar):  # for annotations
        return True
    if isinstance(member, property):
        functions = [part for part in (member.fget, member.fset, member.fdel) if part is not None]
    else:
        functions = [getattr(member, "__func__", member)]  # of a static or class method
    file = sys.modules[cls.__module__].__file__
    return all(
        isinstance(function, types.FunctionType)
        and function.__code__.co_filename == file
        and set(function.__code__.co_freevars) <= {"__class__", "__classdict__"}
        and (
            function.__code__.co_qualname.startswith(f"{cls.__qualname__}.")
            or (cls, name, function.__name__) == (nn.Module, "forward", "_forward_unimplemented")
        )
        for function in functions
    )


def check_modes() -> None:
    """Refuse hooks and modes of torch that apply to all modules.

    Raises
    ------
    UnknownEncoder
    """
    module = nn.modules.module
    if module._global_forward_hooks or module._global_forward_pre_hooks:
        raise UnknownEncoder("torch has forward hooks for all modules")
    modes = _get_current_function_mode_stack()
    if _get_current_dispatch_mode() is not None or {type(m) for m in modes} - {DeviceContext}:
        raise UnknownEncoder("torch is in a mode that replaces its functions")


def _check_torch() -> None:
    """Refuse a torch whose functions were replaced."""
    check_modes()
    if _REPLACED:
        raise UnknownEncoder(f"torch's {min(_REPLACED)} has been replaced")
    for owner, names in _NAMES.items():
        now = vars(owner)
        replaced = []
        if not _are_the_same(map(now.get, names), names.values()):
            replaced = [name for name, member in names.items() if now.get(name) is not member]
        if owner is torch.Tensor:  # a new Python method hides one in C
            new = [name for name in now.keys() - names.keys() if isinstance(now[name], _KINDS)]
            replaced += [name for name in new if hasattr(torch._C.TensorBase, name)]
        if replaced:
            raise UnknownEncoder(f"torch's {min(replaced)} has been replaced")


def _digest(parts: tuple) -> bytes:
    return _sha256(repr(parts).encode())


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()
