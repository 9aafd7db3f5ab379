"""Names and values from data, escaped and shortened for messages and reports.

The author of the data chooses the names of labels, columns and files. Without escaping, control
characters in a name could move the cursor of a terminal, reverse text, or forge whole lines.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

_JOINERS = "\u200c\u200d"  # not printable, but parts of Persian words and of emoji
_ROOM = 40
_AT_MOST = 5
_WIDEST = 200


def shown(value: Any, room: int = _ROOM) -> str:
    """Format a value for a message: as ``repr`` does, escaped and shortened.

    Parameters
    ----------
    value : object
        A label or a name.
    room : int, default=40
        Maximum number of characters.

    Returns
    -------
    str

    Examples
    --------
    >>> print(shown("red"), shown(3), shown(("f", True)), shown("a" * 99, 5))
    'red' 3 ('f', True) 'aaaaa'...
    >>> print(shown("a" + chr(27) + "[2J"))
    'a\\x1b[2J'
    """
    if isinstance(value, str):
        return repr(str(value[:room])) + ("..." if len(value) > room else "")
    if type(value) is tuple and len(value) > 1:
        return f"({shown_all(value, room)})"
    text = plain(repr(value))
    return text if len(text) <= room else f"{text[:room]}..."


def shown_all(values: Collection, room: int = _ROOM) -> str:
    """Format the first five of many values for a message.

    Parameters
    ----------
    values : collection
        Labels or names.
    room : int, default=40
        Maximum number of characters of each value.

    Returns
    -------
    str

    Examples
    --------
    >>> shown_all(["a", "b"])
    "'a', 'b'"
    >>> shown_all(range(100))
    '0, 1, 2, 3, 4, ... (100 in all)'
    """
    first = [shown(value, room) for value, _ in zip(values, range(_AT_MOST), strict=False)]
    more = [f"... ({len(values)} in all)"] if len(values) > _AT_MOST else []
    return ", ".join(first + more)


def as_label(value: Any) -> str:
    """Format a label for a table or a plot: without quotes, escaped, cut after 200 letters.

    Parameters
    ----------
    value : object

    Returns
    -------
    str

    Examples
    --------
    >>> as_label("red"), as_label(3), len(as_label("a" * 10**6))
    ('red', '3', 203)
    """
    text = str(value)
    return plain(text if len(text) <= _WIDEST else f"{text[:_WIDEST]}...")


def tell_apart(
    labels: Iterable, reserved: Collection[str] = (), write: Callable[[Any], str] = as_label
) -> dict[Any, str]:
    """Format labels for a table or a plot, so that a reader cannot confuse two of them.

    Parameters
    ----------
    labels : iterable
        Labels that can be hashed.
    reserved : collection of str, default=()
        Other texts in the same place, in lower case, for example the names of total rows.
    write : callable, default=as_label
        Formats a label that looks like no other label. Labels that look alike are formatted as
        by ``repr``: 1 and '1'.

    Returns
    -------
    dict of label to str

    Examples
    --------
    >>> tell_apart([1, "1", "a", "overall"], reserved=["overall"])
    {1: '1', '1': "'1'", 'a': 'a', 'overall': "'overall'"}
    """
    texts = {label: write(label) for label in labels}
    looks = {label: " ".join(text.split()) for label, text in texts.items()}  # what a reader sees
    often = Counter(looks.values())
    return {
        label: shown(label, _WIDEST)
        if often[look] > 1 or look.casefold() in reserved
        else texts[label]
        for label, look in looks.items()
    }


def plain(text: str) -> str:
    """Escape characters that control a terminal, as ``repr`` does, but without quotes.

    Parameters
    ----------
    text : str

    Returns
    -------
    str

    Examples
    --------
    >>> print(plain("größer"), plain("a" + chr(10) + "b"))
    größer a\\nb
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in _JOINERS else repr(letter)[1:-1]
        for letter in text
    )


def columns_of(text: str) -> int:
    """Count the columns of a text: two for a wide letter, none for accents and joiners.

    Parameters
    ----------
    text : str

    Returns
    -------
    int

    Examples
    --------
    >>> columns_of("abc"), columns_of(chr(0x7B2C)), columns_of("e" + chr(0x301))
    (3, 2, 1)
    """
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.combining(letter) or unicodedata.category(letter) == "Cf"
        else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )
