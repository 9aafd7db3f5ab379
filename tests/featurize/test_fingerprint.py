"""Fingerprints: equal for equal encoders, in any process; different for any other."""

import copy
import dataclasses
import enum
import functools
import logging
import pickle
import subprocess
import sys
import threading
import types
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from skfair.featurize._fingerprint import fingerprint, fingerprint_onnx

SCALE = 2.0
HELPERS = types.ModuleType("helpers")  # stands for a module of the user's
exec("def twice(x):\n    return 2 * x\ndef unused(x):\n    return 0", HELPERS.__dict__)


def scaled(batch):
    return batch * SCALE


def through_module(batch):
    return HELPERS.twice(batch)


def recursive(batch, depth=3):
    return batch if depth == 0 else recursive(batch + 1, depth - 1)


class Net(nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = gain
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("hidden", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.norm(self.conv(x)) * self.gain


class OtherForward(Net):
    def forward(self, x):
        return self.norm(self.conv(x)) + self.gain


def of(encoder):
    return fingerprint(encoder=encoder)


def make_net(**kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(**kwargs)


def test_copies_have_the_same():
    net = make_net()
    assert (
        of(net) == of(make_net()) == of(copy.deepcopy(net)) == of(pickle.loads(pickle.dumps(net)))
    )


def test_what_does_not_matter_changes_nothing():
    net = make_net()
    before = of(net)
    net.eval().requires_grad_(False)
    net.conv.train()
    assert of(net) == before


def _change_weight(net):
    net.conv.weight.data[1, 0, 2, 2] += 1e-6


def _change_buffer(net):
    net.norm.running_mean[0] = 1


def _change_unsaved_buffer(net):
    net.hidden[0] = 1


def _change_attribute(net):
    net.gain = 1.5


def _change_submodule_setting(net):
    net.conv.padding = (1, 1)


def _change_attribute_called_hook(net):
    net.hook_scale = torch.Size([2])


def _add_hook(net):
    net.conv.register_forward_hook(lambda module, inputs, output: output + 1)


def _replace_forward(net):
    net.forward = lambda x: x


def _change_type(net):
    net.double()


@pytest.mark.parametrize(
    "change",
    [
        _change_weight,
        _change_buffer,
        _change_unsaved_buffer,
        _change_attribute,
        _change_submodule_setting,
        _change_attribute_called_hook,
        _add_hook,
        _replace_forward,
        _change_type,
    ],
)
def test_any_change_of_a_module_shows(change):
    net = make_net()
    before = of(net)
    change(net)
    assert of(net) != before


def test_the_code_of_forward_counts():
    net, other = make_net(), make_net()
    other.__class__ = OtherForward
    assert of(net) != of(other)
    renamed = type("Net", (OtherForward,), {"__qualname__": "Net", "__module__": __name__})
    other.__class__ = renamed
    assert of(net) != of(other)


def test_order_of_layers_counts():
    a, b = nn.ReLU(), nn.Tanh()
    assert of(nn.Sequential(a, b)) != of(nn.Sequential(b, a))


def test_functions_by_code_defaults_closure_and_globals(monkeypatch):
    def make(offset):
        def shifted(batch, *, factor=1):
            return factor * batch + offset

        return shifted

    assert of(make(1)) == of(make(1))
    assert of(make(1)) != of(make(2))
    changed = make(1)
    changed.__kwdefaults__ = {"factor": 2}
    assert of(changed) != of(make(1))
    assert of(lambda x: x + 1) == of(lambda x: x + 1)
    assert of(lambda x: x + 1) != of(lambda x: x - 1)
    assert of(lambda x: [y + 1 for y in x]) != of(lambda x: [y + 2 for y in x])
    assert of(recursive) == of(recursive)

    before = of(scaled)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert of(scaled) != before


def test_functions_of_a_users_module_are_followed(monkeypatch):
    before = of(through_module)
    monkeypatch.setattr(HELPERS, "unused", lambda x: 1)
    assert of(through_module) == before
    monkeypatch.setattr(HELPERS, "twice", lambda x: 3 * x)
    assert of(through_module) != before


def test_partials_methods_and_objects():
    class Scaler:
        def __init__(self, factor):
            self.factor = factor

        def run(self, batch):
            return self.factor * batch

        def __call__(self, batch):
            return self.run(batch)

    assert of(functools.partial(np.clip, a_min=0)) != of(functools.partial(np.clip, a_min=1))
    assert of(Scaler(1).run) == of(Scaler(1).run) != of(Scaler(2).run)
    assert of(Scaler(np.arange(3))) == of(Scaler(np.arange(3))) != of(Scaler(np.arange(4)))
    # Shape and type are part of an array, types part of a number.
    assert (
        len({of(x) for x in (np.zeros(4), np.zeros((2, 2)), np.zeros(8, "f4"), 0, 0.0, "0")}) == 6
    )


def test_modules_imported_inside_a_function(monkeypatch):
    def encode(batch):
        import helpers

        return helpers.twice(batch)

    def typical(batch):
        import torch

        return torch.from_numpy(batch)

    assert of(typical) == of(typical)
    with pytest.raises(TypeError, match=r"encoder\.import helpers"):
        of(encode)
    monkeypatch.setitem(sys.modules, "helpers", HELPERS)
    before = of(encode)
    monkeypatch.setattr(HELPERS, "twice", lambda x: 3 * x)
    assert of(encode) != before


class Mode(enum.Enum):
    A = 1
    B = 2


class Rich:
    """Members of every kind."""

    __slots__ = ("mode", "tags")
    logger = logging.getLogger("rich")

    def __init__(self, mode, tags):
        self.mode, self.tags = mode, tags

    @property
    def value(self):
        return self.mode.value

    @staticmethod
    def shift(batch):
        return batch + 1

    @classmethod
    def make(cls):
        return cls(Mode.A, ())

    def __call__(self, batch):
        return self.shift(batch) * self.value


def test_members_of_every_kind():
    assert of(Rich(Mode.A, {"a"})) == of(Rich(Mode.A, {"a"}))
    different = [Rich(Mode.A, {"a"}), Rich(Mode.B, {"a"}), Rich(Mode.A, {"b"}), Rich.make, Rich]
    assert len(set(map(of, different))) == len(different)
    assert of(abs) != of(len)
    assert of("a".join) != of("b".join)
    assert of(np.exp) != of(np.log)


@dataclasses.dataclass
class Client:
    address: str
    options: dict = dataclasses.field(default_factory=dict)

    def __call__(self, batch):
        return batch


def test_pickling_leaves_no_trace():
    before = of(Client("a"))
    pickle.dumps(Client("a"))
    copy.copy(Client("a"))
    assert of(Client("a")) == before
    assert of(Client("b")) != before


def test_named_parts_do_not_run_together():
    assert fingerprint(a="x", b="") != fingerprint(a="", b="x")
    assert of(["ab", "c"]) != of(["a", "bc"])


@pytest.mark.parametrize(
    "part",
    [
        threading.Lock(),
        np.array([{}]),
        np.random.default_rng(0),
        (x for x in "ab"),
        memoryview(b"a"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_cannot_be_known_is_refused_with_its_place(part):
    class Client:
        def __init__(self, connection):
            self.inner = {"connection": connection}

        def __call__(self, batch):
            return batch

    with pytest.raises(TypeError, match=r"encoder\.inner\.connection.*encoder_id="):
        of(Client(part))


def test_torchscript_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(nn.Tanh(), torch.zeros(2))
    with pytest.raises(TypeError, match="encoder_id="):
        of(scripted)


def test_a_traced_graph_goes_by_its_code():
    net = make_net().eval()
    traced = torch.fx.symbolic_trace(net)
    assert of(traced) == of(torch.fx.symbolic_trace(net))
    assert of(traced) != of(torch.fx.symbolic_trace(nn.Sequential(net, nn.ReLU())))


MAIN = """
import torch
from joblib import Parallel, delayed

FACTOR = 3

class Encoder:
    def __init__(self):
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))
        self.names = {"strings", "are", "hashed", "differently", "in", "each", "process"}

    def __call__(self, batch):
        return self.net(torch.from_numpy(batch)) * FACTOR

def of(encoder):
    from skfair.featurize._fingerprint import fingerprint
    return fingerprint(encoder=encoder).hex()

if __name__ == "__main__":
    before = of(Encoder())
    in_worker = Parallel(n_jobs=2)([delayed(of)(Encoder())])[0]
    FACTOR = 4
    print(before, in_worker, of(Encoder()))
"""


def test_workers_agree_on_what_a_script_or_notebook_defines(tmp_path):
    (tmp_path / "script.py").write_text(MAIN)
    command = [sys.executable, str(tmp_path / "script.py")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, in_worker, changed = out.split()
    assert before == in_worker != changed


def _save_onnx(path, value, external):
    weight = onnx.numpy_helper.from_array(np.full((4, 300), value, dtype=np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", floats, ["n", 4])],
        [onnx.helper.make_tensor_value_info("y", floats, ["n", 300])],
        [weight],
    )
    onnx.save(
        onnx.helper.make_model(graph),
        path,
        save_as_external_data=external,
        location="w" * 200 + ".bin" if external else None,
        size_threshold=0,
    )


@pytest.mark.parametrize("external", [False, True])
def test_onnx_files_by_content_and_weights_kept_outside(tmp_path, external):
    prints = []
    for name, value in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        _save_onnx(tmp_path / name / "model.onnx", value, external)
        prints.append(fingerprint_onnx(tmp_path / name / "model.onnx"))
    assert len(list((tmp_path / "a").iterdir())) == 1 + external
    assert prints[0] == prints[1] != prints[2]
