"""Files and folders of others: walked, hashed, told by their suffix, unpacked."""

import hashlib
import logging
import lzma
import os
import re
import shutil
import stat
import zipfile
import zlib
from functools import cache
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from PIL import Image

from hybridiqa.utils.root import hub_constant

# Images all the same where the plugin that reads them is missing: they are reported, not passed over.
PLUGIN_SUFFIXES = {".heic", ".heics", ".heif", ".heifs", ".hif", ".avif"}

logger = logging.getLogger(__name__)

SKIPPED_FOLDERS = ("__MACOSX",)  # what macOS adds to a zip: thumbnails under the images' own names
HASH_BYTES = 16
MAX_FOLDERS = 200  # in each other: Python walks and removes folders by calling itself for each, about 900 times at most
MAX_NAME_SHOWN = 100  # letters, of a name in a zip
MAX_EXTRACTED_BYTES = 256 * 2**30  # well above any scored folder known; a zip that claims more is a mistake or a bomb


def as_text(path: str | PurePath) -> str:
    """Return a path as any file, terminal or JSON takes it: bytes that are not UTF-8 are written as `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def path_of(text: str) -> Path:
    """Return the path that `as_text` wrote so: of this very name if there is one, else with each `\\xNN` as a byte."""
    if os.path.lexists(text):
        return Path(text)
    return Path(
        os.fsdecode(re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode()))
    )


def error_reason(error: BaseException) -> str:
    """Return why something failed: the system's own words where it has any, else the error's message or type."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def hash_of(data: bytes) -> str:
    """Return 32 hexadecimal digits: what `content_hash` gives for a file of these bytes."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).hexdigest()


def content_hash(path: str | PurePath) -> str:
    """Return 32 hexadecimal digits of the BLAKE2b of a file's bytes. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=HASH_BYTES)).hexdigest()


def what_is_no_file(path: Path) -> str | None:
    """Return why a path cannot be opened as a file (a pipe is waited for for ever), or None where it can be tried."""
    if path.is_dir():
        return "a folder that cannot be read"
    if not os.path.exists(path):
        return "no such file, or a link that leads nowhere"
    return None if path.is_file() else "not a regular file"


def walk_files(root: Path) -> list[Path]:
    """Return all files under a folder, sorted, but for hidden ones and `__MACOSX`. Linked folders are not entered.

    A folder that cannot be read, or lies too deep, stands in the list itself, so that it is not passed over in silence.
    """
    paths: list[Path] = []
    unreadable: list[OSError] = []
    for folder, folder_names, file_names in os.walk(root, onerror=unreadable.append):
        folder_names[:] = [name for name in folder_names if not name.startswith(".") and name not in SKIPPED_FOLDERS]
        if folder_names and len(Path(folder).parts) - len(root.parts) >= MAX_FOLDERS:
            paths += [Path(folder, name) for name in folder_names]
            folder_names.clear()
        for name in folder_names:
            if os.path.islink(os.path.join(folder, name)):
                logger.warning("linked folder not entered: %s", os.path.join(folder, name))
        paths += [Path(folder, name) for name in file_names if not name.startswith(".")]
    paths += [Path(error.filename) for error in unreadable]
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


@cache
def _image_suffixes() -> frozenset[str]:
    formats = hub_constant("image_loading_hybridiqa", "FORMATS")
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in formats}
    return frozenset(suffixes | {".mpo"} | PLUGIN_SUFFIXES)  # Pillow opens MPO as JPEG


def has_image_suffix(path: str | PurePath) -> bool:
    """Tell whether Pillow reads a format with this suffix, by itself or with a plugin that may not be there."""
    return PurePath(path).suffix.lower() in _image_suffixes()


def _check_zip_entry(entry: zipfile.ZipInfo, zip_path: Path) -> None:
    name = PurePosixPath(entry.filename)
    if len(name.parts) > MAX_FOLDERS:
        title = f"{entry.filename[:MAX_NAME_SHOWN]}..."
        raise ValueError(f"{zip_path} is refused: its entry {title!r} lies in more than {MAX_FOLDERS} folders")
    if name.is_absolute() or ".." in name.parts or PureWindowsPath(entry.filename).drive:
        raise ValueError(f"{zip_path} is refused: its entry {entry.filename!r} leads out of the folder")
    # An archive made on Windows records no file type (0).
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"{zip_path} is refused: its entry {entry.filename!r} is a link or a special file")
    if entry.flag_bits & 1:
        raise ValueError(f"{zip_path} is refused: its entry {entry.filename!r} is encrypted")


def extract_zip(zip_path: Path, target_dir: Path, max_bytes: int | None = None, max_files: int | None = None) -> None:
    """Unpack a zip, having checked all of it first: no entry outside `target_dir`, no link, no more than fits.

    Raises:
        ValueError: an archive that is broken or refused.
    """
    target_dir.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(zip_path) as archive:
            if max_files is not None and len(archive.infolist()) > max_files:
                raise ValueError(
                    f"{zip_path} is refused: it holds {len(archive.infolist())} files, {max_files} are accepted"
                )
            for entry in archive.infolist():
                entry.filename = entry.filename.replace("\\", "/")
                _check_zip_entry(entry, zip_path)
            num_bytes = sum(entry.file_size for entry in archive.infolist())  # zipfile never writes more than this
            limit = min(max_bytes or MAX_EXTRACTED_BYTES, shutil.disk_usage(target_dir).free)
            if num_bytes > limit:
                raise ValueError(f"{zip_path} is refused: it unpacks to {num_bytes} bytes, {limit} are accepted here")
            for entry in archive.infolist():
                archive.extract(entry, target_dir)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{zip_path} is not a whole zip archive: {error}") from error
