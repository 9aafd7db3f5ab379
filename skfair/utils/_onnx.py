"""Networks as ONNX files, for programs without Python."""

import os
import warnings
from pathlib import Path

import torch
from torch import nn

from skfair.utils._imports import import_optional


def export_onnx(module: nn.Module, sample: torch.Tensor, path: str | os.PathLike) -> None:
    """Write a network as an ONNX file, in one step.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU, in eval mode.
    sample : tensor of shape (n_samples, ...)
        What it takes, two rows at least. Their number is left open in the file.
    path : path-like
        The file, weights included.

    Raises
    ------
    ImportError
        The packages that write ONNX are not installed.
    ValueError
        The network has operations, or ways that depend on its input, that ONNX has not.
    """
    for package in ("onnx", "onnxscript"):
        import_optional(package, extra="onnx", purpose="Writing ONNX")
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's, about its own insides
            torch.onnx.export(
                module,
                (sample,),
                part,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("n_samples")},),
                input_names=["X"],
                output_names=["output"],
                external_data=False,
                verbose=False,
            )
        os.replace(part, path)
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(
            f"torch cannot write this network as ONNX: {str(error).splitlines()[0]} Export "
            "to_module() yourself with torch.onnx.export, or change the network."
        ) from error
    finally:
        part.unlink(missing_ok=True)
