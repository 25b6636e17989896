"""Turn scored pictures into a dataset to train on, or clean pictures into scored ones.

    python prepare_dataset.py FOLDER_OR_ZIP_OR_HUB_DATASET --output_dir prepared
    python prepare_dataset.py pictures --scores_csv scores.csv --score_column mos --output_dir prepared
    python prepare_dataset.py --synthesize_artifacts clean_pictures --output_dir damaged
    python prepare_dataset.py pictures --output_dir prepared --push_to_hub USER/NAME

A scored folder is numbered (`Artifact/1` ... `Perfect/5`, `8`, `9`, see `hybridiqa/data/folders.py`) or comes with a
table of scores. The output is a `datasets.DatasetDict` (train, validation, test) that holds the pictures themselves,
and `report.json` with all that was left out; with --push_to_hub it goes to the Hub, too. What was prepared before is
pushed where no source is given. Exit status: 0 done, 1 done but some pictures could not be read (or were missing), or
the push failed; 2 wrong usage or input.
"""

import argparse
import io
import json
import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature

from hybridiqa.data.databases import DATABASES
from hybridiqa.data.folders import BIN_NAMES, FolderContents, ScoredImage
from hybridiqa.data.hub_dataset import prepared_card, push_splits
from hybridiqa.data.loading import load_prepared
from hybridiqa.data.near_duplicates import merge_near_duplicates
from hybridiqa.data.sources import FORMATS, describe_formats, opened_source, read_source
from hybridiqa.data.splits import split_by_group
from hybridiqa.distortions.synthesis import SynthesisOptions, synthesize
from hybridiqa.models import hub_code
from hybridiqa.utils.atomic import check_new_folder, is_within, new_folder
from hybridiqa.utils.cli import exit_status
from hybridiqa.utils.files import as_text
from hybridiqa.utils.hub import HubRepository, PushError

PROGRAM = "prepare_dataset.py"
SPLIT_NAMES = ("train", "validation", "test")
SYNTHESIS_OPTIONS = ("versions_per_image", "mixes_per_image", "max_size", "crops_per_image", "crop_size")
NUM_LISTED = 10  # names of unscored files on the screen; report.json has them all
FEATURES = Features(
    {
        "image": ImageFeature(mode="RGB"),
        "score": Value("float32"),
        "bin": ClassLabel(names=list(BIN_NAMES)),
        "group": Value("string"),
        "path": Value("string"),
    }
)
# Files that stay as they are: `datasets` turns them upright and reads these modes as `to_rgb` does, but it drops
# transparency and clips 16-bit grey. Other formats become PNG, smaller than BMP and shown by every viewer.
KEPT_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
KEPT_MODES = ("1", "L", "P", "RGB")


def image_bytes(record: ScoredImage) -> bytes:
    """The picture's file as it is where `datasets` decodes it to `load_image`'s pixels, else those pixels as PNG."""
    data = record.read()
    if _is_kept(data):
        return data
    buffer = io.BytesIO()
    hub_code.load_image(data).save(buffer, format="PNG")
    return buffer.getvalue()


def _is_kept(data: bytes) -> bool:
    """Whether Pillow alone decodes the file, metadata and all, to the pixels that we see in it."""
    try:
        image = hub_code.open_image(io.BytesIO(data))
        is_plain = image.format in KEPT_FORMATS and image.mode in KEPT_MODES and not image.has_transparency_data
        if is_plain and image.format == "PNG":  # of which some metadata come after the pixels
            image.load()
    except Exception:  # of its metadata, as it was decoded before: decoders raise whatever their parsers do
        return False
    return is_plain


def _rows(records: list[ScoredImage], num_workers: int) -> Iterator[dict]:
    chunk_size = 8 * num_workers  # `map` would otherwise read all pictures ahead of the writer
    with ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, len(records), chunk_size):
            chunk = records[start : start + chunk_size]
            for record, data in zip(chunk, pool.map(image_bytes, chunk), strict=True):
                yield {
                    "image": {"bytes": data, "path": as_text(record.path.name)},
                    "score": record.score,
                    "bin": record.bin,
                    "group": record.group,
                    "path": record.relative_path,
                }


def _build(splits: dict[str, list[ScoredImage]], cache_dir: str, num_workers: int) -> DatasetDict:
    datasets = {}
    for name, records in splits.items():
        arguments = {"records": records, "num_workers": num_workers}
        # A cache of this run alone: the shared one would hand out old pictures under the same names.
        datasets[name] = Dataset.from_generator(
            _rows, features=FEATURES, cache_dir=os.path.join(cache_dir, name), gen_kwargs=arguments
        )
    return DatasetDict(datasets)


def _named_splits(records: list[ScoredImage], args: argparse.Namespace) -> dict[str, set[str]]:
    """Relative paths of the pictures whose groups `--test_groups` and `--validation_groups` name, by split."""
    named = {}
    for name in ("test", "validation"):
        pattern = getattr(args, f"{name}_groups")
        if pattern is None:
            continue
        named[name] = {record.relative_path for record in records if re.fullmatch(pattern, record.group)}
        if not named[name]:
            raise ValueError(f"no group matches --{name}_groups {pattern!r} whole (one is {records[0].group!r})")
    return named


def _split(
    records: list[ScoredImage], named: dict[str, set[str]], args: argparse.Namespace
) -> dict[str, list[ScoredImage]]:
    """Records by split name; a split whose fraction is 0 is left out. The groups of pictures named become that split,
    test before validation."""
    splits = {}
    for name, paths in named.items():
        groups = {record.group for record in records if record.relative_path in paths}
        splits[name] = [record for record in records if record.group in groups]
        records = [record for record in records if record.group not in groups]
    shares = {name: getattr(args, f"{name}_fraction") for name in SPLIT_NAMES[1:] if name not in named}
    fractions = [1 - sum(shares.values()), *shares.values()]
    indices = split_by_group([r.score for r in records], [r.group for r in records], fractions, args.seed)
    for name, split in zip([SPLIT_NAMES[0], *shares], indices, strict=True):
        splits[name] = [records[index] for index in split]
    return {name: splits[name] for name in SPLIT_NAMES if splits[name]}


def _official_splits(
    records: list[ScoredImage], official: dict[str, str], args: argparse.Namespace
) -> dict[str, list[ScoredImage]]:
    """Records as the database's authors split them; the validation split is taken from their train split if need be."""
    splits = {name: [r for r in records if official.get(r.relative_path) == name] for name in SPLIT_NAMES}
    if not splits["validation"] and args.validation_fraction:
        train, shares = splits["train"], [1 - args.validation_fraction, args.validation_fraction]
        indices = split_by_group([r.score for r in train], [r.group for r in train], shares, args.seed)
        splits["train"], splits["validation"] = ([train[index] for index in split] for split in indices)
    return {name: split for name, split in splits.items() if split}


def _report(
    splits: dict[str, list[ScoredImage]],
    contents: FolderContents,
    near_duplicates: list[list[str]] | None,
    args: argparse.Namespace,
) -> dict:
    summaries = {}
    for name, records in splits.items():
        bins = Counter(record.bin for record in records)
        summaries[name] = {
            "num_images": len(records),
            "num_groups": len({record.group for record in records}),
            "bins": {bin_name: bins[bin_name] for bin_name in BIN_NAMES if bins[bin_name]},
        }
    return {
        "source": args.source,
        "scores": contents.scores,  # null where they are as they were given
        "arguments": {name: value for name, value in vars(args).items() if value is not None},
        "splits": summaries,
        "unscored": contents.unscored,
        "unreadable": [{"path": path, "reason": reason} for path, reason in contents.unreadable],
        "missing": contents.missing,
        "not_images": contents.not_images,
        "near_duplicates": near_duplicates,  # null where none were looked for
    }


def _print_report(report: dict) -> None:
    for name, split in report["splits"].items():
        print(f"{name}: {split['num_images']} images in {split['num_groups']} groups")
        print("   ", "  ".join(f"{bin_name}: {count}" for bin_name, count in split["bins"].items()))
    if report["near_duplicates"] is not None:
        num_merged = sum(len(cluster) for cluster in report["near_duplicates"])
        print(f"near duplicates: {num_merged} images merged into {len(report['near_duplicates'])} groups")
    for title, names in (
        ("without a score", report["unscored"]),
        ("in the table, not in the folder", report["missing"]),
    ):
        print(f"{title}: {len(names)}")
        for name in names[:NUM_LISTED]:
            print(f"    {name}")
    print(f"unreadable: {len(report['unreadable'])}")
    for entry in report["unreadable"]:
        print(f"    {entry['path']}: {entry['reason']}")
    print(f"other files: {len(report['not_images'])}")


def prepare(args: argparse.Namespace) -> int:
    """Write the dataset of a source and print what is in it; the exit status."""
    with new_folder(args.output_dir) as unfinished:
        scratch_dir = unfinished.parent  # vanishes with the unfinished folder
        with opened_source(args.source, scratch_dir) as source_dir:
            contents = read_source(source_dir, args)
            records, near_duplicates = contents.records, None
            named = _named_splits(records, args)  # by the names that the user knows, before any merge
            if args.deduplicate:
                records, near_duplicates = merge_near_duplicates(records, num_workers=args.num_workers)
            if contents.splits and not named and not args.random_split:
                splits = _official_splits(records, contents.splits, args)
            else:
                splits = _split(records, named, args)
            datasets = _build(splits, str(scratch_dir / "cache"), args.num_workers)
        for split in datasets.values():
            split.info.description = json.dumps(contents.scores) if contents.scores else ""
        datasets.save_to_disk(unfinished)
        report = _report(splits, contents, near_duplicates, args)
        (unfinished / "report.json").write_text(json.dumps(report, indent=2, default=str), encoding="utf-8")
    _print_report(report)
    print(f"written to {args.output_dir}")
    return 1 if contents.unreadable or contents.missing else 0


def _repository(args: argparse.Namespace) -> HubRepository:
    return HubRepository(args.push_to_hub, "dataset", args.private)


def push(args: argparse.Namespace) -> None:
    """Push what was prepared.

    Raises:
        PushError: it did not arrive; the message says how to go on.
    """
    splits = load_prepared(args.output_dir)
    repository = _repository(args)
    try:
        print(f"pushed to {push_splits(splits, repository, prepared_card(splits, repository, args.license))}")
    except PushError as error:
        again = ["python", PROGRAM, "--output_dir", str(args.output_dir), "--push_to_hub", args.push_to_hub]
        again += ["--license", args.license, *(["--private"] if args.private else [])]
        raise PushError(
            f"{error}. The dataset is whole in {args.output_dir}; push it by: {shlex.join(again)}"
        ) from error


def synthesize_folder(args: argparse.Namespace) -> int:
    """Write damaged versions of clean pictures and print the command that comes next; the exit status."""
    options = SynthesisOptions(args.seed, **{name: getattr(args, name) for name in SYNTHESIS_OPTIONS})
    report = synthesize(args.synthesize_artifacts, args.output_dir, options, args.num_workers)
    print(f"{report.num_clean} clean and {report.num_damaged} damaged pictures written to {args.output_dir}")
    print(f"damages without effect, left out: {len(report.without_effect)}")
    print(f"unreadable: {len(report.unreadable)}")
    for path, reason in report.unreadable:
        print(f"    {path}: {reason}")
    pattern = "([^/]+)__" if args.crops_per_image is None else "([^/]+)@"
    print(f"next: python {PROGRAM} {args.output_dir} --output_dir prepared --group_pattern '{pattern}'")
    return 1 if report.unreadable else 0


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise ValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        PROGRAM,
        description=__doc__,
        epilog=f"databases:\n{describe_formats()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", nargs="?", help="a scored folder, a .zip of one, or a dataset on the Hub (Xerxemi/hybridIQA-V1)")
    add("--output_dir", type=Path, required=True, help="must be new or empty")
    add("--seed", type=int, default=0, help="of the split, or of the damages (default 0)")
    add("--num_workers", type=int, default=min(8, os.cpu_count() or 1), help="changes the speed, never the result")
    add("--validation_fraction", type=float, default=0.1, help="share of the pictures (default 0.1)")
    add("--test_fraction", type=float, default=0.1, help="share of the pictures (default 0.1)")
    add("--group_pattern", help="regular expression in the relative path; its group 1 (or all of it) names the group")
    add("--test_groups", help="regular expression of whole group names: they become test, whatever --test_fraction")
    add("--validation_groups", help="the same for validation")
    add(
        "--deduplicate",
        action="store_true",
        help="merge the groups of pictures that are near duplicates (compressed again, resized, recoloured, mirrored, "
        "slightly cropped), all of which are kept, on one side of the split; --test_groups and --validation_groups "
        "match the names before that, and what is near to a picture named becomes test or validation with its group",
    )
    add(
        "--format",
        choices=FORMATS,
        default="hybrid",
        metavar="NAME",
        help="how the source is laid out: hybrid (default: numbered folders, or --scores_csv), imagefolder (with a "
        "metadata.csv, .jsonl or .parquet), one of the databases below, or auto, which knows those by their files",
    )
    add("--rescale", action="store_true", help="with a database: map its scores linearly to 1-9")
    add("--random_split", action="store_true", help="with a database: split at random, whatever its authors say")
    add("--max_missing", type=int, default=10, help="listed pictures that may not be there (default 10)")
    add("--scores_csv", type=Path, help="a table of scores (.csv, .jsonl, .parquet, .xlsx) for unsorted pictures")
    add("--file_column", default="file", help="with --scores_csv: paths relative to the source (default file)")
    add("--score_column", default="score", help="with --scores_csv (default score)")
    add("--group_column", help="with --scores_csv (default: group, if the table has it)")
    add("--synthesize_artifacts", metavar="CLEAN_DIR", help="write damaged versions of these pictures instead")
    add("--push_to_hub", metavar="USER/NAME", help="upload the dataset; without a source, what --output_dir holds")
    add("--private", action="store_true", help="make a new repository private")
    add("--license", default="unknown", help="of the pictures, as the Hub spells it, for the card (default unknown)")
    add("--versions_per_image", type=int, help="with --synthesize_artifacts: of 60 (default all)")
    add("--mixes_per_image", type=int, default=0, help="with --synthesize_artifacts: of two damages each, besides")
    add("--max_size", type=int, help="with --synthesize_artifacts: longer side in pixels (default: as it is)")
    add(
        "--crops_per_image",
        type=int,
        help="with --synthesize_artifacts: take so many squares out of a picture, each ...",
    )
    add(
        "--crop_size",
        type=int,
        help="... of this side in pixels and at a random scale of it (default: it is taken whole)",
    )
    return parser


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError for arguments that no source could satisfy, before the long work."""
    is_push_only = args.push_to_hub and args.source is None and args.synthesize_artifacts is None
    if (args.source is None) == (args.synthesize_artifacts is None) and not is_push_only:
        raise ValueError("give either a source or --synthesize_artifacts CLEAN_DIR")
    shares = (args.validation_fraction, args.test_fraction)
    if not (min(shares) >= 0 and sum(shares) < 1):
        raise ValueError(f"got validation and test fractions {shares}; accepted: 0 or more, and less than 1 together")
    without_effect = {
        **{f"--{name}": args.source and getattr(args, name) for name in SYNTHESIS_OPTIONS},
        "--group_column": not args.scores_csv and args.format != "imagefolder" and args.group_column,
        "--scores_csv": args.synthesize_artifacts and args.scores_csv,
        "--rescale": args.format not in ("auto", *DATABASES) and args.rescale,
        "--random_split": args.format not in ("auto", *DATABASES) and args.random_split,
        "--format": (args.synthesize_artifacts or args.scores_csv) and args.format != "hybrid",
        "--group_pattern": args.format in ("auto", *DATABASES) and args.group_pattern,
        "--push_to_hub": args.synthesize_artifacts and args.push_to_hub,
        "--private": not args.push_to_hub and args.private,
        "--deduplicate": args.synthesize_artifacts and args.deduplicate,
    }
    for option, given in without_effect.items():
        if given:
            raise ValueError(f"{option} has no effect here; see --help for what it goes with")
    if args.num_workers < 1:
        raise ValueError(f"got --num_workers {args.num_workers}; accepted: 1 or more")
    for option in ("group_pattern", "test_groups", "validation_groups"):
        try:
            re.compile(getattr(args, option) or "")
        except re.error as error:
            raise ValueError(f"--{option} {getattr(args, option)!r} is no regular expression: {error}") from error
    if args.synthesize_artifacts is not None and not Path(args.synthesize_artifacts).is_dir():
        raise ValueError(f"{args.synthesize_artifacts!r} is not a folder")
    if args.synthesize_artifacts is not None and is_within(args.output_dir, Path(args.synthesize_artifacts)):
        raise ValueError(
            f"--output_dir {args.output_dir} lies in the folder of clean pictures, {args.synthesize_artifacts}: the "
            "next run would take damaged versions for clean pictures; give a folder outside of it"
        )
    if args.push_to_hub:
        _repository(args).check()
    if not is_push_only:
        check_new_folder(args.output_dir)


def run(argv: list[str] | None) -> int:
    """Do what the command line says; the exit status.

    Raises:
        ValueError: wrong usage or input.
        PushError: what was prepared did not arrive on the Hub.
    """
    args = _parser().parse_args(argv)
    _check(args)
    if args.synthesize_artifacts is not None:
        return synthesize_folder(args)
    status = prepare(args) if args.source is not None else 0
    if args.push_to_hub:
        push(args)
    return status


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s")
    return exit_status(PROGRAM, lambda: run(argv))
