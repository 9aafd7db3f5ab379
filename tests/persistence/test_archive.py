"""Models that earlier versions saved are loaded, and predict the same as before."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from safetensors.numpy import load_file
from saved_models import make_encoder, make_network, outputs, parts
from sklearn.exceptions import InconsistentVersionWarning

import skfair
from skfair.attribution._grid import PatchGrid

ARCHIVE = Path(__file__).parent / "archive"
MODELS = sorted(path.parent for path in ARCHIVE.glob("*/*/model.safetensors"))


def load(path):
    old = path / "config.json"  # of 0.1
    config = json.loads(old.read_text())["body"] if old.exists() else parts(path)[0]
    made = {"encoder": make_encoder, "estimator": make_network}
    factories = {name: made[name] for name in config["made_by_caller"]}
    other = config["versions"]["scikit-learn"] != sklearn.__version__
    if config["estimator"]["class"].startswith("sklearn.") and other:
        with pytest.warns(InconsistentVersionWarning):
            return skfair.load(path, factories=factories)
    return skfair.load(path, factories=factories)


def assert_same_maps(masker, images, found, expected):
    """Compare pixel maps in the unit of the confidence, before they are scaled to 0 to 1.

    For a masker with little training, the values of a map differ by only some hundredths of a nat.
    Scaling turns the last bit of a float32 near ln 2 into some millionths, and into more if the map
    is flatter. Each of the two compared maps is computed from three numbers: a pixel, the lowest
    pixel and the highest pixel. Each of these numbers has about three roundings by half a unit in
    the last place: in the sum of the entropy, and in two products with small matrices.
    """
    confidence = masker.region_map(images)
    grid = PatchGrid(*images.shape[1:3], masker.patch_size, masker.stride)
    pixels = grid.pixel_map(torch.from_numpy(confidence)).numpy()
    height = np.ptp(pixels, axis=(-2, -1), keepdims=True)
    atol = 3 * 2 * 3 * np.spacing(np.abs(confidence).max()) / 2
    np.testing.assert_allclose(found * height, expected * height, rtol=0, atol=atol)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_archived_models_predict_what_they_did(path):
    estimator = load(path)
    expected = load_file(path.parent / "expected.safetensors")
    images = path.name.startswith(("FrozenEncoder", "PatchAttribution"))
    X = expected["images" if images else "X"]
    found = outputs(estimator, X)
    assert found
    for method, values in found.items():
        if values.dtype.kind == "U":
            values = np.searchsorted(estimator.classes_, values)
        archived = expected[f"{path.name}.{method}"]
        if method == "attribute":
            assert_same_maps(estimator, X, values, archived)
        else:
            # On another machine, the last bits of numbers of about 1 may differ.
            np.testing.assert_allclose(values, archived, rtol=1e-5, atol=1e-6)


def test_the_archive_has_every_estimator_of_this_version():
    names = {path.name for path in MODELS if path.parent.name == skfair.__version__}
    missing = {name for name, _ in skfair.discovery.all_estimators()} - names
    # Those made since are in the changelog; make_archive.py archives them at the next release.
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    unreleased = changelog.partition("## [Unreleased]")[2].partition("\n## [")[0]
    added = unreleased.partition("### Added")[2].partition("\n### ")[0]
    assert missing == {name for name in missing if f"`{name}`" in added}
    assert len(names) > len(missing)


def test_a_step_of_another_scikit_learn_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sklearn, "__version__", "99.0")
    path = ARCHIVE / skfair.__version__
    with pytest.warns(InconsistentVersionWarning, match=r"99\.0"):
        skfair.load(path / "pipeline")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # loading an estimator of skfair alone gives no warning
        skfair.load(path / "ClusterMarginClassifier")


def test_the_script_that_saves_the_models_finds_what_it_needs():
    code = "import make_archive"  # as the script is imported, its main does not run
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ARCHIVE.parent)
