"""How many examples: the same few in each run, or as many as asked for, new ones, by hand.

Run: SKFAIR_FUZZ=2000 pytest tests/fuzzing
"""

import os

from hypothesis import HealthCheck, settings


def some(n: int) -> settings:
    """The settings of a test that tries `n` examples."""
    asked = os.environ.get("SKFAIR_FUZZ")
    return settings(
        max_examples=int(asked or n),
        derandomize=asked is None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
