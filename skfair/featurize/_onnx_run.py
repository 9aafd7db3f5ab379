"""Runs a frozen encoder that is an ONNX model, on batches of arrays."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from skfair.featurize._onnx_model import OnnxModel
from skfair.featurize._outputs import check_layer
from skfair.featurize._preprocess import preprocessed
from skfair.utils._shown import shown_all


def onnx_run(
    session: Any, encoder: Any, layer: str | None, preprocess: Callable | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function that runs a model on a batch of any size.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
    encoder : path-like or OnnxModel
        For messages.
    layer : str or None
        Name of an output.
    preprocess : callable or None

    Returns
    -------
    callable
    """
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    if len(inputs) != 1:
        name = encoder if isinstance(encoder, OnnxModel) else os.fspath(encoder)
        raise ValueError(
            f"encoder={name!r} has the inputs [{shown_all([i.name for i in inputs])}]; expected "
            "one. Pass a callable that fills in the other inputs."
        )
    name, size = inputs[0].name, inputs[0].shape[0] if inputs[0].shape else None
    if layer is not None:
        check_layer(layer, outputs)
    wanted = [layer if layer is not None else outputs[0]]
    dtypes = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
    dtype = dtypes.get(inputs[0].type)

    def run(batch: np.ndarray) -> np.ndarray:
        if inputs[0].type != "tensor(uint8)" or preprocess is not None:
            batch = preprocessed(batch, preprocess)
        if dtype is not None:
            batch = batch.astype(dtype)
        if not isinstance(size, int) or size == len(batch):
            return session.run(wanted, {name: batch})[0]
        # The model takes one fixed batch size: cut the batch into such parts, and fill the last.
        parts = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            parts.append(session.run(wanted, {name: filled})[0][: len(part)])
        return np.concatenate(parts)

    return run
