"""Checkpoints of a run: whole or not there, the newest few kept.

A folder gets its name only once all that it holds is on the disk, with a list of its files by which damage is found
later. What a killed process left unfinished begins with a dot, is never read, and is removed by the next one that
writes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open

from hybridiqa.utils.atomic import sync_to_disk
from hybridiqa.utils.files import content_hash, error_reason
from hybridiqa.utils.libraries import first_line

PROGRESS_FILE, FILES_FILE = "progress.json", "files.json"
STATE_PREFIX, MODEL_PREFIX, UNFINISHED_PREFIX = "step-", "best-", ".unfinished-"
NUM_DIGITS = {STATE_PREFIX: 8, MODEL_PREFIX: 4}  # so that the order of names is that of numbers
# torch tells a full disk by a RuntimeError, safetensors by its own.
WRITE_FAILURES = (OSError, RuntimeError, SafetensorError)
FULL_DISK_TEXTS = ("no space left", "quota exceeded")


class WriteError(RuntimeError):
    """Something that a run could not write, as on a full disk; what it wrote before is as it was.

    Args:
        path: what could not be written.
        reason: why.
        num_bytes: about as much is needed for it.
    """

    def __init__(self, path: Path, reason: str, num_bytes: int):
        folder = next(folder for folder in Path(path).absolute().parents if folder.is_dir())
        free = shutil.disk_usage(folder).free
        is_full = free < num_bytes or any(text in reason.lower() for text in FULL_DISK_TEXTS)
        reason = f"the disk is full, make room there: {reason}" if is_full else reason
        room = f"{free / 1e6:.1f} MB are free there, about {num_bytes / 1e6:.1f} MB are needed"
        super().__init__(f"cannot write {path}: {reason} ({room})")


def write_reason(error: Exception) -> str:
    """Return in one line why something could not be written."""
    return getattr(error, "strerror", None) or first_line(error)


@contextmanager
def new_files(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Yield a folder to fill, whose files move into `folder` once all are whole; raises WriteError where one cannot be.

    Args:
        num_bytes: about as much is written.
    """
    unfinished = folder / f"{UNFINISHED_PREFIX}files"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        paths = sorted(unfinished.iterdir())
        for path in paths:
            sync_to_disk(path)
        for path in paths:
            path.replace(folder / path.name)
        unfinished.rmdir()
    except (OSError, SafetensorError) as error:
        raise WriteError(folder, write_reason(error), num_bytes) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Take the name away first: a half-removed folder must not be read, either."""
    shutil.rmtree(folder.rename(folder.with_name(f"{UNFINISHED_PREFIX}old-{folder.name}")))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _do_together(accelerator: Accelerator, folder: Path, num_bytes: int, action: Callable[[], None]) -> None:
    """Do a part of writing in this process; where one of them fails, raise WriteError in all."""
    reason = None
    try:
        action()
    except WRITE_FAILURES as error:
        reason = write_reason(error)
    if reasons := [reason for reason in gather_object([reason]) if reason is not None]:
        raise WriteError(folder, reasons[0], num_bytes)


def _write_folder(accelerator: Accelerator, folder: Path, num_bytes: int, write: Callable[[Path], None]) -> None:
    """Let every process `write` into a folder that then takes its name, in one step.

    Raises:
        WriteError: it could not be written; what has that name, and all others, are as they were.
    """
    unfinished = folder.with_name(UNFINISHED_PREFIX + folder.name)

    def begin() -> None:
        folder.parent.mkdir(exist_ok=True)
        if os.path.lexists(folder) and not _is_folder(folder):
            raise FileExistsError(errno.EEXIST, "a file or a link has its name")
        for leftover in folder.parent.glob(f"{UNFINISHED_PREFIX}*"):
            if _is_folder(leftover):
                shutil.rmtree(leftover)
        unfinished.mkdir()

    def end() -> None:
        paths = sorted(path for path in unfinished.rglob("*") if path.is_file())
        files = {path.relative_to(unfinished).as_posix(): [path.stat().st_size, content_hash(path)] for path in paths}
        (unfinished / FILES_FILE).write_text(json.dumps(files), encoding="utf-8")
        for path in [*unfinished.rglob("*"), unfinished]:
            sync_to_disk(path)
        if folder.exists():  # of the same step, by a run that was stopped before it went on, or damaged
            _remove(folder)
        unfinished.rename(folder)
        sync_to_disk(folder.parent)

    do_together = partial(_do_together, accelerator, folder, num_bytes)
    is_main = accelerator.is_main_process
    try:
        do_together(begin if is_main else lambda: None)
        do_together(lambda: write(unfinished))
        do_together(end if is_main else lambda: None)
    except WriteError:
        if is_main:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _list_numbered(checkpoints_dir: Path, prefix: str) -> list[tuple[int, Path]]:
    """Return the folders that a run has named so, with their numbers, in their order; nothing else is one."""
    found = []
    for path in checkpoints_dir.iterdir() if checkpoints_dir.is_dir() else ():
        digits = path.name.removeprefix(prefix)
        if (
            digits.isascii()
            and digits.isdigit()
            and path.name == _folder_name(prefix, int(digits))
            and _is_folder(path)
        ):
            found.append((int(digits), path))
    return sorted(found)


def _folder_name(prefix: str, number: int) -> str:
    return f"{prefix}{number:0{NUM_DIGITS[prefix]}d}"


def save_state(
    accelerator: Accelerator, checkpoints_dir: Path, step: int, progress: dict, limit: int, num_bytes: int = 0
) -> None:
    """Write model, optimiser and progress after a step; keep the newest `limit` of them and the models they name.

    Args:
        progress: JSON-able, with the step; its `best`, where there is one, names the model folder in its `model`.
        num_bytes: about as much is written.

    Raises:
        WriteError: it could not be written; the checkpoints before it are all there.
    """

    def write(folder: Path) -> None:
        accelerator.save_state(str(folder))
        if accelerator.is_main_process:
            (folder / PROGRESS_FILE).write_text(json.dumps(progress), encoding="utf-8")

    folder = checkpoints_dir / _folder_name(STATE_PREFIX, step)
    _write_folder(accelerator, folder, num_bytes, write)
    remove_old = partial(_remove_old, checkpoints_dir, step, limit)
    _do_together(accelerator, folder, num_bytes, remove_old if accelerator.is_main_process else lambda: None)


def _remove_old(checkpoints_dir: Path, step: int, limit: int) -> None:
    """Remove what is older than the newest `limit` that are whole, as far as the sizes of their files tell.

    What is newer than `step` is damaged, or the run would have gone on from it: it stays until the run comes there.
    """
    past = [folder for number, folder in _list_numbered(checkpoints_dir, STATE_PREFIX) if number <= step]
    kept = [folder for folder in past if find_fault(folder, with_content=False) is None][-limit:]
    for folder in past:
        if folder not in kept:
            _remove(folder)
    named = set()
    for folder in list_states(checkpoints_dir):
        with suppress(ValueError):
            named.add((read_progress(folder)["best"] or {}).get("model"))
    for _, folder in _list_numbered(checkpoints_dir, MODEL_PREFIX):
        if folder.name not in named:
            _remove(folder)


def save_model(
    accelerator: Accelerator, checkpoints_dir: Path, epoch: int, model, state_dict: dict, num_bytes: int = 0
) -> str:
    """Write the model as a Hub folder and return the folder's name. Raises WriteError as `save_state`."""
    name = _folder_name(MODEL_PREFIX, epoch)

    def write(folder: Path) -> None:
        if accelerator.is_main_process:
            model.save_pretrained(folder, state_dict=state_dict)

    _write_folder(accelerator, checkpoints_dir / name, num_bytes, write)
    return name


def _read_json(path: Path) -> dict:
    """Read a JSON object. Raises ValueError where it is not there or holds anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error_reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} is not what a run writes")
    return values


def read_progress(checkpoint: Path) -> dict:
    """Return what `save_state` was given with this checkpoint. Raises ValueError where it is damaged."""
    progress = _read_json(checkpoint / PROGRESS_FILE)
    best = progress.get("best", {})
    is_best_right = best is None or (isinstance(best, dict) and isinstance(best.get("model"), str))
    step = progress.get("step")
    if not isinstance(step, int) or checkpoint.name != _folder_name(STATE_PREFIX, step) or not is_best_right:
        raise ValueError(f"{PROGRESS_FILE} is not what a run writes")
    return progress


def _check_listed(folder: Path, files: dict, with_content: bool) -> None:
    for name, (size, digest) in files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found is None:
            raise ValueError(f"{name} is missing")
        if found != size:
            raise ValueError(f"{name} has {found} of {size} bytes")
        if with_content and content_hash(path) != digest:
            raise ValueError(f"{name} is not what was written")


def _check_unlisted(folder: Path) -> None:
    """Check a folder of an older version by what its files say of themselves."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if not path.stat().st_size:
            raise ValueError(f"{path.name} is empty")
        if path.suffix == ".json":
            _read_json(path)
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                pass
        elif path.suffix in (".bin", ".pkl", ".pt"):
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"{path.name} is damaged in {damaged}")


def _check_files(folder: Path, with_content: bool) -> None:
    """Raise ValueError where a folder lacks one of its files, or one is not what was written."""
    if not _is_folder(folder):
        raise ValueError(f"the model {folder.name} is missing")
    try:
        if (folder / FILES_FILE).exists():
            _check_listed(folder, _read_json(folder / FILES_FILE), with_content)
        elif with_content:
            _check_unlisted(folder)
    except (OSError, TypeError, zipfile.BadZipFile, SafetensorError) as error:
        raise ValueError(write_reason(error)) from error


def find_fault(checkpoint: Path, with_content: bool = True) -> str | None:
    """Return why a checkpoint, or the model that it names, is not whole; none where it is.

    Args:
        with_content: read all files; without, their names and sizes only.
    """
    try:
        best = read_progress(checkpoint)["best"]
        _check_files(checkpoint, with_content)
        if best is not None:
            if Path(best["model"]).name != best["model"]:
                raise ValueError(f"{PROGRESS_FILE} is not what a run writes")
            _check_files(checkpoint.parent / best["model"], with_content)
    except (ValueError, KeyError, TypeError) as error:
        return first_line(error)
    return None


def list_states(checkpoints_dir: Path) -> list[Path]:
    """Return the checkpoints by their names, the newest first, whether they are whole or not."""
    return [folder for _, folder in reversed(_list_numbered(checkpoints_dir, STATE_PREFIX))]


def latest_state(checkpoints_dir: Path) -> Path | None:
    """Return the newest checkpoint that is not known to be damaged, or None."""
    found = (folder for folder in list_states(checkpoints_dir) if find_fault(folder, with_content=False) is None)
    return next(found, None)
