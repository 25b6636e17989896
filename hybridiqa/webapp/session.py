"""What one visitor of a page has there: pictures, their scores, what is kept and labelled of them."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from hybridiqa.inference.patch_maps import crop_patch, draw_over_picture
from hybridiqa.inference.scoring import ScoredSource
from hybridiqa.models import hub_code
from hybridiqa.scores.gallery import encode_thumbnail
from hybridiqa.scores.score_file import ScoreRow, best_first, write_scores
from hybridiqa.utils.atomic import open_atomically
from hybridiqa.utils.files import as_text, hash_of, path_of
from hybridiqa.webapp.labelling import Label, LabelFolder, in_order
from hybridiqa.webapp.model_pool import SharedModel, SharedModels
from hybridiqa.webapp.pending_uploads import Uploads
from hybridiqa.webapp.uploads import Intake, Limits, Picture, free_name

NUM_SHOWN = 120  # pictures of a gallery; more at a click
THUMBNAIL_SIZE = 384  # pixels of the longer side; a page shows about 190, and phones have finer pixels
# What every browser shows as it is.
FORMATS_SHOWN = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "AVIF", "BMP")
SUFFIXES_SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".bmp")


@dataclass(frozen=True)
class Detail:
    """Files that show why a picture has its score; `worst` and `best` are none where there is but one patch."""

    map_path: Path
    worst_path: Path | None
    best_path: Path | None


@dataclass(frozen=True)
class Filter:
    """Which of the scored pictures are kept.

    Args:
        lowest_score: on the model's scale; none keeps all.
        lowest_percentile: 0-100; pictures without one are kept at 0 only.
    """

    lowest_score: float | None = None
    lowest_percentile: float = 0

    def keeps(self, row: ScoreRow) -> bool:
        """Whether a row that has a score is kept."""
        if self.lowest_score is not None and row.score < self.lowest_score:
            return False
        return self.lowest_percentile <= 0 or (row.percentile or 0) >= self.lowest_percentile


class Visit(Intake):
    """One visitor's pictures and scores; its files lie in a folder of its own, which ends with it.

    Args:
        folder: for this visit alone; it is made with the first picture.
        models: scores with its default, until `use` is called.
        limits: of what is uploaded.
        uploads: from where files are taken.
        labels: where labelled pictures are copied to; by default the visit's own folder.
        is_hosted: the visitor does not own this machine, and is not told what says something about files.
    """

    def __init__(
        self,
        folder: Path,
        models: SharedModels,
        limits: Limits,
        uploads: Uploads,
        labels: LabelFolder | None = None,
        is_hosted: bool = False,
    ):
        super().__init__(folder, limits, uploads)
        self.is_hosted = is_hosted
        self.shown: set[Path] = set()  # files that the visitor's browser or program may fetch
        self.models, self.model = models, models.default
        self.results: dict[tuple[str, str], ScoredSource] = {}  # by scorer and content
        self.filter = Filter()
        self.num_shown = NUM_SHOWN
        self.scoring = threading.Lock()  # held while this visitor's pictures are scored
        self.is_stopped = False
        self.on_screen: tuple[str, Picture] | None = None  # to be labelled, in which order
        self.are_labels_ours = labels is None  # they end with the visit
        self.labels = labels or LabelFolder(folder / "labels")

    # scoring

    def use(self, model: SharedModel) -> None:
        """Score with a model from here on, and keep all; what it said of pictures earlier is not forgotten."""
        self.model, self.filter = model, Filter()

    def result_of(self, picture: Picture) -> ScoredSource | None:
        """What the model said of a picture, or None where it has not seen it yet."""
        return self.seen(picture.content_hash)

    def seen(self, digest: str) -> ScoredSource | None:
        """What the model said of the picture of this content, or None."""
        return self.results.get((self.model.scorer, digest))

    def unscored(self) -> list[Picture]:
        """The pictures that the model has not seen yet."""
        return [picture for picture in list(self.pictures.values()) if self.result_of(picture) is None]

    def score(self) -> Iterator[int]:
        """Score what is not scored yet, and what is added meanwhile, until `stop`; the number that is left.

        Nothing is done where this visit is being scored already.
        """
        if not self.scoring.acquire(blocking=False):
            return
        self.is_stopped = False
        try:
            while not self.is_stopped and (todo := self.unscored()):
                model, num_left = self.model, len(todo)
                tasks = (self._task(model, picture) for picture in todo)
                for _ in self.models.score_all(tasks):
                    num_left -= 1
                    yield num_left
                    if self.is_stopped or model is not self.model:
                        break
        finally:
            self.scoring.release()

    def stop(self) -> None:
        """Let `score` end after the pictures that are in hand."""
        self.is_stopped = True

    def _task(self, model: SharedModel, picture: Picture) -> Callable[[], None]:
        def score() -> None:
            def keep_thumbnail(decoded: Image.Image) -> None:
                thumbnail = encode_thumbnail(decoded, THUMBNAIL_SIZE)
                self.place("shown", _thumbnail_name(picture)).write_bytes(thumbnail)

            result = model.score(picture.name, picture.path, keep_thumbnail)
            self.results[model.scorer, picture.content_hash] = result

        return score

    def rows(self) -> list[ScoreRow]:
        """One row for every picture that the model has seen, and for every file that was refused."""
        seen = [(picture, self.result_of(picture)) for picture in list(self.pictures.values())]
        rows = [replace(result.row, path=picture.name) for picture, result in seen if result is not None]
        return rows + [replace(row, scorer=self.model.scorer) for row in self.refused]

    def kept(self) -> list[ScoreRow]:
        """The rows that the filter keeps, best first."""
        return [row for row in best_first(self.rows()) if self.filter.keeps(row)]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with this visit."""
        return not self.pictures and not self.refused and self.model is self.models.default

    # showing

    def _show(self, path: Path) -> Path:
        """Return the file, which may be fetched from here on."""
        self.shown.add(path)
        return path

    def row(self, name: str) -> ScoreRow:
        """The row of a picture that has a score. Raises ValueError for any other."""
        result = self.result_of(self.picture(name))
        if result is None or result.row.score is None:
            raise ValueError(f"{name!r} has no score" + ("" if result is None else f": {result.row.error}"))
        return replace(result.row, path=name)

    def patch_scores(self, name: str) -> list[float]:
        """The scores of the patches of a picture that has a score."""
        self.row(name)
        return self.result_of(self.picture(name)).patch_scores

    def thumbnail_path(self, picture: Picture) -> Path:
        """Where its thumbnail lies, once it was decoded."""
        return self._show(self.folder / "shown" / _thumbnail_name(picture))

    def shown_path(self, picture: Picture) -> Path:
        """A file that a browser shows with the picture's own pixels: itself, or a PNG of it.

        Raises:
            ValueError: it cannot be read.
        """
        if picture.path.suffix in SUFFIXES_SHOWN and _format_of(picture.path) in FORMATS_SHOWN:
            return self._show(picture.path)
        path = self.place("shown", f"{picture.id}.png")
        if not path.exists():
            try:
                _save(hub_code.load_image(picture.path), path)
            except ValueError as error:
                raise ValueError(str(error).removeprefix(f"cannot read {picture.path}: ")) from error
        return self._show(path)

    def detail(self, name: str) -> Detail:
        """The map of a picture's patches, and its worst and best patch as they are.

        Raises:
            ValueError: a picture that has no score.
        """
        picture, scores = self.picture(name), self.patch_scores(name)
        stem = f"{picture.id}-{hash_of(self.model.scorer.encode())}"
        map_path, worst, best = (self.place("shown", f"{stem}-{part}.png") for part in ("map", "worst", "best"))
        if not map_path.exists():
            image = hub_code.load_image(picture.path)
            boxes = self.model.patch_boxes(*image.size)
            for path, score in ((worst, min(scores)), (best, max(scores))):
                _save(crop_patch(image, boxes[scores.index(score)]), path)
            _save(draw_over_picture(image, boxes, scores, self.model.score_range), map_path)
        parts = (self._show(worst), self._show(best)) if len(scores) > 1 else (None, None)
        return Detail(self._show(map_path), *parts)

    # labelling

    def to_label(self, order: str) -> list[Picture]:
        """The pictures without a label, in the order in which they come; those that cannot be read are left out."""
        seen = {digest: result.row for digest in list(self.by_content) if (result := self.seen(digest)) is not None}
        readable = [digest for digest in list(self.by_content) if digest not in seen or seen[digest].error is None]
        spreads = {digest: row.score_std for digest, row in seen.items() if row.score_std is not None}
        labelled = {label.content_hash for label in self.labels.history}
        return [self.by_content[digest] for digest in in_order(readable, order, spreads) if digest not in labelled]

    def next_to_label(self, order: str) -> list[Picture]:
        """As `to_label`, but what was the first stays it until it is labelled, whatever is scored meanwhile."""
        waiting = self.to_label(order)
        on_screen = [picture for picture in waiting if (order, picture) == self.on_screen]
        waiting = on_screen + [picture for picture in waiting if picture not in on_screen]
        self.on_screen = (order, waiting[0]) if waiting else None
        return waiting

    def undo_label(self, order: str) -> Label | None:
        """Take back the last label; its picture, if it is here, is the next to be labelled.

        Raises:
            ValueError: its copy was changed since.
        """
        label = self.labels.undo()
        if label is not None and label.content_hash in self.by_content:
            self.on_screen = (order, self.by_content[label.content_hash])
        return label

    # taking away

    def write_csv(self) -> Path:
        """All rows, as `score.py` writes them; on a hosted page without the hash of the files' bytes."""
        path, rows = self.place("made", "scores.csv"), self.rows()
        write_scores(path, [replace(row, content_hash=None) for row in rows] if self.is_hosted else rows)
        return self._show(path)

    def write_kept(self) -> Path:
        """A zip of the pictures that the filter keeps, each the very bytes that were brought.

        Folders are kept, of pictures on this machine those below what they have in common.

        Raises:
            ValueError: none is kept.
        """
        kept = self.kept()
        if not kept:
            raise ValueError("no picture is kept: lower the sliders, or score some")
        on_this_machine = [os.path.dirname(row.path) for row in kept if os.path.isabs(row.path)]
        root = os.path.commonpath(on_this_machine) if on_this_machine else ""
        files: dict[str, Path] = {}  # by their names in the zip
        for row in kept:
            files[free_name(_name_in_zip(row.path.removeprefix(root)), files)] = self.picture(row.path).path
        return self._show(_write_zip(self.place("made", "kept.zip"), files))

    def write_labels(self) -> Path:
        """A zip of the labelled pictures, in their folders.

        Raises:
            ValueError: there is none.
        """
        files = {path.relative_to(self.labels.folder).as_posix(): path for path in self.labels.files()}
        if not files:
            raise ValueError("no picture is labelled yet")
        return self._show(_write_zip(self.place("made", "labelled.zip"), files))

    def remove(self) -> None:
        """Delete all files of this visit; pictures that were linked stay where they are."""
        self.stop()
        super().remove()


def _thumbnail_name(picture: Picture) -> str:
    return f"{picture.id}.webp"


def _format_of(path: Path) -> str | None:
    """As Pillow calls it; none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hub_code.open_image(file).format
    except (ValueError, OSError):
        return None


def _save(image: Image.Image, path: Path) -> None:
    """As PNG, without loss, there whole or not at all."""
    with open_atomically(path, is_synced=False) as file:
        image.save(file, "PNG", compress_level=1)


def _name_in_zip(name: str) -> str:
    """A relative path without `..`, whatever a visitor calls the file."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts).replace(":", "_") or "picture"


def _write_zip(path: Path, files: dict[str, Path]) -> Path:
    """The files under their names, not compressed: pictures are already."""
    with (
        open_atomically(path, is_synced=False) as unfinished,
        zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive,
    ):
        for name, file in files.items():
            archive.write(path_of(as_text(file)), name)
    return path
