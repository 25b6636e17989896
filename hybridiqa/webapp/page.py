"""The page in Gradio: its components, what happens at a click, and the same functions for programs.

All that a user has is in a `Session`; the methods here find it by the tab and show what became of it. A method that
changes several components returns what each of them gets by component; the others stay as they are.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict

import gradio as gr
from gradio.blocks import Block
from gradio.data_classes import ListFiles

from hybridiqa.models.loading import UntrustedCodeError
from hybridiqa.utils.files import has_image_suffix, path_of
from hybridiqa.webapp.api import SCORING_SLOTS, ScoringSlots, add_api, name_uploads, with_errors
from hybridiqa.webapp.fragments import (
    compare_html,
    detail_html,
    failures_html,
    gallery_html,
    label_html,
    status_html,
    url_of,
)
from hybridiqa.webapp.session import NUM_SHOWN, Filter, Session
from hybridiqa.webapp.session_store import SessionStore

Updates = dict[Block, Any]


class Private(TypedDict):
    """Options of a listener that no program calls; what they call is in `api`."""

    api_visibility: Literal["private"]


class Quiet(Private):
    """Options of a listener that waits for nothing and shows no progress."""

    queue: bool
    show_progress: Literal["hidden"]


class Scoring(Private, ScoringSlots):
    """Options of a listener that scores."""

    show_progress: Literal["hidden"]
    trigger_mode: Literal["multiple"]


HERE = Path(__file__).parent
SECONDS_BETWEEN_VIEWS = 0.7  # while scores arrive
MAX_WAITING = 200  # requests; further ones are refused
THEME = gr.themes.Base(
    primary_hue="indigo",
    neutral_hue="zinc",
    font=["system-ui", "sans-serif"],  # nothing is fetched from elsewhere
    font_mono=["ui-monospace", "monospace"],
).set(  # darker than Gradio's, for readers who need contrast
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    block_label_text_color="*neutral_700",
    block_label_text_color_dark="*neutral_200",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
)
PRIVATE = Private(api_visibility="private")
QUIETLY = Quiet(**PRIVATE, queue=False, show_progress="hidden")
SCORING = Scoring(**PRIVATE, **SCORING_SLOTS, show_progress="hidden", trigger_mode="multiple")
shown_errors = partial(with_errors, is_html=True)
INTRODUCTION = """# hybridIQA
How good does a picture look, on a scale of 1 to 9? Drop some to sort them, compare them, or label them to teach a model
your taste. {where}"""
LOCAL = "Everything stays on this machine."
QUESTION = """**{name} brings code that is not this project's.** It would run on this machine, with your rights. Read it
first: <{address}>"""
HOSTED = "What you upload is for you alone, and is deleted after you leave."


def _name_uploads(payload: ListFiles | None) -> list[tuple[Path, str]]:
    """Return what was uploaded, each file with its name at its owner's."""
    return name_uploads(payload or [])


def _name_images(payload: ListFiles | None) -> list[tuple[Path, str]]:
    """Return, of an uploaded folder, where all kinds of files lie, the images and zips."""
    return [(path, name) for path, name in _name_uploads(payload) if has_image_suffix(name) or name.endswith(".zip")]


class Page:
    """The page of all sessions.

    Args:
        store: all that they have.
        is_local: the user owns this machine: folders of it may be named, and code from the Hub be trusted.
    """

    def __init__(self, store: SessionStore, is_local: bool):
        self.store, self.is_local = store, is_local

    # what is shown

    def _session(self, request: gr.Request) -> Session:
        return self.store.find_session(request.session_hash)

    def _view(self, session: Session, with_choices: bool = False) -> Updates:
        """Show how far the scoring is, and the gallery.

        Args:
            with_choices: what can be compared is offered anew, too.
        """
        now = session.snapshot()
        view: Updates = {
            self.status: status_html(now),
            self.failures: failures_html(now),
            self.gallery: gallery_html(session, now),
            self.cancel: gr.update(visible=now.is_running),
            self.go_on: gr.update(
                visible=now.num_left > 0 and not now.is_running, value=f"Score the {now.num_left} that are left"
            ),
        }
        if with_choices:  # as they are shown and as they are called
            names = [(session.uploads.images[row.path].short_name, row.path) for row in now.scored]
            view[self.compared] = gr.update(choices=names)
        return view

    # what happens on the page

    def _open(self, key: str | None, order: str, request: gr.Request) -> Updates:
        key = self.store.open(request.session_hash, key)
        session = self._session(request)
        low, high = session.scores.model.score_range
        lowest = low if session.filter.lowest_score is None else session.filter.lowest_score
        view = self._view(session, with_choices=True)
        view[self.compared]["value"] = []
        return {
            **view,
            self.key: key,
            self.score: gr.update(minimum=low, maximum=high, value=lowest),
            self.percentile: session.filter.lowest_percentile,
            self.label: label_html(session, order),
            self.model_line: self._model_line(session),
        }

    def _leave(self, request: gr.Request) -> None:
        self.store.leave(request.session_hash or "")

    def _add(self, files: list[tuple[Path, str]], event: gr.EventData, request: gr.Request) -> Updates:
        session = self._session(request)
        session.uploads.add_files(files)
        emptied: Updates = {} if event.target is None else {event.target: None}
        return {**self._view(session), **emptied}

    def _add_folder(self, folder: str, request: gr.Request) -> None:
        self._session(request).uploads.add_folder(path_of(folder.strip()).expanduser())

    def _score(self, request: gr.Request) -> Iterator[Updates]:
        """Score what is not scored yet, showing what has arrived every now and then."""
        session = self._session(request)
        shown_at, seconds = 0.0, 0.0
        for _ in session.scores.run():
            if time.monotonic() - shown_at < max(SECONDS_BETWEEN_VIEWS, 10 * seconds):
                continue
            started = time.monotonic()
            yield self._view(session)
            shown_at, seconds = time.monotonic(), time.monotonic() - started
        yield self._view(session, with_choices=True)

    def _stop(self, request: gr.Request) -> None:
        self._session(request).scores.stop()

    def _delete(self, order: str, request: gr.Request) -> Updates:
        self.store.delete(request.session_hash or "")
        return self._open(None, order, request)

    def _filter(self, score: float, percentile: float, request: gr.Request) -> Updates:
        session = self._session(request)
        low, _ = session.scores.model.score_range
        session.filter = Filter(score if score > low else None, percentile)
        now = session.snapshot()
        return {self.status: status_html(now), self.gallery: gallery_html(session, now)}

    def _gallery_click(self, event: gr.EventData, request: gr.Request) -> Updates:
        session = self._session(request)
        if event._data.get("more"):
            session.num_shown += NUM_SHOWN
            return {self.gallery: gallery_html(session, session.snapshot())}
        return {self.detail: self._with_mark(detail_html(session, event._data["name"]))}

    def _detail_click(self, event: gr.EventData, request: gr.Request) -> str:
        return self._with_mark(detail_html(self._session(request), event._data["name"]))

    @staticmethod
    def _with_mark(html: str) -> str:
        """Make the same image again another value, so that its dialog opens again."""
        return f"{html}<!-- {secrets.token_hex(4)} -->"

    def _compare(self, names: list[str] | None, request: gr.Request) -> str:
        return compare_html(self._session(request), names or [])

    def _show_label(self, order: str, request: gr.Request) -> str:
        return label_html(self._session(request), order)

    def _label(self, order: str, event: gr.EventData, request: gr.Request) -> str:
        session = self._session(request)
        try:
            message = session.labels.choose(order, event._data["choice"], event._data["picture"])
        except ValueError as error:
            message = str(error)
        return self._with_mark(label_html(session, order, message))

    def _model_line(self, session: Session) -> str:
        return f"Scores are by **{session.scores.model.name}**, as `{session.scores.model.scorer_id}`."

    def _load_model(self, name: str, revision: str, request: gr.Request, is_trusted: bool = False) -> Updates:
        """Score with a model from here on; or ask whether its code is trusted."""
        session = self._session(request)
        try:
            model = session.scores.models.load(name, revision, is_trusted)
        except UntrustedCodeError as error:
            if not session.scores.models.is_code_allowed:
                raise ValueError(f"{name} brings code of its own, which does not run here") from error
            return {
                self.question: gr.update(visible=True),
                self.question_text: QUESTION.format(name=name, address=error.address),
                self.commit: error.commit,
            }
        session.use(model)
        low, high = model.score_range
        return {
            self.question: gr.update(visible=False),
            self.question_text: "",
            self.commit: "",
            self.model_line: self._model_line(session),
            self.score: gr.update(minimum=low, maximum=high, value=low),
            self.percentile: 0,
        }

    def _trust_model(self, name: str, commit: str, request: gr.Request) -> Updates:
        return self._load_model(name, commit, request, is_trusted=True)

    def _address(self, path: Path) -> str:
        return f"{url_of(path)}#{secrets.token_hex(4)}"

    def _csv(self, request: gr.Request) -> str:
        return self._address(self._session(request).show_csv())

    def _kept(self, request: gr.Request) -> str:
        return self._address(self._session(request).show_kept())

    def _labelled(self, request: gr.Request) -> str:
        return self._address(self._session(request).show_labelled())

    # how it is put together

    def build(self) -> gr.Blocks:
        """Return the page."""
        blocks = gr.Blocks(title="hybridIQA", analytics_enabled=False, fill_width=True)
        with blocks:
            self._build_input()
            with gr.Tab("Gallery"):
                self._build_gallery()
            with gr.Tab("Compare"):
                self._build_comparison()
            with gr.Tab("Label") as label_tab:
                self._build_label()
            with gr.Tab("Model"):
                self._build_model()
            self._connect_input(blocks)
            self._connect_gallery()
            self._connect_label(label_tab)
            self._connect_model()
            add_api(self.store)
        return blocks.queue(max_size=MAX_WAITING, default_concurrency_limit=8)

    def _build_input(self) -> None:
        self.key = gr.BrowserState(None, storage_key="hybridiqa-visit")
        gr.Markdown(INTRODUCTION.format(where=LOCAL if self.is_local else HOSTED))
        with gr.Row(equal_height=True):
            self.files = gr.File(file_count="multiple", label="Pictures, or zips of them", height=150, scale=3)
            with gr.Column(scale=1, min_width=220):
                self.folder_upload = gr.UploadButton("Upload a folder", file_count="directory", size="md")
                self.folder = gr.Textbox(
                    label="Or open a folder of this machine",
                    placeholder="/home/me/pictures",
                    visible=self.is_local,
                    max_lines=1,
                )
        # Gradio would pass the paths alone; of a subclass it would write a stub beside this file.
        self.files.preprocess = _name_uploads  # type: ignore[method-assign, assignment]
        self.folder_upload.preprocess = _name_images  # type: ignore[method-assign, assignment]
        with gr.Row():
            with gr.Column(scale=4, min_width=240):
                self.status = gr.HTML(elem_id="status")
            self.cancel = gr.Button("Cancel", variant="stop", size="md", visible=False, min_width=120, scale=1)
            self.go_on = gr.Button("Score what is left", size="md", visible=False, min_width=120, scale=1)
        self.failures = gr.HTML(elem_id="failures")

    def _build_gallery(self) -> None:
        with gr.Row():
            self.score = gr.Slider(
                1,
                9,
                1,
                step=0.05,
                label="Keep scores from",
                info="At the left end all are kept.",
                min_width=260,
                elem_id="lowest",
            )
            self.percentile = gr.Slider(
                0,
                100,
                0,
                step=1,
                label="Keep percentiles from",
                info="Among the model's own validation pictures.",
                min_width=260,
            )
            with gr.Column(min_width=180):
                self.csv = gr.Button("Download all scores (CSV)", size="md")
                self.kept = gr.Button("Download what is kept (zip)", size="md", variant="primary")
        self.gallery = gr.HTML(elem_id="gallery", js_on_load="hybridiqa.gallery(element, trigger, watch)")
        self.detail = gr.HTML(elem_id="detail", js_on_load="hybridiqa.detail(element, trigger, watch)")
        self.address = gr.Textbox(visible="hidden")  # of a file that is to be downloaded

    def _build_comparison(self) -> None:
        self.compared = gr.Dropdown(
            [], multiselect=True, label="Pictures", info="Choose them, or type a part of a name.", elem_id="compared"
        )
        self.comparison = gr.HTML(elem_id="comparison")

    def _build_label(self) -> None:
        self.label = gr.HTML(elem_id="label", js_on_load="hybridiqa.label(element, trigger, watch)")
        with gr.Row(equal_height=True):
            self.order = gr.Radio(
                [("Random", "random"), ("What the model is least sure of", "spread")], value="random", label="Order"
            )
            self.labelled = gr.Button("Download the labelled folder (zip)", size="md", min_width=220, scale=0)

    def _build_model(self) -> None:
        self.model_line = gr.Markdown()
        with gr.Row(equal_height=True):
            self.model_name = gr.Textbox(
                label="A folder or a Hub id" if self.is_local else "A Hub id",
                info="Empty for the embedded checkpoint.",
                placeholder="you/my-scorer",
                max_lines=1,
                scale=3,
            )
            self.revision = gr.Textbox(label="Revision", info="Branch, tag or commit.", max_lines=1)
            self.load = gr.Button("Score with it", size="md", variant="primary", min_width=160, scale=0)
        with gr.Group(visible=False) as self.question:
            self.question_text = gr.Markdown(padding=True)
            self.commit = gr.Textbox(visible="hidden")
            self.trust = gr.Button("I have read it: run this code and score with it", size="md", variant="stop")
        self.delete = gr.Button("Delete all my pictures and scores from this page", size="md", scale=0)

    def _connect_input(self, blocks: gr.Blocks) -> None:
        """Connect what adds images, and what shows how they are scored."""
        # Components that a listener may change; Gradio refuses an update of any other.
        self.view = [self.status, self.failures, self.gallery, self.cancel, self.go_on, self.compared]
        opened = [*self.view, self.key, self.score, self.percentile, self.label, self.model_line]
        blocks.load(self._open, [self.key, self.order], opened, **QUIETLY)
        blocks.unload(self._leave)
        added = [
            files.upload(self._add, files, [files, *self.view], trigger_mode="multiple", **PRIVATE)
            for files in (self.files, self.folder_upload)
        ]
        if self.is_local:
            added.append(self.folder.submit(shown_errors(self._add_folder), self.folder, None, **PRIVATE))
        for event in added:
            event.success(self._show_label, self.order, self.label, **QUIETLY)
            event.success(self._score, None, self.view, **SCORING)
        self.go_on.click(self._score, None, self.view, **SCORING)
        self.cancel.click(self._stop, None, None, **QUIETLY)
        self.delete.click(self._delete, self.order, opened, **QUIETLY)

    def _connect_gallery(self) -> None:
        sliders, whole = [self.score, self.percentile], "(...numbers) => hybridiqa.filter(...numbers)"
        for slider in sliders:
            slider.input(
                self._filter, sliders, [self.status, self.gallery], trigger_mode="always_last", js=whole, **QUIETLY
            )
        self.gallery.click(shown_errors(self._gallery_click), None, [self.gallery, self.detail], **QUIETLY)
        self.detail.click(shown_errors(self._detail_click), None, self.detail, **QUIETLY)
        for button, write in ((self.csv, self._csv), (self.kept, self._kept), (self.labelled, self._labelled)):
            button.click(shown_errors(write), None, self.address, **PRIVATE).success(
                None, self.address, None, js="(address) => hybridiqa.download(address)"
            )
        self.compared.change(shown_errors(self._compare), self.compared, self.comparison, **PRIVATE)

    def _connect_label(self, label_tab: gr.Tab) -> None:
        label_tab.select(self._show_label, self.order, self.label, **QUIETLY).then(
            None, js="() => document.querySelector('#label').scrollIntoView()"
        )
        self.order.change(self._show_label, self.order, self.label, **QUIETLY)
        self.label.click(self._label, self.order, self.label, **QUIETLY)

    def _connect_model(self) -> None:
        asked = [self.question, self.question_text, self.commit]
        used = [*asked, self.model_line, self.score, self.percentile]
        for trigger, load, source in (
            (self.load.click, self._load_model, self.revision),
            (self.model_name.submit, self._load_model, self.revision),
            (self.trust.click, self._trust_model, self.commit),
        ):
            loaded = trigger(shown_errors(load), [self.model_name, source], used, **PRIVATE)
            loaded.success(self._score, None, self.view, **SCORING)


def page_options() -> dict[str, Any]:
    """Return what `launch` is given besides where it listens."""
    return {
        "theme": THEME,
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "head": f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        "footer_links": ["api"],
        "ssr_mode": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "share": False,  # which would send all pictures through somebody else's server
        "run_history": False,  # which would keep what was asked and answered in the browser
    }
