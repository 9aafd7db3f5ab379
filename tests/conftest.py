"""One thread for every test: the networks are tiny, and threads that wait for each other on a
busy machine cost more than they bring. Set before torch is imported, and for subprocesses too.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_draws_in_any_order():
    """Give the networks that a test makes the same weights, whichever tests ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        yield
