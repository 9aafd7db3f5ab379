"""Remembers the digest of an encoder's contents while nothing shows that they changed."""

import operator
from collections.abc import Hashable
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from skfair.base._networks import copied
from skfair.featurize._fingerprint import (
    UnknownEncoder,
    Walk,
    check_modes,
    check_module,
    module_digest,
)

_STATE = (
    operator.attrgetter("_version"),
    *(torch.Tensor.data_ptr, torch.Tensor.stride, torch.Tensor.is_neg),
    *(operator.attrgetter("shape"), operator.attrgetter("dtype")),
)
_SMALL = 2**14  # bytes of a tensor that is read completely
_PLACES, _RUN = 8, 16  # of the sample of a larger one: values in a row, at equal distances


def remembered_digest(module: nn.Module) -> bytes | None:
    """Return the digest of a module if :func:`frozen_copy` has read the same contents before.

    The function does not read all weights. A change of the contents is seen if it changes a layer,
    an attribute, a small tensor, or the memory, the version (torch counts operations that write to
    a tensor) or a sample of the values of a large tensor. Other changes are not seen: torch does
    not count writes through ``Tensor.data``, NumPy arrays or fused optimizers. Replaced functions
    and classes of torch are not seen either.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    bytes or None
        None if the contents have to be read.
    """
    kept = _remembered.get(module) if isinstance(module, Hashable) else None
    try:
        check_modes()
    except UnknownEncoder:
        return None
    return kept[1] if kept is not None and kept[0].is_unchanged(module) else None


def frozen_copy(module: nn.Module) -> tuple[nn.Module, bytes]:
    """Copy a module with its contents; remember their digest.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    tuple of torch.nn.Module and bytes
        The copy, and its digest.

    Raises
    ------
    UnknownEncoder
        As :func:`~skfair.featurize._fingerprint.check_module`.
    """
    check_module(module)  # unknown code may copy itself in an unknown way
    trace = _Trace(module)  # before the copy: another thread may change the module meanwhile
    copy = copied(module, weight_of=lambda t: t.detach().clone())
    digest = module_digest(copy)
    if trace.is_complete:
        _remembered[module] = trace, digest
    return copy, digest


class _Trace:
    """What shows that the contents of a module changed, without reading all of them.

    Parameters
    ----------
    module : torch.nn.Module

    Attributes
    ----------
    is_complete : bool
        Whether the trace shows changes. It does not for tensors on an accelerator, in shared
        memory, without a version, of complex or negated numbers, or with gaps or overlaps.
    """

    def __init__(self, module: nn.Module) -> None:
        self._walk = Walk(read=False)
        self._walk.module("encoder", module)
        parts = [module, *self._walk.parts]
        # A trace that holds its module would keep it for ever.
        holds = any(child is module for part in parts for child in part.children())
        self.is_complete = not holds and all(map(_is_traceable, self._walk.tensors))
        if not self.is_complete:
            return
        self._default_dtype = torch.get_default_dtype()
        self._states = self._read_states()
        self._small: list[memoryview] = []  # these share, and keep, the memory of the tensors
        # Tensors, and the shapes and strides of their samples; by dtype and length of a run.
        self._large: dict[tuple, tuple[list, list, list]] = {}
        # A weak reference tells whether other data may be at the same address now.
        self._memory: list[StorageWeakRef] = []
        for tensor in self._walk.tensors:
            storage = tensor.untyped_storage()
            if storage.nbytes() <= _SMALL and tensor.is_contiguous():
                values = tensor.detach().flatten().view(torch.uint8).numpy()
                self._small.append(values.data)
            else:
                length = min(_RUN, tensor.numel())
                group = self._large.setdefault((tensor.dtype, length), ([], [], []))
                step = (tensor.numel() - length) // (_PLACES - 1)
                for items, item in zip(group, (tensor, (_PLACES, length), (step, 1)), strict=True):
                    items.append(item)
                self._memory.append(StorageWeakRef(storage))
        self._values = self._read_values()

    def is_unchanged(self, module: nn.Module) -> bool:
        """Whether nothing shows a change."""
        return (
            self._walk.is_unchanged(module)
            and self._default_dtype == torch.get_default_dtype()
            and self._states == self._read_states()
            and not any(storage.expired() for storage in self._memory)
            and self._values == self._read_values()
        )

    def _read_states(self) -> list[list]:
        return [list(map(read, self._walk.tensors)) for read in _STATE]

    @torch.inference_mode()
    def _read_values(self) -> list[bytes]:
        samples = [map(torch.Tensor.as_strided, *group) for group in self._large.values()]
        parts = [torch.cat([*sample]) for sample in samples]
        sampled = [part.view(torch.uint8).numpy().tobytes() for part in parts]
        return [b"".join(self._small), *sampled]


def _is_traceable(tensor: torch.Tensor) -> bool:
    dense = tensor.is_contiguous() or any(
        tensor.dim() == n_axes and tensor.is_contiguous(memory_format=order)
        for n_axes, order in ((4, torch.channels_last), (5, torch.channels_last_3d))
    )
    return (
        tensor.device.type == "cpu"
        and dense
        and not tensor.is_neg()
        and not tensor.is_inference()
        and not tensor.is_complex()  # its conjugate has the same memory and version
        and not tensor.is_shared()
    )


_remembered: WeakKeyDictionary[nn.Module, tuple[_Trace, bytes]] = WeakKeyDictionary()
