"""How a trade-off display is drawn: candidates, intervals, Pareto front, marks and names."""

from typing import Any, Self

import numpy as np

from skfair.metrics._front import non_dominated
from skfair.metrics._plotting import label_points, legend_above, missing_glyphs_told
from skfair.utils import import_optional
from skfair.utils._shown import tell_apart

# Each colour has a contrast of at least 3:1 against white, and its own marker.
_CANDIDATE, _WITHIN = "#0072B2", "#009E73"
_CHOSEN = ("*", "#000000")
_MARKS = [("s", "#D55E00"), ("^", "#AA4499"), ("D", "#117733"), ("v", "#882255"), _CHOSEN]
_MANY = ("o", "#D55E00")  # for more marks than there are markers; names are then beside the points


class TradeoffDrawing:
    """The part of a trade-off display that draws its numbers."""

    performance: np.ndarray
    disparity: np.ndarray
    max_disparity: float | None
    marked: dict[str, int]
    performance_name: str
    disparity_name: str
    performance_error: np.ndarray | None
    disparity_error: np.ndarray | None
    performance_interval: np.ndarray | None
    disparity_interval: np.ndarray | None

    def plot(
        self,
        ax: Any = None,
        *,
        annotate: bool = False,
        scatter_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw into; new ones if not given.
        annotate : bool, default=False
            Whether to write beside each point its name, or its position if it is not marked: the
            row of ``trials_`` or of ``cv_results_``. Names of more than five marks are always
            beside their points.
        scatter_kw : dict, optional
            Passed to ``Axes.scatter`` for the candidates.

        Returns
        -------
        display : TradeoffDisplay
            The display itself.

        Raises
        ------
        ImportError
            matplotlib is not installed.

        Warns
        -----
        MissingGlyphWarning
            The font has no glyph for some characters of the labels.
        """
        pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose="TradeoffDisplay")
        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        with missing_glyphs_told(ax):
            self._draw(ax, annotate, scatter_kw or {})
        return self

    def _draw(self, ax: Any, annotate: bool, scatter_kw: dict[str, Any]) -> None:
        self.band_ = None
        if self.max_disparity is not None:
            label = f"within {self.max_disparity:g}"
            self.band_ = ax.axvspan(
                0, self.max_disparity, color=_WITHIN, alpha=0.15, lw=0, label=label
            )
        shown = self._shown()
        x, y = self.disparity[shown], self.performance[shown]
        style = {"s": 24, "color": _CANDIDATE, "alpha": 0.8, "linewidths": 0, "zorder": 2}
        if set(np.flatnonzero(shown)) - set(self.marked.values()):  # some candidates have no mark
            style["label"] = self._candidates_label(shown)
        self.candidates_ = ax.scatter(x, y, **(style | scatter_kw))
        self.errors_ = self._draw_errors(ax, shown)
        self.front_ = self._draw_front(ax)
        self._draw_marks(ax)
        ax.margins(0.08)
        self.better_ = ax.annotate(
            "better",
            xy=(0.01, 0.99),
            xytext=(0.07, 0.93),
            xycoords="axes fraction",
            va="top",
            color="0.5",
            fontsize="small",
            arrowprops={"arrowstyle": "->", "color": "0.5"},
            zorder=1,
        )
        right = max(ax.get_xlim()[1], 1.06 * x.max())  # so that points at the edge are whole
        if self.max_disparity is not None:
            right = max(right, 1.2 * self.max_disparity)  # so that the end of the band is visible
        ax.set_xlim(0, right)
        ax.set_xlabel(self.disparity_name)
        ax.set_ylabel(self.performance_name)
        handles, labels = ax.get_legend_handles_labels()
        marks = list(self.marked_.values())
        entries = {label: of for label, of in zip(labels, handles, strict=True) if of not in marks}
        names = tell_apart(self.marked)
        beside = annotate or len(self.marked) > len(_MARKS)
        if not beside:  # matplotlib leaves out names that begin with an underscore
            entries |= {names[name]: mark for name, mark in self.marked_.items()}
        legend_above(ax, entries)
        self.labels_ = []
        if beside:
            ax.margins(y=0.12)  # room for names at the edges
            points = [(names[name], i) for name, i in self.marked.items()]
            if annotate:
                others = set(np.flatnonzero(shown)) - set(self.marked.values())
                points += [(str(i), int(i)) for i in sorted(others)]
            where = [i for _, i in points]
            corners = () if self.front_ is None else self.front_.get_xydata()
            self.labels_ = label_points(
                ax,
                self.disparity[where],
                self.performance[where],
                [name for name, _ in points],
                corners,
            )

    def _shown(self) -> np.ndarray:
        return np.isfinite(self.performance) & np.isfinite(self.disparity)

    def _candidates_label(self, shown: np.ndarray) -> str:
        n = len(shown)
        label = f"{n} candidates" if shown.all() else f"{shown.sum()} of {n} candidates"
        errors = (self.performance_error, self.disparity_error)
        return label + (" ± standard error" if any(e is not None for e in errors) else "")

    def _draw_errors(self, ax: Any, shown: np.ndarray) -> Any:
        lengths: list[Any] = []
        for key in ("disparity", "performance"):
            value = getattr(self, key)[shown]
            error, interval = getattr(self, f"{key}_error"), getattr(self, f"{key}_interval")
            if interval is not None:
                low, high = interval[:, shown]
                lengths.append(np.abs([value - low, high - value]))
            else:
                lengths.append(None if error is None else error[shown])
        if all(length is None for length in lengths):
            return None
        intervals = self.performance_interval is not None or self.disparity_interval is not None
        return ax.errorbar(
            self.disparity[shown],
            self.performance[shown],
            lengths[1],
            lengths[0],
            fmt="none",
            ecolor=_CANDIDATE,
            elinewidth=0.8,
            alpha=0.6,
            zorder=1.8,
            label="95 % interval" if intervals else None,
        )

    def _draw_front(self, ax: Any) -> Any:
        front = non_dominated(self.performance, self.disparity)
        corners = np.unique(np.column_stack([self.disparity, self.performance])[front], axis=0)
        if self._shown().sum() < 3 or len(corners) < 2:
            return None
        # The best performance at a disparity or less is a step function of the disparity.
        steps = np.repeat(corners, 2, axis=0)
        (line,) = ax.plot(
            steps[1:, 0],
            steps[:-1, 1],
            color=_CANDIDATE,
            linewidth=1,
            zorder=1.9,
            label="Pareto front",
        )
        return line

    def _draw_marks(self, ax: Any) -> None:
        self.marked_ = {}
        looks = iter(_MARKS)
        ink = ax.spines["left"].get_edgecolor()  # black, or white in a dark style
        for name, i in self.marked.items():
            if len(self.marked) > len(_MARKS):
                marker, color = _MANY
            elif name.startswith("chosen"):
                marker, color = _CHOSEN
            else:
                marker, color = next(looks)
            if (marker, color) == _CHOSEN:
                color = ink
            (self.marked_[name],) = ax.plot(
                self.disparity[i],
                self.performance[i],
                marker,
                markersize=14 if marker == "*" else 7 if (marker, color) == _MANY else 9,
                color=color,
                markeredgecolor=ink,
                zorder=3,
            )
