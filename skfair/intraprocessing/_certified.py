"""Intra-processing, all methods: candidates are tested on rows that nothing was decided on."""

from numbers import Real

import numpy as np

from skfair.intraprocessing._counting import find_strata
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._search import Search
from skfair.intraprocessing._selection import Candidate, Selection
from skfair.metrics._certificate import FairnessCertificate
from skfair.metrics._certify import certify
from skfair.metrics._rate_tests import RateCounts, holds, rate_counts
from skfair.utils import Groups


def choose_certified(
    search: Search, groups: Groups
) -> tuple[Candidate, Objective, FairnessCertificate]:
    """Test candidates on the calibration rows, the surest first, until one fails.

    All candidates that pass before are certified at once, at the stated confidence
    (fixed-sequence testing), so that the one of them that performs best may be taken.

    Parameters
    ----------
    search : Search
        After the search. Its weights are changed.
    groups : Groups
        Of all rows.

    Returns
    -------
    best : Candidate
    judge : Objective
        Measures the candidate.
    certificate : FairnessCertificate
    """
    selection = search.selection
    objective = selection.objective.take(selection.rows.calibrate)
    confidence, constraint, epsilon = objective.confidence, objective.constraint, objective.epsilon
    assert isinstance(confidence, Real)
    assert isinstance(constraint, str)
    passed = []
    for candidate in selection.to_certify():
        predicted = _predict_calibration(search, candidate)
        if not holds(_rates(objective, predicted), epsilon, 1 - float(confidence)):
            break
        passed.append(candidate._replace(predicted=predicted))
    if passed:
        best = max(passed, key=lambda each: each.choice.performance[0])
        judge, predicted = objective, best.predicted
    else:
        best, judge = _choose_without(search)
        predicted = _predict_calibration(search, best)
    certificate = certify(
        _rates(objective, predicted),
        [groups.labels[int(group)] for group in objective.compared],
        constraint=constraint,
        epsilon=epsilon,
        confidence=float(confidence),
        proves=bool(passed),  # else it was chosen on these rows
    )
    return best, judge, certificate


def _predict_calibration(search: Search, candidate: Candidate) -> np.ndarray:
    search.go_to(candidate.state)
    return search.score(search.selection.rows.calibrate) > candidate.choice.threshold[0]


def _rates(objective: Objective, predicted: np.ndarray) -> list[RateCounts]:
    """Count what the constraint compares, on the calibration rows."""
    assert isinstance(objective.constraint, str)
    compared = objective.compared
    counts = objective.count(predicted).reshape(-1, 2)[compared]
    return rate_counts(objective.constraint, counts, objective.totals[compared])


def _choose_without(search: Search) -> tuple[Candidate, Objective]:
    """Choose without a certificate: the calibration rows, which tuned nothing, judge as well.

    Returns
    -------
    best : Candidate
    judge : Objective
        Measures the candidate.
    """
    first = search.selection
    rows = first.rows._replace(
        select=np.union1d(first.rows.select, first.rows.calibrate), calibrate=np.empty(0, int)
    )
    if not first.rows.held_out:
        rows = rows._replace(tune=rows.select)
    elif rows.stratum.any():  # now of all rows; a network that knows the rows has no strata
        part = min(len(rows.tune), len(rows.select)) / len(search.scores)
        rows = rows._replace(stratum=find_strata(search.objective.cell, search.scores, part))
    selection = Selection(
        search.objective,
        scores=search.scores,
        rows=rows,
        original=search.original,
        seed=search.seed,
    )
    again = Search(search.network, search.X, selection, seed=search.seed, verbose=search.verbose)
    trials = [0, 1]  # the original network, and with another threshold
    for trial, state in first.leaders:
        again.go_to(state)
        again.consider(state={0: state}.__getitem__)
        trials.append(trial)
    best, judge = selection.choose()
    return best._replace(trial=trials[best.trial]), judge
