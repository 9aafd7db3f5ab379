"""Images: one view, read batch by batch, of whatever form a user's images have.

Every image estimator takes the same inputs: arrays of images, rows of pixels, files, datasets.
:func:`open_images` decides once, from the first sample, what they are; :meth:`Images.read` then
gives any slice of them as one contiguous array of channels-first images, so that memory is
bounded by the slice.
"""

import math
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Set
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch

from skfair._images._files import (
    FILE_SUFFIXES,
    UnreadableImageError,
    check_depth,
    files_of_folder,
    opened_image,
    oriented_size,
    pixels_of,
)
from skfair.utils._arrays import as_numpy, evaluation
from skfair.utils._shown import shown, shown_all

_CHANNELS = (1, 3, 4)
_MOST_NAMED = 10
_MOST_RANGES = 200  # of rows that are named by their numbers
_MOST_MISSING = 100  # entries at the beginning, among which one has to say what X is made of
_MOST_LOADED = 1000  # images of which pixels are read too, where others are known to be bad


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
    _check_form(X)
    if isinstance(X, (str, os.PathLike, torch.utils.data.Dataset)):
        return True
    if getattr(X, "ndim", 0) > 2:
        return True
    items = _as_items(X)
    if items is None:
        _check_columns(X)
        return False
    if getattr(X, "ndim", 1) == 1:
        _check_n_samples(len(items))
    return _are_images(items)


def check_image_shape(image_shape: Any) -> tuple[int, int, int] | None:
    """Check the parameter ``image_shape``.

    Parameters
    ----------
    image_shape : sequence of three int, or None
        (channels, height, width); one of them may be -1.

    Returns
    -------
    tuple of three int, or None

    Raises
    ------
    ValueError
        It is something else.
    """
    if image_shape is None:
        return None
    shape = tuple(image_shape)
    if (
        len(shape) != 3
        or any(not isinstance(size, (int, np.integer)) or size == 0 or size < -1 for size in shape)
        or shape.count(-1) > 1
    ):
        raise ValueError(
            f"image_shape={shown(image_shape)} is not (channels, height, width): three positive "
            "integers, of which one may be -1 to be worked out."
        )
    channels, height, width = (int(size) for size in shape)
    return channels, height, width


class Images(ABC):
    """Images that are read slice by slice.

    Made by :func:`open_images`.

    Attributes
    ----------
    n_samples : int
        How many there are.
    shape : tuple of int
        Shape of one sample: (channels, height, width), or (n_features,) for rows that are
        not images.
    dtype : numpy.dtype
        ``uint8`` or ``float32``.
    """

    n_samples: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read samples `start` to `stop` into an array of their own.

        Returns
        -------
        ndarray of shape (stop - start, *shape)
            C-contiguous, of type `dtype`, not shared with the data: who gets it may write to it.

        Raises
        ------
        ValueError
            A sample has NaN or infinity, or another shape or type than the first one.
        """
        batch = self._read(start, stop)
        if batch.dtype != np.uint8:
            finite = np.isfinite(batch)
            if not finite.all():
                row, *_ = np.argwhere(~finite)[0]
                what = "NaN" if np.isnan(batch[row]).any() else "infinity"
                raise ValueError(
                    f"Input X contains {what} or a value too large for dtype('float32'), first "
                    f"in row {start + row}. Impute or remove such rows."
                )
        return batch

    @abstractmethod
    def to_array(self, *, copy: bool) -> tuple[np.ndarray, np.ndarray]:
        """Give all samples as one array, in the form they have.

        Parameters
        ----------
        copy : bool
            Whether to copy an array that was opened. Files and datasets are read in any case.

        Returns
        -------
        array : ndarray
            As an array or tensor that was opened, in layout and type; of files and datasets,
            images of shape (n_samples, *shape) and type `dtype`.
        view : ndarray of shape (n_samples, *shape)
            The same memory, channels first.
        """

    @abstractmethod
    def _read(self, start: int, stop: int) -> np.ndarray:
        """Read without the check for NaN and infinity."""


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
    layout = _Layout(check_image_shape(image_shape), data_format, expected_shape, resize)
    if isinstance(X, (str, os.PathLike)):
        return _ImageSequence(files_of_folder(X), layout)
    if isinstance(X, torch.utils.data.Dataset):
        if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
            raise TypeError(
                f"X is a {type(X).__name__}, a dataset without length or random access. "
                "Pass a map-style Dataset, with __len__ and __getitem__."
            )
        return _ImageSequence(X, layout)
    items = None if getattr(X, "ndim", 0) > 2 else _as_items(X)
    if items is not None and (_n_columns(X, of_arrays=True) is None or _are_images(items)):
        return _ImageSequence(items, layout)
    return _ImageArray(X, layout)


def release_pages(array: Any) -> None:
    """Give the resident pages of a memory map back to the system; data stay as they are.

    Pages that were read or written count as memory of the process until the system wants them
    back, so that walking over a large file looks like, and is limited as, memory that grows.
    Maps that keep private changes (mode "c") are left alone, as are arrays that are no maps.
    """
    mapping = getattr(array, "_mmap", None)
    if (
        isinstance(mapping, mmap.mmap)
        and hasattr(mmap, "MADV_DONTNEED")
        and getattr(array, "mode", "c") != "c"
    ):
        mapping.madvise(mmap.MADV_DONTNEED)


class _Layout:
    """What is known of the shape of one image before it is seen, and how to read its axes."""

    def __init__(self, image_shape, data_format, expected_shape, resize):
        self.image_shape = image_shape
        self.resize = resize
        self.data_format = data_format
        self.expected_shape = expected_shape
        self.known = expected_shape if expected_shape is not None else image_shape

    def is_channels_last(self, shape: tuple[int, int, int], what: str) -> bool:
        """Say whether an image array of this shape is (height, width, channels)."""
        last = (shape[2], shape[0], shape[1])
        if self.data_format != "auto":
            channels_last = self.data_format == "channels_last"
            self.check(last if channels_last else shape, what)
            return channels_last
        if self.known is not None:
            fits_first, fits_last = self.fits(shape), self.fits(last)
            if not (fits_first or fits_last):
                self.check(shape, what)
            wanted = f"both ends fit {self.known}"
        else:
            fits_first, fits_last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
            wanted = "the channel axis is the one at either end with 1, 3 or 4 entries"
        if fits_first == fits_last:
            raise ValueError(
                f"{what} has images of shape {shape}, of which the channel axis cannot be told: "
                f"{wanted}. Pass data_format='channels_first' or 'channels_last'."
            )
        return fits_last

    def check(self, shape: tuple[int, ...], what: str) -> None:
        """Raise unless a sample of this (channels-first) shape is one that is wanted."""
        if self.known is not None and not self.fits(shape):
            source = "fit saw" if self.expected_shape is not None else "image_shape says"
            wanted = str(self.known).replace("-1", "any")
            raise ValueError(
                f"{what} has images of shape {shape}, {source} {wanted} (channels, height, "
                "width). Resize or convert the images, or fit again."
            )

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.known) and all(
            wanted in (-1, size) for wanted, size in zip(self.known, shape, strict=True)
        )


class _ImageArray(Images):
    """An array or tensor of images, or of rows."""

    def __init__(self, X, layout):
        if not isinstance(X, torch.Tensor):
            X = np.asanyarray(X)  # a memmap stays one
        self.n_samples = _check_n_samples(len(X))
        shape = tuple(int(size) for size in X.shape[1:])
        is_rows = len(shape) == 1
        if len(shape) == 2:
            self._check_grey(tuple(X.shape), layout)
            shape = (1, *shape)
        if len(shape) > 3:
            raise ValueError(f"X has {len(shape) + 1} dimensions, shape {tuple(X.shape)}; wanted 4")
        if is_rows and layout.image_shape is not None:
            shape = _shape_of_rows(shape[0], layout)
        elif not is_rows:
            if min(shape) == 0:
                raise ValueError(f"X has shape {tuple(X.shape)}: images without pixels.")
            _check_dtype(X.dtype, "X")
        self._X = X
        self._is_image = len(shape) == 3
        if not self._is_image or X.ndim == 3:
            self._channels_last = False
        elif is_rows:
            self._channels_last = layout.data_format == "channels_last"
        else:
            self._channels_last = layout.is_channels_last(shape, "X")
        # Axes as they lie in the data, before the channels are moved to the front.
        self._stored_shape = (
            (shape[1], shape[2], shape[0]) if is_rows and self._channels_last else shape
        )
        if self._channels_last and not is_rows:
            shape = (shape[2], shape[0], shape[1])
        layout.check(shape, "X")
        self.shape = shape
        self.dtype = _sample_dtype(X.dtype)

    @staticmethod
    def _check_grey(shape: tuple[int, ...], layout: _Layout) -> None:
        """Raise where an array of three dimensions is rather one image with channels."""
        if layout.known is not None and layout.fits((1, *shape[1:])):
            return
        if shape[2] in _CHANNELS or (shape[0] in (3, 4) and min(shape[1:]) > 4):
            raise ValueError(
                f"X has shape {shape}: {shape[0]} grey images, or one image with channels? Give a "
                "single image as X[None], and grey images with an axis of one channel, X[:, None]."
            )

    def to_array(self, *, copy):
        array = np.array(as_numpy(self._X), order="C") if copy else as_numpy(self._X)
        return array, self._channels_first(array)

    def _channels_first(self, block):
        block = block.reshape(-1, *self._stored_shape)
        return block.transpose(0, 3, 1, 2) if self._channels_last else block

    def _read(self, start, stop):
        block = self._channels_first(as_numpy(self._X[start:stop]))
        with np.errstate(over="ignore"):  # becomes infinity, which is reported as such
            batch = np.array(block, dtype=self.dtype, order="C")
        release_pages(self._X)
        return batch


class _ImageSequence(Images):
    """Files, Pillow images or single arrays, fetched one by one."""

    def __init__(self, items, layout):
        self._items = items
        self._layout = layout
        self.n_samples = _check_n_samples(len(items))
        # What the items of others cost to get, or raise, is not known.
        self._at_hand = isinstance(items, (list, tuple, np.ndarray))
        if self._at_hand:
            self._survey()
        first = self._load_or_name_all(0)
        self.shape = first.shape
        self.dtype = first.dtype

    def to_array(self, *, copy):
        array = self.read(0, self.n_samples)
        return array, array

    def _survey(self) -> None:
        """Look at the head of each file, so that bad files and sizes are known before any work."""
        sizes: dict[tuple[int, int], list[int]] = {}
        errors = {}
        for row in range(self.n_samples):
            item = _first_entry(self._items[row])
            try:
                _check_item(item, f"X[{row}]")
                if isinstance(item, (str, os.PathLike)):
                    with opened_image(item, f"X[{row}]") as image:
                        check_depth(image, self._name(row))
                        size = oriented_size(image)
                elif _is_pillow(item):
                    check_depth(item, self._name(row))
                    size = oriented_size(item)
                else:
                    continue
            except ValueError as error:
                errors[row] = str(error)
            else:
                sizes.setdefault(size, []).append(row)
        if errors:
            self._name_all(errors, range(min(self.n_samples, _MOST_LOADED)))
        target = self._layout.image_shape
        if len(sizes) > 1 and (target is None or -1 in target):
            of_each = [size for size, rows in sizes.items() for _ in rows]
            width, height = (sorted(side)[len(of_each) // 2] for side in zip(*of_each, strict=True))
            small, large = (choose(sizes, key=math.prod) for choose in (min, max))
            raise ValueError(
                f"X has images of {len(sizes)} sizes, from {small[0]} x {small[1]} pixels "
                f"({self._name(sizes[small][0])}) to {large[0]} x {large[1]} "
                f"({self._name(sizes[large][0])}), width x height. Images of one call have one "
                "shape: give image_shape=(channels, height, width), to which files are resized, "
                f"for instance image_shape=(3, {height}, {width}), near the median; resize='pad' "
                "or 'crop' keeps the ratio of their sides."
            )

    def _read(self, start, stop):
        batch = np.empty((stop - start, *self.shape), dtype=self.dtype)
        for row in range(start, stop):
            image = self._load_or_name_all(row)
            if image.shape != self.shape or image.dtype != self.dtype:
                raise ValueError(
                    f"{self._name(row)} is an image of shape {image.shape}, {image.dtype}; the "
                    f"first one has {self.shape}, {self.dtype} (channels, height, width). Images "
                    "of one call have one shape and type: image_shape=(channels, height, width) "
                    "resizes image files."
                )
            batch[row - start] = image
        return batch

    def _load_or_name_all(self, row: int) -> np.ndarray:
        """Load an image; if it cannot be read, name all others that cannot be either."""
        try:
            return self._load(row)
        except UnreadableImageError as error:
            if not self._at_hand:
                raise
            errors = {row: str(error)}
        self._name_all(errors, range(row + 1, self.n_samples))

    def _name_all(self, errors: dict[int, str], others: range) -> NoReturn:
        """Raise one error for all images that cannot be read, among them those of `others`."""
        for row in others:
            if row in errors:
                continue
            try:
                self._load(row)
            except UnreadableImageError as error:
                errors[row] = str(error)
            except ValueError:
                pass  # for when these are mended
        rows = sorted(errors)
        if len(rows) == 1:
            raise UnreadableImageError(errors[rows[0]])
        named = "\n".join(f"- {errors[row]}" for row in rows[:_MOST_NAMED])
        rest = rows[_MOST_NAMED:]
        more = f"\n- and {len(rest)} more, rows {_in_ranges(rest)}" if rest else ""
        raise UnreadableImageError(
            f"X has {len(rows)} images of {self.n_samples} that cannot be read. Mend them, or "
            f"leave them out of X and of all that goes with its rows:\n{named}{more}"
        )

    def _load(self, row: int) -> np.ndarray:
        image = _first_entry(self._items[row])
        name = f"X[{row}]"
        _check_item(image, name)
        if isinstance(image, (str, os.PathLike)):
            with opened_image(image, name) as opened:
                array = self._from_pillow(opened, _name_of(image, row))
        elif _is_pillow(image):
            array = self._from_pillow(image, name)
        else:
            return self._from_array(image, name)
        self._layout.check(array.shape, _name_of(image, row))
        return array

    def _from_pillow(self, image: Any, name: str) -> np.ndarray:
        known, size = self._layout.known, self._layout.image_shape
        resized = None if size is None or -1 in size else (size[2], size[1])
        n_channels = 3 if known is None else known[0]
        return pixels_of(image, n_channels, resized, self._layout.resize, name)

    def _from_array(self, image: Any, name: str) -> np.ndarray:
        array = as_numpy(image)
        if array.ndim == 2:
            array = array[None]
            self._layout.check(array.shape, name)
        elif array.ndim == 3:
            if self._layout.is_channels_last(array.shape, name):
                array = array.transpose(2, 0, 1)
        else:
            raise ValueError(
                f"{name} is a {type(image).__name__} of shape {array.shape}; wanted an "
                "image: a file, a Pillow image, or an array of 2 or 3 dimensions."
            )
        given = image if isinstance(image, torch.Tensor) else array
        _check_dtype(given.dtype, name)
        with np.errstate(over="ignore"):
            return array.astype(_sample_dtype(array.dtype), copy=False)

    def _name(self, row: int) -> str:
        return _name_of(_first_entry(self._items[row]), row)


def _name_of(item: Any, row: int) -> str:
    if not isinstance(item, (str, os.PathLike)):
        return f"X[{row}]"
    return f"X[{row}] = {shown(os.fspath(item), 200)}"


def _in_ranges(rows: list[int]) -> str:
    """Name rows, which are sorted, in as few words as can be."""
    starts = [i for i, row in enumerate(rows) if i == 0 or rows[i - 1] != row - 1]
    ends = [*(i - 1 for i in starts[1:]), len(rows) - 1]
    words = [
        f"{rows[a]}" if a == b else f"{rows[a]} to {rows[b]}"
        for a, b in zip(starts, ends, strict=True)
    ]
    return ", ".join(words[:_MOST_RANGES] + ["..."] * (len(words) > _MOST_RANGES))


def _check_form(X: Any) -> None:
    """Say what to give in place of forms that other packages have for images."""
    if hasattr(X, "toarray"):
        return  # sparse, which scikit-learn says
    kind, advice = type(X).__name__, ""
    if isinstance(X, torch.utils.data.DataLoader):
        advice = (
            "it gives batches, in an order of its own. Give its dataset, X.dataset, and labels "
            "and groups in the order of that"
        )
    elif isinstance(X, (bytes, bytearray)):
        advice = "images were wanted. Give [PIL.Image.open(io.BytesIO(X))] for the bytes of a file"
    elif _is_pillow(X):
        advice = "it is one image, where several were wanted. Give [X]"
    elif isinstance(X, np.ndarray) and X.ndim == 0:
        advice = "it has no dimension. Give a list, [X.item()]"
    elif isinstance(X, Mapping):
        advice = f"it is no list of images. Give one entry, X[{next(iter(X), 'images')!r}]"
    elif isinstance(X, (Set, Iterator)):
        advice = "it has no order or no length. Give a list, sorted(X) or list(X)"
    elif (getattr(X, "ndim", 1) == 1 or _n_columns(X) == 1) and (lazy := evaluation(X, "X")):
        advice = f"it is not computed yet. Give {lazy}, and groups and labels in the same order"
    elif hasattr(X, "column_names") and hasattr(X, "features") and hasattr(X, "__getitem__"):
        names = list(X.column_names)  # a dataset of Hugging Face
        advice = (
            f"it has the columns {shown_all(names)}. Give the one with the images, as "
            f"X[{shown(names[0] if names else 'image')}]"
        )
    elif not any(hasattr(X, name) for name in ("__getitem__", "__array__", "__fspath__")):
        advice = (
            "images were wanted. Give an array of shape (n, channels, height, width), a list of "
            "files or Pillow images, a folder, or a map-style Dataset"
        )
    if advice:
        raise TypeError(f"X ({kind}) cannot be used: {advice}.")


def _check_columns(X: Any) -> None:
    """Refuse a table of which a column of several holds image files."""
    if _n_columns(X) is None or not hasattr(X, "to_numpy") or len(X) == 0:
        return
    first = X.head(1).to_numpy()[0]
    if first.dtype.kind not in "OU":
        return
    for name, item in zip(X.columns, first, strict=True):
        if isinstance(item, os.PathLike) or str(item).lower().endswith(FILE_SUFFIXES):
            raise TypeError(
                f"X has {len(first)} columns, of which {shown(name)} holds image files. Give that "
                f"column alone, X[[{shown(name)}]]: of a pipeline with all of them, in a "
                f"ColumnTransformer as ('images', estimator, [{shown(name)}])."
            )


def _n_columns(X: Any, *, of_arrays: bool = False) -> int | None:
    """Number of columns of a table of pandas, polars, pyarrow or dask; None for anything else."""
    if evaluation(X, "X").endswith(("collect()", "toPandas()")):
        return None  # which would have to work out what its columns are
    if hasattr(X, "columns"):
        return len(X.columns)
    return X.shape[1] if of_arrays and getattr(X, "ndim", 1) == 2 else None


def _are_images(items: Any) -> bool:
    """Tell by the first item that is not missing."""
    for row in range(min(len(items), _MOST_MISSING)):
        if not _is_missing(items[row]):
            item = _first_entry(items[row])
            if isinstance(item, (bytes, Mapping)) or _is_path_in_a_row(item):
                _check_item(item, f"X[{row}]")
            return _is_image_item(item)
    return False


def _check_item(item: Any, name: str) -> None:
    """Refuse what is no image, with what to give instead."""
    advice = ""
    if _is_missing(item):
        advice = "is missing. Leave the row out of X and of all that goes with it"
    elif isinstance(item, bytes):
        advice = "is bytes. Give [PIL.Image.open(io.BytesIO(b)) for b in X] for those of files"
    elif isinstance(item, Mapping):
        keys = list(item)
        advice = (
            f"is a {type(item).__name__} with {shown_all(keys)}. Give the images alone, "
            f"[item[{shown(keys[0] if keys else 'image')}] for item in X] for instance"
        )
    elif _is_path_in_a_row(item):
        advice = f"is a {type(item).__name__}, where a file was wanted. Give [row[0] for row in X]"
    if advice:
        raise UnreadableImageError(f"{name} {advice}.")


def _is_path_in_a_row(item: Any) -> bool:
    if not isinstance(item, (list, np.ndarray)) or len(np.shape(item)) != 1 or len(item) != 1:
        return False
    return isinstance(item[0], (str, os.PathLike))


def _as_items(X: Any) -> Any:
    """See X as items with a length and an index that counts from zero; None for anything else."""
    if isinstance(X, (list, tuple)):
        return X
    if hasattr(X, "toarray"):  # sparse
        return None
    shape = getattr(X, "shape", None)
    if (n_columns := _n_columns(X)) is not None:
        if n_columns != 1:
            return None
        X = X.iloc[:, 0] if hasattr(X, "iloc") else X[getattr(X, "column_names", X.columns)[0]]
    elif shape is not None and len(shape) == 2 and shape[1] == 1:
        X = X[:, 0]
    elif shape is not None and len(shape) != 1:
        return None
    if isinstance(X, np.ndarray):
        return X
    for convert in ("to_pylist", "to_numpy"):  # of pyarrow; of pandas, polars and others
        if hasattr(X, convert):
            return getattr(X, convert)()
    known = hasattr(X, "__len__") and hasattr(X, "__getitem__")
    return X if known and not isinstance(X, torch.Tensor) else None


def _is_missing(item: Any) -> bool:
    return item is None or item is pd.NA or (isinstance(item, float) and math.isnan(item))


def _first_entry(item: Any) -> Any:
    return item[0] if isinstance(item, tuple) and len(item) > 0 else item


def _is_pillow(item: Any) -> bool:
    return hasattr(item, "convert") and hasattr(item, "getbands")


def _is_image_item(item: Any) -> bool:
    item = _first_entry(item)
    if isinstance(item, (str, os.PathLike)) or _is_pillow(item):
        return True
    return getattr(item, "ndim", 0) >= 2


def _shape_of_rows(n_features: int, layout: _Layout) -> tuple[int, ...]:
    shape = layout.image_shape
    known = math.prod(size for size in shape if size != -1)
    if (n_features % known if -1 in shape else n_features != known) or n_features == 0:
        raise ValueError(
            f"image_shape={shape} does not fit the {n_features} features of X: it needs "
            f"{'a multiple of ' if -1 in shape else ''}{known}."
        )
    return tuple(n_features // known if size == -1 else size for size in shape)


def _sample_dtype(dtype: Any) -> np.dtype:
    return np.dtype(np.uint8 if dtype in (torch.uint8, np.uint8) else np.float32)


def _check_dtype(dtype: Any, what: str) -> None:
    floating = (
        dtype.is_floating_point
        if isinstance(dtype, torch.dtype)
        else np.issubdtype(dtype, np.floating)
    )
    if floating or dtype in (torch.uint8, np.uint8):
        return
    x = "X" if what == "X" else "image"  # of a list, each
    if isinstance(dtype, torch.dtype):
        scaled, exact = f"({x}.float() / 257).byte()", f"{x}.float() / 65535"
        same, others = f"{x}.byte()", f"{x}.float()"
    else:
        scaled, exact = f"({x} / 257).astype('uint8')", f"({x} / 65535).astype('float32')"
        same, others = f"{x}.astype('uint8')", f"{x}.astype('float32')"
    if dtype in (torch.uint16, np.uint16):
        advice = (
            f"Of the full range of 16 bits, {scaled} keeps the 8 bits that images are mostly seen "
            f"in; {exact} keeps everything, from 0 to 1. Where 12 bits are used, 4095 is in the "
            "place of 65535"
        )
    else:
        advice = f"Values from 0 to 255 are {same}; {others} keeps others"
    raise ValueError(
        f"{what} has dtype {dtype}; images are uint8 (0 to 255) or floating. {advice}. Give new "
        "images in the same units."
    )


def _check_n_samples(n_samples: int) -> int:
    if n_samples == 0:
        raise ValueError(
            "X is empty: Found array with 0 sample(s) in X while a minimum of 1 is required. Give "
            "at least one image."
        )
    return n_samples
