"""Shared parts of the displays: labels, legend above the axes, names beside points, fonts."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np

from skfair.metrics._group_metric import metric_name
from skfair.utils._settings import warning_filter
from skfair.utils._shown import as_label, columns_of
from skfair.utils._warnings import MissingGlyphWarning

LETTER, LINE = 0.6, 1.25  # width of a letter and height of a line, as shares of the font size
_WIDEST_ENTRY = 44  # letters in a line of a legend or of a name beside a point
_DISTANCES = (7, 16, 30, 48)  # from a point to its name, in points of 1/72 inch
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


def words(measure: Any) -> str:
    """Write the name of a metric, given by name or as a function, in words.

    Returns
    -------
    str

    Examples
    --------
    >>> from sklearn.metrics import balanced_accuracy_score
    >>> words(balanced_accuracy_score)
    'balanced accuracy'
    """
    name = measure if isinstance(measure, str) else metric_name(measure)
    return name.removesuffix("_score").replace("_", " ")


def plot_text(text: str, columns: int = _WIDEST_ENTRY) -> str:
    """Break a text into lines, and escape it so that matplotlib does not read a formula in it.

    Parameters
    ----------
    text : str
    columns : int, default=44
        Maximum number of letters in a line; a Chinese, Japanese or Korean letter counts as two.

    Returns
    -------
    str

    Examples
    --------
    >>> print(plot_text("landbird, water background", 15))
    landbird, water
    background
    """
    lines, line = [], ""
    for piece in re.split(r"(?<=[ /_,;-])", text):
        if line and columns_of((line + piece).rstrip()) > columns:
            lines.append(line.rstrip())
            line = ""
        line += piece
        while columns_of(line.rstrip()) > columns:  # a word that is longer than a line
            cut = 1
            while columns_of(line[: cut + 1]) <= columns:
                cut += 1
            lines.append(line[:cut])
            line = line[cut:]
    return "\n".join([*lines, line.rstrip()]).replace("$", r"\$")


@contextmanager
def missing_glyphs_told(ax: Any) -> Iterator[None]:
    """Replace matplotlib's warnings about missing glyphs with one that tells what to do.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes that the body draws into.
    """
    with warning_filter("ignore", UserWarning, r"Glyph \d+ .*missing from"):
        yield
    from matplotlib.text import Text

    missing: set[str] = set()
    for text in ax.findobj(Text):
        if not text.get_text().isascii():
            missing |= _without_glyph(text)
    if missing:
        first = "".join(sorted(missing)[:12]) + ("..." if len(missing) > 12 else "")
        warnings.warn(
            f"The font of the plot has no glyph for these characters of the labels: {first}. The "
            "plot shows boxes instead. Name a font that has them first, for instance "
            "matplotlib.rcParams['font.family'] = ['Noto Sans CJK JP', 'DejaVu Sans'].",
            MissingGlyphWarning,
            stacklevel=4,
        )


def _without_glyph(text: Any) -> set[str]:
    """Find the characters of a text that none of its fonts has."""
    from matplotlib import font_manager, rcParams

    left = {c for c in text.get_text() if not c.isascii() and c.isprintable()}
    properties = text.get_fontproperties()
    for family in properties.get_family():
        generic: Any = rcParams  # "sans-serif" stands for a list of families
        for name in generic.get(f"font.{family}", [family]):
            if not left:
                return left
            one = properties.copy()
            one.set_family([name])
            try:
                path = font_manager.findfont(one, fallback_to_default=False)
            except ValueError:  # a font that is not installed
                continue
            font = font_manager.get_font(path)
            left = {c for c in left if not font.get_char_index(ord(c))}
    return left


def legend_above(ax: Any, handles: Mapping[str, Any]) -> None:
    """Draw a legend above the axes, where it covers nothing, in as many columns as fit.

    Parameters
    ----------
    ax : matplotlib Axes
    handles : mapping of str to artist
        Entries of the legend. Without entries no legend is drawn.
    """
    settle(ax)
    room = ax.get_window_extent().width
    names = [plot_text(as_label(name)) for name in handles]
    for n_columns in range(len(handles), 0, -1):
        legend = ax.legend(
            handles.values(),
            [f" {name}" for name in names],  # matplotlib 3.9 warns of names that begin with "_"
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=n_columns,
            fontsize="medium" if room / ax.figure.dpi > 4.5 else "small",
            columnspacing=1,
            handlelength=1.4,
            handletextpad=0.5,
            frameon=False,
            borderaxespad=0.2,
        )
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_text(name)
        if legend.get_window_extent().width <= room:
            return


def settle(ax: Any) -> None:
    """Compute the size of the axes, if the figure has a layout engine."""
    figure = ax.figure.canvas.figure  # not a subfigure
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()


def label_points(
    ax: Any, x: np.ndarray, y: np.ndarray, names: Sequence[str], corners: np.ndarray | Sequence = ()
) -> list:
    """Write names beside points, where they cover other things as little as possible.

    A name that is far from its point gets a line to the point.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes whose limits are final.
    x, y : ndarray of shape (n_points,)
        The points.
    names : sequence of str
        Names of the points.
    corners : array-like of shape (n_corners, 2), default=()
        Corners of a step line that the names should not cover.

    Returns
    -------
    list of matplotlib Annotation
    """
    from matplotlib import patheffects

    settle(ax)
    pixels = ax.figure.dpi / 72
    points = ax.transData.transform(np.column_stack([x, y]))
    axes = ax.get_window_extent()
    inside = np.array([axes.x0, axes.y0, axes.x1, axes.y1])
    half = 6 * pixels  # half the size of a marker
    taken = [np.concatenate([point - half, point + half]) for point in points]
    if len(corners):
        ends = ax.transData.transform(corners)
        low, high = np.minimum(ends[1:], ends[:-1]), np.maximum(ends[1:], ends[:-1])
        taken += list(np.concatenate([low - pixels, high + pixels], axis=1))
    labels = []
    for name, point in zip(names, points, strict=True):
        label = ax.annotate(
            plot_text(as_label(name)),
            ax.transData.inverted().transform(point),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize="small",
            zorder=4,
            path_effects=[patheffects.withStroke(linewidth=2.5, foreground=ax.get_facecolor())],
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": "0.4", "shrinkA": 0, "shrinkB": 4},
        )
        label.set_in_layout(False)
        extent = label.get_window_extent()
        size = np.array([extent.width, extent.height])
        best = None
        for distance, direction in product(_DISTANCES, _DIRECTIONS):
            # In a diagonal direction, a smaller offset is enough to leave the point free.
            step = distance * (0.6 if all(direction) else 1) * pixels + size / 2
            middle = point + np.array(direction) * step
            box = np.concatenate([middle - size / 2, middle + size / 2])
            out = size.prod() - _overlap(box, inside)
            cost = 2 * out + sum(_overlap(box, other) for other in taken)
            if best is None or cost < best[0] - 1e-6:
                best = cost, middle, box, distance
        assert best is not None  # there is at least one place
        _, middle, box, distance = best
        taken.append(box)
        label.set_position(tuple((middle - point) / pixels))
        label.arrow_patch.set_visible(distance > _DISTANCES[0])
        labels.append(label)
    return labels


def _overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Area that two boxes (left, bottom, right, top) have in common."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    return float(np.maximum(sides, 0).prod())
