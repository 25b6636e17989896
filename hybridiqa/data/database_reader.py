"""Release of a database on disk, read: its list and its images found, scores inverted and rescaled."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hybridiqa.data.databases import DATABASES, Database, Listed
from hybridiqa.data.folders import (
    HIGHEST_SCORE,
    LOWEST_SCORE,
    FolderContents,
    MakeFingerprint,
    nearest_bin,
    read_labelled_folder,
)
from hybridiqa.utils.files import as_text, walk_files
from hybridiqa.utils.tables import read_table

DEPTHS = ("", "*/", "*/*/")  # of the release below the folder that is given: zips bring folders of their own


def find_list(root: Path, database: Database) -> Path | None:
    """Return the file that lists a database's scores, or None where the folder does not hold this database."""
    for pattern in database.lists:
        for path in (path for depth in DEPTHS for path in sorted(root.glob(depth + pattern))):
            if not database.columns or _has_columns(path, database.columns):
                return path
    return None


def _has_columns(path: Path, columns: Sequence[str]) -> bool:
    try:
        read_table(path, None, columns)
    except ValueError:
        return False
    return True


def recognise(root: Path) -> str:
    """Return the name of the database whose release a folder holds.

    Raises:
        ValueError: none of them, or several.
    """
    found = {name: path for name, database in DATABASES.items() if (path := find_list(root, database))}
    if len(found) != 1:
        known = "; ".join(f"{name} ({' or '.join(database.lists)})" for name, database in DATABASES.items())
        got = ", ".join(f"{name} ({path})" for name, path in found.items()) or "none of their lists"
        raise ValueError(f"--format auto knows a release by its list of scores, got {got}; known are {known}")
    return next(iter(found))


class ReleaseFiles:
    """Files of a release, found by what a list calls them, whatever the case of their names.

    Args:
        root: of the release.
        folders: the preferred first, where a name lies in several.
    """

    def __init__(self, root: Path, folders: Sequence[str] = ()):
        self.folders = [folder.lower() for folder in folders]
        self.paths: defaultdict[str, list[str]] = defaultdict(list)  # by lower-case name
        for path in walk_files(root):
            relative_path = as_text(path.relative_to(root).as_posix())
            self.paths[path.name.lower()].append(relative_path)

    def find(self, file: str) -> str | None:
        """Return the relative path of what a list calls so; None where it is not there.

        Raises:
            ValueError: it could be one of several.
        """
        named = self.paths.get(file.rsplit("/", 1)[-1].lower(), [])
        exact = [path for path in named if f"/{path.lower()}".endswith(f"/{file.lower()}")]
        found = exact or (named if len(named) == 1 else [])
        for folder in self.folders:
            if len(found) > 1:
                found = [path for path in found if folder in path.lower().split("/")] or found
        if len(found) > 1:
            raise ValueError(f"{file!r} could be any of {', '.join(sorted(found)[:3])}: give a folder with one of them")
        return found[0] if found else None


def upright_score(score: float, score_range: tuple[float, float], is_higher_better: bool) -> float:
    """Return a listed score with higher as better: inverted within its range where lower is."""
    low, high = score_range
    return score if is_higher_better else low + high - score


def rescale_score(score: float, score_range: tuple[float, float]) -> float:
    """Map a score linearly from its range to 1-9."""
    low, high = score_range
    return LOWEST_SCORE + (HIGHEST_SCORE - LOWEST_SCORE) * (score - low) / (high - low)


def read_database(
    root: Path,
    name: str,
    is_rescaled: bool = False,
    num_workers: int = 4,
    make_fingerprint: MakeFingerprint | None = None,
) -> FolderContents:
    """Read the scored images of a release; `splits` and `scores` of the result say what the list said of them.

    Args:
        root: the folder that holds the release, or one or two folders around it.
        name: one of `DATABASES`.
        is_rescaled: map the scores linearly to 1-9, from the range that the database names or, where it has none, from
            the lowest and the highest listed.

    Raises:
        ValueError: no such release, or a list that cannot be read.
    """
    database = DATABASES[name]
    list_path = find_list(root, database)
    if list_path is None:
        raise ValueError(f"{root} holds no {database.title}: there is no {' or '.join(database.lists)}")
    try:
        listed = database.read(list_path)
    except Exception as error:  # each format's reader has classes of its own
        raise ValueError(f"{list_path} is not the list of {database.title}: {error or repr(error)}") from error
    wrong = [row.file for row in listed if not isinstance(row.file, str) or not math.isfinite(row.score)]
    if wrong:
        raise ValueError(f"{list_path}: {len(wrong)} rows lack a name or a finite score, the first is of {wrong[0]}")
    release = list_path.parents[database.lists[0].count("/")]
    found, missing = _find_listed(release, database, listed)
    score_range = database.score_range or (min(row.score for row in listed), max(row.score for row in listed))
    if score_range[0] == score_range[1]:
        raise ValueError(f"{list_path} gives every image the same score, {score_range[0]}")
    labels = {}
    for path, row in found.items():
        score = upright_score(row.score, score_range, database.is_higher_better)
        rescaled = rescale_score(score, score_range)
        labels[path] = (rescaled if is_rescaled else score, nearest_bin(rescaled))
    contents = read_labelled_folder(
        release, labels.get, lambda path: found[path].group or path, num_workers, make_fingerprint
    )
    contents.missing = missing
    contents.splits = {path: row.split for path, row in found.items() if row.split}
    contents.scores = {
        "database": database.title,
        "listed_range": list(score_range),
        "turned": not database.is_higher_better,
        "range": [LOWEST_SCORE, HIGHEST_SCORE] if is_rescaled else list(score_range),
    }
    return contents


def _find_listed(release: Path, database: Database, listed: list[Listed]) -> tuple[dict[str, Listed], list[str]]:
    """Return rows by the relative path of their image, and the images that are not there."""
    files = ReleaseFiles(release, database.folders)
    found: dict[str, Listed] = {}
    missing: list[str] = []
    for row in listed:
        path = files.find(row.file)
        if path is None:
            missing.append(row.file)
        elif path in found:
            raise ValueError(f"{path} is listed twice, as {found[path].file} and {row.file}")
        else:
            found[path] = row
    return found, sorted(missing)
