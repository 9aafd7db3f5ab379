"""Images in dask collections, on a cluster of two processes."""

import functools
import os
import pickle
import re
import signal
from concurrent.futures import CancelledError
from pathlib import Path

import dask
import dask.array as da
import dask.bag as db
import distributed
import joblib
import numpy as np
import pytest
import sklearn
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from skfair.featurize import FrozenEncoderFeaturizer
from skfair.featurize._shards import Shards, write_shard

# The tests below start one cluster. distributed warns of clocks and of memory that others use.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:distributed")
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)


def network(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # A width that is no multiple of a vector's length: rounding depends on rows and places.
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 517), nn.GELU(), nn.Linear(517, 29)).to(
            dtype
        )


def lazy(images, *sizes):
    return da.from_array(images, chunks=(sizes, *images.shape[1:]))


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{row:02}.png" for row in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return [str(path) for path in paths]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_size", [3, 16])
def test_partitions_and_threads_do_not_matter(dtype, batch_size):
    featurizer = FrozenEncoderFeaturizer(network(dtype), batch_size=batch_size).fit(IMAGES)
    n_threads = torch.get_num_threads()
    once = featurizer.transform(lazy(IMAGES, 50))
    assert (once.shape, once.dtype, once.chunks) == ((50, 29), np.float32, ((50,), (29,)))
    once = once.compute(scheduler="synchronous")
    np.testing.assert_allclose(once, featurizer.transform(IMAGES), atol=1e-6)
    for sizes in ([1] * 50, [7] * 7 + [1], [0, 49, 0, 1]):
        parts = featurizer.transform(lazy(IMAGES, *sizes)).compute(scheduler="threads")
        np.testing.assert_array_equal(parts, once)
    assert torch.get_num_threads() == n_threads


def test_nothing_is_computed_before_it_is_asked_for():
    def fail(block):
        raise AssertionError("computed")

    X = lazy(IMAGES, 25, 25).map_blocks(fail, dtype=IMAGES.dtype, meta=IMAGES[:0])
    featurizer = FrozenEncoderFeaturizer(network()).fit(IMAGES)
    features = featurizer.transform(X)
    with pytest.raises(AssertionError, match="computed"):
        features.compute(scheduler="synchronous")


def test_partitions_are_arrays_where_transform_returns_frames():
    features = FrozenEncoderFeaturizer(network()).fit(IMAGES).transform(lazy(IMAGES, 25, 25))
    with sklearn.config_context(transform_output="pandas"):
        first = features.blocks[0].compute(scheduler="synchronous")
    assert isinstance(first, np.ndarray)
    assert first.shape == (25, 29)


def test_fit_reads_the_first_image_only(files):
    read = []

    def note(path):
        read.append(path)
        return path

    bag = db.from_sequence(files, npartitions=5).map(note)
    with dask.config.set(scheduler="synchronous"):
        features = FrozenEncoderFeaturizer(network()).fit_transform(bag)
        assert read == files[:1]
        assert features.shape[1:] == (29,)
        assert np.isnan(features.shape[0])
        here = FrozenEncoderFeaturizer(network(), batch_size=1).fit_transform(IMAGES)
        np.testing.assert_allclose(features.compute(), here, atol=1e-6)


def test_the_graph_holds_the_encoder_once():
    featurizer = FrozenEncoderFeaturizer(network()).fit(IMAGES)
    one = len(pickle.dumps(featurizer))

    def size(n_parts):
        X = da.zeros((n_parts, 3, 8, 8), chunks=(1, 3, 8, 8), dtype=np.uint8)
        return len(distributed.protocol.pickle.dumps(featurizer.transform(X).dask))

    assert size(50) < 2 * one
    assert size(100) - size(50) < 50 * one / 20


def test_one_worker_and_two_give_the_same_bits(client, tmp_path):
    featurizer = FrozenEncoderFeaturizer(network(torch.float64)).fit(IMAGES)
    here = featurizer.transform(lazy(IMAGES, 50)).compute(scheduler="synchronous")
    worker = next(iter(client.scheduler_info()["workers"]))
    features = featurizer.transform(lazy(IMAGES, *[5] * 10))
    alone = client.compute(features, workers=[worker], allow_other_workers=False).result()
    together = featurizer.transform(lazy(IMAGES, *[6] * 8, 2)).compute()
    np.testing.assert_array_equal(alone, here)
    np.testing.assert_array_equal(together, here)


class Loaded:
    """An encoder that notes where it was loaded and what it encoded."""

    def __init__(self, log):
        self.log = log

    def note(self, what):
        with open(self.log, "a") as file:
            file.write(f"{what} {os.getpid()}\n")

    def __setstate__(self, state):
        self.__dict__ = state
        self.note("loaded")

    def __call__(self, batch):
        for image in batch:
            self.note(f"encoded-{image.tobytes().hex()}")
        return batch.reshape(len(batch), -1)[:, :5] * 2 - 1


def lines(log):
    return [line.split() for line in Path(log).read_text().splitlines()]


def test_workers_do_not_load_the_encoder_with_each_task(client, tmp_path):
    log = tmp_path / "log"
    featurizer = FrozenEncoderFeaturizer(Loaded(log)).fit(IMAGES)
    featurizer.transform(lazy(IMAGES, *[1] * 50)).compute()
    loads = [pid for what, pid in lines(log) if what == "loaded"]
    encoders = {pid for what, pid in lines(log) if what != "loaded"} - {str(os.getpid())}
    assert encoders  # one worker may be fast enough for all partitions
    # Of 50 tasks; dask sometimes moves a task between workers after it was sent.
    assert all(1 <= loads.count(pid) <= 2 for pid in encoders)


def die_once(flag, path):
    if path.endswith("25.png") and not os.path.exists(flag):
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def test_a_killed_worker_costs_its_partition(client, files, tmp_path):
    memory = tmp_path / "features"
    memory.mkdir()
    featurizer = FrozenEncoderFeaturizer(network(), memory=memory).fit(files[:1])
    bag = db.from_sequence(files, npartitions=10).map(
        functools.partial(die_once, str(tmp_path / "flag"))
    )
    features = featurizer.transform(bag).compute()
    assert (tmp_path / "flag").exists()
    plain = FrozenEncoderFeaturizer(network()).fit(files[:1])
    whole = plain.transform(db.from_sequence(files, npartitions=1))
    np.testing.assert_array_equal(features, whole.compute(scheduler="synchronous"))
    assert len(list(memory.glob("*.shard"))) == 10


def die(path):
    if path.endswith("25.png"):
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def test_a_partition_that_kills_all_workers_is_an_error(client, files, monkeypatch):
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 1)  # both workers
    featurizer = FrozenEncoderFeaturizer(network()).fit(files[:1])
    deadly = featurizer.transform(db.from_sequence(files, npartitions=10).map(die))
    with pytest.raises(distributed.scheduler.KilledWorker, match=r"on 2 .* those workers died"):
        deadly.compute()
    # The cluster goes on with workers in their place.
    assert featurizer.transform(db.from_sequence(files, npartitions=2)).compute().shape == (50, 29)


def test_a_cluster_without_workers_is_an_error_after_the_time_that_is_set(client, monkeypatch):
    featurizer = FrozenEncoderFeaturizer(network()).fit(IMAGES)
    # The setting distributed.scheduler.no-workers-timeout of a scheduler that runs already.
    monkeypatch.setattr(client.cluster.scheduler, "no_workers_timeout", 0.1)
    client.cluster.scale(0)
    try:
        with pytest.raises(distributed.scheduler.NoWorkerError, match="without any running worker"):
            featurizer.transform(lazy(IMAGES, 25, 25)).compute()
    finally:
        client.cluster.scale(2)
        client.wait_for_workers(2)


def test_a_cluster_that_ends_before_its_work_is_an_error():
    featurizer = FrozenEncoderFeaturizer(network()).fit(IMAGES)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        features = client.compute(featurizer.transform(lazy(IMAGES, 25, 25)))
        cluster.close()
        with pytest.raises(CancelledError):
            features.result()


def test_rows_are_found_again(client, tmp_path):
    log, memory = tmp_path / "log", tmp_path / "features"
    memory.mkdir()
    settings = {"memory": memory, "encoder_id": "doubled"}
    featurizer = FrozenEncoderFeaturizer(Loaded(log), **settings).fit(IMAGES)
    first = featurizer.transform(lazy(IMAGES[:40], *[10] * 4)).compute()
    # Another partition, half of it new; and without dask.
    second = featurizer.transform(lazy(IMAGES[20:], 4, 26)).compute()
    here = featurizer.transform(IMAGES)
    np.testing.assert_array_equal(np.concatenate([first, second[20:]]), here)
    np.testing.assert_array_equal(first[20:], second[:20])
    encoded = [what for what, _ in lines(log) if what != "loaded"]
    # `fit` stored the first image in its own file.
    assert len(encoded) - len(set(encoded)) <= 1
    assert len(set(encoded)) == 50


def test_a_search_on_the_cluster_encodes_each_image_once(client, tmp_path):
    def search(log, **settings):
        featurizer = FrozenEncoderFeaturizer(Loaded(log), **settings)
        model = make_pipeline(featurizer, LogisticRegression())
        grid = {"logisticregression__C": [1e-3, 1.0, 1e3]}
        return GridSearchCV(model, grid, cv=2, error_score="raise")

    y = IMAGES[:, 0, 0, 0] > 127
    log, store = tmp_path / "log", tmp_path / "features.sqlite"
    here = search(tmp_path / "other").fit(IMAGES, y)
    with joblib.parallel_config("dask"):
        there = search(log, memory=store, encoder_id="doubled").fit(IMAGES, y)
    for key in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(there.cv_results_[key], here.cv_results_[key])
    encoded, pids = zip(*(line for line in lines(log) if line[0] != "loaded"), strict=True)
    assert len(encoded) == len(set(encoded)) == len(IMAGES)
    assert str(os.getpid()) not in pids  # the workers encoded


def test_a_cut_shard_is_encoded_again(tmp_path):
    X = lazy(IMAGES, 25, 25)
    featurizer = FrozenEncoderFeaturizer(network(), memory=tmp_path).fit(IMAGES)
    first = featurizer.transform(X).compute(scheduler="synchronous")
    shard = next(tmp_path.glob("*.shard"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-40])
    with pytest.warns(UserWarning, match=r"is not read.*delete the file"):
        again = featurizer.transform(X).compute(scheduler="synchronous")
    np.testing.assert_array_equal(again, first)
    assert shard.read_bytes() == whole


@pytest.mark.parametrize("left", [0, 100, -40, None])
def test_a_shard_that_is_cut_or_deleted_while_it_is_in_use_has_no_more_rows(tmp_path, left):
    rows = {bytes([i]) * 20: np.full(3000, i, dtype=np.float32) for i in range(9)}
    path = write_shard(tmp_path, rows)
    shards = Shards(tmp_path)
    assert shards.get(list(rows)).keys() == rows.keys()
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left % path.stat().st_size)
    found = shards.get(list(rows))
    assert len(found) == (8 if left == -40 else 0)
    for key, row in found.items():
        np.testing.assert_array_equal(row, rows[key])


def test_a_changed_row_of_a_shard_is_encoded_again(tmp_path):
    X = lazy(IMAGES, 50)
    featurizer = FrozenEncoderFeaturizer(network(), memory=tmp_path).fit(IMAGES[1:])
    first = featurizer.transform(X).compute(scheduler="synchronous")
    (shard,) = tmp_path.glob("*.shard")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1  # the last value
    shard.write_bytes(content)
    np.testing.assert_array_equal(featurizer.transform(X).compute(scheduler="threads"), first)


BAD = {
    "chunks of a channel": (
        lambda: da.from_array(IMAGES, chunks=(50, 1, 8, 8)),
        r"X is a dask array of shape .*X\.rechunk\(\{1: -1, 2: -1, 3: -1\}\)",
    ),
    "another shape": (lambda: lazy(IMAGES[:, :, :7], 50), r"\(3, 7, 8\)"),
    "another type": (lambda: lazy(IMAGES / 255, 50), "X holds float32 values, fit saw uint8"),
}


SHAPES = f"({10**30},)", "(-1,)", "(True,)", "(400,)", *(f"({2**n},)" for n in (60, 62, 63)), "("
HEADERS = [
    "((",
    "",
    "\0",
    *(f"{{'descr': '<u8', 'fortran_order': False, 'shape': {shape}}}" for shape in SHAPES),
]


def test_shards_of_a_stranger_are_not_read(tmp_path):
    for place, header in enumerate(HEADERS):
        text = header.encode() + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(400)
        (tmp_path / f"features-{place}.shard").write_bytes(content)
    with pytest.warns(UserWarning, match=r"is not read.*delete the file") as caught:
        FrozenEncoderFeaturizer(network(), memory=tmp_path).fit(IMAGES)
    assert len({str(one.message) for one in caught}) == len(HEADERS)


def test_a_shard_whose_rows_claim_more_than_the_memory_is_not_read(tmp_path):
    path = write_shard(tmp_path, {bytes(20): np.zeros(1, dtype=np.float32)})
    with open(path, "r+b") as file:
        content = file.read()
        file.seek(content.rindex(b"\x93NUMPY"))
        shape = {"descr": "<f4", "fortran_order": False, "shape": (1, 2**25)}
        np.lib.format.write_array_header_1_0(file, shape)
        file.truncate(file.tell() + 4 * 2**25)  # a sparse file, which takes no disk
    with pytest.warns(UserWarning, match="rows are too large"):
        assert Shards(tmp_path).get([bytes(20)]) == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_pipe_in_place_of_a_shard_does_not_stop_the_call(tmp_path):
    os.mkfifo(tmp_path / "features-a.shard")
    featurizer = FrozenEncoderFeaturizer(network(), memory=tmp_path)
    with pytest.warns(UserWarning, match="is a pipe"):
        featurizer.fit(IMAGES)


@pytest.mark.parametrize("name", BAD)
def test_errors_before_any_work(name):
    X, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        FrozenEncoderFeaturizer(network()).fit(IMAGES).transform(X())


def test_other_errors(tmp_path):
    featurizer = FrozenEncoderFeaturizer(network(), memory=tmp_path / "file.sqlite").fit(IMAGES)
    with pytest.raises(ValueError, match=r"memory=.*file\.sqlite.* Name a folder"):
        featurizer.transform(lazy(IMAGES, 50))
    with pytest.raises(ValueError, match="Give no out"):
        featurizer.transform(lazy(IMAGES, 50), out=np.empty((50, 29), np.float32))
    with pytest.raises(ValueError, match="no image in its 2 partitions"):
        FrozenEncoderFeaturizer(network()).fit(lazy(IMAGES[:0], 0, 0))
    framed = FrozenEncoderFeaturizer(network()).fit(IMAGES).set_output(transform="pandas")
    for call in (framed.transform, framed.fit_transform):
        with pytest.raises(ValueError, match=r"set_output\(transform='pandas'\).* all features"):
            call(lazy(IMAGES, 50))
    bag = db.from_sequence(["a.png", "b.png"], npartitions=2)
    plain = FrozenEncoderFeaturizer(network()).fit(IMAGES)
    with pytest.raises((FileNotFoundError, ValueError), match=r"[ab]\.png") as caught:
        plain.transform(bag).compute(scheduler="synchronous")
    assert re.search("partition [01] of X", caught.value.__notes__[-1])
