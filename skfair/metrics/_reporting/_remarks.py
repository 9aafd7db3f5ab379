"""The report for readers: its remarks, who gained and lost and what the numbers mean."""

from collections.abc import Callable

import numpy as np

from skfair.metrics._certificate import remarks as certificate_remarks
from skfair.metrics._counts import occurring
from skfair.metrics._html import group_label
from skfair.metrics._reporting._format import FEW, Content, format_value, metric_words, of_model
from skfair.metrics._reporting._measures import STATISTICS
from skfair.utils._shown import as_label, plain, shown, tell_apart

_NAMED = 4  # groups that a remark names


def report_remarks(report: Content) -> list[str]:
    """Say who gained and lost, which values are unreliable or undefined, and how to read them.

    Returns
    -------
    list of str
    """
    first, *others = report.summary.columns
    remarks = []
    for model in others:
        pair = f"{as_label(model)} against {as_label(first)}"
        remarks.append(f"{pair}: {_levelling(report, model)}.")
        changes = _disparity_changes(report, first, model)
        if changes:
            names = group_label(report.counts.group_names)
            remarks.append(f"{pair}, difference between groups ({names}) of {_list(changes)}.")
    remarks += _gaps(report)
    remarks.append(_legend(report))
    for model, certificate in report.certificates.items():
        words = " ".join(certificate_remarks(certificate))
        remarks.append(f"Certificate{of_model(report, model)}: {words}")
    return [plain(remark) for remark in remarks]


def _legend(report: Content) -> str:
    """Explain units, intervals and what is biased by chance."""
    counted = any(metric.counted is not None for metric in report.metrics)
    resampled = f", bootstrap ({report.n_boot:,} draws) for all other numbers" * bool(report.n_boot)
    sentences = [
        "Accuracies, rates, differences and changes are in percent."
        if counted
        else "Accuracies and their changes are in percent.",
        f"Brackets hold 95 % intervals, each for one number alone: Wilson's for shares{resampled}.",
        "A difference between groups and its interval are never below 0, so a small difference is "
        "overstated.",
    ]
    if len(report.summary.columns) > 1:
        sentences.append("Whether models differ is shown by the interval of the change.")
    sentences.append("With many small groups, the worst accuracy is low partly by chance.")
    return " ".join(sentences)


def _levelling(report: Content, model: str) -> str:
    """Count the groups that gained and lost, and those whose change is beyond chance."""
    table = report.by_group[model].assign(count=report.by_group["", "count"])
    gained = int((table["change"] > 0).sum())
    lost = table[table["change"] < 0].sort_values("change")
    remark = f"{number_of(gained, 'group')} gained, {len(lost)} lost"
    if table["change_high"].notna().any():
        # If all samples of a group change, all draws are equal and there is no interval.
        sure = (table["change_low"] > 0) | (table["change_high"] < 0) | (table["change"].abs() == 1)
        sure &= table["count"] >= FEW
        lost = lost[sure[lost.index]]
        surely = int((sure & (table["change"] > 0)).sum())
        remark += f"; beyond chance {surely} gained and {len(lost)} lost"
    if not len(lost):
        return remark
    named, names = [], tell_apart(report.by_group.index, write=group_label)
    for group, row in lost.iterrows():
        words = f"{names[group]} {100 * row['change']:+.1f}"
        if not np.isnan(row["change_low"]):
            words += f" [{100 * row['change_low']:.1f}, {100 * row['change_high']:.1f}]"
        named.append(words)
    return f"{remark} (levelled down: {_list(named)})"


def _disparity_changes(report: Content, first: str, model: str) -> list[str]:
    """Describe how the differences between groups changed; those beyond chance come first."""
    words = []
    for metric in report.metrics:
        for row, values in report.disparities.loc[[metric.name]].iterrows():
            if row[-1] != "difference" or np.isnan(values[model, "change"]):
                continue
            where = f" ({group_label(row[1:-1])})" if row[1:-1] else ""
            before = format_value(metric, values[first, "value"], np.nan, np.nan)
            after = format_value(metric, values[model, "value"], np.nan, np.nan)
            parts = (values[model, part] for part in ("change", "change_low", "change_high"))
            change = format_value(metric, *parts, sign="+")
            low, high = values[model, "change_low"], values[model, "change_high"]
            sure = low > 0 or high < 0
            words.append(
                (not sure, f"{metric_words(metric)}{where}: {before} -> {after} ({change})")
            )
    return [word for _, word in sorted(words, key=lambda word: word[0])]  # a stable sort


def _gaps(report: Content) -> list[str]:
    """Name groups that are small, alone, or without a value."""
    counts, remarks = report.counts, []
    size = report.by_group["", "count"]
    if (size < FEW).any():
        remarks.append(f"* Fewer than {FEW} samples, too few for a reliable value.")
    levels = list(range(1, 1 + len(counts.control_names)))
    first = report.metrics[0].name
    by_feature = report.by_feature.loc[[first]]
    if levels:
        alone = by_feature.groupby(level=levels, sort=False).size()
        names = tell_apart(alone.index, write=group_label)
        alone = [names[level] for level in alone.index[alone == 1]]
        if alone:
            remarks.append(f"Only one group, so there is nothing to compare, in: {_list(alone)}.")
    elif len(by_feature) == 1:
        remarks.append("Only one group, so there is nothing to compare.")
    left_out = _left_out(report)
    if left_out:
        remarks.append(f"Left out, because all samples have weight 0: {_list(left_out)}.")
    undefined = []
    names = tell_apart([row[1:] for row in by_feature.index], STATISTICS, group_label)
    for metric in report.metrics:
        for row, values in report.by_feature.loc[[metric.name]].iterrows():
            missing = [model for model in counts.models if np.isnan(values[model, "value"])]
            if missing:
                of = (
                    ""
                    if len(missing) == len(counts.models)
                    else f" of {group_label(tuple(missing))}"
                )
                undefined.append(f"{metric_words(metric)}{of} in {names[row[1:]]}")
    if undefined:
        remarks.append(f"Undefined, so left out of differences and ratios: {_list(undefined)}.")
    counted = [metric.name for metric in report.metrics if metric.counted]
    compared = report.disparities[report.disparities.index.get_level_values(0).isin(counted)]
    bare = [compared[m]["low"].isna() & compared[m]["value"].notna() for m in counts.models]
    if report.n_boot and np.any(bare):
        remarks.append(
            "A difference or ratio has no interval if resampling gives no information: all draws "
            "are equal, or rare groups move the draws away from the value."
        )
    for m, model in enumerate(counts.models):
        strange = counts.cells[:, 3 + m] >= len(counts.classes)
        if strange.any():
            labels = [shown(counts.predicted[i]) for i in np.unique(counts.cells[strange, 3 + m])]
            remarks.append(
                f"{number_of(int(counts.size[strange].sum()), 'prediction')} of {as_label(model)}: "
                f"not a label of y_true, so counted as wrong: {_list(labels)}."
            )
    if len(counts.predicted) == 2 and all(
        metric.counted and not metric.counted.needs_positive for metric in report.metrics
    ):
        remarks.append(
            "To see selection rates and true and false positive rates, name the positive class, "
            f"for instance pos_label={shown(counts.classes[-1])}."
        )
    return remarks


def _left_out(report: Content) -> list[str]:
    """Name what has no row in a table because its weight is zero, as shortly as possible."""
    counts = report.counts
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
    return list(tell_apart(flat, STATISTICS, group_label).values())


def _list(words: list[str]) -> str:
    more = [f"and {len(words) - _NAMED} more"] if len(words) > _NAMED else []
    return "; ".join(words[:_NAMED] + more)


def number_of(n: int, noun: str) -> str:
    """Write a number with its noun, in the plural if need be.

    Returns
    -------
    str
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
