"""Files with scores, `organize.py` run on them, and the scores that it writes into images."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image, UnidentifiedImageError

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


def read_embedded_score(data: bytes) -> float | None:
    """Return the score in an image file, read as other programs read it; None where there is none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            text, packet = image.info.get("hybridIQA"), image.info.get("xmp")
    except UnidentifiedImageError:
        return None
    if text:
        return float(dict(pair.split("=", 1) for pair in text.split(", "))["score"])
    name = "{https://huggingface.co/hybridIQA/ns/1.0/}score"
    elements = ElementTree.fromstring(packet).iter() if packet else ()
    scores = [element.get(name) or element.text for element in elements if name in (element.tag, *element.keys())]
    return float(scores[0]) if scores else None
