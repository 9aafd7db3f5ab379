"""Tables for the terminal and for ``docs/results``, and the clock of the speed tables."""

import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

import skfair

# Whatever of these is installed is named beside a result.
PACKAGES = (
    "captum", "dask", "fairlearn", "numpy", "oxonfair", "pandas", "peft",
    "scikit-learn", "scipy", "skorch", "torch", "transformers",
)  # fmt: skip


class Table(NamedTuple):
    """Cells are texts; `below` is reStructuredText that follows the table."""

    title: str
    header: list
    rows: list
    below: str = ""

    def plain(self):
        """For the terminal."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [self.header, *self.rows]
        ]
        return "\n".join([self.title, *lines]) + "\n" + self.below


def publish(folder, name, *tables, seeds):
    """Print tables; also store them, if a folder is given."""
    for table in tables:
        print(table.plain(), flush=True)
    if folder is not None:
        store(folder, name, *tables, seeds=seeds)


def store(folder, name, *tables, seeds):
    """Write tables into the file `name`.json of a folder; `_results.py` documents the fields.

    `seeds` says in words which seeds the numbers are from.
    """
    result = {
        "command": command(sys.argv),
        "versions": versions(),
        "seeds": seeds,
        "machine": machine(),
        "tables": [
            {"title": t.title, "columns": t.header, "rows": t.rows, "below": t.below}
            for t in tables
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def command(words):
    """The command of this process; paths, which are of one machine alone, become PATH."""
    return " ".join("PATH" if Path(word).name != word else word for word in words)


def versions():
    found = {"python": platform.python_version(), "skfair": skfair.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine():
    """What kind of machine this is, and not which."""
    return {"cores": os.cpu_count(), "processor": platform.machine(), "system": platform.system()}


def spelled(seeds):
    """Seeds in words, from a range or a list."""
    seeds = list(seeds)
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"


def percent(share):
    """A share as text; a dash for NaN."""
    return "-" if np.isnan(share) else f"{100 * share:.0f} %"


def processor_time(function, *arguments, n_repeats=1):
    """Median of processor times, which do not count other work on the machine."""
    times = []
    for _ in range(n_repeats):
        start = time.process_time()
        function(*arguments)
        times.append(time.process_time() - start)
    return float(np.median(times))
