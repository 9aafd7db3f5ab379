"""Scorers of group metrics for scikit-learn: searches, cross-validation and thresholds."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
import sklearn
from sklearn.metrics._scorer import _BaseScorer, _cached_call
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object

from skfair.metrics._group_metric import (
    LOSS_NAMES,
    NAMED,
    WORST_GROUP,
    GroupMetric,
    accepts,
    check_given,
    metric_name,
    passes,
)
from skfair.metrics._rates import is_of_scores
from skfair.utils._rows import check_rows

# Whether a larger number is better, if the aggregate alone determines it.
_GREATER_IS_BETTER: Mapping[Hashable, bool] = {
    "group_min": True,
    "group_max": False,
    "difference": False,
    "ratio": True,
    "overall": True,
}
# For these, a larger number is better only if the metric is a score, and not a loss.
_OF_SCORES = ("group_min", "overall")
_METHODS = ("predict", "predict_proba", "decision_function")


# The base class is private in scikit-learn, and there is no public alternative: only its subclasses
# share predictions within a search, and only its subclasses can tune a threshold.
class FairnessScorer(_BaseScorer):
    """Scorer that compares groups; made by :func:`make_fairness_scorer`.

    Call it as ``scorer(estimator, X, y, sensitive_features=...)``. It returns a number; a larger
    number is better. In scikit-learn's searches and cross-validation, the scorer requests
    ``sensitive_features`` by itself.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> X, y = np.zeros((4, 1)), [0, 1, 1, 1]
    >>> scorer = make_fairness_scorer("worst_group_accuracy")
    >>> scorer(DummyClassifier().fit(X, y), X, y, sensitive_features=["f", "f", "m", "m"])
    0.0
    """

    __metadata_request__score = {"sensitive_features": True}

    def __init__(self, score_func: GroupMetric, sign: int, response_method: Any, text: str):
        super().__init__(score_func, sign, {}, response_method)
        self._text = text
        # Clients that show scores use this name; some use the name of the metric inside.
        self.__name__ = score_func.__name__ = _name(score_func)

    def __repr__(self) -> str:
        return self._text

    def _get_pos_label(self) -> Any:
        return self._score_func.pos_label

    def set_score_request(self, **kwargs: bool | str | None) -> "FairnessScorer":
        """Set what the scorer requests in addition to ``sensitive_features``.

        Parameters
        ----------
        **kwargs : bool, str or None
            As for scikit-learn's scorers: ``sample_weight=True`` requests weights for the metric,
            and ``sensitive_features="name"`` requests the groups under another name.

        Returns
        -------
        FairnessScorer
            The scorer itself.
        """
        return super().set_score_request(**{"sensitive_features": True} | kwargs)

    def __call__(
        self,
        estimator: Any,
        X: Any,
        y_true: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
    ) -> float:
        """Score the predictions of a fitted estimator.

        Parameters
        ----------
        estimator : object
            Fitted estimator.
        X : array-like of shape (n_samples, ...)
            Samples, as the estimator takes them.
        y_true : array-like of shape (n_samples,)
            True labels.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
            Group labels: array, Series, DataFrame or dict of columns (intersections). If X is a
            DataFrame, and this is a Series or DataFrame with more rows than X, the scorer selects
            the rows by the index of X. The groups of all data, bound by :func:`functools.partial`,
            therefore work for any part of the data.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, not negative; None counts each sample once.

        Returns
        -------
        float
            A larger score is better.

        Raises
        ------
        TypeError, ValueError
            See :func:`make_fairness_scorer`.
        """
        return self._score(
            partial(_cached_call, None),
            estimator,
            X,
            y_true,
            sensitive_features=sensitive_features,
            sample_weight=sample_weight,
        )

    def _score(
        self,
        method_caller: Callable,
        estimator: Any,
        X: Any,
        y_true: Any,
        *,
        sensitive_features: Any = None,
        sample_weight: Any = None,
    ) -> float:
        check_given(sensitive_features)  # before anything is predicted
        sensitive_features = _of_these_rows(sensitive_features, X)
        check_rows(
            X=X, y_true=y_true, sensitive_features=sensitive_features, sample_weight=sample_weight
        )
        methods = [self._response_method]
        if not isinstance(self._response_method, str):
            methods = self._response_method
        method = next((name for name in methods if hasattr(estimator, name)), None)
        if method is None:
            raise AttributeError(
                f"{type(estimator).__name__} has none of {list(methods)}, which the scorer needs. "
                "Choose another response_method in make_fairness_scorer."
            )
        wanted, pos_label = wanted_parameters(estimator, method), self._get_pos_label()
        if wanted:
            offered = {"sensitive_features": sensitive_features, "random_state": 0}
            y_pred = getattr(estimator, method)(X, **{name: offered[name] for name in wanted})
            y_pred = _of_positive(y_pred, estimator, method, pos_label)
        else:
            if method != "predict" and pos_label is not None:
                # Scorers of a search share predictions, maybe the scores of the other class.
                method_caller = partial(_cached_call, None)
            try:
                y_pred = method_caller(estimator, method, X, pos_label=pos_label)
            except TypeError as error:
                if "sensitive_features" not in str(error):
                    raise
                if hasattr(estimator, "best_estimator_"):
                    raise TypeError(
                        f"{type(estimator).__name__}.{method} cannot pass sensitive_features to "
                        "its estimator, which needs them. Score its best_estimator_."
                    ) from error
                raise TypeError(
                    f"{type(estimator).__name__}.{method} needs sensitive_features and has not "
                    "requested them. Write .set_fit_request(sensitive_features=True)"
                    f".set_{method}_request(sensitive_features=True) after the estimator that "
                    "takes them, under sklearn.config_context(enable_metadata_routing=True)."
                ) from error
        return self._sign * self._score_func(
            y_true, y_pred, sensitive_features=sensitive_features, sample_weight=sample_weight
        )


def make_fairness_scorer(
    metric: str | Callable,
    aggregate: Literal["group_min", "group_max", "difference", "ratio", "overall"]
    | Callable
    | None = None,
    *,
    greater_is_better: bool | None = None,
    response_method: str | Sequence[str] = "predict",
    pos_label: Any = None,
    **kwargs: Any,
) -> FairnessScorer:
    """Make a scorer of a group metric, for any scikit-learn estimator.

    The scorer requests ``sensitive_features`` by itself: under
    ``sklearn.config_context(enable_metadata_routing=True)``, pass them to ``fit`` of a search, or
    in ``params`` of ``cross_validate``. An estimator that requests them for its prediction receives
    them. An estimator that requests ``random_state`` receives ``random_state=0``.

    A larger score is better, so **a difference between groups has a negative score**: 0 is the best
    score, and -0.12 means a difference of 0.12.

    Parameters
    ----------
    metric : str or callable
        Ready-made:

        * ``"worst_group_accuracy"``: see :func:`worst_group_accuracy_score`; here a group is a
          combination of class and sensitive features;
        * ``"demographic_parity"``: largest difference between groups in the selection rate (share
          of positive predictions);
        * ``"equal_opportunity"``: largest difference in the true positive rate;
        * ``"equalized_odds"``: largest difference in the true positive rate or in the false
          positive rate, whichever is larger;
        * ``"average_odds"``: largest difference in the mean of both rates; one rate can compensate
          the other.

        The debiasers use these names for `constraint`. Or any metric from fairlearn, from
        scikit-learn or your own, ``metric(y_true, y_pred)`` -> float, which is computed in each
        group of the sensitive features. Or a metric that compares groups by itself,
        ``metric(y_true, y_pred, sensitive_features=...)``, without `aggregate`.
    aggregate : {"group_min", "group_max", "difference", "ratio", "overall"} or callable, \
default=None
        How the values of the groups become one number: the smallest, the largest, their
        difference, the smallest divided by the largest, or a function of the Series of values by
        group. "overall" computes the metric on all samples, for estimators that need the groups to
        predict.
    greater_is_better : bool, default=None
        Whether a larger number is better. If False, the score is the negative number. None means
        False for "difference" and "group_max" (the worst of losses), and True for "ratio",
        "group_min" and "overall"; ready-made metrics have their own value. It is required in all
        other cases, and also for "group_min" and "overall" if the name of the metric ends as the
        names of scikit-learn's losses do.
    response_method : {"predict", "predict_proba", "decision_function"} or sequence of these, \
default="predict"
        Method of the estimator whose result the metric receives; from a sequence, the first
        method that the estimator has. For two classes, the metric receives the column of the
        positive class, as in scikit-learn.
    pos_label : label, default=None
        The positive class. None means 1 if the labels are of {0, 1} or {-1, 1}; a metric that is
        not computed from counts uses its own default.
    **kwargs : dict
        Further arguments of `metric`.

    Returns
    -------
    FairnessScorer
        ``scorer(estimator, X, y, sensitive_features=...)`` -> float.

    Raises
    ------
    TypeError
        The arguments contradict each other. When called: no groups were given, or the metric did
        not return a number.
    ValueError
        A name is unknown. When called: groups have another length, are missing or continuous; there
        is one group only; a category of a pandas categorical has no sample, as in a fold that
        misses it; the metric is undefined in a group, such as a true positive rate without
        positives.

    See Also
    --------
    skfair.model_selection.constrained_refit : Choose by performance under a constraint.
    skfair.model_selection.GroupStratifiedKFold : Folds that miss no group.

    Notes
    -----
    Accuracy, error rate, balanced accuracy, selection rate, precision, F1 and the true and false
    positive and negative rates are computed from counts. This is about a hundred times faster than
    ``MetricFrame`` and gives the same values, with one difference: a rate with an empty
    denominator, such as the true positive rate of a group without positives, is an error here and 0
    in ``MetricFrame``.

    Examples
    --------
    >>> import numpy as np
    >>> import sklearn
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.metrics import recall_score
    >>> from sklearn.model_selection import GridSearchCV
    >>> rng = np.random.default_rng(0)
    >>> group = rng.choice(["f", "m"], 400)
    >>> X = rng.normal(size=(400, 2)) + (group == "m")[:, None]
    >>> y = (X[:, 0] + rng.normal(size=400) > 0.5).astype(int)
    >>> search = GridSearchCV(
    ...     LogisticRegression(),
    ...     {"C": [0.01, 1.0]},
    ...     scoring={
    ...         "parity": make_fairness_scorer("demographic_parity"),
    ...         "worst recall": make_fairness_scorer(recall_score, "group_min"),
    ...     },
    ...     refit="worst recall",
    ... )
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     search = search.fit(X, y, sensitive_features=group)
    >>> bool(search.cv_results_["mean_test_parity"].max() < 0)
    True
    """
    if isinstance(metric, str):
        if metric not in NAMED:
            raise ValueError(
                f"metric={metric!r} is not one of {list(NAMED)}. Give one of these, or a function "
                "such as sklearn.metrics.recall_score."
            )
        for name, value in {"aggregate": aggregate, "greater_is_better": greater_is_better}.items():
            if value is not None:
                raise TypeError(
                    f"{name}={value!r} was given with metric={metric!r}, which has its own "
                    f"{name}. Leave it out, or give a function as metric."
                )
        if kwargs or response_method != "predict":
            raise TypeError(
                f"metric={metric!r} is computed from predicted labels and takes no other "
                "arguments. Leave them out, or give a function as metric."
            )
        if pos_label is not None and metric == WORST_GROUP:
            raise TypeError(
                f"pos_label={pos_label!r} was given with metric={metric!r}, which has no positive "
                "class. Leave it out."
            )
        greater_is_better = metric == WORST_GROUP
    elif not callable(metric):
        raise TypeError(
            f"metric is a {type(metric).__name__}, expected one of {list(NAMED)} or a function of "
            "y_true and y_pred."
        )
    elif accepts(metric, "sensitive_features"):
        if aggregate is not None:
            raise TypeError(
                f"aggregate={aggregate!r} was given, but {metric_name(metric)} takes "
                "sensitive_features and compares groups by itself. Leave aggregate out."
            )
    elif aggregate is None:
        raise TypeError(
            f"aggregate is not given, and {metric_name(metric)} is a metric of one group. Give "
            f"aggregate, one of {list(_GREATER_IS_BETTER)} or a function of the groups' values."
        )
    elif not callable(aggregate) and aggregate not in list(_GREATER_IS_BETTER):
        raise ValueError(
            f"aggregate={aggregate!r} is not one of {list(_GREATER_IS_BETTER)} nor a function."
        )
    if greater_is_better is None and not isinstance(metric, str):
        by_name = metric_name(getattr(metric, "func", metric)).endswith(LOSS_NAMES)
        if callable(aggregate) or aggregate is None or (by_name and aggregate in _OF_SCORES):
            what = metric_name(aggregate if callable(aggregate) else metric)
            raise TypeError(
                f"greater_is_better is not given, and it is not clear whether a larger {what} is "
                "better. Give greater_is_better=False for a difference or a loss, True for a "
                "score."
            )
        greater_is_better = _GREATER_IS_BETTER[aggregate]
    methods = [response_method] if isinstance(response_method, str) else list(response_method)
    if not methods or not set(methods) <= set(_METHODS):
        raise ValueError(
            f"response_method={response_method!r} is not one of {list(_METHODS)}. Give one of "
            "these, or several in the order of preference."
        )
    if "predict" in methods and not isinstance(metric, str) and is_of_scores(metric):
        raise TypeError(
            f"{metric_name(getattr(metric, 'func', metric))} is a metric of scores, and "
            f"response_method={response_method!r} returns labels. Give response_method="
            "'predict_proba', or ['decision_function', 'predict_proba']."
        )
    if pos_label is not None and not isinstance(metric, str) and not passes(metric, "pos_label"):
        raise TypeError(
            f"pos_label={pos_label!r} was given, and {metric_name(metric)} has no such parameter. "
            "Leave it out, or use a metric with this parameter, such as 'demographic_parity'."
        )
    given = {
        "aggregate": (aggregate, None),
        "greater_is_better": (
            greater_is_better,
            greater_is_better if isinstance(metric, str) else _GREATER_IS_BETTER.get(aggregate),
        ),
        "response_method": (response_method, "predict"),
        "pos_label": (pos_label, None),
    }
    arguments = [repr(metric) if isinstance(metric, str) else metric_name(metric)]
    for name, (value, default) in given.items():
        if value != default:
            text = metric_name(value) if callable(value) else repr(value)
            arguments.append(text if name == "aggregate" else f"{name}={text}")
    arguments += [f"{name}={value!r}" for name, value in kwargs.items()]
    return FairnessScorer(
        GroupMetric(metric, aggregate, pos_label, kwargs),
        1 if greater_is_better else -1,
        response_method,
        f"make_fairness_scorer({', '.join(arguments)})",
    )


def wanted_parameters(estimator: Any, method: str) -> set[str]:
    """List the arguments that an estimator needs for its prediction.

    These may be the groups, and a seed if predictions are drawn at random, as by fairlearn's
    ``ThresholdOptimizer``: with the seed, all scorers see the same predictions.
    """
    names = {"sensitive_features", "random_state"}
    if sklearn.get_config()["enable_metadata_routing"]:
        if not hasattr(estimator, "get_metadata_routing"):
            return set()
        return get_routing_for_object(estimator).consumes(method, names)
    last = estimator
    while isinstance(last, Pipeline):
        last = last[-1]
    return {name for name in names if accepts(getattr(last, method), name)}


def _name(metric: GroupMetric) -> str:
    """Name a metric and its aggregate."""
    parts = [metric.metric, metric.aggregate]
    return "_".join(
        part if isinstance(part, str) else metric_name(getattr(part, "func", part))
        for part in parts
        if part is not None
    )


def _of_these_rows(groups: Any, X: Any) -> Any:
    """Select the groups of the rows of X by index, if there are groups of more rows."""
    labelled = isinstance(groups, pd.Series | pd.DataFrame) and isinstance(X, pd.DataFrame)
    if not labelled or len(groups) <= len(X) or not groups.index.is_unique:
        return groups
    return groups.loc[X.index] if X.index.isin(groups.index).all() else groups


def _of_positive(y_pred: Any, estimator: Any, method: str, pos_label: Any) -> Any:
    """Select the scores of the positive class, as scikit-learn does in its own calls."""
    if method == "predict" or len(estimator.classes_) != 2:
        return y_pred
    position = 1 if pos_label is None else list(estimator.classes_).index(pos_label)
    y_pred = np.asarray(y_pred)
    if method == "predict_proba":
        return y_pred[:, position]
    return y_pred if position else -y_pred
