"""Functions that pickles of earlier versions call by name."""

from typing import Any

import numpy as np
import torch

from skfair.base._portable import TensorState


def _rebuild(
    data: np.ndarray,
    dtype: str,
    shape: tuple[int, ...],
    device: str,
    requires_grad: bool,
    is_parameter: bool,
) -> Any:
    strides = torch.empty(shape, device="meta").stride()
    return TensorState(data, dtype, shape, strides, device, requires_grad, is_parameter, {})
