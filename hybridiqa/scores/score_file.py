"""File of scores: one row an image and scorer, sorted by path, in CSV, JSON lines or Parquet.

The rows that a run adds while it goes on are kept by `hybridiqa/scores/ledger.py`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import IO

from hybridiqa.models import hub_code
from hybridiqa.utils.atomic import open_atomically, resolve_output
from hybridiqa.utils.files import error_reason


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """Score of one image by one scorer, or the reason why there is none.

    Args:
        path: as given, bytes that are not UTF-8 written as `\\xNN` (`hybridiqa.utils.files.path_of` reads it).
        score: on the checkpoint's range; none where there is an `error`.
        score_std: standard deviation of the patches' scores.
        percentile: 0-100, where the score stands in the checkpoint's own distribution, or in the library.
        width, height: in pixels, of the image upright.
        error: why there is no score.
        vanished: whether the file was no longer there when its folder was last scored.
        content_hash: of the file's bytes, see `hybridiqa.utils.files.content_hash`.
        scorer: the `scorer_id`, all that a score depends on besides the image: model, patches, number format, engine.
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
REALS, SIZES, TEXTS = ("score", "score_std", "percentile"), ("width", "height"), ("error", "content_hash")
NUMBERS = dict.fromkeys(REALS, float) | dict.fromkeys(SIZES, int)
MAX_SIZE = 2**31 - 1  # what the Parquet column of a width takes
MAX_SHOWN = 100  # characters of a damaged value that a message repeats


def _is_real(value: object) -> bool:
    """Return whether a value is a number that a float holds."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an int of hundreds of digits
        return False


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SIZE


def _is_text(value: object) -> bool:
    """Return whether a value is a text that UTF-8 can write."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half a character, which JSON can spell
        return False


CHECKS = dict.fromkeys(REALS, _is_real) | dict.fromkeys(SIZES, _is_size) | dict.fromkeys(TEXTS, _is_text)


def row_from(values: object) -> ScoreRow:
    """Return the row with these columns, given as any JSON value.

    Raises:
        ValueError: other columns than a row has, or values that are none of theirs.
    """
    if not isinstance(values, dict):
        raise ValueError(f"no row of scores: {repr(values)[:MAX_SHOWN]}")
    if set(values) != set(COLUMNS):
        got = ", ".join(map(str, values))
        raise ValueError(f"a row has the columns {', '.join(COLUMNS)}, got {got[: 2 * MAX_SHOWN]}")
    wrong = [name for name, is_right in CHECKS.items() if values[name] is not None and not is_right(values[name])]
    wrong += [name for name in ("path", "scorer") if not _is_text(values[name])]
    wrong += ["vanished"] if not isinstance(values["vanished"], bool) else []
    if wrong:
        raise ValueError(f"no row of scores, its {wrong[0]} is {repr(values[wrong[0]])[:MAX_SHOWN]}")
    reals = {name: float(values[name]) for name in REALS if values[name] is not None}  # JSON's 5 is an int
    return ScoreRow(**values | reals)


def row_from_line(line: bytes) -> ScoreRow:
    """Return the row that `to_json_line` wrote. Raises ValueError for anything else."""
    try:
        return row_from(json.loads(line.decode("utf-8")))
    except RecursionError as error:  # thousands of brackets in each other
        raise ValueError("no row of scores: too deeply nested") from error


def _from_csv(cells: dict[str, str]) -> ScoreRow:
    if None in cells or None in cells.values():
        raise ValueError(f"more or fewer than {len(COLUMNS)} cells: {repr(cells)[:MAX_SHOWN]}")
    values: dict[str, object] = {name: cell or None for name, cell in cells.items()}
    values |= {name: number(cells[name]) for name, number in NUMBERS.items() if cells.get(name)}
    return row_from(values | {"vanished": cells.get("vanished") == "true", "scorer": cells.get("scorer") or ""})


def _read_csv(path: Path) -> list[ScoreRow]:
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        try:
            return [_from_csv(cells) for cells in reader]
        except UnicodeDecodeError:  # found in what is read ahead, so that the line is not known
            raise
        except (ValueError, csv.Error) as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error


def _write_csv(file: IO[bytes], rows: Sequence[ScoreRow]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow("true" if cell is True else "" if cell is False else cell for cell in cells_of(row))
    text.detach()


def _read_json_lines(path: Path) -> list[ScoreRow]:
    rows = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(row_from_line(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return rows


def to_json_line(row: ScoreRow) -> str:
    """Return the row as one line of JSON."""
    return json.dumps(dict(zip(COLUMNS, cells_of(row), strict=True)), ensure_ascii=False) + "\n"


def _write_json_lines(file: IO[bytes], rows: Sequence[ScoreRow]) -> None:
    file.writelines(to_json_line(row).encode() for row in rows)


def _read_parquet(path: Path) -> list[ScoreRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        return [row_from(values) for batch in parquet.ParquetFile(path).iter_batches() for values in batch.to_pylist()]
    except pyarrow.ArrowException as error:
        raise ValueError(error_reason(error)) from error


def _write_parquet(file: IO[bytes], rows: Sequence[ScoreRow]) -> None:
    import pyarrow
    from pyarrow import parquet

    types = dict.fromkeys(COLUMNS, pyarrow.string()) | dict.fromkeys(REALS, pyarrow.float64())
    types |= dict.fromkeys(SIZES, pyarrow.int32()) | {"vanished": pyarrow.bool_()}
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    parquet.write_table(pyarrow.table(columns, pyarrow.schema(list(types.items()))), file)


FORMATS = {
    ".csv": (_read_csv, _write_csv),
    ".jsonl": (_read_json_lines, _write_json_lines),
    ".parquet": (_read_parquet, _write_parquet),
}


def _check_suffix(name: str, path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{name} must end in {', '.join(FORMATS)}, got {path.name}")


def read_scores(path: Path) -> list[ScoreRow]:
    """Return the rows of a file of scores; the suffix names the format.

    Raises:
        ValueError: no such file, or one that is no file of scores.
    """
    path = Path(path)
    _check_suffix("a file of scores", path)
    read, _ = FORMATS[path.suffix.lower()]
    try:
        return read(path)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is not a file of scores: {error_reason(error)}") from error


def write_scores(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Write the rows, sorted by path; whenever the process ends, the file is there whole, as before, or not at all."""
    path = Path(path)
    _, write = FORMATS[path.suffix.lower()]
    with open_atomically(path) as file:
        write(file, sorted(rows, key=lambda row: (row.path, row.scorer)))


def check_output(path: Path) -> None:
    """Raise ValueError unless scores can be written there: a known suffix, and a free name or a file of scores."""
    _check_suffix("--output", path)
    if resolve_output(path, "--output").exists():
        try:
            read_scores(path)
        except ValueError as error:
            raise ValueError(f"--output: {error}; nothing is overwritten") from error


def of_one_scorer(rows: Sequence[ScoreRow], scorer: str | None = None) -> list[ScoreRow]:
    """Return the rows of that scorer; it need not be named where there is only one.

    Raises:
        ValueError: several scorers and none named, or one that has no rows.
    """
    scorers = sorted({row.scorer for row in rows})
    if scorer is None and len(scorers) > 1:
        raise ValueError(f"the file holds the scores of {len(scorers)} scorers, choose one of: {'; '.join(scorers)}")
    if scorer is not None and scorer not in scorers:
        raise ValueError(f"there are no scores of {scorer!r}, accepted is one of: {'; '.join(scorers)}")
    return [row for row in rows if scorer in (None, row.scorer)]


def on_one_line(text: str) -> str:
    """Return the text with what would break a line, or steer a terminal, written as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def best_first(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return the rows that have a score and whose file is there, from the highest score to the lowest, ties by path."""
    present = [(-row.score, row.path, row) for row in rows if row.score is not None and not row.vanished]
    return [row for *_, row in sorted(present, key=lambda ranked: ranked[:2])]


def failures(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return the rows that tell why there is no score, of files that are there."""
    return [row for row in rows if row.error is not None and not row.vanished]


def with_percentiles(
    rows: Sequence[ScoreRow], scorer_id: str, quantiles: Sequence[float] | None, among_library: bool
) -> list[ScoreRow]:
    """Return the rows with the percentiles of this scorer's scores, in the order given.

    Args:
        quantiles: the checkpoint's own distribution; without one there are no percentiles.
        among_library: rank the scores among each other instead; vanished files do not count.
    """
    scores = {}  # by path
    for row in rows:
        if row.scorer == scorer_id and row.score is not None and not row.vanished:
            scores[row.path] = row.score
    ranks: list[float] = []
    if scores and among_library:
        ranks = _rank(list(scores.values()))
    elif scores and quantiles:
        ranks = hub_code.percentiles_in(quantiles, list(scores.values()))
    percentiles = dict(zip(scores, ranks, strict=False))  # no ranks where there is no distribution
    return [replace(row, percentile=percentiles.get(row.path)) if row.scorer == scorer_id else row for row in rows]


def _rank(scores: Sequence[float]) -> list[float]:
    from hybridiqa.models.percentiles import percentiles_among  # with a library that takes a second to load

    return percentiles_among(scores)
