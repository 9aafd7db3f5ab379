"""The e-values and the wealth of a monitor: exact means, and false alarms by simulation."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from skfair.metrics._rules import FairnessRule
from skfair.monitoring._evidence import Evidence, one_rate, two_rates
from skfair.monitoring._watch import Cell, RuleWatch

DIFFERENCE = "difference(selection_rate) <= 0.1"


@pytest.mark.parametrize("known", [0, 100])
@pytest.mark.parametrize("level", [(0.5, 0.5), (0.02, 0.01), (0.97, 0.9)])
@pytest.mark.parametrize("line", [(1.0, 0.05), (1.0, 0.0), (1.0, 0.4), (1 / 0.8, 0.0)])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 30), (30, 2), (12, 9)])
def test_the_mean_of_two_rates_is_at_most_one(sizes, line, level, known):
    # All outcomes are enumerated, at rates on the limit and within it.
    hits = np.array(list(product(range(sizes[0] + 1), range(sizes[1] + 1))))
    shape = (len(hits), 2)
    e = np.exp(
        two_rates(
            hits,
            np.broadcast_to(sizes, shape),
            np.broadcast_to(level, shape),
            np.full(shape, known),
            line,
        )
    )
    for second, within in product(np.linspace(0, 1, 21), (1, 0.7)):
        first = within * min(1, line[0] * second + line[1])
        p = binom.pmf(hits[:, 0], sizes[0], first) * binom.pmf(hits[:, 1], sizes[1], second)
        assert (p @ e).max() <= 1 + 1e-12


@pytest.mark.parametrize("limit", [0.001, 0.1, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("size", [1, 7, 60])
def test_the_mean_of_one_rate_is_at_most_one_and_is_one_at_the_limit(size, limit):
    hits = np.arange(size + 1)
    e = np.exp(one_rate(hits, np.full(size + 1, size), limit))
    assert binom.pmf(hits, size, limit) @ e == pytest.approx(1)
    assert (binom.pmf(hits, size, 0.8 * limit) @ e <= 1).all()


@pytest.mark.parametrize(
    "rule",
    [
        "difference(accuracy) <= 0",
        "difference(accuracy) <= 0.99",
        "ratio(accuracy) >= 0.01",
        "ratio(accuracy) >= 1",
        "min(accuracy) >= 0.999999999",
        "max(accuracy) <= 0.000000001",
    ],
)
@pytest.mark.parametrize("rates", [(0, 0), (1, 1), (0, 1), (1, 0), (0.5, 0.5)])
@pytest.mark.parametrize("size", [1, 10**9])
def test_extreme_limits_rates_and_sizes_give_finite_evidence(rule, rates, size):
    watch = RuleWatch(FairnessRule.parse(rule))
    found = {Cell(0, (), g): (int(rate * size), size) for g, rate in enumerate(rates)}
    for look in range(3):
        assert np.isfinite(watch.update(found, watch.compare(found), look)).all()


def test_one_rate_is_the_likelihood_ratio():
    # Odds of 1/2 to those 3.2 logits higher.
    q = np.exp(3.2) / (1 + np.exp(3.2))
    ratio = (q / 0.5) ** 8 * ((1 - q) / 0.5) ** 2
    assert np.exp(one_rate(np.array([8]), np.array([10]), 0.5)[0, -1]) == pytest.approx(ratio)


def test_a_comparison_needs_both_groups():
    half = np.full((1, 2), 0.5)
    assert not two_rates(np.array([[9, 0]]), np.array([[9, 0]]), half, half, (1.0, 0.0)).any()


def test_the_wealth_is_spread_over_starts():
    evidence = Evidence(1)
    evidence.grow(1)
    unit = np.array([0])
    # E-values 2, 3: half is bet from the first on, a sixth from the second on, a third is kept.
    for window, e in enumerate((2.0, 3.0)):
        evidence.update(unit, np.log([[e]]), window)
    assert np.exp(evidence.total(unit)) == pytest.approx(2 * 3 / 2 + 3 / 6 + 1 / 3)


def test_the_start_is_where_the_best_run_begins():
    evidence = Evidence(1)
    evidence.grow(1)
    for window, log_e in enumerate((1.0, -5.0, -1.0, 2.0, 2.0)):
        evidence.update(np.array([0]), np.array([[log_e]]), window)
    assert evidence.began(0) == 3


def _false_alarms(rule, rates, sizes, n_looks, n_monitors):
    """Share of the monitors that ever raise an alarm; each monitor is a model of one watch.

    A watch spreads its error over its models. Multiplied by their number, each has its own.
    """
    rng = np.random.default_rng(0)
    watch, alarmed = RuleWatch(FairnessRule.parse(rule)), np.zeros(n_monitors, dtype=bool)
    hits = np.zeros((n_monitors, 3))
    for look in range(n_looks):
        size = np.broadcast_to(sizes(look, hits), (n_monitors, 3))
        hits = rng.binomial(size, rates(look))
        found = {
            Cell(m, (), g): (int(hits[m, g]), int(size[m, g]))
            for m, g in np.argwhere(size > 0).tolist()
        }
        units = watch.compare(found)
        values = watch.update(found, units, look) + np.log(n_monitors)
        alarmed[
            [unit[0].model for unit, v in zip(units, values, strict=True) if v > np.log(20)]
        ] = 1
    return alarmed.mean()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("rule", "rates", "sizes"),
    [
        (DIFFERENCE, lambda t: [0.6, 0.5, 0.5], lambda t, hits: [100, 100, 0]),
        # The level drifts from look to look, and the group that is ahead changes.
        (
            DIFFERENCE,
            lambda t: (
                np.array([[0.1, 0, 0.05], [0, 0.1, 0.05]])[t // 40 % 2] + 0.4 + 0.4 * np.sin(t / 9)
            ),
            lambda t, hits: [60, 100, 0],
        ),
        # The next look has few samples of the group that looked better, and many of the other.
        (
            DIFFERENCE,
            lambda t: [0.55, 0.45, 0.5],
            lambda t, hits: np.where(hits[:, :1] > 50, [20, 300, 0], [300, 20, 0]),
        ),
        # A group of three people appears late.
        (DIFFERENCE, lambda t: [0.5, 0.5, 0.6], lambda t, hits: [50, 50, 3 * (t >= 100)]),
        ("ratio(selection_rate) >= 0.8", lambda t: [0.5, 0.4, 0.5], lambda t, hits: [90, 90, 0]),
        (
            "min(accuracy) >= 0.7",
            lambda t: [0.7, 0.7, 0.7 + 0.2 * (t % 2)],
            lambda t, hits: [90, 5, 9],
        ),
        ("max(accuracy) <= 0.02", lambda t: [0.02, 0.02, 0.01], lambda t, hits: [90, 5, 9]),
    ],
)
def test_at_most_one_monitor_in_twenty_ever_raises_a_false_alarm(rule, rates, sizes):
    # 0 to 1 % are found: the level is kept with room to spare.
    assert _false_alarms(rule, rates, sizes, n_looks=200, n_monitors=200) <= 0.05


def test_a_violation_is_found_after_a_long_good_time():
    share = _false_alarms(
        DIFFERENCE,
        lambda t: [0.6, 0.4, 0.5] if t >= 100 else [0.5, 0.5, 0.5],
        lambda t, hits: [100, 100, 0],
        n_looks=140,
        n_monitors=50,
    )
    assert share == 1
