"""The tables of the methods on two groups, and whether the goals were met."""

import numpy as np

from benchmarks._intraprocessing.measures import EPSILON, MEASURES
from benchmarks._intraprocessing.methods import CEILING, RECOMMENDED
from benchmarks._tables import Table, percent

# Goals: at least this balanced accuracy, and feasible on test in at least this share of the seeds.
GOALS = {
    ("adult", "demographic_parity"): (0.775, 0.95),
    ("adult", "equal_opportunity"): (0.81, 0.80),
    ("adult", "average_odds"): (0.80, 0.95),
    ("compas", "demographic_parity"): (0.63, 0.70),
    ("compas", "equal_opportunity"): (0.63, 0.55),
    ("compas", "average_odds"): (0.63, 0.70),
    ("bank", "demographic_parity"): (0.86, 0.65),
    ("bank", "equal_opportunity"): (0.85, 0.85),
    ("bank", "average_odds"): (0.86, 0.65),
    ("adult_noattr", "demographic_parity"): (0.75, 0.80),
}
GOAL_SECONDS = 2.0  # on Adult


def goal_bias(name, measure):
    """The goal for the size of the mean signed bias, at most."""
    return 0.025 if (name[:5], measure) == ("adult", "demographic_parity") else 0.02


HEADER = [
    "method",
    "bias",
    "balanced accuracy",
    "feasible",
    "φ: median [quartiles]",
    "(balanced accuracy - ½) x feasible",
    "CPU s",
]


def summary(records):
    """Summary of the records of one method: arrays over the seeds, or numbers."""
    biases, accuracies = (np.array([r[k] for r in records]) for k in ("bias", "balanced_accuracy"))
    held = np.abs(biases) < EPSILON
    return {
        "bias": biases,
        "balanced_accuracy": accuracies,
        "feasible": held.mean(),
        "phi": np.quantile(np.where(held, accuracies, 0), [0.5, 0.25, 0.75]),
        "gain": np.mean((accuracies - 0.5) * held),
        # The median, because the first fit of a process includes the time to load code of torch.
        "seconds": np.median([r["seconds"] or 0 for r in records]),
    }


def cells(label, records):
    s = summary(records)
    spread = [
        np.std(s[k], ddof=1) if len(records) > 1 else 0 for k in ("bias", "balanced_accuracy")
    ]
    median, low, high = s["phi"]
    return [
        label,
        f"{s['bias'].mean():+.3f} ± {spread[0]:.3f}",
        f"{s['balanced_accuracy'].mean():.3f} ± {spread[1]:.3f}",
        percent(s["feasible"]),
        f"{median:.3f} [{low:.3f}, {high:.3f}]",
        f"{s['gain']:.3f}",
        f"{s['seconds']:.2g}" if s["seconds"] else "-",
    ]


def goals(name, measure, records):
    """The goals, and whether the recommended debiaser meets them."""
    s = summary(records)
    accuracy, share = GOALS[name, measure]
    limit = goal_bias(name, measure)
    mean_bias, mean_accuracy = s["bias"].mean(), s["balanced_accuracy"].mean()
    aims = [
        (f"balanced accuracy at least {accuracy:g}", mean_accuracy - accuracy, ".4f"),
        (f"feasible in at least {percent(share)}", s["feasible"] - share, ".2f"),
        (f"mean bias within {limit:g} of zero", limit - abs(mean_bias), ".4f"),
    ]
    if name == "adult":
        aims.append((f"at most {GOAL_SECONDS:g} s", GOAL_SECONDS - s["seconds"], ".1f"))
    texts = [
        f"{aim}: {'met' if gap >= 0 else f'**missed by {-gap:{digits}}**'}"
        for aim, gap, digits in aims
    ]
    return f"Goals for ``{RECOMMENDED.strip('*')}``: " + "; ".join(texts) + "."


def tables(name, title, records, n_seeds):
    """One table a measure."""
    for measure, words in MEASURES.items():
        methods = {}
        for record in records:
            if record["measure"] == measure:
                methods.setdefault(record["method"], []).append(record)
        rows = [cells(label, found) for label, found in methods.items()]
        if CEILING in methods and name != "digits":  # whose rows come in pairs
            share = percent(np.mean([r["feasible_share"] for r in methods[CEILING]]))
            rows.append(["most that sampling error allows", "-", "-", share, "-", "-", "-"])
        below = ""
        if (name, measure) in GOALS and RECOMMENDED in methods:
            below = goals(name, measure, methods[RECOMMENDED]) + "\n"
        yield Table(f"{title}: {words}, {n_seeds} draws", HEADER, rows, below)
