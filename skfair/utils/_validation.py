"""What users pass as X, y and sample_weight, as arrays of NumPy; and in words why not."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, _num_samples, validate_data

from skfair.utils._arrays import as_numpy
from skfair.utils._labels import describe_rows
from skfair.utils._shown import plain

_LINE, _LINES = 400, 16  # of the message of another package
_LEAST_UNIT = 1e-6  # of weights, which are taken as they are from here to its inverse
_LEAST_SHARE = 1e-20  # of the largest weight, from which sums in float32 still make sense
_WANTED = {
    "X": "finite numbers, as an array or data frame with one row a sample and columns of "
    "different names",
    "y": "one class label a sample, all of them text or all of them numbers",
    "sample_weight": "one finite number a sample, zero or more, and not zero for all",
}


def validate_rows(estimator: BaseEstimator, X: Any, *, reset: bool, **check: Any) -> np.ndarray:
    """Do as scikit-learn's ``validate_data`` for X alone.

    Parameters
    ----------
    estimator : object
        Gets ``n_features_in_`` and ``feature_names_in_``, or has them.
    X : array-like
        The rows.
    reset : bool
        True in ``fit``.
    **check
        Arguments of ``sklearn.utils.check_array``.

    Returns
    -------
    ndarray
        Of numbers.

    Raises
    ------
    ValueError, TypeError
        With a message that names X.
    """
    X = _unmasked(X, "X")
    with in_words("X"):
        _num_samples(X)
        # What becomes infinite in another type is reported as that.
        with np.errstate(over="ignore", invalid="ignore"):
            X = validate_data(estimator, X, reset=reset, **check)
    if X.dtype.kind not in "biuf":
        raise TypeError(
            f"X holds values of type {X.dtype}, which are no numbers. Encode them first, for "
            "instance with OneHotEncoder in a ColumnTransformer."
        )
    return X


def validate_labels(estimator: BaseEstimator, X: Any, y: Any) -> np.ndarray:
    """Check that y holds one class label for each row of X.

    Parameters
    ----------
    estimator : object
        A classifier.
    X : array-like
        Only counted.
    y : array-like
        The labels.

    Returns
    -------
    ndarray of shape (n_samples,)

    Raises
    ------
    ValueError, TypeError
        With a message that names y.
    """
    y = _unmasked(y, "y")
    with in_words("y"):
        if y is not None:
            n_labels = _num_samples(y)
            with in_words("X"):
                n_samples = _num_samples(X)
            if n_labels != n_samples:
                raise ValueError(
                    f"y has {n_labels} labels for the {n_samples} samples of X. Give one label a "
                    "sample, in the order of the samples."
                )
        y = validate_data(estimator, X="no_validation", y=y)
        if y.dtype == object and (others := {type(label) for label in y} - {str}):
            raise ValueError(
                "Unknown label type: y is an array of objects, among them "
                f"{min(kind.__name__ for kind in others)}. Make all labels of one type, for "
                "instance strings, and drop samples without a label."
            )
        with np.errstate(invalid="ignore"):  # of numbers that are no integers, which it finds out
            check_classification_targets(y)
    return y


def validate_weight(sample_weight: Any, X: np.ndarray) -> np.ndarray:
    """Check the weights of samples; ones for None.

    Parameters
    ----------
    sample_weight : array-like, float or None
        The weights.
    X : ndarray
        The rows.

    Returns
    -------
    ndarray of shape (n_samples,), float32
        In units of the largest where they are in one that float32 does not reach.

    Raises
    ------
    ValueError, TypeError
        With a message that names sample_weight.
    """
    with in_words("sample_weight"):
        if sample_weight is not None:
            sample_weight = as_weight(sample_weight)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    least = weight[weight > 0].min()
    if least < weight.max() * _LEAST_SHARE:
        raise ValueError(
            f"sample_weight reaches from {least:g} to {weight.max():g}, and samples so far apart "
            "cannot be told from samples without weight. Give zero to those that are to take no "
            "part, or weights that are nearer."
        )
    if not _LEAST_UNIT <= weight.max() <= 1 / _LEAST_UNIT:
        weight = weight / weight.max()
    return weight.astype(np.float32)


def as_weight(sample_weight: Any) -> np.ndarray:
    """Make an array of weights, whatever its shape.

    Parameters
    ----------
    sample_weight : array-like or float

    Returns
    -------
    ndarray, float64

    Raises
    ------
    ValueError, TypeError
        They are no numbers, or hidden by a mask.
    """
    sample_weight = _unmasked(sample_weight, "sample_weight")
    with in_words("sample_weight"):
        if np.asarray(sample_weight).dtype.kind in "mMc":
            raise TypeError("sample_weight holds dates, times or complex numbers. Give real ones.")
        with np.errstate(over="ignore"):  # becomes infinity, which is reported as such
            return np.asarray(sample_weight, dtype=np.float64)


def check_logits(logits: np.ndarray) -> None:
    """Refuse rows for which a network computes NaN or infinity.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, ...)
        What it put out.

    Raises
    ------
    ValueError
        With a message that names X.
    """
    bad = ~np.isfinite(logits).reshape(len(logits), -1).all(axis=1)
    if bad.any():
        raise ValueError(
            f"For {describe_rows(bad)} of X the network computes NaN or infinity: their values are "
            "too large for it, or its weights are. Look for errors in these rows, and bring "
            "features to the scale that it was trained on."
        )


def check_suggestion(estimator: Any, n: Any, kept: str) -> None:
    """Refuse to name samples to label, where their number is none or they are not known any more.

    Parameters
    ----------
    estimator : object
        Fitted.
    n : int
        How many samples are asked for.
    kept : str
        The attribute with row numbers, which a saved model has only if it was asked for.

    Raises
    ------
    ValueError
        With what to do.
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n={n!r} must be a positive integer, the number of samples to label.")
    if not hasattr(estimator, kept):
        raise ValueError(
            "This model was saved without row numbers of its training data, which are what "
            "suggest_labels names. Save it with skfair.save(..., training_rows=True), or fit "
            "again."
        )


@contextmanager
def in_words(name: str) -> Iterator[None]:
    """Put the argument's name, and what was wanted, into errors that do not have it.

    Parameters
    ----------
    name : {"X", "y", "sample_weight"}
        The argument.
    """
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        # NumPy and scikit-learn quote values and columns, of any length and as they are.
        lines = re.sub(r":\narray=.*(?=\nReshape)", ".", str(error), flags=re.DOTALL).split("\n")
        said = "\n".join(plain(line)[:_LINE] for line in lines[:_LINES])
        cause = error if said == str(error) else None  # a traceback shows it as it is
        if re.search(rf"\b({name}|X)\b", said):
            if cause is not None:
                raise
            raise kind(said) from None
        reason = said.strip().rstrip(".")
        raise kind(f"{name} cannot be used: {reason}. Give {_WANTED[name]}.") from cause


def _unmasked(array: Any, name: str) -> Any:
    """Let tensors become arrays, and refuse masks, under which NumPy sees the hidden values."""
    if hasattr(array, "detach"):
        return as_numpy(array)
    if isinstance(array, np.ma.MaskedArray):
        if array.dtype.kind == "V" or np.ma.is_masked(array):  # NumPy counts no masks of records
            raise ValueError(
                f"{name} is a masked array. Drop the samples that have values masked, or fill the "
                f"values in, for instance with {name}.filled(0)."
            )
        return array.data
    return array
