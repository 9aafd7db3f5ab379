"""Checks the output of an encoder, and pools it to one row of features for each sample."""

import difflib
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch

from skfair.utils._shown import shown

_ROOM = 80  # characters of a layer's name in a message
_MOST_NAMES = 1000  # of layers that are compared with a name that does not exist


class UnknownLayer(ValueError):
    """There is no layer and no output of this name."""


def choose_output(
    output: Any,
    name: str | None = None,
    *,
    layers: Collection[str] = (),
    of_method: bool = False,
) -> Any:
    """Take one of several outputs that have names, as models of transformers return them.

    Parameters
    ----------
    output : object
        Anything but a mapping is the output itself.
    name : str or None
        Which one. None takes, among outputs of two and more dimensions, the projected embedding
        (``"image_embeds"``, ``"text_embeds"``), else ``"sentence_embedding"``, else
        ``"last_hidden_state"``, else the only one. A pooled output of the model is not taken,
        since many checkpoints leave the weights of this layer at random values.
    layers : collection of str, optional
        Names of the submodules, for the message.
    of_method : bool, default=False
        Whether a method such as ``get_image_features`` returned the output. These methods name
        ``"pooler_output"`` what they are named after.

    Returns
    -------
    object

    Raises
    ------
    UnknownLayer
        There is no output of this name.
    TypeError
        The output cannot be chosen without a name.
    """
    named = isinstance(output, Mapping)
    if name is not None:
        if not named or output.get(name) is None:
            check_layer(name, [*layers, *(key for key in output if named)])
        return output[name]
    if not named:
        return output
    rows = {key: value for key, value in output.items() if getattr(value, "ndim", 0) >= 2}
    wanted = [key for key in rows if str(key).endswith("_embeds")]
    if not wanted:
        order = ["pooler_output"] * of_method + ["sentence_embedding", "last_hidden_state"]
        wanted = [key for key in order if key in rows][:1] or list(rows)
    if len(wanted) == 1:
        return rows[wanted[0]]
    listed = ", ".join(f"{shown(key)} {tuple(value.shape)}" for key, value in rows.items())
    raise TypeError(
        f"encoder returned a {type(output).__name__} with [{listed}]; expected one output. Choose "
        "it by layer='its name', or wrap the encoder so that it returns one."
    )


def check_layer(layer: str, names: Collection[str]) -> None:
    """Refuse a name that is not one of `names`, and list names near it."""
    if layer not in names:
        # Cut, since an ONNX file from a stranger may have output names of any length.
        short = {name[:_ROOM]: name for name in itertools.islice(names, _MOST_NAMES) if name}
        near = difflib.get_close_matches(layer[:_ROOM], short, n=8, cutoff=0.3)
        listed = [shown(short[name], _ROOM) for name in near or list(short)[-8:]]
        raise UnknownLayer(
            f"layer={shown(layer, _ROOM)} is not in encoder. Names near it: {', '.join(listed)}."
        )


def check_output(output: Any, n_rows: int) -> torch.Tensor:
    """Turn an encoder's output into a floating tensor of 2 to 4 dimensions, or refuse it."""
    output = choose_output(output)
    if not isinstance(output, torch.Tensor):
        try:
            if isinstance(output, tuple):  # asarray might stack several outputs
                raise TypeError("several outputs")
            array = np.asarray(output)
            array = array.astype(array.dtype.newbyteorder("="), copy=False)  # torch reads no other
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


def pool_tokens(output: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool (n, tokens, d) over the tokens of each text only, and not over those that fill it up.

    Parameters
    ----------
    output : tensor
    mask : tensor of shape (n, tokens)
        Not 0 where a token belongs to the text.
    pooling : {"mean", "max", "cls", "flatten"}

    Returns
    -------
    tensor
        Of shape (n, d); `output` unchanged where the mask is not that of its tokens, or for
        "flatten".
    """
    if output.ndim != 3 or output.shape[:2] != mask.shape or pooling == "flatten":
        return output
    mask = mask.to(output.device) != 0
    if pooling == "cls":  # the first token; texts may be filled up on the left
        return output[torch.arange(len(output), device=output.device), mask.int().argmax(1)]
    if pooling == "max":
        return output.masked_fill(~mask[..., None], -torch.inf).amax(1)
    return output.float().masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)


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
