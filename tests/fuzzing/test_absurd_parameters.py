"""Parameters that nobody can mean: refused by name, or harmless; nothing is taken for them."""

import subprocess
import sys
from numbers import Integral
from pathlib import Path

import calls
import numpy as np
import pytest
from sklearn.utils._param_validation import Interval

from skfair.discovery import all_estimators
from skfair.intraprocessing import _debiasing_data, _layerwise

pytestmark = pytest.mark.thorough

TRAINS_FOR_AS_LONG = ("max_epochs", "amplifier_max_epochs", "n_calls", "n_trials")


def _integers():
    """Every parameter of every estimator that may be any large integer."""
    for name, cls in all_estimators():
        for parameter, constraints in cls._parameter_constraints.items():
            if parameter in calls.make(name).get_params(deep=False) and any(
                isinstance(one, Interval) and one.type is Integral and one.right is None
                for one in constraints
            ):
                yield name, parameter


INTEGERS = sorted(_integers())
ABSURD = (10**9, 10**18, 10**30)


def _fit(estimator):
    if type(estimator).__name__ in calls.OF_IMAGES:
        keywords = {"sensitive_features": calls.GROUPS}
        if type(estimator).__name__ == "FrozenEncoderFeaturizer":
            keywords = {}
        return estimator.fit(calls.IMAGES, **keywords).transform(calls.IMAGES)
    return estimator.fit(calls.ROWS, calls.Y, sensitive_features=calls.GROUPS).predict(calls.ROWS)


@pytest.mark.parametrize(
    ("name", "parameter"), [pair for pair in INTEGERS if pair[1] not in TRAINS_FOR_AS_LONG]
)
def test_absurd_sizes_are_refused_by_name_or_harmless(name, parameter):
    usual = None
    for value in ABSURD:
        called = calls.call(_fit, calls.make(name, **{parameter: value}))
        if called.error is not None:
            assert f"{parameter}={value}" in str(called.error)
        elif usual is None:
            usual = called.result
        else:  # so large, one is as another
            np.testing.assert_array_equal(usual, called.result)


_STOPPED = """
import resource, signal, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {folder!r})
import calls, test_absurd_parameters as here

estimators = [calls.make(name, **{{parameter: value}}) for name, parameter, value in {runs!r}]
here._fit(calls.make({runs!r}[0][0]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def stop(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, stop)
for estimator in estimators:
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        here._fit(estimator)
        print("stopped", estimator.interrupted_)  # with what it had found by then
    except KeyboardInterrupt:
        print("stopped True")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print("grown", grown // (1 if sys.platform != "darwin" else 1024) // 1024)
"""


# One that trains and one that searches; the others take ten seconds each, and are run by hand.
ALWAYS = {"ClusterMarginClassifier", "LayerwiseDebiaser"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow)
        for name in sorted({name for name, p in INTEGERS if p in TRAINS_FOR_AS_LONG})
    ],
)
def test_what_only_takes_time_takes_no_memory_and_can_be_stopped(name):
    runs = [
        (name, parameter, value)
        for one, parameter in INTEGERS
        if one == name and parameter in TRAINS_FOR_AS_LONG
        for value in (10**9, 10**30)
    ]
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED.format(folder=folder, runs=runs)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *stopped, grown = done.stdout.split("\n")[:-1]
    assert stopped == ["stopped True"] * len(runs)
    assert int(grown.split()[1]) < 400  # MiB


def test_no_more_threads_than_processors_are_started(monkeypatch):
    seen = []
    parallel = calls.skfair.intraprocessing._random_perturbation.Parallel

    def noted(n_jobs, **keywords):
        seen.append(n_jobs)
        return parallel(n_jobs=n_jobs, **keywords)

    monkeypatch.setattr("skfair.intraprocessing._random_perturbation.Parallel", noted)
    for n_jobs in (10**9, -1, None):
        called = calls.call(_fit, calls.make("RandomPerturbationDebiaser", n_jobs=n_jobs))
        assert called.error is None
    assert seen[0] <= calls.skfair.intraprocessing._random_perturbation.cpu_count()
    assert seen[1:] == [-1, None]


@pytest.mark.parametrize("name", sorted(name for name, _ in all_estimators() if "Debiaser" in name))
def test_an_identifier_as_the_group_is_refused_in_words(name, monkeypatch):
    monkeypatch.setattr(_debiasing_data, "MOST_COUNTS", 2 * 16 * 32)
    groups = [f"person \x1b[2J{i // 2}" for i in range(calls.N)]
    called = calls.call(calls.make(name).fit, calls.ROWS, calls.Y, sensitive_features=groups)
    assert "sensitive_features has 16 groups in 32 samples" in str(called.error)


def test_random_points_are_drawn_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(_layerwise, "_DRAWN", 1)
    estimator = calls.make("LayerwiseDebiaser", n_calls=6)
    assert calls.call(_fit, estimator).error is None
    assert (estimator.trials_["candidate"] == "layer").sum() == 6
