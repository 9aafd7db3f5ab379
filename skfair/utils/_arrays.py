"""What arrays and tables of any package are made into, or are said to need."""

from typing import Any

import numpy as np
import torch


def as_numpy(block: Any) -> np.ndarray:
    """Turn an array-like or a tensor, on any device and with gradients or not, into an array."""
    if isinstance(block, torch.Tensor):
        block = block.detach().cpu()
        if block.dtype == torch.bfloat16:  # numpy has no such type
            block = block.float()
        return block.numpy()
    return np.asarray(block)


def evaluation(value: Any, name: str) -> str:
    """Say how a table or column that is not computed yet is computed; nothing of any other."""
    if hasattr(value, "__dask_graph__"):
        return f"{name}.compute()"
    for method in ("toPandas", "collect"):  # of Spark; of polars and others
        if callable(getattr(type(value), method, None)) and not hasattr(value, "__len__"):
            return f"{name}.{method}()"
    return ""
