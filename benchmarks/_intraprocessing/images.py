"""The two image tasks, coloured digits and faces, and the networks that are trained on them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from benchmarks._faces import load_faces
from benchmarks._remember import remembered_network
from benchmarks.featurizer import Block
from skfair.datasets import color_digits
from skfair.utils._random import seeded

IMAGES = {
    "digits": "Coloured digits, 5 or more, colour",
    "faces": "MTFL smiling, gender, other faces of the training split",
    "faces_official": "MTFL smiling, gender, the official test split, from another source",
}


@dataclass(frozen=True)
class ImageTask:
    """A biased training set, unbiased rows for debiasing, and test sets: X, y and a by name.

    Images are of shape (n, 3, height, width), float32 from 0 to 1; groups are 0 and 1.
    """

    name: str
    seed: int
    X_train: np.ndarray
    y_train: np.ndarray
    X_debias: np.ndarray
    y_debias: np.ndarray
    a_debias: np.ndarray
    tests: dict
    network: nn.Module | None = None


def digits(seed):
    """Is it 5 or more? In training 95 % of these are blue, and 95 % of the others red.

    Debiasing and test rows are every image in both colours.
    """
    images, digit = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(digit))
    images, y = images[order].reshape(-1, 8, 8) / 16, (digit[order] >= 5).astype(int)

    def colored(rows, correlation):
        X, color = color_digits(images[rows], y[rows], correlation=correlation, random_state=seed)
        X = np.ascontiguousarray(X.transpose(0, 3, 1, 2), dtype=np.float32) / 255
        return X, y[rows], (color == "blue").astype(int)

    def both(rows):
        own, other = colored(rows, 1.0), colored(rows, 0.0)
        return tuple(np.concatenate(pair) for pair in zip(own, other, strict=True))

    X, labels, _ = colored(slice(800), 0.95)
    tests = {"digits": both(slice(1300, None))}
    return ImageTask("digits", seed, X, labels, *both(slice(800, 1300)), tests)


def faces(seed, data):
    """Does the face smile? In training 95 % of those that do are women, and of the others men.

    Debiasing rows are 2,500 other faces of the official training split, drawn at random. One test
    set has 2,500 more; the other is the official test split, whose images are from another source.
    """
    X, table = load_faces(data, size=32)
    X = X / np.float32(255)
    y, a = (table[k].to_numpy().astype(int) for k in ("smiling", "male"))
    rng = np.random.default_rng(seed)
    official = (table["split"] == "test").to_numpy()
    order = rng.permutation(np.flatnonzero(~official))
    debias, held_out, rest = np.split(order, [2500, 5000])
    train = []
    for smiling, male, n in ((1, 0, 1235), (0, 1, 1235), (0, 0, 65), (1, 1, 65)):
        train.append(rest[(y[rest] == smiling) & (a[rest] == male)][:n])
    train = rng.permutation(np.concatenate(train))
    tests = {"faces": held_out, "faces_official": np.flatnonzero(official)}
    return ImageTask(
        "faces", seed, X[train], y[train], X[debias], y[debias], a[debias],
        {test: (X[rows], y[rows], a[rows]) for test, rows in tests.items()},
    )  # fmt: skip


def convolutional():
    """Three convolutions; two logits."""
    layers = []
    for n_in, n_out, stride in ((3, 16, 1), (16, 32, 2), (32, 32, 1)):
        convolution = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 2))


def residual():
    """Three residual blocks; two logits."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip


def trained_on_images(task, cache):
    """The task with its network, whose weights are kept in the folder `cache`."""
    build = convolutional if task.name == "digits" else residual
    with seeded(task.seed):
        network = remembered_network(
            cache, f"{task.name}_{task.seed}", build, lambda: train_on_images(build(), task)
        )
    return replace(task, network=network)


def train_on_images(network, task, n_epochs=15):
    X, y = torch.from_numpy(task.X_train), torch.from_numpy(task.y_train)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    n_steps = n_epochs * -(-len(X) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(X)).split(64):
            batch = X[rows]
            if task.name == "faces" and torch.rand(()) < 0.5:
                batch = batch.flip(3)
            optimizer.zero_grad()
            F.cross_entropy(network(batch), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()
