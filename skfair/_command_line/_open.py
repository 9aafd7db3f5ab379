"""Opening a file of predictions: its format, its compression and its encoding."""

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from skfair.utils._regular_files import open_regular
from skfair.utils._shown import shown

FORMATS = {
    "csv": (".csv", ".tsv", ".txt"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet", ".pq"),
}
_LONGEST = 2**24  # characters in a line; a longer line is a sign of another kind of file
_SIGNS = {
    b"PAR1": "is a parquet file. Give --format parquet",
    b"PK\x03\x04": "is a zip archive or an Excel workbook. Save it as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook. Save it as CSV",
    b"\x1f\x8b": "is compressed with gzip. Its name must end in .gz",
}


def find_format(name: str) -> str:
    """Tell the format of a file by its suffix; ``-``, the standard input, is CSV.

    Parameters
    ----------
    name : str
        Path of the file.

    Returns
    -------
    str
        A key of :data:`FORMATS`.

    Raises
    ------
    ValueError
        The suffix belongs to no format.

    Examples
    --------
    >>> find_format("scores.csv.gz"), find_format("Scores.JSONL"), find_format("-")
    ('csv', 'jsonl', 'csv')
    """
    if name == "-":
        return "csv"
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    for known, suffixes in FORMATS.items():
        if suffix in suffixes:
            return known
    hint = " Save an Excel workbook as CSV." if suffix.startswith(".xls") else ""
    raise ValueError(
        f"The suffix {shown(suffix)} of {shown(name, 200)} does not tell the format.{hint} Give "
        f"--format, which is one of [{', '.join(FORMATS)}]."
    )


@contextmanager
def open_bytes(name: str) -> Iterator[BinaryIO]:
    """Open a file, or the standard input for ``-``; a name with ``.gz`` is decompressed.

    Parameters
    ----------
    name : str
        Path of the file.

    Yields
    ------
    binary file

    Raises
    ------
    OSError, ValueError
        See :func:`skfair.utils._regular_files.open_regular`.
    """
    if name == "-":
        if sys.stdin is None:
            raise ValueError("The standard input is closed. Give a file instead of '-'.")
        yield sys.stdin.buffer
        return
    with open_regular(name, "file") as file:
        if name.lower().endswith(".gz"):
            with gzip.open(file) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file


def read_lines(file: BinaryIO, name: str, encoding: str) -> Generator[str, None, None]:
    """Read the lines of a text file, with their line ends, and refuse what is no text.

    Parameters
    ----------
    file : binary file
    name : str
        The file, for messages.
    encoding : str
        Name of the encoding; a byte order mark of UTF-8 is skipped.

    Yields
    ------
    str

    Raises
    ------
    ValueError
        The encoding is unknown or another one, a line is longer than 2**24 characters, or the file
        is binary or damaged.
    """
    try:
        if codecs.lookup(encoding).name == "utf-8":
            encoding = "utf-8-sig"
        # Bytes that are not UTF-8 become lone surrogates, so that their line can be named.
        text = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
    except (LookupError, ValueError) as error:
        raise ValueError(
            f"--encoding {shown(encoding)} is not an encoding of text. Give for instance utf-8, "
            "cp1252 or utf-16."
        ) from error
    number = 0
    try:
        start = cast(Any, file).peek(4)[:4] if hasattr(file, "peek") else b""
        for sign, advice in _SIGNS.items():
            if start.startswith(sign):
                raise ValueError(f"{name} {advice}.")
        while line := text.readline(_LONGEST):
            number += 1
            if len(line) >= _LONGEST and line[-1] not in "\r\n":
                raise ValueError(
                    f"{name}, line {number}: the line is longer than {_LONGEST:,} characters. Is "
                    "this a text file with a row in each line?"
                )
            if not line.isascii():
                _check_text(line, f"{name}, line {number}", encoding)
            if "\0" in line:
                raise ValueError(
                    f"{name}, line {number}: a character is NUL. The file is binary, damaged or "
                    "UTF-16 (--encoding utf-16)."
                )
            yield line
    except UnicodeError as error:
        raise ValueError(
            f"{name}, after line {number}: the text is not in {shown(encoding)} "
            f"({type(error).__name__}). Give its --encoding, for instance utf-8 or cp1252."
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{name}, after line {number}: the gzip file is damaged or cut off ({error})."
        ) from error
    finally:
        text.detach()  # the caller closes the file


def _check_text(line: str, where: str, encoding: str) -> None:
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) & 0xFF
        name = encoding.removesuffix("-sig")
        utf16 = line[:2] in ("\udcff\udcfe", "\udcfe\udcff")
        advice = (
            "The file begins as UTF-16: give --encoding utf-16"
            if utf16
            else "Give its --encoding, for instance cp1252 for a file of Excel on Windows"
        )
        raise ValueError(
            f"{where}: character {error.start + 1} is the byte 0x{byte:02x}, which is not "
            f"{name} text. {advice}."
        ) from error
