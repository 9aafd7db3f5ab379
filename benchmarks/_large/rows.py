"""Rows of the table of the benchmark ``large``, as they are measured."""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Run(NamedTuple):
    """What is measured in one process, with its goals.

    Attributes
    ----------
    goals : dict of str to str
        For each row of the table what is measured, with the sizes of the data and networks, and the
        unit of the number; and its goal, as "<= 4" or ">= 1.6", or "" where the row has none.
    measure : callable
        Returns the number, or one for each row.
    """

    goals: dict[str, str]
    measure: Callable[[], float | Sequence[float]]
