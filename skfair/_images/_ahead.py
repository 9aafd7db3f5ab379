"""Runs tasks ahead of their use in threads: the next batches are decoded while one is encoded."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from joblib import cpu_count, effective_n_jobs

T = TypeVar("T")


def count_threads(n_jobs: int | None) -> int:
    """Number of threads for `n_jobs`, as joblib counts, and not more than cores unless asked."""
    n_threads = effective_n_jobs(n_jobs)
    # A context of joblib may count the cores of a cluster, but the threads are in this process.
    return n_threads if n_jobs is not None and n_jobs > 0 else min(n_threads, cpu_count())


def run_ahead(
    groups: Iterator[tuple[T, list[Callable[[], object]]]], n_threads: int
) -> Generator[T]:
    """Run groups of tasks in threads, and yield each group's value when all its tasks are done.

    The threads end with the generator, also when it is closed or a task raises an error.

    Parameters
    ----------
    groups : iterator of (object, list of callable)
        A value, and the tasks that complete it. The thread that iterates over this generator
        fetches them, in order, until two tasks for each thread are ahead of the group in use.
    n_threads : int

    Yields
    ------
    object
        The values, in order.

    Raises
    ------
    Exception
        The error of the first task, in the order of the tasks, that raised one.
    """
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="skfair-decode")
    waiting: deque = deque()
    n_ahead = 0
    try:
        for value, tasks in groups:
            waiting.append((value, [pool.submit(task) for task in tasks]))
            n_ahead += len(tasks)
            while n_ahead - len(waiting[0][1]) >= 2 * n_threads:
                n_ahead -= len(waiting[0][1])
                yield _done(*waiting.popleft())
        while waiting:
            yield _done(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _done(value: T, futures: list[Future]) -> T:
    for future in futures:
        future.result()
    return value
