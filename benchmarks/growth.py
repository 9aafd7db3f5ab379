"""Cost and memory of the main calls against rows, features, groups, classes and network size.

    python -m benchmarks growth [--part PART ...] [--most SECONDS] [--write docs/results]

Each point is measured in a process of its own, on one thread: processor time, which other work on
the machine does not count to, and the peak of the resident memory above its size right before the
call. A call with the smallest size goes before, so that imports do not count. A curve ends before
the size that would take longer than ``--most``. The exponent e of a curve fits seconds to size **
e, as least squares of the logarithms; of memory only if 1 MiB was used at least. Needs Linux.
"""

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks._growth import AXES, prepared
from benchmarks._large.networks import resident
from benchmarks._tables import Table, publish

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_LEAST_SECONDS = 0.3  # of processor time, in calls that are repeated


def costs(axis, call, size):
    """Median processor seconds, and MiB above the start in the first call."""
    prepared(axis, call, AXES[axis].sizes[0])()
    function = prepared(axis, call, size)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before, _ = resident()
    seconds, peak = [], None
    while sum(seconds) < _LEAST_SECONDS:
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
        peak = resident()[1] if peak is None else peak
    return float(np.median(seconds)), peak - before


def measured(*words):
    """Costs in a fresh process."""
    command = [sys.executable, "-m", "benchmarks", "growth", "--point", *map(str, words)]
    environment = {**os.environ, **_ONE_THREAD}
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def curve(name, call, most):
    """Costs at the sizes of an axis, up to the size that would take longer than `most` seconds."""
    axis, found = AXES[name], []
    for position, size in enumerate(axis.sizes):
        if position >= 2:
            steps = np.log([axis.shown(s) for s in axis.sizes[position - 2 : position + 1]])
            (first, _), (last, _) = found[-2:]
            slope = max(np.log(last / first) / (steps[1] - steps[0]), 1)
            if last * np.exp(slope * (steps[2] - steps[1])) > most:
                break
        found.append(measured(name, call, size))
        print(call, f"{axis.shown(size):,}", *map(shown, found[-1]), file=sys.stderr, flush=True)
    return found


def exponent(sizes, costs):
    """Slope of the logarithms: of all points, and of the upper half; "-" for less than two."""
    slopes = []
    for half in (0, len(sizes) // 2 if len(sizes) > 2 else 0):
        x, y = np.log(sizes[half:]), np.log(costs[half:])
        slopes.append(f"{np.polyfit(x, y, 1)[0]:.2f}" if len(x) > 1 else "-")
    return "; ".join(slopes)


def shown(number):
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def row(axis, call, found):
    sizes = np.array([axis.shown(size) for size in axis.sizes[: len(found)]])
    seconds, memory = np.array(found).T
    seen = memory >= 1
    cells = [f"{shown(s)} s, {shown(max(m, 0))} MiB" for s, m in found]
    cells += ["-"] * (len(axis.sizes) - len(found))
    return [call, *cells, exponent(sizes, seconds), exponent(sizes[seen], memory[seen])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", action="append", choices=AXES, help="default: all")
    parser.add_argument("--most", type=float, default=60, metavar="SECONDS", help="of one call")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the tables there too")
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        name, call, size = arguments.point
        print(json.dumps(costs(name, call, int(size))))
        return
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, no accelerator"
    for name in arguments.part or AXES:
        axis = AXES[name]
        rows = [row(axis, call, curve(name, call, arguments.most)) for call in axis.calls]
        sizes = [f"{axis.shown(size):,}" for size in axis.sizes]
        header = ["call", *sizes, "exponent of seconds: all; upper half", "of memory"]
        table = Table(f"{axis.title} ({machine})", header, rows)
        publish(arguments.write, f"growth_{name}", table, seeds="0")
