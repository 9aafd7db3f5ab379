"""A metric in each group, aggregated to one number: the score of a fairness scorer."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from skfair.metrics._rates import (
    CONSTRAINTS,
    CountMetric,
    binary_counts,
    constraint_rates,
    find_count_metric,
    mean_rate,
    positive_position,
)
from skfair.metrics._samples import (
    Samples,
    check_weight,
    class_accuracy,
    encode_samples,
)
from skfair.utils._groups import Groups, encode_groups
from skfair.utils._rows import check_rows
from skfair.utils._shown import shown, shown_all

# Endings of the names of losses in scikit-learn.
LOSS_NAMES = ("_error", "_loss", "_deviance")
_LOWER_IS_BETTER = (*LOSS_NAMES, "false_positive_rate", "false_negative_rate")
WORST_GROUP = "worst_group_accuracy"
_ROUNDING = 1e-6
_GIVE_METRIC = "Give a metric that returns a number, such as one with average='macro'."
NAMED = (WORST_GROUP, *CONSTRAINTS)
_SPLIT = (
    "If this is a fold, split with skfair.model_selection.GroupStratifiedKFold; else merge rare "
    "groups."
)


def _ratio(values: pd.Series) -> float:
    return values.min() / values.max() if values.max() else np.nan


AGGREGATES: dict[str, Callable] = {
    "group_min": pd.Series.min,
    "group_max": pd.Series.max,
    "difference": lambda values: values.max() - values.min(),
    "ratio": _ratio,
}


class GroupMetric:
    """Function of labels, predictions and groups that compares the groups; see the scorer.

    Parameters
    ----------
    metric : str or callable
        One of `NAMED`, a metric of one group, or a metric that takes ``sensitive_features``.
    aggregate : str, callable or None
        How the values of the groups become one number. None for one of `NAMED` and for a metric
        that takes ``sensitive_features``.
    pos_label : label or None
        The positive class, for metrics with a positive class.
    parameters : dict
        Other arguments of `metric`.
    """

    def __init__(
        self,
        metric: str | Callable,
        aggregate: str | Callable | None,
        pos_label: Any,
        parameters: dict[str, Any],
    ):
        self.metric = metric
        self.aggregate = aggregate
        self.pos_label = pos_label
        self.parameters = parameters
        self.name = metric if isinstance(metric, str) else metric_name(metric)
        self.__name__ = self.name

    def __call__(
        self, y_true: Any, y_pred: Any, *, sensitive_features: Any = None, sample_weight: Any = None
    ) -> float:
        """Compare the groups.

        Returns
        -------
        float
        """
        check_given(sensitive_features)
        check_rows(
            y_true=y_true,
            y_pred=y_pred,
            sensitive_features=sensitive_features,
            sample_weight=sample_weight,
        )
        counted = isinstance(self.metric, str) or (
            self.aggregate is not None
            and not self.parameters
            and np.ndim(y_pred) == 1
            and find_count_metric(self.metric, 2) is not None
        )
        if counted:
            samples = encode_samples(y_true, sensitive_features, sample_weight)
            groups = samples.groups
        else:
            n_samples = _num_samples(y_true)
            groups = encode_groups(sensitive_features, n_samples=n_samples)
            check_weight(sample_weight, n_samples)
        if len(groups.labels) < 2 and self.aggregate != "overall":
            raise ValueError(
                f"sensitive_features has one group, {shown(groups.labels[0])}, in these "
                f"{len(groups.codes)} samples, and {self.name} compares two or more. {_SPLIT}"
            )
        absent = _absent_categories(sensitive_features)
        if absent:
            raise ValueError(
                f"sensitive_features has no sample of [{shown_all(absent)}] among these "
                f"{len(groups.codes)}, but it has this category. {_SPLIT} If the category should "
                "not occur, drop it: .cat.remove_unused_categories()."
            )
        values = None
        if counted:
            prediction, labels = samples.encode_prediction(y_pred)
            table = samples.table(prediction, len(labels))
            if isinstance(self.metric, str):
                return self._named(self.metric, samples, table, labels)
            count_metric = find_count_metric(self.metric, len(labels))
            if count_metric is not None:
                values = self._by_counts(count_metric, samples, table, labels)
        elif self.aggregate is None:
            value = self._call(
                y_true, y_pred, sample_weight, {"sensitive_features": sensitive_features}
            )
            return self._number(value, "")
        if values is None:
            values = self._by_calls(y_true, y_pred, groups, sample_weight)
        if self.aggregate == "overall":
            return float(values[0])
        index = pd.Index(groups.labels, name=groups.names[0], tupleize_cols=False)
        if len(groups.names) > 1:
            index = pd.MultiIndex.from_tuples(groups.labels, names=groups.names)
        if isinstance(self.aggregate, str):
            aggregate, name = AGGREGATES[self.aggregate], self.aggregate
        else:
            assert self.aggregate is not None  # metrics without one have returned
            aggregate, name = self.aggregate, metric_name(self.aggregate)
        try:
            value = aggregate(pd.Series(values, index=index, name=self.name))
        except Exception as error:
            error.add_note(
                f"Raised by aggregate={name}, given the {self.name} of the groups "
                f"[{shown_all(groups.labels)}]. {_SPLIT}"
            )
            raise
        where = f" for {self.name} of the groups, [{shown_all(np.round(values, 4).tolist())}]"
        return self._number(value, where, f"aggregate={name}")

    def _named(self, metric: str, samples: Samples, table: np.ndarray, labels: tuple) -> float:
        """Compute one of the ready-made metrics from counts."""
        if metric == WORST_GROUP:
            return float(np.nanmin(class_accuracy(table)))
        positive = positive_position(labels, self.pos_label, self.name)
        differences = []
        for rates in constraint_rates(metric, *binary_counts(table, positive)):
            for rate in rates:
                defined = rate.size > 0
                if not defined.all():
                    words = rate.name.replace("_", " ") + " rate"
                    self._undefined(words, defined, samples, table, positive, labels)
            values = mean_rate(rates)
            differences.append(values.max() - values.min())
        return float(max(differences))

    def _by_counts(
        self, metric: CountMetric, samples: Samples, table: np.ndarray, labels: tuple
    ) -> np.ndarray:
        if self.aggregate == "overall":
            table = table.sum(axis=0, keepdims=True)
        positive = 0
        if metric.needs_positive:
            positive = positive_position(labels, self.pos_label, self.name)
        values = metric(table, positive)
        if np.isnan(values).any():
            self._undefined(metric.name, ~np.isnan(values), samples, table, positive, labels)
        return values

    def _by_calls(self, y_true: Any, y_pred: Any, groups: Groups, sample_weight: Any) -> np.ndarray:
        """Call the metric on the samples of each group."""
        if self.aggregate == "overall":
            return np.array([self._number(self._call(y_true, y_pred, sample_weight, {}), "")])
        values = []
        order = np.argsort(groups.codes, kind="stable")
        for label, rows in zip(
            groups.labels,
            np.split(order, np.cumsum(np.bincount(groups.codes))[:-1]),
            strict=True,
        ):
            weight = None if sample_weight is None else _safe_indexing(sample_weight, rows)
            where = f" for group {shown(label)}"
            try:
                value = self._call(
                    _safe_indexing(y_true, rows), _safe_indexing(y_pred, rows), weight, {}
                )
            except Exception as error:
                error.add_note(f"Raised by {self.name}{where}, which has {len(rows)} samples.")
                raise
            values.append(self._number(value, where))
        return np.array(values)

    def _call(self, y_true: Any, y_pred: Any, sample_weight: Any, more: dict[str, Any]) -> Any:
        assert not isinstance(self.metric, str)  # those are computed from counts
        parameters = self.parameters | more
        if self.pos_label is not None:
            parameters["pos_label"] = self.pos_label
        if sample_weight is not None:
            if not passes(self.metric, "sample_weight"):
                raise TypeError(
                    f"{self.name} has no parameter sample_weight, and weights were given. Take a "
                    "metric with this parameter, or write .set_score_request(sample_weight=False) "
                    "after the scorer."
                )
            parameters["sample_weight"] = sample_weight
        return self.metric(y_true, y_pred, **parameters)

    def _number(self, value: Any, where: str, aggregate: str | None = None) -> float:
        hint = _GIVE_METRIC if aggregate is None else "Give a function that returns a number."
        number = as_number(value, aggregate or self.name, where, hint)
        if not np.isfinite(number):
            raise ValueError(
                f"{aggregate or self.name} is {number}{where}, expected a finite number. {_SPLIT}"
            )
        return number

    def _undefined(
        self,
        name: str,
        defined: np.ndarray,
        samples: Samples,
        table: np.ndarray,
        positive: int,
        labels: tuple,
    ) -> None:
        """Raise an error with the sample numbers of the first group without a value."""
        group = int(np.argmin(defined))
        _, _, p, n = binary_counts(table[group], positive)
        label = labels[positive] if positive < len(labels) else 1
        size = int(np.sum(samples.groups.codes == group))
        share = "weight" if samples.weight is not None else "samples"
        raise ValueError(
            f"The {name} is undefined for group {shown(samples.groups.labels[group])} ({size} "
            f"samples): {p:g} {share} of class {shown(label)}, {n:g} of others, "
            f"{table[group][:, positive].sum() if positive < len(labels) else 0:g} predicted "
            f"{shown(label)}. {_SPLIT}"
        )


def _absent_categories(sensitive_features: Any) -> list:
    """List categories without a sample; only pandas' categorical columns can have them."""
    columns = [sensitive_features]
    if isinstance(sensitive_features, pd.DataFrame):
        columns = [sensitive_features.iloc[:, i] for i in range(sensitive_features.shape[1])]
    absent = []
    for column in columns:
        if isinstance(getattr(column, "dtype", None), pd.CategoricalDtype):
            values = column.array if isinstance(column, pd.Series) else column
            there = np.bincount(values.codes[values.codes >= 0], minlength=len(values.categories))
            absent += [
                category for category, n in zip(values.categories, there, strict=True) if not n
            ]
    return absent


def check_given(sensitive_features: Any) -> None:
    """Raise an error that explains routing if no groups were given."""
    if sensitive_features is None:
        raise TypeError(
            "sensitive_features did not reach the scorer. In a search or cross-validation, "
            "write `with sklearn.config_context(enable_metadata_routing=True):` and, inside it, "
            "`search.fit(X, y, sensitive_features=...)` or `cross_validate(..., "
            "params={'sensitive_features': ...})`. To call the scorer directly, write "
            "`scorer(estimator, X, y, sensitive_features=...)`. For functions without routing, "
            "such as permutation_importance, give "
            "`functools.partial(scorer, sensitive_features=...)` with the groups of the rows that "
            "are scored."
        )


def unwrap(value: Any) -> Any:
    """Convert an array or tensor without dimensions to a number; all else is unchanged.

    Returns
    -------
    object
    """
    if isinstance(value, np.generic) or getattr(value, "ndim", None) != 0:
        return value
    return value.item()


def as_number(
    value: Any,
    name: str,
    where: str,
    hint: str = _GIVE_METRIC,
) -> float:
    """Convert the result of a function to a number.

    Parameters
    ----------
    value : object
        Result of the function.
    name : str
        Name of the function in messages.
    where : str
        Group of the samples in messages; begins with a space, or is empty.
    hint : str, optional
        End of the message.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        The result is not one number.
    """
    value = unwrap(value)
    if not isinstance(value, Real | np.bool_):
        raise TypeError(
            f"{name} returned {type(value).__name__} {shown(value)}{where}, expected one number. "
            f"{hint}"
        )
    return float(value)


def metric_name(function: Callable) -> str:
    """Name a function; its repr if it has no name.

    Returns
    -------
    str
    """
    return getattr(function, "__name__", None) or repr(function)


def plain_name(function: Callable) -> str:
    """Name a function, or the function in a ``partial``.

    Returns
    -------
    str
    """
    return metric_name(getattr(function, "func", function))


def lower_is_better(metric: Any) -> bool:
    """Tell by the name of a function whether it is a loss, an error, or a rate of errors.

    Returns
    -------
    bool

    Examples
    --------
    >>> from fairlearn.metrics import false_positive_rate, selection_rate
    >>> lower_is_better(false_positive_rate), lower_is_better(selection_rate)
    (True, False)
    """
    return plain_name(metric).endswith(_LOWER_IS_BETTER)


def is_ratio(metric: Callable, features: Any, classes: Sequence = (0, 1)) -> bool:
    """Find out whether a comparison of groups returns 1, and not 0, for groups that are equal.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, y_pred, sensitive_features=...)``.
    features : ndarray or DataFrame
        One row for each group, in the form that the function takes.
    classes : sequence, default=(0, 1)
        Two labels or more.

    Returns
    -------
    bool
        False also if the function fails on made-up rows.
    """
    if plain_name(metric).endswith("_ratio"):
        return True
    labels = np.asarray([classes[0], classes[-1]])
    # No two of these rates add up to one.
    truth, predicted = np.repeat([[0, 0, 1, 1], [0, 1, 0, 1]], [5, 2, 1, 4], axis=1)
    n_groups = len(features)
    rows = np.repeat(np.arange(n_groups), len(truth))
    try:
        value = metric(
            labels[np.tile(truth, n_groups)],
            labels[np.tile(predicted, n_groups)],
            sensitive_features=_safe_indexing(features, rows),
        )
        return abs(float(value) - 1) < _ROUNDING and not isinstance(unwrap(value), bool | np.bool_)
    except Exception:  # any kind: it is the user's function, and it is called again later
        return False


def is_loss(metric: Callable, y: np.ndarray) -> bool:
    """Find out whether a function is lowest for perfect predictions.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, y_pred)``.
    y : ndarray of shape (n_samples,)
        Labels 0 and 1.

    Returns
    -------
    bool
        False also if the function raises an error.
    """
    try:
        perfect, wrong = (float(metric(y, predicted)) for predicted in (y, 1 - y))
        if not perfect < wrong:  # also if NaN: no calls with constant predictions, which may warn
            return False
        return perfect < min(float(metric(y, np.full_like(y, label))) for label in (0, 1))
    except Exception:  # any kind: it is the user's function, and it is called again later
        return False


def accepts(function: Callable, parameter: str) -> bool:
    """Tell whether a function has a parameter with this name.

    Returns
    -------
    bool
    """
    return parameter in _parameters(function)


def passes(function: Callable, parameter: str) -> bool:
    """Tell whether a function takes an argument with this name, also through ``**kwargs``.

    Returns
    -------
    bool
    """
    parameters = _parameters(function)
    kinds = [value.kind for value in parameters.values()]
    return parameter in parameters or inspect.Parameter.VAR_KEYWORD in kinds


def _parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # some built-in functions have no signature
        return {}
