"""The file of scores: one row an image and scorer, sorted by path, in CSV, JSON lines or Parquet.

What a run adds while it goes on stands in `hybridiqa/score_progress.py`.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path

import pyarrow
from pyarrow import parquet


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One image, as one scorer sees it.

    Args:
        path: as given, bytes that are not UTF-8 written as `\\xNN` (`hybridiqa.files.path_of` reads it).
        score: on the checkpoint's range; none where there is an `error`.
        score_std: spread of the patches' scores.
        percentile: 0-100, where the score stands in the checkpoint's own distribution, or in the library.
        width, height: in pixels, of the picture upright.
        error: why there is no score.
        vanished: whether the file was no longer there when its folder was last scored.
        content_hash: of the file's bytes, see `hybridiqa.files.content_hash`.
        scorer: what a score depends on besides the picture: model, patches, number format, engine.
    """

    path: str
    score: float | None = None
    score_std: float | None = None
    percentile: float | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None
    vanished: bool = False
    content_hash: str | None = None
    scorer: str = ""


COLUMNS = tuple(field.name for field in fields(ScoreRow))
cells_of = attrgetter(*COLUMNS)
NUMBERS = {"score": float, "score_std": float, "percentile": float, "width": int, "height": int}
PARQUET_SCHEMA = pyarrow.schema(
    [
        ("path", pyarrow.string()),
        ("score", pyarrow.float64()),
        ("score_std", pyarrow.float64()),
        ("percentile", pyarrow.float64()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("error", pyarrow.string()),
        ("vanished", pyarrow.bool_()),
        ("content_hash", pyarrow.string()),
        ("scorer", pyarrow.string()),
    ]
)


def row_from(values: dict) -> ScoreRow:
    """A row from its columns.

    Raises:
        ValueError: other columns than a row has, or values that are none of theirs.
    """
    if set(values) != set(COLUMNS):
        raise ValueError(f"a row has the columns {', '.join(COLUMNS)}, got {', '.join(map(str, values))}")
    numbers = (values["score"], values["score_std"], values["percentile"])
    are_numbers = all(value is None or (isinstance(value, int | float) and math.isfinite(value)) for value in numbers)
    if not isinstance(values["path"], str) or not are_numbers or not isinstance(values["vanished"], bool):
        raise ValueError(f"no row of scores: {values}")
    return ScoreRow(**values)


def _from_csv(cells: dict[str, str]) -> ScoreRow:
    if None in cells or None in cells.values():
        raise ValueError(f"a line has more or fewer than {len(COLUMNS)} cells: {cells}")
    values = {name: cell or None for name, cell in cells.items()}
    for name, number in NUMBERS.items():
        if values.get(name) is not None:
            values[name] = number(values[name])
    return row_from(values | {"vanished": values.get("vanished") == "true", "scorer": values.get("scorer") or ""})


def _read_csv(path: Path) -> list[ScoreRow]:
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        return [_from_csv(cells) for cells in reader]


def _write_csv(path: Path, rows: Sequence[ScoreRow]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(cells_of(replace(row, vanished="true" if row.vanished else "")) for row in rows)


def _read_json_lines(path: Path) -> list[ScoreRow]:
    with open(path, encoding="utf-8") as file:
        return [row_from(json.loads(line)) for line in file]


def to_json_line(row: ScoreRow) -> str:
    """The row as one line of JSON."""
    return json.dumps(dict(zip(COLUMNS, cells_of(row), strict=True)), ensure_ascii=False) + "\n"


def _write_json_lines(path: Path, rows: Sequence[ScoreRow]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(map(to_json_line, rows))


def _read_parquet(path: Path) -> list[ScoreRow]:
    return [row_from(values) for batch in parquet.ParquetFile(path).iter_batches() for values in batch.to_pylist()]


def _write_parquet(path: Path, rows: Sequence[ScoreRow]) -> None:
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    parquet.write_table(pyarrow.table(columns, PARQUET_SCHEMA), path)


FORMATS = {
    ".csv": (_read_csv, _write_csv),
    ".jsonl": (_read_json_lines, _write_json_lines),
    ".parquet": (_read_parquet, _write_parquet),
}


def _check_suffix(name: str, path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{name} must end in {', '.join(FORMATS)}, got {path.name}")


def read_scores(path: Path) -> list[ScoreRow]:
    """The rows of a file of scores; the suffix names the format.

    Raises:
        ValueError: no such file, or one that is no file of scores.
    """
    path = Path(path)
    _check_suffix("a file of scores", path)
    read, _ = FORMATS[path.suffix.lower()]
    try:
        return read(path)
    except (OSError, ValueError, TypeError, csv.Error, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path} is not a file of scores: {reason}") from error


def write_scores(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Write the rows, sorted by path; whenever the process ends, the file is there whole, as before, or not at all."""
    path = Path(path)
    _, write = FORMATS[path.suffix.lower()]
    unfinished = path.with_name(f".{path.name}.unfinished")
    write(unfinished, sorted(rows, key=lambda row: (row.path, row.scorer)))
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


def check_output(path: Path) -> None:
    """Raise ValueError unless scores can be written there: a known suffix, and a free name or a file of scores."""
    _check_suffix("--output", path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"--output: there is no folder {path.parent}")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--output: {path.parent} cannot be written to")
    if os.path.lexists(path):
        try:
            read_scores(path)
        except ValueError as error:
            raise ValueError(f"--output: {error}; nothing is overwritten") from error


def of_one_scorer(rows: Sequence[ScoreRow], scorer: str | None = None) -> list[ScoreRow]:
    """The rows of that scorer; it need not be named where there is only one.

    Raises:
        ValueError: several scorers and none named, or one that has no rows.
    """
    scorers = sorted({row.scorer for row in rows})
    if scorer is None and len(scorers) > 1:
        raise ValueError(f"the file holds the scores of {len(scorers)} scorers, choose one of: {'; '.join(scorers)}")
    if scorer is not None and scorer not in scorers:
        raise ValueError(f"there are no scores of {scorer!r}, accepted is one of: {'; '.join(scorers)}")
    return [row for row in rows if scorer in (None, row.scorer)]
