"""Doing what is planned with files: written down first, never over something, whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from hybridiqa.organize.journal import Action, Journal, Splice, apply_splices
from hybridiqa.organize.kinds import find_kind
from hybridiqa.utils.cli import CommandFailure
from hybridiqa.utils.files import as_text, content_hash, error_reason, hash_of

GROUPS_PER_SYNC = 32  # that share one wait for the disk before they are begun
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Group:
    """Actions on one image and its sidecars, in order; none is done after one that fails.

    Args:
        label: the bin or tag that the image gets.
        name: the image as the user named it.
    """

    label: str
    name: str
    actions: tuple[Action, ...]


def make_creation(path: str, text: bytes) -> Action:
    """Return the action that makes a new file of a text."""
    return Action("create", path, content_hash=hash_of(text), splices=(Splice(0, b"", text),))


def make_change(path: str, data: bytes, splices: Sequence[Splice]) -> Action:
    """Return the action that makes the splices in a file which holds `data`."""
    new = apply_splices(data, splices)
    return Action("rewrite", path, content_hash=hash_of(new), old_hash=hash_of(data), splices=tuple(splices))


def stop_if_disk_full(error: Exception) -> None:
    """Raise CommandFailure where a file could not be changed for want of room: the next ones would not be either."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        folder = as_text(os.path.dirname(error.filename2 or error.filename or ""))
        reason = error_reason(error)
        raise CommandFailure(f"error: stopped, {reason[0].lower()}{reason[1:]}: {folder}", status=2) from error


def _do(action: Action) -> None:
    find_kind(action).do(action)


def _make_folders(folder: str, journal: Journal) -> None:
    """Make a folder and those above it that are missing, each written down first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(Action("mkdir", folder))
        folder = os.path.dirname(folder)
    for action in reversed(missing):
        journal.write([action])
        _do(action)


def _make_ready(group: Group, journal: Journal) -> list[Action]:
    """Make the folders that a group needs; its actions with all that a journal needs to undo them.

    Raises:
        ValueError: a folder cannot be made, or a file cannot be read.
    """
    actions = []
    for action in group.actions:
        hash_now = action.content_hash
        try:
            _make_folders(os.path.dirname(action.target), journal)
            if find_kind(action).takes_content:
                hash_now = content_hash(action.source)
        except OSError as error:
            raise ValueError(_explain(error, action, group)) from error
        actions.append(replace(action, content_hash=hash_now, temporary=journal.new_name()))
    return actions


def _explain(error: Exception, action: Action, group: Group) -> str:
    """Return the reason of an error, with the name of the file where that is not the image itself.

    Raises:
        CommandFailure: the disk is full.
    """
    stop_if_disk_full(error)
    name, reason = as_text(os.path.basename(action.source or action.target)), error_reason(error)
    return reason if name == os.path.basename(group.name) else f"{name}: {reason}"


def _do_all(group: Group, actions: Sequence[Action], journal: Journal) -> str | None:
    """Do a group's actions; return the reason where one failed, after which the rest is left."""
    for index, action in enumerate(actions):
        try:
            _do(action)
        except (OSError, ValueError) as error:
            reason = _explain(error, action, group)
            journal.note_failure(actions[index:])
            return reason
    return None


def perform(groups: Iterable[Group], journal: Journal) -> Iterator[tuple[Group, str | None]]:
    """Do what is planned, group by group; with each comes the reason why it was not done, or None.

    Raises:
        CommandFailure: the disk is full, or the journal cannot be written. The journal holds all that was done.
    """
    waiting = iter(groups)
    while batch := list(islice(waiting, GROUPS_PER_SYNC)):
        ready = []
        for group in batch:
            try:
                ready.append((group, _make_ready(group, journal)))
            except ValueError as error:
                yield group, str(error)
        journal.write(action for _, actions in ready for action in actions)
        for group, actions in ready:
            yield group, _do_all(group, actions, journal)
