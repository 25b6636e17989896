"""Turn scored images into a dataset to train on, or clean images into scored ones.

    python prepare_dataset.py build FOLDER_OR_ZIP_OR_HUB_DATASET --output_dir prepared
    python prepare_dataset.py build images --scores_csv scores.csv --score_column mos --output_dir prepared
    python prepare_dataset.py build images --output_dir prepared --push_to_hub USER/NAME
    python prepare_dataset.py push prepared USER/NAME
    python prepare_dataset.py synthesize clean_images --output_dir distorted

A scored folder is numbered (`Artifact/1` ... `Perfect/5`, `8`, `9`, see `hybridiqa/data/folders.py`) or comes with a
table of scores. `build` writes a `datasets.DatasetDict` (train, validation, test) that holds the images themselves, and
`report.json` with all that was left out; with --push_to_hub it goes to the Hub, too, as `push` does with what was built
before. `synthesize` writes a scored folder of distorted versions of clean images. `COMMAND --help` lists the options of
each.

The form without a command goes on to be understood: a source builds, --synthesize_artifacts CLEAN_DIR synthesizes, and
--push_to_hub with neither pushes what --output_dir holds.

Exit status: 0 done, 1 done but some images could not be read (or were missing), or the push failed; 2 wrong usage or
input.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from pathlib import Path
from typing import NoReturn

from datasets import DatasetDict

from hybridiqa.data.building import build_datasets
from hybridiqa.data.databases import DATABASES
from hybridiqa.data.folders import BIN_NAMES, FolderContents, ScoredImage
from hybridiqa.data.hub_dataset import build_card, push_splits
from hybridiqa.data.loading import load_prepared
from hybridiqa.data.near_duplicates import merge_near_duplicates
from hybridiqa.data.sources import FORMATS, describe_formats, opened_source, read_source
from hybridiqa.data.splits import paths_of_groups, split_as_published, split_at_random
from hybridiqa.distortions.synthesis import TYPES, SynthesisOptions, synthesize
from hybridiqa.utils.atomic import check_new_folder, is_within, new_folder
from hybridiqa.utils.cli import exit_status
from hybridiqa.utils.hub import HubRepository, PushError

PROGRAM = "prepare_dataset.py"
SYNTHESIS_OPTIONS = (
    *("types", "versions_per_image", "mixes_per_image", "chains_per_image", "milder_chains"),
    *("max_size", "crops_per_image", "crop_size"),
)
NUM_LISTED = 10  # names of unscored files on the screen; report.json has them all
WITH_DATABASES = ("auto", *DATABASES)  # formats whose scores have a range, and images groups, of their own


def _summarize_splits(splits: dict[str, list[ScoredImage]]) -> dict[str, dict]:
    summaries = {}
    for name, records in splits.items():
        bins = Counter(record.bin for record in records)
        summaries[name] = {
            "num_images": len(records),
            "num_groups": len({record.group for record in records}),
            "bins": {bin_name: bins[bin_name] for bin_name in BIN_NAMES if bins[bin_name]},
        }
    return summaries


def _make_report(
    splits: dict[str, list[ScoredImage]],
    contents: FolderContents,
    near_duplicates: list[list[str]] | None,
    args: Namespace,
) -> dict:
    return {
        "source": args.source,
        "scores": contents.scores,  # null where they are as they were given
        "arguments": {name: value for name, value in vars(args).items() if value is not None},
        "splits": _summarize_splits(splits),
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


def _split(contents: FolderContents, args: Namespace) -> tuple[dict[str, list[ScoredImage]], list[list[str]] | None]:
    """Return the records by split, and the near-duplicates that were merged where they were looked for."""
    records, near_duplicates = contents.records, None
    # By the names that the user knows, before any merge.
    named = paths_of_groups(records, {"test": args.test_groups, "validation": args.validation_groups})
    if args.deduplicate:
        records, near_duplicates = merge_near_duplicates(records)
    if contents.splits and not named and not args.random_split:
        return split_as_published(records, contents.splits, args.validation_fraction, args.seed), near_duplicates
    shares = {"validation": args.validation_fraction, "test": args.test_fraction}
    return split_at_random(records, shares, named, args.seed), near_duplicates


def build(args: Namespace) -> int:
    """Write the dataset of a source, print what is in it, and push it if asked; return the exit status.

    Raises:
        PushError: it did not arrive on the Hub.
    """
    _check_build(args)
    with new_folder(args.output_dir) as unfinished:
        scratch_dir = unfinished.parent  # vanishes with the unfinished folder
        with opened_source(args.source, scratch_dir) as source_dir:
            contents = read_source(source_dir, args)
            splits, near_duplicates = _split(contents, args)
            datasets = build_datasets(splits, str(scratch_dir / "cache"), args.num_workers)
        for split in datasets.values():
            split.info.description = json.dumps(contents.scores) if contents.scores else ""
        datasets.save_to_disk(unfinished)
        report = _make_report(splits, contents, near_duplicates, args)
        (unfinished / "report.json").write_text(json.dumps(report, indent=2, default=str), encoding="utf-8")
    _print_report(report)
    print(f"written to {args.output_dir}")
    if args.push_to_hub:
        _push(load_prepared(args.output_dir), args)
    return 1 if contents.unreadable or contents.missing else 0


def _check_build(args: Namespace) -> None:
    """Raise ValueError for options that do not go together, before the long work."""
    shares = (args.validation_fraction, args.test_fraction)
    if sum(shares) >= 1:
        raise ValueError(f"got validation and test fractions {shares}; accepted: 0 or more, and less than 1 together")
    has_table = args.scores_csv is not None or args.format == "imagefolder"
    without_effect = {
        "--group_column": args.group_column and not has_table,
        "--rescale": args.rescale and args.format not in WITH_DATABASES,
        "--random_split": args.random_split and args.format not in WITH_DATABASES,
        "--format": args.format != "hybrid" and args.scores_csv is not None,
        "--group_pattern": args.group_pattern and args.format in WITH_DATABASES,
        "--private": args.private and not args.push_to_hub,
    }
    _refuse([option for option, is_given in without_effect.items() if is_given])
    if args.push_to_hub:
        _repository(args).check()
    check_new_folder(args.output_dir)


def _refuse(options: list[str]) -> None:
    if options:
        raise ValueError(f"{options[0]} has no effect here; see --help for what it goes with")


def _repository(args: Namespace) -> HubRepository:
    return HubRepository(args.push_to_hub, "dataset", args.private)


def push(args: Namespace) -> int:
    """Push what was built before; return the exit status.

    Raises:
        PushError: it did not arrive on the Hub.
    """
    _repository(args).check()
    _push(load_prepared(args.output_dir), args)
    return 0


def _push(splits: DatasetDict, args: Namespace) -> None:
    """Push splits with their card. Raises PushError, whose message says how to go on."""
    repository = _repository(args)
    try:
        print(f"pushed to {push_splits(splits, repository, build_card(splits, repository, args.license))}")
    except PushError as error:
        again = ["python", PROGRAM, "push", str(args.output_dir), args.push_to_hub]
        again += ["--license", args.license, *(["--private"] if args.private else [])]
        raise PushError(
            f"{error}. The dataset is whole in {args.output_dir}; push it by: {shlex.join(again)}"
        ) from error


def synthesize_folder(args: Namespace) -> int:
    """Write distorted versions of clean images and print the command that comes next; return the exit status."""
    _check_folders(args.clean_dir, args.output_dir)
    options = SynthesisOptions(args.seed, **{name: getattr(args, name) for name in SYNTHESIS_OPTIONS})
    report = synthesize(args.clean_dir, args.output_dir, options, args.num_workers)
    print(f"{report.num_clean} clean and {report.num_distorted} distorted images written to {args.output_dir}")
    print(f"distortions without effect, left out: {len(report.without_effect)}")
    print(f"unreadable: {len(report.unreadable)}")
    for path, reason in report.unreadable:
        print(f"    {path}: {reason}")
    group_pattern = "([^/]+)__" if args.crops_per_image is None else "([^/]+)@"
    print(f"next: python {PROGRAM} build {args.output_dir} --output_dir prepared --group_pattern '{group_pattern}'")
    return 1 if report.unreadable else 0


def _check_folders(clean_dir: str, output_dir: Path) -> None:
    """Raise ValueError for folders that cannot be those of a synthesis."""
    if not Path(clean_dir).is_dir():
        raise ValueError(f"{clean_dir!r} is not a folder")
    if is_within(output_dir, Path(clean_dir)):
        raise ValueError(
            f"--output_dir {output_dir} lies in the folder of clean images, {clean_dir}: the next run would take "
            "distorted versions for clean images; give a folder outside of it"
        )
    check_new_folder(output_dir)


class _OneLineParser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def count(text: str) -> int:
    """Return an option's whole number of 1 or more."""
    if int(text) < 1:
        raise ArgumentTypeError(f"got {text}; accepted: 1 or more")
    return int(text)


def share(text: str) -> float:
    """Return an option's share of a whole."""
    if not 0 <= float(text) < 1:
        raise ArgumentTypeError(f"got {text}; accepted: 0 or more, and less than 1")
    return float(text)


def pattern(text: str) -> str:
    """Return an option's regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
    return text


def _common_options() -> _OneLineParser:
    """Return the options of whatever writes a folder."""
    parser = _OneLineParser(add_help=False)
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="must be new or empty")
    add("--seed", type=int, default=0, help="of all draws (default 0)")
    workers = min(8, os.cpu_count() or 1)
    add("--num_workers", type=count, default=workers, help="changes the speed, never the result")
    return parser


def _build_options() -> _OneLineParser:
    parser = _OneLineParser(add_help=False)
    add = parser.add_argument
    add("--validation_fraction", type=share, default=0.1, help="share of the images (default 0.1)")
    add("--test_fraction", type=share, default=0.1, help="share of the images (default 0.1)")
    add(
        "--group_pattern",
        type=pattern,
        help="regular expression in the relative path; its group 1 (or all of it) names the group",
    )
    add(
        "--test_groups",
        type=pattern,
        help="regular expression of whole group names: they become test, whatever --test_fraction",
    )
    add("--validation_groups", type=pattern, help="the same for validation")
    add(
        "--deduplicate",
        action="store_true",
        help="merge the groups of images that are near duplicates (compressed again, resized, recoloured, mirrored, "
        "slightly cropped), all of which are kept, on one side of the split; --test_groups and --validation_groups "
        "match the names before that, and what is near to an image named becomes test or validation with its group",
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
    add("--max_missing", type=int, default=10, help="listed images that may not be there (default 10)")
    add("--scores_csv", type=Path, help="a table of scores (.csv, .jsonl, .parquet, .xlsx) for unsorted images")
    add("--file_column", default="file", help="with --scores_csv: paths relative to the source (default file)")
    add("--score_column", default="score", help="with --scores_csv (default score)")
    add("--group_column", help="with --scores_csv (default: group, if the table has it)")
    add("--push_to_hub", metavar="USER/NAME", help="upload the dataset")
    return parser


def _card_options() -> _OneLineParser:
    """Return the options of whatever goes to the Hub."""
    parser = _OneLineParser(add_help=False)
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    license_help = "of the images, as the Hub spells it, for the card (default unknown)"
    parser.add_argument("--license", default="unknown", help=license_help)
    return parser


def _synthesis_options() -> _OneLineParser:
    parser = _OneLineParser(add_help=False)
    add = parser.add_argument
    add(
        "--types",
        nargs="+",
        choices=TYPES,
        default=["trained"],
        metavar="NAME",
        help="of versions with one distortion: trained (default; 12 types), generated (6, of AI images), or both",
    )
    add("--versions_per_image", type=int, help="of 60, or 30 generated ones, or 90 of both (default all)")
    add("--mixes_per_image", type=int, default=0, help="of two trained distortions each, besides (default 0)")
    add(
        "--chains_per_image",
        type=int,
        default=0,
        help="of one to four distortions of both tables each, besides, in the order in which they follow each other in "
        "the life of an image (default 0)",
    )
    add(
        "--milder_chains",
        action="store_true",
        help="with --chains_per_image: each chain also with each of its levels one less",
    )
    add("--max_size", type=int, help="longer side in pixels (default: as it is)")
    add("--crops_per_image", type=int, help="take so many squares out of an image, each ...")
    add("--crop_size", type=int, help="... of this side in pixels and at a random scale of it (default: it is whole)")
    return parser


COMMANDS = {"build": build, "synthesize": synthesize_folder, "push": push}


def _parser() -> ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = _OneLineParser(PROGRAM, description=__doc__, formatter_class=layout)
    add = parser.add_subparsers(dest="command", metavar="COMMAND", required=True).add_parser
    source_help = "a scored folder, a .zip of one, or a dataset on the Hub (Xerxemi/hybridIQA-V1)"

    options = [_common_options(), _build_options(), _card_options()]
    databases = f"databases:\n{describe_formats()}"
    command = add("build", parents=options, epilog=databases, formatter_class=layout, help="scored images -> a dataset")
    command.add_argument("source", help=source_help)

    options = [_common_options(), _synthesis_options()]
    command = add("synthesize", parents=options, help="clean images -> a scored folder of distorted versions")
    command.add_argument("clean_dir", metavar="CLEAN_DIR", help="a folder of clean images")

    command = add("push", parents=[_card_options()], help="a dataset that was built -> the Hub")
    command.add_argument("output_dir", type=Path, metavar="FOLDER", help="what `build` has written")
    command.add_argument("push_to_hub", metavar="USER/NAME", help="where it goes")
    return parser


FOREIGN_OPTIONS = {  # refused where a command line without a command means this one; others are passed over
    "build": SYNTHESIS_OPTIONS,
    "synthesize": (
        *("scores_csv", "group_column", "format", "rescale", "random_split", "deduplicate"),
        *("push_to_hub", "private"),
    ),
    "push": ("group_column", "rescale", "random_split"),
}


def _parse_without_command(argv: list[str]) -> Namespace:
    """Parse the form that there was before there were commands."""
    options = [_common_options(), _build_options(), _card_options(), _synthesis_options()]
    parser = _OneLineParser(PROGRAM, parents=options)
    parser.add_argument("source", nargs="?")
    parser.add_argument("--synthesize_artifacts", dest="clean_dir")
    args = parser.parse_args(argv)
    if args.source is not None and args.clean_dir is None:
        args.command = "build"
    elif args.source is None and args.clean_dir is not None:
        args.command = "synthesize"
    elif args.source is None and args.push_to_hub:
        args.command = "push"
    else:
        raise ValueError("give either a source or --synthesize_artifacts CLEAN_DIR")
    foreign = FOREIGN_OPTIONS[args.command]
    _refuse([f"--{name}" for name in foreign if getattr(args, name) != parser.get_default(name)])
    return args


def parse_arguments(argv: list[str]) -> Namespace:
    """Parse a command line in either form; `command` is one of `COMMANDS`.

    Raises:
        ValueError: wrong usage, or a first word that is both a command and a folder here.
    """
    word = argv[0] if argv else ""
    if word in COMMANDS and Path(word).is_dir():
        raise ValueError(f"{word!r} is a command, and a folder here: give the folder as ./{word}, or rename it")
    if word in COMMANDS or word in ("-h", "--help"):
        return _parser().parse_args(argv)
    return _parse_without_command(argv)


def run(argv: list[str]) -> int:
    """Do what the command line says; return the exit status.

    Raises:
        ValueError: wrong usage or input.
        PushError: what was prepared did not arrive on the Hub.
    """
    args = parse_arguments(argv)
    command = COMMANDS[args.command]
    del args.command  # the report lists the options alone
    return command(args)


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s")
    return exit_status(PROGRAM, lambda: run(sys.argv[1:] if argv is None else argv))
