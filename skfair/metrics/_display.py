"""Fairness of predictions: performance against disparity, as a picture."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skfair.utils import import_optional

# Of Okabe and Ito's colours, which the colour-blind can tell apart; each with a marker of its own.
_CANDIDATE, _WITHIN = "#0072B2", "#009E73"
_MARKS = [("s", "#D55E00"), ("^", "#F0E442"), ("*", "#000000"), ("D", "#CC79A7"), ("v", "#E69F00")]


class TradeoffDisplay:
    """Performance of candidate models against their disparity between groups.

    Made by :meth:`from_estimator`, or from any numbers. Candidates to the left of
    `max_disparity` meet the constraint, and among them the higher the better.

    Parameters
    ----------
    performance : array-like of shape (n_candidates,)
        How well each candidate predicts, the larger the better.
    disparity : array-like of shape (n_candidates,)
        How unequal it treats the groups; its absolute value is shown.
    max_disparity : float, optional
        The constraint: the disparity lies below it. Shown as a shaded band.
    marked : mapping of str to int, optional
        Candidates to point out: what to call each, and its position. Up to five look
        different from each other.
    performance_name : str, default="performance"
        Label of the vertical axis.
    disparity_name : str, default="disparity"
        Label of the horizontal axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure with these axes.
    candidates_ : matplotlib PathCollection
        Points of the candidates.
    marked_ : dict of str to matplotlib Line2D
        Points that were pointed out.
    band_ : matplotlib Patch or None
        Where the constraint holds.

    Raises
    ------
    ValueError
        The numbers do not fit together.

    Examples
    --------
    >>> display = TradeoffDisplay(
    ...     performance=[0.82, 0.75, 0.78],
    ...     disparity=[0.31, 0.02, 0.04],
    ...     max_disparity=0.05,
    ...     marked={"original": 0, "chosen": 2},
    ... )
    >>> display.plot().ax_.get_xlabel()
    'disparity'
    """

    def __init__(
        self,
        performance: ArrayLike,
        disparity: ArrayLike,
        *,
        max_disparity: float | None = None,
        marked: Mapping[str, int] | None = None,
        performance_name: str = "performance",
        disparity_name: str = "disparity",
    ):
        self.performance = np.asarray(performance, dtype=np.float64)
        self.disparity = np.abs(np.asarray(disparity, dtype=np.float64))
        self.max_disparity = max_disparity
        self.marked = dict(marked or {})
        self.performance_name = performance_name
        self.disparity_name = disparity_name
        if self.performance.ndim != 1 or self.performance.shape != self.disparity.shape:
            raise ValueError(
                f"performance has shape {self.performance.shape} and disparity has shape "
                f"{self.disparity.shape}, where one number a candidate was wanted in both. Give "
                "two arrays of shape (n_candidates,)."
            )
        n = len(self.performance)
        outside = {name: i for name, i in self.marked.items() if not 0 <= i < n}
        if outside:
            raise ValueError(
                f"marked has positions that no candidate has: {outside}. There are {n} "
                "candidates, with positions from 0."
            )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Any = None,
        scatter_kw: dict[str, Any] | None = None,
    ) -> "TradeoffDisplay":
        """Show what a debiaser tried, and what it took.

        Numbers are those on the debiasing rows that the choice was made on.

        Parameters
        ----------
        estimator : fitted debiaser
            One of :mod:`skfair.intraprocessing`.
        ax : matplotlib Axes, optional
            Axes to draw into; new ones if not given.
        scatter_kw : dict, optional
            Passed to ``Axes.scatter`` for the candidates.

        Returns
        -------
        display : TradeoffDisplay

        Raises
        ------
        TypeError
            `estimator` is not a fitted debiaser.
        """
        wanted = ("trials_", "best_trial_", "epsilon", "constraint", "performance")
        missing = [name for name in wanted if not hasattr(estimator, name)]
        if missing:
            raise TypeError(
                f"estimator is {type(estimator).__name__} without {missing}, where a fitted "
                "debiaser was wanted. Fit it first; of other models, give the numbers: "
                "TradeoffDisplay(performance, disparity).plot()."
            )
        trials = estimator.trials_
        kinds = list(trials["candidate"])
        marked = {"original network": kinds.index("original")}
        if kinds[estimator.best_trial_] == "threshold":
            marked["chosen: threshold only"] = estimator.best_trial_
        else:
            marked["threshold only"] = kinds.index("threshold")
            marked["chosen"] = estimator.best_trial_
        display = cls(
            trials["performance"],
            trials["bias"],
            max_disparity=estimator.epsilon,
            marked=marked,
            performance_name=_words(estimator.performance),
            disparity_name=f"|bias|, {_words(estimator.constraint)}",
        )
        return display.plot(ax, scatter_kw=scatter_kw)

    def plot(
        self, ax: Any = None, *, scatter_kw: dict[str, Any] | None = None
    ) -> "TradeoffDisplay":
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw into; new ones if not given.
        scatter_kw : dict, optional
            Passed to ``Axes.scatter`` for the candidates.

        Returns
        -------
        display : TradeoffDisplay
            Itself.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose="TradeoffDisplay")
        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        self.band_ = None
        if self.max_disparity is not None:
            label = f"within {self.max_disparity:g}"
            self.band_ = ax.axvspan(
                0, self.max_disparity, color=_WITHIN, alpha=0.15, lw=0, label=label
            )
        style = {"s": 24, "color": _CANDIDATE, "alpha": 0.5, "linewidths": 0, "zorder": 2}
        self.candidates_ = ax.scatter(
            self.disparity,
            self.performance,
            **(style | {"label": f"{len(self.performance)} candidates"} | (scatter_kw or {})),
        )
        self.marked_ = {}
        for number, (name, i) in enumerate(self.marked.items()):
            marker, color = _MARKS[number % len(_MARKS)]
            (self.marked_[name],) = ax.plot(
                self.disparity[i],
                self.performance[i],
                marker,
                markersize=14 if marker == "*" else 9,
                color=color,
                markeredgecolor="black",
                label=name,
                zorder=3,
            )
        right = ax.get_xlim()[1]
        if self.max_disparity is not None:
            right = max(right, 1.2 * self.max_disparity)  # the end of the band is in sight
        ax.set_xlim(0, right)
        ax.set_xlabel(self.disparity_name)
        ax.set_ylabel(self.performance_name)
        # Above the axes, where it hides no point.
        wide = ax.get_window_extent().width / ax.figure.dpi > 4.5
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3 if wide else 2,
            fontsize="medium" if wide else "small",
            columnspacing=1,
            handlelength=1.2,
            handletextpad=0.5,
            frameon=False,
            borderaxespad=0.2,
        )
        return self


def _words(measure: Any) -> str:
    name = measure if isinstance(measure, str) else getattr(measure, "__name__", repr(measure))
    return name.replace("_", " ")
