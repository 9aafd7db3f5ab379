"""The state of a fitted estimator as plain objects and NumPy arrays, for pickle, skops and MLflow.

Torch pickles a tensor with the address of its memory. joblib compares arguments by their pickle, so
it would never find a fitted step of ``Pipeline(memory=...)`` again. A machine without a GPU cannot
load a tensor from a GPU. skops supports neither tensors nor tables. So a state holds stand-ins for
both. skops writes a stand-in as a call of its class with arrays, and this call returns the tensor
or table. No part of a network is copied before it is written.
"""

import contextlib
import copy
import copyreg
import functools
from collections import OrderedDict
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from skfair.base._networks import check_picklable, copied
from skfair.utils._device import resolve_device


class PortableState:
    """Mixin for estimators with networks: their state consists of plain objects and arrays.

    ``copy`` copies the estimator directly, without this state.
    """

    # Networks load on the CPU, and not on their former device.
    _travels_on_the_cpu = True

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        for name, value in state.items():
            if isinstance(value, nn.Module):
                check_picklable(value, name)
        return StandIns(on_cpu=self._travels_on_the_cpu).of(dict(state))

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        vars(made).update(vars(self))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        for value in vars(self).values():
            if isinstance(value, nn.Module):
                copied(value, memo=memo)
        vars(made).update(copy.deepcopy(vars(self), memo))
        return made


class StandIns:
    """Replace tensors, networks, tables and torch dtypes of a state by stand-ins.

    Objects that are shared in the state are shared in the result.

    Parameters
    ----------
    on_cpu : bool
        Whether tensors load on the CPU; otherwise they load on their device, if it exists.
    """

    def __init__(self, *, on_cpu: bool):
        self._on_cpu = on_cpu
        self._made: dict[
            int, tuple[Any, Any]
        ] = {}  # by id; the value is kept so that its id stays in use

    def of(self, value: Any) -> Any:
        """Return a stand-in for a value, or the value itself if it contains nothing to replace."""
        if id(value) in self._made:
            return self._made[id(value)][1]
        made: Any = value
        if type(value) in (dict, OrderedDict):
            # Registered before its items, which may refer to it.
            made = self._keep(value, type(value)())
            made.update((key, self.of(item)) for key, item in value.items())
        elif type(value) is list:
            made = self._keep(value, [])
            made += map(self.of, value)
        elif type(value) is tuple:
            made = self._keep(value, tuple(map(self.of, value)))
        elif type(value) in (torch.Tensor, nn.Parameter) and _has_plain_memory(value):
            made = self._keep(value, _stand_in(TensorState, value))
            made.on_cpu, made.attributes = self._on_cpu, self.of(vars(value))
        elif isinstance(value, torch.Tensor) and self._on_cpu and value.device.type != "cpu":
            made = value.detach().cpu()  # a subclass of Tensor
            if isinstance(value, nn.Parameter):
                made = nn.Parameter(made, requires_grad=value.requires_grad)
            made = self._keep(value, made)
        elif isinstance(value, torch.dtype):
            made = self._keep(value, _stand_in(DtypeState, value))
        elif type(value) is pd.DataFrame and _has_plain_rows(value):
            made = self._keep(value, _stand_in(TableState, value))
        elif isinstance(value, nn.Module) or (
            type(value) is FrozenEstimator and isinstance(value.estimator, nn.Module)
        ):
            made = self._of_network(value)
        return made

    def _keep(self, value: Any, made: Any) -> Any:
        self._made[id(value)] = value, made
        return made

    def _of_network(self, value: Any) -> Any:
        made_by, arguments, *rest = value.__reduce_ex__(4)
        as_any_object = made_by is copyreg.__newobj__  # type: ignore[attr-defined]
        if not as_any_object or len(arguments) > 1 or any(rest[1:]):
            # It defines its own pickling, which stays in use.
            if self._on_cpu and isinstance(value, nn.Module):
                return self._keep(value, copy.deepcopy(value).cpu())
            return self._keep(value, value)
        made = self._keep(value, _stand_in(ObjectState, value))
        made.state = self.of(rest[0])
        return made


def _stand_in(kind: type, value: Any) -> Any:
    made: Any = object.__new__(kind)  # `kind(...)` would return the original
    made.value = value
    return made


def _has_plain_memory(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)


class TensorState:
    """Stands for a tensor: the bytes of its memory, since some dtypes do not exist in NumPy."""

    value: torch.Tensor
    on_cpu: bool
    attributes: dict[str, Any]

    def __new__(
        cls,
        data: np.ndarray,
        dtype: str,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        device: str,
        requires_grad: bool,
        is_parameter: bool,
        attributes: dict[str, Any],
    ) -> Any:
        with torch.inference_mode(False):  # otherwise the tensor could never be trained
            # New memory, since the array may be a read-only map of a file.
            tensor = torch.empty_strided(shape, strides, dtype=getattr(torch, dtype), device="cpu")
            tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()[:] = data
            with contextlib.suppress(ValueError):  # this machine may not have this device
                tensor = tensor.to(resolve_device(device))
            if is_parameter:
                tensor = nn.Parameter(tensor, requires_grad=requires_grad)
            else:
                tensor.requires_grad_(requires_grad)
        vars(tensor).update(attributes)
        return tensor

    @functools.cached_property
    def _arguments(self) -> tuple:  # cached, so that shared arrays are written once
        tensor = self.value.detach().cpu()
        if not tensor.is_contiguous():
            tensor = tensor.clone()  # dense, with the same order of axes
        flat = tensor.as_strided((tensor.numel(),), (1,))
        return (
            flat.view(torch.uint8).numpy(),
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            tuple(tensor.stride()),
            "cpu" if self.on_cpu else str(self.value.device),
            self.value.requires_grad,
            isinstance(self.value, nn.Parameter),
            self.attributes,
        )

    def __reduce__(self) -> tuple:
        return TensorState, self._arguments


class DtypeState:
    """Stands for a dtype of torch, which skops does not support."""

    value: torch.dtype

    def __new__(cls, name: str) -> Any:
        return getattr(torch, name)

    def __reduce__(self) -> tuple:
        return DtypeState, (str(self.value).removeprefix("torch."),)


class ObjectState:
    """Stands for a network: its class, and the state that the class returns."""

    value: nn.Module
    state: dict[str, Any]

    def __new__(cls, kind: type, state: dict[str, Any]) -> Any:
        made: Any = _empty(kind)
        made.__setstate__(state)
        return made

    def __reduce__(self) -> tuple:  # for skops: a call of this class
        return ObjectState, (type(self.value), self.state)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        # As pickle does for any object: it exists before its state, which may refer to it.
        return _empty, (type(self.value),), self.state


def _empty(kind: Any) -> Any:
    return kind.__new__(kind)


def _has_plain_rows(table: pd.DataFrame) -> bool:
    index = table.index
    numbered = isinstance(index, pd.RangeIndex) and (index.start, index.step) == (0, 1)
    names = table.columns
    return numbered and len(names) > 0 and names.is_unique and all(type(n) is str for n in names)


class TableState:
    """Stands for a table with numbered rows: an array for each column."""

    value: pd.DataFrame

    def __new__(
        cls, n_rows: int, index_name: str | None, columns: dict[str, tuple[str, np.ndarray]]
    ) -> Any:
        return pd.DataFrame(
            {name: pd.Series(values, dtype=dtype) for name, (dtype, values) in columns.items()}
        ).set_axis(pd.RangeIndex(n_rows, name=index_name))

    def __reduce__(self) -> tuple:
        table = self.value
        columns = {name: (str(of.dtype), of.to_numpy()) for name, of in table.items()}
        return TableState, (len(table), table.index.name, columns)
