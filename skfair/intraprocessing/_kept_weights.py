"""Intra-processing, all methods: where the weights of the best candidates wait for the end."""

import tempfile
import weakref
from collections.abc import Callable, Mapping

import torch

from skfair.base._networks import have_same_bits

_MOST_BYTES = 1 << 24  # that wait in memory
_Weights = dict[str, torch.Tensor]


def keep(
    weights: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor]
) -> _Weights | Callable[[], _Weights]:
    """Keep weights as they are now, though they change later.

    Only those that differ from the original ones are kept. If they take over 16 MiB, they wait in
    a temporary file; in memory, if the disk is full.

    Parameters
    ----------
    weights : mapping of str to tensor
    original : mapping of str to tensor
        These never change.

    Returns
    -------
    dict of str to tensor, or callable
        All the weights, or a function without arguments that returns them, the same to the last
        bit and on the same devices.
    """
    same = {
        name: original[name]
        for name, weight in weights.items()
        if name in original and have_same_bits(weight, original[name])
    }
    changed = {name: weight.detach() for name, weight in weights.items() if name not in same}
    plain = all(w.layout == torch.strided and not w.is_quantized for w in changed.values())
    if plain and sum(weight.nbytes for weight in changed.values()) > _MOST_BYTES:
        try:
            return _OnDisk(same, changed)
        except OSError:
            pass  # as much memory as without a disk
    return same | {name: weight.clone() for name, weight in changed.items()}


class _OnDisk:
    """Weights in a file without a name, which the system removes with this object.

    Parameters
    ----------
    same : dict of str to tensor
        These stay in memory.
    changed : dict of str to tensor
        These are written.

    Raises
    ------
    OSError
        The disk is full, or there is no folder for temporary files.
    """

    def __init__(self, same: _Weights, changed: _Weights):
        self._same = same
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - as long as this object
        weakref.finalize(self, self._file.close)
        self._like = {name: (w.shape, w.dtype, w.device) for name, w in changed.items()}
        for weight in changed.values():
            left = _bytes_of(weight.cpu().resolve_conj().resolve_neg().contiguous())
            while left:
                left = left[self._file.write(left) :]

    def __call__(self) -> _Weights:
        self._file.seek(0)
        weights = dict(self._same)
        for name, (shape, dtype, device) in self._like.items():
            weight = torch.empty(shape, dtype=dtype, device="cpu")
            left = _bytes_of(weight)
            while left:
                left = left[self._read(left) :]
            weights[name] = weight.to(device)
        return weights

    def _read(self, into: memoryview) -> int:
        n_read = self._file.readinto(into)
        if not n_read:
            raise OSError(
                "The temporary file with the weights of the best candidate has become shorter. Set "
                "the environment variable TMPDIR to a folder of a disk that works."
            )
        return n_read


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    # One number counts as contiguous, whatever its stride.
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().data
