"""Kinds of action: how each is done, and how it is taken back.

What there is to undo follows from what is on the disk alone. So a run that was killed in the middle of an action can be
undone, and so can an undoing that was killed; where all is as it was, there is nothing to do.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from hybridiqa.organize.journal import Action, Splice, apply_splices, reverse_splices
from hybridiqa.utils.atomic import placeholder, rename_without_overwriting, sync_to_disk, write_new_file
from hybridiqa.utils.files import content_hash, hash_of

CHANGED = "it has changed since"
GONE = "it is no longer there"

Step = Callable[[], None]


def move(source: str, target: str, temporary: str, expected_hash: str) -> None:
    """Move a file; to another file system by a verified copy, after which the source is removed."""
    try:
        rename_without_overwriting(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        write_new_file(source, target, temporary, expected_hash)
        try:
            sync_to_disk(os.path.dirname(target))
            os.unlink(source)
        except OSError:
            os.unlink(target)
            raise


def rewrite(path: str, old_hash: str, splices: Iterable[Splice], temporary: str) -> None:
    """Change a file as a whole, keeping its times, owner and permissions.

    Raises:
        ValueError: the file does not hold what the splices were made for.
        OSError: it cannot be changed.
    """
    if not os.access(path, os.W_OK):  # a rename would not ask for it
        raise PermissionError(errno.EACCES, "it is read-only", path)
    before = os.stat(path)
    with open(path, "rb") as file:
        data = file.read()
    if hash_of(data) != old_hash:
        raise ValueError("it has changed meanwhile")
    unfinished = os.path.join(os.path.dirname(path), temporary)
    try:
        with open(unfinished, "xb") as file:
            file.write(apply_splices(data, splices))
        if hasattr(os, "chown"):
            with suppress(OSError):  # only root may give files away
                os.chown(unfinished, before.st_uid, before.st_gid)
        shutil.copystat(path, unfinished)
        sync_to_disk(unfinished)
        now = os.stat(path)
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
            raise ValueError("it has changed meanwhile")
        os.replace(unfinished, path)
    finally:
        with suppress(OSError):
            os.unlink(unfinished)


def temporary_places(action: Action) -> list[str]:
    """Return where the action, or an earlier undoing of it, may have left its temporary file."""
    folders = {os.path.dirname(path) for path in (action.source, action.target) if path}
    return [os.path.join(folder, action.temporary) for folder in sorted(folders)] if action.temporary else []


def _holds(path: str, expected_hash: str) -> bool:
    """Return whether there is a file (not a link) with that content."""
    return os.path.lexists(path) and stat.S_ISREG(os.lstat(path).st_mode) and content_hash(path) == expected_hash


def _is_placeholder(path: str, action: Action) -> bool:
    """Return whether a kill left the name taken, and its content yet to come."""
    olds = [action.source, action.target, *temporary_places(action)]
    return any(_holds(path, hash_of(placeholder(old))) for old in olds if old)


def _make_folder(action: Action) -> None:
    os.mkdir(action.target)


def _undo_folder(action: Action, restored: set[str]) -> Step | None:
    return partial(os.rmdir, action.target) if os.path.lexists(action.target) else None


def _copy(action: Action) -> None:
    write_new_file(action.source, action.target, action.temporary, action.content_hash)


def _undo_copy(action: Action, restored: set[str]) -> Step | None:
    """Remove the copy, unless it is the last file with its content."""
    remove = _undo_new_file(action, restored)
    if remove is None or _is_placeholder(action.target, action):
        return remove
    if action.source not in restored and not _holds(action.source, action.content_hash):
        raise ValueError(f"it is the last of its kind: {action.source} is gone or has changed")
    return remove


def _create(action: Action) -> None:
    write_new_file(apply_splices(b"", action.splices), action.target, action.temporary, action.content_hash)


def _undo_new_file(action: Action, restored: set[str]) -> Step | None:
    """Remove a file that holds what the action wrote into it."""
    if not os.path.lexists(action.target):
        return None
    if not _is_placeholder(action.target, action) and not _holds(action.target, action.content_hash):
        raise ValueError(CHANGED)
    return partial(os.unlink, action.target)


def _link_hard(action: Action) -> None:
    os.link(action.source, action.target)


def _undo_hard_link(action: Action, restored: set[str]) -> Step | None:
    """Remove the link, whatever the file holds by now; one that is no link any more, as a copy."""
    source, target = action.source, action.target
    if os.path.lexists(target) and os.path.exists(source) and os.path.samefile(source, target):
        return partial(os.unlink, target)
    return _undo_copy(action, restored)


def _link(action: Action) -> None:
    os.symlink(action.source, action.target)


def _undo_link(action: Action, restored: set[str]) -> Step | None:
    if not os.path.lexists(action.target):
        return None
    if not os.path.islink(action.target) or os.readlink(action.target) != action.source:
        raise ValueError(CHANGED)
    return partial(os.unlink, action.target)


def _move(action: Action) -> None:
    move(action.source, action.target, action.temporary, action.content_hash)


def _undo_move(action: Action, restored: set[str]) -> Step | None:
    source, target = action.source, action.target
    if _holds(source, action.content_hash):  # not begun, undone already, or killed between two names
        is_second = _holds(target, action.content_hash) or _is_placeholder(target, action)
        return partial(os.unlink, target) if is_second else None
    if not _holds(target, action.content_hash):
        raise ValueError(CHANGED if os.path.lexists(target) else GONE)
    if os.path.lexists(source) and not _is_placeholder(source, action):
        raise ValueError(f"there is another {source} now")
    restored.add(source)
    return partial(_move_back, action)


def _move_back(action: Action) -> None:
    if os.path.lexists(action.source):  # the placeholder of an undoing that was killed
        os.unlink(action.source)
    os.makedirs(os.path.dirname(action.source), exist_ok=True)
    move(action.target, action.source, action.temporary, action.content_hash)


def _rewrite(action: Action) -> None:
    rewrite(action.target, action.old_hash, action.splices, action.temporary)


def _undo_rewrite(action: Action, restored: set[str]) -> Step | None:
    if _holds(action.target, action.old_hash):
        return None
    if not _holds(action.target, action.content_hash):
        raise ValueError(CHANGED if os.path.lexists(action.target) else GONE)
    splices = reverse_splices(action.splices)
    return partial(rewrite, action.target, action.content_hash, splices, action.temporary)


class Kind(NamedTuple):
    """One kind of action.

    Args:
        do: does it. Raises OSError or ValueError where that cannot be.
        plan_undo: returns the step that takes it back, None where there is nothing to undo. Raises ValueError where
            something has changed since. Its second argument are the files that undone moves bring back, which a dry
            run does not find on the disk.
        takes_content: whether the target gets the content of the source, which is hashed before.
    """

    do: Callable[[Action], None]
    plan_undo: Callable[[Action, set[str]], Step | None]
    takes_content: bool = False


KINDS = {
    "mkdir": Kind(_make_folder, _undo_folder),
    "copy": Kind(_copy, _undo_copy, takes_content=True),
    "move": Kind(_move, _undo_move, takes_content=True),
    "hardlink": Kind(_link_hard, _undo_hard_link, takes_content=True),
    "symlink": Kind(_link, _undo_link),
    "create": Kind(_create, _undo_new_file),
    "rewrite": Kind(_rewrite, _undo_rewrite),
}


def find_kind(action: Action) -> Kind:
    """Return how an action is done and taken back. Raises ValueError where nobody knows."""
    if action.kind not in KINDS:
        raise ValueError(f"there is no action {action.kind!r}")
    return KINDS[action.kind]
