"""Score images: files and folders, or a dataset, in; one row an image out.

    python score.py examples/
    python score.py FOLDER PICTURE.png --model DIR_OR_REPO --output scores.csv
    python score.py PICTURE.png --map maps/
    python score.py --dataset DIR_OR_REPO --output scored/
    accelerate launch score.py FOLDER --output scores.csv

With --output, what has a score is not scored again, and a run that was stopped goes on when it is started again.
Exit status: 0 all scored, 1 some were not, 2 wrong usage; of several processes 0 also where some were not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

# Before torch is loaded: while its threads wait for each other they spin, and on a busy machine that makes a score take
# up to ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from datasets import Dataset, IterableDataset, disable_progress_bars
from tqdm.auto import tqdm

from hybridiqa.data.hub_dataset import fetch_card, push_splits
from hybridiqa.inference.dataset_scoring import (
    DatasetImages,
    ScoredStream,
    check_columns,
    check_outside_dataset,
    finish_stream,
    in_order,
    load_splits,
    with_scores,
)
from hybridiqa.inference.engine import DTYPES, ENGINES, Engine, dtype_named, load_engine
from hybridiqa.inference.patch_maps import PatchMaps, check_maps_apart, check_maps_dir
from hybridiqa.inference.scoring import PatchChoice, score_sources, scorer_name
from hybridiqa.scores.gallery import check_gallery_path, write_gallery
from hybridiqa.scores.ledger import ScoreLedger, check_progress_dir, progress_dir_of, remove_progress, within
from hybridiqa.scores.report import check_apart, check_errors_path, print_report, write_errors
from hybridiqa.scores.score_file import ScoreRow, check_output
from hybridiqa.utils.atomic import new_folder
from hybridiqa.utils.cli import CommandFailure, exit_status
from hybridiqa.utils.files import as_text, has_image_suffix, walk_files
from hybridiqa.utils.hub import HubRepository, PushError
from hybridiqa.utils.libraries import silence_libraries
from hybridiqa.utils.processes import Processes
from hybridiqa.utils.root import ROOT, hub_constant

SAMPLINGS = hub_constant("image_processing_hybridiqa", "SAMPLINGS")
MAX_ERRORS_SHOWN = 10
NEED_OUTPUT = "several processes need --output, where their scores come together"


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The files named, and the images in the folders named (recursively, sorted), each once.

    Raises:
        ValueError: a path that is not there, or a folder without images.
    """
    paths: dict[str, Path] = {}  # by absolute path
    for name in inputs:
        if name and Path(name).is_dir():
            found = [path for path in walk_files(Path(name)) if has_image_suffix(path) or path.is_dir()]
            if not found:
                raise ValueError(f"no images in the folder {name}")
        elif os.path.lexists(name):
            found = [Path(name)]
        else:
            raise ValueError(f"there is no file or folder {name!r}")
        for path in found:
            paths.setdefault(os.path.abspath(path), path)
    return list(paths.values())


def score_files(args: argparse.Namespace, processes: Processes) -> int:
    """Score files and folders; the exit status.

    Raises:
        ValueError: wrong usage, found before any image is scored.
    """
    paths = find_images(args.inputs)
    check_outputs(args, paths)
    if processes.count > 1 and not args.output:
        raise ValueError(NEED_OUTPUT)
    engine, choice = open_engine(args, processes), PatchChoice(args.sampling, args.num_patches)
    scorer = scorer_name(engine, choice)
    sources = [(as_text(path), path) for path in paths[processes.index :: processes.count]]
    how_to_merge = (within(args.inputs), engine.config.score_quantiles, args.percentile_of == "library")
    started = time.monotonic()
    with closing(ScoreLedger(args.output, scorer, processes.index)) as ledger:
        try:
            num_known = _score_share(args, engine, choice, ledger, sources, processes.is_main)
        except KeyboardInterrupt:
            if processes.count == 1:
                ledger.merge(*how_to_merge)
            raise
        num_known = sum(processes.gather(num_known))
        if not processes.is_main:
            return 0
        merged = ledger.merge(*how_to_merge)
    seconds, by_name = time.monotonic() - started, {row.path: row for row in merged if row.scorer == scorer}
    rows = [by_name[name] for name in map(as_text, paths) if name in by_name]
    return report(args, rows, num_known, seconds)


def _score_share(
    args: argparse.Namespace,
    engine: Engine,
    choice: PatchChoice,
    ledger: ScoreLedger,
    sources: Sequence[tuple[str, Path | bytes]],
    is_main: bool,
) -> int:
    """Score what is this process's share of the work; how many of these scores were known."""
    maps = PatchMaps(args.map, args.inputs, engine, choice) if args.map else None
    known = None if maps else ledger.known()
    num_known = 0
    with tqdm(total=len(sources), unit="image", disable=None if is_main else True, leave=False) as progress:
        for results in score_sources(engine, sources, choice, known, args.batch_size, args.num_workers):
            ledger.add([result.row for result in results])
            for result in results:
                if maps and result.patch_scores:
                    maps.write(sources[result.index][1], result)
            num_known += sum(result.is_known for result in results)
            progress.update(len(results))
    return num_known


def score_dataset(args: argparse.Namespace, processes: Processes) -> int:
    """Score a dataset's images; the exit status.

    Raises:
        ValueError: wrong usage, found before any image is scored.
    """
    check_dataset_arguments(args, processes)
    splits = load_splits(args.dataset, args.split, args.streaming)
    check_columns(splits, args.image_column, args.score_column)
    engine, choice = open_engine(args, processes), PatchChoice(args.sampling, args.num_patches)
    score_splits = _score_stream if args.streaming else _score_splits
    return score_splits(args, processes, engine, choice, splits)


def repository_of(args: argparse.Namespace) -> HubRepository:
    """Where --push_to_hub goes."""
    return HubRepository(args.push_to_hub, "dataset", args.private)


def check_dataset_arguments(args: argparse.Namespace, processes: Processes) -> None:
    """Raise ValueError for what does not go together with --dataset."""
    for name in ("errors", "gallery", "map"):
        if getattr(args, name):
            raise ValueError(f"--{name} is for files and folders, not for --dataset")
    if not args.output and not (args.push_to_hub and args.streaming):
        raise ValueError("--dataset needs --output, a new folder, or --streaming with --push_to_hub")
    if processes.count > 1 and not args.output:
        raise ValueError(NEED_OUTPUT)
    if args.output and args.push_to_hub and args.streaming:
        raise ValueError("--streaming takes either --output or --push_to_hub")
    if args.output and os.path.lexists(args.output):
        raise ValueError(f"--output must be a new folder, {args.output} is there already; nothing is overwritten")
    if args.output:
        check_progress_dir(args.output)
        check_outside_dataset(args.output, args.dataset)
    if args.push_to_hub:
        repository_of(args).check()


def _score_splits(
    args: argparse.Namespace,
    processes: Processes,
    engine: Engine,
    choice: PatchChoice,
    splits: dict[str, Dataset],
) -> int:
    """Score whole splits, and save or push them with their scores."""
    images, started = DatasetImages(splits, args.image_column), time.monotonic()
    share = images[processes.index :: processes.count]
    with closing(ScoreLedger(args.output, scorer_name(engine, choice), processes.index)) as ledger:
        num_known = _score_share(args, engine, choice, ledger, share, processes.is_main)
        num_known = sum(processes.gather(num_known))
        if not processes.is_main:
            return 0
        by_name = {row.path: row for row in ledger.added_rows() if row.scorer == ledger.scorer}
        rows = [by_name[name] for name in images.names()]
        scored = with_scores(splits, by_name, args.score_column)
        if args.push_to_hub:  # first: where it fails, the scores are still in the progress that the same command takes
            url = push_splits(scored, repository_of(args), fetch_card(repository_of(args)))
            print(f"pushed to {url}", file=sys.stderr)
        with new_folder(args.output) as unfinished:
            scored.save_to_disk(unfinished)
        remove_progress(args.output)
    return report(args, rows, num_known, time.monotonic() - started)


def _score_stream(
    args: argparse.Namespace,
    processes: Processes,
    engine: Engine,
    choice: PatchChoice,
    splits: dict[str, IterableDataset],
) -> int:
    """Score splits as they are read, and write or push them a few rows at a time."""

    def score(sources: Sequence[tuple[str, Path | bytes]]) -> list[ScoreRow]:
        return in_order(score_sources(engine, sources, choice, {}, args.batch_size, args.num_workers), len(sources))

    stream, started = ScoredStream(splits, args.image_column, args.score_column, score), time.monotonic()
    if args.output:
        folder = stream.write(args.output, scorer_name(engine, choice), processes.index, processes.count)
    else:
        stream.push(repository_of(args))
        print(f"pushed to {repository_of(args).url}", file=sys.stderr)
    shares = processes.gather((stream.num_rows, stream.errors))
    if not processes.is_main:
        return 0
    if args.output:
        finish_stream(folder, args.output, splits)
    errors, seconds = [row for _, errors in shares for row in errors], time.monotonic() - started
    for row in errors[:MAX_ERRORS_SHOWN]:
        print(f"{row.path}: {row.error}")
    num_scored = sum(num_rows for num_rows, _ in shares) - len(errors)
    print(summary(num_scored, len(errors), 0, seconds), file=sys.stderr)
    return 1 if errors else 0


def report(args: argparse.Namespace, rows: list[ScoreRow], num_known: int, seconds: float) -> int:
    """Show what the images got, and write what was asked for; the exit status."""
    print_report(rows, is_terminal=sys.stdout.isatty())
    if args.errors:
        write_errors(args.errors, rows)
    if args.gallery:
        write_gallery(rows, args.gallery)
    num_failed = sum(row.error is not None for row in rows)
    print(summary(len(rows) - num_failed - num_known, num_failed, num_known, seconds), file=sys.stderr)
    return 1 if num_failed else 0


def summary(num_scored: int, num_failed: int, num_known: int, seconds: float) -> str:
    """The line that closes a run."""
    known = f"{num_known} skipped as known, " if num_known else ""
    return f"{num_scored} scored, {num_failed} failed, {known}{num_scored / seconds:.2f} images/s"


def check_outputs(args: argparse.Namespace, paths: Sequence[Path]) -> None:
    """Raise ValueError for files and folders that cannot be written without overwriting something.

    Args:
        paths: of the pictures that are to be scored.
    """
    outputs = {f"--{name}": getattr(args, name) for name in ("output", "errors", "gallery", "map")}
    outputs = {name: path for name, path in outputs.items() if path}
    progress_dir = progress_dir_of(args.output) if args.output else None
    check_apart(outputs, args.inputs, progress_dir)
    if args.output:
        check_output(args.output)
        check_progress_dir(args.output)
    if args.errors:
        check_errors_path(args.errors)
    if args.gallery:
        check_gallery_path(args.gallery)
    if args.map:
        check_maps_dir(args.map)
        check_maps_apart(args.map, args.inputs, paths, progress_dir)


def open_engine(args: argparse.Namespace, processes: Processes) -> Engine:
    """What scores, on this process's device; numbers that depend on the device are filled in."""
    engine = load_engine(
        args.model,
        engine=args.engine,
        device=processes.device,
        dtype=args.dtype,
        trust_remote_code=args.trust_remote_code,
        revision=args.model_revision,
        compile=args.compile,
        exact=args.exact,
    )
    is_cpu = engine.device.type == "cpu"
    if args.batch_size is None:
        args.batch_size = 1 if is_cpu else 8
    if args.num_workers is None:
        args.num_workers = min(os.cpu_count() or 1, 2 if is_cpu else 16)
    return engine


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image files and folders (searched recursively)")
    model = parser.add_argument_group("what scores")
    model.add_argument("--model", default=str(ROOT), help="folder, Hub id or .onnx (default: the embedded checkpoint)")
    model.add_argument("--trust_remote_code", action="store_true", help="run code that a Hub checkpoint brings")
    model.add_argument("--model_revision", help="of a Hub checkpoint: branch, tag or commit (default: the newest)")
    model.add_argument("--sampling", choices=SAMPLINGS, help="how patches are chosen (default: the checkpoint's)")
    model.add_argument("--num_patches", type=int, help="patches an image (default: the checkpoint's)")
    results = parser.add_argument_group("results")
    results.add_argument("--output", type=Path, help="a .csv, .jsonl or .parquet file, new or of earlier runs")
    results.add_argument("--errors", type=Path, metavar="FILE", help="a CSV of what could not be scored, and why")
    results.add_argument("--gallery", type=Path, metavar="FILE", help="one HTML page of all pictures and scores")
    results.add_argument("--map", type=Path, metavar="DIR", help="a picture of the patches' scores for every image")
    results.add_argument(
        "--percentile_of",
        choices=("checkpoint", "library"),
        default="checkpoint",
        help="what a percentile compares with: scores on the checkpoint's validation images, or all scored files",
    )
    dataset = parser.add_argument_group("a dataset instead of files")
    dataset.add_argument("--dataset", metavar="DIR_OR_REPO", help="--output is then a new folder, for a scored copy")
    dataset.add_argument("--image_column", default="image", help="a column of images (default image)")
    dataset.add_argument("--score_column", default="score", help="a new column (default score), and its name + _std")
    dataset.add_argument("--split", help="score this one (default: all)")
    dataset.add_argument("--streaming", action="store_true", help="a few rows at a time, where the disk is too small")
    dataset.add_argument(
        "--push_to_hub", metavar="REPO", help="upload the scored copy; --streaming needs no --output then"
    )
    dataset.add_argument("--private", action="store_true", help="make a new repository private")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--engine", choices=ENGINES, default="torch", help="onnxruntime, openvino: --model is an .onnx")
    speed.add_argument("--device", help="default: cuda, then mps, then cpu")
    speed.add_argument(
        "--dtype",
        type=dtype_named,
        choices=DTYPES,
        default="float32",
        help="fp32, bf16 and fp16 will do, too; all but float32 move scores a little (default float32)",
    )
    speed.add_argument("--compile", action="store_true", help="torch.compile: slow to start, then faster")
    speed.add_argument("--exact", action="store_true", help="on a GPU, no image shares a batch with another")
    speed.add_argument("--batch_size", type=int, help="images at a time (default 8, on a CPU 1)")
    speed.add_argument("--num_workers", type=int, help="processes that decode (default 2 on a CPU, else up to 16)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Score everything; the exit status.

    Raises:
        ValueError: wrong usage, found before any image is scored.
    """
    for name, least in {"batch_size": 1, "num_patches": 1, "num_workers": 0}.items():
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if bool(args.inputs) == bool(args.dataset):
        raise ValueError("give images and folders, or else --dataset")
    processes = Processes(args.device)
    try:
        status = score_dataset(args, processes) if args.dataset else score_files(args, processes)
    except PushError as error:
        again = "goes on from here" if args.output else "begins anew"
        raise CommandFailure(f"{error}; the same command {again}") from error
    return status if processes.count == 1 else 0  # a launcher takes anything else for a crash


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    silence_libraries()
    disable_progress_bars()
    return exit_status("score.py", lambda: run(args), "stopped; with --output, the same command goes on from here")
