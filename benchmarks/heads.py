"""Heads of frozen features on real data: accuracy by group, labels needed, wrong labels, speed.

    python -m benchmarks heads --data PATH --cache FOLDER           # reported draws
    python -m benchmarks heads --data PATH --cache FOLDER --development
    python -m benchmarks heads --data PATH --part peers             # published heads, and ours
    python -m benchmarks heads --data PATH --part defaults          # cluster margins, one by one
    python -m benchmarks heads --data PATH --part margin            # their ablations
    python -m benchmarks heads --part batches                       # sizes of batches, no data
    python -m benchmarks heads --part speed                         # ratios, no data needed

``--cache`` keeps what was measured, so that a run that was stopped goes on where it was. A method
whose code has changed is measured again. ``--tables`` measures nothing more.
Every row of a table is fitted on the same draws. ``--write FOLDER`` also stores the tables.
"""

import argparse
import functools
import subprocess
import sys
import time
import timeit
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from benchmarks._heads import (
    BASELINE,
    HERE,
    METHODS,
    N_LABELS,
    REFERENCE_HEADS,
    REFIT,
    RIGHT_CLASS,
    Draw,
    Missing,
)
from benchmarks._published import ordinary_training, published
from benchmarks._remember import Remembered, library_code, parsed, short_digest
from benchmarks._tables import Table, processor_time, publish
from benchmarks._tasks import Task, Tasks
from skfair import ClusterMarginClassifier, LogitAdjustedClassifier
from skfair.utils import FairnessWarning

TITLES = {
    "mtfl_smiling": "smiling, gender 95 %",
    "mtfl_glasses": "glasses, gender 95 %",
    "mtfl_male_95": "male, smiling 95 %",
    "mtfl_male": "male, no smiling men",
    "utk_age_95": "age, gender 95 %",
    "utk_age_90": "age, gender 90 %",
    "utk_gender_95": "gender, age 95 %",
    "utk_gender_90": "gender, age 90 %",
    "cmnist_995": "Colored MNIST .995",
    "cmnist_900": "Colored MNIST .9",
    "bar": "BAR",
    "mtfl_smiling_natural": "smiling, as it comes",
    "mtfl_glasses_natural": "glasses, as they come",
    "utk_age_none": "age, no bias",
    "utk_gender_none": "gender, no bias",
}
NATURAL = ("mtfl_smiling_natural", "mtfl_glasses_natural")
UNBIASED = ("utk_age_none", "utk_gender_none")
BIASED = tuple(name for name in TITLES if name not in (*NATURAL, *UNBIASED))
TABLES = {
    "faces": ("Faces of MTFL", BIASED[:4]),
    "ages": ("Faces of UTKFace", BIASED[4:8]),
    "others": ("Digits (conflicting / mean) and actions (worst / mean class)", BIASED[8:]),
    "unbiased": ("Without a bias, and with what is there", (*NATURAL, *UNBIASED)),
}
NOISY = ("mtfl_smiling", "mtfl_male_95", "utk_age_95", "utk_gender_95")
WRONG = {  # what is wrong, to the rows that it concerns
    "group labels": (
        "LogitAdjustedClassifier, 50 labels",
        "LogitAdjustedClassifier, 200 labels",
        "LogitAdjustedClassifier, all labels",
        "groups balanced, all labels",
    ),
    "classes": (
        BASELINE,
        "ClusterMarginClassifier",
        "LogitAdjustedClassifier",
        "LogitAdjustedClassifier, 50 labels",
        RIGHT_CLASS,
        "LogitAdjustedClassifier, all labels",
        "groups balanced, all labels",
        REFIT,
    ),
}
SHARES = (0.05, 0.1)


def digest(module):
    """Of the code that a method runs."""
    if module.startswith("skfair"):
        return short_digest(library_code(module))
    return short_digest(*(parsed(name)[0] for name in dict.fromkeys((HERE, module))))


class Measured:
    """Scores by task, wrong labels, seed and method, in memory and in the cache.

    With `alone`, no fit goes on from another one, so that each one's seconds count.
    """

    def __init__(self, arguments, alone=False):
        self.alone = alone
        self.kind = "development" if arguments.development else "reported"
        self.remembered = Remembered(arguments.cache, "heads")
        self.digests = {method: digest(how.module) for method, how in METHODS.items()}
        self.data = arguments.data

    @functools.cached_property
    def tasks(self):
        """Loaded if something is missing in the cache."""
        return Tasks(self.data)

    def key(self, name, wrong, seed, method):
        kind = f"{self.kind} alone" if self.alone else self.kind
        return (name, *wrong, kind, seed, method, self.digests[method])

    def measure(self, name, wrong, seed, methods):
        """Measure what is missing of one draw."""
        keys = {method: self.key(name, wrong, seed, method) for method in methods}
        missing = {m: key for m, key in keys.items() if key not in self.remembered.records}
        if not missing:
            return
        task = self.tasks.draw(name, seed, development=self.kind == "development")
        what, share = wrong
        if what:
            task = task.with_wrong({"classes": "y"}.get(what, "attribute"), share, seed)
        draw = Draw(task, seed)
        for method, key in missing.items():
            if self.alone:
                draw = Draw(task, seed)
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FairnessWarning)
                try:
                    scores = task.scores(METHODS[method].predict(draw))
                    took = time.process_time() - start
                    record, shown = [*scores, took], f"{scores[0]:.1f} / {scores[1]:.1f}"
                except Missing as error:
                    record, took = str(error), 0.0
                    shown = record
            self.remembered.measured(key, lambda record=record: record)
            note = f"  {name} {what} {share} seed {seed} {method}: {shown} ({took:.1f} s)"
            print(note, file=sys.stderr, flush=True)

    def scores(self, name, method, wrong=("", 0)):
        """Worst and average group: dict of seed to two numbers, of the draws that are measured."""
        found = ((seed, self.record(name, wrong, seed, method)) for seed in range(100))
        return {seed: np.array(scores[:2]) for seed, scores in found if isinstance(scores, list)}

    def record(self, name, wrong, seed, method):
        """Scores and processor seconds, or what the task lacks; None if nothing was measured."""
        return self.remembered.records.get(self.key(name, wrong, seed, method))

    def seconds(self, names, method):
        """Median of fits with predictions."""
        found = (self.record(name, ("", 0), seed, method) for name in names for seed in range(100))
        found = [record[2] for record in found if isinstance(record, list)]
        return f"{np.median(found):.1f}" if found else "-"

    def cell(self, name, method):
        """Mean and standard deviation over the draws as text, or what the task lacks."""
        lacking = self.record(name, ("", 0), 0, method)
        return lacking if isinstance(lacking, str) else cell(self.scores(name, method))


def n_draws(arguments, name):
    return arguments.draws or (3 if name.startswith("cmnist") else 5)


def accuracy(arguments):
    measured = Measured(arguments)
    names = arguments.tasks or list(TITLES)
    chosen = [m for m in METHODS if not arguments.methods or m in arguments.methods]
    methods = [m for m in chosen if m != RIGHT_CLASS]  # equal to the row without wrong classes
    if not arguments.tables:
        for seed in range(max(n_draws(arguments, name) for name in names)):
            for name in names:
                if seed < n_draws(arguments, name):
                    measured.measure(name, ("", 0), seed, methods)
                    if name in NOISY and not arguments.no_noise:
                        for what, concerned in WRONG.items():
                            for share in SHARES:
                                rows = [m for m in concerned if m in chosen]
                                measured.measure(name, (what, share), seed, rows)
    for kind, (title, columns) in TABLES.items():
        write(arguments, f"heads_{kind}", title, *accuracy_table(measured, columns))
    write(
        arguments, "heads_differences", "Against ridge logistic regression", *differences(measured)
    )
    title = "Against ridge logistic regression, task by task (worst / average group)"
    write(arguments, "heads_gains", title, *gains_by_task(measured))
    write(arguments, "heads_labels", "Worst group by suggested labels", *labels_needed(measured))
    for what in WRONG:
        title = f"With wrong {what} (worst / average group)"
        write(
            arguments, f"heads_wrong_{what.replace(' ', '_')}", title, *wrong_table(measured, what)
        )


COMPARED = (
    BASELINE,
    "LogitAdjustedClassifier",
    "XRM",
    "LogitAdjustedClassifier, 50 labels",
    "LogitAdjustedClassifier, all labels",
    "groups balanced, all labels",
    "GroupDRO, all labels",
    "logit adjustment, all labels",
    REFIT,
    "JTT, chosen on a balanced set",
    "AFR, chosen on a balanced set",
)


def peers(arguments):
    """Published heads and ours on the same draws, where the training data has a bias."""
    measured = Measured(arguments, alone=True)
    names = arguments.tasks or list(BIASED)
    if not arguments.tables:
        for seed in range(max(n_peer_draws(arguments, name) for name in names)):
            for name in names:
                if seed < n_peer_draws(arguments, name):
                    measured.measure(name, ("", 0), seed, COMPARED)
    for kind, of_kind in {"faces": BIASED[:8], "others": BIASED[8:]}.items():
        columns = [name for name in of_kind if name in names]
        header, rows = accuracy_table(measured, columns, COMPARED)
        header = [header[0], "needs", *header[1:], "mean gain", "CPU s"]
        rows = [
            [
                m,
                METHODS[m].needs,
                *cells,
                mean_gain(measured, columns, m),
                measured.seconds(columns, m),
            ]
            for m, *cells in rows
        ]
        title = f"Published heads and ours: {kind}, worst / average group"
        if columns:
            write(arguments, f"heads_peers_{kind}", title, header, rows)


def mean_gain(measured, names, method):
    """Mean over the tasks of the gains in the worst and in the average group."""
    found = [gains(measured, name, method) for name in names]
    found = [of_task.mean(axis=0) for of_task in found if len(of_task)]
    return "{:+.1f} / {:+.1f}".format(*np.mean(found, axis=0)) if found else "-"


def n_peer_draws(arguments, name):
    return arguments.draws or (1 if name.startswith("cmnist") else 2)


def cell(scores):
    """Mean and standard deviation over the draws, as text."""
    scores = list(scores.values())
    if not scores:
        return "-"
    texts = [f"{m:.1f}" for m in np.mean(scores, axis=0)]
    if len(scores) > 1:
        spread = np.std(scores, axis=0, ddof=1)
        texts = [f"{text} ± {s:.1f}" for text, s in zip(texts, spread, strict=True)]
    return " / ".join(texts)


def accuracy_table(measured, names, methods=METHODS):
    header = ["head"]
    for name in names:
        n = len(measured.scores(name, BASELINE))
        header.append(f"{TITLES[name]}, {n} draw{'s' * (n != 1)}")
    rows = [[m, *(measured.cell(name, m) for name in names)] for m in methods]
    return header, rows


def gains(measured, name, method):
    """Differences from the ridge logistic regression on the same draws: (n_draws, 2)."""
    ours, plain = measured.scores(name, method), measured.scores(name, BASELINE)
    both = [ours[seed] - plain[seed] for seed in ours if seed in plain]
    return np.array(both).reshape(-1, 2)


def gains_by_task(measured):
    """The gains of the heads to choose from, in each task, worst / average group."""
    methods = [
        "ClusterMarginClassifier",
        "LogitAdjustedClassifier",
        *(f"LogitAdjustedClassifier, {n} labels" for n in (50, 200, "all")),
        "groups balanced, all labels",
        *REFERENCE_HEADS,
        REFIT,
    ]
    rows = []
    for name, title in TITLES.items():
        plain = list(measured.scores(name, BASELINE).values())
        row = [title, "{:.1f} / {:.1f}".format(*np.mean(plain, axis=0)) if plain else "-"]
        for method in methods:
            found = gains(measured, name, method)
            shown = measured.cell(name, method)  # what the task lacks, if nothing was measured
            row.append("{:+.1f} / {:+.1f}".format(*found.mean(axis=0)) if len(found) else shown)
        rows.append(row)
    return ["task", BASELINE, *methods], rows


def lowest(differences, column=0):
    """The lowest mean over the draws among some tasks, and the task that has it."""
    means = {name: d[:, column].mean() for name, d in differences.items() if len(d)}
    if not means:
        return "-"
    name = min(means, key=means.get)
    return f"{means[name]:+.1f} ({TITLES[name]})"


def differences(measured):
    header = [
        "head",
        "needs",
        "tasks with a bias: mean",
        "lowest task",
        "lowest average group",
        "draws more than 2 below",
        "more than 5 below",
        "worst draw",
        "no bias, lowest",
        "as it comes, lowest",
    ]
    rows = []
    for method in METHODS:
        if method == BASELINE:
            continue
        found = {name: gains(measured, name, method) for name in TITLES}
        biased = {name: found[name] for name in BIASED if len(found[name])}
        if not biased:
            continue
        draws = np.concatenate([found[name][:, 0] for name in TITLES])
        rows.append(
            [
                method,
                METHODS[method].needs,
                f"{np.mean([d[:, 0].mean() for d in biased.values()]):+.1f} ({len(biased)} tasks)",
                lowest(biased),
                lowest(found, column=1),
                f"{(draws < -2).mean():.0%}",
                f"{(draws < -5).mean():.0%} of {len(draws)}",
                f"{draws.min():+.1f}",
                lowest({name: found[name] for name in UNBIASED}),
                lowest({name: found[name] for name in NATURAL}),
            ]
        )
    return header, rows


def labels_needed(measured):
    header = ["task", "refit, balanced", "no labels", *map(str, N_LABELS), "all", "as good with"]
    rows = []
    for name, title in TITLES.items():
        found = {
            n: measured.scores(name, f"LogitAdjustedClassifier{text}")
            for n, text in [
                (0, ""),
                *((n, f", {n} labels") for n in N_LABELS),
                (np.inf, ", all labels"),
            ]
        }
        means = {n: np.mean(list(s.values()), axis=0)[0] for n, s in found.items() if s}
        refit = measured.scores(name, REFIT)
        if not refit or not means:
            continue
        goal = np.mean(list(refit.values()), axis=0)[0]
        enough = [n for n, mean in means.items() if mean >= goal]
        rows.append(
            [
                title,
                f"{goal:.1f}",
                *(f"{means[n]:.1f}" if n in means else "-" for n in found),
                {np.inf: "all", 0: "none"}.get(enough[0], str(enough[0])) if enough else "never",
            ]
        )
    return header, rows


def wrong_table(measured, what):
    header = ["head", "wrong", *(TITLES[name] for name in NOISY)]
    rows = []
    for method in WRONG[what]:
        for share in (0, *SHARES):
            wrong = (what, share) if share else ("", 0)
            scores = [measured.scores(name, method, wrong) for name in NOISY]
            if any(scores):
                rows.append([method, f"{share:.0%}", *map(cell, scores)])
    return header, rows


def write(arguments, kind, title, header, rows):
    rows = [row for row in rows if set(row[1:]) != {"-"}]
    seeds = "0 on, one for each draw"
    publish(arguments.write, kind, Table(title, header, rows), seeds=seeds)


def published_margins(**parameters):
    """ClusterMarginClassifier as published, with these parameters changed."""

    def fit(task, seed):
        parameters_ = {"scale": 8.0, **parameters}
        model = ClusterMarginClassifier(random_state=seed, **parameters_).fit(task.X, task.y)
        return model.predict

    return fit


ABLATIONS = {
    "ordinary training": lambda task, seed: ordinary_training(task.X, task.y, seed),
    "``loss='cross_entropy'``": published_margins(loss="cross_entropy"),
    "published, fixed setting": lambda task, seed: published(task.X, task.y, seed),
    "``loss='loss_weighted'``": published_margins(loss="loss_weighted"),
    "``loss='cluster_weighted'``": published_margins(loss="cluster_weighted"),
    "``margin='constant'``": published_margins(margin="constant"),
    "``margin_std=0``": published_margins(margin_std=0.0),
    "``cluster_on='input'``": published_margins(cluster_on="input"),
    "**ClusterMarginClassifier(scale=8)**": published_margins(),
}
ABLATED = ("mtfl_smiling", "mtfl_male", "cmnist_995", "cmnist_900", "bar")
CHOSEN_ON = ("mtfl_smiling", "mtfl_glasses", "cmnist_995", "cmnist_900")


def one_by_one(n_classes):
    """The defaults of cluster margins at the published scale, and each default changed alone."""
    epochs, decay, lr = min(3 * n_classes, 20), 0.7 / n_classes, 1.28 / 1280
    margins = published_margins
    return {
        "**``scale=8``, other defaults**": margins(),
        **{
            f"``amplifier_weight_decay``: {f} x auto": margins(amplifier_weight_decay=f * decay)
            for f in (0.1, 0.5, 2, 10)
        },
        **{f"``amplifier_max_epochs={e}``": margins(amplifier_max_epochs=e) for e in (5, 20)},
        **{f"``n_clusters``: {k} a class": margins(n_clusters=k * n_classes) for k in (1, 2, 8)},
        **{f"``margin_std={v}``": margins(margin_std=v) for v in (0.0, 0.3)},
        **{f"``scale={v}``": margins(scale=v) for v in (4.0, 12.0)},
        **{
            f"``max_epochs``: {f} x auto": margins(max_epochs=round(f * epochs))
            for f in (0.5, 2, 4)
        },
        **{f"``lr``: {f} x auto": margins(lr=f * lr) for f in (0.3, 3)},
        **{f"``batch_size={n}``": margins(batch_size=n) for n in (32, 256)},
        "``weight_decay=0.01``": margins(weight_decay=0.01),
        "``margin='constant'``": margins(margin="constant"),
        "``cluster_on='input'``": margins(cluster_on="input"),
    }


def margins(arguments):
    """Ablations of cluster margins on reported draws, or their defaults on development draws."""
    development = arguments.part == "defaults"
    tasks = Tasks(arguments.data)
    columns = {}
    for name in arguments.tasks or (CHOSEN_ON if development else ABLATED):
        methods = one_by_one(10 if name.startswith("cmnist") else 2) if development else ABLATIONS
        n = arguments.draws or (3 if name.startswith("cmnist") else 10)
        scores = {method: {} for method in methods}
        for seed in range(n):
            task = tasks.draw(name, seed, development=development)
            for method, fit in methods.items():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FairnessWarning)
                    scores[method][seed] = task.scores(fit(task, seed)(task.X_eval))
            print(f"  {name} seed {seed}", file=sys.stderr, flush=True)
        columns[f"{TITLES[name]}, {n} draws"] = {m: cell(s) for m, s in scores.items()}
    rows = [[row, *(column[row] for column in columns.values())] for row in methods]
    title = "Cluster margins: worst / average group (conflicting / mean on Colored MNIST)"
    first = "changed" if development else "method"
    write(arguments, f"heads_{arguments.part}", title, [first, *columns], rows)


# Generated tasks: classes, share of the samples with their class's bias, share of the last class
# (None: all alike), steps between class means in standard deviations, and whether the standard
# deviation of direction k is 1 / k, with the classes in small directions.
LARGE = {
    "2 classes, 95 %": (2, 0.95, None, 1.5, False),
    "4 classes, 90 %": (4, 0.9, None, 2.5, False),
    "2 classes, 95 %, uneven directions": (2, 0.95, None, 2.0, True),
    "the same, 10 % in one class": (2, 0.95, 0.1, 2.0, True),
}
N_LARGE, N_LARGE_EVAL, LARGE_WIDTH = 102_400, 20_000, 64


def large_task(name, seed):
    """Training and evaluation data of a generated task; in the latter, all groups are alike."""
    n_classes, agree, share, step, uneven = LARGE[name]
    rng = np.random.default_rng([seed, list(LARGE).index(name)])
    turned = np.linalg.qr(rng.standard_normal((LARGE_WIDTH, LARGE_WIDTH)))[0]
    if uneven:
        class_means, bias_means = np.zeros((2, 2, LARGE_WIDTH))
        class_means[1, 32:40], bias_means[1, :4] = step / np.sqrt(8), 2.0
        turned = turned / np.arange(1, LARGE_WIDTH + 1)[:, None]
    else:
        class_means = step * np.eye(n_classes, LARGE_WIDTH)
        bias_means = 4.0 * np.eye(n_classes, LARGE_WIDTH, n_classes)

    def draw(n, agree, share):
        y = rng.integers(n_classes, size=n)
        if share is not None:
            y = (rng.random(n) < share).astype(int)
        bias = np.where(
            rng.random(n) < agree, y, (y + rng.integers(1, n_classes, size=n)) % n_classes
        )
        X = rng.standard_normal((n, LARGE_WIDTH)) + class_means[y] + bias_means[bias]
        return (X @ turned).astype(np.float32), y, bias

    X, y, bias = draw(N_LARGE, agree, share)
    X_eval, y_eval, bias_eval = draw(N_LARGE_EVAL, 1 / n_classes, None)
    return Task(X, y, bias, X_eval, y_eval, n_classes * y_eval + bias_eval)


def batches(arguments):
    """Cluster margins on large data, with batches of 64 and of 512."""
    methods = {f"``batch_size={size!r}``": {"batch_size": size} for size in (64, 512)}
    columns = {}
    for name in LARGE:
        scores, seconds = ({method: {} for method in methods} for _ in range(2))
        for seed in range(arguments.draws or 5):
            task = large_task(name, seed)
            for method, parameters in methods.items():
                start = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FairnessWarning)
                    model = ClusterMarginClassifier(random_state=seed, **parameters)
                    model.fit(task.X, task.y)
                seconds[method][seed] = time.process_time() - start
                scores[method][seed] = task.scores(model.predict(task.X_eval))
            print(f"  {name} seed {seed}", file=sys.stderr, flush=True)
        columns[name] = {
            method: f"{cell(scores[method])}; {np.median(list(seconds[method].values())):.0f} s"
            for method in methods
        }
    rows = [[method, *(column[method] for column in columns.values())] for method in methods]
    title = f"Worst / average group and processor seconds of a fit, {N_LARGE:,} samples"
    write(arguments, "heads_batches", title, ["batches", *columns], rows)


def biased_sample(n, d):
    """Features; ten show the class, and ten others a bias that is correlated with the class."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n)
    bias = np.where(rng.random(n) < 0.95, y, 1 - y)
    X = rng.standard_normal((n, d), dtype=np.float32)
    X[:, :10] += 0.5 * (2 * y - 1)[:, None]
    X[:, 10:20] += (2 * bias - 1)[:, None]
    return X, y, bias.astype(object)


PLAIN = "LogisticRegression(max_iter=1000)"


def speed_task(X, y, bias):
    """The sample as a task whose balanced set are 100 of its samples of each group."""
    cell = 2 * y + bias.astype(int)
    rows = np.concatenate([np.flatnonzero(cell == c)[:100] for c in range(4)])
    some = slice(10)
    return Task(X, y, bias.astype(int), X[some], y[some], cell[some], X[rows], y[rows], cell[rows])


def fit_time(n, d, n_repeats):
    """Processor seconds of the fits, in turns; medians, and ratios to scikit-learn's."""
    X, y, bias = biased_sample(n, d)
    some = np.full(n, None, dtype=object)
    model = LogitAdjustedClassifier(random_state=0).fit(X, y)
    rows = model.suggest_labels(50)
    some[rows] = bias[rows]
    task = speed_task(X, y, bias)
    fits = {
        PLAIN: lambda: LogisticRegression(max_iter=1000).fit(X, y),
        "LogitAdjustedClassifier": lambda: LogitAdjustedClassifier(random_state=0).fit(X, y),
        "LogitAdjustedClassifier, 50 labels": lambda: LogitAdjustedClassifier(random_state=0).fit(
            X, y, sensitive_features=some
        ),
        "LogitAdjustedClassifier, all labels": lambda: LogitAdjustedClassifier(random_state=0).fit(
            X, y, sensitive_features=bias
        ),
        "ClusterMarginClassifier": lambda: ClusterMarginClassifier(random_state=0).fit(X, y),
        **{m: lambda m=m: METHODS[m].predict(Draw(task, 0)) for m in (*REFERENCE_HEADS, REFIT)},
    }
    times = [[processor_time(fit) for fit in fits.values()] for _ in range(n_repeats)]
    seconds = np.median(times, axis=0)
    ratios = np.median(np.array(times) / np.array(times)[:, :1], axis=0)
    return {name: f"{s:.2f} s ({r:.1f})" for name, s, r in zip(fits, seconds, ratios, strict=True)}


def row_times():
    """Time of the prediction of one row of 1,280 features as a ratio to scikit-learn's."""
    X, y, bias = biased_sample(2_400, 1_280)
    plain = LogisticRegression(max_iter=1000).fit(X, y)
    ours = LogitAdjustedClassifier(head="linear", random_state=0).fit(X, y, sensitive_features=bias)
    row = X[:1]
    ratios = []
    for _ in range(15):  # in turns
        times = [min(timeit.repeat(lambda m=m: m.predict(row), number=50)) for m in (plain, ours)]
        ratios.append(times[1] / times[0])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


_MEMORY = """
import re, numpy as np
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**20
from skfair import {name}
n, d = {shape}
X = np.empty((n, d), dtype=np.float32)
rng = np.random.default_rng(0)
y = rng.integers(2, size=n)
for rows in np.array_split(np.arange(n), 1 + n // 10_000):
    X[rows] = rng.standard_normal((len(rows), d), dtype=np.float32)
X[:, :10] += 0.5 * (2 * y - 1)[:, None]
before = peak()
{name}(random_state=0, **{parameters}).fit(X, y)
above = peak() - before
print(f"{{above:.2f}} {{X.nbytes / 2**30:.2f}}")
"""


def memory(name, shape, **parameters):
    code = _MEMORY.format(name=name, shape=shape, parameters=parameters)
    command = [sys.executable, "-W", "ignore", "-c", code]
    above, data = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    what = f"``{name}.fit``, {shape[0]:,} x {shape[1]:,}"
    return [what, "the data", f"{above} GiB above {data} GiB"]


_FIT_MEMORY = """
import re, sys, warnings
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**10
from benchmarks import heads
from benchmarks._heads import METHODS, Draw
X, y, bias = heads.biased_sample(2_400, 1_280)
draw = Draw(heads.speed_task(X, y, bias), 0)
before, name = peak(), sys.argv[1]
if name == heads.PLAIN:
    heads.LogisticRegression(max_iter=1000).fit(X, y)
else:
    METHODS[name].predict(draw)
print(round(peak() - before))
"""


def fit_memory(name):
    """Of one head, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", _FIT_MEMORY, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return f"{done.stdout.strip()} MiB"


def bare_epochs(X, codes, batch_size, n_epochs):
    """Ordinary training as a bare torch loop over slices of the same tensors."""
    net = nn.Sequential(nn.Linear(X.shape[1], 128), nn.ReLU(), nn.Linear(128, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(X)).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(net(X[rows]), codes[rows]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.25)
            optimizer.step()


def epochs():
    """Time of an epoch of cluster margins against a bare loop, a row for each size."""
    rng = np.random.default_rng(0)
    for n, d, batch_size in ((4_795, 512, 256), (20_000, 1_280, 64), (20_000, 512, 64)):
        X = rng.standard_normal((n, d), dtype=np.float32)
        y = rng.integers(2, size=n)
        tensors = torch.from_numpy(X), torch.from_numpy(y)
        n_epochs = max(2, 60_000 // n)

        def fit(n_epochs, X=X, y=y, batch_size=batch_size):
            ClusterMarginClassifier(
                loss="cross_entropy", max_epochs=n_epochs, batch_size=batch_size, lr=1e-3
            ).fit(X, y)

        ratios = []
        for _ in range(7):  # in turns, and in processor time, since others may use the machine
            once, many = processor_time(fit, 1), processor_time(fit, 1 + n_epochs)
            bare = processor_time(bare_epochs, *tensors, batch_size, n_epochs)
            ratios.append((many - once) / bare)
        low, ratio, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        yield [
            f"an epoch of ``ClusterMarginClassifier.fit``, {n:,} x {d:,}, batches of {batch_size}",
            "a bare torch loop over slices of the same tensors",
            f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        ]


def speed(arguments):
    columns = {
        f"{n:,} x {d:,}": fit_time(n, d, n_repeats)
        for n, d, n_repeats in ((2_400, 1_280, 5), (100_000, 512, 1))
    }
    rows = [
        [m, METHODS[m].needs if m in METHODS else "nothing", *(c[m] for c in columns.values()),
         fit_memory(m)]
        for m in columns["2,400 x 1,280"]
    ]  # fmt: skip
    title = (
        "Processor seconds of a fit, one thread (times scikit-learn's), and memory above the data"
    )
    header = ["head", "needs", *columns, "memory, 2,400 x 1,280"]
    write(arguments, "heads_speed", title, header, rows)
    rows = [
        ["``predict`` of one row, linear head", "``LogisticRegression``", row_times()],
        memory("LogitAdjustedClassifier", (1_000_000, 512), head="linear"),
        memory("ClusterMarginClassifier", (162_770, 512), max_epochs=1, amplifier_max_epochs=1),
        *epochs(),
    ]
    title = "Processor time as a ratio, median (quartiles); memory of a fit"
    write(arguments, "heads_costs", title, ["what", "against", "ratio or memory"], rows)


PARTS = {
    "heads": accuracy,
    "peers": peers,
    "margin": margins,
    "defaults": margins,
    "batches": batches,
    "speed": speed,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds features/*.npz")
    parser.add_argument("--part", choices=PARTS, default="heads")
    parser.add_argument("--development", action="store_true", help="draws for choices")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="of results, to go on from")
    parser.add_argument("--tables", action="store_true", help="of the cache alone")
    parser.add_argument("--tasks", nargs="+", choices=TITLES, help="default: all of the table")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: all")
    parser.add_argument("--no-noise", action="store_true", help="no wrong labels")
    parser.add_argument("--draws", type=int, help="of each task; default 5, 3 of digits")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    needs_data = arguments.part not in ("batches", "speed")
    if arguments.data is None and needs_data and not arguments.tables:
        parser.error("--data is needed")
    PARTS[arguments.part](arguments)
