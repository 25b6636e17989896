"""Checkpoints of this project as scorers of a benchmark."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from tqdm.auto import tqdm

from hybridiqa.inference.decoding import Sources
from hybridiqa.inference.engine import Engine
from hybridiqa.inference.scoring import ImageScorer, PatchChoice

logger = logging.getLogger(__name__)


class CheckpointScorer:
    """Checkpoint of this project, scoring as `score.py` does.

    Args:
        num_patches: of an image; default as the checkpoint says.
        batch_size: images at a time.
        num_workers: processes that decode.
    """

    needs_prompts = False

    def __init__(self, engine: Engine, num_patches: int | None = None, batch_size: int = 1, num_workers: int = 2):
        self.scorer = ImageScorer(engine, PatchChoice(num_patches=num_patches), batch_size, num_workers)
        self.description = f"hybridIQA {self.scorer.scorer_id}"

    def score(self, sources: Sources, prompts: Sequence[str] | None = None) -> list[float]:
        """Return one score an image, NaN where it has none; the reason is logged."""
        scores = [math.nan] * len(sources)
        with tqdm(total=len(sources), unit="image", disable=None, leave=False) as progress:
            for results in self.scorer.score(sources, {}):
                for result in results:
                    if result.row.score is not None:
                        scores[result.index] = result.row.score
                    else:
                        logger.warning("%s: %s", result.row.path, result.row.error)
                progress.update(len(results))
        return scores
