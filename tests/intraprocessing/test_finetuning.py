"""What the debiasers that train all layers share."""

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skfair.intraprocessing import (
    AdversarialFinetuneDebiaser,
    BiasGradientDebiaser,
    DistillationDebiaser,
)
from skfair.intraprocessing._finetuning import CellBatches, TuningData, TuningRows
from skfair.intraprocessing._inputs import ONLY, Inputs, Rows
from skfair.intraprocessing._search import Search
from skfair.intraprocessing._selection import Selection
from skfair.utils._random import seeded

CPU = torch.device("cpu")
Attribute = functools.partial(AdversarialFinetuneDebiaser, adversary="attribute")
KINDS = {
    "bias gradient": BiasGradientDebiaser,
    "distillation": DistillationDebiaser,
    "critic": AdversarialFinetuneDebiaser,
    "attribute": Attribute,
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
short = pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
uncertain = pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning")


# Batches ----------------------------------------------------------------------------------


def batches(sizes, batch_size):
    """Batches of rows whose input is their number, and where each row's cell is."""
    cell = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    codes, number = torch.tensor(cell), torch.arange(len(cell))
    ones = torch.ones(len(cell))
    data = TuningData(number, TuningRows(codes // 2, codes % 2, weight=ones, original=0 * ones))
    return CellBatches(data, batch_size), cell


def drawn(made):
    return [
        (inputs["X"].numpy(), batch.cell.numpy(), batch.weight.numpy()) for inputs, batch in made
    ]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=8), st.integers(1, 200))
def test_batches_have_equal_cells_and_stand_for_the_population(sizes, batch_size):
    made, cell = batches(sizes, batch_size)
    value = np.random.default_rng(1).normal(size=len(sizes))
    share = max(1, batch_size // len(sizes))
    with seeded(0):
        every = drawn(made)
    assert len(every) == len(made) == max(10, -(-sum(sizes) // batch_size))
    for rows, cells, weight in every:
        np.testing.assert_array_equal(cell[rows], cells)
        assert len(set(rows)) == len(rows) == made.n_rows
        np.testing.assert_array_equal(np.bincount(cells), np.minimum(sizes, share))
        # The mean of anything that depends on the cell alone is that of all rows.
        assert (weight * value[cells]).mean() == pytest.approx(value[cell].mean(), abs=1e-6)


def test_all_rows_get_their_turn_and_small_cells_are_whole():
    made, cell = batches([3, 200, 100, 50], 40)
    with seeded(0):
        every = drawn(made)
    seen = np.bincount(np.concatenate([rows for rows, *_ in every]), minlength=len(cell))
    assert (seen[cell == 0] == len(every)).all()
    assert 100 >= np.count_nonzero(seen[cell == 1]) > 50
    assert np.count_nonzero(seen) > 150


def test_batches_follow_the_seed():
    made, _ = batches([30, 40, 50, 60], 32)
    found = []
    for seed in (0, 0, 1):
        with seeded(seed):
            found.append(np.concatenate([rows for rows, *_ in drawn(made)]))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


# What may be looked at --------------------------------------------------------------------


def watch(monkeypatch, before=lambda search: None):
    """Note the search of a fit, and the weights of each network that is considered."""
    searches, states = [], []
    original, consider = {}, Search.consider

    def considered(self, *args, **columns):
        states.append(self.state())
        return consider(self, *args, **columns)

    for kind in (BiasGradientDebiaser, DistillationDebiaser, AdversarialFinetuneDebiaser):
        original[kind] = kind._search

        def search(self, search, kind=kind):
            searches.append(search)
            before(search)
            original[kind](self, search)

        monkeypatch.setattr(kind, "_search", search)
    monkeypatch.setattr(Search, "consider", considered)
    return searches, states


@short
@uncertain
@pytest.mark.filterwarnings("ignore::skfair.utils.OverfitWarning")  # of the spoilt rows
@pytest.mark.filterwarnings("ignore::skfair.utils.SmallGroupWarning")
@pytest.mark.parametrize("confidence", ["auto", 0.9])
@every_kind
def test_rows_that_judge_or_calibrate_tune_nothing(kind, confidence, task, monkeypatch):
    task = task(2)
    debiaser = kind(task.network, confidence=confidence, epsilon=0.3, max_epochs=2, random_state=0)
    garbage = {"on": False}

    def spoil(search):
        if garbage["on"]:
            held_out = np.concatenate(search.selection.rows[1:3])
            search.objective.y[held_out] = 1 - search.objective.y[held_out]
            search.objective.codes[held_out] = 0
            search.objective.cell[held_out] = 1
            X = search.X[:].clone()  # which may be the caller's
            X[held_out] = 17.0
            search.X = Inputs(Rows("array", {ONLY: X}), search.device, X.dtype)

    searches, states = watch(monkeypatch, spoil)
    task.fit(debiaser)
    n_epochs = len(debiaser.trials_) - 2
    clean = states[:n_epochs]
    tune, select, calibrate, _ = searches[0].selection.rows
    assert sorted([*tune, *select, *calibrate]) == list(range(2000))  # and each once
    left = 2000 if confidence == "auto" else 1000
    assert len(calibrate) == pytest.approx(2000 - left, abs=4)
    # Up to a row for each of many strata.
    assert len(select) == pytest.approx(0.3 * left, rel=0.15)
    np.testing.assert_array_equal(searches[0].selection.judge.y, task.y[select])

    states.clear()
    garbage["on"] = True
    task.fit(debiaser)
    assert len(clean) > 1
    for state, same in zip(states[:n_epochs], clean, strict=True):
        for name, value in state.items():
            torch.testing.assert_close(value, same[name], rtol=0, atol=0)


# Networks ---------------------------------------------------------------------------------


class Both(nn.Module):
    """Two outputs of which the difference is the logit."""

    def forward(self, logit):
        return torch.cat([0.3 - logit / 2, 0.3 + logit / 2], dim=1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "end",
    [[Both()], [nn.Sigmoid()], [Both(), nn.Softmax(dim=1)]],
    ids=["two logits", "a probability", "two probabilities"],
)
@every_kind
def test_outputs_of_every_kind_train_alike(kind, end, task):
    task = task(2)
    found = {}
    for name, network in {
        "logit": task.network,
        "other": nn.Sequential(*copy.deepcopy(task.network), *end),
    }.items():
        debiaser = kind(network, constraint="average_odds", lr=5e-3, max_epochs=8, random_state=0)
        found[name] = task.on_fresh_rows(task.fit(debiaser), "average_odds")
    assert found["other"] == pytest.approx(found["logit"], abs=0.05)
    assert found["other"][1] > task.threshold_only("average_odds") + 0.1


@uncertain
@short
@every_kind
def test_frozen_parameters_and_running_statistics_stay(kind, task):
    task = task(2)
    network = nn.Sequential(
        copy.deepcopy(task.network[0]),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.5),
        copy.deepcopy(task.network[2]),
    )
    with torch.no_grad():
        network[1].running_mean.uniform_(-0.1, 0.1)
    network[0].weight.requires_grad_(False)
    network.train()
    original = copy.deepcopy(network.state_dict())
    debiaser = task.fit(kind(network, epsilon=0.08, lr=5e-3, max_epochs=4, random_state=0))
    assert debiaser.best_trial_ > 1
    after = debiaser.module_[0].state_dict()
    assert list(after) == list(original)
    fixed = {"0.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    for name, value in after.items():
        assert torch.equal(value, original[name]) == (name in fixed), name
        assert torch.equal(network.state_dict()[name], original[name]), name
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning")
@pytest.mark.parametrize("kind", [BiasGradientDebiaser, DistillationDebiaser, Attribute])
def test_images_through_a_network_without_a_linear_layer(kind):
    def draw(n, seed):
        rng = np.random.default_rng(seed)
        y, groups = rng.integers(2, size=(2, n))
        X = rng.normal(0, 0.3, size=(n, 2, 6, 6))
        X[:, 0] += (2 * y + rng.normal(size=n))[:, None, None]
        X[:, 1] += groups[:, None, None]
        return X.astype(np.float32), y, groups

    with seeded(0):
        network = nn.Sequential(
            nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Conv2d(16, 1, 1), nn.AdaptiveAvgPool2d(1)
        )
        network.append(nn.Flatten())
    with torch.no_grad():  # the first channel and the second, each with either sign
        for unit in range(16):
            network[0].weight[unit] = 0
            network[0].weight[unit, unit % 2] = (1 if unit < 8 else -1) / 9
            network[2].weight[0, unit] = (0.6 if unit % 2 else 0.4) * (1 if unit < 8 else -1)
        network[0].bias.zero_()
        network[2].bias.fill_(-2.8)
    X, y, groups = draw(600, 0)
    debiaser = kind(network, epsilon=0.1, lr=2e-2, max_epochs=8, random_state=0)
    debiaser.fit(X, y, sensitive_features=groups)
    X, y, groups = draw(3000, 1)
    predicted = debiaser.predict(X)
    original = network(torch.tensor(X)).detach().numpy()[:, 0] > 0
    bias, before = (p[groups == 0].mean() - p[groups == 1].mean() for p in (predicted, original))
    assert before < -0.2
    assert abs(bias) < 0.1
    assert (predicted == y).mean() > 0.75


# What it says while and after -------------------------------------------------------------


@uncertain
@short
@every_kind
def test_history_and_bar(kind, task, capsys):
    task = task(2)
    debiaser = task.fit(kind(task.network, max_epochs=3, verbose=1, random_state=0))
    bar = capsys.readouterr()
    assert "3/3" in bar.err
    assert type(debiaser).__name__ in bar.err
    assert bar.out == ""
    assert list(debiaser.history_) == ["train_loss"]
    assert debiaser.history_.index.name == "epoch"
    assert debiaser.history_.train_loss.shape == (3,)
    assert np.isfinite(debiaser.history_.train_loss).all()
    assert {"epoch", "step"} & set(debiaser.trials_)
    task.fit(debiaser.set_params(verbose=0))
    assert capsys.readouterr().err == ""


@every_kind
def test_weights_that_overflow_are_an_error(kind, task):
    task = task(2)
    with pytest.raises(ValueError, match=r"Training diverged: .*lr=1e\+30\. Lower lr"):
        task.fit(kind(task.network, lr=1e30, max_epochs=2, random_state=0))


@uncertain
@short
@every_kind
def test_networks_gone_astray_are_judged_like_any(kind, task):
    task = task(2)
    debiaser = kind(task.network, constraint="average_odds", lr=1e3, max_epochs=2, random_state=0)
    task.fit(debiaser)
    trials = debiaser.trials_
    assert np.isfinite(trials[["bias", "performance", "objective"]]).all(axis=None)
    assert np.isfinite(debiaser.decision_function(task.X)).all()
    # What is taken is as good on new rows as it was said to be, and hardly worse than a threshold.
    bias, performance = task.on_fresh_rows(debiaser, "average_odds")
    low, high = debiaser.bias_interval_
    assert any(low <= sign * bias <= high for sign in (1, -1))
    assert performance == pytest.approx(debiaser.performance_, abs=0.05)
    assert debiaser.performance_ >= trials.performance[1] - 0.05


@short
@uncertain
@every_kind
def test_performance_may_be_a_callable(kind, task, monkeypatch):
    task = task(2)
    made, choose = [], Selection.choose

    def kept(self):
        made.append((self, choose(self)))
        return made[-1][1]

    monkeypatch.setattr(Selection, "choose", kept)

    def right(y_true, y_pred):
        return (y_pred[y_true == 0] == 0).mean() / 2 + (y_pred[y_true == 1] == 1).mean() / 2

    debiaser = task.fit(
        kind(task.network, performance=right, epsilon=0.15, max_epochs=2, random_state=0)
    )
    ((search, (chosen, _)),) = made
    expected = right(task.y[search.rows.select], chosen.predicted)
    assert debiaser.performance_ == pytest.approx(expected)


@every_kind
def test_a_callable_constraint_is_refused(kind, task):
    task = task(2)
    with pytest.raises(ValueError, match="The 'constraint' parameter of"):
        task.fit(kind(task.network, constraint=lambda *_, **__: 0.0))
