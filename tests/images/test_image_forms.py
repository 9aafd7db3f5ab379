"""Forms in which other packages have images: taken, or refused with what to give instead."""

import io
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image

from skfair._images._open import holds_images, open_images

PIXELS = np.random.default_rng(0).integers(0, 256, size=(4, 3, 8, 6), dtype=np.uint8)


@pytest.fixture
def files(tmp_path):
    paths = [str(tmp_path / f"{row}.png") for row in range(len(PIXELS))]
    for path, image in zip(paths, PIXELS, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return paths


class Column(Sequence):
    """A column that is read item by item, as those of Hugging Face's datasets."""

    def __init__(self, items):
        self.items, self.asked = items, []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        self.asked.append(row)
        return self.items[row]


class OfArrow:
    """A column as pyarrow has it."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        raise AssertionError("a scalar of pyarrow is no path")

    def to_pylist(self):
        return list(self.items)


COLUMNS = {
    "Series": pd.Series,
    "Series with labels": lambda files: pd.Series(files, index=[3, 2, 1, 0]),
    "categories": lambda files: pd.Series(files, dtype="category"),
    "Index": pd.Index,
    "polars": pl.Series,
    "pyarrow": OfArrow,
    "array": np.array,
    "column of objects": lambda files: np.array(files, dtype=object)[:, None],
    "frame": lambda files: pd.DataFrame({"path": files}, index=list("abcd")),
    "polars frame": lambda files: pl.DataFrame({"path": files}),
    "column of a dataset": Column,
    "deque": deque,
}


@pytest.mark.parametrize("form", COLUMNS)
def test_files_in_any_column(form, files):
    X = COLUMNS[form](files)
    assert holds_images(X)
    np.testing.assert_array_equal(open_images(X).read(0, 4), PIXELS)


@pytest.mark.parametrize("form", ["Series", "column of a dataset", "deque"])
def test_pictures_in_a_column(form, files):
    X = COLUMNS[form]([Image.open(io.BytesIO(Path(file).read_bytes())) for file in files])
    np.testing.assert_array_equal(open_images(X).read(0, 4), PIXELS)


def test_of_a_column_that_reads_its_items_none_is_read_before_it_is_needed(files):
    column = Column(files)
    images = open_images(column)
    assert set(column.asked) == {0}
    column.asked.clear()
    images.read(2, 4)
    assert column.asked == [2, 3]


def test_a_column_of_numbers_is_made_of_rows():
    for X in (pd.DataFrame({"x": [1.0, 2.0]}), pl.DataFrame({"x": [1.0, 2.0]}), np.ones((2, 1))):
        assert not holds_images(X)
        assert open_images(np.asarray(X)).shape == (1,)


class Records(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, row):
        return {"image": PIXELS[row], "label": 0}


class HuggingFace:
    column_names, features = ("image", "label"), {}

    def __getitem__(self, row):
        raise AssertionError("its items are not looked at")


class Dask:
    __dask_graph__ = ndim = 1


NOT_TAKEN = {
    "a loader of batches": (
        lambda files: torch.utils.data.DataLoader(torch.zeros(2, 3, 4, 4)),
        r"^X \(DataLoader\) .*Give its dataset, X\.dataset",
    ),
    "a generator": (iter, r"X \(list_iterator\) .*no length.*list\(X\)"),
    "a set": (set, r"X \(set\) .*no order.*sorted\(X\)"),
    "a dict": (lambda files: {"path": files}, r"X \(dict\) .*Give one entry, X\['path'\]"),
    "one picture": (lambda files: Image.open(files[0]).copy(), r"it is one image.*Give \[X\]"),
    "one path": (lambda files: files[0], r"is a file.*Give a single image as \[path\]"),
    "no dimension": (lambda files: np.array(files[0]), r"\[X\.item\(\)\]"),
    "bytes": (lambda files: b"GIF", r"X \(bytes\) .*several images.*give \[X\]"),
    "a list of bytes": (lambda files: [b"GIF"], r"X\[0\] is not an image that can be read"),
    "records": (lambda files: [{"image": 1, "label": 2}], r"X\[0\] is a dict .*item\['image'\]"),
    "a dataset of records": (lambda files: Records(), r"X\[0\] is a dict .*item\['image'\]"),
    "a table": (lambda files: HuggingFace(), r"has the columns 'image', 'label'.*X\['image'\]"),
    "a lazy table": (lambda files: pl.LazyFrame({"path": files}), r"X\.collect\(\)"),
    "a lazy column": (lambda files: Dask(), r"X \(Dask\) .*X\.compute\(\)"),
    "rows of one path": (lambda files: [[file] for file in files], r"\[row\[0\] for row in X\]"),
    "two columns": (
        lambda files: pd.DataFrame({"path": files, "age": 1}),
        r"X has 2 columns, and 'path' holds image files.*X\[\['path'\]\]",
    ),
    "two columns of polars": (
        lambda files: pl.DataFrame({"age": [1] * 4, "path": files}),
        r"and 'path' holds image files",
    ),
    "nothing": (lambda files: None, r"X \(NoneType\) cannot be used: expected images.*a folder"),
    "an empty list": (lambda files: [], r"X is empty.*at least one image"),
    "an empty Series": (lambda files: pd.Series([], dtype=object), r"X is empty"),
}


@pytest.mark.parametrize("form", NOT_TAKEN)
def test_what_cannot_be_taken_is_refused_with_what_to_give(form, files):
    make, message = NOT_TAKEN[form]
    with pytest.raises((TypeError, ValueError), match=f"(?s){message}"):
        holds_images(make(files)) and open_images(make(files))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_files_are_named_with_those_that_cannot_be_read(missing, files, tmp_path):
    damaged = tmp_path / "damaged.png"
    whole = Path(files[0]).read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])  # of which the head is as it should be
    X = [missing, *files, "none.png", damaged]
    assert holds_images(X)
    with pytest.raises(ValueError, match=r"^X has 3 images of 7 that cannot be read") as error:
        open_images(X)
    assert "X[0] is missing. Remove the row from X" in str(error.value)
    assert "X[5]" in str(error.value)
    assert "damaged.png" in str(error.value)


def test_rows_that_are_not_named_one_by_one_are_given_by_their_numbers(files):
    bad = [*range(12), 14, 15, 17]
    X = ["none.png" if row in bad else files[0] for row in range(20)]
    with pytest.raises(ValueError, match=r"- and 5 more, rows 10 to 11, 14 to 15, 17$"):
        open_images(X)
