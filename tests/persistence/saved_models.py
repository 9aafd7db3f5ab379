"""Small fitted estimators, and a way to alter a saved one and make its digest right again."""

import json
import warnings

import numpy as np
import torch
from biased_rows import biased_rows
from torch import nn

import skfair
from skfair.utils import FairnessWarning
from skfair.utils._persistence._files import _digest

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
    """Fit an estimator of skfair in a moment; returns it with what it predicts on."""
    cls = getattr(skfair, name)
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", FairnessWarning)
        torch.manual_seed(1)  # not the weights that a factory draws
        if name == "FrozenEncoderFeaturizer":
            return cls(**{"encoder": make_encoder(), **parameters}).fit(IMAGES), IMAGES
        if name == "PatchAttributionMasker":
            parameters = {"patch_size": 3, "stride": 1, "max_epochs": 1, **parameters}
            masker = cls(random_state=0, **parameters)
            return masker.fit(IMAGES, sensitive_features=GROUPS), IMAGES
        if name == "ClusterMarginClassifier":
            parameters = {"n_units": 8, "max_epochs": 2, **parameters}
            return cls(random_state=0, **parameters).fit(X, Y), X
        known = {"n_trials": 5, "n_calls": 12, "max_epochs": 2}
        quick = {k: v for k, v in known.items() if k in cls(None).get_params(deep=False)}
        parameters = {"estimator": make_network(), "output": "logits", **quick, **parameters}
        debiaser = cls(random_state=0, **parameters)
        return debiaser.fit(X, Y, sensitive_features=GROUPS), X


def outputs(estimator, X):
    """Everything that an estimator computes of samples."""
    names = ["predict", "predict_proba", "decision_function", "transform", "predict_cluster"]
    names += ["mask", "attribute"]
    return {
        name: np.asarray(getattr(estimator, name)(X)) for name in names if hasattr(estimator, name)
    }


def assert_same_outputs(one, two, X):
    expected, found = outputs(one, X), outputs(two, X)
    assert expected.keys() == found.keys()
    for name in expected:
        assert expected[name].dtype == found[name].dtype
        np.testing.assert_array_equal(expected[name], found[name], err_msg=name)


def forge(path, change):
    """Alter what config.json says, as someone would who knows the format: digest included."""
    config = json.loads((path / "config.json").read_text())
    change(config["body"])
    config["sha256"] = _digest(config["body"])
    (path / "config.json").write_text(json.dumps(config))
