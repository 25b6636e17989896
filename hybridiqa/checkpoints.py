"""Checkpoints of a run: whole or not there, the newest few kept.

A folder gets its name only once all that it holds is on the disk. What a killed process left unfinished begins with a
dot, is never read, and is removed by the next one that writes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

PROGRESS_FILE = "progress.json"
STATE_PREFIX, MODEL_PREFIX, UNFINISHED_PREFIX = "step-", "best-", ".unfinished-"


def _sync_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unfinished(folder: Path) -> Path:
    return folder.with_name(UNFINISHED_PREFIX + folder.name)


def _remove(folder: Path) -> None:
    """Take the name away first: a half-removed folder must not be read, either."""
    shutil.rmtree(folder.rename(_unfinished(folder)))


def _write_folder(accelerator: Accelerator, folder: Path, write: Callable[[Path], None]) -> None:
    """Let every process `write` into a folder that then takes its name, in one step."""
    unfinished = _unfinished(folder)
    if accelerator.is_main_process:
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():  # of the same epoch, by a run that was killed before its checkpoint named it
            _remove(folder)
        for leftover in folder.parent.glob(f"{UNFINISHED_PREFIX}*"):
            shutil.rmtree(leftover)
        unfinished.mkdir()
    accelerator.wait_for_everyone()
    write(unfinished)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for path in [*unfinished.rglob("*"), unfinished]:
            _sync_to_disk(path)
        unfinished.rename(folder)
        _sync_to_disk(folder.parent)
    accelerator.wait_for_everyone()


def _numbered(checkpoints_dir: Path, prefix: str) -> list[Path]:
    return sorted(checkpoints_dir.glob(f"{prefix}*"))  # numbers are padded: the order of names is theirs


def save_state(accelerator: Accelerator, checkpoints_dir: Path, step: int, progress: dict, limit: int) -> None:
    """Write model, optimiser and progress after a step; keep the newest `limit` of them and the models they name.

    Args:
        progress: JSON-able; its `best`, where there is one, names the model folder in its `model`.
    """

    def write(folder: Path) -> None:
        accelerator.save_state(str(folder))
        if accelerator.is_main_process:
            (folder / PROGRESS_FILE).write_text(json.dumps(progress), encoding="utf-8")

    _write_folder(accelerator, checkpoints_dir / f"{STATE_PREFIX}{step:08d}", write)
    if accelerator.is_main_process:
        _remove_old(checkpoints_dir, limit)


def _remove_old(checkpoints_dir: Path, limit: int) -> None:
    for folder in _numbered(checkpoints_dir, STATE_PREFIX)[:-limit]:
        _remove(folder)
    kept = [read_progress(folder)["best"] for folder in _numbered(checkpoints_dir, STATE_PREFIX)]
    named = {best["model"] for best in kept if best}
    for folder in _numbered(checkpoints_dir, MODEL_PREFIX):
        if folder.name not in named:
            _remove(folder)


def save_model(accelerator: Accelerator, checkpoints_dir: Path, epoch: int, model, state_dict: dict) -> str:
    """Write the model as a Hub folder; returns the folder's name."""
    name = f"{MODEL_PREFIX}{epoch:04d}"

    def write(folder: Path) -> None:
        if accelerator.is_main_process:
            model.save_pretrained(folder, state_dict=state_dict)

    _write_folder(accelerator, checkpoints_dir / name, write)
    return name


def read_progress(checkpoint: Path) -> dict:
    """What `save_state` was given with this checkpoint."""
    return json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8"))


def latest_state(checkpoints_dir: Path) -> Path | None:
    """The newest checkpoint, or None."""
    found = _numbered(checkpoints_dir, STATE_PREFIX)
    return found[-1] if found else None
