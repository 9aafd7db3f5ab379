"""Cluster margins: what a scale gains and costs, and when a few group labels let them be used.

    python -m benchmarks cluster_margin --data PATH --part scale       # development draws
    python -m benchmarks cluster_margin --data PATH --part decision    # reported draws

*Scale*: the gain over ridge logistic regression by ``scale``. *Decision*: how often the fit with
some group labels used the margins, beside what the margins change compared with ordinary training
of the same network.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np

from benchmarks._heads import Draw, ridge_logistic_regression
from benchmarks._tables import Table, publish, spelled
from benchmarks._tasks import Tasks
from benchmarks.heads import TITLES
from skfair import ClusterMarginClassifier
from skfair.utils import FairnessWarning

SCALES = (4.0, 5.0, 6.0, 8.0)
LABELS = ("50", "100", "50 random", "200 random", "all")


def n_draws(arguments, name):
    return arguments.draws or (1 if name.startswith("cmnist") else 3)


def worst_and_average(scores, sign=""):
    """Means over the draws, as text."""
    return " / ".join(f"{mean:{sign}.1f}" for mean in np.mean(scores, axis=0))


def fitted(task, seed, known=None, **parameters):
    model = ClusterMarginClassifier(random_state=seed, **parameters)
    return model.fit(task.X, task.y, sensitive_features=known)


def scales(arguments, tasks):
    """Gains of each scale over ridge logistic regression on development draws."""
    rows = []
    for name, title in TITLES.items():
        plain, gains = [], {scale: [] for scale in SCALES}
        for seed in range(n_draws(arguments, name)):
            task = tasks.draw(name, seed, development=True)
            plain.append(task.scores(ridge_logistic_regression(Draw(task, seed))))
            for scale in SCALES:
                scores = task.scores(fitted(task, seed, scale=scale).predict(task.X_eval))
                gains[scale].append(np.subtract(scores, plain[-1]))
            print(f"  {name} seed {seed}", file=sys.stderr, flush=True)
        texts = (worst_and_average(gain, "+") for gain in gains.values())
        rows.append([title, str(len(plain)), worst_and_average(plain), *texts])
    header = ["task", "draws", "ridge logistic regression"]
    header += [f"``scale={scale:g}``" for scale in SCALES]
    title = "Gain over ridge logistic regression by scale (worst / average group), held-out parts"
    publish(arguments.write, "cluster_margin_scale", Table(title, header, rows), seeds="0 on")


def labelled(model, task, seed):
    """The rows of each column of labels."""
    order = np.random.default_rng([seed, 4]).permutation(len(task.y))
    return dict(
        zip(
            LABELS,
            (
                model.suggest_labels(50),
                model.suggest_labels(100),
                order[:50],
                order[:200],
                np.arange(len(task.y)),
            ),
            strict=True,
        )
    )


def decisions(arguments, tasks):
    """Shares of fits with labels that used the margins, of tasks with a binary attribute."""
    rows, n = [], arguments.draws or 5
    for name in TITLES:
        if name.startswith(("cmnist", "bar")):
            continue
        used, accuracies, gains = dict.fromkeys(LABELS, 0), [], []
        for seed in range(n):
            task = tasks.draw(name, seed)
            draw = Draw(task, seed)
            for labels, known in labelled(draw.margin, task, seed).items():
                # The decision comes before the classifier is trained, except with all labels.
                epochs = {} if labels == "all" else {"max_epochs": 1}
                model = fitted(task, seed, draw.known(known), **epochs)
                used[labels] += model.loss_ == "margin"
            found = model.diagnostics_  # with all labels
            # Without conflicting samples, all samples are alike.
            one_kind = np.isnan(found["conflicting_accuracy"])
            others = found["amplifier_accuracy" if one_kind else "aligned_accuracy"]
            accuracies.append([found["conflicting_accuracy"], others])
            plain = fitted(task, seed, loss="cross_entropy")
            both = (task.scores(m.predict(task.X_eval)) for m in (draw.margin, plain))
            gains.append(np.subtract(*both))
            print(f"  {name} seed {seed}", file=sys.stderr, flush=True)
        conflicting, others = np.mean(accuracies, axis=0)
        text = f"- / {others:.2f}" if np.isnan(conflicting) else f"{conflicting:.2f} / {others:.2f}"
        shares = (f"{count} of {n}" for count in used.values())
        rows.append([TITLES[name], text, worst_and_average(gains, "+"), *shares])
    header = ["task", "amplifier", "margins", *LABELS]
    title = f"Fits that used the margins by labels, {n} draws"
    publish(
        arguments.write,
        "cluster_margin_decision",
        Table(title, header, rows),
        seeds=spelled(range(n)),
    )


PARTS = {"scale": scales, "decision": decisions}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds features/*.npz")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--draws", type=int, help="of each task; default 3 or 5, 1 of digits")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    tasks = Tasks(arguments.data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        for part in arguments.part:
            PARTS[part](arguments, tasks)
