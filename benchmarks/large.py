"""Real networks, real inputs, more than one machine: what they cost, each beside its goal.

    python -m benchmarks large [--part PART ...] [--write docs/results]

Each run is in a process of its own. ``--write`` writes one table for each part.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks._tables import Table, publish

PARTS = {
    "networks": "Memory and time of debiasing a large network",
    "text": "A transformer with LoRA, debiased",
    "featurizer": "Features of image files",
    "images": "What one image costs before the encoder, processor time of one core",
    "maps": "Cluster margins from a file that is mapped into memory",
    "cluster": "Features with dask, on one machine",
}


def runs_of(part):
    return importlib.import_module(f"benchmarks._large.{part}").runs()


def measured(part, position):
    """Measure the rows of a run in a fresh process."""
    command = [sys.executable, "-m", "benchmarks", "large", "--run", part, str(position)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def met(number, goal):
    """Whether a number meets its goal; an empty text where there is no goal."""
    if not goal:
        return ""
    sign, bound = goal.split()
    held = number <= float(bound) if sign == "<=" else number >= float(bound)
    return "yes" if held else "no"


def shown(number):
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the tables there too")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        part, position = arguments.run
        print(json.dumps(np.ravel(runs_of(part)[int(position)].measure()).tolist()))
        return
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, no accelerator"
    for part in arguments.part or PARTS:
        found = []
        for position, run in enumerate(runs_of(part)):
            numbers = measured(part, position)
            for (what, goal), number in zip(run.goals.items(), numbers, strict=True):
                found.append([what, shown(number), goal or "-", met(number, goal) or "-"])
                print("  ".join(found[-1]), file=sys.stderr, flush=True)
        title = f"{PARTS[part]} ({machine})"
        header = ["what", "measured", "goal", "met"]
        table = Table(title, header, found)
        publish(arguments.write, f"large_{part}", table, seeds="fixed in the runs")
