"""Names and values of data, as messages and reports show them: escaped and short.

Labels, columns and files are named by whoever made the data. Control characters in them, printed
as they are, move the cursor of a terminal, turn text around, or forge whole lines.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

_JOINERS = "\u200c\u200d"  # not printable either, but parts of Persian words and of emoji
_ROOM = 40
_AT_MOST = 5
_WIDEST = 200


def shown(value: Any, room: int = _ROOM) -> str:
    """Write a value for a message: as ``repr`` does, escaped and shortened.

    Parameters
    ----------
    value : object
        A label or a name.
    room : int, default=40
        Characters of the value that are shown.

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
    """Write the first few of many values for a message.

    Parameters
    ----------
    values : collection
        Labels or names.
    room : int, default=40
        Characters of each that are shown.

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
    """Write a label for a table or a plot: without quotes, escaped, and cut where it is endless.

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
    """Write labels for a table or a plot so that none can be taken for another.

    Parameters
    ----------
    labels : iterable
        Labels that can be hashed.
    reserved : collection of str, default=()
        What stands beside them and is no label, in lower case.
    write : callable, default=as_label
        How a label is written that looks like no other. Those that do look alike are written as
        ``repr`` does: 1 and '1'.

    Returns
    -------
    dict of label to str

    Examples
    --------
    >>> tell_apart([1, "1", "a", "overall"], reserved=["overall"])
    {1: '1', '1': "'1'", 'a': 'a', 'overall': "'overall'"}
    """
    texts = {label: write(label) for label in labels}
    looks = {label: " ".join(text.split()) for label, text in texts.items()}  # as a reader sees it
    often = Counter(looks.values())
    return {
        label: shown(label, _WIDEST)
        if often[look] > 1 or look.casefold() in reserved
        else texts[label]
        for label, look in looks.items()
    }


def plain(text: str) -> str:
    """Escape what a terminal acts on, as ``repr`` does, without quotes; all else stays.

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
