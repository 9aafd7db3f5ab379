"""One call that raises an error if predictions break a rule, for tests."""

from typing import Any, Literal

from skfair.metrics._check import FairnessCheck
from skfair.metrics._counts import count_predictions
from skfair.metrics._report import FairnessReport


def assert_fair(
    y_true: Any,
    predictions: Any,
    rules: Any,
    *,
    sensitive_features: Any,
    control_features: Any = None,
    pos_label: Any = None,
    missing: Literal["error", "group"] = "error",
    confidence: float = 0.95,
    model: str | None = None,
    min_count: int = 0,
    allow_cannot_tell: bool = False,
) -> FairnessCheck:
    """Raise an error unless predictions keep some rules about groups.

    A call in a test or in a script stops a release. The error says which groups break the rule, by
    how much, and how sure that is.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    predictions : array-like of shape (n_samples,) or dict of str to array-like
        Predicted labels of one model, or of several models by name.
    rules : str, FairnessRule, or list of these
        As in :meth:`FairnessReport.check`.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group labels: array, Series, DataFrame or dict of columns (intersections).
    control_features : array-like of shape (n_samples,) or (n_samples, n_columns), default=None
        Labels, such as a region. Groups are compared within each level of these labels.
    pos_label : label, default=None
        The positive class of rates. None means 1 if labels are 0 and 1, -1 and 1, or False and
        True.
    missing : {"error", "group"}, default="error"
        How missing labels of groups and of control levels are treated: as an error, or as a group
        of their own.
    confidence : float, default=0.95
        As in :meth:`FairnessReport.check`.
    model : str, default=None
        Name of the checked model; None means the last.
    min_count : int, default=0
        As in :meth:`FairnessReport.check`.
    allow_cannot_tell : bool, default=False
        True raises no error if there are too few samples to tell.

    Returns
    -------
    FairnessCheck
        The check that passed.

    Raises
    ------
    FairnessCheckError
        A rule fails, or the samples cannot tell. It is an ``AssertionError``.
    TypeError, ValueError
        See :func:`fairness_report` and :meth:`FairnessReport.check`.

    Examples
    --------
    >>> y = [0, 1] * 200
    >>> sex = ["f", "f", "m", "m"] * 100
    >>> assert_fair(y, y, "min(accuracy) >= 0.9", sensitive_features=sex).status
    'passes'
    """
    counts = count_predictions(
        y_true,
        predictions,
        sensitive_features=sensitive_features,
        control_features=control_features,
        sample_weight=None,
        missing=missing,
        name="predictions",
    )
    report = FairnessReport.from_counts(counts, pos_label=pos_label, n_boot=0)
    check = report.check(rules, confidence=confidence, model=model, min_count=min_count)
    check.raise_if_failed(allow_cannot_tell=allow_cannot_tell)
    return check
