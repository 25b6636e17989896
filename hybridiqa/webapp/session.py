"""Session of the page: the images that one person or program brought, with their scores and labels."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from hybridiqa.scores.score_file import ScoreRow, best_first, failures, write_scores
from hybridiqa.webapp.labelling import LabelFolder
from hybridiqa.webapp.model_pool import SharedModel, SharedModels
from hybridiqa.webapp.pending_uploads import PendingUploads
from hybridiqa.webapp.session_files import DetailFiles, SessionFiles, name_in_zip
from hybridiqa.webapp.session_labels import SessionLabels
from hybridiqa.webapp.session_scores import SessionScores
from hybridiqa.webapp.uploads import Limits, SessionFolder, Uploads, free_name

NUM_SHOWN = 120  # images of a gallery; more at a click


@dataclass(frozen=True)
class Filter:
    """Rule that says which of the scored images are kept.

    Args:
        lowest_score: on the model's scale; none keeps all.
        lowest_percentile: 0-100; images without one are kept at 0 only.
    """

    lowest_score: float | None = None
    lowest_percentile: float = 0

    def keeps(self, row: ScoreRow) -> bool:
        """Return whether a row that has a score is kept."""
        if self.lowest_score is not None and (row.score is None or row.score < self.lowest_score):
            return False
        return self.lowest_percentile <= 0 or (row.percentile or 0) >= self.lowest_percentile


@dataclass(frozen=True)
class Snapshot:
    """A session at one moment, for all that is shown of it together.

    Args:
        rows: one for every image that the model has seen, and for every file that was refused.
        scored: the rows that have a score, best first.
        failed: the rows that have none.
        kept: the scored rows that the filter keeps.
        num_images, num_left: all images, and those that the model has not seen yet.
        is_running: images are being scored.
        score_range: (low, high) of the model's scale.
    """

    rows: list[ScoreRow]
    scored: list[ScoreRow]
    failed: list[ScoreRow]
    kept: list[ScoreRow]
    num_images: int
    num_left: int
    is_running: bool
    score_range: tuple[float, float]


class Session:
    """Images of one person or program; the files lie in a folder of their own, which ends with the session.

    Args:
        path: of that folder, which is made with the first image.
        models: score with their default, until `use` is called.
        limits: of what is uploaded.
        pending: from where uploads are taken.
        labels: where labelled images are copied to; by default the session's own folder.
        is_hosted: the user does not own this machine, and is not told what says something about files.
    """

    def __init__(
        self,
        path: Path,
        models: SharedModels,
        limits: Limits,
        pending: PendingUploads,
        labels: LabelFolder | None = None,
        is_hosted: bool = False,
    ):
        self.folder, self.is_hosted = SessionFolder(path), is_hosted
        self.uploads = Uploads(self.folder, limits, pending)
        self.files = SessionFiles(self.folder)
        self.scores = SessionScores(models, self.uploads, self.files)
        self.labels = SessionLabels(
            labels or LabelFolder(path / "labels"), self.uploads, self.scores, are_ours=labels is None
        )
        self.filter = Filter()
        self.num_shown = NUM_SHOWN

    def use(self, model: SharedModel) -> None:
        """Score with a model from here on, and keep all; what others said of images earlier is not forgotten."""
        self.scores.model, self.filter = model, Filter()

    @property
    def is_empty(self) -> bool:
        """Return whether nothing would be lost with this session."""
        return not self.uploads.images and not self.uploads.refused and self.scores.model is self.scores.models.default

    def snapshot(self) -> Snapshot:
        """Return the session as it is now."""
        model, images = self.scores.model, list(self.uploads.images.values())
        results = [self.scores.find_result(image.content_hash) for image in images]
        rows = [result.row for result in results if result is not None]
        rows += [replace(row, scorer=model.scorer_id) for row in self.uploads.refused]
        scored = best_first(rows)
        return Snapshot(
            rows,
            scored,
            failures(rows),
            kept=[row for row in scored if self.filter.keeps(row)],
            num_images=len(images),
            num_left=results.count(None),
            is_running=self.scores.is_running,
            score_range=model.score_range,
        )

    def show_detail(self, name: str) -> DetailFiles:
        """Return the files that show why an image has its score.

        Raises:
            ValueError: an image that has no score.
        """
        patch_scores = self.scores.find_patch_scores(name)
        return self.files.show_detail(self.uploads.find_image(name), self.scores.model, patch_scores)

    def show_csv(self) -> Path:
        """Return all rows, as `score.py` writes them; on a hosted page without the hash of the files' bytes."""
        path, rows = self.folder.place("made", "scores.csv"), self.snapshot().rows
        write_scores(path, [replace(row, content_hash=None) for row in rows] if self.is_hosted else rows)
        return self.folder.show(path)

    def show_kept(self) -> Path:
        """Return a zip of the images that the filter keeps, each the very bytes that were brought.

        Folders are kept, of images on this machine those below what they have in common.

        Raises:
            ValueError: none is kept.
        """
        kept = self.snapshot().kept
        if not kept:
            raise ValueError("no picture is kept: lower the sliders, or score some")
        on_this_machine = [os.path.dirname(row.path) for row in kept if os.path.isabs(row.path)]
        root = os.path.commonpath(on_this_machine) if on_this_machine else ""
        files: dict[str, Path] = {}  # by their names in the zip
        for row in kept:
            name = free_name(name_in_zip(row.path.removeprefix(root)), files)
            files[name] = self.uploads.find_image(row.path).path
        return self.files.show_zip("kept.zip", files)

    def show_labelled(self) -> Path:
        """Return a zip of the labelled images, in their folders.

        Raises:
            ValueError: there is none.
        """
        folder = self.labels.folder
        files = {path.relative_to(folder.folder).as_posix(): path for path in folder.list_copies()}
        if not files:
            raise ValueError("no picture is labelled yet")
        return self.files.show_zip("labelled.zip", files)

    def remove(self) -> None:
        """Delete all files of this session; images that were linked stay where they are."""
        self.scores.stop()
        self.uploads.remove()
