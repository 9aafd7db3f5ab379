"""The debiasers of trained networks on the tasks of their literature: bias, accuracy, speed.

    python benchmarks/intraprocessing.py --data PATH --cache FOLDER                # ten seeds
    python benchmarks/intraprocessing.py --data PATH --cache FOLDER --development  # other seeds
    python benchmarks/intraprocessing.py --data PATH --cache FOLDER --images
    python benchmarks/intraprocessing.py --data PATH --cache FOLDER --speed        # ratios
    python benchmarks/intraprocessing.py --data PATH --cache FOLDER --trust        # is it so?
    python benchmarks/intraprocessing.py --data PATH --cache FOLDER --groups --classes --peers

A seed splits a data set, trains a network on 60 % of it, debiases that on 20 % and judges the
result on the last 20 %, on which nothing was chosen. ``--cache`` keeps the networks and all that
was measured, so that a run that was stopped goes on where it was; what was measured by other
code or of other networks is measured again. ``--write FOLDER`` also writes the tables as
reStructuredText.
"""

import argparse
import copy
import functools
import hashlib
import inspect
import itertools
import json
import math
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from _faces import load_faces
from _published import threshold_search
from _remember import library_code
from _rivals import compare as compare_with_rivals
from _rivals import range_argmax
from _tables import list_table, plain_table, processor_time
from _tabular import TabularTasks, build_network
from _trust import NETWORKS, trust
from fairlearn.postprocessing import ThresholdOptimizer
from featurizer import Block
from joblib import Parallel, delayed
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
    "digits": "Coloured digits, 5 or more, colour",
    "faces": "MTFL smiling, gender, other faces of the training split",
    "faces_official": "MTFL smiling, gender, the official test split, from another source",
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
    return math.erf(EPSILON / max(2 * math.sqrt(variance), 1e-12))


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


# -- methods: from a task and a measure to seconds and a function that predicts -----------------
# That function takes X, y and a of test rows; only the ceiling looks at y.


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A network as what scikit-learn and fairlearn take; scores of tables in float64."""

    def __init__(self, network):
        self.network = network
        self.classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y):
        return self

    def decision_function(self, X):
        X = np.asarray(X)
        dtype = torch.float64 if X.ndim == 2 else torch.float32
        network = copy.deepcopy(self.network).to(dtype).eval()
        with torch.no_grad():
            parts = torch.as_tensor(X, dtype=dtype).split(8192 if X.ndim == 2 else 250)
            raw = torch.cat([network(part) for part in parts])
        return (raw[:, 1] - raw[:, 0] if raw.shape[1] == 2 else raw[:, 0]).numpy()

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)


def original(task, measure):
    return None, lambda X, y, a: NetworkClassifier(task.network).predict(X) == 1


def original_most_accurate(task, measure):
    """The threshold of the best balanced accuracy, as published; the constraint is not asked."""
    classifier = NetworkClassifier(task.network)
    start = time.process_time()
    fpr, tpr, thresholds = roc_curve(task.y_debias, classifier.decision_function(task.X_debias))
    threshold = thresholds[np.argmax(tpr - fpr)]
    seconds = time.process_time() - start
    return seconds, lambda X, y, a: classifier.decision_function(X) >= threshold


def threshold_optimizer(task, measure):
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

    def predict(X, y, a):
        predicted = optimizer.predict(X, sensitive_features=a, random_state=task.seed)
        return np.asarray(predicted) == 1

    return seconds, predict


def ceiling(task, measure):
    classifier = NetworkClassifier(task.network)
    return None, lambda X, y, a: group_thresholds(classifier.decision_function(X), y, a, measure)


@dataclass(frozen=True)
class Debiaser:
    """One of skfair's, by the name of its class, so that those yet to come are left out."""

    name: str
    parameters: tuple = ()

    def __call__(self, task, measure):
        estimator = getattr(intraprocessing, self.name)(
            task.network,
            constraint=measure,
            epsilon=EPSILON,
            output="logits",
            device="cpu",
            random_state=task.seed,
            **dict(self.parameters),
        )
        start = time.process_time()
        estimator.fit(task.X_debias, task.y_debias, sensitive_features=task.a_debias)
        return time.process_time() - start, lambda X, y, a: estimator.predict(X) == 1


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
    """All code of skfair and all parameters that decide what a method does."""
    if not isinstance(method, Debiaser):
        return inspect.getsource(method)
    module = getattr(intraprocessing, method.name).__module__
    return repr(method.parameters) + library_code(module)


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


def test_sets(name, task):
    if isinstance(task, ImageTask):
        return task.tests
    return {name: (task.X_test, task.y_test, task.a_test)}


def measure_split(name, seed, methods, data, cache):
    """Run every method for every measure on one split; returns records and the failures."""
    torch.set_num_threads(1)
    records, failures = [], []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        task = draw(name, seed, data, cache)
        for measure, (label, method) in itertools.product(MEASURES, methods.items()):
            try:
                records += remember(name, task, measure, label, method, cache)
            except Exception:  # the others go on; the run says at its end that one failed
                failures.append(f"{name} {seed} {measure} {label}\n{traceback.format_exc()}")
    return records, failures


def remember(name, task, measure, label, method, cache):
    """Read the records of one method from the cache, or measure them: one for each test set."""
    path = None
    if cache is not None:
        short = "".join(c if c.isalnum() else "_" for c in label).strip("_")
        key = f"{name}_{task.seed}_{measure}_{short}_{digest(task.network, method)}"
        path = cache / "intraprocessing" / f"{key}.json"
        if path.exists():
            return json.loads(path.read_text())
    seconds, predict = method(task, measure)
    records = []
    for test, (X, y, a) in test_sets(name, task).items():
        predicted = predict(X, y, a)
        records.append(
            {
                "test": test,
                "seed": task.seed,
                "measure": measure,
                "method": label,
                "bias": bias(predicted, y, a, measure),
                "balanced_accuracy": balanced_accuracy(predicted, y),
                "seconds": seconds,
                "feasible_share": feasible_share(predicted, y, a, measure),
            }
        )
        print(
            "  {test} seed {seed} {measure} {method}: bias {bias:+.3f}, balanced accuracy "
            "{balanced_accuracy:.3f}".format(**records[-1]) + f" ({seconds or 0:.2f} s)",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{time.time_ns()}")  # whole or not at all
        partial.write_text(json.dumps(records))
        partial.replace(path)
    return records


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


def tables(name, title, records, n_seeds):
    """One table a measure: title, header and rows, and what there is to say below it."""
    for measure, words in MEASURES.items():
        methods = {}
        for record in records:
            if record["measure"] == measure:
                methods.setdefault(record["method"], []).append(record)
        rows = [cells(label, found) for label, found in methods.items()]
        if CEILING in methods and name != "digits":  # whose rows come in pairs
            share = percent(np.mean([r["feasible_share"] for r in methods[CEILING]]))
            rows.append(["most that sampling error allows", "-", "-", share, "-", "-", "-"])
        below = ""
        if (name, measure) in GOALS and RECOMMENDED in methods:
            below = goals(name, measure, methods[RECOMMENDED]) + "\n"
        yield f"{title}: {words}, {n_seeds} draws", HEADER, rows, below


def write(arguments, kind, parts):
    """Print the tables, and put them into the folder of ``--write``."""
    parts = list(parts)
    for *table, below in parts:
        print(plain_table(*table) + below, flush=True)
    if arguments.write is not None:
        arguments.write.mkdir(parents=True, exist_ok=True)
        pieces = [piece for *table, below in parts for piece in (list_table(*table), below)]
        text = "\n".join(piece for piece in pieces if piece)
        (arguments.write / f"intraprocessing_{kind}.rst").write_text(text, encoding="utf-8")


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
    names = [name for name in titles if name != "faces_official"]
    if arguments.tasks:
        names = [name for name in names if name in arguments.tasks]
    splits = list(itertools.product(names, seeds))
    results = Parallel(n_jobs=arguments.jobs, return_as="generator")(
        delayed(measure_split)(name, seed, methods, arguments.data, arguments.cache)
        for name, seed in splits
    )
    found, failures = {}, []
    for (_, seed), (records, failed) in zip(splits, results, strict=True):
        for record in records:
            found.setdefault(record["test"], []).append(record)
        failures += failed
        if seed == seeds[-1]:  # of this data set
            arguments.write = None if failures else arguments.write
            for test, measured in found.items():
                kind = f"development_{test}" if arguments.development else test
                write(arguments, kind, tables(test, titles[test], measured, len(seeds)))
            found = {}
    if failures:
        sys.exit("\n".join([*failures, f"{len(failures)} fits failed; the tables lack them."]))


# -- images ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageTask:
    """A biased training set, rows for debiasing that are not, and test sets: X, y and a by name.

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

    Debiasing rows are 2,500 others of the official training split, as they come. So are the rows
    of one test set; the other is the official test split, whose images are from another source.
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
    """The task with its network, from the cache where it is there."""
    path = None if cache is None else cache / f"{task.name}_{task.seed}.pt"
    with seeded(task.seed):
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


# The released search calls scikit-learn for the balanced accuracy of each sample.
ACCURACIES = {
    "balanced accuracy from scikit-learn, as released": balanced_accuracy_score,
    "balanced accuracy in plain NumPy": None,
}


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
        rows = [*speed_of_search(), *speed_on_adult(arguments)]
    header = ["what", "against", "ratio"]
    write(arguments, "speed", [("On one processor core", header, rows, "")])


def speed_of_search():
    scores, y, a = random_rows(10_000)
    exact = processor_time(exact_search, scores, y, a, n_repeats=31)
    probabilities = 1 / (1 + np.exp(-scores))
    for words, accuracy in ACCURACIES.items():
        published = processor_time(
            lambda accuracy=accuracy: threshold_search(
                probabilities, y, a, "demographic_parity", balanced_accuracy=accuracy
            )
        )
        yield [
            f"exact threshold search, 10,000 rows: {1e3 * exact:.1f} ms",
            f"published search, 501 thresholds x 5 bootstraps, {words}: {published:.2f} s",
            f"{published / exact:,.0f} times as fast",
        ]
    sizes = [3_000, 10_000, 30_000, 100_000, 300_000]
    costs = [processor_time(exact_search, *random_rows(n), n_repeats=15) for n in sizes]
    unit = costs[0] / (sizes[0] * np.log2(sizes[0]))
    for n, cost in zip(sizes[1:], costs[1:], strict=True):
        expected = unit * n * np.log2(n)
        yield [
            f"exact threshold search, {n:,} rows: {1e3 * cost:.1f} ms",
            f"n log n times what {sizes[0]:,} rows take: {1e3 * expected:.1f} ms",
            f"{cost / expected:.2f} of that",
        ]


def speed_on_adult(arguments):
    task = draw("adult", DEVELOPMENT_SEED, arguments.data, arguments.cache)
    X, y, a = task.X_debias, task.y_debias, task.a_debias
    on = f"on Adult ({len(y):,} rows)"

    def fit(name, network=task.network):
        estimator = getattr(intraprocessing, name)(network, output="logits", random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FairnessWarning)
            estimator.fit(X, y, sensitive_features=a)

    fit("RandomPerturbationDebiaser")  # the first also pays for what torch loads then
    trials = processor_time(fit, "RandomPerturbationDebiaser", n_repeats=5)
    probabilities = 1 / (1 + np.exp(-NetworkClassifier(task.network).decision_function(X)))
    for words, accuracy in ACCURACIES.items():
        published = processor_time(
            lambda accuracy=accuracy: threshold_search(
                probabilities, y, a, "demographic_parity", balanced_accuracy=accuracy
            )
        )
        yield [
            f"``RandomPerturbationDebiaser``, 101 trials {on}: {trials:.2f} s",
            f"one published threshold search, {words}: {published:.2f} s",
            f"{published / trials:.1f} times as fast",
        ]
    with seeded(0):
        wide = build_network(X.shape[1], width=128).eval()
    for words, network in {"as published": task.network, "128 units wide": wide}.items():
        reused = processor_time(fit, "LayerwiseDebiaser", network, n_repeats=3)
        with mock.patch("skfair.intraprocessing._partial_forward._follow", return_value=None):
            whole = processor_time(fit, "LayerwiseDebiaser", network, n_repeats=3)
        yield [
            f"``LayerwiseDebiaser`` {on}, network {words}: {reused:.2f} s",
            f"the same search with the whole network run each time: {whole:.2f} s",
            f"{whole / reused:.1f} times as fast",
        ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds tabular/ and images/")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="of networks and results")
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--trust", action="store_true", help="what debiasers say of themselves")
    parser.add_argument("--groups", action="store_true", help="five and ten groups")
    parser.add_argument("--classes", action="store_true", help="three classes")
    parser.add_argument("--peers", action="store_true", help="beside other packages")
    parser.add_argument("--development", action="store_true", help="other seeds: 100, 101, ...")
    parser.add_argument("--seeds", type=int, help="how many; default 10, on images 3")
    parser.add_argument("--tasks", nargs="+", choices=[*TABULAR, "digits", "faces", *NETWORKS])
    parser.add_argument("--constraints", nargs="+", metavar="NAME", help="of --trust and the like")
    parser.add_argument("--methods", nargs="+", metavar="WORD", help="rows whose names hold one")
    parser.add_argument("--jobs", type=int, default=2, help="splits at once")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.data is None and not (arguments.images and arguments.tasks == ["digits"]):
        parser.error("--data is needed, but for --images --tasks digits")
    if arguments.methods and arguments.write:
        parser.error("--write wants whole tables, without --methods")
    first = DEVELOPMENT_SEED if arguments.development else 0
    if arguments.trust:
        trust(arguments, DEVELOPMENT_SEED, write)
    elif kinds := [k for k in ("groups", "classes", "peers") if getattr(arguments, k)]:
        for kind in kinds:
            compare_with_rivals(arguments, kind, first, write)
    elif arguments.speed:
        speed(arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
