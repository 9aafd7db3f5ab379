"""Opens images of any accepted form as one view, which is read batch by batch.

Every image estimator takes the same inputs: arrays of images, rows of pixels, files, datasets.
:func:`open_images` recognises the form once, from the first sample. :meth:`Images.read` then
returns any slice as one contiguous array of channels-first images. The slice bounds the memory.
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
    """Tell whether X holds images, or two-dimensional rows, which scikit-learn validates.

    Parameters
    ----------
    X : object
        The first argument of ``fit`` or ``transform``.

    Returns
    -------
    bool
        True for arrays of three or more dimensions, map-style datasets, and sequences or single
        columns of image files or images, even if some of them are invalid. False for everything
        else: the caller validates `X` as an array of rows before :func:`open_images`.

    Raises
    ------
    ValueError, TypeError
        `X` holds images in a form without access to single images, such as a DataLoader. The
        message says what to pass instead.

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

    This function looks at the first sample of an array or dataset, and at the head of each file.

    Parameters
    ----------
    X : array-like, sequence or Dataset
        One of

        - an array or tensor of shape (n, channels, height, width) or (n, height, width,
          channels), uint8 or floating; a :class:`numpy.memmap` is never read whole;
        - an array or tensor of grey images, shape (n, height, width);
        - an array of another package with slices, as of zarr or h5py, which is read slice by slice;
        - an array of rows, shape (n, n_features); with `image_shape` each row is one image,
          without it the row itself is the sample;
        - a sequence of image files, Pillow images, or arrays of one image: a list, array or
          Series, a frame or array of one column, or anything else with a length and an index.
          Bytes, a record of "bytes" and "path", or an address for fsspec stand for a file. Pillow
          reads the files. A file has one of
          `FILE_FORMATS` and at most ``PIL.Image.MAX_IMAGE_PIXELS`` pixels, and is turned as its
          EXIF data say;
        - a Hugging Face dataset with one column of images, or one of its columns;
        - a folder: the image files in it, sorted by name;
        - a map-style :class:`torch.utils.data.Dataset` of those. If an item is a tuple, as in
          (image, label), its first entry is the image.
    image_shape : tuple of three int, default=None
        (channels, height, width). Rows are reshaped to it, files and Pillow images are resized
        to it, arrays must have it. One entry may be -1.
    data_format : {"auto", "channels_first", "channels_last"}, default="auto"
        Where the channel axis of arrays is. "auto" compares with the shape that is
        already known (`expected_shape` or `image_shape`). Without a known shape, it takes the
        first or last axis, whichever has 1, 3 or 4 entries. It raises if both fit. Rows are
        channels first.
    expected_shape : tuple of int, default=None
        Shape that the samples must have: the one that ``fit`` found.
    resize : {"stretch", "pad", "crop"}, default="stretch"
        How files and Pillow images get the size of `image_shape`. "stretch" scales height and width
        separately. "pad" and "crop" scale both by one factor; then "pad" repeats the border and
        "crop" cuts out the centre.

    Returns
    -------
    Images

    Raises
    ------
    ValueError
        X is empty, has a wrong number of dimensions, a shape other than the expected one, an
        ambiguous layout, or a dtype that is neither uint8 nor floating; or a file is not an image
        or is too large.
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
