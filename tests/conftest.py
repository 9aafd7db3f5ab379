"""One thread for every test: the networks are tiny, and threads that wait for each other on a
busy machine cost more than they bring. Set before torch is imported, and for subprocesses too.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_draws_in_any_order():
    """Give the networks that a test makes the same weights, whichever tests ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        yield


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    """Close figures, since matplotlib warns of many in whichever test opens one too many."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
