"""The page of promises names checks and tests that exist, and all checks."""

import re
from pathlib import Path

import pytest

from skfair.estimator_checks._registry import CHECKS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "user_guide" / "promises.rst").read_text()


def test_every_check_is_on_the_page_with_its_promise():
    listed = re.findall(r"   \* - (.+)\n     - ``(check_\w+)``\n", PAGE)
    assert listed == [(check.function.__doc__, check.function.__name__) for check in CHECKS]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"``(test_\w+)``", PAGE))))
def test_every_test_on_the_page_exists(name):
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    assert any(f"\ndef {name}(" in text for text in tests)
