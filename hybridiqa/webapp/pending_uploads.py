"""Uploaded files until a session takes them: bounded, counted, and nobody else's.

The server of the page (Gradio) writes an upload to a folder, and a second request names the path. `PendingUploads`
gives each request a folder of its own and remembers what was written there, so that no path but that of an upload can
be named.
"""

from __future__ import annotations

import secrets
import shutil
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hybridiqa.utils.files import error_reason

WAIT_SECONDS = 1800  # for which an upload waits for the request that takes it; a client may send many files first
NOT_UPLOADED = "this file was not uploaded here, or was taken already: upload it again"


class BusyError(ValueError):
    """Refusal for want of room at the moment; later there may be some."""


class Storage:
    """Bytes that all sessions of a page and what is uploaded to it may take on the disk together.

    Args:
        max_bytes: of all.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes, self.num_bytes = max_bytes, 0
        self.lock = threading.Lock()

    @property
    def room(self) -> int:
        """Bytes that are left."""
        return self.max_bytes - self.num_bytes

    def reserve(self, num_bytes: int) -> None:
        """Take that much. Raises BusyError where there is less."""
        with self.lock:
            if num_bytes > self.room:
                raise BusyError("there is no room for this at the moment; try again in some minutes")
            self.num_bytes += num_bytes

    def release(self, num_bytes: int) -> None:
        """Give that much back."""
        with self.lock:
            self.num_bytes -= num_bytes


@dataclass(frozen=True)
class Upload:
    """A file that waits to be taken."""

    size: int
    arrived: float


class PendingUploads:
    """Uploaded files that no session has taken yet, each in the folder of its request.

    Args:
        folder: of all of them; made with the first.
        storage: of the whole page, where they count while they wait.
        max_waiting_bytes: of all that waits; one session's allowance, since nobody has taken it yet.
    """

    def __init__(self, folder: Path, storage: Storage, max_waiting_bytes: int):
        self.folder, self.storage, self.max_waiting_bytes = Path(folder).resolve(), storage, max_waiting_bytes
        self.waiting: dict[Path, Upload] = {}
        self.num_bytes = 0  # that wait, or are arriving
        self.lock = threading.Lock()

    def reserve(self, num_bytes: int) -> None:
        """Make room for bytes that arrive. Raises BusyError where there is none."""
        with self.lock:
            if self.num_bytes + num_bytes > self.max_waiting_bytes:
                raise BusyError(
                    f"at most {self.max_waiting_bytes // 2**20} MB are accepted before they are scored; try again later"
                )
            self.storage.reserve(num_bytes)
            self.num_bytes += num_bytes

    def release(self, num_bytes: int) -> None:
        """Give room back, of what did not arrive or waits no longer."""
        with self.lock:
            self.num_bytes -= num_bytes
        self.storage.release(num_bytes)

    def new_folder(self) -> Path:
        """Return the name of a folder for one request's files, which nobody can guess."""
        return self.folder / secrets.token_hex(16)

    def add_all(self, paths: Iterable[Path]) -> int:
        """Let files wait whose bytes were reserved, each to be taken by its path; return their size in all (bytes)."""
        uploads = {path: Upload(path.lstat().st_size, time.monotonic()) for path in paths}
        self.waiting |= uploads
        return sum(upload.size for upload in uploads.values())

    def remove_strays(self, folder: Path) -> None:
        """Remove a request's folder if none of its files waits."""
        if not any(path.is_relative_to(folder) for path in list(self.waiting)):
            shutil.rmtree(folder, ignore_errors=True)

    def is_waiting(self, path: object) -> bool:
        """Return whether this is the path of an upload, exactly as the server gave it."""
        return isinstance(path, str | Path) and Path(path) in self.waiting

    def take(self, path: Path, target: Path) -> int:
        """Move an upload to a free name, on the same disk; return its size (bytes).

        Raises:
            ValueError: it is no upload, or no longer there.
        """
        with self.lock:
            upload = self.waiting.pop(Path(path), None)
        if upload is None:
            raise ValueError(NOT_UPLOADED)
        try:
            if path.resolve() != path or not stat.S_ISREG(path.lstat().st_mode):
                raise ValueError("an upload must be a regular file in its own folder, without a link")
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        except OSError as error:
            raise ValueError(f"it cannot be taken: {error_reason(error)}") from error
        finally:
            self.release(upload.size)
            self._remove_folders(path)
        return upload.size

    def _remove_folders(self, path: Path) -> None:
        """Remove the folders of a request that hold nothing any more."""
        for folder in path.parents:
            if folder == self.folder or not folder.is_relative_to(self.folder):
                return
            with suppress(OSError):
                folder.rmdir()

    def expire(self) -> None:
        """Delete what has waited too long."""
        now = time.monotonic()
        for path, upload in list(self.waiting.items()):
            if now - upload.arrived > WAIT_SECONDS and self.waiting.pop(path, None) is not None:
                with suppress(OSError):
                    path.unlink()
                self.release(upload.size)
                self._remove_folders(path)
