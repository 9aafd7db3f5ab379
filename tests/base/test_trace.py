"""Tracing without a hand on the networks of other threads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skfair.base._trace import trace

CALL = nn.Module.__call__


class Mixed(nn.Module):
    """Layers, weights used directly, a plain tensor, a list of layers, and a second argument."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.weight = nn.Parameter(torch.ones(4, 2))
        self.register_buffer("shift", torch.arange(2.0))
        self.centre = torch.tensor([1.0, 2.0, 3.0])
        self.rest = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.calls = 0

    def forward(self, X, negative=False):
        self.calls += 1
        hidden = F.relu(self.first(X - self.centre)) @ (2 * self.weight) + self.shift
        for layer in self.rest:
            hidden = layer(hidden)
        if negative:
            hidden = -hidden
        return hidden.reshape(X.shape[0], -1) + F.linear(X, self.first.weight)[:, :2]


def weight_norm():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.Softmax(1))


def tied():
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer)


def attention():
    layer = nn.TransformerEncoderLayer(3, 1, 8, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (1, 3)), layer, nn.Flatten()).eval()


NETWORKS = {
    "mixed": Mixed,
    "a layer": lambda: nn.Linear(3, 1),
    "weight norm": weight_norm,
    "tied": tied,
    "attention": attention,
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_the_graph_gives_the_bits_of_the_network_and_shares_its_weights(make):
    network, X = make(), torch.arange(12.0).reshape(4, 3) / 7
    graph = trace(network)
    with torch.no_grad():
        assert torch.equal(graph(X), network(X))
        for parameter in network.parameters():
            parameter.mul_(0.5)
        assert torch.equal(graph(X), network(X))


def test_a_network_is_neither_run_nor_changed():
    network = Mixed()
    before = {name: dict(vars(part)) for name, part in network.named_modules()}
    trace(network)
    assert {name: vars(part) for name, part in network.named_modules()} == before


class Watching(nn.Module):
    """Notes whether somebody has replaced what calls all modules of the process."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.layer = nn.Linear(3, 1)

    def forward(self, X):
        self.seen.append(nn.Module.__call__ is CALL)
        return self.layer(X)


def test_modules_of_the_process_are_called_as_ever():
    network = Watching()
    trace(network)
    assert network.seen == [True]


class MakesAWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(3, 3)]  # hidden from torch

    def forward(self, X):
        return X @ self.layers[0].weight.exp()


class DependsOnValues(nn.Module):
    def forward(self, X):
        return X if X.sum() > 0 else -X


def hooked():
    network = nn.Sequential(nn.Sequential(nn.Linear(3, 1)))
    network[0].register_forward_hook(lambda *_: None)
    return network


@pytest.mark.parametrize("make", [MakesAWeight, DependsOnValues, hooked])
def test_what_a_graph_could_not_follow_raises(make):
    with pytest.raises(Exception, match=r"."):
        trace(make())
