"""Taking back what a journal holds, last action first, file by file, and only where nothing has changed since."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hybridiqa.organize.actions import stop_if_disk_full
from hybridiqa.organize.journal import FAILED, Action
from hybridiqa.organize.kinds import find_kind, temporary_places
from hybridiqa.utils.files import error_reason


class Undoing(NamedTuple):
    """Outcome of undoing one action: undone, or refused for a reason, or neither, as there was nothing to undo."""

    action: Action
    is_undone: bool
    reason: str | None = None


def _remove_temporaries(action: Action) -> None:
    """Remove what a kill left, of the action or of an earlier undoing of it."""
    for path in temporary_places(action):
        if os.path.lexists(path):
            os.unlink(path)


def undo_actions(actions: Sequence[Action], dry_run: bool = False) -> Iterator[Undoing]:
    """Take actions back, the last one first; `dry_run` only says which could be.

    Raises:
        CommandFailure: the disk is full. What is left can be undone by another run.
    """
    restored: set[str] = set()  # sources that moves bring back
    for action in reversed(actions):
        try:
            if not dry_run:
                _remove_temporaries(action)
            step = None if action.kind == FAILED else find_kind(action).plan_undo(action, restored)
            if step and not dry_run:
                step()
            yield Undoing(action, is_undone=step is not None)
        except (OSError, ValueError) as error:
            stop_if_disk_full(error)
            yield Undoing(action, False, error_reason(error))
