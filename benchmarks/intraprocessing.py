"""The debiasers of trained networks on the tasks of their literature: bias, accuracy, speed.

    python benchmarks/intraprocessing.py --data PATH --cache FOLDER                # ten seeds
    python benchmarks/intraprocessing.py --data PATH --cache FOLDER --development  # other seeds
    python benchmarks/intraprocessing.py --data PATH --cache FOLDER --images
    python benchmarks/intraprocessing.py --data PATH --cache FOLDER --speed        # ratios

A seed splits a data set, trains a network on 60 % of it, debiases that on 20 % and judges the
result on the last 20 %, on which nothing was chosen. ``--cache`` keeps the networks and all that
was measured, so that a run that was stopped goes on where it was; what was measured by other
code or of other networks is measured again. ``--write FOLDER`` also writes the tables as
reStructuredText.
"""

import argparse
import ast
import copy
import functools
import hashlib
import inspect
import io
import json
import math
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _published import threshold_search
from _tabular import TabularTasks
from fairlearn.postprocessing import ThresholdOptimizer
from featurizer import Block
from joblib import Parallel, delayed
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score, roc_curve
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

from skfair import intraprocessing
from skfair.datasets import color_digits
from skfair.intraprocessing._objective import Objective
from skfair.utils import FairnessWarning
from skfair.utils._random import seeded

EPSILON = 0.05
MEASURES = {
    "demographic_parity": "demographic parity",
    "equal_opportunity": "equal opportunity",
    "average_odds": "average odds",
}
TABULAR = {
    "compas": "COMPAS, race",
    "bank": "Bank, age 25",
    "adult": "Adult, sex",
    "adult_noattr": "Adult, sex, which is not among the features",
}
IMAGES = {
    "digits": "Coloured digits of 5 or more, colour",
    "faces": "MTFL smiling, gender",
}
DEVELOPMENT_SEED = 100  # and the following

RECOMMENDED = "**DistillationDebiaser**"
CEILING = "ceiling: group thresholds fitted on test"
# What was aimed for: at least this balanced accuracy, and feasible on test in at least this share.
GOALS = {
    ("adult", "demographic_parity"): (0.775, 0.95),
    ("adult", "equal_opportunity"): (0.81, 0.80),
    ("adult", "average_odds"): (0.80, 0.95),
    ("compas", "demographic_parity"): (0.63, 0.70),
    ("compas", "equal_opportunity"): (0.63, 0.55),
    ("compas", "average_odds"): (0.63, 0.70),
    ("bank", "demographic_parity"): (0.86, 0.65),
    ("bank", "equal_opportunity"): (0.85, 0.85),
    ("bank", "average_odds"): (0.86, 0.65),
    ("adult_noattr", "demographic_parity"): (0.75, 0.80),
}
GOAL_SECONDS = 2.0  # on Adult


def goal_bias(name, measure):
    """What the mean signed bias was to be at most."""
    return 0.025 if (name[:5], measure) == ("adult", "demographic_parity") else 0.02


# -- measures --------------------------------------------------------------------------------


def statistic(predicted, y, measure):
    """What `measure` compares between groups; here of one of them."""
    if measure == "demographic_parity":
        return predicted.mean()
    if measure == "equal_opportunity":
        return predicted[y == 1].mean()
    return 0.5 * (predicted[y == 1].mean() + predicted[y == 0].mean())


def bias(predicted, y, a, measure):
    """The statistic of the unprivileged group, 0, less that of the privileged one, 1."""
    first, second = (statistic(predicted[a == g], y[a == g], measure) for g in (0, 1))
    return first - second


def balanced_accuracy(predicted, y):
    return 0.5 * (predicted[y == 1].mean() + (~predicted[y == 0]).mean())


def feasible_share(predicted, y, a, measure):
    """How often a rule fitted on as many rows can meet the constraint, if it is right on average.

    Both the bias it was fitted to and that on test carry the sampling error of the rates.
    """
    variance = 0.0
    for g in (0, 1):
        p, labels = predicted[a == g], y[a == g]
        parts = [p] if measure == "demographic_parity" else [p[labels == 1]]
        if measure == "average_odds":
            parts.append(p[labels == 0])
        variance += sum(q.mean() * (1 - q.mean()) / len(q) for q in parts) / len(parts) ** 2
    return math.erf(EPSILON / (2 * math.sqrt(variance)))


def group_thresholds(scores, y, a, measure):
    """Predictions of the most accurate pair of group thresholds that is feasible on these rows.

    Exact: balanced accuracy is a sum over the groups and the statistic of a group grows with the
    rows predicted positive, so that for each threshold of one group the other's that are allowed
    lie in a row, and their best is a range maximum.
    """
    positives, negatives = (y == 1).sum(), (y == 0).sum()
    ordered, gains, statistics = [], [], []
    for g in (0, 1):
        s, labels = scores[a == g], y[a == g]
        order = np.argsort(-s, kind="stable")
        s, labels = s[order], labels[order]
        tp, fp = (np.append(0, np.cumsum(labels == c)) for c in (1, 0))
        possible = np.append(True, np.append(s[1:] < s[:-1], True))  # none between equal scores
        rates = {"demographic_parity": (tp + fp) / len(s), "equal_opportunity": tp / tp[-1]}
        rates["average_odds"] = 0.5 * (tp / tp[-1] + fp / fp[-1])
        ordered.append(np.append(s, -np.inf)[possible])
        gains.append((tp / positives - fp / negatives)[possible])
        statistics.append(rates[measure][possible])
    width = EPSILON - 1e-12
    low = np.searchsorted(statistics[1], statistics[0] - width, side="left")
    high = np.searchsorted(statistics[1], statistics[0] + width, side="right")
    allowed = np.flatnonzero(high > low)
    partner = range_argmax(gains[1], low[allowed], high[allowed])
    best = np.argmax(gains[0][allowed] + gains[1][partner])
    # Rows above the score that follows the last one predicted positive.
    above = np.array([ordered[0][allowed[best]], ordered[1][partner[best]]])
    return scores > above[a]


def range_argmax(values, low, high):
    """Positions of the maxima of ``values[low:high]``, for arrays of bounds."""
    table = [np.arange(len(values))]  # of 1, 2, 4, ... values from each position on
    while 2 ** len(table) <= len(values):
        half = 2 ** (len(table) - 1)
        left, right = table[-1][:-half], table[-1][half:]
        table.append(np.where(values[left] >= values[right], left, right))
    level = np.floor(np.log2(high - low)).astype(int)
    found = np.empty(len(low), dtype=int)
    for k in np.unique(level):
        at = level == k
        left, right = table[k][low[at]], table[k][high[at] - 2**k]
        found[at] = np.where(values[left] >= values[right], left, right)
    return found


# -- methods: from a task, a measure and a seed to test predictions and seconds ----------------


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A network as what scikit-learn and fairlearn take: scores in float64."""

    def __init__(self, network):
        self.network = network
        self.classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y):
        return self

    def decision_function(self, X):
        network = copy.deepcopy(self.network).double().eval()
        with torch.no_grad():
            raw = network(torch.as_tensor(np.asarray(X), dtype=torch.float64))
        logit = raw[:, 1] - raw[:, 0] if raw.shape[1] == 2 else raw[:, 0]
        return logit.numpy()

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)


def original(task, measure, seed):
    return NetworkClassifier(task.network).predict(task.X_test) == 1, None


def original_most_accurate(task, measure, seed):
    """The threshold of the best balanced accuracy, as published; the constraint is not asked."""
    classifier = NetworkClassifier(task.network)
    start = time.process_time()
    fpr, tpr, thresholds = roc_curve(task.y_debias, classifier.decision_function(task.X_debias))
    threshold = thresholds[np.argmax(tpr - fpr)]
    seconds = time.process_time() - start
    return classifier.decision_function(task.X_test) >= threshold, seconds


def threshold_optimizer(task, measure, seed):
    constraint = {
        "demographic_parity": "demographic_parity",
        "equal_opportunity": "true_positive_rate_parity",
        "average_odds": "equalized_odds",
    }[measure]
    optimizer = ThresholdOptimizer(
        estimator=NetworkClassifier(task.network),
        constraints=constraint,
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="decision_function",
    )
    start = time.process_time()
    optimizer.fit(task.X_debias, task.y_debias, sensitive_features=task.a_debias)
    seconds = time.process_time() - start
    predicted = optimizer.predict(task.X_test, sensitive_features=task.a_test, random_state=seed)
    return np.asarray(predicted) == 1, seconds


def ceiling(task, measure, seed):
    scores = NetworkClassifier(task.network).decision_function(task.X_test)
    return group_thresholds(scores, task.y_test, task.a_test, measure), None


@dataclass(frozen=True)
class Debiaser:
    """One of skfair's, by the name of its class, so that those yet to come are left out."""

    name: str
    parameters: tuple = ()

    def __call__(self, task, measure, seed):
        debiaser = getattr(intraprocessing, self.name)(
            task.network,
            constraint=measure,
            epsilon=EPSILON,
            output="logits",
            device="cpu",
            random_state=seed,
            **dict(self.parameters),
        )
        start = time.process_time()
        debiaser.fit(task.X_debias, task.y_debias, sensitive_features=task.a_debias)
        seconds = time.process_time() - start
        return debiaser.predict(task.X_test) == 1, seconds


def debiaser(name, **parameters):
    return Debiaser(name, tuple(parameters.items()))


def tabular_methods():
    published = {"confidence": None, "margin": 0.01}
    adversarial = "AdversarialFinetuneDebiaser"
    rows = {
        "original network": original,
        "the same, most accurate threshold": original_most_accurate,
        "``ThresholdDebiaser``": debiaser("ThresholdDebiaser"),
        "``ThresholdDebiaser``, published rule": debiaser("ThresholdDebiaser", **published),
        "``RandomPerturbationDebiaser``": debiaser("RandomPerturbationDebiaser"),
        "``RandomPerturbationDebiaser``, published rule": debiaser(
            "RandomPerturbationDebiaser", **published
        ),
        "``LayerwiseDebiaser``": debiaser("LayerwiseDebiaser"),
        "``AdversarialFinetuneDebiaser``": debiaser(adversarial, adversary="bias"),
        "``AdversarialFinetuneDebiaser``, published critic and rule": debiaser(
            adversarial, adversary="bias", critic="flat", confidence=None, margin=0.02
        ),
        "``AdversarialFinetuneDebiaser(adversary='attribute')``": debiaser(
            adversarial, adversary="attribute"
        ),
        "``BiasGradientDebiaser``": debiaser("BiasGradientDebiaser"),
        "``BiasGradientDebiaser``, published rule": debiaser("BiasGradientDebiaser", **published),
        RECOMMENDED: debiaser("DistillationDebiaser"),
        "fairlearn's ``ThresholdOptimizer``, attribute at prediction": threshold_optimizer,
        CEILING: ceiling,
    }
    return available(rows)


def image_methods():
    rows = {
        "original network": original,
        "the same, most accurate threshold": original_most_accurate,
        "``ThresholdDebiaser``": debiaser("ThresholdDebiaser"),
        "``BiasGradientDebiaser``": debiaser("BiasGradientDebiaser"),
        RECOMMENDED: debiaser("DistillationDebiaser"),
        CEILING: ceiling,
    }
    return available(rows)


def available(rows):
    return {
        label: method
        for label, method in rows.items()
        if not isinstance(method, Debiaser) or method.name in intraprocessing.__all__
    }


# -- measuring, and remembering what was measured ----------------------------------------------


def code_of(method):
    """All code and parameters that decide what a method does."""
    if not isinstance(method, Debiaser):
        return inspect.getsource(method)
    modules = {
        name: Path(inspect.getfile(getattr(intraprocessing, name)))
        for name in intraprocessing.__all__
    }
    others = {file for name, file in modules.items() if name != method.name}
    files = sorted(set(modules[method.name].parent.glob("*.py")) - others)
    return repr(method.parameters) + "".join(
        without_docstrings(file) for file in files if file.name != "__init__.py"
    )


@functools.cache
def without_docstrings(file):
    """The code of a file, which comments and docstrings do not change."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            node.body = body[1:]
    return ast.dump(tree)


def digest(network, method):
    """Name of a result: changes with the weights, the method's code and its parameters."""
    state = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        state.update(name.encode())
        state.update(tensor.numpy().tobytes())
    state.update(code_of(method).encode())
    return state.hexdigest()[:16]


@functools.cache
def tabular_tasks(data, cache):
    return TabularTasks(data, cache)


def draw(name, seed, data, cache):
    if name in TABULAR:
        tasks = tabular_tasks(data, cache)
        return tasks.draw(
            name.removesuffix("_noattr"), seed, with_attribute=not name.endswith("_noattr")
        )
    task = digits(seed) if name == "digits" else faces(seed, data)
    return trained_on_images(task, cache)


def measure_split(name, seed, methods, data, cache):
    """Run every method for every measure on one split; returns records and the failures."""
    torch.set_num_threads(1)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        task = draw(name, seed, data, cache)
        records, failures = [], []
        for measure in MEASURES:
            for label, method in methods.items():
                try:
                    records.append(remember(name, task, measure, label, method, cache))
                except Exception:  # the others go on; the run says at its end that one failed
                    failures.append(f"{name} {seed} {measure} {label}\n{traceback.format_exc()}")
    return records, failures


def remember(name, task, measure, label, method, cache):
    """Read a record from the cache, or measure it."""
    path = None
    if cache is not None:
        short = "".join(c if c.isalnum() else "_" for c in label).strip("_")
        key = f"{name}_{task.seed}_{measure}_{short}_{digest(task.network, method)}"
        path = cache / "intraprocessing" / f"{key}.json"
        if path.exists():
            return json.loads(path.read_text())
    predicted, seconds = method(task, measure, task.seed)
    y, a = task.y_test, task.a_test
    record = {
        "name": name,
        "seed": task.seed,
        "measure": measure,
        "method": label,
        "bias": bias(predicted, y, a, measure),
        "balanced_accuracy": balanced_accuracy(predicted, y),
        "seconds": seconds,
        "feasible_share": feasible_share(predicted, y, a, measure),
    }
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{time.time_ns()}")
        partial.write_text(json.dumps(record))
        partial.replace(path)
    print(
        f"  {name} seed {task.seed} {measure} {label}: bias {record['bias']:+.3f}, balanced "
        f"accuracy {record['balanced_accuracy']:.3f} ({seconds or 0:.2f} s)",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    return record


# -- tables ------------------------------------------------------------------------------------

HEADER = [
    "method",
    "bias",
    "balanced accuracy",
    "feasible",
    "φ: median [quartiles]",
    "(balanced accuracy - ½) x feasible",
    "CPU s",
]


def summary(records):
    """What the rows of one method say about it; arrays over the seeds, or numbers."""
    biases, accuracies = (np.array([r[k] for r in records]) for k in ("bias", "balanced_accuracy"))
    held = np.abs(biases) < EPSILON
    return {
        "bias": biases,
        "balanced_accuracy": accuracies,
        "feasible": held.mean(),
        "phi": np.quantile(np.where(held, accuracies, 0), [0.5, 0.25, 0.75]),
        "gain": np.mean((accuracies - 0.5) * held),
        # The median: the first fit of a process also pays for what torch loads then.
        "seconds": np.median([r["seconds"] or 0 for r in records]),
    }


def percent(share):
    return f"{100 * share:.0f} %"


def cells(label, records):
    s = summary(records)
    spread = [
        np.std(s[k], ddof=1) if len(records) > 1 else 0 for k in ("bias", "balanced_accuracy")
    ]
    median, low, high = s["phi"]
    return [
        label,
        f"{s['bias'].mean():+.3f} ± {spread[0]:.3f}",
        f"{s['balanced_accuracy'].mean():.3f} ± {spread[1]:.3f}",
        percent(s["feasible"]),
        f"{median:.3f} [{low:.3f}, {high:.3f}]",
        f"{s['gain']:.3f}",
        f"{s['seconds']:.2g}" if s["seconds"] else "-",
    ]


def goals(name, measure, records):
    """What was aimed for, and whether the recommended debiaser got there."""
    s = summary(records)
    accuracy, share = GOALS[name, measure]
    limit = goal_bias(name, measure)
    mean_bias, mean_accuracy = s["bias"].mean(), s["balanced_accuracy"].mean()
    aims = [
        (f"balanced accuracy at least {accuracy:g}", mean_accuracy - accuracy, ".4f"),
        (f"feasible in at least {percent(share)}", s["feasible"] - share, ".2f"),
        (f"mean bias within {limit:g} of zero", limit - abs(mean_bias), ".4f"),
    ]
    if name == "adult":
        aims.append((f"at most {GOAL_SECONDS:g} s", GOAL_SECONDS - s["seconds"], ".1f"))
    texts = [
        f"{aim}: {'met' if gap >= 0 else f'**missed by {-gap:{digits}}**'}"
        for aim, gap, digits in aims
    ]
    return f"Goals for ``{RECOMMENDED.strip('*')}``: " + "; ".join(texts) + "."


def list_table(title, header, rows):
    """For the docs."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in [header, *rows]:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def plain_table(title, header, rows):
    """For the terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([f"{title}", *lines]) + "\n"


def tables(name, title, records, n_seeds):
    """One table a measure: title, header and rows, and what there is to say below it."""
    for measure, words in MEASURES.items():
        methods = {}
        for record in records:
            if record["measure"] == measure:
                methods.setdefault(record["method"], []).append(record)
        rows = [cells(label, found) for label, found in methods.items()]
        if CEILING in methods:
            share = percent(np.mean([r["feasible_share"] for r in methods[CEILING]]))
            rows.append(["most that sampling error allows", "-", "-", share, "-", "-", "-"])
        below = ""
        if (name, measure) in GOALS and RECOMMENDED in methods:
            below = goals(name, measure, methods[RECOMMENDED]) + "\n"
        yield f"{title}: {words}, {n_seeds} seeds", HEADER, rows, below


def write(arguments, kind, parts):
    """Print the tables, and put them into the folder of ``--write``."""
    parts = list(parts)
    for *table, below in parts:
        print(plain_table(*table) + below, flush=True)
    if arguments.write is not None:
        arguments.write.mkdir(parents=True, exist_ok=True)
        pieces = [piece for *table, below in parts for piece in (list_table(*table), below)]
        text = "\n".join(piece for piece in pieces if piece)
        (arguments.write / f"intraprocessing_{kind}.rst").write_text(text)


def compare(arguments):
    """Every method on every data set; data sets in turn, splits side by side."""
    titles, methods, n_seeds = TABULAR, tabular_methods(), 10
    if arguments.images:
        titles, methods, n_seeds = IMAGES, image_methods(), 3
    methods = {
        label: method
        for label, method in methods.items()
        if not arguments.methods or any(word in label for word in arguments.methods)
    }
    first = DEVELOPMENT_SEED if arguments.development else 0
    seeds = range(first, first + (arguments.seeds or n_seeds))
    names = [name for name in titles if not arguments.tasks or name in arguments.tasks]
    splits = [(name, seed) for name in names for seed in seeds]
    run = Parallel(n_jobs=arguments.jobs, return_as="generator")
    results = run(
        delayed(measure_split)(name, seed, methods, arguments.data, arguments.cache)
        for name, seed in splits
    )
    found, failures = {name: [] for name in names}, []
    for (name, seed), (records, failed) in zip(splits, results, strict=True):
        found[name] += records
        failures += failed
        if seed == seeds[-1]:
            kind = f"development_{name}" if arguments.development else name
            write(arguments, kind, tables(name, titles[name], found[name], len(seeds)))
    if failures:
        sys.exit("\n".join([*failures, f"{len(failures)} fits failed; the tables lack them."]))


# -- images ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageTask:
    """A biased training set, rows for debiasing that are not, and test rows.

    Images are of shape (n, 3, height, width), float32 from 0 to 1; groups are 0 and 1.
    """

    name: str
    seed: int
    X_train: np.ndarray
    y_train: np.ndarray
    X_debias: np.ndarray
    y_debias: np.ndarray
    a_debias: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    a_test: np.ndarray
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
    return ImageTask("digits", seed, X, labels, *both(slice(800, 1300)), *both(slice(1300, None)))


@functools.cache
def load_faces(data, size=32):
    """Pixels and labels of the aligned faces, shrunk."""
    table = pd.read_parquet(
        data / "images" / "mtfl_aligned_128.parquet", columns=["split", "male", "smiling", "jpeg"]
    )
    X = np.empty((len(table), 3, size, size), dtype=np.float32)
    for row, jpeg in enumerate(table.pop("jpeg")):
        image = (
            Image.open(io.BytesIO(jpeg)).convert("RGB").resize((size, size), Image.Resampling.BOX)
        )
        X[row] = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255
    return X, table


def faces(seed, data):
    """Does the face smile? In training 95 % of those that do are women, and of the others men.

    Debiasing rows are others of the training split as they come; test rows are those of the
    official test split, which are of another source.
    """
    X, table = load_faces(data)
    y, a = (table[k].to_numpy().astype(int) for k in ("smiling", "male"))
    rng = np.random.default_rng(seed)
    official = (table["split"] == "train").to_numpy()
    order = rng.permutation(np.flatnonzero(official))
    debias, rest = order[:3000], order[3000:]
    train = []
    for smiling, male, n in ((1, 0, 1330), (0, 1, 1330), (0, 0, 70), (1, 1, 70)):
        train.append(rest[(y[rest] == smiling) & (a[rest] == male)][:n])
    train = rng.permutation(np.concatenate(train))
    test = np.flatnonzero(~official)
    return ImageTask(
        "faces", seed, X[train], y[train], X[debias], y[debias], a[debias],
        X[test], y[test], a[test],
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
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip


def trained_on_images(task, cache):
    """The task with its network, from the cache where it is there."""
    path = None if cache is None else cache / f"{task.name}_{task.seed}.pt"
    with seeded(task.seed, torch.device("cpu")):
        network = convolutional() if task.name == "digits" else residual()
        if path is not None and path.exists():
            network.load_state_dict(torch.load(path, weights_only=True))
        else:
            train_on_images(network, task)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.save(network.state_dict(), path)
    return replace(task, network=network.eval())


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


# -- speed -------------------------------------------------------------------------------------


def processor_time(function, *arguments, n_repeats=1):
    """Median of processor times, which other work on the machine leaves alone."""
    times = []
    for _ in range(n_repeats):
        start = time.process_time()
        function(*arguments)
        times.append(time.process_time() - start)
    return float(np.median(times))


def exact_search(scores, y, a):
    Objective(
        y, a, n_groups=2, constraint="demographic_parity", performance="balanced_accuracy",
        epsilon=EPSILON, confidence="auto", margin=0.01,
    ).choose(scores[None])  # fmt: skip


def random_rows(n):
    rng = np.random.default_rng(0)
    y, a = (rng.random((2, n)) < [[0.25], [0.67]]).astype(int)
    return 2 * y + a + 1.5 * rng.standard_normal(n), y, a


def speed(arguments):
    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = [*speed_of_search(), *speed_of_trials(arguments)]
    header = ["what", "against", "ratio"]
    write(arguments, "speed", [("On one processor core", header, rows, "")])


def speed_of_search():
    scores, y, a = random_rows(10_000)
    exact = processor_time(exact_search, scores, y, a, n_repeats=31)
    probabilities = 1 / (1 + np.exp(-scores))
    for words, accuracy in (
        ("balanced accuracy from scikit-learn, as released", balanced_accuracy_score),
        ("balanced accuracy in plain NumPy", None),
    ):
        search = functools.partial(threshold_search, balanced_accuracy=accuracy)
        published = processor_time(search, probabilities, y, a, "demographic_parity")
        yield [
            f"exact threshold search, 10,000 rows: {1e3 * exact:.1f} ms",
            f"the published search of 501 thresholds x 5 bootstraps, {words}: {published:.1f} s",
            f"{published / exact:,.0f} times as fast",
        ]
    sizes = [3_000, 10_000, 30_000, 100_000, 300_000]
    costs = [processor_time(exact_search, *random_rows(n), n_repeats=15) for n in sizes]
    units = np.array(costs) / [n * np.log2(n) for n in sizes]
    yield [
        "exact threshold search, "
        + ", ".join(f"{n:,} rows: {1e3 * c:.1f} ms" for n, c in zip(sizes, costs, strict=True)),
        "growth as n log n",
        "; ".join(f"{u / units[0]:.2f}" for u in units)
        + " of the cost a row x log that 3,000 have",
    ]


def speed_of_trials(arguments):
    task = draw("adult", DEVELOPMENT_SEED, arguments.data, arguments.cache)
    X, y, a = task.X_debias, task.y_debias, task.a_debias
    with torch.no_grad():
        probabilities = torch.sigmoid(task.network(torch.from_numpy(X))[:, 0]).numpy()

    def fit(name, **parameters):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FairnessWarning)
            return getattr(intraprocessing, name)(task.network, random_state=0, **parameters).fit(
                X, y, sensitive_features=a
            )

    trials = processor_time(fit, "RandomPerturbationDebiaser", n_repeats=3)
    published = processor_time(threshold_search, probabilities, y, a, "demographic_parity")
    yield [
        f"``RandomPerturbationDebiaser``, 101 trials on Adult ({len(y):,} rows): {trials:.1f} s",
        f"one published threshold search on the same rows: {published:.1f} s",
        f"{published / trials:.1f} times as fast",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of tabular/ and images/")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="of networks and results")
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--development", action="store_true", help="other seeds: 100, 101, ...")
    parser.add_argument("--seeds", type=int, help="how many; default 10, on images 3")
    parser.add_argument("--tasks", nargs="+", choices=[*TABULAR, *IMAGES])
    parser.add_argument("--methods", nargs="+", metavar="WORD", help="rows whose names hold one")
    parser.add_argument("--jobs", type=int, default=2, help="splits at once")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.speed:
        speed(arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
