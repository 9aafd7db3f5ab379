"""ThresholdDebiaser: the weights do not change, and the threshold is the best one."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import nn

from skfair.intraprocessing import ThresholdDebiaser

pytestmark = pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning")

N = 200


def make_data():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(2, size=(2, N))
    X = rng.normal(size=(N, 3)).astype(np.float32)
    X[:, 0] += 2 * y + 0.4 * groups
    return X, y, groups


X, Y, GROUPS = make_data()


def network():
    layers = nn.Sequential(nn.Linear(3, 1))
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([[1.0, 0.1, 0.0]]))
        layers[0].bias.fill_(-1.2)
    return layers


def fit(**parameters):
    debiaser = ThresholdDebiaser(network(), **{"epsilon": 0.1, "random_state": 0, **parameters})
    return debiaser.fit(X, Y, sensitive_features=GROUPS)


def test_only_the_threshold_moves():
    debiaser = fit()
    state, original = debiaser.module_[0].state_dict(), network().state_dict()
    for name, value in original.items():
        assert torch.equal(state[name], value)
    logit = network().double()(torch.tensor(X, dtype=torch.float64)).detach().numpy()[:, 0]
    np.testing.assert_allclose(
        debiaser.decision_function(X), logit - debiaser.threshold_, atol=1e-6
    )
    np.testing.assert_array_equal(debiaser.predict(X), (logit > debiaser.threshold_).astype(int))


def test_there_are_two_candidates():
    trials = fit().trials_
    assert trials.candidate.tolist() == ["original", "threshold"]
    assert trials.threshold[0] == 0
    predicted = network()(torch.tensor(X)).detach().numpy()[:, 0] > 0
    bias = predicted[GROUPS == 0].mean() - predicted[GROUPS == 1].mean()
    assert trials.bias[0] == pytest.approx(bias)
    assert trials.performance[0] == pytest.approx(balanced_accuracy_score(Y, predicted))


@pytest.mark.parametrize(
    "performance, score", [("balanced_accuracy", balanced_accuracy_score), ("f1", f1_score)]
)
def test_it_is_the_best_of_all_thresholds(performance, score):
    debiaser = fit(performance=performance, confidence=None, margin=0.0)
    logit = network()(torch.tensor(X)).detach().numpy()[:, 0].astype(float)
    ordered = np.sort(logit)
    best = 0.0
    for threshold in (ordered[1:] + ordered[:-1]) / 2:
        predicted = logit > threshold
        bias = predicted[GROUPS == 0].mean() - predicted[GROUPS == 1].mean()
        if abs(bias) < 0.1:
            best = max(best, score(Y, predicted))
    if debiaser.best_trial_ == 0:  # the original network with its own threshold, chosen on no rows
        assert debiaser.trials_.performance[1] == pytest.approx(best)
    else:
        assert score(Y, debiaser.predict(X)) == pytest.approx(best)
        # The reported performance is measured on rows that did not choose the threshold.
        assert debiaser.performance_ <= best


def test_a_wide_constraint_leaves_the_best_threshold_for_performance():
    wide = fit(epsilon=0.9)
    logit = network()(torch.tensor(X)).detach().numpy()[:, 0].astype(float)
    best = max(balanced_accuracy_score(Y, logit > threshold) for threshold in np.sort(logit)[:-1])
    if wide.best_trial_ == 0:  # its own threshold is about as good, and was chosen on no rows
        assert wide.trials_.performance[1] == pytest.approx(best)
        assert wide.performance_ == pytest.approx(balanced_accuracy_score(Y, logit > 0))
    else:
        assert balanced_accuracy_score(Y, wide.predict(X)) == pytest.approx(best)
    assert best - 0.03 < wide.performance_ <= best
    assert fit(epsilon=0.1).performance_ <= wide.performance_


def test_the_groups_are_not_needed_to_predict():
    debiaser = fit()
    assert abs(debiaser.trials_.bias[0]) > abs(debiaser.bias_)
    fresh = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    assert set(debiaser.predict(fresh)) <= {0, 1}


def test_a_constant_network_has_nothing_to_choose():
    constant = network()
    with torch.no_grad():
        constant[0].weight.zero_()
    debiaser = ThresholdDebiaser(constant).fit(X, Y, sensitive_features=GROUPS)
    assert debiaser.bias_ == 0.0
    assert debiaser.objective_ == 0.0
    assert len(set(debiaser.predict(X))) == 1


def test_labels_of_any_type_are_in_sorted_order():
    words = np.array(["bad", "good"])[Y]
    debiaser = ThresholdDebiaser(network(), epsilon=0.1, random_state=0)
    debiaser.fit(X, words, sensitive_features=GROUPS)
    np.testing.assert_array_equal(debiaser.predict(X), np.array(["bad", "good"])[fit().predict(X)])
    booleans = ThresholdDebiaser(network(), epsilon=0.1, random_state=0).fit(
        X, Y == 1, sensitive_features=GROUPS
    )
    assert booleans.predict(X).dtype == bool


def test_logarithms_of_probabilities_that_no_float_holds():
    debiaser = ThresholdDebiaser(network(), random_state=0).fit(X, Y, sensitive_features=GROUPS)
    debiaser.module_ = nn.Linear(3, 1, bias=False)
    nn.init.constant_(debiaser.module_.weight, 1000)
    rows = np.array([[2, 0, 0], [0, 0, 0], [0, 0, -2]], dtype=np.float32)  # logits 2000, 0, -2000
    log_proba = debiaser.predict_log_proba(rows)
    np.testing.assert_allclose(log_proba, [[-2000, 0], [np.log(0.5)] * 2, [0, -2000]])
    assert debiaser.predict_proba(rows).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
