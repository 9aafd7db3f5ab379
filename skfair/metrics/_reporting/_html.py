"""The report in HTML: what a browser and a notebook show."""

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from skfair.metrics._reporting._view import Row, Section, View
from skfair.utils._shown import plain

_HERE = Path(__file__).parent
_WIDTH, _MARGIN = 200, 8  # of a chart, in pixels; half a dot and half a number must fit the margin
# The blocks of Unicode for alphabets that are written from right to left.
_LETTERS = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]+"
_RIGHT_TO_LEFT = re.compile(f"({_LETTERS}(?:[ '/_-]+{_LETTERS})*)")
_PAPER = "@page{size:landscape;margin:10mm}\n"  # not for notebooks, which print more than a report
_INTERVAL = re.compile(r"(\[[-+\d.]+, [-+\d.]+\])")
_STEP = 9  # from the dot of one model to that of the next
_N_TICKS = 5
_SHAPES = (  # 9 x 9 pixels, one after the other for the models
    '<circle cx="5" cy="5" r="3.6"/>',
    '<path d="M1.6 1.6h6.8v6.8H1.6z"/>',
    '<path d="M5 .4 9.6 5 5 9.6.4 5z"/>',
    '<path d="M5 .8 9.4 8.6H.6z"/>',
    '<path d="M5 9.2.6 1.4h8.8z"/>',
    '<path d="M3.5.8h3v2.7h2.7v3H6.5v2.7h-3V6.5H.8v-3h2.7z"/>',
)


def page(view: View, title: str) -> str:
    """Make one self-contained page.

    The browser is told to run no script except the one of this module, and to load nothing.

    Parameters
    ----------
    view : View
    title : str
        Title of the page.

    Returns
    -------
    str
    """
    content = _content(view)
    content["style"] += _PAPER
    content["title"] = view.title.removeprefix(f"{title}: ")  # the heading says it already
    policy = (
        f"default-src 'none'; style-src {_hash(content['style'])}; "
        f"script-src {_hash(content['script'])}; base-uri 'none'; form-action 'none'"
    )
    return _template("page.html").render(content, page_title=title, policy=policy)


def body(view: View) -> str:
    """Make an element for a notebook; its style applies to nothing else.

    Parameters
    ----------
    view : View

    Returns
    -------
    str
    """
    return _template("notebook.html").render(_content(view))


class Chart(NamedTuple):
    """Where the dots and intervals of a section are drawn.

    Attributes
    ----------
    ticks : list of (int, str, str)
        Place in pixels, text and anchor of each number on the axis.
    low, high : str
        First and last number of the axis.
    lines : list of (int, int)
        Model, and place of its overall value.
    groups, statistics : list of list of str
        For each row and model the data of an SVG path: the interval with the value as its middle
        point; empty if there is no value.
    """

    ticks: list[tuple[int, str, str]]
    low: str
    high: str
    lines: list[tuple[int, int]]
    groups: list[list[str]]
    statistics: list[list[str]]


def chart(section: Section) -> Chart | None:
    """Place the values of a section on an axis that has room for all of them.

    Returns
    -------
    Chart or None
        None if no value is a finite number, or if the numbers are too far apart.
    """
    overall = [row for row in section.statistics if statistic(row) == "overall"]
    numbers = [
        number
        for row in (*section.groups, *overall)
        for cell in row.cells
        for number in (cell.value, cell.low, cell.high)
        if math.isfinite(number)
    ]
    if not numbers:
        return None
    if not math.isfinite(max(numbers) - min(numbers)):
        return None
    low, high, step = _nice(min(numbers), max(numbers))
    scale = (_WIDTH - 2 * _MARGIN) / (high - low)
    unit = 100 if section.unit == "percent" else 1

    def place(number: float) -> int:
        return round(_MARGIN + scale * (number - low))

    def paths(row: Row) -> list[str]:
        drawn = []
        for model, cell in enumerate(row.cells):
            if not math.isfinite(cell.value):
                drawn.append("")
                continue
            ends = [x if math.isfinite(x) else cell.value for x in (cell.low, cell.high)]
            left, middle, right = map(place, (ends[0], cell.value, ends[1]))
            drawn.append(f"M{left} {_STEP * model + 7}H{middle} {right}")
        return drawn

    n_steps = round((high - low) / step)
    texts = [f"{unit * (low + i * step):.12g}" for i in range(n_steps + 1)]
    crowded = max(map(len, texts)) > 5
    ticks = [
        (place(low + i * step), text, {0: "start", n_steps: "end"}.get(i, "middle"))
        for i, text in enumerate(texts)
        if not crowded or i in (0, n_steps)
    ]
    alone = overall[0].cells if len(overall) == 1 else ()  # not one value for each control level
    return Chart(
        ticks,
        texts[0],
        texts[-1],
        [(m, place(cell.value)) for m, cell in enumerate(alone) if math.isfinite(cell.value)],
        [paths(row) for row in section.groups],
        [paths(row) if row in overall else [] for row in section.statistics],
    )


def statistic(row: Row) -> str:
    """Find what a row of statistics shows: its last label that is not empty.

    Returns
    -------
    str
    """
    return next(label for label in reversed(row.labels) if label)


def _nice(low: float, high: float) -> tuple[float, float, float]:
    """Widen a range to multiples of 1, 2 or 5 times a power of ten."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):
        margin = 0.05 * abs(low) or 0.05
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / _N_TICKS))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * _N_TICKS >= (high - low) * 0.999)
    # The small parts keep a range that ends on a multiple from growing by a step.
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return first * step, last * step, step


def _content(view: View) -> dict[str, Any]:
    """Collect what the templates write."""
    name = "fr-" + hashlib.sha256(repr(view).encode("utf-8", "backslashreplace")).hexdigest()[:8]
    charts = [chart(section) for section in view.sections]
    style = Markup(_file("report.css") + "".join(_rules(name, view, charts)))
    return {
        "view": view,
        "title": view.title,
        "name": name,
        "charts": charts,
        "style": style,
        "script": Markup(_file("report.js")),
        "shapes": [Markup(_SHAPES[m % len(_SHAPES)]) for m in range(len(view.models))],
        "colours": [_colour(m) for m in range(len(view.models))],
        "width": _WIDTH,
    }


def _rules(name: str, view: View, charts: Sequence[Chart | None]) -> Iterator[str]:
    """Write the part of the style that depends on the report."""
    yield f"#{name} td>svg{{height:{_STEP * len(view.models) + 5}px}}\n"
    for m in range(len(view.models)):
        yield (
            f"#{name} td>svg>:nth-child({m + 1}){{stroke:var(--c{_colour(m)});"
            f"marker-mid:url(#{name}-{m})}}\n"
        )
    for number, drawn in enumerate(charts):
        if drawn and drawn.lines:
            images = ",".join(f"linear-gradient(var(--c{_colour(m)}) 0 0)" for m, _ in drawn.lines)
            places = ",".join(f"{x}px 0" for _, x in drawn.lines)
            yield (
                f"#{name} .t{number} tbody td:has(>svg){{background-image:{images};"
                f"background-position:{places};background-size:1px 100%}}\n"
            )


def _colour(model: int) -> int:
    """Choose the colour; beyond six models, the pairs of colour and shape still differ."""
    return (model + model // len(_SHAPES)) % 6


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _template(name: str) -> Any:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
    )
    environment.filters.update(
        plain=plain, words=_words, label=_label, verdict=_verdict, with_intervals=_with_intervals
    )
    return environment.get_template(name)


def _verdict(text: str) -> Markup:
    """Isolate parts of a sentence, and mark its intervals, which stand back behind the values."""
    parts = _INTERVAL.split(text)
    return Markup("").join(
        Markup("<i>{}</i>").format(part) if i % 2 else _words(part) for i, part in enumerate(parts)
    )


def _with_intervals(section: Section) -> bool:
    rows = (*section.groups, *section.statistics)
    return any(math.isfinite(cell.low) for row in rows for cell in row.cells)


def _label(text: str) -> Markup:
    """Isolate a label, so that the direction of its writing changes nothing around it."""
    return Markup("<bdi>{}</bdi>").format(plain(text))


def _words(text: str) -> Markup:
    """Isolate each part of a sentence that is written from right to left."""
    parts = _RIGHT_TO_LEFT.split(plain(text))
    return Markup("").join(_label(part) if i % 2 else escape(part) for i, part in enumerate(parts))
