"""What programs call on the page, by `gradio_client`: the functions of the page, with plain values.

    from gradio_client import Client, handle_file

    client = Client("http://127.0.0.1:7860")
    rows = client.predict([handle_file("a.png"), handle_file("b.png")], api_name="/score")

One client is one visitor: what it sent stays until it leaves.
"""

import html
import time
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from hybridiqa.scores.score_file import ScoreRow, best_first
from hybridiqa.webapp.fragments import UNDO, choose_label, pairs_of, word_of
from hybridiqa.webapp.labelling import ORDERS
from hybridiqa.webapp.session import Filter, Visit
from hybridiqa.webapp.session_store import Visitors

# Visitors whose pictures are scored at a time, in turn; further ones wait.
SCORING_SLOTS = {"concurrency_limit": 20, "concurrency_id": "scoring"}
FUNCTIONS = ("score", "scores", "patch_map", "patch_scores", "compare", "scores_csv", "kept_zip")
FUNCTIONS += ("label", "undo_label", "labelled_zip", "use_model")


def facts_of(row: ScoreRow, visit: Visit) -> dict[str, Any]:
    """What a program is told of a picture. (A `path` would be taken for a file that the client downloads.)"""
    facts = {"name": row.path, "score": row.score, "score_std": row.score_std, "percentile": row.percentile}
    word = None if row.score is None else word_of(row, visit.model.score_range)
    return {**facts, "word": word, "width": row.width, "height": row.height, "error": row.error}


def with_errors(function: Callable, is_html: bool = False) -> Callable:
    """The function, whose ValueErrors reach the client, or a page that takes them for HTML."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            message = html.escape(str(error), quote=False) if is_html else str(error)
            raise gr.Error(message, print_exception=False) from error

    return called


def uploads_with_names(files: Iterable[dict]) -> list[tuple[Path, str]]:
    """Return the path of each uploaded file, with its name at its owner's."""
    return [(Path(file["path"]), file.get("orig_name") or Path(file["path"]).name) for file in files]


class PageApi:
    """The functions; each finds the visit of the client that calls."""

    def __init__(self, visitors: Visitors):
        self.visitors = visitors

    def _visit(self, request: gr.Request) -> Visit:
        return self.visitors.of(request.session_hash)

    def score(self, pictures: list[gr.FileData], request: gr.Request) -> list[dict]:
        """Score pictures, or zips of them; what was sent earlier in the session stays.

        Returns one dictionary a file, best first, then those that could not be read: name, score, score_std,
        percentile (0-100), word, width and height (pixels), error.
        """
        visit = self._visit(request)
        visit.add_files(uploads_with_names(pictures))
        while visit.unscored():
            for _ in visit.score():
                pass
            time.sleep(0.1)  # where the page of the same visitor is scoring them
        return self.scores(request)

    def scores(self, request: gr.Request) -> list[dict]:
        """What `score` returned last."""
        visit = self._visit(request)
        rows = visit.rows()
        return [facts_of(row, visit) for row in [*best_first(rows), *(row for row in rows if row.error is not None)]]

    def patch_map(self, name: str, request: gr.Request) -> gr.FileData:
        """A picture under the scores of its patches, as PNG; `name` as `score` returned it."""
        return gr.FileData(path=str(self._visit(request).detail(name).map_path))

    def patch_scores(self, name: str, request: gr.Request) -> list[float]:
        """The scores of a picture's patches."""
        return self._visit(request).patch_scores(name)

    def compare(self, names: list[str], request: gr.Request) -> list[dict]:
        """Each two of the pictures: better, worse, difference, spread (the larger of the two), exceeds_spread."""
        visit = self._visit(request)
        return [
            {
                "better": pair.better.path,
                "worse": pair.worse.path,
                "difference": pair.difference,
                "spread": pair.spread,
                "exceeds_spread": pair.exceeds_spread,
            }
            for pair in pairs_of([visit.row(name) for name in names])
        ]

    def scores_csv(self, request: gr.Request) -> gr.FileData:
        """All scores as the CSV that score.py writes."""
        return gr.FileData(path=str(self._visit(request).write_csv()))

    def kept_zip(
        self, request: gr.Request, lowest_score: float | None = None, lowest_percentile: float = 0
    ) -> gr.FileData:
        """A zip of the pictures from that score and percentile on, the very files that were sent."""
        visit = self._visit(request)
        visit.filter = Filter(lowest_score, lowest_percentile)
        return gr.FileData(path=str(visit.write_kept()))

    def label(self, name: str, choice: str, request: gr.Request) -> str:
        """Put a picture into a bin: Artifact/1 ... Artifact/5, Perfect/1 ... Perfect/5, 8, 9, or skip."""
        visit = self._visit(request)
        return choose_label(visit, ORDERS[0], choice, visit.picture(name).id)

    def undo_label(self, request: gr.Request) -> str:
        """Take back the last label."""
        return choose_label(self._visit(request), ORDERS[0], UNDO, "")

    def labelled_zip(self, request: gr.Request) -> gr.FileData:
        """A zip of the labelled pictures in their folders, which prepare_dataset.py takes."""
        return gr.FileData(path=str(self._visit(request).write_labels()))

    def use_model(self, name: str, request: gr.Request, revision: str = "", trust_remote_code: bool = False) -> str:
        """Score with another model, a Hub id or, on one's own machine, a folder; an empty name is the default."""
        visit = self._visit(request)
        visit.use(visit.models.load(name, revision, trust_remote_code))
        return visit.model.scorer


def add_api(visitors: Visitors) -> None:
    """Add the functions to the page that is being built, each under its own name."""
    api = PageApi(visitors)
    for name in FUNCTIONS:
        gr.api(with_errors(getattr(api, name)), api_name=name, **(SCORING_SLOTS if name == "score" else {}))
