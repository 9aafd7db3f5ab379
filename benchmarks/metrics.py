"""How much faster the count kernel is than fairlearn's MetricFrame, on the same data.

Run: python -m benchmarks metrics [--rows 200000] [--repeats 5] [--write docs/results]

Both compute the accuracy of the worst group (class x sensitive feature), and bootstrap intervals
of three metrics, from labels, predictions and group labels as a user has them. The values must be
equal, and the intervals nearly.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate
from sklearn.metrics import accuracy_score

from benchmarks._tables import Table, publish
from skfair.metrics import fairness_report, worst_group_accuracy_score

METRICS = {"accuracy": accuracy_score, "selected": selection_rate, "fpr": false_positive_rate}


def with_metric_frame(y, prediction, group):
    frame = MetricFrame(
        metrics=accuracy_score,
        y_true=y,
        y_pred=prediction,
        sensitive_features={"class": y, "group": group},
    )
    return frame.group_min()


def best_of(repeats, function, *args, **kwargs):
    """Time the fastest of several calls; others than that were disturbed."""
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        value = function(*args, **kwargs)
        seconds.append(perf_counter() - start)
    return min(seconds), value


def worst_group(rows, repeats):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=rows)
    prediction = np.where(rng.random(rows) < 0.8, y, 1 - y)
    codes = rng.integers(5, size=rows)
    for name, group in {
        "integers": codes,
        "strings": np.array(["a", "b", "c", "d", "e"])[codes],
        "objects": np.array(["a", "b", "c", "d", "e"], dtype=object)[codes],
    }.items():
        slow, expected = best_of(repeats, with_metric_frame, y, prediction, group)
        fast, value = best_of(
            repeats, worst_group_accuracy_score, y, prediction, sensitive_features=group
        )
        assert abs(value - expected) < 1e-12
        yield f"worst-group accuracy, {rows:,} rows, groups as {name}", slow, fast


def intervals(rows, n_boot, n_fairlearn, weighted):
    """fairlearn's time for `n_boot` draws is extrapolated from that for `n_fairlearn` draws."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=rows)
    prediction = np.where(rng.random(rows) < 0.8, y, 1 - y)
    group = rng.integers(10, size=rows)
    weight = rng.random(rows) if weighted else None
    parameters = {name: {"sample_weight": weight} for name in METRICS} if weighted else None

    def with_fairlearn():
        return MetricFrame(
            metrics=METRICS, y_true=y, y_pred=prediction, sensitive_features=group,
            sample_params=parameters, n_boot=n_fairlearn, ci_quantiles=[0.025, 0.975],
            random_state=0,
        )  # fmt: skip

    def without_intervals():
        return MetricFrame(
            metrics=METRICS, y_true=y, y_pred=prediction, sensitive_features=group,
            sample_params=parameters,
        )  # fmt: skip

    def with_skfair():
        return fairness_report(
            y, prediction, sensitive_features=group, metrics=METRICS, sample_weight=weight,
            n_boot=n_boot,
        )  # fmt: skip

    slow, frame = best_of(1, with_fairlearn)
    once, _ = best_of(3, without_intervals)
    fast, report = best_of(3, with_skfair)
    for name in METRICS:
        difference = report.disparities.loc[(name, "difference"), "model"]
        assert abs(difference["value"] - frame.difference()[name]) < 1e-12
        low, high = (ci[name] for ci in frame.difference_ci())
        width = high - low
        assert abs(difference["low"] - low) < 0.5 * width
        assert abs(difference["high"] - high) < 0.5 * width
    slow = once + (slow - once) * n_boot / n_fairlearn
    what = f"{n_boot:,} bootstrap intervals, 3 metrics, 10 groups, {rows:,} rows"
    yield f"{what}{', weighted' if weighted else ''}", slow, fast


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bootstrap-rows", type=int, default=20_000)
    parser.add_argument("--fairlearn-draws", type=int, default=20, help="timed, of 1,000")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    measured = [*worst_group(args.rows, args.repeats)]
    for weighted in (False, True):
        measured += intervals(args.bootstrap_rows, 1000, args.fairlearn_draws, weighted)
    header = ["what", "MetricFrame", "skfair", "ratio"]
    rows = [
        [what, f"{slow:.3g} s", f"{fast:.2g} s", f"{slow / fast:,.0f}"]
        for what, slow, fast in measured
    ]
    table = Table("Group metrics: time of one call", header, rows)
    publish(args.write, "metrics_speed", table, seeds="0")
