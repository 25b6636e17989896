"""Ledger of a run: the scores known before, the rows it adds as it goes on, and the one file of scores at its end."""

from __future__ import annotations

import csv
import logging
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from hybridiqa.scores.score_file import (
    ScoreRow,
    read_scores,
    row_from_line,
    to_json_line,
    with_percentiles,
    write_scores,
)
from hybridiqa.utils.files import as_text, path_of

logger = logging.getLogger(__name__)
MAX_ROW_BYTES = csv.field_size_limit()  # of a line: a longer cell could be written to a CSV and not be read again
REJECTED_SUFFIX = ".rejected"
LOCK_WAIT = 3.0  # seconds: the workers of a run that was killed have its lock until they notice, about one
APPENDED = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def progress_dir_of(output: Path) -> Path:
    """Return where the rows of an unfinished run lie: beside the file itself, by whichever link it is named."""
    real = Path(os.path.realpath(output))
    return real.with_name(f"{real.name}.progress")


def check_progress_dir(output: Path) -> None:
    """Raise ValueError where something else has the name of the folder that the rows are to lie in."""
    folder = progress_dir_of(output)
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"{folder} is there already and no folder; unfinished rows of {output.name} are to lie there")


def _check_no_link(path: Path) -> None:
    """Raise ValueError for a link of a name that is ours: it would lead what is written elsewhere."""
    if path.is_symlink():
        raise ValueError(f"{path} is a link, accepted is a file of a run of score.py; remove it")


def _open_to_append(path: Path) -> BinaryIO:
    _check_no_link(path)
    return os.fdopen(os.open(path, APPENDED, 0o666), "r+b")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that are not blank. One too long for a row comes in pieces, and is none."""
    while line := file.readline(MAX_ROW_BYTES):
        if line.strip():
            yield line


def _row_of(line: bytes) -> ScoreRow | None:
    """Return the row of a line, or None where it holds none. Zero bytes, which a power failure leaves, do not count."""
    try:
        return row_from_line(line.strip(b"\0 \t\r\n"))
    except ValueError:
        return None


def _is_torn(line: bytes) -> bool:
    """Return whether a line is what a kill left of the file's last one, and no whole row."""
    return not line.endswith(b"\n") and len(line) < MAX_ROW_BYTES and _row_of(line) is None


def _rows_files(output: Path) -> list[Path]:
    return sorted(path for path in progress_dir_of(output).glob("rows-*.jsonl") if path.is_file())


def read_progress(output: Path) -> list[ScoreRow]:
    """Return the rows of all processes of an unfinished run, none where there is no such run."""
    rows = []
    for path in _rows_files(output):
        with open(path, "rb") as file:
            rows += [row for row in map(_row_of, _lines(file)) if row is not None]
    return rows


def _drop_torn_end(file: BinaryIO) -> None:
    """Remove what a kill left of the last line, if it is no row, and end the one before it."""
    last = next(iter(deque(_lines(file), maxlen=1)), b"")
    size = file.seek(0, os.SEEK_END)
    if last and _is_torn(last):
        size = file.truncate(size - len(last))
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.write(b"\n")


class ScoreProgress:
    """File of one process's rows, appended while it runs.

    Args:
        output: the file of scores that the rows are for.
        process_index: of this process among those that share the work.

    Raises:
        ValueError: another run is writing there, or what is there is not ours.
    """

    def __init__(self, output: Path, process_index: int = 0):
        check_progress_dir(output)
        folder = progress_dir_of(output)
        folder.mkdir(exist_ok=True)
        path = folder / f"rows-{process_index:05d}.jsonl"
        _check_no_link(path.with_suffix(".lock"))
        self.lock = FileLock(path.with_suffix(".lock"))  # which the system opens however the process ends
        try:
            self.lock.acquire(timeout=LOCK_WAIT)
        except Timeout:
            raise ValueError(f"another run is writing scores to {output}") from None
        try:
            self.file = _open_to_append(path)
            _drop_torn_end(self.file)
        except (OSError, ValueError):
            self.lock.release()
            raise

    def write(self, rows: Iterable[ScoreRow]) -> None:
        """Append the rows; when this returns, a kill of the process cannot take them."""
        self.file.writelines(to_json_line(row).encode() for row in rows)
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        self.lock.release()


def _keep_rejected(path: Path) -> None:
    """Append the lines of a file that are no rows to one beside it, and say so."""
    with open(path, "rb") as file:
        rejected = [line for line in _lines(file) if _row_of(line) is None and not _is_torn(line)]
    if not rejected:
        return
    kept_path = path.with_name(path.name + REJECTED_SUFFIX)
    with _open_to_append(kept_path) as kept:
        known = set(_lines(kept))  # a kill between this and the removal of the file would keep them twice
        kept.writelines(line for line in rejected if line not in known)
        if not rejected[-1].endswith(b"\n"):  # the tail of a long line was torn
            kept.write(b"\n")
        kept.flush()
        os.fsync(kept.fileno())
    num_lines = sum(line.endswith(b"\n") for line in rejected) or 1
    what = "lines that are no rows of scores (damaged, or of another version)"
    logger.warning("%s: %d of %s, kept in %s", what, num_lines, as_text(path), as_text(kept_path))


def remove_progress(output: Path) -> None:
    """Remove what `ScoreProgress` wrote, but for what is no row; a run that begins meanwhile keeps its own."""
    folder, rows_files = progress_dir_of(output), _rows_files(output)
    for path in rows_files:
        _keep_rejected(path)
    for path in (*rows_files, *folder.glob("rows-*.lock")):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # another run has begun there, or rejected lines are kept
        folder.rmdir()


class ScoreLedger:
    """Place where a run finds and leaves its rows; several processes may each have one of the same file.

    Args:
        output: the file of scores.
        scorer_id: whose scores the run gives.
        process_index: of this process among those that share the work.

    Raises:
        ValueError: `output` is no file of scores, or another run is writing to it.
    """

    def __init__(self, output: Path, scorer_id: str, process_index: int = 0):
        self.output, self.scorer_id = output, scorer_id
        self.progress = ScoreProgress(output, process_index)
        rows = [*self._read_stored(), *read_progress(output)]
        self.rows = {row.path: row for row in rows if row.scorer == scorer_id}

    def _read_stored(self) -> list[ScoreRow]:
        return read_scores(self.output) if self.output.exists() else []

    def known(self) -> dict[str, ScoreRow]:
        """Return the rows that hold a score, by content."""
        return {row.content_hash: row for row in self.rows.values() if row.score is not None and row.content_hash}

    def add(self, rows: Iterable[ScoreRow]) -> None:
        """Keep the rows; those that stand in the file already are not written again."""
        self.progress.write(row for row in rows if not self._holds(row))

    def _holds(self, row: ScoreRow) -> bool:
        held = self.rows.get(row.path)
        return held is not None and replace(held, percentile=None) == row

    def merge(
        self, is_searched: Callable[[str], bool], quantiles: Sequence[float] | None, among_library: bool
    ) -> list[ScoreRow]:
        """Bring all rows of all processes together in the file of scores; for one process to call.

        The arguments are those of `merge_rows` and `with_percentiles`.
        """
        merged = merge_rows(self._read_stored(), read_progress(self.output), is_searched)
        rows = with_percentiles(merged, self.scorer_id, quantiles, among_library)
        write_scores(self.output, rows)
        remove_progress(self.output)
        return rows

    def close(self) -> None:
        """Let other runs write to the file."""
        self.progress.close()


def make_search_test(inputs: Sequence[str]) -> Callable[[str], bool]:
    """Return a test whether a row's path is one of the inputs of a run, or lies in one of its folders."""
    exact = {as_text(os.path.abspath(name)) for name in inputs}
    folders = tuple(os.path.join(name, "") for name in exact)

    def is_searched(path: str) -> bool:
        path = os.path.abspath(path)
        return path in exact or path.startswith(folders)

    return is_searched


def merge_rows(
    stored: Iterable[ScoreRow], added: Iterable[ScoreRow], is_searched: Callable[[str], bool]
) -> list[ScoreRow]:
    """Return one row an image and scorer, the added ones over the stored ones.

    A file that is gone from where the run searched keeps its row, marked as vanished; but where its content has turned
    up under a new name, it was moved, and the row of the new name is the only one.

    Args:
        stored: rows of the file of scores.
        added: rows of this run, and of those before it that did not reach their end.
        is_searched: whether the run would have found a file of this path.
    """
    stored_keys, rows = set(), {}
    for row in stored:
        stored_keys.add((row.path, row.scorer))
        rows[row.path, row.scorer] = row
    for row in added:
        rows[row.path, row.scorer] = row
    for key, row in rows.items():
        if not row.vanished and is_searched(row.path) and not os.path.lexists(path_of(row.path)):
            rows[key] = replace(row, vanished=True)
    for key in _find_moved(rows, stored_keys):
        del rows[key]
    return list(rows.values())


def _find_moved(rows: dict[tuple[str, str], ScoreRow], stored_keys: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the keys of vanished rows whose content has a new name: one vanished row for each new one."""
    vanished: dict[tuple[str | None, str], list[tuple[str, str]]] = defaultdict(list)
    for key, row in sorted(rows.items()):
        if row.vanished and row.content_hash:
            vanished[row.content_hash, row.scorer].append(key)
    moved = []
    for key, row in rows.items():
        if key not in stored_keys and not row.vanished and (old := vanished.get((row.content_hash, row.scorer))):
            moved.append(old.pop())
    return moved
