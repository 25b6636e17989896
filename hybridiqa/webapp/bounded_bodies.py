"""Bounds on what requests bring to the server of the page, and the folder that each upload is written to."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path

from hybridiqa.webapp.allowed_hosts import App, Message, Receive, Scope, Send, answer_plainly
from hybridiqa.webapp.pending_uploads import BusyError, PendingUploads

MAX_BODY_BYTES = 16 * 2**20  # of a request that is no upload; 10,000 uploads can be named in that
UPLOAD_PATH = "/gradio_api/upload"

_request_folder: ContextVar[Path | None] = ContextVar("_request_folder", default=None)


class RequestFolder(os.PathLike):
    """The folder of the upload that is being answered, for a server that knows one folder for all of them."""

    def __init__(self, otherwise: Path):
        self.otherwise = otherwise  # empty, and stays so

    def __fspath__(self) -> str:
        return str(_request_folder.get() or self.otherwise)

    __str__ = __fspath__


class BoundedBodies:
    """Middleware that bounds what requests bring: uploads by the room that is left, other bodies by 16 MB.

    Bytes are counted as they arrive. Of an upload that fails nothing is left; what arrived waits in `pending` before
    the answer names it.
    """

    def __init__(self, app: App, pending: PendingUploads):
        self.app, self.pending = app, pending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self.app(scope, receive, send)
        answer = self._answer_upload if scope["path"].rstrip("/").endswith(UPLOAD_PATH) else self._answer_other
        is_answered = False

        async def send_noted(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await answer(scope, receive, send_noted)
        except BusyError as error:
            if not is_answered:
                await answer_plainly(send, 413, str(error))

    async def _answer_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        num_bytes = 0

        def count(more: int) -> None:
            nonlocal num_bytes
            num_bytes += more
            if num_bytes > MAX_BODY_BYTES:
                raise BusyError(f"at most {MAX_BODY_BYTES // 2**20} MB are accepted in a request that is no upload")

        await self.app(scope, _counted(receive, count), send)

    async def _answer_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = int(dict(scope["headers"]).get(b"content-length", 0))  # a number, as the server has checked
        self.pending.reserve(declared)  # refused before it is sent, where there is no room
        self.pending.release(declared)
        folder, num_reserved = self.pending.new_folder(), 0
        messages: list[Message] = []  # of the answer

        def count(more: int) -> None:
            nonlocal num_reserved
            self.pending.reserve(more)
            num_reserved += more

        async def keep(message: Message) -> None:
            messages.append(message)

        token = _request_folder.set(folder)
        try:
            await self.app(scope, _counted(receive, count), keep)
            num_reserved -= self.pending.add_all(_paths_in(messages))
        finally:
            _request_folder.reset(token)
            self.pending.release(num_reserved)  # all but what waits now: the rest were headers, or it failed
            self.pending.remove_strays(folder)
        for message in messages:
            await send(message)


def _counted(receive: Receive, count: Callable[[int], None]) -> Receive:
    """Return the same, where `count` is told the number of bytes of every part of a body."""

    async def receive_counted() -> Message:
        message = await receive()
        count(len(message.get("body", b"")))
        return message

    return receive_counted


def _paths_in(messages: Sequence[Message]) -> list[Path]:
    """Return the paths with which an upload is answered; none where it failed."""
    if not messages or messages[0]["status"] != 200:
        return []
    return [Path(path) for path in json.loads(b"".join(message.get("body", b"") for message in messages[1:]))]
