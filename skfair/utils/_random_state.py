"""What is given as ``random_state``, and what to give in place of what cannot be."""

from typing import Any

import numpy as np
import torch
from sklearn import utils
from sklearn.utils._param_validation import InvalidParameterError

from skfair.utils._shown import shown

# Of each kind that draws numbers, and is no RandomState, how to make a seed of it.
_SEEDS: dict[type, str] = {
    np.random.Generator: "int(rng.integers(2**31))",
    np.random.BitGenerator: "int(numpy.random.Generator(rng).integers(2**31))",
    np.random.SeedSequence: "int(rng.generate_state(1)[0])",
    torch.Generator: "int(torch.randint(2**31 - 1, (), generator=rng))",
}


def refuse_generator(random_state: Any) -> None:
    """Say how to make a seed of a generator, which scikit-learn's ``random_state`` cannot be.

    Parameters
    ----------
    random_state : object
        As the user gave it.

    Raises
    ------
    InvalidParameterError
        It is a generator of NumPy or torch. The error is a ValueError and a TypeError.
    """
    for kind, seed in _SEEDS.items():
        if isinstance(random_state, kind):
            raise InvalidParameterError(
                f"random_state is a {type(random_state).__name__} of "
                f"{kind.__module__.partition('.')[0]}, where an int, a numpy.random.RandomState "
                "or None was wanted, as everywhere in scikit-learn. Give a seed that it draws: "
                f"random_state={seed}."
            )


def check_random_state(random_state: Any) -> np.random.RandomState:
    """Do as scikit-learn's function of this name, with messages that name the argument.

    Parameters
    ----------
    random_state : int, RandomState or None
        As in scikit-learn.

    Returns
    -------
    RandomState
        The instance that was given, one seeded with the int, or NumPy's own.

    Raises
    ------
    ValueError
        It is something else.

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
