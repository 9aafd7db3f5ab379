"""Features with dask: two workers against one on the same machine, and a worker that is killed."""

import functools
import os
import signal
import tempfile
import time
from pathlib import Path

import dask.bag
import numpy as np
import torch
from distributed import Client, LocalCluster
from PIL import Image
from torch import nn

from benchmarks._large.rows import Run
from skfair.featurize import FrozenEncoderFeaturizer

N_FILES, N_PARTITIONS, REPEATS = 1200, 24, 5


def write_files(folder):
    """JPEG files of 256 x 256 pixels, of about 25 kB each, as photographs of this size have."""
    rng = np.random.default_rng(0)
    paths = []
    for row in range(N_FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        fine = np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC)).astype(int)
        noisy = fine + rng.integers(-12, 13, (256, 256, 1))
        paths.append(f"{folder}/{row:04}.jpg")
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def small_encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3, 4), nn.ReLU(), nn.Conv2d(16, 64, 3, 2), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def cluster(n_workers):
    return LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=":0")


def fitted(files):
    return FrozenEncoderFeaturizer(small_encoder(), image_shape=(3, 224, 224)).fit(files[:1])


def speed_up():
    """Median ratio of the times of one worker and of two, in turn."""
    with tempfile.TemporaryDirectory() as folder, cluster(1) as one, cluster(2) as two:
        files = write_files(folder)
        features = fitted(files).transform(dask.bag.from_sequence(files, npartitions=N_PARTITIONS))
        ratios = []
        with Client(one) as alone, Client(two) as pair:
            for client in (alone, pair):
                client.compute(features).result()  # imports, and files in the cache
            for _ in range(REPEATS):
                seconds = []
                for client in (alone, pair):
                    start = time.perf_counter()
                    client.compute(features).result()
                    seconds.append(time.perf_counter() - start)
                ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios))


def die_once(flag, path):
    """Kill the worker that meets this file first."""
    if path.endswith(f"{N_FILES // 2:04}.jpg") and not os.path.exists(flag):
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def differing(*, kill):
    """Number of values that differ between one worker and two, with other partitions."""
    with tempfile.TemporaryDirectory() as folder:
        files, flag = write_files(folder), f"{folder}/killed"
        featurizer = fitted(files)
        made = []
        for n_workers, n_partitions in ((1, N_PARTITIONS), (2, N_PARTITIONS - 5)):
            bag = dask.bag.from_sequence(files, npartitions=n_partitions)
            if kill and n_workers == 2:
                bag = bag.map(functools.partial(die_once, flag))
            with cluster(n_workers) as workers, Client(workers) as client:
                made.append(client.compute(featurizer.transform(bag)).result())
        assert os.path.exists(flag) == kill
    return float((made[0] != made[1]).sum())


def runs():
    files = f"{N_FILES:,} JPEG files of 256 px, small encoder"
    return [
        Run({f"speed of two workers in that of one, {files}": ">= 1.6"}, speed_up),
        Run(
            {"values that differ between one worker and two, with other partitions": "<= 0"},
            functools.partial(differing, kill=False),
        ),
        Run(
            {"the same, and one of two workers is killed half way": "<= 0"},
            functools.partial(differing, kill=True),
        ),
    ]
