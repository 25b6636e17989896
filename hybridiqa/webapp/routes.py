"""Routes of the page's server besides Gradio's: files of sessions one by one, and nothing from a folder as such."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client import utils as client_utils
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from hybridiqa.webapp.allowed_hosts import AllowedHosts
from hybridiqa.webapp.bounded_bodies import BoundedBodies, RequestFolder
from hybridiqa.webapp.pending_uploads import NOT_UPLOADED, PendingUploads
from hybridiqa.webapp.session_store import SessionStore

SHOWN_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/bmp")  # others are saved
SECONDS_IN_BROWSER = 3600  # for which a browser need not ask for an image again; its pixels never change
# Whatever a file holds: it is no page, and nothing in it runs.
HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
# What Gradio offers and this page does not need: files by other ways, other servers' answers, writing to the disk.
CLOSED = (
    "/gradio_api/file/{path:path}",
    "/gradio_api/proxy={path:path}",
    "/gradio_api/stream/{path:path}",
    "/gradio_api/deep_link",
    "/gradio_api/component_server",
    "/gradio_api/component_server/",
    "/gradio_api/custom_component/{path:path}",
    "/gradio_api/process_recording",
    "/gradio_api/run-history/{path:path}",
    "/gradio_api/vibe-edit",
    "/gradio_api/vibe-edit/",
    "/gradio_api/undo-vibe-edit",
    "/gradio_api/undo-vibe-edit/",
    "/gradio_api/vibe-code",
    "/gradio_api/vibe-code/",
    "/gradio_api/vibe-starter-queries",
    "/gradio_api/vibe-starter-queries/",
    "/monitoring",
    "/monitoring/{path:path}",
)


def _closed(request: Request) -> Response:
    return PlainTextResponse("this page does not offer that", 404)


def make_routes(store: SessionStore) -> list[Route]:
    """Return what is answered before Gradio is asked."""

    def show_file(request: Request) -> Response:
        file = store.find_shown_file(request.path_params["path"])
        if file is None:
            return PlainTextResponse("there is no such picture or file of a session", 403)
        media_type = mimetypes.guess_type(file.name)[0]
        if media_type in SHOWN_TYPES:
            headers = HEADERS | {"Cache-Control": f"private, max-age={SECONDS_IN_BROWSER}"}
            return FileResponse(file, media_type=media_type, headers=headers)
        headers = HEADERS | {"Cache-Control": "no-store"}
        return FileResponse(file, media_type="application/octet-stream", filename=file.name, headers=headers)

    files = Route("/gradio_api/file={path:path}", show_file)
    return [files, *(Route(path, _closed, methods=["GET", "POST"]) for path in CLOSED)]


def make_middleware(names: Iterable[str], pending: PendingUploads) -> Sequence[Middleware]:
    """Return what every request passes, the outermost first.

    Args:
        names: under which the server is asked, see `names_of_server`.
        pending: where uploaded files wait.
    """
    return [Middleware(AllowedHosts, names=names), Middleware(BoundedBodies, pending=pending)]


def accept_uploads_alone(blocks: gr.Blocks, pending: PendingUploads) -> None:
    """Refuse every file that a request names and that was not uploaded, before Gradio fetches or opens it.

    Gradio itself accepts any address of the web, which it downloads, and, of a file that does not say that it is one,
    any path.
    """
    preprocess_data = blocks.preprocess_data

    def check(file: dict) -> dict:
        if not pending.is_waiting(file["path"]):
            raise gr.Error(NOT_UPLOADED, print_exception=False)
        return file

    async def preprocess_checked(block_fn: Any, inputs: list, *args: Any, **kwargs: Any) -> Any:
        client_utils.traverse(inputs, check, client_utils.is_file_obj)
        return await preprocess_data(block_fn, inputs, *args, **kwargs)

    blocks.preprocess_data = preprocess_checked  # type: ignore[method-assign]  # Gradio has no hook for this


def keep_uploads_apart(blocks: gr.Blocks, pending: PendingUploads) -> None:
    """Let a page that was launched write each upload to the folder of its request."""
    # Gradio only opens it, so that any path will do, not a `str` alone.
    blocks.app.uploaded_file_dir = RequestFolder(Path(pending.folder, "none"))  # type: ignore[assignment]
