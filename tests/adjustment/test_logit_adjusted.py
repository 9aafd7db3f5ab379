"""LogitAdjustedClassifier: what users rely on, on data of which the truth is known."""

import copy
import functools
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from spurious import only, spurious
from torch import nn

import skfair
from skfair import FrozenEncoderFeaturizer, LogitAdjustedClassifier
from skfair.adjustment import _offsets
from skfair.metrics import make_fairness_scorer
from skfair.utils import FallbackWarning

X, Y, A = spurious(600)


def fit(X=X, y=Y, known=None, weight=None, **parameters):
    classifier = LogitAdjustedClassifier(**{"head": "linear", "random_state": 0, **parameters})
    return classifier.fit(X, y, weight, sensitive_features=known)


@functools.cache
def fitted(**parameters):
    """A fit on X and Y without labels that several tests look at and none changes."""
    return fit(**parameters)


def random_rows(n, n_samples=600, seed=0):
    return np.random.default_rng(seed).choice(n_samples, n, replace=False)


# Formulas ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("labels", ["none", "all"])
def test_strength_zero_is_balanced_ridge_logistic_regression_on_the_components(n_classes, labels):
    X, y, a = spurious(600, n_classes)
    kept = (y > 0) | (np.arange(600) % 3 == 0)  # classes of unequal size
    X, y, a = X[kept], y[kept], a[kept]
    known = None if labels == "none" else a
    classifier = fit(X, y, known, strength=0, n_components=5, ridge=0.1)
    Z = classifier.transform(X)
    assert np.square(Z).sum(axis=1).mean() == pytest.approx(256, rel=1e-5)
    C = (2 if n_classes == 2 else 1) / (0.1 * len(y))
    expected = LogisticRegression(C=C, class_weight="balanced", tol=1e-8, max_iter=1000).fit(Z, y)
    np.testing.assert_allclose(classifier.predict_proba(X), expected.predict_proba(Z), atol=2e-3)


def test_all_labels_the_prior_is_counted():
    y = np.array([0] * 6 + [1] * 4)
    a = np.array(list("uuuuuv" + "uvvv"))
    rows = np.random.default_rng(0).normal(size=(10, 2))
    classifier = fit(rows, y, a)
    assert classifier.attribute_values_ == ["u", "v"]
    # Counts of u: 5 and 1, of v: 1 and 3, plus one each; the classes then have 8 and 6.
    u, v = np.array([6 / 8, 2 / 6]), np.array([2 / 8, 4 / 6])
    np.testing.assert_allclose(classifier.prior_, [u / u.sum(), v / v.sum()], rtol=1e-12)
    np.testing.assert_allclose(classifier.expected_counts_, [[5, 1], [1, 3]], rtol=1e-12)
    # v conflicts in class 0, and u in class 1.
    assert np.flatnonzero(classifier.conflicting_).tolist() == [5, 6]
    assert classifier.diagnostics_ == {
        "n_labelled": 10,
        "n_labelled_at_random": 10,
        "n_labelled_conflicting": 2,
        "n_conflicting": 2.0,
        "strength": 0.85,
    }


@pytest.mark.parametrize("strength", ["auto", 0.5])
def test_all_labels_the_head_minimises_the_adjusted_loss(strength):
    X, y, a = spurious(200, width=4)
    classifier = fit(X, y, a, strength=strength, ridge=0.1)
    Z = classifier.transform(X)
    factor = 0.85 if strength == "auto" else strength
    offset = factor * np.log(classifier.prior_)[a]
    # Groups weigh by their share of the class, one sample added to each; classes are equal.
    counts = np.array([[np.sum((a == v) & (y == c)) + 1 for c in range(2)] for v in range(2)])
    share = counts / counts.sum(axis=0)
    weight = share ** (-0.3 * factor) / np.sum(share ** (1 - 0.3 * factor), axis=0)
    weight = weight[a, y] / np.bincount(y)[y]

    def loss(theta):
        W, b = theta[:8].reshape(2, 4), theta[8:]
        losses = -log_softmax(Z @ W.T + b + offset, axis=1)[np.arange(200), y]
        return weight @ losses / weight.sum() + 0.1 / 2 * (W**2).sum()

    slow = minimize(loss, np.zeros(10), tol=1e-9).x
    scores = Z @ (slow[4:8] - slow[:4]) + slow[9] - slow[8]
    np.testing.assert_allclose(classifier.decision_function(X), scores, atol=0.02)


def test_coefficients_are_of_the_features_as_they_come():
    for n_classes in (2, 3):
        X, y, _ = spurious(300, n_classes)
        classifier = fit(X, y, n_components=4)
        assert classifier.coef_.shape == (n_classes, 16)
        assert classifier.intercept_.shape == (n_classes,)
        scores = X.astype(np.float64) @ classifier.coef_.T + classifier.intercept_
        if n_classes == 2:
            scores = scores[:, 1] - scores[:, 0]
        np.testing.assert_allclose(classifier.decision_function(X), scores, rtol=1e-9)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_scale_and_origin_of_the_features_do_not_matter(head):
    def predict(X):
        return fit(X, Y, A, head=head).predict_proba(X)

    expected = predict(X)
    for changed in (100 * X, X + 3, X / 1000):
        np.testing.assert_allclose(predict(changed.astype(np.float32)), expected, atol=0.02)


# What it is for ---------------------------------------------------------------------------


def test_with_all_labels_the_decision_does_not_depend_on_the_attribute():
    # The attribute is one axis and the class another; the two are independent.
    X, y, a = spurious(4000, agree=0.9, width=6, seed=2)
    one, other = X[:500].copy(), X[:500].copy()
    one[:, :2], other[:, :2] = [4, 0], [0, 4]

    def worth(strength):
        classifier = fit(X, y, a, strength=strength)
        difference = classifier.decision_function(other) - classifier.decision_function(one)
        return difference.mean() / classifier.decision_function(X).std()

    assert worth(0) > 0.6
    assert abs(worth("auto")) < 0.25
    assert worth(0) > worth(0.5) > worth(1.0)


KINDS = {
    "two classes": ({}, False),
    "three classes and values": ({"n_classes": 3}, False),
    "three classes and two values": ({"n_classes": 3, "n_values": 2}, False),
    "a group is absent": ({}, True),
}


@functools.cache
def measured(kind, labels, seed, **parameters):
    """Accuracy on conflicting samples, and on all, of test data in which nothing is spurious."""
    shape, absent = KINDS[kind]
    X, y, a = spurious(1200, seed=seed, **shape)
    if absent:
        kept = (y != 0) | (a != 1)
        X, y, a = X[kept], y[kept], a[kept]
    known = {"none": None, "all": a}.get(labels)
    if labels == "50":
        known = only(a, fit(X, y).suggest_labels(50))
    classifier = fit(X, y, known, **parameters)
    n_values = len(set(a))
    X, y, a = spurious(3000, seed=100 + seed, **{**shape, "agree": 1 / n_values})
    right = classifier.predict(X) == y
    return right[a != y % n_values].mean(), right.mean()


@pytest.mark.thorough
@pytest.mark.parametrize("labels, gain", [("none", 0.08), ("50", 0.18), ("all", 0.18)])
@pytest.mark.parametrize("kind", KINDS)
def test_conflicting_samples_gain_and_all_together_too(kind, labels, gain):
    adjusted = np.mean([measured(kind, labels, seed) for seed in range(3)], axis=0)
    ordinary = np.mean([measured(kind, "none", seed, strength=0) for seed in range(3)], axis=0)
    assert adjusted[0] > ordinary[0] + gain
    assert adjusted[1] > ordinary[1] + 0.02


@pytest.mark.thorough
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("labels, distance", [("none", 0.03), ("50", 0.01), ("all", 0.005)])
def test_where_nothing_is_spurious_little_is_lost(labels, distance, n_classes):
    lost = []
    for seed in range(3):
        X, y, a = spurious(1200, n_classes, agree=1 / n_classes, seed=seed)
        known = {"none": None, "all": a}.get(labels)
        if labels == "50":
            known = only(a, fit(X, y).suggest_labels(50))
        test, truth, _ = spurious(3000, n_classes, agree=1 / n_classes, seed=100 + seed)
        lost += [fit(X, y, strength=0).score(test, truth) - fit(X, y, known).score(test, truth)]
    assert np.mean(lost) < distance


def test_a_hidden_layer_is_adjusted_too():
    X, y, a = spurious(1200, seed=1)
    test, truth, value = spurious(3000, agree=0.5, seed=7)
    conflicting = value != truth
    scores = [
        fit(X, y, a, head="mlp", strength=strength).score(test[conflicting], truth[conflicting])
        for strength in (0, "auto")
    ]
    assert scores[1] > scores[0] + 0.1


def test_the_head_that_the_data_ask_for():
    assert fit(head="auto").head_ == "linear"
    rng = np.random.default_rng(0)
    rows = 3 * rng.normal(size=(1500, 2))
    classifier = fit(rows, rows[:, 0] * rows[:, 1] > 0, head="auto")
    assert classifier.head_ == "mlp"
    assert not hasattr(classifier, "coef_")
    assert classifier.score(rows, rows[:, 0] * rows[:, 1] > 0) > 0.85


def test_conflicting_samples_are_named():
    X, y, a = spurious(1500, bias=6.0, target=1.0)
    for known, least in ((None, 0.6), (only(a, random_rows(80, 1500)), 0.7), (a, 0.99)):
        classifier = fit(X, y, known)
        conflicting = a != y
        assert classifier.conflicting_.shape == (1500,)
        assert classifier.conflicting_.dtype == bool
        assert classifier.conflicting_[conflicting].mean() > least
        assert classifier.conflicting_[~conflicting].mean() < 0.1
        n_conflicting = classifier.diagnostics_["n_conflicting"]
        assert n_conflicting == pytest.approx(conflicting.sum(), rel=0.6)
        np.testing.assert_allclose(classifier.expected_counts_.sum(axis=0), np.bincount(y))


def test_the_attribute_of_new_rows():
    X, y, a = spurious(1500, bias=6.0, target=1.0)
    names = np.array(["left", "right"])
    new, new_y, new_a = spurious(1000, agree=0.5, bias=6.0, target=1.0, seed=1)
    for known in (None, only(names[a], random_rows(80, 1500)), names[a]):
        classifier = fit(X, y, known)
        found = classifier.attribute_proba(new)
        assert (found.shape, found.dtype) == ((1000, 2), np.float64)
        np.testing.assert_allclose(found.sum(axis=1), 1)
        right = found.argmax(axis=1) == new_a
        assert right.mean() > 0.9
        assert right[new_a != new_y].mean() > 0.85
        assert classifier.attribute_values_ == ([0, 1] if known is None else ["left", "right"])


def test_what_the_labels_rest_on():
    rows = fitted().suggest_labels(40)
    classifier = fit(known=only(A, rows))
    found = classifier.diagnostics_
    assert found["n_labelled"] == 40
    assert 20 <= found["n_labelled_at_random"] <= 24
    assert found["n_labelled_conflicting"] == (A != Y)[rows].sum()
    # Ten conflicting samples give the full strength.
    assert (A != Y)[rows].sum() >= 10
    assert found["strength"] == 0.75
    few = random_rows(60)
    assert 0 < (A != Y)[few].sum() < 10
    found = fit(known=only(A, few)).diagnostics_
    assert found["strength"] == pytest.approx(0.75 * (A != Y)[few].sum() / 10)
    found = fit(known=only(A, few), strength=0.2).diagnostics_
    assert found["strength"] == pytest.approx(0.2 * (A != Y)[few].sum() / 10)
    assert fitted().diagnostics_["n_labelled"] == 0
    assert fitted().diagnostics_["strength"] == 0.75


def test_one_missing_label_changes_little():
    classifier = fit(known=only(A, np.arange(1, len(Y))))
    assert classifier.diagnostics_["strength"] == 0.75
    new, new_y, new_a = spurious(2000, agree=0.5, seed=1)
    against = new_a != new_y
    ordinary, missing, whole = (
        model.score(new[against], new_y[against])
        for model in (fit(strength=0), classifier, fit(known=A))
    )
    assert missing - ordinary > 0.6 * (whole - ordinary) > 0.05


def test_labels_without_a_conflicting_one_are_ordinary_training_and_say_so():
    agreeing = np.flatnonzero(A == Y)[:30]
    with pytest.warns(FallbackWarning, match="all of the 30 labels .* have one value"):
        classifier = fit(known=only(A, agreeing))
    assert classifier.diagnostics_["n_labelled_conflicting"] == 0
    assert classifier.diagnostics_["strength"] == 0
    np.testing.assert_allclose(
        classifier.predict_proba(X), fit(strength=0).predict_proba(X), atol=1e-9
    )


def test_labelled_samples_that_conflict_weigh_more(monkeypatch):
    rows = fitted().suggest_labels(60)
    found = rows[(A != Y)[rows]]
    told = fit(known=only(A, rows)).predict_proba(X)
    monkeypatch.setattr(_offsets, "_MOST_UPWEIGHTED", 1.0)
    plain = fit(known=only(A, rows)).predict_proba(X)
    assert len(found) > 10
    assert told[found, Y[found]].mean() > plain[found, Y[found]].mean() + 0.05
    others = np.setdiff1d(np.flatnonzero(A == Y), rows)
    assert told[others, Y[others]].mean() < plain[others, Y[others]].mean()


def test_unless_a_group_seems_to_be_absent(monkeypatch):
    # Ten or more conspicuous samples of class 0 are labelled, and no sample of it conflicts.
    X, y, a = spurious(600)
    kept = (y != 0) | (a != 1)
    X, y, a = X[kept], y[kept], a[kept]
    known = only(a, fit(X, y).suggest_labels(60))
    classifier = fit(X, y, known)
    assert classifier.diagnostics_["n_labelled_conflicting"] > 3
    monkeypatch.setattr(_offsets, "_MOST_UPWEIGHTED", 1.0)
    np.testing.assert_array_equal(classifier.predict_proba(X), fit(X, y, known).predict_proba(X))


def test_strength_zero_is_ordinary_training_whatever_is_labelled():
    some = only(A, random_rows(60)), only(A, fitted().suggest_labels(60))
    # A hidden layer draws other initial weights if no twins have drawn before.
    for head, labels in (("linear", (*some, A)), ("mlp", some)):
        expected = fit(strength=0, head=head).predict_proba(X)
        for known in labels:
            classifier = fit(known=known, strength=0, head=head)
            np.testing.assert_allclose(classifier.predict_proba(X), expected, atol=1e-9)


def test_strength_of_either_head():
    def used(head, known=None, **parameters):
        return fit(known=known, head=head, **parameters).diagnostics_["strength"]

    # A hidden layer follows an offset less, so that its strength is larger.
    assert (used("linear"), used("mlp")) == (0.75, 1.0)
    assert (used("linear", A), used("mlp", A)) == (0.85, 1.0)
    for head in ("linear", "mlp"):
        assert used(head, strength=0.5) == used(head, A, strength=0.5) == 0.5


# Labels of any kind -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [["f", "m"], [3, 7], [False, True], [-1.0, 1.0], [("a", 1), ("b", 2)]],
    ids=str,
)
def test_values_of_any_type(values):
    labelled = random_rows(60)
    known = [None] * 600
    for row in labelled:
        known[row] = values[A[row]]
    if isinstance(values[0], tuple):  # two columns
        known = pd.DataFrame([(None, None) if v is None else v for v in known])
    classifier = fit(known=known)
    assert classifier.attribute_values_ == values
    expected = fit(known=only(A, labelled))
    np.testing.assert_array_equal(classifier.predict_proba(X), expected.predict_proba(X))


def test_whatever_says_that_a_label_is_missing():
    labelled = random_rows(60)
    known = only(A, labelled)
    numbers = np.full(600, np.nan)
    numbers[labelled] = A[labelled]
    expected = fit(known=known)
    for given in (
        known.tolist(),
        numbers,
        pd.Series(numbers),
        pd.Series(numbers).astype("Int64"),  # pandas.NA
        pd.Series(known).astype("category"),
        np.ma.masked_invalid(numbers),
        torch.from_numpy(numbers),
        pd.DataFrame({"background": known}),
    ):
        classifier = fit(known=given)
        assert classifier.attribute_values_ == [0, 1]
        np.testing.assert_array_equal(classifier.predict_proba(X), expected.predict_proba(X))
    # NaN beside strings is not a label either.
    words = np.array(["f", "m"], dtype=object)[A]
    words[np.setdiff1d(np.arange(600), labelled)] = np.nan
    assert fit(known=words).attribute_values_ == ["f", "m"]


def test_several_attributes_are_their_combinations():
    second = np.where(np.random.default_rng(0).random(600) < 0.5, "x", "z")
    known = pd.DataFrame({"first": A, "second": second})
    classifier = fit(known=known)
    assert classifier.attribute_values_ == [(0, "x"), (0, "z"), (1, "x"), (1, "z")]
    assert classifier.attribute_proba(X).shape == (600, 4)
    counts = pd.crosstab([A, second], Y).to_numpy()
    np.testing.assert_allclose(classifier.expected_counts_, counts)
    # A sample with one missing column has no label.
    known = known.astype(object)
    known.iloc[::2, 0], known.iloc[1::4, 1] = None, None
    assert fit(known=known).diagnostics_["n_labelled"] == 150


def test_more_values_than_classes():
    X, y, a = spurious(900, 2, 4, agree=0.9)
    for known in (a, only(a, random_rows(120, 900))):
        classifier = fit(X, y, known)
        assert classifier.prior_.shape == (4, 2)
        assert np.isfinite(classifier.predict_proba(X)).all()


@pytest.mark.parametrize(
    "labels", [["no", "yes"], [False, True], [-7, 3], [0.0, 1.0], ["b", "a"], [5, -5]]
)
@pytest.mark.parametrize("known", [None, A], ids=["none", "all"])
def test_classes_of_any_type(labels, known):
    labels = np.array(labels)
    classifier = fit(y=labels[Y], known=known)
    assert classifier.classes_.tolist() == sorted(labels.tolist())
    predicted = classifier.predict(X)
    assert predicted.dtype == labels.dtype
    assert (predicted == labels[Y]).mean() > 0.85
    if known is None:
        assert classifier.attribute_values_ == classifier.classes_.tolist()


# Weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["none", "some", "all"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_samples_of_weight_zero_take_no_part(head, labels):
    weight = (np.arange(600) % 4 > 0).astype(float)
    kept = weight > 0
    known = {"none": None, "some": only(A, random_rows(90)), "all": A}[labels]
    with_zeros = fit(known=known, weight=weight, head=head)
    without = fit(X[kept], Y[kept], None if known is None else known[kept], head=head)
    np.testing.assert_allclose(with_zeros.predict_proba(X), without.predict_proba(X), rtol=1e-9)
    np.testing.assert_array_equal(with_zeros.conflicting_[kept], without.conflicting_)
    assert not with_zeros.conflicting_[~kept].any()
    assert with_zeros.diagnostics_ == without.diagnostics_
    np.testing.assert_allclose(with_zeros.prior_, without.prior_)
    np.testing.assert_allclose(with_zeros.expected_counts_, without.expected_counts_)


def test_labels_of_samples_without_weight_are_no_labels():
    weight = np.ones(600)
    weight[:100] = 0
    with pytest.raises(ValueError, match="sensitive_features is missing for every sample that has"):
        fit(known=only(A, np.arange(100)), weight=weight)
    known = A.astype(object)
    known[:100] = "never seen"
    assert fit(known=known, weight=weight).attribute_values_ == [0, 1]


def test_weights_are_repetitions_where_nothing_is_drawn():
    # With all labels and a linear head. One is added to each count, so that counts in units of
    # a sample lie a little off.
    repeats = 1 + np.arange(600) % 3
    weighted = fit(known=A, weight=repeats)
    repeated = fit(np.repeat(X, repeats, axis=0), np.repeat(Y, repeats), np.repeat(A, repeats))
    np.testing.assert_allclose(weighted.prior_, repeated.prior_, atol=0.01)
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=0.03)
    np.testing.assert_allclose(weighted.expected_counts_, repeated.expected_counts_)
    plain = [fit(strength=0, weight=repeats), fit(np.repeat(X, repeats, 0), np.repeat(Y, repeats),
             strength=0)]  # fmt: skip
    np.testing.assert_allclose(*(c.predict_proba(X) for c in plain), atol=2e-3)


def test_weights_are_repetitions_in_the_mean_where_halves_are_drawn():
    repeats = np.where(A != Y, 3, 1)
    repeated = np.repeat(X, repeats, axis=0), np.repeat(Y, repeats)

    def conflicting_share(*data):
        return np.mean([fit(*data, random_state=seed).prior_[0, 1] for seed in range(4)])

    weighted = conflicting_share(X, Y, None, repeats)
    assert weighted == pytest.approx(conflicting_share(*repeated), abs=0.02)
    assert weighted > 1.5 * conflicting_share(X, Y)


@pytest.mark.parametrize("labels", ["none", "some", "all"])
def test_weights_have_no_unit(labels):
    weight = np.random.default_rng(0).uniform(0.5, 2, 600)
    known = {"none": None, "some": only(A, random_rows(90)), "all": A}[labels]
    expected = fit(known=known, weight=weight)
    for unit in (1e-3, 1e3):
        found = fit(known=known, weight=unit * weight)
        np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=0.01)
        np.testing.assert_allclose(found.expected_counts_, unit * expected.expected_counts_, 0.01)


# What comes out ---------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_outputs_agree_with_each_other(head, n_classes):
    X, y, _ = spurious(300, n_classes)
    classifier = fit(X, y, head=head)
    probabilities, scores = classifier.predict_proba(X), classifier.decision_function(X)
    assert probabilities.dtype == scores.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(classifier.predict(X), probabilities.argmax(axis=1))
    if n_classes == 2:
        assert scores.shape == (300,)
        np.testing.assert_array_equal(classifier.predict(X), scores > 0)
        np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-scores)), rtol=1e-9)
    else:
        np.testing.assert_array_equal(classifier.predict(X), scores.argmax(axis=1))
    # The network alone, on raw features.
    assert isinstance(classifier.module_, nn.Module)
    logits = classifier.to_module()(torch.from_numpy(X)).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(probabilities, logits, atol=1e-5)
    assert hasattr(classifier, "coef_") == (head == "linear")


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_row_is_predicted_the_same_whatever_comes_with_it(head):
    classifier = fitted(head=head)
    order = np.random.default_rng(0).permutation(600)
    for method in ("predict_proba", "attribute_proba", "transform"):
        run = getattr(classifier, method)
        expected = run(X)
        np.testing.assert_allclose(run(X[order]), expected[order], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(run(X[:1]), expected[:1], rtol=1e-5, atol=1e-6)


def test_components_of_many_samples_are_nearly_those_of_all():
    rng = np.random.default_rng(0)
    many = (rng.normal(size=(20_500, 3)) * [3, 2, 1] + 5).astype(np.float32)
    groups = rng.integers(2, size=len(many))
    Z = fit(many, rng.integers(2, size=len(many)), groups, head="linear").transform(many)
    assert np.square(Z).sum(axis=1).mean() == pytest.approx(256, rel=0.02)
    centred = many - many.mean(axis=0)
    for component, feature in zip(Z.T, centred.T, strict=True):
        assert abs(np.corrcoef(component, feature)[0, 1]) > 0.99


def test_transform_gives_the_components():
    classifier = fitted(n_components=5)
    Z = classifier.transform(X)
    assert (Z.shape, Z.dtype) == ((600, 5), np.float32)
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-4)
    covariance = np.cov(Z.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=0.01)
    assert (np.diff(np.diag(covariance)) <= 0).all()
    names = classifier.get_feature_names_out().tolist()
    assert names == [f"logitadjustedclassifier{i}" for i in range(5)]
    frame = copy.deepcopy(classifier).set_output(transform="pandas").transform(X)
    assert frame.columns.tolist() == names


# Reproducible, copied, kept ---------------------------------------------------------------


def assert_same_bits(one, two):
    for method in ("predict_proba", "attribute_proba", "transform"):
        np.testing.assert_array_equal(getattr(one, method)(X), getattr(two, method)(X))
    np.testing.assert_array_equal(one.conflicting_, two.conflicting_)
    np.testing.assert_array_equal(one.suggest_labels(40), two.suggest_labels(40))
    assert one.diagnostics_ == two.diagnostics_


@pytest.mark.parametrize("head", ["auto", "mlp"])
@pytest.mark.parametrize("labels", ["none", "some"])
def test_the_same_seed_gives_the_same_bits(head, labels):
    known = None if labels == "none" else only(A, random_rows(60))
    one, two = (fit(known=known, head=head) for _ in range(2))
    assert_same_bits(one, two)
    other = fit(known=known, head=head, random_state=1)
    assert not np.array_equal(one.predict_proba(X), other.predict_proba(X))


def test_copies_do_the_same():
    for head in ("linear", "mlp"):
        classifier = fit(known=only(A, random_rows(60)), head=head)
        assert_same_bits(classifier, pickle.loads(pickle.dumps(classifier)))
        assert_same_bits(classifier, copy.deepcopy(classifier))
        again = clone(classifier)
        assert not hasattr(again, "classes_")
        assert_same_bits(again.fit(X, Y, sensitive_features=only(A, random_rows(60))), classifier)


def test_a_fit_forgets_the_one_before():
    classifier = fit(known=A, head="mlp").set_params(head="linear").fit(X, Y)
    assert_same_bits(classifier, fitted())
    classifier.set_params(head="mlp").fit(X, Y)
    for name in ("coef_", "intercept_"):
        assert not hasattr(classifier, name)
    with pytest.raises(ValueError, match="y holds one class only"):
        classifier.fit(X, np.zeros(600))
    assert classifier.head_ == "mlp"


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_progress_bar_for_the_network(head, capsys):
    fit(head=head, verbose=1)
    shown = capsys.readouterr().err
    assert ("classifier: 100%" in shown) == (head == "mlp")


def test_nothing_before_the_fit():
    classifier = LogitAdjustedClassifier()
    calls = ["predict", "predict_proba", "decision_function", "transform", "attribute_proba"]
    for method in calls:
        with pytest.raises(NotFittedError):
            getattr(classifier, method)(X)
    for method in ("suggest_labels", "to_module", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(classifier, method)()


def test_it_is_exported():
    assert skfair.LogitAdjustedClassifier is LogitAdjustedClassifier
    assert repr(LogitAdjustedClassifier(64, head="auto")) == (
        "LogitAdjustedClassifier(n_components=64)"
    )


# With the rest of scikit-learn ------------------------------------------------------------


def stripes(images):
    """Features of images that are rows of pixels."""
    return np.asarray(images).reshape(len(images), -1).astype(np.float32)


def test_behind_a_frozen_encoder():
    images = X.reshape(600, 1, 4, 4)
    known = only(A, random_rows(60))
    pipeline = make_pipeline(
        FrozenEncoderFeaturizer(stripes, data_format="channels_first"),
        LogitAdjustedClassifier(head="linear", random_state=0),
    )
    pipeline.fit(images, Y, logitadjustedclassifier__sensitive_features=known)
    np.testing.assert_allclose(
        pipeline.predict_proba(images), fit(known=known).predict_proba(X), rtol=1e-9
    )
    with sklearn.config_context(enable_metadata_routing=True):
        routed = clone(pipeline).fit(images, Y, sensitive_features=known)
    np.testing.assert_array_equal(routed.predict(images), pipeline.predict(images))


def test_a_search_over_the_strength_by_the_worst_group():
    X, y, a = spurious(900, agree=0.9)
    search = GridSearchCV(
        LogitAdjustedClassifier(head="linear", random_state=0),
        {"strength": [0.0, 1.0]},
        scoring=make_fairness_scorer("equalized_odds"),
        cv=3,
    )
    with sklearn.config_context(enable_metadata_routing=True):
        search.fit(X, y, sensitive_features=a)
        assert search.best_params_ == {"strength": 1.0}
        expected = fit(X, y, a, strength=1.0)
        np.testing.assert_array_equal(search.predict_proba(X), expected.predict_proba(X))


def test_weights_are_routed_on_request():
    weight = np.where(A == Y, 1.0, 0.5)
    with sklearn.config_context(enable_metadata_routing=True):
        classifier = LogitAdjustedClassifier(head="linear", random_state=0)
        classifier.set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, classifier)
        pipeline.fit(X, Y, sample_weight=weight, sensitive_features=A)
    expected = fit(StandardScaler().fit_transform(X), Y, A, weight)
    np.testing.assert_array_equal(
        pipeline[-1].predict_proba(pipeline[:-1].transform(X)),
        expected.predict_proba(pipeline[:-1].transform(X)),
    )


def test_cross_validation_by_any_groups():
    scores = cross_val_score(
        LogitAdjustedClassifier(head="linear", random_state=0),
        X,
        Y,
        cv=GroupKFold(3),
        groups=np.arange(600) // 6,
    )
    assert scores.min() > 0.8


# Scale ------------------------------------------------------------------------------------

MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from skfair import LogitAdjustedClassifier

def mebibytes(field):  # Linux only; not ru_maxrss, with which a child starts at its parent's
    status = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", status)[1]) / 1024

n = 162_770
rng = np.random.default_rng(0)
y = rng.integers(2, size=n)
a = np.where(rng.random(n) < 0.95, y, 1 - y)
X = rng.standard_normal((n, 512), dtype=np.float32)
X[:, 0] += 9 * a
X[:, 1] += y
known = {"none": None, "all": a}.get(sys.argv[1], np.where(np.arange(n) < 200, a, np.nan))
before = mebibytes("VmRSS")
LogitAdjustedClassifier(random_state=0).fit(X, y, sensitive_features=known)
print(mebibytes("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["none", "some", "all"])
def test_celeba_s_size_fits_into_memory(labels):
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, labels]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 1024
