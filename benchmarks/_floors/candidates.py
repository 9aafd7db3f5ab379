"""Candidates of a search over weights: what each costs beside one forward pass."""

from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks._floors.measure import Row
from skfair import RandomPerturbationDebiaser


def _mlp(width):
    layers = [nn.Linear(30, width), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def _cnn():
    layers, before = [], 3
    for width in (16, 32, 64):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))


def _prepare(make, shape, n_trials, rows_at_once):
    torch.manual_seed(0)
    network, rng = make().eval(), np.random.default_rng(0)
    y, group = rng.integers(2, size=(2, shape[0]))
    X = rng.standard_normal(shape, dtype=np.float32)
    X.reshape(len(X), -1)[:, :5] += y[:, None] + group[:, None]  # so that groups differ
    debiaser = RandomPerturbationDebiaser(
        network, output="logits", n_trials=n_trials, epsilon=0.1, device="cpu", random_state=0
    )
    batches = torch.from_numpy(X).split(rows_at_once)

    def ours():
        debiaser.fit(X, y, sensitive_features=group)

    def floor():
        with torch.inference_mode():
            for _ in range(n_trials):
                torch.cat([network(batch) for batch in batches])

    return ours, floor


def _row(what, *arguments):
    # The fastest of batches of 64 to 8,192 rows (images: 8 to 85).
    floor = "forward passes of as many networks over the same rows, in the fastest batches"
    return Row(what, floor, 1.5, partial(_prepare, *arguments), repeats=5)


ROWS = [
    _row(
        "fit of RandomPerturbationDebiaser, 101 trials of 3 x 32 units, 20,000 rows",
        *(partial(_mlp, 32), (20_000, 30), 101, 2048),
    ),
    _row(
        "fit of RandomPerturbationDebiaser, 21 trials of 3 x 512 units, 2,000 rows",
        *(partial(_mlp, 512), (2000, 30), 21, 512),
    ),
    _row(
        "fit of RandomPerturbationDebiaser, 32 trials of a CNN, 300 images of 32 x 32",
        *(_cnn, (300, 3, 32, 32), 32, 85),
    ),
]
