"""Progress file with damaged, foreign and torn lines: good rows count, nothing is thrown away in silence."""

import json
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from hybridiqa.scores import ledger
from hybridiqa.scores.ledger import (
    MAX_ROW_BYTES,
    ScoreLedger,
    ScoreProgress,
    check_progress_dir,
    progress_dir_of,
    read_progress,
    remove_progress,
)
from hybridiqa.scores.score_file import ScoreRow, read_scores, to_json_line

ROWS = [ScoreRow(f"{name}.png", 5.0, 0.5, None, 9, 9, None, False, f"{name}{name}", "model") for name in "abcd"]
LINES = [to_json_line(row).encode() for row in ROWS]


def changed(**columns) -> bytes:
    return json.dumps(json.loads(LINES[0]) | columns).encode() + b"\n"


@pytest.fixture
def output(tmp_path) -> Path:
    progress_dir_of(tmp_path / "scores.csv").mkdir()
    return tmp_path / "scores.csv"


def rows_path(output: Path, process_index: int = 0) -> Path:
    return progress_dir_of(output) / f"rows-{process_index:05d}.jsonl"


def rejected_path(output: Path, process_index: int = 0) -> Path:
    return rows_path(output, process_index).with_suffix(".jsonl.rejected")


NO_ROWS = {
    "damaged": b"damaged\n",
    "another column": changed(sharpness=1),
    "a column less": b'{"path": "b.png"}\n',
    "a list": b"[1, 2]\n",
    "a number": b"7\n",
    "null": b"null\n",
    "not UTF-8": b"\xff\xfe\n",
    "zero bytes": bytes(4096) + b"\n",
    "two rows that ran together": LINES[0][:-1] + LINES[1],
    "a score of 401 digits": changed(score=10**400),
    "a score of 5000 digits": LINES[0].replace(b"5.0", b"9" * 5000),
    "no number": LINES[0].replace(b"5.0", b"NaN"),
    "true for a score": changed(score=True),
    "text for a width": changed(width="wide"),
    "a width that Parquet lacks": changed(width=2**31),
    "a list for an error": changed(error=["no"]),
    "half a character": changed(path="\ud800"),
    "brackets in brackets": b"[" * 50_000 + b"\n",
    "a path longer than a CSV cell": changed(path="a" * MAX_ROW_BYTES),
}


@pytest.mark.parametrize("line", NO_ROWS.values(), ids=NO_ROWS)
def test_a_line_that_is_no_row_costs_no_other_row_and_is_kept_aside(output, line, capfd, caplog):
    rows_path(output).write_bytes(LINES[0] + LINES[1] + line + LINES[2])
    with closing(ScoreLedger(output, "model")) as ledger:
        ledger.add([ROWS[3]])
        ledger.merge(lambda path: False, None, False)
    assert read_scores(output) == ROWS
    assert rejected_path(output).read_bytes().rstrip(b"\n") == line.rstrip(b"\n")
    assert [path.name for path in progress_dir_of(output).iterdir()] == [rejected_path(output).name]
    [said] = caplog.messages
    assert f": 1 of {rows_path(output)}, kept in {rejected_path(output)}" in said and "\n" not in said


@pytest.mark.parametrize("torn", [b'{"path": "b.p', b"\0\0\0\0", b"\xff\xfe", b"[1"])
def test_an_unterminated_last_line_is_torn_and_the_next_row_begins_anew(output, torn, caplog):
    rows_path(output).write_bytes(LINES[0] + torn)
    with closing(ScoreProgress(output)) as progress:
        progress.write([ROWS[1]])
    assert rows_path(output).read_bytes() == LINES[0] + LINES[1]
    remove_progress(output)
    assert not progress_dir_of(output).exists() and caplog.messages == []


def test_an_unterminated_row_that_is_whole_is_kept(output):
    rows_path(output).write_bytes(LINES[0] + LINES[1].rstrip(b"\n"))
    assert read_progress(output) == ROWS[:2]
    with closing(ScoreProgress(output)) as progress:
        progress.write([ROWS[2]])
    assert read_progress(output) == ROWS[:3]


def test_zero_bytes_that_a_power_failure_left_do_not_cost_the_row_behind_them(output):
    rows_path(output).write_bytes(LINES[0] + bytes(4096) + LINES[1] + LINES[2])
    assert read_progress(output) == ROWS[:3]


def test_a_line_of_many_megabytes_is_not_parsed_and_is_kept(output, caplog):
    long = b'"' + b"a" * (20 * MAX_ROW_BYTES + 7) + b'"\n'
    rows_path(output).write_bytes(LINES[0] + long + LINES[1])
    assert read_progress(output) == ROWS[:2]
    remove_progress(output)
    assert rejected_path(output).read_bytes() == long and ": 1 of " in caplog.messages[0]


def test_the_torn_tail_of_a_long_line_does_not_swallow_the_next_row(output):
    rows_path(output).write_bytes(LINES[0] + b"a" * (MAX_ROW_BYTES + 7))
    with closing(ScoreProgress(output)) as progress:
        progress.write([ROWS[1]])
    assert read_progress(output) == ROWS[:2]
    remove_progress(output)
    assert rejected_path(output).read_bytes() == b"a" * MAX_ROW_BYTES + b"\n"


def test_lines_of_all_processes_are_kept_by_file_and_added_to_those_of_earlier_runs(output, caplog):
    for _ in range(2):
        for index, line in enumerate((b"one\n", b"two\nthree\n")):
            rows_path(output, index).write_bytes(LINES[index] + line)
        assert read_progress(output) == ROWS[:2]
        remove_progress(output)
    rows_path(output).write_bytes(b"four\n")
    remove_progress(output)
    assert rejected_path(output).read_bytes() == b"one\nfour\n"  # what is there already, of a run that was killed, once
    assert rejected_path(output, 1).read_bytes() == b"two\nthree\n"
    assert [message.split(": ")[1].split(",")[0] for message in caplog.messages[:2]] == [
        f"1 of {rows_path(output)}",
        f"2 of {rows_path(output, 1)}",
    ]
    assert len(caplog.messages) == 5


def test_until_the_end_the_damaged_lines_stay_where_they_are(output, caplog):
    content = LINES[0] + b"damaged\n" + LINES[1]
    rows_path(output).write_bytes(content)
    for index in (0, 1):
        with closing(ScoreLedger(output, "model", index)) as ledger:
            assert list(ledger.rows.values()) == ROWS[:2]
    assert rows_path(output).read_bytes() == content and caplog.messages == []


def test_a_progress_folder_may_be_a_link_to_one_and_nothing_else(tmp_path):
    output = tmp_path / "scores.csv"
    (tmp_path / "disk").mkdir()
    progress_dir_of(output).symlink_to(tmp_path / "disk")
    with closing(ScoreProgress(output)) as progress:
        progress.write(ROWS[:1])
    assert (tmp_path / "disk" / "rows-00000.jsonl").read_bytes() == LINES[0] and read_progress(output) == ROWS[:1]
    progress_dir_of(output).unlink()
    for make in (Path.touch, lambda path: path.symlink_to(tmp_path / "nothing")):
        make(progress_dir_of(output))
        for use in (check_progress_dir, ScoreProgress):
            with pytest.raises(ValueError, match=r"scores\.csv\.progress is there already and no folder"):
                use(output)
        progress_dir_of(output).unlink()


@pytest.mark.parametrize("name", ["rows-00000.jsonl", "rows-00000.lock"])
def test_a_link_of_one_of_our_names_is_not_written_through(output, name):
    mine = output.with_name("mine.txt")
    mine.write_bytes(b"mine, without an end")
    (progress_dir_of(output) / name).symlink_to(mine)
    with pytest.raises(ValueError, match=f"{name} is a link"):
        ScoreProgress(output)
    assert mine.read_bytes() == b"mine, without an end"


def test_lines_are_not_kept_through_a_link(output):
    mine = output.with_name("mine.txt")
    mine.write_bytes(b"mine")
    rows_path(output).write_bytes(b"damaged\n")
    rejected_path(output).symlink_to(mine)
    with pytest.raises(ValueError, match=r"rows-00000\.jsonl\.rejected is a link"):
        remove_progress(output)
    assert mine.read_bytes() == b"mine" and rows_path(output).read_bytes() == b"damaged\n"


def test_a_run_waits_for_what_is_left_of_one_that_was_killed(output):
    left = FileLock(rows_path(output).with_suffix(".lock"), thread_local=False)
    left.acquire()
    timer = threading.Timer(0.1, left.release, kwargs={"force": True})
    timer.start()
    with closing(ScoreProgress(output)) as progress:
        assert not left.is_locked  # it had to go first
        progress.write(ROWS[:1])
    timer.join()
    assert read_progress(output) == ROWS[:1]


def test_a_run_is_known_by_the_file_whichever_link_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "LOCK_WAIT", 0)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "disk" / "scores.csv")
    with (
        closing(ScoreProgress(tmp_path / "link.csv")),
        pytest.raises(ValueError, match="another run is writing scores to"),
    ):
        ScoreProgress(tmp_path / "disk" / "scores.csv")
    assert progress_dir_of(tmp_path / "link.csv").parent == tmp_path / "disk"


def test_whole_numbers_are_scores_like_others(output):
    rows_path(output).write_bytes(changed(score=5))
    [row] = read_progress(output)
    assert row == replace(ROWS[0], score=5.0) and isinstance(row.score, float)
