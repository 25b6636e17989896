"""Signals that ask a run to end (Ctrl-C, SIGTERM): in a training step they wait for its end, elsewhere they do not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGNAL_NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
STATUS_OF_SIGNALS = 128  # what a shell adds the number of a signal to
Handler = Callable[[int, FrameType | None], Any] | int | None  # of a signal


def is_speaking_process() -> bool:
    """Return whether this is the process that speaks, among those that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


class Stopped(KeyboardInterrupt):
    """End of a run by a signal.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(SIGNAL_NAMES[number])
        self.number = number


class StopSignals:
    """Signals that ask a run to end, handled for as long as the `with` block lasts.

    Attributes:
        received: the number of the first that came, or none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._can_wait = False
        self._handlers: dict[int, Handler] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            self._handlers = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:  # a second time: nothing is waited for
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        is_first, self.received = self.received is None, self.received or number
        if not self._can_wait:
            raise Stopped(self.received)
        if is_first and is_speaking_process():
            text = f"{SIGNAL_NAMES[number]}: finishes this step and writes a checkpoint; Ctrl-C stops at once"
            os.write(2, f"\ntrain.py: {text}\n".encode())  # print is not for signal handlers

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let signals only be noted in here; whoever works here looks at `received`. Raises Stopped at the end."""
        self._can_wait = True
        try:
            self.raise_if_received()
            yield
        finally:
            self._can_wait = False
        self.raise_if_received()

    def raise_if_received(self) -> None:
        """Raise Stopped where a signal has come."""
        if self.received is not None:
            raise Stopped(self.received)
