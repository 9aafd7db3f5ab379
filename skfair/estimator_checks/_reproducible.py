"""Promises about seeds, batches, and the state of the process."""

import os
import pickle
import random
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from torch import nn

from skfair.estimator_checks._case import Case, has_parameters, make_case, memory_parameters
from skfair.estimator_checks._registry import promise
from skfair.estimator_checks._running import (
    assert_close,
    assert_identical,
    assert_same_fit,
    assert_unchanged,
    output_methods,
    outputs,
    row_methods,
)
from skfair.utils._random import seeded


def _is_seeded(estimator: Any) -> bool:
    return has_parameters(estimator, "random_state")


@contextmanager
def _default_generators_restored() -> Iterator[None]:
    """Restore the default generators of Python, NumPy and torch after a block that draws from them.

    All threads share these generators: what another thread draws during the block is drawn again
    after it. An estimator must therefore not do this (see :func:`skfair.utils.seeded`). A check
    may: it draws from the default generators only to show that a fit does not depend on them.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@promise()
def check_same_seed_same_bits(name: str, estimator: Any) -> None:
    """The same seed gives the same bits, whatever other code draws in between."""
    case = make_case(estimator)
    first = case.fit()
    with _default_generators_restored():
        np.random.rand(3)  # noqa: NPY002
        torch.rand(3)
        random.random()
        second = case.fit()
    assert_same_fit(first, second, case.X)


@promise()
def check_place_in_memory(name: str, estimator: Any) -> None:
    """Where in memory the rows lie changes no bit, so that a slice gives what its copy gives."""
    case = make_case(estimator)
    usual = case.fit()
    expected = outputs(usual, case.X)
    memory = np.empty(case.X.size + 32, case.X.dtype)
    # Addresses that vectors of the processor can and cannot start at.
    for first in (1, 2, 3, 4, 5, 8, 16):
        moved = memory[first : first + case.X.size].reshape(case.X.shape)
        moved[...] = case.X
        assert_identical(outputs(usual, moved), expected, f"outputs of {name} for moved rows")
        if first in (3, 5):
            assert_same_fit(case.fit(moved), usual, case.X)


@promise()
def check_threads(name: str, estimator: Any) -> None:
    """Fits in two threads, beside a third that runs networks and draws, give the usual bits."""
    case = make_case(estimator)
    alone = case.fit()
    rows = torch.ones(4, 5)
    with seeded(0), torch.no_grad():
        network = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
        known = network(rows)
    stop, errors = threading.Event(), []

    def run_and_draw() -> None:
        try:
            while not stop.is_set():
                torch.rand(3)
                with torch.no_grad():
                    assert torch.equal(network(rows), known)
        except Exception as error:
            errors.append(error)

    beside = threading.Thread(target=run_and_draw)
    with _default_generators_restored():
        beside.start()
        try:
            with ThreadPoolExecutor(2) as pool:
                fits = list(pool.map(lambda _: case.fit(), range(2)))
                copies = list(pool.map(lambda fit: pickle.loads(pickle.dumps(fit)), fits))
                predictions = list(pool.map(lambda _: outputs(alone, case.X), range(2)))
        finally:
            stop.set()
            beside.join()
    assert not errors, f"During fits of {name}, a network in another thread raised {errors[0]!r}."
    expected = outputs(alone, case.X)
    for fitted, prediction in zip(copies, predictions, strict=True):
        assert_same_fit(fitted, alone, case.X)
        assert_identical(prediction, expected, f"predictions of {name} in two threads")


@contextmanager
def _set(read: Callable[[], Any], write: Callable[[Any], None], value: Any) -> Iterator[None]:
    """Change a setting of the process, and restore it after the block."""
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def _settings() -> list[list[AbstractContextManager]]:
    """Return groups of settings. The settings of a group are compatible with each other."""
    default_dtype = torch.get_default_dtype, torch.set_default_dtype
    deterministic = torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    return [
        [
            torch.no_grad(),
            torch.autocast("cpu", dtype=torch.bfloat16),
            np.errstate(all="raise"),
            _set(*default_dtype, torch.float64),
        ],
        [
            torch.inference_mode(),
            _set(*default_dtype, torch.bfloat16),
            torch.device("meta"),
            _set(*deterministic, True),
        ],
    ]


@promise()
def check_settings(name: str, estimator: Any) -> None:
    """The caller's settings (types, gradients, precision, errors) change no bit of a fit."""
    case = make_case(estimator)
    usual = case.fit()
    expected = outputs(usual, case.X)
    for settings in _settings():
        with ExitStack() as stack:
            for setting in settings:
                stack.enter_context(setting)
            fitted = case.fit()
            found = outputs(usual, case.X)
        assert_identical(found, expected, f"outputs of {name} under settings")
        assert_same_fit(fitted, usual, case.X)


@promise(_is_seeded)
def check_random_state_moves_on(name: str, estimator: Any) -> None:
    """A ``RandomState`` advances with each fit, and the same start gives the same fits."""
    case = make_case(estimator)

    def run() -> tuple[list, list]:
        generator = np.random.RandomState(0)
        states, fits = [_state_of(generator)], []
        for _ in range(2):
            fits.append(_fit_with(case, generator))
            states.append(_state_of(generator))
        return fits, states

    (fits, states), (again, _) = run(), run()
    assert len(set(states)) == 3, f"fit of {name} draws nothing from its RandomState."
    for one, two in zip(fits, again, strict=True):
        assert_same_fit(one, two, case.X)


def _fit_with(case: Case, generator: np.random.RandomState) -> Any:
    fresh = case.with_parameters().estimator
    fresh.random_state = generator
    fitted = fresh.fit(case.X, case.y, **case.fit_params)
    return fitted.set_params(random_state=0)


def _state_of(generator: np.random.RandomState) -> bytes:
    return pickle.dumps(generator.get_state())


@promise()
def check_fitting_again(name: str, estimator: Any) -> None:
    """A second fit gives the same result as the fit of a new estimator."""
    case = make_case(estimator)
    fitted = case.fit()
    order = np.random.default_rng(1).permutation(len(case.X))
    fitted.fit(case.X[order], case.y, **case.fit_params)
    fitted.fit(case.X, case.y, **case.fit_params)
    fresh = case.fit()
    assert vars(fitted).keys() == vars(fresh).keys()
    assert_same_fit(fitted, fresh, case.X)


@promise()
def check_rows_one_by_one(name: str, estimator: Any) -> None:
    """The prediction for a row does not depend on the other rows."""
    case = make_case(estimator)
    fitted = case.fit()
    for method in row_methods(fitted, case.X):
        call = getattr(fitted, method)
        at_once = call(case.X)
        several = isinstance(at_once, list)
        single = [call(case.X[i : i + 1]) for i in range(12)]
        parts = (
            [np.concatenate(part) for part in zip(*single, strict=True)]
            if several
            else np.concatenate(single)
        )
        first = [part[:12] for part in at_once] if several else at_once[:12]
        assert_close(parts, first, f"{name}.{method}, row by row", single=case.X.ndim > 2)


@promise()
def check_row_order(name: str, estimator: Any) -> None:
    """The order of the rows changes only the order of the predictions."""
    case = make_case(estimator)
    fitted = case.fit()
    order = np.random.default_rng(0).permutation(len(case.X))
    for method in row_methods(fitted, case.X):
        call = getattr(fitted, method)
        as_given = call(case.X)
        moved = (
            [part[order] for part in as_given] if isinstance(as_given, list) else as_given[order]
        )
        assert_close(
            call(case.X[order]), moved, f"{name}.{method}, in another order", single=case.X.ndim > 2
        )


@promise(memory_parameters)
def check_memory_bounds(name: str, estimator: Any) -> None:
    """A parameter that only limits memory does not change any output."""
    case = make_case(estimator)
    expected = outputs(case.fit(), case.X)
    for parameter in memory_parameters(estimator):
        for size in (1, 7, 1000):
            found = outputs(case.with_parameters(**{parameter: size}).fit(), case.X)
            for method in expected:
                what = f"{name}.{method} with {parameter}={size}"
                assert_close(found[method], expected[method], what, single=case.X.ndim > 2)


def global_state() -> dict[str, Any]:
    """Return the state of the process that a fit must not change."""
    state = {
        "numpy's generator": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "numpy's error handling": np.geterr(),
        "python's generator": random.getstate(),
        "torch's generator": torch.get_rng_state().tolist(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "the choice of cuDNN's algorithms": (
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
        ),
        "scikit-learn's configuration": sklearn.get_config(),
        "the filters of warnings": list(warnings.filters),
        "the environment": dict(os.environ),
        "the working directory": os.getcwd(),
    }
    if torch.cuda.is_available():
        state["CUDA's generators"] = [s.tolist() for s in torch.cuda.get_rng_state_all()]
    return state


@promise()
def check_nothing_global(name: str, estimator: Any) -> None:
    """The process keeps its generators, configurations, filters, threads and environment."""
    case = make_case(estimator)
    if _is_seeded(estimator):
        case = case.with_parameters(random_state=np.random.RandomState(0))
    before = global_state()
    fitted = case.fit()
    _assert_unchanged(before, f"fit of {name}")
    for method in output_methods(fitted):
        getattr(fitted, method)(case.X)
        _assert_unchanged(before, f"{name}.{method}")
    if hasattr(fitted, "to_module"):
        fitted.to_module()
        _assert_unchanged(before, f"{name}.to_module")


def _assert_unchanged(before: dict[str, Any], what: str) -> None:
    after = global_state()
    changed = [key for key in before if before[key] != after[key]]
    assert not changed, f"{what} changes {', '.join(changed)}."


@contextmanager
def _empty_folders() -> Iterator[Path]:
    """Use empty folders as working directory and for temporary files."""
    cwd, temporary = os.getcwd(), tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder).resolve()
        (inside / "here").mkdir()
        (inside / "temporary").mkdir()
        os.chdir(inside / "here")
        tempfile.tempdir = str(inside / "temporary")
        try:
            yield inside
        finally:
            os.chdir(cwd)
            tempfile.tempdir = temporary


@promise()
def check_no_files_are_left(name: str, estimator: Any) -> None:
    """Fitting and predicting leave no files behind."""
    case = make_case(estimator)
    with _empty_folders() as folder:
        outputs(case.fit(), case.X)
        left = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert not left, f"{name} leaves the files {left} behind."


@promise()
def check_predicting_changes_nothing(name: str, estimator: Any) -> None:
    """Predicting twice gives the same output, and sets nothing on the estimator."""
    case = make_case(estimator)
    fitted = case.fit()
    before = dict(vars(fitted))
    first = outputs(fitted, case.X)
    assert_identical(first, outputs(fitted, case.X), f"repeated outputs of {name}")
    assert_unchanged(before, fitted, f"Predicting with {name}")
