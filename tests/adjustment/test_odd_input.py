"""Odd data and labels: LogitAdjustedClassifier works, or says what is wrong and what to do."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from spurious import only, spurious

from skfair import LogitAdjustedClassifier
from skfair.adjustment import _logit_adjusted, _offsets
from skfair.utils import FallbackWarning

X, Y, A = spurious(300)


def fit(X=X, y=Y, known=None, weight=None, **parameters):
    classifier = LogitAdjustedClassifier(**{"head": "linear", "random_state": 0, **parameters})
    return classifier.fit(X, y, weight, sensitive_features=known)


def assert_sound(classifier, X):
    """What comes out is finite and normalised, and reports are about these data."""
    for method in ("predict_proba", "attribute_proba"):
        found = getattr(classifier, method)(X)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.isfinite(classifier.transform(X)).all()
    assert np.isin(classifier.predict(X), classifier.classes_).all()
    assert classifier.to_module()(torch.from_numpy(np.float32(X))).isfinite().all()
    np.testing.assert_allclose(classifier.prior_.sum(axis=1), 1)
    assert all(np.isfinite(value) for value in classifier.diagnostics_.values())
    rows = classifier.suggest_labels(10**6)
    assert len(set(rows)) == len(rows) <= len(classifier.conflicting_)


# Labels -----------------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    def principal_components(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr(_logit_adjusted, "principal_components", principal_components)


NUMBERS = np.arange(300)
BAD_LABELS = {
    "one class only": (
        only(A, np.flatnonzero(Y == 1)[:20]),
        r"sensitive_features is known for samples of one class only \(1\).*Label samples of the "
        r"other classes.*suggest_labels\(\)",
    ),
    "none known": (
        [None] * 300,
        r"sensitive_features is missing for every sample.*Pass None.*suggest_labels\(\)",
    ),
    "only nan": (np.full(300, np.nan), "sensitive_features is missing for every sample"),
    "other number": (A[:-1], "sensitive_features has 299 values for 300 samples. Give one"),
    "those asked only": (A[:20], "sensitive_features has 20 values for 300 samples. Give one"),
    "continuous": (X[:, 0], "sensitive_features holds continuous values.*Bin the values"),
    "many numbers": (NUMBERS, "sensitive_features has 300 different numbers.*Bin the values"),
    "a value each": (
        np.array([f"id {i}" for i in NUMBERS]),
        "sensitive_features has 300 different values in 300 labels: too few labels.*Label more "
        "samples, or merge values",
    ),
    "more values than half of the labels": (
        only(NUMBERS % 6, np.arange(11)),
        "sensitive_features has 6 different values in 11 labels.*Label more",
    ),
    "3-D": (np.ones((300, 1, 1)), r"sensitive_features has shape \(300, 1, 1\)"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("case", BAD_LABELS)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_bad_labels(case, head):
    known, message = BAD_LABELS[case]
    with pytest.raises(ValueError, match=f"(?s)^{message}"):
        fit(known=known, head=head)


@pytest.mark.parametrize("labelled", [np.arange(300), np.arange(40)], ids=["all", "some"])
def test_one_value_only_is_ordinary_training_and_says_so(labelled):
    known = only(np.full(300, "m"), labelled)
    with pytest.warns(FallbackWarning, match=rf"All {len(labelled)} labels .* are 'm'.*Ordinary"):
        classifier = fit(known=known)
    np.testing.assert_allclose(
        classifier.predict_proba(X), fit(strength=0).predict_proba(X), atol=1e-9
    )
    assert_sound(classifier, X)
    assert not classifier.conflicting_.any()
    assert classifier.diagnostics_["n_labelled_conflicting"] == 0
    assert classifier.diagnostics_["n_conflicting"] == 0
    assert classifier.attribute_values_ == ["m"]
    assert len(classifier.suggest_labels(300)) == 300 - len(labelled)


def test_one_value_of_many_classes_conflicts_with_none():
    y = np.arange(245) % 49  # of which a 49th, times 49, is less than one
    with pytest.warns(FallbackWarning):
        classifier = fit(X[:245], y, np.zeros(245))
    assert classifier.diagnostics_["n_conflicting"] == 0


def test_labels_that_contradict_each_other_for_equal_rows():
    rows = np.repeat(X[:100], 3, axis=0)
    y = np.repeat(Y[:100], 3)
    contradicting = np.arange(300) % 2
    for known in (contradicting, only(contradicting, np.arange(60))):
        classifier = fit(rows, y, known)
        assert_sound(classifier, rows)
        # The attribute can only be guessed, and the probabilities show this.
        found = classifier.attribute_proba(rows)
        assert np.abs(found - 0.5).mean() < 0.35
        # The attribute is independent of the class, so that little is adjusted.
        np.testing.assert_allclose(classifier.prior_, 0.5, atol=0.15)
    contradicting = np.where(np.arange(300) % 3 == 0, 1 - y, y)  # and classes that do
    assert_sound(fit(rows, contradicting, known), rows)


@pytest.mark.parametrize("labels", ["none", "some", "all"])
def test_a_group_that_is_absent(labels):
    X, y, a = spurious(600)
    kept = (y != 0) | (a != 1)
    X, y, a = X[kept], y[kept], a[kept]
    known = {"none": None, "some": only(a, np.arange(80)), "all": a}[labels]
    classifier = fit(X, y, known)
    assert_sound(classifier, X)
    if labels == "all":
        assert classifier.expected_counts_[1, 0] == 0
        assert 0 < classifier.prior_[1, 0] < 0.01


@pytest.mark.parametrize("labels", ["some", "all"])
def test_a_value_for_each_class_and_nothing_else(labels):
    # The attribute equals the class, and no sample conflicts.
    known = Y if labels == "all" else only(Y, np.arange(40))
    with pytest.warns(FallbackWarning, match="have one value.*Ordinary training was used"):
        classifier = fit(known=known)
    assert_sound(classifier, X)
    assert classifier.diagnostics_["n_labelled_conflicting"] == 0
    assert classifier.diagnostics_["strength"] == 0
    ordinary = fit(known=known, strength=0)  # without a warning
    np.testing.assert_allclose(classifier.predict_proba(X), ordinary.predict_proba(X), atol=1e-9)


def test_a_class_without_labels():
    X, y, a = spurious(600, 3)
    assert_sound(fit(X, y, only(a, np.flatnonzero(y < 2)[:60])), X)


def test_a_value_that_occurs_once():
    known = A.astype(object)
    known[7] = "other"
    assert_sound(fit(known=known), X)
    assert_sound(fit(known=only(known, np.arange(40))), X)


def test_two_labels_are_enough_to_go_on():
    rows = [np.flatnonzero(Y == 0)[0], np.flatnonzero(Y == 1)[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        assert_sound(fit(known=only(np.zeros(300), rows)), X)
    with pytest.raises(ValueError, match="2 different values in 2 labels"):
        fit(known=only(Y, rows))


def test_all_but_one_labelled():
    assert_sound(fit(known=only(A, np.arange(299))), X)


def test_strings_that_stand_for_missing_values_are_values():
    known = np.where(A == 1, "None", "nan")
    assert fit(known=known).attribute_values_ == ["None", "nan"]


# Features ---------------------------------------------------------------------------------

LABELS = ["none", "some", "all"]


def labels_of(kind, a):
    return {"none": None, "some": only(a, np.arange(0, len(a), 2)), "all": a}[kind]


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("head", ["auto", "linear", "mlp"])
@pytest.mark.parametrize(
    "rows",
    [
        X[:, :1],
        np.full((300, 4), 3.7),
        np.column_stack([X[:, 0], np.full(300, 1e6)]),
        X[:, [0, 0, 0]],
        np.repeat(X[:30], 10, axis=0),
        np.where(X > 0, 1.0, 0.0),
        1e-30 * X[:, :3].astype(np.float64),
        1e30 * X[:, :3].astype(np.float64),
    ],
    ids=[
        *("one feature", "constant", "one constant", "equal features", "equal rows", "binary"),
        *("tiny", "huge"),
    ],
)
def test_features_that_say_little(rows, head, labels):
    classifier = fit(rows, Y, labels_of(labels, A), head=head)
    assert_sound(classifier, rows)


@pytest.mark.parametrize("value", [3.7, 0.1, 1e6 + 0.1, 1e-30])
@pytest.mark.parametrize("width", [3, 2050])
def test_features_that_are_constant_say_nothing(value, width):
    # Also not by the rounding of the mean, which would be scaled to a length of 16.
    rows = np.full((300, width), value, dtype=np.float32)
    classifier = fit(rows, Y, A)
    assert not classifier.coef_.any()
    assert not classifier.transform(rows).any()
    np.testing.assert_allclose(classifier.predict_proba(2 * rows), 0.5, atol=0.02)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("n_samples", [8, 12, 20])
def test_fewer_samples_than_components_and_features(n_samples, labels):
    X, y, a = spurious(n_samples, agree=0.7, width=40)
    a[:4], y[:4] = [0, 0, 1, 1], [0, 1, 0, 1]
    known = None if labels == "none" else a.astype(object)
    if labels == "some":
        known[6:] = None
    for head in ("auto", "linear", "mlp"):
        classifier = fit(X, y, known, head=head)
        assert_sound(classifier, X)
        assert classifier.transform(X).shape == (n_samples, n_samples - 1)


@pytest.mark.parametrize("head", ["auto", "linear", "mlp"])
def test_two_samples(head):
    classifier = fit([[0.0, 1.0], [2.0, 1.0]], ["a", "b"], head=head)
    assert_sound(classifier, np.array([[0.0, 1.0], [2.0, 1.0]]))
    assert sorted(classifier.suggest_labels(5)) == [0, 1]


@pytest.mark.parametrize("head", ["auto", "linear", "mlp"])
@pytest.mark.parametrize("labels", LABELS)
def test_classes_of_a_single_sample(head, labels):
    y = np.arange(300) % 2
    y[5], y[6] = 2, 3
    assert_sound(fit(X, y, labels_of(labels, A), head=head), X)


def test_as_many_classes_as_samples():
    classifier = fit(X[:12], np.arange(12))
    assert_sound(classifier, X[:12])
    assert len(classifier.classes_) == 12


def with_value(value):
    changed = X.astype(np.float64)
    changed[3, 1] = value
    return changed


BAD_DATA = {
    "nan": (with_value(np.nan), Y, ValueError, "Input X contains NaN"),
    "inf": (with_value(np.inf), Y, ValueError, "Input X contains infinity"),
    "too large for float32": (with_value(1e60), Y, ValueError, "Input X contains infinity"),
    "empty": (X[:0], Y[:0], ValueError, r"X is empty: its shape is \(0, 16\).*at least one row"),
    "no features": (X[:, :0], Y, ValueError, r"0 feature\(s\)"),
    "one sample": (X[:1], Y[:1], ValueError, "minimum of 2"),
    "1-D": (X[:, 0], Y, ValueError, "Expected 2D array, got 1D.*(\n.*)*Reshape your data"),
    "images": (X.reshape(300, 1, 4, 4), Y, ValueError, "X has shape.*FrozenEncoderFeaturizer"),
    "sparse": (scipy.sparse.csr_array(X), Y, TypeError, "Sparse data was passed for X"),
    "words": (np.full((300, 2), "a"), Y, ValueError, "could not convert string to float"),
    "no y": (X, None, ValueError, "requires y to be passed"),
    "one class": (X, np.full(300, "a"), ValueError, "y holds one class only .'a'.;"),
    "other length": (X, Y[:-1], ValueError, "y has 299 labels for the 300 samples of X"),
    "two outputs": (X, np.column_stack([Y, Y]), ValueError, "y should be a 1d array"),
    "continuous y": (X, X[:, 0], ValueError, "Unknown label type: continuous"),
    "missing y": (X, np.where(Y, np.nan, 1), ValueError, "Input y contains NaN"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("case", BAD_DATA)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_bad_data(case):
    X, y, error, message = BAD_DATA[case]
    classifier = LogitAdjustedClassifier()
    with pytest.raises(error, match=message):
        classifier.fit(X, y)
    with pytest.raises(NotFittedError):
        classifier.predict(X)


BAD_WEIGHTS = {
    "negative": (np.where(NUMBERS == 5, -1.0, 1.0), "Negative values.*sample_weight"),
    "other length": (np.ones(299), r"sample_weight.shape == \(299,\), expected \(300,\)"),
    "nan": (np.full(300, np.nan), "sample_weight contains NaN"),
    "zero on a class": (Y, "sample_weight is zero on every sample of class 0. Leave that class"),
    "groups": (np.where(A == 1, "f", "m"), "sample_weight.*by keyword, as sensitive_features"),
    "zero": (np.zeros(300), "Sample weights must contain at least one non-zero"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_weights(case):
    weight, message = BAD_WEIGHTS[case]
    with pytest.raises(ValueError, match=message):
        fit(weight=weight)


@pytest.mark.parametrize("labels", LABELS)
def test_weights_that_leave_one_sample_of_a_class(labels):
    one = np.flatnonzero((Y == 1) & (NUMBERS % 2 == 0))[0]  # which has a label
    weight = np.where((Y == 0) | (one == NUMBERS), 1.0, 0.0)
    assert_sound(fit(known=labels_of(labels, A), weight=weight), X)


@pytest.mark.parametrize("labels", LABELS)
def test_weights_of_very_different_size(labels):
    weight = np.where(NUMBERS % 2, 1e-8, 1e8)
    assert_sound(fit(known=labels_of(labels, A), weight=weight), X)


METHODS = ["predict", "predict_proba", "decision_function", "transform", "attribute_proba"]


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("method", METHODS)
def test_bad_features_after_the_fit(method, head):
    run = getattr(fit(head=head), method)
    with pytest.raises(ValueError, match=r"X has 15 features, but .* expecting 16 features"):
        run(X[:, :15])
    for value, message in ((np.nan, "contains NaN"), (np.inf, "contains infinity")):
        with pytest.raises(ValueError, match=f"Input X {message}"):
            run(with_value(value))
    with pytest.raises(ValueError, match=r"X has shape \(300, 4, 4\).*Encode images first"):
        run(X.reshape(300, 4, 4))
    with pytest.raises(ValueError, match=r"X is empty"):
        run(X[:0])


# Parameters -------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    "name, value",
    [
        ("n_components", 0), ("n_components", -1), ("n_components", 2.5), ("n_components", "all"),
        ("n_components", None), ("n_components", np.nan), ("n_components", np.inf),
        ("strength", -0.1), ("strength", np.nan), ("strength", np.inf), ("strength", "high"),
        ("strength", None), ("strength", [1]),
        ("ridge", 0), ("ridge", -1), ("ridge", np.nan), ("ridge", np.inf), ("ridge", "auto"),
        ("ridge", None),
        ("head", "deep"), ("head", None), ("head", 1), ("device", 3), ("random_state", "a"),
        ("verbose", "a"),
    ],
)  # fmt: skip
def test_bad_parameters(name, value):
    message = (
        rf"The '{name}' parameter of LogitAdjustedClassifier must .* Got {re.escape(repr(value))}"
    )
    with pytest.raises(ValueError, match=message):
        fit(**{name: value})


@pytest.mark.usefixtures("no_training")
def test_an_unknown_device():
    with pytest.raises(ValueError, match=r"device='gpu' is not a device that torch knows. Use"):
        fit(device="gpu")


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize(
    "parameters",
    [{"ridge": 1e-12}, {"ridge": 1e12}, {"strength": 1e6}, {"n_components": 10**30}],
    ids=str,
)
def test_parameters_that_are_extreme(parameters, labels):
    assert_sound(fit(known=labels_of(labels, A), **parameters), X)


# Fits that do not come to their end -------------------------------------------------------


@pytest.mark.parametrize(
    "module, stage",
    [
        (_logit_adjusted, "principal_components"),
        (_offsets, "train_twins"),
        (_logit_adjusted, "fit_hidden_layer"),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_fit_that_is_broken_off_is_no_fit(module, stage, error, monkeypatch):
    classifier = LogitAdjustedClassifier(head="mlp", random_state=0)
    before = fit(head="mlp")
    kept, expected = vars(before).copy(), before.predict_proba(X)

    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr(module, stage, stop)
    with pytest.raises(error):
        classifier.fit(X, Y)
    assert vars(classifier) == vars(clone(classifier))
    with pytest.raises(NotFittedError):
        classifier.predict(X)
    # An earlier fit stays as it was.
    with pytest.raises(error):
        before.fit(X[:, :5], np.array(["a", "b", "c"])[np.arange(300) % 3])
    assert vars(before).keys() == kept.keys()
    assert all(vars(before)[name] is value for name, value in kept.items())
    np.testing.assert_array_equal(before.predict_proba(X), expected)


def test_data_are_left_as_they_are():
    known = pd.DataFrame({"a": only(A, np.arange(50))})
    data = [X.copy(), Y.copy(), np.ones(300), known.copy()]
    fit(data[0], data[1], data[3], data[2])
    for one, other in zip(data, [X, Y, np.ones(300), known], strict=True):
        np.testing.assert_array_equal(one, other)
