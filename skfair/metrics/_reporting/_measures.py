"""The numbers of a report: metrics by group, differences and ratios, with intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairlearn import metrics as fairlearn_metrics
from sklearn import metrics as sklearn_metrics

from skfair.metrics._counts import GroupCounts
from skfair.metrics._intervals import percentile_interval, resample_sizes, wilson_interval
from skfair.metrics._rates import (
    CountMetric,
    find_count_metric,
    is_of_scores,
    positive_is_clear,
    positive_position,
)
from skfair.metrics._reporting._functions import ReportMetric, Rows, fairlearn_intervals
from skfair.metrics._samples import check_table, class_accuracy
from skfair.utils._shown import shown

_ROUNDING = 1e-9
_MOST_DRAWN = 2**28  # most numbers that a bootstrap keeps: 2 GiB
_AT_ONCE = 2**24  # numbers in the tables of the draws that are counted together
STATISTICS = ("overall", "difference", "ratio")
# Behind the groups: the statistics above, then difference and ratio of the estimable groups alone.
N_STATISTICS = len(STATISTICS) + 2


def resolve_metrics(metrics: Any, counts: GroupCounts, pos_label: Any) -> list[ReportMetric]:
    """Check and name the metrics, and find those that can be computed from counts.

    Returns
    -------
    list of ReportMetric
    """
    occurring = np.unique(counts.cells[:, 2:])  # samples of weight zero have no cells
    labels = [counts.predicted[i] for i in occurring]
    if pos_label is not None:
        positive_position(labels, pos_label, "pos_label")
    if metrics is None:
        metrics = {"accuracy": sklearn_metrics.accuracy_score}
        if pos_label is not None or positive_is_clear(labels):
            rates = ("selection_rate", "true_positive_rate", "false_positive_rate")
            metrics |= {rate: getattr(fairlearn_metrics, rate) for rate in rates}
    resolved = []
    for name, function in _name_metrics(metrics).items():
        counted = find_count_metric(function, len(labels))
        positive = 0
        if counted is not None and counted.needs_positive:
            position = positive_position(labels, pos_label, name)
            positive = occurring[position] if position < len(labels) else len(counts.predicted)
        resolved.append(ReportMetric(name, function, counted is not None, int(positive)))
    return resolved


def _name_metrics(metrics: Any) -> dict[str, Callable]:
    example = "for instance [sklearn.metrics.accuracy_score] or {'accuracy': accuracy_score}"
    named: list[tuple[str | None, Any, str]]
    if isinstance(metrics, Mapping):
        named = [(str(name), metric, f"metrics[{shown(name)}]") for name, metric in metrics.items()]
    elif isinstance(metrics, list | tuple):
        named = [
            (getattr(metric, "__name__", None), metric, f"metrics[{i}]")
            for i, metric in enumerate(metrics)
        ]
    else:
        raise TypeError(
            f"metrics is a {type(metrics).__name__}; give a list of functions, or a dict of names "
            f"to functions, {example}."
        )
    if not named:
        raise ValueError("metrics is empty. Give at least one function, or None for the default.")
    result = {}
    for name, metric, where in named:
        if not callable(metric):
            raise TypeError(
                f"{where} is {metric!r}, expected a function of y_true and y_pred"
                f"{_suggest(metric) if isinstance(metric, str) else ''}."
            )
        if is_of_scores(metric):
            function = getattr(metric, "func", metric)  # of a partial
            raise TypeError(
                f"{where} is {function.__name__}, a metric of scores, but a report is made from "
                "predicted labels. Use fairlearn's MetricFrame, or make_fairness_scorer("
                f"{function.__name__}, ..., response_method='predict_proba')."
            )
        if name is None:
            raise TypeError(f"{where} ({metric!r}) has no name. Give a dict of names to functions.")
        if name in result:
            raise ValueError(
                f"metrics has two functions named {shown(name)}. Give a dict with other names."
            )
        result[name] = metric
    return result


def _suggest(name: str) -> str:
    for module in (sklearn_metrics, fairlearn_metrics):
        for known in (name, f"{name}_score", f"{name}_rate"):
            if callable(getattr(module, known, None)):
                return f": give the function itself, {module.__name__}.{known}"
    return ": give the function itself, for instance sklearn.metrics.accuracy_score"


@dataclass(frozen=True, eq=False)
class Measures:
    """The numbers of a report.

    Attributes
    ----------
    values, low, high, change_low, change_high : ndarray of shape \
            (n_models, n_metrics, n_controls, n_groups + 5)
        The last axis has the groups, then overall, difference and ratio, then difference and ratio
        of the estimable groups alone. A change is the difference from the first model.
    class_change_low, class_change_high : ndarray of shape (n_models, n_groups, n_classes)
        Intervals of the change in accuracy by group and class.
    behind : ndarray of shape (n_models, n_metrics, n_controls, n_groups), float64
        Number of samples behind each value: the denominator of a share, otherwise the samples of
        the group.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    change_low: np.ndarray
    change_high: np.ndarray
    class_change_low: np.ndarray
    class_change_high: np.ndarray
    behind: np.ndarray


def measure(
    counts: GroupCounts,
    metrics: list[ReportMetric],
    pos_label: Any,
    n_boot: int,
    n_boot_functions: int,
    seed: int,
    min_count: int,
) -> Measures:
    """Compute all metrics of all models, with intervals.

    Returns
    -------
    Measures
    """
    n_models, n_groups = len(counts.models), len(counts.groups)
    n_classes, n_controls = len(counts.classes), len(counts.controls)
    check_table(n_groups, n_classes, len(counts.predicted), n_controls)
    n_kept = len(metrics) * n_controls * (n_groups + N_STATISTICS) + n_groups * n_classes
    n_kept *= n_models
    if n_boot * n_kept > _MOST_DRAWN:
        raise ValueError(
            f"n_boot={n_boot:,} draws (None means 1,000) of {n_kept:,} numbers, by {n_groups:,} "
            f"groups of sensitive_features and {n_classes:,} classes, take "
            f"{8 * n_boot * n_kept:,} bytes. Give labels that many samples share, merge rare ones, "
            "or give fewer draws: n_boot=0 for none."
        )
    shape = (n_models, len(metrics), n_controls, n_groups + N_STATISTICS)
    values, low, high, change_low, change_high = (np.full(shape, np.nan) for _ in range(5))
    behind = _behind(counts, metrics)
    estimable = behind >= min_count
    class_low, class_high = np.full((2, n_models, n_groups, len(counts.classes)), np.nan)
    called = [k for k, metric in enumerate(metrics) if metric.counted is None]
    if called:  # first, so that their errors come early
        rows = Rows(counts, pos_label)
        for k in called:
            for m, model in enumerate(counts.models):
                values[m, k] = compare(*rows.by_group(metrics[k], model, counts), estimable[m, k])
    counted = {k: of for k, metric in enumerate(metrics) if (of := metric.counted) is not None}
    for m, model in enumerate(counts.models):
        table, squares = counts.tables(
            model, np.stack([counts.size * counts.weight, counts.size * counts.weight**2])
        )
        for k, metric in counted.items():
            positive = metrics[k].positive
            values[m, k] = _from_counts(metric, positive, table, estimable[m, k])
            if metric.is_share:
                samples = _effective(metric, positive, table, squares)
                shares = values[m, k, :, : n_groups + 1]
                low[m, k, :, : n_groups + 1], high[m, k, :, : n_groups + 1] = wilson_interval(
                    shares, samples
                )
    if n_boot:
        drawn_low, drawn_high, *changes = _bootstrap(
            counts, metrics, counted, n_boot, seed, estimable
        )
        wilson = ~np.isnan(low)
        low, high = np.where(wilson, low, drawn_low), np.where(wilson, high, drawn_high)
        change_low, change_high, class_low, class_high = changes
    if n_boot_functions and called:
        intervals = fairlearn_intervals(
            [metrics[k] for k in called], rows, counts, n_boot_functions, seed
        )
        for array, part in zip((low, high, change_low, change_high), intervals, strict=True):
            array[:, called, :, :-2] = part
        # fairlearn compares all groups, and its intervals are those of the estimable groups only
        # where these are the same groups.
        same = (estimable | ~_occurring(counts))[:, called].all(axis=-1)[..., None]
        for array in (low, high, change_low, change_high):
            array[:, called, :, -2:] = np.where(same, array[:, called, :, -4:-2], np.nan)
    for value, bottom, top in (
        (values, low, high),
        (values - values[:1], change_low, change_high),
    ):
        # A draw may be a number though the value is undefined. Draws may miss rare groups or make
        # them extreme, which moves a difference away from its value. Such intervals are useless.
        useless = ~((bottom <= value + _ROUNDING) & (value <= top + _ROUNDING))
        bottom[useless] = top[useless] = np.nan
    return Measures(values, low, high, change_low, change_high, class_low, class_high, behind)


def _occurring(counts: GroupCounts) -> np.ndarray:
    """Tell which groups occur in which control level: ndarray of shape (n_controls, n_groups)."""
    return counts.tables(None, counts.size).sum(axis=(2, 3)) > 0


def _behind(counts: GroupCounts, metrics: list[ReportMetric]) -> np.ndarray:
    """Count the samples behind each value of a metric in a group."""
    behind = np.empty((len(counts.models), len(metrics), len(counts.controls), len(counts.groups)))
    for m, model in enumerate(counts.models):
        table = counts.tables(model, counts.size)
        for k, metric in enumerate(metrics):
            counted = metric.counted
            behind[m, k] = (
                counted.fraction(table, metric.positive)[1]
                if counted is not None and counted.is_share
                else table.sum(axis=(-2, -1))
            )
    return behind


def _bootstrap(
    counts: GroupCounts,
    metrics: list[ReportMetric],
    counted: dict[int, CountMetric],
    n_boot: int,
    seed: int,
    estimable: np.ndarray,
) -> list[np.ndarray]:
    """Compute intervals of values and changes by bootstrap, with the same draws for all models.

    Returns
    -------
    list of ndarray
        In the order of :class:`Measures`, from `low`; NaN for metrics not in `counted`.
    """
    draws: list[list[tuple[list[np.ndarray], np.ndarray]]] = [[] for _ in counts.models]
    n_groups, n_classes = len(counts.groups), len(counts.classes)
    n_cells = len(counts.controls) * n_groups * n_classes * len(counts.predicted)
    at_once = max(1, _AT_ONCE // n_cells)
    for many in resample_sizes(counts.size, n_boot, seed):
        for start in range(0, len(many), at_once):
            sizes = many[start : start + at_once]
            for m, model in enumerate(counts.models):
                table = counts.tables(model, sizes * counts.weight)
                of_metrics = [
                    _from_counts(of, metrics[k].positive, table, estimable[m, k])
                    for k, of in counted.items()
                ]
                draws[m].append((of_metrics, class_accuracy(table.sum(axis=1))))
    shape = (len(draws), len(metrics), len(counts.controls), n_groups + N_STATISTICS)
    low, high, change_low, change_high = np.full((4, *shape), np.nan)
    class_low, class_high = np.full((2, len(draws), n_groups, n_classes), np.nan)
    first = None
    for m in range(len(draws)):
        of_classes = np.concatenate([by_class for _, by_class in draws[m]])
        of_metrics = [
            np.concatenate([values[i] for values, _ in draws[m]]) for i in range(len(counted))
        ]
        draws[m] = []  # they are large
        if first is None:
            first = of_metrics, of_classes
        else:
            class_low[m], class_high[m] = percentile_interval(of_classes - first[1])
        for k, drawn, of_first in zip(counted, of_metrics, first[0], strict=True):
            low[m, k], high[m, k] = percentile_interval(drawn)
            if m:
                change_low[m, k], change_high[m, k] = percentile_interval(drawn - of_first)
    return [low, high, change_low, change_high, class_low, class_high]


def compare(by_group: np.ndarray, overall: np.ndarray, estimable: np.ndarray) -> np.ndarray:
    """Append the overall value, differences and ratios to the values of the groups.

    Parameters
    ----------
    by_group : ndarray of shape (..., n_groups)
        NaN for groups in which the metric is undefined; these groups are left out.
    overall : ndarray of shape (...)
    estimable : ndarray of shape (..., n_groups), bool
        The groups of the second difference and ratio.

    Returns
    -------
    ndarray of shape (..., n_groups + 5)
        Difference and ratio are NaN if fewer than two groups are defined.
    """
    defined = ~np.isnan(by_group)
    added = [overall, *_difference_and_ratio(by_group, defined)]
    compared = defined & estimable
    # The second comparison costs as much as the first, and is mostly the same.
    same = estimable.all() or np.array_equal(compared, defined)
    added += added[1:] if same else _difference_and_ratio(by_group, compared)
    return np.concatenate([by_group, np.stack(added, axis=-1)], axis=-1)


def _difference_and_ratio(by_group: np.ndarray, where: np.ndarray) -> list[np.ndarray]:
    several = where.sum(axis=-1) > 1
    least = np.min(by_group, axis=-1, initial=np.inf, where=where)
    most = np.max(by_group, axis=-1, initial=-np.inf, where=where)
    nothing = np.full(least.shape, np.nan)
    with np.errstate(invalid="ignore"):  # infinite values of a user's metric
        difference = np.subtract(most, least, out=nothing.copy(), where=several)
        ratio = np.divide(least, most, out=nothing, where=several & (most != 0))
    return [difference, ratio]


def _from_counts(
    metric: CountMetric, positive: int, table: np.ndarray, estimable: np.ndarray
) -> np.ndarray:
    """Compute a metric by control level and group, and compare the groups."""
    by_group = metric(table, positive)
    return compare(by_group, metric(table.sum(axis=-3), positive), estimable)


def _effective(
    metric: CountMetric, positive: int, table: np.ndarray, squares: np.ndarray
) -> np.ndarray:
    """Effective number of samples behind shares, by group and over all: (sum w)² / (sum w²)."""
    weight, squared = (
        np.concatenate(
            [
                metric.fraction(part, positive)[1],
                metric.fraction(part.sum(axis=-3), positive)[1][:, None],
            ],
            axis=-1,
        )
        for part in (table, squares)
    )
    return np.divide(weight**2, squared, out=np.full(weight.shape, np.nan), where=squared > 0)
