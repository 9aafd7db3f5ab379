"""Intra-processing in closed form: the group head beside the output layer, in the layer's place."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from skfair.intraprocessing._inputs import Batch, Inputs, call
from skfair.intraprocessing._layers import read_layers


class LayerAndHead(nn.Module):
    """The output layer of a network and the head, side by side.

    A network returns what its output layer returns, up to a choice among positions of a sequence.
    With this module in the place of the layer, it returns the columns of the head, too. So the
    network need not be traced, as a transformer cannot be.

    Parameters
    ----------
    layer : torch.nn.Linear
        The layer that computes the outputs.
    head : torch.nn.Linear
        It takes what the layer takes.
    """

    def __init__(self, layer: nn.Module, head: nn.Linear):
        super().__init__()
        self.layer, self.head = layer, head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = self.head(hidden.type_as(self.head.weight))
        return torch.cat([self.layer(hidden), scores], dim=-1)


def put_head(network: nn.Module, layer: str, head: nn.Linear) -> None:
    """Put a head beside a layer of a network, which is changed in place."""
    network.set_submodule(layer, LayerAndHead(network.get_submodule(layer), head))


@contextmanager
def _in_place_of(network: nn.Module, layer: str, other: nn.Module) -> Iterator[None]:
    """Put another module in the place of a layer, until the context ends."""
    own = network.get_submodule(layer)
    network.set_submodule(layer, other)
    try:
        yield
    finally:
        network.set_submodule(layer, own)


@torch.no_grad()
def output_layer_inputs(network: nn.Module, layer: str, X: Inputs) -> np.ndarray:
    """Compute what the output layer takes for all rows; the network is the same afterwards.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode.
    layer : str
        From :func:`find_linear_output`.
    X : Inputs

    Returns
    -------
    ndarray of shape (n_samples, n_features), float64
    """
    with _in_place_of(network, layer, nn.Identity()):
        parts = [call(network, batch).cpu().double() for batch in X.batches()]
    return torch.cat(parts).numpy()


@torch.no_grad()
def find_linear_output(network: nn.Module, X: Batch) -> str | None:
    """Find the linear layer whose output, or a part of it, the network returns.

    Parameters
    ----------
    network : torch.nn.Module
        In eval mode. It is the same afterwards.
    X : tensor, dict of tensors or tuple of tensors
        A few rows to run it on.

    Returns
    -------
    str or None
        Name of the layer. None if the network returns something else, such as probabilities, or if
        it does not run with more columns than it has.
    """
    names = {part: name for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    with read_layers(names) as calls:
        raw = call(network, X)
    layer = calls[-1][0] if calls else None
    if layer is None or raw.ndim > 2 or sum(called is layer for called, _ in calls) > 1:
        return None
    name, columns = names[layer], raw.reshape(len(raw), -1)
    if layer.out_features != columns.shape[1]:
        return None
    # Without initial weights: nothing is drawn.
    head = nn.utils.skip_init(nn.Linear, layer.in_features, 1, device=layer.weight.device)
    for parameter in head.parameters():
        parameter.zero_()
    try:
        with _in_place_of(network, name, nn.Identity()):
            hidden = call(network, X)
        with _in_place_of(network, name, LayerAndHead(layer, head)):
            wide = call(network, X)
    except Exception:  # of any kind: the network is the user's
        return None
    same = (
        hidden.shape == (len(raw), layer.in_features)
        and wide.shape == (len(raw), columns.shape[1] + 1)
        and torch.allclose(layer(hidden), columns, rtol=1e-3, atol=1e-3)
        and torch.allclose(wide[:, :-1], columns.to(wide.dtype), rtol=1e-3, atol=1e-3)
        and not wide[:, -1].any()
    )
    return name if same else None
