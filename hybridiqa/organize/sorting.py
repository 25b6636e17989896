"""Plan of a sorting: the bin of each image, and a free place for each file, sidecars included."""

from __future__ import annotations

import math
import os
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

from hybridiqa.organize.actions import Group
from hybridiqa.organize.journal import Action
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import as_text, content_hash, error_reason, has_image_suffix, path_of, what_is_no_file

MODES = ("copy", "move", "symlink", "hardlink")
MEASURES = ("score", "percentile")
SIDECAR_SUFFIXES = (".txt", ".json", ".caption")


def check_edges(edges: Sequence[float]) -> None:
    """Raise ValueError unless the edges are finite and each is above the one before."""
    if not edges or not all(map(math.isfinite, edges)) or sorted(set(edges)) != list(edges):
        raise ValueError(f"--edges must be numbers, each above the one before, got {' '.join(map(str, edges))}")


def name_bins(edges: Sequence[float]) -> list[str]:
    """Return the names of the bins, lowest first, one more than edges: a value on an edge is in the bin above."""
    texts = [str(int(edge)) if edge == int(edge) else repr(edge) for edge in edges]
    between = [f"{low}_to_{high}" for low, high in pairwise(texts)]
    return [f"below_{texts[0]}", *between, f"{texts[-1]}_and_above"]


def find_bin(row: ScoreRow, measure: str, edges: Sequence[float]) -> int:
    """Return the number of the bin, from 0."""
    return bisect_right(edges, getattr(row, measure))


def choose_rows(rows: Iterable[ScoreRow], measure: str) -> tuple[list[ScoreRow], Counter[str]]:
    """Return the rows that have the number in question, and how many were left out for which reason.

    Raises:
        ValueError: no row has it.
    """
    chosen: list[ScoreRow] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        if row.vanished:
            left_out["vanished"] += 1
        elif row.error is not None:
            left_out["not scored (error)"] += 1
        elif getattr(row, measure) is None:
            left_out[f"without a {measure}"] += 1
        else:
            chosen.append(row)
    if not chosen:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items()) or "no rows"
        raise ValueError(f"no image has a {measure} to go by: {reasons}")
    return chosen, left_out


def find_common_folder(rows: Iterable[ScoreRow]) -> Path:
    """Return the deepest folder that holds all images."""
    return Path(os.path.commonpath({os.path.abspath(path_of(row.path).parent) for row in rows}))


def _get_suffix(path: str) -> str:
    return os.path.splitext(path)[1]


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _make_key(path: str) -> str:
    """Return what names have in common that some file systems take for the same."""
    return unicodedata.normalize("NFC", path).casefold()


def _resolve_folder(folder: str) -> str:
    return os.path.realpath(folder, strict=True)


def _list_by_stem(folder: str) -> dict[str, list[str]]:
    """Return the names in a folder by what they are without their suffix."""
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        names.setdefault(os.path.splitext(name)[0], []).append(name)
    return names


def _list_by_key(folder: str) -> dict[str, set[str]]:
    """Return the paths in a folder, which need not be there, by what they share with others that differ in case.

    Raises:
        ValueError: the folder leads through a link.
    """
    if os.path.realpath(folder) != folder:
        raise ValueError(f"{as_text(folder)} leads through a link, which is not followed")
    paths: dict[str, set[str]] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        paths.setdefault(_make_key(path), set()).add(path)
    return paths


class Folders:
    """Folders, each looked at once: plans are made before anything is done."""

    def __init__(self) -> None:
        self.resolve = cache(_resolve_folder)
        self.list_by_stem = cache(_list_by_stem)
        self.list_by_key = cache(_list_by_key)

    def find_of_stem(self, folder: str, stem: str) -> list[str]:
        """Return the names in a folder that differ in their suffix only."""
        return self.list_by_stem(folder).get(stem, [])

    def find_sidecars(self, folder: str, stem: str) -> list[str]:
        """Return the files that describe an image: of its stem, with one of `SIDECAR_SUFFIXES` in any case."""
        paths = [os.path.join(folder, name) for name in self.find_of_stem(folder, stem)]
        return [path for path in paths if _get_suffix(path).lower() in SIDECAR_SUFFIXES and os.path.isfile(path)]


@dataclass(frozen=True, slots=True)
class Source:
    """Image to be sorted: where it really stands, and the folder below its root that is kept in the bin."""

    row: ScoreRow
    path: str
    kept_folder: str

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    @property
    def stem(self) -> str:
        return os.path.splitext(os.path.basename(self.path))[0]


class Member(NamedTuple):
    """File that is sorted, an image or one of its sidecars, with the mode for it."""

    mode: str
    path: str

    @property
    def suffix(self) -> str:
        return _get_suffix(self.path)


def _find_content(member: Member) -> str:
    """Return the file to act on: for the copy of a link the one it leads to, with which the copy can be compared."""
    return os.path.realpath(member.path) if member.mode == "copy" and os.path.islink(member.path) else member.path


def _is_done(member: Member, target: str) -> bool:
    """Return whether a path that is taken holds what the mode would put there."""
    mode, path = member
    if path == target:
        return True
    if mode == "symlink":
        return os.path.islink(target) and os.readlink(target) == path
    if os.path.islink(target) or not os.path.isfile(target) or mode == "move":
        return False
    if os.path.samefile(path, target):
        return True
    is_alike = mode == "copy" and os.path.getsize(path) == os.path.getsize(target)
    return is_alike and content_hash(path) == content_hash(target)


@dataclass
class Plan:
    """Actions to take, and what is to be said of them. Where the groups come one by one, so does the rest.

    Args:
        groups: one an image, without the images that are as they should be already.
        max_groups: as many as can come, for a progress bar.
        already_there: images that are, by bin or tag.
        collisions: (image, the path that it got as its own name was taken).
        refused: (image, reason).
    """

    groups: Iterable[Group] = ()
    max_groups: int = 0
    already_there: Counter[str] = field(default_factory=Counter)
    collisions: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


class Sorter:
    """Planner of one sorting; nothing is written.

    Args:
        into: the folder of the bins.
        roots: folders whose inner structure is kept below each bin; images elsewhere are refused.
        mode: one of `MODES`.
    """

    def __init__(self, into: Path, roots: Sequence[Path], mode: str):
        self.into = os.path.realpath(into)
        self.roots = sorted({os.path.realpath(root) for root in roots}, key=len, reverse=True)  # the deepest first
        self.mode = mode
        self.plan = Plan()
        self.folders = Folders()
        self.claimed: set[str] = set()  # keys of the paths that this plan gives away
        self.staying: dict[tuple[str, str], set[str]] = {}  # images by folder and stem that have not been moved away

    def make_plan(self, rows: Sequence[ScoreRow], measure: str, edges: Sequence[float]) -> Plan:
        """Find a place for every row that has its `measure`."""
        names = name_bins(edges)
        sources: dict[str, Source] = {}
        groups: list[Group] = []
        for row in rows:
            try:
                source = self._locate(row)
                if source.path in sources:
                    raise ValueError("the file of scores names it twice")
                sources[source.path] = source
            except (ValueError, OSError, RecursionError) as error:  # a loop of links can be any of these
                self.plan.refused.append((row.path, error_reason(error)))
        self._note_staying(sources.values())
        for source in sources.values():
            try:
                if group := self._plan_image(source, names[find_bin(source.row, measure, edges)]):
                    groups.append(group)
            except (ValueError, OSError) as error:
                self.plan.refused.append((source.row.path, error_reason(error)))
        self.plan.groups, self.plan.max_groups = groups, len(groups)
        return self.plan

    def _locate(self, row: ScoreRow) -> Source:
        path = path_of(row.path)
        if reason := what_is_no_file(path):
            raise ValueError(reason)
        place = os.path.join(self.folders.resolve(os.path.dirname(path) or "."), os.path.basename(path))
        self._check_source(place)
        root = next(root for root in self.roots if _is_within(place, root))
        return Source(row, place, os.path.relpath(os.path.dirname(place), root))

    def _check_source(self, path: str) -> None:
        """Raise ValueError for a file that this run may not touch."""
        real_path = os.path.realpath(path, strict=True) if os.path.islink(path) else path
        for place in (path, real_path):
            if not any(_is_within(place, root) for root in self.roots):
                leads = "a link that leads out of" if place != path else "outside of"
                raise ValueError(f"{leads} {', '.join(map(as_text, self.roots))} (--root names the folders to sort)")
        if real_path != path and self.mode in ("move", "hardlink"):
            raise ValueError(f"a link, which --mode {self.mode} does not take")

    def _note_staying(self, sources: Iterable[Source]) -> None:
        if self.mode != "move":
            return
        for source in sources:
            key = (source.folder, source.stem)
            if key not in self.staying:
                names = filter(has_image_suffix, self.folders.find_of_stem(*key))
                self.staying[key] = {os.path.join(source.folder, name) for name in names}
            self.staying[key].add(source.path)

    def _find_members(self, source: Source) -> Iterator[Member]:
        """Yield the image, then each sidecar that goes with it."""
        yield Member(self.mode, source.path)
        mode = self.mode
        if mode == "move" and self.staying[source.folder, source.stem] - {source.path}:
            mode = "copy"  # the sidecar is needed where it is as well
        for path in self.folders.find_sidecars(source.folder, source.stem):
            try:
                self._check_source(path)
            except (ValueError, OSError) as error:
                self.plan.refused.append((as_text(path), error_reason(error)))
                continue
            if path != source.path:
                yield Member(mode, path)

    def _plan_image(self, source: Source, bin_name: str) -> Group | None:
        """Return what is done for an image, with the first free name; None where it is as it should be already."""
        folder = os.path.normpath(os.path.join(self.into, bin_name, source.kept_folder))
        members = list(self._find_members(source))
        for number in count(1):
            stem = source.stem if number == 1 else f"{source.stem}_{number}"
            targets = [os.path.join(folder, stem + member.suffix) for member in members]
            if self._is_usable(members, targets):
                break
        self.claimed.update(map(_make_key, targets))
        if self.mode == "move":
            self.staying[source.folder, source.stem].discard(source.path)
        actions = tuple(
            Action(member.mode, target, _find_content(member))
            for member, target in zip(members, targets, strict=True)
            if not os.path.lexists(target)
        )
        if number > 1:
            self.plan.collisions.append((source.row.path, as_text(targets[0])))
        if actions:
            return Group(bin_name, source.row.path, actions)
        self.plan.already_there[bin_name] += 1
        return None

    def _is_usable(self, members: Sequence[Member], targets: Sequence[str]) -> bool:
        """Return whether every target is free, in any case, or holds already what would be put there."""
        return all(
            _make_key(target) not in self.claimed
            and self.folders.list_by_key(os.path.dirname(target)).get(_make_key(target), set()) <= set(targets)
            and (not os.path.lexists(target) or _is_done(member, target))
            for member, target in zip(members, targets, strict=True)
        )
