"""Scores of a session's images, by the model that it uses, and what they say."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from hybridiqa.inference.scoring import ScoredSource
from hybridiqa.scores.score_file import ScoreRow, best_first
from hybridiqa.webapp.model_pool import SharedModel, SharedModels
from hybridiqa.webapp.session_files import SessionFiles
from hybridiqa.webapp.uploads import UploadedImage, Uploads

WORDS = ("poor", "weak", "fair", "good", "excellent")  # fifths of the scale


class SessionScores:
    """Results of a session's images, of all models that were used; those of the one in use are shown.

    Args:
        models: score with their default, until `use` is called.
        uploads: the images.
        files: where their thumbnails are kept.
    """

    def __init__(self, models: SharedModels, uploads: Uploads, files: SessionFiles):
        self.models, self.uploads, self.files = models, uploads, files
        self.model = models.default
        self.results: dict[tuple[str, str], ScoredSource] = {}  # by scorer and content
        self.lock = threading.Lock()  # held while these images are scored
        self.is_stopped = False

    @property
    def is_running(self) -> bool:
        """Return whether images are being scored."""
        return self.lock.locked()

    def find_result(self, content_hash: str) -> ScoredSource | None:
        """Return what the model said of the image of this content, or None where it has not seen it yet."""
        return self.results.get((self.model.scorer_id, content_hash))

    def list_unscored(self) -> list[UploadedImage]:
        """Return the images that the model has not seen yet."""
        return [image for image in list(self.uploads.images.values()) if self.find_result(image.content_hash) is None]

    def run(self) -> Iterator[int]:
        """Score what is not scored yet, and what is added meanwhile, until `stop`; yield the number that is left.

        Nothing is done where these images are being scored already.
        """
        if not self.lock.acquire(blocking=False):
            return
        self.is_stopped = False
        try:
            while not self.is_stopped and (todo := self.list_unscored()):
                model, num_left = self.model, len(todo)
                for _ in self.models.run_all(partial(self._score, model, image) for image in todo):
                    num_left -= 1
                    yield num_left
                    if self.is_stopped or model is not self.model:
                        break
        finally:
            self.lock.release()

    def _score(self, model: SharedModel, image: UploadedImage) -> None:
        decoded = self.files.keep_thumbnail(image, model.decode(image))
        self.results[model.scorer_id, image.content_hash] = model.score(decoded)

    def stop(self) -> None:
        """Let `run` end after the images that are being scored."""
        self.is_stopped = True

    def find_scored(self, name: str) -> ScoredSource:
        """Return the result of an image that has a score. Raises ValueError for any other."""
        result = self.find_result(self.uploads.find_image(name).content_hash)
        if result is None or result.row.score is None:
            raise ValueError(f"{name!r} has no score" + ("" if result is None else f": {result.row.error}"))
        return result

    def find_patch_scores(self, name: str) -> list[float]:
        """Return the scores of the patches of an image that has a score. Raises ValueError for any other."""
        return self.find_scored(name).patch_scores or []


@dataclass(frozen=True)
class Pair:
    """Two scored images.

    Args:
        difference: of their scores.
        score_std: the larger of their two.
    """

    better: ScoreRow
    worse: ScoreRow
    difference: float
    score_std: float

    @property
    def exceeds_std(self) -> bool:
        """Return whether the difference is more than the patches of one image differ among themselves."""
        return self.difference > self.score_std


def _score_of(row: ScoreRow) -> float:
    if row.score is None:
        raise ValueError(f"{row.path!r} has no score")
    return row.score


def compare_pairs(rows: Sequence[ScoreRow]) -> list[Pair]:
    """Return each two of the rows, which have scores, the better one first."""
    return [
        Pair(better, worse, _score_of(better) - _score_of(worse), max(better.score_std or 0, worse.score_std or 0))
        for better, worse in combinations(best_first(rows), 2)
    ]


def describe_score(row: ScoreRow, score_range: Sequence[float]) -> str:
    """Return a plain word for a row's score: which fifth of the model's scale it lies in."""
    low, high = score_range
    fifth = int((_score_of(row) - low) / (high - low) * len(WORDS))
    return WORDS[min(max(fifth, 0), len(WORDS) - 1)]
