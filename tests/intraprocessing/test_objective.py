"""The exact threshold search against a plain one, fairlearn, arithmetic and simulation."""

import warnings
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import norm
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from skfair.intraprocessing import _objective
from skfair.intraprocessing._objective import PERFORMANCES, Choice, Objective
from skfair.metrics._rates import CONSTRAINTS

NAMED = sorted(CONSTRAINTS)
RULES = ["auto", 0.6, 0.95, None]


def make(y, groups, **options):
    options = {
        "constraint": "demographic_parity",
        "performance": "balanced_accuracy",
        "epsilon": 0.2,
        "confidence": "auto",
        "margin": 0.05,
        **options,
    }
    y, groups = np.asarray(y), np.asarray(groups)
    return Objective(y, groups, n_groups=int(groups.max()) + 1, **options)


@st.composite
def samples(draw, n_groups=(2, 4), max_size=18):
    """Labels, groups (each with both labels) and scores with ties or without."""
    n_groups = draw(st.integers(*n_groups))
    every = [(label, group) for group in range(n_groups) for label in (0, 1)]
    rows = every + draw(st.lists(st.sampled_from(every), max_size=max_size))
    y, groups = np.array(rows).T
    value = draw(
        st.sampled_from([st.integers(-3, 3).map(float), st.floats(-9, 9, width=32), st.just(0.5)])
    )
    scores = draw(st.lists(value, min_size=len(rows), max_size=len(rows)))
    return y, groups, np.array(scores)


# The slow way -----------------------------------------------------------------------------


def every_threshold(scores):
    values = np.unique(scores)
    return [values[0] - 1, *(values[:-1] + np.diff(values) / 2), values[-1] + 1]


def density(x, mean, deviation):
    return np.exp(-(((x - mean) / deviation) ** 2) / 2) / (np.sqrt(2 * np.pi) * deviation)


def within(means, deviations, epsilon):
    """P that normal variables lie within epsilon of each other, given where the lowest is."""
    x = np.linspace(np.min(means - 9 * deviations), np.max(means + 9 * deviations), 2001)
    z = (x[:, None] - means) / deviations
    above = ndtr(z + epsilon / deviations) - ndtr(z)
    total = 0.0
    for lowest in range(len(means)):
        others = np.delete(above, lowest, axis=1).prod(axis=1)
        total += np.trapezoid(density(x, means[lowest], deviations[lowest]) * others, x)
    return total


def judge(y, groups, predicted, constraint, epsilon):
    """Bias, standard error and probability to hold, one group and rate at a time."""
    rates = {
        "selection": [groups == g for g in np.unique(groups)],
        "tpr": [(groups == g) & (y == 1) for g in np.unique(groups)],
        "fpr": [(groups == g) & (y == 0) for g in np.unique(groups)],
    }
    statistics = {
        "demographic_parity": [["selection"]],
        "equal_opportunity": [["tpr"]],
        "average_odds": [["tpr", "fpr"]],
        "equalized_odds": [["tpr"], ["fpr"]],
    }[constraint]
    found, probability = [], 1.0
    for names in statistics:
        value, variance = [], []
        for masks in zip(*(rates[name] for name in names), strict=True):
            value.append(sum(predicted[mask].mean() / len(names) for mask in masks))
            inner = [
                np.clip(predicted[mask].sum(), 0.5, mask.sum() - 0.5) / mask.sum() for mask in masks
            ]
            terms = [p * (1 - p) / mask.sum() for p, mask in zip(inner, masks, strict=True)]
            variance.append(sum(terms) / len(names) ** 2)
        value, variance = np.array(value), np.array(variance)
        pairs = [(0, 1)] if len(value) == 2 else permutations(range(len(value)), 2)
        found += [
            (value[high] - value[low], np.sqrt(variance[high] + variance[low]))
            for high, low in pairs
        ]
        probability *= within(value, np.sqrt(1.5 * variance), epsilon)
    size = max(abs(bias) for bias, _ in found)
    errors = [error for bias, error in found if abs(bias) > size - 1e-12]
    signed = len(value) == 2 and constraint != "equalized_odds"
    return (found[0][0] if signed else size), (min(errors), max(errors)), probability


def plain_performance(name, y, predicted):
    tp, fp = (y * predicted).sum(), ((1 - y) * predicted).sum()
    tn = ((1 - y) * (1 - predicted)).sum()
    return {
        "balanced_accuracy": (tp / y.sum() + tn / (1 - y).sum()) / 2,
        "accuracy": (tp + tn) / len(y),
        "f1": 2 * tp / (tp + fp + y.sum()),
    }[name]


def look(objective, scores, threshold):
    """All there is to say of a threshold, by the rule for `confidence`."""
    y, confidence, epsilon = objective.y, objective.confidence, objective.epsilon
    predicted = scores > threshold
    bias, error, probability = judge(y, objective.codes, predicted, objective.constraint, epsilon)
    performance = plain_performance(objective.performance, y, predicted)
    bound = (abs(bias), abs(bias))
    if confidence == "auto":
        held = abs(bias) < epsilon
        constants = [np.full(len(y), label) for label in (0, 1)]
        chance = max(plain_performance(objective.performance, y, row) for row in constants)
        value = max(performance - chance, 0) * probability
    elif confidence is None:
        held, value = abs(bias) < epsilon - objective.margin, performance
    else:
        held, value = probability >= confidence, performance
        z = norm.ppf((1 + confidence) / 2)
        bound = tuple(abs(bias) + np.sqrt(1.5) * z * e for e in error)
    return SimpleNamespace(
        bias=bias,
        error=error,
        performance=performance,
        probability=probability,
        objective=value if held else 0.0,
        bound=bound,
        feasible=held,
        constant=predicted.all() or not predicted.any(),
        on_the_line=isinstance(confidence, float) and abs(probability - confidence) < 1e-6,
    )


@pytest.mark.parametrize("constraint", NAMED)
@settings(deadline=None, max_examples=30)
@given(
    data=samples(max_size=12),
    performance=st.sampled_from(sorted(PERFORMANCES)),
    confidence=st.sampled_from(RULES),
    epsilon=st.sampled_from([0.05, 0.2, 0.6]),
)
def test_no_threshold_is_better_than_the_chosen_one(
    constraint, data, performance, confidence, epsilon
):
    y, groups, scores = data
    objective = make(
        y,
        groups,
        constraint=constraint,
        performance=performance,
        confidence=confidence,
        epsilon=epsilon,
        margin=epsilon / 5,
    )
    choice = objective.choose(scores[None])
    assert all(len(values) == 1 for values in choice)

    # What it says of its threshold is what one finds there by hand. Where two pairs of groups
    # are as far apart, the error is that of either.
    chosen = look(objective, scores, choice.threshold[0])
    assert choice.bias[0] == pytest.approx(chosen.bias, abs=1e-12)
    assert choice.performance[0] == pytest.approx(chosen.performance, abs=1e-12)
    assert choice.probability[0] == pytest.approx(chosen.probability, abs=1e-6)
    assert choice.constant[0] == chosen.constant
    for name in ("error", "bound"):
        low, high = getattr(chosen, name)
        assert low - 1e-12 <= getattr(choice, name)[0] <= high + 1e-12
    if not chosen.on_the_line:
        assert choice.objective[0] == pytest.approx(chosen.objective, abs=1e-6)
        assert choice.feasible[0] == chosen.feasible

    # And no other threshold is better; a constant prediction counts for less than any other.
    assert chosen.constant == (len(np.unique(scores)) == 1)
    for threshold in every_threshold(scores):
        other = look(objective, scores, threshold)
        if other.on_the_line or (other.constant and not chosen.constant):
            continue
        assert other.objective <= chosen.objective + 1e-6
        if not choice.feasible[0]:
            assert not other.feasible
            assert choice.bound[0] <= other.bound[1] + 1e-12


@pytest.mark.parametrize("constraint", NAMED)
@settings(deadline=None, max_examples=12)
@given(data=samples(), seed=st.integers(0, 99), chunk=st.sampled_from([1, 200, 1 << 22]))
def test_networks_together_are_chosen_for_as_one_by_one(constraint, data, seed, chunk):
    y, groups, scores = data
    rng = np.random.default_rng(seed)
    many = np.stack([scores, *rng.normal(size=(3, len(y))), np.zeros(len(y))])
    objective = make(y, groups, constraint=constraint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_objective, "_CHUNK", chunk)
        together = objective.choose(many)
    singly = [objective.choose(row[None]) for row in many]
    for name in ("objective", "bound", "feasible", "constant"):
        expected = np.concatenate([getattr(choice, name) for choice in singly])
        np.testing.assert_allclose(getattr(together, name), expected, atol=1e-8)


@pytest.mark.parametrize("constraint", NAMED)
@settings(deadline=None, max_examples=12)
@given(data=samples(), seed=st.integers(0, 99))
def test_the_order_of_rows_and_the_scale_of_scores_do_not_matter(constraint, data, seed):
    y, groups, scores = data
    expected = make(y, groups, constraint=constraint).choose(scores[None])
    order = np.random.default_rng(seed).permutation(len(y))
    moved = make(y[order], groups[order], constraint=constraint).choose(scores[order][None])
    scaled = make(y, groups, constraint=constraint).choose(np.arctan(scores)[None])
    for other in (moved, scaled):
        np.testing.assert_allclose(other.objective, expected.objective, atol=1e-8)
        np.testing.assert_allclose(other.bound, expected.bound, atol=1e-12)


@pytest.mark.parametrize("constraint", NAMED)
@settings(deadline=None, max_examples=12)
@given(data=samples(n_groups=(2, 2)), threshold=st.floats(-3, 3))
def test_two_groups_exchanged_turn_the_sign(constraint, data, threshold):
    y, groups, scores = data
    one = make(y, groups, constraint=constraint).measure(scores, threshold)
    two = make(y, 1 - groups, constraint=constraint).measure(scores, threshold)
    sign = 1 if constraint == "equalized_odds" else -1
    np.testing.assert_allclose(two.bias, sign * one.bias, atol=1e-15)
    np.testing.assert_allclose(two.probability, one.probability, atol=1e-12)


@settings(deadline=None, max_examples=12)
@given(data=samples(), threshold=st.integers(-3, 3))
def test_measure_says_what_choose_says(data, threshold):
    y, groups, scores = data
    objective = make(y, groups, constraint="equalized_odds")
    chosen = objective.choose(scores[None])
    measured = objective.measure(scores, chosen.threshold[0])
    for one, two in zip(measured, chosen, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-8)
    assert objective.choose(scores[None]).best() == 0
    assert objective.measure(scores, threshold).threshold == [threshold]


def test_scores_next_to_each_other_are_told_apart():
    low = 1.0
    for dtype in (np.float32, np.float64):
        scores = np.array([low, np.nextafter(dtype(low), dtype(2))] * 4, dtype=dtype)
        y = np.arange(8) % 2
        choice = make(y, [0, 0, 1, 1] * 2).choose(scores[None])
        np.testing.assert_array_equal(scores > choice.threshold[0], y == 1)
        assert choice.performance == [1.0]


def test_no_scores_are_too_far_apart():
    scores = np.array([-1e300, 1e300] * 4)
    choice = make(np.arange(8) % 2, [0, 0, 1, 1] * 2).choose(scores[None])
    assert choice.performance == [1.0]


# Values known otherwise -------------------------------------------------------------------


@settings(deadline=None, max_examples=12)  # fairlearn takes its time
@given(data=samples(max_size=40), threshold=st.floats(-3, 3))
def test_biases_are_those_of_fairlearn(data, threshold):
    y, groups, scores = data
    predicted = (scores > threshold).astype(int)
    metrics = {
        "demographic_parity": demographic_parity_difference,
        "equal_opportunity": equal_opportunity_difference,
        "equalized_odds": equalized_odds_difference,
    }
    for constraint, metric in metrics.items():
        choice = make(y, groups, constraint=constraint).measure(scores, threshold)
        expected = metric(y, predicted, sensitive_features=groups)
        assert abs(choice.bias[0]) == pytest.approx(expected, abs=1e-12)


# Group 0: of 2 positives 1 is predicted positive, of 2 negatives 0. Group 1: 3 of 4, 1 of 2.
Y = np.array([1, 1, 0, 0, 1, 1, 1, 1, 0, 0])
GROUPS = np.array([0] * 4 + [1] * 6)
PREDICTED = np.array([1, 0, 0, 0, 1, 1, 1, 0, 1, 0])


@pytest.mark.parametrize(
    "constraint, bias",
    [
        ("demographic_parity", 1 / 4 - 4 / 6),
        ("equal_opportunity", 1 / 2 - 3 / 4),
        ("average_odds", ((1 / 2 - 3 / 4) + (0 - 1 / 2)) / 2),
        ("equalized_odds", 1 / 2),
    ],
)
def test_biases_by_hand(constraint, bias):
    choice = make(Y, GROUPS, constraint=constraint).measure(PREDICTED, 0.5)
    assert choice.bias[0] == pytest.approx(bias, abs=1e-15)


def test_performances_by_hand():
    expected = {
        "balanced_accuracy": (4 / 6 + 3 / 4) / 2,
        "accuracy": 7 / 10,
        "f1": 2 * 4 / (2 * 4 + 1 + 2),
    }
    scorers = {
        "balanced_accuracy": balanced_accuracy_score,
        "accuracy": accuracy_score,
        "f1": f1_score,
    }
    for performance, value in expected.items():
        objective = make(Y, GROUPS, performance=performance)
        assert objective.measure(PREDICTED, 0.5).performance[0] == pytest.approx(value)
        assert scorers[performance](Y, PREDICTED) == pytest.approx(value)
    chances = [make(Y, GROUPS, performance=name).chance for name in expected]
    assert chances == pytest.approx([0.5, 0.6, 2 * 6 / (2 * 6 + 4)])


def test_opposite_differences_cancel_in_average_odds_alone():
    # Group 0: true positive rate 1, false 0; group 1: a half, and a half.
    y = np.array([1, 1, 0, 0] * 2)
    groups = np.repeat([0, 1], 4)
    predicted = np.array([1, 1, 0, 0, 1, 0, 1, 0])
    biases = {
        name: make(y, groups, constraint=name).measure(predicted, 0.5).bias[0] for name in NAMED
    }
    assert biases == {
        "average_odds": 0.0,
        "demographic_parity": 0.0,
        "equal_opportunity": 0.5,
        "equalized_odds": 0.5,
    }


def test_more_than_two_groups_are_as_biased_as_the_farthest_two():
    y = np.tile([0, 1], 6)
    groups = np.repeat([0, 1, 2], 4)
    predicted = np.array([1, 0, 0, 0, *[1, 1, 1, 1], *[1, 1, 0, 0]])
    choice = make(y, groups).measure(predicted, 0.5)
    assert choice.bias == [0.75]
    # Of group 1 four of four, taken as three and a half, and of group 0 one of four.
    variance = (3.5 / 4) * (0.5 / 4) / 4 + (1 / 4) * (3 / 4) / 4
    assert choice.error[0] == pytest.approx(np.sqrt(variance))


def test_a_constant_prediction_is_taken_where_there_is_nothing_else():
    for scores in (np.zeros(10), np.full(10, 7.0)):
        choice = make(Y, GROUPS).choose(scores[None])
        assert choice.constant == [True]
        assert choice.bias == [0.0]
        assert choice.objective == [0.0]
    # It has no bias at all, and any other prediction is rather taken.
    scores = (GROUPS == 0).astype(float)
    choice = make(Y, GROUPS, epsilon=0.01, margin=0).choose(scores[None])
    assert choice.constant == [False]
    assert choice.bias == [1.0]
    assert not choice.feasible[0]


def test_best_prefers_the_objective_then_the_bound_and_constants_last():
    def choices(objective, bound, constant):
        n = len(objective)
        filler = np.zeros(n)
        return Choice(
            *[filler] * 5,
            np.array(objective),
            np.array(bound),
            np.ones(n, bool),
            np.array(constant),
        )

    assert choices([0.1, 0.3, 0.2], [0, 9, 0], [False] * 3).best() == 1
    assert choices([0.0, 0.0, 0.0], [3, 2, 1], [False] * 3).best() == 2
    assert choices([0.0, 0.0, 0.9], [3, 2, 1], [False, False, True]).best() == 1
    assert choices([0.9, 0.8], [1, 1], [True, True]).best() == 0


def test_take_asks_the_same_of_some_rows():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(2, size=60), rng.integers(3, size=60)
    features = pd.DataFrame({"a": groups}, index=np.arange(60)[::-1])
    rows = np.flatnonzero(rng.random(60) < 0.8)
    for given_features in (features, features["a"].to_numpy(), None):
        whole = make(y, groups, constraint="equalized_odds", features=given_features)
        part = whole.take(rows)
        expected = make(y[rows], groups[rows], constraint="equalized_odds")
        scores = rng.normal(size=60)
        for one, two in zip(
            part.choose(scores[None, rows]), expected.choose(scores[None, rows]), strict=True
        ):
            np.testing.assert_array_equal(one, two)
        assert len(part.features) == len(rows)


# Chances ----------------------------------------------------------------------------------

SIZES = {2: [300, 80], 3: [400, 60, 200], 4: [900, 50, 200, 90]}


@pytest.mark.parametrize("n_groups", [2, 3, 4])
@pytest.mark.parametrize("constraint", NAMED)
def test_probability_to_hold_against_monte_carlo(constraint, n_groups):
    # Rates of twice as many new rows are normal around the measured ones, with the variance of
    # these and half of it again.
    rng = np.random.default_rng(n_groups)
    groups = np.repeat(np.arange(n_groups), SIZES[n_groups])
    y = rng.integers(2, size=len(groups))
    predicted = (rng.random(len(groups)) < 0.3 + 0.3 * y).astype(int)
    objective = make(y, groups, constraint=constraint, epsilon=0.15)

    def draws(mask):
        p = predicted[mask].mean()
        deviation = np.sqrt(1.5 * p * (1 - p) / mask.sum())
        return rng.normal(predicted[mask].mean(), deviation, size=200_000)

    def spread(masks):
        values = np.stack([np.mean([draws(mask) for mask in pair], axis=0) for pair in masks])
        return np.ptp(values, axis=0)

    whole = [groups == g for g in range(n_groups)]
    positive, negative = ([mask & (y == label) for mask in whole] for label in (1, 0))
    largest = {
        "demographic_parity": lambda: spread([(mask,) for mask in whole]),
        "equal_opportunity": lambda: spread([(mask,) for mask in positive]),
        "average_odds": lambda: spread(list(zip(positive, negative, strict=True))),
        "equalized_odds": lambda: np.maximum(
            spread([(mask,) for mask in positive]), spread([(mask,) for mask in negative])
        ),
    }[constraint]()
    expected = np.mean(largest < 0.15)
    assert 0.05 < expected < 0.99
    found = objective.measure(predicted, 0.5).probability[0]
    assert found == pytest.approx(expected, abs=0.006)  # five standard errors


@settings(deadline=None, max_examples=30)
@given(
    means=st.lists(st.floats(0, 0.2), min_size=2, max_size=4),
    sizes=st.lists(st.integers(5, 10**6), min_size=4, max_size=4),
    epsilon=st.sampled_from([0.02, 0.1, 0.5]),
)
def test_probability_with_groups_of_very_different_sizes(means, sizes, epsilon):
    means = np.array(means)
    variance = (means + 0.01) * (0.99 - means) / sizes[: len(means)]
    deviations = np.sqrt(1.5 * variance)
    expected = 0.0
    for lowest, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
        # Densely around each edge of the integrand, which is a step for one of narrow others.
        edges = np.array([mean, *means, *(means - epsilon)])
        fine = edges[:, None, None] + np.outer(np.linspace(-8, 8, 301), deviations)
        x = np.unique(np.clip(fine, mean - 9 * deviation, mean + 9 * deviation))
        z = (x[:, None] - means) / deviations
        above = np.delete(ndtr(z + epsilon / deviations) - ndtr(z), lowest, axis=1)
        expected += np.trapezoid(density(x, mean, deviation) * above.prod(axis=1), x)
    found = _objective._within(means[None], variance[None], epsilon)[0]
    # The narrowest are taken for a 64th of the widest: several of them shift an edge by a few of
    # these, at a density of 0.4.
    assert found == pytest.approx(expected, abs=0.03)
    assert 0 <= found <= 1


@pytest.mark.parametrize("constraint", NAMED)
def test_errors_and_intervals_cover_the_truth(constraint):
    rng = np.random.default_rng(1)
    groups = np.repeat([0, 1, 2][: 2 + (constraint == "demographic_parity")], 300)
    y = rng.integers(2, size=len(groups))
    rate = np.array([0.3, 0.45, 0.3])[groups] + 0.2 * y
    # Of a very large population.
    cells = [[rate[(groups == g) & (y == label)][0] for label in (0, 1)] for g in set(groups)]
    share = [y[groups == g].mean() for g in set(groups)]
    selected = [c[0] * (1 - s) + c[1] * s for c, s in zip(cells, share, strict=True)]
    truth = {
        "demographic_parity": max(selected) - min(selected),
        "equal_opportunity": -0.15,
        "average_odds": -0.15,
        "equalized_odds": 0.15,
    }[constraint]
    objective = make(y, groups, constraint=constraint)
    covered, biases, errors = [], [], []
    for _ in range(400):
        choice = objective.measure((rng.random(len(y)) < rate).astype(float), 0.5)
        low, high = objective.interval(choice)
        covered.append(low <= truth <= high)
        biases.append(choice.bias[0])
        errors.append(choice.error[0])
    # The largest of several differences is a little too large on average, and varies less.
    maximum = constraint == "equalized_odds" or len(set(groups)) > 2
    assert np.mean(covered) > (0.88 if maximum else 0.92)
    assert np.mean(errors) == pytest.approx(np.std(biases), rel=0.3 if maximum else 0.12)


def test_an_interval_for_a_size_does_not_go_below_zero():
    objective = make(Y, GROUPS, constraint="equalized_odds")
    low, high = objective.interval(objective.measure(Y, 0.5))
    assert low == 0.0
    assert high > 0.2
    signed = make(Y, GROUPS, constraint="demographic_parity")
    low, high = signed.interval(signed.measure(np.zeros(10), 0.5))
    assert low == -high < 0


def test_a_rate_of_zero_among_few_rows_is_not_certain():
    objective = make(Y, GROUPS, constraint="equal_opportunity", epsilon=0.05)
    choice = objective.measure(np.zeros(10), 0.5)
    assert choice.bias == [0.0]
    assert choice.error[0] > 0.2
    assert choice.probability[0] < 0.2


def test_rows_needed_by_the_formula():
    # With p = 1/2 in two groups of m rows the error is sqrt(2 p (1 - p) / m); new rows add half
    # of the variance, and 1.96 such errors have to fit into epsilon.
    m = 50
    objective = make([0, 1] * m, np.repeat([0, 1], m), confidence=0.95, epsilon=0.1)
    choice = objective.measure(np.array([0, 1] * m), 0.5)
    expected = 1.5 * 2 * 0.25 * (1.959964 / 0.1) ** 2  # rows of a group
    assert choice.error[0] == pytest.approx(np.sqrt(2 * 0.25 / m))
    assert objective.rows_needed(choice) == pytest.approx(2 * expected, abs=1)


@pytest.mark.parametrize("constraint", NAMED)
def test_as_many_rows_as_needed_are_enough(constraint):
    few = [0, 1] * 20, np.repeat([0, 1], 20)
    options = {"constraint": constraint, "confidence": 0.9, "epsilon": 0.2}
    objective = make(*few, **options)
    # In each cell of group and label as many rows of which half are predicted positive.
    predicted = np.tile([0, 0, 1, 1], 10)
    choice = objective.measure(predicted, 0.5)
    assert not choice.feasible[0]
    needed = objective.rows_needed(choice)

    def hold(times):
        larger = make(np.tile(few[0], times), np.tile(few[1], times), **options)
        return larger.measure(np.tile(predicted, times), 0.5).feasible[0]

    assert hold(-(-needed // 40))
    assert not hold(max(1, needed // 80))


# Callables --------------------------------------------------------------------------------


def problem(n=300, seed=0):
    rng = np.random.default_rng(seed)
    y, groups = rng.integers(2, size=(2, n))
    return y, groups, y + 0.5 * groups + rng.normal(size=n)


def parity_gap(y_true, y_pred, *, sensitive_features):
    first = sensitive_features == 0
    return y_pred[first].mean() - y_pred[~first].mean()


def test_a_callable_constraint():
    y, groups, scores = problem()
    called = make(y, groups, constraint=parity_gap)
    named = make(y, groups, constraint="demographic_parity")
    choice = called.choose(scores[None])
    at_it = named.measure(scores, choice.threshold[0])
    assert choice.bias[0] == pytest.approx(at_it.bias[0], abs=1e-12)
    assert choice.feasible[0] == at_it.feasible[0]
    # On a coarser grid of thresholds, so a little worse at most.
    best = named.choose(scores[None]).objective[0]
    assert 0.8 * best < at_it.objective[0] <= best
    # Its error, by resampling, is that of the rates.
    found, expected = (objective.measure(scores, 0.5) for objective in (called, named))
    assert found.error[0] == pytest.approx(expected.error[0], rel=0.4)


def test_a_function_of_fairlearn_as_constraint():
    y, groups, scores = problem()
    objective = make(y, groups, constraint=demographic_parity_difference)
    named = make(y, groups, constraint="demographic_parity")
    found, expected = (judge.measure(scores, 0.5) for judge in (objective, named))
    assert found.bias[0] == pytest.approx(abs(expected.bias[0]), abs=1e-12)


def test_a_callable_gets_labels_predictions_and_the_features():
    y, groups, scores = problem(60)
    table = pd.DataFrame({"sex": groups, "old": groups[::-1]})
    seen = []

    def gap(y_true, y_pred, *, sensitive_features):
        assert isinstance(sensitive_features, pd.DataFrame)
        assert list(sensitive_features) == ["sex", "old"]
        assert len(y_true) == len(y_pred) == len(sensitive_features) == 60
        assert set(np.unique(y_pred)) <= {0, 1}
        seen.append((np.array(y_true), np.array(sensitive_features)))
        rates = pd.Series(y_pred).groupby(sensitive_features["sex"].to_numpy()).mean()
        return rates[0] - rates[1]

    make(y, groups, constraint=gap, features=table).choose(scores[None])
    np.testing.assert_array_equal(seen[0][0], y)
    np.testing.assert_array_equal(seen[0][1], table)


def test_a_callable_that_is_undefined_somewhere():
    # Precision, which nothing is where a group has no positive predictions.
    def precision_gap(y_true, y_pred, *, sensitive_features):
        values = []
        for group in (0, 1):
            chosen = (sensitive_features == group) & (y_pred == 1)
            values.append(y_true[chosen].mean() if chosen.any() else np.nan)
        return values[0] - values[1]

    y, groups, scores = problem()
    for confidence in RULES:
        objective = make(y, groups, constraint=precision_gap, confidence=confidence)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            choice = objective.choose(np.stack([scores, -scores]))
        assert np.isfinite(choice.bias).all()
        assert not choice.constant.any()
    nowhere = make(y, groups, constraint=lambda *a, **k: np.nan)
    choice = nowhere.choose(scores[None])
    assert not choice.feasible[0]
    assert len(choice.threshold) == 1


def test_a_callable_performance():
    y, groups, scores = problem()
    called = make(y, groups, performance=accuracy_score)
    assert called.chance == max(y.mean(), 1 - y.mean())
    choice = called.choose(scores[None])
    predicted = scores > choice.threshold[0]
    assert choice.performance[0] == accuracy_score(y, predicted)
    named = make(y, groups, performance="accuracy").choose(scores[None])
    assert named.objective[0] * 0.8 < choice.objective[0] <= named.objective[0] + 1e-12


def test_a_callable_is_not_asked_for_each_threshold():
    y, groups, scores = problem(2000)
    calls = []

    def counted(y_true, y_pred, *, sensitive_features):
        calls.append(1)
        return parity_gap(y_true, y_pred, sensitive_features=sensitive_features)

    make(y, groups, constraint=counted).choose(scores[None])
    assert len(calls) < 150


@pytest.mark.parametrize("confidence", RULES)
def test_a_performance_below_zero_is_still_a_performance(confidence):
    y, groups, scores = problem()

    def cost(y_true, y_pred):
        return -5.0 - np.mean(y_true != y_pred)

    objective = make(y, groups, performance=cost, confidence=confidence, epsilon=0.4)
    choice = objective.choose(scores[None])
    assert choice.feasible[0]
    assert not choice.constant[0]
    assert choice.performance[0] > -5.5
    worse = objective.measure(-scores, 0.0)
    biased = objective.measure(scores + 9 * groups, 4.0)
    both = Choice(*map(np.concatenate, zip(biased, worse, strict=True)))
    assert not biased.feasible[0]
    assert both.best() == int(worse.feasible[0])


def test_a_performance_that_is_undefined_somewhere():
    y, groups, scores = problem()

    def precision(y_true, y_pred):
        return y_true[y_pred == 1].mean() if y_pred.any() else np.nan

    for confidence in RULES:
        objective = make(y, groups, performance=precision, confidence=confidence, epsilon=0.4)
        choice = objective.choose(scores[None])
        assert objective.chance == y.mean()
        assert choice.feasible[0]
        assert choice.performance[0] > y.mean()
