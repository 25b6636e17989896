"""Functions of the page for programs, which call them by `gradio_client`, with plain values.

    from gradio_client import Client, handle_file

    client = Client("http://127.0.0.1:7860")
    rows = client.predict([handle_file("a.png"), handle_file("b.png")], api_name="/score")

One client is one session: what it sent stays until it leaves.
"""

import html
import time
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypedDict

import gradio as gr
from gradio.data_classes import FileData

from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.webapp.labelling import ORDERS
from hybridiqa.webapp.session import Filter, Session
from hybridiqa.webapp.session_scores import compare_pairs, describe_score
from hybridiqa.webapp.session_store import SessionStore


class ScoringSlots(TypedDict):
    """Options of a function or listener that scores."""

    concurrency_limit: int
    concurrency_id: str


# Sessions whose images are scored at a time, in turn; further ones wait.
SCORING_SLOTS = ScoringSlots(concurrency_limit=20, concurrency_id="scoring")


def describe_row(row: ScoreRow, score_range: Sequence[float]) -> dict[str, Any]:
    """Return what a program is told of an image. (A `path` would be taken for a file that the client downloads.)"""
    facts = {"name": row.path, "score": row.score, "score_std": row.score_std, "percentile": row.percentile}
    word = None if row.score is None else describe_score(row, score_range)
    return {**facts, "word": word, "width": row.width, "height": row.height, "error": row.error}


def with_errors(function: Callable, is_html: bool = False) -> Callable:
    """Return the function, whose ValueErrors reach the client, or a page that takes them for HTML."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            message = html.escape(str(error), quote=False) if is_html else str(error)
            raise gr.Error(message, print_exception=False) from error

    return called


def name_uploads(files: Iterable[FileData]) -> list[tuple[Path, str]]:
    """Return the path of each uploaded file, with its name at its owner's."""
    given = [dict(file) for file in files]  # Gradio hands on a program's files as dictionaries
    return [(Path(file["path"]), file.get("orig_name") or Path(file["path"]).name) for file in given]


class PageApi:
    """The functions; each finds the session of the client that calls."""

    def __init__(self, store: SessionStore):
        self.store = store

    def _session(self, request: gr.Request) -> Session:
        return self.store.find_session(request.session_hash)

    def score(self, pictures: list[gr.FileData], request: gr.Request) -> list[dict]:
        """Score images, or zips of them; what was sent earlier in the session stays.

        Returns one dictionary a file, best first, then those that could not be read: name, score, score_std,
        percentile (0-100), word, width and height (pixels), error.
        """
        session = self._session(request)
        session.uploads.add_files(name_uploads(pictures))
        while session.scores.list_unscored():
            for _ in session.scores.run():
                pass
            time.sleep(0.1)  # where the page of the same session is scoring them
        return self.scores(request)

    def scores(self, request: gr.Request) -> list[dict]:
        """Return what `score` returned last."""
        snapshot = self._session(request).snapshot()
        return [describe_row(row, snapshot.score_range) for row in [*snapshot.scored, *snapshot.failed]]

    def patch_map(self, name: str, request: gr.Request) -> gr.FileData:
        """Show an image under the scores of its patches, as PNG; `name` as `score` returned it."""
        return _as_file(self._session(request).show_detail(name).map_path)

    def patch_scores(self, name: str, request: gr.Request) -> list[float]:
        """Return the scores of an image's patches."""
        return self._session(request).scores.find_patch_scores(name)

    def compare(self, names: list[str], request: gr.Request) -> list[dict]:
        """Compare each two of the images: better, worse, difference, spread (the larger of the two), exceeds_spread."""
        scores = self._session(request).scores
        return [
            {
                "better": pair.better.path,
                "worse": pair.worse.path,
                "difference": pair.difference,
                "spread": pair.score_std,
                "exceeds_spread": pair.exceeds_std,
            }
            for pair in compare_pairs([scores.find_scored(name).row for name in names])
        ]

    def scores_csv(self, request: gr.Request) -> gr.FileData:
        """Return all scores as the CSV that score.py writes."""
        return _as_file(self._session(request).show_csv())

    def kept_zip(
        self, request: gr.Request, lowest_score: float | None = None, lowest_percentile: float = 0
    ) -> gr.FileData:
        """Return a zip of the images from that score and percentile on, the very files that were sent."""
        session = self._session(request)
        session.filter = Filter(lowest_score, lowest_percentile)
        return _as_file(session.show_kept())

    def label(self, name: str, choice: str, request: gr.Request) -> str:
        """Put an image into a bin: Artifact/1 ... Artifact/5, Perfect/1 ... Perfect/5, 8, 9, or skip."""
        session = self._session(request)
        return session.labels.choose(ORDERS[0], choice, session.uploads.find_image(name).id)

    def undo_label(self, request: gr.Request) -> str:
        """Take back the last label."""
        return self._session(request).labels.undo(ORDERS[0])

    def labelled_zip(self, request: gr.Request) -> gr.FileData:
        """Return a zip of the labelled images in their folders, which prepare_dataset.py takes."""
        return _as_file(self._session(request).show_labelled())

    def use_model(self, name: str, request: gr.Request, revision: str = "", trust_remote_code: bool = False) -> str:
        """Score with another model, a Hub id or, on one's own machine, a folder; an empty name is the default."""
        session = self._session(request)
        session.use(session.scores.models.load(name, revision, trust_remote_code))
        return session.scores.model.scorer_id


def _as_file(path: Path) -> gr.FileData:
    return gr.FileData(path=str(path))


def add_api(store: SessionStore) -> None:
    """Add the functions to the page that is being built, each under its own name."""
    api = PageApi(store)
    gr.api(with_errors(api.score), api_name="score", **SCORING_SLOTS)
    by_image = (api.patch_map, api.patch_scores, api.compare, api.label, api.undo_label)
    for function in (api.scores, *by_image, api.scores_csv, api.kept_zip, api.labelled_zip, api.use_model):
        gr.api(with_errors(function), api_name=function.__name__)
