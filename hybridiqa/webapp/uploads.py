"""Uploaded files of a session, with the names that their owner gives them: images, zips and folders, within limits."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import as_text, content_hash, error_reason, extract_zip, has_image_suffix, walk_files
from hybridiqa.webapp.pending_uploads import BusyError, PendingUploads

MAX_NAME_LENGTH = 1000  # letters of what somebody calls a file, folders included


@dataclass(frozen=True)
class Limits:
    """Bounds on what one session holds.

    Args:
        max_files: images.
        max_bytes: of all images that were uploaded.
    """

    max_files: int = 2000
    max_bytes: int = 2 * 2**30


class SessionFolder:
    """The files of one session, and which of them its browser or program may fetch.

    Args:
        path: of the folder, for this session alone.
    """

    def __init__(self, path: Path):
        self.path = path
        self.shown: set[Path] = set()  # files that may be fetched
        self.is_removed = False  # no file is made any more

    def place(self, *names: str) -> Path:
        """Return a path in this folder, whose own folder is there.

        Raises:
            ValueError: the session was deleted.
        """
        if self.is_removed:
            raise ValueError("these pictures were deleted")
        path = self.path.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def show(self, path: Path) -> Path:
        """Return the file, which may be fetched from here on."""
        self.shown.add(path)
        return path

    def remove(self) -> None:
        """Delete the folder for ever; what its links lead to stays."""
        self.is_removed = True
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class UploadedImage:
    """A file that was uploaded, or one of a folder of this machine.

    Args:
        name: unique in the session; of a folder on this machine the whole path.
        path: where its bytes lie.
        content_hash: of its bytes; nobody else is told.
        id: what the page calls it; says nothing about it.
        is_linked: its owner may change its bytes, which nobody can where they were uploaded.
    """

    name: str
    path: Path
    content_hash: str
    id: str
    is_linked: bool = False

    @property
    def short_name(self) -> str:
        """The name without its folders."""
        return PurePosixPath(self.name).name


class Uploads:
    """The images of a session, equal ones once, and what was refused.

    Args:
        folder: where uploaded files are moved to.
        limits: of what is uploaded.
        pending: the only place from which files are taken away; folders of this machine are only looked at.
    """

    def __init__(self, folder: SessionFolder, limits: Limits, pending: PendingUploads):
        self.folder, self.limits, self.pending = folder, limits, pending
        self.images: dict[str, UploadedImage] = {}  # by name
        self.by_content: dict[str, UploadedImage] = {}
        self.by_id: dict[str, UploadedImage] = {}
        self.refused: list[ScoreRow] = []  # what was not accepted, and why
        self.num_bytes = 0  # uploaded
        self.lock = threading.Lock()  # held while something is added

    def add_files(self, files: Sequence[tuple[Path, str]]) -> None:
        """Add uploads, each with the name that its owner gives it; zips are unpacked.

        What is refused stands in `refused`, with the reason. An upload is gone afterwards in any case.
        """
        first_names: dict[Path, str] = {}  # equal files of one name that come together are one upload
        for path, name in files:
            first_names.setdefault(path, name)
        with self.lock:
            for path, name in first_names.items():
                self._add_upload(path, name)

    def add_folder(self, folder: Path) -> None:
        """Add the images of a folder of this machine, by links: they are neither copied nor counted in bytes.

        Raises:
            ValueError: not a folder, or one without images.
        """
        if not folder.is_dir():
            raise ValueError(f"there is no folder {as_text(folder)}")
        paths = [path for path in walk_files(folder) if has_image_suffix(path)]
        if not paths:
            raise ValueError(f"no pictures in the folder {as_text(folder)}")
        with self.lock:
            room = self.limits.max_files - len(self.images)
            if len(paths) > room:
                reason = f"{len(paths) - room} of its {len(paths)} pictures are left out"
                self._refuse(as_text(folder), f"{reason}: at most {self.limits.max_files} are accepted at a time")
            for path in paths[: max(room, 0)]:
                self._add(path.absolute(), as_text(path.absolute()), is_linked=True)

    def _refuse(self, name: str, reason: str) -> None:
        if len(self.refused) < self.limits.max_files:
            self.refused.append(ScoreRow(name, error=reason))

    def _add_upload(self, path: Path, name: str) -> None:
        """Add one upload, by way of a name of its own in the session's folder."""
        if len(name) > MAX_NAME_LENGTH:
            return self._refuse(
                name[:MAX_NAME_LENGTH], f"a name has at most {MAX_NAME_LENGTH} letters, got {len(name)}"
            )
        taken = self.folder.path / "taken" / secrets.token_hex(16)
        try:
            self.pending.take(path, taken)
        except ValueError as error:
            return self._refuse(name, str(error))
        try:
            if name.lower().endswith(".zip"):
                self._add_zip(taken, name)
            else:
                self._add(taken, name)
        finally:
            taken.unlink(missing_ok=True)

    def _add_zip(self, path: Path, name: str) -> None:
        unpacked = self.folder.path / "unpacked"
        room = max(1, min(self.limits.max_bytes - self.num_bytes, self.pending.storage.room))
        try:
            extract_zip(path, unpacked, room, max(0, 2 * self.limits.max_files))
            files = walk_files(unpacked)
            for file in files:
                if has_image_suffix(file):
                    self._add(file, as_text(file.relative_to(unpacked).as_posix()))
            if not any(map(has_image_suffix, files)):
                self._refuse(name, "no pictures in this zip")
        except OSError as error:
            self._refuse(name, f"it cannot be unpacked: {error_reason(error)}")
        except ValueError as error:
            self._refuse(name, str(error).replace(str(path), "it"))
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)

    def _add(self, path: Path, name: str, is_linked: bool = False) -> None:
        """Add one file of the session's folder by moving it, or one that stays where it is by a link to it."""
        if self.folder.is_removed:
            return self._refuse(name, "these pictures were deleted meanwhile")
        if len(self.images) >= self.limits.max_files:
            return self._refuse(name, f"at most {self.limits.max_files} pictures are accepted at a time")
        try:
            size = 0 if is_linked else path.stat().st_size
            digest = content_hash(path)
        except OSError as error:
            return self._refuse(name, error_reason(error))
        if self.num_bytes + size > self.limits.max_bytes:
            return self._refuse(name, f"at most {self.limits.max_bytes // 2**20} MB are accepted in all")
        if digest in self.by_content:  # this very image is there
            return None
        suffix, image_id = PurePosixPath(name).suffix.lower(), secrets.token_hex(16)
        target = self.folder.place("pictures", image_id + (suffix if has_image_suffix(name) else ""))
        try:
            self.pending.storage.reserve(size)
        except BusyError as error:
            return self._refuse(name, str(error))
        self.num_bytes += size
        try:
            _link(path, target) if is_linked else path.replace(target)
        except OSError as error:
            return self._refuse(name, error_reason(error))
        image = UploadedImage(free_name(name, self.images), target, digest, image_id, is_linked)
        self.images[image.name] = self.by_content[digest] = self.by_id[image.id] = image

    def remove(self) -> None:
        """Delete all files of the session; images that were linked stay where they are."""
        with self.lock:
            self.folder.remove()
            self.pending.storage.release(self.num_bytes)
            self.num_bytes = 0

    def find_image(self, name: str) -> UploadedImage:
        """Return the image of that name. Raises ValueError where there is none."""
        if name not in self.images:
            raise ValueError(f"there is no picture {name!r} here")
        return self.images[name]


def free_name(name: str, taken: Container[str]) -> str:
    """Return the name, with a number where it is taken."""
    if name not in taken:
        return name
    folder, _, short = name.rpartition("/")
    stem, dot, suffix = short.rpartition(".")
    numbered = (f"{stem or suffix}_{number}{dot + suffix if stem else ''}" for number in count(2))
    paths = (f"{folder}/{short}" if folder else short for short in numbered)
    return next(path for path in paths if path not in taken)


def _link(path: Path, target: Path) -> None:
    try:
        os.symlink(path, target)
    except OSError:  # a system that has no such links
        shutil.copyfile(path, target)
