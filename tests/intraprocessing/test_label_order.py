"""Labels that sort against the outputs of the network: found, and settled by `classes`."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import skorch
import torch
from scipy.stats import mannwhitneyu
from sklearn.base import clone
from torch import nn

from skfair import load, save
from skfair.intraprocessing import (
    AdversarialFinetuneDebiaser,
    BiasGradientDebiaser,
    DistillationDebiaser,
    LayerwiseDebiaser,
    LinearPostDebiaser,
    RandomPerturbationDebiaser,
    ThresholdDebiaser,
    _debiasing_data,
)
from skfair.intraprocessing._debiasing_data import warn_of_order
from skfair.utils import LabelOrderWarning
from skfair.utils._warnings import FairnessWarning

ORDER = ["rejected", "accepted"]  # which sort the other way
KINDS = {
    "threshold": ThresholdDebiaser,
    "random": partial(RandomPerturbationDebiaser, n_trials=2),
    "layerwise": partial(LayerwiseDebiaser, n_calls=2),
    "adversarial": partial(AdversarialFinetuneDebiaser, max_epochs=1),
    "gradient": partial(BiasGradientDebiaser, max_epochs=1),
    "distillation": partial(DistillationDebiaser, max_epochs=1),
    "linear": LinearPostDebiaser,
}
other_warnings = pytest.mark.filterwarnings(
    *(
        f"ignore::skfair.utils.{kind}"
        for kind in ("FallbackWarning", "InfeasibleConstraintWarning", "SmallGroupWarning")
    )
)


def linear(weight):
    network = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        network.weight.copy_(torch.tensor(weight))
        network.bias.zero_()
    return network


def data(n=400, seed=0):
    rng = np.random.default_rng(seed)
    groups, y = rng.integers(2, size=(2, n))
    X = np.column_stack([2 * y - 1 + rng.normal(size=n), groups]).astype(np.float32)
    return X, y, groups


NETWORKS = {
    "a logit": lambda: linear([[1.0, 0.3]]),
    "two logits": lambda: linear([[-1.0, 0.0], [1.0, 0.3]]),
    "a probability": lambda: nn.Sequential(linear([[1.0, 0.3]]), nn.Sigmoid()),
    "two probabilities": lambda: nn.Sequential(linear([[-1.0, 0], [1.0, 0.3]]), nn.Softmax(dim=1)),
}


def order_warnings(debiaser, *arguments, **options):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("ignore", FairnessWarning)
        warnings.simplefilter("always", LabelOrderWarning)
        debiaser.fit(*arguments, **options)
    return [str(warning.message) for warning in seen]


@pytest.mark.thorough
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_is_wrong_most_of_the_time_is_warned_of(kind, network):
    X, y, groups = data()
    labels = np.array(ORDER)[y]
    network = NETWORKS[network]()
    debiaser = KINDS[kind](network, random_state=0)
    (said,) = order_warnings(debiaser, X, labels, sensitive_features=groups)
    assert (
        "in the order ['accepted', 'rejected']; they fit the order ['rejected', 'accepted']" in said
    )
    assert "set classes=['rejected', 'accepted']; if not" in said
    # What the message says does it.
    debiaser.set_params(classes=ORDER)
    assert not order_warnings(debiaser, X, labels, sensitive_features=groups)
    # As sorted, nothing was ever wrong.
    assert not order_warnings(KINDS[kind](network, random_state=0), X, y, sensitive_features=groups)


@pytest.mark.thorough
@other_warnings
@pytest.mark.parametrize("constraint", ["demographic_parity", "equal_opportunity"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_classes_give_the_model_of_labels_that_sort_as_the_outputs_do(
    kind, network, constraint, tmp_path
):
    X, y, groups = data()
    options = {"constraint": constraint, "epsilon": 0.1, "random_state": 0}
    make = NETWORKS[network]
    expected = KINDS[kind](make(), **options).fit(X, y, sensitive_features=groups)
    labels = np.array(ORDER)[y]
    debiaser = KINDS[kind](make(), classes=ORDER, **options)
    debiaser = clone(debiaser).fit(X, labels, sensitive_features=groups)
    assert debiaser.classes_.tolist() == ["accepted", "rejected"]
    assert debiaser.bias_ == expected.bias_
    assert debiaser.performance_ == expected.performance_
    save(debiaser, tmp_path / "model")
    opened = load(tmp_path / "model", factories={"estimator": make})
    for model in (debiaser, opened, pickle.loads(pickle.dumps(debiaser))):
        np.testing.assert_array_equal(model.predict(X), np.array(ORDER)[expected.predict(X)])
        proba = model.predict_proba(X)
        np.testing.assert_array_equal(proba[:, ::-1], expected.predict_proba(X))
        np.testing.assert_array_equal(model.decision_function(X), -expected.decision_function(X))
        assert model.score(X, labels) == expected.score(X, y) > 0.5
    # The exported network has the outputs of the user's.
    rows = torch.from_numpy(X)
    torch.testing.assert_close(debiaser.to_module()(rows), expected.to_module()(rows))


@other_warnings
def test_a_debiaser_of_a_debiaser_knows_the_order():
    X, y, groups = data()
    labels = np.array(ORDER)[y]
    first = ThresholdDebiaser(NETWORKS["a logit"](), classes=ORDER, random_state=0)
    first.fit(X, labels, sensitive_features=groups)
    options = {"constraint": "equal_opportunity", "random_state": 0}
    second = ThresholdDebiaser(first, **options).fit(X, labels, sensitive_features=groups)
    assert second.score(X, labels) > 0.7
    assert second.classes_.tolist() == ["accepted", "rejected"]
    with pytest.raises(
        ValueError, match=r"classes=\['accepted', 'rejected'\] differs from .* another order"
    ):
        ThresholdDebiaser(first, classes=ORDER[::-1]).fit(X, labels, sensitive_features=groups)
    # Recall of the accepted is what is compared, which a group without them has none of.
    keep = (groups == 0) | (labels == "rejected")
    with pytest.raises(ValueError, match=r"samples of class 'accepted'.*groups without any"):
        second.fit(X[keep], labels[keep], sensitive_features=groups[keep])


@other_warnings
def test_a_network_that_is_yet_to_be_trained_learns_any_order():
    X, y, groups = data()
    net = skorch.NeuralNetClassifier(
        nn.Linear,
        module__in_features=2,
        module__out_features=2,
        criterion=nn.CrossEntropyLoss,
        lr=0.5,
        verbose=0,
        train_split=None,
    )
    labels = np.array(ORDER)[y]
    for classes in (None, ORDER, ORDER[::-1]):
        debiaser = ThresholdDebiaser(net, classes=classes, epsilon=0.3, random_state=0)
        assert not order_warnings(debiaser, X, labels, sensitive_features=groups)
        assert debiaser.score(X, labels) > 0.7


def test_more_than_two_classes():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3)).astype(np.float32)
    groups = rng.integers(2, size=600)
    learned = ["cat", "ant", "bee"]
    labels = np.array(learned)[X.argmax(1)]
    network = linear(np.eye(3, dtype=np.float32) * 3)
    debiaser = LinearPostDebiaser(network, epsilon=0.3, random_state=0)
    (said,) = order_warnings(debiaser, X, labels, sensitive_features=groups)
    assert "in the order ['ant', 'bee', 'cat']; they fit the order ['cat', 'ant', 'bee']" in said
    debiaser.set_params(classes=learned)
    assert not order_warnings(debiaser, X, labels, sensitive_features=groups)
    assert debiaser.classes_.tolist() == ["ant", "bee", "cat"]
    assert debiaser.score(X, labels) > 0.95
    # Two of them swapped, and one that is right.
    debiaser.set_params(classes=["cat", "bee", "ant"])
    (said,) = order_warnings(debiaser, X, labels, sensitive_features=groups)
    assert "they fit the order ['cat', 'ant', 'bee']. That order is given by classes." in said
    # A class that does not occur among the debiasing rows.
    debiaser.set_params(classes=learned)
    rows = labels != "bee"
    order_warnings(debiaser, X[rows], labels[rows], sensitive_features=groups[rows])
    assert debiaser.classes_.tolist() == ["ant", "bee", "cat"]
    assert debiaser.score(X[rows], labels[rows]) > 0.95


@pytest.mark.parametrize(
    "classes",
    [["a", "b"], ["accepted"], ["accepted"] * 2, [*ORDER, "waiting"], [ORDER], [0, 1], []],
)
def test_classes_that_are_not_those_of_y_are_refused(classes):
    X, y, groups = data(100)
    debiaser = ThresholdDebiaser(NETWORKS["a logit"](), classes=classes)
    with pytest.raises(ValueError, match=r"^classes=.*each of the classes in y, .*once"):
        debiaser.fit(X, np.array(ORDER)[y], sensitive_features=groups)


def test_a_network_that_knows_nothing_is_not_warned_of_more_often_than_the_level():
    # Of 400 draws 0.4 are to be expected at a level of one in a thousand.
    rng = np.random.default_rng(0)
    _, y, _ = data(100)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(400):
            raw = torch.from_numpy(rng.normal(size=(100, 1)))
            warn_of_order(raw, y, [0, 1], given_by="")
    assert len(seen) <= 3


def test_the_slow_test_of_ranks_is_not_run_for_pairs_of_classes_that_are_ranked_well(monkeypatch):
    calls = []

    def counted(*rows, **options):
        calls.append(rows)
        return mannwhitneyu(*rows, **options)

    monkeypatch.setattr(_debiasing_data, "mannwhitneyu", counted)
    codes = np.arange(600) % 30
    raw = 5 * np.eye(30)[codes] + np.random.default_rng(0).normal(size=(600, 30))
    warn_of_order(torch.from_numpy(raw), codes, list(range(30)), given_by="")
    assert not calls  # of 435 pairs
    swapped = np.where(codes < 2, 1 - codes, codes)
    with pytest.warns(LabelOrderWarning, match="one row of class 1 and one of 0"):
        warn_of_order(torch.from_numpy(raw), swapped, list(range(30)), given_by="")
    assert 1 <= len(calls) < 60
