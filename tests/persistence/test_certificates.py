"""A debiaser is saved with its certificate, and a forged certificate is refused."""

import warnings

import numpy as np
import pandas as pd
import pytest
from saved_models import GROUPS, X, Y, fitted, forge, make_network

import skfair
from skfair.persistence import InvalidModelError
from skfair.utils import FairnessWarning

WORDS = np.array(["f", "m"])[GROUPS]
FEATURES = {
    "text": WORDS,
    "numbers": GROUPS + 3,
    "two columns": pd.DataFrame({"sex": WORDS, "old": GROUPS == 1}),
}


@pytest.mark.parametrize("epsilon", [0.3, 0.01])
@pytest.mark.parametrize("kind", FEATURES)
def test_certificates_come_back(kind, epsilon, tmp_path):
    saved = skfair.ThresholdDebiaser(
        make_network(), output="logits", epsilon=epsilon, confidence=0.9, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)
        saved.fit(X, Y, sensitive_features=FEATURES[kind])
    skfair.save(saved, tmp_path / "model")
    loaded = skfair.load(tmp_path / "model", factories=make_network)
    one, two = saved.certificate_, loaded.certificate_
    assert one.to_dict() == two.to_dict()
    assert one.group_sizes.index.tolist() == two.group_sizes.index.tolist()
    pd.testing.assert_frame_equal(one.pairs, two.pairs)
    assert str(one) == str(two)
    assert one._repr_html_() == two._repr_html_()
    pd.testing.assert_frame_equal(saved.pairs_, loaded.pairs_)


@pytest.fixture
def saved(tmp_path):
    skfair.save(fitted("ThresholdDebiaser", confidence=0.9, epsilon=0.3)[0], tmp_path / "model")
    return tmp_path / "model"


def find(content, name):
    """Return the value that is stored under a name, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == name:
                yield value
            yield from find(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from find(value, name)


def certificate(body):
    """Return the entries of the saved certificate by name. Changing them changes the model."""
    (stored,) = find(body, "certificate_")
    return dict(stored["dict"]), stored["dict"]


def put(body, name, value, within=None):
    _, entries = certificate(body)
    if within is not None:
        entries = dict(entries)[within]["dict"]
    (entry,) = [entry for entry in entries if entry[0] == name]
    entry[1] = value


@pytest.mark.parametrize(
    "name, value, within",
    [
        ("holds", "yes", None),
        ("confidence", 1.5, None),
        ("epsilon", "small", None),
        ("least_rows", -1, None),
        ("groups", [0, {"dict": []}], None),
        ("group_sizes", [[33]], None),
        ("group_sizes", [[33, 1], [28, 1]], None),
        ("group_sizes", [[33], [-1]], None),
        ("rates", ["selection rate", "another"], None),
        ("rows_needed", [[1e9], [2]], None),
        ("group_1", [7], "pairs"),
        ("group_1", [-1], "pairs"),
        ("group_2", [0, 1], "pairs"),
        ("difference", [3.0], "pairs"),
        ("p_value", ["none"], "pairs"),
        ("holds", [1], "pairs"),
        ("rate", [5], "pairs"),
    ],
)
def test_what_is_no_certificate_is_refused(saved, name, value, within):
    assert skfair.load(saved, factories=make_network).certificate_.holds
    forge(saved, lambda body: put(body, name, value, within))
    with pytest.raises(InvalidModelError):
        skfair.load(saved, factories=make_network)


@pytest.mark.parametrize("column", ["group_1", "difference", "probability"])
@pytest.mark.parametrize("how", ["another name", "another type"])
def test_pairs_that_are_none_are_refused(saved, column, how):
    def spoil(body):
        (table,) = find(body, "pairs_")
        (entry,) = [each for each in table["DataFrame"]["columns"] if each[0] == column]
        if how == "another name":
            entry[0] = "surely"
        else:
            (text,) = [each[2] for each in table["DataFrame"]["columns"] if each[0] == "rate"]
            entry[2] = text if column != "group_1" else {"array": {"dtype": "<f8", "items": [1.0]}}

    forge(saved, spoil)
    with pytest.raises(InvalidModelError):
        skfair.load(saved, factories=make_network)


def test_a_debiaser_without_a_certificate(tmp_path):
    skfair.save(fitted("ThresholdDebiaser")[0], tmp_path / "model")
    assert skfair.load(tmp_path / "model", factories=make_network).certificate_ is None
