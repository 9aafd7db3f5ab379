"""What a reader of a report sees, as plain data: text, HTML, model card and JSON are made of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A value of one model, with its interval and its change from the first model.

    Attributes
    ----------
    value, low, high : float
        The value and the ends of its 95 % interval, as shares from 0 to 1 (not in percent); NaN
        where there is none.
    change, change_low, change_high : float
        The difference from the first model; NaN for the first model itself.
    text, change_text : str
        The same, written for readers, such as ``"61.2 [57.0, 65.2]"``; ``"undefined"`` or
        ``"not estimable"`` instead of a value; empty where there is no change.
    between : tuple of str
        For a difference or a ratio: the labels of the group with the largest and of the group with
        the smallest value. Otherwise empty.
    """

    value: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    text: str
    change_text: str
    between: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A group, or a statistic of all groups.

    Attributes
    ----------
    labels : tuple of str
        One label for each column in `Section.names`, told apart; for a statistic the labels of the
        control level, then ``"overall"``, ``"difference"`` or ``"ratio"``, then empty labels.
    count : int or None
        Number of samples behind the value; None for a statistic.
    cells : tuple of Cell
        One for each model.
    estimable : bool
        False if the group has too few samples for a value.
    """

    labels: tuple[str, ...]
    count: int | None
    cells: tuple[Cell, ...]
    estimable: bool = True


@dataclass(frozen=True)
class Section:
    """A metric in each group.

    Attributes
    ----------
    heading : str
        Such as ``"Selection rate by sex and age"``.
    metric : str
        Name of the metric in words.
    unit : str
        ``"percent"`` or empty. A percent value in `Cell.text` is 100 times `Cell.value`.
    names : tuple of str
        Names of the columns of labels: control features, then sensitive features; the first section
        has the true class first.
    count_name : str
        ``"count"``, ``"positives"`` or ``"negatives"``: what `Row.count` counts.
    groups : tuple of Row
        The groups, the worst first where one direction is worse, otherwise the lowest first.
    statistics : tuple of Row
        Overall value, difference and ratio, within each control level.
    """

    heading: str
    metric: str
    unit: str
    names: tuple[str, ...]
    count_name: str
    groups: tuple[Row, ...]
    statistics: tuple[Row, ...]


@dataclass(frozen=True)
class PlainTable:
    """A table whose values are written already, such as the pairs of a certificate."""

    heading: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    values: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """All that the report shows, in the order in which it shows it.

    Attributes
    ----------
    title : str
        Numbers of samples, groups and models.
    models : tuple of str
        Names of the models, told apart.
    verdict : tuple of (str, str)
        Three lines: a key, ``"Worst group"``, ``"Largest gap"`` or ``"Who pays"`` (with one model
        ``"Not estimable"``), and a sentence. With a threshold, a fourth line ``"Threshold"``.
    verdict_table : PlainTable or None
        With three models or more: the verdict of each model in a row.
    summary : PlainTable
        Overall, worst-group and average-group accuracy of each model.
    sections : tuple of Section
        Accuracy by class and group, then each metric.
    references : tuple of PlainTable
        Each metric compared with a reference group, if there is one.
    certificates : tuple of PlainTable
        The certificates.
    notes : tuple of str
        How to read the numbers, and what is missing, undefined or not estimable.
    """

    title: str
    models: tuple[str, ...]
    verdict: tuple[tuple[str, str], ...]
    verdict_table: PlainTable | None
    summary: PlainTable
    sections: tuple[Section, ...]
    references: tuple[PlainTable, ...]
    certificates: tuple[PlainTable, ...]
    notes: tuple[str, ...]
