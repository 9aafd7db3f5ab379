"""Names from data are escaped and shortened in messages."""

import unicodedata

import numpy as np
import pytest

from skfair.utils._shown import plain, shown, shown_all

ACTED_ON = [
    "\x1b[2J",
    "\r",
    "\n",
    "\t",
    "\x00",
    "\x7f",
    "\x9b",
    "\u2028",
    "\u202e",
    "\u2066",
    "\ud800",
]


@pytest.mark.parametrize("letters", ACTED_ON)
@pytest.mark.parametrize("show", [shown, plain, lambda text: shown_all([text])])
def test_nothing_reaches_the_terminal_but_text(letters, show):
    text = show(f"a{letters}b")
    assert text.isprintable()
    assert (text.lstrip("'")[0], text.rstrip("'")[-1]) == ("a", "b")


def test_what_can_be_printed_stays():
    persian, family = "\u0645\u06cc\u200c\u062e", "\U0001f469\u200d\U0001f467"
    for text in ("größer", "日本", "<b>&", persian, family):
        assert plain(text) == text
    assert plain("a\\n") == "a\\n"
    assert shown("it's") == repr("it's")
    assert not any(
        unicodedata.category(letter) == "Cc" for letter in plain("".join(map(chr, range(256))))
    )


def test_long_values_are_cut():
    assert shown("a" * 10**6) == f"{'a' * 40!r}..."
    assert len(shown("\U000e0001" * 10**6)) < 450
    assert len(shown(list(range(10**5)))) == 43
    assert len(shown(("a" * 10**6,) * 10**4)) < 300
    assert shown_all("abcdefg") == "'a', 'b', 'c', 'd', 'e', ... (7 in all)"
    assert shown(np.str_("a")) == "'a'"
    assert shown(np.array(["a\n"] * 3)).isprintable()
