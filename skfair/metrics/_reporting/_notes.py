"""How to read a report: what the numbers mean, and what is missing and why."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from skfair.metrics._counts import GroupCounts, occurring
from skfair.metrics._html import group_label
from skfair.metrics._reporting._measures import STATISTICS
from skfair.metrics._reporting._tests import LEVEL
from skfair.utils._shown import as_label, plain, shown, tell_apart

_NAMED = 4  # groups that a note names


def notes(report: Any, models: dict[str, str]) -> list[str]:
    """Explain the numbers of a report, and name what is missing.

    Parameters
    ----------
    report : ReportTables
        The tables.
    models : dict of str to str
        Written name of each model.

    Returns
    -------
    list of str
    """
    found = [
        *_reading(report),
        *_small_groups(report),
        *_nothing_to_compare(report),
        *_left_out(report.counts),
        *_undefined(report),
        *_without_interval(report),
        *_strange_labels(report.counts, models),
        *_positive_class(report),
    ]
    return [plain(note) for note in found]


def _reading(report: Any) -> Iterator[str]:
    """Explain units, intervals, and what chance does."""
    counted = any(metric.counted is not None for metric in report.metrics)
    several = len(report.counts.models) > 1
    yield (
        "Accuracies, rates, differences and changes are in percent."
        if counted
        else "Accuracies and their changes are in percent."
    ) + " Where low or high values are worse, the worst group comes first." * counted
    resampled = f", a bootstrap ({report.n_boot:,} draws) for all other numbers"
    words = "Brackets hold 95 % intervals, each for one number alone: Wilson's for shares"
    yield f"{words}{resampled if report.n_boot else ''}."
    if several:
        approximate = "" if _equal_weights(report.counts) else ", approximate with weights"
        yield (
            "Beyond chance: McNemar's test of the change of each group, adjusted for the number of "
            f"groups (Holm), at a level of {100 * LEVEL:g} %{approximate}. A group that cannot be "
            "told may have gained or lost."
        )
    yield (
        "The worst of many groups is worst partly by chance, and a difference between groups is "
        "never below 0: small differences are overstated."
        + " Whether models differ is shown by the interval of the change."
        * several
    )


def _equal_weights(counts: GroupCounts) -> bool:
    return bool(np.all(counts.weight == counts.weight[0]))


def _small_groups(report: Any) -> Iterator[str]:
    """Count the values that rest on too few samples."""
    few = (
        f"Not estimable: a value with fewer than {report.min_count} samples behind it (for a share,"
    )
    few += " in its denominator). Differences and ratios leave such groups out:"
    small = []
    n = int((report.by_group["", "count"] < report.min_count).sum())
    if n:
        small.append(f"accuracy by class, {n} of {len(report.by_group)}")
    for metric in report.metrics:
        estimable = report.estimable.loc[[metric.name]]
        n = int((~estimable.any(axis=1)).sum())
        if n:
            small.append(f"{as_label(metric.name.replace('_', ' '))}, {n} of {len(estimable)}")
    if small:
        yield f"{few} {_list(small)}."


def _nothing_to_compare(report: Any) -> Iterator[str]:
    """Name the control levels that have one group."""
    by_feature = report.by_feature.loc[[report.metrics[0].name]]
    levels = list(range(1, 1 + len(report.counts.control_names)))
    if not levels:
        if len(by_feature) == 1:
            yield "Only one group, so there is nothing to compare."
        return
    sizes = by_feature.groupby(level=levels, sort=False).size()
    names = tell_apart(sizes.index, write=group_label)
    alone = [names[level] for level in sizes.index[sizes == 1]]
    if alone:
        yield f"Only one group, so there is nothing to compare, in: {_list(alone)}."


def _undefined(report: Any) -> Iterator[str]:
    """Name the groups in which a metric is undefined."""
    models = report.counts.models
    rows = report.by_feature.loc[[report.metrics[0].name]].index
    names = tell_apart([row[1:] for row in rows], STATISTICS, group_label)
    undefined = []
    for metric in report.metrics:
        table = report.by_feature.loc[[metric.name]]
        bare = np.column_stack([table[model, "value"].isna() for model in models])
        for row, which in zip(table.index[bare.any(axis=1)], bare[bare.any(axis=1)], strict=True):
            missing = [model for model, gone in zip(models, which, strict=True) if gone]
            of = "" if len(missing) == len(models) else f" of {group_label(tuple(missing))}"
            words = as_label(metric.name.replace("_", " "))
            undefined.append(f"{words}{of} in {names[row[1:]]}")
    if undefined:
        yield f"Undefined, so left out of differences and ratios: {_list(undefined)}."


def _without_interval(report: Any) -> Iterator[str]:
    counted = [metric.name for metric in report.metrics if metric.counted]
    compared = report.gaps[report.gaps.index.get_level_values(0).isin(counted)]
    bare = [
        compared[model]["low"].isna() & compared[model]["value"].notna()
        for model in report.counts.models
    ]
    if report.n_boot and np.any(bare):
        yield (
            "A difference or ratio has no interval if resampling gives no information: all draws "
            "are equal, or rare groups move the draws away from the value."
        )


def _strange_labels(counts: GroupCounts, models: dict[str, str]) -> Iterator[str]:
    """Name predicted labels that are no label of y_true."""
    for m, model in enumerate(counts.models):
        strange = counts.cells[:, 3 + m] >= len(counts.classes)
        if strange.any():
            labels = [shown(counts.predicted[i]) for i in np.unique(counts.cells[strange, 3 + m])]
            n = int(counts.size[strange].sum())
            noun = "prediction" if n == 1 else "predictions"
            yield (
                f"{n:,} {noun} of {models[model]}: not a label of y_true, so counted as wrong: "
                f"{_list(labels)}."
            )


def _positive_class(report: Any) -> Iterator[str]:
    if len(report.counts.predicted) == 2 and all(
        metric.counted and not metric.counted.needs_positive for metric in report.metrics
    ):
        yield (
            "To see selection rates and true and false positive rates, name the positive class, "
            f"for instance pos_label={shown(report.counts.classes[-1])}; on the command line, with "
            "--pos-label."
        )


def _left_out(counts: GroupCounts) -> Iterator[str]:
    """Name what has no row in a table because its weight is zero, as shortly as possible."""
    found, rest = occurring(counts), counts.left_out
    # A group as a whole; else a group in a class; else a group in a level of the controls.
    parts: list[Callable] = [lambda control, group, label: (group,)]
    parts.append(lambda control, group, label: (label, group))
    if counts.control_names:
        parts.append(lambda control, group, label: (control, group))
    named: dict[tuple, None] = {}
    for part in parts:
        known = {part(*row) for row in found}
        named |= dict.fromkeys(part(*row) for row in rest if part(*row) not in known)
        rest = tuple(row for row in rest if part(*row) in known)
    flat = [
        tuple(x for label in labels for x in (label if isinstance(label, tuple) else (label,)))
        for labels in named
    ]
    words = list(tell_apart(flat, STATISTICS, group_label).values())
    if words:
        yield f"Left out, because all samples have weight 0: {_list(words)}."


def _list(words: list[str]) -> str:
    more = [f"and {len(words) - _NAMED} more"] if len(words) > _NAMED else []
    return "; ".join(words[:_NAMED] + more)
