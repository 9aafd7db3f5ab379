"""From the tables of a report to what its reader sees: the verdict, then each metric by group."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from skfair.metrics._certificate import FairnessCertificate, claim, pair_table
from skfair.metrics._certificate import remarks as certificate_remarks
from skfair.metrics._counts import GroupCounts
from skfair.metrics._group_metric import lower_is_better
from skfair.metrics._html import group_label
from skfair.metrics._rates import (
    FALSE_NEGATIVE_RATE,
    FALSE_POSITIVE_RATE,
    SELECTION_RATE,
    TRUE_NEGATIVE_RATE,
    TRUE_POSITIVE_RATE,
)
from skfair.metrics._reporting._functions import ReportMetric
from skfair.metrics._reporting._measures import STATISTICS
from skfair.metrics._reporting._notes import notes
from skfair.metrics._reporting._tests import LEVEL
from skfair.metrics._reporting._view import Cell, PlainTable, Row, Section, View
from skfair.utils._shown import as_label, plain, tell_apart

_NAMED = 3  # groups that the verdict names
# Rates within a class rest on the members of that class, and not on the whole group.
_SHARE_OF = {
    TRUE_POSITIVE_RATE: "positives",
    FALSE_NEGATIVE_RATE: "positives",
    FALSE_POSITIVE_RATE: "negatives",
    TRUE_NEGATIVE_RATE: "negatives",
}
_ENDS = ("highest", "lowest")
_VALUE = ("value", "low", "high")
_CHANGES = ("change", "change_low", "change_high")
_PERCENT = (100, 1, "")  # scale, digits, sign
_MOVED = (100, 1, "+")


class ReportTables(NamedTuple):
    """The tables of a report.

    Attributes
    ----------
    by_group, summary, by_feature, disparities, gaps, estimable : DataFrame
        As in :class:`FairnessReport`.
    by_reference : DataFrame or None
        As in :class:`FairnessReport`.
    counts : GroupCounts
        As in :class:`FairnessReport`.
    min_count : int
        Smallest number of samples of an estimable group.
    threshold : float or None
        Smallest acceptable ratio to the reference group.
    metrics : list of ReportMetric
        The metrics in `by_feature`.
    n_boot : int
        Number of bootstrap draws.
    certificates : dict of str to FairnessCertificate
        As in :class:`FairnessReport`.
    """

    by_group: pd.DataFrame
    summary: pd.DataFrame
    by_feature: pd.DataFrame
    disparities: pd.DataFrame
    gaps: pd.DataFrame
    estimable: pd.DataFrame
    by_reference: pd.DataFrame | None
    counts: GroupCounts
    min_count: int
    threshold: float | None
    metrics: list[ReportMetric]
    n_boot: int
    certificates: dict[str, FairnessCertificate]


def summarize(report: ReportTables) -> View:
    """Write the tables of a report as plain data.

    Parameters
    ----------
    report : ReportTables

    Returns
    -------
    View
    """
    models = _written_models(report)
    of_class = as_label(report.by_group.index.names[0])  # a label such as 1 says little alone
    groups = {row: f"{of_class} {words}" for row, words in _joined(report.by_group.index).items()}
    sections = [_class_section(report)]
    sections += [_metric_section(report, metric) for metric in report.metrics]
    several = len(models) > 1
    certificates = [
        _plain_table(
            f"Certificate{f' of {models[model]}' * several}: {claim(certificate)}",
            pair_table(certificate),
            certificate_remarks(certificate),
        )
        for model, certificate in report.certificates.items()
    ]
    last = report.counts.models[-1]
    return View(
        title=_title(report),
        models=tuple(models.values()),
        verdict=(
            ("Worst group", _worst(report, groups, models)),
            ("Largest gap", _gap_words(report, last, models)),
            _who_pays(report, groups, models),
            *_threshold_verdict(report, models),
        ),
        verdict_table=_verdict_table(report, groups, models) if len(models) > 2 else None,
        summary=_summary(report),
        sections=tuple(sections),
        references=tuple(_reference_tables(report, models)),
        certificates=tuple(certificates),
        notes=tuple(notes(report, models)),
    )


def _written_models(report: ReportTables) -> dict[str, str]:
    return tell_apart(report.counts.models)


def _title(report: ReportTables) -> str:
    names = " x ".join(map(as_label, report.by_group.index.names))
    n_samples = int(report.by_group["", "count"].sum())
    return (
        f"Fairness report: {number_of(n_samples, 'sample')}, "
        f"{number_of(len(report.by_group), 'group')} ({names}), "
        f"{number_of(len(report.counts.models), 'model')}"
    )


# The verdict


def _worst(report: ReportTables, groups: dict, models: dict[str, str]) -> str:
    """Say which group has the lowest accuracy, and what it was before."""
    table = report.by_group
    kept = table[table["", "count"] >= report.min_count]
    small = len(table) - len(kept)
    fewer = f"fewer than {report.min_count} samples"
    if not len(kept):
        return f"not estimable: {_every(len(table))} {fewer}."
    first, last = report.counts.models[0], report.counts.models[-1]
    worst = _lowest(kept, last)
    n = number_of(int(kept.loc[[worst], ("", "count")].iloc[0]), "sample")
    words = f"{groups[worst]} ({n}): accuracy {_accuracy(kept, worst, last)} %"
    if first != last:
        words += f" with {models[last]}, {_accuracy(kept, worst, first)} % with {models[first]}"
    words = _sentence(words)
    if first != last:
        before = _lowest(kept, first)
        if before != worst:
            words += (
                f" The worst group of {models[first]} was {groups[before]}: "
                f"{_accuracy(kept, before, first)} %."
            )
    if small:
        verb = "has" if small == 1 else "have"
        words += f" Worst of {len(kept)}; {number_of(small, 'group')} with {fewer} {verb} no value."
    elif len(kept) > 1:
        words += f" Worst of {len(kept)}."
    return words


def _every(n: int) -> str:
    return "the only group has" if n == 1 else f"each of {n} groups has"


def _lowest(table: pd.DataFrame, model: str) -> Any:
    return table.index[int(np.argmin(table[model, "accuracy"].to_numpy()))]


def _accuracy(table: pd.DataFrame, group: Any, model: str) -> str:
    row = table.loc[[group], model].iloc[0]
    return write((row["accuracy"], row["low"], row["high"]), _PERCENT)


def _largest_gap(report: ReportTables, model: str) -> tuple[ReportMetric, Any] | None:
    """Find the metric, and the row of `gaps`, with the largest difference between groups."""
    metrics = {metric.name: metric for metric in report.metrics if metric.counted is not None}
    index = report.gaps.index
    compared = index.get_level_values(0).isin(metrics)  # the others may have another unit
    compared &= index.get_level_values(-1) == "difference"
    values = report.gaps[model, "value"].to_numpy()
    if not compared.any() or np.isnan(values[compared]).all():
        return None
    row = index[np.nanargmax(np.where(compared, values, np.nan))]
    return metrics[row[0]], row


def _gap_words(report: ReportTables, model: str, models: dict[str, str]) -> str:
    """Say where groups differ most, between whom, and how the difference changed."""
    found = _largest_gap(report, model)
    if found is None:
        if not any(metric.counted for metric in report.metrics):
            return "not named: metrics of your own have no common unit. See their tables."
        return "none: there are no two groups with a value to compare."
    metric, row = found
    first, values = report.counts.models[0], _row_of(report.gaps, row, model)
    groups = _feature_groups(report)
    where = f" ({group_label(row[1:-1])})" if len(row) > 2 else ""
    interval = write((values["value"], values["low"], values["high"]), _PERCENT)
    high, low = (_value_of(report, metric, row, values[end], model) for end in _ENDS)
    words = (
        f"{metric_words(metric)}{where}: {interval} points between {groups[values['highest']]} "
        f"({high} %) and {groups[values['lowest']]} ({low} %)"
    )
    if model != first:
        before = _row_of(report.gaps, row, first)["value"]
        words += f" with {models[model]}; {100 * before:.1f} with {models[first]}"
        change = write(tuple(values[part] for part in _CHANGES), _MOVED)
        words += f", change {change}"
        if values["change_low"] <= 0 <= values["change_high"]:
            words += ", which may be chance"
    return _sentence(words)


def _row_of(table: pd.DataFrame, row: Any, model: str) -> dict[str, Any]:
    """Take the columns of a model in a row, each with its own type.

    As one Series, numbers beside labels that are durations would become durations.
    """
    part = table.loc[[row], model]
    return {name: part[name].iloc[0] for name in part}


def _feature_groups(report: ReportTables) -> dict[Any, str]:
    groups = report.counts.groups
    if len(report.counts.group_names) > 1:
        return _joined(groups)
    return tell_apart(groups, ("", *STATISTICS))


def _joined(rows: Sequence[tuple]) -> dict[Any, str]:
    """Write the labels of each row in one text, as the columns of a table show them."""
    columns = told_apart(list(rows), [("", *STATISTICS)] * len(rows[0]))
    words = {row: ", ".join(labels) for row, labels in zip(rows, columns, strict=True)}
    return tell_apart(rows, write=words.__getitem__)


def _value_of(report: ReportTables, metric: ReportMetric, row: Any, group: Any, model: str) -> str:
    labels = group if len(report.counts.group_names) > 1 else (group,)
    value = report.by_feature.loc[[(metric.name, *row[1:-1], *labels)], (model, "value")]
    return f"{100 * value.iloc[0]:.1f}"


def _moved(report: ReportTables, model: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the groups that lost and that gained beyond chance, those that moved most first."""
    table = report.by_group[model]
    sure = table[table["change_p"] <= LEVEL].sort_values("change", kind="stable")
    return sure[sure["change"] < 0], sure[sure["change"] > 0][::-1]


def _who_pays(report: ReportTables, groups: dict, models: dict[str, str]) -> tuple[str, str]:
    first, last = report.counts.models[0], report.counts.models[-1]
    n = len(report.by_group)
    if first == last:
        n_small = int((report.by_group["", "count"] < report.min_count).sum())
        rule = f"fewer than {report.min_count} samples"
        return (
            "Not estimable",
            f"{n_small or 'none'} of {number_of(n, 'group')}, by the rule: {rule}.",
        )
    lost, gained = _moved(report, last)
    unclear = n - len(lost) - len(gained)
    words = f"{len(lost) or 'none'} of {number_of(n, 'group')} lost accuracy beyond chance"
    if len(lost):
        named = [
            f"{groups[group]} {write(tuple(row[part] for part in _CHANGES), _MOVED)}"
            for group, row in lost.iloc[:_NAMED].iterrows()
        ]
        more = len(lost) - _NAMED
        words += f": {'; '.join(named)}{f'; and {more} more' if more > 0 else ''}"
    return (
        "Who pays",
        f"{words}. {len(gained)} gained beyond chance, {unclear} cannot be told. "
        + _sentence(f"{models[last]} against {models[first]}"),
    )


def _threshold_verdict(report: ReportTables, models: dict[str, str]) -> list[tuple[str, str]]:
    """Count the groups that reach the threshold, if there is one: by selection rate if reported."""
    if report.by_reference is None or report.threshold is None:
        return []
    last = report.counts.models[-1]
    chosen = [metric for metric in report.metrics if metric.counted is SELECTION_RATE]
    metric = (chosen or report.metrics)[0]
    table = report.by_reference.loc[[metric.name]]
    names = _joined([row[1:] for row in table.index])
    verdicts = dict(zip(names.values(), table[last]["meets"].tolist(), strict=True))
    below = [name for name, verdict in verdicts.items() if verdict == "no"]
    n = {kind: list(verdicts.values()).count(kind) for kind in ("yes", "cannot tell")}
    words = (
        f"{metric_words(metric)}: {len(below) or 'none'} of {number_of(len(verdicts), 'group')} "
        f"below {report.threshold:g} of the reference, each by its own interval"
    )
    if below:
        more = len(below) - _NAMED
        words += f": {'; '.join(below[:_NAMED])}{f'; and {more} more' if more > 0 else ''}"
    words += f". {n['yes']} reach it, {n['cannot tell']} cannot be told"
    small = len(verdicts) - len(below) - sum(n.values())
    words += f", {small} not estimable" * (small > 0)
    words += f", with {models[last]}" * (len(models) > 1)
    return [("Threshold", _sentence(words))]


def _verdict_table(report: ReportTables, groups: dict, models: dict[str, str]) -> PlainTable:
    """Make a table with the verdict of each model in a row."""
    kept = report.by_group[report.by_group["", "count"] >= report.min_count]
    rows = []
    for m, model in enumerate(models):
        worst = _lowest(kept, model) if len(kept) else None
        found = _largest_gap(report, model)
        gap = ""
        if found is not None:
            values = _row_of(report.gaps, found[1], model)
            gap = write((values["value"], values["low"], values["high"]), _PERCENT)
            gap += f", {metric_words(found[0])}"
        lost, gained = _moved(report, model) if m else ((), ())
        rows.append(
            (
                "not estimable" if worst is None else groups[worst],
                "" if worst is None else _accuracy(kept, worst, model),
                gap,
                str(len(lost)) if m else "",
                str(len(gained)) if m else "",
            )
        )
    columns = ("worst group", "its accuracy", "largest gap", "lost", "gained")
    labels = tuple((name,) for name in models.values())
    return PlainTable("Each model, percent", ("model",), columns, labels, tuple(rows))


# The tables


def _summary(report: ReportTables) -> PlainTable:
    columns = tuple(name.replace("_", " ") for name in report.summary.index)
    values = tuple(
        tuple(f"{100 * value:.1f}" for value in report.summary[model])
        for model in report.counts.models
    )
    labels = tuple((name,) for name in _written_models(report).values())
    n_small = int((report.by_group["", "count"] < report.min_count).sum())
    remarks: tuple[str, ...] = ()
    if n_small:  # else the verdict and the summary seem to contradict each other
        groups = number_of(n_small, "group")
        remarks = (f"The summary includes {groups} with fewer than {report.min_count} samples.",)
    return PlainTable("Summary, percent", ("model",), columns, labels, values, remarks)


def told_apart(labels: Sequence[tuple], reserved: Sequence[Collection[str]]) -> list[tuple]:
    """Write labels so that no two in a column look alike.

    Returns
    -------
    list of tuple of str
    """
    columns = []
    for column, others in zip(zip(*labels, strict=True), reserved, strict=True):
        texts = tell_apart(column, others)
        columns.append([texts[label] for label in column])
    return list(zip(*columns, strict=True))


def _class_section(report: ReportTables) -> Section:
    """Write the accuracy of each class and group."""
    table = report.by_group
    written = told_apart(list(table.index), [("",)] * table.index.nlevels)
    names = tuple(map(as_label, table.index.names))
    rows = []
    for labels, count, values in zip(
        written, table["", "count"].tolist(), _by_row(table, report.counts.models), strict=True
    ):
        enough = count >= report.min_count
        cells = tuple(_cell({**v, "value": v["accuracy"]}, enough, _PERCENT) for v in values)
        rows.append(Row(labels, count, cells, enough))
    heading = f"Accuracy by {', '.join(names)}"
    ordered = _worst_first(rows, 0, high_is_worse=False)
    return Section(heading, "accuracy", "percent", names, "count", ordered, ())


def _metric_section(report: ReportTables, metric: ReportMetric) -> Section:
    """Write one metric by control level and group, and compared between the groups."""
    counts = report.counts
    n_controls, n_features = len(counts.control_names), len(counts.group_names)
    by_feature = report.by_feature.loc[[metric.name]]
    estimable = report.estimable.loc[[metric.name]]
    scale, digits = (1, 3) if metric.counted is None else (100, 1)
    # Below the groups stand rows of totals, and a group may have the same name as a total.
    reserved = [()] * n_controls + [("", *STATISTICS)] * n_features
    written = told_apart([row[1:] for row in by_feature.index], reserved)
    levels: dict[tuple, tuple] = {}
    for row, labels in zip(by_feature.index, written, strict=True):
        levels[row[1 : 1 + n_controls]] = labels[:n_controls]
    count_name, behind = _denominator(report, metric)
    rows = []
    for labels, n, values, whether in zip(
        written,
        behind.tolist(),
        _by_row(by_feature, counts.models),
        estimable[list(counts.models)].to_numpy().tolist(),
        strict=True,
    ):
        cells = tuple(map(_cell, values, whether, [(scale, digits, "")] * len(values)))
        rows.append(Row(labels, int(n), cells, any(whether)))
    groups, statistics = _feature_groups(report), []
    # Both tables have the control levels in the order of `levels`.
    overall = _by_row(report.disparities.loc[[metric.name]], counts.models)[:: len(STATISTICS)]
    gaps = _by_row(report.gaps.loc[[metric.name]], counts.models)
    for control, *rows_of in zip(levels.values(), overall, gaps[::2], gaps[1::2], strict=True):
        for name, values in zip(STATISTICS, rows_of, strict=True):
            form = (1, 2, "") if name == "ratio" else (scale, digits, "")
            between = groups if name != "overall" else None
            cells = tuple(_cell(of_model, True, form, between) for of_model in values)
            statistics.append(Row((*control, name, *[""] * (n_features - 1)), None, cells))
    names = tuple(map(as_label, (*counts.control_names, *counts.group_names)))
    words = metric_words(metric)
    return Section(
        f"{words[:1].upper()}{words[1:]} by {', '.join(names)}",
        words,
        "" if metric.counted is None else "percent",
        names,
        count_name,
        _worst_first(rows, n_controls, high_is_worse=lower_is_better(metric.function)),
        tuple(statistics),
    )


def _worst_first(rows: list[Row], n_controls: int, *, high_is_worse: bool) -> tuple[Row, ...]:
    """Sort the groups of each control level by the last model; those without a value come last."""
    levels = {row.labels[:n_controls]: i for i, row in reversed(list(enumerate(rows)))}

    def order(row: Row) -> tuple:
        value = row.cells[-1].value
        missing = not row.estimable or np.isnan(value)
        place = 0.0 if missing else (-value if high_is_worse else value)
        return levels[row.labels[:n_controls]], not row.estimable, missing, place

    return tuple(sorted(rows, key=order))


def _by_row(table: pd.DataFrame, models: Sequence[str]) -> list[tuple[dict, ...]]:
    """Read a table once: for each row, the values of each model. pandas is slow row by row."""
    return list(zip(*(table[model].to_dict("records") for model in models), strict=True))


def _cell(
    values: Any, estimable: bool, form: tuple[int, int, str], groups: dict | None = None
) -> Cell:
    """Write one value of one model."""
    scale, digits, _ = form
    value, low, high, change, change_low, change_high = (
        float(values.get(part, np.nan)) for part in (*_VALUE, *_CHANGES)
    )
    text, change_text = write((value, low, high), form), ""
    if not estimable:
        text = "not estimable"
    elif not np.isnan(change):
        change_text = write((change, change_low, change_high), (scale, digits, "+"))
    between: tuple[str, ...] = ()
    if groups is not None and not np.isnan(value):
        between = tuple(groups[values[end]] for end in _ENDS)
    return Cell(value, low, high, change, change_low, change_high, text, change_text, between)


def _denominator(report: ReportTables, metric: ReportMetric) -> tuple[str, np.ndarray]:
    """Name the denominator of a metric, and count it for each row of `by_feature`."""
    counts, counted = report.counts, metric.counted
    table = counts.tables(None, counts.size)
    size = table.sum(axis=(2, 3))
    if counted in _SHARE_OF:
        return _SHARE_OF[counted], counted.fraction(table, metric.positive)[1][size > 0]
    return "count", size[size > 0]


def _reference_tables(report: ReportTables, models: dict[str, str]) -> list[PlainTable]:
    """Write the comparison of each group with the reference group, a table a metric."""
    if report.by_reference is None:
        return []
    counts, tables = report.counts, []
    groups = _feature_groups(report)
    several = len(models) > 1
    names = tuple(map(as_label, report.by_reference.index.names[1:]))
    for metric in report.metrics:
        table = report.by_reference.loc[[metric.name]]
        written = told_apart([row[1:] for row in table.index], [()] * len(names))
        scale, digits, unit = (1, 3, "") if metric.counted is None else (100, 1, ", points")
        columns = ["ratio", f"difference{unit}", "reference"]
        if report.threshold is not None:
            columns.append(f"at least {report.threshold:g}")
        labels, rows = [], []
        of_models = {model: table[model].to_dict("records") for model in counts.models}
        for i, group in enumerate(written):
            for model in counts.models:
                of = of_models[model][i]
                cells = []
                for name, form in (("ratio", (1, 2, "")), ("difference", (scale, digits, "+"))):
                    parts = (name, f"{name}_low", f"{name}_high")
                    cells.append(write(tuple(float(of[part]) for part in parts), form))
                cells.append("" if pd.isna(of["reference"]) else groups[of["reference"]])
                if report.threshold is not None:
                    cells.append(of["meets"])
                labels.append((*group, models[model]) if several else group)
                rows.append(tuple(cells))
        heading = f"{metric_words(metric).capitalize()} against a reference group"
        heads = (*names, "model") if several else names
        tables.append(PlainTable(heading, heads, tuple(columns), tuple(labels), tuple(rows)))
    return tables


def _plain_table(heading: str, table: pd.DataFrame, remarks: Sequence[str]) -> PlainTable:
    return PlainTable(
        heading,
        tuple(map(str, table.index.names)),
        tuple(map(str, table.columns)),
        tuple(tuple(map(str, label)) for label in table.index),
        tuple(tuple(map(str, row)) for row in table.to_numpy()),
        tuple(remarks),
    )


# Numbers and names in words


def _sentence(words: str) -> str:
    """Add a full stop, unless a name such as "log. reg." ends with one."""
    return words if words.endswith(".") else f"{words}."


def write(numbers: tuple[float, ...], form: tuple[int, int, str]) -> str:
    """Write a value, and its interval if there is one.

    Parameters
    ----------
    numbers : tuple of float
        Value, and the ends of its interval.
    form : tuple of (int, int, str)
        Factor, number of digits after the point, and sign, ``"+"`` or empty.

    Returns
    -------
    str

    Examples
    --------
    >>> write((0.25, 0.125, 0.5), (100, 1, "")), write((float("nan"),) * 3, (100, 1, ""))
    ('25.0 [12.5, 50.0]', 'undefined')
    """
    value, low, high = numbers
    scale, digits, sign = form
    if np.isnan(value):
        return "undefined"
    texts = [f"{scale * number + 0.0:{sign}.{digits}f}" for number in (value, low, high)]
    return texts[0] if np.isnan(low) else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def metric_words(metric: ReportMetric) -> str:
    """Write the name of a metric in words.

    Returns
    -------
    str
    """
    return plain(as_label(metric.name.replace("_", " ")))


def number_of(n: int, noun: str) -> str:
    """Write a number with its noun, in the plural if need be.

    Returns
    -------
    str

    Examples
    --------
    >>> number_of(1, "group"), number_of(1200, "sample")
    ('1 group', '1,200 samples')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
