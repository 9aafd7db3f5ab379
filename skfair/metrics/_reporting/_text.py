"""The report as text: the verdict, tables that fit the width, then the notes."""

import shutil
import sys
import textwrap
from collections.abc import Sequence

from skfair.metrics._reporting._view import PlainTable, Row, Section, View
from skfair.utils._shown import columns_of

_WIDTH, _WIDEST, _NARROWEST = 100, 120, 60
_SHOWN = 20  # most groups of a table; of more, the worst are shown
_WORST = 10
_HEAD = 24  # widest head of a column that is not wrapped
# Widest value, and room for a label, from the layout of a wide terminal to that of a narrow one.
_SQUEEZED = ((32, 12), (14, 12), (14, 6), (9, 3))
_GAP = "  "


def text(view: View) -> str:
    """Write a report as text that fits the terminal; 100 columns wide where there is none.

    Returns
    -------
    str
    """
    width = _WIDTH
    if sys.stdout is not None and sys.stdout.isatty():
        columns = shutil.get_terminal_size((_WIDTH, 24)).columns
        width = min(max(columns, _NARROWEST), _WIDEST)
    parts = [_fill(view.title, width), _verdict(view, width)]
    if view.verdict_table:
        parts += _plain(view.verdict_table, width)
    for i, section in enumerate(view.sections):
        parts += _section(section, view.models, width)
        if i == 0:
            parts += _plain(view.summary, width)
    for table in (*view.references, *view.certificates):
        parts += _plain(table, width)
    parts.append("\n".join(_fill(f"- {note}", width, "  ") for note in view.notes))
    return "\n\n".join(parts)


def _verdict(view: View, width: int) -> str:
    room = max(len(key) for key, _ in view.verdict) + 2
    lines = []
    for key, sentence in view.verdict:
        filled = _fill(sentence, width - room).split("\n")
        lines += [key.ljust(room) + filled[0], *(" " * room + line for line in filled[1:])]
    return "\n".join(lines)


def _section(section: Section, models: Sequence[str], width: int) -> list[str]:
    """Write one metric; the models below each other where they do not fit side by side."""
    groups, more = _shortened(section.groups)
    changed = len(models) > 1
    unit = f", {section.unit}" if section.unit else ""
    heads = [section.count_name]
    for m, model in enumerate(models):
        heads += [model, "change"] if m else [model]
    rows = groups + ([] if not section.statistics else list(section.statistics))
    of_models = [range(len(models))]
    table = _lines(section, rows, heads, of_models[0], width)
    blocks = [table]
    if table is None:
        blocks = []
        for m, model in enumerate(models):
            heads = [section.count_name, "value", *(["change"] if m else [])]
            block = _lines(section, rows, heads, [m], width, squeeze=True)
            assert block is not None
            blocks.append([_fill(model, width), *block] if changed else block)
    lines = [_fill(f"{section.heading}{unit}", width)]
    for block in blocks:
        assert block is not None
        lines += block
    if more:
        words = (
            f"These are the {len(groups)} worst groups. The other {more} are in the attributes of "
            "the report, and in to_html."
        )
        lines += _fill(words, width).split("\n")
    lines += _between(section, models, width)
    return ["\n".join(lines)]


def _shortened(rows: Sequence[Row]) -> tuple[list[Row], int]:
    if len(rows) <= _SHOWN:
        return list(rows), 0
    return list(rows[:_WORST]), len(rows) - _WORST


def _between(section: Section, models: Sequence[str], width: int) -> list[str]:
    """Name the two groups of each difference; those of the ratio are the same."""
    lines = []
    for row in section.statistics:
        labels = [label for label in row.labels if label]
        if labels[-1] != "difference":
            continue
        pairs: dict[tuple[str, ...], list[str]] = {}
        for model, cell in zip(models, row.cells, strict=True):
            if cell.between:
                pairs.setdefault(cell.between, []).append(model)
        where = f" ({', '.join(labels[:-1])})" if labels[:-1] else ""
        for (high, low), named in pairs.items():
            of = f" with {', '.join(named)}" if len(pairs) > 1 else ""
            words = f"Difference and ratio{where}: {high} against {low}{of}."
            lines += _fill(words, width).split("\n")
    return lines


def _lines(
    section: Section,
    rows: Sequence[Row],
    heads: Sequence[str],
    shown: Sequence[int],
    width: int,
    squeeze: bool = False,
) -> list[str] | None:
    """Lay out a table; None if it is wider than `width`, unless labels may be squeezed."""
    body = []
    for row in rows:
        cells = ["" if row.count is None else f"{row.count:,}"]
        for m in shown:
            cells.append(row.cells[m].text)
            if m:
                cells.append(row.cells[m].change_text)
        body.append(cells)
    return _grid(section.names, [row.labels for row in rows], heads, body, width, squeeze)


def _grid(
    names: Sequence[str],
    labels: Sequence[Sequence[str]],
    heads: Sequence[str],
    body: Sequence[Sequence[str]],
    width: int,
    squeeze: bool,
) -> list[str] | None:
    """Lay out labels to the left and values to the right; long labels and heads are wrapped."""
    for cell, label in _SQUEEZED if squeeze else _SQUEEZED[:1]:
        values = [
            min(max((columns_of(row[i]) for row in body), default=0), cell)
            for i in range(len(heads))
        ]
        rooms = [
            max(v, min(columns_of(head), _HEAD)) for v, head in zip(values, heads, strict=True)
        ]
        if sum(rooms) + sum(map(columns_of, names)) > width:  # heads of several lines
            words = [min(max(map(columns_of, head.split()), default=0), cell) for head in heads]
            rooms = [max(v, w) for v, w in zip(values, words, strict=True)]
        of_labels = [
            max(columns_of(name), *(columns_of(row[i]) for row in labels))
            if labels
            else columns_of(name)
            for i, name in enumerate(names)
        ]
        left = width - sum(rooms) - len(_GAP) * (len(rooms) + len(names) - 1)
        least = [min(room, label) for room in of_labels]
        if sum(least) <= left:
            break
    else:
        if not squeeze:
            return None
    while sum(of_labels) > max(left, sum(least)):
        widest = max(range(len(of_labels)), key=lambda i: of_labels[i] - least[i])
        of_labels[widest] -= 1
    lines = _row_lines(names, heads, of_labels, rooms)
    for row, cells in zip(labels, body, strict=True):
        lines += _row_lines(row, cells, of_labels, rooms)
    return lines


def _row_lines(
    labels: Sequence[str], cells: Sequence[str], of_labels: Sequence[int], rooms: Sequence[int]
) -> list[str]:
    left = [_wrap(label, room) for label, room in zip(labels, of_labels, strict=True)]
    right = [_wrap(cell, room) for cell, room in zip(cells, rooms, strict=True)]
    height = max(len(lines) for lines in (*left, *right))
    made = []
    for i in range(height):
        parts = [
            _pad(lines[i] if i < len(lines) else "", room)
            for lines, room in zip(left, of_labels, strict=True)
        ]
        parts += [
            _pad(lines[i] if i < len(lines) else "", room, right=True)
            for lines, room in zip(right, rooms, strict=True)
        ]
        made.append(_GAP.join(parts).rstrip())
    return made


def _plain(table: PlainTable, width: int) -> list[str]:
    lines = _grid(table.names, table.labels, table.columns, table.values, width, squeeze=False)
    if lines is None:  # a block for each row
        lines = []
        for labels, values in zip(table.labels, table.values, strict=True):
            lines += _fill(", ".join(filter(None, labels)), width).split("\n")
            for column, value in zip(table.columns, values, strict=True):
                if value:
                    lines += _fill(f"  {column}: {value}", width, "    ").split("\n")
    parts = ["\n".join([*_fill(table.heading, width).split("\n"), *lines])]
    return parts + [_fill(remark, width) for remark in table.remarks]


# Widths in columns of a terminal


def _pad(text: str, room: int, right: bool = False) -> str:
    space = " " * (room - columns_of(text))
    return space + text if right else text + space


def _wrap(text: str, room: int) -> list[str]:
    """Break a text at spaces, and words that are too long anywhere."""
    if columns_of(text) <= room:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if columns_of(joined) <= room:
            line = joined
            continue
        if line:
            lines.append(line)
        line = ""
        for letter in word:
            if line and columns_of(line + letter) > room:
                lines.append(line)
                line = ""
            line += letter
    return [*lines, line] if line else lines


def _fill(text: str, width: int, indent: str = "") -> str:
    if text.isascii():
        return textwrap.fill(
            text, width, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True
        )
    return "\n".join(
        line if i == 0 else indent + line for i, line in enumerate(_wrap(text, width - len(indent)))
    )
