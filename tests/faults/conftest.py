"""The tests use the faults of the benchmark, which repeats each many more times."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
