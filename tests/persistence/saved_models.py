"""Small fitted estimators, and functions that alter a saved one and correct its digest."""

import json
import warnings

import numpy as np
import onnx
import torch
from biased_rows import biased_rows
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import skfair
from skfair.persistence import _files, _old_format
from skfair.utils import FairnessWarning

N = 120


def make_data():
    rng = np.random.default_rng(0)
    X, y, groups = biased_rows(rng, N)
    images = rng.integers(0, 200, size=(N, 6, 6, 3), dtype=np.uint8)
    images[groups == 1, :3, :3] += 50
    return X, y, groups, images


X, Y, GROUPS, IMAGES = make_data()


def make_network():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))


def make_encoder():
    return nn.Conv2d(3, 5, 3)


def fitted(name, **parameters):
    """Fit an estimator of skfair quickly. Return it, and data to predict."""
    cls = getattr(skfair, name)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", FairnessWarning)
        torch.manual_seed(1)  # other weights than those that a factory draws
        if name == "FrozenEncoderFeaturizer":
            return cls(**{"encoder": make_encoder(), **parameters}).fit(IMAGES), IMAGES
        if name == "PatchAttributionMasker":
            parameters = {"patch_size": 3, "stride": 1, "max_epochs": 1, **parameters}
            parameters = {"check_leakage": False, **parameters}
            masker = cls(random_state=0, **parameters)
            return masker.fit(IMAGES, sensitive_features=GROUPS), IMAGES
        if name == "ClusterMarginClassifier":
            parameters = {"n_units": 8, "max_epochs": 2, **parameters}
            return cls(random_state=0, **parameters).fit(X, Y), X
        if name == "LogitAdjustedClassifier":
            known = np.where(np.arange(N) % 3, np.nan, GROUPS)  # some rows have no label
            return cls(random_state=0, **parameters).fit(X, Y, sensitive_features=known), X
        known = {"n_trials": 5, "n_calls": 12, "max_epochs": 2}
        quick = {k: v for k, v in known.items() if k in cls(None).get_params(deep=False)}
        parameters = {"estimator": make_network(), "output": "logits", **quick, **parameters}
        debiaser = cls(random_state=0, **parameters)
        return debiaser.fit(X, Y, sensitive_features=GROUPS), X


def outputs(estimator, X):
    """Return all outputs of an estimator for samples."""
    names = ["predict", "predict_proba", "decision_function", "transform", "predict_cluster"]
    names += ["mask", "attribute", "attribute_proba"]
    return {
        name: np.asarray(getattr(estimator, name)(X)) for name in names if hasattr(estimator, name)
    }


def assert_same_outputs(one, two, X):
    expected, found = outputs(one, X), outputs(two, X)
    assert expected.keys() == found.keys()
    for name in expected:
        assert expected[name].dtype == found[name].dtype
        np.testing.assert_array_equal(expected[name], found[name], err_msg=name)


def parts(path):
    """Return the description and the tensors of a saved model."""
    return _files.read_model(path)


def put(path, body, tensors):
    """Write any content in the format of a model, as a forger would."""
    (path / "model.safetensors").write_bytes(b"".join(_files._pack(body, tensors)))


def forge(path, change):
    """Alter the description of a model, and correct its digest."""
    body, tensors = parts(path)
    change(body)
    put(path, body, tensors)


def forge_old(path, change):
    """Do the same for a model of skfair 0.1."""
    config = json.loads((path / "config.json").read_text())
    change(config["body"])
    config["sha256"] = _old_format._digest(config["body"])
    (path / "config.json").write_text(json.dumps(config))


def write_onnx(path, location=None):
    """Write an encoder that multiplies by a matrix, which may be in a separate file."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3)
    tensor = numpy_helper.from_array(weight, "weight")
    path.parent.mkdir(exist_ok=True)
    if location is not None:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(numpy_helper.from_array(weight, "weight"))
        onnx.external_data_helper.set_external_data(tensor, location=location)
        tensor.ClearField("raw_data")
        (path.parent / location).parent.mkdir(exist_ok=True)
        (path.parent / location).write_bytes(weight.tobytes())
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "weight"], ["features"])],
        "encoder",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path
