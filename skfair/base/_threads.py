"""One thread for small networks: their threads would wait for each other longer than they work."""

from contextlib import AbstractContextManager, nullcontext

import torch
from threadpoolctl import ThreadpoolController

# A forward pass of so many multiplications takes up to five milliseconds on one core, and two idle
# cores take three quarters of the time of one. Two busy cores took up to twenty times as long.
_SMALL = 1 << 27


def few_threads(n_multiplications: float) -> AbstractContextManager:
    """Run a block in one thread of OpenMP if its steps are small.

    Threads of OpenMP meet after each operation, and wait actively. Where other processes use the
    cores, a thread that waits takes the core from the thread that it waits for, and small steps
    take up to a hundred times as long.

    Only the calling thread is limited: OpenMP keeps the number for each thread. So other threads
    of the process, and threads that start meanwhile, keep theirs.

    Parameters
    ----------
    n_multiplications : float
        Of one step, for instance rows in a batch times weights of the network.

    Returns
    -------
    context manager

    Examples
    --------
    >>> import torch
    >>> with few_threads(1000):
    ...     torch.get_num_threads()
    1
    """
    if n_multiplications > _SMALL:
        return nullcontext()
    # In a new thread, torch sets the number at the first question, and would overwrite the limit.
    torch.get_num_threads()
    return ThreadpoolController().limit(limits=1, user_api="openmp")
