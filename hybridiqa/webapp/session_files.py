"""Files that a session's browser shows or saves: thumbnails, images as PNG, patch maps, tables and zips."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hybridiqa.inference.patch_maps import crop_patch, draw_over_picture
from hybridiqa.models import hub_code
from hybridiqa.utils.atomic import open_atomically
from hybridiqa.utils.files import as_text, error_reason, hash_of, path_of
from hybridiqa.webapp.model_pool import DecodedUpload, SharedModel
from hybridiqa.webapp.uploads import SessionFolder, UploadedImage

# What every browser shows as it is.
FORMATS_SHOWN = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "AVIF", "BMP")
SUFFIXES_SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".bmp")


@dataclass(frozen=True)
class DetailFiles:
    """Files that show why an image has its score; worst and best are none where there is but one patch."""

    map_path: Path
    worst_path: Path | None
    best_path: Path | None


class SessionFiles:
    """Files in a session's folder, each made when it is first asked for; only these can be fetched."""

    def __init__(self, folder: SessionFolder):
        self.folder = folder

    def keep_thumbnail(self, image: UploadedImage, decoded: DecodedUpload) -> DecodedUpload:
        """Write the thumbnail of an image, and return what was decoded, as one that failed where that cannot be."""
        if decoded.thumbnail is None:
            return decoded
        try:
            self.folder.place("shown", f"{image.id}.webp").write_bytes(decoded.thumbnail)
        except OSError as error:
            return decoded.failed(error_reason(error))
        except ValueError as error:  # the session was deleted
            return decoded.failed(str(error))
        return decoded

    def show_thumbnail(self, image: UploadedImage) -> Path:
        """Return the thumbnail of an image that was decoded."""
        return self.folder.show(self.folder.path / "shown" / f"{image.id}.webp")

    def show_image(self, image: UploadedImage) -> Path:
        """Return a file that a browser shows with the image's own pixels: itself, or a PNG of it.

        Raises:
            ValueError: it cannot be read.
        """
        if image.path.suffix in SUFFIXES_SHOWN and _format_of(image.path) in FORMATS_SHOWN:
            return self.folder.show(image.path)
        path = self.folder.place("shown", f"{image.id}.png")
        if not path.exists():
            try:
                _save(hub_code.load_image(image.path), path)
            except ValueError as error:
                raise ValueError(str(error).removeprefix(f"cannot read {image.path}: ")) from error
        return self.folder.show(path)

    def show_detail(self, image: UploadedImage, model: SharedModel, patch_scores: list[float]) -> DetailFiles:
        """Return the map of an image's patches, and its worst and best patch as they are."""
        stem = f"{image.id}-{hash_of(model.scorer_id.encode())}"
        map_path, worst, best = (self.folder.place("shown", f"{stem}-{part}.png") for part in ("map", "worst", "best"))
        if not map_path.exists():
            pixels = hub_code.load_image(image.path)
            boxes = model.patch_boxes(*pixels.size)
            for path, score in ((worst, min(patch_scores)), (best, max(patch_scores))):
                _save(crop_patch(pixels, boxes[patch_scores.index(score)]), path)
            _save(draw_over_picture(pixels, boxes, patch_scores, model.score_range), map_path)
        parts = (self.folder.show(worst), self.folder.show(best)) if len(patch_scores) > 1 else (None, None)
        return DetailFiles(self.folder.show(map_path), *parts)

    def show_zip(self, name: str, files: dict[str, Path]) -> Path:
        """Return a zip of the files under their names, not compressed: images are already."""
        path = self.folder.place("made", name)
        with (
            open_atomically(path, is_synced=False) as unfinished,
            zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive,
        ):
            for file_name, file in files.items():
                archive.write(path_of(as_text(file)), file_name)
        return self.folder.show(path)


def _format_of(path: Path) -> str | None:
    """Return the format as Pillow calls it; none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hub_code.open_image(file).format
    except (ValueError, OSError):
        return None


def _save(image: Image.Image, path: Path) -> None:
    """Write a PNG, without loss, there whole or not at all."""
    with open_atomically(path, is_synced=False) as file:
        image.save(file, "PNG", compress_level=1)


def name_in_zip(name: str) -> str:
    """Return a relative path without `..`, whatever an image is called."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts).replace(":", "_") or "picture"
