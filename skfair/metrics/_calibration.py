"""Calibration: is a model with a confidence of 80 % correct for 80 % of the samples?"""

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from skfair.metrics._samples import check_weight, encode_complete
from skfair.utils._groups import encode_groups
from skfair.utils._labels import describe_rows, encode_labels
from skfair.utils._rows import check_rows
from skfair.utils._shown import shown_all

# Probabilities rounded to three digits are accepted; logits and scores are off by far more.
_SUM_TOLERANCE = 1e-3
_MOST_BINS = 2**20


class ConfidenceBins(NamedTuple):
    """Accuracy, mean confidence (both NaN for an empty bin) and share of samples, by bin.

    `n_samples` is the number of samples in each bin; None if samples have weights.
    """

    accuracy: np.ndarray
    confidence: np.ndarray
    share: np.ndarray
    n_samples: np.ndarray | None = None

    def error(self) -> float:
        """Average the gaps between accuracy and confidence, weighted by the shares of the bins.

        Returns
        -------
        float
        """
        return float(np.nansum(self.share * np.abs(self.accuracy - self.confidence)))


def expected_calibration_error(
    y_true: Any,
    y_proba: Any,
    *,
    n_bins: int = 15,
    labels: Any = None,
    sample_weight: Any = None,
) -> float:
    r"""Mean difference between the confidence of a model and its accuracy.

    The prediction for a sample is its most probable class, and the confidence is the probability of
    this class. Samples are put into bins of equal width by confidence. The error is

    .. math:: \mathrm{ECE} = \sum_b w_b\, |\mathrm{acc}_b - \mathrm{conf}_b|

    where a bin has an accuracy, a mean confidence and, as weight, its share of the samples. The
    best value is 0. The probabilities of the other classes have no effect.

    With few samples, the error of a perfectly calibrated model is above 0: the accuracy of a bin
    with few samples differs from the confidence by chance, and the absolute gaps do not cancel.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    y_proba : array-like of shape (n_samples, n_classes) or (n_samples,)
        Probabilities, as from ``predict_proba``: a column for each class, in the order of the
        sorted labels; or, for two classes, the probability of the second class. If classes are
        equally probable, the first of them is the prediction.
    n_bins : int, default=15
        Number of bins from 0 to 1, at most 2**20. Bins are closed on the right: with ten bins, 0.3
        is in the third bin, from 0.2 to 0.3. The first bin also contains 0. The confidence is at
        least one divided by the number of classes, so the first bins remain empty.
    labels : array-like of shape (n_classes,), default=None
        The classes of the columns, sorted, as in ``classes_``. Required if a class does not
        occur in `y_true`.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, not negative; None counts each sample once.

    Returns
    -------
    float
        The error, between 0 and 1.

    Raises
    ------
    TypeError
        `y_proba` does not hold numbers.
    ValueError
        `y_proba` does not hold probabilities, the arguments have different lengths, the columns do
        not match the classes, or a label is missing.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
    equation 3.

    Examples
    --------
    Two samples have a confidence of 90 %, two have 60 %. In both cases, one of two predictions is
    correct, an accuracy of 50 %:

    >>> y_proba = [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]]
    >>> round(expected_calibration_error(["a", "a", "a", "a"], y_proba, labels=["a", "b"]), 3)
    0.25

    This is the mean of the gaps 0.4 and 0.1. The probability of the second class gives the same:

    >>> p = [0.1, 0.9, 0.4, 0.6]
    >>> round(expected_calibration_error(["a", "a", "a", "a"], p, labels=["a", "b"]), 3)
    0.25
    """
    return bin_confidence(
        y_true, y_proba, n_bins=n_bins, labels=labels, sample_weight=sample_weight
    ).error()


def bin_confidence(
    y_true: Any, y_proba: Any, *, n_bins: int, labels: Any, sample_weight: Any
) -> ConfidenceBins:
    """Bin samples by confidence; parameters as of :func:`expected_calibration_error`.

    Returns
    -------
    ConfidenceBins
    """
    return bin_by_group(y_true, y_proba, n_bins=n_bins, labels=labels, sample_weight=sample_weight)[
        None
    ]


def bin_by_group(
    y_true: Any,
    y_proba: Any,
    *,
    n_bins: int,
    labels: Any,
    sample_weight: Any,
    sensitive_features: Any = None,
) -> dict[Any, ConfidenceBins]:
    """Bin the samples of each group; parameters as of :func:`expected_calibration_error`.

    Returns
    -------
    dict of group to ConfidenceBins
        Without `sensitive_features`, one group whose label is None. Groups without weight are left
        out.
    """
    if not isinstance(n_bins, Integral) or not 1 <= n_bins <= _MOST_BINS:
        raise ValueError(
            f"n_bins={n_bins!r} is not a number of bins. Give an integer from 1 to {_MOST_BINS}."
        )
    check_rows(
        y_true=y_true,
        y_proba=y_proba,
        sensitive_features=sensitive_features,
        sample_weight=sample_weight,
    )
    y, found = encode_complete(
        y_true, name="y_true", hint="Calibration is defined for classification; give class labels."
    )
    weight = check_weight(sample_weight, len(y))
    y_proba = _check_proba(y_proba, len(y))
    y = _positions(found, labels, y_proba.shape[1])[y]
    prediction = y_proba.argmax(axis=1)
    confidence = y_proba[np.arange(len(y)), prediction].astype(np.float64, copy=False)
    # Edges i / n as a user would write them; multiples of 1 / n may differ in the last bit.
    bins = np.searchsorted(np.arange(1, n_bins) / n_bins, confidence, side="left")

    names: tuple = (None,)
    if sensitive_features is not None:
        groups = encode_groups(sensitive_features, n_samples=len(y))
        bins, names = bins + n_bins * groups.codes, groups.labels

    def total(values):
        if weight is not None:
            values = weight if values is None else weight * values
        sums = np.bincount(bins, weights=values, minlength=len(names) * n_bins)
        return sums.astype(np.float64).reshape(len(names), n_bins)

    mass = total(None)
    mean = np.full((2, *mass.shape), np.nan)
    for array, values in zip(mean, (prediction == y, confidence), strict=True):
        np.divide(total(values), mass, out=array, where=mass > 0)
    return {
        name: ConfidenceBins(*rows, of / of.sum(), None if weight is not None else of)
        for name, rows, of in zip(names, mean.swapaxes(0, 1), mass, strict=True)
        if of.any()
    }


def _check_proba(y_proba: Any, n_samples: int) -> np.ndarray:
    """Bring probabilities to one column a class, in their floating type."""
    y_proba = np.asarray(y_proba)
    if y_proba.dtype.kind not in "fiub":
        raise TypeError(
            f"y_proba has dtype {y_proba.dtype}, expected probabilities. Give what predict_proba "
            "returns, not labels."
        )
    if y_proba.ndim not in (1, 2) or y_proba.shape[0] != n_samples:
        raise ValueError(
            f"y_proba has shape {y_proba.shape}, expected ({n_samples}, n_classes) or, for the "
            f"second of two classes, ({n_samples},), since y_true has {n_samples} values. "
            "Flatten all other axes in both."
        )
    if y_proba.dtype.kind != "f":
        y_proba = y_proba.astype(np.float64)
    if y_proba.size and not (y_proba.min() >= 0 and y_proba.max() <= 1):  # False for NaN, too
        bad = ~((y_proba >= 0) & (y_proba <= 1)).reshape(n_samples, -1).all(axis=1)
        raise ValueError(
            f"y_proba is not from 0 to 1, or NaN, for {describe_rows(bad)}. Give probabilities: "
            "apply softmax or sigmoid to logits."
        )
    if y_proba.ndim == 1:
        return np.column_stack([1 - y_proba, y_proba])
    off = np.abs(y_proba.sum(axis=1) - 1) > _SUM_TOLERANCE
    if off.any():
        raise ValueError(
            f"The rows of y_proba do not sum to one for {describe_rows(off)}. Give a "
            "probability for each class: apply softmax to logits; for one class alone, give its "
            "column with shape (n_samples,)."
        )
    return y_proba


def _positions(found: list, labels: Any, n_columns: int) -> np.ndarray:
    """Find the column of each label that occurs in `y_true`."""
    if labels is None:
        if len(found) != n_columns:
            raise ValueError(
                f"y_true has {_describe(found)}, and y_proba has {n_columns} columns. Name the "
                "classes of the columns, sorted, for instance labels=classifier.classes_."
            )
        return np.arange(n_columns)
    codes, classes = encode_labels(labels, name="labels")
    if not np.array_equal(codes, np.arange(len(codes))):
        raise ValueError(
            "labels must hold each class once, sorted, in the order of the columns of y_proba; "
            f"expected {shown_all(classes)}. Sort labels, and put the columns into the same order, "
            "as predict_proba does."
        )
    if len(classes) != n_columns:
        raise ValueError(
            f"labels has {_describe(classes)}, and y_proba has {n_columns} columns. Give one "
            "column for each class."
        )
    position = {label: i for i, label in enumerate(classes)}
    unknown = [label for label in found if label not in position]
    if unknown:
        raise ValueError(
            f"y_true has labels that do not occur in labels: {shown_all(unknown)}. Drop these "
            "samples, or name all classes that y_proba has columns for."
        )
    return np.array([position[label] for label in found])


def _describe(classes: list) -> str:
    return f"{len(classes)} class{'es' if len(classes) != 1 else ''} ({shown_all(classes)})"
