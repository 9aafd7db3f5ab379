"""From the tables of a report to the plain data that its readers see."""

from typing import Any

import numpy as np

from skfair.metrics._reporting._view import Cell, PlainTable, Row, Section, View
from skfair.utils._shown import as_label


def summarize(report: Any) -> View:
    """Write the tables of a report as plain data.

    Parameters
    ----------
    report : FairnessReport

    Returns
    -------
    View
    """
    models = tuple(report.counts.models)
    names = tuple(map(as_label, report.by_group.index.names))
    groups = [_row(i, r, models, "accuracy") for i, r in report.by_group.iterrows()]
    sections = [
        Section(f"Accuracy by {', '.join(names)}", "accuracy", "percent", names, "count",
                tuple(groups), ())
    ]  # fmt: skip
    for metric in report._metrics:
        names = tuple(map(as_label, report.by_feature.index.names[1:]))
        words = as_label(metric.name.replace("_", " "))
        percent = metric.counted is not None
        rows = [
            _row(i[1:], r, models, percent=percent)
            for i, r in report.by_feature.loc[[metric.name]].iterrows()
        ]
        statistics = [
            _row((*i[1:], *[""] * (len(names) - len(i) + 1)), r, models,
                 percent=percent and i[-1] != "ratio")
            for i, r in report.disparities.loc[[metric.name]].iterrows()
        ]  # fmt: skip
        heading = f"{words[:1].upper()}{words[1:]} by {', '.join(names)}"
        unit = "percent" if percent else ""
        sections.append(
            Section(heading, words, unit, names, "count", tuple(rows), tuple(statistics))
        )
    summary = PlainTable(
        "Summary, percent",
        (),
        ("accuracy", *map(as_label, models)),
        tuple(() for _ in report.summary.index),
        tuple(
            (name.replace("_", " "), *(f"{100 * x:.1f}" for x in values))
            for name, values in zip(report.summary.index, report.summary.to_numpy(), strict=True)
        ),
    )
    title = f"{report.by_group['', 'count'].sum():.0f} samples, {len(groups)} groups"
    return View(title, tuple(map(as_label, models)), (), None, summary, tuple(sections), (), (), ())


def _row(labels: Any, row: Any, models: Any, name: str = "value", percent: bool = True) -> Row:
    scale, digits = (100, 1) if percent else (1, 3)

    def write(numbers: Any, sign: str = "") -> str:
        texts = [f"{scale * number:{sign}.{digits}f}" for number in numbers]
        return texts[0] if np.isnan(numbers[1]) else f"{texts[0]} [{texts[1]}, {texts[2]}]"

    cells = []
    for model in models:
        value = [row.get((model, part), np.nan) for part in (name, "low", "high")]
        change = [
            row.get((model, part), np.nan) for part in ("change", "change_low", "change_high")
        ]
        cells.append(
            Cell(
                *(value[0], value[1], value[2], change[0], change[1], change[2]),
                text="undefined" if np.isnan(value[0]) else write(value),
                change_text="" if np.isnan(change[0]) else write(change, "+"),
            )
        )
    count = row.get(("", "count"))
    return Row(tuple(map(as_label, labels)), None if count is None else int(count), tuple(cells))
