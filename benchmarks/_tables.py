"""Tables for the terminal and for the docs, and the clock of the speed tables."""

import time
from typing import NamedTuple

import numpy as np


class Table(NamedTuple):
    """Cells are texts; `below` is a paragraph that follows the table."""

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

    def listed(self):
        """For the docs."""
        lines = [f".. list-table:: {self.title}", "   :header-rows: 1", ""]
        for row in [self.header, *self.rows]:
            lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
        return "\n".join(lines) + "\n" + (f"\n{self.below}" if self.below else "")


def publish(folder, name, *tables):
    """Print tables; also write them into the file `name`.rst of `folder`, if one is given."""
    for table in tables:
        print(table.plain(), flush=True)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        text = "\n".join(table.listed() for table in tables)
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")


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
