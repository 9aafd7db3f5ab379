"""Loading a forged model ends soon: with an error, or with a model that works."""

import subprocess
import sys

import forged
import numpy as np
import pytest

import skfair


@pytest.mark.thorough
def test_forged_models():
    wrong, came = forged.run(500)
    assert not wrong, wrong
    assert sum(came.values()) == 500
    # Otherwise the forgeries are too coarse or too fine to test anything.
    assert came["refused"] > 250
    assert came["used"] > 25


# The test detects forbidden outcomes -------------------------------------------------------------


class Model:
    def __init__(self, predict):
        self.predict = predict

    def _repr_html_(self):
        return ""


def words(X):
    raise ValueError("X is not as it should be")


@pytest.mark.parametrize(
    "predict, found",
    [
        (lambda X: {}[3], "predict: KeyError: 3"),
        (lambda X: np.zeros(3) + np.zeros(4), "predict: ValueError: operands"),
        (lambda X: np.full(len(X), np.nan), "predict: not finite"),
        (lambda X: np.zeros(len(X) + 1), "predict: shape (5,)"),
        (lambda X: np.zeros(len(X)), None),
        (words, None),
    ],
)
def test_a_model_that_fails(predict, found, saved, monkeypatch):
    # Not by `setattr`: what it puts back would hide the lazy name.
    monkeypatch.setitem(vars(skfair), "load", lambda path: Model(predict))
    bad, _ = forged.outcome(saved)
    assert bad == found or bad.startswith(found)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "load, found",
    [
        ("bytearray(1 << 30)", "MemoryError"),
        ("[None for _ in iter(int, 1)]", "too slow"),
        ("exec('raise SystemExit(3)')", "SystemExit"),
    ],
)
def test_limits(load, found, saved):
    code = (
        f"import forged, skfair; forged.SECONDS = 0.2; skfair.load = lambda *_, **__: {load}\n"
        f"from pathlib import Path; print(forged.attempt(Path({str(saved)!r}), 10)[0])"
    )
    output = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert found in output


def test_a_process_that_dies():
    code = """
import os, sys
for case in range(*map(int, sys.argv[1:])):
    print("try", case, flush=True)
    if case == 3:
        os.kill(os.getpid(), 11)
    print("done", case, '["bad", ""]' if case == 1 else '[null, "used"]', flush=True)
"""
    wrong, came = forged.supervise([sys.executable, "-c", code], 0, 6)
    assert wrong == [(1, "bad"), (3, "the process ended with -11")]
    assert came == {"used": 4, "": 1}
