"""Choice of the best candidate of a search under a limit on its disparity."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from skfair.metrics._front import non_dominated
from skfair.metrics._search_scores import read_folds, read_search_scores
from skfair.utils import FairnessWarning, InfeasibleConstraintWarning
from skfair.utils._labels import as_objects

_ROUNDING = 1e-12  # a mean over folds that are all at the limit may exceed it by this much


@dataclass(frozen=True, kw_only=True)
class constrained_refit:
    """Select the best candidate of a search among those whose disparity is small enough.

    Give it as `refit` to ``GridSearchCV`` or ``RandomizedSearchCV``, with a dict of both scorers as
    `scoring`. A candidate is feasible if its mean disparity over the folds is at most
    `max_disparity`. The feasible candidate with the best mean performance is chosen; ties are
    broken by the smaller disparity, then by the position. If no candidate is feasible, the
    candidate with the smallest disparity is chosen, with a warning; ties are broken by the
    performance.

    Parameters
    ----------
    performance : str
        Name of the scorer of performance, as in `scoring`.
    disparity : str
        Name of the scorer of disparity, as in `scoring`. A larger score is better, as for every
        scorer: a difference between groups has a negative score, and -0.1 is a disparity of 0.1.
    max_disparity : float
        Largest disparity that is accepted, 0 or more. Differences between rates are fractions:
        0.05 is 5 percentage points.
    standard_errors : float, default=0.0
        Number of standard errors over the folds that are added to the mean disparity before it is
        compared with the limit. Training parts of folds overlap, so the standard error is somewhat
        too small: 1 is a margin of safety, not a confidence level.

    Raises
    ------
    TypeError, ValueError
        An argument has a wrong type or value. When the search calls it: the scores do not allow a
        choice. The search has ended by then, and the error has its results as the attribute
        ``cv_results_``.

    Warns
    -----
    InfeasibleConstraintWarning
        No candidate is feasible.
    FairnessWarning
        Candidates without a finite mean score were left out. Or `max_disparity` is 1 or more and no
        disparity is above 1, so that the limit has no effect.

    See Also
    --------
    pareto_front : Table of the candidates that are worth choosing.
    make_constrained_scorer : Performance and limit as one score, for halving searches.

    Notes
    -----
    ``HalvingGridSearchCV`` and ``HalvingRandomSearchCV`` silently ignore a callable `refit` and
    take one scorer only: use :func:`make_constrained_scorer` as their `scoring`.

    As with every callable `refit`, the search has ``best_index_``, ``best_params_`` and
    ``best_estimator_``, but no ``best_score_``, and ``search.score(X, y)`` fails with a
    ``KeyError``, since scikit-learn looks for a scorer with the name `refit`. Call the scorer
    instead: ``search.scorer_["accuracy"](search.best_estimator_, X, y)``.

    The performance and the disparity of the chosen candidate are optimistic: report both on
    held-out rows. Leave `error_score` of the search at NaN or "raise": a number would become the
    disparity of a fit that failed.

    Examples
    --------
    >>> import numpy as np
    >>> import sklearn
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skfair.metrics import make_fairness_scorer
    >>> from skfair.model_selection import GroupStratifiedKFold, constrained_refit
    >>> rng = np.random.default_rng(0)
    >>> sex = rng.choice(["f", "m"], 400)
    >>> X = rng.normal(size=(400, 2)) + (sex == "m")[:, None] * [1, 0]
    >>> y = (X.sum(axis=1) + rng.normal(size=400) > 0.5).astype(int)
    >>> search = GridSearchCV(
    ...     LogisticRegression(),
    ...     {"class_weight": [None, {0: 1, 1: 3}, {0: 1, 1: 9}]},
    ...     scoring={"accuracy": "accuracy", "dp": make_fairness_scorer("demographic_parity")},
    ...     refit=constrained_refit(performance="accuracy", disparity="dp", max_disparity=0.25),
    ...     cv=GroupStratifiedKFold(),
    ... )
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     search = search.fit(X, y, sensitive_features=sex)
    >>> search.cv_results_["mean_test_accuracy"].round(2)
    array([0.81, 0.75, 0.67])
    >>> -search.cv_results_["mean_test_dp"].round(2)
    array([0.27, 0.23, 0.18])
    >>> search.best_params_
    {'class_weight': {0: 1, 1: 3}}
    """

    performance: str
    disparity: str
    max_disparity: float
    standard_errors: float = 0.0

    def __post_init__(self) -> None:
        for name in ("performance", "disparity"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TypeError(
                    f"{name} must be the name of a scorer, a key of the dict that the search has "
                    f"as scoring; got {value!r}."
                )
        if self.performance == self.disparity:
            raise ValueError(
                f"performance and disparity are both {self.performance!r}. Name two scorers."
            )
        check_not_negative("max_disparity", self.max_disparity)
        check_not_negative("standard_errors", self.standard_errors)

    def __call__(self, cv_results: Mapping[str, Any]) -> int:
        """Return the position of the candidate to refit.

        Parameters
        ----------
        cv_results : mapping of str to array-like
            ``cv_results_`` of a search.

        Returns
        -------
        int
        """
        try:
            return self._choose(cv_results)
        except ValueError as error:
            # scikit-learn calls this when the search is over, and an error loses the results.
            kept: Any = ValueError(
                f"{error}\nThe search is not lost: this error has its results as the attribute "
                "cv_results_. Catch the error, and choose with pareto_front(error.cv_results_, "
                "...) or another constrained_refit(...)(error.cv_results_)."
            )
            kept.cv_results_ = cv_results
            raise kept from None

    def _choose(self, cv_results: Mapping[str, Any]) -> int:
        scores = _read(cv_results, self.performance, self.disparity)
        reached = scores["disparity"].to_numpy()
        if self.standard_errors:
            reached = reached + self.standard_errors * scores["disparity_se"].to_numpy()
            if np.isnan(reached).any():
                raise ValueError(
                    f"standard_errors={self.standard_errors} needs the scores of at least two "
                    "folds. Search with more, or leave standard_errors at 0."
                )
        performance = scores["performance"].to_numpy()
        holds = np.flatnonzero(reached <= self.max_disparity + _ROUNDING)
        if len(holds):  # lexsort is stable, so that the first of equal candidates is chosen
            best = holds[np.lexsort((reached[holds], -performance[holds]))[0]]
        else:
            best = np.lexsort((-performance, reached))[0]
        chosen = int(scores["candidate"].iloc[best])
        folds = -read_folds(cv_results, self.disparity)[scores["candidate"]]
        if not len(holds):
            margin = f" + {self.standard_errors:g} standard errors" if self.standard_errors else ""
            warnings.warn(
                f"None of {len(scores)} candidates has {self.disparity!r} (mean{margin}) within "
                f"max_disparity={self.max_disparity:g}. The candidate with the smallest disparity "
                f"was chosen: it reached {reached[best]:.4g} with {self.performance!r} at "
                f"{performance[best]:.4g} and {cv_results['params'][chosen]}. Search among other "
                "candidates, or accept a larger disparity. In folds with few rows of a group, "
                "chance alone makes a difference: fewer folds or larger groups help.",
                InfeasibleConstraintWarning,
            )
        elif self.max_disparity >= 1 and len(holds) == len(scores) and (folds <= 1).all():
            warnings.warn(
                f"max_disparity={self.max_disparity:g} limits nothing, since {self.disparity!r} is "
                "at most 1 for all candidates and folds. Differences between rates are fractions: "
                f"write {self.max_disparity / 100:g} for {self.max_disparity:g} percent.",
                FairnessWarning,
            )
        return chosen


def pareto_front(cv_results: Any, *, performance: str, disparity: str) -> pd.DataFrame:
    """List the candidates of a search that no other beats in both performance and disparity.

    A candidate beats another candidate if it is at least as good in both means and better in one.
    Candidates with equal means are on the front together.

    Parameters
    ----------
    cv_results : fitted search or mapping of str to array-like
        A fitted scikit-learn search with several scorers, or its ``cv_results_``.
    performance : str
        Name of the scorer of performance.
    disparity : str
        Name of the scorer of disparity, whose scores are negative (see
        :class:`constrained_refit`).

    Returns
    -------
    DataFrame
        One row for each candidate on the front, by ascending disparity. Columns: position in the
        results ("candidate"), "performance", "performance_se", "disparity" (positive),
        "disparity_se" and each parameter (``param_C``, None or NaN if the candidate does not have
        it). Standard errors are over the folds, NaN with fewer than two folds. The numbers come
        from the folds that also determine the front, so they are optimistic for a candidate that
        is chosen from it.

    Raises
    ------
    TypeError, ValueError
        There are no results of these two scorers, all results are NaN, or a score of disparity is
        above zero.

    Warns
    -----
    FairnessWarning
        Candidates without a finite mean score were left out.

    Examples
    --------
    >>> from skfair.model_selection import pareto_front
    >>> cv_results = {
    ...     "mean_test_accuracy": [0.9, 0.8, 0.7, 0.6],
    ...     "mean_test_dp": [-0.2, -0.04, -0.05, -0.01],
    ...     "params": [{"C": 1.0}, {"C": 0.1}, {"C": 0.01}, {"C": 0.001}],
    ... }
    >>> front = pareto_front(cv_results, performance="accuracy", disparity="dp")
    >>> front[["candidate", "performance", "disparity", "param_C"]]
       candidate  performance  disparity  param_C
    0          3          0.6       0.01    0.001
    1          1          0.8       0.04    0.100
    2          0          0.9       0.20    1.000
    """
    cv_results = getattr(cv_results, "cv_results_", cv_results)
    scores = _read(cv_results, performance, disparity)
    front = scores[non_dominated(scores["performance"], scores["disparity"])]
    front = front.sort_values(["disparity", "candidate"], ignore_index=True)
    params = [cv_results["params"][i] for i in front["candidate"]]
    for name in dict.fromkeys(name for param in params for name in param):
        column = as_objects([param.get(name) for param in params])
        front[f"param_{name}"] = pd.Series(column, dtype=object).infer_objects()
    return front


def check_not_negative(name: str, value: Any) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {value!r}.")


def _read(cv_results: Mapping[str, Any], performance: str, disparity: str) -> pd.DataFrame:
    """Read both scores of the candidates; candidates without finite scores are left out."""
    scores = read_search_scores(cv_results, performance, disparity)
    scores.insert(0, "candidate", np.arange(len(scores)))
    if "iter" in cv_results:  # halving: earlier iterations had fewer resources
        iteration = np.asarray(cv_results["iter"])
        scores = scores[iteration == iteration.max()]
    finite = scores["performance"].notna() & scores["disparity"].notna()
    if not finite.all():
        counts = []
        for name in (performance, disparity):
            folds = read_folds(cv_results, name)[scores["candidate"]]
            counts.append((np.count_nonzero(~np.isfinite(folds)), folds.size, name))
        (most, n_fits, name), (other, _, second) = sorted(counts, key=lambda count: -count[0])
        where = f"{name!r} is NaN or infinite in {most} of {n_fits} fits, "
        where += f"{second!r} in {other or 'none'}"
        look = "Set error_score='raise' in the search to see the cause."
        if not finite.any():
            raise ValueError(
                f"None of {len(scores)} candidates has a finite mean of both {performance!r} "
                f"and {disparity!r}: {where}. {look} Possible causes: pos_label is not given for "
                "labels that are text; sensitive_features are not routed; a fold misses a group or "
                "a class in it (use GroupStratifiedKFold as cv with fewer folds); 'accuracy' "
                "scores an estimator that needs the groups to predict (use "
                "make_fairness_scorer(accuracy_score, 'overall'))."
            )
        warnings.warn(
            f"{np.count_nonzero(~finite)} of {len(scores)} candidates were left out: {where}. "
            f"{look} Perhaps a fold misses a group or a class in it (use GroupStratifiedKFold).",
            FairnessWarning,
        )
    return scores[finite]
