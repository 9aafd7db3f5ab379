"""Checks the output of an encoder, and pools it to one row of features for each sample."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def check_output(output: Any, n_rows: int) -> torch.Tensor:
    """Turn an encoder's output into a floating tensor of 2 to 4 dimensions, or refuse it."""
    if not isinstance(output, torch.Tensor):
        try:
            if isinstance(output, tuple):  # asarray might stack several outputs
                raise TypeError("several outputs")
            array = np.asarray(output)
            output = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"encoder returned a {type(output).__name__}, not an array or tensor. Choose an "
                "intermediate output with layer=, or wrap the encoder so that it returns one."
            ) from error
    if output.is_quantized:
        output = output.dequantize()
    if output.is_meta:
        raise ValueError(
            "encoder returned a tensor on the device 'meta', which holds no values. Create "
            "the encoder on a real device and load its weights."
        )
    if not output.is_floating_point():
        raise TypeError(
            f"encoder returned {output.dtype} values; expected floating features. Return the "
            "features, not class or token numbers."
        )
    if output.ndim not in (2, 3, 4):
        raise ValueError(
            f"encoder returned an output of shape {tuple(output.shape)}; expected 2 dimensions "
            "(n, features), 3 (n, tokens, features) or 4 (n, features, height, width)."
        )
    if len(output) != n_rows:
        raise ValueError(
            f"encoder returned {len(output)} rows for a batch of {n_rows} samples. It must "
            "return one row for each sample, in the same order."
        )
    if output.numel() == 0:
        raise ValueError(
            f"encoder returned no features: shape {tuple(output.shape)}. Choose another layer."
        )
    return output


def pool(output: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool (n, tokens, d) and (n, d, h, w) to (n, d); two dimensions stay unchanged."""
    if output.ndim == 2:
        return output
    if pooling == "flatten":
        return output.flatten(1)
    if pooling == "cls":
        if output.ndim == 4:
            raise ValueError(
                f"pooling='cls' takes the first token, but encoder returned maps of shape "
                f"{tuple(output.shape)}. Use pooling='mean', 'max' or 'flatten'."
            )
        return output[:, 0]
    axes = (1,) if output.ndim == 3 else (2, 3)
    return output.float().mean(axes) if pooling == "mean" else output.amax(axes)


def check_axes(
    shape: tuple[int, ...], batch: np.ndarray, pooling: str, run: Callable | None
) -> None:
    """Refuse maps and tokens if pooling would run over other axes than the positions.

    An axis that changes with the size of the image is a position. If the encoder takes one size
    only, axes in the ratio of the sides of the image, or of equal length, are likely positions.

    Parameters
    ----------
    shape : tuple of int
        Shape of the output for `batch`.
    batch : ndarray of shape (n, ...)
    pooling : str
    run : callable or None
        The encoder, if it may run once more.

    Raises
    ------
    ValueError
        The features seem to come last, or the positions cannot be told.
    """
    if len(shape) == 2 or pooling == "flatten":
        return
    first = last = False
    if len(shape) == 4:
        first, last = (_like_positions(sides, batch.shape[2:]) for sides in (shape[2:], shape[1:3]))
        if first and not last:
            return
    changed = _changed_axes(shape, batch, run)
    if (1 in changed) != (len(shape) - 1 in changed):
        last = (len(shape) == 4) == (1 in changed)
    elif len(shape) == 4 and changed:
        last = False
    if last and len(shape) == 4:
        raise ValueError(
            f"encoder returned maps of shape {shape}; expected (n, features, height, width). The "
            "features seem to come last, or their axis cannot be told. Wrap the encoder in a "
            "function that returns rows: .mean((1, 2)) of these maps if features come last, "
            ".mean((2, 3)) if they come first."
        )
    if last and len(shape) == 3:
        raise ValueError(
            f"encoder returned an output of shape {shape}; expected (n, tokens, features). Its "
            "last axis grows with the image, and axis 1 does not. Wrap the encoder in a function "
            "that returns .transpose(1, 2) of this output."
        )


def _like_positions(sides: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Whether two sides are equal, or have the ratio of the image's sides up to rounding."""
    if sides[0] == sides[1] or len(image) != 2:
        return sides[0] == sides[1]
    return abs(sides[0] * image[1] - sides[1] * image[0]) < max(image) and min(sides) > 1


def _changed_axes(shape: tuple[int, ...], batch: np.ndarray, run: Callable | None) -> set[int]:
    """Axes of the output that change for an image of twice the size; none if the run fails."""
    if run is None or batch.ndim != 4:
        return set()
    try:
        larger = run(batch[:1].repeat(2, axis=2).repeat(2, axis=3))
    except Exception:  # of any type: most encoders take one size
        return set()
    there = tuple(getattr(larger, "shape", ()))
    if len(there) != len(shape):
        return set()
    return {axis for axis in range(1, len(shape)) if there[axis] != shape[axis]}
