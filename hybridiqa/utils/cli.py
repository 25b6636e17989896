"""Errors of a script turned into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class CommandFailure(Exception):
    """Failure of a command that was used rightly: its message (empty where another process tells it) and its status."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


def print_error(script: str, message: object) -> None:
    """Print one line on stderr, whatever line breaks the message has."""
    print(f"{script}: {' '.join(map(str.strip, str(message).splitlines()))}", file=sys.stderr)


def exit_status(script: str, run: Callable[[], int | None], stopped: str = "stopped") -> int:
    """Run a command and return its exit status; what stops it becomes one line on stderr.

    The status is what `run` returns (0 for None); 1 for a `CommandFailure` that names no other, and where the reader of
    the output went away (`| head`); 2 for wrong usage and input (ValueError, OSError); 130 for Ctrl-C. Other errors are
    faults of ours and keep their traceback.

    Args:
        script: its name, such as `score.py`, which opens the line.
        stopped: what is said after Ctrl-C.
    """
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")  # a terminal that lacks a letter of a name is no reason to stop
    try:
        return run() or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CommandFailure as failure:
        if str(failure):
            print_error(script, failure)
        return failure.status
    except (ValueError, OSError) as error:
        print_error(script, f"error: {error}")
        return 2
    except KeyboardInterrupt:
        print_error(script, stopped)
        return 130
