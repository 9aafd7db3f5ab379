"""RandomPerturbationDebiaser: which weights it draws, and how it scores and chooses them."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from skfair.intraprocessing import RandomPerturbationDebiaser
from skfair.intraprocessing._search import Search
from skfair.utils import FallbackWarning
from skfair.utils._random import seeded

pytestmark = [
    pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning"),
    pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning"),
]

N = 200


def make_data():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(2, size=(2, N))
    X = rng.normal(size=(N, 4)).astype(np.float32)
    X[:, 0] += 2 * y
    X[:, 1] += groups
    return X, y, groups


X, Y, GROUPS = make_data()


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        with seeded(0):
            self.first, self.norm, self.last = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)
        with torch.no_grad():
            self.norm.running_mean.fill_(0.1)
            self.last.weight.abs_()

    def forward(self, X):
        return self.last(torch.relu(self.norm(self.first(X))))


class Branching(Plain):
    """The same network with a branch on the data, which torch cannot trace."""

    def forward(self, X):
        hidden = self.norm(self.first(X))
        if hidden.sum() > -1e9:
            hidden = torch.relu(hidden)
        return self.last(hidden)


def fit(network=None, **parameters):
    parameters = {"random_state": 0, "epsilon": 0.1, "n_trials": 20, **parameters}
    debiaser = RandomPerturbationDebiaser(network or Plain(), **parameters)
    return debiaser.fit(X, Y, sensitive_features=GROUPS)


def candidates(monkeypatch, network=None, **parameters):
    """The debiaser, and the drawn weights and the scores of every trial."""
    states, scores, original = [], [], Search.consider

    def consider(self, values=None, state=None, **columns):
        if columns.get("candidate") == "perturbed":
            states.extend(state(position)() for position in range(len(values)))
            scores.extend(values)
        return original(self, values, state, **columns)

    with monkeypatch.context() as patch:
        patch.setattr(Search, "consider", consider)
        debiaser = fit(network, **parameters)
    return debiaser, states, np.array(scores)


def test_trials_are_the_original_a_threshold_and_what_was_drawn():
    trials = fit(n_trials=20).trials_
    assert trials.candidate.tolist() == ["original", "threshold"] + ["perturbed"] * 20
    assert trials.bias[2:].nunique() > 5


def test_a_network_that_branches_on_the_data_gives_the_same(monkeypatch):
    plain, states, scores = candidates(monkeypatch)
    branching, other_states, other_scores = candidates(monkeypatch, Branching())
    np.testing.assert_allclose(scores, other_scores, atol=1e-5)
    for one, two in zip(states, other_states, strict=True):
        for key in one:
            assert torch.equal(one[key], two[key])
    assert plain.best_trial_ == branching.best_trial_
    np.testing.assert_allclose(
        plain.decision_function(X), branching.decision_function(X), atol=1e-5
    )


@pytest.mark.parametrize("n_jobs", [2, -1])
@pytest.mark.parametrize("kind", [Plain, Branching])
def test_the_result_does_not_depend_on_n_jobs(kind, n_jobs):
    one, more = fit(kind(), n_trials=40), fit(kind(), n_trials=40, n_jobs=n_jobs)
    np.testing.assert_array_equal(one.trials_.to_numpy(), more.trials_.to_numpy())
    np.testing.assert_array_equal(one.decision_function(X), more.decision_function(X))


@pytest.mark.parametrize("kind", [Plain, Branching])
def test_a_trial_does_not_depend_on_how_many_there_are(kind):
    # Each trial starts from the original weights: noise does not add up.
    few, many = fit(kind(), n_trials=5), fit(kind(), n_trials=37)
    # All rows but those of the chosen candidates, which are measured anew.
    others = np.setdiff1d(np.arange(7), [few.best_trial_, many.best_trial_])
    assert len(others) >= 5
    np.testing.assert_array_equal(few.trials_.loc[others], many.trials_.loc[others])


def test_scores_are_those_of_the_weights(monkeypatch):
    _, states, scores = candidates(monkeypatch)
    network = Plain().eval()
    for state, found in zip(states[:20:4], scores[:20:4], strict=True):
        network.load_state_dict({k.removeprefix("network."): v for k, v in state.items()})
        with torch.no_grad():
            expected = network(torch.tensor(X)).numpy()[:, 0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_network_handed_back_has_the_weights_that_were_chosen(monkeypatch):
    debiaser, states, scores = candidates(monkeypatch, random_state=1)
    assert debiaser.best_trial_ >= 2  # otherwise this test says nothing
    chosen = states[debiaser.best_trial_ - 2]
    found = debiaser.module_[0].state_dict()
    for name, value in found.items():
        assert torch.equal(value, chosen[f"network.{name}"])
    np.testing.assert_allclose(
        debiaser.decision_function(X),
        scores[debiaser.best_trial_ - 2] - debiaser.threshold_,
        atol=1e-5,
    )


def test_every_parameter_is_multiplied_by_noise_of_the_given_size(monkeypatch):
    original = {f"network.{k}": v for k, v in Plain().named_parameters()}
    for std in (0.05, 0.5):
        _, states, _ = candidates(monkeypatch, std=std, n_trials=200)
        for name, value in original.items():
            used = value != 0  # biases of a fresh BatchNorm are zero and stay zero
            factors = torch.stack([state[name] for state in states])
            if not used.any():
                assert not factors.any()
                continue
            factors = (factors[:, used] / value[used]).detach().numpy()
            n = factors.size
            assert factors.mean() == pytest.approx(1, abs=5 * std / np.sqrt(n))
            assert factors.std() == pytest.approx(std, rel=5 / np.sqrt(2 * n))
            # Each entry has noise of its own.
            assert len(np.unique(factors[0])) == used.sum()
        # Running statistics are not perturbed.
        for state in states[:5]:
            assert torch.equal(state["network.norm.running_mean"], Plain().norm.running_mean)


def test_other_seeds_give_other_trials():
    one, two = (fit(random_state=seed).trials_ for seed in (0, 1))
    np.testing.assert_array_equal(one[:2].to_numpy(), two[:2].to_numpy())
    assert not np.isin(one.bias[2:], two.bias[2:]).all()


def test_what_another_threshold_does_is_a_candidate():
    compared = 0
    for epsilon in (0.02, 0.1, 0.5):
        debiaser = fit(epsilon=epsilon)
        found = debiaser.trials_.loc[1]
        assert found.candidate == "threshold"
        if debiaser.best_trial_ == 1:  # its measures are corrected for the choice
            continue
        with torch.no_grad():
            scores = Plain().eval()(torch.as_tensor(X)).numpy().reshape(-1)
        predicted = scores > found.threshold
        rates = [predicted[group == GROUPS].mean() for group in (0, 1)]
        assert found.bias == pytest.approx(rates[0] - rates[1], abs=1e-9)
        right = [(predicted == label)[label == Y].mean() for label in (0, 1)]
        assert found.performance == pytest.approx(np.mean(right), abs=1e-9)
        compared += 1
    assert compared


def test_a_warning_if_no_trial_is_better():
    # The network is right on each row, and any noise makes it worse.
    network = nn.Sequential(nn.Linear(1, 1))
    with torch.no_grad():
        network[0].weight.fill_(1.0), network[0].bias.fill_(-0.5)
    rows = Y[:, None].astype(np.float32)
    debiaser = RandomPerturbationDebiaser(network, epsilon=0.5, n_trials=7, random_state=0)
    with pytest.warns(FallbackWarning, match=r"None of 7 candidates was better"):
        debiaser.fit(rows, Y, sensitive_features=GROUPS)
    assert debiaser.best_trial_ == 0
    assert debiaser.performance_ == 1.0
    assert torch.equal(debiaser.module_[0][0].weight, network[0].weight)


@pytest.mark.parametrize("parameters", [{"n_trials": 0}, {"std": 0}, {"std": -1}, {"n_jobs": 0.5}])
def test_parameters_out_of_range(parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"The '{name}' parameter of RandomPerturbationDebiaser"):
        fit(**parameters)


def test_a_progress_bar(capsys):
    fit(verbose=1, n_trials=3)
    assert "3/3" in capsys.readouterr().err


def test_networks_of_token_ids_are_searched():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.last = nn.EmbeddingBag(20, 4), nn.Linear(4, 1)

        def forward(self, X):
            return self.last(self.embed(X.long()))

    rng = np.random.default_rng(0)
    rows, y, groups = rng.integers(20, size=(200, 3)), *rng.integers(2, size=(2, 200))
    debiaser = RandomPerturbationDebiaser(Tokens(), n_trials=3, epsilon=0.9, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        debiaser.fit(rows, y, sensitive_features=groups)
    assert len(debiaser.trials_) == 5
