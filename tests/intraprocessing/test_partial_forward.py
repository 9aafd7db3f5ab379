"""Reruns of the changed part of a network against runs of the whole network."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from skfair.intraprocessing import _partial_forward
from skfair.intraprocessing._network import LogitNetwork, Output
from skfair.intraprocessing._partial_forward import PartialForward


class Block(nn.Module):
    """A residual block as in torchvision, with all possible in-place operations."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else None

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.shortcut is None else self.shortcut(x)
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(Block(4, 4), Block(4, 6), Block(6, 6))
        self.fc = nn.Linear(6, 1)

    def forward(self, x):
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1), 1))


class InPlaceOnViews(nn.Module):
    """Writes into memory that other steps read before and after, through views of it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(4, 4)
        self.third, self.last = nn.Linear(4, 4), nn.Linear(12, 1)

    def forward(self, x):
        h = self.first(x)
        left, right = h[:, :4], h[:, 4:]
        before = self.second(left)
        left.add_(self.third(right))  # changes `h` and `left`, which is read again
        F.relu_(before)
        right.mul_(2)
        return self.last(torch.cat([h, before * left], dim=1))


class ClassToken(nn.Module):
    """Attention over tokens; only the first token is used."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.attend = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.attend(self.embed(x.unsqueeze(-1)))[:, 0])


class Tied(nn.Module):
    """The same weights early and late, and a parameter that is used directly."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1)
        self.b.weight = self.a.weight
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)) * self.scale)))


class ByShape(nn.Module):
    """Has a branch on the shape of its input, which cannot be traced."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h if h.shape[1] == 6 else -h)


class ByType(nn.Module):
    """Takes another branch for inputs that are no tensors, such as those of a trace."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x):
        h = self.a(x)
        return self.b(torch.relu(h) if isinstance(h, torch.Tensor) else h)


class OnItsInput(nn.Module):
    """Writes into its input."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x):
        x.sub_(1)
        return self.b(torch.relu(self.a(x)))


def perceptron(n_out=1, last=None):
    layers = []
    for n_in in (6, 5):
        layers += [nn.Linear(n_in, 5), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(5)]
    return nn.Sequential(*layers, nn.Linear(5, n_out), *([last] if last else []))


def weight_norm():
    hidden = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))
    return nn.Sequential(hidden, nn.ELU(inplace=True), nn.Linear(5, 1))


NETWORKS = {
    "perceptron": perceptron,
    "two outputs": lambda: LogitNetwork(perceptron(2), Output("logits", 2)),
    "probability": lambda: LogitNetwork(perceptron(1, nn.Sigmoid()), Output("probabilities", 1)),
    "two probabilities": lambda: LogitNetwork(
        perceptron(2, nn.Softmax(dim=1)), Output("probabilities", 2)
    ),
    "residual": Residual,
    "in place on views": InPlaceOnViews,
    "class token": ClassToken,
    "tied": Tied,
    "weight norm": weight_norm,
    "by shape": ByShape,
    "by type": ByType,
    "on its input": OnItsInput,
}


def make(name, seed=0, n=23):
    """A network with batch statistics of its own, in eval mode, and rows for it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NETWORKS[name]()
        X = torch.randn((n, 1, 7, 7) if name == "residual" else (n, 6))
        network.train()
        with torch.no_grad():
            for _ in range(3):
                network(X.clone())
    return network.eval(), X


@torch.no_grad()
def change(network, names):
    for name in names:
        parameter = network.get_parameter(name)
        parameter.add_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))


@torch.no_grad()
def whole(network, X):
    return network(X.clone())


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_to_the_whole_network(name):
    network, X = make(name)
    names = [n for n, _ in network.named_parameters()]
    original = {n: v.clone() for n, v in network.state_dict().items()}
    rows = X.clone()
    forward = PartialForward(network, X, names, batch_size=10)
    for changed in [[n] for n in names] + [names[-2:], names]:
        run = forward.changing(changed)
        before = whole(network, X)
        torch.testing.assert_close(run(), before)
        change(network, changed)
        torch.testing.assert_close(run(), whole(network, X))
        torch.testing.assert_close(run(), whole(network, X))  # no kept value was overwritten
        network.load_state_dict(original)
        torch.testing.assert_close(run(), before)
    assert torch.equal(X, rows)


def count_rows(module):
    """Count the rows that go through a module."""
    counts = []
    module.register_forward_hook(lambda module, args, output: counts.append(len(output)))
    return counts


@pytest.mark.parametrize(
    ("name", "early", "late"),
    [
        ("two outputs", "network.0", "network.8.weight"),
        ("two probabilities", "network.4", "network.8.bias"),
        ("residual", "blocks.0.conv1", "blocks.2.bn2.weight"),
        ("residual", "blocks.2.conv2", "fc.weight"),
        ("class token", "attend", "head.weight"),
        ("in place on views", "second", "last.weight"),
        ("weight norm", "0", "2.weight"),
    ],
)
def test_unchanged_layers_run_once(name, early, late):
    network, X = make(name)
    counts = count_rows(network.get_submodule(early))
    run = PartialForward(network, X, [late]).changing([late])
    counts.clear()
    change(network, [late])
    run()
    run()
    assert counts == []
    torch.testing.assert_close(run(), whole(network, X))
    assert counts == [len(X)]  # the whole network: the hook works


def test_shared_start_runs_once_for_all_changes():
    network, X = make("perceptron")
    counts = count_rows(network[0])
    late = ["8.weight", "8.bias"]
    forward = PartialForward(network, X, late)
    counts.clear()
    for name in late:
        change(network, [name])
        torch.testing.assert_close(forward.changing([name])(), network(X).detach())
        assert counts == [len(X)]  # from the line above
        counts.clear()


@pytest.mark.parametrize("name", ["by shape", "by type", "on its input"])
def test_runs_whole_where_a_trace_would_not_do(name):
    network, X = make(name)
    counts = count_rows(network.a)
    run = PartialForward(network, X, ["b.weight"]).changing(["b.weight"])
    counts.clear()
    run()
    assert counts == [len(X)]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_activations_beyond_the_limit_are_not_kept(monkeypatch, share):
    network, X = make("residual", n=20)
    # Five batches of four rows; the last linear layer gets six numbers for each row.
    monkeypatch.setattr(_partial_forward, "_KEPT_BYTES", int(share * X.shape[0] * 6 * 4))
    counts = count_rows(network.stem[0])
    names = ["blocks.2.bn2.weight", "fc.weight"]
    run = PartialForward(network, X, names, batch_size=4).changing(["fc.weight"])
    counts.clear()
    change(network, ["fc.weight"])
    result = run()
    assert sum(counts) == 20 - 4 * int(5 * share)
    torch.testing.assert_close(result, whole(network, X))


def test_a_kept_view_frees_the_large_tensor():
    network, X = make("class token")
    forward = PartialForward(network, X, ["head.weight"])
    (kept,) = (t for t in forward._start[0] if t.shape == (len(X), 8))
    assert kept.untyped_storage().nbytes() == kept.nbytes


def test_one_row():
    network, X = make("residual", n=1)
    run = PartialForward(network, X, ["fc.bias"]).changing(["fc.bias"])
    change(network, ["fc.bias"])
    torch.testing.assert_close(run(), whole(network, X))
