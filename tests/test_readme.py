"""Each README example that "runs as shown" runs, and prints the text that the README shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
NUMBER = re.compile(r"\d+\.?\d*|\.\d+")
RUNS = re.compile(r"runs as shown.*?```python\n(.*?)```\n+```text\n(.*?)```", re.DOTALL)
BLOCKS = RUNS.findall(README.read_text())


def test_there_are_such_blocks():
    assert len(BLOCKS) == README.read_text().count("runs as shown") == 4


@pytest.mark.thorough
@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=range(len(BLOCKS)))
def test_prints_what_the_readme_shows(code, printed, tmp_path):
    # A new process has the reader's warning filters, and no settings of other tests.
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert NUMBER.sub("#", run.stdout).split() == NUMBER.sub("#", printed).split()
    # Other processors may differ by a few samples.
    for found, shown in zip(NUMBER.findall(run.stdout), NUMBER.findall(printed), strict=True):
        assert float(found) == pytest.approx(float(shown), rel=0.1, abs=0.05)
