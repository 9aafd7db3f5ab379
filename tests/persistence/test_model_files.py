"""The files of a saved model: what is refused, and what a kill or a full disk leaves."""

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_models import X, assert_same_outputs, fitted, forge, make_encoder, make_network
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import skfair
from skfair.utils import InvalidModelError
from skfair.utils._persistence import _files


def estimator_in(path):
    return json.loads((path / "config.json").read_text())["body"]["estimator"]


# Refused ----------------------------------------------------------------------------------


def test_what_is_no_saved_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config.json.*save was given"):
        skfair.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        skfair.load(tmp_path)


def set_schema(path, value):
    config = json.loads((path / "config.json").read_text())
    config["schema_version"] = value
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("version", [0, 2, "1", None, 99])
def test_schemas_of_other_versions(version, saved):
    set_schema(saved, version)
    with pytest.raises(InvalidModelError, match=r"schema version .*with the version of skfair"):
        skfair.load(saved)


def test_every_byte_of_the_weights_counts(saved):
    file = saved / "model.safetensors"
    content = file.read_bytes()
    for position in range(0, len(content), len(content) // 40):
        changed = bytearray(content)
        changed[position] ^= 0x10
        file.write_bytes(changed)
        with pytest.raises(InvalidModelError, match="altered"):
            skfair.load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_files_that_were_cut(name, saved):
    content = (saved / name).read_bytes()
    for length in [0, 1, 10, len(content) // 2, len(content) - 1]:
        (saved / name).write_bytes(content[:length])
        with pytest.raises(InvalidModelError):
            skfair.load(saved)
    (saved / name).write_bytes(content + b" ")
    if name == "model.safetensors":
        with pytest.raises(InvalidModelError, match="bytes"):
            skfair.load(saved)


def test_a_missing_file(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(InvalidModelError, match="missing"):
        skfair.load(saved)


def test_weights_of_another_model(saved, tmp_path):
    skfair.save(fitted("ClusterMarginClassifier", n_units=9)[0], tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", saved)
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
        b'{"format": "skfair", "format": "skfair"}',
        b'{"format": "other"}',
        b'{"format": "skfair", "schema_version": 1}',
        b'{"format": "skfair", "schema_version": 1, "sha256": 3, "body": NaN}',
        b'{"format": "skfair", "schema_version": 1, "sha256": "", "body": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda text: repr(text[:40]),
)
def test_other_json(text, saved):
    (saved / "config.json").write_bytes(text)
    with pytest.raises(InvalidModelError):
        skfair.load(saved)


def test_a_huge_config_is_not_read(saved, monkeypatch):
    monkeypatch.setattr(_files, "_MAX_CONFIG", 100)
    with pytest.raises(InvalidModelError, match="at most 100 are read"):
        skfair.load(saved)
    with pytest.raises(ValueError, match="at most are read"):
        skfair.save(fitted("ClusterMarginClassifier")[0], saved.parent / "new")
    assert not (saved.parent / "new").exists()


def refused(saved, change, message="."):
    """What the error says where a forged model is loaded."""
    forge(saved, change)
    with pytest.raises(InvalidModelError, match=message) as raised:
        skfair.load(saved)
    return str(raised.value)


@pytest.mark.parametrize(
    "name", ["builtins.eval", "os.system", "sklearn.pipeline.make_pipeline", "sklearn.svm.SVC",
             "skfair.save", "skfair.utils.estimator_checks", "torch.nn.Linear", "", None, 3,
             "skfair.margin._stages.ClusterMarginStages", "marker.Class"],
)  # fmt: skip
def test_only_named_classes_are_made(name, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "marker", types.ModuleType("marker"))
    assert refused(
        saved, lambda body: body["estimator"].update({"class": name}), "Nothing of that name"
    )


def test_parameters_that_are_not_of_the_class(saved):
    assert refused(saved, lambda body: body["estimator"]["parameters"].update(other=3), "'other'")


def test_where_things_are_kept_is_not_for_a_file_to_say(tmp_path):
    skfair.save(fitted("FrozenEncoderFeaturizer")[0], tmp_path / "model")
    forge(
        tmp_path / "model",
        lambda body: body["estimator"]["parameters"].update(memory="/etc/skfair.sqlite"),
    )
    with pytest.raises(InvalidModelError, match="memory"):
        skfair.load(tmp_path / "model", factories=make_encoder)
    skfair.save(make_pipeline(fitted("ClusterMarginClassifier")[0]), tmp_path / "pipeline")
    forge(tmp_path / "pipeline", lambda body: body["estimator"]["parameters"].update(memory="/tmp"))
    with pytest.raises(InvalidModelError, match="memory"):
        skfair.load(tmp_path / "pipeline")


def test_paths_that_leave_the_directory(tmp_path):
    model, outside = tmp_path / "model", tmp_path / "outside.onnx"
    outside.write_bytes(b"secret")
    described = _files._describe(outside)

    def encoder(value):
        def change(body):
            body["estimator"]["parameters"]["encoder"] = value
            body["made_by_caller"] = {}

        return change

    def listed(name):
        def change(body):
            encoder({"file": "encoder"})(body)
            body["files"] = {"encoder": [{"name": name, **described}]}

        return change

    featurizer, _ = fitted("FrozenEncoderFeaturizer")
    (tmp_path / "other").mkdir()
    for change in [encoder(str(outside)), listed("../outside.onnx"), listed(str(outside))]:
        skfair.save(featurizer, model)
        assert refused(model, change, "outside")
    skfair.save(featurizer, model)
    (model / "link.onnx").symlink_to(outside)
    assert refused(model, listed("link.onnx"), "outside")
    (model / "link.onnx").unlink()
    for name in ["none.onnx", "a\0b", ".", "", 3, None]:
        skfair.save(featurizer, model)
        assert refused(model, listed(name))


def test_weights_and_config_that_are_links_to_elsewhere(saved):
    for name in ("model.safetensors", "config.json"):
        elsewhere = saved.parent / name
        shutil.move(saved / name, elsewhere)
        (saved / name).symlink_to(elsewhere)
        with pytest.raises(InvalidModelError, match="outside"):
            skfair.load(saved)
        (saved / name).unlink()
        shutil.move(elsewhere, saved / name)
    assert skfair.load(saved).n_features_in_ == 4


def swap_weights(path, change):
    """Put other tensors into a model, with the digest that they have."""
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")
    described = _files._describe(path / "model.safetensors")
    forge(path, lambda body: body["weights"].update(described))


NAME = "module_.adapter.linear.weight"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tensors: tensors.update({NAME: torch.zeros(3, 4)}), r"shape \(3, 4\) in the file"),
        (lambda tensors: tensors.update({NAME: tensors[NAME].double()}), "float64"),
        (lambda tensors: tensors.pop(NAME), NAME),
        (lambda tensors: tensors.update({"labels_": torch.zeros(3)}), "labels_"),
    ],
)
def test_tensors_of_other_names_shapes_and_types(change, message, saved):
    swap_weights(saved, change)
    with pytest.raises(InvalidModelError, match=message):
        skfair.load(saved)


def one_hot(tmp_path):
    encoder = OneHotEncoder().fit(np.array([[0.0], [1.0], [2.0]]))
    skfair.save(make_pipeline(encoder), tmp_path / "encoder")
    return tmp_path / "encoder"


def state_of_step(body):
    (step,) = body["estimator"]["parameters"]["steps"]
    return step["tuple"][1]["estimator"]["state"]


@pytest.mark.parametrize(
    "change",
    [
        {"_n_features_outs": [2**30]},
        {"_n_features_outs": [2]},
        {"_drop_idx_after_grouping": {"array": {"dtype": "O", "shape": [1], "items": [7]}}},
        {"_infrequent_enabled": True},
        {"categories_": [{"array": {"dtype": "<f8", "shape": [3], "items": [2.0, 1.0, 0.0]}}]},
        {"categories_": []},
    ],
    ids=str,
)
def test_columns_that_compiled_code_would_follow_out_of_an_array(change, tmp_path):
    # scipy writes where these say, without looking.
    assert refused(one_hot(tmp_path), lambda body: state_of_step(body).update(change))


def test_infrequent_categories_are_not_saved(tmp_path):
    encoder = OneHotEncoder(min_frequency=2).fit(np.array([[0.0], [0.0], [2.0]]))
    with pytest.raises(TypeError, match=r"min_frequency.*joblib"):
        skfair.save(encoder, tmp_path / "encoder")
    dropping = OneHotEncoder(drop="first").fit(np.array([[0.0, 1.0], [np.nan, 2.0]]))
    skfair.save(dropping, tmp_path / "encoder")
    np.testing.assert_array_equal(
        skfair.load(tmp_path / "encoder").transform([[np.nan, 2.0]]).toarray(), [[1.0, 1.0]]
    )


def test_a_path_in_disguise(tmp_path):
    skfair.save(fitted("FrozenEncoderFeaturizer")[0], tmp_path / "model")
    text = {"scalar": {"array": {"dtype": "<U20", "shape": [], "items": ["/tmp/encoder.onnx"]}}}

    def change(body):
        body["estimator"]["parameters"]["encoder"] = text
        body["made_by_caller"] = {}

    assert refused(tmp_path / "model", change, "a path outside of the model")


def test_one_tensor_is_used_once(saved):
    def change(body):
        state = body["estimator"]["state"]
        state["again_"] = state["labels_"]

    assert refused(saved, change, "again_|labels_")


def test_a_file_is_read_once_however_often_it_is_named(tmp_path, monkeypatch):
    skfair.save(fitted("ClusterMarginClassifier")[0], tmp_path / "model")
    (tmp_path / "model" / "part").write_bytes(b"x")
    part = {"name": "part", **_files._describe(tmp_path / "model" / "part")}
    forge(tmp_path / "model", lambda body: body.update(files={"a": [part] * 400}))
    read, describe = [], _files._describe
    monkeypatch.setattr(_files, "_describe", lambda file: read.append(file) or describe(file))
    skfair.load(tmp_path / "model")
    assert len(read) == 2  # with the weights
    other = {**part, "size": 3}
    assert refused(tmp_path / "model", lambda body: body["files"].update(b=[other]), "twice")


def test_absurd_sizes_take_no_memory(saved):
    # A layer of 10**15 weights would be petabytes; it is compared with the file before it is made.
    def change(body):
        (written,) = [
            pair
            for pair in body["estimator"]["state"]["_network_parameters"]["dict"]
            if pair[0] == "module__n_units"
        ]
        written[1] = 10**15

    assert refused(saved, change, "is not the network whose weights were saved")


def test_safetensors_that_claim_absurd_sizes(saved):
    header = json.dumps({"t": {"dtype": "F64", "shape": [10**15], "data_offsets": [0, 8 * 10**15]}})
    for claim in (len(header), 10**18):
        content = claim.to_bytes(8, "little") + header.encode() + bytes(64)
        (saved / "model.safetensors").write_bytes(content)
        described = _files._describe(saved / "model.safetensors")
        assert refused(saved, lambda body, d=described: body["weights"].update(d), "no safetensors")


@pytest.mark.parametrize(
    "name", ["predict", "_logits", "fit", "__class__", "n_clusters", "a b", "__dict__", ""]
)
def test_attributes_that_would_hide_methods(name, saved):
    assert refused(
        saved, lambda body: body["estimator"]["state"].update({name: 1}), "no fitted attribute"
    )


@pytest.mark.parametrize("part", ["class", "parameters", "state"])
@pytest.mark.parametrize("value", [None, 3, "text", []])
def test_estimators_that_are_malformed(part, value, saved):
    assert refused(saved, lambda body: body["estimator"].update({part: value}))


def test_state_that_is_incomplete(tmp_path):
    skfair.save(fitted("ThresholdDebiaser")[0], tmp_path / "debiaser")
    skfair.save(fitted("PatchAttributionMasker")[0], tmp_path / "masker")
    skfair.save(fitted("ClusterMarginClassifier")[0], tmp_path / "margin")
    for model, names in {
        "debiaser": ["_output", "module_", "threshold_"],
        "masker": ["_network_parameters", "classes_", "image_shape_"],
        "margin": ["_network_parameters", "classes_", "margins_"],
    }.items():
        state = estimator_in(tmp_path / model)["state"]
        for name in names:
            assert name in state
            copy = shutil.copytree(tmp_path / model, tmp_path / f"{model}{name}")
            forge(copy, lambda body, name=name: body["estimator"]["state"].pop(name))
            factories = make_network if model == "debiaser" else None
            with pytest.raises(InvalidModelError):
                skfair.load(copy, factories=factories)


def test_requests_and_output_that_are_none(saved):
    for i, (part, value) in enumerate(
        [
            ("output", {"predict": "pandas"}),
            ("output", {"transform": "os"}),
            ("output", {}),
            ("requests", {"fit": {"other": True}}),
        ]
    ):
        copy = shutil.copytree(saved, saved.parent / str(i))
        assert refused(copy, lambda body, p=part, v=value: body["estimator"].update({p: v}))


# Written ----------------------------------------------------------------------------------


def test_what_is_there_already_is_not_touched(tmp_path):
    estimator, _ = fitted("ClusterMarginClassifier")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        skfair.save(estimator, tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"other files \('notes.txt'\)"):
        skfair.save(estimator, tmp_path / "folder")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"architectures": []}')
    with pytest.raises(FileExistsError, match="not of skfair"):
        skfair.save(estimator, tmp_path / "bert")
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "bert" / "config.json").read_text() == '{"architectures": []}'
    skfair.save(estimator, tmp_path / "new" / "and" / "deep")
    assert_same_outputs(skfair.load(tmp_path / "new" / "and" / "deep"), estimator, X)


def test_files_beside_a_saved_model_stay(saved):
    (saved / "README.md").write_text("mine")
    skfair.save(fitted("ClusterMarginClassifier", n_units=3)[0], saved)
    assert (saved / "README.md").read_text() == "mine"


HEX = "0123456789abcdef"


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": '{"architectures": []}', "model.safetensors": "theirs"},
        {"config.json": "{", "model.safetensors": "theirs"},
        {"config.json": "[]"},
        {"model.safetensors": "theirs"},
        {"model.safetensors.index.json": "theirs"},
        {"config.json.old": "mine"},
        {"files/notes.txt": "mine"},
        {f"files/{HEX}/part": "left", "files/notes.txt": "mine"},
    ],
    ids=lambda files: " ".join(files),
)
def test_models_of_others_are_not_taken_for_ours(files, tmp_path):
    # Hugging Face has files of the same names.
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(FileExistsError, match=r"other files|not of skfair, or was damaged"):
        skfair.save(fitted("ClusterMarginClassifier")[0], tmp_path)
    for name, text in files.items():
        assert (tmp_path / name).read_text() == text


def test_what_is_beside_a_model_stays_and_what_kills_left_goes(saved):
    mine = ["model.safetensors.old", "config.json~", "files/notes.txt", "files/sub/notes.txt"]
    left = [".saving/model.safetensors", f"model.safetensors.{HEX}", f"files/{HEX}/a/b.onnx"]
    for name in mine + left:
        (saved / name).parent.mkdir(parents=True, exist_ok=True)
        (saved / name).write_text("text")
    skfair.save(fitted("ClusterMarginClassifier", n_units=3)[0], saved)
    there = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()}
    assert there == {"config.json", "model.safetensors", *mine}
    assert not (saved / "files" / HEX).exists()
    assert not (saved / ".saving").exists()


class Killed(BaseException):
    pass


@pytest.fixture
def killed_at(monkeypatch):
    """Stop a save at its n-th step on the disk, with nothing tidied up after it."""

    @contextlib.contextmanager
    def at(n_steps):
        left = [n_steps]

        def step(function):
            def run(*arguments, **keywords):
                if not left[0]:
                    monkeypatch.setattr(_files, "_remove_unnamed", lambda path: None)
                    raise Killed
                left[0] -= 1
                return function(*arguments, **keywords)

            return run

        with monkeypatch.context() as patches:
            for name in ("save_file", "_sync", "_describe"):
                patches.setattr(_files, name, step(getattr(_files, name)))
            patches.setattr(_files.os, "replace", step(os.replace))
            patches.setattr(_files.shutil, "copyfile", step(shutil.copyfile))
            tidy = _files._remove_unnamed
            try:
                yield
            finally:
                monkeypatch.setattr(_files, "_remove_unnamed", tidy)

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
        assert_same_outputs(loaded, {8: old, 5: new}[loaded.n_units], X)
        # The next save is none the worse for it.
        third, _ = fitted("ClusterMarginClassifier", n_units=3)
        skfair.save(third, saved)
        assert_same_outputs(skfair.load(saved), third, X)
        assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]
        shutil.rmtree(saved)
        shutil.copytree(original, saved)
    assert seen == sorted(seen, reverse=True)  # once the new one is there it stays
    assert set(seen) == {5, 8}
    assert n_steps > 5


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
        with contextlib.suppress(FileNotFoundError):  # the one answer beside the whole model
            assert_same_outputs(skfair.load(path), new, X)
        skfair.save(new, path)
        assert_same_outputs(skfair.load(path), new, X)
    assert n_steps > 5


def test_an_error_while_writing_leaves_the_old_model_and_nothing_else(saved, monkeypatch):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(tensors, file):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        skfair.save(fitted("ClusterMarginClassifier", n_units=3)[0], saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


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


def test_whoever_may_read_one_file_may_read_the_other(saved):
    modes = {stat.S_IMODE((saved / n).stat().st_mode) for n in ("config.json", "model.safetensors")}
    (saved / "new").touch()
    assert modes == {stat.S_IMODE((saved / "new").stat().st_mode)}


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
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]
