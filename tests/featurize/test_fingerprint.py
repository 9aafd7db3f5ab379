"""Fingerprints: equal for equal encoders, in any process; of any other another one, or none."""

import contextvars
import copy
import functools
import os
import pickle
import runpy
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from skfair.datasets import load_digits_encoder
from skfair.featurize import FrozenEncoderFeaturizer, Normalize, _fingerprint
from skfair.featurize._fingerprint import (
    UnknownEncoder,
    check_module,
    fingerprint,
    module_digest,
)

IMAGES = np.random.default_rng(0).integers(1, 200, (6, 3, 8, 8), dtype=np.uint8)
CONFIG = types.ModuleType("config")
SCALE = 1.0
CONTEXT = contextvars.ContextVar("scale", default=1.0)


LOOP: list = []
LOOP.append(LOOP)


def make_net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    net.register_buffer("hidden", torch.zeros(2), persistent=False)
    net[1].gain = (1.0, "a")
    return net


# Encoders that decide by something, in each way in which a function or module can reach it.


def by_attribute(x):
    return x * by_attribute.scale


def by_getattr(x):
    return x * getattr(CONFIG, "scale")  # noqa: B009


def by_global(x):
    return x * globals()["SCALE"]


def by_context(x):
    return x * CONTEXT.get()


def by_environment(x):
    return x * float(os.environ["SKFAIR_TEST_SCALE"])


def by_default(x, scale=1.0):
    return x * scale


def by_file(path):
    return lambda x: x * float(path.read_text())


def by_closure():
    scale = 1.0

    def encode(x):
        return x * scale

    def change(value):
        nonlocal scale
        scale = value

    return encode, change


class Meta(type):
    """A class that is called in another way than its instances say."""

    scale = 1.0

    def __call__(cls, x):
        return x * Meta.scale


class ByClass(nn.Module):
    scale = 1.0

    def forward(self, x):
        return x * type(self).scale


@functools.wraps(nn.ReLU.forward)
def wrapped_forward(self, x):
    return 3 * F.relu(x)


def functions(tmp_path, monkeypatch):
    """Yield names, functions, and what makes another function of each."""

    def set_(owner, name):
        return lambda value: monkeypatch.setattr(owner, name, value, raising=False)

    (tmp_path / "scale").write_text("1")
    encode, change = by_closure()
    yield "attribute of a function", by_attribute, set_(by_attribute, "scale")
    yield "getattr", by_getattr, set_(CONFIG, "scale")
    yield "globals()", by_global, lambda value: monkeypatch.setitem(globals(), "SCALE", value)
    yield "context variable", by_context, CONTEXT.set
    yield (
        "environment",
        by_environment,
        lambda value: monkeypatch.setenv("SKFAIR_TEST_SCALE", str(value)),
    )
    yield "default", by_default, lambda value: set_(by_default, "__defaults__")((value,))
    yield "file", by_file(tmp_path / "scale"), lambda v: (tmp_path / "scale").write_text(str(v))
    yield "closure", encode, change
    yield "wrapped", functools.wraps(abs)(lambda x: by_getattr(x)), set_(CONFIG, "scale")
    yield "partial", functools.partial(by_getattr), set_(CONFIG, "scale")
    yield "metaclass", Meta("Encoder", (), {}), set_(Meta, "scale")
    yield "method", types.MethodType(lambda self, x: x * self.scale, CONFIG), set_(CONFIG, "scale")


def test_no_function_is_known_by_what_it_looks_like(tmp_path, monkeypatch):
    """As preprocess or as encoder: each is refused where a fingerprint could only guess."""
    seen = 0
    for name, function, change in functions(tmp_path, monkeypatch):
        results = []
        for value in (1.0, 3.0):
            change(value)
            results.append(function(np.ones(2, dtype=np.float32)))
        assert not np.array_equal(*results), name  # they are two functions in turn
        for parameters in ({"encoder": make_net(), "preprocess": function}, {"encoder": function}):
            if isinstance(parameters["encoder"], type):
                continue  # a class is no encoder, by the metaclass or not
            model = FrozenEncoderFeaturizer(**parameters, memory=tmp_path / "store")
            with pytest.raises(ValueError, match=r"memory=.*encoder_id="):
                model.fit(IMAGES)
            seen += 1
    assert seen == 23
    assert not (tmp_path / "store").exists()


def _set(path, value):
    def change(net, monkeypatch):
        owner = net
        *parts, last = path.split(".")
        for part in parts:
            owner = getattr(owner, part)
        setattr(owner, last, value)

    return change


def _patch(owner, name, value):
    return lambda net, monkeypatch: monkeypatch.setattr(owner, name, value, raising=False)


def _append(make):
    def change(net, monkeypatch):
        net.append(make())

    return change


def _weight(net, monkeypatch):
    net[0].weight.data[1, 0, 2, 2] += 1e-6


def _buffer(net, monkeypatch):
    net[1].running_mean[0] = 1


def _unsaved_buffer(net, monkeypatch):
    net.hidden[0] = 1


def _dtype(net, monkeypatch):
    net.double()


def _order(net, monkeypatch):
    net[1], net[2] = net[2], net[1]


def _other_class(net, monkeypatch):
    net[2] = nn.Tanh()


CHANGED = {
    "weight": _weight,
    "buffer": _buffer,
    "buffer that is not saved": _unsaved_buffer,
    "type of the weights": _dtype,
    "order of the layers": _order,
    "another layer": _other_class,
    "setting of a layer": _set("0.padding", (1, 1)),
    "attribute of a layer": _set("1.gain", (1.0, "b")),
    "type of an attribute": _set("1.gain", (1, "a")),
    "attribute called a hook": _set("1.hook_scale", torch.Size([2])),
    "tensor as an attribute": _set("1.shift", torch.ones(2)),
    "tensors in a container": _set("1.shift", {"a": [torch.ones(2)]}),
    "attribute of a class": _patch(nn.ReLU, "inplace_too", True),
}


@pytest.mark.parametrize("name", CHANGED)
def test_any_change_of_the_contents_is_another_fingerprint(name, monkeypatch):
    net = make_net()
    before = module_digest(net)
    assert module_digest(make_net()) == before
    CHANGED[name](net, monkeypatch)
    assert module_digest(net) != before


def test_the_default_dtype_counts():
    net = make_net()
    before = module_digest(net)
    torch.set_default_dtype(torch.float64)
    try:
        assert module_digest(net) != before
    finally:
        torch.set_default_dtype(torch.float32)
    assert module_digest(net) == before


class Tripled(nn.Module):
    def forward(self, x):
        return 3 * F.relu(x)


class Sub(nn.ReLU):
    pass


class Marked(torch.Tensor):
    pass


class MarkedParameter(nn.Parameter):
    pass


def _hook(net, monkeypatch):
    net[2].register_forward_hook(lambda module, inputs, output: 3 * output)


def _pre_hook(net, monkeypatch):
    net[0].register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))


def _global_hook(net, monkeypatch):
    hook = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: 3 * output)
    return hook.remove


def _global_pre_hook(net, monkeypatch):
    return nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: (3 * inputs[0],)
    ).remove


def _parametrized(net, monkeypatch):
    nn.utils.parametrize.register_parametrization(net[0], "weight", nn.Tanh())


def _old_weight_norm(net, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(net[0])


def _compiled(net, monkeypatch):
    net.compile(backend="eager")


def _class_of_an_instance(net, monkeypatch):
    net[2].__class__ = Sub


def _lookalike(net, monkeypatch):
    """A class of one's own that says it is torch's, and stands where torch's do."""
    fake = type("Tripled2", (nn.ReLU,), {"forward": Tripled.forward})
    fake.__module__, fake.__qualname__ = "torch.nn.modules.activation", "Tripled2"
    monkeypatch.setattr(nn.modules.activation, "Tripled2", fake, raising=False)
    net[2] = fake()


def _mode(net, monkeypatch):
    class Mode(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    mode = Mode()
    mode.__enter__()
    return lambda: mode.__exit__(None, None, None)


def _dispatch_mode(net, monkeypatch):
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    mode = Mode()
    mode.__enter__()
    return lambda: mode.__exit__(None, None, None)


def _special_weight(net, monkeypatch):
    net[0].weight = MarkedParameter(net[0].weight.detach())


def _meta(net, monkeypatch):
    net.to("meta")


UNKNOWN = {
    "forward of an instance": _set("2.forward", lambda x: 3 * x),
    "forward of a class": _patch(nn.ReLU, "forward", Tripled.forward),
    "forward of a base class": _patch(nn.Module, "__call__", Tripled.forward),
    "wrapped forward of a class": _patch(nn.ReLU, "forward", wrapped_forward),
    "another of torch's forwards": _patch(nn.ReLU, "forward", nn.Tanh.forward),
    "forward that is no function": _patch(nn.ReLU, "forward", functools.partial(F.relu)),
    "call that is no function": _patch(nn.ReLU, "__call__", functools.partial(F.relu)),
    "function of torch": _patch(F, "relu", lambda x, inplace=False: 3 * x),
    "function of torch by another": _patch(F, "batch_norm", F.instance_norm),
    "function that a module of torch uses": _patch(nn.modules.conv, "_single", lambda x: (3,)),
    "module that a module of torch uses": _patch(nn.modules.activation, "F", CONFIG),
    "method of tensors": _patch(torch.Tensor, "flatten", lambda self, *_: self),
    "hook": _hook,
    "hook before": _pre_hook,
    "hook of all modules": _global_hook,
    "hook of all modules before": _global_pre_hook,
    "parametrization": _parametrized,
    "weight norm": _old_weight_norm,
    "compilation": _compiled,
    "class of an instance": _class_of_an_instance,
    "class that says it is torch's": _lookalike,
    "class of one's own": _append(Tripled),
    "class of one's own, deep down": _append(lambda: nn.ModuleList([Sub()])),
    "lazy layer": _append(lambda: nn.LazyLinear(2)),
    "mode of functions": _mode,
    "mode of dispatch": _dispatch_mode,
    "parameter of one's own": _special_weight,
    "tensor of one's own": _set("1.shift", torch.ones(2).as_subclass(Marked)),
    "sparse tensor": _set("1.shift", torch.ones(2).to_sparse()),
    "no values": _meta,
    "function as an attribute": _set("1.activation", by_attribute),
    "object as an attribute": _set("1.config", CONFIG),
    "array as an attribute": _set("1.config", np.ones(2)),
    "container within itself": _set("1.all", LOOP),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_more_than_contents_decides_has_none(name, monkeypatch, tmp_path):
    net = make_net()
    check_module(net)
    undo = UNKNOWN[name](net, monkeypatch)
    try:
        for call in (check_module, module_digest):
            with pytest.raises(UnknownEncoder):
                call(net)
        # Without weights there is nothing to encode with, whatever its name.
        no_weights = name in ("lazy layer", "no values")
        refused = (
            "Run the module on a batch|Create the module on a device"
            if no_weights
            else "Pass encoder_id="
        )
        with pytest.raises(ValueError, match=refused):
            FrozenEncoderFeaturizer(net, memory=tmp_path / "store").fit(IMAGES)
    finally:
        if callable(undo):
            undo()
    monkeypatch.undo()
    check_module(make_net())  # torch is as it was
    assert list(tmp_path.iterdir()) == []


REPLACED = {
    "of modules": (F, "relu"),
    "of torch": (torch, "relu"),
    "of torch in C": (torch._C._nn, "gelu"),
    "of tensors": (torch.Tensor, "flatten"),
    "of tensors, in Python": (torch.Tensor, "split"),
}


@pytest.mark.parametrize("owner, name", REPLACED.values(), ids=REPLACED)
def test_a_function_that_was_replaced_before_the_import(owner, name, monkeypatch):
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: 3 * args[0])
    imported = runpy.run_path(_fingerprint.__file__)
    for call in (imported["check_module"], imported["module_digest"]):
        with pytest.raises(imported["UnknownEncoder"], match=f"^torch's {name} has been replaced"):
            call(nn.ReLU())


def test_a_function_that_was_added_before_the_import(monkeypatch):
    monkeypatch.setattr(torch, "of_a_package", lambda x: x, raising=False)
    monkeypatch.setattr(torch.Tensor, "of_a_package", lambda x: x, raising=False)
    runpy.run_path(_fingerprint.__file__)["check_module"](nn.ReLU())


def test_messages_say_where():
    net = nn.Sequential(nn.Flatten(), nn.Sequential(Tripled()))
    with pytest.raises(UnknownEncoder, match=r"^encoder\.1\.0 is a test_fingerprint\.Tripled$"):
        check_module(net)
    net = make_net()
    net[1].config = CONFIG
    with pytest.raises(UnknownEncoder, match=r"^encoder\.1\.config is a builtins\.module$"):
        check_module(net)


def test_modules_that_run_other_modules_code_have_none():
    net = make_net().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(net, torch.zeros(1, 3, 8, 8))
    for module in (scripted, torch.fx.symbolic_trace(net), torch.compile(net, backend="eager")):
        with pytest.raises(UnknownEncoder):
            check_module(module)


def test_copies_have_the_same():
    net = make_net()
    expected = module_digest(net)
    for other in (make_net(), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert module_digest(other) == expected
    shared = nn.Sequential(net[0], net[0])
    assert module_digest(copy.deepcopy(shared)) == module_digest(shared)


def test_what_does_not_matter_changes_nothing():
    net = make_net()
    before = module_digest(net)
    net.eval().requires_grad_(False)
    net[0].train()
    net.register_full_backward_hook(lambda module, inputs, outputs: None)
    pickle.dumps(nn.Sequential(*net))  # leaves notes on the classes
    assert module_digest(net) == before
    with torch.device("cpu"), torch.no_grad(), torch.autocast("cpu"):
        assert module_digest(net) == before


LAYERS = {
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "attention": lambda: nn.MultiheadAttention(8, 2),
    "relu": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    "gelu": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"),
    "tanh": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=torch.tanh),
    "encoder": lambda: nn.TransformerEncoder(LAYERS["relu"](), 2),
    "norms": lambda: nn.Sequential(nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.InstanceNorm2d(3)),
    "pools": lambda: nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.MaxPool2d(2)),
    "shapes": lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Flatten(), nn.Embedding(3, 2)),
    "digits": load_digits_encoder,
}


def test_layers_of_torch_are_known_and_told_apart():
    digests = []
    for make in LAYERS.values():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = make()
        check_module(net)
        digests.append(module_digest(net))
        assert module_digest(pickle.loads(pickle.dumps(net))) == digests[-1]
    assert len(set(digests)) == len(LAYERS)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(plain, plain)
def test_plain_data_by_value_and_type(a, b):
    """``repr`` tells these apart with their types, and -0.0 from 0.0."""
    assert (fingerprint(part=a) == fingerprint(part=b)) == (repr(a) == repr(b))
    assert fingerprint(part=copy.deepcopy(a)) == fingerprint(part=a)


def test_named_parts_do_not_run_together():
    assert fingerprint(a="x", b="") != fingerprint(a="", b="x")
    assert fingerprint(a=["ab", "c"]) != fingerprint(a=["a", "bc"])
    with pytest.raises(UnknownEncoder, match=r"parts is a "):
        fingerprint(a=Normalize((0,), (1,)))


MAIN = """
import torch
from skfair.datasets import load_digits_encoder
from skfair.featurize._fingerprint import module_digest
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))
net.names = {"strings", "are", "hashed", "differently", "in", "each", "process"}
print(module_digest(net).hex(), module_digest(load_digits_encoder()).hex())
"""


def test_processes_agree():
    run = functools.partial(subprocess.check_output, [sys.executable, "-c", MAIN], text=True)
    seeds = [{**os.environ, "PYTHONHASHSEED": seed} for seed in "12"]
    first, second = (run(env=env) for env in seeds)
    assert first == second
    assert module_digest(load_digits_encoder()).hex() in first


def test_compilation_elsewhere_in_the_process_changes_nothing(monkeypatch):
    """torch replaces methods of nn.Module when it compiles for the first time."""
    from torch._dynamo import mutation_guard

    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    for name in ("__init__", "__setstate__"):  # undone after the test
        monkeypatch.setattr(nn.Module, name, vars(nn.Module)[name])
    monkeypatch.setattr(nn.Module, "___needs_generation_tag_patch", True, raising=False)
    before = module_digest(net)
    mutation_guard.install_generation_tagging_init()
    assert nn.Module.__init__.__code__.co_filename == mutation_guard.__file__
    assert module_digest(net) == before
    # A method of somebody else under it does not pass.
    inner = nn.Module.__init__.__closure__[0]
    monkeypatch.setattr(inner, "cell_contents", lambda self: None)
    with pytest.raises(UnknownEncoder, match=r"Module\.__init__"):
        module_digest(net)
