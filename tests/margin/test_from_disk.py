"""Classifiers of features that stay in a file: the same results, in little memory."""

import os
import tracemalloc

import numpy as np
import pytest
import torch

from skfair.adjustment import LogitAdjustedClassifier
from skfair.base import _block_batches
from skfair.base._block_batches import BlockData
from skfair.base._blocks import BlockRows
from skfair.margin import ClusterMarginClassifier, _stages
from skfair.utils._random import own_generators

# Little data and short training overcorrect, and carry no simple bias.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::skfair.utils.{name}Warning")
    for name in ("Overcorrection", "Amplification", "Fallback")
]


def biased(n, width=8, seed=0):
    """Sorted by class, then by an attribute that stands out and mostly equals the class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) * 2 // n
    bias = np.where(rng.random(n) < 0.9, y, 1 - y)
    order = np.lexsort((bias, y))
    y, bias = y[order], bias[order]
    X = rng.normal(size=(n, width))
    X[:, 0] += 6 * bias
    X[:, 1] += 3 * y
    return X.astype(np.float16), y, bias


def mapped(path, X):
    np.save(path, X)
    return np.load(path, mmap_mode="r")


def in_zarr(path, X):
    zarr = pytest.importorskip("zarr")
    array = zarr.open(str(path), mode="w", shape=X.shape, chunks=(70, 5), dtype=X.dtype)
    array[:] = X
    return array


def in_h5py(path, X):
    h5py = pytest.importorskip("h5py")
    return h5py.File(path, "w").create_dataset("features", data=X, chunks=(90, X.shape[1]))


FORMS = {"x.npy": mapped, "x.zarr": in_zarr, "x.h5": in_h5py}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dtype", ["float16", ">f8", "uint8"])
def test_files_give_the_bits_of_arrays(tmp_path, name, dtype):
    X, y, bias = biased(600)
    X = (X * 8 + 100).clip(0, 255).astype(dtype)
    source = FORMS[name](tmp_path / name, X)
    weight = np.arange(len(y)) % 4  # a quarter of the rows is left out
    for classifier in (
        ClusterMarginClassifier(max_epochs=2, amplifier_max_epochs=3, random_state=0),
        LogitAdjustedClassifier(head="linear", random_state=0),
    ):
        outputs = []
        for form in (X, source):
            classifier.fit(form, y, weight, sensitive_features=bias)
            outputs.append([classifier.predict_proba(form), classifier.transform(form)])
        for one, two in zip(*outputs, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", FORMS)
def test_each_pass_of_several_buffers_takes_each_row_once(tmp_path, name, monkeypatch):
    n = 3001
    X, y, _ = biased(n)
    X[:, 2] = np.arange(n)  # exact in float16 up to 2048
    monkeypatch.setattr(_block_batches, "_BUFFER", 8000)
    monkeypatch.setattr(_block_batches, "_RUN", 320)
    kept = np.flatnonzero(np.arange(n) % 3)
    rows = BlockRows(FORMS[name](tmp_path / name, X))[kept]
    data = BlockData(torch.arange(len(kept)), torch.ones(len(kept)), X=rows)
    with own_generators(0):
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(kept)))
        batches = list(data.batches(order, 64))
    assert [len(target) for _, (target, _) in batches] == [64] * (len(kept) // 64) + [16]
    taken = torch.cat([target for _, (target, _) in batches]).numpy()
    np.testing.assert_array_equal(np.sort(taken), np.arange(len(kept)))
    read = torch.cat([inputs["X"] for inputs, _ in batches]).numpy()
    np.testing.assert_array_equal(read, X[kept[taken]].astype(np.float32))
    # The first batches are not from one place of the file, which is sorted by class.
    assert 0.3 < y[kept[taken[:256]]].mean() < 0.7


def test_a_sorted_file_trains_as_well_as_a_full_shuffle(tmp_path, monkeypatch):
    X, y, _ = biased(2000)
    test, y_test, bias_test = biased(2000, seed=1)
    monkeypatch.setattr(_block_batches, "_BUFFER", 8_000)  # a quarter of the file
    monkeypatch.setattr(_block_batches, "_RUN", 512)
    worst = []
    for form in (X, mapped(tmp_path / "x.npy", X)):
        classifier = ClusterMarginClassifier(random_state=0).fit(form, y)
        right = classifier.predict(test) == y_test
        worst.append(
            min(right[(y_test == a) & (bias_test == b)].mean() for a in (0, 1) for b in (0, 1))
        )
    assert worst[1] > worst[0] - 0.05
    assert worst[1] > 0.6


def test_no_copy_of_the_features_is_made(tmp_path, monkeypatch):
    X, y, _ = biased(40_000, width=256)
    source = mapped(tmp_path / "x.npy", X)
    del X
    monkeypatch.setattr(_block_batches, "_BUFFER", 1 << 20)
    monkeypatch.setattr(_stages, "MAX_CLUSTERED", 500)
    classifier = ClusterMarginClassifier(
        n_units=16, max_epochs=1, amplifier_max_epochs=1, batch_size=1000, random_state=0
    )
    classifier.fit(source[::100], y[::100])  # what is imported and compiled at the first fit
    tracemalloc.start()
    try:
        classifier.fit(source, y).predict(source)
        assert tracemalloc.get_traced_memory()[1] < 0.6 * source.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not shorten a mapped file")
def test_a_map_whose_file_was_truncated(tmp_path):
    X, y, _ = biased(1000)
    whole = mapped(tmp_path / "x.npy", X)
    classifier = ClusterMarginClassifier(max_epochs=1, amplifier_max_epochs=1).fit(whole, y)
    os.truncate(tmp_path / "x.npy", X.nbytes // 2)
    for form in (whole, whole[:10]):
        for call in (lambda f: classifier.fit(f, y[: len(f)]), classifier.predict):
            with pytest.raises(ValueError, match=r"X is a memory map of .*x\.npy.* became shorter"):
                call(form)


@pytest.mark.parametrize(
    ("value", "dtype", "reason"),
    [
        (np.nan, "float32", "not finite"),
        (1e5, "float16", "no number above 65,504"),
        (1e300, "float64", "float32 cannot hold"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bad_values_are_named_before_training(tmp_path, value, dtype, reason):
    X, y, _ = biased(3000)
    X = X.astype(dtype)
    X[1999, 4] = value
    source = mapped(tmp_path / "x.npy", X)
    for model in (ClusterMarginClassifier(), LogitAdjustedClassifier()):
        with pytest.raises(ValueError, match=f"^X holds .* row 1999, column 4, .*{reason}"):
            model.fit(source, y)


def test_chunks_that_were_never_written(tmp_path):
    X, y, _ = biased(600)
    array = in_zarr(tmp_path / "x.zarr", X)
    part = pytest.importorskip("zarr").open(
        str(tmp_path / "y.zarr"), mode="w", shape=X.shape, chunks=(100, 8), dtype=X.dtype
    )
    part[:500] = array[:500]
    with pytest.warns(UserWarning, match=r"6 chunks, and 1 of them were never written"):
        ClusterMarginClassifier(loss="cross_entropy", max_epochs=1).fit(part, y)
