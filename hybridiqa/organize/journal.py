"""Journal of what was done to files: every action stands in it, on the disk, before it is begun.

JSON lines. The first names the command; each further one is an `Action`, or says of an earlier one that it failed. A
last line that is torn belongs to an action that was not begun.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from hybridiqa.utils.atomic import TEMPORARY_PREFIX, sync_to_disk
from hybridiqa.utils.cli import CommandFailure
from hybridiqa.utils.files import error_reason

FORMAT = "hybridIQA journal 1"
FAILED = "failed"


class Splice(NamedTuple):
    """Small change of a file: at byte `offset` of the old one, `inserted` takes the place of `removed`."""

    offset: int
    removed: bytes
    inserted: bytes


def apply_splices(data: bytes, splices: Iterable[Splice]) -> bytes:
    """Return the bytes with every splice made; splices are in the order of their offsets and do not overlap.

    Raises:
        ValueError: what a splice removes does not stand there.
    """
    parts, position = [], 0
    for splice in splices:
        end = splice.offset + len(splice.removed)
        if splice.offset < position or data[splice.offset : end] != splice.removed:
            raise ValueError(f"byte {splice.offset} is not what was to be changed")
        parts += [data[position : splice.offset], splice.inserted]
        position = end
    return b"".join([*parts, data[position:]])


def reverse_splices(splices: Iterable[Splice]) -> list[Splice]:
    """Return the splices that lead from the new bytes back to the old ones."""
    reversed_splices, growth = [], 0
    for splice in splices:
        reversed_splices.append(Splice(splice.offset + growth, splice.inserted, splice.removed))
        growth += len(splice.inserted) - len(splice.removed)
    return reversed_splices


def _num_equal(old: bytes, new: bytes) -> int:
    """Return how many bytes the two have in common from their start."""
    shorter = min(len(old), len(new))
    return next((place for place in range(shorter) if old[place] != new[place]), shorter)


def splice_between(offset: int, old: bytes, new: bytes) -> list[Splice]:
    """Return the smallest splice that makes `new` of `old`, which stands at `offset`; none where they are equal."""
    if old == new:
        return []
    start = _num_equal(old, new)
    end = _num_equal(old[start:][::-1], new[start:][::-1])
    return [Splice(offset + start, old[start : len(old) - end], new[start : len(new) - end])]


@dataclass(frozen=True, slots=True)
class Action:
    """One change of the file system; paths are absolute. What a kind does not have is empty.

    Args:
        kind: one of `hybridiqa.organize.kinds.KINDS`; in a journal that is read, also "failed" for an action that could
            not be done.
        target: what appears or changes.
        source: of copy, move, symlink and hardlink.
        content_hash: of the bytes that the target holds afterwards (`hybridiqa.utils.files.content_hash`).
        old_hash: of the bytes that a rewritten file held before.
        splices: of create and rewrite.
        temporary: name, in the target's folder, of the file that exists while it is done; tells the actions apart.
    """

    kind: str
    target: str
    source: str = ""
    content_hash: str = ""
    old_hash: str = ""
    splices: tuple[Splice, ...] = ()
    temporary: str = ""


def _to_line(action: Action) -> bytes:
    values = {
        "action": action.kind,
        "target": action.target,
        "source": action.source,
        "content_hash": action.content_hash,
        "old_hash": action.old_hash,
        "temporary": action.temporary,
        "splices": [
            [offset, base64.b64encode(removed).decode(), base64.b64encode(inserted).decode()]
            for offset, removed, inserted in action.splices
        ],
    }
    # ASCII, so that bytes of a name that are not UTF-8 (lone surrogates in Python) are written and read as they are.
    return json.dumps({name: value for name, value in values.items() if value}).encode() + b"\n"


def _from_line(line: bytes) -> Action:
    values = json.loads(line)
    splices = tuple(
        Splice(offset, base64.b64decode(removed), base64.b64decode(inserted))
        for offset, removed, inserted in values.pop("splices", ())
    )
    return Action(values.pop("action"), splices=splices, **values)


class Journal:
    """New journal, whose file appears with the first action.

    Args:
        path: a free name.
        command: the command's arguments.
    """

    def __init__(self, path: Path, command: list[str]):
        self.path = Path(path)
        self.command = command
        self.file: FileIO | None = None
        self.token = secrets.token_hex(4)
        self.num_names = 0

    def new_name(self) -> str:
        """Return a name for a temporary file that no other action has."""
        self.num_names += 1
        return f"{TEMPORARY_PREFIX}{self.token}-{self.num_names}"

    def write(self, actions: Iterable[Action]) -> None:
        """Put actions on the disk, before they are begun.

        Raises:
            CommandFailure: that fails, so nothing may be done.
        """
        lines = b"".join(map(_to_line, actions))
        if not lines:
            return
        try:
            if self.file is None:
                # Unbuffered: a line that a full disk refused must not be tried again by close().
                self.file = open(self.path, "xb", buffering=0)  # noqa: SIM115  closed by close()
                sync_to_disk(self.path.absolute().parent)
                lines = json.dumps({"journal": FORMAT, "command": self.command}).encode() + b"\n" + lines
            while lines:
                lines = lines[self.file.write(lines) :]
            os.fsync(self.file.fileno())
        except OSError as error:
            message = f"error: cannot write the journal {self.path}: {error_reason(error)}"
            raise CommandFailure(message, status=2) from error

    @property
    def is_begun(self) -> bool:
        """Tell whether there is a journal, as there was something to do."""
        return self.file is not None

    def note_failure(self, actions: Iterable[Action]) -> None:
        """Say that actions written earlier were not done."""
        self.write(replace(action, kind=FAILED, splices=()) for action in actions)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def read_journal(path: Path) -> list[Action]:
    """Return the actions of a journal in their order, those that failed as of the kind "failed".

    Raises:
        ValueError: no such file, no journal, or one that is damaged before its last line.
    """
    try:
        first, *lines = Path(path).read_bytes().split(b"\n")
        if json.loads(first)["journal"] != FORMAT:
            raise ValueError(f"it is of another kind: {first[:100]!r}")
    except OSError as error:
        raise ValueError(f"cannot read the journal {path}: {error_reason(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a journal of organize.py ({error})") from error
    actions: list[Action] = []
    places: dict[str, int] = {}  # of the actions by temporary name
    for number, line in enumerate(lines[:-1], start=2):  # behind the last line end is nothing, or a torn line
        try:
            action = _from_line(line)
            if action.kind == FAILED:
                actions[places[action.temporary]] = action
                continue
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} of the journal {path} is damaged; nothing was undone") from error
        if action.temporary:
            places[action.temporary] = len(actions)
        actions.append(action)
    return actions
