"""A function for many items, in several processes of this machine."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor


def map_in_processes(function: Callable, items: list, num_workers: int) -> list:
    """The results in the order of the items; both must be picklable where there is more than one worker."""
    if num_workers == 1:
        return [function(item) for item in items]
    # Spawned, not forked: a fork beside torch's threads can hang.
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(function, items))
