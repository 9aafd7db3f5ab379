"""Published heads of the benchmarks, against values worked out by hand and generated groups."""

import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def references(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks._references")


def sample(n, agree, seed=0):
    """Two features: a weak one of the class, and a strong one of an attribute that goes along."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    attribute = np.where(rng.random(n) < agree, y, 1 - y)
    X = rng.normal(size=(n, 2)) + np.column_stack([2 * y - 1, 4 * attribute - 2])
    return X.astype(np.float32), y, attribute


@pytest.fixture
def biased():
    return sample(2000, 0.95)


@pytest.fixture
def balanced():
    """To choose by."""
    X, y, attribute = sample(400, 0.5, seed=1)
    return X, y, 2 * y + attribute


def worst(predict):
    X, y, attribute = sample(4000, 0.5, seed=2)
    right = predict(X) == y
    return min(right[(y == i) & (attribute == j)].mean() for i in (0, 1) for j in (0, 1))


def test_the_worst_cell_is_the_least_accurate_one(references):
    y, cell = np.array([0, 0, 0, 1, 1]), np.array([3, 3, 3, 8, 8])
    assert references.worst_group(np.array([0, 0, 1, 1, 1]), y, cell) == pytest.approx(2 / 3)
    assert references.worst_group(np.array([0, 0, 0, 0, 1]), y, cell) == pytest.approx(1 / 2)


def test_ridge_is_the_sum_over_classes(references):
    # With one feature and two rows, the slope of the loss at the best W is that of the ridge.
    X, y = np.array([[-1.0], [1.0]]), np.array([0, 1])
    difference = references.ridge_model(2, 2).fit(X, y).coef_[0, 0]
    w = difference / 2  # of each class
    # d/dw of log(1 + exp(-2 w)) + RIDGE / 2 * 2 w^2
    assert -2 / (1 + np.exp(2 * w)) + 2 * references.RIDGE * w == pytest.approx(0, abs=1e-3)


def test_weights_count_as_copies_of_a_sample(references, biased):
    X, y, attribute = biased
    up = np.where(y == attribute, 1, 3)
    copied = np.repeat(np.arange(len(y)), up)
    expected = references.weighted_ridge(X[copied], y[copied], np.ones(len(copied)))
    grid = np.random.default_rng(0).normal(scale=3, size=(500, 2))
    found = references.weighted_ridge(X, y, up)
    assert (found(grid) == expected(grid)).mean() > 0.995


def test_ordinary_training_follows_the_attribute(references, biased):
    assert worst(references.predictor(*references.train(*biased[:2], 0))) < 0.5


def test_group_dro_weighs_groups_until_their_losses_agree(references):
    # The feature tells the classes apart in one group and is reversed in a smaller one. The largest
    # loss is smallest where nothing is learned: each step to one group is a step from the other.
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=1000)
    group = (rng.random(1000) < 0.1).astype(int)
    X = np.where(group == 0, 2 * y - 1, 1 - 2 * y)[:, None]
    learned, _ = references.train(X, y, 0)
    assert learned[0, 1] - learned[0, 0] > 0.1
    # Groups are equally frequent in batches, so that both halves of the loss agree on zero.
    learned, _ = references.train(X, y, 0, group=group)
    assert abs(learned[0, 1] - learned[0, 0]) < 0.03


def test_group_dro_attends_to_the_group_with_the_larger_loss(references):
    # Group 1 has a feature of its own that is wrong for a fifth of group 0. Only where losses
    # weigh by group does the step size matter.
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=2000)
    group = rng.integers(2, size=2000)
    sign = np.where((group == 0) & (rng.random(2000) < 0.4), -1, 1)
    X = (sign * (2 * y - 1))[:, None]
    slow, fast = (references.train(X, y, 0, group=group, eta=eta)[0] for eta in (0.0, 1.0))
    # The best head of group 0 alone has the smaller slope.
    assert fast[0, 1] - fast[0, 0] < 0.8 * (slow[0, 1] - slow[0, 0])


@pytest.mark.parametrize("method", ["group_dro", "logit_adjustment"])
def test_labels_of_all_groups_help_the_worst(references, biased, method):
    X, y, attribute = biased
    labels = 2 * y + attribute if method == "group_dro" else attribute
    assert worst(getattr(references, method)(X, y, labels, 0)) > 0.65


def test_logit_adjustment_leaves_nothing_to_learn_of_the_attribute(references, monkeypatch):
    # The one feature is the attribute. With its prior added, a head has nothing to add.
    y = np.repeat([0, 1], 500)
    attribute = np.repeat([0, 1, 0, 1], [450, 50, 50, 450])
    X = 2 * attribute[:, None] - 1
    plain, _ = references.train(X, y, 0)
    heads = []
    monkeypatch.setattr(references, "predictor", lambda *head: heads.append(head))
    references.logit_adjustment(X, y, attribute, 0)
    assert plain[0, 1] > 0.05
    assert abs(heads[0][0][0, 1]) < 0.2 * plain[0, 1]


def test_weights_of_afr(references):
    y = np.array([0, 0, 0, 1])
    weight = references.error_weight(np.array([0.9, 0.5, 0.5, 0.5]), y, 2.0)
    assert weight.sum() == pytest.approx(1)
    assert weight[1] / weight[0] == pytest.approx(np.exp(0.8))
    assert weight[3] / weight[1] == pytest.approx(3)  # a class of one against a class of three


@pytest.mark.parametrize("method", ["jtt", "afr"])
def test_a_second_fit_helps_the_worst_group(references, biased, balanced, method):
    X, y, _ = biased
    assert worst(getattr(references, method)(X, y, *balanced, 0)) > 0.6


def test_xrm_finds_the_samples_that_conflict(references, biased):
    X, y, attribute = biased
    mistakes = references.cross_mistakes(X, y, 0)
    assert mistakes[y != attribute].mean() > 0.7
    assert mistakes[y == attribute].mean() < 0.1
    assert worst(references.xrm(X, y, 0)) > 0.6
