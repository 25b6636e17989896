"""Score images: files and folders, or a dataset, in; one row an image out.

    python score.py examples/
    python score.py FOLDER IMAGE.png --model DIR_OR_REPO --output scores.csv
    python score.py IMAGE.png --map maps/
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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hybridiqa.inference.engine import DTYPES, ENGINES, dtype_named, load_engine
from hybridiqa.inference.scoring import ImageScorer, PatchChoice, ScoredSource, find_images, in_order
from hybridiqa.scores.ledger import (
    ScoreLedger,
    check_progress_dir,
    make_search_test,
    progress_dir_of,
    read_progress,
    remove_progress,
)
from hybridiqa.scores.report import check_apart, check_errors_path, print_report, write_errors
from hybridiqa.scores.score_file import ScoreRow, check_output, with_percentiles
from hybridiqa.utils.cli import CommandFailure, exit_status
from hybridiqa.utils.files import as_text
from hybridiqa.utils.libraries import silence_libraries
from hybridiqa.utils.processes import Processes
from hybridiqa.utils.root import ROOT, hub_constant

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    from hybridiqa.inference.decoding import Sources
    from hybridiqa.utils.hub import HubRepository

SAMPLINGS = hub_constant("image_processing_hybridiqa", "SAMPLINGS")
MAX_ERRORS_SHOWN = 10
NEED_OUTPUT = "several processes need --output, where their scores come together"


def score_files(args: argparse.Namespace, processes: Processes) -> int:
    """Score files and folders; return the exit status.

    Raises:
        ValueError: wrong usage, found before any image is scored.
    """
    paths = find_images(args.inputs)
    check_outputs(args, paths)
    if processes.count > 1 and not args.output:
        raise ValueError(NEED_OUTPUT)
    silence_libraries()
    scorer, started = open_scorer(args, processes), time.monotonic()
    if args.output:
        rows, num_known = _score_into_file(args, processes, scorer, paths)
    else:
        rows, num_known = _score_in_memory(args, scorer, paths)
    return report(args, rows, num_known, time.monotonic() - started) if processes.is_main else 0


def _score_in_memory(
    args: argparse.Namespace, scorer: ImageScorer, paths: Sequence[Path]
) -> tuple[list[ScoreRow], int]:
    """Score images; return their rows in the order of the paths, and how many have the content of an earlier one."""
    sources = [(as_text(path), path) for path in paths]
    results = in_order(_score_paths(args, scorer, sources, {}))
    rows = with_percentiles(
        [result.row for result in results],
        scorer.scorer_id,
        quantiles=scorer.engine.config.score_quantiles,
        among_library=args.percentile_of == "library",
    )
    return rows, sum(result.is_known for result in results)


def _score_into_file(
    args: argparse.Namespace, processes: Processes, scorer: ImageScorer, paths: Sequence[Path]
) -> tuple[list[ScoreRow], int]:
    """Score this process's share of the images into the file of scores.

    Returns:
        In the main process, the rows of all images in the order of the paths, and how many were known.
    """
    sources = [(as_text(path), path) for path in paths[processes.index :: processes.count]]
    with closing(ScoreLedger(args.output, scorer.scorer_id, processes.index)) as ledger:
        merge = partial(
            ledger.merge,
            is_searched=make_search_test(args.inputs),
            quantiles=scorer.engine.config.score_quantiles,
            among_library=args.percentile_of == "library",
        )
        try:
            batches = _score_paths(args, scorer, sources, ledger.known(), processes.is_main)
            num_known = _keep_rows(batches, ledger)
        except KeyboardInterrupt:
            if processes.count == 1:
                merge()
            raise
        num_known = sum(processes.gather(num_known))
        if not processes.is_main:
            return [], num_known
        by_name = {row.path: row for row in merge() if row.scorer == scorer.scorer_id}
    return [by_name[name] for name in map(as_text, paths) if name in by_name], num_known


def _score_paths(
    args: argparse.Namespace,
    scorer: ImageScorer,
    sources: Sequence[tuple[str, Path]],
    known: dict[str, ScoreRow],
    is_main: bool = True,
) -> Iterator[list[ScoredSource]]:
    """Yield batches of the results of files, and then write their maps, if any are asked for."""
    if not args.map:
        yield from _score_with_bar(scorer, sources, known, is_main)
        return
    from hybridiqa.inference.patch_maps import PatchMaps

    maps = PatchMaps(args.map, args.inputs, scorer.engine, scorer.choice)
    for results in _score_with_bar(scorer, sources, None, is_main):  # what is known has no patch scores any more
        yield results
        for result in results:
            maps.write(sources[result.index][1], result)


def _score_with_bar(
    scorer: ImageScorer, sources: Sources, known: dict[str, ScoreRow] | None, is_main: bool
) -> Iterator[list[ScoredSource]]:
    """Yield what `ImageScorer.score` yields, while the main process shows a bar."""
    from tqdm.auto import tqdm

    with tqdm(total=len(sources), unit="image", disable=None if is_main else True, leave=False) as progress:
        for results in scorer.score(sources, known):
            yield results
            progress.update(len(results))


def _keep_rows(batches: Iterable[list[ScoredSource]], ledger: ScoreLedger) -> int:
    """Write the rows to the ledger as they come; return how many scores were known."""
    num_known = 0
    for results in batches:
        ledger.add([result.row for result in results])
        num_known += sum(result.is_known for result in results)
    return num_known


def score_dataset(args: argparse.Namespace, processes: Processes) -> int:
    """Score a dataset's images; return the exit status.

    Raises:
        ValueError: wrong usage, found before any image is scored.
    """
    from datasets import disable_progress_bars

    from hybridiqa.inference.dataset_scoring import check_columns, load_splits
    from hybridiqa.utils.hub import PushError

    silence_libraries()
    disable_progress_bars()
    check_dataset_arguments(args, processes)
    splits = load_splits(args.dataset, args.split, args.streaming)
    check_columns(splits, args.image_column, args.score_column)
    scorer, score_splits = open_scorer(args, processes), _score_stream if args.streaming else _score_splits
    try:
        return score_splits(args, processes, scorer, splits)
    except PushError as error:
        again = "goes on from here" if args.output else "begins anew"
        raise CommandFailure(f"{error}; the same command {again}") from error


def name_repository(args: argparse.Namespace) -> HubRepository:
    """Return the repository that --push_to_hub names."""
    from hybridiqa.utils.hub import HubRepository

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
        from hybridiqa.inference.dataset_scoring import check_outside_dataset

        check_progress_dir(args.output)
        check_outside_dataset(args.output, args.dataset)
    if args.push_to_hub:
        name_repository(args).check()


def _score_splits(
    args: argparse.Namespace,
    processes: Processes,
    scorer: ImageScorer,
    splits: dict[str, Dataset],
) -> int:
    """Score whole splits, and save or push them with their scores."""
    from hybridiqa.data.hub_dataset import fetch_card, push_splits
    from hybridiqa.inference.dataset_scoring import DatasetImages, with_scores
    from hybridiqa.utils.atomic import new_folder

    started = time.monotonic()
    share = DatasetImages(splits, args.image_column, processes.index, processes.count)
    with closing(ScoreLedger(args.output, scorer.scorer_id, processes.index)) as ledger:
        num_known = _keep_rows(_score_with_bar(scorer, share, ledger.known(), processes.is_main), ledger)
        num_known = sum(processes.gather(num_known))
        if not processes.is_main:
            return 0
        by_name = {row.path: row for row in read_progress(args.output) if row.scorer == scorer.scorer_id}
        rows = [by_name[name] for name in DatasetImages(splits, args.image_column).names()]
        scored = with_scores(splits, by_name, args.score_column)
        if args.push_to_hub:  # first: where it fails, the scores are still in the progress that the same command takes
            url = push_splits(scored, name_repository(args), fetch_card(name_repository(args)))
            print(f"pushed to {url}", file=sys.stderr)
        with new_folder(args.output) as unfinished:
            scored.save_to_disk(unfinished)
        remove_progress(args.output)
    return report(args, rows, num_known, time.monotonic() - started)


def _score_stream(
    args: argparse.Namespace,
    processes: Processes,
    scorer: ImageScorer,
    splits: dict[str, IterableDataset],
) -> int:
    """Score splits as they are read, and write or push them a few rows at a time."""
    from hybridiqa.inference.dataset_scoring import ScoredStream, finish_stream

    def score(sources: Sources) -> list[ScoreRow]:
        return [result.row for result in in_order(scorer.score(sources, {}))]

    stream, started = ScoredStream(splits, args.image_column, args.score_column, score), time.monotonic()
    if args.output:
        folder = stream.write(args.output, scorer.scorer_id, processes.index, processes.count)
    else:
        stream.push(name_repository(args))
        print(f"pushed to {name_repository(args).url}", file=sys.stderr)
    shares = processes.gather((stream.num_rows, stream.errors))
    if not processes.is_main:
        return 0
    if args.output:
        finish_stream(folder, args.output, splits)
    errors, seconds = [row for _, errors in shares for row in errors], time.monotonic() - started
    for row in errors[:MAX_ERRORS_SHOWN]:
        print(f"{row.path}: {row.error}")
    num_scored = sum(num_rows for num_rows, _ in shares) - len(errors)
    print_summary(num_scored, len(errors), 0, seconds)
    return 1 if errors else 0


def report(args: argparse.Namespace, rows: list[ScoreRow], num_known: int, seconds: float) -> int:
    """Print the rows and write the files that were asked for; return the exit status."""
    print_report(rows, is_terminal=sys.stdout.isatty())
    if args.errors:
        write_errors(args.errors, rows)
    if args.gallery:
        from hybridiqa.scores.gallery import write_gallery

        write_gallery(rows, args.gallery)
    num_failed = sum(row.error is not None for row in rows)
    print_summary(len(rows) - num_failed - num_known, num_failed, num_known, seconds)
    return 1 if num_failed else 0


def print_summary(num_scored: int, num_failed: int, num_known: int, seconds: float) -> None:
    """Print the line that closes a run."""
    known = f"{num_known} skipped as known, " if num_known else ""
    print(f"{num_scored} scored, {num_failed} failed, {known}{num_scored / seconds:.2f} images/s", file=sys.stderr)


def check_outputs(args: argparse.Namespace, paths: Sequence[Path]) -> None:
    """Raise ValueError for files and folders that cannot be written without overwriting something.

    Args:
        paths: of the images that are to be scored.
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
        from hybridiqa.scores.gallery import check_gallery_path

        check_gallery_path(args.gallery)
    if args.map:
        from hybridiqa.inference.patch_maps import check_maps_apart, check_maps_dir

        check_maps_dir(args.map)
        check_maps_apart(args.map, args.inputs, paths, progress_dir)


def open_scorer(args: argparse.Namespace, processes: Processes) -> ImageScorer:
    """Load what scores, on this process's device; numbers that were not given depend on the device."""
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
    is_cpu, batch_size, num_workers = engine.device.type == "cpu", args.batch_size, args.num_workers
    if batch_size is None:
        batch_size = 1 if is_cpu else 8
    if num_workers is None:
        num_workers = min(os.cpu_count() or 1, 2 if is_cpu else 16)
    return ImageScorer(engine, PatchChoice(args.sampling, args.num_patches), batch_size, num_workers)


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
    results.add_argument("--gallery", type=Path, metavar="FILE", help="one HTML page of all images and scores")
    results.add_argument("--map", type=Path, metavar="DIR", help="an image of the patches' scores for every image")
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
    """Score everything; return the exit status.

    Raises:
        ValueError: wrong usage, found before any image is scored.
    """
    for name, least in {"batch_size": 1, "num_patches": 1, "num_workers": 0}.items():
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if bool(args.inputs) == bool(args.dataset):
        raise ValueError("give images and folders, or else --dataset")
    processes = Processes(args.device)
    status = score_dataset(args, processes) if args.dataset else score_files(args, processes)
    return status if processes.count == 1 else 0  # a launcher takes anything else for a crash


def main(argv: list[str] | None = None) -> int:
    # Before torch is loaded: while its threads wait for each other they spin, and on a busy machine that makes a score
    # take up to ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = parse_arguments(argv)
    return exit_status("score.py", lambda: run(args), "stopped; with --output, the same command goes on from here")
