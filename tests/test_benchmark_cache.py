"""The cache of the benchmarks: a run that was stopped goes on, and measures nothing twice."""

import importlib
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def remember(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks._remember")


def never():
    raise AssertionError("measured twice")


def test_records_outlive_the_process(remember, tmp_path):
    first = remember.Remembered(tmp_path / "new", "runs")
    assert first.measured(("task", None, 1), lambda: {"bias": 0.25}) == {"bias": 0.25}
    second = remember.Remembered(tmp_path / "new", "runs")
    assert second.measured(("task", None, 1), never) == {"bias": 0.25}
    assert second.measured(("task", None, 2), lambda: 7) == 7  # another key


def test_a_line_that_a_kill_left_incomplete_is_measured_again(remember, tmp_path):
    whole = remember.Remembered(tmp_path, "runs")
    whole.measured(("a", 1), lambda: [1, 2])
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write(json.dumps([["b", 1], [3, 4]])[:-3])
    again = remember.Remembered(tmp_path, "runs")
    assert again.measured(("a", 1), never) == [1, 2]
    assert again.measured(("b", 1), lambda: [5, 6]) == [5, 6]
    assert remember.Remembered(tmp_path, "runs").measured(("b", 1), never) == [5, 6]


def test_two_runs_can_share_a_file(remember, tmp_path):
    one, other = (remember.Remembered(tmp_path, "runs") for _ in range(2))
    one.measured(("a",), lambda: 1)
    other.measured(("b",), lambda: 2)
    one.measured(("c",), lambda: 3)
    assert remember.Remembered(tmp_path, "runs").records == {("a",): 1, ("b",): 2, ("c",): 3}


def test_without_a_folder_records_are_kept_in_memory(remember):
    memory = remember.Remembered(None, "runs")
    assert [memory.measured(("a",), measure) for measure in (lambda: 1, never)] == [1, 1]


def test_a_network_is_trained_once(remember, tmp_path):
    def build():
        return torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Dropout())

    trained = remember.remembered_network(tmp_path, "net", build, lambda: build().eval())
    loaded = remember.remembered_network(tmp_path, "net", build, never)
    assert not loaded.training
    rows = torch.ones(3, 2)
    assert torch.equal(loaded(rows), trained(rows))
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]
