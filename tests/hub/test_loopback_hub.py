"""The Hub on loopback refuses what the real one refuses: else the tests that use it would show nothing."""

import base64
import hashlib
import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from fakes.hub_protocol import READ_TOKEN, TOKEN
from fakes.loopback_hub import LoopbackHub

WEIGHTS = b"weights"
OID = hashlib.sha256(WEIGHTS).hexdigest()


def ask(hub, method: str, path: str, body: object = None, token: str | None = TOKEN, **headers: str):
    """Return (status, body, headers) of an answer."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(hub.endpoint + path, data, {"Content-Type": "application/json", **headers}, method=method)
    try:
        with urlopen(request) as answer:
            return answer.status, answer.read(), answer.headers
    except HTTPError as error:
        return error.code, error.read(), error.headers


def commit(hub, *operations: dict, parent: str | None = None, token: str | None = TOKEN) -> tuple[int, str]:
    """Return (status, what was said) of a commit to you/x."""
    header = {"summary": "a commit"} | ({"parentCommit": parent} if parent else {})
    lines = [{"key": "header", "value": header}, *operations]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    status, answer, _ = ask(hub, "POST", "/api/models/you/x/commit/main", body, token)
    return status, answer.decode()


def file(path: str, content: bytes) -> dict:
    return {"key": "file", "value": {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}}


def lfs_file(path: str, oid: str = OID, size: int = len(WEIGHTS)) -> dict:
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, "size": size}}


@pytest.fixture
def repository(hub) -> LoopbackHub:
    hub.add("you/x", {"kept.txt": b"kept"})
    return hub


def test_an_unknown_request_is_refused_and_remembered():
    with LoopbackHub() as hub:
        assert ask(hub, "GET", "/api/models/you/x/likers")[0] == 501
        assert ask(hub, "GET", "/api/models/you/x?surprising=1")[0] == 501
        assert len(hub.unknown) == 2


def test_writing_needs_a_token_that_may_write_there(repository):
    for token, status in ((None, 401), ("hf_wrong", 401), (READ_TOKEN, 403)):
        assert commit(repository, file("a.txt", b"a"), token=token)[0] == status
        assert ask(repository, "POST", "/api/repos/create", {"name": "y"}, token)[0] == status
    assert ask(repository, "POST", "/api/repos/create", {"name": "y", "organization": "somebody"})[0] == 403
    assert ask(repository, "DELETE", "/api/repos/delete", {"name": "x"}, READ_TOKEN)[0] == 403
    assert list(repository.files("you/x")) == ["kept.txt"]


@pytest.mark.parametrize("name", ["a b", "a--b", "a..b", "-a", "a.", "a.git", "", "a" * 97])
def test_names_follow_the_rules(hub, name):
    assert ask(hub, "POST", "/api/repos/create", {"name": name})[0] == 400
    assert hub.repositories == {}


def test_a_name_is_given_once(repository):
    assert ask(repository, "POST", "/api/repos/create", {"name": "x"})[0] == 409


def test_what_is_uploaded_must_be_what_was_announced(repository):
    for oid, size in ((OID, len(WEIGHTS) + 1), ("0" * 64, len(WEIGHTS))):
        assert ask(repository, "PUT", f"/lfs/{oid}/{size}", WEIGHTS)[0] == 400
    assert commit(repository, lfs_file("model.safetensors"))[0] == 400  # nothing was uploaded
    assert ask(repository, "PUT", f"/lfs/{OID}/{len(WEIGHTS)}", WEIGHTS)[0] == 200
    assert commit(repository, lfs_file("model.safetensors", size=1))[0] == 400
    assert commit(repository, lfs_file("model.safetensors"))[0] == 200
    assert repository.files("you/x")["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize("path", ["", "../a", "/a", "a/../../b", ".git/config", "a//b"])
def test_paths_stay_in_the_repository(repository, path):
    assert commit(repository, file(path, b"a"))[0] == 400


def test_a_commit_is_refused_as_a_whole(repository):
    assert commit(repository, file("a.txt", b"a"), file("b.bin", b"\0"))[0] == 400
    assert commit(repository, file("a.txt", b"a"), {"key": "deletedFile", "value": {"path": "none"}})[0] == 404
    assert commit(repository, file("a.txt", b"a"), parent="0" * 40)[0] == 412
    assert list(repository.files("you/x")) == ["kept.txt"]
    head = repository.repositories["model", "you/x"].branches["main"]
    assert commit(repository, file("a.txt", b"a"), parent=head)[0] == 200


@pytest.mark.parametrize(
    "metadata",
    ["license: mine", "tags: one", "license: [", "model-index: [{name: x, results: [{task: {}, metrics: []}]}]"],
)
def test_a_card_with_wrong_metadata_is_refused(repository, metadata):
    card = f"---\n{metadata}\n---\n# x\n"
    assert ask(repository, "POST", "/api/validate-yaml", {"content": card, "repoType": "model"})[0] == 400
    status, said = commit(repository, file("README.md", card.encode()))
    assert status == 400 and "Invalid metadata" in said


def test_what_is_private_is_not_there_without_a_token(hub):
    hub.add("you/secret", {"a.txt": b"a"}, is_private=True)
    for path in ("/api/models/you/secret", "/you/secret/resolve/main/a.txt"):
        status, _, headers = ask(hub, "GET", path, token=None)
        assert status == 401 and headers["X-Error-Code"] == "RepoNotFound"
        assert ask(hub, "GET", path)[0] == 200


def test_files_are_given_whole_or_in_part_with_their_commit(repository):
    status, data, headers = ask(repository, "GET", "/you/x/resolve/main/kept.txt", Range="bytes=1-2")
    assert (status, data, headers["Content-Range"]) == (206, b"ep", "bytes 1-2/4")
    assert headers["X-Repo-Commit"] == repository.repositories["model", "you/x"].branches["main"]
    assert ask(repository, "GET", "/you/x/resolve/main/kept.txt", Range="bytes=9-")[0] == 416
    for path, code in (("main/none", "EntryNotFound"), ("v9/kept.txt", "RevisionNotFound")):
        status, _, headers = ask(repository, "GET", f"/you/x/resolve/{path}")
        assert (status, headers["X-Error-Code"]) == (404, code)
