"""Performance and disparity of the candidates of a search, from ``cv_results_``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

SIGN = (
    "The score of a disparity must be negative: a difference between groups of 0.1 has the score "
    "-0.1. Use skfair.metrics.make_fairness_scorer(..., 'difference'), or greater_is_better=False "
    "in scikit-learn's make_scorer. To limit a ratio, as the four-fifths rule does, score 1 minus "
    "the ratio: make_fairness_scorer(fairlearn.metrics.selection_rate, lambda by_group: 1 - "
    "by_group.min() / by_group.max(), greater_is_better=False), with max_disparity=0.2."
)


def read_search_scores(cv_results: Any, performance: str, disparity: str) -> pd.DataFrame:
    """Read the scores of performance and disparity of all candidates.

    Parameters
    ----------
    cv_results : mapping of str to array-like
        ``cv_results_`` of a search.
    performance, disparity : str
        Names of the scorers.

    Returns
    -------
    DataFrame
        For each candidate the mean ("performance", "disparity") and the standard error over the
        folds ("performance_se", "disparity_se"); disparities are positive. NaN for scores that are
        not finite, for standard errors of fewer than two folds, and, in a halving search, for all
        iterations except the last, since earlier iterations had fewer resources.

    Raises
    ------
    TypeError, ValueError
        There are no results of these scorers, or a score of disparity is above zero.

    Examples
    --------
    >>> results = {"mean_test_accuracy": [0.9, 0.8], "mean_test_parity": [-0.2, -0.1]}
    >>> read_search_scores(results, "accuracy", "parity")["disparity"].tolist()
    [0.2, 0.1]
    """
    if not isinstance(cv_results, Mapping | pd.DataFrame):
        raise TypeError(
            f"cv_results is a {type(cv_results).__name__}, expected cv_results_ of a search. Fit "
            "the search first."
        )
    begin = "mean_test_"
    names = [key.removeprefix(begin) for key in cv_results if key.startswith(begin)]
    if names == ["score"]:
        raise ValueError(
            "The search has one scorer only. Give the search two scorers by name: scoring={"
            f"{performance!r}: ..., {disparity!r}: ...}}."
        )
    for argument, name in (("performance", performance), ("disparity", disparity)):
        if name not in names:
            raise ValueError(
                f"{argument}={name!r} is not one of the search's scorers {sorted(names)}. Name one "
                "of these, or add it to scoring."
            )
    mean, error, _ = _read(cv_results, performance)
    score, score_error, folds = _read(cv_results, disparity)
    usable = np.isfinite(mean) & np.isfinite(score)
    current = np.ones(len(mean), dtype=bool)
    if "iter" in cv_results:
        iteration = np.asarray(cv_results["iter"])
        current = iteration == iteration.max()
    above = np.fmax(score, folds.max(axis=1))[current]
    if (above > 0).any():
        raise ValueError(f"{disparity!r} scored {np.nanmax(above):.4g}, above zero. {SIGN}")
    scores = pd.DataFrame(
        {
            "performance": mean,
            "performance_se": error,
            "disparity": 0.0 - score,  # not -0.0
            "disparity_se": score_error,
        }
    )
    scores[~(usable & current)] = np.nan
    return scores


def read_folds(cv_results: Any, name: str) -> np.ndarray:
    """Read one score of all candidates on each fold.

    Parameters
    ----------
    cv_results : mapping of str to array-like
        ``cv_results_`` of a search.
    name : str
        Name of the scorer.

    Returns
    -------
    ndarray of float64 of shape (n_candidates, n_folds)
        The means as a single column if `cv_results` has no scores by fold.

    Examples
    --------
    >>> read_folds({"split0_test_dp": [-0.2, -0.1], "split1_test_dp": [0.0, -0.3]}, "dp")
    array([[-0.2,  0. ],
           [-0.1, -0.3]])
    """
    folds: list[np.ndarray] = []
    while (key := f"split{len(folds)}_test_{name}") in cv_results:
        folds.append(np.asarray(cv_results[key], dtype=np.float64))
    if not folds:
        folds.append(np.asarray(cv_results[f"mean_test_{name}"], dtype=np.float64))
    return np.column_stack(folds)


def _read(cv_results: Any, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the mean score of each candidate, its standard error and the scores of the folds."""
    mean = np.asarray(cv_results[f"mean_test_{name}"], dtype=np.float64)
    folds = read_folds(cv_results, name)
    n_splits = folds.shape[1]
    if n_splits < 2:
        return mean, np.full(len(mean), np.nan), folds
    with np.errstate(invalid="ignore"):  # an infinite fold; the candidate is left out
        return mean, folds.std(axis=1, ddof=1) / np.sqrt(n_splits), folds
