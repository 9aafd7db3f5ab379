"""How a network is found and copied, which outputs it may have, and which network is returned."""

import copy
import inspect
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from skfair import intraprocessing
from skfair.intraprocessing import RandomPerturbationDebiaser, ThresholdDebiaser, _critics
from skfair.margin import ClusterMarginClassifier
from skfair.utils._random import seeded

# These tests are not about the results of short searches on few data.
pytestmark = [
    pytest.mark.filterwarnings("ignore::skfair.utils.FallbackWarning"),
    pytest.mark.filterwarnings("ignore::skfair.utils.InfeasibleConstraintWarning"),
    pytest.mark.filterwarnings("ignore::skfair.utils.SmallGroupWarning"),
]


@pytest.fixture(autouse=True)
def _a_critic_that_has_learnt_little(monkeypatch):
    monkeypatch.setattr(_critics, "_N_PRETRAIN", 6)


N = 300


def make_data():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(2, size=(2, N))
    X = rng.normal(size=(N, 4)).astype(np.float32)
    X[:, 0] += 1.5 * y
    X[:, 1] += 1.5 * groups
    return X, y, groups


X, Y, GROUPS = make_data()
LOGIT = torch.tensor([[1.5, 1.0, 0.3, 0.0]])


def body():
    """A network of one logit, close to 1.5 x0 + x1, that is not quite linear."""
    with seeded(0):
        first, last = nn.Linear(4, 8), nn.Linear(8, 1)
    with torch.no_grad():
        first.weight[:4], first.weight[4:] = 1.0 * torch.eye(4), -1.0 * torch.eye(4)
        first.bias.fill_(0.1)
        last.weight.copy_(torch.cat([LOGIT, -LOGIT], 1))
        last.bias.fill_(-1.5)
    return [first, nn.ReLU(), last]


class Both(nn.Module):
    """Two outputs whose difference is the logit."""

    def forward(self, logit):
        return torch.cat([0.25 - logit / 2, 0.25 + logit / 2], dim=1)


class Hidden(nn.Module):
    """A probability whose sigmoid is hidden in forward."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*body())

    def forward(self, X):
        return torch.sigmoid(self.body(X))


NETWORKS = {
    "one logit": lambda: nn.Sequential(*body()),
    "one logit, flat": lambda: nn.Sequential(*body(), nn.Flatten(0)),
    "two logits": lambda: nn.Sequential(*body(), Both()),
    "one probability": lambda: nn.Sequential(*body(), nn.Sigmoid()),
    "one probability, flat": lambda: nn.Sequential(*body(), nn.Flatten(0), nn.Sigmoid()),
    "two probabilities": lambda: nn.Sequential(*body(), Both(), nn.Softmax(dim=1)),
    "nested": lambda: nn.Sequential(nn.Sequential(*body()), nn.Sequential(nn.Sigmoid())),
    "hidden": Hidden,
}


def fit(estimator, X=X, y=Y, groups=GROUPS, kind=ThresholdDebiaser, **parameters):
    debiaser = kind(estimator, **{"random_state": 0, "epsilon": 0.15, **parameters})
    return debiaser.fit(X, y, sensitive_features=groups)


def every_debiaser():
    """Make a debiaser of each class with the smallest search."""
    little = {"n_trials": 3, "n_calls": 4, "n_layers": 2, "max_epochs": 2}
    for name in [each for each in intraprocessing.__all__ if each.endswith("Debiaser")]:
        kind = getattr(intraprocessing, name)
        if inspect.isabstract(kind):
            continue
        known = inspect.signature(kind).parameters
        parameters = {key: value for key, value in little.items() if key in known}
        yield pytest.param(kind, parameters, id=name)


everyone = pytest.mark.parametrize("kind, little", list(every_debiaser()))


# Every kind of network --------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_kind_of_output_does_not_matter(name):
    expected = fit(NETWORKS["one logit"]())
    output = "probabilities" if name == "hidden" else "auto"
    debiaser = fit(NETWORKS[name](), output=output)
    np.testing.assert_array_equal(debiaser.predict(X), expected.predict(X))
    np.testing.assert_allclose(
        debiaser.decision_function(X), expected.decision_function(X), atol=1e-4
    )
    np.testing.assert_allclose(debiaser.predict_proba(X), expected.predict_proba(X), atol=1e-4)
    assert debiaser.threshold_ == pytest.approx(expected.threshold_, abs=1e-4)
    assert debiaser.bias_ == expected.bias_
    assert debiaser.feasible_ == expected.feasible_
    # The original network is measured at its own threshold.
    raw = NETWORKS["one logit"]()(torch.tensor(X)).detach().numpy().reshape(-1)
    original = debiaser.trials_.loc[0]
    assert original.performance == pytest.approx(balanced_accuracy_score(Y, raw > 0))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_threshold_is_folded_into_outputs_of_the_same_kind(name):
    network = NETWORKS[name]()
    debiaser = fit(network, output="probabilities" if name == "hidden" else "auto")
    assert abs(debiaser.threshold_) > 0.1
    module = debiaser.to_module()
    assert not module.training
    with torch.no_grad():
        raw, before = module(torch.tensor(X)), network(torch.tensor(X))
    assert raw.shape == before.shape
    assert raw.dtype == before.dtype
    if "probabilit" in name or name in ("nested", "hidden"):
        assert 0 <= raw.min() <= raw.max() <= 1
        if raw.ndim == 2 and raw.shape[1] == 2:
            np.testing.assert_allclose(raw.sum(1), 1, atol=1e-6)
            codes = raw.argmax(1).numpy()
        else:
            codes = (raw.reshape(-1) > 0.5).int().numpy()
    else:
        codes = raw.argmax(1).numpy() if name == "two logits" else raw.reshape(-1).numpy() > 0
    # Very close to the threshold, float32 and float64 may differ.
    sure = np.abs(debiaser.decision_function(X)) > 1e-5
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(codes[sure], debiaser.predict(X)[sure])


def test_saturated_probabilities_stay_finite():
    network = nn.Sequential(*body(), nn.Sigmoid())
    with torch.no_grad():
        network[2].weight.mul_(300)
    debiaser = fit(network)
    assert np.isfinite(debiaser.decision_function(X)).all()
    assert set(debiaser.predict_proba(X[:5]).sum(1).round(12)) == {1.0}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_types(dtype):
    network = NETWORKS["one logit"]().to(dtype)
    debiaser = fit(network)
    assert next(debiaser.module_.parameters()).dtype == dtype
    assert debiaser.predict_proba(X).dtype == np.float64
    assert balanced_accuracy_score(Y, debiaser.predict(X)) > 0.55
    returned = dtype if dtype == torch.float64 else torch.float32  # half would round thresholds
    assert debiaser.to_module()(torch.tensor(X[:3], dtype=dtype)).dtype == returned


class FirstColumns(nn.Module):
    """A network of a table without parameters, written for float32."""

    def forward(self, X):
        return (X[:, 0] + X[:, 1]).float() - 1


def test_a_network_without_parameters():
    debiaser = fit(FirstColumns())
    np.testing.assert_array_equal(
        debiaser.predict(X), (X[:, 0] + X[:, 1] - 1 > debiaser.threshold_).astype(int)
    )


# Every holder of a network ----------------------------------------------------------------


class Small(nn.Module):
    def __init__(self, n_outputs=2, softmax=True):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n_outputs))
        self.softmax = softmax

    def forward(self, X):
        out = self.layers(X)
        return out.softmax(1) if self.softmax else out


SKORCH = {
    "NLLLoss": (NeuralNetClassifier, {}),
    "CrossEntropyLoss": (
        NeuralNetClassifier,
        {"criterion": nn.CrossEntropyLoss, "module__softmax": False},
    ),
    "binary": (
        NeuralNetBinaryClassifier,
        {"module__n_outputs": 1, "module__softmax": False},
    ),
}


def skorch_net(name):
    kind, parameters = SKORCH[name]
    return kind(Small, max_epochs=8, lr=0.3, verbose=0, train_split=None, **parameters)


def fitted_net(name):
    with seeded(0):
        return skorch_net(name).fit(X, Y.astype(np.float32 if name == "binary" else np.int64))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", SKORCH)
def test_a_fitted_skorch_net(name, frozen):
    net = fitted_net(name)
    debiaser = fit(FrozenEstimator(net) if frozen else net)
    original = debiaser.trials_.loc[0]
    assert original.performance == pytest.approx(balanced_accuracy_score(Y, net.predict(X)))
    assert original.performance > 0.6
    # At its own threshold the network is the same classifier.
    shifted = debiaser.decision_function(X) + debiaser.threshold_
    proba = net.predict_proba(X)[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-shifted)), proba, atol=1e-5)


@pytest.mark.parametrize("name", SKORCH)
def test_a_skorch_net_that_is_not_fitted_is_fitted_first(name):
    net = skorch_net(name)
    labels = np.array(["no", "yes"])[Y]
    with seeded(1):
        debiaser = fit(net, y=labels)
    assert not getattr(net, "initialized_", False)
    assert list(debiaser.classes_) == ["no", "yes"]
    assert (debiaser.predict(X) == labels).mean() > 0.6
    # The seed of the debiaser also seeds the training.
    with seeded(2):
        again = fit(clone(net), y=labels)
    np.testing.assert_array_equal(again.decision_function(X), debiaser.decision_function(X))


def test_labels_of_a_fitted_net_are_those_it_was_trained_for():
    net = fitted_net("NLLLoss")
    with pytest.raises(ValueError, match=r"classes \['no', 'yes'\].*trained for \[0, 1\]"):
        fit(net, y=np.array(["no", "yes"])[Y])


@pytest.mark.filterwarnings("ignore::skfair.utils.AmplificationWarning")
@pytest.mark.filterwarnings("ignore::skfair.utils.OvercorrectionWarning")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_cluster_margin_classifier(frozen):
    labels = np.array(["no", "yes"])[Y]
    classifier = ClusterMarginClassifier(random_state=0, max_epochs=3, n_units=8).fit(X, labels)
    debiaser = fit(FrozenEstimator(classifier) if frozen else classifier, y=labels)
    original = debiaser.trials_.loc[0]
    expected = balanced_accuracy_score(labels, classifier.predict(X))
    assert original.performance == pytest.approx(expected)
    np.testing.assert_allclose(
        debiaser.decision_function(X) + debiaser.threshold_,
        classifier.decision_function(X),
        atol=1e-4,
    )


@pytest.mark.parametrize("name", ["one logit", "two probabilities"])
def test_a_fitted_debiaser(name):
    first = fit(NETWORKS[name]())
    second = fit(FrozenEstimator(first), epsilon=0.05)
    original = second.trials_.loc[0]
    predicted = first.predict(X)
    assert original.performance == pytest.approx(balanced_accuracy_score(Y, predicted))
    bias = predicted[GROUPS == 0].mean() - predicted[GROUPS == 1].mean()
    assert original.bias == pytest.approx(bias)
    np.testing.assert_allclose(
        second.decision_function(X) + second.threshold_, first.decision_function(X), atol=1e-4
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_module(frozen):
    network = NETWORKS["one logit"]()
    expected = fit(network).decision_function(X)
    debiaser = fit(FrozenEstimator(network) if frozen else network)
    np.testing.assert_array_equal(debiaser.decision_function(X), expected)
    np.testing.assert_array_equal(
        clone(debiaser).fit(X, Y, sensitive_features=GROUPS).decision_function(X), expected
    )


# The result -------------------------------------------------------------------------------


def test_an_export_runs_where_skfair_is_not(tmp_path):
    names = [name for name in NETWORKS if name not in ("two logits", "two probabilities", "hidden")]
    fitted = {name: fit(NETWORKS[name]()) for name in names}
    two = nn.Sequential(nn.Linear(4, 2))  # its classes can be imported in the other process
    with torch.no_grad():
        two[0].weight.copy_(torch.cat([-LOGIT, LOGIT]) / 2)
    fitted["two logits"] = fit(two)
    fitted["two probabilities"] = fit(nn.Sequential(two, nn.Softmax(dim=1)))
    for name, debiaser in fitted.items():
        torch.save(debiaser.to_module(), tmp_path / f"{name}.pt")
    np.save(tmp_path / "X.npy", X)
    code = """
import sys
sys.modules["skfair"] = None  # as if it were not installed
from pathlib import Path
import numpy as np, torch
try:
    import skfair
except ImportError:
    pass
else:
    raise SystemExit("skfair is there")
folder = Path(sys.argv[1])
X = torch.tensor(np.load(folder / "X.npy"))
for path in folder.glob("*.pt"):
    network = torch.load(path, weights_only=False)
    assert not network.training
    with torch.no_grad():
        np.save(path.with_suffix(".out.npy"), network(X).numpy())
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    for name, debiaser in fitted.items():
        with torch.no_grad():
            expected = debiaser.module_(torch.tensor(X)).numpy()
        found = np.load(tmp_path / f"{name}.out.npy")
        np.testing.assert_array_equal(found, expected)


def test_an_export_is_a_copy():
    debiaser = fit(NETWORKS["one logit"]())
    expected = debiaser.decision_function(X)
    module = debiaser.to_module()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(debiaser.decision_function(X), expected)


def snapshot(module):
    return {
        "state": {k: v.clone() for k, v in module.state_dict().items()},
        "training": [m.training for m in module.modules()],
        "grad": [p.requires_grad for p in module.parameters()],
        "gradients": [p.grad is None for p in module.parameters()],
        "identities": [id(p) for p in module.parameters()],
    }


@everyone
@pytest.mark.parametrize("training", [False, True])
def test_the_users_network_is_never_changed(kind, little, training):
    network = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), *body()[1:]
    ).train(training)
    network[1].eval()
    network[0].bias.requires_grad_(False)
    before = snapshot(network)
    debiaser = fit(network, kind=kind, **little)
    debiaser.predict(X)
    debiaser.to_module()
    after = snapshot(network)
    for name, value in before.pop("state").items():
        assert torch.equal(after["state"][name], value), name
    after.pop("state")
    assert after == before


@everyone
def test_frozen_parameters_stay_as_they_are(kind, little):
    network = nn.Sequential(*body())
    network[0].requires_grad_(False)
    debiaser = fit(network, kind=kind, **little)
    found = debiaser.module_.state_dict()
    for name in ("weight", "bias"):
        first = next(found[key] for key in found if key.endswith(f"0.{name}"))
        assert torch.equal(first, network[0].state_dict()[name])


@everyone
def test_a_network_frozen_as_a_whole_is_debiased_all_the_same(kind, little):
    network = nn.Sequential(*body()).requires_grad_(False)
    debiaser = fit(network, kind=kind, **little)
    expected = fit(nn.Sequential(*body()), kind=kind, **little)
    np.testing.assert_array_equal(debiaser.decision_function(X), expected.decision_function(X))


@everyone
def test_networks_with_batch_statistics_are_judged_with_the_running_ones(kind, little):
    with seeded(0):
        network = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)
        ).train()
    debiaser = fit(network, kind=kind, **little)
    expected = copy.deepcopy(network).eval()(torch.tensor(X)).detach().numpy()
    performance = debiaser.trials_.loc[0, "performance"]
    fraction = getattr(debiaser, "validation_fraction", None)
    if fraction is None:
        assert performance == pytest.approx(balanced_accuracy_score(Y, expected > 0))
    # A single row is predicted as in a batch.
    np.testing.assert_allclose(
        debiaser.decision_function(X[:1]), debiaser.decision_function(X)[:1], rtol=1e-12
    )


# Bad input --------------------------------------------------------------------------------


class Returns(nn.Module):
    """A network whose output is a function of the logit."""

    def __init__(self, function):
        super().__init__()
        self.body = nn.Sequential(*body())
        self.function = function

    def forward(self, X):
        return self.function(self.body(X))


def test_three_outputs():
    with pytest.raises(ValueError, match=r"estimator returns .* \(300, 3\).* binary"):
        fit(nn.Linear(4, 3))


def test_outputs_of_more_than_two_dimensions():
    with pytest.raises(ValueError, match=r"estimator returns .* \(300, 1, 1\)"):
        fit(Returns(lambda logit: logit[:, None]))


@pytest.mark.parametrize("name", ["one logit", "two logits"])
def test_logits_declared_as_probabilities(name):
    with pytest.raises(ValueError, match=r"to be probabilities, but reach from -.*output='log"):
        fit(NETWORKS[name](), output="probabilities")


def test_two_probabilities_that_do_not_sum_to_one():
    network = Returns(lambda logit: torch.cat([logit, logit], 1).sigmoid())
    with pytest.raises(ValueError, match="several in a row sum to one"):
        fit(network, output="probabilities")


def test_one_output_between_zero_and_one_is_ambiguous():
    with pytest.raises(ValueError, match="output='probabilities' or output='logits'"):
        fit(Hidden())
    as_logits = fit(Hidden(), output="logits")
    as_probabilities = fit(Hidden(), output="probabilities")
    np.testing.assert_array_equal(as_logits.predict(X), as_probabilities.predict(X))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite(value):
    network = Returns(lambda logit: torch.where(logit > 2, value, logit))
    with pytest.raises(ValueError, match=r"NaN or infinity for \d+ of 300 samples \(rows"):
        fit(network)


def test_a_network_that_cannot_be_copied():
    network = nn.Sequential(*body())
    network.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"estimator holds a Sequential .* deep-copied \(TypeErr"):
        fit(network)
    network = nn.Sequential(*body())
    network.caches = [network[0].weight * 2]  # a result of a computation with gradients
    with pytest.raises(ValueError, match="deep-copied"):
        fit(network)


def test_a_network_for_other_rows():
    with pytest.raises(ValueError, match=r"does not run on X, of shape \(300, 3\)"):
        fit(NETWORKS["one logit"](), X=X[:, :3])


def test_a_network_that_returns_no_tensor():
    with pytest.raises(ValueError, match="returns a set; expected one tensor"):
        fit(Returns(lambda logit: {logit}))


def test_a_network_that_returns_fewer_rows():
    with pytest.raises(ValueError, match="returns 150 rows for the 300 rows of X"):
        fit(Returns(lambda logit: logit[::2]))


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        FrozenEstimator(LogisticRegression()),
        make_pipeline(StandardScaler(), LogisticRegression()),
        nn.Linear,
        None,
        "network",
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators_without_a_network(estimator):
    with pytest.raises(TypeError, match=r"estimator is .* trained torch\.nn\.Module"):
        fit(estimator)


@pytest.mark.parametrize(
    "estimator",
    [
        FrozenEstimator(skorch_net("NLLLoss")),
        ClusterMarginClassifier(),
        FrozenEstimator(ClusterMarginClassifier()),
        ThresholdDebiaser(nn.Linear(4, 1)),
    ],
    ids=["frozen skorch", "cluster margin", "frozen cluster margin", "debiaser"],
)
def test_estimators_that_are_not_fitted(estimator):
    with pytest.raises(ValueError, match="not fitted"):
        fit(estimator)


def test_a_candidate_that_overflows_is_never_taken():
    debiaser = fit(NETWORKS["one logit"](), kind=RandomPerturbationDebiaser, n_trials=20, std=1e30)
    assert debiaser.best_trial_ == 1
    assert np.isfinite(debiaser.decision_function(X)).all()
    expected = fit(NETWORKS["one logit"]())
    np.testing.assert_array_equal(debiaser.predict(X), expected.predict(X))


class OfIntegers(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, X):
        return self.network(X.long())


def test_a_network_of_embeddings_is_given_integers_with_and_without_a_module_around_it():
    rng = np.random.default_rng(0)
    X, y, groups = rng.integers(0, 20, size=(200, 6)), np.arange(200) % 2, np.arange(200) // 2 % 2
    network = nn.Sequential(nn.EmbeddingBag(20, 3), nn.Linear(3, 1))
    logits = network(torch.from_numpy(X)).detach().numpy().ravel()
    for given in (network, OfIntegers(network)):
        debiaser = ThresholdDebiaser(given, epsilon=0.5)
        debiaser.fit(X, y, sensitive_features=groups)
        found = debiaser.decision_function(X) + debiaser.threshold_
        np.testing.assert_allclose(found, logits, atol=1e-5)


# Networks of other kinds --------------------------------------------------------------------


class WithExtraState(nn.Module):
    """A network whose state holds objects other than tensors."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*body())

    def forward(self, X):
        return self.body(X)

    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        assert state == {"version": 1}


def quantised():
    layer = torch.ao.nn.quantized.dynamic.Linear
    network = nn.Sequential(*body())
    for place in (0, 2):
        network[place].qconfig = torch.ao.quantization.default_dynamic_qconfig
        network[place] = layer.from_float(network[place])
    return network


def scripted():
    return torch.jit.trace(nn.Sequential(*body()), torch.zeros(3, 4))


def weight_normed():
    network = nn.Sequential(*body())
    for layer in (network[0], network[2]):
        nn.utils.weight_norm(layer)
    network(torch.from_numpy(X[:2]))  # the layers keep the computed weights, with their gradient
    return network


def parametrised():
    network = nn.Sequential(*body())
    nn.utils.parametrizations.weight_norm(network[0])
    return network


class InDouble(nn.Sequential):
    def forward(self, X):
        return super().forward(X).double()


KINDS = {
    "quantised": quantised,
    "TorchScript": scripted,
    "extra state": WithExtraState,
    "weight norm": weight_normed,
    "parametrised": parametrised,
    "float64 outputs": lambda: InDouble(*body()),
}


@pytest.fixture
def other_network(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecation warning of torch
        yield KINDS[request.param]()


@pytest.mark.parametrize("other_network", KINDS, indirect=True)
def test_the_threshold_debiaser_takes_every_network_that_runs(other_network):
    with torch.no_grad():
        expected = other_network.eval()(torch.from_numpy(X)).double().numpy().ravel()
    debiaser = fit(other_network)
    logit = debiaser.decision_function(X) + debiaser.threshold_
    np.testing.assert_allclose(logit, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kind", "parameters"), list(every_debiaser()))
@pytest.mark.parametrize("other_network", KINDS, indirect=True)
def test_other_networks_work_or_are_refused_by_name(other_network, kind, parameters):
    try:
        debiaser = fit(other_network, kind=kind, **parameters)
    except ValueError as error:
        assert str(error).startswith("estimator holds a ")  # noqa: PT017
        assert "ThresholdDebiaser" in str(error)  # noqa: PT017
        return
    expected = debiaser.predict(X)
    try:
        again = pickle.loads(pickle.dumps(debiaser))
    except TypeError as error:
        assert "estimator holds a " in str(error)  # noqa: PT017
        return
    np.testing.assert_array_equal(again.predict(X), expected)


def test_a_lazy_network_has_to_see_data_first():
    with pytest.raises(
        ValueError, match=r"estimator .* no weights yet: 0\.weight is created at the first batch"
    ):
        fit(nn.Sequential(nn.LazyLinear(1)))


def test_a_network_without_weights_takes_the_type_that_it_runs_in():
    network = Returns(None)
    network.body = nn.Identity()
    network.function = lambda X: X @ torch.tensor([1.5, 1.0, 0.3, 0.0], dtype=torch.float64)
    debiaser = fit(network)
    expected = X.astype(float) @ [1.5, 1.0, 0.3, 0.0]
    logit = debiaser.decision_function(X) + debiaser.threshold_
    np.testing.assert_allclose(logit, expected, atol=1e-5)


def test_a_layer_that_is_used_twice_is_perturbed_as_one():
    with seeded(0):
        layer = nn.Linear(4, 4)
    network = nn.Sequential(layer, nn.ReLU(), layer, nn.Flatten(), *body())
    debiaser = fit(network, kind=RandomPerturbationDebiaser, n_trials=5, std=0.5)
    assert debiaser.module_[0][0] is debiaser.module_[0][2]
    assert debiaser.trials_.bias.nunique() > 2


def centred(logit):
    return logit - logit.mean()


def dropped(logit):
    return nn.functional.dropout(logit, 0.5, training=True)


@pytest.mark.parametrize("function", [centred, dropped])
def test_rows_that_depend_on_their_batch_or_on_chance_are_refused(function):
    with pytest.raises(ValueError, match=r"returns other values .* in another batch"):
        fit(Returns(function))
