"""The file of a saved model: refused files, and faults during a save."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
import types
import zlib

import numpy as np
import pytest
import safetensors.torch
import torch
from saved_models import (
    X,
    assert_same_outputs,
    fitted,
    forge,
    make_encoder,
    make_network,
    parts,
    put,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import skfair
from skfair.persistence import InvalidModelError, _files

FILE = "model.safetensors"


def refused(saved, change, message="."):
    """Load a forged model, and return the message of the error."""
    forge(saved, change)
    with pytest.raises(InvalidModelError, match=message) as raised:
        skfair.load(saved)
    return str(raised.value)


# Damaged, or not a model -------------------------------------------------------------------


def test_what_is_no_saved_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no model.safetensors.*as to save"):
        skfair.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=FILE):
        skfair.load(tmp_path)
    (tmp_path / FILE).write_text("")
    with pytest.raises(FileNotFoundError, match=r"is a file.*same folder as to save"):
        skfair.load(tmp_path / FILE)


def header_of(saved):
    content = (saved / FILE).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_header(saved, header, data):
    text = json.dumps(header).encode()
    (saved / FILE).write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("version", ["0", "1", "4", "99", "", None, 3, ["3"], {}])
def test_schemas_of_other_versions(version, saved):
    header, data = header_of(saved)
    header["__metadata__"]["schema_version"] = version
    put_header(saved, header, data)
    with pytest.raises(InvalidModelError, match=r"schema version .*with the version of skfair"):
        skfair.load(saved)


def test_every_byte_counts(saved):
    content = (saved / FILE).read_bytes()
    for position in range(0, len(content), len(content) // 200):
        changed = bytearray(content)
        changed[position] ^= 0x10
        (saved / FILE).write_bytes(changed)
        with pytest.raises(InvalidModelError):
            skfair.load(saved)


def test_files_that_were_cut(saved):
    content = (saved / FILE).read_bytes()
    for length in [0, 1, 8, 10, len(content) // 2, len(content) - 1]:
        (saved / FILE).write_bytes(content[:length])
        with pytest.raises(InvalidModelError):
            skfair.load(saved)
    (saved / FILE).write_bytes(content + b" ")
    with pytest.raises(InvalidModelError, match="altered"):
        skfair.load(saved)


def test_weights_of_another_model(saved, tmp_path):
    skfair.save(fitted("ClusterMarginClassifier", n_units=9)[0], tmp_path / "other")
    put_header(saved, header_of(saved)[0], header_of(tmp_path / "other")[1])
    with pytest.raises(InvalidModelError):
        skfair.load(saved)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"3",
        b"\xff\xfe",
        b"NaN",
        b"[" * 100_000,
        b'{"__metadata__": 3}',
        b'{"__metadata__": {"format": "other"}}',
        b'{"__metadata__": {"format": "pt"}}',
        b'{"__metadata__": {"format": "skfair"}}',
        b'{"__metadata__": {"format": "skfair", "schema_version": "3", "config": "NaN"}}',
        b'{"__metadata__": {"format": "skfair", "schema_version": "3"}, "a": NaN}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda text: repr(text[:40]),
)
def test_other_headers(text, saved):
    (saved / FILE).write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(InvalidModelError):
        skfair.load(saved)


def test_safetensors_that_claim_absurd_sizes(saved):
    for claim in (2**63 - 8, 2**40, 100_000_000):
        (saved / FILE).write_bytes(struct.pack("<Q", claim) + b"{}" + bytes(64))
        with pytest.raises(InvalidModelError, match="not a safetensors"):
            skfair.load(saved)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]},
        {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [0] * 20, "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "code", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]},
        {"dtype": "F32"},
        3,
    ],
    ids=str,
)
def test_tensors_that_are_described_oddly(tensor, saved):
    body, _ = parts(saved)
    data = (
        b"\x00\x01\x02\x00"
        if isinstance(tensor, dict) and 4 in tensor.get("data_offsets", [])
        else b""
    )
    put_entries(saved, body, {"a": tensor}, data)
    with pytest.raises(InvalidModelError, match=r"not a safetensors file|a tensor of shape|truth"):
        skfair.load(saved)


def put_entries(saved, body, header, data):
    """Write any header with the right digest."""
    config, checksum = json.dumps(body), zlib.crc32(data)
    digested = json.dumps([[config, checksum], header], sort_keys=True).encode()
    digest = hashlib.sha256(digested).hexdigest()
    metadata = {"format": "skfair", "schema_version": "3", "config": config, "sha256": digest}
    put_header(saved, {"__metadata__": metadata, **header}, data)


@pytest.mark.parametrize(
    "first, second, size",
    [
        ([0, 8], [0, 8], 8),  # the same bytes
        ([0, 8], [4, 12], 12),
        ([0, 8], [8, 16], 12),  # beyond the end
        ([0, 8], [8, 16], 20),  # bytes that belong to no tensor
        ([0, 8], [12, 20], 20),
        ([4, 12], [12, 20], 20),
        ([8, 16], [8, 16], 16),
        ([2**62, 2**62 + 8], [0, 8], 8),
        ([0, 8], [-8, 0], 8),
    ],
)
def test_tensors_that_overlap_or_leave_gaps(first, second, size, saved):
    body, _ = parts(saved)
    one = {"dtype": "F32", "shape": [2]}
    header = {"a": {**one, "data_offsets": first}, "b": {**one, "data_offsets": second}}
    put_entries(saved, body, header, bytes(size))
    with pytest.raises(InvalidModelError, match="not a safetensors file"):
        skfair.load(saved)


def test_a_file_that_is_cut_while_it_is_read(saved, monkeypatch):
    body, tensors = parts(saved)
    put(saved, body, {**tensors, "more": torch.zeros(1 << 20)})  # more than what is read ahead
    read_header = _files._header

    def cut(stream, size):
        found = read_header(stream, size)
        os.truncate(saved / FILE, size - 10)
        return found

    monkeypatch.setattr(_files, "_header", cut)
    with pytest.raises(InvalidModelError, match="the file ended while it was read"):
        skfair.load(saved)


def test_a_description_that_is_too_long(saved, monkeypatch):
    monkeypatch.setattr(_files, "_MAX_HEADER", 3000)
    with pytest.raises(InvalidModelError, match="more than 3000 bytes"):
        skfair.load(saved)
    with pytest.raises(ValueError, match="reads at most 3000"):
        skfair.save(fitted("ClusterMarginClassifier")[0], saved.parent / "new")
    assert not (saved.parent / "new").exists()


def test_a_file_of_holes_is_not_read(saved):
    with (saved / FILE).open("r+b") as file:
        file.truncate(2**33)  # a file of holes takes no space on the disk
    with pytest.raises(InvalidModelError, match=r"claims 8589934592 bytes.*holes"):
        skfair.load(saved)


# Forged -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["os.system", "sklearn.svm.SVC", "sklearn.tree.DecisionTreeClassifier", "skfair.Base",
     "skfair.base._classifier.TorchClassifier", "ClusterMarginClassifier", "marker.Anything",
     "sklearn.preprocessing.OneHotEncoder", "sklearn.dummy.DummyClassifier",
     "skfair.save", "skfair.estimator_checks", "torch.nn.Linear", "", None, 3, [], {}],
)  # fmt: skip
def test_only_named_classes_are_made(name, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "marker", types.ModuleType("marker"))
    assert refused(
        saved, lambda body: body["estimator"].update({"class": name}), "imports only classes"
    )


def test_parameters_that_are_not_of_the_class(saved):
    assert refused(saved, lambda body: body["estimator"]["parameters"].update(other=3), "'other'")


@pytest.mark.parametrize("name, value", [("n_units", 0), ("loss", "other"), ("lr", "fast")])
def test_parameters_that_the_class_does_not_take(name, value, saved):
    assert refused(saved, lambda body: body["estimator"]["parameters"].update({name: value}), name)


@pytest.mark.parametrize(
    "name, factory",
    [("FrozenEncoderFeaturizer", make_encoder), ("PatchAttributionMasker", None)],
)
def test_a_parameter_that_was_added_later_has_its_default(name, factory, tmp_path):
    estimator, images = fitted(name, resize="pad")
    skfair.save(estimator, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories=factory)
    assert loaded.resize == "pad"
    forge(tmp_path / "model", lambda body: body["estimator"]["parameters"].pop("resize"))
    older = skfair.load(tmp_path / "model", factories=factory)
    assert older.resize == "stretch"
    np.testing.assert_array_equal(older.transform(images), loaded.transform(images))


def test_where_things_are_kept_is_not_for_a_file_to_say(tmp_path):
    skfair.save(fitted("FrozenEncoderFeaturizer")[0], tmp_path / "model")

    def change(body):
        body["estimator"]["parameters"]["memory"] = str(tmp_path / "store.sqlite")

    forge(tmp_path / "model", change)
    with pytest.raises(InvalidModelError, match="'memory'"):
        skfair.load(tmp_path / "model", factories=make_encoder)


def test_a_path_as_encoder(tmp_path):
    skfair.save(fitted("FrozenEncoderFeaturizer")[0], tmp_path / "model")

    def change(body):
        body["estimator"]["parameters"]["encoder"] = "/etc/encoder.onnx"
        body["made_by_caller"] = {}

    forge(tmp_path / "model", change)
    body, _ = parts(tmp_path / "model")
    put(tmp_path / "model", body, {})
    with pytest.raises(InvalidModelError, match="a path outside the model"):
        skfair.load(tmp_path / "model")


def estimator_in(body):
    """An object that NumPy would take for an array at an address."""
    return {
        "estimator": {
            "class": "sklearn.preprocessing.StandardScaler",
            "parameters": {},
            "state": {
                "__array_interface__": {
                    "dict": [
                        ["data", {"tuple": [16, True]}],
                        ["shape", {"tuple": [2]}],
                        ["typestr", "<f8"],
                        ["version", 3],
                    ]
                }
            },
        }
    }


@pytest.mark.parametrize("name", ["labels_", "margins_", "classes_", "diagnostics_", "other_"])
def test_an_estimator_stands_where_the_table_has_one_only(name, saved):
    def change(body):
        body["estimator"]["state"][name] = estimator_in(body)

    assert refused(saved, change, "where none is allowed")


def test_an_estimator_with_the_face_of_an_array(tmp_path):
    skfair.save(make_pipeline(StandardScaler().fit(X)), tmp_path / "model")

    def change(body):
        body["estimator"]["parameters"]["steps"][0]["tuple"][1] = estimator_in(body)

    assert refused(tmp_path / "model", change, "does not exist in such an estimator|is missing")


@pytest.mark.parametrize(
    "name",
    ["predict", "_logits", "fit", "__class__", "n_clusters", "a b", "__dict__", "", "other_",
     "__array_interface__", "__sklearn_tags__", "_sklearn_output_config"],
)  # fmt: skip
def test_attributes_that_are_not_in_the_table(name, saved):
    assert refused(
        saved, lambda body: body["estimator"]["state"].update({name: 1}), "does not exist in such"
    )


@pytest.mark.parametrize("part", ["class", "parameters", "state"])
@pytest.mark.parametrize("value", [None, 3, "text", []])
def test_estimators_that_are_malformed(part, value, saved):
    assert refused(saved, lambda body: body["estimator"].update({part: value}))


def test_state_that_is_incomplete(tmp_path):
    models = [("ThresholdDebiaser", make_network), ("PatchAttributionMasker", None)]
    models += [("ClusterMarginClassifier", None), ("LogitAdjustedClassifier", None)]
    for name, factory in models:
        model = tmp_path / name
        skfair.save(fitted(name)[0], model, training_rows=name == "LogitAdjustedClassifier")
        body, tensors = parts(model)
        # Optional attributes: only some fits have them, or models of 0.1 do not have them.
        optional = {"n_features_in_", "history_", "cluster_centers_", "_cluster_sizes"}
        optional |= {"pairs_", "certificate_", "conflicting_", "_order", "_measures"}
        # Attributes of the masker that models of 0.1 do not have.
        optional |= {"_positive", "_donor_maps", "score_threshold_", "attribute_auc_"}
        optional |= {"scope_", "quantile_"}
        for attribute in set(body["estimator"]["state"]) - optional:
            state = {k: v for k, v in body["estimator"]["state"].items() if k != attribute}
            put(model, {**body, "estimator": {**body["estimator"], "state": state}}, tensors)
            with pytest.raises(InvalidModelError):
                skfair.load(model, factories=factory)


def test_state_that_does_not_fit_together(saved):
    for name, dtype, shape, items in [
        ("margins_", "<f8", [1, 2], [0.0, 0.0]),
        ("classes_", "<i8", [3], [0, 1, 2]),
        ("classes_", "<i8", [2], [0, 0]),
        ("classes_", "<i8", [2, 1], [0, 1]),
        ("classes_", "<f8", [2], [0, 1]),
    ]:
        array = {"array": {"dtype": dtype, "shape": shape, "items": items}}
        body, _ = parts(saved)
        if dtype == "<f8" and name == "classes_":
            continue  # labels may be numbers of any type
        assert body["estimator"]["state"][name] != array
        copy = shutil.copytree(saved, saved.parent / f"{name}{shape}{items}")
        assert refused(
            copy, lambda body, n=name, a=array: body["estimator"]["state"].update({n: a})
        )


def test_requests_and_output_that_are_none(saved):
    for i, (part, value) in enumerate(
        [
            ("output", {"predict": "pandas"}),
            ("output", {"transform": "csv"}),
            ("output", {}),
            ("output", {"__class__": "pandas"}),
            ("requests", {"fit": {"nothing": True}}),
            ("requests", {"__init__": {}}),
            ("requests", []),
        ]
    ):
        copy = shutil.copytree(saved, saved.parent / str(i))
        assert refused(copy, lambda body, p=part, v=value: body["estimator"].update({p: v}))


def test_tensors_that_are_of_nothing(saved):
    body, tensors = parts(saved)
    put(saved, body, {**tensors, "more": torch.zeros(3)})
    with pytest.raises(InvalidModelError, match="'more' is not used"):
        skfair.load(saved)


def test_absurd_sizes_take_no_memory(tmp_path):
    # Networks are compared with the file before they are created.
    skfair.save(fitted("ClusterMarginClassifier")[0], tmp_path / "margin")

    def many_units(body):
        for pair in body["estimator"]["state"]["_network_parameters"]["dict"]:
            if pair[0] == "module__n_units":
                pair[1] = 10**9

    assert refused(tmp_path / "margin", many_units, "module__n_units|cluster_centers_|network")
    skfair.save(fitted("ThresholdDebiaser", epsilon=0.9)[0], tmp_path / "debiaser")
    for shape in ([3 * 10**6, 4], [4, 3 * 10**6], [10**18], [4] * 1000, [0], [], [4, 10**5]):
        forge(
            tmp_path / "debiaser",
            lambda body, s=shape: body["estimator"]["state"].update(_sample_shape={"tuple": s}),
        )
        with pytest.raises(InvalidModelError, match=r"_sample_shape|other values"):
            skfair.load(tmp_path / "debiaser", factories=make_network)
    skfair.save(fitted("PatchAttributionMasker")[0], tmp_path / "masker")
    for shape in ([3, 10**9, 10**9], [3, 60000, 60000], [10**6, 6, 6]):
        assert refused(
            tmp_path / "masker",
            lambda body, s=shape: body["estimator"]["state"].update(image_shape_={"tuple": s}),
            "image_shape_|numbers|channel_mean_",
        )


def nest(body, depth):
    inner = body["estimator"]
    for _ in range(depth):
        steps = [{"tuple": ["a", {"estimator": inner}]}]
        inner = {
            "class": "sklearn.pipeline.Pipeline",
            "parameters": {"steps": steps, "verbose": False, "transform_input": None},
            "state": {},
        }
    body["estimator"] = inner


def test_pipelines_in_pipelines(tmp_path):
    # scikit-learn needs time that doubles with each level to show a nested estimator.
    skfair.save(StandardScaler().fit(X), tmp_path / "few")
    shutil.copytree(tmp_path / "few", tmp_path / "many")
    forge(tmp_path / "few", lambda body: nest(body, 5))
    loaded = skfair.load(tmp_path / "few")
    np.testing.assert_array_equal(loaded.transform(X), StandardScaler().fit_transform(X))
    assert refused(tmp_path / "many", lambda body: nest(body, 6), "more than 6 levels")


def test_more_steps_than_anybody_has(tmp_path):
    steps = [(f"step{i}", MinMaxScaler()) for i in range(100)]
    with pytest.raises(ValueError, match="more than 100 estimators"):
        skfair.save(Pipeline(steps), tmp_path / "model")
    skfair.save(Pipeline(steps[:2]).fit(X), tmp_path / "model")

    def change(body):
        body["estimator"]["parameters"]["steps"] *= 50

    assert refused(tmp_path / "model", change, "more than 100 estimators|malformed")


@pytest.mark.parametrize("name", ["a__b", "steps", "a"])
def test_names_of_steps_that_cannot_be(name, tmp_path):
    skfair.save(make_pipeline(StandardScaler(), MinMaxScaler()).fit(X), tmp_path / "model")

    def change(body):
        steps = body["estimator"]["parameters"]["steps"]
        for step in steps[:2] if name == "a" else steps[:1]:
            step["tuple"][0] = name

    assert refused(tmp_path / "model", change, "names|__|conflict|unique")


# Names of files and links -----------------------------------------------------------------


def everything_in(folder):
    """Return the names, kinds and contents of all files in a folder."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else stat.S_IFMT(path.lstat().st_mode)
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def home(tmp_path):
    """Files of the user, which no save may touch."""
    home = tmp_path / "home"
    (home / "deep").mkdir(parents=True)
    (home / "thesis.txt").write_text("mine")
    (home / "deep" / "a").write_text("mine")
    skfair.save(fitted("ClusterMarginClassifier", n_units=4)[0], home / "model")
    return home


@pytest.mark.parametrize(
    "link",
    ["files", "files/0123456789abcdef", ".saving", ".model.0123456789abcdef.part", "notes",
     "model.safetensors.0123456789abcdef", "config.json~", "tmp", ".git"],
)  # fmt: skip
@pytest.mark.parametrize("target", ["", "thesis.txt", "model/model.safetensors", "nothing"])
def test_links_beside_a_model_are_left_alone(link, target, saved, home):
    (saved / link).parent.mkdir(exist_ok=True)
    (saved / link).symlink_to(home / target)
    before = everything_in(home)
    skfair.save(fitted("ClusterMarginClassifier", n_units=3)[0], saved)
    assert skfair.load(saved).n_units == 3
    assert everything_in(home) == before
    assert os.readlink(saved / link) == str(home / target)


@pytest.mark.parametrize("target", ["thesis.txt", "model/model.safetensors", "nothing", "deep"])
def test_a_model_that_is_a_link(target, tmp_path, home):
    before = everything_in(home)
    model = tmp_path / "model"
    model.mkdir()
    (model / FILE).symlink_to(home / target)
    with pytest.raises(FileExistsError, match="or is a link"):
        skfair.save(fitted("ClusterMarginClassifier")[0], model)
    with pytest.raises(InvalidModelError, match=r"is a link.*Copy"):
        skfair.load(model)
    (tmp_path / "linked").symlink_to(home / target)
    with pytest.raises(FileExistsError, match="is a link"):
        skfair.save(fitted("ClusterMarginClassifier")[0], tmp_path / "linked")
    assert everything_in(home) == before


def test_a_model_with_another_name_on_the_disk(saved, tmp_path):
    os.link(saved / FILE, tmp_path / "kept.safetensors")
    before = (tmp_path / "kept.safetensors").read_bytes()
    skfair.save(fitted("ClusterMarginClassifier", n_units=3)[0], saved)
    assert (tmp_path / "kept.safetensors").read_bytes() == before


def test_what_is_no_file_is_not_opened(tmp_path):
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / FILE)
    (tmp_path / "folder" / FILE).mkdir(parents=True)
    (tmp_path / "socket").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path / "socket")  # the path of a socket must be short
        try:
            server.bind(FILE)
        finally:
            os.chdir(here)
        for name in ("pipe", "folder", "socket"):
            with pytest.raises(InvalidModelError, match="not a file"):
                skfair.load(tmp_path / name)
            with pytest.raises(FileExistsError, match="not from skfair"):
                skfair.save(fitted("ClusterMarginClassifier")[0], tmp_path / name)


# Writing ----------------------------------------------------------------------------------


def test_what_is_there_already_is_not_touched(tmp_path):
    estimator, _ = fitted("ClusterMarginClassifier", loss="cross_entropy")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        skfair.save(estimator, tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"other files \('notes.txt'\)"):
        skfair.save(estimator, tmp_path / "folder")
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"
    skfair.save(estimator, tmp_path / "new" / "and" / "deep")
    assert_same_outputs(skfair.load(tmp_path / "new" / "and" / "deep"), estimator, X)


def test_files_beside_a_saved_model_stay(saved):
    mine = ["README.md", "config.json~", "files/notes.txt", ".saving/a", f"{FILE}.old", "x.part"]
    for name in mine:
        (saved / name).parent.mkdir(exist_ok=True)
        (saved / name).write_text("mine")
    skfair.save(fitted("ClusterMarginClassifier", n_units=3)[0], saved)
    for name in mine:
        assert (saved / name).read_text() == "mine"


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": '{"architectures": []}', FILE: "theirs"},
        {"config.json": "{", FILE: "theirs"},
        {"config.json": "[]"},
        {"config.json": '{"format": "skfair"}', FILE: "of 0.1"},
        {FILE: "theirs"},
        {"model.safetensors.index.json": "theirs"},
        {"config.json.old": "mine"},
        {"files/notes.txt": "mine"},
    ],
    ids=lambda files: " ".join(files),
)
def test_models_of_others_are_not_taken_for_ours(files, tmp_path):
    # Hugging Face models have files of the same names.
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(FileExistsError, match=r"other files|not from skfair|another program"):
        skfair.save(fitted("ClusterMarginClassifier")[0], tmp_path)
    for name, text in files.items():
        assert (tmp_path / name).read_text() == text


def test_a_model_of_another_program_in_a_file_of_that_name(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / FILE, {"format": "pt"})
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(FileExistsError, match="not from skfair"):
        skfair.save(fitted("ClusterMarginClassifier")[0], tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
    with pytest.raises(InvalidModelError, match="was not saved by skfair"):
        skfair.load(tmp_path)


class Killed(BaseException):
    pass


@pytest.fixture
def killed_at(monkeypatch):
    """Stop a save at its n-th step on the disk, without any clean-up."""

    @contextlib.contextmanager
    def at(n_steps):
        left = [n_steps]

        def step(function):
            def run(*arguments, **keywords):
                if not left[0]:
                    for name in ("unlink", "rmdir"):  # a killed process cleans nothing up
                        patches.setattr(_files.Path, name, lambda path: None)
                    raise Killed
                left[0] -= 1
                return function(*arguments, **keywords)

            return run

        with monkeypatch.context() as patches:
            patches.setattr(_files.os, "replace", step(os.replace))
            patches.setattr(_files.os, "fsync", step(os.fsync))
            patches.setattr(_files.secrets, "token_hex", step(_files.secrets.token_hex))
            yield

    return at


def test_a_kill_leaves_the_old_model_or_the_new_one(saved, killed_at):
    old, new = (fitted("ClusterMarginClassifier", n_units=n)[0] for n in (8, 5))
    seen, original = [], saved.parent / "original"
    shutil.copytree(saved, original)
    for n_steps in range(100):
        try:
            with killed_at(n_steps):
                skfair.save(new, saved)
            break
        except Killed:
            pass
        loaded = skfair.load(saved)
        seen.append(loaded.n_units)
        assert np.array_equal(
            loaded.predict_proba(X), {8: old, 5: new}[loaded.n_units].predict_proba(X)
        )
        # The next save works, and deletes only files that it created.
        left = set(os.listdir(saved))
        third, _ = fitted("ClusterMarginClassifier", n_units=3)
        skfair.save(third, saved)
        assert skfair.load(saved).n_units == 3
        assert set(os.listdir(saved)) == left
        shutil.rmtree(saved)
        shutil.copytree(original, saved)
    assert seen == sorted(seen, reverse=True)  # once the new model is there, it stays
    assert set(seen) == {5, 8}
    assert n_steps == 4


def test_a_kill_of_the_first_save_leaves_no_half_model(tmp_path, killed_at):
    new, _ = fitted("ClusterMarginClassifier")
    for n_steps in range(100):
        path = tmp_path / str(n_steps)
        try:
            with killed_at(n_steps):
                skfair.save(new, path)
            break
        except Killed:
            pass
        with contextlib.suppress(FileNotFoundError):  # the only result besides a complete model
            assert skfair.load(path).n_units == new.n_units
        skfair.save(new, path)
        assert skfair.load(path).n_units == new.n_units
    assert n_steps == 4


def test_an_error_while_writing_leaves_the_old_model_and_nothing_else(saved, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    before = everything_in(saved)
    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        skfair.save(fitted("ClusterMarginClassifier", n_units=3)[0], saved)
    assert everything_in(saved) == before
    with pytest.raises(OSError, match=r"cannot be saved \(No space left.*new"):
        skfair.save(fitted("ClusterMarginClassifier", n_units=3)[0], saved.parent / "new")
    assert not (saved.parent / "new").exists()


def test_a_reader_beside_a_process_that_saves_the_same_again(saved):
    code = f"""
import skfair
model = skfair.load({str(saved)!r})
print("ready", flush=True)
while True:
    skfair.save(model, {str(saved)!r})
"""
    expected = skfair.load(saved).predict_proba(X)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout.readline() == "ready\n"
            for _ in range(300):
                np.testing.assert_array_equal(skfair.load(saved).predict_proba(X), expected)
        finally:
            writer.kill()
    np.testing.assert_array_equal(skfair.load(saved).predict_proba(X), expected)


def test_a_foreign_lock_is_not_waited_for(saved):
    fcntl = pytest.importorskip("fcntl")
    for name in (saved, saved / FILE):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            assert skfair.load(saved).n_units == 8
            skfair.save(fitted("ClusterMarginClassifier")[0], saved)
        finally:
            os.close(descriptor)


def test_a_file_that_is_cut_after_loading(saved):
    loaded = skfair.load(saved)
    expected = loaded.predict_proba(X)
    os.truncate(saved / FILE, 10)
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)


def test_a_model_is_read_by_whoever_may_read_new_files(saved):
    (saved / "new").touch()
    assert stat.S_IMODE((saved / FILE).stat().st_mode) == stat.S_IMODE(
        (saved / "new").stat().st_mode
    )


def test_several_writers_and_a_reader(saved):
    estimators = [fitted("ClusterMarginClassifier", n_units=n)[0] for n in (2, 3, 4)]
    expected = {e.n_units: e.predict_proba(X) for e in estimators}
    expected[8] = fitted("ClusterMarginClassifier")[0].predict_proba(X)
    errors = []

    def write(estimator):
        try:
            for _ in range(8):
                skfair.save(estimator, saved)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=[e]) for e in estimators]
    for thread in threads:
        thread.start()
    n_read = 0
    while any(thread.is_alive() for thread in threads):
        loaded = skfair.load(saved)
        n_read += 1
        np.testing.assert_array_equal(loaded.predict_proba(X), expected[loaded.n_units])
    assert not errors
    assert n_read
    assert skfair.load(saved).n_units in (2, 3, 4)
    assert os.listdir(saved) == [FILE]
