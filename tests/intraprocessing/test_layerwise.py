"""The layerwise search: what it changes, by how much, and which rows guide it."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

from skfair.intraprocessing import LayerwiseDebiaser, _inputs
from skfair.intraprocessing._network import LogitNetwork, Output
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._rows import Rows
from skfair.intraprocessing._search import Search, network_state
from skfair.intraprocessing._selection import Selection

# These tests are not about the warnings that little data brings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning"),
    pytest.mark.filterwarnings("ignore::skfair.utils.OverfitWarning"),
]

SLOTS = ("threshold", "bias", "performance", "probability", "objective")


class Conditional(nn.Module):
    """A network with a decision that a trace cannot follow, and no other effect."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x) if x.abs().sum() >= 0 else x


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def data():
    """Rows in which the group shifts the logit, and a network that has learned that."""
    rng = np.random.default_rng(0)
    group, y = rng.integers(2, size=(2, 400))
    X = np.column_stack([y + 0.7 * rng.normal(size=400), group, rng.normal(size=400)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Linear(3, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 1)
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        rows = torch.as_tensor(X, dtype=torch.float32)
        target = torch.as_tensor(y + 0.6 * (group - 0.5), dtype=torch.float32).clamp(0, 1)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(network(rows)[:, 0], target).backward()
            optimizer.step()
    return network.eval(), X.astype(np.float32), y, group


@pytest.fixture
def candidates(monkeypatch):
    """Every candidate that is judged: its layer, weights, given scores, and scores run anew."""
    seen = []
    consider = Search.consider

    def record(self, scores=None, state=None, **columns):
        if columns["candidate"] == "layer":
            own = self.score(self.scored)
            seen.append((columns["layer"], self.state(), scores[0], own))
        return consider(self, scores, state, **columns)

    monkeypatch.setattr(Search, "consider", record)
    return seen


def fit(data, network=None, **parameters):
    original, X, y, group = data
    parameters = {"n_calls": 8, "random_state": 0, "output": "logits"} | parameters
    debiaser = LayerwiseDebiaser(network or original, **parameters)
    return debiaser.fit(X, y, sensitive_features=group)


def tried(debiaser):
    trials = debiaser.trials_
    return trials[trials["candidate"] == "layer"]


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_candidates_stay_in_the_box_of_one_tensor(data, candidates):
    original = {f"network.{n}": p.detach().clone() for n, p in data[0].named_parameters()}
    debiaser = fit(data)
    layers = ["0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    assert list(tried(debiaser)["layer"]) == list(np.repeat(layers, 8))
    for layer, state, given, own in candidates:
        np.testing.assert_allclose(given, own, rtol=1e-4, atol=1e-5)
        for name, before in original.items():
            if name != f"network.{layer}":
                assert torch.equal(state[name], before)
        change = state[f"network.{layer}"] - original[f"network.{layer}"]
        values = original[f"network.{layer}"].numpy()
        if values.size > 1:
            assert change.abs().max() <= 2.2 * values.std() * 1.0001
            assert (change != 0).all()
            # Some entry leaves the inner tenth of the box.
            assert change.abs().max() > 0.22 * values.std()
    weights = [
        state["network.4.weight"] for layer, state, _, _ in candidates if layer == "4.weight"
    ]
    assert len({w.numpy().tobytes() for w in weights}) == 8


def test_takes_the_best_of_all_layers(data, candidates):
    debiaser = fit(data, layers=["4.weight", "4.bias"], n_calls=20, epsilon=0.1)
    best = debiaser.best_trial_ - 2  # after the original network, and with another threshold
    assert 0 <= best < 20  # not of the last layer searched
    assert tried(debiaser)["layer"].iloc[best] == "4.weight"
    _, state, _, _ = candidates[best]
    for name, parameter in debiaser.module_[0].state_dict().items():
        assert torch.equal(parameter, state[f"network.{name}"])
    original = dict(data[0].named_parameters())
    for name, parameter in debiaser.module_[0].named_parameters():
        assert torch.equal(parameter, original[name]) == (name != "4.weight")


# Which of the two comes depends on the last digits of the trained network.
@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
@pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning")
def test_changing_the_last_bias_is_changing_the_threshold(data):
    debiaser = fit(data, layers=["4.bias"], n_calls=4, epsilon=0.2)
    trials = debiaser.trials_.drop(index=0)
    assert trials["threshold"].nunique() > 1  # the one entry was moved
    trials = trials.drop(index=debiaser.best_trial_, errors="ignore")  # its row is measured anew
    assert len(trials) >= 4
    for name in ("bias", "performance"):
        np.testing.assert_allclose(trials[name], trials[name].iloc[0], atol=1e-12)


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_a_network_that_cannot_be_traced_gives_the_same(data):
    plain = fit(data, layers=["0.weight", "4"])
    conditional = fit(
        data, Conditional(copy.deepcopy(data[0])), layers=["network.0.weight", "network.4"]
    )
    for name in SLOTS:
        np.testing.assert_allclose(plain.trials_[name], conditional.trials_[name], atol=1e-4)


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_same_seed_same_search(data):
    first, again, other = (fit(data, random_state=seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(first.trials_, again.trials_)
    assert not np.array_equal(tried(first)["threshold"], tried(other)["threshold"])


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_max_sparsity_is_a_number_of_entries(data, candidates):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 100), nn.Tanh(), nn.Linear(100, 1))
    original = network[0].weight.detach().clone()
    fit(data, network, layers=["0.weight"], max_sparsity=60, n_calls=6)
    moved = [state["network.0.weight"] != original for _, state, _, _ in candidates]
    # 300 entries with a share of a fifth: standard deviation 7.
    assert 30 < moved[0].sum() < 90
    assert all(torch.equal(mask, moved[0]) for mask in moved)


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_at_least_one_entry_moves(data, candidates):
    fit(data, max_sparsity=1, n_calls=2)
    original = {f"network.{n}": p for n, p in data[0].named_parameters()}
    for layer, state, _, _ in candidates:
        assert (state[f"network.{layer}"] != original[f"network.{layer}"]).any()


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_tensor_of_equal_entries_is_searched_too(data, candidates, value):
    network = copy.deepcopy(data[0])
    with torch.no_grad():
        network[4].weight.fill_(value)
    debiaser = fit(data, network, layers=["4.weight"])
    assert np.isfinite(tried(debiaser)[list(SLOTS)]).all(axis=None)
    moves = torch.stack([state["network.4.weight"] for _, state, _, _ in candidates]) - value
    every = torch.cat([p.detach().flatten() for p in network.parameters()]).numpy()
    assert 0.1 * every.std() < moves.abs().max() <= 2.2 * every.std() * 1.0001


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_a_module_moves_as_one(data, candidates):
    original = dict(data[0].named_parameters())
    debiaser = fit(data, layers=["2"], n_calls=3)
    assert list(tried(debiaser)["layer"]) == ["2"] * 3
    for _, state, _, _ in candidates:
        for name, parameter in original.items():
            assert (state[f"network.{name}"] != parameter).any() == name.startswith("2.")


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_images_and_more_layers_than_there_are():
    rng = np.random.default_rng(0)
    group, y = rng.integers(2, size=(2, 60))
    X = (rng.normal(size=(60, 1, 6, 6)) + (y + group)[:, None, None, None]).astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Pictures()
    debiaser = LayerwiseDebiaser(network, n_layers=99, n_calls=1, random_state=0)
    debiaser.fit(X, y, sensitive_features=group)
    assert list(tried(debiaser)["layer"]) == [name for name, _ in network.named_parameters()]


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_callable_constraint(data, candidates, monkeypatch):
    def gap(y_true, y_pred, *, sensitive_features):
        return y_pred[sensitive_features == 1].mean() - y_pred[sensitive_features == 0].mean()

    made, choose = [], Selection.choose

    def kept(self):
        made.append((self, choose(self)))
        return made[-1][1]

    monkeypatch.setattr(Selection, "choose", kept)
    debiaser = fit(data, constraint=gap, layers=["4.weight"], epsilon=0.1)
    assert len(tried(debiaser)) == 8
    ((selection, (chosen, _)),) = made
    rows, (_, _, y, group) = selection.rows.select, data
    expected = gap(y[rows], chosen.predicted.astype(int), sensitive_features=group[rows])
    assert debiaser.bias_ == pytest.approx(expected)
    # The other rows have the values that the choice saw; here the last row is compared.
    assert debiaser.best_trial_ != 9
    _, _, scores, _ = candidates[-1]
    predicted = (scores[: len(rows)] > debiaser.trials_["threshold"][9]).astype(int)
    expected = gap(y[rows], predicted, sensitive_features=group[rows])
    assert debiaser.trials_["bias"][9] == pytest.approx(expected)


def searched(data, y):
    """All weights that a search visits, for some labels; the rows that judge are fixed."""
    network, X, _, group = data
    select = np.arange(0, 400, 4)
    tune = np.setdiff1d(np.arange(400), select)
    objective = Objective(
        y,
        group,
        n_groups=2,
        constraint="demographic_parity",
        performance="balanced_accuracy",
        epsilon=0.05,
        confidence="auto",
        margin=0.01,
    )
    logit = LogitNetwork(copy.deepcopy(network), Output("logits", 1))
    selection = Selection(
        objective,
        scores=logit(torch.as_tensor(X)).detach().numpy(),
        rows=Rows(tune, select, select[:0], np.zeros(400, int)),
        original=network_state(logit),
        seed=0,
    )
    rows = _inputs.Rows("array", {_inputs.ONLY: X})
    inputs = _inputs.Inputs(rows, torch.device("cpu"), torch.float32)
    search = Search(logit, inputs, selection, seed=0, verbose=0)
    states = []
    consider = search.consider

    def record(*args, **kwargs):
        states.append(search.network.network[4].weight.detach().clone())
        return consider(*args, **kwargs)

    search.consider = record
    LayerwiseDebiaser(network, layers=["4.weight"], n_calls=12)._search(search)
    return torch.stack(states)


def test_labels_of_judging_rows_do_not_guide():
    rng = np.random.default_rng(1)
    group, y = rng.integers(2, size=(2, 400))
    X = np.column_stack([y + rng.normal(size=400), group, rng.normal(size=400)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.Linear(6, 1))
    data = network, X.astype(np.float32), y, group
    for first, guides in ((0, False), (1, True)):  # the rows that judge, then some rows that tune
        other = y.copy()
        other[first::4] = 1 - other[first::4]
        assert torch.equal(searched(data, y), searched(data, other)) != guides


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["4.weights"], "'4.weights', and the network in estimator has no parameter and no module"),
        (["1"], "'1', and the network in estimator has no parameter"),
        (["4.bias", "0.weight"], r"'0.weight'.*frozen.*Name some of \['0.bias'"),
        ([], "layers is .*leaves nothing to search"),
    ],
)
def test_layers_that_are_not_there(data, layers, message):
    network = copy.deepcopy(data[0])
    network[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=message):
        fit(data, network, layers=layers)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_layers": 0},
        {"n_calls": 0},
        {"max_sparsity": 0},
        {"validation_fraction": 1.0},
        {"layers": "4.weight"},
    ],
)
def test_parameters_out_of_range(data, parameters):
    with pytest.raises(InvalidParameterError, match=next(iter(parameters))):
        fit(data, **parameters)
