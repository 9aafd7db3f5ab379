"""Opening images: one view, read batch by batch, of whatever form a user's images have.

Every image estimator takes the same inputs: arrays of images, rows of pixels, files, datasets.
:func:`open_images` decides once, from the first sample, what they are; :meth:`Images.read` then
gives any slice of them as one contiguous array of channels-first images, so that memory is
bounded by the slice.
"""

import os
from typing import Any

import torch

from skfair._images._array import ImageArray
from skfair._images._files import files_of_folder
from skfair._images._forms import are_images, as_items, check_columns, check_form, count_columns
from skfair._images._layout import Layout, check_image_shape, check_n_samples
from skfair._images._sequence import ImageSequence
from skfair._images._view import Images


def holds_images(X: Any) -> bool:
    """Tell images from two-dimensional rows, which are scikit-learn's to validate.

    Parameters
    ----------
    X : object
        The first argument of ``fit`` or ``transform``.

    Returns
    -------
    bool
        True for arrays of three or more dimensions, map-style datasets, and sequences or single
        columns of image files or images, whatever is in them. False for all else:
        :func:`open_images` takes it once it is a valid array of rows.

    Raises
    ------
    ValueError, TypeError
        It holds images, or leads to some, in a form of which no single one can be asked for; the
        message says what to give.

    Examples
    --------
    >>> holds_images(["left.png", "right.png"]), holds_images([[0.0, 1.0]])
    (True, False)
    """
    check_form(X)
    if isinstance(X, (str, os.PathLike, torch.utils.data.Dataset)):
        return True
    if getattr(X, "ndim", 0) > 2:
        return True
    items = as_items(X)
    if items is None:
        check_columns(X)
        return False
    if getattr(X, "ndim", 1) == 1:
        check_n_samples(len(items))
    return are_images(items)


def open_images(
    X: Any,
    *,
    image_shape: tuple[int, int, int] | None = None,
    data_format: str = "auto",
    expected_shape: tuple[int, ...] | None = None,
    resize: str = "stretch",
) -> Images:
    """Open images in any accepted form.

    Of arrays and datasets nothing but the first sample is looked at, of files the head of each.

    Parameters
    ----------
    X : array-like, sequence or Dataset
        One of

        - an array or tensor of shape (n, channels, height, width) or (n, height, width,
          channels), uint8 or floating; a :class:`numpy.memmap` is never read whole;
        - an array or tensor of grey images, shape (n, height, width);
        - an array of rows, shape (n, n_features); with `image_shape` each row is one image,
          without it the row itself is the sample;
        - a sequence of image files, Pillow images, or arrays of one image: a list, array or
          Series, a frame or array of one column, or anything else with a length and an index, as
          a column of a Hugging Face dataset. Files are read by
          Pillow, have one of `FILE_FORMATS`, and at most ``PIL.Image.MAX_IMAGE_PIXELS`` pixels.
          They are turned as their EXIF data say;
        - a folder: the image files in it, sorted by name;
        - a map-style :class:`torch.utils.data.Dataset` of those. Of items that are tuples,
          as in (image, label), the first entry is taken.
    image_shape : tuple of three int, default=None
        (channels, height, width). Rows are reshaped to it, files and Pillow images are resized
        to it, arrays have to have it. One entry may be -1.
    data_format : {"auto", "channels_first", "channels_last"}, default="auto"
        Where the channel axis of arrays is. "auto" takes the shape that is known already
        (`expected_shape` or `image_shape`), and without one the end of the image at which
        there are 1, 3 or 4 entries; rows are channels first. Where both ends would do it raises.
    expected_shape : tuple of int, default=None
        Shape that the samples must have, as found by an earlier call (in ``fit``).
    resize : {"stretch", "pad", "crop"}, default="stretch"
        How files and Pillow images get the size of `image_shape`: height and width each by
        themselves, or both by one factor, and then the border is repeated or the centre cut out.

    Returns
    -------
    Images

    Raises
    ------
    ValueError
        X is empty, has another number of dimensions, another shape than the expected one, an
        ambiguous layout, a type that is neither uint8 nor floating, or a file that is no image
        or too large a one.
    TypeError
        X is a dataset without length or random access.

    Examples
    --------
    >>> import numpy as np
    >>> images = open_images(np.zeros((10, 8, 6, 3), dtype=np.uint8))
    >>> images.n_samples, images.shape
    (10, (3, 8, 6))
    >>> images.read(2, 5).shape
    (3, 3, 8, 6)
    """
    layout = Layout(check_image_shape(image_shape), data_format, expected_shape, resize)
    if isinstance(X, (str, os.PathLike)):
        return ImageSequence(files_of_folder(X), layout)
    if isinstance(X, torch.utils.data.Dataset):
        if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
            raise TypeError(
                f"X is a {type(X).__name__}, a dataset without length or random access. "
                "Pass a map-style Dataset, with __len__ and __getitem__."
            )
        return ImageSequence(X, layout)
    items = None if getattr(X, "ndim", 0) > 2 else as_items(X)
    if items is not None and (count_columns(X, of_arrays=True) is None or are_images(items)):
        return ImageSequence(items, layout)
    return ImageArray(X, layout)
