"""Plans of marking: a quality tag in every caption, or the score in every image file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hybridiqa.organize.actions import Group, make_change, make_creation
from hybridiqa.organize.captions import retag
from hybridiqa.organize.journal import Action
from hybridiqa.organize.score_metadata import embed_score
from hybridiqa.organize.sorting import Folders, Plan
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import as_text, error_reason, path_of, what_is_no_file

EMBEDDED = "score embedded"  # the label of these groups


def _find_image(row: ScoreRow) -> str:
    """Return the image of a row: its folder without links, itself perhaps one. Raises ValueError without a file."""
    path = path_of(row.path)
    if reason := what_is_no_file(path):
        raise ValueError(reason)
    return os.path.join(os.path.realpath(path.parent), path.name)


class Mark(NamedTuple):
    """Text that the file of a row gets, and the action that puts it there; no action where it is there already."""

    text: str
    path: str
    action: Action | None


def _make_groups(
    rows: Sequence[ScoreRow], plan: Plan, make_mark: Callable[[ScoreRow], Mark], label: str | None = None
) -> Iterator[Group]:
    """Yield a group for every row whose file is to change; two rows may mean one file, if their marks agree.

    Args:
        label: of all groups; by default the text of each mark.
    """
    seen: dict[str, tuple[str, str]] = {}  # (text, image) by path of the file that is marked
    for row in rows:
        try:
            text, path, action = make_mark(row)
            is_first = path not in seen
            given, name = seen.setdefault(path, (text, row.path))
            if given != text:
                raise ValueError(f"{as_text(path)} belongs to {name} as well, which makes it {given}, not {text}")
        except (ValueError, OSError) as error:
            plan.refused.append((row.path, error_reason(error)))
            continue
        if action and is_first:
            yield Group(label or text, row.path, (action,))
        else:
            plan.already_there[label or text] += 1


def plan_tags(
    rows: Sequence[ScoreRow],
    choose_tag: Callable[[ScoreRow], str],
    tags: Sequence[str],
    caption_suffix: str = ".txt",
    position: str = "first",
) -> Plan:
    """Return a plan that leaves `choose_tag(row)` as the only one of `tags` in every image's caption.

    Args:
        caption_suffix: of the captions; one that is there is found in any case of it.
        position: "first" or "last", of a tag in a caption that has none of `tags`.
    """
    folders = Folders()

    def make_mark(row: ScoreRow) -> Mark:
        tag = choose_tag(row)
        folder, name = os.path.split(_find_image(row))
        stem = os.path.splitext(name)[0]
        wanted = stem + caption_suffix
        names = [other for other in folders.find_of_stem(folder, stem) if other.lower() == wanted.lower()]
        if not names:
            caption = os.path.join(folder, wanted)
            return Mark(tag, caption, make_creation(caption, tag.encode()))
        caption = os.path.realpath(os.path.join(folder, wanted if wanted in names else names[0]))
        if caption == os.path.realpath(path_of(row.path)):
            raise ValueError("its caption would be the image itself")
        data = _read(caption)
        splices = retag(data, tag, tags, position)
        return Mark(tag, caption, make_change(caption, data, splices) if splices else None)

    plan = Plan(max_groups=len(rows))
    plan.groups = _make_groups(rows, plan, make_mark)
    return plan


def plan_embedding(rows: Sequence[ScoreRow]) -> Plan:
    """Return a plan that writes the score of every row, each of which has one, into its image file."""

    def make_mark(row: ScoreRow) -> Mark:
        if row.score is None:
            raise ValueError("it has no score")
        path = os.path.realpath(_find_image(row))
        data = _read(path)
        splices = embed_score(data, row.score, row.scorer)
        return Mark(f"{row.score:.3f}", path, make_change(path, data, splices) if splices else None)

    plan = Plan(max_groups=len(rows))
    plan.groups = _make_groups(rows, plan, make_mark, EMBEDDED)
    return plan


def _read(path: str) -> bytes:
    if reason := what_is_no_file(Path(path)):
        raise ValueError(f"{as_text(path)}: {reason}")
    with open(path, "rb") as file:
        return file.read()
