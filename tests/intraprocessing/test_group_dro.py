"""GroupDRODebiaser: the loss of the worst subgroup."""

import numpy as np
import pytest
import torch
from torch import nn

from skfair.intraprocessing import GroupDRODebiaser, TuningRows
from skfair.intraprocessing._group_dro import _WorstGroupLoss


def rows_of(cell):
    cell = torch.tensor(cell)
    ones = torch.ones(len(cell))
    return TuningRows(cell // 2, cell % 2, weight=ones, original=0 * ones)


def test_the_loss_by_hand():
    # Odds 1 and 3 for the label in the first subgroup, 1 in the last; none in the two others.
    logit = torch.tensor([0.0, -np.log(3), 0.0], requires_grad=True)
    loss = _WorstGroupLoss(4, step_size=2.0).double()
    first, last = (np.log(2) + np.log(4 / 3)) / 2, np.log(2)
    weights = np.full(4, 0.25)
    for _ in range(3):
        weights = weights * np.exp(2 * np.array([first, 0, 0, last]))
        weights /= weights.sum()
        found = loss(logit, rows_of([0, 0, 3]))
        assert found.item() == pytest.approx(weights[0] * first + weights[3] * last, rel=1e-5)
    (gradient,) = torch.autograd.grad(found, logit)
    # Of a subgroup's mean: its weight, over its rows, times the error of the probability.
    expected = [weights[0] / 4, weights[0] / 8, -weights[3] / 2]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_a_step_of_zero_lets_all_subgroups_count_the_same():
    loss = _WorstGroupLoss(2, step_size=0.0)
    logit = torch.tensor([0.0, 5.0, 5.0])
    wrong = np.log1p(np.exp(5))
    for _ in range(3):
        found = loss(logit, rows_of([1, 0, 0])).item()
        assert found == pytest.approx((np.log(2) + wrong) / 2, rel=1e-5)


def draw(n, seed):
    """Rows in which a second feature goes along with the label in 90 % of the rows."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    aligned = rng.random(n) < 0.9
    group = np.where(aligned, y, 1 - y)
    X = np.column_stack([2 * y - 1, 2 * (2 * group - 1)]) + rng.normal(size=(n, 2))
    return X.astype(np.float32), y, group


def worst(predicted, y, group):
    cells = [(y == label) & (group == value) for label in (0, 1) for value in (0, 1)]
    return min((predicted[cell] == y[cell]).mean() for cell in cells)


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_the_worst_subgroup_gains():
    network = nn.Linear(2, 1)  # goes by the shortcut
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.5, 2.0]]))
        network.bias.zero_()
    X, y, group = draw(4000, seed=0)
    debiaser = GroupDRODebiaser(network, epsilon=0.5, step_size=0.1, lr=0.02, random_state=0)
    fresh, labels, groups = draw(20_000, seed=1)
    with torch.no_grad():
        before = network(torch.tensor(fresh))[:, 0].numpy() > 0
    debiaser.fit(X, y, sensitive_features=group)
    last = debiaser.history_["train_loss"]
    assert last.iloc[-1] < last.iloc[0]
    assert worst(before, labels, groups) < 0.25
    assert worst(debiaser.predict(fresh), labels, groups) > worst(before, labels, groups) + 0.2
