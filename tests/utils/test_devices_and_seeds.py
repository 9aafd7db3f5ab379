"""Devices are decided at fit, seeds leave nothing behind, missing extras say how to get them."""

import pytest
import torch

from skfair.utils import draw_seed, import_optional, resolve_device, seeded

CPU = torch.device("cpu")


def test_auto_takes_the_first_device_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"


@pytest.mark.parametrize("device", ["gpu", "cpu:x", ""])
def test_an_unknown_device_is_named(device):
    with pytest.raises(ValueError, match=rf"device='{device}' is not a device that torch knows"):
        resolve_device(device)


def test_a_device_this_machine_lacks_is_refused(monkeypatch):
    def no_driver(*args, **kwargs):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "empty", no_driver)
    with pytest.raises(ValueError, match=r"device='cuda:0' was asked for.*Use device='auto'"):
        resolve_device("cuda:0")


def test_a_device_object_is_taken():
    assert resolve_device(CPU) == CPU


def test_seeded_blocks_repeat_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    draws = []
    for seed in (3, 3, 4):
        with seeded(seed, CPU):
            draws.append(torch.rand(5))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_restores_after_an_error():
    def draw_and_fail():
        with seeded(0, CPU):
            torch.rand(1)
            raise KeyError

    before = torch.get_rng_state()
    with pytest.raises(KeyError):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)


class Cards:
    """torch.cuda on a machine with two cards, of which the second is the current one."""

    def __init__(self):
        self.default_generators = [torch.Generator().manual_seed(10 + i) for i in range(2)]

    def get_rng_state(self, index):
        return self.default_generators[index].get_state()

    def set_rng_state(self, state, index):
        self.default_generators[index].set_state(state)

    def manual_seed(self, seed):
        self.default_generators[1].manual_seed(seed)

    def states(self):
        return torch.stack([self.get_rng_state(i) for i in range(2)])


@pytest.mark.parametrize("name, index", [("cuda:0", 0), ("cuda:1", 1), ("cuda", 1)])
def test_seeded_seeds_the_card_it_is_for_and_no_other(name, index, monkeypatch):
    cards, empty = Cards(), torch.empty
    for attribute in ("default_generators", "get_rng_state", "set_rng_state", "manual_seed"):
        monkeypatch.setattr(torch.cuda, attribute, getattr(cards, attribute))

    class OnTheCurrentCard:
        device = torch.device("cuda", torch.device(name).index if ":" in name else 1)

    monkeypatch.setattr(
        torch, "empty", lambda *a, **k: OnTheCurrentCard() if "device" in k else empty(*a, **k)
    )
    before = cards.states()
    with seeded(3, torch.device(name)):
        during = cards.states()
        cards.default_generators[index].manual_seed(4)  # draws, as far as states go
    assert torch.equal(during[index], torch.Generator().manual_seed(3).get_state())
    assert torch.equal(during[1 - index], before[1 - index])
    assert torch.equal(cards.states(), before)


def test_draw_seed_repeats_for_an_int_and_advances_an_instance():
    import numpy as np

    assert draw_seed(7) == draw_seed(7) != draw_seed(8)
    rng = np.random.RandomState(7)
    assert draw_seed(rng) != draw_seed(rng)


def test_a_missing_extra_says_how_to_install_it():
    with pytest.raises(
        ImportError, match=r'An ONNX encoder needs .*pip install "skfair-debias\[onnx\]"'
    ):
        import_optional("no_such_package.sub", extra="onnx", purpose="An ONNX encoder")
