"""How far a debiaser's own measures can be trusted, judged on rows that it never saw.

For each network and each debiaser, many fits on rows drawn anew. The population value of the bias
is measured on all remaining rows: some 33,000 of Adult, 100,000 of generated images.
"""

import itertools
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks._intraprocessing.measures import EPSILON, balanced_accuracy
from benchmarks._intraprocessing.people import (
    CROSSED,
    BagOfTokens,
    Transformer,
    outputs,
    people,
    perceptron,
    small_cnn,
    trained,
)
from benchmarks._remember import Remembered, library_code, short_digest
from benchmarks._tables import Table, percent, publish, spelled
from skfair import intraprocessing
from skfair.utils import FairnessWarning

N_FITS = 40  # of a cell
FIRST_SEED = 80  # seeds 0 to 79 had been looked at when the last changes were made
N_A_NETWORK = 10  # fits that share one base network
N_TRAIN, N_DEBIAS = 12_000, 4_000
N_IMAGES_JUDGED = 100_000
# The goals, in each cell.
LEAST_COVERAGE, LEAST_KEPT = 0.92, 0.85

NETWORKS = {
    "mlp": "MLP, told the sex",
    "mlp_blind": "MLP, not told the sex",
    "embedding": "embedding bag of tokens",
    "transformer": "transformer of tokens",
    "cnn": "CNN on made images",
}
DEBIASERS = (
    "DistillationDebiaser",
    "BiasGradientDebiaser",
    "AdversarialFinetuneDebiaser",
    "LinearPostDebiaser",
)
CONSTRAINTS = {
    "demographic_parity": "demographic parity",
    "equal_opportunity": "equal opportunity",
}


@dataclass(frozen=True)
class Task:
    """A trained network and rows that it has not seen; some of these rows are for debiasing."""

    network: torch.nn.Module
    X: np.ndarray
    y: np.ndarray
    group: np.ndarray
    n_pool: int  # debiasing rows are drawn from these first ones

    def draw(self, seed):
        """Rows to debias on, and all others."""
        drawn = np.random.default_rng(seed).permutation(self.n_pool)[:N_DEBIAS]
        others = np.ones(len(self.y), dtype=bool)
        others[drawn] = False
        return drawn, others


def build_task(name, block, data):
    """The task of ten fits; `block` draws its rows and its weights."""
    rng = np.random.default_rng([block, 14])
    if name == "cnn":
        network = trained(
            small_cnn, *made_images(N_TRAIN, rng, association=0.8)[:2], block, max_epochs=10
        )
        X, y, group = made_images(20_000 + N_IMAGES_JUDGED, rng, association=0.6)
        return Task(network, X, y, group, n_pool=20_000)
    adult = people(data)
    if name in ("embedding", "transformer"):
        kind, n_crossed = (BagOfTokens, 3) if name == "embedding" else (Transformer, 1)
        X = adult.tokens(CROSSED[:n_crossed])
        build, max_epochs = (lambda: kind(int(X.max()) + 1)), 4
    else:
        X = adult.features(without=["sex"] if name == "mlp_blind" else [])
        build, max_epochs = (lambda: perceptron(X.shape[1])), 6
    order = rng.permutation(len(X))
    first, rest = order[:N_TRAIN], order[N_TRAIN:]
    network = trained(build, X[first], adult.y[first], block, max_epochs=max_epochs, lr=4e-3)
    group = (adult.sex == "Male").astype(int)
    return Task(network, X[rest], adult.y[rest], group[rest], n_pool=len(rest))


def made_images(n, rng, association):
    """Grey images of 12 x 12: is there a cross, or a ring? Group 1 has a watermark in a corner.

    The share `association` of the crosses has the watermark, and ``1 - association`` of the rings.
    """
    y = (rng.random(n) < 0.4).astype(int)
    group = (rng.random(n) < np.where(y == 1, association, 1 - association)).astype(int)
    cross = np.zeros((5, 5), dtype=np.float32)
    cross[2] = cross[:, 2] = 1
    ring = np.ones((5, 5), dtype=np.float32)
    ring[1:-1, 1:-1] = 0
    images = rng.normal(0, 0.65, size=(n, 12, 12)).astype(np.float32)
    top, left = rng.integers(0, 5, size=(2, n))
    offset = np.arange(5)
    places = (top[:, None] + offset)[:, :, None], (left[:, None] + offset)[:, None, :]
    images[np.arange(n)[:, None, None], *places] += np.where(y[:, None, None] == 1, cross, ring)
    images[:, -3:, -3:] += 0.6 * group[:, None, None]
    return images[:, None], y, group


# -- measures ----------------------------------------------------------------------------------


def signed_bias(predicted, y, group, constraint):
    """The rate of group 0 minus that of group 1, and its standard error."""
    rows = slice(None) if constraint == "demographic_parity" else y == 1
    parts = [predicted[rows][group[rows] == g] for g in (0, 1)]
    rates = [part.mean() for part in parts]
    variance = sum(r * (1 - r) / len(p) for r, p in zip(rates, parts, strict=True))
    return rates[0] - rates[1], float(np.sqrt(variance))


def measure_fit(task, name, constraint, seed):
    """Debias, and compare the debiaser's own measures with those on the other rows."""
    drawn, others = task.draw(seed)
    estimator = getattr(intraprocessing, name)(
        task.network,
        constraint=constraint,
        epsilon=EPSILON,
        output="logits",
        device="cpu",
        random_state=seed,
    )
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FairnessWarning)
        estimator.fit(task.X[drawn], task.y[drawn], sensitive_features=task.group[drawn])
    seconds = time.process_time() - start
    X, y, group = task.X[others], task.y[others], task.group[others]
    predicted = estimator.predict(X) == 1
    bias, error = signed_bias(predicted, y, group, constraint)
    return {
        "said": estimator.bias_,
        "interval": [float(bound) for bound in estimator.bias_interval_],
        "feasible": bool(estimator.feasible_),
        "probability": float(estimator.trials_["probability"][estimator.best_trial_]),
        "performance": estimator.performance_,
        "bias": float(bias),
        "error": error,
        "balanced_accuracy": float(balanced_accuracy(predicted, y)),
        "seconds": seconds,
        "warnings": sorted({w.category.__name__ for w in caught}),
    }


def measure_original(task, constraint):
    """The original network, on all of the task's rows."""
    predicted = outputs(task.network, task.X)[:, 0] > 0
    bias, error = signed_bias(predicted, task.y, task.group, constraint)
    accuracy = float(balanced_accuracy(predicted, task.y))
    return {"bias": float(bias), "error": error, "balanced_accuracy": accuracy}


# -- the run -----------------------------------------------------------------------------------

HEADER = [
    "network",
    "debiaser",
    "95 % interval covers",
    "allowing for the judge's error",
    "half its width",
    "``feasible_``",
    "kept, of these",
    "mean size of the bias said",
    "the same on new rows",
    "balanced accuracy",
    "``performance_`` less that",
    "CPU s",
]


def summary(records):
    """Shares and means over the fits of a cell."""
    said, bias, error, accuracy, performance = (
        np.array([r[k] for r in records])
        for k in ("said", "bias", "error", "balanced_accuracy", "performance")
    )
    low, high = np.array([r["interval"] for r in records]).T
    feasible = np.array([r["feasible"] for r in records])
    # The judging rows are a sample, too; this interval is for the difference of two estimates.
    wider_low = said - np.hypot(said - low, 1.96 * error)
    wider_high = said + np.hypot(high - said, 1.96 * error)
    held = np.abs(bias) <= EPSILON
    return {
        "coverage": np.mean((low <= bias) & (bias <= high)),
        "allowing": np.mean((wider_low <= bias) & (bias <= wider_high)),
        "half_width": np.mean(high - low) / 2,
        "feasible": feasible.mean(),
        "kept": held[feasible].mean() if feasible.any() else np.nan,
        "said": np.mean(np.abs(said)),
        "bias": np.mean(np.abs(bias)),
        "balanced_accuracy": accuracy.mean(),
        "optimism": np.mean(performance - accuracy),
        "seconds": np.median([r["seconds"] for r in records]),
    }


def cells(network, debiaser, records):
    s = summary(records)
    return [
        network,
        f"``{debiaser}``",
        percent(s["coverage"]),
        percent(s["allowing"]),
        f"{s['half_width']:.3f}",
        percent(s["feasible"]),
        percent(s["kept"]),
        f"{s['said']:.3f}",
        f"{s['bias']:.3f}",
        f"{s['balanced_accuracy']:.3f}",
        f"{s['optimism']:+.3f}",
        f"{s['seconds']:.2g}",
    ]


def original_cells(network, records):
    bias, accuracy = (np.array([r[k] for r in records]) for k in ("bias", "balanced_accuracy"))
    row = [network, "original network", *["-"] * (len(HEADER) - 2)]
    row[8], row[9] = f"{np.abs(bias).mean():.3f}", f"{accuracy.mean():.3f}"
    return row


def goals(found):
    """The cells that miss the goals."""
    texts = []
    for key, least, what in (
        ("coverage", LEAST_COVERAGE, "interval covers in at least"),
        ("allowing", LEAST_COVERAGE, "the same, allowing for the judge's error"),
        ("kept", LEAST_KEPT, "kept where feasible in at least"),
    ):
        short = [
            f"{network}, ``{debiaser}`` {percent(s[key])}"
            for (network, debiaser), s in found.items()
            if s[key] < least
        ]
        told = f"**missed in {len(short)}** ({'; '.join(short)})" if short else "met in all"
        texts.append(f"{what} {percent(least)}: {told}")
    return f"Goals, of {len(found)} cells: " + ". ".join(texts) + ".\n"


def run(arguments, development_seed):
    """Run all cells, and publish a table for each constraint."""
    first_seed = development_seed if arguments.development else FIRST_SEED
    n_fits = arguments.seeds or N_FITS
    remembered = Remembered(arguments.cache, "trust")
    debiasers = [name for name in DEBIASERS if name in intraprocessing.__all__]
    if arguments.methods:
        debiasers = [d for d in debiasers if any(word in d for word in arguments.methods)]
    networks = [n for n in NETWORKS if not arguments.tasks or n in arguments.tasks]
    parts = []
    torch.set_num_threads(1)
    for constraint in arguments.constraints or CONSTRAINTS:
        rows, found = [], {}
        for network in networks:
            records, originals = {d: [] for d in debiasers}, []
            seeds = range(first_seed, first_seed + n_fits)
            for block, group in itertools.groupby(seeds, lambda seed: seed // N_A_NETWORK):
                measured = measure_block(
                    network, block, list(group), debiasers, constraint, arguments.data, remembered
                )
                originals.append(measured.pop("original")[0])
                for debiaser, new in measured.items():
                    records[debiaser] += new
            rows.append(original_cells(NETWORKS[network], originals))
            for debiaser in debiasers:
                rows.append(cells(NETWORKS[network], debiaser, records[debiaser]))
                found[NETWORKS[network], debiaser] = summary(records[debiaser])
        title = f"How far to trust: {CONSTRAINTS[constraint]}, {n_fits} fits a cell"
        parts.append(Table(title, HEADER, rows, goals(found)))
    kind = "development_trust" if arguments.development else "trust"
    publish(arguments.write, f"intraprocessing_{kind}", *parts, seeds=spelled(seeds))


def measure_block(network, block, seeds, debiasers, constraint, data, remembered):
    """The records of the fits that share a base network, trained only if one is missing."""
    tasks = []

    def task():
        if not tasks:
            tasks.append(build_task(network, block, data))
        return tasks[0]

    found = {}
    with threadpool_limits(1):
        key = (network, "original", constraint, block)
        found["original"] = [remembered.measured(key, lambda: measure_original(task(), constraint))]
        for debiaser in debiasers:
            code = short_digest(library_code(getattr(intraprocessing, debiaser).__module__))
            found[debiaser] = []
            for seed in seeds:
                key = (network, debiaser, constraint, seed, code)
                record = remembered.measured(
                    key,
                    lambda debiaser=debiaser, seed=seed: measure_fit(
                        task(), debiaser, constraint, seed
                    ),
                )
                found[debiaser].append(record)
            last = found[debiaser][-1]
            print(
                f"  {network} {debiaser} {constraint} block {block}: said {last['said']:+.3f}, "
                f"new {last['bias']:+.3f}, {last['seconds']:.2f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    return found
