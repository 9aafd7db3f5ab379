"""Plot of a metric in each group, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from skfair.metrics._group_drawing import GroupDrawing
from skfair.metrics._group_metric import lower_is_better, metric_name
from skfair.metrics._intervals import wilson_interval
from skfair.metrics._plotting import missing_glyphs_told, words
from skfair.metrics._report import FairnessReport, fairness_report
from skfair.metrics._scorer import wanted_parameters
from skfair.utils import import_optional
from skfair.utils._rows import check_rows
from skfair.utils._shown import shown


class GroupMetricsDisplay:
    """A metric in each group, with 95 % intervals, models side by side.

    Make it with :meth:`from_report`, :meth:`from_predictions`, :meth:`from_estimator`, or from any
    numbers. A dashed line shows the value over all samples, and a band shows its interval if there
    are at most two models. Where a metric is undefined or not estimable, these words replace the
    value; a report says that a metric is not estimable with fewer than `min_count` samples. Bars
    are horizontal if there are more than six groups or group names are long. More than twelve
    groups have dots instead of bars; the axis of dots need not begin at 0. Long names are broken
    into lines. Up to six models look different from each other, also in grey print.

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
    overall_low, overall_high : dict of str to float, optional
        Ends of the intervals of `overall`, both or neither; NaN for no interval.
    estimable : dict of str to array-like of bool of shape (n_groups,), optional
        For each model, whether a group has enough samples for a value. The display writes "not
        estimable" for the other groups. None means that every group has enough samples.
    lower_is_better : bool, default=False
        Whether the highest value is the worst, as for an error rate. Used by ``sort="worst"``.
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
    groups_ : list
        The groups in the order of the picture.
    left_out_ : list
        The groups that `max_groups` left out.
    bars_ : dict of str to matplotlib BarContainer
        Bars of each model, in the order of `groups_`; the length is zero where there is no value.
        Empty if there are dots.
    dots_ : dict of str to matplotlib PathCollection
        Dots of each model, in the order of `groups_`; empty if there are bars.
    intervals_ : dict of str to matplotlib ErrorbarContainer
        Intervals of each model, if given.
    overall_ : dict of str to matplotlib Line2D
        Lines at the values over all samples, if given.
    bands_ : dict of str to matplotlib Patch
        Bands of the intervals of the values over all samples, if given, for at most two models.
    undefined_ : list of matplotlib Text
        The words "undefined" and "not estimable" that replace values.
    horizontal_ : bool
        Whether groups are below each other.

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
        overall_low: Mapping[str, float] | None = None,
        overall_high: Mapping[str, float] | None = None,
        estimable: Mapping[str, ArrayLike] | None = None,
        lower_is_better: bool = False,
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
        self.overall_low, self.overall_high = dict(overall_low or {}), dict(overall_high or {})
        for key in ("overall", "overall_low", "overall_high"):
            models = getattr(self, key)
            if models and set(models) != set(self.values):
                raise ValueError(
                    f"{key} has the models {list(models)}, values has {list(self.values)}. Give "
                    "the same models in both."
                )
        if bool(self.overall_low) != bool(self.overall_high) or len(self.overall_low) > len(
            self.overall
        ):
            raise ValueError(
                "overall_low and overall_high are the interval of overall. Give all three, or "
                "overall alone."
            )
        everywhere = dict.fromkeys(self.values, np.ones(len(self.groups)))
        of_models = self._by_model("estimable", everywhere if estimable is None else estimable)
        self.estimable = {name: of.astype(bool) for name, of in of_models.items()}
        self.lower_is_better = lower_is_better

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
        sort: Literal["worst"] | None = None,
        max_groups: int | None = None,
        ax: Any = None,
        bar_kw: dict[str, Any] | None = None,
        dot_kw: dict[str, Any] | None = None,
    ) -> "GroupMetricsDisplay":
        """Show a metric of a report.

        Parameters
        ----------
        report : FairnessReport
            Result of :func:`fairness_report`.
        metric : str, default=None
            Name of a metric of the report. It is shown by sensitive features, and within the levels
            of control features if there are any. None shows the accuracy of each combination of
            class and sensitive features. The worst groups are those with the lowest values; for
            errors, losses, and false positive and false negative rates, those with the highest.
        sort : {"worst"}, default=None
            As in :meth:`plot`.
        max_groups : int, default=None
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        bar_kw, dot_kw : dict, default=None
            As in :meth:`plot`.

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
        models, counts = report.counts.models, report.counts
        overall: dict[str, dict[str, float]] = {}
        function: Callable = accuracy_score
        if metric is None:
            table, column, name = report.by_group, "accuracy", "accuracy"
            index = table.index
            estimable = dict.fromkeys(models, table["", "count"] >= report.min_count)
            weight = counts.size * counts.weight
            effective = weight.sum() ** 2 / (weight * counts.weight).sum()
            value = report.summary.loc["overall_accuracy", list(models)]
            ends = wilson_interval(value.to_numpy(), np.full(len(models), effective))
            for key, numbers in zip(("overall", "low", "high"), (value, *ends), strict=True):
                overall[key] = dict(zip(models, map(float, numbers), strict=True))
        else:
            names = list(dict.fromkeys(report.by_feature.index.get_level_values(0)))
            if metric not in names:
                raise ValueError(
                    f"metric={metric!r} is not in the report, which has {names}. Name one of "
                    "these, or make a report with metrics=..."
                )
            table, column, name = report.by_feature.loc[[metric]], "value", metric
            of_metric = report.estimable.loc[[metric]]
            estimable = {model: of_metric[model] for model in models}
            index = table.index.droplevel(0)
            function = next(m.function for m in report._metrics if m.name == metric)
            if not counts.control_names:  # with controls, each level has its own value
                row = report.disparities.loc[(metric, "overall")]
                for key, part in (("overall", "value"), ("low", "low"), ("high", "high")):
                    overall[key] = {model: float(row[model, part]) for model in models}
        display = cls(
            {model: table[model, column] for model in models},
            list(index),
            low={model: table[model, "low"] for model in models},
            high={model: table[model, "high"] for model in models},
            count=table["", "count"],
            overall=overall.get("overall"),
            overall_low=overall.get("low"),
            overall_high=overall.get("high"),
            estimable=estimable,
            lower_is_better=lower_is_better(function),
            metric_name=words(name),
            group_name=", ".join(index.names),
        )
        return display.plot(ax, sort=sort, max_groups=max_groups, bar_kw=bar_kw, dot_kw=dot_kw)

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
        sort: Literal["worst"] | None = None,
        max_groups: int | None = None,
        ax: Any = None,
        bar_kw: dict[str, Any] | None = None,
        dot_kw: dict[str, Any] | None = None,
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
        sort : {"worst"}, default=None
            As in :meth:`plot`.
        max_groups : int, default=None
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        bar_kw, dot_kw : dict, default=None
            As in :meth:`plot`.

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
        return cls.from_report(
            report, name, sort=sort, max_groups=max_groups, ax=ax, bar_kw=bar_kw, dot_kw=dot_kw
        )

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
        sort: Literal["worst"] | None = None,
        max_groups: int | None = None,
        ax: Any = None,
        bar_kw: dict[str, Any] | None = None,
        dot_kw: dict[str, Any] | None = None,
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
        sort : {"worst"}, default=None
            As in :meth:`plot`.
        max_groups : int, default=None
            As in :meth:`plot`.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.
        bar_kw, dot_kw : dict, default=None
            As in :meth:`plot`.

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
            sort=sort,
            max_groups=max_groups,
            ax=ax,
            bar_kw=bar_kw,
            dot_kw=dot_kw,
        )

    def plot(
        self,
        ax: Any = None,
        *,
        sort: Literal["worst"] | None = None,
        max_groups: int | None = None,
        bar_kw: dict[str, Any] | None = None,
        dot_kw: dict[str, Any] | None = None,
    ) -> "GroupMetricsDisplay":
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; new ones if not given. The new figure is as high and as wide as the
            number of groups, their names and the models need. Axes that you give keep their size;
            their labels become smaller, down to 4 points, where many groups need it.
        sort : {"worst"}, default=None
            Order of the groups: ``"worst"`` puts the group with the worst value of any model
            first, and groups without a value last. None keeps the order of `groups`.
        max_groups : int, default=None
            Most groups to draw, the first in this order. A line such as "and 48 more" counts the
            others. None draws all groups.
        bar_kw : dict, default=None
            Passed to ``Axes.bar`` or ``Axes.barh`` for all bars, where there are bars.
        dot_kw : dict, default=None
            Passed to ``Axes.scatter`` for all dots, where there are dots.

        Returns
        -------
        display : GroupMetricsDisplay
            The display itself.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            `sort` or `max_groups` is not one of the values above.

        Warns
        -----
        MissingGlyphWarning
            The font has no glyph for some characters of the labels.
        """
        pyplot = import_optional("matplotlib.pyplot", extra="plot", purpose="GroupMetricsDisplay")
        if sort not in (None, "worst"):
            raise ValueError(f"sort={sort!r} is unknown. Give 'worst', or None for no sorting.")
        whole = isinstance(max_groups, int | np.integer) and not isinstance(max_groups, bool)
        if max_groups is not None and not (whole and max_groups >= 1):
            raise ValueError(
                f"max_groups={shown(max_groups)} is not a number of groups. Give an integer of 1 "
                "or more, or None for all groups."
            )
        order = self._worst_first() if sort else list(range(len(self.groups)))
        self.left_out_ = [self.groups[i] for i in order[max_groups:]] if max_groups else []
        order = order[:max_groups]
        self.groups_ = [self.groups[i] for i in order]
        drawing = GroupDrawing(self, np.array(order), len(self.left_out_), ax, pyplot)
        with missing_glyphs_told(drawing.ax):
            drawing.draw(bar_kw or {}, dot_kw or {})
        self.ax_, self.figure_ = drawing.ax, drawing.ax.figure
        self.bars_, self.dots_ = drawing.bars, drawing.dots
        self.intervals_, self.overall_ = drawing.intervals, drawing.overall
        self.bands_, self.undefined_ = drawing.bands, drawing.undefined
        self.horizontal_ = drawing.horizontal
        return self

    def _worst_first(self) -> list[int]:
        sign = -1 if self.lower_is_better else 1
        worst = np.full(len(self.groups), np.inf)
        for name, values in self.values.items():
            there = self.estimable[name] & ~np.isnan(values)
            worst = np.minimum(worst, np.where(there, sign * values, np.inf))
        return list(np.argsort(worst, kind="stable"))
