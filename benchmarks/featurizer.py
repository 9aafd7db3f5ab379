"""The cost of FrozenEncoderFeaturizer, as ratios taken in one run.

    python -m benchmarks featurizer [--write docs/results]

Four kinds of rows: throughput against the best bare loop over the same encoder (on a CPU with
channels last in memory and small batches, on a GPU with the same batches as the featurizer); a
second ``transform`` from the store against the first; peak memory while streaming from memory map
to memory map, at two sizes of data; and how often a grid search encodes each image.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from benchmarks._tables import Table, publish
from skfair.featurize import FrozenEncoderFeaturizer

BATCH_SIZE = 64
N_REPEATS = 11


class Block(nn.Module):
    """Residual block of ResNet-18."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet18():
    """A network of ResNet-18's shape and cost, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        n_in = 64
        for n_out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [Block(n_in, n_out, stride), Block(n_out, n_out, 1)]
            n_in = n_out
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def random_images(n, size):
    return np.random.default_rng(0).integers(0, 256, size=(n, 3, size, size), dtype=np.uint8)


def bare_loop(encoder, X, device, batch_size):
    features = []
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    with torch.inference_mode():
        for start in range(0, len(X), batch_size):
            batch = torch.from_numpy(X[start : start + batch_size]).to(device)
            batch = batch.contiguous(memory_format=layout).float().div_(255)
            features.append(encoder(batch).cpu().numpy())
    return np.concatenate(features)


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def both_seconds(function, *args):
    """Seconds by the clock, and processor time, which does not count other processes."""
    start = time.process_time()
    elapsed = seconds(function, *args)
    return elapsed, time.process_time() - start


def throughput():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = resnet18().eval().to(device)
    for size, n in ((224, 32), (64, 384), (32, 512)):
        X = random_images(n, size)
        featurizer = FrozenEncoderFeaturizer(encoder).fit(X)
        batch_size = 4 if size == 224 and device.type == "cpu" else BATCH_SIZE
        ratios = []
        for repeat in range(N_REPEATS + 1):
            runs = [(bare_loop, encoder, X, device, batch_size), (featurizer.transform, X)]
            order = 1 if repeat % 2 else -1
            bare, ours = [both_seconds(*run) for run in runs[::order]][::order]
            ratios.append(np.divide(bare, ours))
        clock, processor = np.median(ratios[1:], axis=0)
        yield [
            f"{n} images of {size} x {size} on {device}, throughput",
            "the best bare loop over the same encoder",
            f"{processor:.2f} in processor time, {clock:.2f} by the clock",
            "0.95 or more",
        ]


def second_transform(folder):
    for size, n in ((64, 1024), (128, 256)):
        X = random_images(n, size)
        featurizer = FrozenEncoderFeaturizer(
            resnet18(),
            memory=folder / f"{size}.sqlite",
            encoder_id="resnet18",
            batch_size=BATCH_SIZE,
        ).fit(X[:1])
        first = seconds(featurizer.transform, X)
        second = min(seconds(featurizer.transform, X) for _ in range(3))
        yield [
            f"second ``transform`` of {n} images of {size} x {size}, from the store",
            "the first, with an encoder of ResNet-18's cost",
            f"{first / second:.0f} times as fast",
            "20 or more",
        ]


def stream(n, folder):
    """Encode n images from map to map; print the peak resident memory in MiB. Runs by itself."""
    options = {"mode": "w+", "dtype": np.uint8, "shape": (n, 3, 32, 32)}
    X = np.lib.format.open_memmap(folder / "x.npy", **options)
    del X  # a file with holes: zeros that take no disk
    X = np.load(folder / "x.npy", mmap_mode="r")
    shape = (n, 64)
    out = np.lib.format.open_memmap(folder / "out.npy", mode="w+", dtype=np.float32, shape=shape)
    featurizer = FrozenEncoderFeaturizer(nn.Conv2d(3, 64, 8, 8), batch_size=256, device="cpu")
    featurizer.fit(X).transform(X, out=out)
    # Linux only. Not ru_maxrss, which starts with the value of the parent process.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)


def memory(folder):
    for n in (10_000, 100_000):
        command = [
            sys.executable,
            "-m",
            "benchmarks",
            "featurizer",
            "--stream",
            str(n),
            str(folder),
        ]
        peak = float(subprocess.run(command, capture_output=True, check=True).stdout)
        yield [
            f"peak of memory, {n:,} images of 32 x 32 from memory map to memory map",
            f"{n * 3072 / 2**20:.0f} MiB of images",
            f"{peak:.0f} MiB",
            "-",
        ]


class Counting:
    """Encoder that writes a line for each image it is given; the processes share the file."""

    def __init__(self, log):
        self.log = log

    def __call__(self, batch):
        with open(self.log, "a") as file:
            file.write("x\n" * len(batch))
        return batch.mean(axis=(2, 3))


def search(folder):
    X, y = random_images(500, 32), np.arange(500) % 2
    for n_jobs in (1, 2):
        log = folder / f"log-{n_jobs}"
        featurizer = FrozenEncoderFeaturizer(
            Counting(str(log)), memory=folder / f"search-{n_jobs}.sqlite", encoder_id="means"
        )
        GridSearchCV(
            make_pipeline(featurizer, LogisticRegression(max_iter=1000)),
            {"logisticregression__C": np.logspace(-3, 2, 12)},
            cv=5,
            n_jobs=n_jobs,
        ).fit(X, y)
        yield [
            f"images encoded in a grid search of 12 candidates by 5 folds, ``n_jobs={n_jobs}``",
            "500 images",
            str(len(log.read_text().split())),
            "500",
        ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    parser.add_argument("--stream", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stream:
        n, folder = arguments.stream
        stream(int(n), Path(folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        parts = throughput(), *(part(Path(folder)) for part in (second_transform, memory, search))
        rows = [row for part in parts for row in part]
    header = ["what", "against", "measured", "goal"]
    publish(arguments.write, "featurizer", Table("Features of images", header, rows), seeds="0")
