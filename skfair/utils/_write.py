"""Writing a file completely or not at all."""

import os
import secrets
from pathlib import Path

from skfair.utils._shown import plain


def write_whole(path: str | os.PathLike, text: str) -> Path:
    """Write a text file; an existing file is replaced when the new one is complete.

    Parameters
    ----------
    path : str or path-like
        Path of the file. Its folder must exist.
    text : str
        Content, written as UTF-8 with the line ends that it has.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    FileNotFoundError
        The folder does not exist.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/a.txt", "words").read_text()
    'words'
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder of path, {plain(str(path.parent))}, does not exist. Make it first."
        )
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
