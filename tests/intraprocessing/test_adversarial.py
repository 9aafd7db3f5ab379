"""Adversarial fine-tuning: critics, adversaries, and what the network learns from them."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from skfair.intraprocessing import AdversarialFinetuneDebiaser, _critics
from skfair.intraprocessing._critics import (
    AdversaryLoss,
    AttributeAdversary,
    CriticLoss,
    FlatCritic,
    ProjectedNet,
    SetCritic,
    TrainCritic,
    cross_entropy,
)
from skfair.intraprocessing._finetuning import BatchNet, CellBatches, TuningData, TuningRows
from skfair.intraprocessing._network import LogitNetwork, Output
from skfair.intraprocessing._output_layer import HiddenActivations
from skfair.intraprocessing._soft_bias import SoftBias
from skfair.metrics._rates import CONSTRAINTS
from skfair.utils._random import seeded

CPU = torch.device("cpu")
named = pytest.mark.parametrize("constraint", sorted(CONSTRAINTS))


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning")
@pytest.mark.parametrize(
    "parameters, constraint, n_groups, gain",
    [
        ({}, "demographic_parity", 2, 0.15),
        ({}, "equal_opportunity", 2, 0.04),
        ({}, "average_odds", 2, 0.2),
        ({}, "average_odds", 3, 0.2),
        ({"adversary": "attribute"}, "equal_opportunity", 2, 0.04),
        ({"adversary": "attribute"}, "average_odds", 2, 0.2),
        ({"adversary": "attribute"}, "equalized_odds", 2, 0.2),
    ],
    ids=str,
)
def test_fairer_on_fresh_rows_for_less_than_a_threshold_costs(
    parameters, constraint, n_groups, gain, task
):
    task = task(n_groups)
    debiaser = AdversarialFinetuneDebiaser(
        task.network, constraint=constraint, lr=3e-3, max_epochs=16, random_state=0, **parameters
    )
    bias, accuracy = task.on_fresh_rows(task.fit(debiaser), constraint)
    # 600 judging rows are too few for a probability of .8 that the constraint holds.
    low, high = debiaser.bias_interval_
    assert any(low <= sign * bias <= high for sign in (1, -1))
    assert bias < 0.05
    assert accuracy > task.threshold_only(constraint) + gain


def test_the_flat_critic_needs_a_linear_layer_at_the_end(task):
    task = task(2)
    network = nn.Sequential(*task.network, nn.Softplus())
    debiaser = AdversarialFinetuneDebiaser(
        network, critic="flat", output="logits", max_epochs=1, random_state=0
    )
    with pytest.raises(ValueError, match=r"critic='flat' .* does not end in one\. Use critic='set"):
        task.fit(debiaser)


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_the_flat_critic_runs_to_the_end(task):
    task = task(2)
    debiaser = AdversarialFinetuneDebiaser(
        task.network, critic="flat", constraint="equal_opportunity", max_epochs=2, random_state=0
    )
    task.fit(debiaser)
    assert len(debiaser.trials_) == 4
    assert debiaser.feasible_


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
@pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "parameters", [{}, {"critic": "flat"}, {"adversary": "attribute"}], ids=str
)
def test_networks_of_other_floating_types(parameters, dtype, task, monkeypatch):
    monkeypatch.setattr(_critics, "_N_PRETRAIN", 6)
    task = task(2)
    network = copy.deepcopy(task.network).to(dtype)
    debiaser = task.fit(
        AdversarialFinetuneDebiaser(network, max_epochs=1, random_state=0, **parameters)
    )
    assert debiaser.module_[0][0].weight.dtype == dtype
    assert np.isfinite(debiaser.history_["train_loss"]).all()


# Critics ----------------------------------------------------------------------------------


def tuning_data(task):
    logit = task.network(torch.tensor(task.X)).detach()[:, 0]
    group, label = torch.tensor(task.groups), torch.tensor(task.y)
    rows = TuningRows(group, label, weight=torch.ones_like(logit), original=logit)
    return TuningData(torch.tensor(task.X), rows)


def rows_of(cell, weight):
    """What a loss sees of rows of these cells, twice the group plus the label."""
    return TuningRows(cell // 2, cell % 2, weight=weight, original=torch.zeros_like(weight))


def trained_critic(task, constraint, *, flat=False):
    """A critic after its pretraining, before the first epoch."""
    bias, data = SoftBias(constraint, task.n_groups, 0.2), tuning_data(task)
    batches = CellBatches(data, 64)
    module = LogitNetwork(task.network, Output("logits", 1))
    with seeded(0):
        critic = FlatCritic(32, batches.n_rows) if flat else SetCritic(bias)
        if flat:
            module = HiddenActivations(module, task.network[2])
        trainer = TrainCritic(critic, bias, data, batches).initialize()
        trainer.on_epoch_begin(SimpleNamespace(module_=module, history=[1]))
    return critic, bias, data, module


def random_sets(data, n_groups, n_sets=100, n_rows=200):
    """Logits and cells of sets of rows; the logits of each group are shifted at random."""
    rng = np.random.default_rng(3)
    rows = torch.tensor(rng.integers(len(data), size=(n_sets, n_rows)))
    logit, cell = data.rows.original[rows], data.rows.cell[rows]
    offset = torch.tensor(rng.uniform(-1, 1, size=(n_sets, n_groups)), dtype=torch.float32)
    return logit + offset.gather(1, cell // 2), cell


@pytest.mark.thorough
@named
@pytest.mark.parametrize("n_groups", [2, 3])
def test_the_set_critic_knows_the_bias_and_its_gradient(constraint, n_groups, task):
    critic, bias, data, _ = trained_critic(task(n_groups), constraint)
    logit, cell = random_sets(data, n_groups)
    logit.requires_grad_(True)
    # Weights give the rows the shares of the cells in the population, which the critic knows.
    member = nn.functional.one_hot(cell, 2 * n_groups).float()
    share = torch.bincount(data.rows.cell) / member.sum(1)
    estimate, truth = critic(logit, cell), bias(logit, cell, share.gather(1, cell))
    assert np.corrcoef(estimate.detach(), truth.detach())[0, 1] > 0.85
    (learned,) = torch.autograd.grad(estimate.sum(), logit)
    (exact,) = torch.autograd.grad(truth.sum(), logit)
    cosine = nn.functional.cosine_similarity(learned, exact, dim=1)
    assert cosine.median() > (0.8 if n_groups == 2 and constraint != "equalized_odds" else 0.5)


@pytest.mark.parametrize("n_groups", [2, 3])
def test_the_set_critic_does_not_see_the_order_nor_the_number_of_rows(n_groups):
    with seeded(0):
        critic = SetCritic(SoftBias("average_odds", n_groups, 0.0)).double()
        logit = torch.randn(6, 40, dtype=torch.float64)
        cell = torch.randint(2 * n_groups, (6, 40))
        order = torch.randperm(40)
    estimate = critic(logit, cell)
    assert estimate.shape == (6,)
    torch.testing.assert_close(critic(logit[:, order], cell[:, order]), estimate)
    torch.testing.assert_close(critic(logit.repeat(1, 3), cell.repeat(1, 3)), estimate)
    torch.testing.assert_close(critic(logit[0], cell[0]), estimate[0])
    # Other cells give another estimate.
    assert (critic(logit, (cell + 1) % (2 * n_groups)) - estimate).abs().min() > 1e-6


def test_the_published_critic_says_nearly_the_same_of_every_batch(task):
    critic, bias, data, module = trained_critic(task(2), "demographic_parity", flat=True)
    n_rows = critic.layers[0].in_features // 32
    estimates, truths = [], []
    rng = np.random.default_rng(4)
    with torch.no_grad():
        logit, hidden = module(data.X)
        for _ in range(200):
            rows = torch.tensor(rng.integers(len(data), size=n_rows))
            estimates.append(critic(hidden[rows]).item())
            cell = data.rows.cell[rows]
            truths.append(bias(logit[rows], cell, torch.ones(n_rows)).item())
    # The critic knows the mean bias, and explains little of the differences between batches.
    assert np.mean(estimates) == pytest.approx(np.mean(truths), abs=0.15)
    errors = np.array(estimates) - np.mean(estimates) - (np.array(truths) - np.mean(truths))
    assert errors.std() > 0.8 * np.std(truths)


def test_critic_loss_by_hand():
    logit = torch.tensor([0.0, np.log(3), 0.0])
    rows = rows_of(torch.tensor([0, 1, 3]), torch.tensor([1.0, 2, 1]))
    entropy = (np.log(2) + 2 * np.log(4 / 3) + np.log(2)) / 3
    assert cross_entropy(logit, rows).item() == pytest.approx(entropy)

    class Constant(nn.Module):
        def forward(self, logit, cell):
            return torch.tensor(-0.25)

    loss = CriticLoss(Constant(), 8.0)(logit, rows)
    assert loss.item() == pytest.approx(3 * entropy, rel=1e-5)


def test_the_network_optimiser_does_not_train_the_critic(task):
    task = task(2)
    critic, _, data, module = trained_critic(task, "demographic_parity")
    with seeded(0):
        adversary = AttributeAdversary(SoftBias("demographic_parity", 2, 0.0), 1.0)
    for loss, other, kind in (
        (CriticLoss(critic, 5.0), critic, BatchNet),
        (AdversaryLoss(adversary, 1.0), adversary, ProjectedNet),
    ):
        net = kind(
            module,
            loss,
            optimizer=torch.optim.Adam,
            iterator_train=CellBatches,
            batch_size=64,
            max_epochs=1,
        ).initialize()
        trained = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
        assert trained == {id(p) for p in task.network.parameters()}
        assert not trained & {id(p) for p in other.parameters()}
    before = [p.clone() for p in critic.parameters()]
    weights = nn.Parameter(data.rows.original[:64].clone())
    optimizer = torch.optim.SGD([weights], lr=1.0)
    CriticLoss(critic, 5.0)(weights, data.rows.take(slice(64))).backward()
    optimizer.step()
    for parameter, same in zip(critic.parameters(), before, strict=True):
        assert torch.equal(parameter, same)
    assert (weights != data.rows.original[:64]).any()


# The adversary that predicts the group ----------------------------------------------------


@named
@pytest.mark.parametrize("n_groups", [2, 3])
def test_the_adversary_loss_against_a_plain_loop(constraint, n_groups):
    with seeded(0):
        adversary = AttributeAdversary(SoftBias(constraint, n_groups, 0.3), 1.7).double()
        logit = torch.randn(30, dtype=torch.float64)
        cell = torch.randint(2 * n_groups, (30,))
    cell[: 2 * n_groups] = torch.arange(2 * n_groups)
    first, second = adversary.layers[0], adversary.layers[2]
    by_group = {group: [] for group in range(n_groups)}
    for value, c in zip(logit.numpy(), cell.tolist(), strict=True):
        group, label = divmod(c, 2)
        if constraint == "equal_opportunity" and label == 0:
            continue
        soft = np.tanh((value - 0.3) / 1.7)
        given = (
            [soft]
            if constraint == "demographic_parity"
            else [soft * label, soft * (1 - label), label]
        )
        hidden = np.maximum(first.weight.detach().numpy() @ given + first.bias.detach().numpy(), 0)
        out = second.weight.detach().numpy() @ hidden + second.bias.detach().numpy()
        by_group[group].append(np.log(np.exp(out).sum()) - out[group])
    expected = np.mean([np.mean(losses) for losses in by_group.values()])
    assert adversary(logit, cell).item() == pytest.approx(expected)


def test_groups_weigh_the_same_however_large():
    with seeded(0):
        adversary = AttributeAdversary(SoftBias("average_odds", 2, 0.0), 1.0).double()
        logit = torch.randn(12, dtype=torch.float64)
    cell = torch.arange(12) % 4
    many = torch.cat([torch.arange(12), *[torch.nonzero(cell >= 2)[:, 0]] * 5])
    torch.testing.assert_close(adversary(logit[many], cell[many]), adversary(logit, cell))


@pytest.mark.parametrize("alpha", [0.0, 0.7])
@pytest.mark.parametrize("constraint", ["demographic_parity", "average_odds"])
def test_a_step_is_the_formula_on_a_network_of_two_weights(constraint, alpha):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    cell = np.arange(40) % 4
    weight = rng.uniform(0.5, 2, size=40)
    start = np.array([0.8, -0.5])

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(start))

        def forward(self, X):
            return X @ self.weight

    with seeded(0):
        adversary = AttributeAdversary(SoftBias(constraint, 2, 0.1), 1.3).double()
    own = [p.detach().clone() for p in adversary.parameters()]
    net = ProjectedNet(Two(), AdversaryLoss(adversary, alpha), optimizer=torch.optim.SGD, lr=0.5)
    net.initialize()

    def against(w):
        with torch.no_grad():
            return adversary(torch.tensor(X @ w), torch.tensor(cell)).item()

    step = 1e-6 * np.eye(2)
    g_a = np.array([(against(start + s) - against(start - s)) / 2e-6 for s in step])
    wrong = 1 / (1 + np.exp(-X @ start)) - cell % 2
    g_p = (weight * wrong) @ X / 40
    along = (g_p @ g_a) / (g_a @ g_a) * g_a
    expected = g_p - along - alpha * g_a
    assert np.abs(expected).min() > 1e-3

    rows = rows_of(torch.tensor(cell), torch.tensor(weight))
    net.train_step(({"X": torch.tensor(X)}, rows))
    moved = (net.module_.weight.detach().numpy() - start) / -0.5
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    if alpha == 0:
        assert moved @ g_a == pytest.approx(
            0, abs=1e-8
        )  # the step neither helps nor hinders the adversary
    # The adversary descends its own loss with Adam: each entry of the first step is +-lr.
    before = against(start)
    for parameter, old in zip(adversary.parameters(), own, strict=True):
        assert (parameter - old).abs().max() <= 0.0101
    assert any((p != old).any() for p, old in zip(adversary.parameters(), own, strict=True))
    with torch.no_grad():
        for parameter, old in zip(adversary.parameters(), own, strict=True):
            parameter.copy_(old)
    assert before < against(start)


def test_a_fused_step_where_the_gradient_lies_otherwise_in_memory():
    class ChannelsLast(nn.Module):
        """Images come with channels last, and so do the gradients of the weights."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, X):
            return self.conv(X.permute(0, 3, 1, 2)).square().mean((1, 2, 3))

    with seeded(0):
        module = ChannelsLast()
        adversary = AttributeAdversary(SoftBias("average_odds", 2, 0.0), 1.0)
        X = torch.randn(40, 5, 5, 3)
    cell = torch.arange(40) % 4
    before = module.conv.weight.detach().clone()
    net = ProjectedNet(
        module,
        AdversaryLoss(adversary, 0.0),
        optimizer=torch.optim.Adam,
        optimizer__fused=True,
        lr=0.01,
    ).initialize()
    net.train_step(({"X": X}, rows_of(cell, torch.ones(40))))
    gradient = module.conv.weight.grad
    assert gradient.abs().min() > 1e-6
    # The first step of Adam moves each entry against the sign of its own gradient.
    moved = module.conv.weight.detach() - before
    torch.testing.assert_close(moved, -0.01 * gradient.sign(), rtol=1e-2, atol=0)
