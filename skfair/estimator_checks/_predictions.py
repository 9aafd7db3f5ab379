"""Promises of classifiers: labels and probabilities."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier

from skfair.estimator_checks._case import has_parameters, make_case
from skfair.estimator_checks._registry import promise


def _gives_probabilities(estimator: Any) -> bool:
    return is_classifier(estimator) and hasattr(estimator, "predict_proba")


@promise(_gives_probabilities)
def check_probabilities(name: str, estimator: Any) -> None:
    """Probabilities are float64, sum to 1, and agree with predict, decisions and logarithms."""
    case = make_case(estimator)
    fitted = case.fit()
    n_classes = len(fitted.classes_)
    proba = fitted.predict_proba(case.X)
    np.testing.assert_array_equal(fitted.classes_, np.unique(case.y))
    assert proba.shape == (len(case.X), n_classes)
    assert proba.dtype == np.float64, f"{name} gives {proba.dtype} probabilities."
    assert ((proba >= 0) & (proba <= 1)).all()
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-12)
    if hasattr(fitted, "predict_log_proba"):
        log_proba = fitted.predict_log_proba(case.X)
        assert log_proba.dtype == np.float64, f"{name} gives {log_proba.dtype} logarithms."
        np.testing.assert_allclose(
            np.exp(log_proba), proba, atol=1e-12, err_msg=f"{name}.predict_log_proba disagrees."
        )
    scores = proba
    if hasattr(fitted, "decision_function"):
        scores = _logits(name, fitted.decision_function(case.X), proba)
    predicted = fitted.predict(case.X)
    np.testing.assert_array_equal(
        predicted, fitted.classes_[scores.argmax(1)], err_msg=f"{name}.predict disagrees."
    )
    assert fitted.score(case.X, case.y) == np.mean(predicted == case.y)


def _logits(name: str, decision: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Return one logit per class, and check that their softmax gives the probabilities."""
    binary = proba.shape[1] == 2
    assert decision.shape == ((len(proba),) if binary else proba.shape)
    assert decision.dtype == np.float64, f"{name} gives {decision.dtype} decisions."
    logits = np.column_stack([np.zeros(len(decision)), decision]) if binary else decision
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    softmax = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(
        proba, softmax, atol=1e-10, err_msg=f"{name}.decision_function is not the log-odds."
    )
    return logits


@promise(is_classifier)
def check_label_types(name: str, estimator: Any) -> None:
    """Predicted labels have the type of the given labels, and the type changes nothing else."""
    case = make_case(estimator)
    base = case.fit()
    expected = _probabilities(base, case.X)
    codes = np.searchsorted(base.classes_, base.predict(case.X))
    n_classes = len(base.classes_)
    words = np.array(["ant", "bee", "cow"])[:n_classes]
    kinds = {
        "strings": words,
        "objects": words.astype(object),
        "integers that do not start at zero": np.array([-3, 5, 70])[:n_classes],
        "floats": np.array([0.0, 1.0, 4.0])[:n_classes],
        "8-bit integers": np.arange(1, n_classes + 1, dtype=np.uint8),
    }
    if n_classes == 2:
        kinds["booleans"] = np.array([False, True])
    for what, labels in kinds.items():
        y = labels[case.y]
        fitted = case.fit(y=y.tolist() if what == "strings" else y)
        np.testing.assert_array_equal(fitted.classes_, labels, err_msg=what)
        predicted = fitted.predict(case.X)
        assert predicted.dtype == fitted.classes_.dtype, f"{name} changes {what}."
        np.testing.assert_array_equal(predicted, labels[codes], err_msg=what)
        np.testing.assert_array_equal(_probabilities(fitted, case.X), expected, err_msg=what)


@promise(lambda estimator: has_parameters(estimator, "classes"))
def check_class_order(name: str, estimator: Any) -> None:
    """If ``classes`` is set, the sort order of the labels changes no result."""
    case = make_case(estimator)
    base, labels = case.fit(), np.array(["yes", "no"])
    turned = case.with_parameters(classes=labels.tolist()).fit(y=labels[case.y])
    np.testing.assert_array_equal(turned.classes_, ["no", "yes"])
    np.testing.assert_array_equal(
        turned.predict(case.X),
        labels[np.searchsorted(base.classes_, base.predict(case.X))],
        err_msg=f"{name}.predict ignores the order in classes.",
    )
    np.testing.assert_array_equal(
        turned.predict_proba(case.X)[:, ::-1],
        base.predict_proba(case.X),
        err_msg=f"{name}.predict_proba is not in the order of classes_.",
    )
    np.testing.assert_array_equal(
        turned.decision_function(case.X),
        -base.decision_function(case.X),
        err_msg=f"{name}.decision_function is not the score of classes_[1].",
    )


def _probabilities(fitted: Any, X: np.ndarray) -> np.ndarray | None:
    return fitted.predict_proba(X) if hasattr(fitted, "predict_proba") else None
