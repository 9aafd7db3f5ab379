"""The last linear layer of a network, and its input."""

import pytest
import torch
from torch import nn

from skfair.intraprocessing._network import LogitNetwork, Output
from skfair.intraprocessing._output_layer import HiddenActivations, find_output_layer
from skfair.utils._random import seeded

LOGITS, PAIRS = Output("logits", 1), Output("logits", 2)
PROBABILITY, PROBABILITIES = Output("probabilities", 1), Output("probabilities", 2)


def linear(n_in, n_out):
    """A linear layer with the same weights in each test run."""
    with seeded(10 * n_in + n_out):
        return nn.Linear(n_in, n_out)


with seeded(0):
    X = torch.randn(32, 4)
    IMAGES = torch.randn(32, 2, 6, 6)


class Apply(nn.Module):
    """A function at the end of a Sequential."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, X):
        return self.function(X)


class Own(nn.Module):
    """A network with a forward of its own, its layers registered in another order."""

    def __init__(self):
        super().__init__()
        self.head = linear(5, 1)
        self.gate = linear(5, 1)
        self.body = linear(4, 5)

    def forward(self, X):
        hidden = torch.relu(self.body(X))
        return self.head(hidden * torch.sigmoid(self.gate(hidden)))[:, 0]


def body(n_out=1):
    return [linear(4, 5), nn.ReLU(), linear(5, n_out)]


ENDS_IN_LINEAR = {
    "sequential": (nn.Sequential(*body()), "2", LOGITS),
    "a linear layer alone": (nn.Sequential(linear(4, 1)), "0", LOGITS),
    "nested": (nn.Sequential(nn.Sequential(*body()), nn.Dropout()), "0.2", LOGITS),
    "its own forward": (Own(), "head", LOGITS),
    "sigmoid": (nn.Sequential(*body(), nn.Sigmoid()), "2", PROBABILITY),
    "sigmoid, one dimension": (
        nn.Sequential(*body(), nn.Sigmoid(), nn.Flatten(0)),
        "2",
        PROBABILITY,
    ),
    "two logits": (nn.Sequential(*body(2)), "2", PAIRS),
    "log softmax": (nn.Sequential(*body(2), nn.LogSoftmax(1)), "2", PAIRS),
    "softmax": (nn.Sequential(*body(2), nn.Softmax(1)), "2", PROBABILITIES),
    "one number in the middle": (nn.Sequential(linear(4, 1), nn.Tanh(), linear(1, 1)), "2", LOGITS),
}
DOES_NOT = {
    "convolution and mean": (
        nn.Sequential(nn.Conv2d(2, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        LOGITS,
    ),
    "scaled": (nn.Sequential(*body(), Apply(lambda out: 2 * out)), LOGITS),
    "sum of units": (nn.Sequential(*body(3), Apply(lambda out: out.sum(1))), LOGITS),
    "another activation": (nn.Sequential(*body(), nn.Softplus()), LOGITS),
    "sigmoid declared as a logit": (nn.Sequential(*body(), nn.Sigmoid()), LOGITS),
    "maximum of a pair": (nn.Sequential(*body(2), Apply(lambda out: out.amax(1))), LOGITS),
}


@pytest.mark.parametrize("network, layer, output", ENDS_IN_LINEAR.values(), ids=ENDS_IN_LINEAR)
def test_the_last_linear_layer_is_found(network, layer, output):
    found = find_output_layer(LogitNetwork(network, output), X)
    assert found is network.get_submodule(layer)


@pytest.mark.parametrize("network, output", DOES_NOT.values(), ids=DOES_NOT)
def test_networks_that_end_in_something_else(network, output):
    rows = IMAGES if isinstance(network[0], nn.Conv2d) else X
    assert find_output_layer(LogitNetwork(network, output), rows) is None


def test_a_layer_that_runs_twice_is_not_found():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear(1, 1)

        def forward(self, X):
            return self.layer(torch.relu(self.layer(X[:, :1])))

    assert find_output_layer(LogitNetwork(Twice(), LOGITS), X) is None


def test_saturated_probabilities_do_not_hide_the_layer():
    network = nn.Sequential(*body(), nn.Sigmoid())
    with torch.no_grad():
        network[2].weight.mul_(60)  # some probabilities round to 0 or 1
    logit = LogitNetwork(network[:3], LOGITS)(X)
    assert logit.abs().max() > 17
    assert logit.abs().min() < 8
    assert find_output_layer(LogitNetwork(network, PROBABILITY), X) is network[2]


@pytest.mark.parametrize("network, layer, output", ENDS_IN_LINEAR.values(), ids=ENDS_IN_LINEAR)
def test_hidden_activations_are_the_input_of_the_layer(network, layer, output):
    wrapped = LogitNetwork(network, output)
    layer = network.get_submodule(layer)
    hidden_too = HiddenActivations(wrapped, layer)
    logit, hidden = hidden_too(X)
    torch.testing.assert_close(logit, wrapped(X), rtol=0, atol=0)
    again = nn.functional.linear(hidden, layer.weight, layer.bias)
    again = again[:, 1] - again[:, 0] if output.n_columns == 2 else again[:, 0]
    torch.testing.assert_close(again, logit, rtol=1e-4, atol=1e-4)
    # Each parameter is registered once.
    named = dict(hidden_too.named_parameters(remove_duplicate=False))
    assert [id(p) for p in named.values()] == [id(p) for p in network.parameters()]
    assert len(hidden_too.state_dict()) == len(network.state_dict())


def test_gradients_flow_through_hidden_activations():
    network = nn.Sequential(*body())
    _, hidden = HiddenActivations(LogitNetwork(network, LOGITS), network[2])(X)
    hidden.sum().backward()
    assert network[0].weight.grad.abs().sum() > 0
    assert network[2].weight.grad is None


def test_no_hook_stays_behind():
    network = nn.Sequential(*body())
    wrapped = LogitNetwork(network, LOGITS)
    layer = find_output_layer(wrapped, X)
    hidden_too = HiddenActivations(wrapped, layer)
    hidden_too(X)
    with pytest.raises(RuntimeError):
        find_output_layer(wrapped, X[:, :2])
    with pytest.raises(RuntimeError):
        hidden_too(X[:, :2])
    for module in hidden_too.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
