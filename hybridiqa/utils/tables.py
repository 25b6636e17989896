"""Tables of scores: CSV, JSON lines, Parquet and spreadsheets as rows of columns by name."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pyarrow import parquet

from hybridiqa.utils.libraries import import_optional

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet", ".xlsx")
# Of a spreadsheet, which is a zip: the largest database of the field has a quarter of a million rows of 15 cells.
MAX_CELLS = 5_000_000
MAX_SHEET_BYTES = 2**29


def _csv_rows(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, skipinitialspace=True))


def _json_rows(path: Path) -> list[dict]:
    with open(path, encoding="utf-8-sig") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("each line must be an object")
    return rows


def _sheet_rows(path: Path, sheet: str | None, columns: Sequence[str]) -> list[dict]:
    """The rows below the first one that names all these columns (some workbooks begin with notes), of a spreadsheet."""
    openpyxl = import_optional("openpyxl")
    with zipfile.ZipFile(path) as archive:
        num_bytes = sum(entry.file_size for entry in archive.infolist())
    if num_bytes > MAX_SHEET_BYTES:
        raise ValueError(f"a spreadsheet may unpack to {MAX_SHEET_BYTES} bytes, got {num_bytes}")
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    if sheet is not None and sheet not in book.sheetnames:
        raise ValueError(f"no sheet {sheet!r}, it has {', '.join(book.sheetnames)}")
    names, found, num_cells = None, [], 0
    cells_of = book[sheet] if sheet else book.worksheets[0]
    cells_of.reset_dimensions()  # what the file says of them may be anything, and would be filled with empty cells
    for row in cells_of.iter_rows(values_only=True):
        num_cells += len(row) + 1  # an empty row takes time, too
        if num_cells > MAX_CELLS:
            raise ValueError(f"at most {MAX_CELLS} cells are accepted")
        if names is None:
            cells = [str(cell).strip() if cell is not None else "" for cell in row]
            names = cells if set(columns) <= set(cells) else None
        elif any(cell is not None for cell, name in zip(row, names, strict=False) if name in columns):
            found.append(dict(zip(names, (*row, *[None] * len(names)), strict=False)))
    return found


def read_table(path: Path, sheet: str | None = None, columns: Sequence[str] = ()) -> list[dict]:
    """The rows of a table, by the names of its columns; the cells are as the format has them (text in a CSV).

    Args:
        sheet: of a spreadsheet, by default its first.
        columns: that there must be.

    Raises:
        ValueError: a suffix that is none of `TABLE_SUFFIXES`, a file that is no such table, or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"{path}: accepted tables are {', '.join(TABLE_SUFFIXES)}")
    try:
        rows = _sheet_rows(path, sheet, columns) if suffix == ".xlsx" else READERS[suffix](path)
    except Exception as error:  # each format's reader has classes of its own
        raise ValueError(f"{path} cannot be read as a {suffix} table: {error}") from error
    if not rows or (lacking := [name for name in columns if name not in rows[0]]):
        has = ", ".join(map(str, rows[0])) if rows else "no row below such names"
        raise ValueError(f"{path} lacks the columns {', '.join(lacking if rows else columns)}; it has {has}")
    for number, row in enumerate(rows, 1):
        if lacking := [name for name in columns if name not in row]:
            raise ValueError(f"{path}, row {number} lacks the columns {', '.join(lacking)}")
    return rows


READERS = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": lambda path: parquet.read_table(path).to_pylist()}
