"""Score images: files and folders in, one row an image out.

    python score.py examples/
    python score.py FOLDER PICTURE.png --model DIR_OR_REPO --output scores.csv

The table on stdout has the best image first. Exit status: 0 all scored, 1 some were not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hybridiqa.files import as_text, has_image_suffix, walk_files, what_is_no_file
from hybridiqa.loading import ROOT, choose_device, hub_class, load_model, silence_libraries
from hybridiqa.rgb import load_image
from hybridiqa.score_store import ScoreRow, check_output, open_scores

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SAMPLINGS = hub_class("image_processing_hybridiqa.SAMPLINGS")
NUM_DECODERS = 2  # threads; the model is the limit


@dataclass(frozen=True)
class DecodedImage:
    """The row of an image as far as decoding knows it, and its uint8 patches where there was no error."""

    row: ScoreRow
    patches: torch.Tensor | None = None  # (patches, 3, height, width)


def find_images(inputs: list[str]) -> list[Path]:
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


def decode_image(path: Path, extract_patches: Callable) -> DecodedImage:
    """Read one image; what cannot be read becomes a row with the reason."""
    row = ScoreRow(as_text(path))
    if reason := what_is_no_file(path):
        return DecodedImage(replace(row, error=reason))
    try:
        image = load_image(path)
        row = replace(row, width=image.width, height=image.height)
        return DecodedImage(row, extract_patches(image))
    except ValueError as error:
        return DecodedImage(replace(row, error=str(error).removeprefix(f"cannot read {path}: ")))


def decode_ahead(paths: Iterable[Path], extract_patches: Callable, num_ahead: int) -> Iterator[DecodedImage]:
    """Decode in threads while the model works, in order, at most `num_ahead` images ahead."""
    waiting = iter(paths)
    with ThreadPoolExecutor(NUM_DECODERS) as pool:
        pending: deque[Future[DecodedImage]] = deque()
        try:
            while True:
                for path in islice(waiting, num_ahead - len(pending)):
                    pending.append(pool.submit(decode_image, path, extract_patches))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def score_batch(model: PreTrainedModel, batch: list[DecodedImage]) -> list[ScoreRow]:
    """The rows of a batch, scored where there are patches."""
    readable = [image.patches for image in batch if image.patches is not None]
    if not readable:
        return [image.row for image in batch]
    patches = torch.stack(readable).to(model.device)  # (batch, patches, 3, height, width)
    patch_scores = model.predict_patch_scores(model.image_processor.normalize_patches(patches))  # (batch, patches)
    scores, deviations = patch_scores.mean(dim=1).tolist(), patch_scores.std(dim=1, correction=0).tolist()
    numbers = iter(zip(scores, deviations, strict=True))
    rows = []
    for image in batch:
        if image.patches is None:
            rows.append(image.row)
        else:
            score, deviation = next(numbers)
            rows.append(replace(image.row, score=score, score_std=deviation))
    return rows


def score_images(
    model: PreTrainedModel, paths: list[Path], batch_size: int, **processor_options
) -> Iterator[list[ScoreRow]]:
    """Batches of rows, in the order of the paths; the options are `extract_patches`'s, as in `model.score`."""
    extract_patches = partial(model.image_processor.extract_patches, **processor_options)
    decoded = decode_ahead(paths, extract_patches, batch_size + NUM_DECODERS)
    while batch := list(islice(decoded, batch_size)):
        yield score_batch(model, batch)


def _on_one_line(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def print_table(rows: list[ScoreRow]) -> None:
    """Best first, then what could not be scored."""
    scored = sorted((row for row in rows if row.error is None), key=lambda row: -row.score)
    if scored:
        print(f"{'score':>7}  {'std':>6}  path")
    for row in scored:
        print(f"{row.score:7.3f}  {row.score_std:6.3f}  {_on_one_line(row.path)}")
    for row in rows:
        if row.error is not None:
            print(f"{'-':>7}  {'-':>6}  {_on_one_line(f'{row.path}: {row.error}')}")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image files and folders (searched recursively)")
    parser.add_argument("--model", default=str(ROOT), help="folder or Hub id (default: the embedded checkpoint)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that a Hub checkpoint brings")
    parser.add_argument("--output", type=Path, help="a new .csv, .jsonl or .parquet file")
    parser.add_argument("--sampling", choices=SAMPLINGS, help="how patches are chosen (default: the checkpoint's)")
    parser.add_argument("--num_patches", type=int, help="patches an image (default: the checkpoint's)")
    parser.add_argument("--batch_size", type=int, default=8, help="images at a time (default 8)")
    parser.add_argument("--device", help="default: cuda, then mps, then cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Score everything; the exit status.

    Raises:
        ValueError: wrong usage, found before any image is scored.
    """
    for name in ("batch_size", "num_patches"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")
    device, paths = choose_device(args.device), find_images(args.inputs)
    if args.output:
        check_output(args.output)
    model = load_model(args.model, device, DTYPES[args.dtype], args.trust_remote_code)
    processor_options = {"sampling": args.sampling, "num_patches": args.num_patches}
    started, rows = time.monotonic(), []
    progress = tqdm(total=len(paths), unit="image", disable=None, leave=False)
    with progress, closing(open_scores(args.output)) if args.output else nullcontext() as store:
        for batch in score_images(model, paths, args.batch_size, **processor_options):
            rows += batch
            if store:
                store.write(batch)
            progress.update(len(batch))
    print_table(rows)
    num_failed = sum(row.error is not None for row in rows)
    speed = len(rows) / (time.monotonic() - started)
    print(f"{len(rows) - num_failed} scored, {num_failed} failed, {speed:.2f} images/s", file=sys.stderr)
    return 1 if num_failed else 0


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    silence_libraries()
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter of a name is no reason to stop
    try:
        return run(args)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        print(f"score.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("score.py: stopped; what was written to --output stays", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
