"""Bias gradient: fairer on new rows, and close to the original network."""

import numpy as np
import pytest
import torch

from skfair.intraprocessing import BiasGradientDebiaser, TuningRows
from skfair.intraprocessing._bias_gradient import _ProximalBias
from skfair.intraprocessing._soft_bias import SoftBias


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning")
@pytest.mark.parametrize(
    "constraint, n_groups, gain",
    [
        ("demographic_parity", 2, 0.15),
        ("equal_opportunity", 2, 0.04),
        ("average_odds", 2, 0.2),
        ("equalized_odds", 2, 0.2),
        ("average_odds", 3, 0.2),
    ],
)
def test_fairer_on_fresh_rows_for_less_than_a_threshold_costs(constraint, n_groups, gain, task):
    task = task(n_groups)
    debiaser = BiasGradientDebiaser(
        task.network, constraint=constraint, lr=5e-3, max_epochs=20, random_state=0
    )
    bias, accuracy = task.on_fresh_rows(task.fit(debiaser), constraint)
    # 600 judging rows are too few for a probability of .8 that the constraint holds.
    low, high = debiaser.bias_interval_
    assert any(low <= sign * bias <= high for sign in (1, -1))
    assert bias < 0.05
    assert accuracy > task.threshold_only(constraint) + gain


def test_the_loss_by_hand():
    # Soft predictions .5 and .75 in the first group, .5 and .25 in the second.
    logit = torch.tensor(np.log([1.0, 3.0, 1.0, 1 / 3]))
    original = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    weight = torch.tensor([1.0, 2, 1, 1], dtype=torch.float64)
    moved = (2 * (np.log(3) - 1) ** 2 + np.log(3) ** 2) / 4
    for sign in (1, -1):
        group = torch.tensor([0, 0, 1, 1] if sign == 1 else [1, 1, 0, 0])
        rows = TuningRows(group, torch.tensor([0, 1, 0, 1]), weight, original)
        loss = _ProximalBias(SoftBias("equal_opportunity", 2, 0.0), 0.3)
        assert loss(logit, rows).item() == pytest.approx(0.5 + 0.3 * moved)


@pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning")
def test_proximity_keeps_the_logits_where_they_were(task):
    task = task(2)
    X = torch.tensor(task.X)
    distance = []
    for proximity in (0.0, 0.1, 10.0):
        debiaser = BiasGradientDebiaser(
            task.network,
            proximity=proximity,
            constraint="equal_opportunity",
            lr=5e-3,
            max_epochs=6,
            random_state=0,
        )
        states = []
        _keep(debiaser, states)
        task.fit(debiaser)
        network = debiaser.module_[0]
        network.load_state_dict(states[-1])
        moved = network(X) - task.network(X)
        distance.append(moved.square().mean().item())
    assert distance[0] > distance[1] > 4 * distance[2] > 0


def _keep(debiaser, states):
    """Keep the last weights of the training, whatever candidate is chosen."""
    train = debiaser._train

    def kept(net, module, *arguments, **parameters):
        train(net, module, *arguments, **parameters)
        states.append({k: v.clone() for k, v in module.network.state_dict().items()})

    debiaser._train = kept
