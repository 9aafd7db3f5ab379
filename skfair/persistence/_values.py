"""Saved estimators: converting values to JSON and tensors, and back.

JSON holds numbers, text and lists directly. Any other value is a dict with one key, the kind of
the value: ``{"tuple": [...]}``, ``{"array": ...}``. Arrays of more than a few entries, and values
that JSON cannot hold, are tensors. Two values with the same bytes, such as a layer of a network and
of its copy, may name one tensor. Reading takes memory and time in proportion to the file. The
schema checks whether an estimator may have the value.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from skfair.persistence._files import MALFORMED
from skfair.persistence._tensors import CODES, MAX_DIMENSIONS, bytes_of, copy_of, is_long_and_empty
from skfair.utils._errors import InvalidModelError
from skfair.utils._shown import plain, shown

_INLINE = 32  # arrays up to this size are in the JSON, where people can read them
_KINDS = "biuf"
_MOST_KEYS = 1000  # keys of a dict: more numbers could be chosen to collide, which takes long
_DEEPEST = 40
# How often a model may name one tensor, because a small file could take much memory otherwise.
_MOST_USES = 2
# Each entry of an array of text takes the memory of the longest entry. Its type may be longer than
# the longest entry, up to _ROOM characters. _MOST_TEXT: bytes of all such arrays of a model.
_ROOM, _MOST_TEXT = 64, 1 << 26
_DTYPE = re.compile(r"[<>=|]?(?:[biuf][1248]|\?|O|U\d{1,9})")  # NumPy accepts many more
DEVICE = re.compile(r"(?:cpu|cuda|mps|xpu)(?::\d{1,3})?")
_TORCH_DTYPES = {
    str(value).removeprefix("torch."): value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype)
}
_TEXT_DTYPES = ("object", "str", "string")
_NUMBERS = {np.dtype(code).name for code in "?bhilqBHILQefd"}


class Unsaveable(TypeError):
    """A value that cannot be saved as data."""


class ValueWriter:
    """Converts values to JSON, and collects their tensors under the names that the JSON uses.

    ``other(value, path)`` converts any other value to JSON, for example an estimator.
    """

    def __init__(self, other: Callable[[Any, str], Any]):
        self.tensors: dict[str, torch.Tensor] = {}
        self._other = other
        self._kept: dict[Any, str] = {}

    def write(self, value: Any, path: str) -> Any:
        """Convert one value to JSON. `path` is its place, for names of tensors and messages."""
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
                "weights": {  # the state of a network
                    name: self.keep(tensor.detach().cpu(), f"{path}.{name}")
                    for name, tensor in value.items()
                }
            }
        if type(value) is dict:
            if len(value) > _MOST_KEYS or not all(map(_is_key, value)):
                raise Unsaveable("a dict with too many keys, or keys other than text and numbers")
            pairs = [[key, self.write(item, f"{path}.{key}")] for key, item in value.items()]
            return {"dict": pairs}
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value), path)}
        if isinstance(value, np.random.RandomState):
            return {"RandomState": self.write(value.get_state(legacy=True), path)}
        if isinstance(value, np.dtype) and value.kind in _KINDS:
            return {"dtype": value.name}
        if isinstance(value, torch.Tensor):
            return {"tensor": self.keep(value.detach().cpu(), path)}
        if isinstance(value, torch.dtype):
            return {"torch dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, pd.DataFrame):
            return {"DataFrame": self._frame(value, path)}
        return self._other(value, path)

    def keep(self, tensor: torch.Tensor, path: str) -> str:
        """Add a tensor to the file, and return its name in the file.

        The name is that of an earlier tensor if both have the same bytes.
        """
        if tensor.dtype not in CODES:
            raise Unsaveable(f"a tensor of type {tensor.dtype}")
        # A copy, because another thread may train the network during the save.
        tensor = copy_of(tensor)
        content = (tensor.dtype, tensor.shape, hashlib.sha256(bytes_of(tensor)).digest())
        if content in self._kept:
            return self._kept.pop(content)  # named twice now: a third value gets its own tensor
        while path in self.tensors:
            path += "'"
        self.tensors[path], self._kept[content] = tensor, path
        return path

    def _items(self, values: list | tuple, path: str) -> list:
        return [self.write(item, f"{path}.{i}") for i, item in enumerate(values)]

    def _array(self, array: np.ndarray, path: str) -> dict:
        if np.ma.isMaskedArray(array):
            raise Unsaveable("a masked array")
        written = {"dtype": array.dtype.newbyteorder("=").str, "shape": list(array.shape)}
        if array.dtype.kind == "O":
            return {"array": {**written, "items": self._items(array.ravel().tolist(), path)}}
        if array.dtype.kind == "U":
            items = array.ravel().tolist()
            if array.dtype.itemsize > _room(items):
                written["dtype"] = np.array(items).dtype.str
            return {"array": {**written, "items": items}}
        if array.dtype.kind not in _KINDS or array.dtype.itemsize > 8:
            raise Unsaveable(f"an array of type {array.dtype}")
        array = array.astype(array.dtype.newbyteorder("="))
        # The order in memory changes the last bits of a matrix product.
        if array.flags.f_contiguous and not array.flags.c_contiguous:
            written["order"] = "F"
        if array.size <= _INLINE and (array.dtype.kind != "f" or np.isfinite(array).all()):
            return {"array": {**written, "items": array.ravel().tolist()}}
        rows = array.T if "order" in written else array
        return {"array": {**written, "tensor": self.keep(torch.from_numpy(rows), path)}}

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
    """Converts JSON and tensors of the writer back to values.

    ``other(kind, content, path)`` makes any other value, for example an estimator.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], other: Callable[[str, Any, str], Any]):
        self._tensors = tensors
        self._uses: Counter[str] = Counter()
        self._owned: set[str] = set()
        self._other = other
        self._depth = self._n_text = 0

    @property
    def unused(self) -> list[str]:
        """Names of the tensors that no value named."""
        return [name for name in self._tensors if not self._uses[name]]

    def read(self, written: Any, path: str) -> Any:
        """Convert JSON back to a value. Refuse JSON that the writer never writes."""
        if written is None or isinstance(written, bool | int | float | str):
            return written
        kind = "list"
        try:
            self._depth += 1
            if self._depth > _DEEPEST:
                raise ValueError(f"more than {_DEEPEST} levels")
            if isinstance(written, list):
                return [self.read(item, path) for item in written]
            if not isinstance(written, dict) or len(written) != 1:
                raise ValueError("no value")
            ((kind, content),) = written.items()
            method = getattr(self, f"_read_{kind.replace(' ', '_')}", None)
            if method is None:
                return self._other(kind, content, path)
            return method(content, path)
        except InvalidModelError:
            raise
        except MALFORMED as error:
            raise InvalidModelError(
                f"The model holds a malformed {shown(kind)} at {shown(path, 100)} "
                f"({type(error).__name__}: {plain(str(error))[:200]})."
            ) from error
        finally:
            self._depth -= 1

    def take(self, name: str) -> torch.Tensor:
        """Return a tensor of the file, in memory that no other value has."""
        tensor = self._look_up(name)
        if name in self._owned:
            return copy_of(tensor)
        self._owned.add(name)
        return tensor

    def weights(self, written: dict, *, take: bool) -> dict[str, torch.Tensor]:
        """Return the state of a network: in its own memory, or else for a caller who copies it."""
        get = self.take if take else self._look_up
        return {name: get(key) for name, key in written.get("weights", {}).items()}

    def _look_up(self, name: str) -> torch.Tensor:
        tensor = self._tensors[name]
        self._uses[name] += 1
        if self._uses[name] > _MOST_USES:
            raise ValueError(f"the tensor {shown(name)} is used more than {_MOST_USES} times")
        return tensor

    def _read_float(self, content, path):
        if content not in ("nan", "inf", "-inf"):
            raise ValueError(content)
        return float(content)

    def _read_tuple(self, content, path):
        return tuple(self.read(list(content), path))

    def _read_dict(self, content, path):
        if len(content) > _MOST_KEYS or not all(_is_key(key) for key, _ in content):
            raise ValueError("too many keys, or others than text and numbers")
        return {key: self.read(item, path) for key, item in content}

    def _read_weights(self, content, path):
        return self.weights({"weights": content}, take=True)

    def _read_tensor(self, content, path):
        return self.take(content)

    def _read_dtype(self, content, path):
        if content not in _NUMBERS:
            raise ValueError(content)
        return np.dtype(content)

    def _read_torch_dtype(self, content, path):
        return _TORCH_DTYPES[content]

    def _read_device(self, content, path):
        if not DEVICE.fullmatch(content):
            raise ValueError(content)
        return torch.device(content)

    def _read_RandomState(self, content, path):
        name, key, position, *rest = self.read(content, path)
        # NumPy accepts any position, and would read outside the key.
        if name != "MT19937" or key.shape != (624,) or not 0 <= position <= 624:
            raise ValueError(f"position {position}")
        state = np.random.RandomState()
        state.set_state((name, key, position, *rest))
        return state

    def _read_scalar(self, content, path):
        array = self._read_array(content["array"], path)
        if array.shape or array.dtype.kind == "O":
            raise ValueError("not a scalar")
        return array[()]

    def _read_array(self, content, path):
        if not _DTYPE.fullmatch(content["dtype"]):
            raise ValueError("a type that save does not write")
        dtype, shape = np.dtype(content["dtype"]), tuple(content["shape"])
        if not dtype.isnative:
            raise ValueError(dtype)
        if "tensor" in content:
            array = self.take(content["tensor"]).numpy()
            array = array.T if content.get("order") == "F" else array
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"its tensor is {array.dtype} of shape {array.shape}")
            return array
        items = content["items"]
        many = len(shape) > MAX_DIMENSIONS
        if type(items) is not list or many or math.prod(shape) != len(items):
            raise ValueError(f"no items for the shape {shape[:MAX_DIMENSIONS]}")
        if is_long_and_empty(shape):
            raise ValueError(f"an empty array of shape {shape}")
        if dtype.kind == "O":
            array = np.empty(len(items), dtype=object)
            for i, item in enumerate(self.read(items, path)):
                array[i] = item  # one by one: a tuple is an item
        elif dtype.kind in _KINDS and all(isinstance(item, int | float) for item in items):
            array = np.array(items, dtype=dtype)
        elif dtype.kind == "U" and all(isinstance(item, str) for item in items):
            self._n_text += dtype.itemsize * len(items)
            if dtype.itemsize > _room(items) or self._n_text > _MOST_TEXT:
                raise ValueError(dtype)
            array = np.array(items, dtype=dtype)
        else:
            raise ValueError(dtype)
        return array.reshape(shape, order="C").copy(order=content.get("order", "C"))

    def _read_DataFrame(self, content, path):
        rows, columns = content["rows"], content["columns"]
        if len(columns) > _MOST_KEYS:
            raise ValueError(f"{len(columns)} columns")
        index = pd.RangeIndex(rows, name=self.read(content["index"], path))
        made = {}
        for name, dtype, written in columns:
            values = self._read_array(written["array"], path)
            # pandas parses names of types like small programs, and reads files of time zones.
            if type(name) is not str or values.shape != (len(index),):
                raise ValueError(f"a column of shape {values.shape}")
            fitting = _TEXT_DTYPES if values.dtype.kind == "O" else (values.dtype.name,)
            if dtype not in fitting:
                raise ValueError(f"a column of type {dtype}")
            if dtype == "str" and int(pd.__version__.split(".")[0]) < 3:
                dtype = "object"  # the type of text before pandas 3
            made[name] = pd.Series(values, index=index, dtype=dtype)
        return pd.DataFrame(made, index=index)


def _room(texts: list[str]) -> int:
    """Return the number of bytes that each entry of an array of texts may take."""
    return 4 * max(_ROOM, max(map(len, texts), default=0))


def _is_weight(item: tuple[Any, Any]) -> bool:
    return type(item[0]) is str and isinstance(item[1], torch.Tensor)


def _is_key(key: Any) -> bool:
    return type(key) in (str, int, bool) or (type(key) is float and math.isfinite(key))
