"""Labels and weights from the values of a file, in which numbers may be text."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from skfair._command_line._table import Column
from skfair.utils._groups import MANY_NUMBERS
from skfair.utils._shown import shown, shown_all

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,300}\s*")
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_COMMA = re.compile(r"\s*[+-]?[0-9]+,[0-9]+\s*")
_TRUTH = {"true": True, "false": False}
# Words that other programs write for a missing value. As a group they are labels: a group may be
# called "NA".
_MISSING = {"na", "n/a", "nan", "null", "none", "<na>"}
_BIN = "Bin the values first, for instance to age bands."
_COMPLETE = "Leave out the rows without labels before you compare the predictions."


def encode_classes(columns: Mapping[str, Column]) -> tuple[dict[str, np.ndarray], list]:
    """Convert columns of true and predicted labels, so that equal labels are equal objects.

    If all labels are numbers, they become numbers: ``1``, ``1.0`` and ``"1"`` are one label, and
    so are ``True`` and ``1``. If all are ``true`` or ``false``, they become truth values. Otherwise
    they are text, and labels that are equal as numbers are spelled as the first of them.

    Parameters
    ----------
    columns : dict of str to Column
        First the true labels, then the predicted labels of each model.

    Returns
    -------
    arrays : dict of str to ndarray of shape (n_rows,)
    labels : list
        All distinct labels.

    Raises
    ------
    ValueError
        A label is missing or looks like a missing one, or the values are scores.
    """
    for column in columns.values():
        column.check_complete(_COMPLETE)
        _refuse_scores(
            column, "Write the predicted label, for instance 1 where the score is at least 0.5."
        )
    values = [value for column in columns.values() for value in column.values]
    words = {value for value in values if _as_number(value) is None}
    _refuse_missing_words(columns, words, among_numbers=len(words) < len({*values}))
    truth = all(isinstance(_truth(value), bool) for value in values)
    spelled = {as_text(value): str(value) for value in reversed(values)}

    def convert(value: Any) -> Any:
        if truth:
            return _truth(value)
        # Spreadsheets drop leading zeros: "01" and "1" are one label in text, too.
        return spelled[as_text(value)] if words else _as_number(value)

    arrays = {
        name: column.expand([convert(value) for value in column.values])
        for name, column in columns.items()
    }
    return arrays, list(dict.fromkeys(convert(value) for value in values))


def get_groups(column: Column) -> np.ndarray:
    """Return a column of group labels; numbers in text stay text, for instance "007".

    Returns
    -------
    ndarray of shape (n_rows,), object
        None for a missing label.

    Raises
    ------
    ValueError
        The values are continuous, or they are too many numbers, for instance ages.
    """
    _refuse_scores(column, _BIN)
    # A leading zero shows that the digits are a name, for instance "00712".
    spelled = [str(value).strip() for value in column.values if value is not None]
    read = [_as_number(text) for text in spelled]
    numbers = [number for number in read if isinstance(number, int)]
    if len(numbers) > MANY_NUMBERS and [*map(str, numbers)] == spelled:
        raise ValueError(
            f"{column.where}: the values are {len(numbers)} different numbers, from "
            f"{shown(min(numbers))} to {shown(max(numbers))}. Expected labels of groups. {_BIN} If "
            "each number is the name of a group, write a word before it, such as 'clinic 12'."
        )
    return column.expand(column.values)


def find_label(typed: str, labels: list, option: str) -> Any:
    """Find the label that was typed.

    Parameters
    ----------
    typed : str
    labels : list
        The labels that occur.
    option : str
        For messages.

    Returns
    -------
    object
        One of `labels`.

    Raises
    ------
    ValueError
        The label does not occur.

    Examples
    --------
    >>> find_label("1.0", [0, 1], "--pos-label"), find_label("b", ["a", "b"], "--pos-label")
    (1, 'b')
    """
    number = _as_number(typed)
    for label in labels:
        if as_text(label) == as_text(typed) or (number is not None and _as_number(label) == number):
            return label
    raise ValueError(
        f"{option} {shown(typed)} does not occur; the labels are [{shown_all(labels)}]. Give one "
        "of them."
    )


def read_weights(column: Column) -> np.ndarray:
    """Convert a column to weights.

    Returns
    -------
    ndarray of shape (n_rows,), float64

    Raises
    ------
    ValueError
        A weight is missing, is no finite number, or is negative.
    """
    column.check_complete("Give each row a weight, 0 to leave it out.")
    weights = []
    for code, value in enumerate(column.values):
        number = _as_number(value)
        if number is None or isinstance(_truth(value), bool) or not 0 <= number < math.inf:
            decimal = isinstance(value, str) and _COMMA.fullmatch(value)
            raise ValueError(
                f"{column.at(code)}: {shown(value)} is not a weight. Expected a number that is not "
                f"negative{', with a decimal point' if decimal else ''}."
            )
        weights.append(float(number))
    return np.array(weights)[np.asarray(column.codes)]


def as_text(label: Any) -> str:
    """Write a label as text that is the same for equal labels, without decimals of whole numbers.

    Returns
    -------
    str

    Examples
    --------
    >>> as_text("1.0"), as_text(1), as_text("1.5"), as_text("a")
    ('1', '1', '1.5', 'a')
    """
    label = _truth(label)
    number = None if isinstance(label, bool) else _as_number(label)
    return str(number) if isinstance(number, int) else str(label)


def _refuse_missing_words(columns: Mapping[str, Column], words: set, among_numbers: bool) -> None:
    """Refuse a word such as "NA" that stands among numbers, or that is predicted but never true."""
    true = next(iter(columns.values()))
    numbers = among_numbers and all(map(_looks_missing, words))
    for column in columns.values():
        for code, value in enumerate(column.values):
            if _looks_missing(value) and (numbers or value not in true.values):
                raise ValueError(
                    f"{column.at(code)}: {shown(value)} looks like a missing label, because it "
                    f"{'stands among numbers' if numbers else 'is never a true label'}. "
                    f"{_COMPLETE} If it is a class, rename it."
                )


def _refuse_scores(column: Column, advice: str) -> None:
    values = [(code, value) for code, value in enumerate(column.values) if value is not None]
    words = [code for code, value in values if _as_number(value) is None]
    comma = [code for code in words if _has_comma(column.values[code])]
    if comma and len(words) == len(comma):
        raise ValueError(
            f"{column.at(comma[0])}: {shown(column.values[comma[0]])} has a decimal comma. "
            f"Expected labels. {advice}"
        )
    scores = [code for code, value in values if isinstance(_as_number(value), float)]
    if scores and not words:
        raise ValueError(
            f"{column.at(scores[0])}: {shown(column.values[scores[0]])} is not a label, but a "
            f"continuous value. {advice}"
        )


def _as_number(value: Any) -> int | float | None:
    """Read a number or a truth value; a whole number is an int. None for other words."""
    value = _truth(value)
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return int(value)
        if not _NUMBER.fullmatch(value):
            return None
        value = float(value)
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole else value


def _truth(value: Any) -> Any:
    return _TRUTH.get(value.strip().casefold(), value) if isinstance(value, str) else value


def _has_comma(value: Any) -> bool:
    return isinstance(value, str) and _COMMA.fullmatch(value) is not None


def _looks_missing(value: Any) -> bool:
    return isinstance(value, str) and value.strip().casefold() in _MISSING
