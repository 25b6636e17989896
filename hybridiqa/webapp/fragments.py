"""The parts of the page that Gradio has no component for: gallery, detail, comparison, labelling, as HTML.

The HTML itself, `fragments.html`, stands beside this file; here what goes into it is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hybridiqa.data.folders import ABSOLUTE_SCORES, NUM_BINS_PER_LADDER, SCORE_OFFSETS
from hybridiqa.scores.report import count_in_bins
from hybridiqa.scores.score_file import ScoreRow, best_first, failures, on_one_line
from hybridiqa.utils.files import as_text
from hybridiqa.webapp.labelling import SKIPPED, Label, score_of_bin
from hybridiqa.webapp.session import Visit
from hybridiqa.webapp.uploads import Picture

WORDS = ("poor", "weak", "fair", "good", "excellent")  # fifths of the scale
UNDO = "undo"
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


@dataclass(frozen=True)
class Pair:
    """Two scored pictures.

    Args:
        difference: of their scores.
        spread: the larger of their two spreads.
    """

    better: ScoreRow
    worse: ScoreRow
    difference: float
    spread: float

    @property
    def exceeds_spread(self) -> bool:
        """Whether the difference is more than the patches of one picture differ among themselves."""
        return self.difference > self.spread


def pairs_of(rows: Sequence[ScoreRow]) -> list[Pair]:
    """Each two of the rows, which have scores."""
    return [
        Pair(better, worse, better.score - worse.score, max(better.score_std, worse.score_std))
        for better, worse in combinations(best_first(rows), 2)
    ]


def word_of(row: ScoreRow, score_range: Sequence[float]) -> str:
    """A plain word for a score: which fifth of the model's scale it lies in."""
    low, high = score_range
    fifth = int((row.score - low) / (high - low) * len(WORDS))
    return WORDS[min(max(fifth, 0), len(WORDS) - 1)]


def title_of(choice: str) -> str:
    """A choice in words."""
    if choice in (SKIPPED, UNDO):
        return choice.capitalize()
    kind = {"8": ", cherry-picked", "9": ", a real picture"}
    return choice + kind[choice] if choice in kind else f"{choice.replace('/', ' ')} (score {score_of_bin(choice):g})"


def url_of(path: Path) -> str:
    """Where the page finds a file of a visit: relative to the page, as Gradio serves it."""
    return f"gradio_api/file={quote(as_text(path))}"


def _short(name: str) -> str:
    return on_one_line(PurePosixPath(name).name or name)


@cache
def _templates():
    """The macros of `fragments.html`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"url": url_of, "short": _short, "line": on_one_line, "title_of": title_of}
    environment.globals |= {"keys": KEYS, "ladders": LADDERS}
    return environment.get_template("fragments.html").module


def status_html(visit: Visit) -> str:
    """How far the scoring is, and how many pictures are kept."""
    rows, num_left = visit.rows(), len(visit.unscored())
    return _templates().status(
        num_scored=len(best_first(rows)),
        num_failed=len(failures(rows)),
        num_left=num_left,
        num_kept=len(visit.kept()),
        num_pictures=len(visit.pictures),
        is_running=bool(num_left) and visit.scoring.locked(),
    )


def failures_html(visit: Visit) -> str:
    """What has no score, and why; nothing where all have one."""
    return _templates().failures(failures(visit.rows()))


def gallery_html(visit: Visit, num_shown: int) -> str:
    """The pictures that the filter keeps, best first, at most `num_shown` of them."""
    kept = visit.kept()
    items = [
        (row, word_of(row, visit.model.score_range), visit.thumbnail_path(visit.picture(row.path)))
        for row in kept[:num_shown]
    ]
    are_any_scored = bool(kept) or bool(best_first(visit.rows()))
    return _templates().gallery(items, len(kept) - len(items), are_any_scored)


def detail_html(visit: Visit, name: str) -> str:
    """One picture in a dialog: as it is, under its patches' scores, their histogram, the worst and the best patch.

    Raises:
        ValueError: a picture that has no score.
    """
    row, patch_scores = visit.row(name), visit.patch_scores(name)
    names = [other.path for other in visit.kept()]
    around = [None, *names, None]
    place = around.index(name) if name in names else 0
    return _templates().detail(
        row=row,
        word=word_of(row, visit.model.score_range),
        picture=visit.shown_path(visit.picture(name)),
        files=visit.detail(name),
        patch_scores=patch_scores,
        bins=count_in_bins(patch_scores),
        better=around[place - 1] if place else None,
        worse=around[place + 1] if place else None,
        score_range=visit.model.score_range,
    )


def compare_html(visit: Visit, names: Sequence[str]) -> str:
    """Pictures side by side, best first, and what is between each two.

    Raises:
        ValueError: a picture that has no score.
    """
    rows = best_first(visit.row(name) for name in names)
    items = [(row, word_of(row, visit.model.score_range), visit.shown_path(visit.picture(row.path))) for row in rows]
    return _templates().compare(items, pairs_of(rows))


def label_message(visit: Visit, label: Label, name: str) -> str:
    """What was just decided, and, as that is done, what the model says of the picture."""
    if label.choice == SKIPPED:
        return f"{name}: skipped."
    done = f"{name}: {title_of(label.choice)}."
    result = visit.seen(label.content_hash)
    if result is None or result.row.score is None:
        return f"{done} The model has not scored it yet."
    row = result.row
    return (
        f"{done} The model says {row.score:.2f} ({word_of(row, visit.model.score_range)}), spread {row.score_std:.2f}."
    )


def choose_label(visit: Visit, order: str, choice: str, picture_id: str) -> str:
    """Label the picture of that id, or undo the last label; what is to be said of it.

    Raises:
        ValueError: it cannot be done.
    """
    if choice == UNDO:
        label = visit.undo_label(order)
        if label is None:
            return "There is nothing to undo."
        picture = visit.by_content.get(label.content_hash)
        return f"Taken back: {picture.short_name if picture else label.file}, {title_of(label.choice)}."
    if picture_id not in visit.by_id:
        raise ValueError("that picture is no longer here")
    picture = visit.by_id[picture_id]
    return label_message(visit, visit.labels.choose(picture.path, picture.name, choice), picture.short_name)


def _shown(visit: Visit, picture: Picture) -> tuple[Path | None, str | None]:
    """The file that shows a picture, or why there is none."""
    try:
        return visit.shown_path(picture), None
    except ValueError as error:
        return None, str(error)


def label_html(visit: Visit, order: str, message: str = "") -> str:
    """The picture that is to be labelled next, large, and the bins; nothing here tells its score."""
    try:
        waiting, counts = visit.next_to_label(order), visit.labels.counts()
    except ValueError as error:  # the record of labels cannot be read: its disk is gone, say
        waiting, counts, message = [], Counter(), str(error)
    num_labelled = sum(counts.values()) - counts[SKIPPED]
    path, reason = _shown(visit, waiting[0]) if waiting else (None, None)
    return _templates().label(
        picture=path,
        alternative=f"To be labelled: {_short(waiting[0].name)}" if waiting else "",
        reason=reason,
        picture_id=waiting[0].id if waiting else None,
        following=_shown(visit, waiting[1])[0] if len(waiting) > 1 else None,
        progress=f"{num_labelled} labelled · {counts[SKIPPED]} skipped · {len(waiting)} to go",
        message=message,
        counts={choice: counts[choice] for choice in KEYS if choice != UNDO},
        has_pictures=bool(visit.pictures),
        place=None if visit.are_labels_ours else as_text(visit.labels.folder.absolute()),
    )
