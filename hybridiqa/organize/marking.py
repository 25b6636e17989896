"""Which captions get which tag, and which pictures the score itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hybridiqa.organize.actions import Group, change, creation, reason_of
from hybridiqa.organize.captions import retag
from hybridiqa.organize.journal import Action
from hybridiqa.organize.score_metadata import embed_score
from hybridiqa.organize.sorting import Folders, Plan
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import as_text, path_of, what_is_no_file

EMBEDDED = "score embedded"  # the label of these groups


def _real_path(row: ScoreRow) -> str:
    """The image of a row; its folder without links, the image itself perhaps one. Raises ValueError without a file."""
    path = path_of(row.path)
    if reason := what_is_no_file(path):
        raise ValueError(reason)
    return os.path.join(os.path.realpath(path.parent), path.name)


def _groups(
    rows: Sequence[ScoreRow], plan: Plan, mark_of: Callable[[ScoreRow], str], mark: Callable, label: str | None = None
) -> Iterator[Group]:
    """One group a row whose file is to change, which `mark(row)` returns with the action, or None, for it.

    Two rows may mean one file, if they agree on what it gets (`mark_of`).
    """
    marks: dict[str, tuple[str, str]] = {}
    for row in rows:
        try:
            path, action = mark(row)
            wanted = mark_of(row)
            is_first = path not in marks
            given, name = marks.setdefault(path, (wanted, row.path))
            if given != wanted:
                raise ValueError(f"{as_text(path)} belongs to {name} as well, which makes it {given}, not {wanted}")
        except (ValueError, OSError) as error:
            plan.refused.append((row.path, reason_of(error)))
            continue
        if action and is_first:
            yield Group(label or wanted, row.path, (action,))
        else:
            plan.already_there[label or wanted] += 1


def plan_tags(
    rows: Sequence[ScoreRow],
    tag_of: Callable[[ScoreRow], str],
    tags: Sequence[str],
    caption_suffix: str = ".txt",
    position: str = "first",
) -> Plan:
    """A plan that leaves `tag_of(row)` as the only one of `tags` in every image's caption.

    Args:
        caption_suffix: of the captions; one that is there is found in any case of it.
        position: "first" or "last", of a tag in a caption that has none of `tags`.
    """
    folders = Folders()

    def mark(row: ScoreRow) -> tuple[str, Action | None]:
        folder, name = os.path.split(_real_path(row))
        stem = os.path.splitext(name)[0]
        wanted = stem + caption_suffix
        names = [other for other in folders.of_stem(folder, stem) if other.lower() == wanted.lower()]
        if not names:
            caption = os.path.join(folder, wanted)
            return caption, creation(caption, tag_of(row).encode())
        caption = os.path.realpath(os.path.join(folder, wanted if wanted in names else names[0]))
        if caption == os.path.realpath(path_of(row.path)):
            raise ValueError("its caption would be the image itself")
        data = _read(caption)
        splices = retag(data, tag_of(row), tags, position)
        return caption, change(caption, data, splices) if splices else None

    plan = Plan()
    plan.groups = _groups(rows, plan, tag_of, mark)
    return plan


def plan_embedding(rows: Sequence[ScoreRow]) -> Plan:
    """A plan that writes every row's score into its picture."""

    def mark(row: ScoreRow) -> tuple[str, Action | None]:
        path = os.path.realpath(_real_path(row))
        data = _read(path)
        splices = embed_score(data, row.score, row.scorer)
        return path, change(path, data, splices) if splices else None

    plan = Plan()
    plan.groups = _groups(rows, plan, lambda row: f"{row.score:.3f}", mark, EMBEDDED)
    return plan


def _read(path: str) -> bytes:
    if reason := what_is_no_file(Path(path)):
        raise ValueError(f"{as_text(path)}: {reason}")
    with open(path, "rb") as file:
        return file.read()
