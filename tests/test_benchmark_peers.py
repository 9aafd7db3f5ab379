"""Peers of the benchmarks: pinned, and run in a process of their own with files between."""

import ast
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def environments(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks._peers.environments")


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.peers")


def rows(n, seed):
    """Scores that are higher in group 1."""
    rng = np.random.default_rng(seed)
    y, group = rng.integers(2, size=(2, n))
    score = 1 / (1 + np.exp(-(2 * y - 1 + 1.5 * (group - 0.5) + rng.normal(size=n))))
    return {"X": score[:, None], "y": y, "group": group, "score": score}


def test_every_peer_is_pinned_with_all_that_it_needs(environments, peers):
    of_tables = {package for package, _, _ in (peers.PEERS | peers.PEERS_OF_IMAGES).values()}
    assert of_tables | {"captum"} == set(environments.REQUIREMENTS)
    for package, path in environments.REQUIREMENTS.items():
        assert all(line.count("==") == 1 for line in path.read_text().splitlines()), package
        assert environments.versions_of(package).startswith(f"{package} ")


@on_linux
def test_a_peer_runs_in_another_process(environments):
    test = {f"{name}_test": values for name, values in rows(4000, 1).items() if name != "y"}
    given = {**rows(4000, 0), **test, "constraint": "demographic_parity", "tolerance": 0.02}
    answer = environments.run(sys.executable, "fairlearn_thresholds", {**given, "seed": 0})
    selected, group = answer["predicted"], test["group_test"]
    before = [(test["score_test"][group == g] > 0.5).mean() for g in (0, 1)]
    after = [selected[group == g].mean() for g in (0, 1)]
    assert before[1] - before[0] > 0.2
    assert abs(after[1] - after[0]) < 0.06
    assert 0.2 < selected.mean() < 0.8
    assert answer["fit"] > 0
    assert answer["predict"] > 0
    assert 0 <= answer["memory"] < 100


def test_a_failure_says_what_the_peer_said(environments):
    given = {**rows(50, 0), "constraint": "no such", "tolerance": 0.02, "seed": 0}
    with pytest.raises(RuntimeError, match=r"^fairlearn_thresholds: ValueError: .*parity"):
        environments.run(sys.executable, "fairlearn_thresholds", given)


@on_linux
def test_memory_is_that_of_the_fit_alone(peers):
    held = np.ones(40 * 2**17)  # 40 MiB

    def fit():
        freed = np.ones(60 * 2**17)
        return lambda: freed[:1] + held[:1] + np.ones(90 * 2**17)[:1]

    np.ones(200 * 2**17)  # a peak before the fit
    found = peers.worker.measured(fit)
    assert 55 < found["memory"] < 75
    assert found["predicted"] == [3]


def test_workers_need_nothing_that_their_environments_lack(environments):
    """No worker imports skfair, not even through a module of the benchmarks."""
    wanted = [environments.WORKER, environments.CAPTUM_WORKER, environments.DETOXAI_WORKER]
    for path in wanted:  # grows
        imported = [
            name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            )
        ]
        assert not [name for name in imported if name.split(".")[0] == "skfair"], path
        wanted += [
            ROOT / f"{name.replace('.', '/')}.py"
            for name in imported
            if name.startswith("benchmarks.")
        ]
    assert ROOT / "benchmarks" / "_small_network.py" in wanted


def test_linear_post_as_published_finds_what_group_thresholds_find(peers):
    """Where the group is a feature, they are the best predictions at a given gap."""
    measures = importlib.import_module("benchmarks._intraprocessing.measures")
    found, test = rows(3000, 0), rows(3000, 1)
    X, X_test = (
        np.column_stack([r["score"], r["group"]]).astype(np.float32) for r in (found, test)
    )
    network = peers.torch.nn.Linear(2, 1)
    with peers.torch.no_grad():
        network.weight.copy_(peers.torch.tensor([[6.0, 0.0]]))
        network.bias.fill_(-3.0)
    task = SimpleNamespace(
        network=network, X_debias=X, y_debias=found["y"], a_debias=found["group"]
    )
    for constraint in ("demographic_parity", "equal_opportunity"):
        predict = peers.PublishedLinearPost(0.03)(task, constraint)
        predicted = predict(X_test, None) == 1
        best = measures.group_thresholds(found["score"], found["y"], found["group"], constraint)
        expected = peers.balanced_accuracy(best, found["y"])
        gap = peers.bias(predict(X, None) == 1, found["y"], found["group"], constraint)
        assert abs(gap) < 0.05
        assert peers.balanced_accuracy(predicted, test["y"]) > expected - 0.03


def test_rows_of_the_table(peers):
    record = {"balanced_accuracy": 0.7, "bias": 0.02, "fit": 1.0, "predict": 0.1, "memory": 30.0}
    other = {**record, "balanced_accuracy": 0.8, "bias": -0.06}
    row = peers.cells("DistillationDebiaser", [record, other])
    expected = ["no", "0.750 ± 0.071", "-0.020 ± 0.057", "1 of 2", "1", "0.1", "30"]
    assert row == ["``DistillationDebiaser``", *expected]
    one = peers.cells("fairlearn, ``ThresholdOptimizer``", [record])
    assert one[0].startswith("fairlearn, ``ThresholdOptimizer`` (fairlearn ")
    assert one[1:4] == ["yes", "0.700", "+0.020"]
    failed = peers.cells("DistillationDebiaser", [record, {"failed": "no `groups`"}])
    assert failed[2:] == ["fails in 1 of 2: ``no groups``", *"-----"]
    assert len(failed) == len(peers.HEADER)
