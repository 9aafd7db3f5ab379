"""The tables of a report, from its counts and measures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from skfair.metrics._counts import GroupCounts
from skfair.metrics._intervals import wilson_interval
from skfair.metrics._reporting._functions import ReportMetric
from skfair.metrics._reporting._measures import STATISTICS, Measures
from skfair.metrics._reporting._tests import LEVEL, change_p_values, share_limits
from skfair.utils._groups import label_rows
from skfair.utils._labels import as_objects

HIGHEST = "highest"  # the reference group is the group with the highest value
_PARTS = ("value", "low", "high")
_CHANGES = ("change", "change_low", "change_high")


def class_tables(counts: GroupCounts, measures: Measures) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the table by class and group, and the summary of the models.

    Returns
    -------
    by_group, summary : DataFrame
    """
    size, weight, squares = (
        table.sum(axis=(0, 3)).T.ravel()
        for table in counts.tables(
            None, np.stack([counts.size * counts.weight**power for power in range(3)])
        )
    )
    present = size > 0
    effective = weight[present] ** 2 / squares[present]
    columns = {("", "count"): size[present].astype(np.int64)}
    summary, first = {}, None
    for m, model in enumerate(counts.models):
        accuracy = counts.accuracy(model).T.ravel()[present]
        columns[model, "accuracy"] = accuracy
        columns[model, "low"], columns[model, "high"] = wilson_interval(accuracy, effective)
        if first is None:
            first = accuracy
        else:
            columns[model, "change"] = accuracy - first
            columns[model, "change_low"] = measures.class_change_low[m].T.ravel()[present]
            columns[model, "change_high"] = measures.class_change_high[m].T.ravel()[present]
            columns[model, "change_p"] = change_p_values(counts, model).T.ravel()[present]
        summary[model] = {
            "overall_accuracy": counts.correct(model).sum() / counts.table(model).sum(),
            "worst_group_accuracy": accuracy.min(),
            "average_group_accuracy": accuracy.mean(),
        }
    names = (_free_name("class", "true class", counts), *counts.group_names)
    rows = [
        (label, *group)
        for label in counts.classes
        for group in label_rows(counts.groups, counts.group_names)
    ]
    index = _index([row for row, there in zip(rows, present, strict=True) if there], names)
    return pd.DataFrame(columns, index=index), pd.DataFrame(summary)


def feature_tables(
    counts: GroupCounts, metrics: list[ReportMetric], measures: Measures, min_count: int
) -> tuple[pd.DataFrame, ...]:
    """Make the table of metrics by features, the disparities, and those of estimable groups.

    Returns
    -------
    by_feature, disparities, gaps, estimable : DataFrame
    """
    size = counts.tables(None, counts.size).sum(axis=(2, 3)).astype(np.int64)
    n_groups = len(counts.groups)
    groups = label_rows(counts.groups, counts.group_names)
    present = np.broadcast_to(size > 0, (len(metrics), *size.shape))
    columns: dict[tuple, Any] = {("", "count"): np.broadcast_to(size, present.shape)[present]}
    for m, model in enumerate(counts.models):
        columns |= _columns(measures, m, model, slice(n_groups), present)
    index = _feature_index(counts, metrics, present, groups, counts.group_names)
    by_feature = pd.DataFrame(columns, index=index)
    estimable = measures.behind >= min_count
    whether = pd.DataFrame(
        {model: of[present] for model, of in zip(counts.models, estimable, strict=True)},
        index=index,
    )
    tables = []
    for names, part, kept in (
        (STATISTICS, slice(n_groups, n_groups + 3), np.ones_like(estimable)),
        (STATISTICS[1:], slice(n_groups + 3, None), estimable),
    ):
        levels = np.repeat((size.sum(axis=1) > 0)[:, None], len(names), axis=1)
        present = np.broadcast_to(levels, (len(metrics), *levels.shape))
        columns = {}
        statistic = (_free_name("statistic", "the statistic", counts),)
        index = _feature_index(counts, metrics, present, [(name,) for name in names], statistic)
        if kept is estimable:
            left_out = (~estimable.all(axis=0) & (size > 0)).sum(axis=-1)
            columns["", "left_out"] = np.repeat(left_out[..., None], 2, axis=-1)[present]
        for m, model in enumerate(counts.models):
            columns |= _columns(measures, m, model, part, present)
            values = np.where(kept[m], measures.values[m, ..., :n_groups], np.nan)
            if kept is estimable:
                for name, which in (("lowest", np.argmin), ("highest", np.argmax)):
                    labels = _extremes(values, which, counts.groups)
                    labels = np.repeat(labels[..., None], 2, axis=-1)
                    columns[model, name] = _as_objects(labels[present], index)
        tables.append(pd.DataFrame(columns, index=index))
    return by_feature, *tables, whether


def _columns(
    measures: Measures, m: int, model: str, part: slice, present: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """Take values, changes and their intervals of a model."""
    sources = {
        "value": measures.values[m],
        "low": measures.low[m],
        "high": measures.high[m],
        "change": measures.values[m] - measures.values[0],
        "change_low": measures.change_low[m],
        "change_high": measures.change_high[m],
    }
    names = (*_PARTS, *_CHANGES) if m else _PARTS
    return {(model, name): sources[name][:, :, part][present] for name in names}


def _extremes(values: np.ndarray, which: Any, groups: Sequence) -> np.ndarray:
    """Find the group with the smallest or largest value; None with fewer than two values."""
    empty = np.inf if which is np.argmin else -np.inf
    found = which(np.where(np.isnan(values), empty, values), axis=-1)
    labels = np.full(found.shape, None, dtype=object)
    for place in zip(*np.nonzero((~np.isnan(values)).sum(axis=-1) > 1), strict=True):
        labels[place] = groups[found[place]]
    return labels


def _as_objects(labels: np.ndarray, index: pd.Index) -> pd.Series:
    """Keep labels and None as they are; of a bare array, pandas 3 would make text and NaN."""
    return pd.Series(labels, index=index, dtype=object)


def _feature_index(
    counts: GroupCounts,
    metrics: list[ReportMetric],
    present: np.ndarray,
    labels: Sequence[tuple],
    names: Sequence[str],
) -> pd.MultiIndex:
    """Label the rows of a table: metric, control features, then groups or statistics."""
    controls = label_rows(counts.controls, counts.control_names) if counts.control_names else [()]
    rows = [
        (metrics[k].name, *controls[c], *labels[g])
        for k, c, g in zip(*np.nonzero(present), strict=True)
    ]
    names = (_free_name("metric", "the metric", counts), *counts.control_names, *names)
    return _index(rows, names)


def _index(rows: list[tuple], names: Sequence[str]) -> pd.MultiIndex:
    try:
        return pd.MultiIndex.from_tuples(rows, names=names)
    except UnicodeEncodeError:  # half of a surrogate pair, which pandas 3 cannot hold as text
        levels = [pd.Index(as_objects(column), dtype=object) for column in zip(*rows, strict=True)]
        return pd.MultiIndex.from_arrays(levels, names=names)


def reference_table(
    counts: GroupCounts,
    metrics: list[ReportMetric],
    measures: Measures,
    min_count: int,
    reference: Any,
    threshold: float | None,
) -> pd.DataFrame:
    """Compare each group with a reference group.

    Returns
    -------
    DataFrame
        See `FairnessReport.by_reference`.
    """
    n_groups = len(counts.groups)
    size = counts.tables(None, counts.size).sum(axis=(2, 3))
    present = np.broadcast_to(size > 0, (len(metrics), *size.shape))
    groups = label_rows(counts.groups, counts.group_names)
    index = _feature_index(counts, metrics, present, groups, counts.group_names)
    columns: dict[tuple, Any] = {}
    for m, model in enumerate(counts.models):
        value = measures.values[m, ..., :n_groups]
        estimable = (measures.behind[m] >= min_count) & ~np.isnan(value)
        if isinstance(reference, str) and reference == HIGHEST:
            position = np.argmax(np.where(estimable, value, -np.inf), axis=-1)
            n_chosen_from = np.maximum(estimable.sum(axis=-1), 1)
        else:
            position = np.full(value.shape[:-1], counts.groups.index(reference))
            n_chosen_from = np.ones(value.shape[:-1])
        there = np.take_along_axis(estimable, position[..., None], axis=-1)
        base = np.where(there, np.take_along_axis(value, position[..., None], axis=-1), np.nan)
        is_reference = (np.arange(n_groups) == position[..., None]) & there
        low, high, base_low, base_high = _limits(counts, metrics, m, value, n_chosen_from)
        base_low, base_high = (
            np.where(there, np.take_along_axis(x, position[..., None], axis=-1), np.nan)
            for x in (base_low, base_high)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = {
                "difference": value - base,
                "difference_low": low - base_high,
                "difference_high": high - base_low,
                "ratio": np.where(base > 0, value / base, np.nan),
                "ratio_low": np.where(base_high > 0, low / base_high, np.nan),
                "ratio_high": np.where(base_low > 0, high / base_low, np.inf),
            }
        parts["ratio_high"][np.isnan(parts["ratio_low"])] = np.nan
        for name in parts:
            if name not in ("difference", "ratio"):
                parts[name][is_reference] = np.nan
        labels = np.full(value.shape, None, dtype=object)
        for place in zip(*np.nonzero(there[..., 0]), strict=True):
            for g in range(n_groups):
                labels[(*place, g)] = counts.groups[position[place]]
        columns |= {(model, name): part[present] for name, part in parts.items()}
        columns[model, "reference"] = _as_objects(labels[present], index)
        if threshold is not None:
            meets = np.full(value.shape, "cannot tell", dtype=object)
            meets[parts["ratio_low"] >= threshold] = "yes"
            meets[parts["ratio_high"] < threshold] = "no"
            meets[is_reference] = "yes"
            meets[~estimable] = "not estimable"
            columns[model, "meets"] = _as_objects(meets[present], index)
    return pd.DataFrame(columns, index=index)


def _limits(
    counts: GroupCounts,
    metrics: list[ReportMetric],
    m: int,
    value: np.ndarray,
    n_chosen_from: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Limits of each group, and wider limits of each group as the reference; NaN for no shares.

    Half of the error goes to the group and half to the reference. If the reference is the highest
    of several groups, its half is divided by their number, so that the limits hold for all of them
    at once, and so for the group that was chosen.
    """
    low, high, base_low, base_high = np.full((4, *value.shape), np.nan)
    table, squares = counts.tables(
        counts.models[m], np.stack([counts.size * counts.weight, counts.size * counts.weight**2])
    )
    for k, metric in enumerate(metrics):
        counted = metric.counted
        if counted is None or not counted.is_share:
            continue
        weight, squared = (counted.fraction(part, metric.positive)[1] for part in (table, squares))
        n = np.divide(weight**2, squared, out=np.zeros_like(weight), where=squared > 0)
        low[k], high[k] = share_limits(value[k], n, LEVEL / 4)
        base_low[k], base_high[k] = share_limits(value[k], n, LEVEL / 4 / n_chosen_from[k][:, None])
    return low, high, base_low, base_high


def _free_name(name: str, other: str, counts: GroupCounts) -> str:
    """Name a level of an index; take `other` if a feature has the same name."""
    return other if name in (*counts.group_names, *counts.control_names) else name
