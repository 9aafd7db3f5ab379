"""ClusterMarginClassifier on real features: accuracy by group, how defaults were chosen, speed.

    python benchmarks/cluster_margin.py --data PATH                 # official test splits
    python benchmarks/cluster_margin.py --data PATH --development   # the defaults, one by one
    python benchmarks/cluster_margin.py --data PATH --labels        # what few labels decide
    python benchmarks/cluster_margin.py --speed                     # ratios, no data needed

Every row of a table is fitted on the same draws. ``--write FOLDER`` also writes the table as
reStructuredText, which is how the tables of the user guide were made.
"""

import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _published import ordinary_training, published
from _tasks import Tasks
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from skfair import ClusterMarginClassifier
from skfair.utils import FairnessWarning

TITLES = {
    "mtfl_smiling": "MTFL smiling, gender 95 % (worst / average group)",
    "mtfl_glasses": "MTFL glasses, gender 95 % (worst / average group)",
    "mtfl_male": "MTFL male, bias smiling (worst / average group)",
    "cmnist_995": "Colored MNIST .995 (conflicting / mean)",
    "cmnist_900": "Colored MNIST .9 (conflicting / mean)",
    "bar": "BAR (worst / mean class)",
}


def estimator(**parameters):
    """A method that fits the classifier, and its predictions."""

    def fit(task, seed):
        model = ClusterMarginClassifier(random_state=seed, **parameters).fit(task.X, task.y)
        return model.predict

    return fit


def with_labels(n):
    """Fit, label the `n` suggested samples (None: all of them), fit again."""

    def fit(task, seed):
        if task.attribute is None:
            return None
        model = ClusterMarginClassifier(random_state=seed)
        known = task.attribute
        if n is not None:
            rows = model.fit(task.X, task.y).suggest_labels(n)
            known = np.full(len(task.y), None, dtype=object)
            known[rows] = task.attribute[rows]
        model.fit(task.X, task.y, sensitive_features=known)
        fit.chosen.append(model.loss_ == "margin")
        return model.predict

    fit.chosen = []
    return fit


def logistic_regression(task, seed):
    return (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        .fit(task.X, task.y)
        .predict
    )


def last_layer_refit(task, seed):
    """Logistic regression on the small group-balanced labelled set alone."""
    if task.X_balanced is None:
        return None
    return (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        .fit(task.X_balanced, task.y_balanced)
        .predict
    )


def test_methods():
    return {
        "logistic regression": logistic_regression,
        "ordinary training": lambda task, seed: ordinary_training(task.X, task.y, seed),
        "``loss='cross_entropy'``": estimator(loss="cross_entropy"),
        "published, fixed setting": lambda task, seed: published(task.X, task.y, seed),
        "``loss='loss_weighted'``": estimator(loss="loss_weighted"),
        "``loss='cluster_weighted'``": estimator(loss="cluster_weighted"),
        "``margin='constant'``": estimator(margin="constant"),
        "``margin_std=0``": estimator(margin_std=0.0),
        "``cluster_on='input'``": estimator(cluster_on="input"),
        "**ClusterMarginClassifier()**": estimator(),
        "with 50 suggested labels": with_labels(50),
        "with all labels": with_labels(None),
        "last-layer refit on 400 faces or 200 digits, balanced": last_layer_refit,
    }


def development_methods(n_classes):
    """The defaults, and each of them changed alone."""
    epochs, decay, lr = min(3 * n_classes, 20), 0.7 / n_classes, 1.28 / 1280
    return {
        "**defaults**": estimator(),
        **{
            f"``amplifier_weight_decay``: {f} x auto": estimator(amplifier_weight_decay=f * decay)
            for f in (0.1, 0.5, 2, 10)
        },
        **{f"``amplifier_max_epochs={e}``": estimator(amplifier_max_epochs=e) for e in (5, 20)},
        **{f"``n_clusters``: {k} a class": estimator(n_clusters=k * n_classes) for k in (1, 2, 8)},
        **{f"``margin_std={v}``": estimator(margin_std=v) for v in (0.0, 0.3)},
        **{f"``scale={v}``": estimator(scale=v) for v in (4.0, 12.0)},
        **{
            f"``max_epochs``: {f} x auto": estimator(max_epochs=round(f * epochs))
            for f in (0.5, 2, 4)
        },
        **{f"``lr``: {f} x auto": estimator(lr=f * lr) for f in (0.3, 3)},
        **{f"``batch_size={n}``": estimator(batch_size=n) for n in (32, 256)},
        "``weight_decay=0.01``": estimator(weight_decay=0.01),
        "``margin='constant'``": estimator(margin="constant"),
        "``cluster_on='input'``": estimator(cluster_on="input"),
    }


def measure(tasks, name, methods, seeds, development):
    """Scores of each method on each draw: dict of method to (n_seeds, 2)."""
    rows = {method: [] for method in methods}
    for seed in seeds:
        task = tasks.draw(name, seed, development=development)
        for method, fit in methods.items():
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FairnessWarning)
                predict = fit(task, seed)
            if predict is not None:
                rows[method].append(task.scores(predict(task.X_eval)))
                print(
                    f"  {name} seed {seed} {method}: {rows[method][-1][0]:.1f} / "
                    f"{rows[method][-1][1]:.1f}  ({time.perf_counter() - start:.0f} s)",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
    return rows


def cells(rows):
    """Mean and standard deviation over the draws, as text."""
    texts = {}
    for method, scores in rows.items():
        spread = np.std(scores, axis=0, ddof=1) if len(scores) > 1 else ()
        means = [f"{m:.1f}" for m in np.mean(scores, axis=0)] if scores else ["-"]
        texts[method] = " / ".join(
            [f"{m} ± {s:.1f}" for m, s in zip(means, spread, strict=True)] if len(spread) else means
        )
    return texts


def table(columns, first):
    """An RST list-table of columns: dict of title to dict of row to text."""
    rows = dict.fromkeys(row for column in columns.values() for row in column)
    lines = [".. list-table::", "   :header-rows: 1", ""]
    body = [[row, *(column[row] for column in columns.values())] for row in rows]
    for row in [[first, *columns], *body]:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def accuracy(arguments):
    tasks = Tasks(arguments.data)
    names = arguments.tasks or (
        ["mtfl_smiling", "mtfl_glasses", "cmnist_995", "cmnist_900"]
        if arguments.development
        else list(Tasks.NAMES)
    )
    columns = {}
    for name in names:
        if arguments.development:
            methods = development_methods(10 if name.startswith("cmnist") else 2)
        else:
            methods = test_methods()
        n_seeds = arguments.seeds or (3 if name.startswith("cmnist") else 10)
        rows = measure(tasks, name, methods, range(n_seeds), arguments.development)
        columns[f"{TITLES[name]}, {n_seeds} draws"] = cells(rows)
        for method in methods.values():
            if getattr(method, "chosen", None):
                print(f"{name}: method kept in {np.mean(method.chosen):.0%} of draws")
    kind = "defaults" if arguments.development else "test"
    write(arguments, kind, table(columns, "changed" if arguments.development else "method"))


def write(arguments, kind, text):
    print(text)
    if arguments.write is not None:
        arguments.write.mkdir(parents=True, exist_ok=True)
        (arguments.write / f"cluster_margin_{kind}.rst").write_text(text)


def labels(arguments):
    """How often the method is kept, by the number of suggested samples that are labelled."""
    tasks = Tasks(arguments.data)
    columns = {}
    for name in arguments.tasks or ("mtfl_smiling", "mtfl_glasses", "cmnist_995", "mtfl_male"):
        n_seeds = arguments.seeds or (3 if name.startswith("cmnist") else 10)
        kept = {f"{n} labels": [] for n in (20, 50, 100)} | {"all labels": []}
        for seed in range(n_seeds):
            # Development draws: as many more biased samples, and nothing of the test split.
            task = tasks.draw(name, seed, development=True)
            model = ClusterMarginClassifier(random_state=seed).fit(task.X, task.y)
            for row in kept:
                known = task.attribute.astype(object)
                if row != "all labels":
                    known = np.full(len(task.y), None, dtype=object)
                    rows = model.suggest_labels(int(row.split()[0]))
                    known[rows] = task.attribute[rows]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FairnessWarning)
                    kept[row].append(
                        clone(model).fit(task.X, task.y, sensitive_features=known).loss_ == "margin"
                    )
            print(f"  {name} seed {seed}", file=sys.stderr, flush=True)
        title = TITLES[name].partition(" (")[0]
        columns[f"{title}, {n_seeds} draws"] = {
            row: f"{sum(v)} of {len(v)}" for row, v in kept.items()
        }
    write(arguments, "labels", table(columns, "method kept with"))


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


def processor_time(function, *arguments):
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def speed():
    """Time of an epoch against a bare loop, and the memory of a large fit."""
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
        for _ in range(7):  # in turns, and in processor time: others may use the machine
            once, many = processor_time(fit, 1), processor_time(fit, 1 + n_epochs)
            bare = processor_time(bare_epochs, *tensors, batch_size, n_epochs)
            ratios.append((many - once) / bare)
        low, ratio, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(
            f"{n} x {d}, batches of {batch_size}: an epoch of fit takes {ratio:.2f} of bare torch "
            f"(median; quartiles {low:.2f} to {high:.2f})"
        )

    code = """
import re, numpy as np
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 2**20
from skfair import ClusterMarginClassifier
X = np.random.default_rng(0).standard_normal((162_770, 512), dtype=np.float32)
y = (X[:, 0] > 0).astype(int)
before = peak()
ClusterMarginClassifier(max_epochs=1, amplifier_max_epochs=1, random_state=0).fit(X, y)
print(f"162770 x 512: {peak() - before:.2f} GiB above the data ({X.nbytes / 2**30:.2f} GiB)")
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds features/*.npz")
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--tasks", nargs="+", choices=TITLES, help="default: all of the table")
    parser.add_argument("--seeds", type=int, help="draws of each task; default 10, 3 on MNIST")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.speed:
        speed()
    elif arguments.data is None:
        parser.error("--data is needed, or --speed")
    elif arguments.labels:
        labels(arguments)
    else:
        accuracy(arguments)


if __name__ == "__main__":
    main()
