"""Models that earlier versions have saved are loaded, and predict what they did."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
from safetensors.numpy import load_file
from saved_models import make_encoder, make_network, outputs
from sklearn.exceptions import InconsistentVersionWarning

import skfair

ARCHIVE = Path(__file__).parent / "archive"
MODELS = sorted(path.parent for path in ARCHIVE.glob("*/*/config.json"))


def load(path):
    config = json.loads((path / "config.json").read_text())["body"]
    made = {"encoder": make_encoder, "estimator": make_network}
    factories = {name: made[name] for name in config["made_by_caller"]}
    other = config["versions"]["scikit-learn"] != sklearn.__version__
    if config["class"].startswith("sklearn.") and other:
        with pytest.warns(InconsistentVersionWarning):
            return skfair.load(path, factories=factories)
    return skfair.load(path, factories=factories)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_archived_models_predict_what_they_did(path):
    estimator = load(path)
    expected = load_file(path.parent / "expected.safetensors")
    images = path.name.startswith(("FrozenEncoder", "PatchAttribution"))
    found = outputs(estimator, expected["images" if images else "X"])
    assert found
    for method, values in found.items():
        if values.dtype.kind == "U":
            values = np.searchsorted(estimator.classes_, values)
        # Another machine's last bits may differ.
        np.testing.assert_allclose(values, expected[f"{path.name}.{method}"], rtol=1e-5, atol=1e-6)


def test_the_archive_has_every_estimator_of_this_version():
    names = {path.name for path in MODELS if path.parent.name == skfair.__version__}
    assert names >= {name for name, _ in skfair.utils.all_estimators()}


def test_a_step_of_another_scikit_learn_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sklearn, "__version__", "99.0")
    path = ARCHIVE / skfair.__version__
    with pytest.warns(InconsistentVersionWarning, match=r"99\.0"):
        skfair.load(path / "pipeline")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of an estimator of skfair alone there is nothing to say
        skfair.load(path / "ClusterMarginClassifier")
