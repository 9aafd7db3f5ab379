"""Progress bars: all of the same style, each with a name and a unit."""

import sys
from typing import Any

import tqdm


def progress_bar(name: str, *, total: int, unit: str, show: bool = True) -> Any:
    """Make a progress bar for a task of several parts.

    In a notebook with ipywidgets, the bar is a widget. Everywhere else it is text. (``tqdm.auto``
    makes the same choice, but when it is imported, and it warns if ipywidgets is missing.)

    Parameters
    ----------
    name : str
        The task, in one or two words, for example "encode".
    total : int
        Number of parts.
    unit : str
        Name of one part, for example "image".
    show : bool, default=True
        Whether to show the bar. A hidden bar is updated and closed in the same way.

    Returns
    -------
    tqdm.tqdm
        The bar. Use it in a ``with`` statement, or close it.

    Examples
    --------
    >>> with progress_bar("encode", total=2, unit="image", show=False) as bar:
    ...     bar.update()
    """
    return _kind()(total=total, desc=name, unit=unit, disable=not show)


def _kind() -> Any:
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and "IPKernelApp" in shell.config:
        from tqdm import notebook

        if notebook.IProgress is not None:
            return notebook.tqdm
    return tqdm.tqdm
