"""Quality tag in a booru-style caption, the only one of its kind: tags with commas or line ends between them, UTF-8."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hybridiqa.organize.journal import Splice

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
POSITIONS = ("first", "last")
SEPARATORS = ",\r\n"
PLACE = re.compile(rb"[^,\r\n]+")
COMMA = re.compile(rb",[ \t]*")


def normalize_tag(tag: str) -> str:
    """Return what spellings of one tag have in common: case, and underscores for spaces, make no difference."""
    return " ".join(tag.casefold().replace("_", " ").split())


def check_tags(tags: Sequence[str]) -> None:
    """Raise ValueError unless each tag can stand in a caption and is told from the others."""
    for tag in tags:
        if not normalize_tag(tag) or tag != tag.strip() or any(char in tag for char in SEPARATORS + "\0"):
            raise ValueError(f"a tag is a word without commas or line ends, got {tag!r}")
    if len({normalize_tag(tag) for tag in tags}) < len(tags):
        raise ValueError(f"the tags must differ in more than case and underscores, got {' '.join(tags)}")


def _make_removal(data: bytes, start: int, end: int) -> Splice:
    """Take a place (not the first) away with one separator: the one before it, unless that would join two lines."""
    comma = COMMA.match(data, end)
    if data[start - 1 : start] != b"," and comma:
        return Splice(start, data[start : comma.end()], b"")
    return Splice(start - 1, data[start - 1 : end], b"")


def _make_insertion(data: bytes, tag: bytes, position: str) -> Splice:
    start = len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0
    comma = COMMA.search(data)
    separator = comma[0] if comma else b", "
    body = data[start:].strip()
    if not body:
        return Splice(start, b"", tag)
    if position == "first":
        return Splice(data.index(body, start), b"", tag + separator)
    end = data.index(body, start) + len(body)
    return Splice(end, b"", (separator[1:] if body.endswith(b",") else separator) + tag)


def retag(data: bytes, tag: str, tags: Sequence[str], position: str = "first") -> list[Splice]:
    """Return the changes that leave `tag` as the only one of `tags` in a caption.

    The first place that holds any of `tags` takes the new one, and other such places go. Where there is none, the tag
    becomes the caption's first or last. All other bytes stay: order, separators, line ends, byte order mark. Where all
    is so already, there are no changes.

    Args:
        data: the caption's bytes.
        position: "first" or "last".

    Raises:
        ValueError: not a text in UTF-8.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not a caption in UTF-8 (byte {error.start})") from error
    if b"\0" in data:
        raise ValueError("not a caption in UTF-8 (it has zero bytes)")
    wanted = {normalize_tag(name) for name in tags}
    start = len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0
    splices = []
    is_there = False
    for place in PLACE.finditer(data, start):
        found = place[0].decode("utf-8")
        if normalize_tag(found) not in wanted:
            continue
        if is_there:
            splices.append(_make_removal(data, *place.span()))
        elif normalize_tag(found) != normalize_tag(tag):
            old = place[0].strip()
            splices.append(Splice(data.index(old, place.start()), old, tag.encode()))
        is_there = True
    return splices if is_there else [_make_insertion(data, tag.encode(), position)]
