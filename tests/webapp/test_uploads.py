"""Uploads on their way to a session: what arrives is counted and bounded, and of what fails nothing is left."""

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybridiqa.webapp.bounded_bodies import MAX_BODY_BYTES, BoundedBodies, RequestFolder
from hybridiqa.webapp.pending_uploads import NOT_UPLOADED, WAIT_SECONDS, BusyError, PendingUploads, Storage


@pytest.fixture
def uploads(tmp_path) -> PendingUploads:
    return PendingUploads(tmp_path / "uploads", Storage(1000), 600)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def request(uploads: PendingUploads, chunks, path="/gradio_api/upload", fail=None, headers=()) -> tuple[int, bytes]:
    """Send a body in parts to a server that writes it to one file, and names that; return the status and the answer."""
    folder, sent = RequestFolder(uploads.folder / "none"), []

    async def server(scope, receive, send):
        target = Path(folder) / "sha" / "name"
        target.parent.mkdir(parents=True, exist_ok=True)
        is_more = True
        with open(target, "ab") as file:
            while is_more:
                message = await receive()
                file.write(message["body"])
                is_more = message["more_body"]
        if isinstance(fail, Exception):
            raise fail
        await send({"type": "http.response.start", "status": fail or 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps([str(target)]).encode()})

    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    asyncio.run(BoundedBodies(server, uploads)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_an_upload_waits_in_a_folder_of_its_own_until_it_is_taken(uploads, tmp_path):
    paths = [Path(json.loads(request(uploads, [b"abc", b"de"])[1])[0]) for _ in range(2)]
    assert paths[0] != paths[1] and paths[0].parent.name == "sha"
    assert uploads.num_bytes == uploads.storage.num_bytes == 10 and all(map(uploads.is_waiting, paths))
    assert uploads.take(paths[0], tmp_path / "session/a") == 5 and (tmp_path / "session/a").read_bytes() == b"abcde"
    assert files_in(uploads.folder) == [paths[1]] and not paths[0].parent.parent.exists()
    assert uploads.num_bytes == uploads.storage.num_bytes == 5
    with pytest.raises(ValueError, match=NOT_UPLOADED):
        uploads.take(paths[0], tmp_path / "session/b")
    assert not uploads.is_waiting(["a"]) and not uploads.is_waiting(None) and not uploads.is_waiting("/etc/passwd")


def test_no_more_arrives_than_there_is_room_for_and_what_fails_leaves_nothing(uploads):
    assert request(uploads, [b"x" * 300, b"x" * 300])[0] == 200
    kept = files_in(uploads.folder)
    for chunks, options in (
        ([b"x" * 200, b"x" * 200, b"x" * 201], {}),
        ([b"x"], {"headers": [(b"content-length", b"601")]}),
        ([b"x"], {"headers": [(b"content-length", b"9" * 30)]}),
    ):
        status, text = request(uploads, chunks, **options)
        assert status == 413 and b"accepted before they are scored; try again later" in text
    assert files_in(uploads.folder) == kept and uploads.num_bytes == uploads.storage.num_bytes == 600


def test_an_upload_that_fails_or_breaks_off_leaves_nothing(uploads):
    with pytest.raises(OSError, match="gone"):
        request(uploads, [b"x" * 100], fail=OSError("gone"))
    assert request(uploads, [b"x" * 100], fail=400)[0] == 400
    assert not files_in(uploads.folder) and uploads.num_bytes == uploads.storage.num_bytes == 0


def test_other_requests_are_bounded_and_no_uploads(uploads):
    chunk = b"x" * 2**20
    status, text = request(uploads, [chunk] * (MAX_BODY_BYTES // len(chunk) + 1), path="/gradio_api/run/score")
    assert status == 413 and b"at most 16 MB are accepted in a request that is no upload" in text
    assert request(uploads, [chunk], path="/gradio_api/run/score")[0] == 200
    assert not uploads.waiting and uploads.num_bytes == 0


def test_what_nobody_takes_is_deleted_in_the_end(uploads, monkeypatch):
    request(uploads, [b"abc"])
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("hybridiqa.webapp.pending_uploads.time", SimpleNamespace(monotonic=lambda: clock.now))
    path = Path(json.loads(request(uploads, [b"de"])[1])[0])
    uploads.waiting = {path: uploads.waiting[path]}
    clock.now = WAIT_SECONDS
    uploads.expire()
    assert uploads.is_waiting(path)
    clock.now += 1
    uploads.expire()
    assert not uploads.waiting and not path.exists() and uploads.num_bytes == 3


def test_the_room_of_a_page_is_shared():
    storage = Storage(10)
    storage.reserve(7)
    with pytest.raises(BusyError, match="there is no room for this at the moment; try again in some minutes"):
        storage.reserve(4)
    storage.release(7)
    storage.reserve(10)
    assert storage.room == 0


def test_uploads_lie_at_their_real_place_whatever_link_leads_there(tmp_path):
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "link")
    uploads = PendingUploads(tmp_path / "link/uploads", Storage(100), 100)
    path = Path(json.loads(request(uploads, [b"abc"])[1])[0])
    assert uploads.take(path, tmp_path / "session") == 3
