"""A call of skfair beside its floor or a peer, in one run."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LEAST_SECONDS = 0.05  # of one measurement; shorter calls are repeated within it
Call = Callable[[], float | None]


class Row(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    what : str
        What skfair does, with the sizes of the data and networks.
    floor : str
        The floor or the peer.
    goal : float
        Largest ratio of skfair's cost to the floor's.
    prepare : callable
        Makes two functions without arguments: the call of skfair, and the floor. A function that
        returns None costs its processor time in seconds; a function that returns a number costs
        that number (of bytes, or of seconds of another process).
    unit : {"s", "MiB"}, default="s"
        Unit of the cost.
    repeats : int, default=9
        Pairs of measurements, in alternating order.
    """

    what: str
    floor: str
    goal: float
    prepare: Callable[[], tuple[Call, Call]]
    unit: str = "s"
    repeats: int = 9


class Cost(NamedTuple):
    """Medians: of skfair's cost, of the floor's, and of the ratio within pairs; its range."""

    ours: float
    floor: float
    ratio: float
    least: float
    most: float


def compare(row: Row) -> Cost:
    """Measure both calls of a row in turn."""
    calls = row.prepare()
    first = [call() for call in calls]  # it warms up; a returned cost counts
    pairs = [] if None in first else [first]
    counts = [_repetitions(call, cost) for call, cost in zip(calls, first, strict=True)]
    while len(pairs) < row.repeats:
        order = -1 if len(pairs) % 2 else 1
        costs = [_cost(*pair) for pair in list(zip(calls, counts, strict=True))[::order]]
        pairs.append(costs[::order])
    costs = np.array(pairs)
    ratios = costs[:, 0] / costs[:, 1]
    return Cost(*np.median(costs, axis=0), np.median(ratios), ratios.min(), ratios.max())


def _repetitions(call: Call, returned: float | None) -> int:
    """Number of calls that take long enough for the clock."""
    if returned is not None:
        return 1
    return max(1, round(LEAST_SECONDS / max(_cost(call, 1), 1e-6)))


def _cost(call: Call, count: int) -> float:
    start, value = time.process_time(), None
    for _ in range(count):
        value = call()
    return (time.process_time() - start) / count if value is None else value


class Used(NamedTuple):
    """What a process used: processor seconds, and the peak of its resident memory in MiB."""

    seconds: float
    peak: float


def fresh_process(code: str, **environment: str) -> Used:
    """Run code in a fresh process of Python; `environment` is added to the process's own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code += "\nprint(*[s.split()[1] for s in open('/proc/self/status') if 'VmHWM' in s])"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Used(seconds, int(process.stdout.split()[-1]) / 1024)
