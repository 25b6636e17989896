"""Putting pictures into the folders of a scored dataset by hand, one at a time: copies, which can be taken back.

    labels/Artifact/3/a.png ... labels/Perfect/5/b.png, labels/8/c.png, labels/9/d.png

`prepare_dataset.py` reads such a folder as it is. What was decided stands in a hidden file of it, by the pictures'
content, so that labelling goes on where it was, whatever the pictures are called or where they lie.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path, PurePosixPath

from hybridiqa.dataset_formats import ABSOLUTE_SCORES, BIN_NAMES, SCORE_OFFSETS, score_and_bin
from hybridiqa.file_actions import place
from hybridiqa.files import as_text, content_hash, has_image_suffix, hash_of
from hybridiqa.journal import TEMPORARY_PREFIX, sync_to_disk

LABEL_BINS = tuple(
    name for name in BIN_NAMES if name.startswith(tuple(SCORE_OFFSETS)) or name in map(str, ABSOLUTE_SCORES)
)  # Artifact/1 ... Artifact/5, Perfect/1 ... Perfect/5, 8, 9
SKIPPED = "skip"
CHOICES = (*LABEL_BINS, SKIPPED)
RECORD_NAME = ".hybridiqa-labels.jsonl"
MAX_NAME_BYTES = 200  # of a copy, so that a number and a suffix fit besides
ORDERS = ("random", "spread")


def score_of_bin(name: str) -> float:
    """What a bin of `LABEL_BINS` counts as, on the 1-9 scale."""
    return score_and_bin(f"{name}/picture")[0]


@dataclass(frozen=True)
class Label:
    """What was decided of one picture.

    Args:
        content_hash: of the picture's bytes.
        choice: one of `CHOICES`.
        file: the copy, relative to the folder; none for a picture that was skipped.
    """

    content_hash: str
    choice: str
    file: str | None = None


class LabelFolder:
    """A folder of labelled pictures. It appears with the first label; what lies there already stays as it is.

    Args:
        folder: new, or one that was labelled into before, or any scored folder.

    Raises:
        ValueError: a file, or a folder whose record of labels is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.lock = threading.RLock()
        if os.path.lexists(self.folder) and not self.folder.is_dir():
            raise ValueError(f"labelled pictures go into a folder, got the file {as_text(self.folder)}")
        self.history: list[Label] = self._read()

    @property
    def record_path(self) -> Path:
        return self.folder / RECORD_NAME

    def _read(self) -> list[Label]:
        """What was decided and not taken back, in its order; a copy that somebody has removed since does not count."""
        labels: dict[str, Label] = {}  # by content
        lines = self.record_path.read_bytes().split(b"\n") if self.record_path.exists() else [b""]
        for number, line in enumerate(lines[:-1], 1):  # behind the last line end is nothing, or a torn line
            try:
                values = json.loads(line)
                is_undone = values.pop("undone", False)
                label = Label(**values)
                if not isinstance(label.file, str | None):
                    raise TypeError(f"a file's name must be text, got {label.file!r}")
                before = labels.pop(label.content_hash, None)
                if is_undone and before != label:
                    raise ValueError("it undoes what was not done")
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"line {number} of {as_text(self.record_path)} is damaged: {line[:80]!r}") from error
            if not is_undone:
                labels[label.content_hash] = label
        return [label for label in labels.values() if label.file is None or os.path.lexists(self.folder / label.file)]

    def _write(self, label: Label, is_undone: bool = False) -> None:
        """Put a line on the disk, instead of a torn one at the end."""
        line = json.dumps(asdict(label) | ({"undone": True} if is_undone else {})).encode() + b"\n"
        with open(self.record_path, "r+b" if self.record_path.exists() else "xb") as file:
            whole = self.record_path.read_bytes().rfind(b"\n") + 1
            file.truncate(whole)
            file.seek(whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def label_of(self, digest: str) -> Label | None:
        """What was decided of the picture of this content."""
        return next((label for label in self.history if label.content_hash == digest), None)

    def choose(self, path: Path, name: str, choice: str) -> Label:
        """Copy a picture into a bin, or skip it. A name that is taken gets a number; nothing is overwritten.

        Args:
            path: of the picture.
            name: what the copy is called; folders in it are left out.
            choice: one of `CHOICES`.

        Raises:
            ValueError: another choice, a picture that has a label already, or one that cannot be copied.
        """
        if choice not in CHOICES:
            raise ValueError(f"a label must be one of {', '.join(CHOICES)}, got {choice!r}")
        with self.lock:
            try:
                digest = content_hash(path)
                if (label := self.label_of(digest)) is not None:
                    raise ValueError(f"{name} is labelled already: {label.choice}")
                self.folder.mkdir(parents=True, exist_ok=True)
                file = None if choice == SKIPPED else self._copy(path, name, choice, digest)
                label = Label(digest, choice, file)
                self._write(label)
            except OSError as error:
                raise ValueError(f"cannot label {name}: {error.strerror or error}") from error
            self.history.append(label)
            return label

    def _copy(self, path: Path, name: str, choice: str, digest: str) -> str:
        bin_dir = self.folder / choice
        bin_dir.mkdir(parents=True, exist_ok=True)
        for file_name in _candidates(PurePosixPath(name.replace("\\", "/")).name):
            target = bin_dir / file_name
            if os.path.lexists(target):
                continue
            with suppress(FileExistsError):
                place(os.path.realpath(path), str(target), f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}", digest)
                sync_to_disk(bin_dir)
                return f"{choice}/{file_name}"

    def undo(self) -> Label | None:
        """Take back the last label, or None where there is none; its copy is removed, unless it was changed since.

        Raises:
            ValueError: the copy is no longer what it was, or cannot be removed.
        """
        with self.lock:
            if not self.history:
                return None
            label = self.history[-1]
            try:
                if label.file is not None and os.path.lexists(self.folder / label.file):
                    if content_hash(self.folder / label.file) != label.content_hash:
                        raise ValueError(f"{label.file} was changed since it was labelled; it stays")
                    (self.folder / label.file).unlink()
                self._write(label, is_undone=True)
            except OSError as error:
                raise ValueError(f"cannot undo {label.choice}: {error.strerror or error}") from error
            return self.history.pop()

    def counts(self) -> Counter[str]:
        """How many pictures got each choice."""
        return Counter(label.choice for label in self.history)

    def files(self) -> list[Path]:
        """The copies."""
        return [self.folder / label.file for label in self.history if label.file is not None]


def _candidates(name: str) -> Iterable[str]:
    """The name, then with numbers; never hidden, never too long."""
    path = PurePosixPath(name.lstrip(".") or "picture")
    stem, suffix = (path.stem, path.suffix) if has_image_suffix(path) else (path.name, "")
    while len(os.fsencode(stem + suffix)) > MAX_NAME_BYTES:
        stem = stem[:-1]
    yield stem + suffix
    for number in count(2):
        yield f"{stem}_{number}{suffix}"


def in_order(digests: Iterable[str], order: str, spreads: dict[str, float], seed: int = 0) -> list[str]:
    """The contents in the order in which they are to be labelled, which does not depend on what is labelled already.

    Args:
        digests: of the pictures' contents.
        order: "random", or "spread": those first whose patches' scores differ most; unknown spreads last.
        spreads: of a picture's patch scores, by content.
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
    return sorted(digests, key=lambda digest: (-spreads.get(digest, -1.0), draw(digest)))
