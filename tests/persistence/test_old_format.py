"""Models of skfair 0.1, also forged ones, are checked against the same table."""

import hashlib
import json
import shutil
import time

import numpy as np
import pytest
from saved_models import forge_old, make_encoder, make_network
from test_archive import ARCHIVE

import skfair
from skfair.persistence import InvalidModelError

FACTORIES = {"encoder": make_encoder, "estimator": make_network}


@pytest.fixture
def old(tmp_path):
    def copy(name):
        return shutil.copytree(ARCHIVE / "0.1.0" / name, tmp_path / name)

    return copy


def refused(path, change, message=".", factories=None):
    """Load a forged model, and return the message of the error."""
    forge_old(path, change)
    with pytest.raises(InvalidModelError, match=message) as raised:
        skfair.load(path, factories=factories)
    return str(raised.value)


def pointer(address, shape):
    """An object that NumPy would take for an array at an address, and read or crash there."""
    return {
        "estimator": {
            "class": "sklearn.dummy.DummyClassifier",
            "parameters": {},
            "state": {
                "__array_interface__": {
                    "dict": [
                        ["data", {"tuple": [address, True]}],
                        ["shape", {"tuple": shape}],
                        ["typestr", "<f8"],
                        ["version", 3],
                    ]
                },
                "shape": {"tuple": shape},
            },
        }
    }


@pytest.mark.parametrize("name", ["_probe", "mean_map_", "channel_mean_", "temperature_"])
def test_an_estimator_with_the_face_of_an_array(name, old):
    model = old("PatchAttributionMasker")

    def change(body):
        body["estimator"]["state"][name] = pointer(16, [3, 2])

    if name == "_probe":  # outputs of a network of skfair need no comparison
        forge_old(model, change)
        assert not hasattr(skfair.load(model), "_probe")
        return
    assert refused(model, change, "where none is allowed")


def test_outputs_to_compare_with_that_are_no_array(old):
    model = old("ThresholdDebiaser")

    def change(body):
        body["estimator"]["state"]["_probe"] = pointer(16, [3])

    assert refused(model, change, "where none is allowed", FACTORIES["estimator"])


def test_a_step_that_reads_memory(old):
    model = old("pipeline")
    secret = np.array([1234.5, 6789.25, 1.0, 2.0])

    def change(body):
        scaler = body["estimator"]["parameters"]["steps"][0]["tuple"][1]["estimator"]
        scaler["state"]["mean_"] = pointer(secret.ctypes.data, [4])

    assert refused(model, change, "where none is allowed")


@pytest.mark.parametrize("n_rows", [10**6, 10**9, 10**18])
def test_samples_of_absurd_size(n_rows, old):
    model = old("ThresholdDebiaser")

    def change(body):
        body["estimator"]["state"]["_sample_shape"] = {"tuple": [n_rows, 4]}

    assert refused(model, change, "_sample_shape", FACTORIES["estimator"])


K = 2**61 - 1  # multiples of it have the same hash


@pytest.mark.parametrize(
    "value",
    [
        {"array": {"dtype": "<f8", "shape": [99] * 100_000, "items": []}},
        {"dict": [[i * K, 0] for i in range(100_000)]},
        {
            "DataFrame": {
                "rows": 0,
                "index": None,
                "columns": [
                    [i * K, "float64", {"array": {"dtype": "<f8", "shape": [0], "items": []}}]
                    for i in range(20_000)
                ],
            }
        },
        {"array": {"dtype": "O", "shape": [100_000], "items": [i * K for i in range(100_000)]}},
    ],
    ids=["shape", "dict", "columns", "labels"],
)
def test_what_would_take_time_out_of_proportion(value, old):
    model = old("ClusterMarginClassifier")
    started = time.process_time()
    assert refused(model, lambda body: body["estimator"]["state"].update(classes_=value))
    # Quadratic code would take minutes. The test asserts only that the loading ends.
    assert time.process_time() - started < 60


@pytest.mark.parametrize(
    "name",
    ["../config.json", "/etc/passwd", "files/../../x", "link/x", "x\0y", ".", "", 3, None, "C:/x"],
)
def test_paths_that_leave_the_folder(name, old, tmp_path):
    model = old("ClusterMarginClassifier")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "x").write_bytes(b"secret")
    (model / "link").symlink_to(tmp_path / "home")
    part = {"name": name, "size": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    assert refused(model, lambda body: body.update(files={"encoder": [part]}))


def test_one_file_is_read_once(old):
    model = old("ClusterMarginClassifier")
    (model / "x").write_bytes(b"x" * 1000)
    part = {"name": "x", "size": 1000, "sha256": hashlib.sha256(b"x" * 1000).hexdigest()}
    assert refused(
        model, lambda body: body.update(files={f"{i}": [part] for i in range(9)}), "twice"
    )


def test_a_file_that_nothing_names(old):
    model = old("ClusterMarginClassifier")
    (model / "x").write_bytes(b"x" * 1000)
    part = {"name": "x", "size": 1000, "sha256": hashlib.sha256(b"x" * 1000).hexdigest()}
    assert refused(model, lambda body: body.update(files={"a": [part]}), "is not used")


def test_damage_is_found(old):
    model = old("ClusterMarginClassifier")
    for name in ("config.json", "model.safetensors"):
        content = (model / name).read_bytes()
        for position in range(0, len(content), len(content) // 40):
            changed = bytearray(content)
            changed[position] ^= 0x10
            (model / name).write_bytes(changed)
            with pytest.raises(InvalidModelError):
                skfair.load(model)
        (model / name).write_bytes(content)
    (model / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        skfair.load(model)


def test_a_kill_of_the_old_version_between_two_names(old):
    model = old("ClusterMarginClassifier")
    expected = skfair.load(model).predict_proba(np.zeros((1, 4)))
    sha256 = json.loads((model / "config.json").read_text())["body"]["weights"]["sha256"]
    content = (model / "model.safetensors").read_bytes()
    (model / f"model.safetensors.{sha256[:16]}").write_bytes(content)
    (model / "model.safetensors").write_bytes(b"of the model before")
    found = skfair.load(model).predict_proba(np.zeros((1, 4)))
    np.testing.assert_array_equal(found, expected)


def test_a_model_of_the_old_version_is_not_saved_over(old):
    model = old("ClusterMarginClassifier")
    loaded = skfair.load(model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    with pytest.raises(FileExistsError, match=r"skfair 0\.1.*another folder"):
        skfair.save(loaded, model)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    skfair.save(loaded, model.parent / "new")
    np.testing.assert_array_equal(
        skfair.load(model.parent / "new").predict_proba(np.zeros((1, 4))),
        loaded.predict_proba(np.zeros((1, 4))),
    )
