"""Opens the images of an estimator in ``fit``, and checks later calls against ``fit``."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skfair._images._array import is_sliced
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
        This function sets its ``image_shape_`` (None for rows that are not images),
        ``input_dtype_`` and, if X consists of rows, ``n_features_in_`` and
        ``feature_names_in_``.
    X : array-like, sequence or Dataset
        As :func:`open_images` takes it.
    reset : bool
        True in ``fit``, to set these attributes. False in later calls, to check X against them.
    expected_shape : tuple of int, optional
        Shape that samples must have if `reset` is False; -1 stands for any size. By default the
        shape that ``fit`` saw.

    Returns
    -------
    Images

    Raises
    ------
    ValueError, TypeError
        X has a form that is not accepted, or differs from what ``fit`` saw.
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
            f"X ({came}) is of another form than X in fit ({wanted}). Pass X in the same form to "
            "fit and transform."
        )
    if is_rows:
        # NumPy would read an array of zarr or h5py whole.
        in_slices = is_sliced(X) and not hasattr(X, "toarray")
        checked = validate_rows(
            estimator,
            X[:1] if in_slices else X,
            reset=reset,
            dtype="numeric",
            ensure_all_finite=False,
        )
        # `checked` has the same data, but is no longer a memory map.
        X = X if in_slices or isinstance(X, np.memmap) else checked
    elif reset:
        for name in ("n_features_in_", "feature_names_in_"):
            vars(estimator).pop(name, None)  # an earlier fit on rows set them
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
            f"X holds {images.dtype} values, fit saw {estimator.input_dtype_}. uint8 values range "
            "from 0 to 255, floating values mostly from 0 to 1. Convert X, or fit again."
        )
    return images
