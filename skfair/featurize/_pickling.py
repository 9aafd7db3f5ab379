"""Pickles of torch modules that depend on nothing but the module.

Torch pickles a tensor with the address of its memory, so that joblib, which tells arguments by
their pickle, never finds a fitted ``Pipeline(memory=...)`` step again; and a module from a GPU
cannot be loaded on a machine without one. Arrays have neither trouble.
"""

import contextlib
import copy
from typing import Any

import numpy as np
import torch

from skfair.utils._device import resolve_device
from skfair.utils._networks import check_picklable


def portable(module: torch.nn.Module) -> torch.nn.Module:
    """Copy a module's structure for pickling; the pickle loads as the module itself.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        With stand-ins for its weights and buffers: of no use but to be pickled.

    Raises
    ------
    TypeError
        Torch cannot pickle it.
    """
    check_picklable(module, "encoder")
    tensors = [*module.parameters(), *module.buffers()]
    for part in module.modules():  # what weight norm keeps of its last run
        values = [v for v in vars(part).values() if isinstance(v, torch.Tensor)]
        tensors += [value for value in values if not value.is_leaf]
    plain = (torch.Tensor, torch.nn.Parameter)
    return copy.deepcopy(
        module,
        {id(t): _Portable(t) for t in tensors if type(t) in plain and t.layout == torch.strided},
    )


class _Portable:
    """Stands for a tensor in a pickle, and is one when loaded."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def __reduce__(self) -> tuple:
        tensor = self.tensor
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return _rebuild, (
            data,
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            str(tensor.device),
            tensor.requires_grad and tensor.is_leaf,
            isinstance(tensor, torch.nn.Parameter),
        )


def _rebuild(
    data: np.ndarray,
    dtype: str,
    shape: tuple[int, ...],
    device: str,
    requires_grad: bool,
    is_parameter: bool,
) -> Any:
    tensor = torch.from_numpy(np.array(data)).view(getattr(torch, dtype)).reshape(shape)
    with contextlib.suppress(ValueError):  # this machine may have no such device, or fewer of them
        tensor = tensor.to(resolve_device(device))
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)
