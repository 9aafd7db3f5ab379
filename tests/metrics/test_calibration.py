"""Expected calibration error: by hand, against a plain loop, and what it must not depend on."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.metrics import make_scorer

from skfair.metrics import expected_calibration_error
from skfair.metrics._calibration import bin_confidence


def loop(y_true, y_proba, n_bins, weight):
    """Compute the error one bin and one sample at a time, as it is defined."""
    error, total = 0.0, sum(weight)
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        right = sure = mass = 0.0
        for label, row, w in zip(y_true, y_proba, weight, strict=True):
            confidence = max(row)
            if low < confidence <= high or (b == 0 and confidence == 0):
                right += w * (list(row).index(confidence) == label)
                sure += w * confidence
                mass += w
        if mass:
            error += mass / total * abs(right / mass - sure / mass)
    return error


@st.composite
def problems(draw):
    """Labels, probabilities (many on the edges of bins) and weights."""
    n, n_classes = draw(st.integers(1, 50)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        proba = rng.dirichlet(np.full(n_classes, 0.3), n)
    else:
        proba = rng.multinomial(10, np.full(n_classes, 1 / n_classes), n) / 10
    weight = rng.integers(0, 4, n)
    weight[rng.integers(n)] = 1
    return rng.integers(n_classes, size=n), proba, weight


@settings(deadline=None, max_examples=100)
@given(problems(), st.sampled_from([1, 2, 5, 10, 15, 100]))
def test_equal_to_the_loop(problem, n_bins):
    y, proba, weight = problem
    labels = np.arange(proba.shape[1])
    error = expected_calibration_error(y, proba, n_bins=n_bins, labels=labels, sample_weight=weight)
    assert error == pytest.approx(loop(y, proba, n_bins, weight), abs=1e-12)
    assert 0 <= error <= 1
    unweighted = expected_calibration_error(y, proba, n_bins=n_bins, labels=labels)
    assert unweighted == pytest.approx(loop(y, proba, n_bins, np.ones(len(y))), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(problems(), st.integers(0, 2**32 - 1))
def test_order_repetition_and_names(problem, seed):
    y, proba, weight = problem
    labels = np.arange(proba.shape[1])
    error = expected_calibration_error(y, proba, labels=labels, sample_weight=weight)
    order = np.random.default_rng(seed).permutation(len(y))
    assert error == pytest.approx(
        expected_calibration_error(
            y[order], proba[order], labels=labels, sample_weight=weight[order]
        ),
        abs=1e-12,
    )
    repeated = np.repeat(np.arange(len(y)), weight)
    assert error == pytest.approx(
        expected_calibration_error(y[repeated], proba[repeated], labels=labels), abs=1e-12
    )
    names = np.array(["a", "b", "c", "d", "e"])[: proba.shape[1]]
    assert error == expected_calibration_error(
        pd.Series(names[y]), pd.DataFrame(proba), labels=names, sample_weight=weight
    )


def test_by_hand():
    # Bins of 0.2: three of four right at 0.7, 0.65, 0.75, 0.7 (mean 0.7) and one of two at 0.9.
    p = np.array([0.7, 0.65, 0.75, 0.7, 0.9, 0.9])
    y = np.array([1, 1, 1, 0, 1, 0])
    expected = 4 / 6 * abs(0.75 - 0.7) + 2 / 6 * abs(0.5 - 0.9)
    assert expected_calibration_error(y, p, n_bins=5) == pytest.approx(expected)
    assert expected_calibration_error(y, np.column_stack([1 - p, p]), n_bins=5) == pytest.approx(
        expected
    )
    # The other class, seen from the other side.
    assert expected_calibration_error(1 - y, 1 - p, n_bins=5) == pytest.approx(expected)
    # In one bin gaps of either sign cancel.
    assert expected_calibration_error(y, p, n_bins=1) == pytest.approx(abs(4 / 6 - p.mean()))


def test_bins_are_closed_on_the_right():
    for n_bins in (3, 7, 10, 15, 100):
        edges = [i / n_bins for i in range(n_bins + 1) if i / n_bins >= 0.5]
        for edge in edges:
            share = bin_confidence(
                [0], [[edge, 1 - edge]], n_bins=n_bins, labels=[0, 1], sample_weight=None
            ).share
            assert np.flatnonzero(share).tolist() == [round(edge * n_bins) - 1]
            above = np.nextafter(edge, 2)
            if above <= 1:
                share = bin_confidence(
                    [0], [[above, 1 - above]], n_bins=n_bins, labels=[0, 1], sample_weight=None
                ).share
                assert np.flatnonzero(share).tolist() == [round(edge * n_bins)]


def test_bins():
    bins = bin_confidence(
        ["b", "b", "a"], [0.9, 1.0, 0.35], n_bins=4, labels=None, sample_weight=[1, 1, 2]
    )
    np.testing.assert_allclose(bins.accuracy, [np.nan, np.nan, 1, 1])
    np.testing.assert_allclose(bins.confidence, [np.nan, np.nan, 0.65, 0.95])
    np.testing.assert_allclose(bins.share, [0, 0, 0.5, 0.5])


def test_ties_go_to_the_first_class():
    assert expected_calibration_error([0, 0], [0.5, 0.5], labels=[0, 1]) == 0.5
    assert expected_calibration_error([1, 1], [0.5, 0.5], labels=[0, 1]) == 0.5
    assert expected_calibration_error([0, 1], [0.5, 0.5]) == 0
    assert expected_calibration_error(["c"], [[0.2, 0.4, 0.4]], labels=list("abc")) == 0.4


@pytest.mark.parametrize("n_classes", [2, 4])
def test_simulated(n_classes):
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(100_000, n_classes))
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (proba.cumsum(axis=1) < rng.random((len(proba), 1))).sum(axis=1)
    # At most 15 bins whose accuracies have a standard error of sqrt(n / 4) / n at the most.
    assert expected_calibration_error(y, proba) < 0.5 * np.sqrt(15 / len(y))
    sharper = proba**3 / (proba**3).sum(axis=1, keepdims=True)
    gap = sharper.max(axis=1).mean() - (proba.argmax(axis=1) == y).mean()
    # Too sure everywhere, so that nothing cancels between bins.
    assert expected_calibration_error(y, sharper) == pytest.approx(gap, abs=0.003)
    assert gap > 0.05


def test_perfect_and_hopeless():
    assert expected_calibration_error(["a", "b"], np.eye(2)) == 0
    assert expected_calibration_error(["b", "a"], np.eye(2)) == 1


def test_single_precision_as_it_comes():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(7), 1000).astype(np.float32)
    proba /= proba.sum(axis=1, keepdims=True)
    y = rng.integers(7, size=1000)
    error = expected_calibration_error(y, proba)
    assert error == expected_calibration_error(y, proba.astype(np.float64))
    assert isinstance(error, float)
    assert expected_calibration_error(y, proba.astype(np.float16)) == pytest.approx(error, abs=0.01)
    np.testing.assert_array_equal(proba.dtype, np.float32)


def test_as_a_scorer():
    scorer = make_scorer(
        expected_calibration_error, greater_is_better=False, response_method="predict_proba"
    )
    for classes in ("ny", "nyz"):
        guess = DummyClassifier(strategy="uniform").fit(np.zeros((3, 1)), np.resize([*classes], 3))
        y = [*classes, "n", "n"]
        expected = y.count("n") / len(y) - 1 / len(classes)
        assert scorer(guess, np.zeros((len(y), 1)), y) == pytest.approx(-expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 1], [0.5, 1.5]), ValueError, r"not from 0 to 1.*1 of 2 samples \(rows 1\).*softmax"),
        (([0, 1], [0.5, -0.1]), ValueError, "not from 0 to 1"),
        (([0, 1], [0.5, np.nan]), ValueError, "or NaN, for 1 of 2"),
        (([0, 1], [[3.0, -1.0], [0.5, 0.5]]), ValueError, r"not from 0 to 1.*rows 0"),
        (([0, 1], [[0.5, 0.6], [0.5, 0.5]]), ValueError, r"not sum to one for 1 of 2.*rows 0"),
        (([0, 1], [[0.5], [0.5]]), ValueError, r"not sum to one.*softmax.*one class alone"),
        (([0, 1], [0.5]), ValueError, r"shape \(1,\), expected \(2, n_classes\)"),
        (([0, 1], [[[0.5, 0.5]]] * 2), ValueError, r"shape \(2, 1, 2\).*Flatten"),
        (([0, 1], 0.5), ValueError, r"y_proba has shape \(\)"),
        (([0, 1], ["a", "b"]), TypeError, "y_proba has dtype.*predict_proba"),
        (([0, 1], [[0.2, 0.3, 0.5]] * 2), ValueError, r"2 classes \(0, 1\).*has 3 columns"),
        (([1, 1], [0.5, 0.5]), ValueError, r"1 class \(1\).*2 columns.*classifier\.classes_"),
        (([0, 1, 2], [0.5, 0.5, 0.5]), ValueError, "3 classes"),
        (([0, None], [0.5, 0.5]), ValueError, "y_true is missing"),
        (([0.5, 0.7], [0.5, 0.5]), ValueError, "y_true holds continuous values"),
        ((np.array([[0, 1]]), [0.5, 0.5]), ValueError, "y_true has shape"),
        (([], []), ValueError, "y_true is empty"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        expected_calibration_error(*arguments)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"labels": ["b", "a"]}, "labels must hold each class once, sorted.*'a', 'b'"),
        ({"labels": ["a", "a", "b"]}, "labels must hold each class once"),
        ({"labels": ["a", "b", "c"]}, r"labels has 3 classes \('a', 'b', 'c'\).*has 2 columns"),
        ({"labels": ["a", "c"]}, "y_true has labels that do not occur in labels: 'b'"),
        ({"labels": []}, "labels is empty"),
        ({"n_bins": 0}, "n_bins=0"),
        ({"n_bins": 1.5}, r"n_bins=1\.5"),
        ({"sample_weight": [1]}, "sample_weight has shape"),
        ({"sample_weight": [1, -1]}, "sample_weight is negative"),
        ({"sample_weight": [0, 0]}, "sample_weight is zero"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(["a", "b"], [0.5, 0.5], **parameters)
