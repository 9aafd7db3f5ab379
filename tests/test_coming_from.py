"""The code of the page for users of fairlearn runs, in its order, as the page says."""

import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "coming_from.rst"
BLOCK = re.compile(r"\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)")


def test_the_code_runs_and_its_assertions_hold():
    blocks = [textwrap.dedent(block) for block in BLOCK.findall(PAGE.read_text())]
    assert len(blocks) == PAGE.read_text().count("code-block:: python") == 5
    names = {}
    exec("\n".join(blocks), names)
    assert len(names["debiaser"].predict(names["X"][1500:])) == 500
