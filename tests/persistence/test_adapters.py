"""A debiased adapter: its file has the size of the adapter."""

import numpy as np
import pytest
import torch
from torch import nn

import skfair
from skfair.persistence import InvalidModelError

# Which candidate is good is not the question here.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::skfair.utils.{name}Warning")
    for name in ("Fallback", "InfeasibleConstraint", "Overfit", "LabelOrder")
]

WIDTH = 256


class Adapted(nn.Module):
    def __init__(self, shift=0.0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.base, self.middle = nn.Linear(4, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.lora_A = nn.Linear(4, 2, bias=False)
            self.lora_B = nn.Linear(2, WIDTH, bias=False)
            self.head = nn.Linear(WIDTH, 1)
        with torch.no_grad():
            self.middle.bias += shift
        self.base.requires_grad_(False)
        self.middle.requires_grad_(False)

    def forward(self, X):
        hidden = torch.relu(self.base(X) + self.lora_B(self.lora_A(X)))
        return self.head(torch.relu(self.middle(hidden)))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    y, group = rng.integers(2, size=(2, 400))
    X = rng.normal(size=(400, 4)).astype(np.float32)
    X[:, 0] += 2 * y
    X[:, 1] += 2 * group
    return X, y, group


@pytest.fixture(scope="module", params=["DistillationDebiaser", "LinearPostDebiaser"])
def fitted(request, rows):
    X, y, group = rows
    asked = {"output": "logits", "device": "cpu", "epsilon": 0.2, "random_state": 0}
    debiaser = getattr(skfair, request.param)(Adapted(), **asked)
    return debiaser.fit(X, y, sensitive_features=group)


def _size(folder):
    return (folder / "model.safetensors").stat().st_size


def test_file_of_an_adapter_has_its_size(fitted, rows, tmp_path):
    skfair.save(fitted, tmp_path / "whole")
    skfair.save(fitted, tmp_path / "adapter", frozen_weights=False)
    base = sum(p.nbytes for p in fitted.estimator.parameters() if not p.requires_grad)
    assert _size(tmp_path / "whole") > base
    # The trainable weights, of the network as it was and as it is, and the description.
    trainable = sum(p.nbytes for p in fitted.module_.parameters() if p.requires_grad)
    assert _size(tmp_path / "adapter") < 3 * trainable + 20_000 < base

    for saved, factory in [("whole", lambda: Adapted(shift=0.01)), ("adapter", Adapted)]:
        loaded = skfair.load(tmp_path / saved, factories=factory)
        np.testing.assert_array_equal(loaded.predict_proba(rows[0]), fitted.predict_proba(rows[0]))
        # The loaded debiaser shares the frozen weights again, and can be saved again.
        places = {p.data_ptr() for p in loaded.module_.parameters()}
        assert loaded.estimator.middle.weight.data_ptr() in places
        skfair.save(loaded, tmp_path / f"{saved} again", frozen_weights=False)
        assert _size(tmp_path / f"{saved} again") == _size(tmp_path / "adapter")


def test_another_base_is_refused(fitted, tmp_path):
    skfair.save(fitted, tmp_path / "adapter", frozen_weights=False)
    with pytest.raises(InvalidModelError, match="other frozen weights than the saved one"):
        skfair.load(tmp_path / "adapter", factories=lambda: Adapted(shift=0.01))
    with torch.device("meta"):
        on_meta = Adapted()
    with pytest.raises(InvalidModelError, match="other frozen weights than the saved one"):
        skfair.load(tmp_path / "adapter", factories=lambda: on_meta)


def test_lora_of_peft(rows, tmp_path):
    peft = pytest.importorskip("peft")

    def make():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        return peft.get_peft_model(network, peft.LoraConfig(target_modules=["0"], r=2))

    X, y, group = rows
    network = make()
    asked = {"output": "logits", "device": "cpu", "epsilon": 0.2, "random_state": 0}
    debiaser = skfair.DistillationDebiaser(network, parameters="lora", **asked)
    debiaser.fit(X, y, sensitive_features=group)
    skfair.save(debiaser, tmp_path, frozen_weights=False)
    loaded = skfair.load(tmp_path, factories=make)
    np.testing.assert_array_equal(loaded.predict_proba(X), debiaser.predict_proba(X))
    changed = {
        name
        for (name, p), q in zip(
            debiaser.module_.named_parameters(), network.parameters(), strict=True
        )
        if not torch.equal(p, q)
    }
    assert changed
    assert all("lora" in name for name in changed)


class Expanded(Adapted):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([2.0]).expand(4))

    def forward(self, X):
        return super().forward(self.scale * X)


def test_a_network_with_an_expanded_buffer(rows, tmp_path):
    X, y, groups = rows
    debiaser = skfair.ThresholdDebiaser(Expanded(), output="logits", epsilon=0.5, random_state=0)
    debiaser.fit(X, y, sensitive_features=groups)
    skfair.save(debiaser, tmp_path)
    loaded = skfair.load(tmp_path, factories=Expanded)
    np.testing.assert_array_equal(loaded.decision_function(X), debiaser.decision_function(X))
