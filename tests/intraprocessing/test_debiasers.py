"""Every debiaser as a scikit-learn estimator, and what all of them promise."""

import copy
import functools
import inspect
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from lazy_nets import lazy_net
from scipy.stats import norm
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from skfair import intraprocessing
from skfair.discovery import all_estimators
from skfair.estimator_checks._reproducible import global_state
from skfair.intraprocessing import (
    IntraprocessingDebiaser,
    RandomPerturbationDebiaser,
    ThresholdDebiaser,
    _base,
    _certified,
    _critics,
    _group_blind_fit,
    _selection,
)
from skfair.intraprocessing._objective import Objective
from skfair.intraprocessing._rows import Rows, split_rows
from skfair.intraprocessing._search import Search
from skfair.intraprocessing._selection import Selection
from skfair.utils import (
    InfeasibleConstraintWarning,
    InterruptedSearchWarning,
    SmallGroupWarning,
)
from skfair.utils._random import seeded

# What little data and short searches find is not what most of these tests are about.
pytestmark = [
    pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning"),
    pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning"),
    pytest.mark.filterwarnings("ignore::skfair.utils.OverfitWarning"),
    pytest.mark.filterwarnings("ignore::skfair.utils.SmallGroupWarning"),
    pytest.mark.filterwarnings("ignore:Lazy modules are a new feature"),
]


@pytest.fixture(autouse=True)
def _a_critic_that_has_learnt_little(monkeypatch):
    monkeypatch.setattr(_critics, "_N_PRETRAIN", 6)


LITTLE = {"n_trials": 4, "n_calls": 2, "n_layers": 2, "max_epochs": 2}
KINDS = {name: kind for name, kind in all_estimators() if issubclass(kind, IntraprocessingDebiaser)}
everyone = pytest.mark.parametrize("name", KINDS)
# LinearPostDebiaser solves: it has no threshold and no search, and tests of its own.
searching = pytest.mark.parametrize("name", [n for n in KINDS if n != "LinearPostDebiaser"])
TUNING = {
    name
    for name, kind in KINDS.items()
    if "validation_fraction" in inspect.signature(kind).parameters
}

N = 240


def make_data():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(2, size=(2, N))
    X = rng.normal(size=(N, 4)).astype(np.float32)
    X[:, 0] += 2 * y
    X[:, 1] = groups
    return X, y, groups


X, Y, GROUPS = make_data()


def network():
    """A network whose logit is about 1.5 (x0 - 1) + 1.5 x1 - 0.75, which nothing has trained."""
    weight = torch.tensor([[1.5, 1.5, 0.2, -0.2]])
    with seeded(0):
        layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        layers[0].weight[:4], layers[0].weight[4:] = torch.eye(4), -torch.eye(4)
        layers[0].bias.fill_(0.05)
        layers[2].weight.copy_(torch.cat([weight, -weight], 1))
        layers[2].bias.fill_(-2.25)
    return layers


NETWORK = network()


def make(name, estimator=NETWORK, **parameters):
    kind = KINDS[name]
    known = inspect.signature(kind).parameters
    little = {key: value for key, value in LITTLE.items() if key in known}
    return kind(estimator, **{"random_state": 0, "epsilon": 0.1, **little, **parameters})


def fit(name, X=X, y=Y, groups=GROUPS, **parameters):
    return make(name, **parameters).fit(X, y, sensitive_features=groups)


@functools.cache
def fitted(name):
    """A fit that several tests look at and none changes."""
    return fit(name, estimator=FrozenEstimator(NETWORK))


def assert_same(first, second, X=X):
    np.testing.assert_array_equal(first.decision_function(X), second.decision_function(X))
    assert first.trials_.equals(second.trials_)
    assert first.threshold_ == second.threshold_
    assert first.bias_ == second.bias_


def tuning(name):
    """Whether it tunes weights on a part of the rows."""
    return name in TUNING


# scikit-learn's checks --------------------------------------------------------------------


@everyone
def test_parameters_that_all_have(name):
    parameters = list(inspect.signature(KINDS[name]).parameters)
    assert parameters[0] == "estimator"
    for shared in ("constraint", "epsilon", "performance", "confidence", "margin", "output"):
        assert shared in parameters


@searching
def test_binary_is_declared(name):
    tags = make(name).__sklearn_tags__()
    assert not tags.classifier_tags.multi_class
    assert tags.target_tags.required
    assert not tags.classifier_tags.poor_score
    assert tags.input_tags.two_d_array


# Group labels -----------------------------------------------------------------------------


class Table:
    """A table that is not pandas': columns by name, and a list of them."""

    def __init__(self, **columns):
        self.data = columns
        self.columns = list(columns)

    def __getitem__(self, name):
        return self.data[name]


def test_groups_in_a_table_that_is_not_pandas():
    words = np.where(GROUPS == 1, "m", "f")
    assert_same(fit("ThresholdDebiaser", groups=Table(sex=words)), fitted("ThresholdDebiaser"))


@searching
def test_intersections(name):
    other = np.arange(N) % 2
    table = pd.DataFrame({"sex": np.where(GROUPS == 1, "m", "f"), "old": other == 1})
    debiaser = fit(name, groups=table)
    assert_same(debiaser, fit(name, groups=2 * GROUPS + other))
    assert debiaser.bias_ >= 0


def test_a_callable_gets_the_features_as_given():
    table = pd.DataFrame({"sex": np.where(GROUPS == 1, "m", "f"), "old": np.arange(N) % 2 == 1})
    seen = []

    def largest_gap(y_true, y_pred, *, sensitive_features):
        seen.append(sensitive_features)
        return demographic_parity_difference(y_true, y_pred, sensitive_features=sensitive_features)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intraprocessing._objective, "_CALLABLE_THRESHOLDS", 5)
        patch.setattr(intraprocessing._user_functions, "_N_BOOTSTRAP", 5)
        debiaser = fit("ThresholdDebiaser", groups=table, constraint=largest_gap)
    # First of made-up rows, in which the groups are alike: a ratio is 1 there.
    assert list(seen[0]) == list(seen[1]) == ["sex", "old"]
    np.testing.assert_array_equal(seen[1]["sex"], table["sex"])
    np.testing.assert_array_equal(seen[1]["old"], table["old"])
    expected = demographic_parity_difference(Y, debiaser.predict(X), sensitive_features=table)
    assert debiaser.bias_ == pytest.approx(expected, abs=1e-12)
    assert debiaser.feasible_ == (expected < 0.1)
    # One feature comes as an array.
    seen.clear()
    fit("ThresholdDebiaser", groups=table["sex"], constraint=lambda *a, sensitive_features: 0.0)
    labels = []
    fit(
        "ThresholdDebiaser",
        groups=table["sex"],
        constraint=lambda *a, sensitive_features: labels.append(sensitive_features) or 0.0,
    )
    np.testing.assert_array_equal(labels[1], table["sex"])


# Predicting -------------------------------------------------------------------------------


@everyone
def test_a_row_is_predicted_alike_in_more_than_one_batch(name):
    debiaser = fitted(name)
    expected = debiaser.decision_function(X)
    many = np.tile(X, (36, 1))
    np.testing.assert_allclose(debiaser.decision_function(many), np.tile(expected, 36), rtol=1e-12)


def small_cnn():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)
        )


@everyone
def test_images(name):
    images = np.random.default_rng(1).normal(size=(N, 2, 6, 6)).astype(np.float32)
    images[:, 0] += 2 * Y[:, None, None]
    images[:, 1] += GROUPS[:, None, None]
    cnn = small_cnn()
    debiaser = fit(name, X=images, estimator=cnn)
    assert debiaser.n_features_in_ == 2
    assert debiaser.predict(images).shape == (N,)
    raw = debiaser.to_module()(torch.tensor(images)).detach().numpy().reshape(-1)
    np.testing.assert_allclose(raw, debiaser.decision_function(images), atol=1e-4)
    with pytest.raises(ValueError, match=r"shape \(2, 5, 6\).*fitted with.*\(2, 6, 6\)"):
        debiaser.predict(images[:, :, 1:])


# What is found ----------------------------------------------------------------------------


def searches(monkeypatch):
    """Keep every Selection that is made, and what it chose."""
    made = []

    class Kept(Selection):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

        def choose(self):
            self.chosen, judge = super().choose()
            return self.chosen, judge

    for module in (_base, _certified):
        monkeypatch.setattr(module, "Selection", Kept)
    return made


METRICS = {
    "demographic_parity": demographic_parity_difference,
    "equalized_odds": equalized_odds_difference,
}


def standing_for(rows, of, cell, stratum, predicted):
    """Rates of positive predictions by cell, as the sample `rows` says they are among `of`."""
    rates = {}
    for one in np.unique(cell[of]):
        total = 0.0
        for part in np.unique(stratum[of][cell[of] == one]):
            inside = (cell[rows] == one) & (stratum[rows] == part)
            n = ((cell[of] == one) & (stratum[of] == part)).sum()
            total += n * predicted[inside].mean()
        rates[one] = total / (cell[of] == one).sum()
    return rates


@pytest.mark.parametrize("constraint", METRICS)
@pytest.mark.parametrize("n_groups", [2, 3])
@searching
def test_measures_are_of_predictions_that_chose_nothing(name, constraint, n_groups, monkeypatch):
    made = searches(monkeypatch)
    groups = GROUPS if n_groups == 2 else np.where(np.arange(N) % 3 == 0, 2, GROUPS)
    debiaser = fit(name, groups=groups, constraint=constraint, epsilon=0.15)
    (search,) = made
    rows, stratum = search.rows.select, search.rows.stratum
    predicted = search.chosen.predicted.astype(int)
    if debiaser.best_trial_ == 0:  # which nothing had to be chosen for
        np.testing.assert_array_equal(predicted, debiaser.predict(X[rows]))
    if not tuning(name):
        np.testing.assert_array_equal(rows, np.arange(N))
        stratum = np.zeros(N, int)
    cell = 2 * groups + Y
    rates = standing_for(rows, np.arange(N), cell, stratum, predicted)
    sizes = np.bincount(cell).reshape(-1, 2)
    by_label = np.array([rates[one] for one in range(2 * n_groups)]).reshape(-1, 2)
    selected = (sizes * by_label).sum(1) / sizes.sum(1)
    found = {"demographic_parity": [selected], "equalized_odds": [by_label[:, 1], by_label[:, 0]]}
    found = found[constraint]
    # As measured, the pairs; with two groups the bias is the largest of them.
    pairs = [(one, two) for one in range(n_groups) for two in range(one + 1, n_groups)]
    expected = [values[one] - values[two] for values in found for one, two in pairs]
    np.testing.assert_allclose(debiaser.pairs_.difference, expected, atol=1e-12)
    named = [(str(one), str(two)) for one, two in pairs] * len(found)
    np.testing.assert_array_equal(debiaser.pairs_[["group_1", "group_2"]], named)
    if not tuning(name):
        fair = METRICS[constraint](Y, predicted, sensitive_features=groups)
        assert debiaser.pairs_.difference.abs().max() == pytest.approx(fair, abs=1e-12)
    if n_groups == 2:
        signed = expected[0] if constraint == "demographic_parity" else np.max(np.abs(expected))
        assert debiaser.bias_ == pytest.approx(signed, abs=1e-12)
    else:  # shrunk
        assert 0 <= debiaser.bias_ <= 1.5 * np.max(np.abs(expected))
    right = (sizes * by_label).sum(0) / sizes.sum(0)
    assert debiaser.performance_ == pytest.approx((right[1] + 1 - right[0]) / 2)
    low, high = debiaser.bias_interval_
    assert low <= debiaser.bias_ <= high
    best = debiaser.trials_.loc[debiaser.best_trial_]
    assert debiaser.feasible_ == best.feasible == (best.probability >= 0.8)
    # The first row of the table is the network as given.
    original = (NETWORK(torch.tensor(X[rows])).detach().numpy() > 0).reshape(-1)
    rates = standing_for(rows, np.arange(N), cell, stratum, original)
    rates = np.array([rates[one] for one in range(2 * n_groups)]).reshape(-1, 2)
    right = (sizes * rates).sum(0) / sizes.sum(0)
    assert debiaser.trials_.performance[0] == pytest.approx((right[1] + 1 - right[0]) / 2)


@pytest.mark.parametrize("name", ["ThresholdDebiaser", "DistillationDebiaser"])
def test_each_fifth_of_the_rows_is_predicted_by_what_the_others_chose(name, monkeypatch):
    folds = np.random.default_rng(5).permutation(np.arange(N) % 5)
    monkeypatch.setattr(Selection, "_folds", lambda self: folds[self.rows.select])
    select = np.arange(N) if not tuning(name) else np.arange(0, N, 3)
    tune = np.setdiff1d(np.arange(N), select) if tuning(name) else select
    rows = Rows(tune, select, select[:0], np.zeros(N, int))
    monkeypatch.setattr(_base, "split_rows", lambda *_, **__: rows)
    # All candidates stay in the race, so that they are the same whatever the labels are.
    monkeypatch.setattr(_selection, "_RIVALS", 1000)
    measured, measure, choose = [], Objective.measure, Selection.choose

    def kept(self):
        measured.clear()
        with pytest.MonkeyPatch.context() as patch:

            def noted(judge, scores, *rest):
                if len(rest) == 2:  # under a rule; else of what is handed back, to compare with
                    measured.append(np.asarray(scores))
                return measure(judge, scores, *rest)

            patch.setattr(Objective, "measure", noted)
            return choose(self)

    monkeypatch.setattr(Selection, "choose", kept)
    found = []
    other = Y.copy()
    for group in range(2):  # how many there are of each kind is known from all rows
        first = select[(folds[select] == 0) & (GROUPS[select] == group)]
        other[first] = other[first][::-1]
    assert (other != Y).sum() > 4
    for labels in (Y, other):
        fit(name, y=labels)
        found.append(np.array(measured))
    here = folds[select] == 0
    assert len(found[0]) > 1
    np.testing.assert_array_equal(found[0][:, here], found[1][:, here])
    # The rest was chosen by them, too.
    assert (found[0][:, ~here] != found[1][:, ~here]).any() or tuning(name)


@searching
def test_the_best_trial_was_taken(name):
    debiaser = fit(name, epsilon=0.2)
    trials = debiaser.trials_
    assert trials.index.name == "trial"
    assert trials.candidate[:2].tolist() == ["original", "threshold"]
    columns = ["threshold", "bias", "performance", "probability", "objective", "feasible"]
    assert set(columns) <= set(trials)
    best = trials.loc[debiaser.best_trial_]
    assert debiaser.objective_ == best.objective
    assert debiaser.threshold_ == best.threshold
    assert debiaser.bias_ == best.bias
    assert debiaser.performance_ == best.performance
    assert debiaser.feasible_ == best.feasible
    np.testing.assert_array_equal(trials.feasible, trials.probability >= 0.8)
    held = trials.bias.abs() < 0.2
    gain = np.maximum(trials.performance - 0.5, 0)
    surely = np.where(
        trials.index == debiaser.best_trial_,
        trials.probability.clip(upper=0.8),
        trials.probability,
    )
    np.testing.assert_allclose(trials.objective, np.where(held, gain * surely, 0))


@pytest.mark.parametrize("constraint", ["equal_opportunity", "average_odds"])
@searching
def test_the_other_constraints(name, constraint):
    debiaser = fit(name, constraint=constraint, epsilon=0.35)  # as likely as .8 on so few rows
    assert debiaser.feasible_
    assert debiaser.performance_ > 0.6
    assert debiaser.interrupted_ is False


# Rows that tune and rows that select ------------------------------------------------------


@searching
def test_rows_that_tune_and_rows_that_judge(name, monkeypatch):
    made = searches(monkeypatch)
    debiaser = fit(name)
    tune, select, calibrate, _ = made[0].rows
    assert len(calibrate) == 0
    np.testing.assert_array_equal(np.union1d(tune, select), np.arange(N))
    if not tuning(name):
        np.testing.assert_array_equal(tune, select)
        return
    assert len(np.intersect1d(tune, select)) == 0
    cell = 2 * GROUPS + Y
    for value in range(4):
        share = (cell[select] == value).sum() / (cell == value).sum()
        assert share == pytest.approx(debiaser.validation_fraction, abs=0.05)


@pytest.mark.parametrize("constraint", ["demographic_parity", "equalized_odds"])
@searching
def test_rows_of_a_certificate_are_apart(name, constraint, monkeypatch):
    made = searches(monkeypatch)
    fit(name, confidence=0.9, constraint=constraint, calibration_fraction=0.25)
    tune, select, calibrate, _ = made[0].rows
    rest = np.union1d(tune, select)
    np.testing.assert_array_equal(np.sort([*rest, *calibrate]), np.arange(N))
    assert len(np.intersect1d(tune, select)) == (0 if tuning(name) else len(rest))
    cell = GROUPS if constraint == "demographic_parity" else 2 * GROUPS + Y
    for value in np.unique(cell):  # a quarter of each, up to the last row
        n = (cell == value).sum()
        assert (cell[calibrate] == value).sum() == np.ceil(0.25 * n)


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.99])
def test_both_parts_have_rows_of_every_group_and_label(fraction):
    cell = np.repeat([0, 1, 2, 3], [1, 2, 5, 100])
    objective = SimpleNamespace(cell=cell, confidence="auto")

    def split(seed):
        return split_rows(
            objective, None, seed=seed, validation_fraction=fraction, calibration_fraction=0.5
        )[:2]

    tune, select = split(0)
    for rows in (tune, select):
        assert set(cell[rows]) == {0, 1, 2, 3}
    assert np.intersect1d(tune, select).tolist() == [0]
    np.testing.assert_array_equal(split(0)[0], tune)
    assert not np.array_equal(split(1)[0], tune)


@pytest.mark.parametrize("confidence", ["auto", 0.8])
@pytest.mark.parametrize("name", [name for name in KINDS if name in TUNING])
def test_labels_of_rows_that_judge_or_calibrate_do_not_tune_weights(name, confidence, monkeypatch):
    rng = np.random.default_rng(3)
    tune, others = np.split(rng.permutation(N), [150])
    stated = confidence != "auto"
    select, calibrate = (others[:45], others[45:]) if stated else (others, others[:0])
    y = Y.copy()
    for group in range(2):
        rows = others[GROUPS[others] == group]
        y[rows] = rng.permutation(y[rows])
    assert (y != Y).any()
    states, original = [], Search.consider

    def consider(self, *args, **columns):
        states.append(self.state())
        return original(self, *args, **columns)

    monkeypatch.setattr(Search, "consider", consider)
    rows = Rows(tune, select, calibrate, np.zeros(N, int))
    monkeypatch.setattr(_base, "split_rows", lambda *_, **__: rows)
    found = []
    for labels in (Y, y):
        states.clear()
        debiaser = fit(name, y=labels, confidence=confidence)
        found.append(states[: len(debiaser.trials_) - 2])  # those of the search
    assert len(found[0]) > 1
    for one, two in zip(*found, strict=True):
        for key, value in one.items():
            assert torch.equal(value, two[key]), key


@searching
def test_nothing_is_decided_on_calibration_rows_before_the_certificate(name, monkeypatch):
    made = searches(monkeypatch)
    fit(name, confidence=0.8)
    calibrate = made[0].rows.calibrate
    tested = []

    def test(rates, epsilon, delta):  # the verdict of each
        tested.append([each.hits.tolist() for each in rates])
        return True

    monkeypatch.setattr(_certified, "holds", test)
    # Rows out of the reach of any network: they calibrate, so that nothing else may change.
    other = X.copy()
    other[calibrate] += np.random.default_rng(0).normal(0, 3, size=(len(calibrate), 4))
    y = Y.copy()
    y[calibrate] = 1 - y[calibrate]
    candidates = []
    rows = made[0].rows
    monkeypatch.setattr(_base, "split_rows", lambda *_, **__: rows)
    for features, labels in ((X, Y), (other, Y), (X, y)):
        made.clear()
        fit(name, X=features, y=labels, confidence=0.8, constraint="demographic_parity")
        candidates.append(made[0].to_certify())
    # So many, in this order, that the labels of those rows have no say either.
    for others in candidates[1:]:
        assert [each.trial for each in others] == [each.trial for each in candidates[0]]
        for one, two in zip(candidates[0], others, strict=True):
            for a, b in zip(one.choice, two.choice, strict=True):
                np.testing.assert_array_equal(a, b)
            # Weights, or a function that makes them again.
            here, there = (
                each.state() if callable(each.state) else each.state for each in (one, two)
            )
            for key, value in here.items():
                assert torch.equal(value, there[key]), key
    power = [each.choice.power[0] for each in candidates[0]]
    assert power == sorted(power, reverse=True)
    assert [each.trial for each in candidates[0] if each.trial == 0][:1] == [0]


# Reproducible, and nothing global ---------------------------------------------------------


@pytest.mark.parametrize("parameters", [{"adversary": "attribute"}, {"critic": "flat"}], ids=str)
def test_other_adversaries(parameters):
    parameters = {"name": "AdversarialFinetuneDebiaser", "max_epochs": 5, **parameters}
    first = fit(**parameters)  # where it is needed first, torch imports what sets filters
    before = global_state()
    assert_same(first, fit(**parameters))
    assert global_state() == before
    assert (first.trials_.candidate[2:] == "fine-tuned").all()
    assert len(first.trials_) == 7
    assert first.trials_.bias[2:].nunique() > 1
    fit(**parameters, groups=np.arange(N) % 3, constraint="equalized_odds")


@everyone
def test_training_a_net_that_is_not_yet_fitted_changes_nothing_global(name):
    debiaser = make(name, lazy_net(), random_state=np.random.RandomState(0))
    # Once before: where it is needed first, torch imports what sets filters of its own.
    debiaser.fit(X, Y, sensitive_features=GROUPS)
    before = global_state()
    debiaser.fit(X, Y, sensitive_features=GROUPS)
    assert global_state() == before


@searching
def test_a_fit_that_fails_leaves_the_last_one(name):
    debiaser = copy.copy(fitted(name))
    before = dict(vars(debiaser))
    expected = debiaser.decision_function(X)
    with pytest.raises(ValueError, match="one class only"):
        debiaser.fit(X, np.zeros(N), sensitive_features=GROUPS)
    with pytest.raises(ValueError, match="does not run on X"):
        debiaser.fit(X[:, :2], Y, sensitive_features=GROUPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KINDS[name], "_search", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            debiaser.fit(X, Y, sensitive_features=GROUPS)
    assert vars(debiaser) == before
    np.testing.assert_array_equal(debiaser.decision_function(X), expected)


# Interruption -----------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1])
@searching
def test_an_interrupted_search_keeps_the_best_so_far(name, after, monkeypatch):
    if name == "ThresholdDebiaser":
        return  # which has nothing to search
    calls, consider = [], Search.consider

    def interrupted(self, *args, **columns):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return consider(self, *args, **columns)

    monkeypatch.setattr(Search, "consider", interrupted)
    parameters = {"n_trials": 40} if name == "RandomPerturbationDebiaser" else {}
    with pytest.warns(InterruptedSearchWarning, match=r"interrupted after \d+ candidates"):
        debiaser = fit(name, epsilon=0.3, **parameters)
    assert debiaser.interrupted_ is True
    trials = debiaser.trials_
    assert trials.candidate[:2].tolist() == ["original", "threshold"]
    assert 0 <= debiaser.best_trial_ < len(trials)
    assert debiaser.objective_ == trials.objective[debiaser.best_trial_]
    assert debiaser.predict(X).shape == (N,)
    monkeypatch.undo()
    assert fit(name, epsilon=0.3, **parameters).interrupted_ is False


def test_ctrl_c_in_a_callable_is_ctrl_c_too():
    calls = []

    def impatient(y_true, y_pred, *, sensitive_features):
        calls.append(1)
        if len(calls) == 400:  # in the search, which the original network comes before
            raise KeyboardInterrupt
        first = sensitive_features == 0
        return y_pred[first].mean() - y_pred[~first].mean()

    with pytest.warns(InterruptedSearchWarning):
        debiaser = fit("RandomPerturbationDebiaser", constraint=impatient, n_trials=40)
    assert debiaser.interrupted_
    assert len(debiaser.trials_) < 42


# Bad input --------------------------------------------------------------------------------


@everyone
def test_missing_values(name):
    broken = X.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        fit(name, X=broken)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        fit(name, y=np.where(np.arange(N) == 3, np.nan, Y))
    for missing in (None, np.nan, pd.NA):
        groups = pd.Series(np.where(GROUPS == 1, "m", "f"), dtype=object)
        groups[5] = missing
        with pytest.raises(ValueError, match=r"sensitive_features is missing for 1 of 240 .*row"):
            fit(name, groups=groups)


@everyone
def test_data_that_do_not_fit_together(name):
    with pytest.raises(ValueError, match="y has 239 labels for the 240 samples"):
        fit(name, y=Y[1:])
    with pytest.raises(ValueError, match="sensitive_features has 239 values for 240 samples"):
        fit(name, groups=GROUPS[1:])


@pytest.mark.parametrize("n", [4, 8, 13])
@everyone
def test_next_to_no_rows(name, n):
    y, groups = np.arange(n) % 2, np.arange(n) // 2 % 2
    little = {"max_epochs": 1} if "max_epochs" in make(name).get_params(deep=False) else {}
    debiaser = fit(name, X=X[:n], y=y, groups=groups, **little)
    assert debiaser.predict(X).shape == (N,)
    assert np.isfinite(debiaser.decision_function(X)).all()


@everyone
def test_one_group(name):
    with pytest.raises(ValueError, match=r"sensitive_features holds one group only \('all'\)"):
        fit(name, groups=["all"] * N)


@searching
def test_more_than_two_classes(name):
    with pytest.raises(ValueError, match=r"Only binary classification .* 3 classes"):
        fit(name, y=np.arange(N) % 3)


@pytest.mark.parametrize(
    "constraint, label, refused",
    [
        ("demographic_parity", 1, False),
        ("demographic_parity", 0, False),
        ("equal_opportunity", 1, True),
        ("equal_opportunity", 0, False),
        ("average_odds", 1, True),
        ("average_odds", 0, True),
        ("equalized_odds", 1, True),
        ("equalized_odds", 0, True),
    ],
)
@searching
def test_a_group_without_one_of_the_labels(name, constraint, label, refused):
    y = np.where(GROUPS == 1, 1 - label, Y)
    if refused:
        with pytest.raises(ValueError, match=rf"of class {label}, and .* without any in y: \[1\]"):
            fit(name, y=y, constraint=constraint)
    else:
        debiaser = fit(name, y=y, constraint=constraint)
        assert np.isfinite(debiaser.bias_)
        assert np.isfinite(debiaser.objective_)


@pytest.mark.thorough
@pytest.mark.parametrize(("size", "confidence"), [(1, "auto"), (9, "auto"), (2, 0.5), (9, 0.5)])
@searching
def test_small_groups_are_counted(name, size, confidence):
    groups = GROUPS.copy()
    groups[:size] = 2
    with pytest.warns(SmallGroupWarning, match=rf"fewer than 10 samples: \{{2: {size}\}}"):
        debiaser = fit(name, groups=groups, confidence=confidence)
    assert np.isfinite(debiaser.bias_)
    assert np.isfinite(debiaser.trials_[["bias", "performance", "objective"]]).all(axis=None)


@pytest.mark.parametrize("constraint", ["equal_opportunity", "equalized_odds"])
@searching
def test_a_group_with_one_sample_of_a_label(name, constraint):
    groups = GROUPS.copy()
    groups[np.flatnonzero(Y == 1)[:1]] = 2
    groups[np.flatnonzero(Y == 0)[:20]] = 2
    debiaser = fit(name, groups=groups, constraint=constraint)
    assert np.isfinite(debiaser.trials_[["bias", "performance", "objective"]]).all(axis=None)
    # Its only row cannot both tune and be what a certificate is about.
    with pytest.raises(ValueError, match="there are none for 1 of the 3 groups"):
        fit(name, groups=groups, constraint=constraint, confidence=0.5)


@everyone
def test_a_confidence_that_cannot_be_computed_is_refused(name):
    with pytest.raises(ValueError, match=r"confidence=0.999999 is more .* at most 0.99999"):
        fit(name, confidence=0.999999)


def test_a_calibration_part_without_some_group_is_refused():
    groups = GROUPS.copy()
    groups[7] = 2
    with pytest.raises(
        ValueError, match=r"calibration rows, .* there are none for 1 of the 3 groups"
    ):
        fit("ThresholdDebiaser", groups=groups, confidence=0.5)


def test_calibration_rows_have_no_part_in_the_split_of_the_others():
    rng = np.random.default_rng(0)
    groups, scores = np.repeat([0, 1], 500), rng.normal(size=1000)

    def split(y, scores):
        objective = Objective(
            y,
            groups,
            n_groups=2,
            constraint="demographic_parity",
            performance="accuracy",
            epsilon=0.05,
            confidence=0.9,
            margin=0.0,
        )
        return split_rows(
            objective, scores, seed=0, validation_fraction=0.3, calibration_fraction=0.5
        )

    y = rng.integers(2, size=1000)
    rows = split(y, scores)
    other, moved = y.copy(), scores.copy()
    other[rows.calibrate], moved[rows.calibrate] = 1 - y[rows.calibrate], 5.0
    again = split(other, moved)
    assert rows.stratum.max() > 2
    for one, two in zip(rows, again, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_original_network_that_is_chosen_after_failed_tests_has_its_own_weights(monkeypatch):
    monkeypatch.setattr(_certified, "holds", lambda *_: False)
    original = Selection._original
    # Nothing else is worth taking then.
    monkeypatch.setattr(Selection, "choose", lambda self: (original(self), self.judge))
    debiaser = fit("BiasGradientDebiaser", confidence=0.5)
    assert debiaser.best_trial_ == 0
    for name, weight in NETWORK.state_dict().items():
        assert torch.equal(debiaser.module_[0].state_dict()[name], weight), name


@pytest.mark.parametrize(
    "name", ["ThresholdDebiaser", "DistillationDebiaser", "LinearPostDebiaser"]
)
def test_what_is_chosen_after_the_tests_failed_is_not_certified(name, monkeypatch):
    for module in (_certified, _group_blind_fit):
        monkeypatch.setattr(module, "holds", lambda *_: False)
    certificate = fit(name, epsilon=0.9, confidence=0.5).certificate_
    # Its p-values are small, and say nothing: these rows have been looked at before.
    assert (certificate.pairs["p_value"] < 0.5).all()
    assert not certificate.holds
    assert not certificate.pairs["holds"].any()
    for text in (str(certificate), certificate._repr_html_()):
        assert "1 of 1 comparisons may differ" in text
        assert "done after earlier tests had failed" in " ".join(text.split())
        assert "no number of rows" not in text


def test_groups_of_ten_are_not_small():
    groups = GROUPS.copy()
    groups[:10] = 2
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        fit("ThresholdDebiaser", groups=groups)
    assert not [w for w in record if w.category is SmallGroupWarning]


def test_small_groups_are_counted_among_the_samples_that_the_constraint_compares():
    groups = GROUPS.copy()
    few = np.flatnonzero(Y == 1)[:4]
    groups[few] = 2
    groups[np.flatnonzero(Y == 0)[:50]] = 2
    with pytest.warns(SmallGroupWarning, match=r"fewer than 10 samples of class 1: \{2: 4\}"):
        fit("ThresholdDebiaser", groups=groups, constraint="equal_opportunity")


@pytest.mark.parametrize(
    "parameters",
    [
        {"epsilon": 0},
        {"epsilon": 1},
        {"epsilon": -0.1},
        {"epsilon": "small"},
        {"constraint": "fairness"},
        {"constraint": None},
        {"performance": "auc"},
        {"confidence": 0.0},
        {"confidence": 1.0},
        {"confidence": "high"},
        {"margin": -0.1},
        {"output": "scores"},
        {"random_state": "seed"},
    ],
    ids=str,
)
@everyone
def test_parameters_out_of_range(name, parameters):
    (parameter,) = parameters
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of {name}"):
        fit(name, **parameters)


def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="device='warp'"):
        fit("ThresholdDebiaser", device="warp")


# Confidence -------------------------------------------------------------------------------


def rows_for(one, two, epsilon, delta):
    """Rows of each of two groups with which two one-sided z tests pass with a probability of .8."""
    low, high = 1, 10**9
    while high - low > 1:
        m = (low + high) // 2
        error = np.sqrt((one * (1 - one) + two * (1 - two)) / m)
        room = epsilon - norm.ppf(1 - delta) * error
        passes = norm.cdf((room - one + two) / error) - norm.cdf((-room - one + two) / error)
        low, high = (low, m) if passes >= 0.8 else (m, high)
    return high


@searching
def test_too_few_rows_for_the_confidence_asked_for(name):
    with pytest.warns(InfeasibleConstraintWarning) as record:
        debiaser = fit(name, epsilon=0.05, confidence=0.95)
    assert debiaser.feasible_ is False
    certificate = debiaser.certificate_
    assert certificate.holds is False
    messages = [str(w.message) for w in record if w.category is InfeasibleConstraintWarning]
    assert len(messages) == 1
    assert "within 0.05 that is certified with confidence=0.95" in messages[0]
    (pair,) = certificate.pairs.to_dict("records")
    named = re.search(r"(\d+) calibration rows of each group would be enough", messages[0])
    if abs(pair["difference"]) >= 0.05:  # no number would do
        assert certificate.rows_needed is None
        assert named is None
    else:
        assert int(named[1]) == certificate.rows_needed.to_numpy().max() > N
        needed = rows_for(pair["rate_1"], pair["rate_2"], 0.05, 0.05)
        assert int(named[1]) == pytest.approx(needed, rel=0.02)
    # All rows that tuned nothing judge it then, as without a certificate.
    assert np.isfinite([debiaser.bias_, debiaser.performance_, *debiaser.bias_interval_]).all()


def test_the_rows_that_the_warning_names_are_enough():
    def data(n, seed):
        generator = np.random.default_rng(seed)
        y, groups = generator.integers(2, size=(2, n))
        rows = generator.normal(size=(n, 4)).astype(np.float32)
        rows[:, 0] += 2 * y
        rows[:, 1] = 0  # no bias to be found
        return rows, y, groups

    X, y, groups = data(400, 0)
    with pytest.warns(InfeasibleConstraintWarning) as record:
        fit("ThresholdDebiaser", X, y, groups, epsilon=0.08, confidence=0.9)
    needed = int(re.search(r"(\d+) calibration rows of each", str(record[0].message))[1])
    assert 100 < needed < 5000
    X, y, groups = data(5 * needed, 2)  # of which half calibrate, and half of these each group
    debiaser = fit("ThresholdDebiaser", X, y, groups, epsilon=0.08, confidence=0.9)
    assert debiaser.certificate_.group_sizes.to_numpy().min() > needed
    assert debiaser.feasible_
    assert debiaser.certificate_.holds


def test_confidence_none_is_the_published_rule():
    debiaser = fit("ThresholdDebiaser", confidence=None, margin=0.04, epsilon=0.1)
    logit = NETWORK(torch.tensor(X)).detach().numpy().reshape(-1)
    best = 0.0
    for threshold in np.sort(logit)[:-1]:
        predicted = logit > threshold
        bias = predicted[GROUPS == 0].mean() - predicted[GROUPS == 1].mean()
        if abs(bias) < 0.1 - 0.04:
            best = max(best, balanced_accuracy_score(Y, predicted))
    assert best > 0.5
    # What it is worth on rows that did not choose it is less than the network as it is.
    assert debiaser.best_trial_ == 0
    assert debiaser.trials_.performance[1] == debiaser.trials_.objective[1] == pytest.approx(best)


@pytest.mark.parametrize("confidence", ["auto", None, 0.9])
def test_where_nothing_is_feasible_the_nearest_is_taken(confidence):
    # Groups that no threshold makes equal, except for predictions that are all the same.
    far = X.copy()
    far[:, 1] = 50 * GROUPS
    y = np.where(np.arange(N) % 4 == 0, Y, GROUPS)
    with pytest.warns(InfeasibleConstraintWarning, match=r"No candidate has .* was\staken \(bias"):
        debiaser = fit(
            "ThresholdDebiaser", far, y, epsilon=0.001, margin=0.0, confidence=confidence
        )
    assert debiaser.feasible_ is False
    predicted = debiaser.predict(far)
    assert 0 < predicted.mean() < 1


def test_they_are_all_there():
    assert intraprocessing.__all__ == sorted(intraprocessing.__all__)
    assert {"RandomPerturbationDebiaser", "ThresholdDebiaser"} <= set(KINDS)
    for kind in KINDS.values():
        assert issubclass(kind, _base.IntraprocessingDebiaser)
    assert KINDS["ThresholdDebiaser"] is ThresholdDebiaser
    assert KINDS["RandomPerturbationDebiaser"] is RandomPerturbationDebiaser
