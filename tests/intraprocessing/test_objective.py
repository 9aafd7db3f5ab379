"""The exact threshold search against a slow search, fairlearn, arithmetic and simulation."""

import warnings
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
from scipy.stats import norm
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from skfair.intraprocessing import _objective
from skfair.intraprocessing._choice import Certify, Choice, Rule
from skfair.intraprocessing._objective import Objective
from skfair.metrics._rates import CONSTRAINTS, PERFORMANCES

NAMED = sorted(CONSTRAINTS)
RULES = ["auto", None]


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


def shrunk(value, variance, epsilon):
    """Posterior rates with a normal prior whose spread is at least half of epsilon."""
    w = 1 / variance
    centre = np.average(value, weights=w)
    q = np.sum(w * (value - centre) ** 2) - (len(value) - 1)
    between = max(q / (w.sum() - np.sum(w**2) / w.sum()), epsilon**2 / 4)
    w = 1 / (between + variance)
    centre, share = np.average(value, weights=w), variance / (between + variance)
    return value * (1 - share) + centre * share, variance * (1 - share) + share**2 / w.sum()


def largest_of(statistics, n=4000, times=1.0):
    """Draw the largest difference of any statistic."""
    rng = np.random.default_rng(17)
    largest = np.zeros(n)
    for value, variance in statistics:
        rates = value + np.sqrt(times * variance) * rng.normal(size=(n, len(value)))
        rates = rates if times > 1 else rates.clip(0, 1)
        largest = np.maximum(largest, np.ptp(rates, axis=1))
    return largest


def judge(y, groups, predicted, constraint, epsilon):
    """Bias, standard error, probability and excess, one group and rate at a time."""
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
    measured = []
    for names in statistics:
        value, variance = [], []
        for masks in zip(*(rates[name] for name in names), strict=True):
            value.append(sum(predicted[mask].mean() / len(names) for mask in masks))
            inner = [
                np.clip(predicted[mask].sum(), 0.5, mask.sum() - 0.5) / mask.sum() for mask in masks
            ]
            terms = [p * (1 - p) / mask.sum() for p, mask in zip(inner, masks, strict=True)]
            variance.append(sum(terms) / len(names) ** 2)
        measured.append((np.array(value), np.array(variance)))
    if len(value) > 2:
        measured = [shrunk(*statistic, epsilon) for statistic in measured]
        largest = largest_of(measured)
        probability = np.mean(largest_of(measured, times=1.5) < epsilon)
        excess = np.maximum(largest - epsilon, 0).mean()
        return largest.mean(), (largest.std(),) * 2, probability, excess
    found, probability = [], 1.0
    for (one, two), variance in measured:
        error = np.sqrt(variance.sum())
        found.append((one - two, error))
        on_new = norm(one - two, np.sqrt(1.5) * error)
        probability *= on_new.cdf(epsilon) - on_new.cdf(-epsilon)
    bias = max((bias for bias, _ in found), key=abs)
    # Where both rates differ by the same amount, the error may be that of either rate.
    errors = [error for other, error in found if abs(other) > abs(bias) - 1e-12]
    bias = abs(bias) if constraint == "equalized_odds" else bias
    return bias, (min(errors), max(errors)), probability, max(abs(bias) - epsilon, 0)


def plain_performance(name, y, predicted):
    tp, fp = (y * predicted).sum(), ((1 - y) * predicted).sum()
    tn = ((1 - y) * (1 - predicted)).sum()
    return {
        "balanced_accuracy": (tp / y.sum() + tn / (1 - y).sum()) / 2,
        "accuracy": (tp + tn) / len(y),
        "f1": 2 * tp / (tp + fp + y.sum()),
    }[name]


def look(objective, scores, threshold):
    """All measures of a threshold, by the rule for `confidence`."""
    y, confidence, epsilon = objective.y, objective.confidence, objective.epsilon
    predicted = scores > threshold
    bias, error, probability, excess = judge(
        y, objective.codes, predicted, objective.constraint, epsilon
    )
    performance = plain_performance(objective.performance, y, predicted)
    constants = [np.full(len(y), label) for label in (0, 1)]
    chance = max(plain_performance(objective.performance, y, row) for row in constants)
    gain = max(performance - chance, 0)
    if confidence is None:
        eligible, value = abs(bias) < epsilon - objective.margin, performance
    elif objective.n_groups > 2:
        eligible, value = True, gain - 2 * excess
    else:
        eligible, value = abs(bias) < epsilon, gain * probability
    return SimpleNamespace(
        bias=bias,
        error=error,
        performance=performance,
        probability=probability,
        objective=value if eligible else 0.0,
        bound=abs(bias),
        eligible=eligible,
        constant=predicted.all() or not predicted.any(),
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
    (choice,) = objective.choose(scores[None])
    assert all(len(values) == 1 for values in choice)

    # The measures of the chosen threshold agree with the slow ones. With more than two groups they
    # agree up to the error of the draws: 64 in the objective, 4,000 here.
    chosen = look(objective, scores, choice.threshold[0])
    many = objective.n_groups > 2
    low, high = chosen.error
    rough = 0.5 * high if many else 1e-12
    assert low - rough <= choice.error[0] <= high + rough
    assert choice.performance[0] == pytest.approx(chosen.performance, abs=1e-12)
    assert choice.constant[0] == chosen.constant
    assert choice.power == [0.0]
    on_the_line = many and confidence is None and abs(chosen.bound - 0.8 * epsilon) < rough
    for name in ("bias", "bound", "objective")[: 2 + (not on_the_line)]:
        near = 2 * rough if name == "objective" else rough  # the excess counts twice in it
        assert getattr(choice, name)[0] == pytest.approx(getattr(chosen, name), abs=near), name
    assert choice.probability[0] == pytest.approx(chosen.probability, abs=0.04 if many else 1e-12)
    assert choice.feasible[0] == (choice.probability[0] >= 0.8)
    if not many:
        assert choice.eligible[0] == chosen.eligible

    # No other threshold is better. A constant prediction is worse than any other.
    assert chosen.constant == (len(np.unique(scores)) == 1)
    for threshold in every_threshold(scores):
        other = objective.measure(scores, threshold) if many else None
        other = other or look(objective, scores, threshold)
        if np.all(other.constant) and not chosen.constant:
            continue
        if choice.eligible[0]:
            assert np.all(~np.array(other.eligible) | (other.objective <= choice.objective + 1e-9))
        else:
            assert not np.any(other.eligible)
            assert np.all(choice.bound <= other.bound + np.float64(1e-12))


@pytest.mark.parametrize("constraint", NAMED)
@settings(deadline=None, max_examples=12)
@given(data=samples(), seed=st.integers(0, 99), chunk=st.sampled_from([1, 200, 1 << 22]))
def test_networks_together_are_chosen_for_as_one_by_one(constraint, data, seed, chunk):
    y, groups, scores = data
    rng = np.random.default_rng(seed)
    many = np.stack([scores, *rng.normal(size=(3, len(y))), np.zeros(len(y))])
    objective = make(y, groups, constraint=constraint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_objective, "CHUNK", chunk)
        (together,) = objective.choose(many)
    singly = [objective.choose(row[None])[0] for row in many]
    for name in ("objective", "bound", "eligible", "feasible", "constant"):
        expected = np.concatenate([getattr(choice, name) for choice in singly])
        np.testing.assert_allclose(getattr(together, name), expected, atol=1e-8)


@pytest.mark.parametrize("constraint", NAMED)
@settings(deadline=None, max_examples=12)
@given(data=samples(), seed=st.integers(0, 99))
def test_the_order_of_rows_and_the_scale_of_scores_do_not_matter(constraint, data, seed):
    y, groups, scores = data
    (expected,) = make(y, groups, constraint=constraint).choose(scores[None])
    order = np.random.default_rng(seed).permutation(len(y))
    (moved,) = make(y[order], groups[order], constraint=constraint).choose(scores[order][None])
    (scaled,) = make(y, groups, constraint=constraint).choose(np.arctan(scores)[None])
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
def test_measure_agrees_with_choose(data, threshold):
    y, groups, scores = data
    objective = make(y, groups, constraint="equalized_odds")
    (chosen,) = objective.choose(scores[None])
    measured = objective.measure(scores, chosen.threshold[0])
    for one, two in zip(measured, chosen, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-8)
    assert objective.choose(scores[None])[0].best() == 0
    assert objective.measure(scores, threshold).threshold == [threshold]


def test_scores_next_to_each_other_are_told_apart():
    low = 1.0
    for dtype in (np.float32, np.float64):
        scores = np.array([low, np.nextafter(dtype(low), dtype(2))] * 4, dtype=dtype)
        y = np.arange(8) % 2
        (choice,) = make(y, [0, 0, 1, 1] * 2).choose(scores[None])
        np.testing.assert_array_equal(scores > choice.threshold[0], y == 1)
        assert choice.performance == [1.0]


def test_no_scores_are_too_far_apart():
    scores = np.array([-1e300, 1e300] * 4)
    (choice,) = make(np.arange(8) % 2, [0, 0, 1, 1] * 2).choose(scores[None])
    assert choice.performance == [1.0]


# Values from other sources ----------------------------------------------------------------


@settings(deadline=None, max_examples=12)  # fairlearn is slow
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
        objective = make(y, groups, constraint=constraint)
        expected = metric(y, predicted, sensitive_features=groups)
        pairs = objective.pairs(range(objective.n_groups), scores > threshold)
        assert pairs.difference.abs().max() == pytest.approx(expected, abs=1e-12)
        if objective.n_groups == 2:
            bias = objective.measure(scores, threshold).bias[0]
            assert abs(bias) == pytest.approx(expected, abs=1e-12)


# Predicted positive in group 0: 1 of 2 positives, 0 of 2 negatives; in group 1: 3 of 4, 1 of 2.
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
    # Group 0: true positive rate 1, false positive rate 0; group 1: one half and one half.
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


def test_pairs_of_more_than_two_groups():
    y = np.tile([0, 1], 6)
    groups = np.repeat([0, 1, 2], 4)
    predicted = np.array([1, 0, 0, 0, *[1, 1, 1, 1], *[1, 1, 0, 0]]) > 0
    pairs = make(y, groups).pairs(["a", "b", "c"], predicted)
    assert pairs[["rate", "group_1", "group_2", "difference"]].to_numpy().tolist() == [
        ["selection", "a", "b", -0.75],
        ["selection", "a", "c", -0.25],
        ["selection", "b", "c", 0.5],
    ]
    # Group b: four of four, which counts as three and a half of four. Group a: one of four.
    error = np.sqrt((3.5 / 4) * (0.5 / 4) / 4 + (1 / 4) * (3 / 4) / 4)
    first = pairs.iloc[0]
    assert [first.low, first.high] == pytest.approx(norm(-0.75, error).ppf([0.025, 0.975]))
    on_new = norm(-0.75, np.sqrt(1.5) * error)
    assert first.probability == pytest.approx(on_new.cdf(0.2) - on_new.cdf(-0.2))


def test_groups_that_are_left_out_are_not_compared():
    y, groups, scores = problem(400)
    third = np.where(np.arange(400) < 7, 2, groups)
    keep = third < 2
    for constraint in NAMED:
        objective = make(y, third, constraint=constraint, compared=np.array([0, 1]))
        alone = make(y[keep], third[keep], constraint=constraint)
        found, expected = objective.measure(scores, 0.5), alone.measure(scores[keep], 0.5)
        for name in ("bias", "error", "probability"):
            assert getattr(found, name)[0] == pytest.approx(getattr(expected, name)[0]), name
        pairs = objective.pairs("abc", scores > 0.5)
        assert set(pairs.group_1) | set(pairs.group_2) == {"a", "b"}
        # Its rows are predicted like all others, so they count in the performance.
        right = [(scores > 0.5)[y == 1].mean(), (scores <= 0.5)[y == 0].mean()]
        assert found.performance[0] == pytest.approx(np.mean(right))


def test_a_constant_prediction_is_taken_where_there_is_nothing_else():
    for scores in (np.zeros(10), np.full(10, 7.0)):
        (choice,) = make(Y, GROUPS).choose(scores[None])
        assert choice.constant == [True]
        assert choice.bias == [0.0]
        assert choice.objective == [0.0]
    # A constant prediction has no bias, but any other prediction is preferred.
    scores = (GROUPS == 0).astype(float)
    (choice,) = make(Y, GROUPS, epsilon=0.01, margin=0).choose(scores[None])
    assert choice.constant == [False]
    assert choice.bias == [1.0]
    assert not choice.feasible[0]


def test_best_prefers_the_objective_then_the_bound_and_constants_last():
    def choices(objective, bound, constant, eligible=None):
        n = len(objective)
        filler = np.zeros(n)
        return Choice(
            *[filler] * 5,
            np.array(objective),
            np.array(bound),
            np.ones(n, bool) if eligible is None else np.array(eligible),
            np.array(constant),
            filler,
        )

    assert choices([0.1, 0.3, 0.2], [0, 9, 0], [False] * 3).best() == 1
    assert choices([0.0, 0.0, 0.0], [3, 2, 1], [False] * 3).best() == 2
    assert choices([0.0, 0.0, 0.9], [3, 2, 1], [False, False, True]).best() == 1
    assert choices([0.9, 0.8], [1, 1], [True, True]).best() == 0
    # A performance may be negative: a candidate that is not eligible comes later in any case.
    assert choices([0.0, -5.0], [1, 1], [False] * 2, [False, True]).best() == 1
    several = choices([0.1, 0.3, 0.2, 0.9], [0, 9, 0, 0], [False, False, False, True])
    assert several.ranking().tolist() == [1, 2, 0, 3]
    assert several.take(several.ranking()).objective.tolist() == [0.3, 0.2, 0.1, 0.9]


@pytest.mark.parametrize(
    "probability, feasible", [(0.8, True), (np.nextafter(0.8, 0), False), (0.5, False)]
)
def test_feasible_is_likely(probability, feasible):
    y, groups, scores = problem()
    choice = make(y, groups).measure(scores, 0.5)
    choice = choice._replace(probability=np.array([probability]), eligible=np.array([True]))
    assert choice.feasible.tolist() == [feasible]


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
            *part.choose(scores[None, rows]), *expected.choose(scores[None, rows]), strict=True
        ):
            np.testing.assert_array_equal(one, two)
        assert len(part.features) == len(rows)


# Probabilities ----------------------------------------------------------------------------

SIZES = {2: [300, 80], 3: [400, 60, 200], 4: [900, 50, 200, 90]}


@pytest.mark.parametrize("n_groups", [2, 3, 4])
@pytest.mark.parametrize("constraint", NAMED)
def test_probability_to_hold_against_monte_carlo(constraint, n_groups):
    # Rates of twice as many new rows are normal around the measured rates (around the shrunk rates
    # with more than two groups), with 1.5 times their variance.
    rng = np.random.default_rng(n_groups)
    groups = np.repeat(np.arange(n_groups), SIZES[n_groups])
    y = rng.integers(2, size=len(groups))
    predicted = (rng.random(len(groups)) < 0.3 + 0.3 * y).astype(int)
    objective = make(y, groups, constraint=constraint, epsilon=0.15)

    def rate(mask):
        p = predicted[mask].mean()
        return p, p * (1 - p) / mask.sum()

    whole = [groups == g for g in range(n_groups)]
    positive, negative = ([mask & (y == label) for mask in whole] for label in (1, 0))
    measured = [np.array([rate(mask) for mask in masks]).T for masks in (whole, positive, negative)]
    mean = (measured[1][0] + measured[2][0]) / 2, (measured[1][1] + measured[2][1]) / 4
    statistics = {
        "demographic_parity": [measured[0]],
        "equal_opportunity": [measured[1]],
        "average_odds": [mean],
        "equalized_odds": [measured[1], measured[2]],
    }[constraint]
    if n_groups > 2:
        statistics = [shrunk(*statistic, 0.15) for statistic in statistics]
    largest = largest_of(statistics, n=200_000, times=1.5)
    expected = np.mean(largest < 0.15)
    assert 0.05 < expected < 0.99
    found = objective.measure(predicted, 0.5).probability[0]
    assert found == pytest.approx(expected, abs=0.006)  # five standard errors


@pytest.mark.parametrize("constraint", NAMED)
def test_errors_and_intervals_cover_the_truth(constraint):
    rng = np.random.default_rng(1)
    groups = np.repeat([0, 1, 2][: 2 + (constraint == "demographic_parity")], 300)
    y = rng.integers(2, size=len(groups))
    rate = np.array([0.3, 0.45, 0.3])[groups] + 0.2 * y
    # A sample of a very large population.
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
        predicted = rng.random(len(y)) < rate
        choice = objective.measure(predicted.astype(float), 0.5)
        low, high = objective.interval(choice, predicted)
        covered.append(low <= truth <= high)
        biases.append(choice.bias[0])
        errors.append(choice.error[0])
    # The largest of several differences is slightly too large on average, and varies less.
    maximum = constraint == "equalized_odds" or len(set(groups)) > 2
    assert np.mean(covered) > (0.88 if maximum else 0.92)
    assert np.mean(errors) == pytest.approx(np.std(biases), rel=0.3 if maximum else 0.12)


def test_an_interval_for_a_size_does_not_go_below_zero():
    objective = make(Y, GROUPS, constraint="equalized_odds")
    low, high = objective.interval(objective.measure(Y, 0.5), Y > 0)
    assert low == 0.0
    assert high > 0.2
    signed = make(Y, GROUPS, constraint="demographic_parity")
    low, high = signed.interval(signed.measure(np.zeros(10), 0.5), np.zeros(10, bool))
    assert low == -high < 0


def test_a_rate_of_zero_among_few_rows_is_not_certain():
    objective = make(Y, GROUPS, constraint="equal_opportunity", epsilon=0.05)
    choice = objective.measure(np.zeros(10), 0.5)
    assert choice.bias == [0.0]
    assert choice.error[0] > 0.2
    assert choice.probability[0] < 0.2


def test_room_and_enough():
    y, groups, scores = problem()
    choice, roomy, lazy = make(y, groups).choose(
        scores[None], [Rule(), Rule(room=0.75), Rule(enough=0.5)]
    )
    assert abs(roomy.bias[0]) < 0.25 * 0.2 < abs(choice.bias[0])
    # The room is added to the measured bias.
    on_new = norm(abs(roomy.bias[0]) + 0.75 * 0.2, np.sqrt(1.5) * roomy.error[0])
    assert roomy.probability[0] == pytest.approx(on_new.cdf(0.2) - on_new.cdf(-0.2))
    assert roomy.objective[0] == pytest.approx((roomy.performance[0] - 0.5) * roomy.probability[0])
    again = make(y, groups).measure(scores, roomy.threshold[0])
    assert again.probability[0] > roomy.probability[0]
    # Above the probability that is enough, only the performance counts.
    assert lazy.performance[0] >= choice.performance[0]
    assert lazy.objective[0] == pytest.approx(
        (lazy.performance[0] - 0.5) * min(lazy.probability[0], 0.5)
    )


@pytest.mark.parametrize("n_groups", [2, 3])
def test_the_performance_alone(n_groups):
    y, groups, scores = problem()
    groups = np.arange(300) % n_groups
    asked = make(y, groups, constraint="equalized_odds", epsilon=0.01).unconstrained()
    (choice,) = asked.choose(scores[None])
    best = max(balanced_accuracy_score(y, scores > at) for at in scores)
    assert choice.performance[0] == pytest.approx(best, abs=1e-12)
    assert choice.eligible[0]


@pytest.mark.parametrize("constraint", NAMED)
def test_rows_behind_each_statistic(constraint):
    # Group 0: 2 positives, 2 negatives; group 1: 4 and 2; group 2: one negative.
    y, groups = np.append(Y, 0), np.append(GROUPS, 2)
    found = make(y, groups, constraint=constraint).rows_of_statistics()
    expected = {
        "demographic_parity": [[4, 6, 1]],
        "equal_opportunity": [[2, 4, 0]],
        # The variance of a mean of two rates is a quarter of the sum of their variances.
        "average_odds": [[4 / (1 / 2 + 1 / 2), 4 / (1 / 4 + 1 / 2), 0]],
        "equalized_odds": [[2, 4, 0], [2, 2, 1]],
    }[constraint]
    np.testing.assert_allclose(found, expected)


def test_worth_of_a_certificate():
    y, groups, scores = problem()
    certify = Certify(worth=0.3, sizes=[np.array([900, 900])], delta=0.05)
    objective = make(y, groups)
    (found,) = objective.choose(scores[None], [Rule(certify=certify)])
    (plain,) = objective.choose(scores[None])
    rates = [(scores > found.threshold[0])[groups == g].mean() for g in (0, 1)]
    measured = [p * (1 - p) / (groups == g).sum() for g, p in enumerate(rates)]
    to_come = [p * (1 - p) / 900 for p in rates]
    room = 0.2 - norm.ppf(0.95) * np.sqrt(sum(to_come))
    on_new = norm(rates[0] - rates[1], np.sqrt(sum(to_come) + sum(measured)))
    power = on_new.cdf(room) - on_new.cdf(-room)
    assert found.power[0] == pytest.approx(power, abs=1e-9)
    assert found.objective[0] == pytest.approx(found.performance[0] - 0.5 + 0.3 * power)
    assert found.performance[0] <= plain.performance[0]


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
    (choice,) = called.choose(scores[None])
    at_it = named.measure(scores, choice.threshold[0])
    assert choice.bias[0] == pytest.approx(at_it.bias[0], abs=1e-12)
    assert choice.feasible[0] == at_it.feasible[0]
    # The grid of thresholds is coarser, so the result is at most slightly worse.
    best = named.choose(scores[None])[0].objective[0]
    assert 0.8 * best < at_it.objective[0] <= best
    # Its error by resampling agrees with the error of the rates.
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
    # Precision is not defined where a group has no positive predictions.
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
            (choice,) = objective.choose(np.stack([scores, -scores]))
        assert np.isfinite(choice.bias).all()
        assert not choice.constant.any()
        objective.check_defined(choice)


@pytest.mark.parametrize("parameter", ["constraint", "performance"])
def test_a_callable_that_is_defined_nowhere_is_refused(parameter):
    def hopeless(y_true, y_pred, **_):
        return np.nan

    y, groups, scores = problem()
    objective = make(y, groups, **{parameter: hopeless})
    (choice,) = objective.choose(scores[None])
    assert not choice.feasible[0]
    with pytest.raises(ValueError, match=rf"^{parameter}=hopeless returned nan at every threshold"):
        objective.check_defined(choice)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.float32(np.inf)])
@pytest.mark.parametrize("parameter", ["constraint", "performance"])
def test_a_callable_that_returns_infinity_is_refused(parameter, value):
    def odds(y_true, y_pred, **_):  # infinite at half of the thresholds
        return value if y_pred.mean() > 0.5 else 0.1

    y, groups, scores = problem()
    message = rf"^{parameter}=odds, called as \(y_true, y_pred.* {float(value)}, expected a finite"
    with pytest.raises(ValueError, match=message):
        make(y, groups, **{parameter: odds}).choose(scores[None])


def test_a_callable_performance():
    y, groups, scores = problem()
    called = make(y, groups, performance=accuracy_score)
    assert called.chance == max(y.mean(), 1 - y.mean())
    (choice,) = called.choose(scores[None])
    predicted = scores > choice.threshold[0]
    assert choice.performance[0] == accuracy_score(y, predicted)
    (named,) = make(y, groups, performance="accuracy").choose(scores[None])
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
    (choice,) = objective.choose(scores[None])
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
        (choice,) = objective.choose(scores[None])
        assert objective.chance == y.mean()
        assert choice.feasible[0]
        assert choice.performance[0] > y.mean()
