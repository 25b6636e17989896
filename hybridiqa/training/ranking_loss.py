"""The loss of an order that is wrong, among patches that show one place of one picture."""

from __future__ import annotations

import torch
from torch.nn import functional


def ranking_loss(scores: torch.Tensor, labels: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """RankNet (Burges et al., "Learning to Rank using Gradient Descent", ICML 2005) within blocks.

    For every pair of a block whose labels differ, log(1 + exp(worse score - better score)); averaged over the partners
    of each patch, then over all patches. A patch without a partner counts 0, so that the loss of a batch is the mean of
    its parts' losses, weighted by their numbers of patches, where no block is torn apart.

    Args:
        scores, labels: `(patches,)`.
        blocks: `(patches,)`, whole numbers; patches of one number are compared.

    Returns:
        A scalar.
    """
    is_better = (labels.unsqueeze(1) > labels) & (blocks.unsqueeze(1) == blocks)  # (patches, patches)
    losses = functional.softplus(scores - scores.unsqueeze(1)).masked_fill(~is_better, 0.0)
    num_partners = (is_better | is_better.T).sum(dim=1)  # (patches,)
    return ((losses + losses.T).sum(dim=1) / num_partners.clamp(min=1)).mean()
