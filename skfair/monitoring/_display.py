"""Plot of a metric of each group over windows, with intervals and alarms."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skfair.monitoring._monitor import FairnessMonitor
from skfair.monitoring._watch import share_metric
from skfair.utils import import_optional
from skfair.utils._shown import as_label, shown, shown_all, tell_apart

_LINE, _ALARM, _OTHERS, _LIMIT = "#0072B2", "#D55E00", "0.8", "0.25"
_COLUMNS = 4
_NAME = 28  # characters of a group's name in one line of a panel's title
_TICKS = 4  # names of windows below a panel


class FairnessMonitorDisplay:
    """A metric of each group over windows, one panel for each group.

    Make it with :meth:`from_monitor`, or from any numbers. Vertical bars are 95 % intervals. The
    other groups are grey in the background. A window without samples of a group is a gap. A
    triangle marks the window in which an alarm was raised, and a shaded part begins where the
    violation probably began. A dashed line shows the limit of a rule about single groups.

    Parameters
    ----------
    values : array-like of shape (n_groups, n_windows)
        The metric; NaN where it is undefined.
    low, high : array-like of shape (n_groups, n_windows)
        Ends of the intervals; NaN for none.
    groups : sequence of length n_groups
        Label of each group.
    windows : sequence of length n_windows
        Name of each window.
    limit : float, default=None
        Limit of every group.
    alarms : sequence of tuple of int, default=()
        For each alarm: positions of the group, of the window in which the violation began, and of
        the window of the alarm.
    max_groups : int, default=12
        Largest number of panels. Groups with alarms come first, then groups whose mean is farthest
        from the mean of all groups.
    metric_name : str, default="metric"
        Label of the axis of values.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    axes_ : ndarray of matplotlib Axes
        One panel for each group that is shown.
    shown_ : list
        Label of the group of each panel.

    Raises
    ------
    ValueError
        The arguments have different lengths.

    Examples
    --------
    >>> values = [[0.9, 0.8, 0.7], [0.9, float("nan"), 0.9]]
    >>> display = FairnessMonitorDisplay(
    ...     values, values, values, ["f", "m"], ["Jan", "Feb", "Mar"], limit=0.75
    ... ).plot(["f", "m"])
    >>> [ax.get_title(loc="left") for ax in display.axes_]
    ['f', 'm']
    """

    def __init__(
        self,
        values: ArrayLike,
        low: ArrayLike,
        high: ArrayLike,
        groups: Sequence,
        windows: Sequence,
        *,
        limit: float | None = None,
        alarms: Sequence[tuple[int, int, int]] = (),
        max_groups: int = 12,
        metric_name: str = "metric",
    ):
        self.values, self.low, self.high = (
            np.asarray(numbers, dtype=np.float64) for numbers in (values, low, high)
        )
        self.groups, self.windows = list(groups), list(windows)
        shape = (len(self.groups), len(self.windows))
        for name, numbers in (("values", self.values), ("low", self.low), ("high", self.high)):
            if numbers.shape != shape or 0 in shape:
                raise ValueError(
                    f"{name} has shape {numbers.shape}, expected one row for each of "
                    f"{shape[0]} groups and one column for each of {shape[1]} windows, at least "
                    "one of both."
                )
        if isinstance(max_groups, bool) or not isinstance(max_groups, int) or max_groups < 1:
            raise ValueError(f"max_groups={shown(max_groups)}, expected an integer of 1 or more.")
        self.limit, self.alarms, self.max_groups = limit, list(alarms), max_groups
        self.metric_name = metric_name

    @classmethod
    def from_monitor(
        cls,
        monitor: FairnessMonitor,
        *,
        metric: str | None = None,
        model: str | None = None,
        groups: Sequence | None = None,
        max_groups: int = 12,
    ) -> "FairnessMonitorDisplay":
        """Draw a metric of each group over the windows of a monitor.

        Parameters
        ----------
        monitor : FairnessMonitor
            A monitor with counts.
        metric : str, default=None
            A metric that a rule can name, such as ``"accuracy"``; None means the metric of the
            first rule. The limit and the alarms are those of the rules of this metric.
        model : str, default=None
            Name of the model; None for the first.
        groups : sequence, default=None
            Labels of the groups to show, in this order; None means all, up to `max_groups`.
        max_groups : int, default=12
            Largest number of panels.

        Returns
        -------
        display : FairnessMonitorDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        TypeError
            `monitor` is not a FairnessMonitor.
        ValueError
            The metric, the model or a group is not known, or there are no counts.

        Examples
        --------
        >>> monitor = FairnessMonitor("min(accuracy) >= 0.7")
        >>> for week in range(3):
        ...     alarms = monitor.update([1, 0], [1, 1], sensitive_features=["f", "m"], window=week)
        >>> FairnessMonitorDisplay.from_monitor(monitor).shown_
        ['f', 'm']
        """
        if not isinstance(monitor, FairnessMonitor):
            raise TypeError(
                f"monitor is a {type(monitor).__name__}, expected a FairnessMonitor with counts."
            )
        metric = monitor.rules[0].metric if metric is None else metric
        table = monitor.by_window(metric, model=model)
        counts = monitor.counts()
        model = counts.models[0] if model is None else model
        known = list(counts.groups)
        windows = list(monitor.windows)
        numbers = np.full((3, len(known), len(windows)), np.nan)
        row = {group: i for i, group in enumerate(known)}
        column = {window: i for i, window in enumerate(windows)}
        for (window, group), *three in table[["value", "low", "high"]].itertuples():
            if group in row:
                numbers[:, row[group], column[window]] = three
        found = share_metric(metric)
        rules = [rule for rule in monitor.rules if share_metric(rule.metric) == found]
        limits = [rule.value for rule in rules if rule.statistic in ("min", "max")]
        alarms = [
            (row[group], column[alarm.since], column[alarm.window])
            for alarm in monitor.alarms_
            for group in alarm.groups
            if alarm.rule in rules and alarm.model == model and group in row
        ]
        display = cls(
            numbers[0],
            numbers[1],
            numbers[2],
            known,
            windows,
            limit=limits[0] if limits else None,
            alarms=alarms,
            max_groups=max_groups,
            metric_name=found.name,
        )
        return display.plot(groups)

    def plot(self, groups: Sequence | None = None) -> "FairnessMonitorDisplay":
        """Draw the picture into a new figure.

        Parameters
        ----------
        groups : sequence, default=None
            Labels of the groups to show, in this order; None means all, the worst first, up to
            `max_groups`.

        Returns
        -------
        display : FairnessMonitorDisplay
            The display itself.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            A group is not known, or `groups` is empty.
        """
        purpose = "FairnessMonitorDisplay"
        pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose=purpose)
        lines = import_optional("matplotlib.lines", extra="plot", purpose=purpose)
        patches = import_optional("matplotlib.patches", extra="plot", purpose=purpose)
        chosen = self._worst_first()[: self.max_groups] if groups is None else self._find(groups)
        n_columns = min(_COLUMNS, len(chosen))
        if len(chosen) > 1:
            n_columns = min(n_columns, math.ceil(len(chosen) / math.ceil(len(chosen) / _COLUMNS)))
        n_rows = math.ceil(len(chosen) / n_columns)
        figure, axes = pyplot.subplots(
            n_rows,
            n_columns,
            figsize=(max(5.0, 3.2 * n_columns), 1.0 + 2.0 * n_rows),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        self.figure_, self.axes_ = figure, axes.ravel()[: len(chosen)]
        for ax in axes.ravel()[len(chosen) :]:
            ax.set_axis_off()
        self.shown_ = [self.groups[i] for i in chosen]
        names = tell_apart(self.groups, write=_group)
        x = np.arange(len(self.windows))
        bars = self.low[chosen], self.high[chosen]
        for ax, i in zip(self.axes_, chosen, strict=True):
            others = np.delete(self.values, i, axis=0)
            ax.plot(x, others.T, color=_OTHERS, linewidth=0.6, zorder=1)
            marks = {(since, window) for group, since, window in self.alarms if group == i}
            for since, window in marks:
                ax.axvspan(since - 0.5, max(since, window) + 0.5, color=_ALARM, alpha=0.15, lw=0)
                ax.plot(
                    window, 1.0, marker="v", color=_ALARM, markersize=8, clip_on=False, zorder=4,
                    transform=ax.get_xaxis_transform(),
                )  # fmt: skip
            color = _ALARM if marks else _LINE
            ax.vlines(x, self.low[i], self.high[i], color=color, alpha=0.35, linewidth=1.5)
            ax.plot(x, self.values[i], ".-", color=color, markersize=4, linewidth=1.2, zorder=3)
            if self.limit is not None:
                ax.axhline(self.limit, color=_LIMIT, linestyle=(0, (4, 2)), linewidth=1, zorder=2)
            ax.set_title(names[self.groups[i]], fontsize="medium", loc="left")
            ax.spines[["top", "right"]].set_visible(False)
        every = [numbers[np.isfinite(numbers)] for numbers in (*bars, self.values)]
        ends = np.concatenate([*every, [] if self.limit is None else [self.limit]])
        if len(ends):
            room = 0.08 * max(ends.max() - ends.min(), 0.02)
            axes[0, 0].set_ylim(ends.min() - room, ends.max() + room)
        ticks = np.unique(np.linspace(0, len(x) - 1, min(_TICKS, len(x))).round().astype(int))
        axes[0, 0].set_xticks(ticks, [_short(self.windows[i]) for i in ticks])
        axes[0, 0].set_xlim(-0.7, len(x) - 0.3)
        for n, ax in enumerate(self.axes_):
            if n + n_columns >= len(chosen):  # nothing is below
                ax.tick_params(labelbottom=True)
                for label in ax.get_xticklabels():
                    label.set(rotation=30, ha="right", fontsize="small")
        figure.supylabel(self.metric_name, fontsize="medium")
        handles = [
            lines.Line2D([], [], color=_LINE, marker=".", label="group, 95 % intervals"),
            lines.Line2D([], [], color=_OTHERS, label="other groups"),
        ]
        if self.limit is not None:
            style = {"color": _LIMIT, "linestyle": (0, (4, 2))}
            handles.append(lines.Line2D([], [], label=f"limit {self.limit:g}", **style))
        if self.alarms:
            style = {"color": _ALARM, "linestyle": "none", "marker": "v"}
            handles.append(lines.Line2D([], [], label="alarm", **style))
            handles.append(patches.Patch(color=_ALARM, alpha=0.15, label="since (estimated)"))
        title = None
        if len(chosen) < len(self.groups):
            order = ", worst first" if groups is None else ""
            title = f"{len(chosen)} of {len(self.groups)} groups{order}"
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=len(handles) if n_columns > 2 else n_columns + 1,
            frameon=False,
            fontsize="small",
            title=title,
            alignment="left",
        )
        return self

    def _find(self, groups: Sequence) -> list[int]:
        groups = list(groups)
        unknown = [group for group in groups if group not in self.groups]
        if unknown or not groups:
            raise ValueError(
                f"groups has {shown(unknown[0]) if unknown else 'no labels'}, expected some of "
                f"[{shown_all(self.groups)}]."
            )
        return [self.groups.index(group) for group in dict.fromkeys(groups)]

    def _worst_first(self) -> list[int]:
        alarmed = [group for group, _, _ in self.alarms]
        present = np.isfinite(self.values)
        filled = np.where(present, self.values, 0)
        mean = filled.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
        center = filled.sum() / max(present.sum(), 1)
        distance = np.where(present.any(axis=1), np.abs(mean - center), -1)
        return sorted(
            range(len(self.groups)),
            key=lambda i: (alarmed.index(i) if i in alarmed else len(alarmed), -distance[i], i),
        )


def _group(label: Any) -> str:
    """Write the name of a group, in lines that fit a panel; several features are joined."""
    parts = label if isinstance(label, tuple) else (label,)
    text = ", ".join(as_label(part) for part in parts)
    lines = [text[i : i + _NAME] for i in range(0, min(len(text), 3 * _NAME), _NAME)]
    return "\n".join(lines) + ("..." if len(text) > 3 * _NAME else "")


def _short(window: Any) -> str:
    text = as_label(window)
    return text if len(text) <= 16 else f"{text[:15]}…"
