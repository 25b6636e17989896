"""Decoding of image files to uint8 patches, in worker processes ahead of the model, each as soon as it is ready."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hybridiqa.models import hub_code
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import error_reason, hash_of, what_is_no_file

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    ExtractPatches = Callable[[Image.Image], torch.Tensor]  # upright RGB -> uint8 (patches, 3, height, width)

NUM_AHEAD = 2  # images that each worker may have in work or ready


class Sources(Protocol):
    """Images with their names, each a file or the bytes of one; a list will do."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[str, Path | bytes]: ...


@dataclass(frozen=True)
class DecodedImage:
    """Row of an image as far as decoding knows it, and its patches where they are to be scored.

    Args:
        index: of the image among the sources.
        patches: uint8 `(patches, 3, height, width)`; none where the row has an error or the content is known.
    """

    index: int
    row: ScoreRow
    patches: np.ndarray | None = None


def decode_image(
    index: int, name: str, image: Path | bytes, extract_patches: ExtractPatches, known: Container[str]
) -> DecodedImage:
    """Read one image: a file, or the bytes of one. What cannot be read becomes a row with the reason.

    Args:
        known: hashes of contents that need not be decoded.
    """
    row = ScoreRow(name)
    if isinstance(image, Path) and (reason := what_is_no_file(image)):
        return DecodedImage(index, replace(row, error=reason))
    try:
        # Hash, pixels and size are of the same bytes, also where another program writes the file meanwhile.
        data = hub_code.read_file(image) if isinstance(image, Path) else image
        content_hash = hash_of(data)
        row = replace(row, content_hash=content_hash)
        if content_hash in known:
            return DecodedImage(index, row)
        pixels = hub_code.decode_file(data)[1]
        row = replace(row, width=pixels.width, height=pixels.height)
        return DecodedImage(index, row, extract_patches(pixels).numpy())
    except Exception as error:  # whatever one file does, the others go on
        return DecodedImage(index, replace(row, error=error_reason(error)))


@dataclass(frozen=True)
class _Task:
    """Sources, the way to their patches and the known contents: a worker gets these once, and then only indices."""

    sources: Sources
    extract_patches: ExtractPatches
    known: Container[str]

    def decode(self, index: int) -> DecodedImage:
        return decode_image(index, *self.sources[index], self.extract_patches, self.known)


_task: _Task  # of this process, where it is a worker


def _start_worker(task: _Task, parent: int) -> None:
    import torch

    global _task
    _task = task
    torch.set_num_threads(1)  # the parent's threads are not there after a fork
    if hasattr(os, "nice"):
        os.nice(10)  # on a CPU the model's threads wait for each other: decoding gets what they leave
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    threading.Thread(target=_end_with_the_parent, args=(parent,), daemon=True).start()  # also when that is killed


def _end_with_the_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(index: int) -> DecodedImage:
    return _task.decode(index)


def _run_workers(task: _Task, indices: Iterable[int], num_workers: int) -> Iterator[DecodedImage]:
    """Yield each image as soon as it is ready; raise BrokenProcessPool when a worker was killed."""
    # A fork has the libraries and the code of the Hub files without loading them anew.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(num_workers, context, _start_worker, (task, os.getpid()))
    indices, pending = iter(indices), set[Future[DecodedImage]]()
    try:
        while True:
            for index in islice(indices, NUM_AHEAD * num_workers - len(pending)):
                pending.add(pool.submit(_work, index))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def decode_images(
    sources: Sources, extract_patches: ExtractPatches, known: Container[str] = frozenset(), num_workers: int = 2
) -> Iterator[DecodedImage]:
    """Decode all sources, each yielded as soon as it is ready, whatever the order.

    At most `2 x num_workers` images are in work or ready at any time. An image that kills its worker, by taking all
    memory, say, becomes a row with that reason. Fewer sources than workers are decoded in this process.

    Args:
        known: hashes of contents that need not be decoded.
        num_workers: processes; 0 decodes in this one.
    """
    if num_workers == 0 or len(sources) < num_workers:
        for index in range(len(sources)):
            yield decode_image(index, *sources[index], extract_patches, known)
        return
    task = _Task(sources, extract_patches, known)
    left = dict.fromkeys(range(len(sources)))
    while left:
        try:
            for decoded in _run_workers(task, list(left), num_workers):
                del left[decoded.index]
                yield decoded
        except BrokenProcessPool:
            for index in list(islice(left, NUM_AHEAD * num_workers)):  # one of these did it
                del left[index]
                yield _decode_alone(task, index)


def _decode_alone(task: _Task, index: int) -> DecodedImage:
    """Decode one image in a process of its own, which it may kill."""
    try:
        return next(_run_workers(task, [index], num_workers=1))
    except BrokenProcessPool:
        name, _ = task.sources[index]
        reason = "the process that decoded it was killed, perhaps for lack of memory"
        return DecodedImage(index, ScoreRow(name, error=reason))
