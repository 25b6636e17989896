"""Parts of the page that Gradio has no component for, as HTML: gallery, detail, comparison, labelling.

The HTML itself, `fragments.html`, stands beside this file; here what goes into it is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hybridiqa.data.folders import ABSOLUTE_SCORES, NUM_BINS_PER_LADDER, SCORE_OFFSETS
from hybridiqa.scores.report import count_in_bins
from hybridiqa.scores.score_file import best_first, on_one_line
from hybridiqa.utils.files import as_text
from hybridiqa.webapp.labelling import SKIPPED
from hybridiqa.webapp.session import Session, Snapshot
from hybridiqa.webapp.session_labels import UNDO, describe_choice
from hybridiqa.webapp.session_scores import compare_pairs, describe_score
from hybridiqa.webapp.uploads import UploadedImage

KEYS = {
    **{f"Artifact/{number}": str(number) for number in range(1, NUM_BINS_PER_LADDER + 1)},
    **{f"Perfect/{number}": key for number, key in enumerate("QWERT", 1)},  # the row of keys below 1-5
    **{str(number): str(number) for number in ABSOLUTE_SCORES},
    SKIPPED: "S",
    UNDO: "U",
}
LADDERS = {
    **{
        ladder: [(f"{ladder}/{number}", str(number)) for number in range(1, NUM_BINS_PER_LADDER + 1)]
        for ladder in SCORE_OFFSETS
    },
    "Others": [("8", "Picked"), ("9", "Real"), (SKIPPED, "Skip"), (UNDO, "Undo")],
}


def url_of(path: Path) -> str:
    """Return where the page finds a file of a session: relative to the page, as Gradio serves it."""
    return f"gradio_api/file={quote(as_text(path))}"


def _short(name: str) -> str:
    return on_one_line(PurePosixPath(name).name or name)


@cache
def _templates() -> Any:
    """Return the macros of `fragments.html`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"url": url_of, "short": _short, "line": on_one_line}
    titles = {choice: describe_choice(choice) for choice in KEYS}
    environment.globals |= {"keys": KEYS, "ladders": LADDERS, "titles": titles}
    return environment.get_template("fragments.html").module


def status_html(snapshot: Snapshot) -> str:
    """Tell how far the scoring is, and how many images are kept."""
    return _templates().status(snapshot)


def failures_html(snapshot: Snapshot) -> str:
    """Tell what has no score, and why; nothing where all have one."""
    return _templates().failures(snapshot.failed)


def gallery_html(session: Session, snapshot: Snapshot) -> str:
    """Show the images that the filter keeps, best first, as many of them as the session shows."""
    items = [
        (row, describe_score(row, snapshot.score_range), session.files.show_thumbnail(session.uploads.images[row.path]))
        for row in snapshot.kept[: session.num_shown]
    ]
    return _templates().gallery(items, len(snapshot.kept) - len(items), bool(snapshot.scored))


def detail_html(session: Session, name: str) -> str:
    """Show one image in a dialog: as it is, under its patches' scores, their histogram, the worst and the best patch.

    Raises:
        ValueError: an image that has no score.
    """
    row, patch_scores = session.scores.find_scored(name).row, session.scores.find_patch_scores(name)
    snapshot = session.snapshot()
    names = [other.path for other in snapshot.kept]
    around = [None, *names, None]
    place = around.index(name) if name in names else 0
    return _templates().detail(
        row=row,
        word=describe_score(row, snapshot.score_range),
        image_path=session.files.show_image(session.uploads.images[name]),
        files=session.show_detail(name),
        patch_scores=patch_scores,
        bins=count_in_bins(patch_scores),
        better=around[place - 1] if place else None,
        worse=around[place + 1] if place else None,
        score_range=snapshot.score_range,
    )


def compare_html(session: Session, names: Sequence[str]) -> str:
    """Show images side by side, best first, and what is between each two.

    Raises:
        ValueError: an image that has no score.
    """
    rows, score_range = [session.scores.find_scored(name).row for name in names], session.scores.model.score_range
    items = [
        (row, describe_score(row, score_range), session.files.show_image(session.uploads.images[row.path]))
        for row in best_first(rows)
    ]
    return _templates().compare(items, compare_pairs(rows))


def _show_or_explain(session: Session, image: UploadedImage) -> tuple[Path | None, str | None]:
    """Return the file that shows an image, or why there is none."""
    try:
        return session.files.show_image(image), None
    except ValueError as error:
        return None, str(error)


def label_html(session: Session, order: str, message: str = "") -> str:
    """Show the image that is to be labelled next, large, and the bins; nothing here tells its score."""
    labels = session.labels
    try:
        waiting, counts = labels.list_next(order), labels.folder.count_choices()
    except ValueError as error:  # the record of labels cannot be read: its disk is gone, say
        waiting, counts, message = [], Counter(), str(error)
    num_labelled = sum(counts.values()) - counts[SKIPPED]
    path, reason = _show_or_explain(session, waiting[0]) if waiting else (None, None)
    return _templates().label(
        image_path=path,
        alternative=f"To be labelled: {_short(waiting[0].name)}" if waiting else "",
        reason=reason,
        image_id=waiting[0].id if waiting else None,
        following=_show_or_explain(session, waiting[1])[0] if len(waiting) > 1 else None,
        progress=f"{num_labelled} labelled · {counts[SKIPPED]} skipped · {len(waiting)} to go",
        message=message,
        counts={choice: counts[choice] for choice in KEYS if choice != UNDO},
        has_images=bool(session.uploads.images),
        place=None if labels.are_ours else as_text(labels.folder.folder.absolute()),
    )
