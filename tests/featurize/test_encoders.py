"""Encoders: modules that stay as they were, layers, pooling, ONNX files, callables, bad output."""

import copy
import pickle
import threading
import time
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from skfair.featurize import FrozenEncoderFeaturizer

IMAGES = np.random.default_rng(0).integers(0, 256, size=(10, 3, 6, 5), dtype=np.uint8)


class Net(nn.Module):
    """Everything that a careless caller would leave changed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 7)
        self.register_buffer("calls", torch.zeros(1))
        self.constant = torch.ones(1)

    def forward(self, x):
        self.calls += 1
        return self.head(self.drop(self.act(self.norm(self.conv(x)))).mean((2, 3)) * self.constant)


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
        net.norm.running_mean.normal_()
    return net


def floats(images):
    return torch.from_numpy(images).float().div(255)


def reference(net, images):
    """The plain way, on a copy; channels last in memory, which is faster on the CPU."""
    net = copy.deepcopy(net).eval()
    with torch.no_grad():
        return net(floats(images).contiguous(memory_format=torch.channels_last)).numpy()


def test_module_output_is_that_of_a_plain_loop(net):
    featurizer = FrozenEncoderFeaturizer(net, batch_size=10)
    features = featurizer.fit_transform(IMAGES)
    np.testing.assert_array_equal(features, reference(net, IMAGES))
    assert features.dtype == np.float32


@pytest.mark.parametrize("layer", [None, "conv"])
def test_module_comes_out_as_it_went_in(net, layer):
    net.train()
    net.conv.eval()
    net.head.weight.requires_grad_(False)
    seen = []
    net.act.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    state = {name: value.clone() for name, value in net.state_dict().items()}
    tensors = {name: (id(t), t.data_ptr(), t._version) for name, t in net.named_parameters()}
    flags = {name: part.training for name, part in net.named_modules()}
    grads = {name: t.requires_grad for name, t in net.named_parameters()}
    hooks = {name: len(part._forward_hooks) for name, part in net.named_modules()}

    FrozenEncoderFeaturizer(net, layer=layer, batch_size=3).fit(IMAGES).transform(IMAGES)

    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    assert tensors == {n: (id(t), t.data_ptr(), t._version) for n, t in net.named_parameters()}
    assert flags == {name: part.training for name, part in net.named_modules()}
    assert grads == {name: t.requires_grad for name, t in net.named_parameters()}
    assert all(t.grad is None for t in net.parameters())
    assert hooks == {name: len(part._forward_hooks) for name, part in net.named_modules()}
    assert seen
    assert not any(seen)  # the user's hooks run, in eval mode


def test_module_is_left_alone_when_it_raises(net):
    net.train()
    with pytest.raises(RuntimeError, match="channels") as caught:
        FrozenEncoderFeaturizer(net).fit(IMAGES[:, :1])
    (note,) = caught.value.__notes__
    assert "for a batch of shape (1, 1, 6, 5), uint8, passed as a" in note
    assert all(part.training for part in net.modules())


def test_weights_are_not_copied(net):
    pointers = []

    class Spy(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            pointers.append(self.inner.conv.weight.data_ptr())
            return self.inner(x)

    FrozenEncoderFeaturizer(Spy(net)).fit(IMAGES)
    assert set(pointers) == {net.conv.weight.data_ptr()}


class Merging(nn.Linear):
    def train(self, mode=True):
        self.weight.data += 0 if mode else 1
        return super().train(mode)


def test_an_encoder_that_merges_an_adapter_in_eval_mode_keeps_its_weights():
    encoder = nn.Sequential(nn.Flatten(), Merging(4, 2))
    before = encoder[1].weight.clone()
    images = np.ones((3, 2, 2, 1), dtype=np.float32)
    for _ in range(2):
        features = FrozenEncoderFeaturizer(encoder, device="cpu").fit_transform(images)
        expected = (before + 1).sum(1) + encoder[1].bias
        np.testing.assert_allclose(features[0], expected.detach(), rtol=1e-5)
    assert torch.equal(encoder[1].weight, before)


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 5)
            self.b = self.a

        def forward(self, x):
            assert self.a is self.b
            return self.b(self.a(x))

    assert FrozenEncoderFeaturizer(Tied(), pooling="flatten").fit_transform(IMAGES).shape == (
        10,
        90,
    )


def test_threads_share_one_module_in_training_mode(net):
    net.train()
    expected = reference(net, IMAGES)
    featurizer = FrozenEncoderFeaturizer(net, batch_size=10).fit(IMAGES)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(featurizer.transform(IMAGES)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_modules_that_copy_cannot_follow():
    net = nn.Linear(5, 2)
    net.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"encoder, a Linear, cannot be copied.*Pass a function"):
        FrozenEncoderFeaturizer(net).fit(IMAGES)


@pytest.mark.parametrize("batch_size", [4, 10])
def test_layer_output_is_taken_before_later_layers_work_in_place(net, batch_size):
    featurizer = FrozenEncoderFeaturizer(
        net, layer="norm", pooling="flatten", batch_size=batch_size
    )
    plain = copy.deepcopy(net).eval()
    with torch.no_grad():
        expected = plain.norm(plain.conv(floats(IMAGES))).flatten(1).numpy()
    assert (expected < 0).any()
    np.testing.assert_allclose(featurizer.fit_transform(IMAGES), expected, rtol=1e-5, atol=1e-6)


def test_unknown_layer_lists_names_near_it(net):
    with pytest.raises(ValueError, match=r"layer='nrm' is not in encoder.*'norm'"):
        FrozenEncoderFeaturizer(net, layer="nrm").fit(IMAGES)


def test_unknown_layers_with_names_of_any_length_in_an_onnx_file(tmp_path):
    """A comparison of two names of 60,000 letters would take 10 seconds or more."""
    rng = np.random.default_rng(0)
    letters = [chr(0x4E00 + number % 128) for number in range(60_000)]
    layer, near = ("near" * 15 + "".join(rng.permutation(letters)) for _ in range(2))
    names = [near, "\x1b[2J", *map(str, range(20))]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"])
        for name in ["x", *names]
    ]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], [name]) for name in names], "g", values[:1], values[1:]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "m.onnx")
    started = time.process_time()
    with pytest.raises(ValueError, match=r"is not in encoder\. Names near it: 'near") as caught:
        FrozenEncoderFeaturizer(tmp_path / "m.onnx", layer=layer).fit(IMAGES)
    assert time.process_time() - started < 5
    assert len(str(caught.value)) < 400
    with pytest.raises(ValueError, match="is not in encoder") as caught:
        FrozenEncoderFeaturizer(tmp_path / "m.onnx", layer="[2J").fit(IMAGES)
    assert r"'\x1b[2J'" in str(caught.value)
    with pytest.raises(ValueError, match="needs an encoder with layers") as caught:
        FrozenEncoderFeaturizer(len, layer=layer).fit(IMAGES)
    assert len(str(caught.value)) < 300


def test_only_what_a_batch_may_have_caused_is_said_to_come_with_it(tmp_path, net):
    (tmp_path / "none.onnx").write_text("no")
    save_onnx(tmp_path / "model.onnx")
    for encoder, layer in (
        (tmp_path / "none.onnx", None),
        (tmp_path / "model.onnx", "nothing"),
        (net, "nothing"),
    ):
        with pytest.raises(ValueError, match="encoder") as caught:
            FrozenEncoderFeaturizer(encoder, layer=layer).fit(IMAGES)
        assert not hasattr(caught.value, "__notes__")
    with pytest.raises(Exception, match="Got invalid dimensions") as caught:
        FrozenEncoderFeaturizer(tmp_path / "model.onnx").fit(IMAGES[:, :1])
    assert "for a batch of shape (1, 1, 6, 5), uint8" in caught.value.__notes__[0]


def test_layer_that_does_not_run_once():
    twice = nn.Conv2d(3, 3, 1)
    net = nn.Sequential(twice, nn.Sequential(twice))
    with pytest.raises(ValueError, match="layer='0' ran 2 times"):
        FrozenEncoderFeaturizer(net, layer="0").fit(IMAGES)


def test_pooling_by_hand():
    maps = np.ones((1, 5, 2, 2), dtype=np.float32)
    maps[0, :2] = [[1, 2], [3, 6]], [[0, 0], [0, 8]]
    tokens = np.array([[[1, 2], [3, 6], [5, 1]]], dtype=np.float32)  # (1, 3, 2)
    rows = np.array([[4, 5]], dtype=np.float32)
    expected = {
        ("mean", "maps"): [3, 2, 1, 1, 1],
        ("max", "maps"): [6, 8, 1, 1, 1],
        ("flatten", "maps"): [1, 2, 3, 6, 0, 0, 0, 8, *[1] * 12],
        ("mean", "tokens"): [3, 3],
        ("max", "tokens"): [5, 6],
        ("cls", "tokens"): [1, 2],
        ("flatten", "tokens"): [1, 2, 3, 6, 5, 1],
    }
    outputs = {"maps": maps, "tokens": tokens, "rows": rows}
    for pooling in ("mean", "max", "cls", "flatten"):
        expected[pooling, "rows"] = [4, 5]
    for (pooling, kind), row in expected.items():
        for output in (outputs[kind], torch.from_numpy(outputs[kind]), outputs[kind].tolist()):
            featurizer = FrozenEncoderFeaturizer(
                lambda batch, output=output: output, pooling=pooling
            )
            np.testing.assert_array_equal(featurizer.fit_transform(IMAGES[:1]), [row])


def test_cls_needs_tokens():
    featurizer = FrozenEncoderFeaturizer(lambda batch: batch, pooling="cls")
    with pytest.raises(ValueError, match=r"pooling='cls'.*\(1, 3, 6, 5\)"):
        featurizer.fit(IMAGES)


def test_preprocess_gets_what_x_holds():
    seen = []

    def record(batch):
        seen.append((type(batch), batch.dtype, tuple(batch.shape)))
        return batch / 2

    last = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))
    shape = (1, 3, 6, 5)
    for encoder, images, expected in (
        (nn.Identity(), last, (torch.Tensor, torch.uint8, shape)),
        (np.asarray, last, (np.ndarray, np.uint8, shape)),
        (np.asarray, last.astype(float), (np.ndarray, np.float32, shape)),
    ):
        seen.clear()
        FrozenEncoderFeaturizer(encoder, preprocess=record).fit(images)
        assert seen[0] == expected
        assert all(each[:2] == expected[:2] for each in seen)


@pytest.mark.parametrize("encoder", [nn.Identity(), np.asarray], ids=["module", "callable"])
def test_bytes_become_numbers_from_0_to_1(encoder):
    featurizer = FrozenEncoderFeaturizer(encoder, pooling="flatten")
    expected = IMAGES.reshape(10, -1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(featurizer.fit_transform(IMAGES), expected)
    raw = featurizer.set_params(preprocess=lambda batch: batch * 1.0).fit_transform(IMAGES)
    np.testing.assert_array_equal(raw, IMAGES.reshape(10, -1))


def test_amp_runs_in_bfloat16_on_the_cpu(net):
    full = FrozenEncoderFeaturizer(net, device="cpu").fit_transform(IMAGES)
    mixed = FrozenEncoderFeaturizer(net, device="cpu", amp=True).fit_transform(IMAGES)
    assert mixed.dtype == np.float32
    assert not np.array_equal(mixed, full)
    np.testing.assert_allclose(mixed, full, rtol=0.1, atol=0.05)


def test_a_card_sends_features_before_it_gets_the_next_batch(monkeypatch):
    log = []

    class OnACard(torch.Tensor):
        is_cuda = True

        def to(self, *args, **kwargs):
            log.append("send")
            return super().to(*args, **kwargs)

    class Event:
        def record(self, stream):
            log.append(stream)

        def synchronize(self):
            log.append("wait")

    def on_a_card(batch):
        log.append("encode")
        return torch.from_numpy(batch).float().flatten(1).as_subclass(OnACard)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "record")
    featurizer = FrozenEncoderFeaturizer(on_a_card, preprocess=np.array, batch_size=4)
    found = featurizer.fit_transform(IMAGES)
    np.testing.assert_array_equal(found, IMAGES.reshape(10, -1))
    launch = ["encode", "send", "record"]
    first = ["encode", "encode", "send", "record"]  # one row once more, alone
    assert log == [*first, *launch, "wait", *launch, "wait", "wait"]


def test_output_in_any_floating_type_with_gradients_is_taken():
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        weight = torch.ones(1, dtype=dtype, requires_grad=True)
        featurizer = FrozenEncoderFeaturizer(
            lambda b, weight=weight: weight * torch.ones(len(b), 2)
        )
        assert featurizer.fit_transform(IMAGES).dtype == np.float32


def test_output_of_a_read_only_array_is_taken():
    def encoder(batch):
        features = np.ones((len(batch), 2), dtype=np.float32)
        features.flags.writeable = False
        return features

    assert FrozenEncoderFeaturizer(encoder).fit_transform(IMAGES).shape == (10, 2)


@pytest.mark.parametrize(
    "encoder, error, match",
    [
        (lambda b: np.ones((len(b) + 1, 2)), ValueError, "2 rows for a batch of 1 samples"),
        (lambda b: np.ones((len(b), 2), dtype=int), TypeError, "int64 values; expected floating"),
        (lambda b: np.ones(len(b)), ValueError, r"shape \(1,\)"),
        (lambda b: np.ones((len(b), 1, 1, 1, 1)), ValueError, "expected 2 dimensions"),
        (lambda b: np.ones((len(b), 0)), ValueError, "no features"),
        (lambda b: (np.ones((len(b), 2)), None), TypeError, "returned a tuple.*layer="),
        (lambda b: {"features": 1}, TypeError, "returned a dict"),
        (lambda b: None, TypeError, "returned a NoneType"),
        (lambda b: np.full((len(b), 2), np.nan), ValueError, "NaN or infinity for 1 of 1"),
        (lambda b: np.full((len(b), 2), 1e300), ValueError, "NaN or infinity"),
        (lambda b: torch.ones(len(b), 2, device="meta"), ValueError, "device 'meta'"),
    ],
)
def test_bad_output(encoder, error, match):
    with pytest.raises(error, match=match):
        FrozenEncoderFeaturizer(encoder).fit(IMAGES)


def test_another_width_on_a_later_batch():
    def encoder(batch):
        return np.ones((len(batch), 2 + (len(batch) < 4)))

    featurizer = FrozenEncoderFeaturizer(encoder, batch_size=4)
    with pytest.raises(ValueError, match=r"encoder returned 3 features a sample.* was 2 before"):
        featurizer.fit_transform(IMAGES)
    featurizer.fit(IMAGES)  # of one sample, so that three features are due
    with pytest.raises(ValueError, match=r"encoder returned 2 features a sample.* was 3 before"):
        featurizer.transform(IMAGES)


@pytest.mark.parametrize(
    "parameters, error, match",
    [
        ({"encoder": nn.Identity}, TypeError, r"class Identity.*encoder=Identity\("),
        ({"encoder": "model.pt"}, ValueError, r"'model\.pt' is not the path of an \.onnx"),
        ({"encoder": "nowhere.onnx"}, FileNotFoundError, r"'nowhere\.onnx' does not exist"),
        ({"encoder": None}, ValueError, "'encoder' parameter"),
        ({"encoder": np.asarray, "layer": "a"}, ValueError, "layer='a' needs an encoder with"),
        ({"encoder": np.asarray, "amp": True}, ValueError, "amp=True needs a torch"),
        ({"encoder": nn.Identity(), "device": "nonsense"}, ValueError, "device='nonsense'"),
        ({"encoder": nn.Identity(), "pooling": "sum"}, ValueError, "'pooling' parameter"),
        ({"encoder": nn.Identity(), "batch_size": 0}, ValueError, "'batch_size' parameter"),
        ({"encoder": nn.Identity(), "image_shape": (3, 6)}, ValueError, "image_shape="),
    ],
)
def test_bad_parameters(parameters, error, match):
    with pytest.raises(error, match=match):
        FrozenEncoderFeaturizer(**parameters).fit(IMAGES)


def test_out_of_memory_says_what_to_do():
    def encoder(batch):
        raise torch.OutOfMemoryError("no more")

    with pytest.raises(torch.OutOfMemoryError) as caught:
        FrozenEncoderFeaturizer(encoder).fit(IMAGES)
    assert "lower batch_size" in caught.value.__notes__[1]


def save_onnx(path, n_rows="n", dtype=TensorProto.FLOAT, two_outputs=False):
    """A 1x1 convolution, (n, 3, h, w) -> (n, 2, h, w), and its ReLU."""
    kernel = np.arange(6).reshape(2, 3, 1, 1) / 4 - 0.5
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    outputs = [helper.make_tensor_value_info("maps", dtype, [n_rows, 2, "h", "w"])]
    if two_outputs:
        outputs.append(helper.make_tensor_value_info("relu", dtype, [n_rows, 2, "h", "w"]))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "kernel"], ["maps"]),
            helper.make_node("Relu", ["maps"], ["relu"]),
        ],
        "encoder",
        [helper.make_tensor_value_info("images", dtype, [n_rows, 3, "h", "w"])],
        outputs,
        [numpy_helper.from_array(kernel.astype(numpy_type), "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return kernel[:, :, 0, 0]


@pytest.mark.parametrize("n_rows", ["n", 1, 4])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_onnx_against_numpy(tmp_path, n_rows, dtype):
    kernel = save_onnx(tmp_path / "model.onnx", n_rows, dtype)
    expected = np.einsum("oc,nchw->no", kernel, IMAGES / 255) / 30
    featurizer = FrozenEncoderFeaturizer(tmp_path / "model.onnx", batch_size=3)
    tolerance = 1e-5 if dtype == TensorProto.FLOAT else 1e-2
    np.testing.assert_allclose(featurizer.fit_transform(IMAGES), expected, atol=tolerance)


def test_onnx_output_by_name(tmp_path):
    kernel = save_onnx(tmp_path / "model.onnx", two_outputs=True)
    featurizer = FrozenEncoderFeaturizer(tmp_path / "model.onnx", layer="relu", pooling="max")
    maps = np.einsum("oc,nchw->nohw", kernel, IMAGES / 255)
    expected = np.maximum(maps, 0).max((2, 3))
    np.testing.assert_allclose(featurizer.fit_transform(IMAGES), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"layer='nothing' is not in encoder.*'relu'"):
        featurizer.set_params(layer="nothing").fit(IMAGES)


def test_onnx_file_that_changes_is_another_encoder(tmp_path):
    path = tmp_path / "model.onnx"
    save_onnx(path)
    featurizer = FrozenEncoderFeaturizer(str(path)).fit(IMAGES)
    maps = featurizer.transform(IMAGES)
    assert (maps < 0).any()
    save_onnx(tmp_path / "new.onnx", two_outputs=True)
    model = onnx.load(tmp_path / "new.onnx")
    del model.graph.output[0]
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"model\.onnx' is another model now \(.*or fit again"):
        featurizer.transform(IMAGES)
    assert (featurizer.fit_transform(IMAGES) >= 0).all()


def test_onnx_models_that_do_not_fit(tmp_path):
    floats = TensorProto.FLOAT
    values = [helper.make_tensor_value_info(name, floats, ["n", 3]) for name in "xyz"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "y"], ["z"])], "g", values[:2], values[2:]
    )
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    with pytest.raises(ValueError, match=r"two\.onnx' has the inputs \['x', 'y'\]; expected one"):
        FrozenEncoderFeaturizer(path).fit(IMAGES)


def test_torchscript_modules():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), floats(IMAGES))
    featurizer = FrozenEncoderFeaturizer(traced.train(), batch_size=10)
    with torch.no_grad():
        expected = traced(floats(IMAGES)).mean((2, 3)).numpy()
    np.testing.assert_allclose(featurizer.fit_transform(IMAGES), expected, rtol=1e-5, atol=1e-6)
    assert traced.training


def test_onnx_weights_kept_outside_that_change_are_read_again(tmp_path):
    save_onnx(tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    features = []
    for factor in (1, 3):
        kernel = numpy_helper.to_array(model.graph.initializer[0]) * np.float32(factor)
        changed = onnx.ModelProto.FromString(model.SerializeToString())
        changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))
        onnx.save(
            changed,
            tmp_path / "split.onnx",
            save_as_external_data=True,
            location="weights.bin",
            size_threshold=0,
        )
        featurizer = FrozenEncoderFeaturizer(tmp_path / "split.onnx", memory=tmp_path / "store")
        features.append(featurizer.fit_transform(IMAGES))
    np.testing.assert_allclose(features[1], 3 * features[0], rtol=1e-5, atol=1e-6)


def test_onnx_file_that_is_none(tmp_path):
    (tmp_path / "model.onnx").write_text("no")
    with pytest.raises(ValueError, match=r"model\.onnx' cannot be opened as an ONNX model"):
        FrozenEncoderFeaturizer(tmp_path / "model.onnx").fit(IMAGES)


def test_pickles_hold_the_path_of_a_file_and_the_weights_of_a_module(tmp_path, net):
    save_onnx(tmp_path / "model.onnx")
    by_path = FrozenEncoderFeaturizer(tmp_path / "model.onnx").fit(IMAGES)
    expected = by_path.transform(IMAGES)
    pickled = pickle.dumps(by_path)
    assert len(pickled) < 2000
    np.testing.assert_array_equal(pickle.loads(pickled).transform(IMAGES), expected)

    by_weights = FrozenEncoderFeaturizer(net).fit(IMAGES)
    restored = pickle.loads(pickle.dumps(by_weights))
    np.testing.assert_array_equal(restored.transform(IMAGES), by_weights.transform(IMAGES))


class KeepsItsOutput(nn.Module):
    """Writes to the same memory in each run, as code with fixed buffers does."""

    def __init__(self, dtype):
        super().__init__()
        self.linear = nn.Linear(16, 4).to(dtype)
        self.outputs = {}

    def forward(self, x):
        output = self.linear(x.flatten(1).to(self.linear.weight.dtype))
        return self.outputs.setdefault(len(x), torch.empty_like(output)).copy_(output)


@pytest.mark.parametrize("kind", ["module", "module in double precision", "callable"])
@pytest.mark.parametrize("memory", [False, True])
def test_encoder_that_returns_the_same_memory_in_each_run(kind, memory, tmp_path):
    images = np.random.default_rng(0).random((10, 1, 2, 8), dtype=np.float32)
    net = KeepsItsOutput(torch.float64 if "double" in kind else torch.float32)

    def service(batch):
        with torch.no_grad():
            return net(torch.from_numpy(batch)).numpy()

    with torch.no_grad():
        expected = net.linear(torch.from_numpy(images).flatten(1).to(net.linear.weight.dtype))
    store = {"memory": tmp_path / "store", "encoder_id": "kept"} if memory else {}
    encoder = service if kind == "callable" else net
    featurizer = FrozenEncoderFeaturizer(encoder, batch_size=3, **store)
    np.testing.assert_allclose(featurizer.fit_transform(images), expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(featurizer.transform(images[::-1]), axis=0)) == 10


def drawn_in_double_precision():
    class Draws(nn.Module):
        kept = torch.zeros(2, 4, dtype=torch.float64)

        def forward(self, x):
            return self.kept[: len(x)].uniform_()

    return Draws()


def test_random_numbers_in_kept_memory_are_seen():
    with pytest.raises(ValueError, match="draws at random"):
        FrozenEncoderFeaturizer(drawn_in_double_precision()).fit(np.ones((1, 1, 2, 8)))


class Shifts(nn.Module):
    def forward(self, x):
        return x.sub_(0.25).flatten(1)


def shift(batch):
    batch -= 0.25
    return batch.reshape(len(batch), -1)


@pytest.mark.parametrize(
    "parameters",
    [
        {"encoder": Shifts()},
        {"encoder": shift},
        {"encoder": nn.Flatten(), "preprocess": lambda batch: batch.sub_(0.25)},
    ],
    ids=["module", "callable", "preprocess"],
)
def test_encoder_that_writes_to_its_batch(parameters):
    images = np.random.default_rng(0).random((5, 1, 2, 8), dtype=np.float32)
    before = images.copy()
    features = FrozenEncoderFeaturizer(**parameters).fit_transform(images)
    np.testing.assert_array_equal(features, before.reshape(5, -1) - np.float32(0.25))
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(8), nn.GroupNorm(8, 8)], ids=str)
@pytest.mark.parametrize("colour", [0, 7, 255])
def test_features_of_one_colour_may_be_rounding_errors(norm, colour):
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8)
    images[0] = colour
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU()).eval()
    with torch.no_grad():
        expected = net(torch.from_numpy(images) / 255).mean((2, 3))
    for batch_size in ("auto", 1):
        featurizer = FrozenEncoderFeaturizer(net, batch_size=batch_size)
        np.testing.assert_allclose(featurizer.fit_transform(images), expected, atol=1e-4)


def test_dependence_on_the_batch_is_seen_for_an_image_of_one_colour():
    images = np.full((3, 3, 8, 8), 7, dtype=np.uint8)
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(ValueError, match="it uses the other images"):
        FrozenEncoderFeaturizer(nn.Sequential(nn.Conv2d(3, 8, 3), norm)).fit(images)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", ">f2"])
def test_callable_may_return_numbers_in_the_order_of_a_network(dtype):
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 2, 8), dtype=np.uint8)
    featurizer = FrozenEncoderFeaturizer(lambda batch: batch.reshape(len(batch), -1).astype(dtype))
    features = featurizer.fit_transform(images)
    np.testing.assert_allclose(features, images.reshape(5, -1) / 255, rtol=1e-3)
