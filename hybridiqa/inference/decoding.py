"""Image files -> uint8 patches, in worker processes ahead of the model, each as soon as it is ready."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hybridiqa.models import hub_code
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import hash_of, what_is_no_file

NUM_AHEAD = 2  # images that each worker may have in its hands or ready

_decode: Callable[[int], DecodedImage]  # in a worker: what decodes the source of an index


@dataclass(frozen=True)
class DecodedImage:
    """The row of an image as far as decoding knows it, and its patches where they are to be scored.

    Args:
        index: of the image among the sources.
        patches: uint8 `(patches, 3, height, width)`; none where the row has an error or the content is known.
    """

    index: int
    row: ScoreRow
    patches: np.ndarray | None = None


def decode_image(
    index: int, name: str, image: Path | bytes, extract_patches: Callable, known: Container[str]
) -> DecodedImage:
    """Read one image: a file, or the bytes of one. What cannot be read becomes a row with the reason.

    Args:
        known: hashes of contents that need not be decoded.
    """
    row = ScoreRow(name)
    if isinstance(image, Path) and (reason := what_is_no_file(image)):
        return DecodedImage(index, replace(row, error=reason))
    data = b""
    try:
        # Hash, pixels and size are of the same bytes, also where another program writes the file meanwhile.
        data = hub_code.read_file(image) if isinstance(image, Path) else image
        row = replace(row, content_hash=hash_of(data))
        if row.content_hash in known:
            return DecodedImage(index, row)
        picture = hub_code.load_image(data)
        row = replace(row, width=picture.width, height=picture.height)
        return DecodedImage(index, row, extract_patches(picture).numpy())
    except Exception as error:  # whatever one file does, the others go on
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return DecodedImage(index, replace(row, error=reason.removeprefix(f"cannot read {len(data)} bytes: ")))


def _decode_source(
    sources: Sequence[tuple[str, Path | bytes]], extract_patches: Callable, known: Container[str], index: int
) -> DecodedImage:
    return decode_image(index, *sources[index], extract_patches, known)


def _end_with_the_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _start_worker(decode: Callable[[int], DecodedImage], parent: int) -> None:
    global _decode
    _decode = decode
    torch.set_num_threads(1)  # the parent's threads are not there after a fork
    if hasattr(os, "nice"):
        os.nice(10)  # on a CPU the model's threads wait for each other: decoding gets what they leave
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    threading.Thread(target=_end_with_the_parent, args=(parent,), daemon=True).start()  # also when that is killed


def _decode_in_worker(index: int) -> DecodedImage:
    return _decode(index)


def _decode_in_processes(
    decode: Callable[[int], DecodedImage], indices: Iterable[int], num_workers: int
) -> Iterator[DecodedImage]:
    """Yield each as soon as it is ready; raise BrokenProcessPool when a worker was killed."""
    # A fork has the libraries and the code of the Hub files without loading them anew.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(num_workers, context, _start_worker, (decode, os.getpid()))
    indices, pending = iter(indices), set()
    try:
        while True:
            for index in islice(indices, NUM_AHEAD * num_workers - len(pending)):
                pending.add(pool.submit(_decode_in_worker, index))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def decode_images(
    sources: Sequence[tuple[str, Path | bytes]],
    extract_patches: Callable[[Image.Image], torch.Tensor],
    known: Container[str] = frozenset(),
    num_workers: int = 2,
) -> Iterator[DecodedImage]:
    """Decode all sources (name, and file or bytes), each yielded as soon as it is ready, whatever the order.

    At most `2 x num_workers` images are in work or ready at any time. A picture that kills its worker, by taking all
    memory, say, becomes a row with that reason.

    Args:
        extract_patches: upright RGB PIL image -> uint8 `(patches, 3, height, width)`.
        known: hashes of contents that need not be decoded.
        num_workers: processes; 0 decodes in this one.
    """
    decode = partial(_decode_source, sources, extract_patches, known)
    if num_workers == 0:
        yield from map(decode, range(len(sources)))
        return
    left = dict.fromkeys(range(len(sources)))
    while left:
        try:
            for decoded in _decode_in_processes(decode, list(left), num_workers):
                del left[decoded.index]
                yield decoded
        except BrokenProcessPool:
            for index in list(islice(left, NUM_AHEAD * num_workers)):  # one of these did it
                del left[index]
                yield _decode_alone(decode, index, sources[index][0])


def _decode_alone(decode: Callable[[int], DecodedImage], index: int, name: str) -> DecodedImage:
    """Decode one image in a process of its own, which it may kill."""
    try:
        return next(_decode_in_processes(decode, [index], num_workers=1))
    except BrokenProcessPool:
        reason = "the process that decoded it was killed, perhaps for lack of memory"
        return DecodedImage(index, ScoreRow(name, error=reason))
