"""The decision between the method and ordinary training, by hand and by slow loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import beta

from skfair.margin._gate import (
    accuracy_gap,
    balanced_order,
    find_conflicting,
    hold_out,
    judge_by_gap,
    judge_by_worst_group,
    label_orders,
    strata,
    suggest,
)


def outcome(codes, logits):
    """Cross-entropy of each sample, and whether the prediction is right."""
    share = torch.from_numpy(np.asarray(logits, dtype=float)).softmax(1).numpy()
    return -np.log(share[np.arange(len(codes)), codes]), logits.argmax(axis=1) == codes


def evidence_of(codes, logits, groups):
    surprise, right = outcome(codes, logits)
    return accuracy_gap(codes, surprise, groups, strata(codes, surprise, right))


def test_strata_are_quarters_of_the_errors_and_of_the_right_samples():
    # Class 0: two right samples, 16 errors of growing confidence. Class 1: one right, two errors.
    codes = np.repeat([0, 1], [18, 3])
    favour_1 = np.array([-1.0, -2.0, *range(1, 17), 3.0, -0.5, -9.0])
    stratum = strata(codes, *outcome(codes, np.column_stack([np.zeros(21), favour_1])))
    # A quarter of 16 is 4, of 2 or 1 it is rounded up to one.
    assert np.flatnonzero(stratum == 0).tolist() == [14, 15, 16, 17, 20]
    assert np.flatnonzero(stratum == 1).tolist() == [*range(2, 14), 19]
    assert np.flatnonzero(stratum == 2).tolist() == [0, 18]
    assert np.flatnonzero(stratum == 3).tolist() == [1]


@given(n=st.integers(1, 40), n_classes=st.integers(2, 4), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_strata_equal_a_loop(n, n_classes, seed):
    rng = np.random.RandomState(seed)
    codes, logits = rng.randint(n_classes, size=n), rng.randn(n, n_classes)
    stratum = strata(codes, *outcome(codes, logits))
    for code in range(n_classes):
        for first in (0, 2):
            members = []
            for i in np.flatnonzero(codes == code):
                if (max(range(n_classes), key=lambda k: logits[i, k]) == code) == (first == 2):
                    total = sum(math.exp(z) for z in logits[i])
                    members.append((math.exp(logits[i, code]) / total, i))
            least = {i for _, i in sorted(members)[: math.ceil(len(members) / 4)]}
            assert set(np.flatnonzero((codes == code) & (stratum == first))) == least
            others = {i for _, i in members} - least
            assert set(np.flatnonzero((codes == code) & (stratum == first + 1))) == others


@given(
    codes=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_any_first_rows_spread_evenly_over_the_classes(codes, share, seed):
    codes, rng = np.array(codes), np.random.RandomState(seed)
    rows = np.flatnonzero(rng.random_sample(len(codes)) <= share)
    order = balanced_order(rows, codes, rng)
    assert sorted(order) == rows.tolist()
    size = np.bincount(codes[rows], minlength=4)
    for n in range(len(order) + 1):
        taken = np.bincount(codes[order[:n]], minlength=4)
        # A class has two samples fewer than another, or more, only if none of its samples is left.
        assert all(t == s or t >= taken.max() - 1 for t, s in zip(taken, size, strict=True))


def test_the_order_is_a_draw():
    rows, codes = np.arange(60), np.arange(60) % 2
    first = balanced_order(rows, codes, np.random.RandomState(0))
    assert first.tolist() == balanced_order(rows, codes, np.random.RandomState(0)).tolist()
    assert first.tolist() != balanced_order(rows, codes, np.random.RandomState(1)).tolist()
    assert set(np.diff(codes[first])) == {-1, 0, 1}  # the classes take no fixed turns


def test_labels_are_asked_for_in_all_strata():
    stratum, codes = np.repeat([0, 1, 2, 3], 40), np.tile([0, 1], 80)
    known = np.arange(160) % 10 == 0
    errors, right = label_orders(stratum, codes, known, np.random.RandomState(0))
    assert not known[errors].any()
    assert not known[right].any()
    assert len(errors) == len(right) == 72
    rows = suggest(errors, right, 50)
    # A fifth each are sure errors, other errors and unsure right samples; two fifths are the rest.
    assert np.bincount(stratum[rows]).tolist() == [10, 10, 10, 20]
    assert np.bincount(codes[rows]).tolist() == [25, 25]
    # Every first part is as even as possible.
    for n in range(1, 51):
        assert abs((stratum[errors[:n]] == 0).sum() - n / 2) <= 1
        assert abs((stratum[right[:n]] == 2).sum() - n / 3) <= 1


def test_what_one_side_lacks_comes_from_the_other():
    few, many = np.array([7, 8]), np.arange(100, 200)
    assert suggest(few, many, 10).tolist() == [7, 8, *range(100, 108)]
    assert suggest(many, few, 10).tolist() == [*range(100, 108), 7, 8]
    assert len(suggest(few, few + 2, 10)) == 4
    assert suggest(few, many, 1).tolist() == [100]


# Rows 0-5 and 8-13 are right, 6-7 and 14-15 errors. Group 0 is usual in class 0, 1 in class 1.
CODES = np.repeat([0, 1], 8)
STRATUM = np.array([3, 3, 3, 3, 3, 3, 1, 1] * 2)
GROUPS = np.array([0, 0, 1, -1, -1, -1, 1, 1, 1, 1, 1, -1, -1, -1, 0, 1])


def test_conflicting_samples_of_a_small_table():
    # Each right label stands for two samples, each error for itself:
    # class 0 holds 4 and 4 of the groups, class 1 holds 1 and 7; all together 5 and 11.
    # Rarer in the class than in all classes: group 1 in 0 (1/2 < 11/16), group 0 in class 1.
    conflicting = find_conflicting(CODES, GROUPS, STRATUM)
    assert conflicting.tolist() == [False, False, True, True, True, *[False] * 3, True, False]


@given(
    n=st.integers(1, 40),
    n_classes=st.integers(2, 3),
    n_groups=st.integers(1, 3),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None)
def test_conflicting_samples_equal_a_loop(n, n_classes, n_groups, seed):
    rng = np.random.RandomState(seed)
    codes, groups = rng.randint(n_classes, size=n), rng.randint(-1, n_groups, size=n)
    stratum = rng.randint(4, size=n)
    known = [i for i in range(n) if groups[i] >= 0]
    if not known:
        return
    estimate = {}  # samples of each class and group, as far as the labels tell
    for i in known:
        alike = [j for j in range(n) if codes[j] == codes[i] and stratum[j] == stratum[i]]
        cell = codes[i], groups[i]
        estimate[cell] = estimate.get(cell, 0) + len(alike) / len([j for j in alike if j in known])
    total = sum(estimate.values())
    found = find_conflicting(codes, groups, stratum)
    for i, answer in zip(known, found, strict=True):
        in_class = sum(v for (c, _), v in estimate.items() if c == codes[i])
        in_group = sum(v for (_, g), v in estimate.items() if g == groups[i])
        difference = estimate[codes[i], groups[i]] / in_class - in_group / total
        if abs(difference) > 1e-6:  # ties are decided by rounding, in this loop as in the code
            assert answer == (difference < 0)


def planted(n, intercept, slope, seed=0):
    """Samples of two classes; how likely one is conflicting falls or rises with log odds."""
    rng = np.random.RandomState(seed)
    codes = np.arange(n) % 2
    log_odds = 2 + 2 * rng.randn(n)
    logits = np.zeros((n, 2))
    logits[np.arange(n), codes] = log_odds
    x = (log_odds - log_odds.mean()) / log_odds.std()
    conflicting = rng.random_sample(n) < expit(intercept + slope * x)
    return codes, logits, np.where(conflicting, 1 - codes, codes), x


@pytest.mark.parametrize("intercept, slope", [(-4.0, -3.0), (-3.0, -1.5), (-2.0, 0.0)])
def test_with_all_labels_the_accuracies_are_those_counted(intercept, slope):
    codes, logits, groups, _ = planted(6000, intercept, slope)
    right, conflicting = logits.argmax(axis=1) == codes, groups != codes
    evidence = evidence_of(codes, logits, groups)
    expected = right[conflicting].mean(), right[~conflicting].mean()
    assert evidence["conflicting_accuracy"] == pytest.approx(expected[0], abs=0.03)
    assert evidence["aligned_accuracy"] == pytest.approx(expected[1], abs=0.01)
    gap = expected[1] - expected[0]
    assert evidence["accuracy_gap_low"] - 0.02 < gap < evidence["accuracy_gap_high"] + 0.02
    assert evidence["accuracy_gap_high"] - evidence["accuracy_gap_low"] < 0.12
    assert (evidence["n_compared"], evidence["n_conflicting"]) == (6000, conflicting.sum())


@pytest.mark.parametrize("slope", [-3.0, -1.0])
def test_the_interval_of_few_labels_is_that_of_the_posterior(slope):
    codes, logits, groups, x = planted(800, -2.5, slope, seed=3)
    known = np.full(800, -1)
    rows = np.random.RandomState(1).permutation(800)[:80]
    known[rows] = groups[rows]
    evidence = evidence_of(codes, logits, known)
    # The posterior on a grid, and the two accuracies by sums over all samples.
    a, b = (part.ravel() for part in np.meshgrid(np.linspace(-9, 3, 61), np.linspace(-8, 4, 61)))
    share = expit(a[:, None] + b[:, None] * x)
    truth = (groups != codes)[rows]
    log = np.log(np.where(truth, share[:, rows], 1 - share[:, rows])).sum(axis=1)
    log -= a**2 / 2 / 4.5**2 + b**2 / 2 / 2**2
    right = logits.argmax(axis=1) == codes
    gap = (1 - share)[:, right].sum(axis=1) / (1 - share).sum(axis=1)
    gap -= share[:, right].sum(axis=1) / share.sum(axis=1)
    order = np.argsort(gap)
    cumulated = np.cumsum(np.exp(log - log.max())[order])
    low, high = np.interp([0.1, 0.9], cumulated / cumulated[-1], gap[order])
    assert evidence["accuracy_gap_low"] == pytest.approx(low, abs=0.06)  # Laplace's approximation
    assert evidence["accuracy_gap_high"] == pytest.approx(high, abs=0.06)
    assert high - low > 0.1


def test_an_amplifier_without_errors_has_no_gap():
    codes = np.tile([0, 1], 20)
    logits, groups = 5 * np.eye(2)[codes], np.repeat([0, 1], 20)
    groups[:20:2] = 1
    groups[1] = 1
    evidence = evidence_of(codes, logits, groups)
    assert evidence["conflicting_accuracy"] == evidence["aligned_accuracy"] == 1
    assert evidence["accuracy_gap_low"] == evidence["accuracy_gap_high"] == 0


@pytest.mark.parametrize(
    "low, high, decision",
    [
        (0.21, 0.9, "method"),
        (0.2, 0.9, "cannot tell"),
        (-0.1, 0.2, "cannot tell"),
        (-0.1, 0.19, "ordinary"),
    ],
)
def test_the_whole_interval_decides(low, high, decision):
    evidence = {
        "conflicting_accuracy": 0.4, "aligned_accuracy": 0.9, "accuracy_gap_low": low,
        "accuracy_gap_high": high, "n_compared": 50, "n_conflicting": 9,
    }  # fmt: skip
    found, reason = judge_by_gap(evidence, 0.2)
    assert found == decision
    assert "of 50 labelled samples 9 are" in reason
    assert "40% of the conflicting samples right and 90% of the others" in reason


@pytest.mark.parametrize("group", [-1, 0])
def test_labels_of_one_kind_tell_nothing(group):
    # No label at all, or all samples in one group: no sample is conflicting.
    groups = np.full(16, group)
    evidence = accuracy_gap(CODES, outcome(CODES, np.eye(2)[CODES])[0], groups, STRATUM)
    assert np.isnan(evidence["accuracy_gap_low"])
    assert evidence["n_conflicting"] == 0
    decision, reason = judge_by_gap(evidence, 0.2)
    assert decision == "cannot tell"
    assert f"of {(groups >= 0).sum()} labelled samples 0 are bias-conflicting, and both" in reason


def cells(*sizes):
    """Classes and groups of four cells of the sizes given, class first."""
    return np.repeat([0, 0, 1, 1], sizes), np.repeat([0, 1, 0, 1], sizes)


def test_a_hold_out_takes_a_fifth_of_each_labelled_group():
    codes, groups = cells(100, 50, 60, 75)
    groups = np.concatenate([groups, np.full(40, -1)])
    codes = np.concatenate([codes, np.arange(40) % 2])
    rows = hold_out(codes, groups, seed=0)
    assert (groups[rows] >= 0).all()
    assert len(set(rows)) == len(rows)
    sizes = np.bincount(2 * codes[rows] + groups[rows])
    assert sizes.tolist() == [20, 10, 12, 15]
    assert rows.tolist() == hold_out(codes, groups, seed=0).tolist()
    assert set(rows) != set(hold_out(codes, groups, seed=1))


def test_a_group_of_fewer_than_fifty_labels_gives_no_hold_out():
    assert hold_out(*cells(100, 49, 60, 75), seed=0) is None
    assert hold_out(*cells(100, 50, 60, 75), seed=0) is not None
    assert hold_out(np.arange(500) % 2, np.full(500, -1), seed=0) is None


def predictions(right, codes):
    return np.where(np.array(right, dtype=bool), codes, 1 - codes)


def test_accuracies_of_the_worst_group_by_hand():
    codes, groups = cells(2, 2, 2, 2)
    # Ordinary: group accuracies 1, 0, 1, 1. The method: .5, .5, 1, .5.
    ordinary = predictions([1, 1, 0, 0, 1, 1, 1, 1], codes)
    method = predictions([1, 0, 1, 0, 1, 1, 1, 0], codes)
    evidence, decision, reason = judge_by_worst_group(
        codes, {"cross_entropy": ordinary, "margin": method}, groups
    )
    assert evidence["holdout_worst_group"] == {"cross_entropy": 0.0, "margin": 0.5}
    assert evidence["holdout_gain_low"] < 0 < evidence["holdout_gain_high"]
    assert "8 labelled samples" in reason
    assert "method is 0.50 and the accuracy of ordinary training is 0.00" in reason
    # Two samples of each group cannot decide.
    assert decision == "cannot tell"


def test_a_gain_beyond_chance_decides_either_way():
    codes, groups = cells(400, 20, 400, 400)
    # All groups are right except one of 20: ordinary training gets 5 of it right, the method 20.
    right = np.ones(len(codes), dtype=bool)
    right[405:420] = False
    ordinary, method = predictions(right, codes), predictions(right | True, codes)
    evidence, decision, _ = judge_by_worst_group(
        codes, {"cross_entropy": ordinary, "margin": method}, groups
    )
    assert decision == "method"
    # The method alone is right in 15 samples, both in 5. Each outcome gets a quarter sample
    # more. The other two outcomes have next to no weight, so that the gain is beta-distributed.
    low, high = beta(15.25, 5.75).ppf([0.1, 0.9])
    assert evidence["holdout_gain_low"] == pytest.approx(low, abs=0.03)
    assert evidence["holdout_gain_high"] == pytest.approx(high, abs=0.03)
    evidence, decision, _ = judge_by_worst_group(
        codes, {"cross_entropy": method, "margin": ordinary}, groups
    )
    assert decision == "ordinary"
    assert evidence["holdout_gain_high"] == pytest.approx(-low, abs=0.03)
    _, decision, _ = judge_by_worst_group(
        codes, {"cross_entropy": method, "margin": method}, groups
    )
    assert decision == "cannot tell"
