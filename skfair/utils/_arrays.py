"""Converting arrays and tensors of any package to NumPy."""

import sys
from typing import Any

import numpy as np


def as_numpy(block: Any) -> np.ndarray:
    """Convert an array-like or a tensor to an array. The tensor may be on any device."""
    if sys.modules.get("torch"):  # otherwise there are no tensors
        import torch

        if isinstance(block, torch.Tensor):
            block = block.detach().cpu()
            if block.dtype == torch.bfloat16:  # NumPy has no such type
                block = block.float()
            return block.numpy()
    return np.asarray(block)


def evaluation(value: Any, name: str) -> str:
    """Return the code that computes a lazy table or column; an empty text for any other value."""
    if hasattr(value, "__dask_graph__"):
        return f"{name}.compute()"
    for method in ("toPandas", "collect"):  # Spark; polars and others
        if callable(getattr(type(value), method, None)) and not hasattr(value, "__len__"):
            return f"{name}.{method}()"
    return ""


def item_at(items: Any, row: int) -> Any:
    """Return an item of the rows that a user gave; an error of the user's code names the row.

    Parameters
    ----------
    items : object with an index
    row : int

    Returns
    -------
    object
    """
    try:
        return items[row]
    except Exception as error:
        error.add_note(f"X[{row}] raised this error.")
        raise
