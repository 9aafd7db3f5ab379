"""What is inferred of an attribute from some labels, where the truth is known."""

import numpy as np
import pytest
from scipy.special import softmax
from spurious import spurious

from skfair.adjustment._attributes import infer_attribute
from skfair.adjustment._linear import principal_components
from skfair.adjustment._twins import train_twins


def infer(X, y, a, labelled, at_random=None, weight=None):
    """Infer the attribute from the labels of some rows, by default a random sample."""
    values = np.full(len(y), -1)
    values[labelled] = a[labelled]
    marked = np.zeros(len(y), dtype=bool)
    marked[labelled if at_random is None else at_random] = True
    weight = np.ones(len(y)) if weight is None else weight
    projection = principal_components(X, weight, X.shape[1], np.random.RandomState(0))
    Z = projection(X)
    twins = train_twins(Z, y, weight, 0.02, np.random.RandomState(0))
    attribute = infer_attribute(Z, y, weight, values, marked, twins.logits, twins.mean)
    return attribute, attribute.model.after(projection)


def test_the_attribute_of_samples_without_a_label_is_found():
    X, y, a = spurious(1500, agree=0.9, bias=5.0)
    attribute, model = infer(X, y, a, np.arange(120))
    rest = np.arange(1500) >= 120
    found = attribute.posterior.argmax(axis=1)
    assert (found == a)[rest].mean() > 0.97
    assert (found == a)[rest & (a != y)].mean() > 0.85
    np.testing.assert_allclose(attribute.posterior.sum(axis=1), 1)
    # Known values stay.
    np.testing.assert_array_equal(attribute.posterior[:120], np.eye(2)[a[:120]])
    # The model has no class as input, and works on rows in which the attribute is independent.
    new, new_y, new_a = spurious(1500, agree=0.5, bias=5.0, seed=1)
    right = softmax(model(new), axis=1).argmax(axis=1) == new_a
    assert right.mean() > 0.9
    assert right[new_a != new_y].mean() > 0.85


@pytest.mark.parametrize("agree", [0.97, 0.9, 0.75])
def test_how_the_attribute_goes_along_with_the_classes(agree):
    X, y, a = spurious(3000, agree=agree, bias=5.0)
    attribute, _ = infer(X, y, a, np.arange(200))
    # The two classes are equally frequent, and so are the two values.
    expected = [[agree, 1 - agree], [1 - agree, agree]]
    np.testing.assert_allclose(attribute.prior, expected, atol=0.05)
    np.testing.assert_allclose(attribute.prior.sum(axis=1), 1)


def test_labels_weigh_as_their_samples_do():
    X, y, a = spurious(1500, agree=0.9, bias=5.0)
    weight, given = np.ones(1500), a.copy()
    weight[:80], given[:80] = 1e-6, 1 - a[:80]  # wrong, and of next to no weight
    attribute, _ = infer(X, y, given, np.arange(200), weight=weight)
    without, _ = infer(X, y, a, np.arange(80, 200), weight=weight)
    found = attribute.posterior[200:].argmax(axis=1)
    assert (found == a[200:]).mean() > 0.97
    np.testing.assert_allclose(attribute.prior, without.prior, atol=0.01)


def test_three_classes_of_unequal_size_and_two_values():
    X, y, a = spurious(4000, 3, 2, agree=0.9, bias=5.0)
    kept = (y != 0) | (np.arange(4000) % 4 == 0)
    X, y, a = X[kept], y[kept], a[kept]
    attribute, _ = infer(X, y, a, np.arange(200))
    # For equally frequent classes: values 0, 1 and 0 are usual in classes 0, 1 and 2.
    within = np.array([[0.9, 0.1, 0.9], [0.1, 0.9, 0.1]])
    expected = within / within.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(attribute.prior, expected, atol=0.06)


def test_conflicting_labels_are_those_of_an_unusual_value():
    X, y, a = spurious(600, 3, agree=0.8)
    labelled = np.arange(0, 600, 5)
    attribute, _ = infer(X, y, a, labelled)
    np.testing.assert_array_equal(attribute.conflicting, (a != y)[labelled])
    # Other codes of the values give the same conflicting samples.
    attribute, _ = infer(X, y, 2 - a, labelled)
    np.testing.assert_array_equal(attribute.conflicting, (a != y)[labelled])


def test_labels_that_were_asked_for_do_not_say_what_is_usual():
    # Twenty random labels, and sixty of conflicting samples only: most labels conflict.
    X, y, a = spurious(3000, agree=0.95, bias=5.0)
    random = np.flatnonzero(a == y)[:20]
    asked = np.flatnonzero(a != y)[:60]
    labelled = np.union1d(random, asked)
    told, _ = infer(X, y, a, labelled, at_random=random)
    np.testing.assert_array_equal(told.conflicting, (a != y)[labelled])
    assert told.prior[0, 1] == pytest.approx(0.05, abs=0.03)
    blind, _ = infer(X, y, a, labelled)
    np.testing.assert_array_equal(blind.conflicting, (a == y)[labelled])


def test_samples_without_a_label_correct_what_few_labels_say():
    X, y, a = spurious(3000, agree=0.7, bias=6.0)
    conflicting = a != y
    # Four of forty labels conflict, where twelve would be expected.
    labelled = np.union1d(np.flatnonzero(conflicting)[:4], np.flatnonzero(~conflicting)[:36])
    attribute, _ = infer(X, y, a, labelled)
    np.testing.assert_allclose(attribute.prior, [[0.7, 0.3], [0.3, 0.7]], atol=0.05)


def test_a_class_without_labels():
    X, y, a = spurious(900, 3, agree=0.9, bias=5.0)
    attribute, _ = infer(X, y, a, np.flatnonzero(y < 2)[:100])
    assert np.isfinite(attribute.posterior).all()
    found = attribute.posterior.argmax(axis=1)
    assert (found == a)[y < 2].mean() > 0.9
    np.testing.assert_allclose(attribute.prior.sum(axis=1), 1)


def test_weights_have_no_unit():
    X, y, a = spurious(600, agree=0.9)
    weight = np.random.default_rng(0).uniform(0.5, 2, 600)
    one, _ = infer(X, y, a, np.arange(80), weight=weight)
    for unit in (1e-3, 1e3):
        other, _ = infer(X, y, a, np.arange(80), weight=unit * weight)
        np.testing.assert_allclose(other.prior, one.prior, atol=1e-3)
        np.testing.assert_allclose(other.posterior, one.posterior, atol=0.02)


def test_constant_rows_say_nothing_and_the_labels_still_do():
    y = np.arange(200) % 2
    a = np.where(np.arange(200) % 10 < 8, y, 1 - y)
    attribute, _ = infer(np.ones((200, 3), dtype=np.float32), y, a, np.arange(100))
    # 80 % of the labels are the usual value; nothing is known about the other samples.
    np.testing.assert_allclose(attribute.prior, [[0.8, 0.2], [0.2, 0.8]], atol=0.05)
    np.testing.assert_allclose(attribute.posterior[100:][y[100:] == 0, 0], 0.8, atol=0.1)


def test_the_model_takes_each_value_for_equally_frequent_and_the_posterior_does_not():
    y = np.arange(400) % 2
    a = (np.arange(400) // 2 % 5 < 4).astype(int)  # four fifths of either class
    X = np.ones((400, 3), dtype=np.float32)
    attribute, model = infer(X, y, a, np.arange(200))
    np.testing.assert_allclose(softmax(model(X[:1]), axis=1), 0.5, atol=0.02)
    np.testing.assert_allclose(attribute.posterior[200:, 1], 0.8, atol=0.05)
    np.testing.assert_allclose(attribute.prior, 0.5, atol=0.02)


def test_in_the_offset_of_the_head_the_class_says_half():
    X, y, a = spurious(1500, agree=0.8, bias=1.5)
    attribute, _ = infer(X, y, a, np.arange(120))
    np.testing.assert_array_equal(attribute.softened[:120], np.eye(2)[a[:120]])
    np.testing.assert_allclose(attribute.softened.sum(axis=1), 1)
    # How frequent a value is in a class, by the formula of the user guide.
    sums = np.stack([attribute.posterior[y == code].sum(axis=0) for code in (0, 1)])
    log_frequency = np.log((sums + 1) / (2 + np.bincount(y))[:, None])[y[120:]]
    whole, half = np.log(attribute.posterior[120:]), np.log(attribute.softened[120:])
    removed = np.diff(whole - half, axis=1)
    np.testing.assert_allclose(removed, np.diff(log_frequency, axis=1) / 2, atol=0.01)
    assert np.abs(removed).min() > 0.3
