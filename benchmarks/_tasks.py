"""The real tasks on which heads of frozen features are measured, and their development draws.

All features are those of one frozen ImageNet encoder (EfficientNet-lite0, 1,280 numbers an
image). A seed draws a task. Defaults are chosen with ``development=True``: other draws,
evaluated on rows on which no reported draw is evaluated. Reported draws are evaluated on the
official test split. Development draws are evaluated on rows of the training split that the
draw left over. UTKFace has no split, so each of its groups is halved once: one half of it is
for the evaluation of development draws and the other for that of reported draws.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Task:
    """One draw of a task.

    Attributes
    ----------
    X, y : training features and classes
    attribute : the sensitive feature of the training data; a method sees only a few of its values,
        and only where the table says so
    X_eval, y_eval, cell_eval : evaluation data; ``cell_eval`` numbers the groups whose accuracy
        is reported
    X_balanced, y_balanced, cell_balanced : a small group-balanced labelled set, to refit the last
        layer or to choose a model; None where too few rows are left
    wrong : training rows whose class is wrong, which people who look at the images see
    """

    X: np.ndarray
    y: np.ndarray
    attribute: np.ndarray | None
    X_eval: np.ndarray
    y_eval: np.ndarray
    cell_eval: np.ndarray
    X_balanced: np.ndarray | None = None
    y_balanced: np.ndarray | None = None
    cell_balanced: np.ndarray | None = None
    wrong: np.ndarray | None = None

    def scores(self, predicted) -> tuple[float, float]:
        """Worst and mean accuracy over the cells (conflicting and mean on Colored MNIST)."""
        right = predicted == self.y_eval
        cells = [right[self.cell_eval == c].mean() for c in np.unique(self.cell_eval)]
        return 100 * min(cells), 100 * float(np.mean(cells))

    def with_wrong(self, what, share, seed) -> "Task":
        """The same draw with a share of its labels wrong, each replaced by another value.

        `what` is "attribute", the group labels of training, or "y", the classes of training and
        of the balanced set. Evaluation data stays as it is.
        """
        rng = np.random.default_rng([seed, 2])
        if what == "attribute":
            return replace(self, attribute=_wrong(self.attribute, share, rng))
        y_balanced = None if self.y_balanced is None else _wrong(self.y_balanced, share, rng)
        y = _wrong(self.y, share, rng)
        return replace(self, y=y, y_balanced=y_balanced, wrong=y != self.y)


def _wrong(values, share, rng):
    """Codes from 0 on, a share of them (rounded) replaced by another code, each as likely."""
    n_values = values.max() + 1
    rows = rng.permutation(len(values))[: round(share * len(values))]
    values = values.copy()
    values[rows] = (values[rows] + rng.integers(1, n_values, len(rows))) % n_values
    return values


# Rows of each (class, attribute) cell to train on. The attribute is gender of smiling, glasses and
# age (1 male), smiling of male, and age of gender (1 old).
_MTFL = {
    "mtfl_smiling": {(0, 1): 1330, (1, 0): 1330, (0, 0): 70, (1, 1): 70},
    "mtfl_glasses": {(0, 0): 700, (1, 1): 700, (0, 1): 37, (1, 0): 37},
    "mtfl_male": {(1, 0): 1500, (1, 1): 0, (0, 1): 1000, (0, 0): 500},  # no smiling men
    "mtfl_male_95": {(1, 0): 1330, (0, 1): 1330, (0, 0): 70, (1, 1): 70},
    "mtfl_smiling_natural": 3000,  # as they come
    "mtfl_glasses_natural": 3000,
}
_UTK = {  # of the usual and of the other attribute value of each class
    "95": (720, 38),
    "90": (675, 75),
    "none": (125, 125),
}


class Tasks:
    """Loads the data once and draws tasks from it."""

    NAMES = (
        *_MTFL,
        *(f"utk_{target}_{kind}" for target in ("age", "gender") for kind in _UTK),
        "cmnist_995",
        "cmnist_900",
        "bar",
    )

    def __init__(self, data: Path):
        features = data / "features"
        with np.load(features / "mtfl_efficientnet_lite0.npz") as z:
            self.mtfl = {k: z[k] for k in ("split", "male", "smiling", "eyeglasses")}
            self.mtfl["X"] = np.ascontiguousarray(z["X"], dtype=np.float32)
        with np.load(features / "utk_efficientnet_lite0.npz") as z:
            self.utk = {"gender": z["male"].astype(np.int64), "age": z["old"].astype(np.int64)}
            self.utk["X"] = np.ascontiguousarray(z["X"], dtype=np.float32)
        with np.load(features / "bar_efficientnet_lite0.npz") as z:
            self.bar = {"split": z["split"], "y": np.unique(z["label"], return_inverse=True)[1]}
            self.bar["X"] = np.ascontiguousarray(z["X"], dtype=np.float32)
        with np.load(features / "cmnist_efficientnet_lite0.npz") as z:
            self.cmnist = {k: z[k] for k in z.files if k != "X"}
            self.cmnist["X"] = np.ascontiguousarray(z["X"], dtype=np.float32)

    def draw(self, name: str, seed: int, *, development: bool = False) -> Task:
        rng = np.random.default_rng([seed, development])
        if name.startswith("mtfl"):
            target = {"smiling": "smiling", "glasses": "eyeglasses", "male": "male"}[
                name.split("_")[1]
            ]
            attribute = "smiling" if target == "male" else "male"
            return self._mtfl(rng, target, attribute, _MTFL[name], development)
        if name.startswith("utk"):
            return self._utk(rng, *name.split("_")[1:], development)
        if name.startswith("cmnist"):
            return self._cmnist(rng, name.removeprefix("cmnist_"), development)
        return self._bar(rng, development)

    def _mtfl(self, rng, target, attribute, counts, development) -> Task:
        d = self.mtfl
        y, a = d[target].astype(np.int64), d[attribute].astype(np.int64)
        pool = d["split"] == "train"
        if isinstance(counts, int):  # as they come
            drawn = rng.permutation(np.flatnonzero(pool))[:counts]
            cells = [(y[drawn] == i) & (a[drawn] == j) for i in (0, 1) for j in (0, 1)]
            counts = {divmod(k, 2): int(cell.sum()) for k, cell in enumerate(cells)}
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
            d["X"][balanced], y[balanced], 2 * y[balanced] + a[balanced],
        )  # fmt: skip

    def _utk(self, rng, target, kind, development) -> Task:
        d = self.utk
        y = d[target]
        a = d["age" if target == "gender" else "gender"]
        train, balanced, rest = [], [], []
        for i in (0, 1):
            for j in (0, 1):
                cell = np.flatnonzero((y == i) & (a == j))
                # The halves are those of the group, whatever the task and the draw.
                half = np.random.default_rng(0).permutation(cell)[int(development) :: 2]
                rest.append(rng.permutation(half)[:130])
                left = rng.permutation(np.setdiff1d(cell, rest[-1]))
                n = _UTK[kind][int(i != j)]
                train.append(left[:n])
                balanced.append(left[n : n + 50])  # 200 faces for the refit
        train, rest = rng.permutation(np.concatenate(train)), np.concatenate(rest)
        balanced = np.concatenate(balanced)
        enough = len(balanced) == 200  # not where training is balanced itself
        of_balanced = (d["X"], y, 2 * y + a) if enough else ()
        return Task(
            d["X"][train], y[train], a[train], d["X"][rest], y[rest], 2 * y[rest] + a[rest],
            *(values[balanced] for values in of_balanced),
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
        of_balanced = (
            d["X"][rows["900"][balanced]], y[balanced],
            (color["900"][balanced] == y[balanced]).astype(int),
        )  # fmt: skip
        if not development:
            order = rng.permutation(len(y))
            y_test, c_test = d["digit_test"].astype(np.int64), d["color_test"]
            return Task(
                d["X"][rows[correlation][order]], y[order], color[correlation][order],
                d["X"][d["row_test"]], y_test, (c_test == y_test).astype(int),
                *of_balanced,
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
