"""Intra-processing by training: the last linear layer of a network, and its input."""

import torch
from torch import nn

from skfair.intraprocessing._inputs import Batch
from skfair.intraprocessing._layers import read_layers
from skfair.intraprocessing._network import LogitNetwork


def find_output_layer(network: LogitNetwork, X: Batch) -> nn.Linear | None:
    """Find the linear layer that computes the network's output, up to a sigmoid or softmax.

    Parameters
    ----------
    network : LogitNetwork
        In eval mode.
    X : tensor, dict of tensors or tuple of tensors
        A few rows to run it on.

    Returns
    -------
    torch.nn.Linear or None
        None if there is no such layer, for instance in a network that ends in a convolution and a
        mean.
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad(), read_layers(linear, outputs=True) as outputs:
        logit = network(X)
    kind = network.output
    for layer, out in reversed(outputs):
        if (
            out.shape != (len(logit), kind.n_columns)
            or sum(each is layer for each, _ in outputs) > 1
        ):
            continue
        candidate = out[:, 1] - out[:, 0] if kind.n_columns == 2 else out[:, 0]
        # The logit of a probability close to 0 or 1 is inaccurate.
        compared = logit.abs() < 8 if kind.kind == "probabilities" else torch.ones_like(logit) > 0
        if torch.allclose(candidate[compared], logit[compared], rtol=1e-3, atol=1e-3):
            return layer
    return None


class HiddenActivations(nn.Module):
    """A network that also returns the input of its last linear layer.

    Parameters
    ----------
    network : LogitNetwork
        The network; shared, not copied.
    layer : torch.nn.Linear
        From :func:`find_output_layer`.
    """

    def __init__(self, network: LogitNetwork, layer: nn.Linear):
        super().__init__()
        self.network = network
        self._layer = [layer]  # in a list, so that its parameters are not registered twice

    def forward(self, X: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network.

        Returns
        -------
        logit : tensor of shape (n_samples,)
        hidden : tensor of shape (n_samples, in_features)
        """
        with read_layers(self._layer) as seen:
            return self.network(X), seen[0][1]
