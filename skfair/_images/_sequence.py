"""Images from a sequence of files, Pillow images or arrays, read one by one."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, NoReturn

import numpy as np
import torch

from skfair._images._ahead import count_threads, run_ahead
from skfair._images._containers import ArrowColumn
from skfair._images._files import (
    UnreadableImageError,
    check_depth,
    opened_image,
    oriented_size,
    pixels_of,
)
from skfair._images._forms import check_item, is_pillow
from skfair._images._layout import Layout, check_dtype, check_n_samples, sample_dtype
from skfair._images._sources import is_address, is_encoded, name_of, picture_of
from skfair._images._view import Images
from skfair.utils._arrays import as_numpy, item_at

_MOST_NAMED = 10
_MOST_RANGES = 200  # ranges of row numbers in one message
_MOST_LOADED = 1000  # images whose pixels are read as well, once one bad image is known
_ROWS_OF_A_TASK = 8  # milliseconds of decoding, beside which starting a task costs nothing


class ImageSequence(Images):
    """Files, Pillow images or arrays of one image, fetched one by one."""

    def __init__(self, items: Any, layout: Layout):
        self._items = items
        self._layout = layout
        self.n_samples = check_n_samples(len(items))
        # An image may be in several rows, and Pillow must not load it in two threads at once.
        self._locks = [Lock() for _ in range(64)]
        # An item of any other sequence may be slow to fetch, or may raise.
        self._at_hand = isinstance(items, (list, tuple, np.ndarray, ArrowColumn))
        if self._at_hand and is_address(picture_of(items[0])):
            self._at_hand = False
        if self._at_hand:
            self._survey()
        with self._all_named():
            first = self._load(item_at(items, 0), 0)
        self.shape = first.shape
        self.dtype = first.dtype

    def to_array(self, *, copy: bool) -> tuple[np.ndarray, np.ndarray]:
        array = self.read(0, self.n_samples)
        return array, array

    def _survey(self) -> None:
        """Read the head of each file, to report bad files and differing sizes before any work."""
        sizes: dict[tuple[int, int], list[int]] = {}
        errors = {}
        for row in range(self.n_samples):
            item = picture_of(self._items[row])
            try:
                check_item(item, f"X[{row}]")
                if is_encoded(item):
                    with opened_image(item, row) as image:
                        check_depth(image, name_of(item, row))
                        size = oriented_size(image)
                elif is_pillow(item):
                    check_depth(item, name_of(item, row))
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
                f"({self._name(sizes[large][0])}), width x height. All images of one call have one "
                "shape. Pass image_shape=(channels, height, width), to which files are resized, "
                f"for instance image_shape=(3, {height}, {width}), near the median. resize='pad' "
                "or 'crop' keeps the ratio of their sides."
            )

    def batches(
        self, n_rows: int, size: int, n_jobs: int | None = None
    ) -> Generator[tuple[int, np.ndarray]]:
        n_threads = 1 if n_rows == 1 else count_threads(n_jobs)
        if n_threads == 1:
            yield from super().batches(n_rows, size)
            return
        ahead = run_ahead(self._tasks(n_rows, size), n_threads)
        try:
            with self._all_named():
                for start, batch in ahead:
                    yield start, self._checked(batch, start, start + len(batch))
        finally:
            ahead.close()

    def _tasks(
        self, n_rows: int, size: int
    ) -> Iterator[tuple[tuple[int, np.ndarray], list[Callable[[], object]]]]:
        """Make batches, and the tasks that decode images into them.

        Items are fetched here, in order and by one thread: the code of a data set may depend on
        both. An error of an item is raised when its turn comes.
        """
        for start in range(0, n_rows, size):
            stop = min(start + size, n_rows)
            batch = np.empty((stop - start, *self.shape), dtype=self.dtype)
            tasks: list[Callable[[], object]] = []
            for first in range(start, stop, _ROWS_OF_A_TASK):
                rows = range(first, min(first + _ROWS_OF_A_TASK, stop))
                items: list[Any] = []
                error = None
                try:
                    for row in rows:
                        items.append(self._fetch(row))
                except Exception as raised:
                    error = raised
                part = batch[first - start : rows.stop - start]
                tasks.append(partial(self._decode, part, first, _replay(items, error)))
                if error is not None:
                    yield (start, batch), tasks
                    return
            yield (start, batch), tasks

    def _read(self, start: int, stop: int) -> np.ndarray:
        batch = np.empty((stop - start, *self.shape), dtype=self.dtype)
        with self._all_named():
            self._decode(batch, start, map(self._fetch, range(start, stop)))
        return batch

    def _decode(self, batch: np.ndarray, start: int, items: Iterable[Any]) -> None:
        """Decode items into a batch; any thread may do that."""
        for row, item in enumerate(items, start):
            image = self._load(item, row)
            if image.shape != self.shape or image.dtype != self.dtype:
                raise ValueError(
                    f"{name_of(picture_of(item), row)} is an image of shape {image.shape}, "
                    f"{image.dtype}; the first one has {self.shape}, {self.dtype} (channels, "
                    "height, width). All images of one call have one shape and dtype: "
                    "image_shape=(channels, height, width) resizes image files."
                )
            batch[row - start] = image

    def _fetch(self, row: int) -> Any:
        try:
            return item_at(self._items, row)
        except IndexError as error:
            raise IndexError(
                f"X had {self.n_samples} items at first, and has none at {row} now: {error}. "
                "Do not change X during a call."
            ) from error

    @contextmanager
    def _all_named(self) -> Iterator[None]:
        """If an image cannot be read, name all images after it that cannot be read either."""
        try:
            yield
            return
        except UnreadableImageError as error:
            if not self._at_hand:
                raise
            errors = {error.row: str(error)}
        self._name_all(errors, range(min(errors) + 1, self.n_samples))

    def _name_all(self, errors: dict[int, str], others: range) -> NoReturn:
        """Try the images of `others`, and raise one error that names all unreadable images."""
        for row in others:
            if row in errors:
                continue
            try:
                self._load(self._items[row], row)
            except UnreadableImageError as error:
                errors[row] = str(error)
            except ValueError:
                pass  # its turn comes once the unreadable images are mended
        rows = sorted(errors)
        if len(rows) == 1:
            raise UnreadableImageError(errors[rows[0]])
        named = "\n".join(f"- {errors[row]}" for row in rows[:_MOST_NAMED])
        rest = rows[_MOST_NAMED:]
        more = f"\n- and {len(rest)} more, rows {_in_ranges(rest)}" if rest else ""
        raise UnreadableImageError(
            f"X has {len(rows)} images of {self.n_samples} that cannot be read. Repair them, or "
            f"remove them from X and from everything with the same rows:\n{named}{more}"
        )

    def _load(self, item: Any, row: int) -> np.ndarray:
        try:
            return self._loaded(picture_of(item), row)
        except UnreadableImageError as error:
            error.row = row
            raise

    def _loaded(self, image: Any, row: int) -> np.ndarray:
        name = name_of(image, row)
        check_item(image, f"X[{row}]")
        if is_encoded(image):
            with opened_image(image, row) as opened:
                array = self._from_pillow(opened, name)
        elif is_pillow(image):
            shared = getattr(image, "fp", None) or image  # two images may share an open file
            with self._locks[id(shared) // 16 % len(self._locks)]:
                array = self._from_pillow(image, name)
        else:
            return self._from_array(image, name)
        self._layout.check(array.shape, name)
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
                f"{name} is a {type(image).__name__} of shape {array.shape}; expected an "
                "image: a file, a Pillow image, or an array of 2 or 3 dimensions."
            )
        given = image if isinstance(image, torch.Tensor) else array
        check_dtype(given.dtype, name)
        with np.errstate(over="ignore"):
            return array.astype(sample_dtype(array.dtype), copy=False)

    def _name(self, row: int) -> str:
        return name_of(picture_of(self._items[row]), row)


def _replay(items: list[Any], error: Exception | None) -> Iterator[Any]:
    yield from items
    if error is not None:
        raise error


def _in_ranges(rows: list[int]) -> str:
    """Name sorted row numbers as ranges, such as "2, 5 to 9"."""
    starts = [i for i, row in enumerate(rows) if i == 0 or rows[i - 1] != row - 1]
    ends = [*(i - 1 for i in starts[1:]), len(rows) - 1]
    words = [
        f"{rows[a]}" if a == b else f"{rows[a]} to {rows[b]}"
        for a, b in zip(starts, ends, strict=True)
    ]
    return ", ".join(words[:_MOST_RANGES] + ["..."] * (len(words) > _MOST_RANGES))
