"""What has to hold on every device that this machine has, and on one that is only pretended.

    pytest -m device

says more where there is a GPU. Without one, all of it runs on a device that computes on the
CPU and refuses what a GPU refuses.
"""

import copy
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from biased_rows import biased_rows
from torch import nn

import skfair
from skfair.featurize import Normalize
from skfair.intraprocessing import _critics
from skfair.utils import FairnessWarning, seeded

available = {
    "cpu": lambda: True,
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "pretend": lambda: hasattr(torch, "pretend"),
}
DEVICES = [name for name, there in available.items() if there()]
DEBIASERS = [name for name in skfair.__all__ if name.endswith("Debiaser")]
ESTIMATORS = [name for name in skfair.__all__ if name[0].isupper()]

N = 120
X, Y, GROUPS = biased_rows(np.random.default_rng(0), N)
IMAGES = np.random.default_rng(1).integers(0, 200, size=(N, 3, 8, 8), dtype=np.uint8)
IMAGES[GROUPS == 1, :, :4, :4] += 50


@pytest.fixture(autouse=True)
def _a_critic_that_has_learnt_little(monkeypatch):
    monkeypatch.setattr(_critics, "_N_PRETRAIN", 6)


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


def network(n_outputs=1):
    with seeded(0):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, n_outputs)).eval()


def encoder():
    with seeded(0):
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True)).eval()


def make(name, device, **parameters):
    """An estimator with little to do, what it is fitted on, and what it is asked."""
    cls = getattr(skfair, name)
    if name == "FrozenEncoderFeaturizer":
        return cls(**{"encoder": encoder(), "batch_size": 50, "device": device} | parameters)
    quick = {"max_epochs": 2, "n_trials": 5, "n_calls": 4, "n_units": 8, "patch_size": 4}
    quick |= {
        "check_leakage": False,
        "amplifier_max_epochs": 2,
        "head": "mlp",
    }  # a linear one knows no device
    quick |= {"output": "logits", "random_state": 0, "device": device}
    needed = (None,) if name in DEBIASERS else ()
    known = cls(*needed).get_params(deep=False)
    quick = {key: value for key, value in quick.items() if key in known}
    if name in DEBIASERS:
        quick["estimator"] = network()
    return cls(**quick | parameters)


def fitted(name, device, **parameters):
    estimator = make(name, device, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        if name == "FrozenEncoderFeaturizer":
            return estimator.fit(IMAGES)
        if name == "PatchAttributionMasker":
            return estimator.fit(IMAGES, sensitive_features=GROUPS)
        return estimator.fit(X, Y, sensitive_features=GROUPS)


def ask(estimator):
    if hasattr(estimator, "region_proba"):
        return estimator.region_proba(IMAGES)
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(X)
    return estimator.transform(IMAGES)


def tensors_of(module):
    return [*module.parameters(), *module.buffers()]


def near(found, expected):
    """Convolutions of a GPU multiply with ten bits."""
    tolerance = 1e-5 if expected.ndim == 2 and expected.dtype == np.float64 else 2e-2
    np.testing.assert_allclose(found, expected, atol=tolerance * max(1, np.abs(expected).max()))


@pytest.mark.device
@pytest.mark.parametrize("name", ESTIMATORS)
def test_fitted_on_the_device_and_asked_elsewhere(name, device, tmp_path):
    estimator = fitted(name, device)
    expected = ask(estimator)
    assert np.isfinite(expected).all()
    networks = [
        value
        for key, value in vars(estimator).items()
        if isinstance(value, nn.Module) and key.endswith("_")
    ]
    for module in networks:
        assert len({tensor.device for tensor in tensors_of(module)}) == 1
    pickled = pickle.loads(pickle.dumps(estimator.set_params(device="cpu")))
    for value in vars(pickled).values():
        if isinstance(value, nn.Module):
            assert {tensor.device.type for tensor in tensors_of(value)} == {"cpu"}
    near(ask(pickled), expected)
    skfair.save(estimator, tmp_path / "model")
    factories = {"factories": network} if name in DEBIASERS else {}
    if name == "FrozenEncoderFeaturizer":
        factories = {"factories": encoder}
    near(ask(skfair.load(tmp_path / "model", **factories)), expected)
    near(ask(pickled.set_params(device=device)), expected)


@pytest.mark.device
@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n != "PatchAttributionMasker"])
def test_the_same_seed_gives_the_same_bits(name, device):
    # Not asked of convolutions in training: cuDNN adds up in any order.
    np.testing.assert_array_equal(ask(fitted(name, device)), ask(fitted(name, device)))


@pytest.mark.device
@pytest.mark.parametrize("name", ESTIMATORS)
def test_generators_are_left_as_they_were(name, device):
    modules = [torch] if device.type == "cpu" else [torch, getattr(torch, device.type)]
    before = [module.get_rng_state() for module in modules]
    ask(fitted(name, device))
    for module, state in zip(modules, before, strict=True):
        assert torch.equal(module.get_rng_state(), state)


@pytest.mark.device
@pytest.mark.parametrize("name", DEBIASERS)
@pytest.mark.parametrize("kind", ["on the device", "two outputs", "probabilities", "bfloat16"])
def test_networks_of_users(name, kind, device):
    parameters = {}
    given = network(2 if kind == "two outputs" else 1)
    if kind == "on the device":
        given = given.to(device)
    elif kind == "probabilities":
        given, parameters["output"] = nn.Sequential(given, nn.Sigmoid()), "probabilities"
    elif kind == "bfloat16":
        given = given.to(torch.bfloat16)
    before = copy.deepcopy(given.state_dict())
    debiaser = fitted(name, device, estimator=given, **parameters)
    assert np.isfinite(ask(debiaser)).all()
    for key, tensor in given.state_dict().items():
        assert tensor.device == before[key].device
        assert torch.equal(tensor.cpu(), before[key].cpu())
    rows = torch.from_numpy(X).to(device, next(debiaser.module_.parameters()).dtype)
    debiaser.module_(rows)  # the threshold lies where the network does
    if device.type != "mps" and kind != "bfloat16":
        # Rows come out the same with whatever rows they are predicted with.
        alone = np.concatenate([debiaser.predict_proba(X[i : i + 1]) for i in range(10)])
        np.testing.assert_allclose(debiaser.predict_proba(X)[:10], alone, rtol=0, atol=1e-12)


class Words(nn.Module):
    """A network on a frozen body that takes ids and a mask by name, and answers with a dict."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(6, 4).requires_grad_(False), nn.Linear(4, 2)

    def forward(self, ids, mask):
        known = self.words(ids) * mask[:, :, None]
        return {"logits": self.head(known.sum(1) / mask.sum(1, keepdim=True))}


@pytest.mark.device
@pytest.mark.parametrize(
    "name", ["DistillationDebiaser", "LinearPostDebiaser", "RandomPerturbationDebiaser"]
)
def test_ids_by_name_and_a_frozen_body(name, device):
    with seeded(0):
        given = Words().eval()
    rows = {"ids": np.column_stack([Y, GROUPS + 2, 4 + np.arange(N) % 2]), "mask": np.ones((N, 3))}
    debiaser = make(name, device, estimator=given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        debiaser.fit(rows, Y, sensitive_features=GROUPS)
    assert np.isfinite(debiaser.predict_proba(rows)).all()
    assert any(
        torch.equal(tensor.cpu(), given.words.weight) for tensor in tensors_of(debiaser.module_)
    )


@pytest.mark.device
@pytest.mark.parametrize("parameters", [{"critic": "flat"}, {"adversary": "attribute"}], ids=str)
def test_the_other_adversaries(parameters, device):
    assert np.isfinite(ask(fitted("AdversarialFinetuneDebiaser", device, **parameters))).all()


class Regions(nn.Module):
    def __init__(self):
        super().__init__()
        self.see, self.place = nn.Linear(3 * 16, 2), nn.Embedding(9, 2)

    def forward(self, patches, positions):
        return self.see(patches.flatten(1)) + self.place(positions)


@pytest.mark.device
@pytest.mark.parametrize(
    "region_classifier, perturbation",
    [("dense", "noise"), ("resnet18", "mask"), ("on the device", "mask")],
)
def test_maps_and_what_is_hidden(region_classifier, perturbation, device):
    if region_classifier == "on the device":
        region_classifier = Regions().to(device)
    masker = fitted(
        "PatchAttributionMasker", device, region_classifier=region_classifier, stride=2,
        scope="specific", perturbation=perturbation, calibration="temperature", max_epochs=1,
    )  # fmt: skip
    hidden = masker.perturbed_pixels(IMAGES[:9])
    masked = masker.mask(IMAGES[:9])
    images = torch.from_numpy(IMAGES[:9]).to(device)
    augmented = masker.augmentation().to(device)(images, hidden)
    assert augmented.device.type == device.type
    for changed in (masked, augmented.cpu().numpy()):
        same = (changed == IMAGES[:9]).all(1)
        assert same[~hidden].all()
        assert not same[hidden].all()


@pytest.mark.device
@pytest.mark.parametrize("layer", [None, "0"])
@pytest.mark.parametrize("where", ["cpu", "the device"])
@pytest.mark.parametrize("amp", [False, True])
def test_features(where, layer, amp, device):
    if amp and device.type == "pretend":
        pytest.skip("autocast has to know the device")
    given = encoder().to(device if where == "the device" else "cpu")
    featurizer = fitted(
        "FrozenEncoderFeaturizer", device, encoder=given, layer=layer, amp=amp,
        preprocess=Normalize((0.5,) * 3, (0.25,) * 3),
    )  # fmt: skip
    module = encoder() if layer is None else encoder()[:1]
    with torch.no_grad():
        inputs = (torch.from_numpy(IMAGES) / 255 - 0.5) / 0.25
        expected = module(inputs).mean((2, 3)).numpy()
    found = featurizer.transform(IMAGES)
    assert found.dtype == np.float32
    near(found, expected)
    np.testing.assert_array_equal(
        featurizer.set_params(batch_size=200).transform(IMAGES[:1]).shape, (1, 5)
    )


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4, 3)

    def tokens(self, ids, attention_mask):
        return {"last_hidden_state": self.embed(ids), "scale": attention_mask.float().mean()}


@pytest.mark.device
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_texts_and_their_masks_reach_a_method_on_the_device(device, pooling):
    with seeded(0):
        net = Tokens()
    featurizer = skfair.FrozenEncoderFeaturizer(
        net.tokens, data_format="items", device=device, pooling=pooling,
        preprocess=lambda texts: {
            "ids": [[int(letter) for letter in text.ljust(3, "0")] for text in texts],
            "attention_mask": [[1] * len(text) + [0] * (3 - len(text)) for text in texts],
        },
    )  # fmt: skip
    table = net.embed.weight.detach().numpy()
    both = {"mean": table[1:3].mean(0), "max": table[1:3].max(0), "cls": table[1]}[pooling]
    near(featurizer.fit_transform(["12", "3"]), np.stack([both, table[3]]))


@pytest.mark.thorough
def test_on_a_device_that_only_pretends_to_be_one():
    if "pretend" in DEVICES:
        pytest.skip("this is it")
    pytest.importorskip("torch.utils.backend_registration")
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no devices that are written in Python")
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "device"]
    run = subprocess.run(
        [*command, "-p", "pretend_device", "-k", "pretend and not bits", __file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
