"""Small networks are fitted in one thread of OpenMP; other threads of the process keep theirs."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from skfair import BiasGradientDebiaser, ClusterMarginClassifier, RandomPerturbationDebiaser
from skfair.base._threads import few_threads

# In a fresh process: torch keeps a number of threads for the process and one for each thread.
ISOLATION = """
import threading
import torch
from skfair.base._threads import few_threads

torch.set_num_threads(3)
seen = {}

def other(name, first, second):
    seen[name, "first"] = torch.get_num_threads()
    first.set()
    second.wait()
    seen[name, "second"] = torch.get_num_threads()

def fitting():
    with few_threads(1000):
        seen["limited"] = torch.get_num_threads()
        started = [(threading.Event(), threading.Event()) for _ in range(1)]
        new = threading.Thread(target=other, args=("new", *started[0]))
        new.start()
        started[0][0].wait()
        before[1].set()
        old.join()
        started[0][1].set()
        new.join()
    seen["after"] = torch.get_num_threads()

before = threading.Event(), threading.Event()
old = threading.Thread(target=other, args=("old", *before))
old.start()
before[0].wait()
worker = threading.Thread(target=fitting)
worker.start()
worker.join()
seen["process"] = torch.get_num_threads()
assert seen == {
    ("old", "first"): 3, ("new", "first"): 3, "limited": 1, ("old", "second"): 3,
    ("new", "second"): 3, "after": 3, "process": 3,
}, seen
"""


# Older versions of threadpoolctl ask the loader for the libraries with a callback in Python. Such a
# callback waits for the interpreter and holds the loader's lock; a thread that has the interpreter
# and needs this lock, as to import a module or for an exception in C++, then waits for ever.
LOADER = """
import ctypes, sys, threading
from skfair.base._threads import few_threads

sys.setswitchinterval(1e-6)
here = ctypes.PyDLL(None)  # its functions keep the interpreter
anything = ctypes.cast(here.abs, ctypes.c_void_p)
stop = threading.Event()

def ask_loader():
    while not stop.is_set():
        here.dl_iterate_phdr(anything, None)

other = threading.Thread(target=ask_loader, daemon=True)
other.start()
for _ in range(8):
    with few_threads(1000):
        pass
stop.set()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is that of Linux's loader")
def test_a_thread_that_needs_the_loader_does_not_stop_a_fit():
    subprocess.run([sys.executable, "-c", LOADER], check=True, timeout=200)


def test_only_the_calling_thread_is_limited():
    subprocess.run([sys.executable, "-c", ISOLATION], check=True)


@pytest.fixture
def two_threads():
    """Two threads of OpenMP in this thread, as on a machine with two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_an_exception_gives_the_threads_back(two_threads):
    with pytest.raises(KeyboardInterrupt), few_threads(1000):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 2


def test_large_steps_keep_their_threads(two_threads):
    with few_threads(1 << 40):
        assert torch.get_num_threads() == 2


class Watching(nn.Linear):
    """A layer that tells the number of threads with which it runs."""

    seen: list[int] = []  # copies of the network share it

    def forward(self, X):
        self.seen.append(torch.get_num_threads())
        return super().forward(X)


@pytest.mark.parametrize("shape, limited", [((4,), True), ((1, 2, 2), False)])
@pytest.mark.parametrize(
    "debiaser, parameters",
    [(BiasGradientDebiaser, {"max_epochs": 1}), (RandomPerturbationDebiaser, {"n_trials": 2})],
)
@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_the_search_of_a_small_network_of_rows_runs_in_one_thread(
    two_threads, debiaser, parameters, shape, limited
):
    rng = np.random.default_rng(0)
    group, y = rng.integers(2, size=(2, 2000))
    X = rng.standard_normal((2000, *shape), dtype=np.float32)
    network = nn.Sequential(nn.Flatten(), Watching(4, 1))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
        network[1].bias.zero_()
    debiaser = debiaser(network, output="logits", random_state=0, **parameters)
    Watching.seen.clear()
    debiaser.fit(X, y, sensitive_features=group)
    assert (1 in Watching.seen) == limited
    assert torch.get_num_threads() == 2


@pytest.mark.filterwarnings("ignore::skfair.utils.FairnessWarning")
def test_bits_of_a_small_fit_do_not_depend_on_the_threads(two_threads):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=300)
    X = rng.standard_normal((300, 64), dtype=np.float32) + y[:, None]
    two = ClusterMarginClassifier(random_state=0, max_epochs=2).fit(X, y)
    torch.set_num_threads(1)
    one = ClusterMarginClassifier(random_state=0, max_epochs=2).fit(X, y)
    for name, tensor in one.module_.state_dict().items():
        assert torch.equal(tensor, two.module_.state_dict()[name]), name
