"""Sessions of the page with five images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from factories import make_picture, write_zip
from trials.nasty_inputs import encode

from hybridiqa.webapp.model_pool import SharedModels
from hybridiqa.webapp.pending_uploads import Storage, Uploads
from hybridiqa.webapp.session import Visit
from hybridiqa.webapp.uploads import Limits

PICTURES = [encode("PNG", make_picture(seed=seed)) for seed in range(5)]
NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]
FIVE = list(zip(NAMES, PICTURES, strict=True))


def make_visit(folder: Path, models: SharedModels, limits: Limits | None = None, **options) -> Visit:
    """A visit whose uploads wait beside its folder."""
    uploads = Uploads(folder.parent / "uploads", Storage(2**30), 2**30)
    return Visit(folder, models, limits or Limits(), uploads, **options)


def bring(visit: Visit, files: Sequence[tuple[str, bytes]]) -> Visit:
    """Upload files of these names and contents."""
    paths = upload(visit.uploads, *(data for _, data in files))
    visit.add_files([(path, name) for path, (name, _) in zip(paths, files, strict=True)])
    return visit


def score_all(visit: Visit) -> Visit:
    list(visit.score())
    assert not visit.unscored()
    return visit


def zip_of(*entries: tuple[str, bytes]) -> bytes:
    return write_zip(io.BytesIO(), *entries).getvalue()


def upload(uploads: Uploads, *contents: bytes) -> list[Path]:
    """What arrives at the server, each in a folder of its own."""
    paths = []
    for data in contents:
        paths.append(uploads.new_folder() / "sha" / "name")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_bytes(data)
        uploads.reserve(len(data))
    uploads.add_all(paths)
    return paths
