"""Output that every engine gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class EngineOutput:
    """Output of an engine for a batch of images, in float32 and on the CPU; see `HybridIQAOutput`.

    Args:
        scores: `(batch,)`.
        patch_scores: `(batch, native patches)`.
        features: `(batch, num_features)` with the pooled head, else None.
    """

    scores: torch.Tensor
    patch_scores: torch.Tensor
    features: torch.Tensor | None = None
