"""Metrics of a report that need samples: functions called by group, and fairlearn's tables."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame

from skfair.metrics._counts import GroupCounts
from skfair.metrics._group_metric import accepts, as_number
from skfair.metrics._intervals import LEVELS
from skfair.metrics._rates import COUNT_METRICS, CountMetric
from skfair.utils._groups import label_rows
from skfair.utils._labels import as_objects
from skfair.utils._settings import warning_filter
from skfair.utils._shown import shown


class ReportMetric(NamedTuple):
    """A metric of the report.

    Attributes
    ----------
    name : str
        Name in the report.
    function : callable
        Function of true and predicted labels.
    from_counts : bool
        True if the metric can be computed from counts.
    positive : int
        Position of the positive label; 0 if the metric has no positive label.
    """

    name: str
    function: Callable
    from_counts: bool
    positive: int

    @property
    def counted(self) -> CountMetric | None:
        """The same metric as a function of counts; None if there is no such function."""
        return COUNT_METRICS[self.function] if self.from_counts else None


class Rows:
    """The samples behind counts, one row each and sorted, for functions that need labels.

    Parameters
    ----------
    counts : GroupCounts
        The counts.
    pos_label : label or None
        Passed to functions that have such a parameter, if not None.
    """

    def __init__(self, counts: GroupCounts, pos_label: Any):
        cells = np.repeat(counts.cells, counts.size, axis=0)
        self.pos_label = pos_label
        self.control, self.group, self.y = cells[:, 0], cells[:, 1], cells[:, 2]
        self.predictions = dict(zip(counts.models, cells[:, 3:].T, strict=True))
        self.labels = _label_array(counts.predicted)
        weighted = (counts.weight != 1).any()
        self.weight = np.repeat(counts.weight, counts.size) if weighted else None

    def call(self, metric: ReportMetric, model: str, rows: np.ndarray) -> Any:
        """Call a metric on some of the rows.

        Returns
        -------
        object
            Result of the function.
        """
        function, arguments = metric.function, {}
        codes = self.y[rows], self.predictions[model][rows]
        if metric.counted is not None and metric.counted.needs_positive:
            # As 0 and 1: fairlearn's rates fail on text labels in a group of one class.
            y_true, y_pred = ((code == metric.positive).astype(int) for code in codes)
        else:
            y_true, y_pred = (self.labels[code] for code in codes)
            fixed = function.keywords if isinstance(function, partial) else {}
            if (
                self.pos_label is not None
                and accepts(function, "pos_label")
                and not {"pos_label", "average"} & set(fixed)
            ):
                arguments["pos_label"] = self.pos_label
        if self.weight is not None and accepts(function, "sample_weight"):
            arguments["sample_weight"] = self.weight[rows]
        return function(y_true, y_pred, **arguments)

    def by_group(
        self, metric: ReportMetric, model: str, counts: GroupCounts
    ) -> tuple[np.ndarray, np.ndarray]:
        """Call a metric on each group, and on all groups of each control level together.

        Returns
        -------
        by_group : ndarray of shape (n_controls, n_groups)
            NaN for groups that do not occur.
        overall : ndarray of shape (n_controls,)

        Raises
        ------
        TypeError
            The metric does not return a number.
        ValueError
            The metric returns infinity.
        """
        by_group = np.full((len(counts.controls), len(counts.groups)), np.nan)
        overall = np.full(len(counts.controls), np.nan)
        for c, control in enumerate(counts.controls):
            within = (
                f" where {counts.control_names} is {shown(control)}" if counts.control_names else ""
            )
            level = np.flatnonzero(self.control == c)
            if len(level):  # first, since all classes of the level occur here
                overall[c] = self._number(metric, model, level, f"all groups{within}")
            for g, label in enumerate(counts.groups):
                rows = level[self.group[level] == g]
                if len(rows):
                    where = f"group {shown(label)}{within}"
                    by_group[c, g] = self._number(metric, model, rows, where)
        return by_group, overall

    def _number(self, metric: ReportMetric, model: str, rows: np.ndarray, where: str) -> float:
        try:
            value = self.call(metric, model, rows)
        except Exception as error:
            error.add_note(f"Raised by metric {shown(metric.name)} for {where} ({len(rows)} rows).")
            raise
        number = as_number(value, f"metric {shown(metric.name)}", f" for {where}")
        if np.isinf(number):
            raise ValueError(
                f"metric {shown(metric.name)} is {number} for {where}, expected a finite number. "
                "Return NaN if the metric is undefined."
            )
        return number


def _label_array(labels: Sequence) -> np.ndarray:
    """Make an array of labels with their own dtype, as scikit-learn needs it."""
    types = {type(label) for label in labels}
    plain = len(types) == 1 and types <= {bool, int, str}
    return np.array(labels) if plain else as_objects(labels)


def metric_frames(
    counts: GroupCounts, metrics: list[ReportMetric], pos_label: Any
) -> dict[str, MetricFrame]:
    """Make the MetricFrame of each model.

    Returns
    -------
    dict of str to MetricFrame
    """
    rows, controls = Rows(counts, pos_label), None
    features = _feature_frame(counts.group_names, counts.groups, rows.group)
    if counts.control_names:
        controls = _feature_frame(counts.control_names, counts.controls, rows.control)
    return {
        model: _make_frame(
            {metric.name: partial(rows.call, metric, model) for metric in metrics},
            features,
            controls,
        )
        for model in counts.models
    }


def _feature_frame(names: Sequence[str], labels: Sequence, codes: np.ndarray) -> pd.DataFrame:
    """Make a table with the values of all features for each sample."""
    columns = zip(names, zip(*label_rows(labels, names), strict=True), strict=True)
    return pd.DataFrame({name: _sortable(values)[codes] for name, values in columns})


def _sortable(labels: Sequence) -> np.ndarray:
    """Convert labels of mixed types to text, since fairlearn cannot sort mixed types."""
    mixed = len({type(label) for label in labels}) > 1
    return as_objects([str(label) for label in labels] if mixed else labels)


def fairlearn_intervals(
    metrics: list[ReportMetric], rows: Rows, counts: GroupCounts, n_boot: int, seed: int
) -> tuple[np.ndarray, ...]:
    """Compute intervals of functions that need samples, with fairlearn's bootstrap.

    Returns
    -------
    low, high, change_low, change_high : ndarray of shape \
            (n_models, n_metrics, n_controls, n_groups + 3)
        Changes of differences and ratios are NaN: fairlearn does not compute them.
    """
    latest, functions = {}, {}

    def value(m, k):
        def compute(numbers):
            latest[m, k] = float(rows.call(metrics[k], counts.models[m], numbers))
            return latest[m, k]

        return compute

    def change(m, k):  # for the same rows, since fairlearn calls the functions in their order
        return lambda _: latest[m, k] - latest[0, k]

    pairs = [(m, k) for m in range(len(counts.models)) for k in range(len(metrics))]
    functions = {f"value {m} {k}": value(m, k) for m, k in pairs}
    functions |= {f"change {m} {k}": change(m, k) for m, k in pairs}
    frame = _make_frame(
        functions,
        pd.DataFrame({"group": rows.group}),
        pd.DataFrame({"control": rows.control}),
        n_boot=n_boot,
        ci_quantiles=list(LEVELS),
        random_state=seed,
    )
    controls, groups = range(len(counts.controls)), range(len(counts.groups))
    cells = pd.MultiIndex.from_product([controls, groups])
    shape = (len(controls), len(groups), 2, len(counts.models), len(metrics))
    ends = []
    for end in range(2):
        by_group = frame.by_group_ci[end].reindex(cells).to_numpy(float).reshape(shape)
        compared = np.stack(
            [
                part[end].reindex(controls).to_numpy(float).reshape(len(controls), *shape[2:])
                for part in (frame.overall_ci, frame.difference_ci(), frame.ratio_ci())
            ],
            axis=1,
        )
        compared[:, 1:, 1] = np.nan  # the difference of changes is not the change of differences
        ends.append(np.moveaxis(np.concatenate([by_group, compared], axis=1), (0, 1), (3, 4)))
    both = np.stack(ends)
    both[:, np.isclose(both[0], both[1], rtol=0, atol=1e-12)] = np.nan  # as in percentile_interval
    (low, change_low), (high, change_high) = both
    return low, high, change_low, change_high


def _make_frame(
    functions: dict[str, Callable],
    sensitive_features: pd.DataFrame,
    control_features: pd.DataFrame | None,
    **bootstrap: Any,
) -> MetricFrame:
    """Make a MetricFrame that calls functions of row numbers, so that labels can have any type.

    Returns
    -------
    MetricFrame
    """
    rows = np.arange(len(sensitive_features))
    called = {
        name: lambda y_true, _, function=function: function(y_true)
        for name, function in functions.items()
    }
    # Hide warnings about rates without samples, since the report names these rates.
    with warning_filter("ignore", UserWarning), warning_filter("ignore", RuntimeWarning):
        return MetricFrame(
            metrics=called,
            y_true=rows,
            y_pred=rows,
            sensitive_features=sensitive_features,
            control_features=control_features,
            **bootstrap,
        )
