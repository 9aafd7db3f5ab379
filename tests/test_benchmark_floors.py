"""The benchmark ``floors``: what it computes from the costs of two calls."""

import importlib
import itertools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks._floors.measure")


def test_the_ratio_is_the_median_of_the_ratios_of_pairs(measure):
    ours, floor = iter([6.0, 2.0, 9.0]), iter([2.0, 1.0, 1.0])  # ratios 3, 2, 9
    row = measure.Row("a", "b", 1.0, lambda: (lambda: next(ours), lambda: next(floor)), repeats=3)
    found = measure.compare(row)
    assert found.ratio == 3
    assert (found.least, found.most) == (2, 9)
    assert (found.ours, found.floor) == (6, 1)


def test_calls_take_turns_and_the_order_changes(measure):
    seen, value = [], itertools.count(1)

    def call(name):
        seen.append(name)
        return float(next(value))

    row = measure.Row("a", "b", 1.0, lambda: (lambda: call("ours"), lambda: call("floor")))
    measure.compare(row._replace(repeats=3))
    assert seen == ["ours", "floor", "floor", "ours", "ours", "floor"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_a_process_contains_memory_that_was_freed(measure):
    little = measure.fresh_process("import os")
    much = measure.fresh_process("data = bytearray(b'1') * (64 << 20)\ndel data")
    assert 60 < much.peak - little.peak < 80
