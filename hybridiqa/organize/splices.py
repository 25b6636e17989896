"""Small changes of a file's bytes, kept so that they can be taken back: no copy of the file is needed to undo them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Splice(NamedTuple):
    """At `offset` bytes of the old file, `removed` stands, and `inserted` takes its place."""

    offset: int
    removed: bytes
    inserted: bytes


def apply_splices(data: bytes, splices: Iterable[Splice]) -> bytes:
    """The bytes with every splice made; the splices are in the order of their offsets and do not overlap.

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
    """The splices that lead from the new bytes back to the old ones."""
    reversed_splices, growth = [], 0
    for splice in splices:
        reversed_splices.append(Splice(splice.offset + growth, splice.inserted, splice.removed))
        growth += len(splice.inserted) - len(splice.removed)
    return reversed_splices


def _num_equal(old: bytes, new: bytes) -> int:
    """How many bytes the two have in common from their start."""
    shorter = min(len(old), len(new))
    return next((place for place in range(shorter) if old[place] != new[place]), shorter)


def splice_between(offset: int, old: bytes, new: bytes) -> list[Splice]:
    """The smallest single splice that makes `new` of `old`, which stands at `offset`; none where they are equal."""
    if old == new:
        return []
    start = _num_equal(old, new)
    end = _num_equal(old[start:][::-1], new[start:][::-1])
    return [Splice(offset + start, old[start : len(old) - end], new[start : len(new) - end])]
