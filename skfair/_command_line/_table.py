"""The columns of a file that a command needs, with the place of each value in the file."""

import difflib
from array import array
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skfair.utils._labels import as_objects
from skfair.utils._shown import shown

NAME_ROOM = 80


@dataclass
class Column:
    """A column, stored as its distinct values and the position of each row's value in them.

    Attributes
    ----------
    where : str
        The file and the column, for messages.
    word : str
        ``"line"`` of a text file, ``"row"`` of a table: what `places` counts, from 1.
    values : list
        Distinct values in the order of the file; None for a missing value.
    places : list of int
        Where each distinct value occurs first.
    codes : array of int
        Position in `values`, for each row.
    """

    where: str
    word: str
    values: list = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    codes: Any = field(default_factory=lambda: array("i"))
    known: dict[Hashable, int] = field(default_factory=dict, repr=False)

    def find(self, key: Hashable, value: Any, place: int) -> int:
        """Return the position of a value in `values`; equal values have equal keys.

        Returns
        -------
        int
        """
        code = self.known.get(key)
        if code is None:
            code = self.known[key] = len(self.values)
            self.values.append(value)
            self.places.append(place)
        return code

    def at(self, code: int) -> str:
        """Describe where a distinct value occurs first.

        Returns
        -------
        str
            For instance ``"scores.csv, column 'b', line 3"``.
        """
        return f"{self.where}, {self.word} {self.places[code]}"

    def expand(self, values: Sequence) -> np.ndarray:
        """Return one value for each row, given one for each distinct value.

        Returns
        -------
        ndarray of shape (n_rows,), object
        """
        return as_objects(values)[np.asarray(self.codes)]

    def check_complete(self, advice: str) -> None:
        """Refuse missing values.

        Raises
        ------
        ValueError
            With the first place, the number of missing values, and the advice.
        """
        if None in self.values:
            code = self.values.index(None)
            many = int(np.count_nonzero(np.asarray(self.codes) == code))
            rest = f", as in {many:,} rows in all" if many > 1 else ""
            raise ValueError(f"{self.at(code)}: the value is missing{rest}. {advice}")


@dataclass(frozen=True)
class Wanted:
    """The columns that a command needs, by role.

    Attributes
    ----------
    y_true, weight : str or None
    y_pred, groups, control : tuple of str
    """

    y_true: str
    y_pred: tuple[str, ...]
    groups: tuple[str, ...]
    control: tuple[str, ...]
    weight: str | None

    def names(self) -> tuple[str, ...]:
        """List the columns, each once.

        Returns
        -------
        tuple of str
        """
        single = () if self.weight is None else (self.weight,)
        return tuple(
            dict.fromkeys((self.y_true, *self.y_pred, *self.groups, *self.control, *single))
        )


def find_columns(wanted: Wanted, columns: Sequence[str], file: str, hint: str = "") -> Wanted:
    """Find the wanted columns in the header of a file.

    A name of `groups` or `control` that is no column is split at its commas.

    Parameters
    ----------
    wanted : Wanted
        Names as they were typed.
    columns : sequence of str
        The header.
    file : str
        The file, for messages.
    hint : str, default=""
        Advice for a header that looks wrong.

    Returns
    -------
    Wanted
        Names of columns.

    Raises
    ------
    ValueError
        A column does not exist, exists twice, or is wanted twice in one role.
    """
    groups = _split(wanted.groups, columns)
    control = _split(wanted.control, columns)
    found = Wanted(wanted.y_true, wanted.y_pred, groups, control, wanted.weight)
    for option, names in (
        ("--y-true", (found.y_true,)),
        ("--y-pred", found.y_pred),
        ("--groups", groups),
        ("--control", control),
        ("--weight", () if found.weight is None else (found.weight,)),
    ):
        for name in names:
            if name not in columns:
                raise ValueError(
                    f"{file} has no column {shown(name, NAME_ROOM)}, which {option} names."
                    f"{near(name, columns)} The columns are [{_list(columns)}].{hint}"
                )
            places = [str(i) for i, column in enumerate(columns, start=1) if column == name]
            if len(places) > 1:
                raise ValueError(
                    f"{file} has {len(places)} columns {shown(name, NAME_ROOM)}, at positions "
                    f"{', '.join(places)}. Rename them, so that {option} means one of them."
                )
            if names.count(name) > 1:
                raise ValueError(f"{option} names the column {shown(name, NAME_ROOM)} twice.")
            if option == "--y-pred" and name == found.y_true:
                raise ValueError(
                    f"--y-true and --y-pred both name the column {shown(name, NAME_ROOM)}. "
                    "Give the column of true labels and a column of predicted labels."
                )
            if option == "--control" and name in groups:
                raise ValueError(
                    f"--groups and --control both name the column {shown(name, NAME_ROOM)}. "
                    "Drop one of them."
                )
    return found


def near(name: str, known: Collection[str]) -> str:
    """Offer the names that are nearly the same.

    Parameters
    ----------
    name : str
    known : collection of str

    Returns
    -------
    str
        A sentence with a space before it; empty if no name is near.

    Examples
    --------
    >>> near("Race", ["race", "sex"])
    " Did you mean 'race'?"
    """
    folded = {other[:NAME_ROOM].strip().casefold(): other for other in reversed([*known])}
    matches = difflib.get_close_matches(name[:NAME_ROOM].strip().casefold(), folded, n=3)
    found = " or ".join(shown(folded[match], NAME_ROOM) for match in matches)
    return f" Did you mean {found}?" if found else ""


def _split(names: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        whole = name in columns
        found += [name] if whole else [part.strip() for part in name.split(",")]
    return tuple(found)


def _list(columns: Sequence[str]) -> str:
    first = ", ".join(shown(column) for column in columns[:20])
    return first + (f", ... ({len(columns)} in all)" if len(columns) > 20 else "")
