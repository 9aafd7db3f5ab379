"""Checking ``random_state``, and drawing seeds from it."""

import sys
from typing import Any

import numpy as np
from sklearn import utils
from sklearn.utils._param_validation import InvalidParameterError

from skfair.utils._shown import shown

# For each kind of generator that is no RandomState: the code that draws a seed from it.
_SEEDS = {
    np.random.Generator: "int(rng.integers(2**31))",
    np.random.BitGenerator: "int(numpy.random.Generator(rng).integers(2**31))",
    np.random.SeedSequence: "int(rng.generate_state(1)[0])",
}


def refuse_generator(random_state: Any) -> None:
    """Refuse a generator as ``random_state``, and say how to draw a seed from it.

    Parameters
    ----------
    random_state : object
        The value that the user passed.

    Raises
    ------
    InvalidParameterError
        `random_state` is a generator of NumPy or torch. The error is both a ValueError and a
        TypeError.
    """
    seeds: dict[type, str] = dict(_SEEDS)
    if sys.modules.get("torch"):  # otherwise there are no generators of torch
        import torch

        seeds[torch.Generator] = "int(torch.randint(2**31 - 1, (), generator=rng))"
    for kind, seed in seeds.items():
        if isinstance(random_state, kind):
            raise InvalidParameterError(
                f"random_state is a {type(random_state).__name__} of "
                f"{kind.__module__.partition('.')[0]}. As in scikit-learn, it must be an int, a "
                "numpy.random.RandomState or None. Draw a seed from the generator: "
                f"random_state={seed}."
            )


def check_random_state(random_state: Any) -> np.random.RandomState:
    """Do the same as scikit-learn's function of this name, with better error messages.

    Parameters
    ----------
    random_state : int, RandomState or None
        As in scikit-learn.

    Returns
    -------
    RandomState
        The given instance, a new instance seeded with the int, or the global one of NumPy.

    Raises
    ------
    ValueError
        `random_state` is anything else.

    Examples
    --------
    >>> check_random_state(0).randint(10)
    5
    """
    refuse_generator(random_state)
    try:
        return utils.check_random_state(random_state)
    except ValueError as error:
        raise ValueError(
            f"random_state={shown(random_state)} is not an int from 0 to 2**32 - 1, a "
            "numpy.random.RandomState or None. Give one of these."
        ) from error


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """Draw one integer seed for torch from a scikit-learn ``random_state``.

    Parameters
    ----------
    random_state : int, RandomState or None
        As in scikit-learn: an int gives the same seed at each call, a RandomState advances.

    Returns
    -------
    int
        A seed in [0, 2**31 - 1).

    Examples
    --------
    >>> draw_seed(0) == draw_seed(0)
    True
    """
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
