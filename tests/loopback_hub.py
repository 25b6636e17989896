"""A Hub on loopback: the part of the Hugging Face Hub's HTTP protocol that pushing and loading use.

    with LoopbackHub() as hub:
        subprocess.run([...], env=os.environ | hub.environment(home))

It checks what the real one checks: a token to write, names, LFS hashes and sizes, the parent commit, the metadata of
cards, paths. What it does not know it answers with 501 and lists in `unknown`. `fail` makes the n-th request fail.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

ACCOUNT, TOKEN, READ_TOKEN = "you", "hf_loopback_write", "hf_loopback_read"
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}
NAME = re.compile(r"(?![-.])(?!.*(--|\.\.))[\w.-]{1,96}(?<![-.])(?<!\.git)")
LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".pt", ".pth", ".png", ".jpg", ".webp", ".arrow", ".zip", ".npz")
MAX_REGULAR_BYTES = 10 * 2**20
GIT_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc0-1.0", "openrail", "other", "unknown")
SDKS = ("gradio", "static", "docker")
DATE = "2026-01-01T00:00:00.000Z"
SLOW_SECONDS = 2.5
IMPATIENT = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"}  # variables of a process, in seconds


class Refused(Exception):
    """An answer that is an error: HTTP status, the Hub's code for it, and its words."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


@dataclass
class File:
    """A file as a commit holds it; the bytes are elsewhere, by SHA-256."""

    sha256: str
    git_oid: str
    size: int
    is_lfs: bool

    def entry(self, path: str) -> dict:
        """As the Hub lists it."""
        entry = {"type": "file", "path": path, "oid": self.git_oid, "size": self.size}
        return entry | ({"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 134}} if self.is_lfs else {})


@dataclass
class Repository:
    """Commits, the newest last, and the names that point to them."""

    kind: str
    name: str
    is_private: bool
    commits: list[tuple[str, str, dict[str, File]]] = field(default_factory=list)  # (oid, title, files by path)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, File], branch: str = "main") -> str:
        content = json.dumps([title, len(self.commits), sorted((path, file.sha256) for path, file in files.items())])
        oid = hashlib.sha1(f"{self.kind}/{self.name}{content}".encode()).hexdigest()
        self.commits.append((oid, title, files))
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> tuple[str, dict[str, File]]:
        """(commit, files by path) of a branch, a tag or a commit."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        for commit, _, files in self.commits:
            if commit == oid:
                return commit, files
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")


@dataclass
class Fault:
    """What happens to the `at`-th request (from 1) that matches, and with `is_lasting` to all later ones.

    `how`: "500"; "429" with Retry-After; "cut before", the connection breaks before the request is heeded; "cut after",
    it breaks in the middle of the answer; "slow", the answer stops in the middle for longer than `IMPATIENT` waits.
    """

    how: str
    at: int
    matching: re.Pattern
    is_lasting: bool
    num_seen: int = 0

    def applies(self, request: str) -> bool:
        if self.matching.search(request):
            self.num_seen += 1
            return self.num_seen == self.at or (self.is_lasting and self.num_seen > self.at)
        return False


def git_oid(data: bytes) -> str:
    """What git calls a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def card_errors(content: str, kind: str) -> list[str]:
    """What is wrong with the metadata on top of a README.md."""
    block = FRONT_MATTER.match(content)
    if block is None:
        return ["Missing configuration in README"] if kind == "space" else []
    try:
        data = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        return [f"the YAML cannot be parsed: {error}"]
    if not isinstance(data, dict):
        return ["the YAML is not a mapping"]
    errors = []
    licences = data.get("license", [])
    for licence in licences if isinstance(licences, list) else [licences]:
        if licence not in LICENCES:
            errors.append(f'"license" must be one of {", ".join(LICENCES)}, got {licence!r}')
    for name in ("tags", "datasets", "metrics"):
        if name in data and not (isinstance(data[name], list) and all(isinstance(item, str) for item in data[name])):
            errors.append(f'"{name}" must be a list of strings')
    for entry in data.get("model-index", []) if kind == "model" else []:
        for result in entry.get("results", [{}]):
            for part, needed in (("task", ("type",)), ("dataset", ("type", "name"))):
                errors += [
                    f'"model-index": {part}.{key} is required' for key in needed if key not in result.get(part, {})
                ]
            for metric in result.get("metrics", []):
                if "type" not in metric or not isinstance(metric.get("value"), int | float | str):
                    errors.append('"model-index": a metric needs a type and a value')
    if kind == "space" and data.get("sdk") not in SDKS:
        errors.append(f'"sdk" must be one of {", ".join(SDKS)}')
    if kind == "dataset":
        for config in data.get("configs", []):
            if "config_name" not in config or "data_files" not in config:
                errors.append('"configs": config_name and data_files are required')
    return errors


class LoopbackHub:
    """The server, with its repositories, in a thread; a context manager."""

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.faults: list[Fault] = []
        self.on_request: Callable[[str], object] = lambda request: None
        self.page_size = 3  # small, so that listings have several pages
        self.lock = threading.RLock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.storage = f"http://localhost:{self.server.server_port}"  # another host, as the real Hub's

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Variables with which a process of its own has this Hub, and a cache of its own below `home`."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": token or "",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "60",
            "HF_HUB_ETAG_TIMEOUT": "60",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def start(self, *command: object, home: Path, **options: object) -> subprocess.Popen:
        """Start Python in a process of its own.

        Args:
            home: its cache.
            options: of `subprocess.Popen`, and `token` and (more variables) `environment`.
        """
        token, more = options.pop("token", TOKEN), options.pop("environment", {})
        threads = {"OMP_NUM_THREADS": "1"}  # on their number the last bits of a score depend
        environment = os.environ | threads | self.environment(home, token) | more
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, *map(str, command)], env=environment, **pipes | options)

    def run(self, *command: object, home: Path, **options: object) -> subprocess.CompletedProcess:
        """As `start`, to its end."""
        process = self.start(*command, home=home, **options)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def fail(self, how: str, at: int = 1, matching: str = "", is_lasting: bool = False) -> None:
        """Let the `at`-th request from now on whose "METHOD /path" matches the pattern fail; see `Fault`."""
        self.faults.append(Fault(how, at, re.compile(matching), is_lasting))

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", is_private: bool = False) -> str:
        """A repository as if somebody had pushed these files; its newest commit."""
        repository = self.repositories.setdefault((kind, name), Repository(kind, name, is_private))
        stored = {path: self.store(path, data) for path, data in files.items()}
        return repository.commit("Initial commit", stored)

    def store(self, path: str, data: bytes) -> File:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        return File(sha256, git_oid(data), len(data), path.endswith(LFS_SUFFIXES) or len(data) > MAX_REGULAR_BYTES)

    def files(self, name: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        """The bytes of every file of a repository, without the `.gitattributes` that the Hub adds."""
        _, files = self.repositories[kind, name].resolve(revision)
        return {path: self.blobs[file.sha256] for path, file in sorted(files.items()) if path != ".gitattributes"}

    def state(self) -> dict:
        """All that a push can change, to be compared."""
        return {
            key: (repository.is_private, [commit for commit, _, _ in repository.commits], dict(repository.branches))
            for key, repository in self.repositories.items()
        }


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client gave up
            self.close_connection = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        request, hub = f"{self.command} {unquote(url.path)}", self.hub
        with hub.lock:
            hub.requests.append(request)
            hub.on_request(request)
            fault = next((fault for fault in hub.faults if fault.applies(request)), None)
        self.body = self._read_body(is_cut=fault is not None and fault.how == "cut before")
        if self.body is None:
            return
        if fault is not None and fault.how == "429":
            return self._send(429, b'{"error": "Too many requests"}', {"Retry-After": "1"})
        if fault is not None and fault.how == "500":
            return self._send(500, b'{"error": "Internal error"}', {})
        try:
            with hub.lock:
                status, data, headers = self._answer(url.path, parse_qs(url.query))
        except Refused as error:
            headers = {"X-Error-Message": str(error), **error.headers}
            headers |= {"X-Error-Code": error.code} if error.code else {}
            status, data = error.status, json.dumps({"error": str(error)}).encode()
        except Exception as error:  # a mistake in here must not look like one of the client's
            hub.unknown.append(f"{request}: {error!r}")
            status, data, headers = 501, b"", {}
        self._send(status, data, headers, fault and fault.how)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _read_body(self, is_cut: bool) -> bytes | None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = iter(lambda: self._read_chunk(), b"")
            body = b"".join(parts)
        else:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length // 2 if is_cut else length)
        if is_cut:
            self.close_connection = True
            self.connection.close()
            return None
        return body

    def _read_chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def _send(self, status: int, data: bytes, headers: dict[str, str], fault: str | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(data) // 2 if fault in ("cut after", "slow") else len(data)
        self.wfile.write(data[:half])
        self.wfile.flush()
        if fault == "cut after":
            self.close_connection = True
            self.connection.close()
        elif fault == "slow":
            time.sleep(SLOW_SECONDS)
            self.wfile.write(data[half:])

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
        """A form's or a JSON's fields, each as a list."""
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
    revision, handler = r"(?P<revision>[^/]+)", _Handler
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
