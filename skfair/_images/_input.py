"""Images of an estimator: X as ``fit`` gets it, and as later calls have to give it again."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skfair._images._layout import check_image_shape
from skfair._images._open import holds_images, open_images
from skfair._images._view import Images
from skfair.utils._validation import validate_rows


def validate_images(
    estimator: BaseEstimator,
    X: Any,
    *,
    reset: bool,
    expected_shape: tuple[int, ...] | None = None,
) -> Images:
    """Open images for an estimator with ``image_shape``, ``resize`` and ``data_format``.

    Parameters
    ----------
    estimator : object
        Gets ``image_shape_`` (None for rows that are no images), ``input_dtype_`` and, where X
        is made of rows, ``n_features_in_`` and ``feature_names_in_``.
    X : array-like, sequence or Dataset
        As :func:`open_images` takes it.
    reset : bool
        True in ``fit``, which sets these attributes; False later, where X is checked
        against them.
    expected_shape : tuple of int, optional
        Shape that samples must have if `reset` is False; -1 stands for any size. The shape
        that ``fit`` saw if not given.

    Returns
    -------
    Images

    Raises
    ------
    ValueError, TypeError
        X is none of what is accepted, or differs from what ``fit`` saw.
    """
    is_rows = not holds_images(X)
    if not reset and is_rows != hasattr(estimator, "n_features_in_"):
        wanted = (
            f"images of shape {estimator.image_shape_}"
            if is_rows
            else f"rows of {estimator.n_features_in_} features"
        )
        came = f"shape {tuple(X.shape)}" if hasattr(X, "shape") else type(X).__name__
        raise ValueError(
            f"X ({came}) is not of the kind that was fitted, {wanted}. Pass X in the same "
            "form to fit and transform."
        )
    if is_rows:
        checked = validate_rows(estimator, X, reset=reset, dtype="numeric", ensure_all_finite=False)
        # The checked one is the same data, but no longer knows that it is a memory map.
        X = X if isinstance(X, np.memmap) else checked
    elif reset:
        for name in ("n_features_in_", "feature_names_in_"):
            vars(estimator).pop(name, None)  # of an earlier fit on rows
    if not reset and expected_shape is None:
        expected_shape = estimator.image_shape_ or (estimator.n_features_in_,)
    images = open_images(
        X,
        image_shape=check_image_shape(estimator.image_shape),
        data_format=estimator.data_format,
        resize=estimator.resize,
        expected_shape=None if reset else expected_shape,
    )
    if reset:
        estimator.image_shape_ = images.shape if len(images.shape) == 3 else None
        estimator.input_dtype_ = images.dtype
    elif images.dtype != estimator.input_dtype_:
        raise ValueError(
            f"X holds {images.dtype} values, fit saw {estimator.input_dtype_}: 8-bit values go "
            "from 0 to 255 and floats mostly do not. Convert X, or fit again."
        )
    return images
