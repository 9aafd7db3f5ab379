"""The real tasks on which ClusterMarginClassifier is measured, and their development splits.

All features are those of one frozen ImageNet encoder (EfficientNet-lite0, 1,280 numbers an
image). A task is drawn by a seed; its evaluation data is the official test split or, for
``development=True``, data of the training split that the draw left over: defaults were chosen
there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Task:
    """One draw of a task.

    Attributes
    ----------
    X, y : training features and classes
    attribute : the sensitive feature of the training data; only a few of its values are
        ever shown to a method, and only where the table says so
    X_eval, y_eval, cell_eval : evaluation data; ``cell_eval`` numbers the groups whose accuracy
        is reported
    X_balanced, y_balanced : a small group-balanced labelled set, for the last-layer refit
    """

    X: np.ndarray
    y: np.ndarray
    attribute: np.ndarray | None
    X_eval: np.ndarray
    y_eval: np.ndarray
    cell_eval: np.ndarray
    X_balanced: np.ndarray | None = None
    y_balanced: np.ndarray | None = None

    def scores(self, predicted) -> tuple[float, float]:
        """Worst and mean accuracy over the cells (conflicting and mean on Colored MNIST)."""
        right = predicted == self.y_eval
        cells = [right[self.cell_eval == c].mean() for c in np.unique(self.cell_eval)]
        return 100 * min(cells), 100 * float(np.mean(cells))


class Tasks:
    """Loads the data once and draws tasks from it."""

    NAMES = ("mtfl_smiling", "cmnist_995", "cmnist_900", "bar", "mtfl_male")

    def __init__(self, data: Path):
        features = data / "features"
        with np.load(features / "mtfl_efficientnet_lite0.npz") as z:
            self.mtfl = {k: z[k] for k in ("split", "male", "smiling", "eyeglasses")}
            self.mtfl["X"] = np.ascontiguousarray(z["X"], dtype=np.float32)
        with np.load(features / "bar_efficientnet_lite0.npz") as z:
            self.bar = {"split": z["split"], "y": np.unique(z["label"], return_inverse=True)[1]}
            self.bar["X"] = np.ascontiguousarray(z["X"], dtype=np.float32)
        with np.load(features / "cmnist_efficientnet_lite0.npz") as z:
            self.cmnist = {k: z[k] for k in z.files if k != "X"}
            self.cmnist["X"] = np.ascontiguousarray(z["X"], dtype=np.float32)

    def draw(self, name: str, seed: int, *, development: bool = False) -> Task:
        rng = np.random.default_rng([seed, development])
        if name == "mtfl_smiling":  # gender goes along with smiling for 95 %
            counts = {(0, 1): 1330, (1, 0): 1330, (0, 0): 70, (1, 1): 70}
            return self._mtfl(rng, "smiling", "male", counts, development)
        if name == "mtfl_glasses":  # development only
            counts = {(0, 0): 700, (1, 1): 700, (0, 1): 37, (1, 0): 37}
            return self._mtfl(rng, "eyeglasses", "male", counts, development)
        if name == "mtfl_male":  # the target is easier than the bias: the method hurts
            counts = {(1, 0): 1500, (1, 1): 0, (0, 1): 1000, (0, 0): 500}
            return self._mtfl(rng, "male", "smiling", counts, development)
        if name.startswith("cmnist"):
            return self._cmnist(rng, name.removeprefix("cmnist_"), development)
        return self._bar(rng, development)

    def _mtfl(self, rng, target, attribute, counts, development) -> Task:
        d = self.mtfl
        y, a = d[target].astype(np.int64), d[attribute].astype(np.int64)
        pool = d["split"] == "train"
        rows = {
            cell: rng.permutation(np.flatnonzero(pool & (y == cell[0]) & (a == cell[1])))
            for cell in counts
        }
        train = rng.permutation(np.concatenate([rows[c][:n] for c, n in counts.items()]))
        # 100 of each group, left over by the draw, for the refit of the last layer.
        balanced = np.concatenate([rows[c][n : n + 100] for c, n in counts.items()])
        if development:
            rest = np.setdiff1d(np.flatnonzero(pool), np.concatenate([train, balanced]))
        else:
            rest = np.flatnonzero(d["split"] == "test")
        return Task(
            d["X"][train], y[train], a[train], d["X"][rest], y[rest], 2 * y[rest] + a[rest],
            d["X"][balanced], y[balanced],
        )  # fmt: skip

    def _cmnist(self, rng, correlation, development) -> Task:
        d = self.cmnist
        y = d["digit_train"].astype(np.int64)
        color = {k: d[f"color_train_{k}"].astype(np.int64) for k in ("995", "900")}
        rows = {k: d[f"row_train_{k}"] for k in color}
        # Two of each digit in each colour, from the training images of the 0.9 set.
        balanced = np.concatenate(
            [
                rng.permutation(np.flatnonzero((y == k) & (color["900"] == c)))[:2]
                for k in range(10)
                for c in range(10)
            ]
        )
        X_balanced, y_balanced = d["X"][rows["900"][balanced]], y[balanced]
        if not development:
            order = rng.permutation(len(y))
            y_test, c_test = d["digit_test"].astype(np.int64), d["color_test"]
            return Task(
                d["X"][rows[correlation][order]], y[order], color[correlation][order],
                d["X"][d["row_test"]], y_test, (c_test == y_test).astype(int),
                X_balanced, y_balanced,
            )  # fmt: skip
        # Train on 15,000 digits; evaluate on the other 5,000: in their conflicting colours of
        # the 0.9 set where they have one there, else in their own.
        order = rng.permutation(len(y))
        train, rest = order[:15_000], order[15_000:]
        conflicting = rest[color["900"][rest] != y[rest]]
        aligned = rest[color["995"][rest] == y[rest]][:2000]
        return Task(
            d["X"][rows[correlation][train]], y[train], color[correlation][train],
            np.concatenate([d["X"][rows["900"][conflicting]], d["X"][rows["995"][aligned]]]),
            np.concatenate([y[conflicting], y[aligned]]),
            np.repeat([0, 1], [len(conflicting), len(aligned)]),
        )  # fmt: skip

    def _bar(self, rng, development) -> Task:
        d = self.bar
        train = rng.permutation(np.flatnonzero(d["split"] == "train"))
        rest = np.flatnonzero(d["split"] == "test")
        if development:  # biased like the training data: only shows that nothing breaks
            train, rest = train[400:], train[:400]
        y = d["y"]
        return Task(d["X"][train], y[train], None, d["X"][rest], y[rest], y[rest])
