"""The file of scores: one row an image, written as soon as it is known."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow
from pyarrow import parquet


@dataclass(frozen=True)
class ScoreRow:
    """One image: `score` on the checkpoint's range and the spread of its patches, or else the `error`.

    `width` and `height` are in pixels, of the picture upright.
    """

    path: str
    score: float | None = None
    score_std: float | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None


COLUMNS = tuple(field.name for field in fields(ScoreRow))
PARQUET_SCHEMA = pyarrow.schema(
    [
        ("path", pyarrow.string()),
        ("score", pyarrow.float32()),
        ("score_std", pyarrow.float32()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("error", pyarrow.string()),
    ]
)


class _CsvWriter:
    def __init__(self, path: Path):
        self.file = open(path, "x", newline="", encoding="utf-8")  # noqa: SIM115  closed by close()
        self.writer = csv.DictWriter(self.file, COLUMNS)
        self.writer.writeheader()

    def write(self, rows: Iterable[ScoreRow]) -> None:
        self.writer.writerows(asdict(row) for row in rows)
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class _JsonLinesWriter:
    def __init__(self, path: Path):
        self.file = open(path, "x", encoding="utf-8")  # noqa: SIM115  closed by close()

    def write(self, rows: Iterable[ScoreRow]) -> None:
        self.file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class _ParquetWriter:
    def __init__(self, path: Path):
        self.file = open(path, "xb")  # noqa: SIM115  closed by close()
        self.writer = parquet.ParquetWriter(self.file, PARQUET_SCHEMA)

    def write(self, rows: Iterable[ScoreRow]) -> None:
        self.writer.write_table(pyarrow.Table.from_pylist([asdict(row) for row in rows], PARQUET_SCHEMA))

    def close(self) -> None:
        self.writer.close()
        self.file.close()


WRITERS = {".csv": _CsvWriter, ".jsonl": _JsonLinesWriter, ".parquet": _ParquetWriter}


def check_output(path: Path) -> None:
    """Raise ValueError unless a file of scores can be made there: a known suffix, a folder, a free name."""
    if path.suffix.lower() not in WRITERS:
        raise ValueError(f"--output must end in {', '.join(WRITERS)}, got {path.name}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--output: there is no folder {path.parent}")
    if os.path.lexists(path):
        raise ValueError(f"--output: {path} is there already; nothing is overwritten")
    if not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"--output: {path.parent} cannot be written to")


def open_scores(path: Path) -> _CsvWriter | _JsonLinesWriter | _ParquetWriter:
    """A new file of scores, whose `write(rows)` appends and whose `close()` ends it; the suffix names the format."""
    return WRITERS[path.suffix.lower()](path)
