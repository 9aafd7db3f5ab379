"""The report as a section of a model card of skops."""

import re
from typing import Any

import pandas as pd

from skfair.metrics._reporting._view import PlainTable, Section, View
from skfair.utils._shown import plain

# What CommonMark, or tables and mathematics in its dialects, would read as more than text.
_SPECIAL = re.compile(r"((?<=\])\(|[\\`*_\[\]>|~$#!{}])")
_LINE_START = re.compile(r"^(\s*)([-+](?=[-\s]|$)|=|\d+(?=[.)](?:\s|$)))")


def add_to_card(view: View, card: Any, section: str) -> None:
    """Add the verdict, the tables and the notes to a skops card, in place."""
    verdict = "\n".join(f"- **{key}**: {escape(sentence)}" for key, sentence in view.verdict)
    card.add(**{section: f"{escape(view.title)}\n\n{verdict}"})
    if view.verdict_table:
        _add_plain(card, section, view.verdict_table)
    for i, of_metric in enumerate(view.sections):
        unit = f", {of_metric.unit}" if of_metric.unit else ""
        _add(card, section, of_metric.heading + unit, _frame(of_metric, view.models))
        if i == 0:
            _add_plain(card, section, view.summary)
    for table in (*view.references, *view.certificates):
        _add_plain(card, section, table)
    notes = "\n".join(f"- {escape(note)}" for note in view.notes)
    card.add(**{f"{section}/How to read these numbers": notes})


def _add(card: Any, section: str, heading: str, table: pd.DataFrame) -> str:
    place = f"{section}/" + heading.replace("/", "\\/")
    card.add_table(**{place: table})
    card.select(place).title = escape(heading)  # add_table sets the whole path
    return place


def _add_plain(card: Any, section: str, table: PlainTable) -> None:
    rows = [[*labels, *values] for labels, values in zip(table.labels, table.values, strict=True)]
    place = _add(card, section, table.heading, _escaped([*table.names, *table.columns], rows))
    if table.remarks:
        card.select(place).content += "\n\n" + "\n\n".join(map(escape, table.remarks))


def _frame(section: Section, models: tuple[str, ...]) -> pd.DataFrame:
    """Make a table of texts: groups, then statistics with the two groups that they compare."""
    heads = [*section.names, section.count_name]
    for m, model in enumerate(models):
        heads += [model, f"{model}: change"] if m else [model]
    rows = []
    for row in (*section.groups, *section.statistics):
        cells = [*row.labels, "" if row.count is None else str(row.count)]
        for m, cell in enumerate(row.cells):
            pair = f" ({cell.between[0]} against {cell.between[1]})" if cell.between else ""
            cells += [cell.text + pair] + ([cell.change_text] if m else [])
        rows.append(cells)
    return _escaped(heads, rows)


def _escaped(heads: list[str], rows: list[list[str]]) -> pd.DataFrame:
    texts = [escape(head) for head in heads]
    # Columns of the same name would be one column.
    texts = [text + " " * texts[:i].count(text) for i, text in enumerate(texts)]
    return pd.DataFrame([[escape(cell) for cell in row] for row in rows], columns=texts)


def escape(words: str) -> str:
    r"""Escape a text, so that Markdown shows it as it is.

    Returns
    -------
    str

    Examples
    --------
    >>> print(escape("[a](b) <i>*x*|"), escape("1. one"))
    \[a\]\(b) &lt;i\>\*x\*\| 1\. one
    """
    escaped = _SPECIAL.sub(r"\\\1", plain(words))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;")
    return _LINE_START.sub(
        lambda found: found[1] + (found[2] + "\\" if found[2].isdigit() else "\\" + found[2]),
        escaped,
    )
