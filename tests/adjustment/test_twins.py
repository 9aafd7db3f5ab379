"""Twins agree on what is easiest, and say it of samples that they have not seen."""

import numpy as np
import pytest
from spurious import spurious

from skfair.adjustment import _twins
from skfair.adjustment._twins import class_counts, log_prior_given_guess, train_twins


def train(Z, codes, seed=0, weight=None):
    weight = np.ones(len(Z)) if weight is None else weight
    return train_twins(Z.astype(np.float64), codes, weight, 0.02, np.random.RandomState(seed))


def test_they_predict_the_attribute_where_it_is_easier_than_the_class():
    Z, y, a = spurious(800, agree=0.9, bias=6.0, target=1.0)
    guesses = train(Z, y).predicted
    conflicting = a != y
    assert (guesses[:, conflicting] == a[conflicting]).mean() > 0.8
    assert (guesses == a).mean() > 0.95


def test_they_predict_the_class_where_nothing_else_goes_along_with_it():
    Z, y, _ = spurious(800, agree=0.5, target=5.0)
    assert (train(Z, y).predicted == y).mean() > 0.95


def test_no_twin_has_seen_what_it_predicts():
    # Labels are random: a twin would know only the labels that it has seen.
    rng = np.random.default_rng(0)
    Z, codes = 50 * rng.normal(size=(200, 150)), np.arange(200) % 2
    twins = train(Z, codes)
    assert (twins.predicted == codes).mean() < 0.6
    assert (twins.logits.argmax(axis=1) == codes).mean() < 0.65


@pytest.mark.parametrize("n_classes", [2, 3])
def test_shapes_and_the_mean_of_all_twins(n_classes):
    Z, y, _ = spurious(300, n_classes)
    twins = train(Z, y)
    assert twins.predicted.shape == (5, 300)
    assert twins.logits.shape == (300, n_classes)
    assert set(np.unique(twins.predicted)) <= set(range(n_classes))
    assert twins.mean.coef.shape == (n_classes, 16)
    # On new rows, the mean of the twins predicts the attribute.
    new, _, a = spurious(300, n_classes, seed=9)
    assert (twins.mean(new).argmax(axis=1) == a).mean() > 0.9


def test_the_same_generator_gives_the_same_twins():
    Z, y, _ = spurious(300)
    one, two, other = train(Z, y), train(Z, y), train(Z, y, seed=1)
    np.testing.assert_array_equal(one.logits, two.logits)
    np.testing.assert_array_equal(one.mean.coef, two.mean.coef)
    assert not np.array_equal(one.logits, other.logits)


def test_the_surer_a_twin_the_more_labels_it_changes():
    def changed(*probabilities):
        labels = np.zeros(20_000, dtype=int)
        logits = np.tile(np.log(probabilities), (20_000, 1))
        return (_twins._flip(logits, labels, np.random.RandomState(0)) != labels).mean()

    # The share (p - 1 / C) / (1 - 1 / C) of the samples that are predicted as another class.
    assert changed(0.25, 0.75) == pytest.approx(0.5, abs=0.02)
    assert changed(0.01, 0.99) == pytest.approx(0.98, abs=0.01)
    assert changed(0.25, 0.25, 0.5) == pytest.approx(0.25, abs=0.02)
    assert changed(0.75, 0.25) == 0
    assert changed(0.5, 0.5) == 0


def test_many_samples_are_a_matter_of_fewer_repeats_and_of_parts(monkeypatch):
    Z, y, a = spurious(1000, agree=0.9)
    monkeypatch.setattr(_twins, "_MANY", 2000)
    assert train(Z, y).predicted.shape == (2, 1000)
    monkeypatch.setattr(_twins, "_MOST_TRAINED", 100)
    twins = train(Z, y)
    assert twins.predicted.shape == (2, 1000)
    assert (twins.predicted == a).mean() > 0.9


@pytest.mark.parametrize("sizes", [(1, 9), (1, 1), (2, 1, 5), (1, 1, 1)])
def test_classes_of_a_single_sample(sizes):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    Z = np.random.default_rng(0).normal(size=(len(codes), 2))
    twins = train(Z, codes)
    assert np.isfinite(twins.logits).all()
    assert np.isfinite(twins.mean.coef).all()


def test_the_prior_is_counted_as_if_classes_were_equally_frequent():
    # Six samples of class 0, five of them predicted as 0; two of class 1, one predicted as 1.
    codes = np.array([0] * 6 + [1] * 2)
    guess = np.array([0, 0, 0, 0, 0, 1, 0, 1])
    found = np.exp(log_prior_given_guess(guess, codes, np.ones(8), 2))
    within = np.array([[5.5 / 7, 1.5 / 3], [1.5 / 7, 1.5 / 3]])  # of a guess in a class
    expected = within / within.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected[guess], rtol=1e-12)


def test_counts_equal_a_loop_and_have_the_unit_of_a_sample():
    rng = np.random.default_rng(0)
    values, codes, weight = rng.integers(3, size=50), rng.integers(2, size=50), rng.random(50)
    expected = np.zeros((3, 2))
    for v, c, w in zip(values, codes, weight, strict=True):
        expected[v, c] += w * 50 / weight.sum()
    for unit in (1, 1e-3):
        found = class_counts(values, codes, unit * weight, 3, 2)
        np.testing.assert_allclose(found, expected)
