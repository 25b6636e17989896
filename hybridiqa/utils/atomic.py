"""Files and folders that are there whole or not at all: written beside their place, onto the disk, then renamed to it.

Everything that writes a file which a user named goes through `open_atomically`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hybridiqa.utils.files import content_hash, error_reason

# What file systems without hard links, or with too many of them, answer.
NO_HARD_LINK = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)

TEMPORARY_PREFIX = ".hybridiqa-"
UNFINISHED_SUFFIX = ".unfinished"
# Of the name that is replaced, in a temporary one: with at most 4 bytes each they leave room for the random part in the
# 255 bytes that file systems allow.
NUM_NAME_CHARS = 48
# A name that is there already, a planted link above all, is not opened.
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
KINDS = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def resolve_output(path: Path, name: str = "") -> Path:
    """Return the file that a write to `path` makes or replaces: a link stays, and what it leads to changes.

    Args:
        name: of the option that brought the path, for the message.

    Raises:
        ValueError: no regular file (a folder, pipe or device), or a folder that is not there or cannot be written to.
    """
    prefix = f"{name}: " if name else ""
    target = Path(os.path.realpath(path))
    found = f"{path}, a link to {target}," if os.path.islink(path) else str(path)
    try:
        status = _status(target)
    except OSError as error:  # a link that leads to itself, or a name too long
        raise ValueError(f"{prefix}{path} cannot be a file: {error_reason(error)}") from error
    if status is not None and not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in KINDS.items() if is_kind(status.st_mode)), "a device")
        raise ValueError(f"{prefix}{found} is {kind}, accepted is a file")
    if not target.parent.is_dir():
        if os.path.islink(path):
            raise ValueError(f"{prefix}{found} leads into a folder that is not there")
        raise ValueError(f"{prefix}there is no folder {path.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"{prefix}{target.parent if os.path.islink(path) else path.parent} cannot be written to")
    return target


def _keep_owner_and_mode(descriptor: int, before: os.stat_result) -> None:
    if not hasattr(os, "fchmod"):  # Windows
        return
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with suppress(OSError):  # only root may give files away
            os.fchown(descriptor, before.st_uid, before.st_gid)
    with suppress(OSError):  # a file system without modes
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system, and no Windows, can
        sync_to_disk(folder)


@contextmanager
def open_atomically(path: Path, mode: str = "wb", is_synced: bool = True, **options: Any) -> Iterator[IO]:
    """Open a new file that replaces `path` once the block has ended well, and vanishes otherwise.

    Whenever the process ends, `path` is there whole, as before, or not at all. A link stays one: the file that it leads
    to is replaced. An existing file's mode is kept (its owner, where the system allows it); a new one gets what the
    umask says.

    Args:
        mode: "wb" or "w"; `options` are those of `open`.
        is_synced: whether it must outlast a power failure, too, for which the disk is waited for.

    Raises:
        ValueError: as `resolve_output`.
        OSError: it cannot be written.
    """
    target = resolve_output(Path(path))
    before = _status(target)
    unfinished = target.with_name(f".{target.name[:NUM_NAME_CHARS]}.{secrets.token_hex(8)}{UNFINISHED_SUFFIX}")
    # Never more open than what it replaces, not even for a moment.
    descriptor = os.open(unfinished, NEW_FILE, 0o666 if before is None else stat.S_IMODE(before.st_mode))
    try:
        with open(descriptor, mode, **options) as file:
            if before is not None:
                _keep_owner_and_mode(descriptor, before)
            yield file
            file.flush()
            if is_synced:
                os.fsync(descriptor)
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if is_synced:
        _sync_folder(target.parent)


def is_same_place(path: Path, other: Path) -> bool:
    """Return whether two paths lead to one file or folder, through links of either kind, whether it is there or not."""
    if os.path.normcase(os.path.realpath(path)) == os.path.normcase(os.path.realpath(other)):
        return True
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there
        return False


def is_within(path: Path, folder: Path) -> bool:
    """Return whether a path leads to a folder, or to a place below it, that need not be there."""
    real, real_folder = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    places = (real, *real.parents)
    if real_folder in places:
        return True
    status = _status(real_folder)  # the same folder may have two names: another case of letters, a second mount
    if status is None:
        return False
    return any(found is not None and os.path.samestat(found, status) for found in map(_status, places))


def check_new_folder(output_dir: Path) -> None:
    """Raise ValueError unless the folder is empty or not there at all."""
    if os.path.lexists(output_dir) and not (output_dir.is_dir() and not any(output_dir.iterdir())):
        raise ValueError(f"{str(output_dir)!r} is there already and not an empty folder; nothing is overwritten")


@contextmanager
def new_folder(output_dir: Path) -> Iterator[Path]:
    """Make a folder to fill, which takes the name `output_dir` when the block ends well and vanishes otherwise.

    Raises:
        ValueError: `output_dir` holds something already.
    """
    output_dir = Path(output_dir).absolute()
    check_new_folder(output_dir)
    parent = next(folder for folder in output_dir.parents if folder.is_dir())  # same disk, so the move is a rename
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{output_dir.name}-") as scratch:
        unfinished = Path(scratch, "unfinished")  # a folder of its own: tempfile's is closed to other users
        unfinished.mkdir()
        yield unfinished
        check_new_folder(output_dir)
        if output_dir.is_dir():
            output_dir.resolve().rmdir()
        output_dir.resolve().parent.mkdir(parents=True, exist_ok=True)
        unfinished.rename(output_dir.resolve())


def write_text_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 file that, whenever the process ends, is there whole, as before, or not at all."""
    with open_atomically(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def without_nan(value: Any) -> Any:
    """Return the same with null for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, there whole or not at all; NaN becomes null."""
    write_text_atomically(path, json.dumps(without_nan(value), indent=2) + "\n")


def sync_to_disk(path: str | Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_without_overwriting(old: str, new: str) -> None:
    """Give a file another name on the same file system. Raises FileExistsError where that name is taken."""
    try:
        os.link(old, new)
    except OSError as error:
        if error.errno not in NO_HARD_LINK:
            raise
        _rename_by_placeholder(old, new)
        return
    try:
        os.unlink(old)
    except OSError:
        os.unlink(new)
        raise


def _rename_by_placeholder(old: str, new: str) -> None:
    """Take the name by a file that only a free name admits, then rename over that file of our own."""
    file = open(new, "xb")  # noqa: SIM115  a name that is taken must not be given up below
    try:
        with file:
            file.write(placeholder(old))
        os.replace(old, new)
    except OSError:
        os.unlink(new)
        raise


def placeholder(old: str) -> bytes:
    """Return what a name holds between being taken and getting its content, which tells it from a user's file."""
    return b"hybridIQA keeps this name for " + os.fsencode(old)


def write_new_file(data_source: str | bytes, target: str, temporary: str, expected_hash: str) -> None:
    """Make a new file, from a file or from bytes, under a temporary name; it gets its own once it is whole."""
    unfinished = os.path.join(os.path.dirname(target), temporary)
    try:
        if isinstance(data_source, bytes):
            with open(unfinished, "xb") as file:
                file.write(data_source)
        else:
            open(unfinished, "xb").close()  # copyfile would write through a link of this name
            shutil.copyfile(data_source, unfinished)
            shutil.copystat(data_source, unfinished)
        sync_to_disk(unfinished)
        if content_hash(unfinished) != expected_hash:
            raise ValueError("it changed while it was copied")
        rename_without_overwriting(unfinished, target)
    finally:
        with suppress(OSError):
            os.unlink(unfinished)
