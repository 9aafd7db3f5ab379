"""How many rows it takes: intervals, certificates, gates and monitors, on generated rows.

Run: python -m benchmarks sample_sizes [--part gate monitor] [--write docs/results]

*Intervals*, *constraint* and *certificate* are computed by the formulas of skfair. *Chance*, *gate*
and *monitor* draw rows from populations that are known. No data is needed; it takes minutes.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import norm

from benchmarks._tables import Table, percent, publish
from skfair.metrics import fairness_report
from skfair.metrics._intervals import wilson_interval
from skfair.metrics._rate_tests import RateCounts, holds, least_rows, rows_for
from skfair.metrics._rules import FairnessRule
from skfair.monitoring._watch import Cell, RuleWatch

DELTA = 0.05
N_CHANCE, N_GATE, N_CERTIFIED, N_MONITORS, N_WINDOWS = 20_000, 60, 300, 200, 500
Z = norm.ppf(0.975)


def intervals():
    """Wilson's interval by the size of a group."""
    rows = []
    for n in (10, 20, 25, 50, 100, 200, 500):
        ends = (wilson_interval(np.array(share), np.array(n)) for share in (0.5, 0.8))
        rows.append([str(n), *(f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in ends)])
    title = "95 % interval of an accuracy (Wilson)"
    return Table(title, ["members of the group", "50 % correct", "80 % correct"], rows)


def constraint():
    """A bias of two groups that is measured as zero: its interval, and what new rows show."""
    rows = []
    for n in (100, 300, 1_000, 3_000, 10_000):
        error = np.sqrt(2 * 0.3 * 0.7 / n)
        new = np.sqrt(1 + 1 / 2) * error  # that of twice as many new rows comes on top
        probability = norm.cdf(0.05 / new) - norm.cdf(-0.05 / new)
        rows.append([f"{n:,}", f"± {Z * error:.3f}", f"{100 * probability:.0f} %"])
    title = "Two groups, a selection rate of 30 % in both, epsilon .05, a measured bias of zero"
    header = ["rows per group", "95 % interval of the bias", "holds on twice as many new rows"]
    return Table(title, header, rows)


def chance():
    """The largest difference between groups of the same rate, mean over draws."""
    rng = np.random.default_rng(0)

    def difference(n_groups, n, rate):
        shares = rng.binomial(n, rate, (N_CHANCE, n_groups)) / n
        return f"{np.ptp(shares, axis=1).mean():.3f}"

    rows = [
        ["2", f"{n:,}", "one half", difference(2, n, 0.5)]
        for n in (25, 50, 100, 200, 500, 1_000, 5_000)
    ]
    rows += [[str(k), "100", ".3", difference(k, 100, 0.3)] for k in (2, 5, 10, 20)]
    title = f"Largest difference between groups that do not differ, mean of {N_CHANCE:,} draws"
    return Table(title, ["groups", "rows of each group", "rate", "average difference"], rows)


def certificate():
    """Calibration rows a group for a certificate at .95 in 8 of 10 cases, and whether it came."""
    rng = np.random.default_rng(0)
    rows = []
    for epsilon in (0.1, 0.05, 0.02):
        for rate in (0.1, 0.3, 0.5):
            needed = []
            for n_groups, gap in ((2, 0.0), (2, 0.4 * epsilon), (5, 0.0)):
                # Ten rows with exactly these rates, which may be fractions of a row.
                rates = rate + gap * np.linspace(-0.5, 0.5, n_groups)
                counts = RateCounts("selection rate", 10 * rates, np.full(n_groups, 10))
                needed.append(int(rows_for([counts], epsilon, DELTA)[0].max()))
            n = needed[0]
            drawn = (
                RateCounts("selection rate", rng.binomial(n, rate, 2), np.array([n, n]))
                for _ in range(N_CERTIFIED)
            )
            share = np.mean([holds([counts], epsilon, DELTA) for counts in drawn])
            texts = (f"{m:,}" for m in (*needed, least_rows(epsilon, DELTA)))
            rows.append([f"{epsilon:g}", f"{rate:g}", *texts, percent(share)])
    title = "Calibration rows a group for a certificate at .95 with a probability of .8"
    columns = ["two groups", "two groups that differ", "five groups", "minimum"]
    drawn = f"certified of {N_CERTIFIED} draws, two groups"
    return Table(title, ["epsilon", "rate", *columns, drawn], rows)


def old_and_new(rng, n):
    """Right answers of an old model, and of one that changes 11 % of them and loses one point."""
    old = rng.random(n) < 0.9
    lost = 0.06 / 0.9  # of the right ones; half of the wrong ones become right
    return old, np.where(old, rng.random(n) >= lost, rng.random(n) < 0.5)


# Rule, population, rows a group, and the labels and predictions of a group from (rng, n, group).
GATES = {
    "``min(accuracy) >= 0.8``": ("both .9", 200, lambda rng, n, g: [rng.random(n) < 0.9]),
    "``difference(selection_rate) <= 0.1``": (
        "difference .05",
        2_000,
        lambda rng, n, g: [rng.random(n) < (0.3, 0.35)[g]],
    ),
    "``difference(selection_rate) <= 0.05``": (
        "difference .025, rates near .3",
        5_000,
        lambda rng, n, g: [rng.random(n) < (0.3, 0.325)[g]],
    ),
    "``ratio(selection_rate) >= 0.8``": (
        "ratio .9",
        5_000,
        lambda rng, n, g: [rng.random(n) < (0.3, 0.27)[g]],
    ),
    "``change(accuracy) >= -0.02``": (
        "change -.01, the models disagree on 11 %",
        20_000,
        lambda rng, n, g: old_and_new(rng, n),
    ),
}


def gate():
    """How often a rule passes that the population keeps."""
    rng = np.random.default_rng(0)
    rows = []
    for rule, (population, n, draw) in GATES.items():
        passed = 0
        for _ in range(N_GATE):
            both = [np.concatenate(p) for p in zip(*(draw(rng, n, g) for g in (0, 1)), strict=True)]
            models = {f"model {k}": predicted.astype(int) for k, predicted in enumerate(both)}
            # All labels are 1: a prediction is right, and selected, if it is 1.
            labels, groups = np.ones(2 * n, dtype=int), np.repeat([0, 1], n)
            report = fairness_report(labels, models, sensitive_features=groups)
            passed += report.check(rule.strip("`"), confidence=0.95).status == "passes"
        rows.append([rule, population, f"{n:,}", f"{passed} of {N_GATE}"])
    title = "Gates: two groups of equal size, confidence .95"
    return Table(title, ["rule", "population", "samples a group", "passes"], rows)


def ordinary_alarm(rule, hits, sizes):
    """Whether the 95 % interval of a window excludes the limit, in any group or pair."""
    shares = hits / np.maximum(sizes, 1)
    variance = shares * (1 - shares) / np.maximum(sizes, 1)
    if rule.statistic == "min":
        beyond = (rule.value - shares) / np.sqrt(np.maximum(variance, 1e-12))
    else:
        difference = shares[:, :, None] - shares[:, None, :]
        both = variance[:, :, None] + variance[:, None, :]
        beyond = (difference - rule.value) / np.sqrt(np.maximum(both, 1e-12))
        sizes = np.minimum(sizes[:, :, None], sizes[:, None, :])
    return ((beyond > Z) & (sizes > 0)).any(axis=tuple(range(1, beyond.ndim)))


def watched(rule, rates, sizes, n_windows, n_monitors):
    """The window of the first alarm of each monitor and of ordinary intervals; inf if none.

    Each monitor is a model of one watch. A watch spreads its error over its models; multiplied by
    their number, each has its own.
    """
    rng = np.random.default_rng(0)
    rule = FairnessRule.parse(rule)
    watch, first = RuleWatch(rule), np.full((2, n_monitors), np.inf)
    hits = None
    for window in range(n_windows):
        rate = np.asarray(rates(window))
        size = np.broadcast_to(sizes(window, hits), (n_monitors, len(rate)))
        hits = rng.binomial(size, rate)
        found = {
            Cell(m, (), g): (int(hits[m, g]), int(size[m, g]))
            for m, g in np.argwhere(size > 0).tolist()
        }
        units = watch.compare(found)
        wealth = watch.update(found, units, window) + np.log(n_monitors)
        raised = np.zeros((2, n_monitors), dtype=bool)
        raised[0, [u[0].model for u, w in zip(units, wealth, strict=True) if w > np.log(20)]] = True
        raised[1] = ordinary_alarm(rule, hits, size)
        first[raised & np.isinf(first)] = window
    return first


DIFFERENCE, FLOOR = "difference(selection_rate) <= 0.1", "min(accuracy) >= 0.7"
AT_LIMIT = {
    "two groups, constant": ("100 + 100", DIFFERENCE, lambda t: [0.6, 0.5], lambda t, h: [100] * 2),
    "two groups, drifting together": (
        "100 + 60",
        DIFFERENCE,
        lambda t: np.array([0.1, 0]) + 0.45 + 0.4 * np.sin(t / 9),
        lambda t, h: [100, 60],
    ),
    "two groups, sizes that depend on the last window": (
        "20 to 300",
        DIFFERENCE,
        lambda t: [0.55, 0.45],
        lambda t, h: [20, 300] if h is None else np.where(h[:, :1] > 50, [[20, 300]], [[300, 20]]),
    ),
    "two groups, tiny": ("3 + 1", DIFFERENCE, lambda t: [0.6, 0.5], lambda t, h: [3, 1]),
    "a third group from window 300 on": (
        "100 + 100 + 40",
        DIFFERENCE,
        lambda t: [0.5, 0.5, 0.6],
        lambda t, h: [100, 100, 40 * (t >= 300)],
    ),
    "floor of two groups": ("100 + 20", FLOOR, lambda t: [0.7, 0.7], lambda t, h: [100, 20]),
}
BROKEN = {
    "difference .2 for a limit of .1, from the start": (
        "100 + 100", DIFFERENCE, 0, [0.6, 0.4], [100, 100]
    ),
    "the same, from window 200 on": ("100 + 100", DIFFERENCE, 200, [0.6, 0.4], [100, 100]),
    "the same, more samples": ("500 + 500", DIFFERENCE, 200, [0.6, 0.4], [500, 500]),
    "accuracy .6 under a floor of .7, from window 200 on": ("100", FLOOR, 200, [0.6], [100]),
}  # fmt: skip


def monitor():
    """False alarms of rules that are just kept."""
    rows = []
    for what, (samples, *arguments) in AT_LIMIT.items():
        shares = np.isfinite(watched(*arguments, N_WINDOWS, N_MONITORS)).mean(axis=1)
        rows.append([what, samples, *(f"{100 * share:.1f} %" for share in shares)])
    title = f"False alarms at the limit, {N_WINDOWS} windows, {N_MONITORS} monitors each"
    header = ["rates at the limit", "samples a window", "false alarms, ever", "ordinary intervals"]
    return Table(title, header, rows)


def delay():
    """Windows until an alarm, of rules that are broken from some window on."""
    rows = []
    for what, (samples, rule, change, rates, sizes) in BROKEN.items():
        kept = [0.5, 0.5] if len(rates) == 2 else [0.8]
        first = watched(
            rule,
            lambda t, change=change, rates=rates, kept=kept: rates if t >= change else kept,
            lambda t, h, sizes=sizes: sizes,
            change + 60,
            100,
        )[0]
        rows.append([what, samples, f"{np.median(first) - change + 1:.0f}"])
    title = "Windows from the change to the alarm, median of 100 monitors"
    return Table(title, ["what is broken", "samples a window", "windows"], rows)


PARTS = {
    part.__name__: part
    for part in (intervals, constraint, chance, certificate, gate, monitor, delay)
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    for part in arguments.part:
        publish(arguments.write, f"sample_sizes_{part}", PARTS[part](), seeds="0")
