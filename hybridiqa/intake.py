"""What a visitor of a page brings: pictures, zips and folders, taken in within limits, each refusal with its reason."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

from hybridiqa.files import as_text, content_hash, extract_zip, has_image_suffix, walk_files
from hybridiqa.score_store import ScoreRow


@dataclass(frozen=True)
class Limits:
    """What one visitor may bring.

    Args:
        max_files: pictures.
        max_bytes: of all pictures that were uploaded.
    """

    max_files: int = 2000
    max_bytes: int = 2 * 2**30


@dataclass(frozen=True)
class Picture:
    """A file that a visitor brought.

    Args:
        name: unique among the visitor's; of a folder on this machine the whole path.
        path: where its bytes lie, which nobody changes.
        content_hash: of its bytes.
    """

    name: str
    path: Path
    content_hash: str

    @property
    def short_name(self) -> str:
        """The name without its folders."""
        return PurePosixPath(self.name).name


class Intake:
    """Takes in pictures; equal ones once.

    Args:
        folder: new, for this visitor alone.
        limits: of what is uploaded.
    """

    def __init__(self, folder: Path, limits: Limits):
        self.folder, self.limits = folder, limits
        self.pictures: dict[str, Picture] = {}  # by name
        self.by_content: dict[str, Picture] = {}
        self.refused: list[ScoreRow] = []  # what was not taken in, and why
        self.uploads: set[Path] = set()  # files that came for this visitor, and end with the visit
        self.num_bytes = 0  # uploaded
        self.intake = threading.Lock()  # held while something is taken in
        (folder / "pictures").mkdir(parents=True)

    def add_files(self, files: Sequence[tuple[Path, str]]) -> None:
        """Take in files, each with the name that its owner gives it; zips are unpacked. The files stay where they are.

        What is refused stands in `refused`, with the reason.
        """
        with self.intake:
            self.uploads |= {path for path, _ in files}
            for path, name in files:
                if name.lower().endswith(".zip"):
                    self._add_zip(path, name)
                else:
                    self._add(path, name)

    def add_folder(self, folder: Path) -> None:
        """Take in the pictures of a folder of this machine, by links: they are neither copied nor counted in bytes.

        Raises:
            ValueError: not a folder, or one without pictures.
        """
        if not folder.is_dir():
            raise ValueError(f"there is no folder {as_text(folder)}")
        paths = [path for path in walk_files(folder) if has_image_suffix(path)]
        if not paths:
            raise ValueError(f"no pictures in the folder {as_text(folder)}")
        with self.intake:
            room = self.limits.max_files - len(self.pictures)
            if len(paths) > room:
                reason = f"{len(paths) - room} of its {len(paths)} pictures are left out"
                self._refuse(as_text(folder), f"{reason}: at most {self.limits.max_files} are accepted at a time")
            for path in paths[: max(room, 0)]:
                self._add(path.absolute(), as_text(path.absolute()), is_linked=True)

    def _refuse(self, name: str, reason: str) -> None:
        if len(self.refused) < self.limits.max_files:
            self.refused.append(ScoreRow(name, error=reason))

    def _add_zip(self, path: Path, name: str) -> None:
        unpacked = self.folder / "unpacked"
        room = max(1, self.limits.max_bytes - self.num_bytes)
        try:
            extract_zip(path, unpacked, room, max(0, 2 * self.limits.max_files))
            files = walk_files(unpacked)
            for file in files:
                if has_image_suffix(file):
                    self._add(file, as_text(file.relative_to(unpacked).as_posix()), is_ours=True)
            if not any(map(has_image_suffix, files)):
                self._refuse(name, "no pictures in this zip")
        except OSError as error:
            self._refuse(name, f"it cannot be unpacked: {error.strerror or error}")
        except ValueError as error:
            self._refuse(name, str(error).replace(str(path), "it"))
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)

    def _add(self, path: Path, name: str, is_ours: bool = False, is_linked: bool = False) -> None:
        """Take in one file; `is_ours` tells that it may be moved, `is_linked` that it stays and is linked to."""
        if len(self.pictures) >= self.limits.max_files:
            return self._refuse(name, f"at most {self.limits.max_files} pictures are accepted at a time")
        try:
            size = 0 if is_linked else path.stat().st_size
            digest = content_hash(path)
        except OSError as error:
            return self._refuse(name, error.strerror or str(error))
        if self.num_bytes + size > self.limits.max_bytes:
            return self._refuse(name, f"at most {self.limits.max_bytes // 2**20} MB are accepted in all")
        if digest in self.by_content:  # this very picture is there
            return None
        suffix = PurePosixPath(name).suffix.lower()
        target = self.folder / "pictures" / (digest + (suffix if has_image_suffix(name) else ""))
        try:
            _bring(path, target, is_ours, is_linked)
        except OSError as error:
            return self._refuse(name, error.strerror or str(error))
        self.num_bytes += size
        picture = Picture(free_name(name, self.pictures), target, digest)
        self.pictures[picture.name] = self.by_content[digest] = picture

    def picture(self, name: str) -> Picture:
        """The picture of that name. Raises ValueError where there is none."""
        if name not in self.pictures:
            raise ValueError(f"there is no picture {name!r} here")
        return self.pictures[name]


def free_name(name: str, taken: Container[str]) -> str:
    """The name, with a number where it is taken."""
    if name not in taken:
        return name
    folder, _, short = name.rpartition("/")
    stem, dot, suffix = short.rpartition(".")
    numbered = (f"{stem or suffix}_{number}{dot + suffix if stem else ''}" for number in count(2))
    paths = (f"{folder}/{short}" if folder else short for short in numbered)
    return next(path for path in paths if path not in taken)


def _bring(path: Path, target: Path, is_ours: bool, is_linked: bool) -> None:
    if is_ours:
        path.replace(target)
        return
    try:
        (os.symlink if is_linked else os.link)(path, target)
    except OSError:  # another disk, or a system that has no such links
        shutil.copyfile(path, target)
