"""Intra-processing, several methods: the inputs and outputs of layers while a network runs."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from skfair.intraprocessing._inputs import Inputs, call
from skfair.intraprocessing._network import at_least_single

_Layer = TypeVar("_Layer", bound=nn.Module)


@contextmanager
def read_layers(
    layers: Iterable[_Layer], *, outputs: bool = False
) -> Iterator[list[tuple[_Layer, torch.Tensor]]]:
    """Record the input or the output of layers in each call.

    Parameters
    ----------
    layers : iterable of torch.nn.Module
        The layers. They have a hook until the context ends.
    outputs : bool, default=False
        Whether to record outputs, and not inputs.

    Yields
    ------
    list of (layer, tensor)
        One pair for each call of a layer, in order; in single precision at least.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    >>> with read_layers([network[1]]) as seen:
    ...     _ = network(torch.zeros(5, 3))
    >>> [(layer is network[1], tuple(tensor.shape)) for layer, tensor in seen]
    [(True, (5, 2))]
    """
    seen: list[tuple[_Layer, torch.Tensor]] = []

    def note_input(layer: _Layer, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append((layer, at_least_single(inputs[0])))

    def note_output(layer: _Layer, _: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append((layer, at_least_single(output)))

    hooks = [
        layer.register_forward_hook(note_output)
        if outputs
        else layer.register_forward_pre_hook(note_input)
        for layer in layers
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def layer_inputs(network: nn.Module, layer: str, X: Inputs) -> np.ndarray:
    """Compute the inputs of a layer for all rows.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode.
    layer : str
        Name of the layer, which each run of the network calls once.
    X : Inputs

    Returns
    -------
    ndarray of shape (n_samples, n_features), float64
    """
    parts = []
    with read_layers([network.get_submodule(layer)]) as seen:
        for batch in X.batches():
            call(network, batch)
            parts.append(seen.pop()[1].cpu().double())
    return torch.cat(parts).numpy()
