"""Hub on loopback, for processes that have to do with the Hugging Face Hub.

    with LoopbackHub() as hub:
        hub.run("-c", "...", home=tmp_path)

What it holds stands in `hub_repositories`, what it answers in `hub_protocol`. `fail` makes the n-th request fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fakes.fresh_python import ONE_THREAD, run_fresh
from fakes.hub_protocol import TOKEN, HubProtocol
from fakes.hub_repositories import LFS_SUFFIXES, MAX_REGULAR_BYTES, File, Refused, Repository, git_oid

SLOW_SECONDS = 1.5
IMPATIENT = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"}  # variables of a process, in seconds


@dataclass
class Fault:
    """Fault of the `at`-th request (from 1) that matches, and with `is_lasting` of all later ones.

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


class LoopbackHub:
    """Server, with its repositories, in a thread; a context manager."""

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.faults: list[Fault] = []
        self.on_request: Callable[[str], object] = lambda request: None
        self.page_size = 3  # small, so that listings have several pages
        self.slow_seconds = SLOW_SECONDS
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
        """Return variables with which a process of its own has this Hub, and a cache of its own below `home`."""
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

    def start(self, *command: object, home: Path, **options: Any) -> subprocess.Popen:
        """Start Python in a process of its own, to talk to.

        Args:
            home: its cache.
            options: of `subprocess.Popen`, and `token` and (more variables) `environment`.
        """
        token, more = options.pop("token", TOKEN), options.pop("environment", None) or {}
        variables = os.environ | ONE_THREAD | self.environment(home, token) | more
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, *map(str, command)], env=variables, **(pipes | options))

    def run(self, *command: object, home: Path, **options: Any) -> subprocess.CompletedProcess:
        """Run Python in a process of its own, to its end; the arguments are those of `start`.

        It is forked from one that has loaded the libraries, unless there are other options than `cwd`, `token` and
        `environment`.
        """
        if set(options) - {"cwd", "token", "environment"}:
            process = self.start(*command, home=home, **options)
            stdout, stderr = process.communicate()
            return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
        token, more = options.get("token", TOKEN), options.get("environment") or {}
        variables = os.environ | ONE_THREAD | self.environment(home, token) | more
        return run_fresh(command, variables, options.get("cwd"))

    def fail(self, how: str, at: int = 1, matching: str = "", is_lasting: bool = False) -> None:
        """Let the `at`-th request from now on whose "METHOD /path" matches the pattern fail; see `Fault`."""
        self.faults.append(Fault(how, at, re.compile(matching), is_lasting))

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", is_private: bool = False) -> str:
        """Add a repository as if somebody had pushed these files; return its newest commit."""
        repository = self.repositories.setdefault((kind, name), Repository(kind, name, is_private))
        stored = {path: self.store(path, data) for path, data in files.items()}
        return repository.commit("Initial commit", stored)

    def store(self, path: str, data: bytes) -> File:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        return File(sha256, git_oid(data), len(data), path.endswith(LFS_SUFFIXES) or len(data) > MAX_REGULAR_BYTES)

    def files(self, name: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        """Return the bytes of every file of a repository, without the `.gitattributes` that the Hub adds."""
        _, files = self.repositories[kind, name].resolve(revision)
        return {path: self.blobs[file.sha256] for path, file in sorted(files.items()) if path != ".gitattributes"}

    def state(self) -> dict:
        """Return all that a push can change, to be compared."""
        return {
            key: (repository.is_private, [commit for commit, _, _ in repository.commits], dict(repository.branches))
            for key, repository in self.repositories.items()
        }


class _Handler(HubProtocol, BaseHTTPRequestHandler):
    """Connection."""

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
            time.sleep(self.hub.slow_seconds)
            self.wfile.write(data[half:])
