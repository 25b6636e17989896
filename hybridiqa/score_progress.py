"""What a run has scored so far: rows appended to one file a process, so that a kill costs no more than the last ones.

They lie in `OUTPUT.progress/` beside the file of scores until the run's end, when they are merged into it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from hybridiqa.score_store import ScoreRow, row_from, to_json_line


def progress_dir_of(output: Path) -> Path:
    """Where the rows of an unfinished run lie."""
    return output.with_name(f"{output.name}.progress")


def _read_rows(path: Path) -> tuple[list[ScoreRow], int]:
    """The whole rows of a file, and how many bytes they take; what a kill left half-written follows them."""
    rows, num_bytes = [], 0
    with open(path, "rb") as file:
        for line in file:
            try:
                if not line.endswith(b"\n"):
                    break
                rows.append(row_from(json.loads(line)))
            except ValueError:
                break
            num_bytes += len(line)
    return rows, num_bytes


def read_progress(output: Path) -> list[ScoreRow]:
    """The rows of all processes of an unfinished run, none where there is no such run."""
    return [row for path in sorted(progress_dir_of(output).glob("rows-*.jsonl")) for row in _read_rows(path)[0]]


class ScoreProgress:
    """One process's rows, appended while it runs.

    Args:
        output: the file of scores that the rows are for.
        process_index: of this process among those that share the work.

    Raises:
        ValueError: another run is writing there.
    """

    def __init__(self, output: Path, process_index: int = 0):
        folder = progress_dir_of(output)
        folder.mkdir(exist_ok=True)
        path = folder / f"rows-{process_index:05d}.jsonl"
        self.lock = FileLock(path.with_suffix(".lock"))  # which the system opens however the process ends
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another run is writing scores to {output}") from None
        if path.exists():
            os.truncate(path, _read_rows(path)[1])
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by close()

    def write(self, rows: Iterable[ScoreRow]) -> None:
        """Append the rows; when this returns, a kill of the process cannot take them."""
        self.file.writelines(map(to_json_line, rows))
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        self.lock.release()


def remove_progress(output: Path) -> None:
    """Remove what `ScoreProgress` wrote; a run that begins meanwhile keeps its own."""
    folder = progress_dir_of(output)
    for pattern in ("rows-*.jsonl", "rows-*.lock"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    with suppress(OSError):  # another run has begun there
        folder.rmdir()
