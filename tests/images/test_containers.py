"""Images in containers on disk: the same pixels as from an array, and never read whole."""

import io
import os
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image

from skfair._images._open import holds_images, open_images
from skfair.featurize import FrozenEncoderFeaturizer

PIXELS = np.random.default_rng(0).integers(0, 256, size=(10, 7, 6, 3), dtype=np.uint8)
EXPECTED = PIXELS.transpose(0, 3, 1, 2)


def encoded(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


BYTES = [encoded(pixels) for pixels in PIXELS]


def check(X):
    assert holds_images(X)
    for n_jobs in (1, 2):
        found = [batch for _, batch in open_images(X).batches(len(PIXELS), 4, n_jobs)]
        np.testing.assert_array_equal(np.concatenate(found), EXPECTED)


RECORDS = [{"bytes": one, "path": f"{row}.png"} for row, one in enumerate(BYTES)]
OF_BYTES = {
    "list": lambda: BYTES,
    "bytearrays": lambda: [bytearray(one) for one in BYTES],
    "objects": lambda: np.array(BYTES, dtype=object),
    "Series": lambda: pd.Series(BYTES),
    "Series of Arrow": lambda: pd.Series(BYTES, dtype=pd.ArrowDtype(pa.binary())),
    "frame": lambda: pd.DataFrame({"jpeg": BYTES}),
    "polars": lambda: pl.Series(BYTES),
    "Arrow": lambda: pa.array(BYTES),
    "large Arrow": lambda: pa.array(BYTES, type=pa.large_binary()),
    "chunks of Arrow": lambda: pa.chunked_array([BYTES[:3], BYTES[3:]]),
    "table of Arrow": lambda: pa.table({"jpeg": BYTES}),
    "records of Arrow": lambda: pa.array(RECORDS),
    "records": lambda: RECORDS,
    "pairs": lambda: [(one, 0) for one in BYTES],
}


@pytest.mark.parametrize("form", OF_BYTES)
def test_bytes_of_image_files_in_any_column(form):
    check(OF_BYTES[form]())


def test_a_column_of_arrow_is_not_copied_whole():
    X = pa.chunked_array([BYTES])
    images = open_images(X)
    assert not isinstance(images._items, list)


def test_records_without_bytes_name_a_file(tmp_path):
    paths = [str(tmp_path / f"{row}.png") for row in range(len(BYTES))]
    for path, content in zip(paths, BYTES, strict=True):
        Path(path).write_bytes(content)
    check([{"bytes": None, "path": path} for path in paths])
    with pytest.raises(ValueError, match=r"X\[1\] is missing"):
        open_images([RECORDS[0], {"bytes": None, "path": None}])


def test_cut_bytes_in_a_parquet_column_are_named(tmp_path):
    content = [*BYTES[:6], BYTES[6][:-30], *BYTES[7:]]
    X = pa.chunked_array([content])
    featurizer = FrozenEncoderFeaturizer(torch.nn.Conv2d(3, 2, 3), n_jobs=2)
    with pytest.raises(ValueError, match=r"^X\[6\] is not an image that can be read"):
        featurizer.fit_transform(X)
    with pytest.raises(ValueError, match=r"(?s)X has 2 images .*X\[0\] is not an image"):
        featurizer.fit_transform([b"left.png", b"right.png"])
    with pytest.raises(TypeError, match=r"'jpeg' holds image files.*X\[\['jpeg'\]\]"):
        featurizer.fit_transform(pd.DataFrame({"label": 0, "jpeg": BYTES}))


def test_addresses_are_opened_by_fsspec():
    system = fsspec.filesystem("memory")
    X = [f"memory://skfair-test/{row}.png" for row in range(len(BYTES))]
    try:
        for path, content in zip(X, BYTES, strict=True):
            system.pipe(path, content)
        check(X)
        with pytest.raises(ValueError, match=r"X\[1\]='memory://none\.png' cannot be opened"):
            open_images([X[0], "memory://none.png"]).read(0, 2)
        with pytest.raises(ValueError, match=r"X\[0\]='no-such://a\.png' cannot be opened"):
            open_images(["no-such://a.png"])
    finally:
        system.rm("/skfair-test", recursive=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_pipe_at_an_address_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for address in ("file://{}", "local://{}", "zip://a.png::{}", "zip://a.png::file://{}"):
        with pytest.raises(ValueError, match="is a pipe, not a file"):
            open_images([address.format(tmp_path / "a.png")])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", BYTES[0])
    (tmp_path / "é b%20#.png").write_bytes(BYTES[0])
    for address in (f"zip://a.png::{tmp_path}/a.zip", f"file://{tmp_path}/é b%20#.png"):
        np.testing.assert_array_equal(open_images([address]).read(0, 1), EXPECTED[:1])


class Sliced:
    """An array of another package, which is read in slices and refuses to become an array."""

    def __init__(self, data):
        self.data, self.asked = data, []
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim

    def __len__(self):
        return len(self.data)

    def __getitem__(self, rows):
        self.asked.append(rows)
        return self.data[rows]

    def __array__(self, *args, **kwargs):
        raise AssertionError("read whole")


def test_arrays_of_other_packages_are_read_in_slices():
    check(Sliced(PIXELS))
    images = Sliced(PIXELS)
    encoder = torch.nn.Conv2d(3, 2, 3)
    features = FrozenEncoderFeaturizer(encoder, batch_size=4).fit_transform(images)
    expected = FrozenEncoderFeaturizer(encoder, batch_size=4).fit_transform(PIXELS)
    np.testing.assert_array_equal(features, expected)
    assert max(one.stop - one.start for one in images.asked) == 4
    rows = np.random.default_rng(0).normal(size=(10, 5)).astype(np.float32)
    on_rows = FrozenEncoderFeaturizer(torch.nn.Linear(5, 2), batch_size=4)
    np.testing.assert_array_equal(on_rows.fit_transform(Sliced(rows)), on_rows.transform(rows))
    assert on_rows.n_features_in_ == 5


def test_an_array_that_gets_shorter_during_a_call_is_refused():
    X = Sliced(PIXELS)
    images = open_images(X)
    X.data = PIXELS[:6]
    with pytest.raises(ValueError, match="X had 10 rows at first, and has now 6"):
        list(images.batches(10, 4))


def test_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    check(zarr.create_array(store=str(tmp_path / "a"), data=PIXELS, chunks=(3, 7, 6, 3)))
    with pytest.raises(ValueError, match="X has 5 dimensions"):
        open_images(zarr.create_array(store=str(tmp_path / "b"), data=PIXELS[None]))
    group = zarr.open_group(tmp_path / "c", mode="w")
    group.create_array("pixels", data=PIXELS)
    with pytest.raises(TypeError, match=r"it is a mapping.*Give one entry, X\['pixels'\]"):
        FrozenEncoderFeaturizer(torch.nn.Conv2d(3, 2, 3)).fit(group)


def test_h5py(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("images", data=PIXELS)
        check(dataset)
    with pytest.raises(TypeError, match=r"X \(Dataset\) cannot be used: its file is closed"):
        FrozenEncoderFeaturizer(torch.nn.Conv2d(3, 2, 3)).fit(dataset)


def test_hugging_face_datasets():
    pytest.importorskip("datasets.arrow_dataset")  # "datasets" may be a folder of tests
    import datasets

    whole = datasets.Dataset.from_dict({"image": BYTES, "label": range(len(BYTES))})
    whole = whole.cast_column("image", datasets.Image())
    formats = [whole.with_format(name) for name in ("torch", "numpy", "arrow", "pandas")]
    for X in (whole, whole["image"], whole.select(range(10)), *formats):
        check(X)
    # What the user's transform makes is what is encoded, and its mode is used.
    inverted = whole.with_transform(
        lambda rows: {"image": [255 - np.asarray(one) for one in rows["image"]]}
    )
    np.testing.assert_array_equal(open_images(inverted).read(0, 10), 255 - EXPECTED)
    # The transform gets the other columns.
    brighter = whole.with_transform(
        lambda rows: {
            "image": [
                np.asarray(one) // 2 + number
                for one, number in zip(rows["image"], rows["label"], strict=True)
            ]
        }
    )
    numbers = np.arange(10, dtype=np.uint8)[:, None, None, None]
    for X in (brighter, brighter["image"]):
        np.testing.assert_array_equal(open_images(X).read(0, 10), EXPECTED // 2 + numbers)
    renamed = whole.with_transform(lambda rows: {"pixels": rows["image"]})
    with pytest.raises(TypeError, match=r"returns 'pixels', and no 'image'\. Give X\.with_format"):
        open_images(renamed)
    grey = open_images(whole.cast_column("image", datasets.Image(mode="L"))).read(0, 1)
    np.testing.assert_array_equal(grey[0, 0], np.asarray(Image.fromarray(PIXELS[0]).convert("L")))
    two = whole.add_column("mask", BYTES).cast_column("mask", datasets.Image())
    with pytest.raises(TypeError, match=r"of which 'image', 'mask' hold images.*X\['image'\]"):
        holds_images(two)
    check(two["mask"])
    with pytest.raises(TypeError, match=r"the columns 'label', none of type Image"):
        holds_images(whole.remove_columns("image"))
