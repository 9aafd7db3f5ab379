"""How tables and labels are written: labels of groups in a line, tables in HTML."""

import html
from typing import Any

import pandas as pd

from skfair.utils._shown import as_label, plain


def group_label(group: Any) -> str:
    """Write the label of a group in one line; a tuple has one part for each feature.

    Returns
    -------
    str
    """
    return ", ".join(as_label(part) for part in (group if isinstance(group, tuple) else (group,)))


def escape(words: str) -> str:
    """Escape a label so that a browser shows it as text, and so that it cannot affect other text.

    Returns
    -------
    str
    """
    return html.escape(plain(words))


def html_table(table: pd.DataFrame) -> str:
    """Make an HTML table; each row has all its labels.

    Returns
    -------
    str
    """
    n_levels = table.index.nlevels
    heads = []
    columns = table.columns
    names = [escape(str(name)) for name in table.index.names]
    if columns.nlevels == 2:
        spans, top = [], list(columns.get_level_values(0))
        for name in dict.fromkeys(top):
            scope = f'<th colspan="{top.count(name)}" scope="colgroup">'
            spans.append(f"{scope if name else '<td>'}{escape(name)}</{'th' if name else 'td'}>")
        heads.append(f'<td colspan="{n_levels}"></td>{"".join(spans)}')
        columns = columns.get_level_values(1)
    cells = [f'<th scope="col" class="row">{n}</th>' if n else "<td></td>" for n in names]
    cells += [f'<th scope="col">{escape(str(column))}</th>' for column in columns]
    heads.append("".join(cells))
    rows = []
    for label, values in zip(table.index, table.to_numpy(), strict=True):
        cells = [f'<th scope="row">{escape(str(part))}</th>' for part in label]
        cells += [f"<td>{escape(str(value))}</td>" for value in values]
        rows.append("".join(cells))
    lines = ["<table>", "<thead>", *(f"<tr>{row}</tr>" for row in heads), "</thead>", "<tbody>"]
    return "\n".join([*lines, *(f"<tr>{row}</tr>" for row in rows), "</tbody>", "</table>"])
