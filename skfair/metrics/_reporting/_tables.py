"""The tables of a report, from its counts and measures."""

import numpy as np
import pandas as pd

from skfair.metrics._counts import GroupCounts
from skfair.metrics._intervals import wilson_interval
from skfair.metrics._reporting._functions import ReportMetric
from skfair.metrics._reporting._measures import STATISTICS, Measures
from skfair.utils._groups import label_rows


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
    index = pd.MultiIndex.from_tuples(
        [row for row, there in zip(rows, present, strict=True) if there], names=names
    )
    return pd.DataFrame(columns, index=index), pd.DataFrame(summary)


def feature_tables(
    counts: GroupCounts, metrics: list[ReportMetric], measures: Measures
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the table of metrics by features and the table of disparities.

    Returns
    -------
    by_feature, disparities : DataFrame
    """
    size = counts.tables(None, counts.size).sum(axis=(2, 3)).astype(np.int64)
    controls = label_rows(counts.controls, counts.control_names) if counts.control_names else [()]
    groups = label_rows(counts.groups, counts.group_names)
    statistics = [(name,) for name in STATISTICS]
    n_groups = len(groups)
    tables = []
    for part, labels, name in (
        (slice(n_groups), groups, counts.group_names),
        (slice(n_groups, None), statistics, (_free_name("statistic", "the statistic", counts),)),
    ):
        # Only combinations that occur: a control level may lack some groups.
        there = size if labels is groups else np.repeat(size.sum(axis=1)[:, None], 3, axis=1)
        present = np.broadcast_to(there > 0, (len(metrics), *there.shape))
        columns = {}
        if labels is groups:
            columns["", "count"] = np.broadcast_to(size, present.shape)[present]
        for m, model in enumerate(counts.models):
            for column in ("value", "low", "high"):
                source = measures.values if column == "value" else getattr(measures, column)
                columns[model, column] = source[m, :, :, part][present]
            if m:
                change = measures.values[m] - measures.values[0]
                columns[model, "change"] = change[:, :, part][present]
                for column in ("change_low", "change_high"):
                    columns[model, column] = getattr(measures, column)[m, :, :, part][present]
        rows = [
            (metrics[k].name, *controls[c], *labels[g])
            for k, c, g in zip(*np.nonzero(present), strict=True)
        ]
        names = (_free_name("metric", "the metric", counts), *counts.control_names, *name)
        tables.append(pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(rows, names=names)))
    return tables[0], tables[1]


def _free_name(name: str, other: str, counts: GroupCounts) -> str:
    """Name a level of an index; take `other` if a feature has the same name."""
    return other if name in (*counts.group_names, *counts.control_names) else name
