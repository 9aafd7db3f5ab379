"""Choosing a device, seeded blocks, and errors for missing extras."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from skfair.utils import draw_seed, import_optional, resolve_device, seeded
from skfair.utils._random import _find_draw, draws_nothing

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
    with pytest.raises(ValueError, match=r"torch cannot use device='cuda:0'.*Use device='auto'"):
        resolve_device("cuda:0")


def test_a_device_object_is_taken():
    assert resolve_device(CPU) == CPU


def test_seeded_blocks_repeat_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    draws = []
    for seed in (3, 3, 4):
        with seeded(seed):
            draws.append(torch.rand(5))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_restores_after_an_error():
    def draw_and_fail():
        with seeded(0):
            torch.rand(1)
            raise KeyError

    before = torch.get_rng_state()
    with pytest.raises(KeyError):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)


def lstm(x):
    return nn.LSTM(4, 3, num_layers=2, dropout=0.5)(x)[0]


DRAWS = {
    "weights": lambda x: nn.Linear(4, 3)(x),
    "dropout": lambda x: nn.Dropout(0.3)(x),
    "dropout of channels": lambda x: nn.FeatureAlphaDropout(0.3)(x),
    "recurrent": lstm,
    "attention": lambda x: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2)(x),
    "scripted": lambda x: torch.jit.script(nn.Dropout(0.3))(x),
    "like another": torch.randn_like,
    "integers": lambda x: torch.randint(5, x.shape),
    "in place": lambda x: x.clone().exponential_(),
    "a distribution": lambda x: torch.distributions.Dirichlet(torch.ones(3)).sample((4,)),
    "vmap": lambda x: torch.vmap(lambda row: row + torch.rand(4), randomness="different")(x[0]),
    "batches": lambda x: torch.cat(list(DataLoader(torch.arange(20.0), 4, shuffle=True))),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_what_cannot_be_handed_a_generator_draws_from_the_blocks_own(draw):
    """The numbers are those of torch.manual_seed; the default generator is not touched."""
    x = torch.arange(24.0).reshape(2, 3, 4)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = draw(x)
        before = torch.get_rng_state()
        with seeded(3):
            drawn = draw(x)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, expected)


def test_every_operation_that_draws_is_given_a_generator_or_is_known_not_to_be():
    plain = _find_draw(torch.ops.aten.add.Tensor).__qualname__
    packets = (getattr(torch.ops.aten, name) for name in dir(torch.ops.aten))
    operations = [
        getattr(packet, overload)
        for packet in packets
        if hasattr(packet, "overloads")
        for overload in packet.overloads()
    ]
    random = [op for op in operations if torch.Tag.nondeterministic_seeded in op.tags]
    left = {op.overloadpacket.__name__ for op in random if _find_draw(op).__qualname__ == plain}
    assert len(random) - len(left) > 50
    # These operations exist only on accelerators, or are decomposed before they get here.
    of_accelerators = {"_cudnn_rnn", "miopen_rnn"}
    taken_apart = {"gru", "lstm", "rnn_relu", "rnn_tanh"}
    taken_apart |= {name for name in left if "dropout" in name or "attention" in name}
    assert left <= of_accelerators | taken_apart


def test_dropout_of_accelerators_keeps_as_many_and_scales_them():
    x = torch.ones(20_000)
    with seeded(0):
        output, kept = torch.ops.aten.native_dropout(x, 0.25, True)
        everything, _ = torch.ops.aten.native_dropout(x, 0.25, False)
    assert abs(kept.double().mean() - 0.75) < 4 * (0.75 * 0.25 / 20_000) ** 0.5
    assert torch.allclose(output, kept / 0.75)
    assert torch.equal(everything, x)


def test_blocks_in_threads_do_not_see_each_other():
    def draw(seed):
        with seeded(seed):
            return torch.stack([torch.rand(50) for _ in range(40)])

    alone = [draw(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, range(4)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_block_within_a_block_takes_its_own_seed_and_gives_back_the_outer_one():
    with seeded(3):
        first = torch.rand(2)
        with seeded(3):
            inner = torch.rand(2)
        rest = torch.rand(2)
    with seeded(3):
        four = torch.rand(4)
    assert torch.equal(inner, first)
    assert torch.equal(torch.cat([first, rest]), four)


@pytest.mark.parametrize(
    "network, expected",
    [
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU()), True),
        (nn.Sequential(nn.Linear(3, 2), nn.Dropout()), False),
        (nn.LSTM(3, 2), False),
    ],
)
def test_networks_that_surely_draw_nothing_are_known(network, expected):
    assert draws_nothing(network) is expected


def test_a_hook_may_draw():
    network = nn.Linear(3, 2)
    network.register_forward_hook(lambda *_: torch.rand(1))
    assert not draws_nothing(network)


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
