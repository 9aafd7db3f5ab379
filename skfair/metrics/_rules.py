"""Rules about the metrics of groups, such as ``difference(selection_rate) <= 0.05``, as text."""

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real

from skfair.utils._shown import shown

# Comparisons that a statistic allows. A gap is bounded from above, its ratio from below: no number
# of samples shows that two groups differ by 0.05 or more in every pair.
STATISTICS: dict[str, tuple[str, ...]] = {
    "difference": ("<=",),
    "ratio": (">=",),
    "min": (">=",),
    "max": ("<=",),
    "overall": ("<=", ">="),
    "change": ("<=", ">="),
}
_EXAMPLE = "difference(selection_rate) <= 0.05"
# Text is matched, never evaluated.
_STRICT = re.compile(r"[<>](?!=)")
_RULE = re.compile(
    r"\s*(?P<statistic>\w+)\s*\(\s*(?P<metric>[^()]*[^()\s])\s*\)"
    r"\s*(?P<comparison><=|>=)\s*(?P<value>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*",
    re.ASCII,
)
_LONGEST = 1000  # characters of a rule


@dataclass(frozen=True)
class FairnessRule:
    """A limit on a metric of the groups.

    Parameters
    ----------
    statistic : {"difference", "ratio", "min", "max", "overall", "change"}
        What the limit is about: the largest difference between two groups; the smallest ratio of
        two groups; the lowest or the highest value of a group; the value of all samples; the
        change of each group from the first model to the checked model.
    metric : str
        Name of the metric, such as "accuracy" or "selection_rate".
    comparison : {"<=", ">="}
        "<=" for "difference" and "max"; ">=" for "ratio" and "min"; both for the others.
    value : float
        The limit, a fraction from 0 to 1; for "change" from -1 to 1.

    Raises
    ------
    TypeError
        `statistic` or `metric` is not a text, or `value` is not a number.
    ValueError
        The statistic is unknown, does not go with the comparison, or the limit is not a fraction.

    Examples
    --------
    >>> rule = FairnessRule.parse("min(accuracy)>=0.70")
    >>> rule
    FairnessRule(statistic='min', metric='accuracy', comparison='>=', value=0.7)
    >>> print(rule)
    min(accuracy) >= 0.7
    """

    statistic: str
    metric: str
    comparison: str
    value: float

    def __post_init__(self) -> None:
        for name in ("statistic", "metric", "comparison"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise TypeError(
                    f"{name} is a {type(text).__name__}, expected a text, as in {_EXAMPLE!r}."
                )
        if not isinstance(self.value, Real) or isinstance(self.value, bool):
            raise TypeError(f"value={shown(self.value)} is not a number. Give for instance 0.05.")
        object.__setattr__(self, "value", float(self.value))
        if self.statistic not in STATISTICS:
            near = get_close_matches(self.statistic[:100].lower(), STATISTICS, n=1)
            advice = f"Did you mean {near[0]}? " if near else ""
            raise ValueError(
                f"{shown(self.statistic)} is not a statistic of a rule. {advice}Give one of "
                f"{', '.join(STATISTICS)}, as in {_EXAMPLE!r}."
            )
        allowed = STATISTICS[self.statistic]
        if self.comparison not in allowed:
            raise ValueError(
                f"A rule about the {self.statistic} has the comparison {shown(self.comparison)}, "
                f"expected {' or '.join(allowed)}, as in '{self.statistic}({self.metric[:40]}) "
                f"{allowed[0]} {_number(self.value)}'."
            )
        lowest = -1 if self.statistic == "change" else 0
        if not lowest <= self.value <= 1:  # NaN, too
            raise ValueError(
                f"The limit {_number(self.value)} of a rule is not a fraction from {lowest} to 1. "
                "Give 0.05 for 5 %."
            )

    @classmethod
    def parse(cls, text: str) -> "FairnessRule":
        """Read a rule from text.

        Parameters
        ----------
        text : str
            ``statistic(metric) <= value`` or ``statistic(metric) >= value``.

        Returns
        -------
        FairnessRule

        Raises
        ------
        TypeError
            `text` is not a text.
        ValueError
            The text is not a rule.

        Examples
        --------
        >>> FairnessRule.parse("change(accuracy) >= -0.02").value
        -0.02
        """
        if not isinstance(text, str):
            raise TypeError(
                f"A rule is a {type(text).__name__}, expected a text like {_EXAMPLE!r}."
            )
        match = _RULE.fullmatch(text) if len(text) <= _LONGEST else None
        if match is None:
            percent = " Give a fraction, 0.05 for 5 %." if "%" in text else ""
            strict = _STRICT.search(text)
            equal = f" Write {strict[0]}= instead of {strict[0]}." if strict else ""
            raise ValueError(
                f"{shown(text, 80)} is not a rule.{percent}{equal} Write a statistic "
                f"({', '.join(STATISTICS)}), a metric in brackets, <= or >=, and a number, for "
                f"instance {_EXAMPLE!r}."
            )
        return cls(match["statistic"], match["metric"], match["comparison"], float(match["value"]))

    def __str__(self) -> str:
        return f"{self.statistic}({self.metric}) {self.comparison} {_number(self.value)}"


def _number(value: float) -> str:
    """Write a number so that it reads back as the same number."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)
