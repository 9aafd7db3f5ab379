"""A device that computes on the CPU and is as strict as a GPU about where tensors are.

A plugin of pytest (``-p``), for a process of its own: devices cannot be unregistered. What a GPU
refuses, it refuses: operations on tensors of two devices, ``numpy()`` without ``cpu()``, and
generators of another device. It is made of what torch has for backends that are written in Python,
which is experimental.
"""

import numpy as np
import torch
from torch.utils._pytree import tree_iter, tree_map_only

NAME = "pretend"
_aten = torch.ops.aten
_kept: list[torch.library.Library] = []


class PretendTensor(torch.Tensor):
    """Claims to be on the device; its values are in `raw`, on the CPU."""

    @staticmethod
    def __new__(cls, raw, requires_grad=False):
        return torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(),
            dtype=raw.dtype, device=torch.device(NAME, 0), requires_grad=requires_grad,
        )  # fmt: skip

    def __init__(self, raw, requires_grad=False):
        self.raw = raw

    def __repr__(self):
        return f"PretendTensor({self.raw})"

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copied = PretendTensor(self.raw.detach().clone())
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied)
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def numpy(self, *, force=False):
        if not force:
            raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu()")
        return self.raw.detach().numpy()

    def __array__(self, *args, **kwargs) -> np.ndarray:
        return self.numpy()

    def untyped_storage(self):
        return self.raw.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


def _run(operation, args, kwargs):
    if operation is _aten.copy_.default:  # between any two devices
        target, source = (getattr(tensor, "raw", tensor) for tensor in args[:2])
        target.copy_(source)
        return args[0]
    if torch._C._dispatch_has_kernel_for_dispatch_key(
        operation.name(), "CompositeImplicitAutograd"
    ):
        return operation.decompose(*args, **kwargs)
    device = kwargs.get("device")
    ours = device is None or torch.device(device).type == NAME
    tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    elsewhere = [t for t in tensors if not isinstance(t, PretendTensor) and t.ndim > 0]
    if elsewhere:  # numbers may come from the CPU, and nothing else
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {operation} got "
            f"{[(str(t.device), tuple(t.shape)) for t in tensors]}"
        )
    if any(isinstance(leaf, torch.Generator) for leaf in tree_iter(kwargs)):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    known = {id(t.raw): t for t in tensors if isinstance(t, PretendTensor)}
    raw_args, raw_kwargs = tree_map_only(PretendTensor, lambda t: t.raw, (args, kwargs))
    output = operation(*raw_args, **raw_kwargs)
    if not ours:
        return output
    # What works in place returns what it was given.
    return tree_map_only(
        torch.Tensor, lambda t: known[id(t)] if id(t) in known else PretendTensor(t), output
    )


class _Backend:
    """What torch asks a backend's module for."""

    generator = torch.Generator()

    def is_initialized(self):
        return True

    def is_available(self):
        return True

    def is_in_bad_fork(self):
        return False

    _is_in_bad_fork = is_in_bad_fork

    def current_device(self):
        return 0

    def device_count(self):
        return 1

    def manual_seed(self, seed):
        self.generator.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, device=None):
        return self.generator.get_state()

    def set_rng_state(self, state, device=None):
        self.generator.set_state(state)

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]

    def synchronize(self, device=None):
        pass


def _factories():
    """Operations that make tensors out of none."""
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full.partition("::")
        if namespace != "aten":
            continue
        name, _, overload = name.partition(".")
        try:
            operation = getattr(getattr(_aten, name), overload or "default")
        except (AttributeError, RuntimeError):
            continue
        arguments, returns = operation._schema.arguments, operation._schema.returns
        takes_tensors = any("Tensor" in str(argument.type) for argument in arguments)
        if (
            any(argument.name == "device" for argument in arguments)
            and not takes_tensors
            and [str(value.type) for value in returns] == ["Tensor"]
            and not torch._C._dispatch_has_kernel_for_dispatch_key(
                operation.name(), "CompositeImplicitAutograd"
            )
        ):
            yield full.removeprefix("aten::"), operation


def _kernel(operation):
    def make(*args, device=None, pin_memory=None, **kwargs):
        with torch.no_grad():
            return PretendTensor(operation(*args, **kwargs, device="cpu"))

    return make


def _copy_from(source, target, non_blocking=False):
    getattr(target, "raw", target).copy_(getattr(source, "raw", source))
    return target


def pytest_configure(config):
    """Let ``torch.device("pretend")`` be, from now to the end of the process."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    delattr(torch.nn.Module, NAME)  # or torch's classes would not be as torch wrote them
    # `tensor.data = other` would leave `raw` behind.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    library = torch.library.Library("aten", "IMPL")
    for name, operation in _factories():
        library.impl(name, _kernel(operation), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    _kept.append(library)  # as long as it lives, so do its operations
