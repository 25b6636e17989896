"""Taking back what a journal holds, last action first, file by file, and only where nothing has changed since.

What there is to do follows from what is on the disk alone. So a run that was killed in the middle of an action can be
undone, and so can an undoing that was killed; where all is as it was, there is nothing to do.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from hybridiqa.organize.actions import move, reason_of, rewrite
from hybridiqa.organize.journal import Action, reverse_splices
from hybridiqa.utils.atomic import placeholder
from hybridiqa.utils.files import content_hash, hash_of

CHANGED = "it has changed since"

Step = Callable[[], None]


class Undoing(NamedTuple):
    """What became of one action: `undone`, or refused for a `reason`, or neither, as there was nothing to undo."""

    action: Action
    is_undone: bool
    reason: str | None = None


def _holds(path: str, expected_hash: str) -> bool:
    """Whether there is a file (not a link) with that content."""
    return os.path.lexists(path) and stat.S_ISREG(os.lstat(path).st_mode) and content_hash(path) == expected_hash


def _neighbours(action: Action) -> list[str]:
    """Where the action, or an earlier undoing of it, may have left its temporary file."""
    folders = {os.path.dirname(path) for path in (action.source, action.target) if path}
    return [os.path.join(folder, action.temporary) for folder in sorted(folders)] if action.temporary else []


def _is_placeholder(path: str, action: Action) -> bool:
    """Whether a kill left the name taken, and its content yet to come."""
    contents = [hash_of(placeholder(old)) for old in (action.source, action.target, *_neighbours(action)) if old]
    return any(_holds(path, content) for content in contents)


def _undo_new_file(action: Action, restored: set[str]) -> Step | None:
    """Remove what copy, hardlink or create made, unless it is the last file with its content."""
    if not os.path.lexists(action.target):
        return None
    remove = partial(os.unlink, action.target)
    if _is_placeholder(action.target, action):
        return remove
    if action.kind == "hardlink" and os.path.exists(action.source) and os.path.samefile(action.source, action.target):
        return remove
    if not _holds(action.target, action.content_hash):
        raise ValueError(CHANGED)
    is_spare = action.kind == "create" or action.source in restored or _holds(action.source, action.content_hash)
    if not is_spare:
        raise ValueError(f"it is the last of its kind: {action.source} is gone or has changed")
    return remove


def _undo_symlink(action: Action, restored: set[str]) -> Step | None:
    if not os.path.lexists(action.target):
        return None
    if not os.path.islink(action.target) or os.readlink(action.target) != action.source:
        raise ValueError(CHANGED)
    return partial(os.unlink, action.target)


def _undo_move(action: Action, restored: set[str]) -> Step | None:
    source, target = action.source, action.target
    if _holds(source, action.content_hash):  # not begun, undone already, or killed between two names
        is_second = _holds(target, action.content_hash) or _is_placeholder(target, action)
        return partial(os.unlink, target) if is_second else None
    if not _holds(target, action.content_hash):
        raise ValueError(CHANGED if os.path.lexists(target) else "it is no longer there")
    if os.path.lexists(source) and not _is_placeholder(source, action):
        raise ValueError(f"there is another {source} now")
    restored.add(source)
    return partial(_move_back, action)


def _move_back(action: Action) -> None:
    if os.path.lexists(action.source):  # the placeholder of an undoing that was killed
        os.unlink(action.source)
    os.makedirs(os.path.dirname(action.source), exist_ok=True)
    move(action.target, action.source, action.temporary, action.content_hash)


def _undo_rewrite(action: Action, restored: set[str]) -> Step | None:
    if _holds(action.target, action.old_hash):
        return None
    if not _holds(action.target, action.content_hash):
        raise ValueError(CHANGED if os.path.lexists(action.target) else "it is no longer there")
    splices = reverse_splices(action.splices)
    return partial(rewrite, action.target, action.content_hash, splices, action.temporary)


def _undo_mkdir(action: Action, restored: set[str]) -> Step | None:
    return partial(os.rmdir, action.target) if os.path.lexists(action.target) else None


def _undo_failed(action: Action, restored: set[str]) -> None:
    return None


UNDO = {
    "mkdir": _undo_mkdir,
    "copy": _undo_new_file,
    "hardlink": _undo_new_file,
    "create": _undo_new_file,
    "symlink": _undo_symlink,
    "move": _undo_move,
    "rewrite": _undo_rewrite,
    "failed": _undo_failed,
}


def _remove_temporaries(action: Action) -> None:
    """Remove what a kill left, of the action or of an earlier undoing of it."""
    for path in _neighbours(action):
        if os.path.lexists(path):
            os.unlink(path)


def undo_actions(actions: Sequence[Action], dry_run: bool = False) -> Iterator[Undoing]:
    """Take actions back, the last one first; `dry_run` only says which could be.

    Raises:
        RuntimeError: the disk is full. What is left can be undone by another run.
    """
    restored: set[str] = set()  # sources that moves bring back, which a dry run does not find on the disk
    for action in reversed(actions):
        try:
            if not dry_run:
                _remove_temporaries(action)
            step = UNDO[action.kind](action, restored)
            if step and not dry_run:
                step()
            yield Undoing(action, is_undone=step is not None)
        except (OSError, ValueError) as error:
            yield Undoing(action, False, reason_of(error))
