"""Scored images on disk: the rule from folder to score, tables of scores, and every file decoded once."""

from __future__ import annotations

import io
import math
import re
import reprlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from hybridiqa.models import hub_code
from hybridiqa.utils.files import as_text, has_image_suffix, hash_of, walk_files, what_is_no_file
from hybridiqa.utils.tables import read_table

if TYPE_CHECKING:
    from hybridiqa.data.fingerprints import Fingerprint

# Artifact/3 and Perfect/1 share a score: the two ladders of five overlap on the 1-9 scale.
SCORE_OFFSETS = {"Artifact": 0, "Perfect": 2}
NUM_BINS_PER_LADDER = 5
LOWEST_SCORE, HIGHEST_SCORE = 1, 9
ABSOLUTE_SCORES = (8, 9)
BIN_NAMES = (
    *(f"{ladder}/{number}" for ladder in SCORE_OFFSETS for number in range(1, NUM_BINS_PER_LADDER + 1)),
    *(str(number) for number in range(LOWEST_SCORE, HIGHEST_SCORE + 1)),
)

NOT_AN_IMAGE = "not an image"
# Files that `datasets` decodes as `to_rgb` does, by itself: it turns them upright and reads these modes alike, but it
# drops transparency and clips 16-bit grey.
PLAIN_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
PLAIN_MODES = ("1", "L", "P", "RGB")


@dataclass(frozen=True)
class ScoredImage:
    """One image file with its label: `score` on the 1-9 scale, `bin` one of `BIN_NAMES`.

    `is_plain` says whether `datasets` decodes the file to the pixels that we see, and `content_hash` is of the bytes
    that were found to be an image. `fingerprint` is there where it was asked for.
    """

    path: Path
    relative_path: str
    score: float
    bin: str
    group: str
    content_hash: str
    is_plain: bool
    fingerprint: Fingerprint | None = field(default=None, compare=False, repr=False)

    def read(self) -> bytes:
        """Read the file. Raises ValueError where it is not what it was when it was looked at."""
        data = hub_code.read_file(self.path)
        if hash_of(data) != self.content_hash:
            raise ValueError(f"{as_text(self.path)} was changed while it was prepared")
        return data


@dataclass
class FolderContents:
    """All files of a folder, each in exactly one list, as relative posix paths in sorted order.

    `unreadable` holds (path, reason); `missing` what a table of scores names and the folder does not hold; `splits` the
    official split of an image, by relative path, where there is one; `scores` how the scores were listed and inverted.
    """

    records: list[ScoredImage] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    not_images: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    scores: dict | None = None

    def add(self, relative_path: str, found: ScoredImage | str | None) -> None:
        """Put a file into its list: a scored image, the reason why it is no whole image, or None without a score."""
        if isinstance(found, ScoredImage):
            self.records.append(found)
        elif found is None:
            self.unscored.append(relative_path)
        elif found == NOT_AN_IMAGE:
            self.not_images.append(relative_path)
        else:
            self.unreadable.append((relative_path, found))


def _score_below(number: int, folders_above: tuple[str, ...]) -> tuple[float, str] | None:
    """Return score and bin of a numbered folder that lies below others."""
    ladders = [name.capitalize() for name in folders_above if name.capitalize() in SCORE_OFFSETS]
    if number in ABSOLUTE_SCORES or (not ladders and LOWEST_SCORE <= number <= HIGHEST_SCORE):
        return float(number), str(number)
    if ladders and 1 <= number <= NUM_BINS_PER_LADDER:
        return float(number + SCORE_OFFSETS[ladders[-1]]), f"{ladders[-1]}/{number}"
    return None


def score_and_bin(path: str | PurePath) -> tuple[float, str] | None:
    """Return the score (1-9 scale) and bin that the folders above an image give it, or None where they give none.

    `path` is relative to the source's root. The nearest folder whose name is a number decides; above that folder,
    the nearest `Artifact` or `Perfect` (any case) says how to read it. Only the digits 0-9 make a number: `06` is 6,
    while `3.5`, `-1`, `4th` and digits of other scripts are names like any other, and the search goes on above them.
    A number that is no bin (`0`, `6` under `Artifact` or `Perfect`, `2024`) gives no score, whatever stands above it.
    """
    folders = PurePath(path).parts[:-1]
    for depth in reversed(range(len(folders))):
        if re.fullmatch("[0-9]+", folders[depth]):
            return _score_below(int(folders[depth]), folders[:depth])
    return None


@dataclass(frozen=True)
class DecodedFile:
    """An image file that was read and decoded once: its bytes, the mode that they have it in, and upright RGB."""

    data: bytes
    mode: str
    rgb: Image.Image
    is_plain: bool


def _decode(data: bytes) -> DecodedFile:
    """Decode a file's bytes; raises whatever their decoder raises."""
    try:
        opened = hub_code.open_image(io.BytesIO(data))
        is_plain = opened.format in PLAIN_FORMATS and opened.mode in PLAIN_MODES and not opened.has_transparency_data
        rgb = hub_code.to_rgb(opened)
    except Exception:  # of its metadata alone, perhaps, without which `datasets` would not decode it
        opened, rgb = hub_code.decode_file(data)
        is_plain = False
    return DecodedFile(data, opened.mode, rgb, is_plain)


def read_image(path: Path) -> DecodedFile:
    """Read and decode a file.

    Raises:
        ValueError: `NOT_AN_IMAGE`, or why it cannot be read. What is of no known format is a broken image if its
            suffix is an image's, and no image otherwise.
    """
    if reason := what_is_no_file(path):
        raise ValueError(reason)
    try:
        return _decode(hub_code.read_file(path))
    except hub_code.UnknownFormat as error:
        reason = f"not an image, in spite of its suffix: {error}" if has_image_suffix(path) else NOT_AN_IMAGE
        raise ValueError(reason) from error
    except ValueError:
        raise
    except Exception as error:  # decoders raise whatever their format's parser does: OSError, struct.error, ...
        raise ValueError(f"{type(error).__name__}: {error}") from error


def group_namer(group_pattern: str | None) -> Callable[[str], str]:
    """Return the function from a relative posix path to its group; see `read_hybrid_folder`."""
    if group_pattern is None:
        return lambda relative_path: relative_path
    pattern = re.compile(group_pattern)

    def group_of(relative_path: str) -> str:
        match = pattern.search(relative_path)
        group = match and match.group(1 if pattern.groups else 0)
        if not group:
            raise ValueError(f"the group pattern {group_pattern!r} finds no group in {relative_path!r}")
        return group

    return group_of


MakeFingerprint = Callable[[Image.Image], "Fingerprint"]


def read_labelled_folder(
    root: Path,
    score_of: Callable[[str], tuple[float, str] | None],
    group_of: Callable[[str], str],
    num_workers: int,
    make_fingerprint: MakeFingerprint | None = None,
) -> FolderContents:
    """Read every file of a folder and decode it, once.

    Args:
        score_of, group_of: score and bin, and the group, by relative posix path.
        make_fingerprint: gives scored images a fingerprint of what was decoded.
    """
    if not root.is_dir():
        raise ValueError(f"{str(root)!r} is not a folder")

    def inspect(path: Path) -> ScoredImage | str | None:
        """Return a scored image, the reason why a file is no whole image, or None for an image without a score."""
        relative_path = as_text(path.relative_to(root).as_posix())
        try:
            decoded = read_image(path)
        except ValueError as error:
            return str(error)
        label = score_of(relative_path)
        if label is None:
            return None
        fingerprint = make_fingerprint(decoded.rgb) if make_fingerprint else None
        group, content_hash = group_of(relative_path), hash_of(decoded.data)
        return ScoredImage(path, relative_path, *label, group, content_hash, decoded.is_plain, fingerprint)

    contents, paths = FolderContents(), walk_files(root)
    with ThreadPoolExecutor(num_workers) as pool:
        for path, found in zip(paths, pool.map(inspect, paths), strict=True):
            contents.add(as_text(path.relative_to(root).as_posix()), found)
    return contents


def read_hybrid_folder(
    root: Path,
    group_pattern: str | None = None,
    num_workers: int = 4,
    make_fingerprint: MakeFingerprint | None = None,
) -> FolderContents:
    """Read the scored images of numbered folders (see `score_and_bin`).

    An image is its own group, unless `group_pattern` is given: a regular expression searched in the relative posix
    path, whose group 1 (or whole match, if it has none) is the group. Raises ValueError for a path it does not match.
    """
    return read_labelled_folder(Path(root), score_and_bin, group_namer(group_pattern), num_workers, make_fingerprint)


def nearest_bin(score: float) -> str:
    """Return the bin of a score on the 1-9 scale."""
    return str(min(max(math.floor(score + 0.5), LOWEST_SCORE), HIGHEST_SCORE))


def _read_scores(table_path: Path, file_column: str, score_column: str, group_column: str | None) -> dict:
    """Return {relative posix path: (score, group)}, the group being None without such a column."""
    scores: dict[str, tuple[float, str | None]] = {}
    wanted = [file_column, score_column] + ([group_column] if group_column else [])
    for number, row in enumerate(read_table(table_path, None, wanted), 1):
        group_name = group_column or ("group" if "group" in row else None)
        try:
            score = float(row[score_column])
        except (TypeError, ValueError, OverflowError):  # the last for a whole number of hundreds of digits
            score = math.nan
        if not math.isfinite(score) or not row[file_column] or (group_name and not row[group_name]):
            raise ValueError(f"{table_path}, row {number}: wants a file, a finite score, a group: {reprlib.repr(row)}")
        name = PurePosixPath(str(row[file_column])).as_posix()
        if name in scores:
            raise ValueError(f"{table_path}, row {number}: {name!r} is listed twice")
        scores[name] = (score, str(row[group_name]) if group_name else None)
    return scores


def read_scored_folder(
    root: Path,
    table_path: Path,
    *,
    file_column: str = "file",
    score_column: str = "score",
    group_column: str | None = None,
    group_pattern: str | None = None,
    num_workers: int = 4,
    make_fingerprint: MakeFingerprint | None = None,
) -> FolderContents:
    """Read the images of a folder with the scores of a table; the bin is the nearest whole score, 1-9.

    `file_column` holds paths relative to `root`. The group is what `group_pattern` finds, or else the group column
    (`group` where that is not named), or else the path. Raises ValueError for a column, score or group that is
    missing, and for a file listed twice.
    """
    scores = _read_scores(Path(table_path), file_column, score_column, group_column)
    pattern_group = group_namer(group_pattern)

    def score_of(relative_path: str) -> tuple[float, str] | None:
        return (scores[relative_path][0], nearest_bin(scores[relative_path][0])) if relative_path in scores else None

    def group_of(relative_path: str) -> str:
        table_group = scores[relative_path][1] if group_pattern is None else None
        return table_group or pattern_group(relative_path)

    contents = read_labelled_folder(Path(root), score_of, group_of, num_workers, make_fingerprint)
    found = {record.relative_path for record in contents.records} | {path for path, _ in contents.unreadable}
    contents.missing = sorted(set(scores) - found)
    return contents
