"""Several processes: those that share the work of a run, and those that a list of items is handed to."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from typing import TypeVar

from hybridiqa.utils.devices import choose_device

LONGEST_WAIT = timedelta(days=30)  # for another process, whose share may take longer

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(function: Callable[[Item], Result], items: Iterable[Item], num_workers: int) -> list[Result]:
    """Return the results in the order of the items; both must be picklable where there is more than one worker."""
    if num_workers == 1:
        return [function(item) for item in items]
    # Spawned, not forked: a fork beside torch's threads can hang.
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(function, items))


class Processes:
    """This process among those that share the work.

    Args:
        device: as the user named it, or none.

    Attributes:
        index, count: which this one is, of how many.
        device: the name of the device that is this one's.

    Raises:
        ValueError: accelerate does not see all that were started, or the device is not there.
    """

    def __init__(self, device: str | None):
        self.index, self.count, self.device = 0, int(os.environ.get("WORLD_SIZE", 1)), device
        if self.count == 1:
            return
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        is_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or choose_device(device).type == "cpu"
        self.state = PartialState(cpu=is_cpu, timeout=LONGEST_WAIT)
        if self.state.num_processes != self.count:
            raise ValueError(f"{self.count} processes were started and accelerate sees {self.state.num_processes}")
        self.index, self.device = self.state.process_index, str(self.state.device)

    @property
    def is_main(self) -> bool:
        """Tell whether this is the one that speaks, and brings the others' results together."""
        return self.index == 0

    def gather(self, value: object) -> list:
        """Return the values of all processes, in their order, once all have come here."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])
