"""Answers of a Hub on loopback: the calls of the Hub's HTTP protocol that pushing and loading use.

It checks what the real one checks: a token to write, names, LFS hashes and sizes, the parent commit, the metadata of
cards, paths. What it does not know is answered with 501 and listed in the Hub's `unknown`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

from fakes.hub_repositories import (
    GIT_ATTRIBUTES,
    LFS_SUFFIXES,
    MAX_REGULAR_BYTES,
    NAME,
    PREFIXES,
    SDKS,
    File,
    Refused,
    Repository,
    card_errors,
)

ACCOUNT, TOKEN, READ_TOKEN = "you", "hf_loopback_write", "hf_loopback_read"
DATE = "2026-01-01T00:00:00.000Z"


class HubProtocol:
    """Answers to one connection's requests, which `loopback_hub` reads (`body`) and sends.

    An answer is what becomes JSON, or (status, body, headers).
    """

    body: bytes

    def _answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes, dict[str, str]]:
        for method, pattern, answer in ROUTES:
            match = pattern.fullmatch(path)
            if match and self.command in method:
                parts = {key: unquote(value) if value else value for key, value in match.groupdict().items()}
                result = answer(self, query=query, **parts)
                return result if isinstance(result, tuple) else (200, json.dumps(result).encode(), {})
        self.hub.unknown.append(f"{self.command} {self.path}")
        raise Refused(501, f"the loopback Hub does not know {self.command} {self.path}")

    def _json(self) -> dict:
        return json.loads(self.body)

    def _fields(self) -> dict[str, list]:
        """Return a form's or a JSON's fields, each as a list."""
        if "json" in self.headers.get("Content-Type", ""):
            return {key: value if isinstance(value, list) else [value] for key, value in self._json().items()}
        return parse_qs(self.body.decode())

    def _token(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        if token and token not in (TOKEN, READ_TOKEN):
            raise Refused(401, "Invalid credentials in Authorization header")
        return token or None

    def _need_write(self, namespace: str | None = None) -> None:
        token = self._token()
        if token is None:
            raise Refused(401, "Invalid username or password.")
        if token != TOKEN or namespace not in (None, ACCOUNT):
            raise Refused(403, "You don't have the rights to write under this namespace")

    def _repository(self, kind: str, name: str) -> Repository:
        repository, token = self.hub.repositories.get((kind, name)), self._token()
        if repository is None or (repository.is_private and token is None):
            raise Refused(404 if token else 401, "Repository not found", "RepoNotFound")
        return repository

    def whoami(self, query: dict) -> dict:
        token = self._token()
        if token is None:
            raise Refused(401, "Invalid username or password.")
        role = "write" if token == TOKEN else "read"
        access_token = {"displayName": "loopback", "role": role}
        return {
            "type": "user",
            "name": ACCOUNT,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": access_token},
        }

    def create(self, query: dict) -> dict:
        fields = self._json()
        kind, name = fields.get("type") or "model", fields["name"]
        namespace = fields.get("organization") or ACCOUNT
        self._need_write(namespace)
        if not NAME.fullmatch(name):
            raise Refused(400, f"Invalid repo name: {namespace}/{name}")
        if kind == "space" and fields.get("sdk") not in SDKS:
            raise Refused(400, "a Space needs an sdk")
        repo_id, is_private = f"{namespace}/{name}", fields.get("private") or fields.get("visibility") == "private"
        url = f"{self.hub.endpoint}/{PREFIXES[kind]}{repo_id}"
        if (kind, repo_id) in self.hub.repositories:
            body = json.dumps({"error": f"You already created this {kind} repo", "url": url}).encode()
            return 409, body, {"X-Error-Message": f"You already created this {kind} repo"}
        repository = self.hub.repositories[kind, repo_id] = Repository(kind, repo_id, bool(is_private))
        repository.commit("initial commit", {".gitattributes": self.hub.store(".gitattributes", GIT_ATTRIBUTES)})
        return {"url": url, "name": repo_id, "id": repo_id}

    def delete(self, query: dict) -> dict:
        fields = self._json()
        namespace = fields.get("organization") or ACCOUNT
        self._need_write(namespace)
        repository = self._repository(fields.get("type") or "model", f"{namespace}/{fields['name']}")
        del self.hub.repositories[repository.kind, repository.name]
        return {}

    def validate_yaml(self, query: dict) -> dict:
        fields = self._json()
        errors = [{"message": message} for message in card_errors(fields["content"], fields["repoType"])]
        body = json.dumps({"errors": errors, "warnings": []}).encode()
        return (400 if errors else 200), body, {}

    def preupload(self, query: dict, kind: str, name: str, revision: str) -> dict:
        self._need_write(name.split("/")[0])
        _, files = self._repository(kind, name).resolve(revision)
        answers = []
        for file in self._json()["files"]:
            is_lfs = file["path"].endswith(LFS_SUFFIXES) or file["size"] > MAX_REGULAR_BYTES
            there = files.get(file["path"])
            oid = there and (there.sha256 if there.is_lfs else there.git_oid)
            answer = {"path": file["path"], "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False}
            answers.append(answer | ({"oid": oid} if oid else {}))
        return {"files": answers}

    def lfs_batch(self, query: dict, kind: str, name: str) -> dict:
        self._need_write(name.split("/")[0])
        self._repository(kind, name)
        fields, objects = self._json(), []
        if fields["operation"] != "upload" or fields.get("hash_algo") != "sha256" or "basic" not in fields["transfers"]:
            raise Refused(422, "only basic uploads by sha256 are known")
        for entry in fields["objects"]:
            href = f"{self.hub.storage}/lfs/{entry['oid']}/{entry['size']}"
            actions = {"upload": {"href": href, "header": {}}}
            objects.append(entry | ({} if entry["oid"] in self.hub.blobs else {"actions": actions}))
        return {"transfer": "basic", "objects": objects}

    def lfs_put(self, query: dict, oid: str, size: str) -> dict:
        if hashlib.sha256(self.body).hexdigest() != oid or len(self.body) != int(size):
            raise Refused(400, f"the bytes are not those announced: {oid}, {size} bytes")
        self.hub.blobs[oid] = self.body
        return {}

    def commit(self, query: dict, kind: str, name: str, revision: str) -> dict:
        self._need_write(name.split("/")[0])
        repository = self._repository(kind, name)
        if revision not in repository.branches or query:
            raise Refused(400, f"commits go to a branch, got {revision} {query}")
        head, files = repository.resolve(revision)
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        header = lines.pop(0)
        if header["key"] != "header" or not header["value"].get("summary"):
            raise Refused(400, "a commit starts with its header and summary")
        if header["value"].get("parentCommit", head) != head:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(files)
        for line in lines:
            self._apply(files, line["key"], line["value"], kind)
        oid = repository.commit(header["value"]["summary"], files, revision)
        url = f"{self.hub.endpoint}/{PREFIXES[kind]}{name}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}

    def _apply(self, files: dict[str, File], key: str, value: dict, kind: str) -> None:
        path = value["path"]
        parts = path.rstrip("/").split("/")
        if not path or any(part in ("", ".", "..", ".git") for part in parts):
            raise Refused(400, f"Invalid path: {path!r}")
        if key == "file":
            data = base64.b64decode(value["content"], validate=True)
            if len(data) > MAX_REGULAR_BYTES or (b"\0" in data and data):
                raise Refused(400, f"{path} is large or binary and must be uploaded by LFS")
            if path == "README.md" and (errors := card_errors(data.decode(), kind)):
                raise Refused(400, f"Invalid metadata in README.md: {errors}")
            files[path] = self.hub.store(path, data)
        elif key == "lfsFile":
            if value["algo"] != "sha256" or len(self.hub.blobs.get(value["oid"], b"")) != value["size"]:
                raise Refused(400, f"{path}: there is no LFS object {value['oid']} of {value['size']} bytes")
            files[path] = self.hub.store(path, self.hub.blobs[value["oid"]])
        elif key == "deletedFile":
            if path not in files:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            del files[path]
        else:
            raise Refused(400, f"a commit of {key} is not known")

    def info(self, query: dict, kind: str, name: str, revision: str | None = None) -> dict:
        if set(query) - {"blobs", "expand", "securityStatus"}:
            raise ValueError(f"unknown query {query}")
        repository = self._repository(kind, name)
        commit, files = repository.resolve(revision or "main")
        siblings = [
            {"rfilename": path} | ({"size": file.size, "blobId": file.git_oid} if "blobs" in query else {})
            for path, file in sorted(files.items())
        ]
        return {
            "_id": "0" * 24,
            "id": name,
            "modelId": name,
            "author": name.split("/")[0],
            "sha": commit,
            "private": repository.is_private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "createdAt": DATE,
            "lastModified": DATE,
            "siblings": siblings,
        }

    def tree(self, query: dict, kind: str, name: str, revision: str, folder: str | None = None) -> tuple:
        if set(query) - {"recursive", "expand", "cursor", "limit"}:
            raise ValueError(f"unknown query {query}")
        commit, files = self._repository(kind, name).resolve(revision)
        start = f"{folder}/" if folder else ""
        is_recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = {}
        for path, file in sorted(files.items()):
            if not path.startswith(start):
                continue
            inner = path.removeprefix(start).split("/")
            for depth in range(1, len(inner) if is_recursive else min(len(inner), 2)):
                parent = start + "/".join(inner[:depth])
                oid = hashlib.sha1(f"{commit}{parent}".encode()).hexdigest()
                entries[parent] = {"type": "directory", "oid": oid, "size": 0, "path": parent}
            if is_recursive or len(inner) == 1:
                entries[path] = file.entry(path)
        if folder and not entries:
            raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        first = int(query.get("cursor", ["0"])[0])
        page, last = list(entries.values())[first : first + self.hub.page_size], first + self.hub.page_size
        headers = {}
        if last < len(entries):
            kept = "&".join(f"{key}={value[0]}" for key, value in query.items() if key != "cursor")
            url = f"{self.hub.endpoint}{urlsplit(self.path).path}?{kept}&cursor={last}"
            headers["Link"] = f'<{url}>; rel="next"'
        return 200, json.dumps(page).encode(), headers

    def paths_info(self, query: dict, kind: str, name: str, revision: str) -> list[dict]:
        commit, files = self._repository(kind, name).resolve(revision)
        entries = []
        for path in self._fields()["paths"]:
            if path in files:
                entries.append(files[path].entry(path))
            elif any(other.startswith(f"{path}/") for other in files):
                oid = hashlib.sha1(f"{commit}{path}".encode()).hexdigest()
                entries.append({"type": "directory", "oid": oid, "size": 0, "path": path})
        return entries

    def refs(self, query: dict, kind: str, name: str) -> dict:
        repository = self._repository(kind, name)

        def listed(names: dict[str, str], where: str) -> list[dict]:
            return [{"name": key, "ref": f"refs/{where}/{key}", "targetCommit": oid} for key, oid in names.items()]

        return {
            "branches": listed(repository.branches, "heads"),
            "tags": listed(repository.tags, "tags"),
            "converts": [],
        }

    def create_tag(self, query: dict, kind: str, name: str, revision: str) -> dict:
        self._need_write(name.split("/")[0])
        repository = self._repository(kind, name)
        repository.tags[self._json()["tag"]] = repository.resolve(revision)[0]
        return {}

    def resolve(self, query: dict, name: str, revision: str, path: str, kind: str = "model") -> tuple:
        commit, files = self._repository(kind, name).resolve(revision)
        if path not in files:
            message, commit_header = f"{path} does not exist on {revision}", {"X-Repo-Commit": commit}
            raise Refused(404, message, "EntryNotFound", commit_header)
        file = files[path]
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not file.is_lfs:
            return self._bytes(self.hub.blobs[file.sha256], headers | {"ETag": f'"{file.git_oid}"'})
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        return 302, b"", headers | linked | {"Location": f"{self.hub.storage}/cdn/{file.sha256}"}

    def cdn(self, query: dict, oid: str) -> tuple:
        return self._bytes(self.hub.blobs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _bytes(self, data: bytes, headers: dict[str, str]) -> tuple:
        headers = headers | {"Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if self.command == "HEAD":
            return 200, b"", headers | {"Content-Length": str(len(data))}
        if not wanted:
            return 200, data, headers
        first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        if first > last:
            raise Refused(416, "Range Not Satisfiable", None, {"Content-Range": f"bytes */{len(data)}"})
        return 206, data[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"}


def _routes() -> list[tuple[tuple[str, ...], re.Pattern, Callable]]:
    repository = r"/api/(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)"
    revision, handler = r"(?P<revision>[^/]+)", HubProtocol
    routes = [
        ("GET", r"/api/whoami-v2", handler.whoami),
        ("GET", r"/api/agent-harnesses", lambda handler, query: {"standardEnvVars": [], "harnesses": {}}),
        ("POST", r"/api/repos/create", handler.create),
        ("DELETE", r"/api/repos/delete", handler.delete),
        ("POST", r"/api/validate-yaml", handler.validate_yaml),
        ("POST", rf"{repository}/preupload/{revision}", handler.preupload),
        ("POST", rf"{repository}/commit/{revision}", handler.commit),
        ("GET", repository, handler.info),
        ("GET", rf"{repository}/revision/{revision}", handler.info),
        ("GET", rf"{repository}/tree/{revision}(/(?P<folder>.+))?", handler.tree),
        ("POST", rf"{repository}/paths-info/{revision}", handler.paths_info),
        ("GET", rf"{repository}/refs", handler.refs),
        ("POST", rf"{repository}/tag/{revision}", handler.create_tag),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})/(?P<size>\d+)", handler.lfs_put),
        ("GET HEAD", r"/cdn/(?P<oid>[0-9a-f]{64})", handler.cdn),
    ]
    for kind, prefix in PREFIXES.items():
        name = r"(?P<name>[^/]+/[^/]+)" if kind != "model" else r"(?P<name>(?!datasets/|spaces/)[^/]+/[^/]+)"
        routes.append(("POST", rf"/{prefix}{name}\.git/info/lfs/objects/batch", _with_kind(handler.lfs_batch, kind)))
        file = rf"/{prefix}{name}/resolve/{revision}/(?P<path>.+)"
        routes.append(("GET HEAD", file, _with_kind(handler.resolve, kind)))
    return [(tuple(method.split()), re.compile(pattern), answer) for method, pattern, answer in routes]


def _with_kind(answer: Callable, kind: str) -> Callable:
    return lambda handler, **parts: answer(handler, kind=kind, **parts)


ROUTES = _routes()
