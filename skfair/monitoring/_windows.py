"""Names of windows, and their order."""

import datetime
import re
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import pandas as pd

from skfair.utils._shown import shown

_LONGEST = 200


def window_name(window: Any) -> str | int | float:
    """Check the name of a window; a date becomes text, as in "2026-11-28".

    Parameters
    ----------
    window : str, int, float or date

    Returns
    -------
    str, int or float

    Raises
    ------
    TypeError
        `window` is neither text, nor a number, nor a date.
    ValueError
        `window` is empty, too long, missing or not finite.

    Examples
    --------
    >>> import datetime
    >>> window_name(datetime.date(2026, 11, 28)), window_name(7)
    ('2026-11-28', 7)
    """
    advice = "Give text such as '2026-W48', a number or a date."
    if window is None or window is pd.NaT or window is pd.NA:
        raise TypeError(f"window is {shown(window)}, expected the name of a window. {advice}")
    if isinstance(window, np.datetime64):
        if np.isnat(window):
            raise ValueError(f"window is {shown(window)}, a missing date. {advice}")
        window = pd.Timestamp(window)
    if isinstance(window, pd.Period):
        return str(window)
    if isinstance(window, datetime.datetime):
        # The same day, given as a date or as a timestamp at midnight, is the same window.
        midnight = window.tzinfo is None and window.time() == datetime.time()
        return (window.date() if midnight else window).isoformat()
    if isinstance(window, datetime.date):
        return window.isoformat()
    if isinstance(window, str):
        if not window.strip() or len(window) > _LONGEST:
            raise ValueError(
                f"window has {len(window)} characters, expected 1 to {_LONGEST} that are not all "
                f"blank. {advice}"
            )
        return str(window)
    if isinstance(window, Real) and not isinstance(window, bool | np.bool_):
        if not abs(cast(Any, window)) < 2**53:  # NaN, too
            raise ValueError(
                f"window is {shown(window)}, expected a finite number below 2**53. {advice}"
            )
        return int(window) if isinstance(window, Integral) else float(window)
    raise TypeError(f"window is a {type(window).__name__}. {advice}")


def window_order(name: str | int | float) -> tuple:
    """Return a key that sorts windows: numbers by value, and numbers within text, too.

    Parameters
    ----------
    name : str, int or float
        Result of :func:`window_name`.

    Returns
    -------
    tuple

    Examples
    --------
    >>> sorted(["2026-W10", "2026-W9", "2025-W52"], key=window_order)
    ['2025-W52', '2026-W9', '2026-W10']
    """
    if not isinstance(name, str):
        return (name,)
    parts = re.split(r"(\d+)", name)  # text and digits in turn
    numbers = tuple(int(part) if i % 2 else part for i, part in enumerate(parts))
    return (*numbers, "", name)  # "w1" and "w01" differ, too
