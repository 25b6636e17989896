"""How scored pictures lie on disk: the rule from folder to score, and tables of scores."""

import math
import re
import reprlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from PIL import Image

from hybridiqa.models import hub_code
from hybridiqa.utils.files import as_text, has_image_suffix, hash_of, walk_files, what_is_no_file
from hybridiqa.utils.tables import read_table

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


@dataclass(frozen=True)
class ScoredImage:
    """One picture with its label: `score` on the 1-9 scale, `bin` one of `BIN_NAMES`.

    `content_hash` is of the bytes that were found to be a picture; none where they were not looked at.
    """

    path: Path
    relative_path: str
    score: float
    bin: str
    group: str
    content_hash: str | None = None

    def read(self) -> bytes:
        """Read the picture's file. Raises ValueError where it is not what it was when it was looked at."""
        data = hub_code.read_file(self.path)
        if self.content_hash not in (None, hash_of(data)):
            raise ValueError(f"{as_text(self.path)} was changed while it was prepared")
        return data


@dataclass
class FolderContents:
    """All files of a folder, each in exactly one list, as relative posix paths in sorted order.

    `unreadable` holds (path, reason); `missing` what a table of scores names and the folder does not hold; `splits` the
    official split of a picture, by relative path, where there is one; `scores` how the scores were listed and turned.
    """

    records: list[ScoredImage] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    not_images: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    scores: dict | None = None


def _score_under(number: int, folders_above: tuple[str, ...]) -> tuple[float, str] | None:
    ladders = [name.capitalize() for name in folders_above if name.capitalize() in SCORE_OFFSETS]
    if number in ABSOLUTE_SCORES or (not ladders and LOWEST_SCORE <= number <= HIGHEST_SCORE):
        return float(number), str(number)
    if ladders and 1 <= number <= NUM_BINS_PER_LADDER:
        return float(number + SCORE_OFFSETS[ladders[-1]]), f"{ladders[-1]}/{number}"
    return None


def score_and_bin(path: str | PurePath) -> tuple[float, str] | None:
    """The score (1-9 scale) and bin that the folders above a picture give it, or None where they give none.

    `path` is relative to the source's root. The nearest folder whose name is a number decides; above that folder,
    the nearest `Artifact` or `Perfect` (any case) says how to read it. Only the digits 0-9 make a number: `06` is 6,
    while `3.5`, `-1`, `4th` and digits of other scripts are names like any other, and the search goes on above them.
    A number that is no bin (`0`, `6` under `Artifact` or `Perfect`, `2024`) gives no score, whatever stands above it.
    """
    folders = PurePath(path).parts[:-1]
    for depth in reversed(range(len(folders))):
        if re.fullmatch("[0-9]+", folders[depth]):
            return _score_under(int(folders[depth]), folders[:depth])
    return None


@dataclass(frozen=True)
class Picture:
    """A picture's file as it was read, once: its bytes, the mode that they have it in, and upright RGB."""

    data: bytes
    mode: str
    rgb: Image.Image


def read_picture(path: Path) -> Picture:
    """Read and decode a file.

    Raises:
        ValueError: `NOT_AN_IMAGE`, or why it cannot be read. What is of no known format is a broken picture if its
            suffix is a picture's, and no picture otherwise.
    """
    if reason := what_is_no_file(path):
        raise ValueError(reason)
    try:
        data = hub_code.read_file(path)
        opened, rgb = hub_code.decode_file(data)
    except hub_code.UnknownFormat as error:
        reason = f"not a picture, in spite of its suffix: {error}" if has_image_suffix(path) else NOT_AN_IMAGE
        raise ValueError(reason) from error
    except ValueError:
        raise
    except Exception as error:  # decoders raise whatever their format's parser does: OSError, struct.error, ...
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return Picture(data, opened.mode, rgb)


def _inspect(path: Path) -> tuple[str | None, str | None]:
    """The reason why a file is no whole picture, or else the hash of its bytes."""
    try:
        return None, hash_of(read_picture(path).data)
    except ValueError as error:
        return str(error), None


def group_namer(group_pattern: str | None) -> Callable[[str], str]:
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


def read_labelled_folder(
    root: Path,
    score_of: Callable[[str], tuple[float, str] | None],
    group_of: Callable[[str], str],
    num_workers: int,
) -> FolderContents:
    """Every file of a folder, decoded once; score and bin, and the group, by relative posix path."""
    if not root.is_dir():
        raise ValueError(f"{str(root)!r} is not a folder")
    contents = FolderContents()
    paths = walk_files(root)
    with ThreadPoolExecutor(num_workers) as pool:
        for path, (problem, content_hash) in zip(paths, pool.map(_inspect, paths), strict=True):
            relative_path = as_text(path.relative_to(root).as_posix())
            label = score_of(relative_path)
            if problem == NOT_AN_IMAGE:
                contents.not_images.append(relative_path)
            elif problem is not None:
                contents.unreadable.append((relative_path, problem))
            elif label is None:
                contents.unscored.append(relative_path)
            else:
                record = ScoredImage(path, relative_path, *label, group_of(relative_path), content_hash)
                contents.records.append(record)
    return contents


def read_hybrid_folder(root: Path, group_pattern: str | None = None, num_workers: int = 4) -> FolderContents:
    """The scored pictures of numbered folders (see `score_and_bin`), every picture really decoded once.

    A picture is its own group, unless `group_pattern` is given: a regular expression searched in the relative posix
    path, whose group 1 (or whole match, if it has none) is the group. Raises ValueError for a path it does not match.
    """
    return read_labelled_folder(Path(root), score_and_bin, group_namer(group_pattern), num_workers)


def nearest_bin(score: float) -> str:
    """The bin of a score on the 1-9 scale."""
    return str(min(max(math.floor(score + 0.5), LOWEST_SCORE), HIGHEST_SCORE))


def _read_scores(table_path: Path, file_column: str, score_column: str, group_column: str | None) -> dict:
    """{relative posix path: (score, group)}, the group being None without such a column."""
    scores = {}
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
) -> FolderContents:
    """The pictures of a folder with the scores of a table; the bin is the nearest whole score, 1-9.

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

    contents = read_labelled_folder(Path(root), score_of, group_of, num_workers)
    found = {record.relative_path for record in contents.records} | {path for path, _ in contents.unreadable}
    contents.missing = sorted(set(scores) - found)
    return contents
