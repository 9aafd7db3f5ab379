"""Dot plots of stored results as SVG, which follows the text colour of the page around it."""

import html
import math
from typing import NamedTuple

from benchmarks._results import cell, reading

WIDTH, LABELS, STEP, GAP, TOP = 500, 170, 7, 8, 10  # pixels; STEP is between series of a row
# Colours that are told apart with any kind of sight, on white and on black; shapes say it again.
STYLES = (("currentColor", "bar"), ("#3b82c4", "circle"), ("#d9730d", "square"),
          ("#1b9e77", "diamond"), ("#a05fb5", "triangle"))  # fmt: skip


class Dots(NamedTuple):
    """What to plot: `series` and `rows` are pairs of a label and a text.

    The text of a row is an address with ``{}``, where that of a series goes.
    """

    title: str
    series: list
    rows: list

    def readings(self):
        """For each row, the value and the interval of each series, or None."""
        return [
            [reading(cell(address.replace("{}", text))) for _, text in self.series]
            for _, address in self.rows
        ]


def parse(title, lines):
    """Read the lines of the directive: ``* label <text>`` are series, the others are rows."""
    series, rows = [], []
    for line in lines:
        stripped = line.strip()
        if stripped:
            label, bracket, text = stripped.removeprefix("* ").rpartition(" <")
            if not (bracket and text.endswith(">")):
                raise ValueError(f"{stripped!r} is not of the form: label <text>")
            target = series if stripped.startswith("* ") else rows
            target.append((label.strip(), text[:-1]))
    if not series or not rows or len(series) > len(STYLES):
        raise ValueError(f"{title}: needs rows, and one to {len(STYLES)} series")
    return Dots(title, series, rows)


def ticks(low, high):
    """Round numbers, about five, that enclose an interval."""
    width = (high - low) / 4 or 1.0
    unit = 10.0 ** math.floor(math.log10(width))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= width)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def svg(dots):
    """The plot, with all values in its description for those who do not see it."""
    readings = dots.readings()
    ends = [end for row in readings for found in row if found for end in found]
    axis = ticks(min(ends), max(ends))

    def x(value):
        return LABELS + (WIDTH - LABELS - 20) * (value - axis[0]) / (axis[-1] - axis[0])

    top = TOP + 16 * len(dots.series)
    height = STEP * len(dots.series) + GAP
    bottom = top + height * len(dots.rows)
    drawn, told = [], []
    for i, (label, _) in enumerate(dots.series):
        drawn += [mark(i, LABELS, TOP + 16 * i), words(LABELS + 12, TOP + 4 + 16 * i, label)]
    for value in axis:
        drawn.append(
            f'<path d="M{x(value):.1f} {top}V{bottom}" stroke="currentColor" opacity=".15"/>'
        )
        drawn.append(words(x(value), bottom + 14, f"{value:.10g}", "middle"))
    for k, ((label, _), row) in enumerate(zip(dots.rows, readings, strict=True)):
        y = top + height * k
        drawn.append(words(LABELS - 12, y + height / 2 + 4, label, "end"))
        for i, found in enumerate(row):
            if found is not None:
                value, low, high = found
                level = y + GAP / 2 + STEP * (i + 0.5)
                drawn.append(
                    f'<path d="M{x(low):.1f} {level}H{x(high):.1f}" stroke="{STYLES[i][0]}"/>'
                )
                drawn.append(mark(i, x(value), level))
                told.append(f"{label}, {dots.series[i][0]}: {value:g}")
    description = html.escape(f"{dots.title}. {'; '.join(told)}.")
    return (
        f'<svg class="dots" role="img" viewBox="0 0 {WIDTH} {bottom + 20}" '
        f'aria-label="{description}" fill="currentColor" stroke-width="1.5" font-size="13">'
        f"{''.join(drawn)}</svg>"
    )


def words(x, y, text, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def mark(i, x, y):
    colour, shape = STYLES[i]
    paths = {
        "bar": "m-1.5 -4h3v8h-3z", "circle": "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        "square": "m-3.5 -3.5h7v7h-7z", "diamond": "m0 -5l5 5l-5 5l-5 -5z",
        "triangle": "m0 -4.5l4.5 8h-9z",
    }  # fmt: skip
    return f'<path d="M{x:.1f} {y:.1f}{paths[shape]}" fill="{colour}"/>'
