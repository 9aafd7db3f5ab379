"""The benchmark ``growth``: exponents, where a curve ends, and what a row shows."""

import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.growth")


def test_the_exponents_are_of_all_sizes_and_of_the_upper_half(growth):
    sizes = np.array([10, 100, 1000, 10_000])
    assert growth.exponent(sizes, 3.0 * sizes**1.5) == "1.50; 1.50"
    assert growth.exponent(sizes, np.array([1, 1, 1, 100])) == "0.60; 2.00"
    assert growth.exponent(sizes[:1], [1.0]) == "-; -"


def test_a_curve_ends_before_the_size_that_would_take_too_long(growth, monkeypatch):
    asked = []

    def measured(axis, call, size):
        asked.append(size)
        return size**2 / 1e6, 0.5

    monkeypatch.setattr(growth, "measured", measured)
    axis = growth.AXES["rows"]
    found = growth.curve("rows", "fairness_report", most=500)
    assert asked == [1000, 3000, 10_000]  # 30,000 would take 900 seconds
    shown = growth.row(axis, "fairness_report", found)
    assert shown[:5] == ["fairness_report", "1 s, 0.5 MiB", "9 s, 0.5 MiB", "100 s, 0.5 MiB", "-"]
    assert shown[-2:] == ["2.00; 2.00", "-; -"]  # less than 1 MiB has no exponent


def test_the_data_have_each_class_in_each_group(growth):
    growing = importlib.import_module("benchmarks._growth")
    X, y, group = growing.table(rows=3000, features=8, groups=16, classes=4)
    assert X.shape == (3000, 8)
    assert len(set(zip(y, group, strict=True))) == 64
