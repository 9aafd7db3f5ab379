"""``predict`` of one row, beside the network alone and beside scikit-learn."""

import warnings
from itertools import pairwise

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from benchmarks._floors.measure import Row
from skfair import ClusterMarginClassifier, DistillationDebiaser, ThresholdDebiaser

_LAYERS, _FEATURES = 10, 20


def perceptron(width):
    """Random weights: the time does not depend on their values."""
    widths = [_FEATURES, *[width] * _LAYERS]
    layers = [[nn.Linear(a, b), nn.ReLU()] for a, b in pairwise(widths)]
    return nn.Sequential(*[part for layer in layers for part in layer], nn.Linear(width, 1)).eval()


def debiaser(kind, width, **parameters):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, _FEATURES)).astype(np.float32)
    y, groups = rng.integers(2, size=(2, 400))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the labels are random
        fitted = kind(perceptron(width), output="logits", random_state=0, **parameters)
        fitted.fit(X, y, sensitive_features=groups)
    module, row = fitted.to_module(), torch.tensor(X[:1])

    def floor():
        with torch.inference_mode():
            module(row)

    return lambda: void(fitted.predict(X[:1])), floor


def margin():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(2000, 512)).astype(np.float32), rng.integers(2, size=2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = ClusterMarginClassifier(max_epochs=1, amplifier_max_epochs=1, random_state=0)
        fitted.fit(X, y)
        peer = LogisticRegression(max_iter=10).fit(X, y)
    return lambda: void(fitted.predict(X[:1])), lambda: void(peer.predict(X[:1]))


def void(_):
    """Return None: the call costs its time."""


def of_network(name, kind, width, **parameters):
    return Row(
        f"predict of one row, {name} with an MLP of {_LAYERS} x {width} units",
        "the exported float32 network alone",
        4,
        lambda: debiaser(kind, width, **parameters),
    )


ROWS = [
    of_network("ThresholdDebiaser", ThresholdDebiaser, 32),
    of_network("ThresholdDebiaser", ThresholdDebiaser, 512),
    of_network("DistillationDebiaser", DistillationDebiaser, 32, max_epochs=1),
    of_network("DistillationDebiaser", DistillationDebiaser, 512, max_epochs=1),
    Row(
        "predict of one row of 512 features, ClusterMarginClassifier",
        "predict of scikit-learn's LogisticRegression",
        2.5,
        margin,
    ),
]
