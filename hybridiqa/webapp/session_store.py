"""All sessions of a page: which tab goes on with which of them, and when what they hold is deleted."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hybridiqa.webapp.pending_uploads import BusyError
from hybridiqa.webapp.session import Session

MAX_IDLE_SECONDS = 12 * 3600  # without a request, though a tab seems open: programs do not say when they leave
EMPTY_SECONDS = 300  # for which a session is kept that holds nothing: the next request begins it anew
MAX_TAB_LENGTH = 100  # letters of what Gradio calls a tab or a program (`session_hash`); they have about 11 and 36
MAX_TABS_A_SESSION = 100  # each time that a page is loaded is another one


@dataclass
class _Entry:
    session: Session
    tabs: dict[str, bool] = field(default_factory=dict)  # whether each is open; a connection may come back
    last_seen: float = 0.0


class SessionStore:
    """All sessions, by the secret key that each one's browser keeps, and by their tabs (Gradio's `session_hash`).

    A session whose tabs are all closed stays for a while, so that a page can be loaded again; then it is deleted.

    Args:
        folder: of their folders.
        make_session: the name of a free folder -> a session.
        keep_seconds: for which a session is kept without an open tab.
        max_sessions: at a time; where there are more, those that hold nothing give way.
    """

    def __init__(
        self, folder: Path, make_session: Callable[[Path], Session], keep_seconds: float, max_sessions: int = 1000
    ):
        self.folder, self.make_session, self.keep_seconds = folder, make_session, keep_seconds
        self.max_sessions = max_sessions
        self.entries: dict[str, _Entry] = {}  # by key
        self.keys: dict[str, str] = {}  # by tab
        self.empty_keys: dict[str, str] = {}  # by tab, of sessions that held nothing and were forgotten
        self.lock = threading.Lock()

    def open(self, tab: str | None, key: str | None = None) -> str:
        """Let a tab go on with the session of that key, or begin a new one; return the key of the session.

        A tab that has a session already keeps it, unless another's key is given.

        Raises:
            ValueError: no tab, which all that call so would share; or too many sessions.
        """
        if not tab or len(tab) > MAX_TAB_LENGTH:
            raise ValueError(
                f"this call needs a session_hash of its own, of at most {MAX_TAB_LENGTH} letters that nobody can "
                "guess: by it a program finds its pictures again (gradio_client sends one)"
            )
        with self.lock:
            if key is None or key not in self.entries:
                key = self.keys.get(tab) or self.empty_keys.pop(tab, None) or secrets.token_urlsafe(24)
            if key not in self.entries:
                self._make_room()
                self.entries[key] = _Entry(self.make_session(self.folder / secrets.token_hex(16)))
            if self.keys.get(tab, key) != key:
                self._leave(tab)
            self._note(tab, key, self.entries[key])
            return key

    def _note(self, tab: str, key: str, entry: _Entry) -> None:
        """Note that a tab of a session was seen."""
        self.keys[tab] = key
        entry.tabs.pop(tab, None)
        entry.tabs[tab] = True  # the last seen is the last
        entry.last_seen = time.monotonic()
        if len(entry.tabs) > MAX_TABS_A_SESSION:
            first = next(iter(entry.tabs))
            del entry.tabs[first]
            if self.keys.get(first) == key:  # it may have gone on with another session since
                del self.keys[first]

    def _make_room(self) -> None:
        """Forget a session that holds nothing where there are as many sessions as are accepted."""
        if len(self.entries) < self.max_sessions:
            return
        empty = [(entry.last_seen, key) for key, entry in self.entries.items() if entry.session.is_empty]
        if not empty:
            raise BusyError(f"{self.max_sessions} sessions are open already; try again in some minutes")
        self._forget_empty(min(empty)[1])

    def _forget_empty(self, key: str) -> None:
        """Forget a session that holds nothing and has no file; its tabs find a new one under the same key."""
        self.empty_keys |= dict.fromkeys(self.entries.pop(key).tabs, key)
        self.keys = {tab: other for tab, other in self.keys.items() if other != key}
        while len(self.empty_keys) > self.max_sessions:
            del self.empty_keys[next(iter(self.empty_keys))]

    def find_session(self, tab: str | None) -> Session:
        """Return the session of a tab, begun if need be."""
        return self.entries[self.open(tab)].session

    def find_shown_file(self, path: str) -> Path | None:
        """Return the file of that path, if it is one that a session shows; else None."""
        file = Path(path)
        if not file.is_relative_to(self.folder):
            return None
        folders = [entry.session.folder for entry in list(self.entries.values())]
        is_shown = any(file.is_relative_to(folder.path) and file in folder.shown for folder in folders)
        return file if is_shown and file.is_file() else None

    def leave(self, tab: str) -> None:
        """Note that a tab was closed, or its connection broke; the scoring ends with the session's last one."""
        with self.lock:
            self._leave(tab)

    def _leave(self, tab: str) -> None:
        entry = self.entries.get(self.keys.get(tab, ""))
        if entry is None or tab not in entry.tabs:
            return
        entry.tabs[tab] = False
        entry.last_seen = time.monotonic()
        if not any(entry.tabs.values()):
            entry.session.scores.stop()

    def delete(self, tab: str) -> None:
        """Delete the session of a tab now."""
        with self.lock:
            key = self.keys.get(tab)
            session = None if key is None else self._take(key)
        if session is not None:
            session.remove()

    def expire(self) -> None:
        """Delete the sessions that nobody has used for long, and files that belong to none."""
        now, folders = time.monotonic(), list(self.folder.glob("*"))
        with self.lock:
            for key, entry in list(self.entries.items()):
                if entry.session.is_empty and now - entry.last_seen > EMPTY_SECONDS:
                    self._forget_empty(key)
            old = [key for key, entry in self.entries.items() if now - entry.last_seen > self._patience(entry)]
            gone = [self._take(key) for key in old]
            kept = {entry.session.folder.path for entry in self.entries.values()}
        for session in gone:
            session.remove()
        for folder in set(folders) - kept:  # what an image being scored has written after its session was deleted
            shutil.rmtree(folder, ignore_errors=True)

    def _patience(self, entry: _Entry) -> float:
        """Return the seconds for which a session is kept that nobody asks for."""
        is_in_use = any(entry.tabs.values()) or entry.session.scores.is_running
        return MAX_IDLE_SECONDS if is_in_use else self.keep_seconds

    def _take(self, key: str) -> Session:
        """Take a session off the list; its files are still to be removed."""
        self.keys = {tab: other for tab, other in self.keys.items() if other != key}
        return self.entries.pop(key).session
