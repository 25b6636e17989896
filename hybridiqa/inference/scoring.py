"""Sources of images -> rows of scores: decoded ahead, scored in batches, nothing scored twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from hybridiqa.inference.decoding import DecodedImage, decode_images
from hybridiqa.inference.engine import Engine
from hybridiqa.scores.score_file import ScoreRow


@dataclass(frozen=True)
class PatchChoice:
    """How patches are chosen, where not as the checkpoint's image processor was saved."""

    sampling: str | None = None
    num_patches: int | None = None


@dataclass(frozen=True)
class ScoredSource:
    """What a source of an image got.

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


def scorer_name(engine: Engine, options: PatchChoice) -> str:
    """What scores depend on besides the pictures, in a row's words: scores of one name can be compared."""
    processor = engine.image_processor
    sampling = options.sampling or processor.sampling
    patches = f"{sampling}-{options.num_patches or processor.num_patches}"
    if sampling == "random":
        patches += f"-seed{processor.seed}"
    return f"{engine.fingerprint} {patches} {engine.dtype} {engine.name}"


def _score_fresh(engine: Engine, images: list[DecodedImage]) -> dict[int, tuple[ScoreRow, list[float] | None]]:
    """Row and patch scores of pictures that have patches, by index."""
    if not images:
        return {}
    patches = np.stack([image.patches for image in images])  # (batch, patches, 3, height, width)
    patch_scores = engine.score_patches(torch.from_numpy(patches))  # (batch, patches)
    means, deviations = patch_scores.mean(dim=1).tolist(), patch_scores.std(dim=1, correction=0).tolist()
    results = {}
    for image, mean, deviation, scores in zip(images, means, deviations, patch_scores.tolist(), strict=True):
        if math.isfinite(mean):
            results[image.index] = replace(image.row, score=mean, score_std=deviation), scores
        else:
            results[image.index] = replace(image.row, error=f"its score is {mean}, no number in {engine.dtype}"), None
    return results


def score_decoded(
    engine: Engine, scorer: str, batch: list[DecodedImage], known: dict[str, ScoreRow] | None
) -> list[ScoredSource]:
    """Score the pictures of a batch that need it; their scores become known.

    Args:
        scorer: `scorer_name` of the engine and of how the patches were chosen.
        known: by content, the rows that hold a score of this scorer; what is scored now is added.
    """
    known = {} if known is None else known
    fresh = _score_fresh(
        engine, [image for image in batch if image.patches is not None and image.row.content_hash not in known]
    )
    results = []
    for image in batch:
        row, patch_scores = fresh.get(image.index, (image.row, None))
        is_known = row.score is None and row.error is None
        if is_known:
            row = replace(known[row.content_hash], path=row.path, vanished=False, percentile=None)
        row = replace(row, scorer=scorer)
        if row.error is None:
            known[row.content_hash] = row
        results.append(ScoredSource(image.index, row, is_known, patch_scores))
    return results


def score_sources(
    engine: Engine,
    sources: Sequence[tuple[str, Path | bytes]],
    options: PatchChoice,
    known: dict[str, ScoreRow] | None,
    batch_size: int,
    num_workers: int,
) -> Iterator[list[ScoredSource]]:
    """Batches of results, every source once, in the order in which they are ready.

    Args:
        sources: name, and the file or its bytes.
        known: by content, the rows that hold a score of this scorer; what is scored now is added. None scores all anew.
        batch_size: images that are scored together.
        num_workers: processes that decode, 0 for none.
    """
    extract_patches = partial(
        engine.image_processor.extract_patches, sampling=options.sampling, num_patches=options.num_patches
    )
    scorer = scorer_name(engine, options)
    decoded = decode_images(sources, extract_patches, frozenset(known or ()), num_workers)
    while batch := list(islice(decoded, batch_size)):
        yield score_decoded(engine, scorer, batch, known)
