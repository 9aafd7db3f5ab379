"""Networks in half precision are judged in their own type; predictions copy no weights."""

import copy
import threading

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import nn

import skfair
from skfair import (
    AdversarialFinetuneDebiaser,
    BiasGradientDebiaser,
    DistillationDebiaser,
    GroupDRODebiaser,
    LinearPostDebiaser,
    ThresholdDebiaser,
)
from skfair.intraprocessing._half import HalfAdam

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, 400)
    X = rng.standard_normal((400, 6)).astype(np.float32)
    X[:, 0] += groups
    y = (X[:, 0] + X[:, 1] + rng.standard_normal(400) > 0.5).astype(int)
    return X, y, groups


def network_in(dtype, *, n_outputs=1, width=6):
    torch.manual_seed(0)
    hidden = nn.Linear(width, 16)
    network = nn.Sequential(hidden, nn.ReLU(), nn.Linear(16, n_outputs))
    return network.to(dtype).eval()


def own_logits(network, X):
    dtype = next(network.parameters()).dtype
    with torch.no_grad():
        raw = network(torch.tensor(X).to(dtype)).double().numpy()
    return raw[:, 0] if raw.shape[1] == 1 else raw[:, 1] - raw[:, 0]


class Ids(nn.Module):
    """One logit for an id; half precision cannot hold all ids."""

    def __init__(self, n_ids):
        super().__init__()
        self.of_id = nn.Embedding(n_ids, 1)

    def forward(self, ids):
        return self.of_id(ids[:, 0])


@pytest.mark.parametrize(
    ("debiaser", "dtype", "n_outputs"),
    [
        (ThresholdDebiaser, torch.bfloat16, 1),
        (ThresholdDebiaser, torch.float16, 2),
        (LinearPostDebiaser, torch.bfloat16, 2),
    ],
)
@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_half_precision_is_judged_and_predicts_in_its_own_type(rows, debiaser, dtype, n_outputs):
    X, y, groups = rows
    network = network_in(dtype, n_outputs=n_outputs)
    fitted = debiaser(network, output="logits", random_state=0)
    fitted.fit(X, y, sensitive_features=groups)
    own = balanced_accuracy_score(y, own_logits(network, X) > 0)
    assert fitted.trials_.loc[0, "performance"] == pytest.approx(own, abs=1e-12)
    with torch.no_grad():
        raw = fitted.module_(torch.tensor(X).to(dtype))
    assert raw.dtype == torch.float32
    raw = raw.double().numpy()
    decided = raw[:, 0] > 0 if n_outputs == 1 else raw[:, 1] > raw[:, 0]
    np.testing.assert_array_equal(fitted.predict(X), decided.astype(int))
    assert {p.dtype for p in fitted.module_.get_submodule("0").parameters()} >= {dtype}


TRAINED = {
    "distillation": (DistillationDebiaser, {}),
    "bias gradient": (BiasGradientDebiaser, {}),
    "group DRO": (GroupDRODebiaser, {}),
    "critic": (AdversarialFinetuneDebiaser, {}),
    "adversary": (AdversarialFinetuneDebiaser, {"adversary": "attribute"}),
}


@pytest.mark.parametrize(("dtype", "n_outputs"), [(torch.bfloat16, 1), (torch.float16, 2)])
@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_half_precision_is_trained_as_single_precision_is(rows, method, dtype, n_outputs):
    X, _, groups = rows
    kind, settings = TRAINED[method]
    network = network_in(dtype, n_outputs=n_outputs)
    with torch.no_grad():
        network[-1].bias[-1] -= np.median(own_logits(network, X))
    y = (own_logits(network, X) > 0).astype(int)

    def fit(network):
        debiaser = kind(network, output="logits", random_state=0, max_epochs=2, **settings)
        return debiaser.fit(X, y, sensitive_features=groups)

    fitted, single = fit(network), fit(copy.deepcopy(network).float())
    assert fitted.trials_.loc[0, "performance"] == 1  # whichever rows judge
    np.testing.assert_allclose(
        fitted.history_["train_loss"], single.history_["train_loss"], rtol=0.1, atol=5e-4
    )
    with torch.no_grad():
        raw = fitted.module_(torch.tensor(X).to(dtype))
    decided = raw[:, 0] > 0 if n_outputs == 1 else raw[:, 1] > raw[:, 0]
    np.testing.assert_array_equal(fitted.predict(X), decided.int().numpy())


@pytest.mark.parametrize("dtype", HALF)
def test_steps_in_half_precision_are_those_of_single_precision(dtype):
    start = torch.tensor([1.0, -2.0, 0.5, 3.0])
    gradient = torch.tensor([1e-6, 1e-4, -1.0, 0.0])  # 1e-6 squared is zero in float16
    half, single = nn.Parameter(start.to(dtype)), nn.Parameter(start.clone())
    frozen = nn.Parameter(start.to(dtype))
    ours = HalfAdam([half, frozen], lr=1e-4, fused=True)
    theirs = torch.optim.Adam([single], lr=1e-4, fused=True)
    for _ in range(200):
        half.grad, single.grad = gradient.to(dtype), gradient.to(dtype).float()
        ours.step()
        theirs.step()
    assert not torch.equal(half, start.to(dtype))
    torch.testing.assert_close(half, single.to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(frozen, start.to(dtype), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_integer_ids_are_not_rounded_to_half_precision():
    # Neighbours of ids above 256 are one number in bfloat16, and here they have other labels.
    ids = np.arange(600)
    labels, groups = ids % 2, ids // 2 % 2
    network = Ids(600)
    with torch.no_grad():
        network.of_id.weight[:, 0] = torch.tensor(2.0 * labels - 1)
    network.bfloat16()
    fitted = ThresholdDebiaser(network, output="logits").fit(
        ids[:, None], labels, sensitive_features=groups
    )
    assert fitted.trials_.loc[0, "performance"] == 1
    np.testing.assert_array_equal(fitted.predict(ids[:, None]), labels)


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_a_threshold_between_neighbours_of_bfloat16_is_kept(n_outputs):
    # Two values next to each other in bfloat16. The best threshold lies between them.
    low, high = 1.0, 1.0078125
    X = np.repeat(np.float32([low, high]), 100)[:, None]
    y = np.repeat([0, 1], 100)
    network = nn.Linear(1, n_outputs, bias=False)
    with torch.no_grad():
        network.weight[:, 0] = torch.tensor([1.0] if n_outputs == 1 else [0.0, 1.0])
    network.bfloat16()
    debiaser = ThresholdDebiaser(network, output="logits")
    fitted = debiaser.fit(X, y, sensitive_features=np.tile([0, 1], 100))
    assert low < fitted.threshold_ < high
    assert fitted.trials_["performance"].tolist() == [0.5, 1.0]
    np.testing.assert_array_equal(fitted.predict(X), y)
    with torch.no_grad():
        raw = fitted.module_(torch.tensor(X).bfloat16())
    decided = raw[:, 0] > 0 if n_outputs == 1 else raw[:, 1] > raw[:, 0]
    np.testing.assert_array_equal(decided.int().numpy(), y)


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_many_equal_logits_are_measured_together():
    # Three logits only. Positive rows by hand, (group 0, group 1) of 60 and 60 rows:
    # above 1.5: (30, 10); above 0.5: (50, 50).
    counts = {(0, 0.0): 10, (0, 1.0): 20, (0, 2.0): 30, (1, 0.0): 10, (1, 1.0): 40, (1, 2.0): 10}
    groups, logits = np.array([cell for cell, n in counts.items() for _ in range(n)]).T
    y = (logits > 0.5).astype(int)
    y[::10] = 1 - y[::10]
    network = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(network.weight)
    X = np.float32(logits)[:, None] - np.float32(1)  # the network's own threshold is above 1.0
    fitted = ThresholdDebiaser(
        network, output="logits", constraint="demographic_parity", epsilon=0.1
    ).fit(X, y, sensitive_features=groups.astype(int))
    first = fitted.trials_.loc[0]
    assert abs(first.bias) == pytest.approx(30 / 60 - 10 / 60)
    assert first.performance == pytest.approx(balanced_accuracy_score(y, logits > 1.5))
    assert -1 < fitted.threshold_ < 0
    assert fitted.bias_ == pytest.approx(0)
    assert fitted.performance_ == pytest.approx(balanced_accuracy_score(y, logits > 0.5))
    np.testing.assert_array_equal(fitted.predict(X), (logits > 0.5).astype(int))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_rounded_probabilities_are_probabilities(rows, dtype):
    X, y, groups = rows
    network = nn.Sequential(network_in(dtype, n_outputs=2), nn.Softmax(1))
    fitted = ThresholdDebiaser(network).fit(X, y, sensitive_features=groups)
    with torch.no_grad():
        found = fitted.module_(torch.tensor(X).to(dtype))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


class Mixed(nn.Module):
    """A body in half precision, and a head in single precision."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 16).bfloat16(), nn.Linear(16, 1)

    def forward(self, X):
        return self.head(self.body(X).float().relu())


class Waves(nn.Module):
    """A network with complex weights."""

    def __init__(self):
        super().__init__()
        self.head, self.waves = nn.Linear(8, 1), nn.Parameter(torch.randn(6, 8) + 1j)

    def forward(self, X):
        return self.head((X.to(self.waves.dtype) @ self.waves).real)


@pytest.mark.parametrize("make", [Mixed, Waves])
@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_each_part_keeps_its_type(rows, make, tmp_path):
    X, y, groups = rows
    torch.manual_seed(0)
    network = make().eval()
    dtype = next(network.parameters()).dtype
    dtype = torch.float32 if dtype.is_complex else dtype
    fitted = ThresholdDebiaser(network, output="logits").fit(X, y, sensitive_features=groups)
    with torch.no_grad():
        own = network(torch.tensor(X).to(dtype))[:, 0].double().numpy()
    np.testing.assert_allclose(
        fitted.decision_function(X), own - fitted.threshold_, rtol=0, atol=1e-5
    )
    own = balanced_accuracy_score(y, own > 0)
    assert fitted.trials_.loc[0, "performance"] == pytest.approx(own, abs=1e-12)


@pytest.mark.parametrize("debiaser", [ThresholdDebiaser, LinearPostDebiaser])
@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_saved_networks_in_half_precision_decide_alike(rows, debiaser, tmp_path):
    X, y, groups = rows
    fitted = debiaser(network_in(torch.bfloat16), output="logits", random_state=0)
    fitted.fit(X, y, sensitive_features=groups)
    skfair.save(fitted, tmp_path / "model")
    network = {"estimator": lambda: network_in(torch.bfloat16)}
    loaded = skfair.load(tmp_path / "model", factories=network)
    np.testing.assert_array_equal(loaded.decision_function(X), fitted.decision_function(X))


class Watched(nn.Module):
    """A network that stores its activations, and tells where its weights are when it runs."""

    places = []

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 16).bfloat16(), nn.Linear(16, 1).bfloat16()

    def forward(self, X):
        self.hidden = self.body(X).relu()
        Watched.places.append(self.head.weight.data_ptr())
        return self.head(self.hidden)


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_threads_predict_with_the_weights_of_the_module(rows):
    X, y, groups = rows
    torch.manual_seed(0)
    fitted = ThresholdDebiaser(Watched(), output="logits").fit(X, y, sensitive_features=groups)
    before = copy.deepcopy(fitted.module_.state_dict())
    expected = fitted.decision_function(X)
    Watched.places.clear()
    found = []

    def predict():
        found.extend(fitted.decision_function(X) for _ in range(5))

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15
    for one in found:
        np.testing.assert_array_equal(one, expected)
    # No copy of the weights; the user's module did not run itself, so threads do not meet in it.
    assert set(Watched.places) == {fitted.module_[0].head.weight.data_ptr()}
    assert all(
        torch.equal(value, before[key]) for key, value in fitted.module_.state_dict().items()
    )


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_large_networks_are_not_copied_to_float64():
    rng = np.random.default_rng(0)
    width = 2950  # float64 weights would take more than 64 MiB
    network = nn.Sequential(
        nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 1)
    )
    seen = []
    X = rng.standard_normal((40, 4)).astype(np.float32)
    y = np.tile([0, 1], 20)
    fitted = ThresholdDebiaser(network.eval(), output="logits").fit(
        X, y, sensitive_features=np.repeat([0, 1], 20)
    )
    # A layer of the module runs itself: hooks of all modules see what runs.
    hook = nn.modules.module.register_module_forward_pre_hook(lambda part, _: seen.append(part))
    try:
        fitted.predict(X)
    finally:
        hook.remove()
    assert any(part is fitted.module_[0][2] for part in seen)
