"""Doing what is planned with files: written down first, never over something, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from hybridiqa.organize.journal import Action, Journal, Splice, apply_splices
from hybridiqa.utils.atomic import rename_without_overwriting, sync_to_disk, write_new_file
from hybridiqa.utils.files import as_text, content_hash, hash_of

GROUPS_PER_SYNC = 32  # that share one wait for the disk before they are begun
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Group:
    """What is done for one image: the actions on it and its sidecars, in order; none after one that fails.

    Args:
        label: the bin or tag that the image gets.
        name: the image as the user named it.
    """

    label: str
    name: str
    actions: tuple[Action, ...]


def creation(path: str, text: bytes) -> Action:
    """The action that makes a new file of a text."""
    return Action("create", path, content_hash=hash_of(text), splices=(Splice(0, b"", text),))


def change(path: str, data: bytes, splices: Sequence[Splice]) -> Action:
    """The action that makes the splices in a file which holds `data`."""
    new = apply_splices(data, splices)
    return Action("rewrite", path, content_hash=hash_of(new), old_hash=hash_of(data), splices=tuple(splices))


def reason_of(error: Exception) -> str:
    """Why one file was left out. Raises RuntimeError for a full disk, which stops all."""
    if getattr(error, "errno", None) in DISK_FULL:
        folder = as_text(os.path.dirname(error.filename2 or error.filename or ""))
        raise RuntimeError(f"stopped, {error.strerror[0].lower()}{error.strerror[1:]}: {folder}") from error
    return getattr(error, "strerror", None) or str(error)


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


def _do(action: Action) -> None:
    if action.kind == "copy":
        write_new_file(action.source, action.target, action.temporary, action.content_hash)
    elif action.kind == "move":
        move(action.source, action.target, action.temporary, action.content_hash)
    elif action.kind == "symlink":
        os.symlink(action.source, action.target)
    elif action.kind == "hardlink":
        os.link(action.source, action.target)
    elif action.kind == "create":
        write_new_file(apply_splices(b"", action.splices), action.target, action.temporary, action.content_hash)
    elif action.kind == "rewrite":
        rewrite(action.target, action.old_hash, action.splices, action.temporary)
    else:
        raise ValueError(f"there is no action {action.kind!r}")


def _make_folders(folder: str, journal: Journal) -> None:
    """Make a folder and those above it that are missing, each written down first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for folder in reversed(missing):
        journal.write([Action("mkdir", folder)])
        os.mkdir(folder)


def _ready(group: Group, journal: Journal) -> tuple[Action, ...]:
    """The group's actions with all that a journal needs to undo them; the folders that they need are made.

    Raises:
        ValueError: a folder cannot be made, or a file cannot be read.
    """
    actions = []
    for action in group.actions:
        hash_now = action.content_hash
        try:
            _make_folders(os.path.dirname(action.target), journal)
            if action.kind in ("copy", "move", "hardlink"):
                hash_now = content_hash(action.source)
        except OSError as error:
            raise ValueError(_reason_in_group(error, action, group)) from error
        actions.append(replace(action, content_hash=hash_now, temporary=journal.new_name()))
    return tuple(actions)


def _reason_in_group(error: Exception, action: Action, group: Group) -> str:
    """The reason, with the name of the file where that is not the image itself."""
    name, reason = as_text(os.path.basename(action.source or action.target)), reason_of(error)
    return reason if name == os.path.basename(group.name) else f"{name}: {reason}"


def _do_all(group: Group, actions: Sequence[Action], journal: Journal) -> str | None:
    """Do a group's actions; the reason where one failed, after which the rest is left."""
    for index, action in enumerate(actions):
        try:
            _do(action)
        except (OSError, ValueError) as error:
            reason = _reason_in_group(error, action, group)
            journal.note_failure(actions[index:])
            return reason
    return None


def perform(groups: Iterable[Group], journal: Journal) -> Iterator[tuple[Group, str | None]]:
    """Do what is planned, group by group; with each comes the reason why it was not done, or None.

    Raises:
        RuntimeError: the disk is full, or the journal cannot be written. The journal holds all that was done.
    """
    waiting = iter(groups)
    while batch := list(islice(waiting, GROUPS_PER_SYNC)):
        ready = []
        for group in batch:
            try:
                ready.append((group, _ready(group, journal)))
            except ValueError as error:
                yield group, str(error)
        journal.write(action for _, actions in ready for action in actions)
        for group, actions in ready:
            yield group, _do_all(group, actions, journal)
