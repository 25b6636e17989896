"""All visitors of a page: who goes on with which visit, and when what they brought is deleted."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hybridiqa.webapp.pending_uploads import BusyError
from hybridiqa.webapp.session import Visit

MAX_IDLE_SECONDS = 12 * 3600  # without a request, though a tab seems open: programs do not say when they leave
EMPTY_SECONDS = 300  # for which a visit is kept that holds nothing: the next request begins it anew
MAX_SESSION_LENGTH = 100  # letters of what a tab or a program calls its session; Gradio's have about 11 and 36
MAX_SESSIONS_A_VISIT = 100  # each time that a page is loaded is another one


@dataclass
class _Entry:
    visit: Visit
    sessions: dict[str, bool] = field(default_factory=dict)  # whether each is open; a connection may come back
    last_seen: float = 0.0


class Visitors:
    """All visitors, by the secret key that each one's browser keeps, and by the sessions of their tabs.

    A visit whose tabs are all closed stays for a while, so that a page can be loaded again; then it is deleted.

    Args:
        folder: of their folders.
        make_visit: the name of a free folder -> a visit.
        keep_seconds: for which a visit is kept without an open tab.
        max_visits: at a time; where there are more, those that hold nothing give way.
    """

    def __init__(self, folder: Path, make_visit: Callable[[Path], Visit], keep_seconds: float, max_visits: int = 1000):
        self.folder, self.make_visit, self.keep_seconds = folder, make_visit, keep_seconds
        self.max_visits = max_visits
        self.entries: dict[str, _Entry] = {}  # by key
        self.keys: dict[str, str] = {}  # by session
        self.empty_keys: dict[str, str] = {}  # by session, of visits that held nothing and were forgotten
        self.lock = threading.Lock()

    def open(self, session: str | None, key: str | None = None) -> str:
        """Let a session go on with the visit of that key, or begin a new one; the key of the visit.

        A session that has a visit already keeps it, unless another's key is given.

        Raises:
            ValueError: no session, which all that call so would share; or too many visits.
        """
        if not session or len(session) > MAX_SESSION_LENGTH:
            raise ValueError(
                f"this call needs a session_hash of its own, of at most {MAX_SESSION_LENGTH} letters that nobody can "
                "guess: by it a program finds its pictures again (gradio_client sends one)"
            )
        with self.lock:
            if key not in self.entries:
                key = self.keys.get(session) or self.empty_keys.pop(session, None) or secrets.token_urlsafe(24)
            if key not in self.entries:
                self._make_room()
                self.entries[key] = _Entry(self.make_visit(self.folder / secrets.token_hex(16)))
            if self.keys.get(session, key) != key:
                self._leave(session)
            self._note(session, key, self.entries[key])
            return key

    def _note(self, session: str, key: str, entry: _Entry) -> None:
        """Note that a session of a visit was seen."""
        self.keys[session] = key
        entry.sessions.pop(session, None)
        entry.sessions[session] = True  # the last seen is the last
        entry.last_seen = time.monotonic()
        if len(entry.sessions) > MAX_SESSIONS_A_VISIT:
            first = next(iter(entry.sessions))
            del entry.sessions[first]
            if self.keys.get(first) == key:  # it may have gone on with another visit since
                del self.keys[first]

    def _make_room(self) -> None:
        """Forget a visit that holds nothing where there are as many visits as are accepted."""
        if len(self.entries) < self.max_visits:
            return
        empty = [(entry.last_seen, key) for key, entry in self.entries.items() if entry.visit.is_empty]
        if not empty:
            raise BusyError(f"{self.max_visits} visitors are here already; try again in some minutes")
        self._forget_empty(min(empty)[1])

    def _forget_empty(self, key: str) -> None:
        """Forget a visit that holds nothing and has no file; its sessions find a new one under the same key."""
        self.empty_keys |= dict.fromkeys(self.entries.pop(key).sessions, key)
        self.keys = {session: other for session, other in self.keys.items() if other != key}
        while len(self.empty_keys) > self.max_visits:
            del self.empty_keys[next(iter(self.empty_keys))]

    def of(self, session: str | None) -> Visit:
        """The visit of a session, begun if need be."""
        return self.entries[self.open(session)].visit

    def shown_file(self, path: str) -> Path | None:
        """The file of that path, if it is one that a visit shows; else None."""
        file = Path(path)
        if not file.is_relative_to(self.folder):
            return None
        visits = [entry.visit for entry in list(self.entries.values()) if file.is_relative_to(entry.visit.folder)]
        return file if any(file in visit.shown for visit in visits) and file.is_file() else None

    def leave(self, session: str) -> None:
        """A tab was closed, or its connection broke; where it was the visit's last one, its scoring ends."""
        with self.lock:
            self._leave(session)

    def _leave(self, session: str) -> None:
        entry = self.entries.get(self.keys.get(session, ""))
        if entry is None or session not in entry.sessions:
            return
        entry.sessions[session] = False
        entry.last_seen = time.monotonic()
        if not any(entry.sessions.values()):
            entry.visit.stop()

    def delete(self, session: str) -> None:
        """Delete the visit of a session now."""
        with self.lock:
            visit = self._take(self.keys.get(session, ""))
        if visit is not None:
            visit.remove()

    def expire(self) -> None:
        """Delete the visits that nobody has used for long, and files that belong to none."""
        now, folders = time.monotonic(), list(self.folder.glob("*"))
        with self.lock:
            for key, entry in list(self.entries.items()):
                if entry.visit.is_empty and now - entry.last_seen > EMPTY_SECONDS:
                    self._forget_empty(key)
            old = [key for key, entry in self.entries.items() if now - entry.last_seen > self._patience(entry)]
            gone = [self._take(key) for key in old]
            kept = {entry.visit.folder for entry in self.entries.values()}
        for visit in gone:
            visit.remove()
        for folder in set(folders) - kept:  # what a picture in hand has written after its visit was deleted
            shutil.rmtree(folder, ignore_errors=True)

    def _patience(self, entry: _Entry) -> float:
        """Seconds for which a visit is kept that nobody asks for."""
        is_in_use = any(entry.sessions.values()) or entry.visit.scoring.locked()
        return MAX_IDLE_SECONDS if is_in_use else self.keep_seconds

    def _take(self, key: str) -> Visit | None:
        """Take a visit off the list; its files are still to be removed."""
        entry = self.entries.pop(key, None)
        self.keys = {session: other for session, other in self.keys.items() if other != key}
        return None if entry is None else entry.visit
