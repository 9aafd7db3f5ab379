"""Saving and loading a fitted debiaser: ``skfair.load`` beside ``joblib.load``."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import joblib
import numpy as np
import torch
from torch import nn

import skfair
from benchmarks._floors.measure import Row

N_FEATURES, N_UNITS = 512, 3100  # 11.2 million weights, 43 MiB


def make_network():
    return nn.Sequential(
        nn.Linear(N_FEATURES, N_UNITS),
        nn.ReLU(),
        nn.Linear(N_UNITS, N_UNITS),
        nn.ReLU(),
        nn.Linear(N_UNITS, 1),
    )


def make_network_on_meta():
    with torch.device("meta"):  # no initial weights are drawn, as those of the file replace them
        return make_network()


@functools.cache
def saved(*, change):
    """Save a debiaser in both formats. `change`: whether all weights differ from the original."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, N_FEATURES)).astype(np.float32)
    groups = rng.integers(2, size=400)
    y = (X[:, 0] + 0.3 * groups > 0).astype(int)
    torch.manual_seed(0)
    debiaser = skfair.ThresholdDebiaser(
        make_network(), output="logits", epsilon=0.9, random_state=0
    )
    debiaser.fit(X, y, sensitive_features=groups)
    if change:
        with torch.no_grad():
            for weight in debiaser.module_.parameters():
                weight.mul_(1.01)
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    skfair.save(debiaser, folder / "model")
    joblib.dump(debiaser, folder / "model.joblib")
    torch.save(debiaser.estimator.state_dict(), folder / "state.pt")
    return folder


def load(factory, *, change=False):
    folder = saved(change=change)
    return (
        lambda: skfair.load(folder / "model", factories=factory) and None,
        lambda: joblib.load(folder / "model.joblib") and None,
    )


def size():
    folder = saved(change=False)
    return (
        lambda: (folder / "model" / "model.safetensors").stat().st_size / 2**20,
        lambda: (folder / "state.pt").stat().st_size / 2**20,
    )


NETWORK = f"an MLP of {N_FEATURES} x {N_UNITS} x {N_UNITS}, 43 MiB"
ROWS = [
    Row(
        f"load of a debiaser that changed no weight, {NETWORK}",
        "joblib.load of the same estimator",
        1,
        functools.partial(load, make_network),
    ),
    Row(
        "the same; the factory makes the network on the device meta",
        "joblib.load of the same estimator",
        1,
        functools.partial(load, make_network_on_meta),
    ),
    Row(
        f"load of a debiaser that changed all weights, {NETWORK}",
        "joblib.load of the same estimator",
        1,
        functools.partial(load, make_network, change=True),
    ),
    Row(
        "the same; the factory makes the network on the device meta",
        "joblib.load of the same estimator",
        1,
        functools.partial(load, make_network_on_meta, change=True),
    ),
    Row(
        f"the file of a debiaser that changed no weight, {NETWORK}",
        "torch.save of the state of its network",
        1.05,
        size,
        unit="MiB",
    ),
]
