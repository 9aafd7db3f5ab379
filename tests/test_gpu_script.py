"""The benchmark ``gpu``, rehearsed on the CPU: the day a GPU is there is too late to find out."""

import contextlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import skfair

ROOT = Path(__file__).parent.parent


def rows_of(table):
    """The cells of a Markdown table, by its header; the line below the header is left out."""
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.gpu")


@pytest.fixture
def table(gpu):
    return gpu.Table(gpu.Machine(torch.device("cpu"), small=True, n_repeats=1), budget=60)


@pytest.mark.thorough
def test_every_row_has_a_ratio(tmp_path):
    output = tmp_path / "gpu.md"
    options = ["--small", "--device", "cpu", "--skip-tests"]
    command = [sys.executable, "-m", "benchmarks", "gpu", *options]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [*command, "--output", output, "--write", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    written = output.read_text()
    assert written in run.stdout
    assert f"torch {torch.__version__}" in written
    stored = json.loads((tmp_path / "gpu.json").read_text())["tables"][0]["rows"]
    rows = rows_of(written)
    assert [row[2] for row in stored] == [row["ratio"] for row in rows]
    assert all(math.isfinite(float(row["ratio"])) for row in rows)
    named = [row["what"] for row in rows]
    for name in skfair.__all__:
        if name[0].isupper():
            # Its speed, the same bits twice, and between devices.
            assert sum(what.startswith(name) for what in named) >= 3, name
    for network in ("bfloat16", "a dict of ids", "a frozen body"):
        assert sum(f"DistillationDebiaser, {network}," in what for what in named) == 2, network
    exact = [row for row in rows if row["what"].endswith("moved between devices")]
    assert {row["ratio"] for row in exact} == {"0"}  # from the CPU to the CPU


def test_a_row_that_fails_is_told_and_the_others_go_on(gpu, table):
    def fails(machine):
        raise RuntimeError("no kernel\nfor | this")

    table.add("one", fails, needs=1)
    table.add("two", lambda machine: gpu.Result(2.0, "bare"), needs=1)
    table.add("three", lambda machine: gpu.Result(math.nan, "bare"), needs=1)
    one, two, three = rows_of(table.markdown())
    assert (one["ratio"], one["notes"]) == ("failed", r"RuntimeError: no kernel for \| this")
    assert two["ratio"] == "2"
    assert three["notes"] == "ValueError: the ratio is nan"
    assert table.n_failed == 2


def test_what_the_budget_has_no_time_for_is_skipped_and_not_failed(gpu, table):
    table.add("long", lambda machine: pytest.fail("was run"), needs=1000)
    assert "skipped: " in rows_of(table.markdown())[0]["notes"]
    assert table.n_failed == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no alarm on this system")
def test_a_row_that_takes_all_of_the_budget_is_broken_off(gpu, table):
    table.budget = 0.2

    def endless(machine):
        while True:
            with contextlib.suppress(Exception):  # as networks of users may be run
                torch.ones(1000).sum()

    table.add("endless", endless, needs=0)
    assert "OutOfTime" in rows_of(table.markdown())[0]["notes"]


def test_the_exit_status_says_that_a_row_failed(gpu, monkeypatch, capsys):
    def fill(table, *, tests):
        table.add("one", lambda machine: 1 / 0, needs=0)

    monkeypatch.setattr(gpu, "fill", fill)
    assert gpu.main(["--device", "cpu"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_times_are_compared_in_turns(gpu, table):
    asked = []
    result = table.machine.compare(
        lambda: asked.append("ours"), lambda: asked.append("bare"), "a loop"
    )
    assert sorted(asked) == ["bare", "bare", "ours", "ours"]  # a warm-up and one pair
    assert result.seconds is not None
    assert result.memory is None
