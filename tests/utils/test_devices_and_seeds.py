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


def test_draw_seed_repeats_for_an_int_and_advances_an_instance():
    import numpy as np

    assert draw_seed(7) == draw_seed(7) != draw_seed(8)
    rng = np.random.RandomState(7)
    assert draw_seed(rng) != draw_seed(rng)


def test_a_missing_extra_says_how_to_install_it():
    with pytest.raises(ImportError, match=r'An ONNX encoder needs .*pip install "skfair\[onnx\]"'):
        import_optional("no_such_package.sub", extra="onnx", purpose="An ONNX encoder")
