"""Speed of the debiasers, as ratios that are taken in one run."""

import warnings
from unittest import mock

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score
from threadpoolctl import threadpool_limits

from benchmarks._intraprocessing.measures import EPSILON
from benchmarks._intraprocessing.methods import NetworkClassifier
from benchmarks._intraprocessing.run import DEVELOPMENT_SEED, draw
from benchmarks._published import threshold_search
from benchmarks._tables import Table, processor_time, publish
from benchmarks._tabular import build_network
from skfair import intraprocessing
from skfair.intraprocessing._objective import Objective
from skfair.utils import FairnessWarning
from skfair.utils._random import seeded

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


def run(arguments):
    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = [*speed_of_search(), *speed_on_adult(arguments)]
    header = ["what", "against", "ratio"]
    table = Table("On one processor core", header, rows)
    publish(arguments.write, "intraprocessing_speed", table, seeds=str(DEVELOPMENT_SEED))


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

    fit("RandomPerturbationDebiaser")  # the first fit includes the time in which torch loads code
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
