"""Weights of the best candidates wait in a temporary file, and come back to the last bit."""

import gc
import io
import os
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skfair.intraprocessing import BiasGradientDebiaser, IntraprocessingDebiaser, _kept_weights
from skfair.intraprocessing._kept_weights import keep
from skfair.utils._random import seeded

pytestmark = pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the open files of the process")


@pytest.fixture
def on_disk(monkeypatch, tmp_path):
    """All weights wait on disk, in this folder."""
    monkeypatch.setattr(_kept_weights, "_MOST_BYTES", -1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def files(folder):
    """Files that have a name; torch makes folders for temporary files, too."""
    return [path for path in folder.rglob("*") if path.is_file()]


def open_files(folder):
    links = Path("/proc/self/fd").iterdir()
    found = []
    for link in links:
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:  # the folder of links itself, which is closed by now
            continue
    return [path for path in found if path.startswith(str(folder))]


WEIGHTS = {
    "single": torch.tensor([[1.0, -0.0], [float("nan"), float("inf")]]),
    "double": torch.rand(3, 5, dtype=torch.float64).T,
    "half": torch.tensor([1.0, 2.5], dtype=torch.float16),
    "brain": torch.tensor([1.0, 2.5], dtype=torch.bfloat16),
    "number": torch.tensor(7),
    "truth": torch.tensor([True, False]),
    "expanded": torch.ones(1, 1).expand(3, 4),
    "complex": torch.tensor([1 + 2j]),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "negative": torch.tensor([1 + 2j]).conj().imag,
    "float8": torch.tensor([1.0, 2.5]).to(torch.float8_e4m3fn),
    "nothing": torch.empty(0, 3),
}


def bits(tensor):
    plain = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return tensor.dtype, tensor.shape, plain.reshape(-1).view(torch.uint8).tolist()


def test_the_same_bits_come_back(on_disk):
    kept = keep(WEIGHTS, {})
    assert callable(kept)
    for _ in range(2):
        back = kept()
        assert list(back) == list(WEIGHTS)
        assert all(bits(back[name]) == bits(WEIGHTS[name]) for name in WEIGHTS)
    assert files(on_disk) == []


@pytest.mark.parametrize("most", [-1, 1 << 24])
def test_later_changes_are_not_kept(on_disk, monkeypatch, most):
    monkeypatch.setattr(_kept_weights, "_MOST_BYTES", most)
    weights = {"first": nn.Parameter(torch.ones(2)), "second": torch.ones(3)}
    kept = keep(weights, {})
    weights["first"].data.zero_(), weights["second"].zero_()
    back = kept() if callable(kept) else kept
    assert callable(kept) == (most < 0)
    assert back["first"].tolist() == [1.0, 1.0]
    assert back["second"].tolist() == [1.0, 1.0, 1.0]
    assert not back["first"].requires_grad


def test_only_what_differs_from_the_original_is_kept(on_disk):
    original = {"same": torch.ones(2), "moved": torch.ones(2), "cast": torch.ones(2)}
    weights = {name: weight.clone() for name, weight in original.items()}
    weights["moved"][0] = 2
    weights["cast"] = weights["cast"].double()
    back = keep(weights, original)()
    assert [back[name] is original[name] for name in original] == [True, False, False]
    assert (back["moved"].tolist(), back["cast"].dtype) == ([2.0, 1.0], torch.float64)


SIGNS = {
    name: (one, two)
    for name, one, two in (
        ("zeros", torch.zeros(2), -torch.zeros(2)),
        ("conjugate", torch.tensor([1 + 2j]), torch.tensor([1 + 2j]).conj()),
        ("double complex", torch.zeros(1, dtype=torch.complex128), -torch.zeros(1) * 1j),
    )
}


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize("most", [-1, 1 << 24])
def test_a_sign_is_a_difference(on_disk, monkeypatch, most, name):
    monkeypatch.setattr(_kept_weights, "_MOST_BYTES", most)
    original, weight = SIGNS[name]
    kept = keep({"one": weight}, {"one": original})
    assert bits((kept() if callable(kept) else kept)["one"]) == bits(weight) != bits(original)


def test_nan_is_no_difference(on_disk):
    original = {"one": torch.full((2,), float("nan"))}
    assert keep({"one": original["one"].clone()}, original)()["one"] is original["one"]


def test_few_weights_stay_in_memory():
    weights = {"small": torch.ones(1 << 22)}  # 16 MiB
    assert not callable(keep(weights, {}))
    assert callable(keep({"large": torch.ones((1 << 22) + 1)}, {}))


def test_sparse_weights_stay_in_memory(on_disk):
    sparse = torch.eye(3).to_sparse()
    assert keep({"sparse": sparse}, {})["sparse"].to_dense().tolist() == torch.eye(3).tolist()


class Full(io.BytesIO):
    def write(self, data):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("fault", ["full disk", "no folder"])
def test_without_a_disk_weights_stay_in_memory(on_disk, monkeypatch, fault):
    if fault == "full disk":
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(on_disk / "lacking"))
    weights = {"first": torch.ones(2)}
    kept = keep(weights, {})
    weights["first"].zero_()
    assert kept["first"].tolist() == [1.0, 1.0]


def test_a_file_that_became_shorter(on_disk):
    kept = keep({"first": torch.ones(2)}, {})
    os.ftruncate(kept._file.fileno(), 4)
    with pytest.raises(OSError, match="TMPDIR"):
        kept()


@linux
def test_the_file_is_freed_with_the_weights(on_disk):
    kept = keep(WEIGHTS, {})
    assert len(open_files(on_disk)) == 1
    del kept
    gc.collect()
    assert open_files(on_disk) == []


RNG = np.random.default_rng(0)
GROUP, Y = RNG.integers(2, size=(2, 300))
X = np.column_stack([Y + RNG.normal(size=300), GROUP + RNG.normal(size=300)]).astype("float32")


def network():
    with seeded(0):
        layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    return layers.eval()


def fitted(debiaser=None):
    debiaser = debiaser or BiasGradientDebiaser(network(), max_epochs=4, random_state=0)
    debiaser.fit(X, Y, sensitive_features=GROUP)
    left = list(debiaser.module_.state_dict().items())
    return debiaser, [(name, bits(weight)) for name, weight in left]


def test_a_fit_has_the_same_bits(on_disk, monkeypatch):
    written = []
    write = _kept_weights._OnDisk.__init__
    monkeypatch.setattr(
        _kept_weights._OnDisk, "__init__", lambda *args: (written.append(args), write(*args))[1]
    )
    debiaser, weights = fitted()
    assert written
    monkeypatch.setattr(_kept_weights, "_MOST_BYTES", 1 << 24)
    written.clear()
    in_memory, the_same = fitted()
    assert not written
    assert weights == the_same
    assert debiaser.trials_.equals(in_memory.trials_)
    assert debiaser.best_trial_ == in_memory.best_trial_ > 1
    assert files(on_disk) == []


class Interrupted(IntraprocessingDebiaser):
    """Goes from one candidate to a better one, until the user interrupts."""

    _parameter_constraints = IntraprocessingDebiaser._parameter_constraints

    def _search(self, search):
        for step in range(1, 9):
            state = {name: weight.clone() for name, weight in search.original.items()}
            state["network.weight"][:, 1] *= 1 - step / 8
            search.go_to(state)
            search.consider(candidate="moved", step=step)


@pytest.mark.filterwarnings("ignore::skfair.utils.InterruptedSearchWarning")
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_search_that_is_interrupted_as_it_writes(on_disk, monkeypatch, at):
    n_written = 0
    as_bytes = _kept_weights._bytes_of

    def write(tensor):
        nonlocal n_written
        n_written += 1
        if n_written == at:
            raise KeyboardInterrupt
        return as_bytes(tensor)

    monkeypatch.setattr(_kept_weights, "_bytes_of", write)
    line = nn.Linear(2, 1)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[1.0, 2.0]])), line.bias.fill_(-1.5)
    debiaser, _ = fitted(Interrupted(line, epsilon=0.2, random_state=0))
    assert debiaser.interrupted_
    # The network is that of the best row before the last one, which was not written any more.
    assert 0 <= debiaser.best_trial_ < len(debiaser.trials_) - 1
    rows = debiaser.trials_.candidate.tolist()
    assert rows == ["original", "threshold", *["moved"] * (len(rows) - 2)]
    step = debiaser.trials_.step.fillna(0)[debiaser.best_trial_]
    weight = next(debiaser.module_.parameters()).detach()
    np.testing.assert_allclose(weight, [[1.0, 2 * (1 - step / 8)]])
    gc.collect()
    assert files(on_disk) == []
    if sys.platform == "linux":
        assert open_files(on_disk) == []


def test_fits_in_threads_have_files_of_their_own(on_disk):
    _, expected = fitted()
    found = {}

    def run(number):
        found[number] = fitted()[1]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] == expected for number in range(3)] == [True, True, True]
    assert files(on_disk) == []


class Signs(IntraprocessingDebiaser):
    """Changes the sign of a zero, and back again."""

    _parameter_constraints = IntraprocessingDebiaser._parameter_constraints

    def _search(self, search):
        start, self.seen = search.state(), []
        for sign in (-1.0, 1.0, -1.0):
            search.go_to({name: weight * sign for name, weight in start.items()})
            self.seen.append(search.state()["network.bias"].signbit().item())


class WithASparseBuffer(nn.Linear):
    """As a network has that works on a graph."""

    def __init__(self):
        super().__init__(2, 1)
        self.register_buffer("mixes", torch.eye(2).to_sparse())

    def forward(self, rows):
        return super().forward((self.mixes @ rows.T).T)


@pytest.mark.parametrize("make", [lambda: nn.Linear(2, 1), WithASparseBuffer])
def test_a_search_sees_the_signs_of_zeros(make):
    line = make()
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[1.0, 2.0]])), line.bias.zero_()
    debiaser = Signs(line, epsilon=0.2, random_state=0, output="logits")
    debiaser.fit(X, Y, sensitive_features=GROUP).predict(X[:3])
    assert debiaser.seen == [True, False, True]
