"""Cluster margins from a memory map of 1,000,000 x 512 float16: memory, and time of an epoch."""

import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks._large.rows import Row
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


def mebibytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def memory(name):
    """Peak of a kind of memory above the start, in GiB, of fit and predict."""
    with tempfile.TemporaryDirectory() as folder:
        X, y = written(folder)
        classifier(1).fit(np.asarray(X[:: N_ROWS // 200], dtype=np.float32), y[:: N_ROWS // 200])
        start, peak, done = mebibytes(name), 0.0, threading.Event()

        def watch():
            nonlocal peak
            while not done.wait(0.005):
                peak = max(peak, mebibytes(name))

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


def rows():
    data = f"margin classifier, memory map of {N_ROWS:,} x {N_FEATURES} float16"
    return [
        Row(f"{data}: memory of the process alone, GiB", "<= 2", partial(memory, "RssAnon")),
        Row(f"{data}: with the pages of the map, GiB", "<= 2", partial(memory, "VmRSS")),
        Row(f"{data}: an epoch, in reads of the file with the arithmetic", "<= 1.5", epoch),
    ]
