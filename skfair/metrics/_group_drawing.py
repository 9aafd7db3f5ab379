"""How a display of groups is drawn: bars or dots, with intervals, labels and reference bands."""

from typing import Any

import numpy as np

from skfair.metrics._html import group_label
from skfair.metrics._plotting import LETTER, LINE, legend_above, plot_text
from skfair.metrics._reporting._measures import STATISTICS
from skfair.utils._shown import as_label, columns_of, tell_apart

# Okabe and Ito's colours, which colour-blind people can distinguish. Neighbours in this order also
# differ in grey. Each colour has its own hatch, line style and marker.
_LOOKS = [
    ("#0072B2", None, (0, (5, 2)), "o"),
    ("#E69F00", "///", (0, (1, 1.5)), "s"),
    ("#009E73", "...", (0, (5, 1.5, 1, 1.5)), "^"),
    ("#CC79A7", "\\\\\\", (0, (9, 2)), "D"),
    ("#D55E00", "--", (0, (2, 3)), "v"),
    ("#56B4E9", "xxx", (0, (3, 1, 1, 1, 1, 1)), "P"),
]
_UPRIGHT = 6  # most groups with upright bars; more groups are below each other
_MOST_BARS = 12  # most groups with bars; more groups have dots
_MOST_BANDS = 2  # most models with a band of the overall value; more bands hide each other
_BARS, _BAR = 0.8, 0.5  # share of a group's space for all its bars, and largest share for one bar
_COLUMNS = (12, 44)  # fewest and most letters in a line of a label
_SMALLEST = 4.0  # size of the smallest labels, in points
_HIGHEST = 60_000  # pixels; matplotlib's limit is 2**16
_UNNAMED = "model"  # name of a model without a name in a report


class GroupDrawing:
    """A picture of the numbers of a display.

    Parameters
    ----------
    display : GroupMetricsDisplay
        The numbers.
    order : ndarray of int of shape (n_shown,)
        Positions of the groups to draw.
    n_more : int
        Number of groups that are not drawn.
    ax : matplotlib Axes or None
        Axes to draw into; None makes a figure.
    pyplot : module
        ``matplotlib.pyplot``.

    Attributes
    ----------
    ax, bars, dots, intervals, overall, bands, undefined, horizontal
        As the attributes of the display with the same names and an underscore.
    """

    def __init__(self, display: Any, order: np.ndarray, n_more: int, ax: Any, pyplot: Any):
        self.order, self.n_more = order, n_more
        self.models = list(display.values)
        self.values = {m: v[order] for m, v in display.values.items()}
        self.low = {m: v[order] for m, v in display.low.items()}
        self.high = {m: v[order] for m, v in display.high.items()}
        self.estimable = {m: v[order] for m, v in display.estimable.items()}
        self.count = None if display.count is None else display.count[order]
        self.display = display
        self.dotted = len(order) > _MOST_BARS
        names = tell_apart(display.groups, STATISTICS, group_label)
        self.names = [names[display.groups[i]] for i in order]
        size = pyplot.rcParams["ytick.labelsize"]
        self.font_size = pyplot.matplotlib.font_manager.FontProperties(size=size).get_size()
        if ax is None:
            _, ax = pyplot.subplots(
                figsize=self._figure_size(pyplot.rcParams), layout="constrained"
            )
            self.columns = _COLUMNS[1]
        else:
            self.font_size, self.columns = self._fit(*self._inches(ax))
        self.ax = ax
        self.horizontal = len(order) > _UPRIGHT or not self._fits_upright()
        self.bars: dict[str, Any] = {}
        self.dots: dict[str, Any] = {}
        self.intervals: dict[str, Any] = {}
        self.overall: dict[str, Any] = {}
        self.bands: dict[str, Any] = {}
        self.undefined: list[Any] = []

    def draw(self, bar_kw: dict[str, Any], dot_kw: dict[str, Any]) -> None:
        """Draw everything.

        Parameters
        ----------
        bar_kw, dot_kw : dict
            Settings of the user for bars and for dots.
        """
        n_groups, n_models = len(self.order), len(self.models)
        thickness = min(_BARS / n_models, _BAR)
        for m, model in enumerate(self.models):
            place = np.arange(n_groups) + (m + 0.5 - n_models / 2) * thickness
            look = _LOOKS[m % len(_LOOKS)]
            if self.dotted:
                self._draw_dots(model, look, place, dot_kw)
            else:
                self._draw_bars(model, look, place, thickness, bar_kw)
            if self.low:
                self._draw_intervals(model, look, place, thickness)
            self._draw_overall(model, look)
            self._write_undefined(model, place)
        self._scale()
        self._label()
        self._legend()

    def _inches(self, ax: Any) -> tuple[float, float]:
        extent = ax.get_window_extent()
        return extent.width / ax.figure.dpi, extent.height / ax.figure.dpi

    def _figure_size(self, settings: Any) -> tuple[float, float]:
        """Make room for the labels: the default size, or more."""
        width, height = settings["figure.figsize"]
        n_groups, n_models = len(self.order) + bool(self.n_more), len(self.models)
        texts = self._tick_labels(" ", _COLUMNS[1])
        longest = max(columns_of(line) for text in texts for line in text.split("\n"))
        n_lines = max(text.count("\n") + 1 for text in texts)
        if n_groups > _UPRIGHT or n_lines > 1:
            line = self.font_size * LINE / 72
            per_model = 0.15 if self.dotted else 0.1
            step = max(0.3, line * n_lines + 0.1, per_model * n_models)
            height = max(height, 1.2 + n_groups * step)
            label = longest * LETTER * self.font_size / 72
            width = max(width, label + 0.7 * width)
        return width, min(height, _HIGHEST / settings["figure.dpi"])

    def _fit(self, width: float, height: float) -> tuple[float, int]:
        """Choose the size of labels in given axes, and the letters in a line: the largest size."""
        n_groups = len(self.order) + bool(self.n_more)
        for n_lines in range(1, 6):
            size = self.font_size
            if n_groups > _UPRIGHT:
                size = min(size, 72 * height / n_groups / (LINE * n_lines))
            size = max(size, _SMALLEST)
            columns = int(np.clip(0.5 * width / (LETTER * size / 72), *_COLUMNS))
            if max(t.count("\n") for t in self._tick_labels(" ", columns)) < n_lines:
                break
        return size, columns

    def _tick_labels(self, between: str, columns: int) -> list[str]:
        labels = []
        for i, name in enumerate(self.names):
            if self.count is not None:
                name += f"{between}(n={self.count[i]:.0f})"
            lines = name.split("\n")
            labels.append("\n".join(plot_text(line, columns) for line in lines))
        if self.n_more:
            labels.append(f"and {self.n_more} more")
        return labels

    def _fits_upright(self) -> bool:
        """Tell whether all labels fit below upright bars, each in one line."""
        labels = self._tick_labels("\n", 10**6)
        longest = max(columns_of(line) for label in labels for line in label.split("\n"))
        letter = 0.08 * self.font_size / 10  # inches, on average
        return letter * (longest + 1) <= self._inches(self.ax)[0] / len(labels)

    def _there(self, model: str) -> np.ndarray:
        return ~np.isnan(self.values[model]) & self.estimable[model]

    def _draw_bars(
        self, model: str, look: tuple, place: np.ndarray, thickness: float, bar_kw: dict
    ) -> None:
        color, hatch, _, _ = look
        bar, size = (self.ax.barh, "height") if self.horizontal else (self.ax.bar, "width")
        style = {"color": color, "edgecolor": "white", "linewidth": 0.8, "hatch": hatch}
        style |= {size: thickness, "label": as_label(model), "zorder": 2}
        lengths = np.where(self._there(model), self.values[model], 0)
        self.bars[model] = bar(place, lengths, **(style | bar_kw))

    def _draw_dots(self, model: str, look: tuple, place: np.ndarray, dot_kw: dict) -> None:
        color, _, _, marker = look
        style = {"marker": marker, "s": 26, "zorder": 4, "linewidths": 1, "facecolors": color}
        style |= {"edgecolors": color, "label": as_label(model)}
        if {"c", "color"} & set(dot_kw):
            del style["facecolors"], style["edgecolors"]
        values = np.where(self._there(model), self.values[model], np.nan)
        self.dots[model] = self.ax.scatter(values, place, plotnonfinite=False, **(style | dot_kw))

    def _draw_intervals(self, model: str, look: tuple, place: np.ndarray, thickness: float) -> None:
        from matplotlib import patheffects

        there = self._there(model)
        low, high = (np.where(there, ends[model], np.nan) for ends in (self.low, self.high))
        # The bar of an interval is around its middle, which may differ from the value.
        at = (place, (low + high) / 2)
        self.intervals[model] = self.ax.errorbar(
            *(at[::-1] if self.horizontal else at),
            **{"xerr" if self.horizontal else "yerr": (high - low) / 2},
            fmt="none",
            ecolor=look[0] if self.dotted else "black",
            elinewidth=1.2 if self.dotted else 1,
            capsize=0 if self.dotted else min(3, 20 * thickness / len(self.order) ** 0.5),
            zorder=3,
        )
        if not self.dotted:
            _, caps, lines = self.intervals[model].lines
            for artist in (*caps, *lines):  # black on a dark bar is invisible
                artist.set_path_effects([patheffects.withStroke(linewidth=1.9, foreground="w")])

    def _draw_overall(self, model: str, look: tuple) -> None:
        color, _, line, _ = look
        display = self.display
        if not display.overall or not np.isfinite(display.overall[model]):
            return
        draw = self.ax.axvline if self.horizontal else self.ax.axhline
        self.overall[model] = draw(
            display.overall[model], color=color, linestyle=line, linewidth=1.2, zorder=1
        )
        if display.overall_low and len(self.models) <= _MOST_BANDS:
            ends = display.overall_low[model], display.overall_high[model]
            if np.isfinite(ends).all():
                span = self.ax.axvspan if self.horizontal else self.ax.axhspan
                self.bands[model] = span(*ends, color=color, alpha=0.15, lw=0, zorder=0.9)

    def _write_undefined(self, model: str, place: np.ndarray) -> None:
        """Write why there is no value in place of each value, or once if no model has one."""
        nowhere = ~np.any([self._there(name) for name in self.models], axis=0)
        base = self.ax.get_yaxis_transform() if self.horizontal else self.ax.get_xaxis_transform()
        for i in np.flatnonzero(~self._there(model)):
            if nowhere[i] and model != self.models[0]:
                continue
            at = i if nowhere[i] else place[i]
            undefined = np.isnan(self.values[model][i])
            self.undefined.append(
                self.ax.annotate(
                    "undefined" if undefined else "not estimable",
                    (0, at) if self.horizontal else (at, 0),
                    # Dots have no base line, so the words are at the edge of the axes.
                    xycoords=base if self.dotted else "data",
                    xytext=(3, 0) if self.horizontal else (0, 3),
                    textcoords="offset points",
                    rotation=0 if self.horizontal else 90,
                    ha="left" if self.horizontal else "center",
                    va="center_baseline" if self.horizontal else "bottom",
                    fontsize="xx-small" if self.horizontal and not nowhere[i] else "x-small",
                    zorder=3,
                )
            )

    def _limits(self) -> tuple[float, float]:
        """Bars begin at 0, and an axis of shares near 1 ends at 1; dots need no 0."""
        numbers = [
            np.where(self._there(model), part[model], np.nan)
            for part in (self.values, self.low, self.high)
            for model in part
        ]
        numbers += [np.array(line.get_xdata()) for line in self.overall.values() if self.dotted]
        flat = np.concatenate(numbers)
        flat = flat[np.isfinite(flat)]
        if self.dotted and flat.size and flat.min() < flat.max():
            margin = 0.04 * (flat.max() - flat.min())
            return flat.min() - margin, flat.max() + margin
        flat = np.append(flat, 0)
        least, most = flat.min(), flat.max()
        limits = (1.05 * least if least < 0 else 0, 1.05 * most if most > 0 else 0.0)
        if least >= 0 and 0.8 < most <= 1:
            limits = 0, 1.02
        return (0, 1) if limits[0] == limits[1] else limits

    def _scale(self) -> None:
        limits = self._limits()
        n_groups = len(self.order) + bool(self.n_more)
        if self.horizontal:
            self.ax.set(ylim=(n_groups - 0.5, -0.5), xlim=limits)
        else:
            self.ax.set(xlim=(-0.5, n_groups - 0.5), ylim=limits)
        if self.dotted:  # a line that leads from the name to the dot
            self.ax.set_axisbelow(True)
            self.ax.grid(axis="y", linewidth=0.5, alpha=0.5)

    def _label(self) -> None:
        display = self.display
        name = "" if display.group_name is None else as_label(display.group_name)
        name = plot_text(name, 10**6)
        n_groups = len(self.order) + bool(self.n_more)
        if self.horizontal:
            labels = self._tick_labels(" ", self.columns)
            self.ax.set_yticks(range(n_groups), labels, fontsize=self.font_size)
            self.ax.set(xlabel=display.metric_name, ylabel=name)
        else:
            self.ax.set_xticks(range(n_groups), self._tick_labels("\n", 10**6))
            self.ax.set(xlabel=name, ylabel=display.metric_name)

    def _legend(self) -> None:
        from matplotlib.lines import Line2D

        handles = {model: bars.patches[0] for model, bars in self.bars.items()}
        handles |= {
            model: Line2D(
                [],
                [],
                linestyle="none",
                marker=_LOOKS[m % len(_LOOKS)][3],
                color=dots.get_edgecolor()[0],
            )
            for m, (model, dots) in enumerate(self.dots.items())
        }
        if list(handles) == [_UNNAMED]:
            handles = {}
        if self.intervals:
            handles["95 % interval"] = next(iter(self.intervals.values()))
        if self.overall:  # in the plot, each line has the colour of its model
            line = Line2D([], [], color="0.5", linestyle="--", linewidth=1.2)
            band = next(iter(self.bands.values()), None)
            handles["overall" if band is None else "overall, 95 % interval"] = (
                line if band is None else (band, line)
            )
        legend_above(self.ax, handles)
