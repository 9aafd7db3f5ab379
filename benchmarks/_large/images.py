"""What each step before the encoder costs an image, on one core: files, keys, shards."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks._large.featurizer import N_FILES, SIDE, files
from benchmarks._large.rows import Run
from benchmarks._tables import processor_time
from skfair._images._open import open_images
from skfair.featurize._shards import Shards, write_shard
from skfair.featurize._store import FeatureStore

SHAPE, N_FEATURES, N_SHARDS = (3, 224, 224), 512, 50


def steps():
    """Kilobytes, milliseconds, bytes and microseconds an image, in the order of the rows."""
    with tempfile.TemporaryDirectory() as folder:
        paths = files(folder)
        size = sum(path.stat().st_size for path in paths)
        head = processor_time(lambda: open_images(paths, image_shape=SHAPE))
        images = open_images(paths, image_shape=SHAPE)
        batches = [range(start, start + 50) for start in range(0, N_FILES, 50)]
        decoding = key = 0.0
        keys = []
        for rows in batches:  # as many as are in memory at a time
            decoding += processor_time(images.read, rows[0], rows[-1] + 1)
            batch = images.read(rows[0], rows[-1] + 1)
            key += processor_time(FeatureStore.keys, b"encoder", batch)
            keys += FeatureStore.keys(b"encoder", batch)
        stored = Path(folder) / "shards"
        stored.mkdir()
        rng = np.random.default_rng(0)
        features = rng.standard_normal((N_FILES, N_FEATURES), dtype=np.float32)
        rows = dict(zip(keys, features, strict=True))
        writing = processor_time(write_shard, stored, rows)
        shard = sum(path.stat().st_size for path in stored.iterdir())
        for _ in range(N_SHARDS - 1):
            write_shard(stored, {rng.bytes(20): row for row in features})
        shards = Shards(stored)
        lookup = processor_time(shards.get, [rng.bytes(20) for _ in keys])
    milliseconds = 1e3 * np.array([head, decoding, key, writing]) / N_FILES
    bytes_ = [size / N_FILES / 1e3, shard / N_FILES]
    return [bytes_[0], *milliseconds, bytes_[1], 1e6 * lookup / N_FILES / N_SHARDS]


def runs():
    what = f"one image, JPEG files of {SIDE} px:"
    return [
        Run(
            {
                f"{what} size of the file, kB": "",
                f"{what} reading the head, ms": "",
                f"{what} decoding, and scaling to {SHAPE[1]} px, ms": "",
                f"{what} key of the pixels (SHA-256), ms": "",
                f"{what} writing {N_FEATURES} features and the key into a shard, ms": "",
                f"{what} the same, bytes": "",
                f"{what} looking an absent key up in one shard, µs": "",
            },
            steps,
        )
    ]
