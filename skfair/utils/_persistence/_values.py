"""Saved estimators: values as JSON and tensors, and back.

Numbers, text and lists are themselves. Everything else is a dict of one key, the name of what
it is: ``{"tuple": [...]}``, ``{"array": ...}``. Arrays of more than a few entries, and what JSON
cannot hold, go among the tensors.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from skfair.utils._persistence._files import InvalidModelError

_INLINE = 32  # entries of an array that is written out, for people to read
_KINDS = "biuf"
# What NumPy, pandas, torch and scikit-learn raise of content that makes no sense.
MALFORMED = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)
_MOST_KEYS = 10_000  # of a dict; keys can be made to meet, and more would take hours
_TORCH_DTYPES = {
    str(value).removeprefix("torch."): value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype)
}
_TEXT_DTYPES = ("object", "str", "string")
_PLAIN_TYPES = {"bool": bool, "float": float, "int": int, "str": str}


class Unsaveable(TypeError):
    """A value that is not data."""


class ValueWriter:
    """Turn values into JSON, and collect their tensors.

    Parameters
    ----------
    other : callable
        ``f(value, path)`` turns what is no plain value into JSON.

    Attributes
    ----------
    tensors : dict of str to tensor
        By the names under which the JSON knows them.
    """

    def __init__(self, other: Callable[[Any, str], Any]):
        self.tensors: dict[str, torch.Tensor] = {}
        self._other = other

    def write(self, value: Any, path: str) -> Any:
        """Turn one value into JSON.

        Parameters
        ----------
        value : object
        path : str
            Where it is, for names and messages.

        Raises
        ------
        Unsaveable
            It is not data.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if type(value) is list:
            return self._items(value, path)
        if type(value) is tuple:
            return {"tuple": self._items(value, path)}
        if type(value) is dict and value and all(map(_is_weight, value.items())):
            return {
                "weights": {  # of a network
                    name: self._keep(tensor.detach().cpu(), f"{path}.{name}")
                    for name, tensor in value.items()
                }
            }
        if type(value) is dict:
            if len(value) > _MOST_KEYS:
                raise Unsaveable(f"a dict of {len(value)} keys")
            pairs = [
                [self.write(key, f"{path}.key"), self.write(item, f"{path}.{key}")]
                for key, item in value.items()
            ]
            return {"dict": pairs}
        if type(value) is slice:
            return {"slice": self._items([value.start, value.stop, value.step], path)}
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value), path)}
        if isinstance(value, np.random.RandomState):
            return {"RandomState": self.write(value.get_state(legacy=True), path)}
        if isinstance(value, np.dtype) and value.kind in _KINDS:
            return {"dtype": value.name}
        if isinstance(value, type):
            if value in _PLAIN_TYPES.values():
                return {"type": value.__name__}
            if issubclass(value, np.generic) and np.dtype(value).kind in _KINDS:
                return {"scalar type": np.dtype(value).name}
        if isinstance(value, torch.Tensor):
            return {"tensor": self._keep(value.detach().cpu(), path)}
        if isinstance(value, torch.dtype):
            return {"torch dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, pd.DataFrame):
            return {"DataFrame": self._frame(value, path)}
        return self._other(value, path)

    def _items(self, values: list | tuple, path: str) -> list:
        return [self.write(item, f"{path}.{i}") for i, item in enumerate(values)]

    def _keep(self, tensor: torch.Tensor, path: str) -> str:
        # One of its own each, since weights may be shared, and what is there twice, twice.
        while path in self.tensors:
            path += "'"
        self.tensors[path] = tensor.contiguous().clone(memory_format=torch.contiguous_format)
        return path

    def _array(self, array: np.ndarray, path: str) -> dict:
        if np.ma.isMaskedArray(array):
            raise Unsaveable("a masked array")
        written = {"dtype": array.dtype.newbyteorder("=").str, "shape": list(array.shape)}
        if array.dtype.kind == "O":
            return {"array": {**written, "items": self._items(array.ravel().tolist(), path)}}
        if array.dtype.kind == "U":
            items = array.ravel().tolist()
            if not _is_narrow(array.dtype, items):
                written["dtype"] = np.array(items).dtype.str
            return {"array": {**written, "items": items}}
        if array.dtype.kind not in _KINDS or array.dtype.itemsize > 8:
            raise Unsaveable(f"an array of type {array.dtype}")
        array = array.astype(array.dtype.newbyteorder("="))
        # The order decides the last bits of a product of matrices.
        if array.flags.f_contiguous and not array.flags.c_contiguous:
            written["order"] = "F"
        if array.size <= _INLINE and (array.dtype.kind != "f" or np.isfinite(array).all()):
            return {"array": {**written, "items": array.ravel().tolist()}}
        rows = array.T if "order" in written else array
        return {"array": {**written, "tensor": self._keep(torch.from_numpy(rows), path)}}

    def _frame(self, table: pd.DataFrame, path: str) -> dict:
        index = table.index
        if not isinstance(index, pd.RangeIndex) or index.start or index.step != 1:
            raise Unsaveable("a DataFrame whose rows have names")
        columns = []
        for name, column in table.items():
            dtype = str(column.dtype)
            if not isinstance(column.dtype, np.dtype) and dtype not in _TEXT_DTYPES:
                raise Unsaveable(f"a DataFrame with a column of type {dtype}")
            values = column.to_numpy(dtype=object if dtype in _TEXT_DTYPES else None)
            columns += [[name, dtype, self._array(values, f"{path}.{name}")]]
        return {"rows": len(table), "index": self.write(index.name, path), "columns": columns}


class ValueReader:
    """Turn JSON back into values.

    Parameters
    ----------
    tensors : dict of str to tensor
        What the writer kept.
    other : callable
        ``f(kind, content, path)`` makes what is no plain value.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], other: Callable[[str, Any, str], Any]):
        self._tensors = tensors
        self._other = other

    def read(self, written: Any, path: str) -> Any:
        """Turn the JSON of one value back.

        Raises
        ------
        InvalidModelError
            It is none that the writer writes.
        """
        if written is None or isinstance(written, bool | int | float | str):
            return written
        if isinstance(written, list):
            return [self.read(item, path) for item in written]
        if not isinstance(written, dict) or len(written) != 1:
            raise InvalidModelError(f"config.json holds no value at {path}.")
        ((kind, content),) = written.items()
        method = getattr(self, f"_read_{kind.replace(' ', '_')}", None)
        try:
            if method is None:
                return self._other(kind, content, path)
            return method(content, path)
        except InvalidModelError:
            raise
        except MALFORMED as error:
            raise InvalidModelError(
                f"config.json holds a malformed {kind!r} at {path} ({error})."
            ) from error

    def _read_float(self, content, path):
        if content not in ("nan", "inf", "-inf"):
            raise ValueError(content)
        return float(content)

    def _read_tuple(self, content, path):
        return tuple(self.read(list(content), path))

    def _read_slice(self, content, path):
        start, stop, step = self.read(content, path)
        return slice(start, stop, step)

    def _read_dict(self, content, path):
        if len(content) > _MOST_KEYS:
            raise ValueError(f"{len(content)} keys")
        return {self.read(key, path): self.read(item, path) for key, item in content}

    def _read_weights(self, content, path):
        return {name: self._take(key) for name, key in content.items()}

    def _read_tensor(self, content, path):
        return self._take(content)

    def _take(self, name):
        return self._tensors.pop(name)  # once: of one tensor a file could ask for a thousand

    def _read_dtype(self, content, path):
        dtype = np.dtype(content)
        if dtype.kind not in _KINDS:
            raise ValueError(content)
        return dtype

    def _read_torch_dtype(self, content, path):
        return _TORCH_DTYPES[content]

    def _read_device(self, content, path):
        return torch.device(content)

    def _read_type(self, content, path):
        return _PLAIN_TYPES[content]

    def _read_scalar_type(self, content, path):
        return self._read_dtype(content, path).type

    def _read_RandomState(self, content, path):
        name, key, position, *rest = self.read(content, path)
        # NumPy takes any position, and would read there.
        if name != "MT19937" or key.shape != (624,) or not 0 <= position <= 624:
            raise ValueError(f"position {position}")
        state = np.random.RandomState()
        state.set_state((name, key, position, *rest))
        return state

    def _read_scalar(self, content, path):
        return self._read_array(content["array"], path)[()]

    def _read_array(self, content, path):
        dtype, shape = np.dtype(content["dtype"]), tuple(content["shape"])
        if "tensor" in content:
            array = self._take(content["tensor"]).numpy()
            array = array.T if content.get("order") == "F" else array
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"its tensor is {array.dtype} of shape {array.shape}")
            return array
        items = content["items"]
        if math.prod(shape) != len(items):
            raise ValueError(f"{len(items)} items for the shape {shape}")
        if dtype.kind == "O":
            array = np.empty(len(items), dtype=object)
            for i, item in enumerate(self.read(items, path)):
                array[i] = item  # one by one: a tuple is an item
        elif dtype.kind in _KINDS or (dtype.kind == "U" and _is_narrow(dtype, items)):
            array = np.array(items, dtype=dtype)
        else:
            raise ValueError(dtype)
        return array.reshape(shape, order="C").copy(order=content.get("order", "C"))

    def _read_DataFrame(self, content, path):
        index = pd.RangeIndex(content["rows"], name=self.read(content["index"], path))
        columns = {}
        for name, dtype, written in content["columns"]:
            values = self._read_array(written["array"], path)
            # Names of types of pandas are little programs, which read files of time zones.
            if values.shape != (len(index),) or dtype not in (*_TEXT_DTYPES, values.dtype.name):
                raise ValueError(f"a column of type {dtype} and shape {values.shape}")
            if dtype == "str" and int(pd.__version__.split(".")[0]) < 3:
                dtype = "object"  # which was the type of text then
            columns[name] = pd.Series(values, index=index, dtype=dtype)
        return pd.DataFrame(columns, index=index)


def _is_weight(item: tuple[Any, Any]) -> bool:
    return type(item[0]) is str and isinstance(item[1], torch.Tensor)


def _is_narrow(dtype: np.dtype, items: list[str]) -> bool:
    """Whether an array of text takes memory in proportion to the text, or to 64 characters."""
    return 0 <= dtype.itemsize * len(items) <= 256 * len(items) + 16 * sum(map(len, items))
