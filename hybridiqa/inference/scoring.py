"""Images, found in files and folders, and their scores: decoded ahead, scored in batches, nothing scored twice."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from hybridiqa.inference.decoding import DecodedImage, Sources, decode_images
from hybridiqa.inference.engine import Engine
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import has_image_suffix, walk_files


@dataclass(frozen=True)
class PatchChoice:
    """Options of the image processor that choose patches; None leaves one as the checkpoint was saved."""

    sampling: str | None = None
    num_patches: int | None = None


@dataclass(frozen=True)
class ScoredSource:
    """Row of an image, and the scores of its patches.

    Args:
        index: of the source among all.
        row: its score, or why there is none.
        is_known: whether the score was there already, of the same content.
        patch_scores: one a patch; none where nothing was scored now.
    """

    index: int
    row: ScoreRow
    is_known: bool = False
    patch_scores: list[float] | None = None


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Return the files named, and the images in the folders named (recursively, sorted), each once.

    A folder in which a search fails stands in the list itself, so that it is not passed over in silence.

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


def scorer_name(engine: Engine, choice: PatchChoice) -> str:
    """Return the `scorer_id`, all that scores depend on besides the images: those of one id can be compared."""
    processor = engine.image_processor
    sampling = choice.sampling or processor.sampling
    patches = f"{sampling}-{choice.num_patches or processor.num_patches}"
    if whole_views := getattr(processor, "whole_views", None):  # older code has none
        patches = f"views-{'-'.join(map(str, whole_views))} {patches}"
    if sampling == "random":
        patches += f"-seed{processor.seed}"
    return f"{engine.fingerprint} {patches} {engine.dtype} {engine.name}"


def _score_new(engine: Engine, batch: Sequence[DecodedImage], known: dict[str, ScoreRow]) -> dict[int, ScoredSource]:
    """Score the images of a batch that have patches and are not known; return the results by the images' indices."""
    import torch

    images, patches = [], []
    for image in batch:
        if image.patches is not None and image.row.content_hash not in known:
            images.append(image)
            patches.append(torch.from_numpy(image.patches))
    if not images:
        return {}
    output = engine.score_patches(torch.stack(patches))  # (batch, patches, 3, height, width)
    stds = output.patch_scores.std(dim=1, correction=0).tolist()
    results = {}
    for image, score, std, patch_scores in zip(
        images, output.scores.tolist(), stds, output.patch_scores.tolist(), strict=True
    ):
        if math.isfinite(score):
            row = replace(image.row, score=score, score_std=std)
            results[image.index] = ScoredSource(image.index, row, patch_scores=patch_scores)
        else:
            row = replace(image.row, error=f"its score is {score}, no number in {engine.dtype}")
            results[image.index] = ScoredSource(image.index, row)
    return results


def score_decoded(
    engine: Engine, scorer_id: str, batch: Sequence[DecodedImage], known: dict[str, ScoreRow] | None
) -> list[ScoredSource]:
    """Score the images of a batch that need it; their scores become known.

    Args:
        scorer_id: `scorer_name` of the engine and of how the patches were chosen.
        known: by content, the rows that hold a score of this scorer; what is scored now is added.
    """
    known = {} if known is None else known
    scored = _score_new(engine, batch, known)
    results = []
    for image in batch:
        content_hash = image.row.content_hash
        if image.index in scored:
            result = scored[image.index]
        elif image.row.error is None and content_hash is not None:
            row = replace(known[content_hash], path=image.row.path, vanished=False, percentile=None)
            result = ScoredSource(image.index, row, is_known=True)
        else:
            result = ScoredSource(image.index, image.row)
        result = replace(result, row=replace(result.row, scorer=scorer_id))
        if result.row.error is None and content_hash is not None:
            known[content_hash] = result.row
        results.append(result)
    return results


class ImageScorer:
    """Engine that scores images a batch at a time, decoded ahead.

    Args:
        choice: of patches.
        batch_size: images that are scored together.
        num_workers: processes that decode, 0 for none.

    Attributes:
        scorer_id: `scorer_name` of the engine and the choice.
    """

    def __init__(self, engine: Engine, choice: PatchChoice, batch_size: int, num_workers: int):
        self.engine, self.choice, self.batch_size, self.num_workers = engine, choice, batch_size, num_workers
        self.scorer_id = scorer_name(engine, choice)

    def score(self, sources: Sources, known: dict[str, ScoreRow] | None) -> Iterator[list[ScoredSource]]:
        """Yield batches of results, every source once, in the order in which they are ready.

        Args:
            known: by content, the rows that hold a score of this scorer; what is scored now is added. None scores all
                anew.
        """
        extract_patches = partial(
            self.engine.image_processor.extract_patches,
            sampling=self.choice.sampling,
            num_patches=self.choice.num_patches,
        )
        decoded = decode_images(sources, extract_patches, frozenset(known or ()), self.num_workers)
        while batch := list(islice(decoded, self.batch_size)):
            yield score_decoded(self.engine, self.scorer_id, batch, known)


def in_order(batches: Iterable[list[ScoredSource]]) -> list[ScoredSource]:
    """Return the results of `ImageScorer.score` in the order of the sources."""
    return sorted((result for batch in batches for result in batch), key=lambda result: result.index)
