"""Cluster margins from a memory map of 1,000,000 x 512 float16: memory, and time of an epoch."""

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks._large.rows import Run
from skfair.margin import ClusterMarginClassifier

N_ROWS, N_FEATURES, BATCH, BLOCK = 1_000_000, 512, 256, 20_000


def written(folder):
    """A file that is sorted by class and by an attribute that stands out."""
    path = Path(folder) / "features.npy"
    rng = np.random.default_rng(0)
    y = np.arange(N_ROWS) % 2
    bias = np.where(rng.random(N_ROWS) < 0.95, y, 1 - y)
    order = np.lexsort((bias, y))
    y, bias = y[order], bias[order]
    out = np.lib.format.open_memmap(path, "w+", np.float16, (N_ROWS, N_FEATURES))
    for start in range(0, N_ROWS, BLOCK):
        rows = slice(start, start + BLOCK)
        block = rng.standard_normal((BLOCK, N_FEATURES), dtype=np.float32)
        block[:, 0] += 5 * bias[rows]
        block[:, 1] += 2 * y[rows]
        out[rows] = block
    out.flush()
    return np.load(path, mmap_mode="r"), y


def classifier(max_epochs, loss="margin"):
    return ClusterMarginClassifier(
        loss=loss, max_epochs=max_epochs, amplifier_max_epochs=1, batch_size=BATCH, random_state=0
    )


def mebibytes():
    """Memory of the process alone, and with the pages of files that it maps."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return np.array([int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS")])


def memory():
    """Peaks above the start of fit and predict, in GiB: the process alone, and with the pages."""
    with tempfile.TemporaryDirectory() as folder:
        X, y = written(folder)
        classifier(1).fit(np.asarray(X[:: N_ROWS // 200], dtype=np.float32), y[:: N_ROWS // 200])
        start, done = mebibytes(), threading.Event()
        peak = start

        def watch():
            nonlocal peak
            while not done.wait(0.005):
                peak = np.maximum(peak, mebibytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            classifier(1).fit(X, y).predict(X)
        finally:
            done.set()
            watcher.join()
    return (peak - start) / 1024


def epoch():
    """Processor time of one epoch, over a read of the file and a plain loop over the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        X, y = written(folder)
        times = []
        for max_epochs in (1, 2):
            start = time.process_time()
            classifier(max_epochs, "cross_entropy").fit(X, y)
            times.append(time.process_time() - start)
        return (times[1] - times[0]) / plain(X, torch.from_numpy(y))


def plain(X, y):
    start = time.process_time()
    for first in range(0, N_ROWS, BLOCK):
        X[first : first + BLOCK].copy()
    network = nn.Sequential(nn.Linear(N_FEATURES, 128), nn.ReLU(), nn.Linear(128, 2))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    block = torch.from_numpy(np.asarray(X[:BLOCK], dtype=np.float32))
    for first in range(0, N_ROWS, BATCH):
        here = torch.arange(first, min(first + BATCH, N_ROWS)) % BLOCK
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(block[here]), y[first : first + BATCH])
        loss.backward()
        optimizer.step()
    return time.process_time() - start


def runs():
    data = f"margin classifier, memory map of {N_ROWS:,} x {N_FEATURES} float16"
    return [
        Run(
            {
                f"{data}: memory of the process alone, GiB": "<= 2",
                f"{data}: with the pages of the map, GiB": "<= 2",
            },
            memory,
        ),
        Run({f"{data}: an epoch, in reads of the file with the arithmetic": "<= 1.5"}, epoch),
    ]
