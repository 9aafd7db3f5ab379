"""The differentiable bias against a plain loop, the exact bias and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skfair.intraprocessing._soft_bias import SoftBias
from skfair.metrics._rates import CONSTRAINTS

named = pytest.mark.parametrize("constraint", sorted(CONSTRAINTS))


@st.composite
def rows(draw):
    """Logits, cells (every group with both labels) and weights."""
    n_groups = draw(st.integers(2, 4))
    cells = [*range(2 * n_groups), *draw(st.lists(st.integers(0, 2 * n_groups - 1), max_size=20))]
    n = len(cells)
    logits = draw(st.lists(st.floats(-6, 6), min_size=n, max_size=n))
    weights = draw(st.lists(st.floats(0.125, 8), min_size=n, max_size=n))
    return n_groups, np.array(logits), np.array(draw(st.permutations(cells))), np.array(weights)


def plain(constraint, n_groups, predicted, cell, weight):
    """The bias, one group at a time."""

    def rate(group, labels):
        numerator = denominator = 0.0
        for p, c, w in zip(predicted, cell, weight, strict=True):
            if c // 2 == group and c % 2 in labels:
                numerator += w * p
                denominator += w
        return numerator / denominator

    groups = range(n_groups)
    if constraint == "demographic_parity":
        statistics = [[rate(g, (0, 1)) for g in groups]]
    elif constraint == "equal_opportunity":
        statistics = [[rate(g, (1,)) for g in groups]]
    elif constraint == "average_odds":
        statistics = [[(rate(g, (1,)) + rate(g, (0,))) / 2 for g in groups]]
    else:
        statistics = [[rate(g, (1,)) for g in groups], [rate(g, (0,)) for g in groups]]
    if n_groups == 2 and len(statistics) == 1:
        return statistics[0][0] - statistics[0][1]
    return max(max(values) - min(values) for values in statistics)


def soft_bias(constraint, n_groups, threshold, logit, cell, weight):
    bias = SoftBias(constraint, n_groups, threshold)
    return bias(torch.tensor(logit), torch.tensor(cell), torch.tensor(weight))


@named
@settings(deadline=None, max_examples=60)
@given(rows(), st.floats(-2, 2))
def test_against_a_plain_loop(constraint, data, threshold):
    n_groups, logit, cell, weight = data
    found = soft_bias(constraint, n_groups, threshold, logit, cell, weight)
    soft = 1 / (1 + np.exp(threshold - logit))
    expected = plain(constraint, n_groups, soft, cell, weight)
    assert found.item() == pytest.approx(expected, abs=1e-12)


@named
@settings(deadline=None, max_examples=40)
@given(rows(), st.floats(-2, 2))
def test_of_steep_logits_it_is_the_exact_bias(constraint, data, threshold):
    n_groups, logit, cell, _ = data
    logit = np.where(np.abs(logit - threshold) < 1e-3, threshold + 1, logit)
    ones = np.ones(len(logit))
    exact = plain(constraint, n_groups, (logit > threshold).astype(float), cell, ones)
    steep = soft_bias(constraint, n_groups, 1e5 * threshold, 1e5 * logit, cell, ones)
    assert steep.item() == pytest.approx(exact, abs=1e-12)


@named
@settings(deadline=None, max_examples=20)
@given(rows())
def test_only_shares_of_weight_count(constraint, data):
    n_groups, logit, cell, weight = data
    found = soft_bias(constraint, n_groups, 0.0, logit, cell, weight)
    scaled = soft_bias(constraint, n_groups, 0.0, logit, cell, 7 * weight)
    assert scaled.item() == pytest.approx(found.item(), abs=1e-12)
    # A row of weight three counts as three rows.
    counts = 1 + (np.arange(len(cell)) % 3)
    found = soft_bias(constraint, n_groups, 0.0, logit, cell, counts.astype(float))
    again = [np.repeat(values, counts) for values in (logit, cell, np.ones(len(cell)))]
    assert soft_bias(constraint, n_groups, 0.0, *again).item() == pytest.approx(
        found.item(), abs=1e-12
    )


@named
@pytest.mark.parametrize("n_groups", [2, 3])
def test_many_sets_at_once_are_each_by_itself(constraint, n_groups):
    rng = np.random.default_rng(0)
    logit, weight = rng.normal(size=(4, 5, 30)), rng.uniform(0.5, 2, size=(4, 5, 30))
    cell = np.tile(np.arange(2 * n_groups), 30)[:30] * np.ones((4, 5, 1), dtype=np.int64)
    cell = rng.permuted(cell, axis=-1)
    together = soft_bias(constraint, n_groups, 0.3, logit, cell, weight)
    assert together.shape == (4, 5)
    for index in np.ndindex(4, 5):
        alone = soft_bias(constraint, n_groups, 0.3, logit[index], cell[index], weight[index])
        assert together[index].item() == pytest.approx(alone.item(), abs=1e-12)


@named
@pytest.mark.parametrize("n_groups", [2, 3, 4])
def test_gradient_against_finite_differences(constraint, n_groups):
    rng = np.random.default_rng(1)
    logit, weight = rng.normal(size=40), rng.uniform(0.5, 2, size=40)
    cell = rng.permutation(np.arange(40) % (2 * n_groups))
    variable = torch.tensor(logit, requires_grad=True)
    bias = SoftBias(constraint, n_groups, 0.2)
    bias(variable, torch.tensor(cell), torch.tensor(weight)).backward()
    step = 1e-5 * np.eye(40)
    up, down = (
        soft_bias(constraint, n_groups, 0.2, logit + side * step, np.tile(cell, (40, 1)), weight)
        for side in (1, -1)
    )
    expected = (up - down).numpy() / 2e-5
    np.testing.assert_allclose(variable.grad.numpy(), expected, atol=1e-8)
    assert np.abs(expected).max() > 1e-3


def test_signed_between_two_groups_by_hand():
    # One row of each label: soft predictions .25 and .75 in the first group, .5 in the second.
    logit = np.log([1 / 3, 3, 1, 1])
    cell = np.array([0, 1, 2, 3])
    ones = np.ones(4)
    assert soft_bias("demographic_parity", 2, 0.0, logit, cell, ones).item() == pytest.approx(0)
    assert soft_bias("equal_opportunity", 2, 0.0, logit, cell, ones).item() == pytest.approx(0.25)
    assert soft_bias("average_odds", 2, 0.0, logit, cell, ones).item() == pytest.approx(0)
    assert soft_bias("equalized_odds", 2, 0.0, logit, cell, ones).item() == pytest.approx(0.25)
    # The positive row of the first group counts three times: (.25 + 3 * .75) / 4 - .5.
    weight = np.array([1.0, 3, 1, 1])
    assert soft_bias("demographic_parity", 2, 0.0, logit, cell, weight).item() == pytest.approx(
        0.125
    )
    swapped = soft_bias("equal_opportunity", 2, 0.0, logit, (cell + 2) % 4, ones)
    assert swapped.item() == pytest.approx(-0.25)


def test_a_batch_without_a_cell_gives_numbers():
    logit = torch.zeros(3, requires_grad=True)
    bias = SoftBias("average_odds", 2, 0.0)(logit, torch.tensor([0, 1, 2]), torch.ones(3))
    bias.backward()
    assert bias.isfinite()
    assert logit.grad.isfinite().all()
