"""Fingerprints of encoders: the part of a stored feature's key that changes when its maker does.

A fingerprint covers all that decides what an object computes: its data (weights, attributes,
closures, defaults) and its code, followed through the functions and globals that it names.
Code of installed packages is identified by name and version. What cannot be followed
with certainty is refused, because a wrong guess would return another encoder's features.
"""

import collections
import dis
import enum
import functools
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
import types
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

_PLAIN = {
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis)),
    *(type(NotImplemented), torch.dtype, torch.device, torch.memory_format),
}
_CONTAINERS = (
    *(dict, collections.OrderedDict, collections.defaultdict),
    *(list, tuple, torch.Size, set, frozenset),
)
_FORWARD_HOOKS = {"_forward_hooks", "_forward_pre_hooks"}
_OTHER_HOOKS = {name for name in vars(torch.nn.Module()) if "hook" in name} - _FORWARD_HOOKS
_DESCRIPTORS = (staticmethod, classmethod, property)
# Written into classes by the interpreter, in some processes and not in others.
_SKIPPED_MEMBERS = {"_abc_impl", "__annotate__", "__annotate_func__", "__annotations_cache__"}
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement (or the like in C)


def fingerprint(**parts: Any) -> bytes:
    """Fingerprint named objects.

    Parameters
    ----------
    **parts : object
        The objects; errors call them by these names.

    Returns
    -------
    bytes
        32 bytes, the same in each process that has the same objects, code and package versions.

    Raises
    ------
    TypeError
        Something in them cannot be fingerprinted: an open connection, a lock, compiled code.

    Examples
    --------
    >>> fingerprint(scale=2.0) == fingerprint(scale=2.0)
    True
    >>> fingerprint(scale=lambda x: 2 * x) == fingerprint(scale=lambda x: 3 * x)
    False
    """
    walk = _Walk()
    return walk.combine("parts", *(walk.visit(name, part) for name, part in parts.items()))


def fingerprint_onnx(path: str | os.PathLike) -> bytes:
    """Fingerprint an ONNX model: its file and the files in which it keeps its weights.

    Parameters
    ----------
    path : path-like
        The ``.onnx`` file.

    Returns
    -------
    bytes
        32 bytes.
    """
    digest = hashlib.sha256()
    for file in onnx_files(path):
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.digest()


def onnx_files(path: str | os.PathLike) -> list[Path]:
    """List the files of an ONNX model, in the order in which it names them.

    Parameters
    ----------
    path : path-like
        The ``.onnx`` file.

    Returns
    -------
    list of Path
        That file, and those that hold weights outside of it and are there.
    """
    path = Path(path)
    model = path.read_bytes()
    files = [path]
    # A tensor kept outside has an entry {key: "location", value: file name}: field 1 and field 2
    # of a protobuf message, each with its length before it.
    for match in re.finditer(rb"\x0a\x08location\x12([\x00-\x7f]|[\x80-\xff][\x00-\x7f])", model):
        size = match[1][0] if len(match[1]) == 1 else (match[1][0] & 127) | (match[1][1] << 7)
        file = path.parent / os.fsdecode(model[match.end() : match.end() + size])
        if file not in files and file.is_file():
            files.append(file)
    return files


class _Walk:
    """One walk over an object graph; remembers what it has seen."""

    def __init__(self) -> None:
        self._done: dict[int, bytes] = {}
        self._open: list[int] = []
        self._alive: list[Any] = []  # an id is only good while its object lives
        self._path: list[str] = []

    @staticmethod
    def combine(tag: str, *digests: bytes) -> bytes:
        return hashlib.sha256(
            b"\0".join([tag.encode(), *(d.hex().encode() for d in digests)])
        ).digest()

    def visit(self, name: str, obj: Any) -> bytes:
        """Digest a named part, so that an error can say where it was found."""
        self._path.append(name)
        digest = self.combine("named", name.encode(), self.digest(obj))
        self._path.pop()
        return digest

    def digest(self, obj: Any) -> bytes:
        if type(obj) in _PLAIN or isinstance(obj, PurePath | np.dtype):
            return self.combine("plain", type(obj).__qualname__.encode(), repr(obj).encode())
        if id(obj) in self._done:
            return self._done[id(obj)]
        if id(obj) in self._open:
            return self.combine("cycle", str(self._open.index(id(obj))).encode())
        self._open.append(id(obj))
        digest = self._dispatch(obj)
        self._open.pop()
        self._alive.append(obj)
        self._done[id(obj)] = digest
        return digest

    def _dispatch(self, obj: Any) -> bytes:
        if isinstance(obj, torch.Tensor):
            return self._tensor(obj)
        if isinstance(obj, np.ndarray | np.generic) and not obj.dtype.hasobject:
            array = np.ascontiguousarray(obj)
            return self.combine(
                "array", repr((array.dtype.str, np.shape(obj))).encode(), _sha256(array)
            )
        if isinstance(obj, torch.nn.Module):
            return self._torch_module(obj)
        if isinstance(obj, enum.Enum):
            return self.combine("enum", self.digest(type(obj)), obj.name.encode())
        if isinstance(obj, type):
            return self._class(obj)
        if isinstance(obj, types.FunctionType):
            return self._function(obj)
        if isinstance(obj, types.MethodType):
            return self.combine("method", self.digest(obj.__func__), self.digest(obj.__self__))
        if isinstance(obj, functools.partial):
            return self.combine(
                "partial", self.digest(obj.func), self.digest(obj.args), self.digest(obj.keywords)
            )
        if isinstance(obj, types.BuiltinFunctionType | types.MethodDescriptorType | np.ufunc):
            return self._builtin(obj)
        if _is_public(obj):  # np.clip, functions compiled with Cython
            return self.combine("public", _name_and_version(obj.__module__), obj.__name__.encode())
        if isinstance(obj, types.ModuleType):
            return self.combine("module", _name_and_version(obj.__name__))
        if isinstance(obj, types.CodeType):
            return self._code(obj)
        if isinstance(obj, logging.Logger):
            return self.combine("logger", obj.name.encode())
        if isinstance(obj, staticmethod | classmethod):
            return self.combine(type(obj).__name__, self.digest(obj.__func__))
        if isinstance(obj, property):
            return self.combine("property", *map(self.digest, (obj.fget, obj.fset, obj.fdel)))
        return self._instance(obj)

    def _refuse(self, obj: Any) -> None:
        raise TypeError(
            f"memory keeps features by a fingerprint of what made them, and {'.'.join(self._path)} "
            f"holds a {type(obj).__module__}.{type(obj).__qualname__}, which cannot be "
            "fingerprinted. Pass encoder_id='a name of your own', and another one whenever encoder "
            "or preprocess changes."
        )

    def _tensor(self, tensor: torch.Tensor) -> bytes:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            self._refuse(tensor)
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        kind = repr((tensor.dtype, tuple(tensor.shape)))
        return self.combine("tensor", kind.encode(), _sha256(data))

    def _torch_module(self, module: torch.nn.Module) -> bytes:
        module = getattr(module, "_orig_mod", module)  # what torch.compile has wrapped
        if isinstance(module, torch.jit.ScriptModule):
            self._refuse(module)
        state = {
            name: value
            for name, value in vars(module).items()
            # Encoders run in eval mode and without gradients.
            if name != "training" and name not in _OTHER_HOOKS
        }
        if isinstance(module, torch.fx.GraphModule):
            state = {name: state[name] for name in ("_parameters", "_buffers", "_modules")}
            state["code"] = module.code
            kind = b"GraphModule"  # each instance has a class of its own
        else:
            kind = self.digest(type(module))
        for name in _FORWARD_HOOKS & state.keys():
            state[name] = list(state[name].values())  # keys count up within a process
        return self.combine("torch", kind, *self._named(state))

    def _named(self, state: dict[str, Any]) -> list[bytes]:
        return [self.visit(name, state[name]) for name in sorted(state)]

    def _class(self, cls: type) -> bytes:
        name = f"{cls.__module__}.{cls.__qualname__}".encode()
        if not cls.__flags__ & _HEAP_TYPE or _is_installed(cls.__module__):
            return self.combine("class", name, _name_and_version(cls.__module__))
        members = {
            key: value
            for key, value in vars(cls).items()
            if key not in _SKIPPED_MEMBERS
            and not isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType)
            # Special names hold code, or notes such as __doc__, __dataclass_fields__ and
            # __slotnames__, which pickle adds when it first meets the class.
            and (not key.startswith("__") or callable(value) or isinstance(value, _DESCRIPTORS))
        }
        bases = [self.digest(base) for base in cls.__bases__]
        return self.combine("class", cls.__qualname__.encode(), *bases, *self._named(members))

    def _function(self, function: types.FunctionType) -> bytes:
        digests = [
            self._code(function.__code__),
            self.digest(function.__defaults__),
            self.digest(function.__kwdefaults__),
        ]
        variables = function.__code__.co_freevars
        for name, cell in zip(variables, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            digests.append(self.visit(name, value))
        if _is_installed(function.__module__):
            digests.append(_name_and_version(function.__module__))
        else:
            digests += self._globals(function)
        return self.combine("function", *digests)

    def _globals(self, function: types.FunctionType) -> list[bytes]:
        """Digest what a user's function reaches by name outside itself."""
        loaded: set[str] = set()
        attributes: set[str] = set()
        imported: set[str] = set()
        codes = [function.__code__]
        while codes:
            code = codes.pop()
            codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
            attributes.update(code.co_names)
            for instruction in dis.get_instructions(code):
                if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                    loaded.add(instruction.argval)
                elif instruction.opname == "IMPORT_NAME":
                    imported.add(instruction.argval)
        digests = []
        for name in sorted(loaded & function.__globals__.keys()):
            value = function.__globals__[name]
            if isinstance(value, types.ModuleType):
                digests.append(self._python_module(name, value, attributes, depth=0))
            else:
                digests.append(self.visit(name, value))
        for name in sorted(imported):
            module = sys.modules.get(name)
            if not _is_installed(name) and module is None:
                self._path.append(f"import {name}")
                self._refuse(function)
            digests.append(
                self._python_module(name, module, attributes, depth=0)
                if module is not None
                else _name_and_version(name)
            )
        return digests

    def _python_module(
        self, name: str, module: types.ModuleType, attributes: set[str], depth: int
    ) -> bytes:
        """Digest a module by the attributes of it that code may use."""
        if _is_installed(module.__name__) or depth > 8:
            return self.digest(module)
        digests = []
        for attribute in sorted(attributes & vars(module).keys()):
            value = getattr(module, attribute)
            if isinstance(value, types.ModuleType):
                digests.append(self._python_module(attribute, value, attributes, depth + 1))
            else:
                digests.append(self.visit(attribute, value))
        return self.combine("module", name.encode(), *digests)

    def _code(self, code: types.CodeType) -> bytes:
        # Not the file, the line numbers and the docstring's place: moving code does not change it.
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        shape = (code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags)
        return self.combine(
            "code",
            code.co_code,
            repr((names, shape)).encode(),
            code.co_exceptiontable,
            *map(self.digest, code.co_consts),
        )

    def _builtin(self, function: Any) -> bytes:
        bound = getattr(function, "__self__", None)
        owner = b"" if bound is None or isinstance(bound, types.ModuleType) else self.digest(bound)
        module = getattr(function, "__module__", None) or ""
        name = getattr(function, "__qualname__", function.__name__)
        return self.combine("builtin", _name_and_version(module), name.encode(), owner)

    def _instance(self, obj: Any) -> bytes:
        kind = type(obj)
        opaque = [
            base
            for base in kind.__mro__
            if not base.__flags__ & _HEAP_TYPE and base not in (object, *_CONTAINERS)
        ]
        slots = [
            name
            for base in kind.__mro__
            for name, member in vars(base).items()
            if isinstance(member, types.MemberDescriptorType)
        ]
        is_container = isinstance(obj, _CONTAINERS)
        has_slots = any("__slots__" in vars(base) for base in kind.__mro__)
        if opaque or not (is_container or hasattr(obj, "__dict__") or has_slots):
            self._refuse(obj)
        digests = [self.digest(kind)]
        if isinstance(obj, dict):
            for key, value in obj.items():
                digests += [self.digest(key), self.visit(str(key), value)]
        elif isinstance(obj, set | frozenset):
            digests += sorted(map(self.digest, obj))
        elif is_container:
            digests += [self.visit(str(index), value) for index, value in enumerate(obj)]
        state = dict(getattr(obj, "__dict__", {}))
        state.update((name, getattr(obj, name)) for name in slots if hasattr(obj, name))
        return self.combine("instance", *digests, *self._named(state))


def _sha256(array: np.ndarray) -> bytes:
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest()


@functools.cache
def _is_installed(module: str | None) -> bool:
    """Whether code comes with python or from an installed package, and so has a version."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    if top in ("__main__", "__mp_main__"):  # in a worker this is the worker's, with a file
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module made on the fly
        return False
    files = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return any({"site-packages", "dist-packages"} & set(Path(file).parts) for file in files if file)


def _is_public(obj: Any) -> bool:
    """Whether an installed package has this very object under the name that it calls itself."""
    module, name = getattr(obj, "__module__", None), getattr(obj, "__name__", None)
    return (
        isinstance(module, str)
        and isinstance(name, str)
        and _is_installed(module)
        and getattr(sys.modules.get(module), name, None) is obj
    )


@functools.cache
def _name_and_version(module: str) -> bytes:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or not top:
        version: Any = ".".join(map(str, sys.version_info[:2]))
    else:
        version = getattr(sys.modules.get(top), "__version__", None)
        if version is None:
            try:
                version = importlib.metadata.version(top)
            except importlib.metadata.PackageNotFoundError:
                version = ""
    return f"{module} {str(version).partition('+')[0]}".encode()
