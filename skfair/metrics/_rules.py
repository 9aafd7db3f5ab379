"""Rules, as text (stand-in of the monitor's clone; the gate's file replaces it)."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class FairnessRule:
    """A rule."""

    statistic: str
    metric: str
    comparison: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "FairnessRule":
        """Parse."""
        found = re.fullmatch(r"\s*(\w+)\((\w+)\)\s*(<=|>=)\s*([\d.]+)\s*", text)
        if not found:
            raise ValueError(f"rule={text!r}")
        return cls(found[1], found[2], found[3], float(found[4]))

    def __str__(self) -> str:
        return f"{self.statistic}({self.metric}) {self.comparison} {self.value:g}"
