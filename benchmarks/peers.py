"""Other packages on the tasks of the debiasers, each in an environment of its own.

    python -m benchmarks peers --data PATH --cache FOLDER --environments FOLDER

The splits and the networks are those of the benchmark ``intraprocessing``. A peer gets the
network's probabilities, the features and the groups of the debiasing rows. Its environment is made
from the pinned versions in ``benchmarks/_peers/requirements``, which takes minutes, and kept in the
folder of ``--environments``. A cell says how a method fails, if it does.

On the coloured digits, DetoxAI gets the network itself and the debiasing images. Its environment
takes several gigabytes: torch for GPUs. Everything here runs on the CPU.
"""

import argparse
import inspect
import io
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from benchmarks._intraprocessing.images import IMAGES
from benchmarks._intraprocessing.measures import EPSILON, MEASURES, balanced_accuracy, bias
from benchmarks._intraprocessing.methods import NetworkClassifier
from benchmarks._intraprocessing.peers import PublishedLinearPost
from benchmarks._intraprocessing.run import TABULAR, draw
from benchmarks._peers import environments, worker
from benchmarks._remember import Remembered, library_code, short_digest
from benchmarks._tables import Table, publish, spelled
from skfair import intraprocessing
from skfair.utils import FairnessWarning

ORIGINAL = "original network"
TOLERANCE = 0.03  # of peers, which have no margin for new rows, to stay below EPSILON
# Package, method of the worker, and whether it needs the group to predict.
PEERS = {
    "fairlearn, ``ThresholdOptimizer``": ("fairlearn", "fairlearn_thresholds", True),
    "error-parity, ``RelaxedThresholdOptimizer``": (
        "error-parity", "error_parity_thresholds", True,
    ),
    "AIF360, ``RejectOptionClassification``": ("aif360", "aif360_reject_option", True),
    "OxonFair, group known": ("oxonfair", "oxonfair_known", True),
    "OxonFair, group inferred": ("oxonfair", "oxonfair_inferred", False),
}  # fmt: skip
PEERS_OF_IMAGES = {
    f"DetoxAI, ``{method}``": ("detoxai", method, False)
    for method in ("SAVANIRP", "SAVANIAFT", "ZHANGM", "NT", "LEACE", "PCLARC")
}
OURS = ("ThresholdDebiaser", "DistillationDebiaser", "LinearPostDebiaser")
OURS_ON_IMAGES = ("ThresholdDebiaser", "DistillationDebiaser", "BiasGradientDebiaser")
REFERENCE = "LinearPost as published, our short reference"
TASKS = {**TABULAR, "digits": IMAGES["digits"]}
METHODS = dict.fromkeys(TABULAR, (*OURS, REFERENCE, *PEERS))
METHODS["digits"] = ORIGINAL, *OURS_ON_IMAGES, *PEERS_OF_IMAGES
HEADER = [
    "method", "group to predict", "balanced accuracy", "bias", "within .05", "fit, CPU s",
    "predict, CPU s", "fit, peak MiB",
]  # fmt: skip


def constraint_of(label, measure):
    """LinearPost has no average odds. It gets equalized odds, which implies them."""
    return "equalized_odds" if measure == "average_odds" and "LinearPost" in label else measure


def of_skfair(label, task, measure):
    """Predictions on the test rows, and the costs, of a debiaser or of the reference."""
    constraint = constraint_of(label, measure)

    def fit_debiaser():
        estimator = getattr(intraprocessing, label)(
            task.network, constraint=constraint, epsilon=EPSILON, output="logits", device="cpu",
            random_state=task.seed,
        )  # fmt: skip
        estimator.fit(task.X_debias, task.y_debias, sensitive_features=task.a_debias)
        return lambda: estimator.predict(task.X_test)

    def fit_reference():
        predict = PublishedLinearPost(TOLERANCE)(task, constraint)
        return lambda: predict(task.X_test, None)

    return worker.measured(fit_reference if label == REFERENCE else fit_debiaser)


def of_detoxai(label, task, measure, folder):
    pickled = io.BytesIO()
    torch.save(task.network, pickled)
    given = {
        "network": np.frombuffer(pickled.getvalue(), np.uint8), "X": task.X_debias,
        "y": task.y_debias, "group": task.a_debias, "X_test": task.X_test,
        "constraint": measure, "epsilon": EPSILON, "seed": task.seed,
    }  # fmt: skip
    package, method, _ = PEERS_OF_IMAGES[label]
    python = environments.python_of(package, folder)
    return environments.run(python, method, given, environments.DETOXAI_WORKER)


def of_peer(label, task, measure, folder):
    package, method, _ = PEERS[label]
    classifier = NetworkClassifier(task.network)
    given = {"constraint": measure, "tolerance": TOLERANCE, "seed": task.seed, "y": task.y_debias}
    for part, X, a in (
        ("", task.X_debias, task.a_debias),
        ("_test", task.X_test, task.a_test),
    ):
        score = 1 / (1 + np.exp(-classifier.decision_function(X)))
        given |= {f"X{part}": X.astype(np.float64), f"group{part}": a, f"score{part}": score}
    return environments.run(environments.python_of(package, folder), method, given)


def measured(label, task, measure, folder):
    """The record of one fit: its numbers, or under "failed" what it said."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FairnessWarning)
            if label in PEERS:
                found = of_peer(label, task, measure, folder)
            elif label in PEERS_OF_IMAGES:
                found = of_detoxai(label, task, measure, folder)
            elif label == ORIGINAL:
                classifier = NetworkClassifier(task.network)
                found = worker.measured(lambda: lambda: classifier.predict(task.X_test))
            else:
                found = of_skfair(label, task, measure)
    except (RuntimeError, ValueError) as error:
        return {"failed": " ".join(str(error).split())[:200]}
    predicted = found["predicted"] == 1
    return {
        "balanced_accuracy": balanced_accuracy(predicted, task.y_test),
        "bias": bias(predicted, task.y_test, task.a_test, measure),
        **{cost: float(found[cost]) for cost in ("fit", "predict", "memory")},
    }


def code_of(label):
    """What has to stay as it is for a record to count."""
    if label == ORIGINAL:
        return inspect.getsource(worker.measured)
    if label in PEERS_OF_IMAGES:
        package, method, _ = PEERS_OF_IMAGES[label]
        running = environments.DETOXAI_WORKER.read_text(encoding="utf-8")
        return running + environments.REQUIREMENTS[package].read_text(encoding="utf-8") + method
    if label not in PEERS:
        measuring = inspect.getsource(worker.measured) + inspect.getsource(of_skfair)
        if label == REFERENCE:
            return measuring + inspect.getsource(PublishedLinearPost)
        return measuring + library_code(getattr(intraprocessing, label).__module__)
    package, method, _ = PEERS[label]
    running = environments.WORKER.read_text(encoding="utf-8")
    return running + environments.REQUIREMENTS[package].read_text(encoding="utf-8") + method


def cells(label, records):
    """The row of one method; the first failure in words, if it failed."""
    shown, needs = label if label in (REFERENCE, ORIGINAL) else f"``{label}``", "no"
    if label in (peers := PEERS | PEERS_OF_IMAGES):
        package, _, needed = peers[label]
        shown = f"{label} ({environments.versions_of(package)})"
        needs = "yes" if needed else "no"
    failed = [record["failed"] for record in records if "failed" in record]
    if failed:
        told = f"fails in {len(failed)} of {len(records)}: ``{failed[0].replace('`', '')}``"
        return [shown, needs, told, *"-----"]
    columns = {name: np.array([record[name] for record in records]) for name in records[0]}
    spread = dict.fromkeys(columns, "")
    if len(records) > 1:
        spread = {name: f" ± {values.std(ddof=1):.3f}" for name, values in columns.items()}
    return [
        shown,
        needs,
        f"{columns['balanced_accuracy'].mean():.3f}{spread['balanced_accuracy']}",
        f"{columns['bias'].mean():+.3f}{spread['bias']}",
        f"{(np.abs(columns['bias']) < EPSILON).sum()} of {len(records)}",
        f"{columns['fit'].mean():.2g}",
        f"{columns['predict'].mean():.2g}",
        f"{columns['memory'].mean():.3g}",
    ]


def drawn(name, seed, data, cache):
    """A split with its network; of images, the one set of test rows under the names of tables."""
    task = draw(name, seed, data, cache)
    if name in TABULAR:
        return task
    X, y, a = task.tests[name]
    return SimpleNamespace(**vars(task), X_test=X, y_test=y, a_test=a)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds tabular/")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="of networks and results")
    parser.add_argument("--environments", type=Path, metavar="FOLDER", required=True)
    parser.add_argument("--seeds", type=int, default=10, help="how many; default 10")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    remembered = Remembered(arguments.cache, "peers")
    seeds = range(arguments.seeds)
    for name in arguments.tasks:
        tasks = [drawn(name, seed, arguments.data, arguments.cache) for seed in seeds]
        tables = []
        for measure, words in MEASURES.items():
            rows = []
            for label in METHODS[name]:
                records = []
                for task in tasks:
                    key = (name, task.seed, measure, label, short_digest(code_of(label)))
                    record = remembered.measured(
                        key,
                        lambda label=label, task=task, measure=measure: measured(
                            label, task, measure, arguments.environments
                        ),
                    )
                    records.append(record)
                    print(f"  {name} {task.seed} {measure} {label}: {record}", file=sys.stderr)
                rows.append(cells(label, records))
            draws = "1 draw" if len(seeds) == 1 else f"{len(seeds)} draws"
            title = f"{TASKS[name]}: {words}, {draws}"
            tables.append(Table(title, HEADER, rows))
        publish(arguments.write, f"peers_{name}", *tables, seeds=spelled(seeds))
