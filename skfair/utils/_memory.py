"""How much memory this machine has, for limits that are not a matter of taste."""

import math
import os


def physical_memory() -> float:
    """Count the bytes of memory of this machine; infinity where the system does not tell.

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
