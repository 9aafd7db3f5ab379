"""Plot of a metric in each group, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from skfair.metrics._group_metric import metric_name
from skfair.metrics._html import group_label
from skfair.metrics._plotting import legend_above, words
from skfair.metrics._report import FairnessReport, fairness_report
from skfair.metrics._reporting._measures import STATISTICS
from skfair.metrics._scorer import wanted_parameters
from skfair.utils import import_optional
from skfair.utils._rows import check_rows
from skfair.utils._shown import as_label, tell_apart

# Okabe and Ito's colours, which colour-blind people can distinguish. Neighbours in this order also
# differ in grey. Each colour has its own hatch and line style.
_LOOKS = [
    ("#0072B2", None, (0, (5, 2))),
    ("#E69F00", "///", (0, (1, 1.5))),
    ("#009E73", "...", (0, (5, 1.5, 1, 1.5))),
    ("#CC79A7", "\\\\\\", (0, (9, 2))),
    ("#D55E00", "--", (0, (2, 3))),
    ("#56B4E9", "xxx", (0, (3, 1, 1, 1, 1, 1))),
]
_UPRIGHT = 6  # most groups with upright bars; more groups have horizontal bars
_BARS, _BAR = 0.8, 0.5  # share of a group's space for all its bars, and largest share for one bar
FEW = 30  # a group with fewer samples is pale
_UNNAMED = "model"  # name of a model without a name in a report


class GroupMetricsDisplay:
    """A metric in each group, with 95 % intervals, models side by side.

    Make it with :meth:`from_report`, :meth:`from_predictions`, :meth:`from_estimator`, or from any
    numbers. A dashed line shows the value over all samples. Groups with fewer than 30 samples are
    pale and have an asterisk, because their values are unreliable. Where a metric is undefined, the
    word "undefined" replaces the bar. Bars are horizontal if there are more than six groups or
    group names are long. Up to six models look different from each other, also in grey print.

    Parameters
    ----------
    values : dict of str to array-like of shape (n_groups,)
        For each model by name, the metric in each group; NaN where the metric is undefined.
    groups : sequence of length n_groups
        Label of each group; a tuple if there are several features.
    low, high : dict of str to array-like of shape (n_groups,), optional
        Ends of the intervals of each model, both or neither; NaN for no interval.
    count : array-like of shape (n_groups,), optional
        Number of samples in each group.
    overall : dict of str to float, optional
        For each model, the metric over all samples.
    metric_name : str, default="metric"
        Label of the axis of values.
    group_name : str, default=None
        Label of the axis of groups.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure with these axes.
    bars_ : dict of str to matplotlib BarContainer
        Bars of each model, in the order of the groups; the length is zero where undefined.
    intervals_ : dict of str to matplotlib ErrorbarContainer
        Intervals of each model, if given.
    overall_ : dict of str to matplotlib Line2D
        Lines at the values over all samples, if given.
    undefined_ : list of matplotlib Text
        The words "undefined" that replace bars.
    horizontal_ : bool
        Whether bars are horizontal, with groups below each other.

    Raises
    ------
    ValueError
        The arguments contradict each other.

    See Also
    --------
    fairness_report : The same as a table, with differences between groups and models.
    TradeoffDisplay : Performance against disparity.

    Examples
    --------
    >>> display = GroupMetricsDisplay(
    ...     {"plain": [0.9, 0.6], "robust": [0.85, 0.8]}, ["f", "m"], count=[400, 60]
    ... )
    >>> ax = display.plot().ax_
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['f\\n(n=400)', 'm\\n(n=60)']
    """

    def __init__(
        self,
        values: Mapping[str, ArrayLike],
        groups: Sequence,
        *,
        low: Mapping[str, ArrayLike] | None = None,
        high: Mapping[str, ArrayLike] | None = None,
        count: ArrayLike | None = None,
        overall: Mapping[str, float] | None = None,
        metric_name: str = "metric",
        group_name: str | None = None,
    ):
        self.groups = list(groups)
        self.metric_name = metric_name
        self.group_name = group_name
        if not isinstance(values, Mapping):
            raise TypeError(
                f"values is a {type(values).__name__}, expected a dict of model names to numbers. "
                "Give for instance {'plain': [0.9, 0.6]}."
            )
        if not values or not self.groups:
            raise ValueError(
                f"values has {len(values)} models and groups has {len(self.groups)} groups. Give "
                "at least one of both."
            )
        self.values = {name: self._numbers(f"values[{name!r}]", v) for name, v in values.items()}
        if (low is None) != (high is None):
            raise ValueError("Only one of low and high was given. Give both or neither.")
        self.low, self.high = self._by_model("low", low), self._by_model("high", high)
        for name in self.low:
            if np.any(self.low[name] > self.high[name]):
                raise ValueError(f"low[{name!r}] is above high[{name!r}]. Exchange them.")
        self.count = None if count is None else self._numbers("count", count)
        self.overall = dict(overall or {})
        if self.overall and set(self.overall) != set(self.values):
            raise ValueError(
                f"overall has the models {list(self.overall)}, values has {list(self.values)}. "
                "Give the same models in both."
            )

    def _numbers(self, name: str, numbers: ArrayLike) -> np.ndarray:
        numbers = np.asarray(numbers, dtype=np.float64)
        if numbers.shape != (len(self.groups),):
            raise ValueError(
                f"{name} has shape {numbers.shape} for {len(self.groups)} groups. Give one number "
                "a group."
            )
        return numbers

    def _by_model(self, name: str, numbers: Mapping | None) -> dict[str, np.ndarray]:
        if numbers is None:
            return {}
        if set(numbers) != set(self.values):
            raise ValueError(
                f"{name} has the models {list(numbers)}, values has {list(self.values)}. Give the "
                "same models in both."
            )
        return {m: self._numbers(f"{name}[{m!r}]", numbers[m]) for m in self.values}

    @classmethod
    def from_report(
        cls,
        report: FairnessReport,
        metric: str | None = None,
        *,
        ax: Any = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> "GroupMetricsDisplay":
        """Show a metric of a report.

        Parameters
        ----------
        report : FairnessReport
            Result of :func:`fairness_report`.
        metric : str, default=None
            Name of a metric of the report. It is shown by sensitive features, and within the levels
            of control features if there are any. None shows the accuracy of each combination of
            class and sensitive features.
        ax : matplotlib Axes, default=None
            Axes to draw into; new ones if not given.
        bar_kw : dict, default=None
            Passed to ``Axes.bar`` or ``Axes.barh`` for all bars.

        Returns
        -------
        display : GroupMetricsDisplay

        Raises
        ------
        TypeError
            `report` is not a report.
        ValueError
            The report does not have this metric.
        ImportError
            matplotlib is not installed.
        """
        if not isinstance(report, FairnessReport):
            raise TypeError(
                f"report is a {type(report).__name__}; give what fairness_report returns, or "
                "predictions to GroupMetricsDisplay.from_predictions."
            )
        models, overall = report.counts.models, None
        if metric is None:
            table, index, column, name = report.by_group, report.by_group.index, "accuracy", None
            overall = report.summary.loc["overall_accuracy"]
        else:
            names = list(dict.fromkeys(report.by_feature.index.get_level_values(0)))
            if metric not in names:
                raise ValueError(
                    f"metric={metric!r} is not in the report, which has {names}. Name one of "
                    "these, or make a report with metrics=..."
                )
            table, column, name = report.by_feature.loc[[metric]], "value", metric
            index = table.index.droplevel(0)
            if not report.counts.control_names:  # with controls, each level has its own value
                overall = report.disparities.loc[(metric, "overall")].xs("value", level=1)
        display = cls(
            {model: table[model, column] for model in models},
            list(index),
            low={model: table[model, "low"] for model in models},
            high={model: table[model, "high"] for model in models},
            count=table["", "count"],
            overall=None if overall is None else {model: float(overall[model]) for model in models},
            metric_name="accuracy" if name is None else words(name),
            group_name=", ".join(index.names),
        )
        return display.plot(ax, bar_kw=bar_kw)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        predictions: Any,
        *,
        sensitive_features: Any,
        metric: Callable | None = None,
        pos_label: Any = None,
        sample_weight: Any = None,
        ax: Any = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> "GroupMetricsDisplay":
        """Show a metric of predictions.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels of any type.
        predictions : array-like of shape (n_samples,) or dict of str to array-like
            Predicted labels of one model, or of several models by name.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
            Group labels: array, Series, DataFrame or dict of columns (intersections).
        metric : callable, default=None
            Metric, ``metric(y_true, y_pred)`` -> float, shown by sensitive features. None shows the
            accuracy of each combination of class and sensitive features. Metrics that cannot be
            computed from counts have no intervals here: give `n_boot` to :func:`fairness_report`
            and the report to :meth:`from_report`.
        pos_label : label, default=None
            The positive class of rates. None means 1 if labels are of {0, 1} or {-1, 1}.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, not negative; None counts each sample once.
        ax : matplotlib Axes, default=None
            Axes to draw into; new ones if not given.
        bar_kw : dict, default=None
            Passed to ``Axes.bar`` or ``Axes.barh`` for all bars.

        Returns
        -------
        display : GroupMetricsDisplay

        Raises
        ------
        TypeError, ValueError
            See :func:`fairness_report`.
        ImportError
            matplotlib is not installed.

        Examples
        --------
        >>> display = GroupMetricsDisplay.from_predictions(
        ...     [0, 1, 0, 1], [0, 1, 1, 1], sensitive_features=["f", "f", "m", "m"]
        ... )
        >>> display.groups
        [(0, 'f'), (0, 'm'), (1, 'f'), (1, 'm')]
        >>> display.values["model"]
        array([1., 0., 1., 1.])
        """
        if metric is not None and not callable(metric):
            raise TypeError(
                f"metric is {metric!r}, expected a function of y_true and y_pred, for instance "
                "fairlearn.metrics.selection_rate."
            )
        name = None if metric is None else metric_name(metric)
        report = fairness_report(
            y_true,
            predictions,
            sensitive_features=sensitive_features,
            metrics=[accuracy_score] if metric is None else {metric_name(metric): metric},
            pos_label=pos_label,
            sample_weight=sample_weight,
            n_boot=0 if metric is None else None,  # accuracies need none
        )
        return cls.from_report(report, name, ax=ax, bar_kw=bar_kw)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        sensitive_features: Any,
        metric: Callable | None = None,
        pos_label: Any = None,
        sample_weight: Any = None,
        ax: Any = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> "GroupMetricsDisplay":
        """Show a metric of classifiers on held-out data.

        Parameters
        ----------
        estimator : fitted classifier or dict of str to fitted classifier
            One classifier, or several by name. A classifier that needs ``sensitive_features`` for
            its prediction, such as fairlearn's ``ThresholdOptimizer``, receives them.
        X : array-like of shape (n_samples, ...)
            Samples, as the classifiers take them.
        y : array-like of shape (n_samples,)
            True labels of the samples.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
            As in :meth:`from_predictions`.
        metric : callable, default=None
            As in :meth:`from_predictions`.
        pos_label : label, default=None
            As in :meth:`from_predictions`.
        sample_weight : array-like of shape (n_samples,), default=None
            As in :meth:`from_predictions`.
        ax : matplotlib Axes, default=None
            As in :meth:`from_predictions`.
        bar_kw : dict, default=None
            As in :meth:`from_predictions`.

        Returns
        -------
        display : GroupMetricsDisplay

        Raises
        ------
        TypeError
            An estimator has no ``predict``.
        sklearn.exceptions.NotFittedError
            An estimator is not fitted.
        ValueError
            See :func:`fairness_report`.
        ImportError
            matplotlib is not installed.
        """
        if not isinstance(estimator, Mapping):
            estimator = {type(estimator).__name__: estimator}
        for name, one in estimator.items():
            if not hasattr(one, "predict"):
                raise TypeError(
                    f"estimator {name!r} is a {type(one).__name__}, which has no predict. Give a "
                    "fitted classifier, or predicted labels to from_predictions."
                )
            check_is_fitted(one)
        check_rows(X=X, y=y, sensitive_features=sensitive_features, sample_weight=sample_weight)
        offered = {"sensitive_features": sensitive_features, "random_state": 0}
        predictions = {}
        for name, one in estimator.items():
            wanted = {key: offered[key] for key in wanted_parameters(one, "predict")}
            predictions[name] = one.predict(X, **wanted)
        return cls.from_predictions(
            y,
            predictions,
            sensitive_features=sensitive_features,
            metric=metric,
            pos_label=pos_label,
            sample_weight=sample_weight,
            ax=ax,
            bar_kw=bar_kw,
        )

    def plot(
        self, ax: Any = None, *, bar_kw: dict[str, Any] | None = None
    ) -> "GroupMetricsDisplay":
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; new ones if not given. The new figure is taller than usual if there
            are more than twelve groups or many models.
        bar_kw : dict, default=None
            Passed to ``Axes.bar`` or ``Axes.barh`` for all bars.

        Returns
        -------
        display : GroupMetricsDisplay
            The display itself.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose="GroupMetricsDisplay")
        n_groups, n_models = len(self.groups), len(self.values)
        if ax is None:
            width, height = pyplot.rcParams["figure.figsize"]
            if n_groups > _UPRIGHT:
                height = max(height, 1.2 + n_groups * max(0.3, 0.1 * n_models))
            _, ax = pyplot.subplots(figsize=(width, height), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        self.horizontal_ = n_groups > _UPRIGHT or not self._fits_upright(ax)
        self.bars_: dict[str, Any] = {}
        self.intervals_: dict[str, Any] = {}
        self.overall_: dict[str, Any] = {}
        self.undefined_: list[Any] = []
        thickness = min(_BARS / n_models, _BAR)
        for m, name in enumerate(self.values):
            place = np.arange(n_groups) + (m + 0.5 - n_models / 2) * thickness
            self._draw_model(ax, name, _LOOKS[m % len(_LOOKS)], place, thickness, bar_kw or {})
            self._write_undefined(ax, name, place)
        self._scale(ax)
        self._legend(ax)
        return self

    def _small(self) -> np.ndarray:
        return np.zeros(len(self.groups), bool) if self.count is None else self.count < FEW

    def _tick_labels(self, between: str) -> list[str]:
        labels = []
        names = tell_apart(self.groups, STATISTICS, group_label)
        for i, group in enumerate(self.groups):
            label = names[group].replace("$", r"\$")  # a label is not a formula
            if self.count is not None:
                star = "*" if self._small()[i] else ""
                label += f"{between}(n={self.count[i]:.0f}){star}"
            labels.append(label)
        return labels

    def _fits_upright(self, ax: Any) -> bool:
        """Tell whether all labels fit below upright bars, at about 0.08 inch a character."""
        longest = max(len(line) for label in self._tick_labels("\n") for line in label.split("\n"))
        width = ax.get_window_extent().width / ax.figure.dpi
        return 0.08 * (longest + 1) <= width / len(self.groups)

    def _draw_model(
        self, ax: Any, name: str, look: tuple, place: np.ndarray, thickness: float, bar_kw: dict
    ) -> None:
        from matplotlib import patheffects

        color, hatch, line = look
        values = self.values[name]
        defined = ~np.isnan(values)
        bar, size = (ax.barh, "height") if self.horizontal_ else (ax.bar, "width")
        pale = [(color, 0.4) if small else color for small in self._small()]
        style = {"color": pale, "edgecolor": "white", "linewidth": 0.8, "hatch": hatch}
        style |= {size: thickness, "label": as_label(name), "zorder": 2}
        self.bars_[name] = bar(place, np.where(defined, values, 0), **(style | bar_kw))
        if self.low:
            low, high = self.low[name], self.high[name]
            # The bar of an interval is around its middle, which may differ from the value.
            at = (place, (low + high) / 2)
            self.intervals_[name] = ax.errorbar(
                *(at[::-1] if self.horizontal_ else at),
                **{"xerr" if self.horizontal_ else "yerr": (high - low) / 2},
                fmt="none",
                ecolor="black",
                elinewidth=1,
                capsize=min(3, 20 * thickness / len(self.groups) ** 0.5),
                zorder=3,
            )
            _, caps, lines = self.intervals_[name].lines
            for artist in (*caps, *lines):  # black on a dark bar is invisible
                artist.set_path_effects([patheffects.withStroke(linewidth=1.9, foreground="w")])
        if self.overall and np.isfinite(self.overall[name]):
            draw = ax.axvline if self.horizontal_ else ax.axhline
            self.overall_[name] = draw(
                self.overall[name], color=color, linestyle=line, linewidth=1.2, zorder=1
            )

    def _write_undefined(self, ax: Any, name: str, place: np.ndarray) -> None:
        """Write "undefined" in place of each bar, or once if no model has a value."""
        nowhere = np.all([np.isnan(values) for values in self.values.values()], axis=0)
        for i in np.flatnonzero(np.isnan(self.values[name])):
            if nowhere[i] and name != next(iter(self.values)):
                continue
            at = i if nowhere[i] else place[i]
            self.undefined_.append(
                ax.annotate(
                    "undefined",
                    (0, at) if self.horizontal_ else (at, 0),
                    xytext=(3, 0) if self.horizontal_ else (0, 3),
                    textcoords="offset points",
                    rotation=0 if self.horizontal_ else 90,
                    ha="left" if self.horizontal_ else "center",
                    va="center_baseline" if self.horizontal_ else "bottom",
                    fontsize="xx-small" if self.horizontal_ and not nowhere[i] else "x-small",
                    zorder=3,
                )
            )

    def _scale(self, ax: Any) -> None:
        """Label the axes; values begin at 0, and an axis of shares near 1 ends at 1."""
        name = "" if self.group_name is None else as_label(self.group_name).replace("$", r"\$")
        if self._small().any():
            name = f"{name}   (* fewer than {FEW} samples)".strip()
        ticks = np.arange(len(self.groups))
        parts = [self.values, self.low, self.high]
        numbers = np.array([v for part in parts for v in part.values()]).ravel()
        numbers = np.append(numbers[np.isfinite(numbers)], 0)
        least, most = numbers.min(), numbers.max()
        limits = (1.05 * least if least < 0 else 0, 1.05 * most if most > 0 else 0.0)
        if least >= 0 and 0.8 < most <= 1:
            limits = 0, 1.02
        if limits[0] == limits[1]:
            limits = 0, 1
        if self.horizontal_:
            ax.set_yticks(ticks, self._tick_labels(" "))
            ax.set_ylim(len(self.groups) - 0.5, -0.5)
            ax.set(xlabel=self.metric_name, ylabel=name, xlim=limits)
        else:
            ax.set_xticks(ticks, self._tick_labels("\n"))
            ax.set_xlim(-0.5, len(self.groups) - 0.5)
            ax.set(xlabel=name, ylabel=self.metric_name, ylim=limits)

    def _legend(self, ax: Any) -> None:
        from matplotlib.lines import Line2D

        shown = int(np.argmin(self._small()))  # a bar that is not pale, if there is one
        handles = {name: bars.patches[shown] for name, bars in self.bars_.items()}
        if list(handles) == [_UNNAMED]:
            handles = {}
        if self.intervals_:
            handles["95 % interval"] = next(iter(self.intervals_.values()))
        if self.overall_:  # in the plot, each line has the colour of its model
            handles["overall"] = Line2D([], [], color="0.3", linestyle="--", linewidth=1.2)
        legend_above(ax, handles)
