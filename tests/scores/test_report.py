"""Output of a run, on a terminal and elsewhere."""

import io
import os
import sys

import pytest

from hybridiqa.scores.report import MAX_BINS, count_in_bins, print_report
from hybridiqa.scores.score_file import ScoreRow


def make_rows(count: int, **fields) -> list[ScoreRow]:
    """Return rows named 000.png, 001.png, ... with scores that rise from 2 by a hundredth."""
    return [ScoreRow(f"{index:03}.png", score=2 + index / 100, score_std=0.5, **fields) for index in range(count)]


def make_failures(count: int) -> list[ScoreRow]:
    return [ScoreRow(f"broken {index}.png", error="not an image that Pillow knows") for index in range(count)]


@pytest.fixture
def report(monkeypatch, capsys):
    """Return a function that gives the lines printed, with a terminal of so many columns where there is one."""

    def lines_of(rows: list[ScoreRow], columns: int | None = None) -> list[str]:
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
        print_report(rows, is_terminal=columns is not None)
        return capsys.readouterr().out.splitlines()

    return lines_of


def test_a_pipe_gets_every_row_best_first_and_failures_last(report):
    lines = report([*make_failures(15), *make_rows(50)])
    assert lines[0] == "  score     std  path"
    assert lines[1] == "  2.490   0.500  049.png" and lines[50] == "  2.000   0.500  000.png"
    assert lines[51] == "      -       -  broken 0.png: not an image that Pillow knows"
    assert len(lines) == 1 + 50 + 15


def test_percentiles_have_a_column_where_there_are_any(report):
    rows = [*make_rows(1, percentile=87.4), ScoreRow("z.png", score=1.0), *make_failures(1)]
    lines = report(rows)
    assert lines[0] == "  score     std     %  path"
    assert lines[1] == "  2.000   0.500    87  000.png"
    assert lines[2] == "  1.000       -     -  z.png"
    assert lines[3] == "      -       -     -  broken 0.png: not an image that Pillow knows"


def test_equal_scores_are_in_the_order_of_their_paths(report):
    lines = report([ScoreRow(name, score=3.0) for name in ("b", "a", "c")])
    assert [line[-1] for line in lines[1:]] == ["a", "b", "c"]


def test_vanished_files_are_not_among_the_scored_nor_the_failed(report):
    rows = [*make_rows(3), ScoreRow("gone.png", score=9.0, vanished=True), ScoreRow("g", error="e", vanished=True)]
    assert len(report(rows)) == 4
    assert not any("gone" in line for line in report(rows, columns=80))


def test_a_terminal_gets_up_to_20_images_whole(report):
    lines = report(make_rows(20), columns=80)
    assert [line.split()[-1] for line in lines[1:21]] == [f"{index:03}.png" for index in range(19, -1, -1)]
    assert not any("more" in line for line in lines)


def test_a_terminal_gets_the_10_best_and_the_10_worst_of_many(report):
    lines = report([*make_rows(500), *make_failures(12)], columns=80)
    assert lines[1].endswith("499.png") and lines[10].endswith("490.png")
    assert lines[11].strip() == "... 480 more ..."
    assert lines[12].endswith("009.png") and lines[21].endswith("000.png")
    assert lines[31].endswith("broken 9.png: not an image that Pillow knows")
    assert lines[32].strip() == "... 2 more without a score ..."


def test_the_histogram_counts_every_score_and_fits_the_terminal(report):
    lines = report(make_rows(700), columns=60)
    histogram = lines[lines.index("") + 1 :]
    assert histogram[0].startswith("   2.0 -  2.5") and histogram[0].endswith(" 50")
    assert sum(int(line.split()[-1]) for line in histogram) == 700
    assert len(histogram) == 14 and max(map(len, histogram)) < 60
    assert len({len(line) for line in histogram}) == 1  # each bin holds as many


def test_a_terminal_without_block_letters_gets_a_histogram_of_ascii(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", output)
    print_report(make_rows(30), is_terminal=True)
    output.flush()
    printed = output.buffer.getvalue()
    assert b"####" in printed and b"\\u" not in printed


def test_a_name_is_one_line_and_cannot_steer_the_terminal(report):
    rows = [ScoreRow("two\nlines \x1b[31m\u202egnp.png", score=3.0), ScoreRow("a\nb", error="one\ntwo")]
    lines = report(rows)
    assert lines[1].endswith(r"two\nlines \x1b[31m\u202egnp.png")
    assert lines[2].endswith(r"a\nb: one\ntwo")
    assert len(lines) == 3


@pytest.mark.parametrize("name", ["folder/" * 30 + "end.png", "部屋/" * 40 + "終わり.png"])
def test_a_long_path_keeps_its_end_and_fits_the_terminal(report, name):
    line = report([ScoreRow(name, score=3.0)], columns=60)[1]
    num_columns = sum(2 if ord(char) > 0x2FFF else 1 for char in line)
    assert 58 <= num_columns <= 60 and line.endswith(name[-7:]) and "  ..." in line
    assert report([ScoreRow(name, score=3.0)])[1].endswith(name)  # a pipe gets it whole


def test_a_long_path_leaves_room_for_the_reason(report):
    [line] = report([ScoreRow("folder/" * 30 + "end.png", error="not an image that Pillow knows")], columns=80)
    assert len(line) == 80 and line.endswith("end.png: not an image that Pillow knows")


def test_nothing_at_all_prints_nothing(report):
    assert report([]) == [] and report([], columns=80) == []


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0], [(5.0, 5.1, 1)]),
        ([4.01, 4.05, 4.35], [(4.0, 4.1, 2), (4.1, 4.2, 0), (4.2, 4.3, 0), (4.3, 4.4, 1)]),
        ([1.0, 8.9], [(1.0, 1.5, 1), *((1 + index / 2, 1.5 + index / 2, 0) for index in range(1, 15)), (8.5, 9.0, 1)]),
        ([-0.5, 0.5], [(-0.5, -0.4, 1), *[(None, None, 0)] * 9, (0.5, 0.6, 1)]),
    ],
)
def test_bins_are_round_and_as_narrow_as_their_number_allows(scores, expected):
    bins = count_in_bins(scores)
    assert [count for _, _, count in bins] == [count for _, _, count in expected]
    assert bins[0] == pytest.approx(expected[0]) and bins[-1] == pytest.approx(expected[-1])


def test_bins_hold_scores_of_any_range():
    for scores in ([0.0, 100.0], [-1e6, 3e7], [1e-9, 2e-9], [12.5, 12.5]):
        bins = count_in_bins(scores)
        assert sum(count for _, _, count in bins) == 2 and len(bins) <= MAX_BINS
        assert bins[0][0] <= min(scores) and max(scores) <= bins[-1][1]
    with pytest.raises(ValueError, match="at least one score is needed, got none"):
        count_in_bins([])
