"""The view on images: forms, layouts, slices, and errors that name the cure."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skfair._images._array import release_pages
from skfair._images._layout import check_image_shape
from skfair._images._open import holds_images, open_images

UINT8 = np.random.default_rng(0).integers(0, 256, size=(5, 3, 8, 6), dtype=np.uint8)


@pytest.fixture
def files(tmp_path):
    """PNG files (lossless) with the content of UINT8."""
    paths = []
    for row, image in enumerate(UINT8):
        paths.append(tmp_path / f"{row}.png")
        Image.fromarray(image.transpose(1, 2, 0)).save(paths[-1])
    return paths


class Pairs(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.images[row], row % 2


@pytest.mark.parametrize(
    "form",
    [
        lambda files: UINT8,
        lambda files: UINT8.transpose(0, 2, 3, 1),
        lambda files: torch.from_numpy(UINT8.copy()),
        lambda files: list(UINT8),
        lambda files: list(UINT8.transpose(0, 2, 3, 1)),
        lambda files: files,
        lambda files: [str(file) for file in files],
        lambda files: np.array([str(file) for file in files]),
        lambda files: pd.Series([str(file) for file in files], index=[7, 5, 3, 1, 9]),
        lambda files: [Image.fromarray(image.transpose(1, 2, 0)) for image in UINT8],
        lambda files: Pairs(torch.from_numpy(UINT8.copy())),
        lambda files: Pairs(files),
        lambda files: [(image, 0) for image in UINT8],
    ],
)
def test_all_forms_give_the_same_images(form, files):
    X = form(files)
    assert holds_images(X)
    images = open_images(X)
    assert images.n_samples == 5
    assert images.shape == (3, 8, 6)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images.read(0, 5), UINT8)
    part = images.read(1, 3)
    np.testing.assert_array_equal(part, UINT8[1:3])
    assert part.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, torch.bfloat16])
def test_floats_come_out_as_float32(dtype):
    X = np.random.default_rng(0).integers(0, 9, size=(4, 1, 5, 5)) / 8  # exact in every type
    typed = torch.tensor(X, dtype=dtype) if isinstance(dtype, torch.dtype) else X.astype(dtype)
    batch = open_images(typed).read(0, 4)
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, X)


def test_what_is_read_is_not_shared():
    X = np.zeros((3, 1, 4, 5), dtype=np.float32)
    for form in (X, torch.from_numpy(X)):
        open_images(form).read(0, 3)[...] = 1
    assert not X.any()


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_slices_put_together_are_the_whole(data):
    n = data.draw(st.integers(1, 12))
    cuts = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=4))})
    X = np.random.default_rng(0).random((n, 6, 5, 3), dtype=np.float32)
    images = open_images(X)
    parts = [images.read(a, b) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), X.transpose(0, 3, 1, 2))


def test_rows_are_reshaped_as_their_layout_says():
    flat_first = UINT8.reshape(5, -1)
    flat_last = UINT8.transpose(0, 2, 3, 1).reshape(5, -1)
    first = open_images(flat_first, image_shape=(3, 8, 6))
    last = open_images(flat_last, image_shape=(3, 8, 6), data_format="channels_last")
    assert first.shape == last.shape == (3, 8, 6)
    np.testing.assert_array_equal(first.read(0, 5), UINT8)
    np.testing.assert_array_equal(last.read(0, 5), UINT8)
    assert open_images(flat_first, image_shape=(3, -1, 6)).shape == (3, 8, 6)
    assert open_images(flat_first).shape == (144,)


def test_rows_of_integers_are_cast():
    images = open_images(np.arange(6).reshape(2, 3))
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images.read(1, 2), [[3, 4, 5]])


@pytest.mark.parametrize(
    "shape, known, expected",
    [
        ((3, 9, 7), None, (3, 9, 7)),
        ((9, 7, 4), None, (4, 9, 7)),
        ((3, 9, 3), (3, 3, 9), (3, 3, 9)),
        ((1, 3, 9), None, (1, 3, 9)),
        ((12, 9, 7), (12, 9, 7), (12, 9, 7)),
        ((9, 7, 12), (12, 9, 7), (12, 9, 7)),
        ((9, 7, 12), (12, -1, 7), (12, 9, 7)),
    ],
)
def test_layout_is_found(shape, known, expected):
    X = np.zeros((2, *shape), dtype=np.uint8)
    assert open_images(X, image_shape=known).shape == expected


@pytest.mark.parametrize("shape", [(3, 9, 3), (1, 5, 4), (12, 9, 7)])
def test_ambiguous_layout_names_the_parameter(shape):
    X = np.zeros((2, *shape), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"channel axis cannot be told.*data_format="):
        open_images(X)
    assert open_images(X, data_format="channels_first").shape == shape
    assert open_images(X, data_format="channels_last").shape == (shape[2], shape[0], shape[1])


def test_a_cube_is_ambiguous_even_with_its_shape():
    with pytest.raises(ValueError, match="data_format="):
        open_images(np.zeros((2, 3, 3, 3), dtype=np.uint8), image_shape=(3, 3, 3))


@pytest.mark.parametrize("shape", [(1, 8, 6), (3, 9, 6), (4, 8, 6)])
def test_another_shape_than_before(shape, files):
    for X in (np.zeros((2, *shape), dtype=np.uint8), [np.zeros(shape, dtype=np.uint8)]):
        with pytest.raises(ValueError, match=r"fit saw \(3, 8, 6\)"):
            open_images(X, expected_shape=(3, 8, 6))
    with pytest.raises(ValueError, match=r"0\.png.*fit saw \(3, 9, 9\)"):
        open_images(files, expected_shape=(3, 9, 9))
    with pytest.raises(ValueError, match=r"image_shape says \(3, 5, 5\)"):
        open_images(UINT8, image_shape=(3, 5, 5))


def test_files_are_resized_and_converted(files):
    Image.new("RGB", (20, 30), (10, 20, 30)).save(files[1])
    with pytest.raises(ValueError, match=r"2 sizes, from 6 x 8 .*20 x 30 \(X\[1\] = .*1\.png"):
        open_images(files)
    resized = open_images(files, image_shape=(3, 4, 2)).read(0, 5)
    assert resized.shape == (5, 3, 4, 2)
    np.testing.assert_array_equal(resized[1], np.full((3, 4, 2), [[[10]], [[20]], [[30]]]))
    grey = open_images(files, image_shape=(1, 8, 6)).read(0, 1)
    np.testing.assert_array_equal(grey[0, 0], np.asarray(Image.open(files[0]).convert("L")))
    assert open_images(files[:1], expected_shape=(1, 8, 6)).read(0, 1).shape == (1, 1, 8, 6)


def test_grey_arrays_in_a_sequence_get_their_channel():
    assert open_images([np.zeros((5, 7), dtype=np.uint8)] * 2).shape == (1, 5, 7)


def test_unreadable_file_is_named_with_its_row(files):
    files[3].write_text("not an image")
    with pytest.raises(ValueError, match=r"X\[3\] = .*3\.png.* is not an image"):
        open_images(files).read(2, 5)
    files[3].unlink()
    with pytest.raises(ValueError, match=r"X\[3\]=.*3\.png.* does not exist"):
        open_images(files).read(0, 5)
    files[3].write_bytes(files[2].read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"X\[3\] = .*3\.png.* is not an image"):
        open_images(files).read(0, 5)


def test_files_of_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png.*16 or more bits"):
        open_images([tmp_path / "deep.png"])


@pytest.mark.parametrize("dtype", [np.int64, bool, complex, object])
def test_other_types_are_refused(dtype):
    X = np.zeros((2, 3, 5, 5)).astype(dtype)
    for form in (X, list(X)):
        with pytest.raises(ValueError, match=r"uint8 .* or floating"):
            open_images(form)


def test_one_type_and_shape_per_call():
    X = [np.zeros((3, 5, 5), dtype=np.uint8), np.zeros((3, 5, 5), dtype=np.float32)]
    with pytest.raises(ValueError, match=r"X\[1\].*float32.*first one.*uint8"):
        open_images(X).read(0, 2)


@pytest.mark.parametrize("bad, word", [(np.nan, "NaN"), (np.inf, "infinity"), (1e300, "too large")])
def test_values_that_are_not_finite(bad, word):
    X = np.zeros((6, 3, 5, 7))
    X[4, 1, 2, 3] = bad
    images = open_images(X)
    assert images.read(0, 4).shape == (4, 3, 5, 7)
    with pytest.raises(ValueError, match=rf"Input X contains .*{word}.*row 4"):
        images.read(2, 6)


@pytest.mark.parametrize("shape", [(2, 2, 2, 3, 3), (2,) * 6])
def test_wrong_number_of_dimensions(shape):
    with pytest.raises(ValueError, match=f"X has {len(shape)} dimensions"):
        open_images(np.zeros(shape, dtype=np.uint8))


def test_empty():
    for X in (np.zeros((0, 3, 8, 8), dtype=np.uint8), [], Pairs([])):
        with pytest.raises(ValueError, match="0 sample"):
            open_images(X)
    with pytest.raises(ValueError, match="without pixels"):
        open_images(np.zeros((2, 3, 0, 8), dtype=np.uint8))


def test_items_that_are_no_images():
    with pytest.raises(ValueError, match=r"X\[0\] is a ndarray of shape \(2,\)"):
        open_images([np.zeros(2)])


def test_dataset_without_random_access():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(UINT8)

    with pytest.raises(TypeError, match="map-style"):
        open_images(Stream())


@pytest.mark.parametrize("shape", [(3, 8), (3, 0, 8), (3, -1, -1), (3, 8.0, 8), (3, -2, 8), "abc"])
def test_image_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match="image_shape="):
        check_image_shape(shape)


def test_image_shape_that_does_not_fit_the_rows():
    with pytest.raises(ValueError, match=r"does not fit the 10 features.*needs 12"):
        open_images(np.zeros((2, 10)), image_shape=(3, 2, 2))
    with pytest.raises(ValueError, match="multiple of 6"):
        open_images(np.zeros((2, 10)), image_shape=(3, -1, 2))


@pytest.mark.parametrize("X", [np.zeros((3, 4)), [[1.0, 2.0]], [(1.0, 2.0)], np.zeros(3)])
def test_rows_are_left_to_scikit_learn(X):
    assert not holds_images(X)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_pages_are_released_without_loss(mode, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(5000, dtype=np.float32))
    array = np.load(tmp_path / "x.npy", mmap_mode=mode)
    if mode != "r":
        array[:] = 3
    release_pages(array)
    release_pages(array[10:20])
    release_pages(np.asarray(array))
    assert (array == (0 if mode == "r" else 3)).all()


@pytest.mark.parametrize(
    "X, parameters",
    [
        (UINT8, {}),
        (UINT8 / 255, {}),
        (UINT8.transpose(0, 2, 3, 1), {}),
        (UINT8.reshape(5, -1), {"image_shape": (3, 8, 6)}),
        (UINT8.reshape(5, -1).astype(np.int64), {"image_shape": (3, 8, 6)}),
        (
            UINT8.transpose(0, 2, 3, 1).reshape(5, -1),
            {"image_shape": (3, 8, 6), "data_format": "channels_last"},
        ),
        (UINT8[:, :, ::-1], {}),
    ],
    ids=["bytes", "doubles", "channels last", "rows", "integers", "rows, last", "a view"],
)
def test_an_array_is_given_as_it_is_and_channels_first(X, parameters):
    images = open_images(X, **parameters)
    same, view = images.to_array(copy=False)
    assert same is X
    first = images.read(0, 5)
    np.testing.assert_array_equal(view.astype(first.dtype), first)
    copied, view = images.to_array(copy=True)
    np.testing.assert_array_equal(copied, X)
    assert copied.dtype == X.dtype
    assert not np.shares_memory(copied, X)
    before = X.copy()
    view[2] = 1  # what is written to the view is in the array
    assert not np.array_equal(copied, X)
    np.testing.assert_array_equal(copied[[0, 1, 3, 4]], X[[0, 1, 3, 4]])
    np.testing.assert_array_equal(X, before)


def test_arrays_of_tensors_and_memory_maps_share_their_memory(tmp_path):
    tensor = torch.from_numpy(UINT8.copy())
    array, _ = open_images(tensor).to_array(copy=False)
    assert np.shares_memory(array, tensor.numpy())
    np.save(tmp_path / "images.npy", UINT8)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert np.shares_memory(open_images(mapped).to_array(copy=False)[0], mapped)
    copied, view = open_images(mapped).to_array(copy=True)
    view[:] = 0  # a copy can be written to, whatever the map
    assert type(copied) is np.ndarray
    np.testing.assert_array_equal(mapped, UINT8)


@pytest.mark.parametrize("copy", [True, False])
def test_files_and_datasets_are_read_into_an_array(files, copy):
    for X in (files, Pairs(files), Pairs(torch.from_numpy(UINT8.copy())), list(UINT8)):
        array, view = open_images(X).to_array(copy=copy)
        np.testing.assert_array_equal(array, UINT8)
        assert array.dtype == np.uint8
        assert np.shares_memory(array, view)
        assert view.shape == UINT8.shape
