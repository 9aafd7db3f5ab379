"""The fairness report: one or several models, group by group, with counts and intervals."""

import html
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame, count
from sklearn.metrics import accuracy_score

from skfair.metrics._counts import GroupCounts, Samples, encode_samples
from skfair.utils._groups import Groups, as_objects

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_GROUPS_NAMED = 4


@dataclass(frozen=True, eq=False)
class FairnessReport:
    """Accuracy of one or several models in each group; made by :func:`fairness_report`.

    Printing it gives a text table, a notebook shows it as HTML.

    Attributes
    ----------
    by_group : DataFrame
        One row for each group (class and sensitive features) that occurs. Columns:
        ``("", "count")``, the number of samples; for each model ``accuracy``, ``low`` and
        ``high``, its 95 % interval (Wilson); for each model but the first ``change``, its
        accuracy less that of the first.
    summary : DataFrame
        ``overall_accuracy``, ``worst_group_accuracy`` and ``average_group_accuracy`` of each
        model.
    feature_frames : dict of str to fairlearn.metrics.MetricFrame
        For each model, the `metrics` that were asked for, by sensitive features alone; empty
        where none were.
    """

    by_group: pd.DataFrame
    summary: pd.DataFrame
    feature_frames: dict[str, MetricFrame]
    _samples: Samples = field(repr=False)
    _predictions: dict[str, np.ndarray] = field(repr=False)

    @cached_property
    def metric_frames(self) -> dict[str, MetricFrame]:
        """For each model, accuracy and count by class and sensitive features.

        Made by fairlearn at first use: it takes hundreds of times longer than the report.

        Returns
        -------
        dict of str to fairlearn.metrics.MetricFrame
        """
        samples = self._samples
        groups = _frame(samples.groups)
        labels = _sortable(samples.classes)[samples.y]
        groups.insert(0, self.by_group.index.names[0], labels)
        metrics = {"accuracy": accuracy_score, "count": count}
        return {
            model: _metric_frame(metrics, samples, samples.y, codes, groups)
            for model, codes in self._predictions.items()
        }

    def to_frame(self) -> pd.DataFrame:
        """Give the table by group as numbers.

        Returns
        -------
        DataFrame
            A copy of `by_group`.
        """
        return self.by_group.copy()

    def __str__(self) -> str:
        parts = [self._title(), self._accuracies().to_string(), self._totals().to_string()]
        parts += [frame.to_string() for frame in self._by_feature()]
        return "\n\n".join([*parts, "\n".join(self._remarks())])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{html.escape(self._title())}</b></p>"]
        tables = [self._accuracies(), self._totals(), *self._by_feature()]
        parts += [table.to_html() for table in tables]
        parts += [f"<p>{html.escape(remark)}</p>" for remark in self._remarks()]
        return "\n".join(parts)

    def _title(self) -> str:
        n_samples = int(self.by_group["", "count"].sum())
        names = " x ".join(self.by_group.index.names)
        return (
            f"Fairness report: {_number(n_samples, 'sample')}, "
            f"{_number(len(self.by_group), 'group')} ({names}), "
            f"{_number(len(self.summary.columns), 'model')}"
        )

    def _accuracies(self) -> pd.DataFrame:
        """Format the table by group, in percent."""
        table = {("", "count"): self.by_group["", "count"]}
        for model in self.summary.columns:
            numbers = 100 * self.by_group[model]
            table[model, "accuracy"] = numbers["accuracy"].map("{:.1f}".format)
            table[model, "95% interval"] = [
                f"[{low:.1f}, {high:.1f}]"
                for low, high in zip(numbers["low"], numbers["high"], strict=True)
            ]
            if "change" in numbers:
                table[model, "change"] = numbers["change"].map("{:+.1f}".format)
        return pd.DataFrame(table)

    def _totals(self) -> pd.DataFrame:
        """Format the summary, in percent."""
        table = (100 * self.summary).map("{:.1f}".format)
        return table.rename(index=lambda name: name.replace("_", " "))

    def _by_feature(self) -> list[pd.DataFrame]:
        """Put the models' other metrics side by side, one table by group and one over all."""
        if not self.feature_frames:
            return []
        frames = self.feature_frames.items()
        by_group = pd.concat({model: frame.by_group for model, frame in frames}, axis=1)
        overall = pd.DataFrame({model: frame.overall for model, frame in frames})
        return [by_group.round(3), overall.rename_axis(index="overall").round(3)]

    def _remarks(self) -> list[str]:
        """Say who gained and lost against the first model, and what the numbers are."""
        first, *others = self.summary.columns
        remarks = []
        for model in others:
            change = self.by_group[model, "change"]
            lost = change[change < 0].sort_values()
            remark = (
                f"{model} against {first}: {_number((change > 0).sum(), 'group')} gained, "
                f"{len(lost)} lost"
            )
            if len(lost):
                named = [
                    f"{_label(group)} {100 * value:+.1f}"
                    for group, value in lost.head(_GROUPS_NAMED).items()
                ]
                more = ["..."] if len(lost) > _GROUPS_NAMED else []
                remark += f" (levelled down: {'; '.join(named + more)})"
            remarks.append(remark + ".")
        remarks.append(
            "Accuracies and changes in percent; intervals are Wilson's, group by group. The "
            "accuracy of the worst of many small groups is low by chance, too."
        )
        return remarks


def fairness_report(
    y_true: Any,
    predictions: Any,
    *,
    sensitive_features: Any,
    metrics: Mapping[str, Callable] | None = None,
    sample_weight: Any = None,
    missing: Literal["error", "group"] = "error",
) -> FairnessReport:
    """Report how one or several models fare in each group.

    As in the literature on group robustness, a group is a combination of a class and of the
    sensitive features that occurs in `y_true`; its accuracy is the recall of that class among
    these people or things.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True labels of any type.
    predictions : array-like of shape (n_samples,) or dict of str to array-like
        Predicted labels of one model, or of several by name. The first one is what the
        others are compared with. A label that does not occur in `y_true` counts as wrong.
    sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
        Group labels: array, Series, DataFrame or dict of columns (intersections).
    metrics : dict of str to callable, default=None
        Further metrics, ``metric(y_true, y_pred)`` -> float, from scikit-learn, fairlearn or
        your own. They are computed by sensitive features alone, since precision, selection
        rate and the like mean little within one class. Those with a parameter
        ``sample_weight`` are given the weights.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, not negative; samples of weight zero are left out. Intervals then rest on
        the effective number of samples, (sum of weights)² / (sum of squared weights).
    missing : {"error", "group"}, default="error"
        What missing group labels mean: an error, or a group of their own.

    Returns
    -------
    FairnessReport
        Tables by group and over all, and the fairlearn ``MetricFrame`` of each model.

    Raises
    ------
    TypeError
        Labels are text on one side only, or a metric is not callable.
    ValueError
        Another number of predictions, groups or weights than of labels, missing labels,
        continuous values, no samples or no models.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.

    Examples
    --------
    >>> y = ["cat", "cat", "dog", "dog"]
    >>> report = fairness_report(
    ...     y,
    ...     {"plain": ["cat", "dog", "dog", "dog"], "robust": y},
    ...     sensitive_features={"fur": ["black", "white", "black", "white"]},
    ... )
    >>> report.summary
                            plain  robust
    overall_accuracy         0.75     1.0
    worst_group_accuracy     0.00     1.0
    average_group_accuracy   0.75     1.0
    >>> print(report.by_group["robust", "change"].loc["cat", "white"])
    1.0
    """
    samples = encode_samples(y_true, sensitive_features, sample_weight, missing)
    if not isinstance(predictions, Mapping):
        predictions = {"model": predictions}
    if not predictions:
        raise ValueError("predictions is empty. Give the predicted labels of at least one model.")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(
            f"metrics is a {type(metrics).__name__}; give a dict of names to functions, for "
            "instance {'selection rate': selection_rate}."
        )
    for name, metric in (metrics or {}).items():
        if not callable(metric):
            raise TypeError(
                f"metrics[{name!r}] is a {type(metric).__name__}, expected a function of y_true "
                "and y_pred."
            )
    for name in ("y_true", "y_pred"):
        if name in samples.groups.names:  # there it would take the place of the labels
            raise ValueError(
                f"sensitive_features has a column {name!r}, a name that fairlearn's MetricFrame "
                "keeps for itself. Rename the column."
            )
    several = len(predictions) > 1
    encoded = {
        str(model): samples.encode_prediction(
            y_pred, name=f"predictions[{model!r}]" if several else "predictions"
        )
        for model, y_pred in predictions.items()
    }
    counts = {model: samples.count_codes(codes) for model, (codes, _) in encoded.items()}
    by_group, summary = _tables(samples, counts)
    feature_frames = {}
    if metrics:
        features = _frame(samples.groups)
        for model, (codes, labels) in encoded.items():
            labels = as_objects(labels)
            feature_frames[model] = _metric_frame(
                dict(metrics), samples, labels[samples.y], labels[codes], features
            )
    codes = {model: codes for model, (codes, _) in encoded.items()}
    return FairnessReport(by_group, summary, feature_frames, samples, codes)


def wilson_interval(accuracy: np.ndarray, n_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a binomial share, Wilson's.

    Parameters
    ----------
    accuracy : ndarray
        Observed shares, 0 to 1.
    n_samples : ndarray of the same shape
        Number of samples behind each.

    Returns
    -------
    low, high : ndarray

    Examples
    --------
    >>> import numpy as np
    >>> low, high = wilson_interval(np.array([0.5]), np.array([10]))
    >>> low.round(3), high.round(3)
    (array([0.237]), array([0.763]))
    """
    ratio = _Z**2 / n_samples
    middle = (accuracy + ratio / 2) / (1 + ratio)
    variance = (accuracy * (1 - accuracy) + ratio / 4) / n_samples
    half = _Z * np.sqrt(variance) / (1 + ratio)
    # Exact at the ends, where rounding would leave the interval a hair short of 0 or 1.
    low = np.where(accuracy <= 0, 0.0, middle - half)
    return low, np.where(accuracy >= 1, 1.0, middle + half)


def _tables(samples: Samples, counts: dict[str, GroupCounts]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the table by group, class by class, and the summary of the models."""
    shape = (len(samples.classes), len(samples.groups.labels))
    cell = np.ravel_multi_index((samples.y, samples.groups.codes), shape)
    size = np.prod(shape)
    weight = np.ones(len(cell)) if samples.weight is None else samples.weight
    total = np.bincount(cell, weights=weight, minlength=size)
    squared = np.bincount(cell, weights=weight**2, minlength=size)
    present = total > 0
    effective = total[present] ** 2 / squared[present]

    columns = {("", "count"): np.bincount(cell[weight > 0], minlength=size)[present]}
    summary, first = {}, None
    for model, model_counts in counts.items():
        accuracy = model_counts.accuracy().T.ravel()[present]
        columns[model, "accuracy"] = accuracy
        columns[model, "low"], columns[model, "high"] = wilson_interval(accuracy, effective)
        if first is None:
            first = accuracy
        else:
            columns[model, "change"] = accuracy - first
        summary[model] = {
            "overall_accuracy": model_counts.correct().sum() / model_counts.table.sum(),
            "worst_group_accuracy": accuracy.min(),
            "average_group_accuracy": accuracy.mean(),
        }

    names = samples.groups.names
    class_name = "class" if "class" not in names else "true class"
    rows = [(label, *group) for label in samples.classes for group in samples.groups.rows()]
    index = pd.MultiIndex.from_tuples(
        [row for row, there in zip(rows, present, strict=True) if there], names=[class_name, *names]
    )
    return pd.DataFrame(columns, index=index), pd.DataFrame(summary)


def _metric_frame(metrics, samples: Samples, y_true, y_pred, groups: pd.DataFrame) -> MetricFrame:
    """Let fairlearn compute metrics, weighted where a metric knows weights."""
    parameters, used = None, slice(None)
    if samples.weight is not None:
        used = samples.weight > 0
        parameters = {
            name: {"sample_weight": samples.weight[used]} if _takes_weight(metric) else {}
            for name, metric in metrics.items()
        }
    return MetricFrame(
        metrics=metrics,
        y_true=y_true[used],
        y_pred=y_pred[used],
        sensitive_features=groups[used].reset_index(drop=True),
        sample_params=parameters,
    )


def _takes_weight(metric: Callable) -> bool:
    try:
        return "sample_weight" in inspect.signature(metric).parameters
    except ValueError:  # some built-in functions have no signature
        return False


def _frame(groups: Groups) -> pd.DataFrame:
    """Put the value of each sample in each sensitive feature in a table."""
    columns = zip(groups.names, zip(*groups.rows(), strict=True), strict=True)
    return pd.DataFrame({name: _sortable(labels)[groups.codes] for name, labels in columns})


def _sortable(labels: Sequence) -> np.ndarray:
    """Make text of labels of mixed types, which fairlearn cannot sort."""
    mixed = len({type(label) for label in labels}) > 1
    return as_objects([str(label) for label in labels] if mixed else labels)


def _label(group: tuple) -> str:
    return ", ".join(str(part) for part in group)


def _number(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
