"""Which image goes into which bin or gets which tag, and where each file finds a free place, sidecars included."""

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

from hybridiqa.organize.actions import Group, reason_of
from hybridiqa.organize.journal import Action
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import as_text, content_hash, has_image_suffix, path_of, what_is_no_file

MODES = ("copy", "move", "symlink", "hardlink")
MEASURES = ("score", "percentile")
SIDECAR_SUFFIXES = (".txt", ".json", ".caption")


def check_edges(edges: Sequence[float]) -> None:
    """Raise ValueError unless the edges are finite and each is above the one before."""
    if not edges or not all(map(math.isfinite, edges)) or sorted(set(edges)) != list(edges):
        raise ValueError(f"--edges must be numbers, each above the one before, got {' '.join(map(str, edges))}")


def bin_names(edges: Sequence[float]) -> list[str]:
    """The names of the bins, lowest first, one more than edges: a value on an edge is in the bin above."""
    texts = [str(int(edge)) if edge == int(edge) else repr(edge) for edge in edges]
    between = [f"{low}_to_{high}" for low, high in pairwise(texts)]
    return [f"below_{texts[0]}", *between, f"{texts[-1]}_and_above"]


def bin_of(row: ScoreRow, measure: str, edges: Sequence[float]) -> int:
    """The number of the bin, from 0."""
    return bisect_right(edges, getattr(row, measure))


def choose_rows(rows: Iterable[ScoreRow], measure: str) -> tuple[list[ScoreRow], Counter[str]]:
    """The rows that have the number in question, and how many were left out for which reason.

    Raises:
        ValueError: no row has it.
    """
    chosen, left_out = [], Counter()
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


def common_folder(rows: Iterable[ScoreRow]) -> Path:
    """The deepest folder that holds all images."""
    return Path(os.path.commonpath({os.path.abspath(path_of(row.path).parent) for row in rows}))


class Folders:
    """The files of folders, each folder read once: plans are made before anything is done."""

    def __init__(self):
        self.names_in = cache(self._names_in)

    @staticmethod
    def _names_in(folder: str) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in sorted(os.listdir(folder)):
            names.setdefault(os.path.splitext(name)[0], []).append(name)
        return names

    def of_stem(self, folder: str, stem: str) -> list[str]:
        """Names in a folder that differ in their suffix only."""
        return self.names_in(folder).get(stem, [])

    def sidecars(self, folder: str, stem: str) -> list[str]:
        """The paths of the files that describe an image: of its stem, with one of `SIDECAR_SUFFIXES` in any case."""
        paths = [os.path.join(folder, name) for name in self.of_stem(folder, stem)]
        return [path for path in paths if _suffix(path).lower() in SIDECAR_SUFFIXES and os.path.isfile(path)]


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1]


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _name_key(path: str) -> str:
    """What names have in common that some file systems take for the same."""
    return unicodedata.normalize("NFC", path).casefold()


@dataclass(frozen=True, slots=True)
class Source:
    """An image to be sorted: where it really stands, and the folder below its root that is kept in the bin."""

    row: ScoreRow
    path: str
    kept_folder: str

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    @property
    def stem(self) -> str:
        return os.path.splitext(os.path.basename(self.path))[0]


@dataclass
class Plan:
    """What to do, and what is to be said of it. Where the groups come one by one, so does the rest.

    Args:
        groups: one an image, without the images that are as they should be already.
        already_there: images that are, by bin or tag.
        collisions: (image, the path that it got as its own name was taken).
        refused: (image, reason).
    """

    groups: Iterable[Group] = ()
    already_there: Counter[str] = field(default_factory=Counter)
    collisions: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


class Sorter:
    """Plans one sorting; nothing is written.

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
        self.real_folder = cache(lambda folder: os.path.realpath(folder, strict=True))
        self.taken_in = cache(self._taken_in)
        self.staying: dict[tuple[str, str], set[str]] = {}  # images by folder and stem that have not been moved away

    def make_plan(self, rows: Sequence[ScoreRow], measure: str, edges: Sequence[float]) -> Plan:
        """Find a place for every row that has its `measure`."""
        names = bin_names(edges)
        sources: dict[str, Source] = {}
        for row in rows:
            try:
                source = self._locate(row)
                if source.path in sources:
                    raise ValueError("the file of scores names it twice")
                sources[source.path] = source
            except (ValueError, OSError, RecursionError) as error:  # a loop of links can be any of these
                self.plan.refused.append((row.path, reason_of(error)))
        self._note_staying(sources.values())
        self.plan.groups = []
        for source in sources.values():
            try:
                self._plan_image(source, names[bin_of(source.row, measure, edges)])
            except (ValueError, OSError) as error:
                self.plan.refused.append((source.row.path, reason_of(error)))
        return self.plan

    def _locate(self, row: ScoreRow) -> Source:
        path = path_of(row.path)
        if reason := what_is_no_file(path):
            raise ValueError(reason)
        place = os.path.join(self.real_folder(os.path.dirname(path) or "."), os.path.basename(path))
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
                names = filter(has_image_suffix, self.folders.of_stem(*key))
                self.staying[key] = {os.path.join(source.folder, name) for name in names}
            self.staying[key].add(source.path)

    def _members(self, source: Source) -> Iterator[tuple[str, str, str]]:
        """(mode, path, suffix) of the image and of each sidecar that goes with it."""
        yield self.mode, source.path, _suffix(source.path)
        mode = self.mode
        if mode == "move" and self.staying[source.folder, source.stem] - {source.path}:
            mode = "copy"  # the sidecar is needed where it is as well
        for path in self.folders.sidecars(source.folder, source.stem):
            try:
                self._check_source(path)
            except (ValueError, OSError) as error:
                self.plan.refused.append((as_text(path), reason_of(error)))
                continue
            if path != source.path:
                yield mode, path, _suffix(path)

    def _plan_image(self, source: Source, bin_name: str) -> None:
        folder = os.path.normpath(os.path.join(self.into, bin_name, source.kept_folder))
        members = list(self._members(source))
        for number in count(1):
            stem = source.stem if number == 1 else f"{source.stem}_{number}"
            targets = [os.path.join(folder, stem + suffix) for _, _, suffix in members]
            if self._is_usable(members, targets):
                break
        self.claimed.update(map(_name_key, targets))
        if self.mode == "move":
            self.staying[source.folder, source.stem].discard(source.path)
        actions = tuple(
            Action(mode, target, self._content_of(path))
            for (mode, path, _), target in zip(members, targets, strict=True)
            if not os.path.lexists(target)
        )
        if number > 1:
            self.plan.collisions.append((source.row.path, as_text(targets[0])))
        if actions:
            self.plan.groups.append(Group(bin_name, source.row.path, actions))
        else:
            self.plan.already_there[bin_name] += 1

    def _content_of(self, path: str) -> str:
        """A link's content is that of the file it leads to; the link itself is no source to compare a copy with."""
        return os.path.realpath(path) if self.mode == "copy" and os.path.islink(path) else path

    def _is_usable(self, members: Sequence[tuple[str, str, str]], targets: Sequence[str]) -> bool:
        """Whether every target is free, in any case, or holds already what would be put there."""
        return all(
            _name_key(target) not in self.claimed
            and self.taken_in(os.path.dirname(target)).get(_name_key(target), set()) <= set(targets)
            and (not os.path.lexists(target) or self._is_done(mode, path, target))
            for (mode, path, _), target in zip(members, targets, strict=True)
        )

    @staticmethod
    def _taken_in(folder: str) -> dict[str, set[str]]:
        """The paths that are there, by what they have in common with others that differ in case."""
        if os.path.realpath(folder) != folder:
            raise ValueError(f"{as_text(folder)} leads through a link, which is not followed")
        taken: dict[str, set[str]] = {}
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            taken.setdefault(_name_key(path), set()).add(path)
        return taken

    def _is_done(self, mode: str, path: str, target: str) -> bool:
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
