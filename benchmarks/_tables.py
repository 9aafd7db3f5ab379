"""Tables for the terminal and for the docs, and the clock of the speed tables."""

import time

import numpy as np


def list_table(title, header, rows):
    """For the docs."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in [header, *rows]:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def plain_table(title, header, rows):
    """For the terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([f"{title}", *lines]) + "\n"


def processor_time(function, *arguments, n_repeats=1):
    """Median of processor times, which other work on the machine leaves alone."""
    times = []
    for _ in range(n_repeats):
        start = time.process_time()
        function(*arguments)
        times.append(time.process_time() - start)
    return float(np.median(times))
