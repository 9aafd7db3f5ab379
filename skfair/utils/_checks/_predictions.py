"""Promises of classifiers: labels and probabilities."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier

from skfair.utils._checks._case import make_case
from skfair.utils._checks._registry import promise


@promise(is_classifier)
def check_probabilities(name: str, estimator: Any) -> None:
    """Probabilities are float64, sum to one, and agree with predict and decision_function."""
    case = make_case(estimator)
    fitted = case.fit()
    n_classes = len(fitted.classes_)
    proba, decision = fitted.predict_proba(case.X), fitted.decision_function(case.X)
    np.testing.assert_array_equal(fitted.classes_, np.unique(case.y))
    assert proba.shape == (len(case.X), n_classes)
    assert decision.shape == ((len(case.X),) if n_classes == 2 else proba.shape)
    assert proba.dtype == decision.dtype == np.float64, (
        f"{name} gives {proba.dtype} probabilities and {decision.dtype} decisions."
    )
    assert ((proba >= 0) & (proba <= 1)).all()
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-12)
    logits = np.column_stack([np.zeros(len(decision)), decision]) if n_classes == 2 else decision
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    softmax = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(proba, softmax, atol=1e-10, err_msg="decision_function disagrees.")
    predicted = fitted.predict(case.X)
    np.testing.assert_array_equal(predicted, fitted.classes_[logits.argmax(1)])
    assert fitted.score(case.X, case.y) == np.mean(predicted == case.y)


@promise(is_classifier)
def check_label_types(name: str, estimator: Any) -> None:
    """Labels of any type come back as they went in, and change nothing else."""
    case = make_case(estimator)
    base = case.fit()
    expected = base.predict_proba(case.X)
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
        np.testing.assert_array_equal(fitted.predict_proba(case.X), expected, err_msg=what)
