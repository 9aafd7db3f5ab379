"""Group-blind post-processing: optimal where the optimum is known, for any number of classes."""

import copy
import pickle
import subprocess
import sys
import warnings
from functools import cache

import numpy as np
import pytest
import sklearn
import skorch
import torch
from scipy.optimize import linprog
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import skfair
from skfair import LinearPostDebiaser
from skfair.intraprocessing._group_blind import class_values, make_events, solve
from skfair.intraprocessing._judge import Judge, Question
from skfair.intraprocessing._posteriors import (
    Linear,
    fit_logistic,
    fit_posteriors,
    fit_scaler,
    predict_out_of_fold,
)
from skfair.intraprocessing._posteriors import curvature_root as root_of
from skfair.utils import FallbackWarning, InfeasibleConstraintWarning, SmallGroupWarning
from skfair.utils._random import seeded
from skfair.utils._split import draw_folds

CONSTRAINTS = ["demographic_parity", "equal_opportunity", "equalized_odds"]
named = pytest.mark.parametrize("constraint", CONSTRAINTS)


class Rows:
    """Rows of some classes and groups, and a network that knows the classes by their features.

    Group 0 has more rows of the last class, and some features tell the groups in part.
    """

    def __init__(self, n_classes, n_groups, n=15000, seed=0):
        rng = np.random.default_rng(seed)
        self.groups = rng.integers(n_groups, size=n)
        y = rng.integers(n_classes, size=n)
        more = (rng.random(n) < 0.4) & (self.groups == 0)
        self.y = np.where(more, n_classes - 1, y)
        X = rng.normal(size=(n, n_classes + n_groups))
        X[np.arange(n), self.y] += 1.5
        X[np.arange(n), n_classes + self.groups] += 1.5
        self.X = X.astype(np.float32)
        self.n_classes, self.n_groups = n_classes, n_groups

    def network(self, kind="logits"):
        """A network that prefers the last class if a row looks like group 0."""
        d, k = self.X.shape[1], self.n_classes
        with seeded(0):
            layers = nn.Sequential(nn.Linear(d, 2 * d), nn.ReLU(), nn.Linear(2 * d, k))
        weight = torch.zeros(k, d)
        weight[:, :k] = 1.5 * torch.eye(k)
        weight[-1, k] = 1.0
        with torch.no_grad():
            layers[0].weight[:d], layers[0].weight[d:] = torch.eye(d), -torch.eye(d)
            layers[0].bias.zero_()
            layers[2].weight.copy_(torch.cat([weight, -weight], 1))
            layers[2].bias.copy_(-weight.sum(1) / 2)
        if kind == "probabilities":
            layers.append(nn.Softmax(dim=1))
        return layers

    def part(self, rows):
        return self.X[rows], self.y[rows], self.groups[rows]


TRAIN, TEST = slice(0, 3000), slice(3000, None)


@cache
def rows(n_classes, n_groups):
    return Rows(n_classes, n_groups)


def fit(data, rows=TRAIN, network=None, **parameters):
    X, y, groups = data.part(rows)
    network = data.network() if network is None else network
    parameters = {"random_state": 0, "pos_label": data.n_classes - 1, **parameters}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InfeasibleConstraintWarning)
        warnings.simplefilter("ignore", FallbackWarning)
        return LinearPostDebiaser(network, **parameters).fit(X, y, sensitive_features=groups)


@cache
def fitted(n_classes=3, n_groups=3, constraint="demographic_parity"):
    """A fit that several tests look at and none changes."""
    return fit(rows(n_classes, n_groups), constraint=constraint)


def gap_of(predicted, y, groups, constraint, positive):
    """The largest difference, worked out independently."""
    classes = np.unique(y)
    given = {
        "demographic_parity": [np.ones(len(y), dtype=bool)],
        "equal_opportunity": [y == positive],
        "equalized_odds": [y == label for label in classes],
    }[constraint]
    predicted_as = [positive] if constraint == "equal_opportunity" else classes
    gaps = []
    for mask in given:
        for k in predicted_as:
            rates = [(predicted[mask & (groups == g)] == k).mean() for g in np.unique(groups)]
            gaps.append(max(rates) - min(rates))
    return max(gaps)


# The optimum ------------------------------------------------------------------------------


@pytest.mark.parametrize("performance", ["accuracy", "balanced_accuracy"])
def test_the_constrained_optimum_is_that_of_a_linear_program(performance):
    # Posteriors of label and group are known. Of all predictions without the group, those with
    # some chance in them included, a linear program finds the best.
    rng = np.random.default_rng(3)
    n = 3000
    a = expit(2 * rng.normal(size=n))
    q = expit(1.2 * rng.normal(size=n) + 3 * (a - 0.5))
    group, y = (rng.random((2, n)) < [a, q]).astype(int)
    cost = -np.column_stack([1 - q, q]) * class_values(np.bincount(y), performance)
    posterior = np.column_stack([1 - a, a])
    share = np.bincount(group) / n
    lean = posterior[:, 0] / share[0] - posterior[:, 1] / share[1]
    events = make_events("demographic_parity", y, group, 2, 2, 1, np.arange(2))
    targets = [0.2, 0.1, 0.05, 0.01]
    found = solve(cost, posterior, events, group, targets, n_corrections=0)
    assert abs((lean * cost.argmin(1)).mean()) > 0.25
    for target, weights in zip(targets, found, strict=True):
        best = linprog(
            (cost[:, 1] - cost[:, 0]) / n,
            A_ub=np.stack([lean, -lean]) / n,
            b_ub=[target, target],
            bounds=(0, 1),
        )
        predicted = (cost + posterior @ weights).argmin(1)
        assert abs((lean * predicted).mean()) == pytest.approx(target, abs=0.006)
        spent = (cost[:, 1] - cost[:, 0]) @ predicted / n
        assert spent == pytest.approx(best.fun, abs=0.002)


def test_counted_rates_meet_the_target_where_the_head_is_wrong():
    rng = np.random.default_rng(0)
    n = 6000
    group = rng.integers(2, size=n)
    score = rng.normal(size=n) + group
    y = (rng.random(n) < expit(2 * score - 1)).astype(int)
    # The head takes the groups for much less different than they are.
    honest = expit(score - 0.5)
    head = expit(0.3 * (score - 0.5) + 0.5)
    assert np.abs(honest - head).mean() > 0.1
    q = expit(2 * score - 1)
    cost, posterior = -np.column_stack([1 - q, q]), np.column_stack([1 - head, head])
    events = make_events("equal_opportunity", y, group, 2, 2, 1, np.arange(2))
    posterior = (posterior[:, :, None] * np.column_stack([1 - q, q])[:, None]).reshape(n, 4)
    gaps = []
    for n_corrections in (0, 6):
        (weights,) = solve(
            cost, posterior, events, events.cell, [0.04], n_corrections=n_corrections
        )
        predicted = (cost + posterior @ weights).argmin(1)
        rates = [predicted[(group == g) & (y == 1)].mean() for g in (0, 1)]
        gaps.append(abs(rates[0] - rates[1]))
    assert gaps[0] > 0.06
    assert gaps[1] < 0.05


def test_a_small_group_does_not_decide_over_all_others():
    # Of 4,000 rows three are of a group whose members all happen to be alike.
    rng = np.random.default_rng(0)
    n = 4000
    group = rng.integers(2, size=n)
    group[:3] = 2
    q = expit(rng.normal(size=n))
    q[:3] = 0.99
    cost = -np.column_stack([1 - q, q])
    y = (rng.random(n) < q).astype(int)
    posterior = np.full((n, 3), 1e-3)
    posterior[np.arange(n), group] = 0.998
    events = make_events("demographic_parity", y, group, 2, 3, 1, np.arange(3))
    (weights,) = solve(cost, posterior, events, group, [0.02])
    assert np.isfinite(weights).all()
    predicted = (cost + posterior @ weights).argmin(1)
    assert ((predicted == cost.argmin(1))[3:]).mean() > 0.95


# Posteriors -------------------------------------------------------------------------------


def test_logistic_regression_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    codes = (softmax(X[:, :3] * 2, axis=1).cumsum(1) > rng.random((500, 1))).argmax(1)
    found = fit_logistic(X, codes, 3, 0.01, root_of(X, 0.01))
    expected = LogisticRegression(C=1 / (0.01 * 500), tol=1e-8).fit(X, codes)
    np.testing.assert_allclose(softmax(found(X), axis=1), expected.predict_proba(X), atol=2e-3)


def test_no_row_is_predicted_by_what_has_seen_its_fold():
    rng = np.random.default_rng(0)
    X = fit_scaler(rng.normal(size=(120, 3)))(rng.normal(size=(120, 3)))
    codes = rng.integers(2, size=120)
    fold = draw_folds(codes, 4, seed=0)
    assert np.bincount(fold).tolist() == [30] * 4

    def posteriors(codes):
        return fit_posteriors(X, codes, fold, predict_out_of_fold(X, codes, 2, fold, [1e-2]))

    before = posteriors(codes)
    for k in range(4):
        after = posteriors(np.where(fold == k, 1 - codes, codes))
        # Labels of fold k have no part in the whole of entry k, nor in what its rows get elsewhere.
        np.testing.assert_array_equal(before.outside[k], after.outside[k])
        for j in set(range(4)) - {k}:
            mine = fold == k
            np.testing.assert_array_equal(before.outside[j][mine], after.outside[j][mine])
            assert (before.outside[j][~mine] != after.outside[j][~mine]).any()


def test_scaling_folds_into_a_layer():
    rng = np.random.default_rng(0)
    X = rng.normal(3, 5, size=(50, 3))
    X[:, 1] = 7.0  # constant
    scaler = fit_scaler(X)
    layer = Linear(rng.normal(size=(3, 2)), rng.normal(size=2))
    np.testing.assert_allclose(scaler.before(layer)(X), layer(scaler(X)), atol=1e-9)
    assert np.isfinite(scaler(X)).all()


# What comes out ---------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("n_classes, n_groups", [(2, 2), (2, 3), (3, 2), (3, 3)])
@named
def test_the_gap_is_halved_on_new_rows(n_classes, n_groups, constraint):
    data = rows(n_classes, n_groups)
    debiaser = fitted(n_classes, n_groups, constraint)
    X, y, groups = data.part(TEST)
    positive = n_classes - 1
    with torch.no_grad():
        original = data.network()(torch.tensor(X)).argmax(1).numpy()
    predicted = debiaser.predict(X)
    before = gap_of(original, y, groups, constraint, positive)
    after = gap_of(predicted, y, groups, constraint, positive)
    assert after < before / 2 or after < 0.05
    cost = balanced_accuracy_score(y, original) - balanced_accuracy_score(y, predicted)
    assert cost < 0.05
    # What it says of itself is what new rows show.
    low, high = debiaser.bias_interval_
    assert abs(abs(debiaser.bias_) - after) < 0.06
    assert low <= debiaser.bias_ <= high
    assert debiaser.performance_ == pytest.approx(balanced_accuracy_score(y, predicted), abs=0.03)


def test_the_bias_has_a_sign_for_two_classes_and_two_groups():
    data = rows(2, 2)
    debiaser = fitted(2, 2)
    X, y, groups = data.part(TRAIN)
    with torch.no_grad():
        original = data.network()(torch.tensor(X)).argmax(1).numpy()
    rates = [original[groups == g].mean() for g in (0, 1)]
    assert debiaser.trials_.bias[0] == pytest.approx(rates[0] - rates[1])
    other = fit(data, pos_label=0)
    assert other.trials_.bias[0] == pytest.approx(rates[1] - rates[0])
    performance = balanced_accuracy_score(y, original)
    assert debiaser.trials_.performance[0] == pytest.approx(performance)


@named
def test_the_original_is_measured_for_several_classes(constraint):
    data = rows(3, 2)
    debiaser = fitted(3, 2, constraint)
    X, y, groups = data.part(TRAIN)
    with torch.no_grad():
        original = data.network()(torch.tensor(X)).argmax(1).numpy()
    expected = gap_of(original, y, groups, constraint, 2)
    assert abs(debiaser.trials_.bias[0]) == pytest.approx(expected)


def test_trials():
    trials = fitted().trials_
    assert trials.candidate.tolist() == ["original", "uncorrected"] + ["corrected"] * 12
    assert (np.diff(trials.target[2:]) < 0).all()
    assert trials.target[13] < 0.05 / 4 < trials.target[2]
    # The stricter the aim the smaller the gap, as far as chance lets one see it.
    assert (np.diff(trials.bias[2:]) < 0.02).all()
    assert trials.bias[13] < trials.bias[1] / 3
    best = fitted().best_trial_
    assert trials.objective[best] == trials.objective.max() == fitted().objective_
    assert list(fitted().pairs_.rate.unique()) == [f"predicted {k}" for k in (0, 1, 2)]
    assert len(fitted().pairs_) == 9


@pytest.mark.parametrize("performance", ["accuracy", "balanced_accuracy"])
def test_performance(performance):
    data = Rows(3, 2, n=4000, seed=1)
    data.y = np.where(np.random.default_rng(0).random(4000) < 0.5, 0, data.y)
    debiaser = fit(data, performance=performance, epsilon=0.9)
    X, y, _ = data.part(TEST)
    predicted = debiaser.predict(X)
    right = (predicted == y).mean()
    balanced = balanced_accuracy_score(y, predicted)
    measured = right if performance == "accuracy" else balanced
    assert debiaser.performance_ == pytest.approx(measured, abs=0.04)


# Networks of all kinds --------------------------------------------------------------------


@pytest.mark.parametrize("features", ["network", "input"])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_module_decides_as_predict_does(n_classes, kind, features):
    data = rows(n_classes, 2)
    network = data.network(kind)
    debiaser = fit(data, network=network, group_features=features)
    assert debiaser.group_features_ == features
    module = debiaser.to_module()
    X = torch.tensor(data.X[TEST])
    with torch.no_grad():
        raw, before = module(X), network(X)
    assert raw.shape == before.shape
    assert raw.dtype == before.dtype
    assert (raw.argmax(1).numpy() == debiaser.predict(data.X[TEST])).mean() > 0.9999
    if kind == "probabilities":
        np.testing.assert_allclose(raw.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(raw, debiaser.predict_proba(data.X[TEST]), atol=1e-4)
    assert not {type(part).__module__.split(".")[0] for part in module.modules()} & {"skfair"}


class Squeezed(nn.Module):
    """One logit, flat."""

    def __init__(self, n_features):
        super().__init__()
        self.hidden, self.last = nn.Linear(n_features, 8), nn.Linear(8, 1)

    def forward(self, X):
        return self.last(self.hidden(X).relu()).squeeze(-1)


class Branching(nn.Module):
    """A network that cannot be traced."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, X):
        return self.layers(X if X.sum() < 1e9 else X / 2)


@pytest.mark.parametrize("last", [None, nn.Sigmoid()])
def test_one_output_for_two_classes(last):
    data = rows(2, 2)
    with seeded(0):
        network = Squeezed(data.X.shape[1])
    network = network if last is None else nn.Sequential(network, last)
    debiaser = fit(data, network=network)
    X = data.X[TEST]
    with torch.no_grad():
        raw = debiaser.to_module()(torch.tensor(X)).numpy()
    assert raw.shape == (len(X),)
    expected = debiaser.predict(X)
    assert ((raw > (0.5 if last else 0)) == expected).mean() > 0.999
    assert debiaser.decision_function(X).shape == (len(X),)


def test_a_network_that_cannot_be_traced(tmp_path):
    """The head takes the place of the output layer, together with it."""
    data = rows(3, 2)
    network, same = Branching(data.network()), data.network()
    debiaser = fit(data, network=network, group_features="network")
    assert debiaser.group_features_ == "network"
    X, y, groups = data.part(TEST)
    logits = debiaser.decision_function(X)
    with torch.no_grad():
        before = network(torch.tensor(X)).argmax(1).numpy()
    arguments = y, groups, "demographic_parity", 2
    assert gap_of(debiaser.predict(X), *arguments) < gap_of(before, *arguments) / 2

    module = debiaser.to_module()
    assert not {type(part).__module__.split(".")[0] for part in module.modules()} & {"skfair"}
    probabilities = module(torch.tensor(X)).softmax(1).detach()
    np.testing.assert_allclose(probabilities, debiaser.predict_proba(X), atol=1e-4)
    skfair.save(debiaser, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories=lambda: Branching(data.network()))
    np.testing.assert_array_equal(loaded.decision_function(X), logits)
    for name, tensor in network.layers.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])


def test_a_network_that_cannot_be_traced_and_computes_more_behind_its_last_layer():
    data = rows(2, 2)
    network = Branching(data.network("probabilities"))
    assert fit(data, network=network).group_features_ == "input"
    with pytest.raises(ValueError, match=r"group_features='network' needs .*cannot trace"):
        fit(data, network=network, group_features="network")


def test_images():
    rng = np.random.default_rng(0)
    n = 1200
    y, groups = rng.integers(3, size=n), rng.integers(2, size=n)
    images = rng.normal(size=(n, 2, 5, 5)).astype(np.float32)
    images[:, 0] += y[:, None, None]
    images[:, 1] += groups[:, None, None] + 0.3 * y[:, None, None] * groups[:, None, None]
    with seeded(0):
        network = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        )
    debiaser = LinearPostDebiaser(network, random_state=0, epsilon=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        debiaser.fit(images, y, sensitive_features=groups)
        assert debiaser.group_features_ in ("network", "none")
        pixels = clone(debiaser).set_params(group_features="input")
        pixels.fit(images, y, sensitive_features=groups)
    assert pixels.predict(images).shape == (n,)
    # Without a linear layer there is nothing but the pixels.
    conv = nn.Sequential(nn.Conv2d(2, 3, 5), nn.Flatten())
    with pytest.raises(
        ValueError, match="group_features='auto' needs the input of the last linear layer"
    ):
        LinearPostDebiaser(conv).fit(images, y, sensitive_features=groups)


def test_a_network_that_needs_no_correction():
    data = rows(3, 2)
    network = data.network()
    debiaser = fit(data, network=network, epsilon=0.9, performance="accuracy")
    if debiaser.best_trial_ == 0:
        assert debiaser.group_features_ == "none"
    X = torch.tensor(data.X[:50])
    module = debiaser.to_module()
    with torch.no_grad():
        # Nearly all decisions: the network is calibrated, without a correction.
        agree = (module(X).argmax(1) == network(X).argmax(1)).double().mean()
    assert agree > 0.85


def test_a_bias_of_few_rows_does_not_rule_out_a_much_better_candidate():
    """All 38 positives of a group are found: the bias is measured just above epsilon."""
    rows_of = {(0, 1): 38, (1, 1): 730, (0, 0): 140, (1, 0): 5190}  # by group and class
    weak = {(0, 1): 15, (1, 1): 300, (0, 0): 3, (1, 0): 110}  # of these, predicted positive
    strong = {(0, 1): 38, (1, 1): 682, (0, 0): 25, (1, 0): 800}
    groups, codes = (
        np.repeat([cell[k] for cell in rows_of], list(rows_of.values())) for k in (0, 1)
    )
    question = Question(
        "equal_opportunity", 0.05, "balanced_accuracy", "auto", 0.01, [0, 1], [0, 1],
        np.arange(2), 1,
    )  # fmt: skip
    judge = Judge(codes, groups, np.arange(len(codes)) % 5, 2, question)
    for hits in (weak, strong):
        judge.add(np.concatenate([np.arange(n) < hits[cell] for cell, n in rows_of.items()]) + 0)
    trials = judge.trials()
    assert abs(trials["bias"][0]) < 0.05 < trials["bias"][1] < 0.07
    assert not trials["feasible"].any()
    assert judge.best() == 1


def test_the_network_of_the_user_is_not_changed():
    data = rows(2, 2)
    network = data.network().train()
    before = copy.deepcopy(network.state_dict())
    fit(data, network=network)
    assert network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(before[name], tensor)
    assert not any(part._forward_pre_hooks for part in network.modules())


# As a scikit-learn estimator --------------------------------------------------------------


def test_same_seed_same_bits():
    data = rows(3, 3)
    one, two = fit(data), fit(data)
    np.testing.assert_array_equal(one.decision_function(data.X), two.decision_function(data.X))
    assert one.trials_.equals(two.trials_)
    assert not one.trials_.equals(fit(data, random_state=1).trials_)


def test_predicting_takes_no_groups():
    data = rows(3, 3)
    with pytest.raises(TypeError):
        fitted().predict(data.X, sensitive_features=data.groups)
    assert fitted().predict(data.X[:5]).shape == (5,)
    assert fitted().predict_proba(data.X[:5]).shape == (5, 3)
    assert fitted().decision_function(data.X[:5]).shape == (5, 3)


def test_labels_of_any_type_in_a_search_over_a_pipeline():
    data = rows(3, 2)
    X, y, groups = data.part(slice(0, 900))
    names = np.array(["low", "medium", "top"])
    network = FrozenEstimator(data.network())
    pipeline = make_pipeline(StandardScaler(), LinearPostDebiaser(network, cv=3, random_state=0))
    search = GridSearchCV(pipeline, {"linearpostdebiaser__epsilon": [0.05, 0.2]}, cv=2)
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X, names[y], sensitive_features=groups)
    assert set(search.predict(X)) <= set(names)
    assert search.best_score_ > 0.5


def test_a_net_that_is_not_fitted_is_judged_on_rows_that_it_has_not_seen():
    data = rows(2, 2)
    X, groups = data.X[:600], data.groups[:600]
    net = skorch.NeuralNetClassifier(
        lambda: nn.Sequential(nn.Linear(X.shape[1], 256), nn.ReLU(), nn.Linear(256, 2)),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=60,
        train_split=None,
        verbose=0,
    )
    noise = np.random.default_rng(9).integers(2, size=600)  # can only be learned by heart
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        debiaser = LinearPostDebiaser(net, random_state=0, epsilon=0.9)
        debiaser.fit(X, noise, sensitive_features=groups)
    assert balanced_accuracy_score(noise, debiaser.predict(X)) > 0.6
    assert debiaser.performance_ < 0.6


@pytest.mark.parametrize("features", ["network", "input"])
@pytest.mark.parametrize("confidence", ["auto", 0.9])
def test_saved_and_loaded(features, confidence, tmp_path):
    data = rows(3, 2)
    debiaser = fit(data, group_features=features, confidence=confidence, epsilon=0.2)
    skfair.save(debiaser, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories=data.network)
    for method in ("decision_function", "predict_proba", "predict"):
        expected, found = (getattr(each, method)(data.X) for each in (debiaser, loaded))
        np.testing.assert_array_equal(expected, found)
    assert str(loaded.certificate_) == str(debiaser.certificate_)
    again = pickle.loads(pickle.dumps(debiaser))
    np.testing.assert_array_equal(
        debiaser.decision_function(data.X), again.decision_function(data.X)
    )


def test_the_module_opens_where_skfair_is_not(tmp_path):
    data = rows(3, 2)
    for features in ("network", "input"):
        debiaser = fit(data, group_features=features)
        module, X = debiaser.to_module(), torch.tensor(data.X[:7])
        torch.save(module, tmp_path / "module.pt")
        torch.save((X, module(X).detach()), tmp_path / "rows.pt")
        code = f"""
import sys
sys.modules["skfair"] = None
import torch
module = torch.load({str(tmp_path / "module.pt")!r}, weights_only=False)
X, expected = torch.load({str(tmp_path / "rows.pt")!r})
assert torch.equal(module(X), expected)
"""
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.parametrize("features", ["network", "input"])
def test_an_onnx_file_returns_what_the_module_does(features, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    data = rows(3, 2)
    debiaser = fit(data, network=data.network("probabilities"), group_features=features)
    debiaser.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"X": data.X[:11]})
    with torch.no_grad():
        expected = debiaser.to_module()(torch.tensor(data.X[:11])).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Groups -----------------------------------------------------------------------------------


def test_groups_of_a_few_rows():
    data = copy.copy(rows(2, 2))
    data.groups = data.groups.copy()
    data.groups[:4], data.groups[4:40] = 2, 3
    with pytest.warns(SmallGroupWarning, match=r"fewer than 10 samples: \{2: 4\}"):
        debiaser = fit(data)
    assert np.isfinite(debiaser.trials_.bias).all()
    assert debiaser.performance_ > 0.7
    with pytest.warns(SmallGroupWarning, match="leaves these groups out"):
        debiaser = fit(data, small_groups="exclude")
    assert set(debiaser.pairs_.group_1) | set(debiaser.pairs_.group_2) == {"0", "1", "3"}
    with pytest.raises(ValueError, match="small_groups='error'"):
        fit(data, small_groups="error")


# A certificate ----------------------------------------------------------------------------


def test_a_certificate_is_about_rows_that_fitted_nothing():
    data = rows(3, 2)
    debiaser = fit(data, confidence=0.9, epsilon=0.2)
    certificate = debiaser.certificate_
    assert certificate.holds is debiaser.feasible_ is True
    # Half of the rows; each row counts in one rate for each class.
    assert certificate.group_sizes.to_numpy().sum() == pytest.approx(3 * 0.5 * 3000, abs=9)
    assert len(certificate.pairs) == 3
    assert debiaser.bias_ == pytest.approx(certificate.pairs.difference.abs().max())
    strict = fit(data, confidence=0.99, epsilon=0.01)
    assert strict.feasible_ is strict.certificate_.holds is False
    assert fitted().certificate_ is None


# Bad input --------------------------------------------------------------------------------


def test_more_classes_than_the_network_has_outputs():
    data = rows(3, 2)
    two = rows(2, 2)
    X, y = two.X, data.y
    for network, shape in ((two.network(), r"15000, 2"), (Squeezed(X.shape[1]), "15000,")):
        with pytest.raises(ValueError, match=rf"array of shape \({shape}\), expected 3 values for"):
            LinearPostDebiaser(network).fit(X, y, sensitive_features=data.groups)
    with pytest.raises(ValueError, match=r"array of shape \(15000, 3\), expected one or two"):
        LinearPostDebiaser(data.network()).fit(data.X, two.y, sensitive_features=two.groups)


def test_a_pos_label_that_is_no_class():
    data = rows(3, 2)
    with pytest.raises(
        ValueError, match=r"pos_label=7 is not one of the classes in y, \[0, 1, 2\]"
    ):
        fit(data, pos_label=7)
    with pytest.raises(
        ValueError, match=r"pos_label is None, expected one of the classes \[0, 1, 2\]"
    ):
        fit(data, pos_label=None, constraint="equal_opportunity")
    assert fit(data, pos_label=None).predict(data.X[:3]).shape == (3,)


@pytest.mark.parametrize("constraint", ["equal_opportunity", "equalized_odds"])
def test_a_group_without_rows_of_the_class(constraint):
    data = copy.copy(rows(3, 2))
    data.y = np.where((data.groups == 1) & (data.y == 2), 0, data.y)
    with pytest.raises(ValueError, match=r"of class 2, and .* without any in y: \[1\]"):
        fit(data, constraint=constraint)


def a_function(y_true, y_pred, *, sensitive_features):
    return 0.0


def test_a_function_as_constraint_is_refused():
    with pytest.raises(
        ValueError, match=r"constraint=a_function .*ThresholdDebiaser.*LayerwiseDebiaser"
    ):
        fit(rows(2, 2), constraint=a_function)


def test_others_name_it_for_more_classes():
    data = rows(3, 2)
    with pytest.raises(ValueError, match=r"Only binary classification .*LinearPostDebiaser"):
        skfair.ThresholdDebiaser(data.network()).fit(data.X, data.y, sensitive_features=data.groups)


@pytest.mark.parametrize("parameters", [{"cv": 2}, {"group_features": "both"}, {"pos_label": [1]}])
def test_parameters_out_of_range(parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"The '{name}' parameter of LinearPostDebiaser"):
        fit(rows(2, 2), **parameters)


def test_calibration_rows_without_a_group():
    data = copy.copy(rows(2, 2))
    data.groups = data.groups.copy()
    data.groups[0] = 2
    with (
        pytest.warns(SmallGroupWarning),
        pytest.raises(ValueError, match=r"confidence=0\.9 asks for a certificate.*1 of the 3"),
    ):
        fit(data, confidence=0.9)


@pytest.mark.parametrize(
    "asked", [{"constraint": "equalized_odds"}, {"constraint": "equal_opportunity", "pos_label": 2}]
)
def test_calibration_rows_without_a_class(asked):
    data = Rows(3, 2, n=400)
    data.y[data.y == 2] = 0
    for group in range(2):  # one row, which cannot both fit and certify
        data.y[np.flatnonzero(data.groups == group)[0]] = 2
    with (
        pytest.warns(SmallGroupWarning),
        pytest.raises(
            ValueError, match=r"hold no row of 2 of the 2 compared groups for some class"
        ),
    ):
        fit(data, slice(None), confidence=0.9, **asked)
