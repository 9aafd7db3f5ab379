"""Outputs: paths, which are checked before the work begins, and the standard output."""

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from skfair.utils._shown import shown


def check_outputs(outputs: Mapping[str, str | None], source: str) -> None:
    """Refuse output paths that cannot be written, or that would replace the input.

    Parameters
    ----------
    outputs : dict of str to (str or None)
        Paths by option; None where the option was not given.
    source : str
        Path of the input, or ``-`` for the standard input.

    Raises
    ------
    ValueError
        A folder does not exist, an output is not a regular file, or two paths are the same file.
    """
    given = {option: Path(path) for option, path in outputs.items() if path is not None}
    seen: dict[Path, str] = {}
    for option, path in given.items():
        name = f"{option} {shown(str(path), 200)}"
        if str(path) == "-":  # the standard output has the text already
            raise ValueError(f"{name} is not a path. Give the path of a file.")
        if not path.parent.is_dir():
            raise ValueError(f"{name}: the folder does not exist. Make it first.")
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "a device or a pipe"
            raise ValueError(f"{name} is {kind}. Give the path of a file.")
        if path.exists() and _is_source(path, source):
            raise ValueError(f"{name} is the input file. Give another path.")
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise ValueError(f"{name} is also the file of {other}. Give another path.")


def print_text(text: str) -> None:
    """Print text; a reader that has gone, such as ``head``, is no mistake.

    Parameters
    ----------
    text : str

    Raises
    ------
    OSError
        The text cannot be printed, for instance because the disk is full.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        # Python flushes once more when it exits, which must not fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise OSError(f"The text cannot be printed: {error.strerror}.") from error


def _is_source(path: Path, source: str) -> bool:
    if source != "-":
        return os.path.exists(source) and os.path.samefile(path, source)
    try:
        status = os.fstat(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # closed, or replaced by a test
        return False
    return stat.S_ISREG(status.st_mode) and os.path.samestat(status, path.stat())
