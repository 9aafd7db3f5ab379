"""Seeds: reproducible torch code that leaves torch's global generators as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """Draw one integer seed for torch from a scikit-learn ``random_state``.

    Parameters
    ----------
    random_state : int, RandomState or None
        As in scikit-learn: an int gives the same seed each time, an instance advances.

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


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run a block under a torch seed and give torch's generators back unchanged.

    Parameters
    ----------
    seed : int
        Seed for the CPU generator and for the one of `device`.
    device : torch.device
        The device on which the block draws; its generator is restored too.

    Yields
    ------
    None
        The block runs.

    Examples
    --------
    >>> with seeded(0, torch.device("cpu")):
    ...     a = torch.rand(2)
    >>> with seeded(0, torch.device("cpu")):
    ...     b = torch.rand(2)
    >>> bool((a == b).all())
    True
    """
    if device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
        return
    # The device that "cuda" means is not always the first.
    index = torch.empty(0, device=device).device.index or 0
    with torch.random.fork_rng(devices=[index], device_type=device.type):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            # Of this card; torch.cuda.manual_seed is for the current one, which another may be.
            torch.cuda.default_generators[index].manual_seed(seed)
        else:
            getattr(torch, device.type).manual_seed(seed)
        yield
