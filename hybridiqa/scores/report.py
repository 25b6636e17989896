"""Output of a run besides the file of scores: the table and distribution it prints, and its list of errors."""

from __future__ import annotations

import csv
import io
import itertools
import logging
import math
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from hybridiqa.scores.score_file import ScoreRow, best_first, failures, on_one_line
from hybridiqa.utils.atomic import is_same_place, is_within, resolve_output, write_text_atomically

logger = logging.getLogger(__name__)
ERRORS_HEADER = ("path", "error")
MAX_HEADER = 100  # letters that are read of a file that may be anything
MAP = "--map"

HEADER = "  score     std  path"
HEADER_WITH_PERCENTILES = "  score     std     %  path"
NUM_SHOWN_WHOLE = 20  # images; a terminal shows the best and the worst half as many where there are more
NUM_FAILURES_SHOWN = 10
MAX_BINS = 16  # of the histogram: half a point each on the whole 1-9 scale
EIGHTHS = " ▏▎▍▌▋▊▉█"
SHORTEST_PATH = 24  # columns, however narrow the terminal is


def _num_columns(char: str) -> int:
    """Return the columns of a terminal that a letter takes: a Chinese or Japanese one two, a combining mark none."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _cut_left(text: str, width: int) -> str:
    """Return the end of the text that fits `width` columns, after dots where something is left out."""
    if sum(map(_num_columns, text)) <= width:
        return text
    start, room = len(text), width - len("...")
    while start > 0 and room >= _num_columns(text[start - 1]):
        start -= 1
        room -= _num_columns(text[start])
    return "..." + text[start:]


def _format_number(value: float | None, width: int, num_decimals: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{num_decimals}f}"


def _format_row(row: ScoreRow, has_percentiles: bool, width: int | None) -> str:
    """Return an image's line: its numbers, its path and, where it has no score, the reason.

    Args:
        width: of the terminal, in columns, into which the path is cut from the left.
    """
    cells = [_format_number(row.score, 7, 3), _format_number(row.score_std, 6, 3)]
    if has_percentiles:
        cells.append(_format_number(row.percentile, 4, 0))
    numbers = "  ".join([*cells, ""])
    path, reason = on_one_line(row.path), "" if row.error is None else on_one_line(f": {row.error}")
    if width is not None:
        path = _cut_left(path, max(SHORTEST_PATH, width - len(numbers) - sum(map(_num_columns, reason))))
    return f"{numbers}{path}{reason}"


def count_in_bins(scores: Sequence[float]) -> list[tuple[float, float, int]]:
    """Return (from, to, count) of at most 16 equal bins with round edges, the narrowest possible, of 0.1 or more.

    Raises:
        ValueError: no score.
    """
    if not scores:
        raise ValueError("at least one score is needed, got none")
    widths = (digit * 10.0**power for power in itertools.count(-1) for digit in (1, 2, 5))  # 0.1, 0.2, 0.5, 1, ...
    low, high = min(scores), max(scores)
    width = next(width for width in widths if math.floor(high / width) - math.floor(low / width) < MAX_BINS)
    first = math.floor(low / width)
    counts = [0] * (math.floor(high / width) - first + 1)
    for score in scores:
        counts[math.floor(score / width) - first] += 1
    return [((first + index) * width, (first + index + 1) * width, count) for index, count in enumerate(counts)]


def _draw_bar(share: float, length: int, is_unicode: bool) -> str:
    """Draw `share` (0-1) of `length` columns; what is more than nothing is seen."""
    if not is_unicode:
        return "#" * math.ceil(share * length)
    num_eighths = math.ceil(share * length * 8)
    return EIGHTHS[8] * (num_eighths // 8) + EIGHTHS[num_eighths % 8].strip()


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _print_histogram(scores: Sequence[float], width: int) -> None:
    """Print one line a bin of scores: its edges, a bar, the count; the longest bar fills the width (columns)."""
    bins = count_in_bins(scores)
    is_unicode, most = _can_print(EIGHTHS), max(count for _, _, count in bins)
    length = max(10, width - len(f"{'':17}{most}") - 1)
    for low, high, count in bins:
        bar = _draw_bar(count / most, length, is_unicode)
        print(f"{low:6.1f} -{high:5.1f}   {bar}{' ' if bar else ''}{count}")


def print_report(rows: Sequence[ScoreRow], is_terminal: bool) -> None:
    """Print the scored images, best first, then those without a score; rows of vanished files are left out.

    Where the reader is not a terminal all rows are printed in full. A terminal gets at most 20 images, or the 10 best
    and the 10 worst, 10 failures and a histogram, all cut to its width.
    """
    scored, failed = best_first(rows), failures(rows)
    has_percentiles = any(row.percentile is not None for row in scored)
    width = shutil.get_terminal_size().columns if is_terminal else None
    best, worst, named = scored, scored[:0], failed
    if is_terminal and len(scored) > NUM_SHOWN_WHOLE:
        best, worst = scored[: NUM_SHOWN_WHOLE // 2], scored[-(NUM_SHOWN_WHOLE // 2) :]
    if is_terminal:
        named = failed[:NUM_FAILURES_SHOWN]
    if scored:
        print(HEADER_WITH_PERCENTILES if has_percentiles else HEADER)
    for row in best:
        print(_format_row(row, has_percentiles, width))
    if worst:
        print(f"    ... {len(scored) - len(best) - len(worst)} more ...")
    for row in (*worst, *named):
        print(_format_row(row, has_percentiles, width))
    if len(named) < len(failed):
        print(f"    ... {len(failed) - len(named)} more without a score ...")
    if width is not None and len(scored) > 1:
        print()
        _print_histogram([row.score for row in scored if row.score is not None], width)


def check_errors_path(path: Path) -> None:
    """Raise ValueError unless a list of errors can be written there: a free name, or that of such a list."""
    if not resolve_output(path, "--errors").exists():
        return
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        header = file.readline(MAX_HEADER).rstrip("\r\n")
    if header != ",".join(ERRORS_HEADER):
        raise ValueError(f"--errors: {path} is there already and no list of errors; nothing is overwritten")


def write_errors(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write a CSV of what could not be scored, and why."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([ERRORS_HEADER, *((row.path, row.error) for row in rows if row.error is not None)])
    write_text_atomically(path, text.getvalue())


def check_apart(outputs: dict[str, Path], inputs: Sequence[str], progress_dir: Path | None) -> None:
    """Raise ValueError where one output would take the place of another one, of an input, or of unfinished rows.

    Args:
        outputs: files and folders by option.
        inputs: files and folders of the run.
        progress_dir: the folder of unfinished rows, if there is one.
    """
    for (name, path), (other_name, other) in combinations(outputs.items(), 2):
        if is_same_place(path, other):
            raise ValueError(f"{other_name} {other} and {name} {path} are one file: each needs a place of its own")
        for inner, inner_name, outer, outer_name in ((path, name, other, other_name), (other, other_name, path, name)):
            if outer_name != MAP and is_within(inner, outer):
                raise ValueError(f"{inner_name} {inner} lies below {outer_name} {outer}, which is to be a file")
    for name, path in outputs.items():
        if progress_dir and is_within(path, progress_dir):
            raise ValueError(f"{name} {path} lies in {progress_dir}, where --output keeps its rows")
        if name != MAP and path.exists() and (given := [file for file in inputs if is_same_place(path, Path(file))]):
            raise ValueError(f"{name} {path} is the input {given[0]}; nothing is overwritten")
