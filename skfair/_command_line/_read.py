"""Reading the needed columns of CSV, JSON lines and parquet files."""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any, BinaryIO

import numpy as np

from skfair._command_line._open import find_format, open_bytes, read_lines
from skfair._command_line._table import NAME_ROOM, Column, Wanted, find_columns
from skfair.utils._imports import import_optional
from skfair.utils._shown import as_label, shown

_SEPARATORS = {"tab": "\t", "\\t": "\t"}


def read_columns(
    path: str, wanted: Wanted, *, format: str | None, separator: str | None, encoding: str | None
) -> tuple[Wanted, dict[str, Column]]:
    """Read the wanted columns of a file.

    Parameters
    ----------
    path : str
        Path of the file, or ``-`` for the standard input.
    wanted : Wanted
        Names as they were typed.
    format : {"csv", "jsonl", "parquet"} or None
        None tells the format by the suffix.
    separator : str or None
        Separator of CSV. None means a tab if the name ends in ``.tsv``, otherwise a comma.
    encoding : str or None
        Encoding of a text file. None means UTF-8.

    Returns
    -------
    wanted : Wanted
        Names of columns.
    columns : dict of str to Column

    Raises
    ------
    OSError, ValueError, ImportError
        The file cannot be read, or has no such columns.
    """
    format = find_format(path) if format is None else format
    if separator is not None and format != "csv":
        raise ValueError(f"--separator is for CSV files, but the format is {format}. Drop it.")
    if encoding is not None and format == "parquet":
        raise ValueError("--encoding is for text files, but the format is parquet. Drop it.")
    name = "standard input" if path == "-" else as_label(path)
    if separator is None:
        separator = "\t" if path.lower().removesuffix(".gz").endswith(".tsv") else ","
    separator = _SEPARATORS.get(separator, separator)
    if len(separator) != 1 or separator in '"\r\n\0':
        raise ValueError(
            f"--separator {shown(separator)} is not one character. Give for instance ';' or tab."
        )
    if format == "parquet" and path == "-":
        raise ValueError("A parquet file cannot be read from the standard input. Give its path.")
    with open_bytes(path) as file:
        if format == "parquet":
            found, columns = _read_parquet(file, name, wanted)
        else:
            with closing(read_lines(file, name, encoding or "utf-8")) as lines:
                if format == "csv":
                    found, columns = _read_csv(lines, name, wanted, separator)
                else:
                    found, columns = _read_json_lines(lines, name, wanted)
    if not len(columns[found.y_true].codes):
        raise ValueError(f"{name} has columns but no rows.")
    return found, columns


def _make_columns(found: Wanted, name: str, word: str) -> dict[str, Column]:
    return {key: Column(f"{name}, column {shown(key, NAME_ROOM)}", word) for key in found.names()}


def _read_csv(
    lines: Iterable[str], name: str, wanted: Wanted, separator: str
) -> tuple[Wanted, dict[str, Column]]:
    reader = csv.reader(lines, delimiter=separator, strict=True)
    rows = _rows(reader, name)
    header = next(rows, (0, []))[1]
    if not header:
        raise ValueError(f"{name} is empty. Expected a line with the names of the columns.")
    found = find_columns(wanted, header, name, _suggest_separator(header, separator))
    columns = _make_columns(found, name, "line")
    needed = [(header.index(key), column) for key, column in columns.items()]
    for place, row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"{name}, line {place}: the row has {len(row)} fields, but the header has "
                f"{len(header)}. {_explain_length(row, header, separator)}"
            )
        for position, column in needed:
            value = row[position]
            column.codes.append(column.find(value, value or None, place))
    return found, columns


def _rows(reader: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    """Read the rows that are not blank, with the line in which each begins."""
    place = 1
    try:
        for row in reader:
            if row:
                yield place, row
            place = reader.line_num + 1
    except csv.Error as error:
        if "field larger" in str(error) or "end of data" in str(error):
            raise ValueError(
                f"{name}, line {place}: a field is very long or has a quote that is never closed "
                f"({error}). Close the quote, and write a quote within a field twice."
            ) from error
        raise ValueError(
            f"{name}, line {place}: the row is not CSV ({error}). Put a field that contains quotes "
            "in quotes, and write a quote within a field twice."
        ) from error


def _suggest_separator(header: list[str], separator: str) -> str:
    if len(header) == 1:
        for other, typed in ((";", "';'"), ("\t", "tab"), (",", "','"), ("|", "'|'")):
            if other != separator and other in header[0]:
                return f" Does the file separate fields otherwise? Give --separator {typed}."
    return ""


def _explain_length(row: list[str], header: list[str], separator: str) -> str:
    quote = f"Put a field that contains {shown(separator)} in quotes."
    if len(row) == len(header) + 1:
        return f"{quote} If R wrote the file, write it with col.names=NA or row.names=FALSE."
    return quote


def _read_json_lines(
    lines: Iterable[str], name: str, wanted: Wanted
) -> tuple[Wanted, dict[str, Column]]:
    found, columns = None, {}
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parse(line, f"{name}, line {place}")
        if found is None:
            found = find_columns(wanted, list(record), f"{name}, line {place},")
            columns = _make_columns(found, name, "line")
        for key, column in columns.items():
            where = f"{column.where}, line {place}"
            value = _plain(record.get(key), where)
            if isinstance(value, str) and not value.isascii():
                _check_unicode(value, where)
            column.codes.append(column.find((type(value), value), value, place))
    if found is None:
        raise ValueError(f"{name} is empty. Expected a JSON object in each line.")
    return found, columns


def _check_unicode(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: {shown(value)} has half of a surrogate pair, which is not a character. "
            "Write the whole pair or another label."
        ) from error


def _parse(line: str, where: str) -> dict[str, Any]:
    advice = "Expected a JSON object in each line. `jq -c '.[]'` converts a JSON list."
    try:
        record = _DECODER.decode(line)
    except _TwiceError as error:
        raise ValueError(f"{where}: the key {error} occurs twice. Rename or drop one.") from None
    except json.JSONDecodeError as error:
        what = f"{error.msg} at character {error.pos + 1}"
        raise ValueError(f"{where}: the line is not JSON ({what}). {advice}") from error
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{where}: the line is not JSON ({error}). {advice}") from error
    except RecursionError as error:
        raise ValueError(f"{where}: the values are nested too deeply. {advice}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: the line is not a JSON object. {advice}")
    return record


class _TwiceError(Exception):
    """A key occurs twice in an object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(shown(next(key for key in keys if keys.count(key) > 1)))
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)  # json.loads would make one for each line


def _read_parquet(file: BinaryIO, name: str, wanted: Wanted) -> tuple[Wanted, dict[str, Column]]:
    purpose = "Reading a parquet file"
    parquet = import_optional("pyarrow.parquet", extra="parquet", purpose=purpose)
    arrow = import_optional("pyarrow", extra="parquet", purpose=purpose)
    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        found = find_columns(wanted, names, name)
        columns = _make_columns(found, name, "row")
        for key, column in columns.items():
            kind = table.schema_arrow.field(key).type
            if arrow.types.is_nested(kind):
                raise ValueError(
                    f"{column.where}: the values are nested ({kind}). Expected text, numbers or "
                    "truth values."
                )
            for chunk in table.read(columns=[key]).column(key).chunks:
                _add_chunk(column, chunk, arrow.types.is_dictionary(kind))
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{name} cannot be read as a parquet file: {error}") from error
    return found, columns


def _add_chunk(column: Column, chunk: Any, encoded: bool) -> None:
    """Append the values of an array of pyarrow, looking at each distinct value once."""
    chunk = chunk if encoded else chunk.dictionary_encode()
    values = [*chunk.dictionary.to_pylist(), None]
    codes = chunk.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    before = len(column.codes)
    translated = np.zeros(len(values), dtype=np.intc)
    occurring, first = np.unique(codes, return_index=True)
    for code, row in sorted(zip(occurring, first, strict=True), key=lambda pair: pair[1]):
        place = before + int(row) + 1
        value = _plain(values[code], f"{column.where}, row {place}")
        translated[code] = column.find((type(value), value), value, place)
    column.codes.frombytes(translated[codes].tobytes())


def _plain(value: Any, where: str) -> Any:
    """Convert a value to text, a number, a truth value, or None if it is missing."""
    if isinstance(value, bytes | list | dict):
        kind = {bytes: "binary", list: "a nested list", dict: "a nested object"}[type(value)]
        raise ValueError(f"{where}: the value is {kind}. Expected text, a number or a truth value.")
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if isinstance(value, str | bool | int | float | None) else str(value)
