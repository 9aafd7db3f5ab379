"""The faces of a report: text, HTML and a section of a model card."""

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skfair.metrics import _certificate_text
from skfair.metrics._html import escape, html_table
from skfair.metrics._rates import (
    FALSE_NEGATIVE_RATE,
    FALSE_POSITIVE_RATE,
    TRUE_NEGATIVE_RATE,
    TRUE_POSITIVE_RATE,
)
from skfair.metrics._report_functions import ReportMetric
from skfair.utils._shown import as_label, plain, shown

if TYPE_CHECKING:
    from skfair.metrics._report import FairnessReport

_NAMED = 4  # groups that a remark names
_FEW = 30  # samples below which a group is named as small
_WIDTH = 100
# Rates within a class rest on its members, and not on all of the group.
_SHARE_OF = {
    TRUE_POSITIVE_RATE: "positives",
    FALSE_NEGATIVE_RATE: "positives",
    FALSE_POSITIVE_RATE: "negatives",
    TRUE_NEGATIVE_RATE: "negatives",
}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #ddd; font-weight: normal; }
tbody th, thead .row, thead th[colspan] { text-align: left; }
thead th { font-weight: bold; border-bottom: 2px solid #888; }
"""


def title(report: "FairnessReport") -> str:
    """Say of how many samples, groups and models the report is.

    Returns
    -------
    str
    """
    n_samples = int(report.by_group["", "count"].sum())
    names = " x ".join(map(as_label, report.by_group.index.names))
    return (
        f"Fairness report: {_number(n_samples, 'sample')}, "
        f"{_number(len(report.by_group), 'group')} ({names}), "
        f"{_number(len(report.summary.columns), 'model')}"
    )


def text(report: "FairnessReport") -> str:
    """Make the text of a report.

    Returns
    -------
    str
    """
    parts = [title(report)]
    for heading, table in _tables(report):
        parts.append(f"{heading}\n{table.to_string()}" if heading else table.to_string())
    remarks = [textwrap.fill(remark, _WIDTH, break_long_words=False) for remark in _remarks(report)]
    return "\n\n".join([*parts, "\n".join(remarks)])


def body(report: "FairnessReport") -> str:
    """Make the tables and remarks of a report in HTML.

    Returns
    -------
    str
    """
    parts = [f"<p><b>{escape(title(report))}</b></p>"]
    parts += [f"<p>{escape(remark)}</p>" for remark in _remarks(report)]
    for heading, table in _tables(report, full=True):
        parts.append(f"<h2>{escape(heading)}</h2>")
        parts.append(f"<div>{html_table(table)}</div>")
    return "\n".join(parts)


def page(report: "FairnessReport", heading: str) -> str:
    """Make a whole page.

    Returns
    -------
    str
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(heading)}</h1>\n{body(report)}\n</body>\n</html>\n"
    )


def add_to_card(report: "FairnessReport", card: Any, section: str) -> None:
    """Add remarks and tables to a skops card."""
    remarks = "\n\n".join(_markdown(part) for part in (title(report) + ".", *_remarks(report)))
    card.add(**{section: remarks})
    for heading, table in _tables(report, full=True):
        flat = pd.DataFrame(table.index.tolist(), columns=[str(n) for n in table.index.names])
        heads = [" ".join(filter(None, map(str, np.atleast_1d(c)))) for c in table.columns]
        values = pd.DataFrame(table.to_numpy(), columns=heads)
        flat = pd.concat([flat, values], axis=1)
        flat.columns = [_markdown(name) for name in flat]
        place = f"{section}/" + heading.replace("/", "\\/")
        card.add_table(**{place: flat.map(lambda value: _markdown(str(value)))})
        card.select(place).title = _markdown(heading)  # which add_table makes the whole path


def _markdown(words: str) -> str:
    """Keep a label from being read as HTML, a link, or the end of a table's cell."""
    words = plain(words).replace("&", "&amp;").replace("<", "&lt;")
    return words.replace("|", "\\|").replace("](", "]\\(")


def _tables(report: "FairnessReport", full: bool = False) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield headings and formatted tables; the first two have a heading only if `full`."""
    for heading, table in _raw_tables(report, full):
        table.index, table.columns = _plain_axis(table.index), _plain_axis(table.columns)
        yield heading, table


def _plain_axis(axis: pd.Index) -> pd.Index:
    """Escape labels that a terminal would act on; an axis without such stays as it is."""
    levels = [axis.get_level_values(i) for i in range(axis.nlevels)]
    texts = [text for level in [axis.names, *levels] for text in level if isinstance(text, str)]
    if all(text == as_label(text) for text in texts):
        return axis
    names = [as_label(name) for name in axis.names]
    plains = [[as_label(x) if isinstance(x, str) else x for x in level] for level in levels]
    if axis.nlevels == 1:
        return pd.Index(plains[0], name=axis.name and names[0])
    return pd.MultiIndex.from_arrays(plains, names=names)


def _raw_tables(report: "FairnessReport", full: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    names = _label(tuple(report.by_group.index.names))
    yield f"Accuracy by {names}, percent" if full else "", _accuracies(report)
    totals = (100 * report.summary).map("{:.1f}".format)
    totals = totals.rename(index=lambda name: name.replace("_", " "))
    totals.index = pd.MultiIndex.from_arrays([totals.index], names=[""]) if full else totals.index
    yield "Summary, percent" if full else "", totals
    for metric in report._metrics:
        unit = ", percent" if metric.counted else ""
        features = _label(tuple(report.by_feature.index.names[1:]))
        words = _words(metric)
        heading = f"{words[:1].upper()}{words[1:]} by {features}{unit}"
        yield heading, _metric_table(report, metric)
    for model, certificate in report.certificates.items():
        heading = f"Certificate{_of(report, model)}: {_certificate_text.claim(certificate)}"
        yield heading, _certificate_text.table(certificate)


def _accuracies(report: "FairnessReport") -> pd.DataFrame:
    """Format the table by class and group, in percent."""
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
    return pd.DataFrame(table)


def _metric_table(report: "FairnessReport", metric: ReportMetric) -> pd.DataFrame:
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
    rows, cells = [], []
    for level, records in by_level.items():
        for statistic, i, row, values in records:
            labels = row[1 + n_controls :]
            ratio = statistic and labels[0] == "ratio"
            labels = (*level, *labels, *[""] * (n_features - len(labels)))
            # As text, where pandas would take apart a label that is a tuple itself.
            rows.append(tuple(str(x) if isinstance(x, tuple) else x for x in labels))
            cells.append(
                {column: "" if statistic else _count(of[i])}
                | {
                    model: _interval(
                        metric,
                        *(values[model, part] for part in ("value", "low", "high")),
                        ratio=ratio,
                    )
                    for model in counts.models
                }
            )
    index = pd.MultiIndex.from_tuples(rows, names=report.by_feature.index.names[1:])
    return pd.DataFrame(cells, index=index)


def _denominator(report: "FairnessReport", metric: ReportMetric) -> tuple[str, np.ndarray]:
    """Name and count what a metric is a share of, in each row of `by_feature`."""
    counts, counted = report.counts, metric.counted
    table = counts.tables(None, counts.size)
    size = table.sum(axis=(2, 3))
    if counted in _SHARE_OF:
        return _SHARE_OF[counted], counted.fraction(table, metric.positive)[1][size > 0]
    return "count", size[size > 0]


def _interval(
    metric: ReportMetric,
    value: float,
    low: float,
    high: float,
    *,
    ratio: bool = False,
    sign: str = "",
) -> str:
    """Format a value and its interval, where it has one."""
    scale, digits = (1, 3) if metric.counted is None else (100, 1)
    if ratio:
        scale, digits = 1, 2
    if np.isnan(value):
        return "undefined"
    shown = [f"{scale * number:{sign}.{digits}f}" for number in (value, low, high)]
    return shown[0] if np.isnan(low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _remarks(report: "FairnessReport") -> list[str]:
    """Say who gained and lost, what is too small or undefined, and what the numbers are."""
    return [plain(remark) for remark in _raw_remarks(report)]


def _raw_remarks(report: "FairnessReport") -> list[str]:
    first, *others = report.summary.columns
    remarks = []
    for model in others:
        against = f"{as_label(model)} against {as_label(first)}"
        remarks.append(f"{against}: {_levelling(report, model)}.")
        changes = _disparity_changes(report, first, model)
        if changes:
            names = _label(report.counts.group_names)
            remarks.append(f"{against}, difference between groups ({names}) of {_list(changes)}.")
    remarks += _gaps(report)
    counted = [metric.counted is not None for metric in report._metrics]
    remarks.append(
        "Accuracies, rates, differences and changes in percent. "
        if any(counted)
        else "Accuracies and their changes in percent. "
    )
    remarks[-1] += "Intervals in brackets are 95 % intervals, one by one: Wilson's for shares"
    if report._n_boot:
        remarks[-1] += f", of all else from a bootstrap of {report._n_boot:,} draws"
    remarks[-1] += (
        ". A difference between groups is never below 0, nor is its interval, and a small one is "
        "overstated"
    )
    remarks[-1] += (
        "; whether models differ in it is told by the interval of the change. " if others else ". "
    )
    remarks[-1] += "The accuracy of the worst of many small groups is low by chance, too."
    for model, certificate in report.certificates.items():
        words = " ".join(_certificate_text.remarks(certificate))
        remarks.append(f"Certificate{_of(report, model)}: {words}")
    return remarks


def _of(report: "FairnessReport", model: str) -> str:
    """Name the model, where there are several."""
    return f" of {as_label(model)}" if len(report.counts.models) > 1 else ""


def _levelling(report: "FairnessReport", model: str) -> str:
    """Say who gained and lost, and how much of it is beyond chance."""
    table = report.by_group[model].assign(count=report.by_group["", "count"])
    gained = int((table["change"] > 0).sum())
    lost = table[table["change"] < 0].sort_values("change")
    remark = f"{_number(gained, 'group')} gained, {len(lost)} lost"
    if table["change_high"].notna().any():
        # Where all change, all draws agree, and there is no interval.
        sure = (table["change_low"] > 0) | (table["change_high"] < 0) | (table["change"].abs() == 1)
        sure &= table["count"] >= _FEW
        lost = lost[sure[lost.index]]
        surely = int((sure & (table["change"] > 0)).sum())
        remark += f"; beyond chance {surely} gained and {len(lost)} lost"
    if not len(lost):
        return remark
    named = []
    for group, row in lost.iterrows():
        words = f"{_label(group)} {100 * row['change']:+.1f}"
        if not np.isnan(row["change_low"]):
            words += f" [{100 * row['change_low']:.1f}, {100 * row['change_high']:.1f}]"
        named.append(words)
    return f"{remark} (levelled down: {_list(named)})"


def _disparity_changes(report: "FairnessReport", first: str, model: str) -> list[str]:
    """Say what became of the differences between groups, what is beyond chance first."""
    words = []
    for metric in report._metrics:
        for row, values in report.disparities.loc[[metric.name]].iterrows():
            if row[-1] != "difference" or np.isnan(values[model, "change"]):
                continue
            where = f" ({_label(row[1:-1])})" if row[1:-1] else ""
            before = _interval(metric, values[first, "value"], np.nan, np.nan)
            after = _interval(metric, values[model, "value"], np.nan, np.nan)
            parts = (values[model, part] for part in ("change", "change_low", "change_high"))
            change = _interval(metric, *parts, sign="+")
            low, high = values[model, "change_low"], values[model, "change_high"]
            sure = low > 0 or high < 0
            words.append((not sure, f"{_words(metric)}{where}: {before} -> {after} ({change})"))
    return [word for _, word in sorted(words, key=lambda word: word[0])]  # which keeps the order


def _gaps(report: "FairnessReport") -> list[str]:
    """Name groups that are small, alone, or without a value."""
    counts, remarks = report.counts, []
    size = report.by_group["", "count"]
    if (size < _FEW).any():
        remarks.append(f"* Fewer than {_FEW} samples, which is too few to tell.")
    levels = list(range(1, 1 + len(counts.control_names)))
    first = report._metrics[0].name
    by_feature = report.by_feature.loc[[first]]
    if levels:
        alone = by_feature.groupby(level=levels, sort=False).size()
        alone = [_label(level) for level in alone.index[alone == 1]]
        if alone:
            remarks.append(f"One group only, and so nothing to compare: where {_list(alone)}.")
    elif len(by_feature) == 1:
        remarks.append("One group only, and so nothing to compare.")
    undefined = []
    for metric in report._metrics:
        for row, values in report.by_feature.loc[[metric.name]].iterrows():
            missing = [model for model in counts.models if np.isnan(values[model, "value"])]
            if missing:
                of = "" if len(missing) == len(counts.models) else f" of {_label(tuple(missing))}"
                undefined.append(f"{_words(metric)}{of} in {_label(row[1:])}")
    if undefined:
        remarks.append(f"Undefined, and left out of differences and ratios: {_list(undefined)}.")
    counted = [metric.name for metric in report._metrics if metric.counted]
    compared = report.disparities[report.disparities.index.get_level_values(0).isin(counted)]
    bare = [compared[m]["low"].isna() & compared[m]["value"].notna() for m in counts.models]
    if report._n_boot and np.any(bare):
        remarks.append(
            "A difference or ratio without an interval is one of which resampling tells nothing: "
            "its draws are all alike, or rare groups move them away from its value."
        )
    for m, model in enumerate(counts.models):
        strange = counts.cells[:, 3 + m] >= len(counts.classes)
        if strange.any():
            labels = [shown(counts.predicted[i]) for i in np.unique(counts.cells[strange, 3 + m])]
            remarks.append(
                f"{_number(int(counts.size[strange].sum()), 'prediction')} of {as_label(model)}: "
                f"not a label of y_true, and counted as wrong: {_list(labels)}."
            )
    if len(counts.predicted) == 2 and all(
        metric.counted and not metric.counted.needs_positive for metric in report._metrics
    ):
        remarks.append(
            "Rates of one class (selection, true and false positives) are shown of a positive "
            f"class, for instance with pos_label={shown(counts.classes[-1])}."
        )
    return remarks


def _count(n: float) -> str:
    return f"{n:.0f}*" if n < _FEW else f"{n:.0f}"


def _words(metric: ReportMetric) -> str:
    return as_label(metric.name.replace("_", " "))


def _list(words: list[str]) -> str:
    more = [f"and {len(words) - _NAMED} more"] if len(words) > _NAMED else []
    return "; ".join(words[:_NAMED] + more)


def _label(group: Any) -> str:
    return ", ".join(as_label(part) for part in (group if isinstance(group, tuple) else (group,)))


def _number(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
