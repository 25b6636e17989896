"""The processes that share a run's work: one, or as many as a launcher has started, on one machine or on many."""

from __future__ import annotations

import os
from datetime import timedelta

from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env

from hybridiqa.models.loading import choose_device

LONGEST_WAIT = timedelta(days=30)  # for another process, whose share may take longer


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
        is_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or choose_device(device).type == "cpu"
        self.state = PartialState(cpu=is_cpu, timeout=LONGEST_WAIT)
        if self.state.num_processes != self.count:
            raise ValueError(f"{self.count} processes were started and accelerate sees {self.state.num_processes}")
        self.index, self.device = self.state.process_index, str(self.state.device)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that speaks, and brings the others' results together."""
        return self.index == 0

    def gather(self, value: object) -> list:
        """The values of all processes, in their order, once all have come here."""
        return [value] if self.count == 1 else gather_object([value])
