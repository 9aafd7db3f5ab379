"""How often a certificate is wrong on populations whose truth is known.

Run: python -m benchmarks certificate [--repetitions 2000] [--part fixed] [--write docs/results]

A certificate at a confidence of .95 may be wrong in one case of twenty. Rows are drawn from
populations in which two groups differ by exactly epsilon, .05, which is the hardest case. *Fixed*:
one classifier, tested alone; another column says how often there is a certificate where groups do
not differ. *Search*: thresholds of a score are ordered on tuning rows by their probability to be
certified, and tested in that order on as many other rows, up to the first that is not certified. A
search is wrong if it certifies any threshold that it should not. *Distillation*: the whole
debiaser, 300 fits a cell.
"""

import argparse
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks._tables import Table, publish, spelled
from skfair import DistillationDebiaser
from skfair.metrics import _rate_tests
from skfair.metrics._rate_tests import holds, power, rate_counts
from skfair.utils import FairnessWarning
from skfair.utils._random import seeded

EPSILON, DELTA = 0.05, 0.05
EVEN, UNEVEN = {2: (1000, 1000), 5: (1000,) * 5}, {2: (5000, 200), 5: (4000, 2000, 1000, 400, 200)}
N_THRESHOLDS = 25
# The same counts occur again and again.
_rate_tests.exact_p_value = lru_cache(2**20)(_rate_tests.exact_p_value)


def share(wrong, n):
    """With the binomial error of a share of delta."""
    return f"{wrong / n:.3f} ± {np.sqrt(DELTA * (1 - DELTA) / n):.3f}"


def gaps(n_groups, gap):
    """The first and the last group differ by the gap, the others are in the middle."""
    return np.array([0.0, *[gap / 2] * (n_groups - 2), gap])


def fixed_cells(repetitions):
    """One classifier, by constraint, groups, their sizes and the rate of the first group."""
    for constraint in ("demographic_parity", "equalized_odds", "average_odds"):
        for n_groups in (2, 5):
            for name, sizes in (("even", EVEN[n_groups]), ("uneven", UNEVEN[n_groups])):
                for rate in (0.05, 0.1, 0.3, 0.5):
                    at_parity = repetitions // 10
                    wrong = certified_fixed(constraint, sizes, rate, EPSILON, repetitions)
                    right = certified_fixed(constraint, sizes, rate, 0.0, at_parity)
                    yield [
                        constraint,
                        f"{n_groups}, {name}",
                        f"{rate:.2f}",
                        share(wrong, repetitions),
                        f"{right / at_parity:.2f}",
                    ]


def certified_fixed(constraint, sizes, rate, gap, repetitions):
    """Count the certificates of a classifier whose true positive rates differ by a gap.

    Both classes have equally many rows. For "equalized_odds" the false positive rates have no gap,
    so that the test has to find the gap in one of two rates.
    """
    rng = np.random.default_rng(0)
    totals = np.stack([sizes, sizes], axis=1)
    rates = np.stack([np.full(len(sizes), rate)] * 2, axis=1)
    rates[:, 1] += gaps(len(sizes), gap)
    if constraint != "equalized_odds":
        rates[:, 0] = rates[:, 1]
    return sum(
        holds(rate_counts(constraint, rng.binomial(totals, rates), totals), EPSILON, DELTA)
        for _ in range(repetitions)
    )


def uniform(threshold, shift):
    """Share above a threshold of scores that are uniform from the shift to the shift + 1.

    Between the ends groups differ by the gap of their shifts at every threshold.
    """
    return np.clip(1 + shift - threshold, 0, 1)


def triangular(threshold, shift):
    """The same of scores whose density rises from 0 at the shift to 2 at the shift + 1.

    Groups differ by epsilon at one threshold, by more above, by less below.
    """
    return 1 - np.clip(threshold - shift, 0, 1) ** 2


SCORES = {"uniform": (uniform, EPSILON), "rising": (triangular, 0.04)}


def search_cells(repetitions):
    """A search over thresholds, by constraint, groups, their sizes and the scores."""
    for constraint in ("demographic_parity", "equalized_odds"):
        for n_groups in (2, 5):
            for name, sizes in (("even", EVEN[n_groups]), ("uneven", UNEVEN[n_groups])):
                for scores in list(SCORES) if n_groups == 2 else ["uniform"]:
                    wrong, any_, certified = searched(constraint, sizes, scores, repetitions)
                    yield [
                        constraint,
                        f"{n_groups}, {name}",
                        scores,
                        share(wrong, repetitions),
                        f"{any_ / repetitions:.2f}",
                        f"{certified / max(any_, 1):.1f}",
                    ]


def searched(constraint, sizes, scores, repetitions):
    """Count the searches that certified a wrong threshold, any threshold, and how many of these."""
    above, gap = SCORES[scores]
    rng = np.random.default_rng(0)
    totals = np.stack([sizes, sizes], axis=1)
    thresholds = np.linspace(0.02, 1 + gap - 0.02, N_THRESHOLDS)[:, None, None]
    # Negatives have the same scores in all groups, unless the constraint ignores the class.
    shift = np.stack([gaps(len(sizes), gap)] * 2, axis=1)
    if constraint == "equalized_odds":
        shift[:, 0] = 0
    rates = above(thresholds, shift)
    true = rate_counts(constraint, rates * totals, totals)
    bad = np.max([np.ptp(rate.hits / rate.sizes, axis=-1) for rate in true], axis=0)
    bad = bad >= EPSILON - 1e-9
    wrong = any_ = certified = 0
    for _ in range(repetitions):
        tuning, calibration = (cumulated(rng, totals, rates) for _ in range(2))
        seen = rate_counts(constraint, tuning, totals)
        order = np.argsort(-power(seen, [rate.sizes for rate in seen], EPSILON, DELTA))
        passed = []
        for k in order:
            if not holds(rate_counts(constraint, calibration[k], totals), EPSILON, DELTA):
                break
            passed.append(k)
        wrong += bool(bad[passed].any())
        any_ += bool(passed)
        certified += len(passed)
    return wrong, any_, certified


def cumulated(rng, totals, rates):
    """Counts of rows above each threshold, for one draw of scores: (n_thresholds, n_groups, 2)."""
    left, counts = totals.copy(), np.zeros(rates.shape, dtype=np.int64)
    before = np.ones_like(rates[0])
    for k, rate in enumerate(rates):  # from low thresholds to high ones
        left = rng.binomial(
            left, np.divide(rate, before, out=np.zeros_like(rate), where=before > 0)
        )
        counts[k], before = left, rate
    return counts


def distillation_cells(repetitions):
    """``DistillationDebiaser(confidence=0.95)`` on rows drawn anew, of a known population.

    The gap of a network in the population is measured on 200,000 rows.
    """
    for constraint, n_groups, n_rows in (
        ("demographic_parity", 2, 2000),
        ("demographic_parity", 5, 6000),
        ("equal_opportunity", 2, 4000),
        ("equal_opportunity", 5, 12_000),
    ):
        network, fresh = trained_network(n_groups), draw_people(n_groups, 200_000, seed=1)
        gaps = []
        for repetition in range(repetitions):
            X, y, group = draw_people(n_groups, n_rows, seed=1000 + repetition)
            debiaser = DistillationDebiaser(
                network, constraint=constraint, epsilon=0.1, confidence=0.95, max_epochs=2
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FairnessWarning)
                debiaser.set_params(random_state=repetition)
                debiaser.fit(X, y, sensitive_features=group)
            if debiaser.certificate_.holds:
                gaps.append(gap_of(debiaser.predict(fresh[0]), *fresh[1:], constraint))
        certified, wrong = len(gaps), sum(gap > 0.1 for gap in gaps)
        yield [
            constraint.replace("_", " "),
            str(n_groups),
            f"{n_rows:,}",
            share(wrong, repetitions),
            f"{certified / repetitions:.2f}",
            f"{np.mean(gaps):.3f}" if gaps else "-",
        ]


def draw_people(n_groups, n_rows, seed):
    """Rows of groups with different shares of positives, which the features tell in part."""
    rng = np.random.default_rng(seed)
    group = rng.integers(n_groups, size=n_rows)
    y = (rng.random(n_rows) < 0.35 + 0.3 * group / (n_groups - 1)).astype(int)
    X = np.column_stack([1.5 * y + rng.normal(size=n_rows), group + 0.5 * rng.normal(size=n_rows)])
    return X.astype(np.float32), y, group


def trained_network(n_groups):
    """A small network that was trained without regard to the groups."""
    X, y, _ = draw_people(n_groups, 5000, seed=0)
    with seeded(0):
        network = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(150):
            optimizer.zero_grad()
            logit = network(torch.as_tensor(X))[:, 0]
            F.binary_cross_entropy_with_logits(logit, torch.as_tensor(y).float()).backward()
            optimizer.step()
    return network.eval()


def gap_of(predicted, y, group, constraint):
    """The largest difference between groups."""
    about = np.ones(len(y), bool) if constraint == "demographic_parity" else y == 1
    rates = [predicted[about & (group == g)].mean() for g in np.unique(group)]
    return max(rates) - min(rates)


PARTS = {
    "fixed": (
        fixed_cells,
        "One classifier: share of certificates that are wrong, at most .05, and certified where "
        "groups do not differ",
        ["constraint", "groups", "rate", "wrong", "certified without a gap"],
    ),
    "search": (
        search_cells,
        "Search over thresholds: share with a certificate that is wrong, at most .05",
        ["constraint", "groups", "scores", "wrong", "certified any", "thresholds certified"],
    ),
    "distillation": (
        distillation_cells,
        "Distillation, epsilon .1: share with a certificate that is wrong, at most .05",
        ["constraint", "groups", "rows", "wrong", "certified", "mean gap of the certified"],
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    for part in args.part:
        cells, title, header = PARTS[part]
        repetitions, seeds = args.repetitions, range(1)
        if part == "distillation":
            repetitions = min(repetitions, 300)
            seeds = range(repetitions)
        table = Table(title, header, [*cells(repetitions)])
        publish(args.write, f"certificate_{part}", table, seeds=spelled(seeds))
