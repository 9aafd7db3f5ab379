"""The margin classifier beside the same three stages as a bare loop of torch."""

import sys
import time
import warnings
from unittest.mock import patch

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional as F

from benchmarks._floors.measure import Row, fresh_process
from benchmarks._published import Cosine
from skfair import ClusterMarginClassifier
from skfair.base._net import TensorNet

N_UNITS, BATCH, N_CLUSTERED = 128, 64, 20_000


def data(n, n_features):
    """Two classes; a feature shows a bias that equals the class for 95 % of the rows."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n)
    bias = np.where(rng.random(n) < 0.95, y, 1 - y)
    X = rng.standard_normal((n, n_features), dtype=np.float32)
    X[:, 0] += 9 * bias
    X[:, 1] += y
    return X, y


def bare(X, y, n_epochs):
    """The three stages without a check or a diagnosis, in float32; returns processor seconds.

    The batches, the networks, the optimiser and the number of clustered rows are skfair's.
    """
    start, training = time.process_time(), 0.0
    n, n_features = X.shape
    n_classes = y.max() + 1
    mean = X.mean(axis=0)
    scaled = torch.from_numpy(X - mean)
    spread = float(scaled.square().mean().sqrt())
    scaled /= spread
    codes = torch.from_numpy(y)
    cumulated = (1 / torch.bincount(codes).double())[codes].cumsum(0)
    lr = min(1.28 / n_features, 1e-2)

    adapter = nn.Sequential(nn.Linear(n_features, N_UNITS), nn.Tanh())
    amplifier = nn.Sequential(adapter, nn.Linear(N_UNITS, n_classes))
    optimizer = torch.optim.Adam(amplifier.parameters(), lr=lr, weight_decay=0.35, fused=True)
    began = time.process_time()
    for _ in range(n_epochs[0]):
        drawn = torch.rand(n, dtype=torch.float64) * cumulated[-1]
        for rows in torch.searchsorted(cumulated, drawn).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(amplifier(scaled[rows]), codes[rows]).backward()
            optimizer.step()
    training += time.process_time() - began

    with torch.no_grad():
        features = F.normalize(adapter(scaled)).numpy()
    kept = np.random.default_rng(0).choice(n, min(n, N_CLUSTERED), replace=False)
    kmeans = KMeans(4 * n_classes, n_init=4, random_state=0).fit(features[kept])
    clusters = kmeans.predict(features)
    del features
    counts = np.zeros((kmeans.n_clusters, n_classes))
    np.add.at(counts, (clusters, y), 1)
    margins = torch.from_numpy(1 - counts / counts.sum(axis=1, keepdims=True)).float()
    clusters = torch.from_numpy(clusters)

    net = nn.Sequential(nn.Linear(n_features, N_UNITS), nn.ReLU(), Cosine(N_UNITS, n_classes))
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, fused=True)
    steps = n_epochs[1] * -(-n // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    began = time.process_time()
    for _ in range(n_epochs[1]):
        for rows in torch.randperm(n).split(BATCH):
            cosine = net(scaled[rows])
            margin = margins[clusters[rows]]
            margin = margin + 0.15 * torch.randn(margin.shape)
            sine = (1 - cosine.square()).clamp(min=1e-6).sqrt()
            cos_m, sin_m = margin.cos(), margin.sin()
            wide = cosine * cos_m - sine * sin_m
            logits = 4 * torch.where(cosine > -cos_m, wide, cosine - margin * sin_m)
            optimizer.zero_grad()
            F.cross_entropy(logits, codes[rows]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.25)
            optimizer.step()
            schedule.step()
    training += time.process_time() - began
    with torch.no_grad():
        net(scaled).argmax(dim=1)
    total = time.process_time() - start
    return total, total - training


def ours(X, y, n_epochs, **parameters):
    """Fit; returns the processor seconds, all and without the epochs of both networks."""
    training, loop = 0.0, TensorNet.fit_loop

    def timed(*arguments, **keywords):
        nonlocal training
        began = time.process_time()
        loop(*arguments, **keywords)
        training += time.process_time() - began

    classifier = ClusterMarginClassifier(
        amplifier_max_epochs=n_epochs[0], max_epochs=n_epochs[1], random_state=0, **parameters
    )
    with patch.object(TensorNet, "fit_loop", timed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        classifier.fit(X, y)
        total = time.process_time() - start
    return total, total - training


def rest():
    X, y = data(100_000, 512)
    return lambda: ours(X, y, (1, 1))[1], lambda: bare(X, y, (1, 1))[1]


def whole():
    X, y = data(1_000_000, 64)
    return lambda: ours(X, y, (2, 1))[0], lambda: bare(X, y, (2, 1))[0]


def peak(n_units):
    """Peak of the memory above the data, in MiB, of a process of its own.

    Batches of 4,096 instead of 64 make it short.
    """
    start = "from benchmarks._floors import margin; X, y = margin.data(1_000_000, 64); "
    calls = (
        f"margin.ours(X, y, (1, 1), n_units={n_units}, batch_size=4096)",
        f"margin.N_UNITS, margin.BATCH = {n_units}, 4096; margin.bare(X, y, (1, 1))",
    )

    def above_the_data(call):
        environment = {"PYTHONPATH": ":".join(sys.path)}
        made = fresh_process(start, **environment).peak
        return fresh_process(start + call, **environment).peak - made

    return [lambda call=call: above_the_data(call) for call in calls]


ROWS = [
    Row(
        "fit of the margin classifier, 100,000 x 512: all except the epochs",
        "the rest of the three stages as a bare loop in float32",
        2.0,
        rest,
        repeats=5,
    ),
    Row(
        "fit of the margin classifier, 1,000,000 x 64: two epochs and one epoch",
        "the three stages as a bare loop in float32 with the same batches",
        1.4,
        whole,
        repeats=2,
    ),
    *(
        Row(
            f"its peak of memory above the data, {n_units} units",
            "that of the bare loop",
            1.0,
            lambda n_units=n_units: peak(n_units),
            unit="MiB",
            repeats=1,
        )
        for n_units in (128, 512)
    ),
]
