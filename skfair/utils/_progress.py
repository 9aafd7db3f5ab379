"""Progress bars: one kind, each with a name and a unit."""

import sys
from typing import Any

import tqdm


def progress_bar(name: str, *, total: int, unit: str, show: bool = True) -> Any:
    """Make a bar over the parts of something that takes long.

    In a notebook it is a widget where these are installed, and text anywhere else. (``tqdm.auto``
    decides the same when it is imported, and warns where they are not.)

    Parameters
    ----------
    name : str
        What is done, in a word or two: "encode".
    total : int
        How many parts there are.
    unit : str
        What one of them is called: "image".
    show : bool, default=True
        Whether to show it; one that is not shown is updated and closed all the same.

    Returns
    -------
    tqdm.tqdm
        To be used in a ``with`` statement, or closed.

    Examples
    --------
    >>> with progress_bar("encode", total=2, unit="image", show=False) as bar:
    ...     bar.update()
    """
    return _kind()(total=total, desc=name, unit=unit, disable=not show)


def _kind() -> Any:
    ipython = sys.modules.get("IPython")  # which a notebook has imported
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and "IPKernelApp" in shell.config:
        from tqdm import notebook

        if notebook.IProgress is not None:
            return notebook.tqdm
    return tqdm.tqdm
