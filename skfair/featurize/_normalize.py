"""Preprocessing that is defined by numbers, so that a store or a saved model can record it."""

import dataclasses
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch


@dataclasses.dataclass(frozen=True)
class Normalize:
    """Normalize each channel of a batch: subtract a mean and divide by a standard deviation.

    Use it as `preprocess` of :class:`FrozenEncoderFeaturizer`. Its numbers define it completely:
    a feature store does not require an `encoder_id` for it, and ``skfair.save`` stores it.

    Parameters
    ----------
    mean : sequence of float
        Mean of each channel, for values from 0 to 1; kept as a tuple.
    std : sequence of float
        Standard deviation of each channel, above 0; kept as a tuple.

    Raises
    ------
    TypeError
        `mean` or `std` is not a sequence of numbers.
    ValueError
        `mean` and `std` differ in length or are empty, a number is not finite, or a standard
        deviation is not above 0.

    See Also
    --------
    FrozenEncoderFeaturizer : Takes a Normalize as `preprocess`.

    Examples
    --------
    >>> import numpy as np
    >>> from skfair.featurize import Normalize
    >>> normalize = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # ImageNet
    >>> normalize
    Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    >>> normalize(np.full((1, 3, 2, 2), 255, dtype=np.uint8))[0, :, 0, 0].round(2)
    array([2.25, 2.43, 2.64], dtype=float32)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _floats(name, getattr(self, name)))
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} numbers and std has {len(self.std)}; expected one of "
                "each for every channel."
            )
        if min(self.std) <= 0:
            raise ValueError(
                f"std={self.std} must be above 0, since values are divided by it. Leave constant "
                "channels at 1."
            )

    def __call__(self, batch: Any) -> Any:
        """Normalize a batch.

        Parameters
        ----------
        batch : ndarray or Tensor of shape (n, channels, height, width)
            uint8 from 0 to 255, or floating from 0 to 1.

        Returns
        -------
        ndarray or Tensor of the same shape
            float32 if `batch` is uint8, otherwise the dtype of `batch`.

        Raises
        ------
        ValueError
            `batch` does not have four dimensions, or as many channels as `mean` has numbers.
        """
        if batch.ndim != 4 or batch.shape[1] != len(self.mean):
            raise ValueError(
                f"Normalize with {len(self.mean)} numbers got a batch of shape "
                f"{tuple(batch.shape)}; expected (n, {len(self.mean)}, height, width). Pass as "
                "many numbers as the images have channels."
            )
        if isinstance(batch, torch.Tensor):
            if batch.dtype == torch.uint8:
                batch = batch.float() / 255
            mean, std = (batch.new_tensor(part)[:, None, None] for part in (self.mean, self.std))
        else:
            if batch.dtype == np.uint8:
                batch = np.divide(batch, 255, dtype=np.float32)
            mean, std = (
                np.array(part, dtype=batch.dtype)[:, None, None] for part in (self.mean, self.std)
            )
        return (batch - mean) / std


def _floats(name: str, numbers: Sequence[float]) -> tuple[float, ...]:
    numbers = numbers.tolist() if isinstance(numbers, np.ndarray | torch.Tensor) else numbers
    if not isinstance(numbers, tuple | list) or not all(
        isinstance(number, Real) and not isinstance(number, bool) for number in numbers
    ):
        raise TypeError(f"{name}={numbers!r}; expected a tuple of numbers, one for each channel.")
    floats = tuple(map(float, numbers))
    if not floats or not all(map(math.isfinite, floats)):
        raise ValueError(f"{name}={numbers!r}; expected finite numbers, one for each channel.")
    return floats
