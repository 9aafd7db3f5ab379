"""Every method on every data set: the runs, and the records that they keep."""

import functools
import itertools
import sys
import traceback
import warnings

import torch
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from benchmarks._intraprocessing.images import IMAGES, ImageTask, digits, faces, trained_on_images
from benchmarks._intraprocessing.measures import MEASURES, balanced_accuracy, bias, feasible_share
from benchmarks._intraprocessing.methods import digest, image_methods, tabular_methods
from benchmarks._intraprocessing.tables import tables
from benchmarks._remember import Remembered
from benchmarks._tables import publish, spelled
from benchmarks._tabular import TabularTasks
from skfair.utils import FairnessWarning

TABULAR = {
    "compas": "COMPAS, race",
    "bank": "Bank, age 25",
    "adult": "Adult, sex",
    "adult_noattr": "Adult, sex, which is not among the features",
}
DEVELOPMENT_SEED = 100  # the first of the seeds on which choices are made


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
    remembered = Remembered(cache, "intraprocessing")
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        task = draw(name, seed, data, cache)
        for measure, (label, method) in itertools.product(MEASURES, methods.items()):
            key = (name, seed, measure, label, digest(task.network, method))
            try:
                records += remembered.measured(
                    key,
                    lambda measure=measure, label=label, method=method: measure_method(
                        name, task, measure, label, method
                    ),
                )
            except Exception:  # the other methods go on; the run reports the failures at its end
                failures.append(f"{name} {seed} {measure} {label}\n{traceback.format_exc()}")
    return records, failures


def measure_method(name, task, measure, label, method):
    """The records of one method, one for each test set."""
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
    return records


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
            folder = None if failures else arguments.write
            for test, measured in found.items():
                kind = f"development_{test}" if arguments.development else test
                parts = tables(test, titles[test], measured, len(seeds))
                publish(folder, f"intraprocessing_{kind}", *parts, seeds=spelled(seeds))
            found = {}
    if failures:
        sys.exit("\n".join([*failures, f"{len(failures)} fits failed; the tables lack them."]))
