"""The decision between the method and ordinary training, by hand and by slow loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skfair.margin._gate import (
    balanced_order,
    conflict_odds_ratio,
    hold_out,
    judge_by_odds,
    judge_by_worst_group,
    strata,
)


def test_the_hard_stratum_is_the_confident_quarter_of_the_errors():
    # Class 0: 16 errors of growing confidence after two right ones; class 1: two errors.
    codes = np.repeat([0, 1], [18, 3])
    favour_1 = np.array([-1.0, -2.0, *range(1, 17), 3.0, -0.5, -9.0])
    hard, easy = strata(codes, np.column_stack([np.zeros(21), favour_1]))
    assert np.flatnonzero(easy).tolist() == [0, 1, 18]
    # A quarter of 16 is 4; of two errors both are taken, three being the least.
    assert np.flatnonzero(hard).tolist() == [14, 15, 16, 17, 19, 20]


@given(n=st.integers(1, 40), n_classes=st.integers(2, 4), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_strata_equal_a_loop(n, n_classes, seed):
    rng = np.random.RandomState(seed)
    codes, logits = rng.randint(n_classes, size=n), rng.randn(n, n_classes)
    hard, easy = strata(codes, logits)
    for code in range(n_classes):
        errors = []
        for i in np.flatnonzero(codes == code):
            right = max(range(n_classes), key=lambda k: logits[i, k]) == code
            assert easy[i] == right
            if not right:
                total = sum(math.exp(z) for z in logits[i])
                errors.append((math.exp(logits[i, code]) / total, i))
        expected = {i for _, i in sorted(errors)[: max(3, math.ceil(len(errors) / 4))]}
        assert set(np.flatnonzero(hard & (codes == code))) == expected


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
        # A class may lag behind the fullest by more than one only where it is used up.
        assert all(t == s or t >= taken.max() - 1 for t, s in zip(taken, size, strict=True))


def test_the_order_is_a_draw():
    rows, codes = np.arange(60), np.arange(60) % 2
    first = balanced_order(rows, codes, np.random.RandomState(0))
    assert first.tolist() == balanced_order(rows, codes, np.random.RandomState(0)).tolist()
    assert first.tolist() != balanced_order(rows, codes, np.random.RandomState(1)).tolist()
    assert set(np.diff(codes[first])) == {-1, 0, 1}  # the classes take no fixed turns


# Rows 0-5 and 8-13 are easy, 6-7 and 14-15 hard; group 0 is class 0's own, 1 that of class 1.
CODES = np.repeat([0, 1], 8)
EASY = np.array([1, 1, 1, 1, 1, 1, 0, 0] * 2, dtype=bool)
GROUPS = np.array([0, 0, 1, -1, -1, -1, 1, 1, 1, 1, 1, -1, -1, -1, 0, 1])


def test_the_odds_ratio_of_a_small_table():
    # Each easy label stands for two samples, each hard one for itself:
    # class 0 holds 4 and 4 of the groups, class 1 holds 1 and 7; all together 5 and 11.
    # Rarer in its class than everywhere: group 1 in class 0 (1/2 < 11/16), group 0 in class 1.
    # Conflicting: 3 of the 4 hard labels, 1 of the 6 easy ones.
    ratio, p_value, n_compared = conflict_odds_ratio(CODES, GROUPS, ~EASY, EASY)
    assert ratio == pytest.approx((3.5 / 1.5) / (1.5 / 5.5))
    # Of the 210 ways to choose 4 hard ones among 10, 4 * 6 have 3 of the 4 conflicting, 1 all.
    assert p_value == pytest.approx(25 / 210)
    assert n_compared == 4


def labelled(hits, n_hard, base, n_easy):
    """Two classes alike: so many of the hard and easy samples of each class are conflicting."""
    one = np.r_[np.arange(n_hard) < hits, np.arange(n_easy) < base].astype(int)
    codes = np.repeat([0, 1], len(one))
    hard = np.tile(np.arange(len(one)) < n_hard, 2)
    return codes, np.r_[one, 1 - one], hard, ~hard


@pytest.mark.parametrize(
    "table, keeps",
    [
        ((5, 10, 1, 20), True),  # 10 of 20 against 2 of 40: 10.5 / 10.5 over 2.5 / 38.5
        ((3, 10, 1, 20), False),  # 6 of 20: odds 6.5 / 14.5, 6.9 times as high
        ((1, 3, 1, 60), True),  # 2 of 6 against 2 of 120: p is 0.01
        ((0, 3, 1, 200), False),  # not one hit: no half a sample may speak for it
    ],
)
def test_the_odds_decide_at_eight(table, keeps):
    hits, n_hard, base, n_easy = (2 * count for count in table)
    evidence, reason = judge_by_odds(*labelled(*table))
    odds = (hits + 0.5) / (n_hard - hits + 0.5) / ((base + 0.5) / (n_easy - base + 0.5))
    assert evidence["odds_ratio"] == pytest.approx(odds)
    assert evidence["n_compared"] == n_hard
    assert (reason is None) == keeps
    if not keeps:
        assert f"{odds:.1f} times" in reason
        assert f"{n_hard} or more labelled samples" in reason
        assert "suggest_labels()" in reason


def test_a_ratio_that_chance_can_reach_is_no_verdict_for_the_method():
    evidence, reason = judge_by_odds(CODES, GROUPS, ~EASY, EASY)
    assert evidence["odds_ratio"] > 8
    assert "p = 0.12" in reason


def test_a_group_that_is_everywhere_conflicts_with_nothing():
    codes, _, hard, easy = labelled(1, 2, 3, 30)
    evidence, reason = judge_by_odds(codes, np.zeros(len(codes), dtype=int), hard, easy)
    assert evidence["p_value"] == 1
    assert reason is not None


def test_without_labels_in_the_strata_nothing_speaks_for_the_method():
    nowhere = np.full(16, -1)
    assert conflict_odds_ratio(CODES, nowhere, ~EASY, EASY) == (1.0, 1.0, 0)
    assert "has a group label" in judge_by_odds(CODES, nowhere, ~EASY, EASY)[1]
    # Labels on one side only: there is nothing to compare them with.
    for side in (EASY, ~EASY):
        groups = np.where(side, GROUPS, -1)
        assert conflict_odds_ratio(CODES, groups, ~EASY, EASY) == (1.0, 1.0, 0)


@given(
    n=st.integers(1, 40),
    n_classes=st.integers(2, 3),
    n_groups=st.integers(1, 3),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None)
def test_the_odds_ratio_equals_a_loop(n, n_classes, n_groups, seed):
    rng = np.random.RandomState(seed)
    codes, groups = rng.randint(n_classes, size=n), rng.randint(-1, n_groups, size=n)
    hard, easy = strata(codes, rng.randn(n, n_classes))
    known = [i for i in range(n) if groups[i] >= 0 and (hard[i] or easy[i])]
    estimate = {}  # samples of each class and group, as far as the labels tell
    for i in known:
        alike = [j for j in range(n) if codes[j] == codes[i] and easy[j] == easy[i]]
        labelled = [j for j in alike if j in known]
        cell = codes[i], groups[i]
        estimate[cell] = estimate.get(cell, 0) + len(alike) / len(labelled)
    total = sum(estimate.values())
    table = {True: [0, 0], False: [0, 0]}  # of hard and easy: conflicting and not
    for i in known:
        in_class = sum(v for (c, _), v in estimate.items() if c == codes[i])
        in_group = sum(v for (_, g), v in estimate.items() if g == groups[i])
        # Ties are decided by rounding, in this loop as in the code.
        difference = estimate[codes[i], groups[i]] / in_class - in_group / total
        if abs(difference) < 1e-9:
            return
        table[bool(hard[i])][0 if difference < 0 else 1] += 1
    odds = {side: (a + 0.5) / (b + 0.5) for side, (a, b) in table.items()}
    ratio, _, n_compared = conflict_odds_ratio(codes, groups, hard, easy)
    both = sum(table[True]) and sum(table[False])
    assert ratio == pytest.approx(odds[True] / odds[False] if both else 1)
    assert n_compared == min(sum(table[True]), sum(table[False]))


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


def test_the_worst_group_decides_and_a_tie_goes_to_ordinary_training():
    codes, groups = cells(2, 2, 2, 2)

    def logits(right):
        predicted = np.where(np.array(right, dtype=bool), codes, 1 - codes)
        return np.eye(2)[predicted]

    # Ordinary: group accuracies 1, 0, 1, 1. The method: .5, .5, 1, .5.
    ordinary, method = logits([1, 1, 0, 0, 1, 1, 1, 1]), logits([1, 0, 1, 0, 1, 1, 1, 0])
    evidence, reason = judge_by_worst_group(
        codes, {"cross_entropy": ordinary, "margin": method}, groups
    )
    assert evidence == {"holdout_worst_group": {"cross_entropy": 0.0, "margin": 0.5}}
    assert reason is None
    evidence, reason = judge_by_worst_group(
        codes, {"cross_entropy": method, "margin": ordinary}, groups
    )
    assert "8 labelled samples" in reason
    assert "0.00 and that of ordinary training 0.50" in reason
    assert judge_by_worst_group(codes, {"cross_entropy": method, "margin": method}, groups)[1]
