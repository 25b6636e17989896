"""All visitors of a page: who goes on with which visit, and when what they brought is deleted."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hybridiqa.visits import Visit

MAX_IDLE_SECONDS = 12 * 3600  # without a request, though a tab seems open: programs do not say when they leave


@dataclass
class _Entry:
    visit: Visit
    sessions: set[str] = field(default_factory=set)
    last_seen: float = 0.0


class Visitors:
    """All visitors, by the secret key that each one's browser keeps, and by the sessions of their tabs.

    A visit whose tabs are all closed stays for a while, so that a page can be loaded again; then it is deleted.

    Args:
        folder: of their folders.
        make_visit: a new folder -> a visit.
        keep_seconds: for which a visit is kept without an open tab.
    """

    def __init__(self, folder: Path, make_visit: Callable[[Path], Visit], keep_seconds: float):
        self.folder, self.make_visit, self.keep_seconds = folder, make_visit, keep_seconds
        self.entries: dict[str, _Entry] = {}
        self.keys: dict[str, str] = {}  # by session, also where its tab is gone: a connection that broke may come back
        self.lock = threading.Lock()

    def open(self, session: str, key: str | None = None) -> str:
        """Let a session go on with the visit of that key, or begin a new one; the key of the visit.

        A session that has a visit already keeps it, unless another's key is given.
        """
        with self.lock:
            key = key if key in self.entries else self.keys.get(session)
            if key not in self.entries:
                key = secrets.token_urlsafe(24)
                self.entries[key] = _Entry(self.make_visit(self.folder / secrets.token_hex(16)))
            if self.keys.get(session, key) != key:
                self._leave(session)
            self.keys[session] = key
            self.entries[key].sessions.add(session)
            self.entries[key].last_seen = time.monotonic()
            return key

    def of(self, session: str) -> Visit:
        """The visit of a session, begun if need be."""
        return self.entries[self.open(session)].visit

    def leave(self, session: str) -> None:
        """A tab was closed, or its connection broke; where it was the visit's last one, its scoring ends."""
        with self.lock:
            self._leave(session)

    def _leave(self, session: str) -> None:
        entry = self.entries.get(self.keys.get(session, ""))
        if entry is None:
            return
        entry.sessions.discard(session)
        entry.last_seen = time.monotonic()
        if not entry.sessions:
            entry.visit.stop()

    def delete(self, session: str) -> None:
        """Delete the visit of a session now."""
        with self.lock:
            self._delete(self.keys.get(session, ""))

    def expire(self) -> None:
        """Delete the visits that nobody has used for long."""
        now = time.monotonic()
        with self.lock:
            for key, entry in list(self.entries.items()):
                is_in_use = entry.sessions or entry.visit.scoring.locked()
                if now - entry.last_seen > (MAX_IDLE_SECONDS if is_in_use else self.keep_seconds):
                    self._delete(key)

    def _delete(self, key: str) -> None:
        entry = self.entries.pop(key, None)
        if entry is None:
            return
        self.keys = {session: other for session, other in self.keys.items() if other != key}
        entry.visit.remove()
        shared = set().union(*(other.visit.uploads for other in self.entries.values()))
        for path in entry.visit.uploads - shared:  # two visitors' equal uploads are one file
            with suppress(OSError):
                path.unlink()
