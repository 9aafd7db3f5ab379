"""Which labels are asked for, and which of those given count as a random sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spurious import only, spurious

from skfair import LogitAdjustedClassifier
from skfair.adjustment._labels import conspicuous_order, random_order, random_part

X, Y, A = spurious(400)


def fit(X=X, y=Y, known=None, weight=None, **parameters):
    classifier = LogitAdjustedClassifier(head="linear", random_state=0, **parameters)
    return classifier.fit(X, y, weight, sensitive_features=known)


FIRST = fit()


# The random order -------------------------------------------------------------------------


def test_the_order_is_a_permutation_that_goes_by_the_rows_alone():
    order = random_order(X)
    assert sorted(order) == list(range(400))
    np.testing.assert_array_equal(order, random_order(X.copy(order="F")))
    shuffled = np.random.default_rng(0).permutation(400)
    np.testing.assert_array_equal(shuffled[random_order(X[shuffled])], order)
    # A part has the same order.
    part = np.flatnonzero(A == 0)
    np.testing.assert_array_equal(part[random_order(X[part])], order[A[order] == 0])


def test_the_order_has_nothing_to_do_with_what_the_rows_say():
    X, y, a = spurious(5000, agree=0.9)
    X[:, 2] = np.arange(5000)
    first = random_order(X)[:2500]
    for fact in (y, a, a != y, X[:, 0] > 0, np.arange(5000) < 2500, np.arange(5000) % 2 == 0):
        share, spread = fact.mean(), fact.std() * np.sqrt(0.5 / 2500)
        assert abs(fact[first].mean() - share) < 4 * spread
    one_digit = np.random.default_rng(0).integers(3, size=(2000, 1)).astype(np.float32)
    first = random_order(one_digit)[:1000]
    assert abs(one_digit[first].mean() - one_digit.mean()) < 0.08


def test_rows_that_are_equal_are_told_apart():
    X = np.zeros((100, 3), dtype=np.float32)
    order = random_order(X)
    assert sorted(order) == list(range(100))
    assert 12 < np.sum(order[:50] < 50) < 38
    X[::2] = -X[::2]  # minus zero is zero
    np.testing.assert_array_equal(random_order(X), order)


# The random part of the labels ------------------------------------------------------------


def marks(n, *positions):
    marked = np.zeros(n, dtype=bool)
    for rows in positions:
        marked[rows] = True
    return marked


ORDER = np.random.default_rng(0).permutation(200)


@given(n_random=st.integers(6, 60), n_other=st.integers(0, 40))
def test_what_was_asked_for_at_random_is_found(n_random, n_other):
    # The other labels come late in this order, so that the two parts do not touch.
    labelled = marks(200, ORDER[:n_random], ORDER[200 - n_other :])
    assert np.flatnonzero(random_part(labelled, ORDER)).tolist() == sorted(ORDER[:n_random])


def test_one_in_five_answers_may_be_missing():
    answered = np.delete(ORDER[:30], [0, 7, 8, 20, 25])
    labelled = marks(200, answered, ORDER[100:120])
    assert set(np.flatnonzero(random_part(labelled, ORDER))) == set(answered)


def test_labels_from_elsewhere_are_all_taken_for_a_random_sample():
    rng = np.random.default_rng(0)
    for share in (0.05, 0.2, 0.5, 0.7, 0.95):
        labelled = rng.random(200) < share
        np.testing.assert_array_equal(random_part(labelled, ORDER), labelled)
    # By chance the first samples are all labelled; so are more than two fifths of the others.
    labelled = marks(200, ORDER[:10], ORDER[10:][rng.random(190) < 0.55])
    np.testing.assert_array_equal(random_part(labelled, ORDER), labelled)
    labelled = marks(200, ORDER[:10], ORDER[10:][rng.random(190) < 0.3])
    assert random_part(labelled, ORDER).sum() < 20
    everything = np.ones(200, dtype=bool)
    np.testing.assert_array_equal(random_part(everything, ORDER), everything)


def test_fewer_than_five_at_random_are_too_few():
    labelled = marks(200, ORDER[:4], ORDER[50:60])
    np.testing.assert_array_equal(random_part(labelled, ORDER), labelled)
    labelled = marks(200, ORDER[:5], ORDER[50:60])
    assert random_part(labelled, ORDER).sum() == 5


# The conspicuous ones ---------------------------------------------------------------------


def test_classes_take_turns_the_most_conspicuous_first():
    surprise = np.array([5.0, 1.0, 9.0, 2.0, 4.0, 3.0])
    codes = np.array([0, 0, 1, 1, 1, 0])
    # Class 0: rows 0, 5, 1; class 1: rows 2, 4, 3.
    assert conspicuous_order(surprise, codes).tolist() == [2, 0, 4, 5, 3, 1]


@given(codes=st.lists(st.integers(0, 3), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_any_first_rows_spread_evenly_over_the_classes(codes, seed):
    codes = np.array(codes)
    order = conspicuous_order(np.random.default_rng(seed).normal(size=len(codes)), codes)
    assert sorted(order) == list(range(len(codes)))
    sizes = np.bincount(codes, minlength=4)
    for n in range(1, len(codes) + 1):
        counts = np.bincount(codes[order[:n]], minlength=4)
        short = counts < sizes  # no class is behind by two while it has samples left
        assert not short.any() or counts.max() <= counts[short].min() + 1


# What is suggested ------------------------------------------------------------------------


def test_half_are_random_and_half_stick_out_in_both_classes():
    rows = FIRST.suggest_labels(40)
    assert rows.shape == (40,)
    assert np.issubdtype(rows.dtype, np.integer)
    assert len(set(rows)) == 40
    np.testing.assert_array_equal(rows[:20], random_order(X)[:20])
    conflicting = A != Y
    assert conflicting[rows[20:]].mean() > 0.5 > 5 * conflicting.mean()
    assert (np.bincount(Y[rows[20:]]) >= 9).all()
    assert FIRST.suggest_labels().shape == (50,)
    assert FIRST.suggest_labels(np.int64(7)).shape == (7,)
    assert FIRST.suggest_labels(1).shape == (1,)


def test_more_than_there_are_gives_all():
    rows = FIRST.suggest_labels(10_000)
    assert sorted(rows) == list(range(400))
    known = only(A, np.arange(397))
    assert sorted(fit(known=known).suggest_labels(50)) == [397, 398, 399]
    assert fit(known=A).suggest_labels(50).shape == (0,)


def test_later_rounds_ask_for_others_and_random_ones_add_up():
    rows = FIRST.suggest_labels(30)
    second = fit(known=only(A, rows))
    assert second.diagnostics_["n_labelled"] == 30
    n_random = second.diagnostics_["n_labelled_at_random"]
    assert 15 <= n_random <= 18  # some that stick out may happen to be next in the order
    more = second.suggest_labels(30)
    assert not set(rows) & set(more)
    # The random order continues after the first suggestions.
    unlabelled = [row for row in random_order(X) if row not in set(rows)]
    assert more[:15].tolist() == unlabelled[:15]
    third = fit(known=only(A, [*rows, *more]))
    assert third.diagnostics_["n_labelled"] == 60
    assert 30 <= third.diagnostics_["n_labelled_at_random"] <= 38


def test_after_a_fit_with_labels_likely_conflicts_are_asked_for():
    X, y, a = spurious(1500, seed=4)
    second = fit(X, y, only(a, fit(X, y).suggest_labels(60)))
    asked = second.suggest_labels(40)[20:]
    assert (a != y)[asked].mean() > 6 * (a != y).mean()


def test_labels_are_recognised_in_folds_and_other_orders():
    X, y, a = spurious(1000, seed=5)
    known = only(a, fit(X, y).suggest_labels(60))
    shuffled = np.random.default_rng(0).permutation(1000)[:800]
    part = fit(X[shuffled], y[shuffled], known[shuffled])
    n_asked_at_random = sum(known[row] is not None for row in set(random_order(X)[:30]))
    kept = np.isin(random_order(X)[:30], shuffled).sum()
    assert n_asked_at_random == 30
    assert kept <= part.diagnostics_["n_labelled_at_random"] <= kept + 3
    assert part.diagnostics_["n_labelled"] > kept + 15


def test_labels_from_elsewhere_all_count():
    rows = np.random.default_rng(1).choice(400, 80, replace=False)
    found = fit(known=only(A, rows)).diagnostics_
    assert (found["n_labelled"], found["n_labelled_at_random"]) == (80, 80)


def test_samples_without_weight_are_not_asked_for():
    weight = (np.arange(400) % 3 > 0).astype(float)
    kept = np.flatnonzero(weight)
    rows = fit(weight=weight).suggest_labels(10_000)
    assert set(rows) == set(kept)
    np.testing.assert_array_equal(rows, kept[fit(X[kept], Y[kept]).suggest_labels(10_000)])


@pytest.mark.parametrize("n", [0, -1, 2.5, 2.0, True, False, "ten", None, np.nan, [5]])
def test_a_bad_number_of_labels(n):
    with pytest.raises(ValueError, match=r"^n=.* must be a positive integer, the number of sampl"):
        FIRST.suggest_labels(n)
