"""File of scores, the rows of a run that goes on, and the merge of both."""

import csv
import json
import os
from contextlib import closing
from dataclasses import replace

import pytest
from pyarrow import parquet

from hybridiqa.models import hub_code
from hybridiqa.models.percentiles import percentiles_among
from hybridiqa.scores import ledger
from hybridiqa.scores.ledger import (
    ScoreLedger,
    ScoreProgress,
    make_search_test,
    merge_rows,
    progress_dir_of,
    read_progress,
)
from hybridiqa.scores.score_file import (
    COLUMNS,
    ScoreRow,
    cells_of,
    check_output,
    of_one_scorer,
    read_scores,
    with_percentiles,
    write_scores,
)
from hybridiqa.utils.files import as_text, content_hash, path_of

A = ScoreRow("a.png", 6.5, 0.25, 80.0, 100, 50, None, False, "aa", "model grid-25 float32 torch")
ODD = ScoreRow('odd, "two\nlines\r.png', 0.1, 1 / 3, None, 1, 2, None, True, "bb", A.scorer)
BROKEN = ScoreRow("broken.png", error="truncated", content_hash="cc", scorer=A.scorer)


def searched(path: str) -> bool:
    return True


def never_searched(path: str) -> bool:
    return False


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_is_written_is_read_sorted_by_path(tmp_path, suffix):
    path = tmp_path / f"scores.{suffix}"
    write_scores(path, [ODD, BROKEN, A])
    assert read_scores(path) == [A, BROKEN, ODD]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    check_output(path)


def test_the_columns_are_the_same_in_every_format(tmp_path):
    for suffix in ("csv", "jsonl", "parquet"):
        write_scores(tmp_path / f"scores.{suffix}", [A])
    with open(tmp_path / "scores.csv", newline="") as file:
        assert next(csv.reader(file)) == list(COLUMNS)
    assert list(json.loads((tmp_path / "scores.jsonl").read_text())) == list(COLUMNS)
    assert parquet.read_schema(tmp_path / "scores.parquet").names == list(COLUMNS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "mine"),
        ("a.csv", ",".join((*COLUMNS, "notes")) + "\n"),
        ("a.csv", ",".join(COLUMNS) + "\na.png,high,,,,,,,,\n"),
        ("a.csv", ",".join(COLUMNS) + "\na.png,nan,,,,,,,,\n"),
        ("a.csv", ",".join(COLUMNS) + "\na.png,1\n"),
        ("a.jsonl", '{"path": "a.png"}\n'),
        ("a.jsonl", "[1]\n"),
        ("a.jsonl", json.dumps(dict.fromkeys(COLUMNS)) + "\n"),
        ("a.parquet", "PAR1"),
        ("nothing.csv", None),
    ],
)
def test_what_is_no_file_of_scores_is_said(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} is not a file of scores: .+"):
        read_scores(tmp_path / name)


LINE = json.dumps(dict(zip(COLUMNS, cells_of(A), strict=True)))


@pytest.mark.parametrize(
    "line",
    [
        *("[1]", "7", "null", '"path"', "[" * 50_000, "1e999", "1" * 5000, LINE[:-9]),
        *(
            LINE.replace("6.5", number)
            for number in ("1e999", "1" + "0" * 400, "1" * 5000, "true", "[6]", '"6"', "NaN")
        ),
        *(LINE.replace("100", number) for number in ("1e3", "-1", "2147483648", "true", '"wide"', "[]")),
        LINE.replace("a.png", "\\ud800"),
        LINE.replace('"aa"', "5"),
        LINE.replace("false", "null"),
    ],
)
def test_a_line_of_any_json_is_an_error_that_names_the_line(tmp_path, line):
    path = tmp_path / "scores.jsonl"
    write_scores(path, [A, BROKEN])
    path.write_text(path.read_text() + line + "\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"scores\.jsonl is not a file of scores: line 3: .{1,400}; nothing is"):
        check_output(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "cells", ["a.png,1e400,,,,,,,,", "a.png,5,,,1e9,,,,,", "a.png,5,,,-1,,,,,", "a.png,5", "\n,,,"]
)
def test_a_damaged_csv_names_the_line(tmp_path, cells):
    path = tmp_path / "scores.csv"
    write_scores(path, [A, BROKEN])
    with open(path, "a") as file:
        file.write(cells + "\n")
    with pytest.raises(ValueError, match=r"scores\.csv is not a file of scores: line [45]: .+; nothing is overwritten"):
        check_output(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_linked_file_of_scores_is_updated_where_it_lies(tmp_path, suffix):
    real, link = tmp_path / f"real.{suffix}", tmp_path / f"link.{suffix}"
    link.symlink_to(real)
    check_output(link)  # leads nowhere yet
    for rows in ([A], [A, BROKEN]):
        write_scores(link, rows)
        real.chmod(0o600)
    write_scores(link, [ODD])
    assert link.is_symlink() and read_scores(real) == [ODD] and real.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_a_file_of_scores_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name, kind in {"pipe.csv": "a pipe", "folder.csv": "a folder"}.items():
        with pytest.raises(ValueError, match=f"--output: .*{name} is {kind}, accepted is a file"):
            check_output(tmp_path / name)


def test_one_scorer_is_chosen_or_asked_for():
    other = replace(A, scorer="other")
    assert of_one_scorer([A, BROKEN]) == [A, BROKEN]
    assert of_one_scorer([A, other], "other") == [other]
    assert of_one_scorer([]) == []
    with pytest.raises(ValueError, match="2 scorers, choose one of: model grid-25 float32 torch; other"):
        of_one_scorer([A, other])
    with pytest.raises(ValueError, match="no scores of 'third', accepted is one of: model grid"):
        of_one_scorer([A], "third")


def test_a_name_that_is_not_utf8_is_found_again(tmp_path):
    path = tmp_path / b"caf\xe9.png".decode("utf-8", "surrogateescape")
    path.write_bytes(b"a")
    assert as_text(path).endswith("caf\\xe9.png") and path_of(as_text(path)) == path
    literal = tmp_path / "caf\\xe9.png"  # a file of this very name comes first
    literal.write_bytes(b"b")
    assert path_of(as_text(path)) == literal
    assert path_of("no/such.png").name == "such.png"


def test_the_hash_is_of_the_content_alone(tmp_path):
    for name, content in {"a": b"same", "b": b"same", "c": b"other"}.items():
        (tmp_path / name).write_bytes(content)
    hashes = [content_hash(tmp_path / name) for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 32


@pytest.mark.parametrize("torn", [b'{"path": "b.p', b'{"path": "b.png"}\n', b"\0\0\0\0\n", b"\xff\xfe\n"])
def test_what_a_kill_left_half_written_is_cut_off(tmp_path, torn):
    output = tmp_path / "scores.csv"
    with closing(ScoreProgress(output)) as progress:
        progress.write([A])
    path = progress_dir_of(output) / "rows-00000.jsonl"
    with open(path, "ab") as file:
        file.write(torn)
    assert read_progress(output) == [A]
    with closing(ScoreProgress(output)) as progress:
        progress.write([ODD])
    assert read_progress(output) == [A, ODD]


def test_two_runs_cannot_write_to_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "LOCK_WAIT", 0)
    with closing(ScoreProgress(tmp_path / "scores.csv")):
        with pytest.raises(ValueError, match=r"another run is writing scores to .*scores\.csv"):
            ScoreProgress(tmp_path / "scores.csv")
        ScoreProgress(tmp_path / "scores.csv", process_index=1).close()
    ScoreProgress(tmp_path / "scores.csv").close()


def test_the_ledger_writes_a_row_once_and_leaves_one_file(tmp_path):
    output = tmp_path / "scores.csv"
    row = replace(A, percentile=None)
    with closing(ScoreLedger(output, A.scorer)) as ledger:
        assert ledger.known() == {}
        ledger.add([row, BROKEN])
        assert read_progress(output) == [row, BROKEN]
        assert ledger.merge(never_searched, [0.0, 10.0], False) == [replace(A, percentile=65.0), BROKEN]
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
    with closing(ScoreLedger(output, A.scorer)) as ledger:
        assert list(ledger.known()) == ["aa"]
        ledger.add([row, replace(BROKEN, error="worse")])
        assert read_progress(output) == [replace(BROKEN, error="worse")]
        ledger.merge(never_searched, None, False)
    assert read_scores(output) == [row, replace(BROKEN, error="worse")]


def test_a_ledger_knows_its_own_scorer_alone(tmp_path):
    write_scores(tmp_path / "scores.csv", [A])
    with closing(ScoreLedger(tmp_path / "scores.csv", "other")) as ledger:
        assert ledger.known() == {}
        ledger.add([replace(A, scorer="other", score=1.0)])
        ledger.merge(never_searched, None, True)
    rows = read_scores(tmp_path / "scores.csv")
    assert [(row.scorer, row.score, row.percentile) for row in rows] == [(A.scorer, 6.5, 80.0), ("other", 1.0, 50.0)]


def test_a_vanished_file_is_marked_only_where_the_run_searched(tmp_path):
    there = replace(A, path=str(tmp_path / "a.png"))
    gone = replace(A, path=str(tmp_path / "gone.png"), content_hash="dd")
    elsewhere = replace(A, path="/elsewhere/gone.png", content_hash="ee")
    (tmp_path / "a.png").touch()
    merged = merge_rows([there, gone, elsewhere], [], make_search_test([str(tmp_path)]))
    assert merged == [there, replace(gone, vanished=True), elsewhere]
    back = replace(gone, vanished=False)
    (tmp_path / "gone.png").touch()
    assert merge_rows(merged, [back], make_search_test([str(tmp_path)])) == [there, back, elsewhere]


def test_a_moved_file_keeps_one_row_and_a_deleted_copy_its_own(tmp_path):
    def row(name: str) -> ScoreRow:
        return replace(A, path=str(tmp_path / name))

    for name in ("kept.png", "new.png"):
        (tmp_path / name).touch()
    stored = [row("kept.png"), row("old.png")]
    assert merge_rows(stored, [row("new.png")], searched) == [row("kept.png"), row("new.png")]
    assert merge_rows(stored, [], searched) == [row("kept.png"), replace(row("old.png"), vanished=True)]
    two_gone = [row("older.png"), row("old.png")]
    merged = merge_rows(two_gone, [row("new.png")], searched)
    assert [(row.vanished, row.path) for row in merged].count((False, str(tmp_path / "new.png"))) == 1
    assert len(merged) == 2


def test_searched_are_the_inputs_and_what_lies_below_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    is_searched = make_search_test(["pictures", "one.png"])
    assert [is_searched(path) for path in ("pictures/a.png", str(tmp_path / "pictures/b/c.png"), "one.png")] == [
        True
    ] * 3
    assert not any(is_searched(path) for path in ("picturesque/a.png", "two.png", "pictures/../a.png"))


def test_percentiles_by_hand():
    assert hub_code.percentiles_in([2.0, 4.0, 8.0], [1.0, 2.0, 3.0, 6.0, 9.0]) == [0.0, 0.0, 25.0, 75.0, 100.0]
    assert percentiles_among([3.0, 1.0, 2.0, 2.0]) == [87.5, 12.5, 50.0, 50.0]
    assert percentiles_among([5.0]) == [50.0]


def test_percentiles_are_of_the_scorers_scored_files_that_are_there():
    rows = [replace(A, path=name, score=score) for name, score in (("a", 1.0), ("b", 3.0))]
    others = [replace(BROKEN, percentile=None), replace(ODD, score=9.0), replace(A, scorer="other", score=9.0)]
    among = with_percentiles(rows + others, A.scorer, [0.0, 4.0], among_library=True)
    assert [row.percentile for row in among] == [25.0, 75.0, None, None, 80.0]
    against = with_percentiles(rows + others, A.scorer, [0.0, 4.0], among_library=False)
    assert [row.percentile for row in against] == [25.0, 75.0, None, None, 80.0]
    assert [row.percentile for row in with_percentiles(rows, A.scorer, None, False)] == [None, None]
