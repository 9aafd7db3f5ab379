"""How much faster the count kernel is than fairlearn's MetricFrame, on the same data.

Run: python benchmarks/metrics.py [--rows 200000] [--repeats 5]

Both compute the accuracy of the worst group (class x sensitive feature) from labels,
predictions and group labels as a user has them; the two results must be equal.
"""

import argparse
from time import perf_counter

import numpy as np
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score

from skfair.metrics import worst_group_accuracy_score


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    y = rng.integers(2, size=args.rows)
    prediction = np.where(rng.random(args.rows) < 0.8, y, 1 - y)
    codes = rng.integers(5, size=args.rows)
    print(f"worst-group accuracy, {args.rows:,} rows, 2 classes x 5 groups, best of {args.repeats}")
    print(f"{'groups given as':16s} {'MetricFrame':>12s} {'skfair':>10s} {'ratio':>7s}")
    for name, group in {
        "integers": codes,
        "strings": np.array(["a", "b", "c", "d", "e"])[codes],
        "objects": np.array(["a", "b", "c", "d", "e"], dtype=object)[codes],
    }.items():
        slow, expected = best_of(args.repeats, with_metric_frame, y, prediction, group)
        fast, value = best_of(
            args.repeats, worst_group_accuracy_score, y, prediction, sensitive_features=group
        )
        assert abs(value - expected) < 1e-12
        print(f"{name:16s} {slow * 1e3:9.1f} ms {fast * 1e3:7.2f} ms {slow / fast:6.0f}x")


if __name__ == "__main__":
    main()
