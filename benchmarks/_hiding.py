"""Hide an artefact that is correlated with the class, in every way, and see what a network learns.

**Draws.** 1,200 training images, half of either class. An artefact is planted in 95 % of the
second class and 5 % of the first, or in all of the second and none of the first. The images to
judge on are never training images, and both classes are equally frequent. They are judged in two
versions, without the artefact and with it.

- *Faces*: MTFL at 64 pixels, gender. Development draws take all of their faces from the official
  training part, reported draws all of theirs from the official test part, which is of another
  source: 600 women and 600 men to train on, 500 and 500 others to judge on, drawn anew with each
  seed. So no choice used a face of a reported draw.
- *Digits*: those of scikit-learn, enlarged from 8 to 64 pixels; odd or even? All images that are
  not for training judge, as many odd as even ones. Development and reported draws differ in the
  artefacts and the seeds.

**Measures.** *Clean* is the accuracy on images without the artefact, *swapped* that where the first
class has it and the second has not. *Flips* is the share of images whose answer changes when the
artefact is added. *Leakage* is ``leakage_`` of the masker, or the result of its function for images
that were masked in another way.

**Arms** are the functions of `ARMS`. All train the same network, from the same weights, on images
of the same draw.
"""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import maximum_filter
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from benchmarks._faces import load_faces
from benchmarks._peers import environments
from benchmarks._small_network import logits, train_network
from skfair.attribution import PatchAttributionMasker
from skfair.attribution._grid import PatchGrid
from skfair.attribution._leakage import measure_leakage
from skfair.attribution._perturbation import hidden_pixels

SIZE = 64
N_TRAIN, N_JUDGED = 600, 500  # of each class
N_LOCATED = 150
RULER_MARGIN = 2  # the true pixels of a ruler, dilated, as its last tick marks are enough


@dataclass
class Draw:
    """Images of one draw.

    Attributes
    ----------
    X, y, has, true : training images with the artefact planted, uint8 (n, 3, 64, 64), class,
        whether the artefact is there, and where it is or, in an image without it, would be
    off, on, judged, judged_true : images to judge on, without the artefact and with it, their
        class, and where it is
    seed : int
    """

    X: np.ndarray
    y: np.ndarray
    has: np.ndarray
    true: np.ndarray
    off: np.ndarray
    on: np.ndarray
    judged: np.ndarray
    judged_true: np.ndarray
    seed: int


def faces(data, development):
    X, table = load_faces(data, SIZE)
    rows = np.flatnonzero(table["split"] == ("train" if development else "test"))
    return X[rows], table["male"].to_numpy()[rows].astype(np.int64)


def digits():
    found = load_digits()
    small = torch.from_numpy(found.images).float()[:, None] * (255 / 16)
    X = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    X = X.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous().numpy()
    return X, (found.target % 2).astype(np.int64)


def make_draw(images, artefact, correlation, seed):
    """Draw images, and plant the artefact in a share `correlation` of the second class."""
    X, y = images
    rng = np.random.default_rng(seed)
    per_class = [rng.permutation(np.flatnonzero(y == label)) for label in (0, 1)]
    train = np.concatenate([rows[:N_TRAIN] for rows in per_class])
    n_judged = min(N_JUDGED, *(len(rows) - N_TRAIN for rows in per_class))
    judged = np.concatenate([rows[N_TRAIN : N_TRAIN + n_judged] for rows in per_class])
    n_with = round(correlation * N_TRAIN)
    has = np.concatenate([np.arange(N_TRAIN) < n for n in (N_TRAIN - n_with, n_with)])
    with_it, true = artefact.plant(X[train], rng)
    planted = np.where(has[:, None, None, None], with_it, X[train])
    on, judged_true = artefact.plant(X[judged], rng)
    order = rng.permutation(len(train))
    return Draw(
        planted[order], y[train][order], has[order].astype(np.int64), true[order],
        X[judged], on, y[judged], judged_true, seed,
    )  # fmt: skip


def judge(network, draw):
    """Clean and swapped accuracy, and the share of answers that the artefact changes."""
    off, on = logits(network, draw.off) > 0, logits(network, draw.on) > 0
    swapped = np.where(draw.judged == 0, on, off)
    return {
        "clean": float((off == draw.judged).mean()),
        "swapped": float((swapped == draw.judged).mean()),
        "flips": float((off != on).mean()),
    }


# --- ways to hide


def fill(X, hidden):
    """The mean colour, as the masker fills by default."""
    colour = np.rint(X.mean((0, 2, 3))).astype(np.uint8).reshape(-1, 1, 1)
    return np.where(hidden[:, None], colour, X)


class Cell:
    """One draw, and the maskers fitted on it."""

    def __init__(self, draw):
        self.draw = draw

    def fit(self, **parameters):
        draw = self.draw
        masker = PatchAttributionMasker(random_state=draw.seed, **parameters)
        return masker.fit(draw.X, draw.y, sensitive_features=draw.has)

    @cached_property
    def masker(self):
        return self.fit()

    @cached_property
    def swapping(self):
        return self.fit(perturbation="swap")

    @cached_property
    def hidden(self):
        return self.masker.perturbed_pixels(self.draw.X)

    def with_settings(self, **parameters):
        """The images that the fitted masker returns under other parameters."""
        before = {name: self.masker.get_params()[name] for name in parameters}
        images = self.masker.set_params(**parameters).mask(self.draw.X)
        self.masker.set_params(**before)
        return images

    @cached_property
    def cell_weight(self):
        """Equal weights of the four cells of class and artefact."""
        cell = 2 * self.draw.y + self.draw.has
        return torch.from_numpy(1 / np.bincount(cell)[cell])


def random_holes(cell):
    """Masks of random shape, another one for each image, as large as the masker's."""
    grid = PatchGrid(SIZE, SIZE, 16, 2)
    generator = torch.Generator().manual_seed(cell.draw.seed)
    blobs = torch.randn(len(cell.draw.X), 1, grid.n_rows, grid.n_cols, generator=generator)
    share = float(cell.hidden.mean())
    holes = hidden_pixels(grid.pixel_map(blobs), 1 - share, 0)[:, 0].numpy()
    return fill(cell.draw.X, holes)


def true_pixels(cell, margin=0, everywhere=True):
    """Hide the artefact; with `everywhere`, also mask its place in images without an artefact."""
    draw = cell.draw
    hidden = draw.true
    if margin:
        hidden = maximum_filter(hidden, size=(1, 2 * margin + 1, 2 * margin + 1))
    if not everywhere:
        hidden = hidden & draw.has.astype(bool)[:, None, None]
    return fill(draw.X, hidden)


def true_margin(cell):
    """The same with a ruler dilated: its last tick marks are enough for a network."""
    one_place = (cell.draw.true == cell.draw.true[0]).all()
    return RULER_MARGIN if one_place else 0


# By arm: the function that makes the training images, and whether it uses skfair.
ARMS = {
    "nothing hidden": (lambda cell: cell.draw.X, False),
    "random masks": (random_holes, True),
    "resampled": (lambda cell: cell.draw.X, False),
    "true pixels": (lambda cell: true_pixels(cell, true_margin(cell)), False),
    "true pixels, no holes in the others": (
        lambda cell: true_pixels(cell, true_margin(cell), everywhere=False), False,
    ),
    "masker": (lambda cell: cell.masker.mask(cell.draw.X), True),
    "masker, swap": (lambda cell: cell.swapping.mask(cell.draw.X), True),
    # The advice of former versions, and two other settings.
    "general, area of the artefact, margin 0": (
        lambda cell: cell.with_settings(
            scope="general", quantile=1 - float(cell.draw.true.mean()), margin=0
        ),
        True,
    ),
    "specific, .9, margin 0": (
        lambda cell: cell.with_settings(scope="specific", quantile=0.9, margin=0), True,
    ),
    "specific, .9, noise of .5": (
        lambda cell: cell.with_settings(
            scope="specific", quantile=0.9, perturbation="noise", noise_std=0.5
        ),
        True,
    ),
}  # fmt: skip
FEW_ARMS = ["nothing hidden", "random masks", "resampled", "true pixels", "masker", "masker, swap"]
# With no counter-example there is nothing to resample.
WITHOUT_COUNTER_EXAMPLES = [name for name in FEW_ARMS if name != "resampled"]


def judged(cell, arm):
    """Train the network of an arm, and judge it."""
    weight = cell.cell_weight if arm == "resampled" else None
    images = ARMS[arm][0](cell)
    return judge(train_network(images, cell.draw.y, cell.draw.seed, weight), cell.draw)


def leakage(cell, arm):
    """The leakage that the masker reports, or that its function returns: accuracy and interval."""
    draw = cell.draw
    fitted = {"masker": "masker", "masker, swap": "swapping"}
    if arm in fitted:
        masker = getattr(cell, fitted[arm])
        low, high = masker.leakage_interval_
        return {
            "leakage": masker.leakage_, "low": float(low), "high": float(high),
            "scope": masker.scope_, "quantile": float(masker.quantile_),
            "area": float(cell.hidden.mean()), "informative": bool(masker.informative_),
            "auc": float(np.max(masker.attribute_auc_)),
        }  # fmt: skip
    found = measure_leakage(
        torch.from_numpy(ARMS[arm][0](cell)), draw.has, draw.y, n_classes=2,
        mean=draw.X.mean((0, 2, 3)), std=draw.X.std((0, 2, 3)), seed=draw.seed,
        device=torch.device("cpu"),
    )  # fmt: skip
    return {"leakage": found.accuracy, "low": float(found.low), "high": float(found.high)}


# --- where it is


def iou_at_true_area(pixel_map, true):
    """Intersection over union of the artefact and as many of the highest pixels."""
    highest = np.argsort(-pixel_map.ravel(), kind="stable")[: true.sum()]
    both = true.ravel()[highest].sum()
    return both / (2 * true.sum() - both)


def quality(maps, true):
    """Means over images: area under the ROC curve of the pixels, and overlap with the artefact."""
    pairs = list(zip(maps, true, strict=True))
    return {
        "auroc": float(np.mean([roc_auc_score(t.ravel(), m.ravel()) for m, t in pairs])),
        "iou": float(np.mean([iou_at_true_area(m, t) for m, t in pairs])),
        "inside": float(np.mean([t.ravel()[m.argmax()] for m, t in pairs])),
    }


# Of captum: these explain a network that detects the artefact in the whole image.
PEERS = ("integrated gradients", "Grad-CAM", "occlusion")


def explained(X, has, seed, shown, scored, folder, target=None):
    """Maps by captum, in its own environment in `folder`; `captum_worker.py` says what returns."""
    given = {"X": X, "has": has, "seed": seed, "shown": shown, "scored": scored}
    if target is not None:
        given["target"] = target
    python = environments.python_of("captum", folder)
    return environments.run(python, ",".join(PEERS), given, environments.CAPTUM_WORKER)


def some_judged(draw):
    """Equally frequent classes; images without the artefact, with it, and where it is."""
    rows = np.concatenate([np.flatnonzero(draw.judged == c)[: N_LOCATED // 2] for c in (0, 1)])
    return draw.off[rows], draw.on[rows], draw.judged_true[rows]


def located_by_masker(cell):
    off, on, true = some_judged(cell.draw)
    masker = cell.masker
    start = time.process_time()
    maps = masker.attribute(on)
    seconds = time.process_time() - start
    score = np.concatenate([masker.attribute_score(X) for X in (off, on)])
    return {
        **quality(maps, true), "ms": 1000 * seconds / len(on),
        "auc": float(roc_auc_score(np.repeat([0, 1], len(on)), score)),
    }  # fmt: skip


def located_by_peers(cell, folder):
    draw = cell.draw
    off, on, true = some_judged(draw)
    both, present = np.concatenate([off, on]), np.ones(len(on), dtype=np.int64)
    found = explained(draw.X, draw.has, draw.seed, on, both, folder, target=present)
    auc = float(roc_auc_score(np.repeat([0, 1], len(on)), found["logits"]))
    return {
        name: {
            **quality(found[f"{name}, maps"], true),
            "ms": float(found[f"{name}, ms"]),
            "auc": auc,
        }
        for name in PEERS
    }
