"""Labels given by hand, one image at a time: copies in the folders of a scored dataset, which can be taken back.

    labels/Artifact/3/a.png ... labels/Perfect/5/b.png, labels/8/c.png, labels/9/d.png

`prepare_dataset.py` reads such a folder as it is. What was decided stands in a hidden file of it, by the images'
content, so that labelling goes on where it was, whatever the images are called or where they lie.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from hybridiqa.data.folders import ABSOLUTE_SCORES, BIN_NAMES, SCORE_OFFSETS, score_and_bin
from hybridiqa.utils.atomic import TEMPORARY_PREFIX, sync_to_disk, write_new_file
from hybridiqa.utils.files import as_text, content_hash, error_reason, has_image_suffix, hash_of

LABEL_BINS = tuple(
    name for name in BIN_NAMES if name.startswith(tuple(SCORE_OFFSETS)) or name in map(str, ABSOLUTE_SCORES)
)  # Artifact/1 ... Artifact/5, Perfect/1 ... Perfect/5, 8, 9
SKIPPED = "skip"
CHOICES = (*LABEL_BINS, SKIPPED)
RECORD_NAME = ".hybridiqa-labels.jsonl"
LOCK_NAME = ".hybridiqa-labels.lock"
LOCK_WAIT = 10.0  # seconds; another page holds it while it copies one image
NUM_SHOWN_BYTES = 80  # of a damaged line
MAX_NAME_BYTES = 200  # of a copy, so that a number and a suffix fit besides
ORDERS = ("random", "spread")

logger = logging.getLogger(__name__)


def score_of_bin(name: str) -> float:
    """Return what a bin of `LABEL_BINS` counts as, on the 1-9 scale."""
    if name not in LABEL_BINS or (found := score_and_bin(f"{name}/image")) is None:
        raise ValueError(f"a bin must be one of {', '.join(LABEL_BINS)}, got {name!r}")
    return found[0]


@dataclass(frozen=True)
class Label:
    """A decision about one image.

    Args:
        content_hash: of the image's bytes.
        choice: one of `CHOICES`.
        file: the copy, relative to the folder; none for an image that was skipped.
    """

    content_hash: str
    choice: str
    file: str | None = None


def _parse_line(line: bytes) -> tuple[Label, bool]:
    """Return the label of a line of the record, and whether the line takes it back.

    Raises:
        ValueError: anything else than what `LabelFolder` writes; a file outside the label's own bin, too, as undo
            removes the file that a line names.
    """
    try:
        values = json.loads(line)
        is_undone = values.pop("undone", False)
        label = Label(**values)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is no label") from error
    if not isinstance(label.content_hash, str) or not isinstance(is_undone, bool):
        raise ValueError("it is no label")
    if label.choice not in CHOICES:
        raise ValueError(f"its label must be one of {', '.join(CHOICES)}, got {label.choice!r}")
    if label.choice == SKIPPED:
        is_file_right = label.file is None
    else:
        bin_name, _, name = label.file.rpartition("/") if isinstance(label.file, str) else ("", "", "")
        is_file_right = bin_name == label.choice and name not in ("", ".", "..") and not set(name) & {"\\", "\0"}
    if not is_file_right:
        raise ValueError(f"its file must lie in the bin {label.choice}, got {label.file!r}")
    return label, is_undone


class LabelRecord:
    """File that says what was decided, one JSON line a label or an undo; lines are added and never changed.

    A line that is no label costs that line: it is told once, left as it is, and the others are used.
    """

    def __init__(self, path: Path):
        self.path = path
        self._version: tuple[int, ...] | None = None  # of the file, as it was last read
        self._labels: dict[Label, None] = {}  # in the order in which they were made
        self._told: set[tuple[int, bytes]] = set()

    def labels(self) -> list[Label]:
        """Return what was decided and not taken back, in its order; the file is read again where it has changed.

        Raises:
            ValueError: it cannot be read.
        """
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):  # a pipe would be waited for for ever
                raise ValueError(f"cannot read the record of labels {as_text(self.path)}: not a regular file")
            with open(self.path, "rb") as file:
                version = _version_of(file.fileno())
                if version != self._version:
                    self._labels = self._parse(file.read())
                    self._version = version
        except FileNotFoundError:
            self._labels, self._version = {}, None
        except OSError as error:
            raise ValueError(f"cannot read the record of labels {as_text(self.path)}: {error_reason(error)}") from error
        return list(self._labels)

    def _parse(self, data: bytes) -> dict[Label, None]:
        labels: dict[Label, None] = {}
        *lines, last = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                _apply(labels, *_parse_line(line))
            except ValueError as error:
                self._tell(number, line, error)
        # What has no line end is being written, was torn, or was whole and lost its end to an editor.
        with suppress(ValueError):
            _apply(labels, *_parse_line(last))
        return labels

    def _tell(self, number: int, line: bytes, error: ValueError) -> None:
        if (number, line) not in self._told:
            self._told.add((number, line))
            logger.warning(
                f"line {number} of {as_text(self.path)} is damaged and left out, {error}: {line[:NUM_SHOWN_BYTES]!r}"
            )

    def add(self, label: Label, is_undone: bool = False) -> None:
        """Put a line on the disk, whole or not at all. Raises OSError where that fails.

        The folder's lock must be held, and `labels` have been read under it.
        """
        line = json.dumps(asdict(label) | ({"undone": True} if is_undone else {})).encode() + b"\n"
        with open(self.path, "a+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - 1, 0))
            if file.read(1) not in (b"", b"\n"):
                line = b"\n" + line  # what was torn stays, as a line of its own
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
            _apply(self._labels, label, is_undone)
            self._version = _version_of(file.fileno())


def _version_of(descriptor: int) -> tuple[int, ...]:
    """Return what differs where a file is another one or was written to."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _apply(labels: dict[Label, None], label: Label, is_undone: bool) -> None:
    """Add a label as the last one, or take it out. Raises ValueError for an undo of what was not done."""
    if is_undone and label not in labels:
        raise ValueError("it undoes what was not done")
    labels.pop(label, None)
    if not is_undone:
        labels[label] = None


class LabelFolder:
    """A folder of labelled images. It appears with the first label; what lies there already stays as it is.

    Several of them, in one process or in many, can work on one folder: each sees what the others decide.

    Args:
        folder: new, or one that was labelled into before, or any scored folder.

    Raises:
        ValueError: a file, or a folder whose record of labels cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.lock = threading.RLock()
        self.record = LabelRecord(self.folder / RECORD_NAME)
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise ValueError(f"labelled images go into a folder, got the file {as_text(self.folder)}")
        # What undo may take back: what stood there before and what is decided here, not what others decide meanwhile.
        self._ours: set[Label] = set(self.record.labels())

    @property
    def record_path(self) -> Path:
        return self.record.path

    @property
    def history(self) -> list[Label]:
        """Decisions that were not taken back, in their order; a copy that somebody has removed does not count."""
        with self.lock:
            return [label for label in self.record.labels() if self._is_there(label)]

    def _is_there(self, label: Label) -> bool:
        return label.file is None or os.path.lexists(self.folder / label.file)

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        """Hold the folder against every other label and undo. Raises ValueError, which says `what` cannot be done."""
        lock_path = self.folder / LOCK_NAME
        place = f"the folder of labels {as_text(self.folder.name)}"
        with self.lock:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if lock_path.is_symlink():  # which opening it would follow, and empty what it leads to
                    raise ValueError(f"cannot {what}: {LOCK_NAME} in {place} is a link")
                lock = FileLock(lock_path, timeout=LOCK_WAIT)  # which the system opens however the process ends
                lock.acquire()
            except Timeout as error:
                raise ValueError(
                    f"cannot {what}: {place} has been in use by another page for {LOCK_WAIT:g} s; try again"
                ) from error
            except (OSError, NotImplementedError) as error:
                raise ValueError(f"cannot {what}: {place} cannot be written to: {error_reason(error)}") from error
            try:
                yield
            except OSError as error:
                raise ValueError(f"cannot {what}: {error_reason(error)}") from error
            finally:
                lock.release()

    def find_label(self, digest: str) -> Label | None:
        """Return what was decided of the image of this content."""
        return next((label for label in self.history if label.content_hash == digest), None)

    def choose(self, path: Path, name: str, choice: str) -> Label:
        """Copy an image into a bin, or skip it. A name that is taken gets a number; nothing is overwritten.

        Args:
            path: of the image.
            name: what the copy is called; folders in it are left out.
            choice: one of `CHOICES`.

        Raises:
            ValueError: another choice, an image that has a label already, or one that cannot be copied.
        """
        if choice not in CHOICES:
            raise ValueError(f"a label must be one of {', '.join(CHOICES)}, got {choice!r}")
        try:
            digest = content_hash(path)
        except OSError as error:
            raise ValueError(f"cannot label {name}: {error_reason(error)}") from error
        with self._locked(f"label {name}"):
            if (label := self.find_label(digest)) is not None:
                raise ValueError(f"{name} is labelled already: {label.choice}")
            file = None if choice == SKIPPED else self._copy(path, name, choice, digest)
            label = Label(digest, choice, file)
            try:
                self._put_down(label)
            except OSError:
                if file is not None:
                    (self.folder / file).unlink()
                raise
            self._ours.add(label)
            return label

    def _put_down(self, label: Label) -> None:
        """Add to the record; what stood there of the image, or of a file of this name, lost its copy by hand."""
        for old in self.record.labels():
            if old.content_hash == label.content_hash or (label.file is not None and old.file == label.file):
                self.record.add(old, is_undone=True)
        self.record.add(label)

    def _copy(self, path: Path, name: str, choice: str, digest: str) -> str:
        bin_dir = self.folder / choice
        bin_dir.mkdir(parents=True, exist_ok=True)
        candidates = _candidates(PurePosixPath(name.replace("\\", "/")).name)
        while True:
            file_name = next(candidates)
            target = bin_dir / file_name
            if os.path.lexists(target):
                continue
            with suppress(FileExistsError):
                write_new_file(os.path.realpath(path), str(target), f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}", digest)
                sync_to_disk(bin_dir)
                return f"{choice}/{file_name}"

    def _last_of_ours(self) -> Label | None:
        return next((label for label in reversed(self.record.labels()) if label in self._ours), None)

    def undo(self) -> Label | None:
        """Take back the last label, or None where there is none; its copy is removed, unless it was changed since.

        It is the last that was made here, and after these the last of those that stood there when the folder was
        opened; what another page decides meanwhile is not taken from it.

        Raises:
            ValueError: the copy is no longer what it was, or cannot be removed.
        """
        with self.lock:
            if self._last_of_ours() is None:
                return None
            with self._locked("undo the last label"):
                label = self._last_of_ours()
                if label is None:
                    return None
                self._remove_copy(label)
                self.record.add(label, is_undone=True)
                self._ours.discard(label)
                return label

    def _remove_copy(self, label: Label) -> None:
        """Remove the copy that a label made. Raises ValueError where it is no longer what it was."""
        if label.file is None or not os.path.lexists(path := self.folder / label.file):
            return
        if os.path.realpath(path.parent) != os.path.join(os.path.realpath(self.folder), *label.choice.split("/")):
            raise ValueError(f"{label.file} lies behind a link that leads out of its bin; it stays")
        if content_hash(path) != label.content_hash:
            raise ValueError(f"{label.file} was changed since it was labelled; it stays")
        path.unlink()

    def count_choices(self) -> Counter[str]:
        """Count the images that got each choice."""
        return Counter(label.choice for label in self.history)

    def list_copies(self) -> list[Path]:
        """Return the copies."""
        return [self.folder / label.file for label in self.history if label.file is not None]


def _candidates(name: str) -> Iterator[str]:
    """Yield the name, then the name with numbers, without end; never hidden, never too long."""
    path = PurePosixPath(name.lstrip(".") or "picture")
    stem, suffix = (path.stem, path.suffix) if has_image_suffix(path) else (path.name, "")
    while len(os.fsencode(stem + suffix)) > MAX_NAME_BYTES:
        stem = stem[:-1]
    yield stem + suffix
    for number in count(2):
        yield f"{stem}_{number}{suffix}"


def sort_for_labelling(digests: Iterable[str], order: str, score_stds: dict[str, float], seed: int = 0) -> list[str]:
    """Sort contents into the order in which they are to be labelled, which does not depend on what is labelled already.

    Args:
        digests: of the images' contents.
        order: "random", or "spread": those first whose patches' scores differ most; unknown ones last.
        score_stds: of an image's patch scores, by content.
        seed: of the random order.

    Raises:
        ValueError: another order.
    """
    if order not in ORDERS:
        raise ValueError(f"the order must be one of {', '.join(ORDERS)}, got {order!r}")

    def draw(digest: str) -> str:
        return hash_of(f"{seed} {digest}".encode())

    if order == "random":
        return sorted(digests, key=draw)
    return sorted(digests, key=lambda digest: (-score_stds.get(digest, -1.0), draw(digest)))
