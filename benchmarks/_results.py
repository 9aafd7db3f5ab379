"""Stored results: read them, show them as reStructuredText, look their cells up.

A result is the file ``docs/results/NAME.json``, which ``--write docs/results`` of a benchmark
makes. It has these fields, of which each but the first and the last may be "not recorded":

- "command": what made the result;
- "versions": of Python and of packages, by name;
- "seeds": in words;
- "machine": "cores", "processor" and "system";
- "tables": one or more, each with "title", "columns", "rows" (texts, as they are shown) and
  "below", reStructuredText that follows the table.

This module needs the standard library alone, so that tests can use it without Sphinx.
"""

import json
import re
from decimal import Decimal
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
NOT_RECORDED = "not recorded"
# A number: a sign only at its beginning, commas only between thousands, and no digits of a name.
_NUMBER = re.compile(r"(?<![\w.,])[-+\N{MINUS SIGN}]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)")
_REFERENCE = re.compile(r"\b\w*[a-zA-Z0-9]_(?!\w)")  # in reStructuredText
_SPREAD = re.compile(r"±\s*[\d.]+")
_ROLE = re.compile(r":cell:`([^`]+)`")
_DIRECTIVE = re.compile(r"^ *\.\. result:: (\S+)$", re.MULTILINE)
# What has no sentences: code, formulas, stored tables, plots, lists of pages and of references.
_NO_PROSE = re.compile(
    r" *\.\. (?:(?:code-block|math|result|dots|toctree|autosummary|literalinclude|image)::|\[)"
)
# Literals, checked and given numbers, formulas, widths, and where a link leads.
_NO_NUMBER = re.compile(r"``.*?``|:width: \d+%|:(?:cell|given|math):`[^`]*`|<[^<>]*>`", re.DOTALL)
_LOOKS_MEASURED = re.compile(
    r"(?<![\w.,:/-])[-+\N{MINUS SIGN}]?(?:(?:\d[\d,]*)?\.\d+(?!\.?\d)"
    r"|\d[\d,]*(?=[ -]?(?:%|percent|points?|times|ms|s|seconds?|minutes?|hours?|[KMGT]i?B|of \d+"
    r"|as (?:fast|many|large|long))(?!\w)))"
)


def load(name):
    """A stored result."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise LookupError(f"docs/results has no {path.name}")
    return json.loads(path.read_text(encoding="utf-8"))


def check(result):
    """Raise a ValueError that names the field which is not as this module documents it."""
    kinds = {"command": str, "versions": dict, "seeds": str, "machine": dict, "tables": list}
    if list(result) != list(kinds):
        raise ValueError(f"fields are {list(result)}, expected {list(kinds)}")
    for field, kind in kinds.items():
        missing = result[field] == NOT_RECORDED and field not in ("command", "tables")
        if not (result[field] and isinstance(result[field], kind)) and not missing:
            raise ValueError(f"{field} is {result[field]!r}, expected a {kind.__name__}")
    for table in result["tables"]:
        if list(table) != ["title", "columns", "rows", "below"]:
            raise ValueError(f"a table has the fields {list(table)}")
        for row in [table["columns"], *table["rows"]]:
            if len(row) != len(table["columns"]) or not all(isinstance(c, str) for c in row):
                raise ValueError(f"row {row} of {table['title']!r} is not one text a column")
            for text in row:
                if name := _REFERENCE.search(re.sub("``.*?``", "", text)):
                    raise ValueError(f"{text!r} refers to a link; write ``{name[0]}``")


def as_rst(result):
    """The tables of a result, and below them a line that says where they come from."""
    lines = []
    for table in result["tables"]:
        lines += [f".. list-table:: {table['title']}".rstrip(), "   :class: result"]
        lines += ["   :header-rows: 1", ""]
        for row in [table["columns"], *table["rows"]]:
            lines += [f"   {'  -' if i else '* -'} {_shown(cell)}" for i, cell in enumerate(row)]
        lines += ["", *table["below"].splitlines(), ""]
    return "\n".join([*lines, ".. rst-class:: result-source", "", _source(result), ""])


def _shown(cell):
    """Keep a lone dash from becoming a list, and a number with its sign in one line."""
    if cell == "-":
        return r"\-"
    return re.sub(r"(?<=[<>]=) | (?=±)|(?<=±) ", "\N{NO-BREAK SPACE}", cell)


def _source(result):
    texts = [f"Command: ``{result['command']}``."]
    facts = {"seeds": result["seeds"], "versions": result["versions"], "machine": result["machine"]}
    missing = [name for name, fact in facts.items() if fact == NOT_RECORDED]
    if facts["seeds"] != NOT_RECORDED:
        texts.append(f"Seeds: {facts['seeds']}.")
    if facts["versions"] != NOT_RECORDED:
        texts.append(", ".join(f"{name} {v}" for name, v in facts["versions"].items()) + ".")
    if facts["machine"] != NOT_RECORDED:
        texts.append("{cores} cores, {processor}, {system}.".format(**facts["machine"]))
    if missing:
        texts.append(f"Not recorded: {', '.join(missing)}.")
    return " ".join(texts)


def cell(address):
    """The cell at ``file | row | column``.

    The row is one or more texts with ``|`` between them. Each text is a whole cell of the row, or
    the title of its table, without backquotes and asterisks. Exactly one row of the file must have
    all of these texts.
    """
    name, *row, column = (part.strip() for part in address.split("|"))
    found = []
    for table in load(name)["tables"]:
        columns = [_plain(text) for text in table["columns"]]
        for cells in table["rows"] if column in columns else []:
            if set(row) <= {_plain(text) for text in (table["title"], *cells)}:
                found.append(cells[columns.index(column)])
    if len(found) != 1:
        raise LookupError(
            f"{len(found)} rows of docs/results/{name}.json have a column {column!r} and the "
            f"texts {row}, expected one"
        )
    return found[0]


def _plain(text):
    return text.replace("`", "").replace("*", "")


def reading(text):
    """The first number of a cell with the ends of its interval; None if the cell has no number.

    The interval is "± spread" or "(low to high)"; without either, it is the number itself.
    """
    text = text.partition(" / ")[0]
    values = [float(_number(found)) for found in _NUMBER.findall(text)]
    if not values:
        return None
    value = values[0]
    if "±" in text:
        return value, value - values[1], value + values[1]
    if " to " in text:
        return value, values[1], values[2]
    return value, value, value


def shows(value, text):
    """Whether a text of the documentation agrees with a cell.

    All numbers of `value` must be in the cell, rounded to as many digits as `value` has. The spread
    after a "±" counts only if `value` has one, too. A value without a number must be the cell.
    """
    wanted = [_number(number) for number in _NUMBER.findall(value)]
    if not wanted:
        return value == _plain(text)
    if "±" not in value:
        text = _SPREAD.sub("", text)
    there = [_number(number) for number in _NUMBER.findall(text)]
    return all(
        any(2 * abs(number - other) <= Decimal(1).scaleb(number.as_tuple().exponent)
            for other in there)
        for number in wanted
    )  # fmt: skip


def _number(text):
    return Decimal(text.replace(",", "").replace("\N{MINUS SIGN}", "-"))


def role(content):
    """Split the content of a role, ``value <address>``; raise a LookupError if it is not true."""
    match = re.fullmatch(r"(.+?)\s*<(.+)>", content, re.DOTALL)
    if match is None:
        raise LookupError(f"{content!r} is not of the form: value <file | row | column>")
    value, address = (" ".join(part.split()) for part in match.groups())
    text = cell(address)
    if not shows(value, text):
        raise LookupError(f"the text says {value!r}, and the cell at {address!r} is {text!r}")
    return value, address


def roles(source):
    """The contents of all roles ``:cell:`` in the source of a page."""
    return _ROLE.findall(source)


def directives(source):
    """The names of all results that the source of a page shows."""
    return _DIRECTIVE.findall(source)


def untraced(source):
    """The numbers in the sentences and tables of a page that look measured and are in no role.

    These are decimals, shares ("7 of 8"), and numbers with a unit. A number that nobody measured
    (a setting, a definition, a computed or a published number) is a literal, or has the role
    ``:given:``. Returns pairs of a line number and a number.
    """
    lines, skipped = [], None
    for line in source.splitlines():
        indent = len(line) - len(line.lstrip())
        if skipped is not None and line.strip() and indent <= skipped:
            skipped = None
        if skipped is None and _NO_PROSE.match(line):
            skipped = indent
        lines.append(line if skipped is None else "")
    text = _NO_NUMBER.sub(lambda found: re.sub(r"[^\n]", "_", found[0]), "\n".join(lines))
    return [
        (number, found)
        for number, line in enumerate(text.split("\n"), 1)
        for found in _LOOKS_MEASURED.findall(line)
    ]
