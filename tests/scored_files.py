"""Files with scores, and `organize.py` run on them."""

from __future__ import annotations

from pathlib import Path

from hybridiqa.commands import organize
from hybridiqa.scores.score_file import ScoreRow, write_scores
from hybridiqa.utils.files import as_text


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {folder.name}/{name}")


def make_scores(path: Path, scores: dict, **columns) -> str:
    """A file of scores; the keys are paths."""
    write_scores(path, [ScoreRow(as_text(name), score, **columns) for name, score in scores.items()])
    return str(path)


def sort(scores: str, into: Path, *options: str) -> int:
    return organize.main(["sort", scores, "--into", str(into), "--edges", "3", "5", "7", *options])


def undo(scores: str, *options: str) -> int:
    """Undo what was done last."""
    journals = sorted(Path(scores).parent.glob("*.journal"), key=lambda path: path.stat().st_mtime_ns)
    return organize.main(["undo", str(journals[-1]), *options])
