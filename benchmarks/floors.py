"""The times that users wait for, each beside its floor or a peer, as ratios taken in one run.

    python -m benchmarks floors [PART ...] [--write docs/results]

A ratio is the cost of skfair divided by the cost of the floor: processor time, which other work
on the machine does not count to, of one thread; or memory, where the row says MiB. Each row runs
in a process of its own.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from benchmarks._floors.measure import Cost, compare
from benchmarks._tables import Table, publish

PARTS = [
    "imports",
    "one_row",
    "store",
    "encoder",
    "margin",
    "threads",
    "saved",
    "candidates",
    "hidden",
    "report",
]
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def rows_of(part):
    return importlib.import_module(f"benchmarks._floors.{part}").ROWS


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cost(value, unit):
    if unit == "s" and value < 1:
        return f"{number(1e3 * value)} ms" if value >= 1e-3 else f"{number(1e6 * value)} µs"
    return f"{number(value)} {unit}"


def measured(part, position, row):
    """Measure a row in a fresh process."""
    command = [sys.executable, "-m", "benchmarks", "floors", "--row", part, str(position)]
    environment = {**_ONE_THREAD, **os.environ, **_ONE_THREAD}
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    found = Cost(*json.loads(answer.stdout.splitlines()[-1]))
    ratio = f"{found.ratio:.2f} ({found.least:.2f} to {found.most:.2f})"
    cells = [row.what, row.floor, cost(found.floor, row.unit), cost(found.ours, row.unit), ratio]
    return [*cells, f"{row.goal:g}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: {', '.join(PARTS)}")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the table there too")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        part, position = arguments.row
        print(json.dumps(compare(rows_of(part)[int(position)])))
        return
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"PART is {sorted(unknown)[0]!r}, expected one of {', '.join(PARTS)}")
    if arguments.write and arguments.parts:
        parser.error("--write needs the complete table: name no PART")
    rows = []
    for part in arguments.parts or PARTS:
        for position, row in enumerate(rows_of(part)):
            rows.append(measured(part, position, row))
            print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    header = ["what", "floor or peer", "its cost", "skfair", "ratio (lowest to highest)", "goal"]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    title = f"Medians of alternating runs in one process each ({machine}, no accelerator)"
    publish(arguments.write, "floors", Table(title, header, rows), seeds="fixed in the rows")
