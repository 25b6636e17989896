"""Tables of scores in every format that is read, and what is said of those that are not."""

import pytest
from datasets import Dataset

from hybridiqa.utils.tables import read_table

ROWS = [{"file": "a.png", "score": 2.5}, {"file": "b.png", "score": 7.0}]


def test_csv_json_lines_and_parquet_give_the_same_rows(tmp_path):
    table = Dataset.from_list(ROWS)
    table.to_csv(tmp_path / "a.csv")
    table.to_json(tmp_path / "a.jsonl")
    table.to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.jsonl") == read_table(tmp_path / "a.parquet") == ROWS
    assert [row | {"score": float(row["score"])} for row in read_table(tmp_path / "a.csv")] == ROWS


def test_a_spreadsheet_is_read_from_the_row_that_names_the_columns(tmp_path):
    book = pytest.importorskip("openpyxl").Workbook()
    for row in (["a title"], [], [None, "file ", "score"], [None, "a.png", 2.5], ["only a note"], [None, "b.png", 7.0]):
        book.active.append(row)
    book.create_sheet("empty")
    book.save(tmp_path / "a.xlsx")
    rows = read_table(tmp_path / "a.xlsx", None, ("file", "score"))
    assert [{name: row[name] for name in ("file", "score")} for row in rows] == ROWS
    with pytest.raises(ValueError, match="no sheet 'none', it has Sheet, empty"):
        read_table(tmp_path / "a.xlsx", "none")
    with pytest.raises(ValueError, match="lacks the columns file; it has no row"):
        read_table(tmp_path / "a.xlsx", "empty", ("file",))


def test_a_spreadsheet_of_millions_of_cells_is_refused_or_read_for_what_it_holds(tmp_path, monkeypatch):
    book = pytest.importorskip("openpyxl").Workbook()
    for row in (["file", "score", "note"], ["a.png", 2.5], ["b.png", 7.0, "good"]):
        book.active.append(row)
    book.active["XFD1048576"] = 1  # its rows would have 17 thousand million cells
    book.save(tmp_path / "wide.xlsx")
    rows = read_table(tmp_path / "wide.xlsx", None, ("file", "score"))
    assert [{name: row[name] for name in ("file", "score")} for row in rows] == ROWS
    monkeypatch.setattr("hybridiqa.utils.tables.MAX_CELLS", 1000)
    with pytest.raises(
        ValueError, match=r"wide\.xlsx cannot be read as a \.xlsx table: at most 1000 cells are accepted"
    ):
        read_table(tmp_path / "wide.xlsx", None, ("file", "score"))
    monkeypatch.setattr("hybridiqa.utils.tables.MAX_SHEET_BYTES", 1000)
    with pytest.raises(ValueError, match="a spreadsheet may unpack to 1000 bytes, got"):
        read_table(tmp_path / "wide.xlsx", None, ("file", "score"))


def test_a_later_row_that_lacks_a_column_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"file": "a.png", "score": 1}\n{"file": "b.png"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, row 2 lacks the columns score"):
        read_table(tmp_path / "a.jsonl", None, ("file", "score"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"file,score", "accepted tables are .csv, .jsonl, .parquet, .xlsx"),
        ("a.csv", b"\xff\xfe\0", "cannot be read as a .csv table"),
        ("a.csv", b"file,mos\na.png,1\n", "lacks the columns score; it has file, mos"),
        ("a.jsonl", b"{", "cannot be read as a .jsonl table"),
        ("a.jsonl", b"[1]\n", "each line must be an object"),
        ("a.parquet", b"no parquet", "cannot be read as a .parquet table"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        read_table(tmp_path / name, None, ("file", "score"))
