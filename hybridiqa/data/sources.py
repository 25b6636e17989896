"""Sources of scored images: a folder, a zip or a dataset on the Hub, in any of the formats that are known."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import snapshot_download

from hybridiqa.data.database_reader import read_database, recognise
from hybridiqa.data.databases import DATABASES
from hybridiqa.data.fingerprints import make_fingerprint
from hybridiqa.data.folders import FolderContents, read_hybrid_folder, read_scored_folder
from hybridiqa.utils.files import extract_zip, walk_files
from hybridiqa.utils.hub import HUB_ID
from hybridiqa.utils.libraries import first_line

FORMATS = ("hybrid", "auto", "imagefolder", *DATABASES)


def _fetch_from_hub(dataset_id: str) -> Path:
    try:
        return Path(snapshot_download(dataset_id, repo_type="dataset"))
    except Exception as error:  # no network, no such name, no access: each client version has its own classes for them
        raise ValueError(
            f"there is no folder or zip {dataset_id!r}, and the Hub's dataset was not fetched: {first_line(error)}"
        ) from error


def _unpack_beside(folder: Path, workspace: Path) -> None:
    """Fill the workspace with links to the folder's files, each zip unpacked into a folder of its name."""
    for path in walk_files(folder):
        target = workspace / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".zip":
            extract_zip(path, target.with_suffix(""))
        else:
            target.symlink_to(path.resolve())


@contextmanager
def opened_source(source: str, scratch_dir: Path) -> Iterator[Path]:
    """Yield the folder that a source stands for; what has to be unpacked is unpacked in `scratch_dir`, and removed."""
    if Path(source).is_dir():
        yield Path(source)
        return
    is_zip = Path(source).is_file()
    if is_zip and Path(source).suffix.lower() != ".zip":
        raise ValueError(f"{source!r} is a file; a folder, a .zip or a Hub dataset's name is accepted")
    if not is_zip and not HUB_ID.fullmatch(source):
        raise ValueError(f"there is no folder or zip {source!r}, nor is this a Hub dataset's name (user/name)")
    with tempfile.TemporaryDirectory(dir=scratch_dir) as workspace:
        if is_zip:
            extract_zip(Path(source), Path(workspace))
        else:
            _unpack_beside(_fetch_from_hub(source), Path(workspace))
        yield Path(workspace)


def _find_metadata(source_dir: Path) -> Path:
    """Return the table of an `imagefolder`, as `datasets` has it."""
    for suffix in (".csv", ".jsonl", ".parquet"):
        if (path := source_dir / f"metadata{suffix}").is_file():
            return path
    raise ValueError(f"--format imagefolder needs a metadata.csv, .jsonl or .parquet in {source_dir}")


def _check_contents(contents: FolderContents, args: argparse.Namespace) -> None:
    """Raise ValueError where too much is missing, or nothing has a score."""
    if len(contents.missing) > args.max_missing:
        raise ValueError(
            f"{len(contents.missing)} listed images are not in {args.source!r}, the first is {contents.missing[0]}; "
            f"--max_missing {len(contents.missing)} would go on without them"
        )
    if not contents.records:
        raise ValueError(
            f"no image in {args.source!r} has a score ({len(contents.unscored)} images without one, "
            f"{len(contents.unreadable)} unreadable, {len(contents.not_images)} other files)"
        )


def read_source(source_dir: Path, args: argparse.Namespace) -> FolderContents:
    """Read the scored images of a folder, as the options of prepare_dataset.py say how to read it.

    Raises:
        ValueError: it is not of this format, lists more than `--max_missing` images that it lacks, or scores none.
    """
    format_name = recognise(source_dir) if args.format == "auto" else args.format
    table_path = _find_metadata(source_dir) if format_name == "imagefolder" else args.scores_csv
    fingerprint = make_fingerprint if args.deduplicate else None
    if format_name in DATABASES:
        contents = read_database(source_dir, format_name, args.rescale, args.num_workers, fingerprint)
    elif table_path is None:
        contents = read_hybrid_folder(source_dir, args.group_pattern, args.num_workers, fingerprint)
    else:
        contents = read_scored_folder(
            source_dir,
            table_path,
            file_column="file_name" if format_name == "imagefolder" else args.file_column,
            score_column=args.score_column,
            group_column=args.group_column,
            group_pattern=args.group_pattern,
            num_workers=args.num_workers,
            make_fingerprint=fingerprint,
        )
    _check_contents(contents, args)
    return contents


def describe_formats() -> str:
    """Return what --help says of the databases: list, scores, groups, official split, and what is not verified."""
    lines = []
    for name, database in DATABASES.items():
        low, high = database.score_range or ("any", "any")
        direction = "higher is better" if database.is_higher_better else "lower is better, inverted"
        lines += [
            f"  {name}: {database.title}; {' or '.join(database.lists)}",
            f"      scores {low} to {high}, {direction}; group: {database.group}; official split: {database.split}",
            f"      layout after {', '.join(database.sources)}",
            *([f"      UNVERIFIED: {database.unverified}"] if database.unverified else []),
        ]
    return "\n".join(lines)
