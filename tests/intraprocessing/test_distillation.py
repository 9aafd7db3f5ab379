"""Distillation: group thresholds, and the network that learns them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skfair.intraprocessing import DistillationDebiaser
from skfair.intraprocessing._distillation import fair_thresholds
from skfair.intraprocessing._objective import Objective
from skfair.metrics._rates import CONSTRAINTS

named = pytest.mark.parametrize("constraint", sorted(CONSTRAINTS))


def objective(y, groups, constraint, **options):
    return Objective(
        y,
        groups,
        n_groups=int(groups.max()) + 1,
        constraint=constraint,
        **{
            "performance": "balanced_accuracy",
            "epsilon": 0.1,
            "confidence": None,
            "margin": 0.0,
            **options,
        },
    )


def statistic(constraint, predicted, y, weight=None):
    """The compared rate of some rows; for "equalized_odds" the mean of the two rates."""
    weight = np.ones(len(y)) if weight is None else weight
    if constraint == "demographic_parity":
        return np.average(predicted, weights=weight)
    true_positive, false_positive = (
        np.average(predicted[y == label], weights=weight[y == label]) for label in (1, 0)
    )
    if constraint == "equal_opportunity":
        return true_positive
    return true_positive / 2 + false_positive / 2


def one_row(constraint, y, weight):
    """How much the prediction of one row can change the statistic."""
    if constraint == "demographic_parity":
        return weight.max() / weight.sum()
    if constraint == "equal_opportunity":
        return weight.max() / weight[y == 1].sum()
    return 0.5 * weight.max() / min(weight[y == 1].sum(), weight[y == 0].sum())


@st.composite
def samples(draw):
    n_groups = draw(st.integers(2, 5))
    every = [(label, group) for group in range(n_groups) for label in (0, 1)]
    y, groups = np.array(every + draw(st.lists(st.sampled_from(every), max_size=40))).T
    ties = draw(st.booleans())
    value = st.integers(-2, 2).map(float) if ties else st.floats(-5, 5, width=32)
    scores = draw(st.lists(value, min_size=len(y), max_size=len(y), unique=not ties))
    return y, groups, np.array(scores, dtype=np.float32)


@named
@settings(deadline=None, max_examples=60)
@given(samples())
def test_groups_are_alike_at_their_thresholds(constraint, data):
    y, groups, scores = data
    thresholds = fair_thresholds(objective(y, groups, constraint), scores)
    assert thresholds.shape == (groups.max() + 1,)
    # With more than two groups, each group gets 20 rows of all groups.
    added = 20 / len(y) if len(thresholds) > 2 else 0
    reached, steps = [], []
    for group, threshold in enumerate(thresholds):
        weight = (groups == group) + added
        # Some of the rows that tie with the threshold may be predicted either way.
        low, high = (
            statistic(constraint, predicted.astype(float), y, weight)
            for predicted in (scores > threshold, scores >= threshold)
        )
        reached.append((low, high))
        steps.append(one_row(constraint, y, weight))
    for (low, _), step in zip(reached, steps, strict=True):
        for _, high in reached:
            assert low - high <= step + 1e-9


@named
def test_the_level_is_the_best_one(constraint):
    rng = np.random.default_rng(0)
    groups = rng.integers(2, size=3000)
    y = (rng.random(3000) < 0.3 + 0.4 * groups).astype(int)
    scores = 2 * y + rng.normal(size=3000) + groups
    measured = objective(y, groups, constraint, epsilon=0.3)

    def performance(thresholds):
        predicted = scores > thresholds[groups]
        return (predicted[y == 1].mean() + 1 - predicted[y == 0].mean()) / 2

    best = 0.0
    for level in np.linspace(0.02, 0.98, 49):
        alike = []
        for group in range(2):
            mine = np.sort(scores[groups == group])
            label = y[groups == group][np.argsort(scores[groups == group])]
            values = [statistic(constraint, mine > t, label) for t in mine[::5]]
            alike.append(mine[::5][np.abs(np.array(values) - level).argmin()])
        best = max(best, performance(np.array(alike)))
    assert performance(fair_thresholds(measured, scores)) > best - 0.005


def test_thresholds_follow_a_callable_performance():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(2, size=(2, 2000))
    scores = y + rng.normal(size=2000) + 3 * groups

    def negatives(y_true, predicted):
        return (predicted[y_true == 0] == 0).mean()

    found = objective(y, groups, "demographic_parity", performance=negatives)
    few = scores > fair_thresholds(found, scores)[groups]
    assert 0 < few.mean() < 0.02  # nearly all are negative, but not all
    shift = np.diff(fair_thresholds(objective(y, groups, "demographic_parity"), scores))
    assert shift == pytest.approx(3, abs=0.3)


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
    debiaser = task.fit(DistillationDebiaser(task.network, constraint=constraint, random_state=0))
    bias, accuracy = task.on_fresh_rows(debiaser, constraint)
    # 600 judging rows are too few for a probability of .8 that the constraint holds.
    low, high = debiaser.bias_interval_
    assert any(low <= sign * bias <= high for sign in (1, -1))
    assert bias < 0.05
    assert accuracy > task.threshold_only(constraint) + gain


def test_candidates_lie_on_the_line_through_the_distilled_network(task):
    task = task(2)
    debiaser = DistillationDebiaser(task.network, max_epochs=4, random_state=0)
    distilled, train = [], debiaser._train

    def kept(net, module, *arguments, **parameters):
        train(net, module, *arguments, **parameters)
        distilled.append({k: v.clone() for k, v in module.network.state_dict().items()})

    debiaser._train = kept
    task.fit(debiaser)
    step = debiaser.trials_.step[debiaser.best_trial_]
    assert debiaser.best_trial_ > 1
    assert debiaser.trials_.step[:2].isna().all()
    original, chosen = task.network.state_dict(), debiaser.module_[0].state_dict()
    for name, start in original.items():
        end = start + step * (distilled[0][name] - start)
        torch.testing.assert_close(chosen[name], end, rtol=1e-5, atol=1e-6)
    assert any((distilled[0][name] != start).any() for name, start in original.items())


def test_the_group_is_learned_where_it_is_a_feature_and_not_used_where_it_is_not(task):
    task = task(2)
    debiaser = task.fit(
        DistillationDebiaser(task.network, constraint="average_odds", random_state=0)
    )
    rows = task.X[:500].copy()
    first, second = rows.copy(), rows.copy()
    first[:, 1], second[:, 1] = 0, 1
    gap = np.mean(debiaser.decision_function(second) - debiaser.decision_function(first))
    network = task.network
    before = (network(torch.tensor(second)) - network(torch.tensor(first))).mean().item()
    assert before > 1
    assert abs(gap) < before / 3


def test_a_linear_network_gets_far_enough():
    # The weight of the group has to move by about two, hundreds of times a step of Adam.
    rng = np.random.default_rng(0)
    groups = rng.integers(2, size=4000)
    y = (rng.random(4000) < 0.3 + 0.4 * groups).astype(int)
    X = np.column_stack([2 * y + rng.normal(size=4000), groups]).astype(np.float32)
    network = torch.nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[2.0, 1.5]]))
        network.bias.fill_(-2.7)
    debiaser = DistillationDebiaser(network, epsilon=0.1, random_state=0)
    debiaser.fit(X[:2000], y[:2000], sensitive_features=groups[:2000])
    fresh, label, group = X[2000:], y[2000:], groups[2000:]
    predicted = debiaser.predict(fresh)
    assert abs(predicted[group == 0].mean() - predicted[group == 1].mean()) < 0.1
    assert 0.5 * (predicted[label == 1].mean() + 1 - predicted[label == 0].mean()) > 0.7
