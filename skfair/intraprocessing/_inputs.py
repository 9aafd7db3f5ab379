"""Intra-processing, all methods: rows of any kind become batches, and a network runs on them."""

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

from skfair.base._net import aligned, as_tensor, rows_at_once
from skfair.base._networks import floating_dtype
from skfair.utils._arrays import item_at
from skfair.utils._shown import shown, shown_all

# What a network is called with: network(batch), network(**batch) or network(*batch).
Batch = torch.Tensor | dict[str, torch.Tensor] | tuple[torch.Tensor, ...]

ONLY = "X"  # name of the only part of rows that are one array
_HELD_BYTES = 1 << 30  # of rows that stay on the device of the network
_SINGLE_FIRST = torch.float32, torch.float64, torch.float16, torch.bfloat16
_EMBEDDINGS = nn.Embedding, nn.EmbeddingBag


class Signature(NamedTuple):
    """How a network is called, and what holds its outputs.

    Attributes
    ----------
    form : {"array", "dict", "tuple"}
        Kind of a batch.
    integers : tuple of str
        Parts of a batch that the network takes as integers.
    answer : {"tensor", "attribute", "item", "first"}
        Whether the network returns the tensor, an object with ``.logits``, a dict with "logits",
        or a tuple whose first is the tensor.
    """

    form: str = "array"
    integers: tuple[str, ...] = ()
    answer: str = "tensor"


ONE_TENSOR = Signature()


def call(network: nn.Module, batch: Any, *, read: bool = True) -> Any:
    """Run a network on a batch, and read the tensor in its answer.

    Parameters
    ----------
    network : torch.nn.Module
    batch : tensor, dict of tensors or tuple of tensors
        Its only argument, its arguments by name, or its arguments in order.
    read : bool, default=True
        False returns the answer as it is.

    Returns
    -------
    tensor
        Or the answer as it is, if no tensor is where one belongs.
    """
    if isinstance(batch, Mapping):
        answer = network(**batch)
    else:  # skorch turns tuples into lists
        answer = network(*batch) if isinstance(batch, tuple | list) else network(batch)
    return read_answer(answer) if read else answer


def read_answer(answer: Any) -> Any:
    """Read the tensor in an answer of a network: itself, its logits, or its first item."""
    kind = answer_kind(answer)
    if kind == "attribute":
        return answer.logits
    if kind == "item":
        return answer["logits"]
    return answer[0] if kind == "first" else answer


def answer_kind(answer: Any) -> str:
    """Tell where the tensor is in an answer of a network, as :class:`Signature` names it."""
    known = torch.Tensor | fx.Proxy  # a proxy is a step of a trace
    if isinstance(answer, known):
        return "tensor"
    if isinstance(answer, Mapping) and isinstance(answer.get("logits"), known):
        return "item"
    if isinstance(getattr(answer, "logits", None), known):
        return "attribute"
    if isinstance(answer, tuple | list) and len(answer) and isinstance(answer[0], known):
        return "first"
    return "tensor"


def form_batch(form: str, parts: dict[str, torch.Tensor]) -> Batch:
    """Make a batch of its parts by name, in the order in which the network takes them."""
    if form == "dict":
        return parts
    return tuple(parts.values()) if form == "tuple" else parts[ONLY]


class Rows:
    """Rows on the host, before it is known how the network takes them.

    Parameters
    ----------
    form : {"array", "dict", "tuple"}
    parts : dict of str to array or tensor of shape (n_samples, ...)
        On the CPU. An array of rows has one part.
    """

    # Whether all rows are in memory.
    in_memory = True

    def __init__(self, form: str, parts: dict[str, Any]):
        self.form, self.parts = form, parts
        self.shapes = {name: tuple(part.shape[1:]) for name, part in parts.items()}
        self.integers = tuple(name for name, part in parts.items() if not _is_floating(part))
        self._n_rows = len(next(iter(parts.values())))

    def __len__(self) -> int:
        return self._n_rows

    def take(self, index: np.ndarray | slice) -> dict[str, torch.Tensor]:
        """Take some rows.

        Returns
        -------
        dict of str to tensor
            On the CPU, in the types that the rows have.
        """
        return {
            name: part[torch.as_tensor(index) if isinstance(index, np.ndarray) else index]
            if isinstance(part, torch.Tensor)
            else as_tensor(part[index])
            for name, part in self.parts.items()
        }


class ItemRows(Rows):
    """Rows that are read from a dataset, item by item, each time that they are needed.

    Parameters
    ----------
    items : object with a length and an index
        An item is an array, a dict or a tuple of arrays.
    form : str
    first : dict of str to tensor
        Parts of the first item; all others must have these names, shapes and types.
    split : callable
        Takes an item and its number, and returns its parts.
    """

    in_memory = False

    def __init__(self, items: Any, form: str, first: dict[str, torch.Tensor], split: Any):
        super().__init__(form, {name: part[None] for name, part in first.items()})
        self._items, self._split, self._first = items, split, first
        self._n_rows = len(items)
        self._digests: np.ndarray | None = None

    def remember(self) -> None:
        """Read all items once, so that bad ones are found early, and items that change later."""
        self._digests = np.array([_digest(self._item(row)) for row in range(len(self))])

    def take(self, index: np.ndarray | slice) -> dict[str, torch.Tensor]:
        rows = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        items = [self._item(row) for row in rows]
        if self._digests is not None:
            for row, item in zip(rows, items, strict=True):
                if _digest(item) != self._digests[row]:
                    raise ValueError(
                        f"X[{row}] has other values than at the first reading. Debiasing measures "
                        "the same rows again and again. Take what draws at random out of the "
                        "dataset, or give its items as arrays."
                    )
        return {
            name: torch.stack([item[name] for item in items])
            if items
            else first.new_empty((0, *first.shape))
            for name, first in self._first.items()
        }

    def _item(self, row: int) -> dict[str, torch.Tensor]:
        parts = self._split(item_at(self._items, row), row)
        if parts.keys() != self._first.keys():
            raise ValueError(
                f"X[{row}] has the inputs [{shown_all(parts)}], X[0] has "
                f"[{shown_all(self._first)}]. Give the same inputs in each item."
            )
        for name, part in parts.items():
            first = self._first[name]
            if part.shape != first.shape or part.dtype != first.dtype:
                raise ValueError(
                    f"{_place(self.form, name, row)} has shape {tuple(part.shape)} and type "
                    f"{part.dtype}, that of X[0] has {tuple(first.shape)} and {first.dtype}. Give "
                    "items of one shape and one type; pad sequences to one length."
                )
            if part.is_floating_point() and not part.isfinite().all():
                raise ValueError(
                    f"{_place(self.form, name, row)} contains NaN or infinity. Leave this item "
                    "out, or mend it."
                )
        return parts


def _place(form: str, name: str, row: int) -> str:
    if form == "array":
        return f"X[{row}]"
    return f"X[{row}][{name if form == 'tuple' else repr(name)}]"


def _digest(item: dict[str, torch.Tensor]) -> int:
    value = 0
    for part in item.values():
        value = zlib.crc32(part.contiguous().view(-1).view(torch.uint8).numpy().tobytes(), value)
    return value


def _is_floating(part: Any) -> bool:
    return part.is_floating_point() if isinstance(part, torch.Tensor) else part.dtype.kind == "f"


class Inputs:
    """Rows as a network takes them: an index gives a batch on the device of the network.

    Parameters
    ----------
    rows : Rows
        They must be on the CPU.
    device : torch.device
    dtype : torch.dtype
        Type of all parts but those of `integers`.
    integers : tuple of str, default=()
        Parts that stay as they are.
    hold : bool, default=True
        Whether rows of up to 1 GiB go to the device at once; otherwise a batch at a time does.

    Raises
    ------
    ValueError
        An integer has no equal in `dtype`. Rows that are not in memory are checked when they are
        read.

    Examples
    --------
    >>> rows = Rows("dict", {"ids": np.arange(6).reshape(3, 2), "weight": np.ones(3)})
    >>> inputs = Inputs(rows, torch.device("cpu"), torch.float32, ("ids",))
    >>> inputs[1:]
    {'ids': tensor([[2, 3],
            [4, 5]]), 'weight': tensor([1., 1.])}
    """

    def __init__(
        self,
        rows: Rows,
        device: torch.device,
        dtype: torch.dtype,
        integers: tuple[str, ...] = (),
        *,
        hold: bool = True,
    ):
        self.rows, self.device, self.dtype, self.integers = rows, device, dtype, integers
        self._order: torch.Tensor | None = None
        self._held: dict[str, torch.Tensor] | None = None
        copied = sum(math.prod(part.shape) for part in rows.parts.values() if self._copies(part))
        if hold and rows.in_memory and copied * dtype.itemsize <= _HELD_BYTES:
            self._held = self._ready(rows.take(slice(None)), None)

    @property
    def held(self) -> bool:
        """Whether all rows are on the device."""
        return self._held is not None

    @property
    def rows_at_once(self) -> int:
        """How many rows to run through a network at once."""
        return rows_at_once(sum(map(math.prod, self.rows.shapes.values())))

    @property
    def is_table(self) -> bool:
        """Whether the network takes one floating tensor, one row of features for each sample."""
        return self.rows.form == "array" and not self.integers and len(self.rows.shapes[ONLY]) == 1

    def __len__(self) -> int:
        return len(self.rows) if self._order is None else len(self._order)

    def __getitem__(self, index: Any) -> Batch:
        """Return a batch.

        Parameters
        ----------
        index : slice, or tensor or ndarray of int

        Returns
        -------
        tensor, dict of tensors or tuple of tensors
        """
        if not isinstance(index, slice):
            index = torch.as_tensor(index, device=self.device if self.held else "cpu")
        if self._order is not None:
            index = self._order[index]
        if self._held is not None:
            parts = {name: part[index] for name, part in self._held.items()}
        else:
            at = index if isinstance(index, slice) else index.numpy()
            parts = self._ready(self.rows.take(at), at)
        parts = {name: aligned(part) for name, part in parts.items()}
        return form_batch(self.rows.form, parts)

    def take(self, index: np.ndarray) -> "Inputs":
        """Choose rows without a copy of them.

        Returns
        -------
        Inputs
        """
        chosen = object.__new__(Inputs)
        vars(chosen).update(vars(self))
        order = torch.as_tensor(index, device=self.device if self.held else "cpu")
        chosen._order = order if self._order is None else self._order[order]
        return chosen

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """Go through all rows in order, by default as many at a time as run at once."""
        size = size or self.rows_at_once
        return (self[start : start + size] for start in range(0, len(self), size))

    def _copies(self, part: Any) -> bool:
        """Whether a part takes memory anew where the network takes it."""
        if isinstance(part, np.ndarray):
            if not (part.flags.writeable and part.flags.c_contiguous):
                return True
            return as_tensor(part[:0]).dtype != self.dtype or self.device.type != "cpu"
        return part.dtype != self.dtype or self.device.type != "cpu"

    def _ready(self, parts: dict[str, torch.Tensor], index: Any) -> dict[str, torch.Tensor]:
        ready = {}
        for name, part in parts.items():
            if name in self.integers:
                ready[name] = part.to(self.device)
                continue
            cast = part.to(self.device, self.dtype)
            if name in self.rows.integers and part.dtype != torch.bool:
                self._check_cast(part, name, index)
            ready[name] = cast
        return ready

    def _check_cast(self, part: torch.Tensor, name: str, index: Any) -> None:
        """Refuse a cast of integers that loses values."""
        lost = part.to(self.dtype).to(part.dtype) != part
        if not lost.any():
            return
        numbers = np.arange(len(self.rows))[slice(None) if index is None else index]
        row = numbers[int(lost.nonzero()[0, 0])]
        what = "X" if self.rows.form == "array" else f"X[{shown(name)}]"
        raise ValueError(
            f"{what} holds integers that {self.dtype} cannot hold, such as {part[lost][0].item()} "
            f"in row {row}, and the network in estimator takes this type. Scale them, "
            "or give floating numbers, which are rounded."
        )


def inputs_for(network: nn.Module, rows: Rows, device: torch.device) -> Inputs:
    """Find out how a network takes integers, and give it the rows so.

    Integers stay integers where the network runs on them. Where it does not, they are cast to its
    floating type. A network without floating weights gets single precision if it runs on it.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode, on `device`.
    rows : Rows
    device : torch.device

    Returns
    -------
    Inputs
    """
    own = floating_dtype(network)
    dtypes = _SINGLE_FIRST if own is None else (own,)
    kept = [rows.integers, ()] if rows.integers else [()]
    first = Rows(rows.form, rows.take(slice(0, 1)))
    for integers in kept:
        for dtype in dtypes:
            try:
                with torch.no_grad():
                    call(network, Inputs(first, device, dtype, integers)[:1])
            except Exception:  # of whatever kind: the network is the user's
                continue
            return Inputs(rows, device, dtype, integers)
    # The error that the caller meets next shall be about X, not about its type.
    embeds = any(isinstance(part, _EMBEDDINGS) for part in network.modules())
    return Inputs(rows, device, dtypes[0], kept[0] if embeds else ())
