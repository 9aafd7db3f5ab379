"""Images that threads decode ahead: the same batches, errors and items as one thread gives."""

import io
import threading
import warnings

import numpy as np
import pytest
import torch
from joblib import parallel_config
from PIL import Image

from skfair._images._open import open_images
from skfair.featurize import FrozenEncoderFeaturizer

PIXELS = np.random.default_rng(0).integers(0, 256, size=(45, 5, 4, 3), dtype=np.uint8)
EXPECTED = PIXELS.transpose(0, 3, 1, 2)


def encoded(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{row}.png" for row in range(len(PIXELS))]
    for path, pixels in zip(paths, PIXELS, strict=True):
        path.write_bytes(encoded(pixels))
    return paths


def decoders():
    return [one for one in threading.enumerate() if one.name.startswith("skfair-decode")]


@pytest.mark.parametrize("size", [1, 7, 20, 64])
@pytest.mark.parametrize("n_jobs", [2, 5, -1])
def test_batches_have_the_same_rows_with_any_number_of_threads(n_jobs, size, files):
    found = list(open_images(files).batches(len(files), size, n_jobs))
    assert [start for start, _ in found] == list(range(0, len(files), size))
    np.testing.assert_array_equal(np.concatenate([batch for _, batch in found]), EXPECTED)
    assert decoders() == []


def test_features_do_not_depend_on_the_threads_with_and_without_a_store(files, tmp_path):
    encoder = torch.nn.Conv2d(3, 4, 3)
    X = [files[row] for row in (3, 1, 3, *range(len(files)))]  # one image in several rows
    one = FrozenEncoderFeaturizer(encoder, batch_size=8).fit_transform(X)
    with_threads = FrozenEncoderFeaturizer(encoder, batch_size=8, n_jobs=3)
    np.testing.assert_array_equal(with_threads.fit_transform(X), one)
    stored = FrozenEncoderFeaturizer(encoder, batch_size=8, n_jobs=3, memory=tmp_path)
    np.testing.assert_allclose(stored.fit_transform(X), one, rtol=1e-5)
    assert decoders() == []


def test_the_next_batch_is_fetched_before_the_current_one_is_used(files):
    fetched = []

    class Late(torch.utils.data.Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, row):
            fetched.append(row)
            return files[row]

    batches = open_images(Late()).batches(16, 8, 2)
    next(batches)
    assert fetched[-1] == 15
    batches.close()
    assert decoders() == []


def test_few_batches_are_in_memory_however_many_there_are(files):
    fetched = []

    class Many(torch.utils.data.Dataset):
        def __len__(self):
            return 10_000

        def __getitem__(self, row):
            fetched.append(row)
            return files[row % len(files)]

    batches = open_images(Many()).batches(10_000, 8, 2)
    next(batches)
    batches.close()
    assert len(fetched) <= 1 + 8 * (2 * 2 + 1)  # the first image, two tasks a thread, and one batch


def test_items_are_fetched_in_order_by_the_calling_thread():
    fetched = []

    class Ordered(torch.utils.data.Dataset):
        """As one that reads from a connection of one thread, or draws random numbers."""

        def __len__(self):
            return len(PIXELS)

        def __getitem__(self, row):
            fetched.append((row, threading.current_thread()))
            return encoded(PIXELS[row]), "label"

    images = open_images(Ordered())
    fetched.clear()
    found = [batch for _, batch in images.batches(len(PIXELS), 10, 4)]
    np.testing.assert_array_equal(np.concatenate(found), EXPECTED)
    assert fetched == [(row, threading.main_thread()) for row in range(len(PIXELS))]


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_the_first_bad_image_is_named_as_by_one_thread(n_jobs, files, tmp_path):
    X = [path.read_bytes() for path in files]
    for row in (21, 40):
        X[row] = X[row][:-40]  # of which the head is as it should be
    featurizer = FrozenEncoderFeaturizer(torch.nn.Conv2d(3, 4, 3), batch_size=4, n_jobs=n_jobs)
    with pytest.raises(ValueError, match=r"(?s)X has 2 images of 45 .*X\[21\] is not.*X\[40\]"):
        featurizer.fit_transform(X)
    assert decoders() == []


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_of_two_errors_the_first_row_is_named_also_if_the_later_one_is_found_earlier(n_jobs, files):
    class Faulty(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, row):
            if row == 12:  # found by the calling thread, while threads decode row 3
                raise KeyError("row 12")
            return Image.new("RGB", (9, 9)) if row == small else files[row]

    featurizer = FrozenEncoderFeaturizer(torch.nn.Conv2d(3, 4, 3), n_jobs=n_jobs)
    small = 3
    with pytest.raises(ValueError, match=r"X\[3\] is an image of shape \(3, 9, 9\)"):
        featurizer.fit_transform(Faulty())
    small = 13
    with pytest.raises(KeyError, match="row 12") as caught:
        featurizer.fit_transform(Faulty())
    assert "X[12] raised this error." in caught.value.__notes__
    with pytest.raises(IndexError, match="X had 20 items at first, and has none at 7 now"):
        list(open_images(Shrinking(files)).batches(20, 5, n_jobs))
    assert decoders() == []


class Shrinking(torch.utils.data.Dataset):
    def __init__(self, files):
        self.files = files[:7]

    def __len__(self):
        return 20

    def __getitem__(self, row):
        return self.files[row]


def test_threads_end_if_the_encoder_raises_and_what_was_encoded_is_kept(files, tmp_path):
    seen = []
    may_run = [True, True, False] + [True] * 4  # two batches before the interrupt, four after it

    def encoder(batch):
        if not may_run.pop(0):
            raise KeyboardInterrupt
        seen.extend(batch)
        return batch.mean((2, 3))

    featurizer = FrozenEncoderFeaturizer(
        encoder, batch_size=8, n_jobs=2, memory=tmp_path, encoder_id="means"
    )
    with pytest.raises(KeyboardInterrupt):
        featurizer.fit_transform(files)
    assert decoders() == []
    expected = EXPECTED.mean((2, 3)) / 255
    np.testing.assert_allclose(featurizer.fit_transform(files), expected, rtol=1e-5)
    assert len(seen) == len(files)  # each once


def test_one_picture_in_all_rows_is_decoded_by_one_thread_at_a_time():
    picture = Image.open(io.BytesIO(encoded(PIXELS[0])))  # not loaded yet
    found = [batch for _, batch in open_images([picture] * 64).batches(64, 16, 8)]
    np.testing.assert_array_equal(np.concatenate(found), EXPECTED[[0] * 64])


def test_warnings_of_pillow_come_as_from_one_thread(files):
    # A palette whose transparency is bytes: Pillow warns when it is converted to RGB.
    stream = io.BytesIO()
    image = Image.new("P", (4, 5))
    image.putpalette(list(range(256)) * 3)
    image.save(stream, "PNG", transparency=bytes(range(256)))
    X = [stream.getvalue()] * 20
    found = []
    for n_jobs in (1, 2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            list(open_images(X).batches(20, 8, n_jobs))
        found.append([str(one.message) for one in caught])
    assert len(found[0]) == 21  # the first image is looked at in advance
    assert found[1] == found[0]


def test_none_means_one_thread_unless_joblib_says_more(files, monkeypatch):
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread, "start", lambda thread: (started.append(thread.name), start(thread))[1]
    )
    images = open_images(files)
    list(images.batches(len(files), 8))
    assert started == []
    with parallel_config("threading", n_jobs=2):
        list(images.batches(len(files), 8))
    assert {name.rpartition("_")[0] for name in started} <= {"skfair-decode"}


@pytest.mark.parametrize("n_jobs", [0, 1.5, "all"])
def test_a_number_of_threads_that_makes_no_sense_is_refused(n_jobs, files):
    with pytest.raises(ValueError, match="n_jobs"):
        FrozenEncoderFeaturizer(torch.nn.Conv2d(3, 4, 3), n_jobs=n_jobs).fit_transform(files)
