"""Sessions of the page with five images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from factories import make_picture, write_zip
from trials.nasty_inputs import encode

from hybridiqa.webapp.model_pool import SharedModels
from hybridiqa.webapp.pending_uploads import PendingUploads, Storage
from hybridiqa.webapp.session import Session
from hybridiqa.webapp.uploads import Limits

IMAGES = [encode("PNG", make_picture(seed=seed)) for seed in range(5)]
NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]
FIVE = list(zip(NAMES, IMAGES, strict=True))


def make_session(folder: Path, models: SharedModels, limits: Limits | None = None, **options) -> Session:
    """Return a session whose uploads wait beside its folder."""
    uploads = PendingUploads(folder.parent / "uploads", Storage(2**30), 2**30)
    return Session(folder, models, limits or Limits(), uploads, **options)


def bring(session: Session, files: Sequence[tuple[str, bytes]]) -> Session:
    """Upload files of these names and contents; return the session."""
    paths = upload(session.uploads.pending, *(data for _, data in files))
    session.uploads.add_files([(path, name) for path, (name, _) in zip(paths, files, strict=True)])
    return session


def score_all(session: Session) -> Session:
    list(session.scores.run())
    assert not session.scores.list_unscored()
    return session


def zip_of(*entries: tuple[str, bytes]) -> bytes:
    return write_zip(io.BytesIO(), *entries).getvalue()


def upload(uploads: PendingUploads, *contents: bytes) -> list[Path]:
    """Let files arrive at the server, each in a folder of its own; return their paths."""
    paths = []
    for data in contents:
        paths.append(uploads.new_folder() / "sha" / "name")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_bytes(data)
        uploads.reserve(len(data))
    uploads.add_all(paths)
    return paths
