"""A block with its own settings, which end with the block."""

import threading
import warnings

import numpy as np
import pytest
import torch

from skfair.utils._settings import own_settings, warning_filter


@pytest.fixture
def half_precision():
    torch.set_default_dtype(torch.float16)
    yield
    torch.set_default_dtype(torch.float32)


MADE = {
    "zeros": lambda: torch.zeros(2),
    "a number": lambda: torch.tensor(0.5),
    "nested numbers": lambda: torch.tensor([[1, 2], [0.5, 3]]),
    "by keyword": lambda: torch.tensor(data=[0.5]),
    "filled": lambda: torch.full((2,), 0.5),
    "steps": lambda: torch.arange(0.0, 1.0, 0.25),
    "a layer": lambda: torch.nn.Linear(2, 1).weight,
}


@pytest.mark.usefixtures("half_precision")
@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_what_names_no_type_is_single_precision(make):
    with own_settings():
        assert make().dtype == torch.float32
    assert make().dtype == torch.float16


OF_THEIR_OWN = {
    "integers": (lambda: torch.tensor([1, 2]), torch.int64),
    "counts": (lambda: torch.arange(3), torch.int64),
    "booleans": (lambda: torch.full((2,), True), torch.bool),
    "an array": (lambda: torch.tensor(np.zeros(2)), torch.float64),
    "named": (lambda: torch.zeros(2, dtype=torch.float64), torch.float64),
}


@pytest.mark.usefixtures("half_precision")
@pytest.mark.parametrize("make, dtype", OF_THEIR_OWN.values(), ids=OF_THEIR_OWN)
def test_what_has_a_type_keeps_it(make, dtype):
    with own_settings():
        assert make().dtype == dtype


def test_the_block_has_the_settings_of_a_new_thread():
    seen = {}

    def look(where):
        seen[where] = (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.zeros(1).device,
            np.geterr(),
        )

    thread = threading.Thread(target=look, args=("thread",))
    thread.start()
    thread.join()
    with (
        torch.inference_mode(),
        torch.autocast("cpu"),
        torch.device("meta"),
        np.errstate(all="raise"),
    ):
        look("before")
        with own_settings():
            look("inside")
        look("after")
    assert seen["inside"] == seen["thread"]
    assert seen["before"] == seen["after"] != seen["inside"]


def test_filters_of_blocks_that_overlap_in_threads_are_as_before():
    before = list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def first():
        with warning_filter("ignore", UserWarning):
            inside.set()
            leave.wait(10)

    def second():
        inside.wait(10)
        leave.set()
        with warning_filter("ignore", RuntimeWarning):
            pass

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
