"""The page for developers: its code runs as written."""

import doctest
import warnings
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "developers" / "add_a_method.rst"


def test_the_page_runs():
    with warnings.catch_warnings():
        # Its checks fit for a moment, and find what such fits find.
        warnings.simplefilter("ignore")
        failures, tried = doctest.testfile(
            str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
        )
    assert tried > 20
    assert failures == 0
