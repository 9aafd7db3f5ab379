"""Networks of fitted classifiers as ONNX files and plain modules decide what they decided."""

import logging
import os
import pickle
import stat
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from biased_rows import biased_rows
from sklearn.base import clone
from torch import nn

import skfair
from skfair.base._onnx import _reason, export_onnx
from skfair.utils import FairnessWarning

N = 150
X, Y, GROUPS = biased_rows(np.random.default_rng(0), N)
NOISE = np.random.default_rng(1).normal(size=(N, 3, 8, 8))
IMAGES = (NOISE + 0.5 * Y[:, None, None, None]).astype(np.float32)


def seeded_network(*layers):
    """Layers with the same weights each time, and nothing drawn from the global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(layer() for layer in layers))


def linear(*sizes):
    return lambda: nn.Linear(*sizes)


NETWORKS = {
    "one logit": lambda: seeded_network(linear(4, 5), nn.ReLU, linear(5, 1)),
    "two logits": lambda: seeded_network(linear(4, 5), nn.Tanh, linear(5, 2)),
    "one probability": lambda: seeded_network(linear(4, 5), nn.ReLU, linear(5, 1), nn.Sigmoid),
    "two probabilities": lambda: seeded_network(
        linear(4, 5), nn.ReLU, linear(5, 2), lambda: nn.Softmax(1)
    ),
    "float64": lambda: seeded_network(linear(4, 5), nn.ReLU, linear(5, 1)).double(),
}


def fit(estimator, X, y, **fit_params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairnessWarning)  # short fits on little data
        return estimator.fit(X, y, **fit_params)


def debiased(network, X=X, debiaser=skfair.ThresholdDebiaser):
    output = "probabilities" if isinstance(network[-1], nn.Sigmoid | nn.Softmax) else "logits"
    return fit(debiaser(network, output=output, random_state=0), X, Y, sensitive_features=GROUPS)


def run(path, X):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["X"]
    assert [o.name for o in session.get_outputs()] == ["output"]
    return session.run(None, {"X": X})[0]


def decisions(output, kind, classes):
    """Read outputs with the usual threshold: what a program without skfair would do."""
    if output.ndim == 2 and output.shape[1] > 1:
        return classes[output.argmax(1)]
    return classes[(output.reshape(-1) > (0.5 if "probability" in kind else 0)).astype(int)]


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_debiased_network_with_its_threshold(kind, tmp_path):
    debiaser = debiased(NETWORKS[kind]())
    assert debiaser.threshold_ != 0
    debiaser.to_onnx(tmp_path / "model.onnx")
    inputs = X.astype(np.float64) if kind == "float64" else X
    expected = debiaser.to_module()(torch.from_numpy(inputs)).detach().numpy()
    for n in (1, 3, N):  # any number of rows
        output = run(tmp_path / "model.onnx", inputs[:n])
        assert output.dtype == expected.dtype
        np.testing.assert_allclose(output, expected[:n], rtol=1e-4, atol=1e-6)
    near = np.abs(debiaser.decision_function(X)) > 1e-5  # the rest may round either way
    assert near.sum() > 0.9 * N
    decided = decisions(run(tmp_path / "model.onnx", inputs), kind, debiaser.classes_)
    np.testing.assert_array_equal(decided[near], debiaser.predict(X)[near])
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("loss", ["margin", "cluster_weighted", "cross_entropy"])
def test_a_cluster_margin_classifier_with_its_head(loss, tmp_path):
    y = np.array(["a", "b", "c"])[np.arange(N) % 3]
    classifier = skfair.ClusterMarginClassifier(loss=loss, n_units=8, max_epochs=2, random_state=0)
    fit(classifier, X, y)
    classifier.to_onnx(str(tmp_path / "model.onnx"))
    output = run(tmp_path / "model.onnx", X)
    np.testing.assert_allclose(output, classifier.decision_function(X), rtol=1e-4, atol=1e-4)
    top = np.sort(output, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-4
    np.testing.assert_array_equal(
        decisions(output, loss, classifier.classes_)[clear], classifier.predict(X)[clear]
    )
    module = classifier.to_module()
    expected = module(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(expected, classifier.decision_function(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_logit_adjusted_classifier(head, tmp_path):
    y = np.array(["a", "b", "c"])[np.arange(N) % 3]
    classifier = fit(skfair.LogitAdjustedClassifier(3, head=head, random_state=0), X, y)
    classifier.to_onnx(tmp_path / "model.onnx")
    for n in (1, N):
        output = run(tmp_path / "model.onnx", X[:n])
        np.testing.assert_allclose(
            output, classifier.decision_function(X[:n]), rtol=1e-4, atol=1e-4
        )


def test_every_classifier_can_be_exported(tmp_path):
    for name, cls in skfair.discovery.all_estimators("classifier"):
        parameters = cls.__init__.__kwdefaults__
        quick = {"max_epochs": 1, "n_trials": 3, "n_calls": 3}
        quick = {name: value for name, value in quick.items() if name in parameters}
        if "estimator" in cls._get_param_names():
            estimator = cls(NETWORKS["two logits"](), output="logits", random_state=0, **quick)
            fit(estimator, X, Y, sensitive_features=GROUPS)
        else:
            estimator = fit(cls(random_state=0, **quick), X, Y)
        estimator.to_onnx(tmp_path / f"{name}.onnx")
        output = run(tmp_path / f"{name}.onnx", X)
        np.testing.assert_allclose(
            output[:, 1] - output[:, 0], estimator.decision_function(X), rtol=1e-4, atol=1e-4
        )


def test_a_network_on_images(tmp_path):
    network = seeded_network(
        lambda: nn.Conv2d(3, 4, 3),
        lambda: nn.BatchNorm2d(4),
        nn.ReLU,
        lambda: nn.AdaptiveAvgPool2d(1),
        nn.Flatten,
        linear(4, 1),
    )
    debiaser = debiased(network, IMAGES)
    debiaser.to_onnx(tmp_path / "model.onnx")
    np.testing.assert_allclose(
        run(tmp_path / "model.onnx", IMAGES).reshape(-1),
        debiaser.decision_function(IMAGES),
        rtol=1e-4,
        atol=1e-5,
    )
    assert onnx.load(tmp_path / "model.onnx").graph.input[0].type.tensor_type.shape.dim[1].dim_value


@pytest.mark.parametrize(
    "classifier",
    [
        skfair.ClusterMarginClassifier(n_units=4, max_epochs=1, random_state=0),
        skfair.LogitAdjustedClassifier(head="linear", random_state=0),
        skfair.LogitAdjustedClassifier(head="mlp", random_state=0),
    ],
    ids=["margin", "linear", "mlp"],
)
def test_modules_open_where_skfair_is_not_installed(classifier, tmp_path):
    classifier = fit(clone(classifier), X, Y)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(classifier.to_module()))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "expected.npy", classifier.to_module()(torch.from_numpy(X)).detach())
    code = """
import pickle, sys
import numpy as np, torch
sys.modules["skfair"] = None  # an import of it would raise
module = pickle.load(open("model.pkl", "rb"))
output = module(torch.from_numpy(np.load("X.npy"))).detach().numpy()
np.testing.assert_array_equal(output, np.load("expected.npy"))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_exporting_leaves_the_estimator_and_the_generators_alone(tmp_path):
    debiaser = debiased(NETWORKS["one logit"]())
    debiaser.module_.train()
    state = {name: tensor.clone() for name, tensor in debiaser.module_.state_dict().items()}
    before = torch.get_rng_state(), vars(debiaser).copy(), list(warnings.filters)
    debiaser.to_onnx(tmp_path / "model.onnx")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(vars(debiaser)[name] is value for name, value in before[1].items())
    assert debiaser.module_.training
    for name, tensor in debiaser.module_.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert warnings.filters == before[2]


class Branching(nn.Module):
    """A network that no graph can hold: what it does depends on the values."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, X):
        return self.layer(X) if X.sum() > 1e9 else 2 * self.layer(X)


def test_a_network_that_onnx_cannot_hold(tmp_path):
    with torch.random.fork_rng():
        debiaser = skfair.ThresholdDebiaser(Branching(), output="logits")
    fit(debiaser, X, Y, sensitive_features=GROUPS)
    (tmp_path / "model.onnx").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"cannot write this network as ONNX.*to_module\(\)") as e:
        debiaser.to_onnx(tmp_path / "model.onnx")
    assert "data-dependent expression" in str(e.value)  # torch's reason
    assert str(e.value).isprintable()  # and none of its colours
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"old"


def test_reasons_have_no_colours():
    assert (
        _reason(TypeError("\n \x1b[96mno such\x1b[0m thing.\nmore")) == "TypeError: no such thing"
    )


class RowByRow(nn.Module):
    """A network whose graph would be one of as many rows as the sample has."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, X):
        return torch.cat([self.layer(row) for row in X])


def test_a_network_whose_graph_has_a_fixed_number_of_rows(tmp_path):
    with torch.random.fork_rng():
        debiaser = skfair.ThresholdDebiaser(RowByRow(), output="logits")
    fit(debiaser, X, Y, sensitive_features=GROUPS)
    with pytest.raises(ValueError, match=r"ONNX: .*number of rows"):
        debiaser.to_onnx(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_paths_that_no_file_can_have_are_said_before_any_work(tmp_path, monkeypatch):
    debiaser = debiased(NETWORKS["one logit"]())
    monkeypatch.delattr(torch.onnx, "export")
    with pytest.raises(FileNotFoundError, match=r"none/model\.onnx' is in a folder that does not"):
        debiaser.to_onnx(tmp_path / "none" / "model.onnx")
    with pytest.raises(IsADirectoryError, match=f"path={str(tmp_path)!r} is a folder"):
        debiaser.to_onnx(tmp_path)


def exported(folder):
    debiaser = debiased(NETWORKS["one logit"]())
    debiaser.to_onnx(folder / "model.onnx")
    expected = debiaser.to_module()(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(run(folder / "model.onnx", X), expected, rtol=1e-4, atol=1e-6)


def test_no_other_file_is_touched(tmp_path):
    """Not what a name that others may have chosen too leads to, and not the target of a link."""
    for name in ("victim", "other"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.onnx.part").write_text("mine")
    (tmp_path / "a" / "model.onnx").symlink_to(tmp_path / "victim")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.onnx.part").symlink_to(tmp_path / "other")
    (tmp_path / "b" / "model.onnx").symlink_to(tmp_path / "nowhere")
    for folder in (tmp_path / "a", tmp_path / "b"):
        exported(folder)
        assert not (folder / "model.onnx").is_symlink()
        assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "model.onnx.part"]
    assert (tmp_path / "a" / "model.onnx.part").read_text() == "mine"
    assert (tmp_path / "b" / "model.onnx.part").is_symlink()
    assert (tmp_path / "victim").read_text() == (tmp_path / "other").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600)])
def test_the_file_may_be_read_by_whom_the_system_says(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        exported(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.onnx").stat().st_mode) == mode


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_file_in_the_place_of_another_may_be_read_by_the_same(tmp_path, mode):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    path.chmod(mode | stat.S_ISUID)  # the right to be somebody else is not passed on
    before = os.umask(0o027)
    try:
        exported(tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        (tmp_path / "target").write_text("old")
        (tmp_path / "target").chmod(0o604)
        path.unlink()
        path.symlink_to("target")  # which stays, and whose mode is that of another file
        exported(tmp_path)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o640
    finally:
        os.umask(before)
    assert path.stat().st_size > 100
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o604


def test_a_file_that_cannot_be_put_in_its_place_is_taken_away(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_text("old")
    debiaser = debiased(NETWORKS["one logit"]())
    parts = []

    def fail(part, path):
        parts.append(part)
        assert part.parent == tmp_path
        assert part.stat().st_size > 100
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="no"):
                debiaser.to_onnx(tmp_path / "model.onnx")
    assert len(set(parts)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "old"


def test_pipes_and_devices_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "model.onnx")
    debiaser = debiased(NETWORKS["one logit"]())
    with pytest.raises(ValueError, match="is a device or a pipe"):
        debiaser.to_onnx(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").is_fifo()


def test_weights_that_one_file_cannot_hold(tmp_path):
    large = nn.Linear(30_000, 30_000, device="meta")  # 3.6 GB, without memory for it
    with pytest.raises(ValueError, match=r"weights have 3600120000 bytes, and one ONNX file holds"):
        export_onnx(large, {"X": torch.zeros(2, 30_000, device="meta")}, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_torch_is_quiet_about_torchvision_during_the_call_only(tmp_path):
    debiaser = debiased(NETWORKS["one logit"]())
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    before = logger.filters.copy()
    logger.addHandler(handler)
    try:
        debiaser.to_onnx(tmp_path / "model.onnx")
        assert not [message for message in seen if "torchvision" in message]
        logger.warning("torchvision is not installed. Skipping nothing")
        assert len(seen) == 1
    finally:
        logger.removeHandler(handler)
    assert logger.filters == before


def test_without_the_extra(tmp_path, monkeypatch):
    debiaser = debiased(NETWORKS["one logit"]())
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'pip install "skfair-debias\[onnx\]"'):
        debiaser.to_onnx(tmp_path / "model.onnx")
