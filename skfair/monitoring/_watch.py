"""One rule over time: which rates an arrival compares, and the evidence against the rule."""

import difflib
import re
from collections.abc import Iterable
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from skfair.metrics._counts import GroupCounts
from skfair.metrics._rates import COUNT_METRICS, METRIC_NAMES, CountMetric
from skfair.metrics._rules import FairnessRule
from skfair.monitoring._evidence import Evidence, one_rate, two_rates
from skfair.utils._shown import shown

MOST_UNITS = 20_000
MEMORY = 1000  # samples of the past that a level remembers
_SHARES = {
    name: COUNT_METRICS[function]
    for name, function in METRIC_NAMES.items()
    if COUNT_METRICS[function].is_share
}
ANYONE = "all"  # stands for the group of "overall"


class Cell(NamedTuple):
    """One rate that counts can show: of a model, in a control level, in a group.

    Attributes
    ----------
    model : int
        Position of the model.
    control : object
        Label of the control level.
    group : object
        Label of the group.
    """

    model: int
    control: Any
    group: Any


class RuleWatch:
    """The evidence against one rule, for each group or each ordered pair of groups.

    A unit of evidence is a tuple of one or two :class:`Cell`. Of two cells, the first is the group
    with the higher rate if the rule is broken. The error is shared among the units: units that
    appear first in the same arrival have the same share, and the c-th such arrival has the share
    1 / (c (c + 1)) of the rule. The shares therefore never add up to more than 1.

    Parameters
    ----------
    rule : FairnessRule

    Raises
    ------
    ValueError
        The rule cannot be monitored.
    """

    def __init__(self, rule: FairnessRule):
        self.rule = rule
        _check_rule(rule)
        self.metric = share_metric(rule.metric)
        self.paired = rule.statistic in ("difference", "ratio")
        self.units: dict[tuple[Cell, ...], int] = {}
        self.log_share = np.zeros(0)
        self.cohorts = 0
        self.levels: dict[Cell, tuple[float, float]] = {}
        self.evidence = Evidence(self._log_e([]).shape[1])

    def count(self, counts: GroupCounts, positive: int) -> dict[Cell, tuple[int, int]]:
        """Count numerator and denominator of the metric in each cell with samples.

        Parameters
        ----------
        counts : GroupCounts
        positive : int
            Position of the positive label among ``counts.predicted``.

        Returns
        -------
        dict of Cell to tuple of int
        """
        found = {}
        for m, model in enumerate(counts.models):
            tables, groups = counts.tables(model, counts.size), counts.groups
            if self.rule.statistic == "overall":
                tables, groups = tables.sum(axis=1, keepdims=True), (ANYONE,)
            hits, size = self.metric.fraction(tables, positive)
            for c, g in np.argwhere(size > 0).tolist():
                found[Cell(m, counts.controls[c], groups[g])] = (int(hits[c, g]), int(size[c, g]))
        return found

    def compare(self, cells: Iterable[Cell]) -> list[tuple[Cell, ...]]:
        """List the units that an arrival says something about.

        Parameters
        ----------
        cells : iterable of Cell

        Returns
        -------
        list of tuple of Cell

        Raises
        ------
        ValueError
            With the known units, there would be more than 20,000.
        """
        units: list[tuple[Cell, ...]] = []
        most = 0
        if not self.paired:
            units = [(cell,) for cell in cells]
        else:
            levels: dict[tuple, list[Cell]] = {}
            for cell in cells:
                levels.setdefault(cell[:2], []).append(cell)
            most = max((len(level) for level in levels.values()), default=0)
            if most**2 <= 2 * MOST_UNITS:
                units = [pair for level in levels.values() for pair in permutations(level, 2)]
        n_units = len(self.units.keys() | units)
        if n_units > MOST_UNITS or (self.paired and not units and most > 1):
            raise ValueError(
                f"The rule {shown(str(self.rule), 200)} would compare more than {MOST_UNITS:,} "
                "pairs of groups. Merge rare groups, or give fewer sensitive features."
            )
        return units

    def update(
        self, found: dict[Cell, tuple[int, int]], units: list[tuple[Cell, ...]], window: int
    ) -> np.ndarray:
        """Bet on the units, with what one arrival counted.

        Parameters
        ----------
        found : dict of Cell to tuple of int
            Result of :meth:`count`.
        units : list of tuple of Cell
            Result of :meth:`compare`.
        window : int
            Number of the window.

        Returns
        -------
        ndarray of shape (n_units,), float64
            Logarithm of share times wealth of each of `units`.
        """
        if not units:
            return np.zeros(0)
        if new := [unit for unit in units if unit not in self.units]:
            self.cohorts += 1
            share = -np.log(self.cohorts) - np.log1p(self.cohorts) - np.log(len(new))
            self.log_share = np.concatenate([self.log_share, np.full(len(new), share)])
            self.units |= {unit: len(self.units) + i for i, unit in enumerate(new)}
            self.evidence.grow(len(new))
        at = np.array([self.units[unit] for unit in units])
        self.evidence.update(at, self._log_e(units, found), window)
        for cell, (hits, size) in found.items() if self.paired else ():
            old_hits, old_size = self.levels.get(cell, (0.0, 0.0))
            forget = min(1.0, MEMORY / (old_size + size))
            self.levels[cell] = ((old_hits + hits) * forget, (old_size + size) * forget)
        return self.log_share[at] + self.evidence.total(at)

    def _log_e(self, units: list, found: dict | None = None) -> np.ndarray:
        width = 2 if self.paired else 1
        found = found or {}
        table = np.array([[found[cell] for cell in unit] for unit in units], dtype=np.int64)
        hits, size = np.moveaxis(table.reshape(len(units), width, 2), -1, 0)
        value = self.rule.value
        if self.paired:
            levels = [[self.levels.get(cell, (0.0, 0.0)) for cell in unit] for unit in units]
            past, known = np.moveaxis(np.array(levels).reshape(len(units), 2, 2), -1, 0)
            line = (1.0, value) if self.rule.statistic == "difference" else (1 / value, 0.0)
            return two_rates(hits, size, (past + 0.5) / (known + 1), known, line)
        if self.rule.comparison == ">=":  # a floor of hits is a ceiling of misses
            return one_rate(size[:, 0] - hits[:, 0], size[:, 0], 1 - value)
        return one_rate(hits[:, 0], size[:, 0], value)


def share_metric(name: str) -> CountMetric:
    """Look up a metric that is a share of samples, by its name in rules.

    Returns
    -------
    CountMetric

    Raises
    ------
    ValueError
        There is no such metric.
    """
    key = re.sub(r"\W", "_", str(name))  # "selection rate" is "selection_rate"
    if key not in _SHARES:
        near = difflib.get_close_matches(key[:100], _SHARES, n=1)
        advice = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"metric={shown(name)} cannot be monitored, because it is not a share of samples that "
            f"skfair knows.{advice} Give one of {', '.join(sorted(_SHARES))}."
        )
    return _SHARES[key]


def _check_rule(rule: FairnessRule) -> None:
    """Refuse what a monitor does not know, and a limit that no counts, or any counts, can break."""
    if rule.statistic not in ("difference", "ratio", "min", "max", "overall"):
        raise ValueError(
            f"The rule {shown(str(rule), 200)} cannot be monitored: a monitor knows difference, "
            f"ratio, min, max and overall, not {shown(rule.statistic)}."
        )
    # Outside of these ranges no counts, or any counts, break the rule, or double precision fails.
    low, high = {"difference": (0, 0.99), "ratio": (0.01, 1)}.get(rule.statistic, (1e-9, 1 - 1e-9))
    if not low <= rule.value <= high:
        raise ValueError(
            f"The rule {shown(str(rule), 200)} has the limit {rule.value:g}, expected a fraction "
            f"from {low:g} to {high:.9g}."
        )
