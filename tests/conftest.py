"""One thread for every test: the networks are tiny, and threads that wait for each other on a
busy machine cost more than they bring. Set before torch is imported, and for subprocesses too.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from sklearn.utils import check_random_state


@pytest.fixture(autouse=True)
def _same_draws_in_any_order():
    """Give a test the same weights and splits in every process, whichever tests ran before.

    Without a seed, torch and an estimator with ``random_state=None`` draw from the generators
    of the process.
    """
    unseeded = check_random_state(None)
    state = unseeded.get_state()
    unseeded.seed(7)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        yield
    unseeded.set_state(state)


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    """Close figures, since matplotlib warns of many in whichever test opens one too many."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
