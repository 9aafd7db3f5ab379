"""Plot of accuracy against confidence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from skfair.metrics._calibration import ConfidenceBins, bin_by_group, bin_confidence
from skfair.metrics._html import group_label
from skfair.metrics._intervals import exact_interval
from skfair.metrics._plotting import legend_above, missing_glyphs_told, plot_text
from skfair.utils import import_optional
from skfair.utils._rows import check_rows
from skfair.utils._shown import as_label, shown, tell_apart

# Okabe and Ito's colours, which colour-blind people can distinguish; each has its own marker.
_LOOKS = [("o", "#0072B2"), ("s", "#D55E00"), ("^", "#009E73"), ("D", "#CC79A7"), ("v", "#000000")]
_OF_GROUPS = [*_LOOKS, ("P", "#882255")]
_SHARES = "share of samples"
_STRIP = 0.2  # share of the height of the axes for the strip of shares, below the accuracies
_ROW = 0.05  # the same, for a row of numbers


class ReliabilityDisplay:
    """Reliability diagram: accuracy against confidence, and the distribution of confidence.

    Make it with :meth:`from_predictions` or :meth:`from_estimator`. Each point is a bin of samples
    with similar confidence, the probability of the predicted class. Below the diagonal the model is
    overconfident, above it the model is underconfident. A line to the diagonal shows the gap. The
    strip at the bottom shows the share of samples in each bin. The expected calibration error, in
    the legend, is the mean of the gaps weighted by these shares. Ignore points with very small
    shares.

    Several models can be drawn into the same axes; the first five look different from each other.

    With groups, each group has its points, with 95 % intervals of the accuracy, and the strip at
    the bottom shows the number of samples of each group in each bin. The picture has the six
    largest groups; with weights, the first six. The intervals are Clopper and Pearson's: each
    contains the accuracy of its bin with a probability of at least 95 %, also for few samples. They
    hold for each bin by itself, not for all bins together. With weights there are no intervals. The
    expected calibration error of a small group is large by chance alone: compare the intervals with
    the diagonal instead.

    Parameters
    ----------
    accuracy : array-like of shape (n_bins,)
        Accuracy in each of the bins of equal width from 0 to 1; NaN where there is no sample.
    confidence : array-like of shape (n_bins,)
        Mean confidence in each bin; NaN where there is no sample.
    share : array-like of shape (n_bins,)
        Share of the samples, or of their weight, in each bin.
    count : array-like of shape (n_bins,), default=None
        Number of samples in each bin; None if samples have weights.
    by_group : dict of label to ReliabilityDisplay, default=None
        The same for each group, with as many bins; drawn instead of the model as a whole.
    name : str, default=None
        Name of the model in the legend.

    Attributes
    ----------
    expected_calibration_error : float
        As computed by :func:`expected_calibration_error`.
    low, high : ndarray of shape (n_bins,) or None
        Ends of the 95 % interval of the accuracy in each bin; NaN for an empty bin. None without
        `count`.
    intervals_ : matplotlib ErrorbarContainer or None
        These intervals in the picture; only in the displays of `by_group`.
    counts_ : list of matplotlib Text
        Numbers of samples in the strip; only in the displays of `by_group`, where they replace
        `gaps_` and `bars_`.
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure with these axes.
    line_ : matplotlib Line2D
        Points of the model.
    gaps_ : matplotlib LineCollection
        Lines from the points to the diagonal.
    share_ax_ : matplotlib Axes
        The strip at the bottom of `ax_`.
    bars_ : matplotlib StepPatch
        The model's shares in it.

    Raises
    ------
    ValueError
        The arguments contradict each other.

    See Also
    --------
    expected_calibration_error : The mean gap.
    sklearn.calibration.CalibrationDisplay : The frequency of one class against its probability.

    Examples
    --------
    >>> y_proba = [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]]
    >>> display = ReliabilityDisplay.from_predictions(
    ...     ["a", "a", "a", "b"], y_proba, n_bins=5, name="model"
    ... )
    >>> display.accuracy
    array([nan, nan, 1. , nan, 0.5])
    >>> display.share
    array([0. , 0. , 0.5, 0. , 0.5])
    >>> display.ax_.get_legend().get_texts()[0].get_text()
    'model (ECE 0.400)'
    """

    def __init__(
        self,
        accuracy: ArrayLike,
        confidence: ArrayLike,
        share: ArrayLike,
        *,
        count: ArrayLike | None = None,
        by_group: Mapping[Any, "ReliabilityDisplay"] | None = None,
        name: str | None = None,
    ):
        self.accuracy = np.asarray(accuracy, dtype=np.float64)
        self.confidence = np.asarray(confidence, dtype=np.float64)
        self.share = np.asarray(share, dtype=np.float64)
        self.count = None if count is None else np.asarray(count, dtype=np.float64)
        self.by_group = dict(by_group or {})
        self.name = name
        shapes = [self.accuracy.shape, self.confidence.shape, self.share.shape]
        if len(set(shapes)) > 1 or len(shapes[0]) != 1:
            raise ValueError(
                f"accuracy, confidence and share have shapes {shapes}, expected one number a bin "
                "in each. Give three arrays of shape (n_bins,)."
            )
        if not (np.all(self.share >= 0) and np.isclose(self.share.sum(), 1)):
            raise ValueError(
                f"share is {self.share.tolist()}, expected numbers that sum to one. Divide counts "
                "by their sum."
            )
        for group, part in self.by_group.items():
            if part.share.shape != shapes[0]:
                raise ValueError(
                    f"by_group[{shown(group)}] has {len(part.share)} bins, and the model has "
                    f"{len(self.share)}. Give as many bins for each group."
                )
        for key in ("accuracy", "confidence"):
            occupied = getattr(self, key)[self.share > 0]
            if not np.all((occupied >= 0) & (occupied <= 1)):
                raise ValueError(
                    f"{key} is {occupied.tolist()} in the bins that have samples, expected numbers "
                    "from 0 to 1. Give fractions, not percents."
                )
        self.expected_calibration_error = ConfidenceBins(
            self.accuracy, self.confidence, self.share
        ).error()
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None
        if self.count is not None:
            if self.count.shape != self.share.shape or np.any((self.count > 0) != (self.share > 0)):
                raise ValueError(
                    f"count is {self.count.tolist()} and share is {self.share.tolist()}, expected "
                    "samples in the same bins. Give the number of samples in each bin."
                )
            hits = np.where(self.count > 0, np.rint(self.accuracy * self.count), 0)
            self.low, self.high = exact_interval(hits, self.count)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_proba: Any,
        *,
        n_bins: int = 15,
        labels: Any = None,
        sample_weight: Any = None,
        sensitive_features: Any = None,
        name: str | None = None,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
    ) -> "ReliabilityDisplay":
        """Show the calibration of predicted probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels of any type.
        y_proba : array-like of shape (n_samples, n_classes) or (n_samples,)
            Probabilities: a column for each class, in the order of the sorted labels; or, for two
            classes, the probability of the second class.
        n_bins : int, default=15
            Number of bins from 0 to 1.
        labels : array-like of shape (n_classes,), default=None
            The classes of the columns, sorted. Required if a class does not occur in `y_true`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, not negative; None counts each sample once.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns), \
                default=None
            Group labels: array, Series, DataFrame or dict of columns (intersections). None draws
            the model as a whole.
        name : str, default=None
            Name of the model in the legend.
        ax : matplotlib Axes, default=None
            Axes to draw into, for instance of another display; new ones if not given.
        line_kw : dict, default=None
            Passed to ``Axes.plot`` for the points; gaps and bars have the same colour.

        Returns
        -------
        display : ReliabilityDisplay

        Raises
        ------
        TypeError, ValueError
            See :func:`expected_calibration_error`.
        ImportError
            matplotlib is not installed.
        """
        settings = {"n_bins": n_bins, "labels": labels, "sample_weight": sample_weight}
        bins = bin_confidence(y_true, y_proba, **settings)
        by_group = None
        if sensitive_features is not None:
            groups = bin_by_group(
                y_true, y_proba, sensitive_features=sensitive_features, **settings
            )
            by_group = {
                group: cls(*of[:3], count=of.n_samples, name=name) for group, of in groups.items()
            }
        display = cls(*bins[:3], count=bins.n_samples, by_group=by_group, name=name)
        return display.plot(ax, line_kw=line_kw)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        n_bins: int = 15,
        sample_weight: Any = None,
        sensitive_features: Any = None,
        name: str | None = None,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
    ) -> "ReliabilityDisplay":
        """Show the calibration of a classifier on held-out data.

        Parameters
        ----------
        estimator : fitted classifier
            With ``predict_proba`` and ``classes_``.
        X : array-like of shape (n_samples, ...)
            Samples, as the classifier takes them.
        y : array-like of shape (n_samples,)
            True labels of the samples.
        n_bins : int, default=15
            Number of bins from 0 to 1.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, not negative; None counts each sample once.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns), \
                default=None
            Group labels: array, Series, DataFrame or dict of columns (intersections). None draws
            the model as a whole.
        name : str, default=None
            Name of the model in the legend; the name of the class if not given.
        ax : matplotlib Axes, default=None
            Axes to draw into, for instance of another display; new ones if not given.
        line_kw : dict, default=None
            Passed to ``Axes.plot`` for the points; gaps and bars have the same colour.

        Returns
        -------
        display : ReliabilityDisplay

        Raises
        ------
        TypeError
            `estimator` has no ``predict_proba``.
        sklearn.exceptions.NotFittedError
            `estimator` is not fitted.
        ValueError
            See :func:`expected_calibration_error`.
        ImportError
            matplotlib is not installed.
        """
        kind = type(estimator).__name__
        if not hasattr(estimator, "predict_proba"):
            raise TypeError(
                f"estimator is {kind}, which has no predict_proba. Give a classifier with "
                "predict_proba, or wrap it in sklearn.calibration.CalibratedClassifierCV."
            )
        check_is_fitted(estimator)
        check_rows(X=X, y=y, sensitive_features=sensitive_features, sample_weight=sample_weight)
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            n_bins=n_bins,
            labels=estimator.classes_,
            sample_weight=sample_weight,
            sensitive_features=sensitive_features,
            name=kind if name is None else name,
            ax=ax,
            line_kw=line_kw,
        )

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        line_kw: dict[str, Any] | None = None,
    ) -> "ReliabilityDisplay":
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into, for instance of another display; new ones if not given.
        name : str, default=None
            Name of the model in the legend; the name of the display if not given.
        line_kw : dict, default=None
            Passed to ``Axes.plot`` for the points; gaps and bars have the same colour.

        Returns
        -------
        display : ReliabilityDisplay
            The display itself.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            The display has groups, and `ax` already has another reliability diagram.

        Warns
        -----
        MissingGlyphWarning
            The font has no glyph for some characters of the labels.
        """
        pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose="ReliabilityDisplay")
        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        strips = [child for child in ax.child_axes if child.get_label() == _SHARES]
        if self.by_group and strips:
            raise ValueError(
                "ax already has a reliability diagram, and groups need a diagram of their own. "
                "Give other axes, or None for new ones."
            )
        n_rows = min(len(self.by_group), len(_OF_GROUPS))
        height = _ROW * (n_rows + 1.5) if n_rows else _STRIP
        self.share_ax_ = strips[0] if strips else _prepare(ax, height)
        name = self.name if name is None else name
        with missing_glyphs_told(ax):
            if self.by_group:
                self._draw_groups(ax, name, line_kw or {})
            else:
                self._draw(ax, name, line_kw or {})
        return self

    def _draw_groups(self, ax: Any, name: str | None, line_kw: dict[str, Any]) -> None:
        """Draw the largest groups, the largest first."""
        names = tell_apart(self.by_group, write=group_label)

        def size(group: Any) -> float:
            count = self.by_group[group].count
            return 0.0 if count is None else count.sum()

        largest = sorted(self.by_group, key=size, reverse=True)[: len(_OF_GROUPS)]
        handles = {}
        for row, group in enumerate(largest):
            part = self.by_group[group]
            part.ax_, part.figure_, part.share_ax_ = ax, ax.figure, self.share_ax_
            part._draw_group(_OF_GROUPS[row], line_kw)
            n = "" if part.count is None else f"n={part.count.sum():.0f}, "
            error = f"ECE {part.expected_calibration_error:.3f}"
            handles[f"{names[group]} ({n}{error})"] = part.line_
        drawn = [self.by_group[group] for group in largest]
        if drawn[0].low is not None:
            handles["95 % interval"] = drawn[0].intervals_
        if len(self.by_group) > len(largest):
            more = ax.plot([], [], linestyle="none")[0]
            handles[f"and {len(self.by_group) - len(largest)} smaller groups"] = more
        if name is not None:
            ax.set_ylabel(f"accuracy of {plot_text(as_label(name))}")
        strip, n_bins = _ROW * (len(drawn) + 1.5), len(self.share)
        lowest = [ends for part in drawn for ends in (part.accuracy, part.low) if ends is not None]
        _show_down_to(min(np.nanmin(ends) for ends in lowest), ax, strip)
        first = min(np.flatnonzero(part.share > 0)[0] for part in drawn)
        ax.set_xlim(first / n_bins - 0.01, 1.01)  # bins are whole, and so are their numbers
        legend_above(ax, handles)
        self.share_ax_.set_ylim(len(drawn), -1.5)
        room = 72 * strip * ax.get_window_extent().height / ax.figure.dpi  # in points
        size = min(8, 0.8 * room / (len(drawn) + 1.5))
        for row, part in enumerate(drawn):
            part._write_numbers(row + 0.2, size)
        what = "number of samples" if drawn[0].count is not None else "share of samples, %"
        heading = self.share_ax_.texts[0]
        heading.set(text=what, fontsize=size, position=(0.02, 0.97))

    def _draw_group(self, look: tuple, line_kw: dict[str, Any]) -> None:
        """Draw the points and intervals of this group."""
        marker, color = _visible(look, self.ax_)
        filled = self.share > 0
        confidence, accuracy = self.confidence[filled], self.accuracy[filled]
        style = {"marker": marker, "color": color, "markersize": 5, "linewidth": 1}
        (self.line_,) = self.ax_.plot(confidence, accuracy, **(style | line_kw))
        color = self.line_.get_color()
        self.intervals_ = None
        if self.low is not None and self.high is not None:
            low, high = self.low[filled], self.high[filled]
            self.intervals_ = self.ax_.errorbar(
                confidence,
                (low + high) / 2,
                (high - low) / 2,
                fmt="none",
                ecolor=color,
                elinewidth=1,
                alpha=0.7,
                capsize=2,
            )

    def _write_numbers(self, row: float, size: float) -> None:
        """Write the number of samples of this group in each bin, or their share in percent."""
        numbers = 100 * self.share if self.count is None else self.count
        self.counts_ = [
            self.share_ax_.text(
                (i + 0.5) / len(self.share),
                row,
                f"{numbers[i]:.0f}",
                color=self.line_.get_color(),
                ha="center",
                va="center",
                fontsize=size,
                clip_on=True,
            )
            for i in np.flatnonzero(self.share > 0)
        ]

    def _draw(self, ax: Any, name: str | None, line_kw: dict[str, Any]) -> None:
        error = f"ECE {self.expected_calibration_error:.3f}"
        marker, color = _visible(_LOOKS[len(self.share_ax_.patches) % len(_LOOKS)], ax)
        style = {
            "marker": marker,
            "color": color,
            "markersize": 5,
            "linewidth": 1.2,
            "label": error if name is None else f"{plot_text(as_label(name))} ({error})",
        }
        filled = self.share > 0
        confidence, accuracy = self.confidence[filled], self.accuracy[filled]
        (self.line_,) = ax.plot(confidence, accuracy, **(style | line_kw))
        color = self.line_.get_color()
        self.gaps_ = ax.vlines(confidence, confidence, accuracy, color=color, alpha=0.4, lw=3)
        self.bars_ = self.share_ax_.stairs(
            self.share,
            np.arange(len(self.share) + 1) / len(self.share),
            fill=True,
            facecolor=(color, 0.3),
            edgecolor=color,
            linewidth=1,
        )
        top = max(bars.get_data().values.max() for bars in self.share_ax_.patches)
        self.share_ax_.set_ylim(0, 1.5 * top)
        self.share_ax_.texts[0].set_text(f"share of samples, up to {top:.0%}")
        _show_down_to(np.concatenate([accuracy, confidence]).min(initial=1), ax)
        ax.legend(loc="upper left", fontsize=_font_size(ax), handlelength=1.5)


def _prepare(ax: Any, height: float) -> Any:
    """Draw the parts that all models share: diagonal, strip for the shares, and labels."""
    ax.plot([0, 1], [0, 1], ":", color="black", linewidth=1, zorder=1)
    ax.set(xlim=(1, 1.02), xlabel="confidence", ylabel="accuracy")
    # The strip lies inside the axes, with its scale, and therefore fits into any layout.
    strip = ax.inset_axes((0, 0, 1, height), sharex=ax, label=_SHARES, zorder=0.5)
    strip.tick_params(labelbottom=False)
    strip.set_yticks([])
    strip.text(0.02, 0.93, "", va="top", fontsize=_font_size(ax), transform=strip.transAxes)
    return strip


def _visible(look: tuple, ax: Any) -> tuple[str, Any]:
    """Replace black by the colour of the frame, which is white in a dark style."""
    marker, color = look
    return marker, ax.spines["left"].get_edgecolor() if color == "#000000" else color


def _font_size(ax: Any) -> str:
    wide = ax.get_window_extent().width / ax.figure.dpi > 3
    return "medium" if wide else "x-small"


def _show_down_to(lowest: float, ax: Any, strip: float = _STRIP) -> None:
    """Set the limits: from 0.5, or from the lowest value of all models drawn, to 1."""
    low = min(np.floor(10 * lowest) / 10, 0.5, ax.get_xlim()[0])
    height = (1.02 - low) / (1 - strip)
    ticks = np.arange(0, 11, 1 if low == 0.5 else 2) / 10
    ticks = ticks[ticks >= low]
    ax.set(xlim=(low, 1.01), ylim=(1.02 - height, 1.02), xticks=ticks, yticks=ticks)
