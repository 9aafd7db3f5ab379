"""How batches lie in memory on the CPU, and how many images they have."""

import pickle

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import skfair
from skfair.featurize import FrozenEncoderFeaturizer

IMAGES = np.random.default_rng(0).integers(0, 256, size=(7, 3, 6, 5), dtype=np.uint8)
LAST = (90, 1, 15, 3)  # strides of images of 3 x 6 x 5 with channels last in memory
FIRST = (90, 30, 5, 1)

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def seeded(module, *arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module(*arguments).eval()


class Watched(nn.Module):
    """Notes the strides of its batches; the copy that the featurizer runs has the same list."""

    seen: list

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        self.seen.append(x.stride())
        return self.inner(x)


@pytest.fixture
def watched():
    def make(inner):
        return type("Watched", (Watched,), {"seen": []})(inner)

    return make


class Viewed(nn.Module):
    """Reads the memory of its maps in the order of the axes, as many older networks do."""

    runs: list

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(48, 2)

    def forward(self, x):
        type(self).runs.append(len(x))
        return self.head(self.conv(x).view(len(x), -1))


@needs_onednn
@pytest.mark.parametrize("form", ["channels first", "channels last", "floats", "list"])
def test_convolutions_get_channels_last_whatever_the_form_of_x(watched, form):
    X = {
        "channels first": IMAGES,
        "channels last": np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1)),
        "floats": IMAGES / 255,
        "list": list(IMAGES),
    }[form]
    net = watched(seeded(nn.Conv2d, 3, 8, 3))
    features = FrozenEncoderFeaturizer(net).fit(X).transform(X)
    assert set(net.seen[:1] + net.seen[-1:]) == {LAST}
    with torch.no_grad():
        expected = net.inner(torch.from_numpy(IMAGES) / 255).mean((2, 3))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@needs_onednn
def test_images_of_one_channel_get_the_strides_of_channels_last(watched):
    net = watched(nn.Conv2d(1, 8, 3))
    FrozenEncoderFeaturizer(net).fit(IMAGES[:, 0]).transform(IMAGES[:, 0])
    assert net.seen[-1] == (30, 1, 5, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(90, 4)),
        lambda: nn.Conv2d(3, 8, 3).double(),
    ],
    ids=["no convolution", "double precision"],
)
def test_layout_stays_where_another_is_not_faster(watched, make):
    net = watched(make())
    FrozenEncoderFeaturizer(net).fit_transform(IMAGES)
    assert set(net.seen) == {FIRST}


@needs_onednn
def test_weights_that_are_channels_last_stay_so_and_are_not_copied(watched):
    net = watched(nn.Conv2d(3, 8, 3)).to(memory_format=torch.channels_last)
    before = net.inner.weight.data_ptr(), net.inner.weight.stride()
    FrozenEncoderFeaturizer(net).fit_transform(IMAGES)
    assert (net.inner.weight.data_ptr(), net.inner.weight.stride()) == before


@pytest.mark.parametrize("layer", [None, "conv"])
def test_encoder_that_needs_the_order_of_the_axes_gets_it(layer, tmp_path):
    net = seeded(Viewed)
    Viewed.runs = []
    featurizer = FrozenEncoderFeaturizer(net, layer=layer, batch_size=3, pooling="flatten")
    features = featurizer.fit(IMAGES).transform(IMAGES)
    with torch.inference_mode():
        inputs = (torch.from_numpy(IMAGES).float() / 255).split(3)
        part = net if layer is None else net.conv
        expected = torch.cat([part(each).flatten(1) for each in inputs])
    np.testing.assert_array_equal(features, expected)

    skfair.save(featurizer, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories={"encoder": Viewed})
    for each in (featurizer, loaded, pickle.loads(pickle.dumps(featurizer))):
        Viewed.runs = []
        np.testing.assert_array_equal(each.transform(IMAGES), expected)
        assert Viewed.runs == [3, 3, 1]  # `fit` found it out


@needs_onednn
def test_encoder_that_fails_after_fit_fails_once_in_a_call():
    class Later(Viewed):
        def forward(self, x):
            if len(x) > 2:
                return super().forward(x)
            type(self).runs.append(len(x))
            return self.head(self.conv(x).flatten(1))

    Later.runs = []
    featurizer = FrozenEncoderFeaturizer(seeded(Later), batch_size=3).fit(IMAGES)
    for _ in range(2):
        Later.runs = []
        featurizer.transform(IMAGES)
        assert Later.runs == [3, 3, 3, 1]


@needs_onednn
def test_fitting_again_forgets_the_layout(watched):
    net = seeded(Viewed)
    Viewed.runs = []
    other = watched(nn.Conv2d(3, 8, 3))
    featurizer = FrozenEncoderFeaturizer(net).fit(IMAGES).set_params(encoder=other)
    featurizer.fit(IMAGES).transform(IMAGES)
    assert other.seen[-1] == LAST


def test_an_error_in_both_layouts_is_the_encoders_own():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order") as caught:
        FrozenEncoderFeaturizer(Fails()).fit(IMAGES)
    assert caught.value.__context__ is None


def test_encoder_that_changes_its_input_before_it_fails_gets_the_images_again():
    class Inverts(Viewed):
        def forward(self, x):
            return super().forward(x.neg_())

    net = seeded(Inverts)
    Inverts.runs = []
    features = FrozenEncoderFeaturizer(net, batch_size=7).fit_transform(IMAGES)
    with torch.inference_mode():
        expected = net(torch.from_numpy(IMAGES).float() / 255)
    np.testing.assert_array_equal(features, expected)


@needs_onednn
@pytest.mark.parametrize("first", ["image", "one colour", "black", "almost white"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_encoder_that_ignores_strides_is_refused(first, dtype):
    """Also where the first image hides it: equal pixels look the same in each layout."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            rows = x.as_strided((len(x), 90), (90, 1))
            return torch.cat([rows, self.conv(x).mean((2, 3))], 1)

    X = IMAGES.copy()
    if first != "image":
        X[0] = {"one colour": 90, "black": 0, "almost white": 250 + IMAGES[0] % 5}[first]
    X = X if dtype == np.uint8 else X.astype(dtype) / 255
    with pytest.raises(ValueError, match=r"in two layouts of memory.*Call \.contiguous\(\)"):
        FrozenEncoderFeaturizer(Windows()).fit(X)


def test_preprocess_gets_memory_in_the_order_of_the_axes():
    def preprocess(batch):
        return (batch.view(len(batch), -1).float() / 255).view(len(batch), 3, 6, 5)

    net = nn.Conv2d(3, 8, 3)
    features = FrozenEncoderFeaturizer(net, preprocess=preprocess).fit_transform(IMAGES)
    np.testing.assert_array_equal(features, FrozenEncoderFeaturizer(net).fit_transform(IMAGES))


# batch_size="auto" ----------------------------------------------------------------------------


def sizes_of_batches(make, X, monkeypatch, n_threads=1, **parameters):
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    sizes = []

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make()

        def forward(self, x):
            sizes.append(len(x))
            return self.inner(x)

    featurizer = FrozenEncoderFeaturizer(Counts(), device="cpu", **parameters).fit(X)
    sizes.clear()
    featurizer.transform(X)
    return sizes


@pytest.mark.parametrize(
    ("shape", "n_threads", "expected"),
    [
        ((224, 224), 1, [4, 4, 2]),
        ((224, 224), 6, [6, 4]),
        ((224, 224), 128, [10]),
        ((448, 112), 4, [4, 4, 2]),
        ((500, 600), 1, [2] * 5),
        ((32, 32), 1, [10]),
    ],
)
def test_convolutions_run_on_few_images_but_one_for_each_thread(
    shape, n_threads, expected, monkeypatch
):
    X = np.zeros((10, 1, *shape), dtype=np.uint8)
    assert sizes_of_batches(lambda: nn.Conv2d(1, 1, 8, 8), X, monkeypatch, n_threads) == expected


def test_batches_of_small_images_have_64(monkeypatch):
    X = np.zeros((130, 3, 9, 9), dtype=np.uint8)
    assert sizes_of_batches(lambda: nn.Conv2d(3, 1, 9), X, monkeypatch, 128) == [64, 64, 2]


def test_a_number_is_a_number(monkeypatch):
    X = np.zeros((9, 1, 224, 224), dtype=np.uint8)
    found = sizes_of_batches(lambda: nn.Conv2d(1, 1, 8, 8), X, monkeypatch, batch_size=7)
    assert found == [7, 2]


def test_other_encoders_keep_batches_of_64(monkeypatch, tmp_path):
    X = np.zeros((70, 1, 224, 224), dtype=np.uint8)
    found = sizes_of_batches(
        lambda: nn.Sequential(nn.MaxPool2d(56), nn.Flatten(), nn.Linear(16, 2)), X, monkeypatch
    )
    assert found == [64, 6]

    sizes = []

    def service(batch):
        sizes.append(len(batch))
        return batch[:, 0, 0]

    FrozenEncoderFeaturizer(service).fit(X[:1]).transform(X)
    assert sizes == [1, 64, 6]

    # This ONNX file repeats the number of images of its batch in each row.
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Cast", ["n"], ["size"], to=TensorProto.FLOAT),
        helper.make_node("GlobalMaxPool", ["x"], ["largest"]),
        helper.make_node("Flatten", ["largest"], ["zeros"]),
        helper.make_node("Add", ["zeros", "size"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 1, 224, 224]), ("y", ["n", 1]))
    ]
    graph = helper.make_graph(nodes, "sizes", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "sizes.onnx"
    path.write_bytes(model.SerializeToString())
    featurizer = (
        FrozenEncoderFeaturizer(path, batch_size=1).fit(X[:1]).set_params(batch_size="auto")
    )  # batch_size=1: `fit` refuses rows that depend on their batch
    np.testing.assert_array_equal(featurizer.transform(X).ravel(), [64] * 64 + [6] * 6)


def test_store_encodes_in_small_batches_and_finds_all_rows(monkeypatch, tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (10, 1, 224, 224), dtype=np.uint8)
    parameters = {"memory": tmp_path / "store", "encoder_id": "counts"}
    net = nn.Conv2d(1, 2, 8, 8)
    direct = FrozenEncoderFeaturizer(net).fit_transform(X)
    assert sizes_of_batches(lambda: net, X, monkeypatch, **parameters) == [4, 4, 1]  # after `fit`
    featurizer = FrozenEncoderFeaturizer(net, batch_size=3, **parameters).fit(X)
    np.testing.assert_allclose(featurizer.transform(X), direct, rtol=1e-5, atol=1e-6)


def test_rows_in_the_store_need_no_device(tmp_path):
    parameters = {"memory": tmp_path / "store", "encoder_id": "conv"}
    net = nn.Conv2d(3, 2, 3)
    stored = FrozenEncoderFeaturizer(net, **parameters).fit_transform(IMAGES)
    elsewhere = FrozenEncoderFeaturizer(net, device="hpu", **parameters)
    np.testing.assert_array_equal(elsewhere.fit_transform(IMAGES), stored)
