"""Validation of X, y and sample_weight: NumPy arrays, or errors that name the argument."""

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

_LINE, _LINES = 400, 16  # longest line, and most lines, from a message of another package
_LEAST_UNIT = 1e-6  # largest weights from here to the inverse of it are not rescaled
_LEAST_SHARE = 1e-20  # smallest weight, as a share of the largest, for sums in float32
_WANTED = {
    "X": "finite numbers, as an array or data frame with one row per sample and columns of "
    "different names",
    "y": "one class label per sample, all of them text or all of them numbers",
    "sample_weight": "one finite number per sample, zero or more, and not zero for all. Groups are "
    "given by keyword, as sensitive_features",
}


def validate_rows(estimator: BaseEstimator, X: Any, *, reset: bool, **check: Any) -> np.ndarray:
    """Do the same as scikit-learn's ``validate_data``, for X alone.

    Parameters
    ----------
    estimator : object
        Its ``n_features_in_`` and ``feature_names_in_`` are set, or compared with X.
    X : array-like
        The rows.
    reset : bool
        Whether to set these attributes. True in ``fit``.
    **check
        Arguments of ``sklearn.utils.check_array``.

    Returns
    -------
    ndarray
        The rows, as numbers.

    Raises
    ------
    ValueError, TypeError
        X is not valid. The message names X.
    """
    if not reset and (rows := _valid_floats(estimator, X, **check)) is not None:
        return rows
    X = _unmasked(X, "X")
    with in_words("X"):
        _num_samples(X)
        # A value that overflows in the new type becomes infinity, which is then reported.
        with np.errstate(over="ignore", invalid="ignore"):
            X = validate_data(estimator, X, reset=reset, **check)
    if X.dtype.kind not in "biuf":
        raise TypeError(
            f"X holds values of type {X.dtype}, which are not numbers. Encode them first, for "
            "example with OneHotEncoder in a ColumnTransformer."
        )
    return X


def _valid_floats(
    estimator: BaseEstimator, X: Any, *, dtype: Any, allow_nd: bool = False, **other_checks: Any
) -> np.ndarray | None:
    """Return an array of floats as ``validate_data`` returns it, or None if X is anything else.

    ``validate_data`` first searches for data frames and array libraries; for one row, this takes
    longer than a small network does.
    """
    if other_checks or type(X) is not np.ndarray or X.dtype.kind != "f" or not X.size:
        return None
    if X.ndim != 2 and not (allow_nd and X.ndim > 2):
        return None
    if X.shape[1] != getattr(estimator, "n_features_in_", None):
        return None
    if hasattr(estimator, "feature_names_in_"):  # it warns
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        rows = X if dtype == "numeric" else X.astype(dtype, copy=False)
        return rows if np.isfinite(np.add.reduce(rows, axis=None)) else None


def validate_labels(estimator: BaseEstimator, X: Any, y: Any) -> np.ndarray:
    """Check that y holds one class label for each row of X.

    Parameters
    ----------
    estimator : object
        A classifier.
    X : array-like
        The rows. Only their number is used.
    y : array-like
        The labels.

    Returns
    -------
    ndarray of shape (n_samples,)
        The labels.

    Raises
    ------
    ValueError, TypeError
        y is not valid. The message names y.
    """
    y = _unmasked(y, "y")
    with in_words("y"):
        if y is not None:
            n_labels = _num_samples(y)
            with in_words("X"):
                n_samples = _num_samples(X)
            if n_labels != n_samples:
                raise ValueError(
                    f"y has {n_labels} labels for the {n_samples} samples of X. Give one label "
                    "per sample, in the order of the samples."
                )
        y = validate_data(estimator, X="no_validation", y=y)
        if y.dtype == object and (others := {type(label) for label in y} - {str}):
            raise ValueError(
                "Unknown label type: y is an array of objects, among them "
                f"{min(kind.__name__ for kind in others)}. Convert all labels to one type, for "
                "example strings, and drop samples without a label."
            )
        with np.errstate(invalid="ignore"):  # the check casts floats to integers to compare them
            check_classification_targets(y)
    return y


def validate_weight(sample_weight: Any, X: np.ndarray) -> np.ndarray:
    """Check the weights of samples. None means a weight of one for each sample.

    Parameters
    ----------
    sample_weight : array-like, float or None
        The weights.
    X : ndarray
        The rows.

    Returns
    -------
    ndarray of shape (n_samples,), float32
        The weights, divided by the largest weight if float32 could not represent them well.

    Raises
    ------
    ValueError, TypeError
        `sample_weight` is not valid. The message names sample_weight.
    """
    with in_words("sample_weight"):
        if sample_weight is not None:
            sample_weight = as_weight(sample_weight)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    least = weight[weight > 0].min()
    if least < weight.max() * _LEAST_SHARE:
        raise ValueError(
            f"sample_weight ranges from {least:g} to {weight.max():g}. Weights that differ so much "
            "cannot be distinguished from zero. Set the weight to zero for samples that must not "
            "count, or use weights that are closer together."
        )
    if not _LEAST_UNIT <= weight.max() <= 1 / _LEAST_UNIT:
        weight = weight / weight.max()
    return weight.astype(np.float32)


def as_weight(sample_weight: Any) -> np.ndarray:
    """Convert weights to an array of the same shape.

    Parameters
    ----------
    sample_weight : array-like or float

    Returns
    -------
    ndarray, float64

    Raises
    ------
    ValueError, TypeError
        The weights are not real numbers, or a mask hides some of them.
    """
    sample_weight = _unmasked(sample_weight, "sample_weight")
    with in_words("sample_weight"):
        if np.asarray(sample_weight).dtype.kind in "mMc":
            raise TypeError(
                "sample_weight holds dates, times or complex numbers. Give real numbers."
            )
        with np.errstate(over="ignore"):  # becomes infinity, which is reported as such
            return np.asarray(sample_weight, dtype=np.float64)


def check_logits(logits: np.ndarray) -> None:
    """Refuse rows for which a network computes NaN or infinity.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, ...)
        Outputs of the network.

    Raises
    ------
    ValueError
        An output is NaN or infinite. The message names the rows of X.
    """
    finite = np.isfinite(logits)
    if not finite.all():
        bad = ~finite.reshape(len(logits), -1).all(axis=1)
        raise ValueError(
            f"For {describe_rows(bad)} of X the network computes NaN or infinity. The values in "
            "these rows, or the weights of the network, are too large. Look for errors in these "
            "rows, and scale the features as in the training of the network."
        )


def check_suggestion(estimator: Any, n: Any, kept: str) -> None:
    """Check the arguments of ``suggest_labels``, and that the estimator has the row numbers.

    Parameters
    ----------
    estimator : object
        A fitted estimator.
    n : int
        Number of samples to suggest.
    kept : str
        Name of the attribute with row numbers. A loaded model has it only if it was saved with
        ``training_rows=True``.

    Raises
    ------
    ValueError
        `n` is not a positive integer, or the estimator has no row numbers.
    """
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 1:
        raise ValueError(f"n={n!r} must be a positive integer, the number of samples to label.")
    if not hasattr(estimator, kept):
        raise ValueError(
            "suggest_labels needs the row numbers of the training data, and this model was saved "
            "without them. Save the model with skfair.save(..., training_rows=True), or fit it "
            "again."
        )


@contextmanager
def in_words(name: str) -> Iterator[None]:
    """Add the name of the argument, and what is expected, to errors that do not name it.

    Parameters
    ----------
    name : {"X", "y", "sample_weight"}
        The argument.

    Yields
    ------
    None
        The block runs.

    Raises
    ------
    ValueError, TypeError
        The error of the block, with a shortened message that names the argument.
    """
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        # NumPy and scikit-learn quote values and columns of any length, without escaping.
        lines = re.sub(r":\narray=.*(?=\nReshape)", ".", str(error), flags=re.DOTALL).split("\n")
        said = "\n".join(plain(line)[:_LINE] for line in lines[:_LINES])
        cause = error if said == str(error) else None  # a traceback would show it unescaped
        if re.search(rf"\b({name}|X)\b", said):
            if cause is not None:
                raise
            raise kind(said) from None
        reason = said.strip().rstrip(".")
        raise kind(f"{name} cannot be used: {reason}. Give {_WANTED[name]}.") from cause


def _unmasked(array: Any, name: str) -> Any:
    """Convert a tensor to an array, and refuse masks, because NumPy would use hidden values."""
    if hasattr(array, "detach"):
        return as_numpy(array)
    if isinstance(array, np.ma.MaskedArray):
        if array.dtype.kind == "V" or np.ma.is_masked(array):  # is_masked ignores masks of records
            raise ValueError(
                f"{name} is a masked array. Drop the samples with masked values, or fill in the "
                f"values, for example with {name}.filled(0)."
            )
        return array.data
    return array
