"""Training batches of rows that stay in a file: from a shuffled buffer of runs of rows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from skfair.base._blocks import BlockRows
from skfair.base._net import TensorData
from skfair.utils._random import generator

# Bytes of the rows that are in memory at once, as in the file. Fewer buffers shuffle better.
_BUFFER = 1 << 28
# Bytes that are read from one place of the file. Shorter runs mix better, and a disk reads longer
# runs faster. Whole chunks are read, unless they are so large that a buffer would hold few.
_RUN, _LONGEST_RUN = 1 << 17, 1 << 22
_KEPT_TYPES = (np.float16, np.float32, np.int8, np.uint8)


class BlockData(TensorData):
    """Samples whose features are read from a file, a buffer at a time.

    Each pass divides the file into runs of neighbouring rows. A buffer takes one run, at random,
    from each of many equal parts of the file, so that it resembles the whole file, in whatever
    order the rows are. Batches are drawn from one buffer after the other. If all rows fit into
    one buffer, the batches are those of :class:`TensorData`.

    Parameters
    ----------
    target, weight, **inputs
        As in :class:`TensorData`.
    X : BlockRows
        The rows.
    """

    def __init__(
        self,
        target: torch.Tensor,
        weight: torch.Tensor,
        *,
        X: BlockRows,
        **inputs: torch.Tensor,
    ):
        super().__init__(target, weight, **inputs)
        self.X = X
        # The buffer has the dtype of the file where torch has it; wider types are not needed.
        kept = X.source.dtype.newbyteorder("=")
        self.dtype = kept if kept in _KEPT_TYPES else np.dtype(np.float32)

    def to(self, device: torch.device) -> "BlockData":
        """Return the data with everything but the features on a device."""
        moved = super().to(device)
        return BlockData(moved.target, moved.weight, X=self.X, **moved.inputs)

    def _run_size(self) -> int:
        """Number of rows in a run."""
        short, long = (max(1, size // self.X.row_bytes) for size in (_RUN, _LONGEST_RUN))
        if self.X.chunk is None:
            return short
        return min(-(-short // self.X.chunk) * self.X.chunk, max(long, short))

    def _buffers(self, n_runs: int, size: int) -> np.ndarray:
        """The buffer of each run."""
        run_bytes = size * self.X.shape[1] * self.dtype.itemsize
        n_buffers = -(-n_runs // max(1, _BUFFER // run_bytes))
        if n_buffers == 1:
            return np.zeros(n_runs, dtype=np.int64)
        parts = torch.rand((-(-n_runs // n_buffers), n_buffers), generator=generator())
        return parts.argsort(dim=1).flatten()[:n_runs].numpy()

    def batches(self, order: torch.Tensor | None, batch_size: int) -> Iterator[Any]:
        """Yield the samples in batches, in an order that keeps samples of one buffer together."""
        order = torch.arange(len(self)) if order is None else order
        at = order.numpy() if self.X.positions is None else self.X.positions[order.numpy()]
        size = self._run_size()
        n_rows = self.X.source.shape[0]
        buffers = self._buffers(-(-n_rows // size), size)
        runs = at // size
        place = np.argsort(buffers[runs], kind="stable")
        ends = np.bincount(buffers[runs]).cumsum()
        order, at, runs = order[torch.from_numpy(place)], at[place], runs[place]
        slots = np.empty(len(buffers), dtype=np.int64)
        begin, parts = 0, []
        for number, end in enumerate(ends.tolist()):
            wanted = np.flatnonzero(buffers == number)
            slots[wanted] = np.arange(len(wanted)) * size
            rows = torch.from_numpy(slots[runs[begin:end]] + at[begin:end] % size).to(
                self.target.device
            )
            first, buffer = begin, self._read(wanted, size)
            while begin < end:
                stop = min(end, (begin // batch_size + 1) * batch_size)
                parts.append(buffer[rows[begin - first : stop - first]].float())
                if stop % batch_size == 0 or stop == len(order):
                    index = order[stop - sum(map(len, parts)) : stop].to(self.target.device)
                    inputs, targets = self[index]
                    yield {"X": torch.cat(parts), **inputs}, targets
                    parts = []
                begin = stop
            del buffer  # before the next one is read

    def _read(self, runs: np.ndarray, size: int) -> torch.Tensor:
        """Read runs of rows, in the order of the file."""
        n_rows = self.X.source.shape[0]
        lengths = np.minimum((runs + 1) * size, n_rows) - runs * size
        buffer = np.empty((lengths.sum(), self.X.shape[1]), dtype=self.dtype)
        start = 0
        for run, length in zip(runs.tolist(), lengths.tolist(), strict=True):
            buffer[start : start + length] = self.X.read(run * size, run * size + length)
            start += length
        return torch.from_numpy(buffer).to(self.target.device)
