"""The report for readers: text and a section of a model card."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from skfair.metrics._reporting._format import Content, formatted_tables
from skfair.metrics._reporting._remarks import number_of, report_remarks
from skfair.utils._shown import as_label, plain

_WIDTH = 100


def title(report: Content) -> str:
    """Name the numbers of samples, groups and models in a report.

    Returns
    -------
    str
    """
    n_samples = int(report.by_group["", "count"].sum())
    names = " x ".join(map(as_label, report.by_group.index.names))
    return (
        f"Fairness report: {number_of(n_samples, 'sample')}, "
        f"{number_of(len(report.by_group), 'group')} ({names}), "
        f"{number_of(len(report.summary.columns), 'model')}"
    )


def text(report: Content) -> str:
    """Make the text of a report.

    Returns
    -------
    str
    """
    parts = [title(report)]
    for heading, table in formatted_tables(report):
        parts.append(f"{heading}\n{table.to_string()}" if heading else table.to_string())
    lines = [textwrap.fill(r, _WIDTH, break_long_words=False) for r in report_remarks(report)]
    return "\n\n".join([*parts, "\n".join(lines)])


def add_to_card(report: Content, card: Any, section: str) -> None:
    """Add remarks and tables to a skops card, in place."""
    paragraphs = (f"{title(report)}.", *report_remarks(report))
    card.add(**{section: "\n\n".join(map(_markdown, paragraphs))})
    for heading, table in formatted_tables(report, full=True):
        flat = pd.DataFrame(table.index.tolist(), columns=[str(n) for n in table.index.names])
        heads = [" ".join(filter(None, map(str, np.atleast_1d(c)))) for c in table.columns]
        values = pd.DataFrame(table.to_numpy(), columns=heads)
        flat = pd.concat([flat, values], axis=1)
        flat.columns = [_markdown(name) for name in flat]
        place = f"{section}/" + heading.replace("/", "\\/")
        card.add_table(**{place: flat.map(lambda value: _markdown(str(value)))})
        card.select(place).title = _markdown(heading)  # add_table sets the whole path


def _markdown(words: str) -> str:
    """Escape a label that Markdown would read as HTML, a link or the end of a table cell."""
    words = plain(words).replace("&", "&amp;").replace("<", "&lt;")
    return words.replace("|", "\\|").replace("](", "]\\(")
