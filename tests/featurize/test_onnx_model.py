"""ONNX models by their contents: opened from what was read, whatever the files say or become."""

import copy
import os
import pickle
import shutil
import sys
import threading
import time

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skfair.featurize import FrozenEncoderFeaturizer
from skfair.featurize import _onnx_format as onnx_format
from skfair.featurize import _onnx_model as module
from skfair.featurize._onnx_model import OnnxModel

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
WIDE = np.random.default_rng(2).normal(size=(4, 5000)).astype(np.float32)  # 80 kB
LOCATION = "weights.bin"


def value_info(name, width="width"):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])


def tensor(name="w", values=W, *, location=LOCATION, offset=0, **entries):
    """A tensor that is kept outside: None leaves an entry out."""
    made = numpy_helper.from_array(values, name)
    size = len(made.raw_data)
    made.ClearField("raw_data")
    made.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset, "length": size} | entries
    for key, value in entries.items():
        if value is not None:
            made.external_data.add(key=key, value=str(value))
    return made


def inside(name="w", values=W):
    return numpy_helper.from_array(values, name)


def matmul(name="w", output="y"):
    return helper.make_node("MatMul", ["x", name], [output])


def model(nodes, initializers=(), functions=()):
    graph = helper.make_graph(
        nodes, "g", [value_info("x", 4)], [value_info("y")], list(initializers)
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    opsets.append(helper.make_opsetid("com.microsoft", 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=list(functions))


def in_constant(external):
    return model([helper.make_node("Constant", [], ["w"], value=external), matmul()])


def in_initializer(external):
    return model([matmul(external.name)], [external])


def in_subgraph(external):
    branches = {
        f"{name}_branch": helper.make_graph(
            [matmul(external.name, name)], name, [], [value_info(name)], [external]
        )
        for name in ("then", "else")
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], **branches),
    ]
    return model(nodes, [inside("zero", np.float32(0))])


def in_function(external):
    body = [helper.make_node("Constant", [], ["w"], value=external), matmul("w", "z")]
    function = helper.make_function("mine", "F", ["x"], ["z"], body, [helper.make_opsetid("", 17)])
    return model([helper.make_node("F", ["x"], ["y"], domain="mine")], functions=[function])


def in_sparse(external):
    made = model([matmul()])
    indices = inside("i", np.arange(external.dims[0] * external.dims[1]))
    flat = copy.deepcopy(external)
    flat.dims[:] = [external.dims[0] * external.dims[1]]
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(flat, indices, list(external.dims))
    )
    return made


def in_training(external):
    made = model([matmul()], [inside()])
    made.training_info.add().initialization.initializer.append(external)
    return made


PLACES = [in_initializer, in_constant, in_subgraph, in_function, in_sparse, in_training]


def save(folder, made, contents=None, name="model.onnx"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(made.SerializeToString())
    if contents is not None:
        (folder / LOCATION).write_bytes(contents)
    return folder / name


def features(encoder, **parameters):
    return FrozenEncoderFeaturizer(encoder, **parameters).fit_transform(X)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in a folder with files of the models' names, but with other contents."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    (folder / LOCATION).write_bytes(np.full(10000, 7, dtype=np.float32).tobytes())
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("values", [W, WIDE], ids=["small", "large"])
def test_weights_kept_outside_wherever_they_stand(tmp_path, place, values):
    made = place(tensor(values=values))
    path = save(tmp_path / "a", made, values.tobytes())
    used = W if place is in_training else values  # which onnxruntime does not look at
    np.testing.assert_allclose(features(path), X @ used, rtol=1e-4, atol=1e-5)
    read = OnnxModel.read(path)
    assert read.files == {"model.onnx": made.SerializeToString(), LOCATION: values.tobytes()}
    shutil.rmtree(tmp_path / "a")
    np.testing.assert_allclose(features(read), X @ used, rtol=1e-4, atol=1e-5)


BAD_LOCATIONS = [
    *("/etc/passwd", "../victim", "a/../../victim", "..\\victim", "C:victim", "\\victim"),
    *("", ".", "a\0b", "*/_ORT_MEM_ADDR_/*", "//host/victim", "./..", "a/" * 2048 + "b"),
]


@pytest.mark.parametrize("location", BAD_LOCATIONS)
@pytest.mark.parametrize("place", PLACES)
def test_locations_outside_of_the_folder_are_not_opened(tmp_path, place, location, monkeypatch):
    (tmp_path / "victim").write_bytes(W.tobytes())
    path = save(tmp_path / "a", place(tensor(location=location)))
    opened = []
    monkeypatch.setattr(os, "open", lambda *a, true=os.open: (opened.append(a[0]), true(*a))[1])
    match = r"encoder='model\.onnx' keeps weights in .*; expected the name of a file in the folder"
    with pytest.raises(ValueError, match=match):
        FrozenEncoderFeaturizer(path, memory=tmp_path / "store").fit(X)
    with pytest.raises(ValueError, match=match):
        OnnxModel({"model.onnx": path.read_bytes(), location: W.tobytes()})
    assert opened == [str(path)]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link", "folder that is a link"])
def test_locations_that_are_no_files_of_the_folder(tmp_path, kind):
    location = "sub/weights.bin" if kind == "folder that is a link" else LOCATION
    path = save(tmp_path / "a", in_initializer(tensor(location=location)))
    (tmp_path / "weights.bin").write_bytes(W.tobytes())
    target = tmp_path / "a" / LOCATION
    match = rf"encoder='.*{LOCATION}' is a {kind}, not a file"
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    else:
        match = "is a link to outside of its folder"
        if kind == "device":
            target.symlink_to("/dev/zero")
        elif kind == "link":
            target.symlink_to(tmp_path / "weights.bin")
        else:
            (tmp_path / "a" / "sub").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=match):
        FrozenEncoderFeaturizer(path).fit(X)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_models_that_are_no_files(tmp_path, make):
    make(tmp_path / "model.onnx")
    for memory in (None, tmp_path / "store"):
        with pytest.raises(ValueError, match=r"encoder='.*model\.onnx' is a .*, not a file"):
            FrozenEncoderFeaturizer(tmp_path / "model.onnx", memory=memory).fit(X)


def test_missing_weights(tmp_path):
    path = save(tmp_path / "a", in_initializer(tensor()))
    with pytest.raises(ValueError, match=r"keeps weights in 'weights\.bin', which does not exist"):
        OnnxModel.read(path)
    with pytest.raises(ValueError, match=r"which is not among its files \['m\.onnx'\]"):
        OnnxModel({"m.onnx": path.read_bytes()})


def test_a_cache_of_links_to_contents_works(tmp_path):
    """As Hugging Face's: the folder of a version holds links to files named by their hash."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    made = in_initializer(tensor(values=WIDE))
    (blobs / "1f").write_bytes(made.SerializeToString())
    (blobs / "2e").write_bytes(WIDE.tobytes())
    (snapshot / "model.onnx").symlink_to("../../blobs/1f")
    (snapshot / LOCATION).symlink_to("../../blobs/2e")
    path = snapshot / "model.onnx"
    np.testing.assert_allclose(features(path), X @ WIDE, rtol=1e-4, atol=1e-5)
    # Another version behind the same names, of the same size, is noticed.
    (blobs / "3d").write_bytes((2 * WIDE).tobytes())
    (snapshot / LOCATION).unlink()
    (snapshot / LOCATION).symlink_to("../../blobs/3d")
    np.testing.assert_allclose(features(path), 2 * X @ WIDE, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": -8},
        {"offset": "one"},
        {"length": 8},
        {"length": -1},
        {"length": "9" * 5000},
        {"offset": 2**63},
    ],
)
def test_bytes_that_do_not_fit_the_tensor(entries):
    made = in_initializer(tensor(**entries))
    with pytest.raises(ValueError, match=r"'w' whose bytes .* are not those of its shape and type"):
        OnnxModel({"model.onnx": made.SerializeToString(), LOCATION: W.tobytes()})


def test_bytes_that_are_not_in_the_file():
    for made, size in ((tensor(offset=4), 64), (tensor(), 63)):
        with pytest.raises(ValueError, match=r"of 'weights\.bin', which has 6"):
            OnnxModel(
                {
                    "model.onnx": in_initializer(made).SerializeToString(),
                    LOCATION: W.tobytes()[:size],
                }
            )


@pytest.mark.parametrize("data_type", [0, TensorProto.STRING, 99])
def test_types_without_a_size(data_type):
    made = tensor(length=None)
    made.data_type = data_type
    with pytest.raises(ValueError, match="are not those of its shape and type"):
        OnnxModel({"model.onnx": in_initializer(made).SerializeToString(), LOCATION: b""})


def test_negative_and_endless_shapes():
    for dims in ([-4, -4], [2**40, 2**40]):
        made = tensor(length=None)
        made.dims[:] = dims
        with pytest.raises(ValueError, match="'w'"):
            OnnxModel(
                {"model.onnx": in_initializer(made).SerializeToString(), LOCATION: W.tobytes()}
            )


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def in_graph(initializer):
    return {"model.onnx": field(7, field(5, initializer)), LOCATION: W.tobytes()}


def test_tensors_of_very_many_dimensions():
    """Their product would be of 4 million bits, and 0.5 MB of file take 9 seconds."""
    location = field(13, field(1, b"location") + field(2, LOCATION.encode()))
    shape = field(1, varint(2**62 - 1) * 60_000)
    started = time.process_time()
    with pytest.raises(ValueError, match="are not those of its shape and type"):
        OnnxModel(in_graph(shape + b"\x10\x02" + location + b"\x70\x01"))
    assert time.process_time() - started < 4
    for n_dims in (64, 65):
        made = tensor(length=None)
        made.dims[:] = [1] * (n_dims - 2) + [4, 4]
        if n_dims == 64:
            assert OnnxModel(in_graph(made.SerializeToString())).files[LOCATION] == W.tobytes()
        else:
            with pytest.raises(ValueError, match="are not those of its shape and type"):
                OnnxModel(in_graph(made.SerializeToString()))


@pytest.mark.parametrize(("number", "a_part"), [(5, 32), (7, 16), (11, 16)])
@pytest.mark.parametrize("one", [0, 127, 128, 2**31 - 1])
def test_packed_numbers_are_counted(number, a_part, one):
    """int32_data, int64_data and uint64_data: a byte of the file becomes 12 or 24 in memory."""
    content = in_graph(field(number, varint(one) * a_part * 10))["model.onnx"]
    kind = onnx.ModelProto.DESCRIPTOR
    assert not onnx_format._has_more_parts(
        content, kind, 3 + 10
    )  # graph, tensor and list are parts
    assert onnx_format._has_more_parts(content, kind, 3 + 9)


def test_a_file_of_packed_numbers_does_not_become_many_times_its_size():
    n = onnx_format._MAX_PARTS * 16
    for content in (field(7, bytes(n)), field(7, bytes(n // 4)) * 4):
        with pytest.raises(ValueError, match=r"parts, or numbers .* as raw_data has fewer"):
            OnnxModel(in_graph(content))
    floats = field(4, bytes(8 * n))  # no larger in memory
    assert OnnxModel(in_graph(floats)).files == {"model.onnx": in_graph(floats)["model.onnx"]}


def test_locations_that_are_said_twice_or_without_being_marked():
    made = tensor()
    made.external_data.add(key="location", value="other.bin")
    files = {LOCATION: W.tobytes(), "other.bin": W.tobytes()}
    with pytest.raises(ValueError, match="keeps weights in"):
        OnnxModel({"model.onnx": in_initializer(made).SerializeToString()} | files)
    made = tensor(location="../other.bin")
    made.data_location = TensorProto.DEFAULT
    with pytest.raises(ValueError, match=r"keeps weights in '\.\./other\.bin'"):
        OnnxModel({"model.onnx": in_initializer(made).SerializeToString()} | files)


def test_locations_that_are_no_text():
    content = in_initializer(tensor()).SerializeToString().replace(b"weights.bin", b"\xff" * 11)
    with pytest.raises(ValueError, match="expected the name of a file in the folder"):
        OnnxModel({"model.onnx": content, LOCATION: W.tobytes()})


def test_a_small_file_is_not_made_into_many_weights():
    """Each of 1,000 tensors is the whole file: as much memory as 1,000 files."""
    tensors = [tensor(f"w{number}") for number in range(1000)]
    with pytest.raises(ValueError, match=r"makes 64000 bytes of weights out of 64 in"):
        OnnxModel(
            {
                "model.onnx": model([matmul("w0")], tensors).SerializeToString(),
                LOCATION: W.tobytes(),
            }
        )


@pytest.mark.parametrize("operator", ["EPContext", "PythonOp", "ATen"])
@pytest.mark.parametrize("place", ["graph", "function"])
def test_operators_that_open_files(operator, place):
    node = helper.make_node(
        operator, ["x"], ["y"], domain="com.microsoft", ep_cache_context="/etc/passwd", embed_mode=0
    )
    made = model([node])
    if place == "function":
        made = in_function(inside())
        made.functions[0].node.append(node)
    with pytest.raises(ValueError, match=f"has the operator '{operator}', which can open files"):
        OnnxModel({"model.onnx": made.SerializeToString()})


@pytest.mark.parametrize(
    "content",
    [b"no", b"\x3a\xff\xff\xff\xff\x07", b"\x3a" * 1000, b"\x08"],
    ids=["text", "endless", "nested", "cut"],
)
def test_bytes_that_are_no_model(content):
    with pytest.raises(ValueError, match=r"'model\.onnx' cannot be opened as an ONNX model"):
        OnnxModel({"model.onnx": content})


def test_reasons_of_onnxruntime_do_not_reach_the_terminal_as_they_are():
    made = model([helper.make_node("No\x1b[2Such", ["x"], ["y"], name="\x1b]0;title\x07")])
    with pytest.raises(ValueError, match=r"'m\.onnx' cannot be opened as an ONNX model") as caught:
        features(OnnxModel({"m.onnx": made.SerializeToString()}))
    assert str(caught.value).isprintable()
    made = model([helper.make_node("Relu", ["a" * 10**5], ["y"])])
    with pytest.raises(ValueError, match=r"'m\.onnx' cannot be opened as an ONNX model") as caught:
        features(OnnxModel({"m.onnx": made.SerializeToString()}))
    assert len(str(caught.value)) < 1500


def test_subgraphs_in_subgraphs_without_end():
    # Written by hand, since protobuf itself writes no more than it reads.
    content = b""
    for _ in range(2000):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # attribute's graph, node's attribute, graph's node
            content = tag + varint(len(content)) + content
    with pytest.raises(ValueError, match=r"cannot be opened as an ONNX model"):
        OnnxModel({"model.onnx": b"\x3a" + varint(len(content)) + content})


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def test_a_file_of_empty_parts_does_not_become_many_objects():
    """Two bytes each, of which protobuf makes 140; so it does not get to see what follows them."""
    nodes = b"\x0a\x00" * onnx_format._MAX_PARTS
    content = b"\x3a" + varint(len(nodes)) + nodes + b"\xff"
    with pytest.raises(ValueError, match=r"'model\.onnx' has more than 524288 parts"):
        OnnxModel({"model.onnx": content})
    with pytest.raises(ValueError, match="cannot be opened"):
        OnnxModel({"model.onnx": content[-1:]})


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_parts_are_counted_as_they_are_written(data):
    place = data.draw(st.sampled_from(PLACES))
    made = place(tensor(values=data.draw(st.sampled_from([W, WIDE]))))

    def count(message):
        n = 0
        for field, value in message.ListFields():
            several = not isinstance(value, bytes | str) and hasattr(value, "__len__")
            parts = list(value) if several else [value]
            n += len(parts) + sum(count(part) for part in parts if field.message_type is not None)
        return n

    # ONNX packs the numbers of no field that stands in these models.
    content, n = made.SerializeToString(), count(made)
    assert not onnx_format._has_more_parts(content, made.DESCRIPTOR, n)
    assert onnx_format._has_more_parts(content, made.DESCRIPTOR, n - 1)


def test_another_format_in_disguise():
    """Bytes that onnxruntime would take for its own format, which holds paths as well."""
    made = in_initializer(inside())
    made.producer_name = "ORTM1234"
    content = made.SerializeToString()
    assert content[4:8] == b"ORTM"
    np.testing.assert_allclose(features(OnnxModel({"m.onnx": content})), X @ W, rtol=1e-5)


def test_what_this_version_of_onnx_does_not_know_is_not_handed_on(monkeypatch):
    made = in_initializer(inside())
    secret = b"\xfa\x3f" + varint(6) + b"secret"  # field 1023
    seen = []
    true = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, *a, **k: (seen.append(data), true(data, *a, **k))[1],
    )
    encoder = OnnxModel({"m.onnx": made.SerializeToString() + secret})
    np.testing.assert_allclose(features(encoder), X @ W, rtol=1e-5)
    assert seen
    assert all(b"secret" not in data for data in seen)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_models_are_models_or_refused(data):
    content = bytearray(in_subgraph(tensor()).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    files = {"model.onnx": bytes(content), LOCATION: W.tobytes()}
    try:
        made = OnnxModel(files)
    except ValueError as error:
        said = str(error)
    else:
        assert files.items() >= made.files.items()
        said = "encoder='model.onnx'"
    assert said.startswith("encoder='model.onnx'")


@pytest.mark.parametrize("files", [{}, {"../m.onnx": b""}, {"/m.onnx": b""}, {"": b""}])
def test_models_without_a_name(files):
    with pytest.raises(ValueError, match=r"files=\[.*\] must start with the model"):
        OnnxModel(files)


def test_models_know_their_contents(tmp_path):
    read = [
        OnnxModel.read(save(tmp_path / folder, made, contents, name))
        for folder, made, contents, name in (
            ("a", in_initializer(tensor()), W.tobytes(), "model.onnx"),
            ("b", in_initializer(tensor()), W.tobytes(), "other.onnx"),
            ("c", in_initializer(tensor()), (2 * W).tobytes(), "model.onnx"),
            ("d", in_initializer(inside()), None, "model.onnx"),
            ("e", in_initializer(inside(values=2 * W)), None, "model.onnx"),
        )
    ]
    assert read[0] == read[1]
    assert hash(read[0]) == hash(read[1])
    assert len({one.digest for one in read}) == len(set(read)) == 4
    assert read[0] != "model"
    size = len(read[0].files["model.onnx"]) + 64
    assert repr(read[0]) == f"OnnxModel('model.onnx', {size / 1e6:.1f} MB, {read[0].digest[:12]})"
    extra = OnnxModel(read[0].files | {"../more": b""})
    assert extra.files == read[0].files


def test_a_model_is_an_encoder_without_a_file(tmp_path):
    path = save(tmp_path / "a", in_initializer(tensor()), W.tobytes())
    encoder = OnnxModel.read(path)
    y = np.arange(20) % 2
    pipeline = make_pipeline(FrozenEncoderFeaturizer(encoder), LogisticRegression()).fit(X, y)
    expected = pipeline.predict_proba(X)
    shutil.rmtree(tmp_path / "a")
    for other in (pipeline, pickle.loads(pickle.dumps(pipeline)), copy.deepcopy(pipeline)):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        assert other[0].encoder == encoder
    assert clone(pipeline)[0].encoder is encoder
    assert W.tobytes() in pickle.dumps(pipeline)
    assert "encoder=OnnxModel('model.onnx', 0.0 MB, " in repr(pipeline[0])
    with pytest.raises(ValueError, match="layer='z' is not in encoder"):
        features(encoder, layer="z")


def test_a_model_and_its_file_share_the_store(tmp_path, monkeypatch):
    path = save(tmp_path / "a", in_initializer(tensor()), W.tobytes())
    expected = features(path, memory=tmp_path / "store")
    encoder = OnnxModel.read(path)
    monkeypatch.setattr(module, "_open_session", None)  # it would fail
    np.testing.assert_array_equal(features(encoder, memory=tmp_path / "store"), expected)


class Replacing(torch.utils.data.Dataset):
    """Rows; the file is another one from the middle on."""

    def __init__(self, replace):
        self.replace = replace

    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        if row == 10:
            self.replace()
        return X[row].reshape(1, 2, 2)


def flattened(weight):
    nodes = [helper.make_node("Flatten", ["images"], ["x"]), matmul()]
    made = model(nodes, [weight])
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 2, 2])
    made.graph.input[0].CopyFrom(images)
    return made


@pytest.mark.parametrize("kept", ["inside", "outside"])
def test_a_file_that_is_replaced_while_rows_are_read(tmp_path, kept):
    """All rows of a call are of the file as it was when the call began, and kept as such."""

    def write(weights):
        weight = tensor() if kept == "outside" else inside(values=weights)
        save(tmp_path / "new", flattened(weight), weights.tobytes())
        for name in ("model.onnx", LOCATION):
            os.replace(tmp_path / "new" / name, tmp_path / "a" / name)

    (tmp_path / "a").mkdir()
    write(W)
    path = tmp_path / "a" / "model.onnx"
    featurizer = FrozenEncoderFeaturizer(path, memory=tmp_path / "store", batch_size=4)
    images = X.reshape(20, 1, 2, 2)
    featurizer.fit(images).transform(images[:6])
    got = featurizer.transform(Replacing(lambda: write(2 * W)))
    np.testing.assert_allclose(got, X @ W, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="another model now"):
        featurizer.transform(images)
    np.testing.assert_allclose(featurizer.fit_transform(images), 2 * X @ W, rtol=1e-5, atol=1e-6)
    write(W)
    np.testing.assert_array_equal(featurizer.fit_transform(images), got)


@pytest.fixture
def reads(monkeypatch):
    seen = []
    true = module._read_file
    monkeypatch.setattr(module, "_read_file", lambda *a: (seen.append(a), true(*a))[1])
    return seen


def settle(folder):
    """Wait until files are older than a clock that may not tell two changes apart."""
    deadline = max(file.stat().st_ctime_ns for file in folder.iterdir()) + module._JUST_NOW
    while time.time_ns() <= deadline:
        time.sleep(0.01)


def test_a_service_reads_and_opens_a_file_once_until_it_changes(tmp_path, reads, monkeypatch):
    folder = tmp_path / "a"
    path = save(folder, in_initializer(tensor()), W.tobytes())
    settle(folder)
    sessions = []
    true = module._open_session
    monkeypatch.setattr(module, "_open_session", lambda *a: (sessions.append(a), true(*a))[1])
    featurizer = FrozenEncoderFeaturizer(path).fit(X)
    stored = FrozenEncoderFeaturizer(path, memory=tmp_path / "store").fit(X)
    for row in range(5):
        for model_ in (featurizer, stored):
            got = model_.transform(X[row : row + 1])
            np.testing.assert_allclose(got, X[row : row + 1] @ W, rtol=1e-5, atol=1e-6)
    assert (len(reads), len(sessions)) == (2, 1)

    # Other weights of the same size, in the same file, which is made to look as old as before.
    before = (folder / LOCATION).stat()
    (folder / LOCATION).write_bytes((2 * W).tobytes())
    os.utime(folder / LOCATION, ns=(before.st_atime_ns, before.st_mtime_ns))
    for model_ in (featurizer, stored):
        with pytest.raises(ValueError, match="another model now"):
            model_.transform(X)
        np.testing.assert_allclose(model_.fit_transform(X), 2 * X @ W, rtol=1e-5, atol=1e-6)
    os.remove(folder / LOCATION)
    with pytest.raises(ValueError, match="does not exist"):
        featurizer.transform(X)


def test_a_file_that_has_just_been_written_is_read_again(tmp_path, reads, monkeypatch):
    """Within a tick of the clock of its file system it may change and look the same."""
    monkeypatch.setattr(module, "_JUST_NOW", 10**15)
    path = save(tmp_path / "a", in_initializer(inside()))
    featurizer = FrozenEncoderFeaturizer(path).fit(X)
    featurizer.transform(X)
    assert len(reads) == 2


def test_threads_open_one_session(tmp_path, monkeypatch):
    path = save(tmp_path / "a", in_initializer(inside()))
    settle(tmp_path / "a")
    featurizer = FrozenEncoderFeaturizer(path).fit(X)
    module._last_opened = None
    encoder = OnnxModel.read(path)
    sessions = []
    true = module._open_session

    def slow(*arguments):
        sessions.append(arguments)
        time.sleep(0.2)
        return true(*arguments)

    monkeypatch.setattr(module, "_open_session", slow)
    results = []

    def work():
        results.append(features(encoder))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 1
    for result in results:
        np.testing.assert_array_equal(result, featurizer.transform(X))


def test_without_the_extra(tmp_path, monkeypatch):
    path = save(tmp_path / "a", in_initializer(inside()))
    module._last_opened = None
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "skfair-debias\[onnx\]"'):
        FrozenEncoderFeaturizer(path).fit(X)
