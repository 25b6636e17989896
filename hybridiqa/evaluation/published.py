"""Published figures, which stand beside measured ones in a table: `benchmark.py ranking --published`.

A table of them has a row a dataset and model: `dataset` (a name as in `--dataset NAME=DATASET`), `model`, `srcc` and
`plcc` (-1 to 1; one of them may be empty) and `source`, which is where they were published.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hybridiqa.utils.tables import read_table

FIGURES = ("srcc", "plcc")
COLUMNS = ("dataset", "model", *FIGURES, "source")


def _read_text(row: dict, column: str) -> str:
    return "" if row[column] is None else str(row[column]).strip()


def _read_figure(row: dict, column: str) -> float | None:
    text = _read_text(row, column)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{column} is no number: {text!r}") from error
    if not -1 <= value <= 1:
        raise ValueError(f"{column} must be -1 to 1, got {text}")
    return value


def _read_row(row: dict) -> dict:
    texts = {column: _read_text(row, column) for column in ("dataset", "model", "source")}
    if lacking := [column for column, text in texts.items() if not text]:
        raise ValueError(f"it has no {' and no '.join(lacking)}")
    figures = {column: _read_figure(row, column) for column in FIGURES}
    if all(value is None for value in figures.values()):
        raise ValueError("it has neither srcc nor plcc")
    return {**texts, **figures}


def read_published(path: Path) -> list[dict]:
    """Return the rows of a table of published figures, None where one is not known.

    Raises:
        ValueError: no such table, or a row that lacks something, has no number between -1 and 1, or is there twice.
    """
    rows: list[dict] = []
    for number, row in enumerate(read_table(path, None, COLUMNS), 1):
        try:
            rows.append(_read_row(row))
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from error
        if rows[-1] in rows[:-1]:
            raise ValueError(f"{path}, row {number} is there twice")
    return rows


def choose_published(path: Path | None, datasets: Iterable[str]) -> dict[str, list[dict]]:
    """Return the published figures of each dataset, in the table's order; none without a table.

    Raises:
        ValueError: as `read_published`, or a table that has no row of any of these datasets.
    """
    chosen: dict[str, list[dict]] = {name: [] for name in datasets}
    if path is None:
        return chosen
    rows = read_published(path)
    for row in rows:
        if row["dataset"] in chosen:
            chosen[row["dataset"]].append({name: row[name] for name in ("model", *FIGURES, "source")})
    if not any(chosen.values()):
        has = ", ".join(dict.fromkeys(row["dataset"] for row in rows))
        raise ValueError(f"{path} has figures of {has}, none of {', '.join(chosen)}: name it so, NAME=DATASET")
    return chosen
