"""Small models that ask for much memory or time, for modules, or for outputs of another shape."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from saved_models import GROUPS, IMAGES, X, Y, fitted, parts, put
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import skfair
from skfair.datasets import load_digits_encoder


def scaler():
    return StandardScaler().fit(X)


def linear():
    return LogisticRegression().fit(X, Y)


def margin():
    return fitted("ClusterMarginClassifier", loss="cross_entropy")[0]


def masker():
    return fitted("PatchAttributionMasker")[0]


def digits():
    featurizer = skfair.FrozenEncoderFeaturizer(load_digits_encoder())
    return featurizer.fit(np.zeros((2, 3, 32, 32), np.uint8))


def debiaser():
    return fitted("ThresholdDebiaser", estimator=margin(), output="auto")[0]


def array(dtype, shape, items=()):
    return {"array": {"dtype": dtype, "shape": shape, "items": list(items)}}


def parameter(**changed):
    return lambda estimator, tensors: estimator["parameters"].update(changed)


def state(**changed):
    return lambda estimator, tensors: estimator["state"].update(changed)


def tensor(name, value):
    def change(estimator, tensors):
        for key in [key for key in tensors if key.startswith(name)]:
            del tensors[key]
        tensors["odd"] = value
        written = {"dtype": value.numpy().dtype.str, "shape": list(value.shape), "tensor": "odd"}
        estimator["state"][name] = {"array": written}

    return change


def text_column(estimator, tensors):
    for key in [key for key in tensors if key.startswith("trials_")]:
        del tensors[key]
    n_rows = 5_000_000
    tensors["odd"] = torch.arange(n_rows).to(torch.int8)
    column = {"array": {"dtype": "int8", "shape": [n_rows], "tensor": "odd"}}
    table = {"rows": n_rows, "index": "trial", "columns": [["candidate", "str", column]]}
    estimator["state"]["trials_"] = {"DataFrame": table}


def deep_lists(estimator, tensors):
    value = ["a"] * 30_000
    for _ in range(20):
        value = [value]
    estimator["parameters"]["class_weight"] = {"dict": [[0, value]]}


def many_steps(estimator, tensors):
    inner = dict(estimator)
    for _ in range(5):
        steps = [{"tuple": [f"a{i}", "passthrough"]} for i in range(3000)]
        parameters = {"steps": [*steps, {"tuple": ["z", {"estimator": inner}]}]}
        inner = {"class": "sklearn.pipeline.Pipeline", "parameters": parameters, "state": {}}
    estimator.clear()
    estimator.update(inner)


PREFIX = [257] * 480
COLLIDING = [
    {"tuple": PREFIX + [-1 - (i >> bit & 1) for bit in range(10)]}  # hash(-1) is hash(-2)
    for i in range(1000)
]
FORGERIES = {
    "wide text in a parameter": (scaler, parameter(copy=[array("<U16777216", [1], [""])] * 40)),
    "wide labels": (linear, state(classes_=array("<U8388608", [2], ["a", "b"]))),
    "long labels": (linear, state(classes_=array("<U900000", [2], ["a" * 900_000, "b"]))),
    "rows of nothing": (masker, tensor("region_accuracy_", torch.zeros(2**31, 0))),
    "rows of nothing in JSON": (masker, state(region_accuracy_=array("<f8", [2**31, 0]))),
    "numbers as a text column": (debiaser, text_column),
    "names of features out": (digits, state(n_features_out_=20_000_000)),
    "names of features in": (masker, state(n_features_in_=20_000_000)),
    "lists in lists": (linear, deep_lists),
    "steps": (scaler, many_steps),
    "a type that is a program": (scaler, parameter(copy=array("b," * 10**6 + "b", [0]))),
    "labels that meet": (linear, state(classes_=array("|O", [1000], COLLIDING))),
    "many lists": (scaler, parameter(copy=[[] for _ in range(1_000_000)])),
    "a device that is a module": (margin, parameter(device="hpu")),
    "a device without values": (margin, parameter(device="meta")),
    "other columns": (debiaser, state(_output={"tuple": ["logits", 1]})),
    "coefficients of NaN": (
        linear,
        tensor("coef_", torch.full((1, 4), np.nan, dtype=torch.float64)),
    ),
    "a number beyond torch": (masker, parameter(fill=10**400)),
    "labels that are no number": (
        linear,
        tensor("classes_", torch.tensor([0.0, np.nan], dtype=torch.float64)),
    ),
    "a colour of text": (masker, parameter(fill=array("<U3", [3], ["a", "b", "c"]))),
    "no clusters": (
        lambda: fitted("ClusterMarginClassifier")[0],
        tensor("cluster_centers_", torch.zeros(0, 8, dtype=torch.float64)),
    ),
    "a large sample": (masker, state(image_shape_={"tuple": [65536, 32, 32]})),
}
HARMLESS = {"other columns", "no clusters"}  # refused when loaded or when used


@pytest.fixture(scope="module")
def came(tmp_path_factory):
    """Load each in a process with little memory and time, and return what happened."""
    folder = tmp_path_factory.mktemp("forged")
    for i, (make, change) in enumerate(FORGERIES.values()):
        skfair.save(make(), folder / str(i), training_rows=True)
        body, tensors = parts(folder / str(i))
        change(body["estimator"], tensors)
        put(folder / str(i), body, tensors)
    code = f"""
import sys; sys.path[:] = {sys.path!r}
import json, warnings, forged, numpy as np, saved_models
from pathlib import Path
warnings.simplefilter("ignore")
folder = Path({str(folder)!r})
for i in range({len(FORGERIES)}):
    size = (folder / str(i) / "model.safetensors").stat().st_size
    print(json.dumps(forged.attempt(folder / str(i), size)), flush=True)
"""
    run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return dict(zip(FORGERIES, map(json.loads, run.stdout.splitlines()), strict=False))


@pytest.mark.parametrize("name", FORGERIES)
def test_a_small_model_that_asks_for_much(name, came):
    assert name in came, "the process ended"
    wrong, far = came[name]
    assert wrong is None
    assert far == "refused" or name in HARMLESS


def test_images_and_groups_are_what_the_forgeries_need():
    # `forged` uses the samples of the estimators above.
    assert IMAGES.shape[1:] == (6, 6, 3)
    assert len(GROUPS) == len(X)


def test_a_private_model_stays_private(saved):
    (saved / "model.safetensors").chmod(0o600)
    skfair.save(fitted("ClusterMarginClassifier")[0], saved)
    assert (saved / "model.safetensors").stat().st_mode & 0o777 == 0o600


def test_what_a_link_leads_to_is_not_looked_at(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "secret")
    from skfair.persistence import _files

    opened = []
    real = _files.open_regular
    monkeypatch.setattr(_files, "open_regular", lambda p, w: opened.append(p) or real(p, w))
    with pytest.raises(skfair.persistence.InvalidModelError, match="is a link"):
        skfair.load(tmp_path)
    assert not opened


ESCAPE = "\x1b[2J"


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["estimator"]["parameters"].update(loss=ESCAPE + "x" * 10**6),
        lambda body: body["estimator"].update({"class": ESCAPE * 1000}),
        lambda body: body["estimator"]["state"].update({ESCAPE * 1000: 1}),
        lambda body: body["estimator"]["parameters"].update({ESCAPE * 1000: 1}),
        lambda body: body["estimator"]["state"].update(loss_=ESCAPE * 1000),
        lambda body: body.update(versions={"scikit-learn": ESCAPE}),
        lambda body: body.update(versions=[]),
        lambda body: body.update(made_by_caller={ESCAPE * 1000: ESCAPE * 1000}),
        lambda body: body.update(made_by_caller={str(i): "x" for i in range(30_000)}),
    ],
)
def test_messages_are_short_and_plain(change, saved):
    body, tensors = parts(saved)
    change(body)
    put(saved, body, tensors)
    with pytest.raises(ValueError, match=r"\w") as raised:
        skfair.load(saved)
    assert "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 2000
