"""HTML page of scored images: thumbnails to sort, filter and search, in a single file that needs no network.

The page itself, `gallery.html`, stands beside this file; its data are made here.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from hybridiqa.models import hub_code
from hybridiqa.scores.score_file import ScoreRow, best_first, failures, on_one_line
from hybridiqa.utils.atomic import open_atomically, resolve_output
from hybridiqa.utils.files import as_text, hash_of, path_of, what_is_no_file

MARKER = "<!DOCTYPE html><!-- hybridIQA gallery -->"  # the first line of every gallery
SUFFIXES = (".html", ".htm")
THUMBNAIL_SIZE = 192  # pixels of the longer side; a page shows about 160, and some screens have finer pixels
THUMBNAIL_QUALITY = 75  # of WebP: about 4 kB an image
MAX_FAILURES = 1000  # named in a page


def check_gallery_path(path: Path) -> None:
    """Check that a gallery can be written there.

    Raises:
        ValueError: another suffix than .html, no such folder, or something of this name that is no gallery.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a gallery must end in {' or '.join(SUFFIXES)}, got {path}")
    if os.path.exists(path) and not _is_gallery(path):
        raise ValueError(f"{path} is there already and is not a gallery; nothing is overwritten")
    resolve_output(path, "--gallery")


def _is_gallery(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(MARKER)) == MARKER.encode()


def sample_evenly(rows: Sequence[ScoreRow], count: int) -> list[ScoreRow]:
    """Return at most `count` rows, evenly over their order, the first and the last included.

    Raises:
        ValueError: a count below 2, which cannot hold both.
    """
    if count < 2:
        raise ValueError(f"a gallery must have room for at least 2 images, got {count}")
    if len(rows) <= count:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (count - 1))] for index in range(count)]


def encode_thumbnail(pixels: Image.Image, size: int = THUMBNAIL_SIZE) -> bytes:
    """Return an RGB image, at most `size` pixels high and wide, as WebP."""
    thumbnail = pixels.copy()
    thumbnail.thumbnail((size, size), reducing_gap=2.0)
    encoded = io.BytesIO()
    thumbnail.save(encoded, "WEBP", quality=THUMBNAIL_QUALITY)
    return encoded.getvalue()


def make_thumbnail(image: Path | bytes) -> bytes:
    """Return the image of a file or of its bytes, upright, on white, at most 192 px, as WebP; b"" if it is not read."""
    if isinstance(image, Path) and what_is_no_file(image):
        return b""
    try:
        data = hub_code.read_file(image) if isinstance(image, Path) else image
        _, pixels = hub_code.decode_file(data, draft_size=2 * THUMBNAIL_SIZE)
    except Exception:  # decoders raise whatever their format's parser does; here a gap in the page is all it means
        return b""
    return encode_thumbnail(pixels)


def _read_scored(path: Path, content_hash: str | None) -> bytes:
    """Return the bytes that were scored; b"" where the file is not there any more, or is another image by now."""
    if what_is_no_file(path):
        return b""
    try:
        data = hub_code.read_file(path)
    except (OSError, ValueError):
        return b""
    return data if content_hash in (None, hash_of(data)) else b""


def _to_json(value: object) -> str:
    """Return JSON that may stand in a page: whatever a file is called, it cannot end the script element."""
    return json.dumps(value).replace("<", r"\u003c")


def _describe_image(row: ScoreRow) -> dict:
    """Return all that the page knows of an image."""
    path = path_of(row.path)
    return {
        "path": on_one_line(row.path),
        "name": on_one_line(as_text(path.name)),
        "uri": path.absolute().as_uri(),
        "score": row.score,
        "std": row.score_std,
        "percentile": row.percentile,
        "width": row.width,
        "height": row.height,
        "thumbnail": base64.b64encode(make_thumbnail(_read_scored(path, row.content_hash))).decode(),
    }


def _yield_data(rows: Sequence[ScoreRow], num_workers: int, max_images: int) -> Iterator[str]:
    """Yield the page's data in pieces of JSON, so that its thumbnails are never all in memory."""
    scored, failed = best_first(rows), failures(rows)
    named = [{"path": on_one_line(row.path), "error": on_one_line(row.error or "")} for row in failed[:MAX_FAILURES]]
    totals = {"num_scored": len(scored), "num_failed": len(failed), "failed": named}
    yield _to_json(totals).removesuffix("}") + ', "images": ['
    shown = sample_evenly(scored, max_images)
    pool = ThreadPoolExecutor(num_workers)  # processes were no faster: Pillow works outside the interpreter's lock
    try:
        images = tqdm(pool.map(_describe_image, shown), "gallery", len(shown), unit="image", disable=None, leave=False)
        for index, image in enumerate(images):
            yield (",\n" if index else "\n") + _to_json(image)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    yield "\n]}"


def _split_page() -> tuple[str, str]:
    """Return the page before and after its data; a policy lets it run its own script and load images, no more."""
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    sources = {}
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        sources[tag] = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: file:; "
        f"style-src 'sha256-{sources['style']}'; script-src 'sha256-{sources['script']}'"
    )
    before, after = page.replace("CONTENT_SECURITY_POLICY", policy).split("GALLERY_DATA")
    return before, after


def write_gallery(rows: Sequence[ScoreRow], path: Path, num_workers: int = 2, max_images: int = 5000) -> None:
    """Write one page that shows the scored images, from a file and without a network.

    Of more than `max_images` an even sample over their ranks is shown, best and worst included. Rows without a score
    are named, those of vanished files left out. The page takes about 5 kB an image. Whenever the process ends, the
    file is there whole, as before, or not at all.

    Args:
        rows: of one scorer.
        path: a new .html file, or a gallery, which is replaced.
        num_workers: threads that make thumbnails; each holds one image.
        max_images: at least 2.

    Raises:
        ValueError: a path that `check_gallery_path` refuses, or a `max_images` below 2.
    """
    path = Path(path)
    check_gallery_path(path)
    before, after = _split_page()
    with open_atomically(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(before)
        file.writelines(_yield_data(rows, num_workers, max_images))
        file.write(after)
        check_gallery_path(path)  # the thumbnails took their time
