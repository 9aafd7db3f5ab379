"""The calls whose growth is measured, on generated data of any size."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import skfair
from skfair.featurize import FrozenEncoderFeaturizer
from skfair.metrics import fairness_report

BASE = {"rows": 3000, "features": 64, "groups": 2, "classes": 2, "units": 64}
IMAGES = {"images": 200, "side": 64, "groups": 2, "units": 16}
ROWS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
FEATURES = (16, 64, 256, 1024, 4096)
GROUPS = (2, 4, 8, 16, 32, 64, 128)
CLASSES = (2, 4, 8, 16, 32, 64)
MANY_ROWS = {"rows": 10_000}  # so that each of many groups or classes has rows


class Axis(NamedTuple):
    """What grows.

    Attributes
    ----------
    title : str
        Of the table.
    size : str
        The size of the data that grows, a key of `BASE` or `IMAGES`.
    sizes : sequence of int
    calls : dict of str to callable
        Make from all sizes the function that is measured; by the name in the table.
    fixed : dict of str to int
        Sizes that differ from `BASE` and `IMAGES`.
    shown : callable, optional
        The number that the table shows for a size, and the exponents are of; the size itself by
        default.
    """

    title: str
    size: str
    sizes: Sequence[int]
    calls: dict[str, Callable[..., Callable[[], object]]]
    fixed: dict[str, int] = {}
    shown: Callable[[int], int] = int


def table(rows, features, groups, classes, **_):
    """A table whose first features show class and group; a group has the classes in other shares.

    Each class occurs in each group, and the rows are float32.
    """
    rng = np.random.default_rng(0)
    y = rng.integers(classes, size=rows)
    group = np.where(rng.random(rows) < 0.3, y % groups, rng.integers(groups, size=rows))
    X = rng.standard_normal((rows, features), dtype=np.float32)
    X[:, 0] += 2 * y / (classes - 1)
    X[:, 1] += 2 * group / (groups - 1)
    X[:, 2] += 5 * np.where(rng.random(rows) < 0.95, y % 2, 1 - y % 2)
    return X, y, group.astype(str)  # many numbers would not be taken for groups


def network(X, y, units):
    """A network of two hidden layers, whose last layer is fitted to the labels of some rows."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Linear(X.shape[1], units), nn.ReLU(), nn.Linear(units, units), nn.ReLU()
    )
    n_outputs = y.max() + 1 if y.max() > 1 else 1
    head = nn.Linear(units, n_outputs)
    with torch.no_grad():
        hidden = body(torch.from_numpy(X[:2000]))
        labels = torch.from_numpy(y[:2000])
        wanted = nn.functional.one_hot(labels).float() if n_outputs > 1 else labels[:, None].float()
        wanted = 4 * wanted - 2
        gram = hidden.T @ hidden + 10 * torch.eye(units)
        head.weight.copy_(torch.linalg.solve(gram, hidden.T @ wanted).T)
        head.bias.zero_()
    return nn.Sequential(*body, head).eval()


def weights(units, features=BASE["features"]):
    """Number of weights of :func:`network` with one output."""
    return (features + 1) * units + (units + 1) * units + units + 1


def classifier(name, **size_of):
    """`size_of` names the size that a parameter of the classifier gets."""

    def make(**sizes):
        X, y, group = table(**sizes)
        given = {parameter: sizes[size] for parameter, size in size_of.items()}
        estimator = getattr(skfair, name)(device="cpu", random_state=0, **given)
        return lambda: estimator.fit(X, y, sensitive_features=group)

    return make


def debiaser(name):
    def make(**sizes):
        X, y, group = table(**sizes)
        estimator = getattr(skfair, name)(
            network(X, y, sizes["units"]), output="logits", device="cpu", random_state=0
        )
        return lambda: estimator.fit(X, y, sensitive_features=group)

    return make


def report(**sizes):
    rng = np.random.default_rng(0)
    _, y, group = table(**{**sizes, "features": 3})
    predicted = np.where(rng.random(len(y)) < 0.8, y, rng.integers(sizes["classes"], size=len(y)))
    return lambda: fairness_report(y, predicted, sensitive_features=group)


def images(images, side, groups, **_):
    """Images of noise; a square of 12 pixels shows the group by its grey."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 200, size=(images, 3, side, side), dtype=np.uint8)
    group = np.arange(images) % groups
    for row, (top, left) in enumerate(rng.integers(side - 12, size=(images, 2))):
        X[row, :, top : top + 12, left : left + 12] = 255 * group[row] // (groups - 1)
    return X, group.astype(str)


def masker(method):
    def make(**sizes):
        X, group = images(**sizes)
        estimator = skfair.PatchAttributionMasker(
            max_epochs=2,
            check_leakage=False,
            perturb_at_predict=True,  # so that transform does what training images get
            device="cpu",
            random_state=0,
        )
        if method == "fit":
            return lambda: estimator.fit(X, sensitive_features=group)
        few = slice(160)
        estimator.fit(X[few], sensitive_features=group[few])
        return lambda: estimator.transform(X)

    return make


def featurizer(**sizes):
    X, _ = images(**sizes)
    torch.manual_seed(0)
    layers = []
    for before, after in itertools.pairwise((3, sizes["units"], 2 * sizes["units"])):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
    estimator = FrozenEncoderFeaturizer(nn.Sequential(*layers).eval(), device="cpu").fit(X)
    return lambda: estimator.transform(X)


HEADS = {
    "ClusterMarginClassifier.fit": classifier("ClusterMarginClassifier"),
    "LogitAdjustedClassifier.fit": classifier("LogitAdjustedClassifier"),
}
DEBIASERS = {
    f"{name}.fit": debiaser(name)
    for name in ("ThresholdDebiaser", "LinearPostDebiaser", "DistillationDebiaser")
}
OF_IMAGES = {
    "PatchAttributionMasker.fit, 2 epochs": masker("fit"),
    "PatchAttributionMasker.transform": masker("transform"),
    "FrozenEncoderFeaturizer.transform": featurizer,
}
OF_CLASSES = {**HEADS, "LinearPostDebiaser.fit": DEBIASERS["LinearPostDebiaser.fit"]}
REPORT = {"fairness_report": report}
AXES = {
    "rows": Axis("Rows", "rows", ROWS, {**HEADS, **DEBIASERS, **REPORT}),
    "features": Axis("Features", "features", FEATURES, {**HEADS, **DEBIASERS}),
    "groups": Axis("Groups", "groups", GROUPS, {**HEADS, **DEBIASERS, **REPORT}, MANY_ROWS),
    "classes": Axis("Classes", "classes", CLASSES, {**OF_CLASSES, **REPORT}, MANY_ROWS),
    "weights": Axis(
        "Weights of the network",
        "units",
        (16, 64, 256, 1024, 2048),
        DEBIASERS,
        shown=weights,
    ),
    "units": Axis(
        "Units of the classifier (n_units)",
        "units",
        (32, 128, 512, 2048, 8192),
        {"ClusterMarginClassifier.fit": classifier("ClusterMarginClassifier", n_units="units")},
    ),
    "images": Axis("Images of 64 x 64 pixels", "images", (100, 300, 1000, 3000, 10_000), OF_IMAGES),
    "pixels": Axis(
        "Pixels of 200 images",
        "side",
        (64, 96, 128, 192, 256),
        OF_IMAGES,
        shown=lambda side: side**2,
    ),
    "attributes": Axis(
        "Values of the attribute", "groups", (2, 4, 8, 16, 32),
        {name: OF_IMAGES[name] for name in OF_IMAGES if name.startswith("Patch")},
        {"images": 320},
    ),
}  # fmt: skip


def prepared(axis, call, size):
    """The function that is measured."""
    axis = AXES[axis]
    warnings.simplefilter("ignore")  # small data, for instance
    return axis.calls[call](**{**BASE, **IMAGES, **axis.fixed, axis.size: size})
