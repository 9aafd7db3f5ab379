"""An alarm: which rule was broken, between which groups, and since when."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from skfair.metrics._intervals import wilson_interval
from skfair.metrics._rules import FairnessRule
from skfair.utils._shown import as_label


@dataclass(frozen=True)
class FairnessAlarm:
    """A broken rule that a :class:`FairnessMonitor` found.

    Attributes
    ----------
    rule : FairnessRule
        The broken rule.
    model : str
        Name of the model.
    control : label
        Level of the control features; an empty tuple if there are none.
    groups : tuple
        Label of the group; for a difference or a ratio, labels of the group with the higher rate
        and of the group with the lower rate; empty for ``overall``.
    window : str, int or float
        Window whose counts raised the alarm.
    since : str, int or float
        Window in which the violation probably began: an estimate.
    estimate : float
        The statistic of these groups over the windows from `since` on, when the alarm was raised.
    low, high : float
        Ends of the 95 % interval of the estimate: Wilson's for a share, Newcombe's for a
        difference, that of Donner and Zou for a ratio. The alarm itself holds at any time. This
        interval only describes the size of the violation, and it is not corrected for the choice
        of `since`.
    n_samples : tuple of int
        Number of samples behind the rate of each group.

    Examples
    --------
    >>> from skfair.monitoring import FairnessMonitor
    >>> monitor = FairnessMonitor("min(accuracy) >= 0.7")
    >>> y_true, y_pred = [1] * 40, [0] * 30 + [1] * 10
    >>> alarm, = monitor.update(y_true, y_pred, sensitive_features=["f"] * 40, window="2026-W01")
    >>> print(alarm)
    min(accuracy) >= 0.7 is broken: f has 0.25 [0.142, 0.402] (n=40) since 2026-W01, \
found in 2026-W01
    """

    rule: FairnessRule
    model: str
    control: Any
    groups: tuple
    window: str | int | float
    since: str | int | float
    estimate: float
    low: float
    high: float
    n_samples: tuple[int, ...]

    def __str__(self) -> str:
        names = [as_label(group) for group in self.groups] or ["all samples"]
        who = f"{names[0]} has"
        if len(names) == 2:
            what = "exceeds" if self.rule.statistic == "difference" else "is above"
            who = f"{names[0]} {what} {names[1]} by"
            if self.rule.statistic == "ratio":
                who = f"{names[1]} divided by {names[0]} is"
        sizes = ", ".join(f"n={n:,}" for n in self.n_samples)
        within = f" in {as_label(self.control)}" if self.control != () else ""
        model = f" of {as_label(self.model)}" if self.model != "model" else ""
        return (
            f"{self.rule}{model} is broken{within}: {who} {self.estimate:.3g} [{self.low:.3g}, "
            f"{self.high:.3g}] ({sizes}) since {as_label(self.since)}, found in "
            f"{as_label(self.window)}"
        )


def estimate(statistic: str, hits: list[int], size: list[int]) -> tuple[float, float, float]:
    """Estimate the statistic of one or two groups, with a 95 % interval.

    R. G. Newcombe, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17 (1998), 873-890, method 10; A. Donner, G. Y. Zou, "Closed-form
    confidence intervals for functions of the normal mean and standard deviation", Statistical
    Methods in Medical Research 21 (2012), 347-359, for the ratio.

    Parameters
    ----------
    statistic : str
        ``"difference"`` (first minus second), ``"ratio"`` (second divided by first), or any other
        for the rate of one group.
    hits, size : list of int
        Numerator and denominator of each group.

    Returns
    -------
    estimate, low, high : float

    Examples
    --------
    >>> [round(x, 4) for x in estimate("difference", [56, 48], [70, 80])]  # Newcombe's example
    [0.2, 0.0524, 0.3339]
    """
    n = np.array(size)
    share = np.array(hits) / n
    lows, highs = wilson_interval(share, n)
    if len(size) == 1:
        return float(share[0]), float(lows[0]), float(highs[0])
    (first, second), (l1, l2), (u1, u2) = share, lows, highs
    if statistic == "difference":
        below = math.hypot(first - l1, u2 - second)
        above = math.hypot(u1 - first, second - l2)
        return float(first - second), float(first - second - below), float(first - second + above)
    product = first * second
    below = product**2 - l2 * (2 * second - l2) * u1 * (2 * first - u1)
    above = product**2 - u2 * (2 * second - u2) * l1 * (2 * first - l1)
    bottom_low, bottom_high = u1 * (2 * first - u1), l1 * (2 * first - l1)
    low = (product - math.sqrt(max(0.0, below))) / bottom_low if bottom_low > 0 else 0.0
    high = (product + math.sqrt(max(0.0, above))) / bottom_high if bottom_high > 0 else math.inf
    return float(second / first) if first else math.inf, max(0.0, float(low)), float(high)
