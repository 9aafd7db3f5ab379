"""The memory of this machine, for limits that depend on it."""

import math
import os


def physical_memory() -> float:
    """Return the memory of this machine in bytes; infinity if the system does not report it.

    Returns
    -------
    float

    Examples
    --------
    >>> physical_memory() > 2**20
    True
    """
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows, and others without these names
        return math.inf
