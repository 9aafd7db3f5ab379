"""Plot of performance against disparity."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score

from skfair.metrics._group_metric import lower_is_better
from skfair.metrics._plotting import words
from skfair.metrics._report import FairnessReport
from skfair.metrics._search_scores import read_search_scores
from skfair.metrics._tradeoff_drawing import TradeoffDrawing
from skfair.metrics._tradeoff_metrics import disparity_metric, performance_metric
from skfair.utils._rows import check_rows


class TradeoffDisplay(TradeoffDrawing):
    """Performance of candidate models against their disparity between groups.

    Make it with :meth:`from_estimator` for a debiaser or a search, with :meth:`from_cv_results`,
    with :meth:`from_report` for models with intervals, with :meth:`from_predictions`, or from any
    numbers. An arrow shows the better corner: high performance, small disparity. Candidates to the
    left of `max_disparity` meet the constraint; higher candidates are better. With three candidates
    or more, a line shows the Pareto front: the candidates that no other candidate beats in both
    numbers.

    Parameters
    ----------
    performance : array-like of shape (n_candidates,)
        Performance of each candidate; larger is better. A candidate whose performance or disparity
        is not finite is not drawn, and the positions of the other candidates do not change.
    disparity : array-like of shape (n_candidates,)
        Disparity of each candidate. The absolute value is shown.
    max_disparity : float, optional
        The constraint: an upper limit of the disparity, shown as a shaded band.
    marked : mapping of str to int, optional
        Candidates to mark: name and position of each. Up to five marks have different markers and
        are in the legend; a mark whose name begins with "chosen" is a star. With more than five
        marks, each has its name beside it.
    performance_name : str, default="performance"
        Label of the vertical axis.
    disparity_name : str, default="disparity"
        Label of the horizontal axis.
    performance_error, disparity_error : array-like of shape (n_candidates,), optional
        Standard errors, drawn as thin bars to both sides; NaN for none.
    performance_interval, disparity_interval : array-like of shape (2, n_candidates), optional
        Low and high ends of 95 % intervals, drawn as thin bars; NaN for none. Give standard errors
        or intervals, not both.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure with these axes.
    candidates_ : matplotlib PathCollection
        Points of the candidates.
    marked_ : dict of str to matplotlib Line2D
        Points that were marked.
    labels_ : list of matplotlib Annotation
        Names and positions beside points; empty where all names are in the legend.
    front_ : matplotlib Line2D or None
        The Pareto front, from its candidate with the smallest disparity to the one with the best
        performance. None if there are fewer than three candidates, or if one candidate beats all
        others.
    errors_ : matplotlib ErrorbarContainer or None
        Standard errors or intervals.
    better_ : matplotlib Annotation
        Arrow to the better corner.
    band_ : matplotlib Patch or None
        Region where the constraint holds.

    Raises
    ------
    ValueError
        The arguments contradict each other.

    See Also
    --------
    GroupMetricsDisplay : A metric of each group.
    skfair.model_selection.pareto_front : The Pareto front of a search as a table.

    Examples
    --------
    >>> display = TradeoffDisplay(
    ...     performance=[0.82, 0.75, 0.78],
    ...     disparity=[0.31, 0.02, 0.04],
    ...     max_disparity=0.05,
    ...     marked={"original": 0, "chosen": 2},
    ... )
    >>> display.plot().ax_.get_xlabel()
    'disparity'
    """

    def __init__(
        self,
        performance: ArrayLike,
        disparity: ArrayLike,
        *,
        max_disparity: float | None = None,
        marked: Mapping[str, int] | None = None,
        performance_name: str = "performance",
        disparity_name: str = "disparity",
        performance_error: ArrayLike | None = None,
        disparity_error: ArrayLike | None = None,
        performance_interval: ArrayLike | None = None,
        disparity_interval: ArrayLike | None = None,
    ):
        self.performance = np.asarray(performance, dtype=np.float64)
        self.disparity = np.abs(np.asarray(disparity, dtype=np.float64))
        self.max_disparity = max_disparity
        self.marked = dict(marked or {})
        self.performance_name = performance_name
        self.disparity_name = disparity_name
        shape = self.performance.shape
        if self.performance.ndim != 1 or shape != self.disparity.shape:
            raise ValueError(
                f"performance has shape {shape} and disparity has shape "
                f"{self.disparity.shape}, expected one number a candidate in both. Give two arrays "
                "of shape (n_candidates,)."
            )
        self.performance_error = _check_error("performance_error", performance_error, shape)
        self.disparity_error = _check_error("disparity_error", disparity_error, shape)
        self.performance_interval = _check_interval(
            "performance_interval", performance_interval, shape
        )
        self.disparity_interval = _check_interval("disparity_interval", disparity_interval, shape)
        errors = self.performance_error is not None or self.disparity_error is not None
        intervals = self.performance_interval is not None or self.disparity_interval is not None
        if errors and intervals:
            raise ValueError(
                "Standard errors and intervals were given, which would look alike. Give "
                "performance_error and disparity_error, or performance_interval and "
                "disparity_interval."
            )
        n, shown = len(self.performance), self._shown()
        if not shown.any():
            raise ValueError(
                f"None of {n} candidates has a finite performance and a finite disparity. Give "
                "finite numbers for at least one."
            )
        outside = {name: i for name, i in self.marked.items() if not 0 <= i < n}
        if outside:
            raise ValueError(
                f"marked has positions that no candidate has: {outside}. Give positions from 0 to "
                f"{n - 1}."
            )
        gone = {name: i for name, i in self.marked.items() if not shown[i]}
        if gone:
            raise ValueError(
                f"marked has candidates without a finite performance and disparity: {gone}. Mark "
                "other candidates."
            )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Any = None,
        annotate: bool = False,
        scatter_kw: dict[str, Any] | None = None,
    ) -> "TradeoffDisplay":
        """Show the candidates of a debiaser or a search, and the chosen one.

        Numbers of a debiaser are measured on the debiasing rows that were used for the choice.
        Numbers of a search are means over the folds, with their standard errors.

        Parameters
        ----------
        estimator : fitted debiaser or search
            A debiaser of :mod:`skfair.intraprocessing`, or a scikit-learn search whose `refit` is
            a :class:`skfair.model_selection.constrained_refit`. For a search, the candidate with
            the best performance is also marked, if it is not the chosen one.
        ax : matplotlib Axes, optional
            Axes to draw into; new ones if not given.
        annotate : bool, default=False
            As in :meth:`plot`.
        scatter_kw : dict, optional
            Passed to ``Axes.scatter`` for the candidates.

        Returns
        -------
        display : TradeoffDisplay

        Raises
        ------
        TypeError
            `estimator` is not a debiaser or a search, is not fitted, or is a search with another
            `refit`.
        """
        if hasattr(estimator, "refit") and hasattr(estimator, "scoring"):
            display = cls._of_search(estimator)
        else:
            display = cls._of_debiaser(estimator)
        return display.plot(ax, annotate=annotate, scatter_kw=scatter_kw)

    @classmethod
    def _of_debiaser(cls, estimator: Any) -> "TradeoffDisplay":
        wanted = ("trials_", "best_trial_", "epsilon", "constraint", "performance")
        missing = [name for name in wanted if not hasattr(estimator, name)]
        if missing:
            raise TypeError(
                f"estimator is {type(estimator).__name__} without {missing}, expected a fitted "
                "debiaser or search. Fit it first. For other models, give predictions to "
                "TradeoffDisplay.from_predictions, or numbers to "
                "TradeoffDisplay(performance, disparity).plot()."
            )
        trials = estimator.trials_
        kinds = list(trials["candidate"])
        marked = {"original network": kinds.index("original")}
        if kinds[estimator.best_trial_] == "threshold":
            marked["chosen: threshold only"] = estimator.best_trial_
        else:
            marked["threshold only"] = kinds.index("threshold")
            marked["chosen"] = estimator.best_trial_
        return cls(
            trials["performance"],
            trials["bias"],
            max_disparity=estimator.epsilon,
            marked=marked,
            performance_name=words(estimator.performance),
            disparity_name=f"|bias|, {words(estimator.constraint)}",
        )

    @classmethod
    def _of_search(cls, search: Any) -> "TradeoffDisplay":
        kind, refit = type(search).__name__, search.refit
        if not hasattr(search, "cv_results_"):
            raise TypeError(f"estimator is a {kind} that is not fitted. Fit it first.")
        wanted = ("performance", "disparity", "max_disparity")
        if not all(hasattr(refit, name) for name in wanted):
            raise TypeError(
                f"estimator is a {kind} with refit={refit!r}, which does not name the scores to "
                "show. Name them: TradeoffDisplay.from_cv_results(search.cv_results_, "
                "performance='...', disparity='...', chosen=search.best_index_)."
            )
        display = cls._of_results(
            search.cv_results_, refit.performance, refit.disparity, refit.max_disparity
        )
        performance = np.where(display._shown(), display.performance, -np.inf)
        tied = np.flatnonzero(performance == performance.max())
        if search.best_index_ not in tied:
            best = tied[np.argmin(display.disparity[tied])]
            display.marked["best performance"] = int(best)
        display.marked["chosen"] = int(search.best_index_)
        return display

    @classmethod
    def from_cv_results(
        cls,
        cv_results: Mapping[str, Any],
        *,
        performance: str,
        disparity: str,
        max_disparity: float | None = None,
        chosen: int | None = None,
        ax: Any = None,
        annotate: bool = False,
        scatter_kw: dict[str, Any] | None = None,
    ) -> "TradeoffDisplay":
        """Show the candidates of a search: means over the folds, with their standard errors.

        Parameters
        ----------
        cv_results : mapping of str to array-like
            ``cv_results_`` of a search with several scorers. A candidate whose mean score is
            not finite is left out.
        performance : str
            Name of the scorer of performance.
        disparity : str
            Name of the scorer of disparity. A larger score is better, as for every scorer: a
            difference between groups of 0.1 has the score -0.1 and is shown as 0.1.
        max_disparity : float, optional
            The constraint, 0 or more.
        chosen : int, optional
            Position in `cv_results` of a candidate to mark, such as ``best_index_``.
        ax : matplotlib Axes, optional
            Axes to draw into; new ones if not given.
        annotate : bool, default=False
            As in :meth:`plot`.
        scatter_kw : dict, optional
            Passed to ``Axes.scatter`` for the candidates.

        Returns
        -------
        display : TradeoffDisplay

        Raises
        ------
        TypeError
            `cv_results` is not a mapping.
        ValueError
            A scorer is unknown, the scores of disparity are not negative, or `chosen` is not the
            position of a candidate.

        Examples
        --------
        >>> cv_results = {
        ...     "mean_test_accuracy": [0.9, 0.8, 0.7],
        ...     "mean_test_parity": [-0.2, -0.04, -0.05],
        ... }
        >>> display = TradeoffDisplay.from_cv_results(
        ...     cv_results, performance="accuracy", disparity="parity", chosen=1
        ... )
        >>> display.disparity
        array([0.2 , 0.04, 0.05])
        """
        display = cls._of_results(cv_results, performance, disparity, max_disparity, chosen)
        return display.plot(ax, annotate=annotate, scatter_kw=scatter_kw)

    @classmethod
    def _of_results(
        cls,
        cv_results: Mapping[str, Any],
        performance: str,
        disparity: str,
        max_disparity: float | None,
        chosen: Any = None,
    ) -> "TradeoffDisplay":
        scores = read_search_scores(cv_results, performance, disparity)
        errors = {}  # a search with a single fold has no standard errors
        for name in ("performance", "disparity"):
            error = scores[f"{name}_se"]
            errors[f"{name}_error"] = None if error.isna().all() else error
        return cls(
            scores["performance"],
            scores["disparity"],
            max_disparity=max_disparity,
            marked={} if chosen is None else {"chosen": chosen},
            performance_name=words(performance),
            disparity_name=f"disparity, {words(disparity)}",
            **errors,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        predictions: Mapping[str, Any],
        *,
        sensitive_features: Any,
        performance: str | Callable = accuracy_score,
        disparity: str | Callable = "demographic_parity",
        max_disparity: float | None = None,
        pos_label: Any = None,
        ax: Any = None,
        annotate: bool = False,
    ) -> "TradeoffDisplay":
        """Show several models, each with its name.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels of any type.
        predictions : dict of str to array-like of shape (n_samples,)
            Predicted labels of each model.
        sensitive_features : array-like of shape (n_samples,) or (n_samples, n_columns)
            Group labels: array, Series, DataFrame or dict of columns (intersections).
        performance : callable or "worst_group_accuracy", default=accuracy_score
            Metric of all samples, ``metric(y_true, y_pred)`` -> float; larger is better. A metric
            with a parameter ``sensitive_features`` receives them.
        disparity : str or callable, default="demographic_parity"
            ``"demographic_parity"``, ``"equal_opportunity"``, ``"equalized_odds"`` or
            ``"average_odds"``, as in :func:`make_fairness_scorer`; or a function
            ``metric(y_true, y_pred, sensitive_features=...)`` -> float whose best value is 0, such
            as ``fairlearn.metrics.equalized_odds_difference``.
        max_disparity : float, optional
            The constraint.
        pos_label : label, default=None
            The positive class, for metrics of one class. None means 1 if labels are of {0, 1} or
            {-1, 1}.
        ax : matplotlib Axes, optional
            Axes to draw into; new ones if not given.
        annotate : bool, default=False
            As in :meth:`plot`.

        Returns
        -------
        display : TradeoffDisplay

        Raises
        ------
        TypeError
            `predictions` is not a dict, or a metric is not of the expected kind.
        ValueError
            See :func:`make_fairness_scorer`.

        Examples
        --------
        >>> display = TradeoffDisplay.from_predictions(
        ...     [0, 1, 0, 1],
        ...     {"plain": [0, 1, 1, 1], "fair": [0, 1, 0, 1]},
        ...     sensitive_features=["f", "f", "m", "m"],
        ... )
        >>> display.performance, display.disparity
        (array([0.75, 1.  ]), array([0.5, 0. ]))
        """
        if not isinstance(predictions, Mapping):
            raise TypeError(
                f"predictions is a {type(predictions).__name__}, expected a dict of model names to "
                "predicted labels. Give for instance {'plain': y_pred}."
            )
        if not predictions:
            raise ValueError("predictions is empty. Give predicted labels of at least one model.")
        check_rows(y_true=y_true, predictions=predictions, sensitive_features=sensitive_features)
        metrics = [
            performance_metric(performance, pos_label),
            disparity_metric(disparity, pos_label, y_true, sensitive_features),
        ]
        values = []
        for name, y_pred in predictions.items():
            try:
                values.append(
                    [m(y_true, y_pred, sensitive_features=sensitive_features) for m in metrics]
                )
            except Exception as error:
                error.add_note(f"Raised for predictions[{name!r}].")
                raise
        named = f"{words(disparity)} difference" if isinstance(disparity, str) else words(disparity)
        display = cls(
            *np.transpose(values),
            max_disparity=max_disparity,
            marked={str(name): i for i, name in enumerate(predictions)},
            performance_name=words(performance),
            disparity_name=named,
        )
        return display.plot(ax, annotate=annotate)

    @classmethod
    def from_report(
        cls,
        report: FairnessReport,
        *,
        performance: str = "accuracy",
        disparity: str = "selection_rate",
        max_disparity: float | None = None,
        ax: Any = None,
        annotate: bool = False,
        scatter_kw: dict[str, Any] | None = None,
    ) -> "TradeoffDisplay":
        """Show the models of a report, with their intervals in both directions.

        The report has Wilson's interval of a performance that is a share, such as the accuracy. The
        interval of a disparity is the percentile interval of the report's bootstrap. The bootstrap
        overstates small differences between groups, as the notes of :func:`fairness_report` say.
        All models have the same samples, so that two models may differ although their intervals
        overlap: read the changes in the report.

        Parameters
        ----------
        report : FairnessReport
            Result of :func:`fairness_report` without control features.
        performance : str, default="accuracy"
            Name of a metric of the report whose value over all samples is shown; larger is better.
        disparity : str, default="selection_rate"
            Name of a metric of the report whose difference between the estimable groups is shown.
        max_disparity : float, optional
            The constraint.
        ax : matplotlib Axes, optional
            Axes to draw into; new ones if not given.
        annotate : bool, default=False
            As in :meth:`plot`.
        scatter_kw : dict, optional
            Passed to ``Axes.scatter`` for the candidates.

        Returns
        -------
        display : TradeoffDisplay

        Raises
        ------
        TypeError
            `report` is not a report.
        ValueError
            The report does not have one of the metrics, `performance` is a loss or an error, or
            the report has control features.

        Examples
        --------
        >>> from skfair.metrics import fairness_report
        >>> report = fairness_report(
        ...     [0, 1] * 20, {"plain": [0, 1] * 20}, sensitive_features=["f"] * 20 + ["m"] * 20
        ... )
        >>> display = TradeoffDisplay.from_report(report)
        >>> display.performance, display.disparity
        (array([1.]), array([0.]))
        """
        if not isinstance(report, FairnessReport):
            raise TypeError(
                f"report is a {type(report).__name__}. Give what fairness_report returns, or "
                "predictions to TradeoffDisplay.from_predictions."
            )
        if report.counts.control_names:
            raise ValueError(
                f"report has the control features {list(report.counts.control_names)}, so each "
                "level has its own disparity. Give a report without control features."
            )
        names = list(dict.fromkeys(report.by_feature.index.get_level_values(0)))
        for key, name in (("performance", performance), ("disparity", disparity)):
            if name not in names:
                raise ValueError(
                    f"{key}={name!r} is not in the report, which has {names}. Name one of these, "
                    "or make a report with metrics=..."
                )
        function = next(m.function for m in report._metrics if m.name == performance)
        if lower_is_better(function):
            raise ValueError(
                f"performance={performance!r} is a loss or an error, expected a score (larger is "
                f"better). Give one of {names}."
            )
        models = report.counts.models
        high = report.disparities.loc[(performance, "overall")]
        small = report.gaps.loc[(disparity, "difference")]
        parts = ("value", "low", "high")
        of_performance, *ends = (np.array([high[m, p] for m in models], float) for p in parts)
        of_disparity, *gap_ends = (np.array([small[m, p] for m in models], float) for p in parts)
        display = cls(
            of_performance,
            of_disparity,
            max_disparity=max_disparity,
            marked={
                name: i
                for i, name in enumerate(models)
                if np.isfinite(of_performance[i] + of_disparity[i])
            },
            performance_name=words(performance),
            disparity_name=f"{words(disparity)} difference",
            performance_interval=np.array(ends),
            disparity_interval=np.array(gap_ends),
        )
        return display.plot(ax, annotate=annotate, scatter_kw=scatter_kw)


def _check_interval(name: str, interval: Any, shape: tuple) -> np.ndarray | None:
    if interval is None:
        return None
    interval = np.asarray(interval, dtype=np.float64)
    if interval.shape != (2, *shape) or np.any(interval[0] > interval[1]):
        raise ValueError(
            f"{name} has shape {interval.shape}, expected {(2, *shape)}: the low ends, then the "
            "high ends, which must not be smaller. Give np.array([low, high])."
        )
    return interval


def _check_error(name: str, error: Any, shape: tuple) -> np.ndarray | None:
    if error is None:
        return None
    error = np.asarray(error, dtype=np.float64)
    if error.shape != shape or np.any(error < 0):
        raise ValueError(
            f"{name} has shape {error.shape}{' and negative numbers' * bool(np.any(error < 0))}, "
            f"expected one number of 0 or more for each candidate, shape {shape}."
        )
    return error
