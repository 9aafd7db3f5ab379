"""A row of the table of the benchmark ``large``."""

from collections.abc import Callable
from typing import NamedTuple


class Row(NamedTuple):
    """What is measured, with its goal. Each row runs in a process of its own.

    Attributes
    ----------
    what : str
        The subject, with the sizes of the data and networks, and the unit of the number.
    goal : str
        The goal for the number, as "<= 4" or ">= 1.6"; "" where the row has none.
    measure : callable
        Returns the number.
    """

    what: str
    goal: str
    measure: Callable[[], float]
