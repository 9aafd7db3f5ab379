"""The report for readers: its tables, formatted."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from skfair.metrics._certificate import FairnessCertificate, claim, pair_table
from skfair.metrics._counts import GroupCounts
from skfair.metrics._html import group_label
from skfair.metrics._rates import (
    FALSE_NEGATIVE_RATE,
    FALSE_POSITIVE_RATE,
    TRUE_NEGATIVE_RATE,
    TRUE_POSITIVE_RATE,
)
from skfair.metrics._reporting._functions import ReportMetric
from skfair.metrics._reporting._measures import STATISTICS
from skfair.utils._shown import as_label, tell_apart

FEW = 30  # a group with fewer samples is marked as small
# Rates within a class rest on the members of that class, and not on the whole group.
_SHARE_OF = {
    TRUE_POSITIVE_RATE: "positives",
    FALSE_NEGATIVE_RATE: "positives",
    FALSE_POSITIVE_RATE: "negatives",
    TRUE_NEGATIVE_RATE: "negatives",
}


class Content(NamedTuple):
    """The numbers of a report, which its text, HTML and model card show.

    Attributes
    ----------
    by_group, summary, by_feature, disparities : DataFrame
        As in :class:`FairnessReport`.
    counts : GroupCounts
        As in :class:`FairnessReport`.
    metrics : list of ReportMetric
        The metrics in `by_feature` and `disparities`.
    n_boot : int
        Number of bootstrap draws.
    certificates : dict of str to FairnessCertificate
        As in :class:`FairnessReport`.
    """

    by_group: pd.DataFrame
    summary: pd.DataFrame
    by_feature: pd.DataFrame
    disparities: pd.DataFrame
    counts: GroupCounts
    metrics: list[ReportMetric]
    n_boot: int
    certificates: dict[str, FairnessCertificate]


def formatted_tables(report: Content, full: bool = False) -> Iterator[tuple[str, pd.DataFrame]]:
    """Format the tables; the first two have a heading only if `full`.

    Yields
    ------
    heading : str
    table : DataFrame
    """
    for heading, table in _raw_tables(report, full):
        table.index, table.columns = _plain_axis(table.index), _plain_axis(table.columns)
        yield heading, table


def _plain_axis(axis: pd.Index) -> pd.Index:
    """Escape labels with control characters; an axis without such labels is returned unchanged."""
    levels = [axis.get_level_values(i) for i in range(axis.nlevels)]
    texts = [text for level in [axis.names, *levels] for text in level if isinstance(text, str)]
    if all(text == as_label(text) for text in texts):
        return axis
    names = [as_label(name) for name in axis.names]
    plains = [[as_label(x) if isinstance(x, str) else x for x in level] for level in levels]
    if axis.nlevels == 1:
        return pd.Index(plains[0], name=axis.name and names[0])
    return pd.MultiIndex.from_arrays(plains, names=names)


def _raw_tables(report: Content, full: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    names = group_label(tuple(report.by_group.index.names))
    yield f"Accuracy by {names}, percent" if full else "", _accuracies(report)
    totals = (100 * report.summary).map("{:.1f}".format)
    totals = totals.rename(index=lambda name: name.replace("_", " "))
    totals.index = pd.MultiIndex.from_arrays([totals.index], names=[""]) if full else totals.index
    yield "Summary, percent" if full else "", totals
    for metric in report.metrics:
        unit = ", percent" if metric.counted else ""
        features = group_label(tuple(report.by_feature.index.names[1:]))
        words = metric_words(metric)
        heading = f"{words[:1].upper()}{words[1:]} by {features}{unit}"
        yield heading, _metric_table(report, metric)
    for model, certificate in report.certificates.items():
        heading = f"Certificate{of_model(report, model)}: {claim(certificate)}"
        yield heading, pair_table(certificate)


def _told_apart(labels: Sequence[tuple], reserved: Sequence[Collection[str]]) -> list[tuple]:
    """Write labels so that no two in a column look alike; all other labels stay as they are."""
    columns = []
    for column, others in zip(zip(*labels, strict=True), reserved, strict=True):
        texts = tell_apart(column, others)
        columns.append([x if texts[x] == as_label(x) else texts[x] for x in column])
    return list(zip(*columns, strict=True))


def _accuracies(report: Content) -> pd.DataFrame:
    """Format the table by class and group, in percent."""
    labels = report.by_group.index
    rows = _told_apart(list(labels), [()] * labels.nlevels)
    table = {("", "count"): report.by_group["", "count"].map(_count)}
    for model in report.summary.columns:
        numbers = 100 * report.by_group[model]
        table[model, "accuracy"] = numbers["accuracy"].map("{:.1f}".format)
        table[model, "95% interval"] = [
            f"[{low:.1f}, {high:.1f}]"
            for low, high in zip(numbers["low"], numbers["high"], strict=True)
        ]
        if "change" in numbers:
            table[model, "change"] = numbers["change"].map("{:+.1f}".format)
    formatted = pd.DataFrame(table)
    if rows != list(labels):
        formatted.index = pd.MultiIndex.from_tuples(rows, names=labels.names)
    return formatted


def _metric_table(report: Content, metric: ReportMetric) -> pd.DataFrame:
    """Format one metric: a row for each group, then overall, difference and ratio."""
    counts = report.counts
    n_controls, n_features = len(counts.control_names), len(counts.group_names)
    by_feature = report.by_feature.loc[[metric.name]]
    disparities = report.disparities.loc[[metric.name]]
    by_level: dict[tuple, list] = {row[1 : 1 + n_controls]: [] for row in disparities.index}
    for frame in (by_feature, disparities):
        for i, (row, values) in enumerate(zip(frame.index, frame.to_dict("records"), strict=True)):
            by_level[row[1 : 1 + n_controls]].append((frame is disparities, i, row, values))
    column, of = _denominator(report, metric)
    # Below the groups stand rows of totals, and a group may have the same name as a total.
    reserved = [()] * n_controls + [("", *STATISTICS)] * n_features
    groups = _told_apart([row[1:] for row in by_feature.index], reserved)
    levels = [row[1 : 1 + n_controls] for row in by_feature.index]
    controls = dict(zip(levels, groups, strict=True))
    rows, cells = [], []
    for level, records in by_level.items():
        for statistic, i, row, values in records:
            labels = row[1 + n_controls :] if statistic else groups[i][n_controls:]
            ratio = statistic and labels[0] == "ratio"
            told = controls[level][:n_controls]
            labels = (*told, *labels, *[""] * (n_features - len(labels)))
            # A label that is a tuple becomes text, since pandas would split it into levels.
            rows.append(tuple(str(x) if isinstance(x, tuple) else x for x in labels))
            cells.append(
                {column: "" if statistic else _count(of[i])}
                | {
                    model: format_value(
                        metric,
                        *(values[model, part] for part in ("value", "low", "high")),
                        ratio=ratio,
                    )
                    for model in counts.models
                }
            )
    index = pd.MultiIndex.from_tuples(rows, names=report.by_feature.index.names[1:])
    return pd.DataFrame(cells, index=index)


def _denominator(report: Content, metric: ReportMetric) -> tuple[str, np.ndarray]:
    """Name the denominator of a metric, and count it for each row of `by_feature`."""
    counts, counted = report.counts, metric.counted
    table = counts.tables(None, counts.size)
    size = table.sum(axis=(2, 3))
    if counted in _SHARE_OF:
        return _SHARE_OF[counted], counted.fraction(table, metric.positive)[1][size > 0]
    return "count", size[size > 0]


def format_value(
    metric: ReportMetric,
    value: float,
    low: float,
    high: float,
    *,
    ratio: bool = False,
    sign: str = "",
) -> str:
    """Format a value, and its interval if there is one.

    Returns
    -------
    str
    """
    scale, digits = (1, 3) if metric.counted is None else (100, 1)
    if ratio:
        scale, digits = 1, 2
    if np.isnan(value):
        return "undefined"
    shown = [f"{scale * number:{sign}.{digits}f}" for number in (value, low, high)]
    return shown[0] if np.isnan(low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def of_model(report: Content, model: str) -> str:
    """Write which model is meant, if there are several.

    Returns
    -------
    str
    """
    return f" of {as_label(model)}" if len(report.counts.models) > 1 else ""


def metric_words(metric: ReportMetric) -> str:
    """Write the name of a metric in words.

    Returns
    -------
    str
    """
    return as_label(metric.name.replace("_", " "))


def _count(n: float) -> str:
    return f"{n:.0f}*" if n < FEW else f"{n:.0f}"
