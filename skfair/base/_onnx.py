"""Writes networks as ONNX files, for programs without Python."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from skfair.utils._imports import import_optional
from skfair.utils._settings import warning_filter
from skfair.utils._write import check_target, write_whole

_MAX_BYTES = 2**31 - 2**20  # of a protobuf message, with room for the graph


def export_onnx(module: nn.Module, rows: dict[str, torch.Tensor], path: str | os.PathLike) -> None:
    """Write a network as an ONNX file, atomically.

    A reader finds the old file or the new one; see :func:`skfair.utils._write.write_whole`.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU, in eval mode.
    rows : dict of str to tensor of shape (n_samples, ...)
        Inputs of the network in the order of its arguments, at least two rows, by their names in
        the file. The file takes any number of rows, and sequences of integers of any length where
        the network does.
    path : path-like
        The file, weights included.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        The directory of the file does not exist, or the path is a directory.
    ImportError
        The packages that write ONNX are not installed.
    ValueError
        The network has operations, or a control flow that depends on its input, that ONNX does
        not support; it works on a fixed number of rows; it is too large for one file; or the
        path is a device or a pipe.
    """
    path = check_target(path)
    size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    if size > _MAX_BYTES:
        raise ValueError(
            f"The weights have {size} bytes, and one ONNX file holds {_MAX_BYTES}. Export "
            "to_module() yourself with torch.onnx.export and external_data=True."
        )
    for package in ("onnx", "onnxscript"):
        import_optional(package, extra="onnx", purpose="Writing ONNX")
    try:
        # torch's warnings are about its internals. One export at a time: it is not thread-safe.
        with warning_filter("ignore"), _without_torchvision(), torch.no_grad():
            program: Any = torch.onnx.export(
                module,
                tuple(rows.values()),
                dynamo=True,
                dynamic_shapes=tuple(map(_free_axes, rows.values())),
                input_names=list(rows),
                output_names=["output"],
                verbose=False,
            )
        # Loops over rows, or a reshape by their number, fix the number to that of the sample.
        if isinstance(program.model.graph.inputs[0].shape[0], int):
            raise ValueError(
                "torch cannot write this network as ONNX: the file would take a fixed number of "
                "rows. In the network's forward, work on all rows at once, without using their "
                "number."
            )
        content = program.model_proto.SerializeToString()
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(
            f"torch cannot write this network as ONNX: {_reason(error)}. Export to_module() "
            "yourself with torch.onnx.export, or change the network."
        ) from error
    write_whole(path, content)


def _free_axes(tensor: torch.Tensor) -> dict[int, Any]:
    lengths = () if tensor.is_floating_point() else range(1, tensor.ndim)
    axes = dict.fromkeys(lengths, torch.export.Dim.AUTO)  # fixed if the network fixes it
    return {0: torch.export.Dim("n_samples"), **axes}


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Keep torch from logging, once an operation, that torchvision is not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def silence(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger.addFilter(silence)
    try:
        yield
    finally:
        logger.removeFilter(silence)


def _reason(error: BaseException) -> str:
    """Return the first cause of torch's error: the last message only names a step of the export."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("\n")  # without colours
    first = next((line.strip() for line in lines if line.strip()), "")
    return f"{type(error).__name__}: {first}".rstrip(" .:")
