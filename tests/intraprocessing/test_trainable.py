"""Which weights a debiaser changes, keeps and shares with the user's network."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import skfair
from skfair.discovery import all_estimators

# Which candidate is good is not the question here.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::skfair.utils.{name}Warning")
    for name in ("Fallback", "InfeasibleConstraint", "Overfit", "LabelOrder")
]

_FEW = {
    "RandomPerturbationDebiaser": {"n_trials": 20},
    "LayerwiseDebiaser": {"n_calls": 3},
    "BiasGradientDebiaser": {"max_epochs": 2},
    "AdversarialFinetuneDebiaser": {"max_epochs": 1},
    "GroupDRODebiaser": {"max_epochs": 2},
}
DEBIASERS = [name for name, _ in all_estimators() if name.endswith("Debiaser")]
CHANGING = [
    name
    for name in DEBIASERS
    if "parameters" in inspect.signature(getattr(skfair, name)).parameters
]


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter beside it, and a head."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(4, 8).requires_grad_(False)
        self.lora_A = nn.Linear(4, 2, bias=False)
        self.lora_B = nn.Linear(2, 8, bias=False)
        self.head = nn.Linear(8, 1)

    def forward(self, X):
        return self.head(torch.relu(self.base(X) + self.lora_B(self.lora_A(X))))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=(2, 400))
    X = rng.normal(size=(400, 4)).astype(np.float32)
    X[:, 0] += 2 * y
    X[:, 1] += 2 * group
    return X, y, group


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Adapted()


def _fit(name, network, rows, **parameters):
    X, y, group = rows
    asked = {"output": "logits", "device": "cpu", "epsilon": 0.2, "random_state": 0}
    debiaser = getattr(skfair, name)(network, **asked, **_FEW.get(name, {}), **parameters)
    return debiaser.fit(X, y, sensitive_features=group)


def _weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", DEBIASERS)
def test_frozen_weights_are_shared_and_keep_their_bits(name, network, rows):
    before = _weights(network)
    fitted = _fit(name, network, rows)
    places = {tensor.data_ptr(): tensor for tensor in fitted.module_.parameters()}
    assert network.base.weight.data_ptr() in places
    assert network.head.weight.data_ptr() not in places
    assert not places[network.base.weight.data_ptr()].requires_grad
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    # What the user does to the result does not reach the network.
    fitted.module_.double()
    assert network.base.weight.dtype == torch.float32


class Merging(nn.Linear):
    """A frozen layer that adds an adapter to its weight in eval mode, and subtracts it after."""

    def __init__(self):
        super().__init__(8, 8)
        self.weight.requires_grad_(False)
        self.adapter = nn.Parameter(torch.randn(8, 8))
        self.merged = False

    def train(self, mode=True):
        if self.merged == mode:
            self.weight.data += -self.adapter if mode else self.adapter
            self.merged = not mode
        return super().train(mode)

    def forward(self, X):
        return super().forward(X) + (0 if self.merged else X @ self.adapter.T)


class Renorming(nn.Module):
    """A frozen embedding that scales its rows to the largest norm as it runs."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(2, 8, max_norm=0.5).requires_grad_(False)

    def forward(self, X):
        return X + self.table(X[:, 1].gt(0).long())


@pytest.mark.parametrize("layer", [Merging, Renorming])
@pytest.mark.parametrize("name", DEBIASERS)
def test_weights_that_a_layer_writes_itself_are_not_shared(name, layer, rows, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), layer(), nn.ReLU(), nn.Linear(8, 1))
    for half in (False, True):  # predictions in half precision share what nothing writes
        before = _weights(network.bfloat16() if half else network)
        fitted = _fit(name, network, rows)
        fitted.predict(rows[0])
        skfair.save(fitted, tmp_path / f"{half}", frozen_weights=False)
        after = network.state_dict()
        assert [key for key in before if not torch.equal(before[key], after[key])] == []
        assert network.training
        assert not getattr(network[1], "merged", False)


@pytest.mark.parametrize("name", CHANGING)
def test_parameters_choose_what_may_change(name, network, rows):
    tried = set()

    class Noting(getattr(skfair, name)):
        def _search(self, search):
            consider = search.consider

            def note(*arguments, **columns):
                choice = consider(*arguments, **columns)
                state = columns["state"](0) if columns.get("state") else search.state()
                state = state() if callable(state) else state
                start = search.original
                tried.update(n for n in state if not torch.equal(state[n], start[n]))
                return choice

            if name != "RandomPerturbationDebiaser":  # it gives the states by their position
                search.consider = note
            super()._search(search)
            self.may_change = set(search.original)

    X, y, group = rows
    asked = {"output": "logits", "device": "cpu", "epsilon": 0.2, "random_state": 0}
    debiaser = Noting(network, parameters=["lora"], **asked, **_FEW.get(name, {}))
    debiaser.fit(X, y, sensitive_features=group)
    lora = {"network.lora_A.weight", "network.lora_B.weight"}
    assert debiaser.may_change == lora
    assert tried <= lora
    if name != "RandomPerturbationDebiaser":
        assert tried
    found = debiaser.module_.get_submodule("0")
    assert found.head.weight.data_ptr() == network.head.weight.data_ptr()
    assert found.lora_A.weight.data_ptr() != network.lora_A.weight.data_ptr()


def test_all_debiasers_that_change_weights_take_parameters():
    assert set(DEBIASERS) - set(CHANGING) == {"ThresholdDebiaser", "LinearPostDebiaser"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (None, {"lora_A.weight", "lora_B.weight", "head.weight", "head.bias"}),
        ("head.*", {"head.weight", "head.bias"}),
        (["*_A.*", "bias"], {"lora_A.weight", "head.bias"}),
        ("lora_[B].weight", {"lora_B.weight"}),
    ],
)
def test_patterns(network, rows, pattern, names):
    fitted = _fit("BiasGradientDebiaser", network, rows, parameters=pattern)
    module = fitted.module_.get_submodule("0")
    assert {name for name, p in module.named_parameters() if p.requires_grad} == names


def test_all_frozen_means_that_all_may_change(network, rows):
    with pytest.raises(ValueError, match="'base', which matches frozen parameters only"):
        _fit("BiasGradientDebiaser", network, rows, parameters="base")
    fitted = _fit("BiasGradientDebiaser", network.requires_grad_(False), rows, parameters="base")
    module = fitted.module_.get_submodule("0")
    changeable = {name for name, p in module.named_parameters() if p.requires_grad}
    assert changeable == {"base.weight", "base.bias"}


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ("tail.*", ValueError, r"'tail.\*', which matches no name.*head.bias, head.weight, lora_A"),
        ([], ValueError, "names nothing"),
        (["head", 3], TypeError, "expected a name pattern"),
    ],
)
def test_patterns_that_leave_nothing(network, rows, parameters, error, message):
    with pytest.raises(error, match=message):
        _fit("DistillationDebiaser", network, rows, parameters=parameters)


def test_kept_candidates_take_no_memory(network, rows):
    """A candidate that can be made again keeps no weights."""
    kept = []

    class Noting(skfair.RandomPerturbationDebiaser):
        def _search(self, search):
            super()._search(search)
            kept.extend(state for _, state in search.selection.leaders)

    X, y, group = rows
    # Some candidate performs better than a network that was not trained.
    asked = {"output": "logits", "device": "cpu", "epsilon": 0.9, "random_state": 0}
    Noting(network, n_trials=40, std=0.8, **asked).fit(X, y, sensitive_features=group)
    original = {tensor.data_ptr() for tensor in network.parameters()}
    assert any(callable(state) for state in kept)
    weights = [state for state in kept if not callable(state)]
    assert all(t.data_ptr() in original for state in weights for t in state.values())
