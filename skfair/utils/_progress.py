"""Progress bars, all of one kind: named, and silent until something is shown."""

from importlib.util import find_spec
from typing import Any


def progress_bar(name: str, total: int, *, unit: str, shown: bool = True) -> Any:
    """Make a tqdm bar.

    Parameters
    ----------
    name : str
        What goes on, in front of the bar.
    total : int
        How much there is to do.
    unit : str
        Of what, in the singular.
    shown : bool, default=True
        False makes one that shows nothing.

    Returns
    -------
    tqdm.tqdm
        In a notebook with ipywidgets one of these.
    """
    # tqdm.auto warns when it is imported in a notebook without ipywidgets.
    if find_spec("ipywidgets") is None:
        from tqdm import tqdm
    else:
        from tqdm.auto import tqdm
    return tqdm(total=total, desc=name, unit=unit, disable=not shown)
