"""Rates from counts, as scorers, reports, certificates and debiasers all compute them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from fairlearn import metrics as fairlearn_metrics
from sklearn import metrics as sklearn_metrics

from skfair.utils._shown import shown, shown_all

# Rates of a group, and performances of a classifier of two classes, each as (hits, size), the
# numerator and the denominator. All take true positives, false positives, positives, negatives.
RATES: dict[str, Callable] = {
    "selection": lambda tp, fp, p, n: (tp + fp, p + n),
    "true_positive": lambda tp, fp, p, n: (tp, p),
    "false_positive": lambda tp, fp, p, n: (fp, n),
    "precision": lambda tp, fp, p, n: (tp, tp + fp),
    "f1": lambda tp, fp, p, n: (2 * tp, tp + fp + p),
    "accuracy": lambda tp, fp, p, n: (tp + n - fp, p + n),
    "balanced_accuracy": lambda tp, fp, p, n: (tp / p + 1 - fp / n, 2),
}
PERFORMANCES = ("balanced_accuracy", "accuracy", "f1")  # what a debiaser can maximise by name
# A constraint compares one or more statistics of the groups. Each statistic is the mean of one or
# more rates. The bias is the largest difference in a statistic between two groups.
CONSTRAINTS: dict[str, list[list[str]]] = {
    "demographic_parity": [["selection"]],
    "equal_opportunity": [["true_positive"]],
    "average_odds": [["true_positive", "false_positive"]],
    "equalized_odds": [["true_positive"], ["false_positive"]],
}


class Rate(NamedTuple):
    """One rate of each group, as the two counts that it divides.

    Attributes
    ----------
    name : str
        A key of :data:`RATES`.
    hits : ndarray or tensor
        Numerator of each group.
    size : ndarray or tensor
        Denominator of each group.
    """

    name: str
    hits: Any
    size: Any


def count_rates(names: Sequence[str], tp: Any, fp: Any, p: Any, n: Any) -> list[Rate]:
    """Count what some rates divide.

    Parameters
    ----------
    names : sequence of str
        Keys of :data:`RATES`.
    tp, fp, p, n : ndarray or tensor
        True positives, false positives, positives and negatives of each group.

    Returns
    -------
    list of Rate
        One for each name.
    """
    return [Rate(name, *RATES[name](tp, fp, p, n)) for name in names]


def constraint_rates(constraint: str, tp: Any, fp: Any, p: Any, n: Any) -> list[list[Rate]]:
    """Count the rates that a constraint compares between groups.

    Parameters
    ----------
    constraint : str
        A key of :data:`CONSTRAINTS`.
    tp, fp, p, n : ndarray or tensor
        True positives, false positives, positives and negatives of each group.

    Returns
    -------
    list of list of Rate
        For each statistic of the constraint, the rates that the statistic averages.

    Examples
    --------
    >>> import numpy as np
    >>> counts = np.array([3, 4]), np.array([1, 0]), np.array([6, 8]), np.array([4, 2])
    >>> for statistic in constraint_rates("equalized_odds", *counts):
    ...     print([rate.name for rate in statistic], mean_rate(statistic))
    ['true_positive'] [0.5 0.5]
    ['false_positive'] [0.25 0.  ]
    """
    return [count_rates(names, tp, fp, p, n) for names in CONSTRAINTS[constraint]]


def rate_names(constraint: str) -> list[str]:
    """Name all rates that a constraint compares.

    Parameters
    ----------
    constraint : str
        A key of :data:`CONSTRAINTS`.

    Returns
    -------
    list of str
        Each name once, sorted.

    Examples
    --------
    >>> rate_names("equalized_odds")
    ['false_positive', 'true_positive']
    """
    return sorted({name for names in CONSTRAINTS[constraint] for name in names})


def mean_rate(rates: Sequence[Rate]) -> Any:
    """Average some rates of each group.

    Parameters
    ----------
    rates : sequence of Rate
        Rates with sizes above zero.

    Returns
    -------
    ndarray or tensor
        The mean of each group.
    """
    return sum(rate.hits / rate.size / len(rates) for rate in rates)


def group_statistic(rates: list[str], *counts: Any) -> Any:
    """Average some rates of each group by name.

    Parameters
    ----------
    rates : list of str
        Keys of :data:`RATES`.
    *counts : ndarray or tensor
        True positives, false positives, positives and negatives of each group.

    Returns
    -------
    ndarray or tensor
        The mean of each group.
    """
    return mean_rate(count_rates(rates, *counts))


class CountMetric(NamedTuple):
    """A metric that is computed from counts of samples by true class and predicted label.

    Attributes
    ----------
    name : str
        Name in messages.
    fraction : callable
        ``fraction(table, positive)`` -> (numerator, denominator) over the leading axes of a
        table of shape (..., n_classes, n_predicted), as in :class:`GroupCounts`.
    is_share : bool
        True if the metric is a share: the numerator counts some of the samples in the
        denominator.
    needs_positive : bool
        True if the metric is about one class, the positive class.
    """

    name: str
    fraction: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
    is_share: bool = True
    needs_positive: bool = True

    def __call__(self, table: np.ndarray, positive: int) -> np.ndarray:
        """Compute the metric; NaN where the denominator is zero.

        Returns
        -------
        ndarray of shape table.shape[:-2], float64
        """
        numerator, denominator = self.fraction(table, positive)
        undefined = np.full(np.shape(denominator), np.nan)
        return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def binary_counts(table: np.ndarray, positive: int) -> tuple[np.ndarray, ...]:
    """Count true and false positives, positives and negatives.

    Parameters
    ----------
    table : ndarray of shape (..., n_classes, n_predicted)
        The first predicted labels are the classes, in their order.
    positive : int
        Position of the positive label among the predicted labels. The position is
        ``n_predicted`` if the label does not occur.

    Returns
    -------
    tp, fp, p, n : ndarray of shape table.shape[:-2]
    """
    tp, fp, fn, tn = _confusion(table, positive)
    return tp, fp, tp + fn, fp + tn


def _confusion(table: np.ndarray, positive: int) -> tuple[np.ndarray, ...]:
    """Count true and false positives, false and true negatives.

    Nothing is subtracted: a difference of sums of weights is often not exactly zero where it should
    be, and a rate with an empty denominator would then be a number.
    """
    n_classes, n_predicted = table.shape[-2:]
    is_positive, chosen = np.arange(n_classes) == positive, np.arange(n_predicted) == positive
    return tuple(
        table[..., rows, :][..., columns].sum((-2, -1))
        for rows, columns in (
            (is_positive, chosen),
            (~is_positive, chosen),
            (is_positive, ~chosen),
            (~is_positive, ~chosen),
        )
    )


def _rate(name: str) -> Callable:
    return lambda table, positive: RATES[name](*binary_counts(table, positive))


def _right(table: np.ndarray) -> np.ndarray:
    return np.diagonal(table, axis1=-2, axis2=-1).sum(-1)


def _wrong(table: np.ndarray) -> np.ndarray:
    return np.where(np.eye(table.shape[-2], table.shape[-1], dtype=bool), 0, table).sum((-2, -1))


def _true_negative(table, positive):
    _, fp, _, tn = _confusion(table, positive)
    return tn, fp + tn


def _false_negative(table, positive):
    tp, _, fn, _ = _confusion(table, positive)
    return fn, tp + fn


def _balanced(table, positive):
    """Sum the recalls of the classes that occur, and count the classes that occur."""
    total = table.sum(-1)
    right = np.diagonal(table, axis1=-2, axis2=-1)
    recall = np.divide(right, total, out=np.zeros_like(right), where=total > 0)
    return recall.sum(-1), (total > 0).sum(-1)


# Accuracies are computed from the table and not by RATES: they take any number of classes, and
# nothing may be subtracted from weights (see _confusion).
ACCURACY = CountMetric(
    "accuracy", lambda table, _: (_right(table), table.sum((-2, -1))), needs_positive=False
)
ERROR_RATE = CountMetric(
    "zero-one loss",
    lambda table, _: (_wrong(table), table.sum((-2, -1))),
    needs_positive=False,
)
SELECTION_RATE = CountMetric("selection rate", _rate("selection"))
TRUE_POSITIVE_RATE = CountMetric("true positive rate", _rate("true_positive"))
FALSE_POSITIVE_RATE = CountMetric("false positive rate", _rate("false_positive"))
TRUE_NEGATIVE_RATE = CountMetric("true negative rate", _true_negative)
FALSE_NEGATIVE_RATE = CountMetric("false negative rate", _false_negative)
COUNT_METRICS: dict[Callable, CountMetric] = {
    sklearn_metrics.accuracy_score: ACCURACY,
    sklearn_metrics.zero_one_loss: ERROR_RATE,
    sklearn_metrics.balanced_accuracy_score: CountMetric(
        "balanced accuracy", _balanced, is_share=False, needs_positive=False
    ),
    sklearn_metrics.recall_score: TRUE_POSITIVE_RATE,
    sklearn_metrics.precision_score: CountMetric("precision", _rate("precision")),
    sklearn_metrics.f1_score: CountMetric("F1", _rate("f1"), is_share=False),
    fairlearn_metrics.selection_rate: SELECTION_RATE,
    fairlearn_metrics.true_positive_rate: TRUE_POSITIVE_RATE,
    fairlearn_metrics.false_positive_rate: FALSE_POSITIVE_RATE,
    fairlearn_metrics.true_negative_rate: TRUE_NEGATIVE_RATE,
    fairlearn_metrics.false_negative_rate: FALSE_NEGATIVE_RATE,
}
# Names of these metrics in rules and options. Recall is the true positive rate.
METRIC_NAMES: dict[str, Callable] = {
    metric.name.lower().replace(" ", "_").replace("-", "_"): function
    for function, metric in COUNT_METRICS.items()
}
# These metrics need scores. Given predicted labels, they return a number with another meaning.
_OF_SCORES = {
    sklearn_metrics.average_precision_score,
    sklearn_metrics.brier_score_loss,
    sklearn_metrics.log_loss,
    sklearn_metrics.roc_auc_score,
}
_OF_TWO_CLASSES = {
    sklearn_metrics.recall_score,
    sklearn_metrics.precision_score,
    sklearn_metrics.f1_score,
}


def is_of_scores(metric: Any) -> bool:
    """Tell whether a metric, or the function in a ``partial``, is known to need scores.

    Returns
    -------
    bool
    """
    function = getattr(metric, "func", metric)
    return inspect.isfunction(function) and function in _OF_SCORES


def positive_is_clear(labels: Sequence) -> bool:
    """Tell whether the labels are of {0, 1} or of {-1, 1}, so that 1 is the positive label.

    Returns
    -------
    bool
    """
    return set(labels) <= {0, 1} or set(labels) <= {-1, 1}


def find_count_metric(metric: Callable, n_labels: int) -> CountMetric | None:
    """Look up how to compute a metric from counts.

    Parameters
    ----------
    metric : callable
        The metric that the user gave.
    n_labels : int
        Number of labels that occur, true or predicted.

    Returns
    -------
    CountMetric or None
        None if the function itself must be called: the function is not known, or it is not
        defined for so many labels (scikit-learn's recall raises an error for three classes).
    """
    if not inspect.isfunction(metric) or (metric in _OF_TWO_CLASSES and n_labels > 2):
        return None
    return COUNT_METRICS.get(metric)


def positive_position(labels: Sequence, pos_label: Any, name: str) -> int:
    """Find the positive class among the labels.

    Parameters
    ----------
    labels : sequence
        All labels, true and predicted.
    pos_label : label or None
        The positive label. None means 1 if all labels are of {0, 1} or of {-1, 1}.
    name : str
        Name of the metric in messages.

    Returns
    -------
    int
        ``len(labels)`` if 1 is the positive label and does not occur.

    Raises
    ------
    ValueError
        It is not clear which label is positive, or `pos_label` does not occur.
    """
    if pos_label is None:
        if not positive_is_clear(labels):
            raise ValueError(
                f"{name} is about one class, and it is not clear which of the labels "
                f"[{shown_all(labels)}] is the positive one. Name it, for instance "
                f"pos_label={shown(labels[-1])}."
            )
        return labels.index(1) if 1 in labels else len(labels)
    if pos_label not in labels:
        raise ValueError(
            f"pos_label={shown(pos_label)} does not occur; the labels are "
            f"[{shown_all(labels)}]. Give one "
            "of them, of the same type."
        )
    return labels.index(pos_label)
