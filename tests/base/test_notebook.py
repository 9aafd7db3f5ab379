"""What a notebook shows of an estimator: the link to its page and one line after `fit`."""

import functools
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import make_pipeline

import skfair
from skfair.attribution import PatchAttributionMasker
from skfair.base import _notebook
from skfair.discovery import all_estimators
from skfair.estimator_checks._case import (
    make_case,
    make_network,
    network_parameters,
    small_instance,
)
from skfair.featurize import FrozenEncoderFeaturizer
from skfair.intraprocessing import LinearPostDebiaser, ThresholdDebiaser, _critics
from skfair.margin import ClusterMarginClassifier
from skfair.utils import FairnessWarning

DOCS = Path(__file__).parents[2] / "docs"
ESTIMATORS = pytest.mark.parametrize(
    "kind", [kind for _, kind in all_estimators()], ids=lambda kind: kind.__name__
)


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setattr(_notebook, "documentation_address", lambda: "https://docs.example/x")


def documented_pages():
    """Names of the pages that autosummary writes for docs/api.rst."""
    pages, module = set(), ""
    for line in (DOCS / "api.rst").read_text().splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            pages.add(f"{module}.{line.strip()}")
    return pages


def fit(case):
    with warnings.catch_warnings():  # of what so few rows show
        warnings.simplefilter("ignore", FairnessWarning)
        return case.fit()


def captions(html):
    return re.findall(r'<div class="caption">(.*?)</div>', html)


@ESTIMATORS
def test_the_link_leads_to_a_page_of_the_docs(kind, address):
    link = small_instance(kind)._get_doc_link()
    start, page = "https://docs.example/x/api/generated/", link.rpartition("/")[2]
    assert link == start + page
    assert page.removesuffix(".html") in documented_pages()
    assert f'href="{link}"' in small_instance(kind)._repr_html_()


@ESTIMATORS
def test_without_an_address_there_is_no_link(kind, monkeypatch):
    monkeypatch.setattr(_notebook, "documentation_address", lambda: "")
    assert small_instance(kind)._get_doc_link() == ""


def test_a_subclass_elsewhere_has_no_link(address):
    class Mine(ThresholdDebiaser):
        pass

    assert Mine(None)._get_doc_link() == ""


@pytest.mark.parametrize(
    "urls, expected",
    [
        (
            ["Homepage, https://a.example", "Documentation, https://b.example/c/"],
            "https://b.example/c",
        ),
        (["Homepage, https://a.example"], ""),
        (None, ""),
    ],
)
def test_the_address_is_that_of_the_package(urls, expected, monkeypatch):
    class Metadata:
        def get_all(self, name):
            return urls if name == "Project-URL" else None

    monkeypatch.setattr(_notebook, "metadata", lambda name: Metadata())
    assert _notebook.documentation_address.__wrapped__() == expected


@ESTIMATORS
def test_one_line_after_fit(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(_critics, "_N_PRETRAIN", 6)
    estimator = small_instance(kind)
    case = make_case(estimator)
    assert captions(case.estimator._repr_html_()) == []
    fitted = fit(case)
    line = captions(fitted._repr_html_())
    assert len(line) == 1
    assert 0 < len(line[0]) < 120
    assert captions(make_pipeline("passthrough", fitted)._repr_html_()).count(line[0]) == 1
    assert captions(clone(fitted)._repr_html_()) == []
    assert captions(pickle.loads(pickle.dumps(fitted))._repr_html_()) == line
    skfair.save(fitted, tmp_path / "model")
    factories = {
        parameter: functools.partial(make_network, parameter)
        for parameter in network_parameters(estimator)
        if kind is not PatchAttributionMasker  # its file has the network
    }
    loaded = skfair.load(tmp_path / "model", factories=factories)
    assert captions(loaded._repr_html_()) == line


@pytest.mark.parametrize("certified", [False, True])
def test_the_line_of_a_debiaser(certified):
    debiaser = ThresholdDebiaser(None)
    debiaser.module_, debiaser.bias_, debiaser.bias_interval_ = None, 0.0124, (-0.0101, 0.0349)
    debiaser.performance_, debiaser.feasible_ = 0.7612, not certified
    debiaser._measures = "demographic_parity", "balanced_accuracy"
    debiaser.certificate_ = object() if certified else None
    start, end = (
        ("certified: no", "on the calibration rows")
        if certified
        else ("feasible: yes", "cross-validated")
    )
    assert captions(debiaser._repr_html_()) == [
        f"{start}; demographic_parity bias 0.012 [-0.010, 0.035], balanced_accuracy 0.761, {end}"
    ]


def test_the_line_names_the_measures_of_the_fit():
    def harm(y_true, y_pred, *, sensitive_features):
        return demographic_parity_difference(y_true, y_pred, sensitive_features=sensitive_features)

    case = make_case(small_instance(ThresholdDebiaser).set_params(constraint=harm))
    fitted = fit(case)
    (line,) = captions(fitted._repr_html_())
    assert "; harm bias " in line
    assert ", balanced_accuracy 0." in line
    fitted.set_params(constraint="equal_opportunity", performance="accuracy")
    assert captions(fitted._repr_html_()) == [line]


def test_a_head_of_its_own_is_judged_out_of_fold():
    fitted = fit(make_case(small_instance(LinearPostDebiaser)))
    (line,) = captions(fitted._repr_html_())
    assert "; demographic_parity bias " in line
    assert line.endswith(", out of fold")


GAP = {"accuracy_gap_low": 0.312, "accuracy_gap_high": 0.618, "accuracy_gap_needed": 0.2}
NO_GAP = {"accuracy_gap_low": np.nan, "accuracy_gap_high": np.nan, "accuracy_gap_needed": 0.2}


@pytest.mark.parametrize(
    "loss, evidence, line",
    [
        ("margin", None, "trained with the margin loss"),
        (
            "margin",
            GAP | {"decision": "method"},
            "kept the margin loss: 50 group labels, 9 conflicting; "
            "accuracy gap 0.31 to 0.62, needed 0.20",
        ),
        (
            "cross_entropy",
            NO_GAP | {"decision": "cannot tell"},
            "fell back to ordinary training: 50 group labels, 9 conflicting",
        ),
        (
            "cross_entropy",
            GAP | {"decision": "ordinary", "holdout_gain_low": -0.2, "holdout_gain_high": -0.013},
            "fell back to ordinary training: 50 group labels, 9 conflicting; "
            "held-out worst-group gain -0.20 to -0.01",
        ),
        (  # the hold-out cannot tell, so the gap decides
            "margin",
            GAP | {"decision": "method", "holdout_gain_low": -0.2, "holdout_gain_high": 0.1},
            "kept the margin loss: 50 group labels, 9 conflicting; "
            "accuracy gap 0.31 to 0.62, needed 0.20",
        ),
    ],
)
def test_the_line_of_the_decision_gives_the_evidence_that_decided(loss, evidence, line):
    counts = {"n_compared": 50, "n_conflicting": 9}
    classifier = ClusterMarginClassifier()
    classifier.module_, classifier.loss_ = None, loss
    classifier.diagnostics_ = {} if evidence is None else counts | evidence
    assert captions(classifier._repr_html_()) == [line]


@pytest.mark.parametrize(
    "encoder, name",
    [
        (torch.nn.Flatten(), "Flatten"),
        (np.negative, "negative"),
        (functools.partial(np.sum, axis=1), "partial"),
        (Path("model.onnx"), "an ONNX file"),
    ],
)
def test_the_line_of_a_featurizer_names_the_encoder(encoder, name):
    featurizer = FrozenEncoderFeaturizer(encoder)
    featurizer.n_features_out_, featurizer.image_shape_ = 512, (3, 32, 32)
    featurizer.input_dtype_ = np.dtype("uint8")
    assert captions(featurizer._repr_html_()) == [
        f"512 features of {name} from uint8 images of shape (3, 32, 32)"
    ]


@pytest.mark.parametrize(
    "names, informative, found",
    [
        (("glasses",), True, "attribute found in patches"),
        (("glasses",), False, "attribute not found in patches"),
        (("glasses", "age"), True, "every attribute found in patches"),
        (("glasses", "age"), False, "not every attribute found in patches"),
    ],
)
def test_the_line_of_a_masker(names, informative, found):
    masker = PatchAttributionMasker()
    masker.attribute_names_, masker.informative_ = names, informative
    assert captions(masker._repr_html_()) == [found]
    masker.leakage_, masker.leakage_interval_, masker.leakage_before_ = np.nan, (0.0, 1.0), 0.9
    assert captions(masker._repr_html_()) == [f"{found}; leakage not estimable"]
    masker.leakage_, masker.leakage_interval_ = 0.6, (0.52, 0.677)
    assert captions(masker._repr_html_()) == [
        f"{found}; leakage 0.600 [0.520, 0.677], 0.900 before"
    ]


def test_the_line_comes_from_the_fit_and_not_from_the_parameters():
    featurizer = small_instance(FrozenEncoderFeaturizer)
    fitted = make_case(featurizer).fit()
    line = captions(fitted._repr_html_())
    assert line[0].startswith(f"{fitted.n_features_out_} features of ")
    assert captions(fitted.set_params(batch_size=7)._repr_html_()) == line


def test_the_line_is_escaped():
    class Hostile(_notebook.NotebookView, BaseEstimator):
        def fit(self):
            self.fitted_ = np.ones(1)
            return self

        def _fit_summary(self):
            return "<script>alert(1)</script>"

    assert captions(Hostile().fit()._repr_html_()) == ["&lt;script&gt;alert(1)&lt;/script&gt;"]
