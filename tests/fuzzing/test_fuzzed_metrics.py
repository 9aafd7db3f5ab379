"""Group metrics, scorers and splitters on odd labels and groups: they work, or refuse in words."""

import copy

import calls
import numpy as np
import profiles
import pytest
from calls import GROUPS, ROWS, WEIGHT, Y
from hypothesis import given
from hypothesis import strategies as st
from odd_data import LABELS, WEIGHTS, changed

from skfair.metrics import (
    average_group_accuracy_score,
    count_groups,
    fairness_report,
    make_fairness_scorer,
    worst_group_accuracy_score,
)
from skfair.model_selection import GroupStratifiedKFold, GroupStratifiedShuffleSplit

pytestmark = pytest.mark.thorough

PREDICTED = np.roll(Y, 3)

GOOD = [(Y, []), (PREDICTED, []), (GROUPS, []), (None, [])]
ODD = [changed(Y, LABELS), changed(PREDICTED, LABELS), changed(GROUPS, LABELS)]


def _arguments(n_odd):
    """One odd argument, and the others good."""
    odd = [*ODD, changed(WEIGHT, WEIGHTS)][:n_odd]
    good = [st.just(one) for one in GOOD]
    return st.one_of(
        *(st.tuples(*good[:i], one, *good[i + 1 : n_odd]) for i, one in enumerate(odd))
    ).map(lambda drawn: [data for data, _ in drawn])


@profiles.some(120)
@given(_arguments(4))
def test_counts_and_scores(arguments):
    y, predicted, groups, weight = arguments
    keywords = {"sensitive_features": groups, "sample_weight": weight}
    counted = calls.call(count_groups, y, predicted, **keywords)
    if counted.error is None:
        calls.check_finite(counted.result.table(), "count_groups")
    for score in (worst_group_accuracy_score, average_group_accuracy_score):
        called = calls.call(score, y, predicted, **keywords)
        if not isinstance(predicted, dict):  # of several models, which only counts take
            assert (called.error is None) == (counted.error is None)
        if called.error is None:
            assert 0 <= called.result <= 1


@profiles.some(60)
@given(_arguments(4))
def test_reports(arguments):
    y, predicted, groups, weight = arguments
    called = calls.call(
        fairness_report, y, predicted, sensitive_features=groups, sample_weight=weight, n_boot=20
    )
    if called.error is None:
        assert str(called.result)


@profiles.some(60)
@given(y=ODD[0], groups=ODD[2])
@pytest.mark.parametrize("metric", ["demographic_parity", "equalized_odds"])
def test_scorers(metric, y, groups):
    scorer = make_fairness_scorer(metric)
    classifier = copy.deepcopy(calls.fitted("ThresholdDebiaser"))
    called = calls.call(scorer, classifier, ROWS, y[0], sensitive_features=groups[0])
    if called.error is None:
        assert -1 <= called.result <= 0


@profiles.some(80)
@given(y=ODD[0], groups=ODD[2])
@pytest.mark.parametrize(
    "splitter", [GroupStratifiedKFold(3), GroupStratifiedShuffleSplit(2, random_state=0)]
)
def test_splitters(splitter, y, groups):
    def split():
        return list(splitter.split(ROWS, y[0], sensitive_features=groups[0]))

    called = calls.call(split)
    for train, test in called.result or ():
        assert sorted([*train, *test]) == list(range(len(ROWS)))
        assert len(train)
        assert len(test)
