"""Ranking term against its definition, pair by pair."""

import math

import pytest
import torch

from hybridiqa.training.trainer import ranking_loss

LABELS = torch.tensor([7.0, 5.0, 1.0, 7.0, 3.0, 7.0, 2.0, 2.0])
BLOCKS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])


def by_definition(scores: list[float]) -> float:
    """Compute the mean over patches of the mean over partners: patches of the same block and another label."""
    total = 0.0
    for i, score in enumerate(scores):
        partners = [j for j in range(len(scores)) if BLOCKS[i] == BLOCKS[j] and LABELS[i] != LABELS[j]]
        signs = [1 if LABELS[i] > LABELS[j] else -1 for j in partners]
        losses = [math.log1p(math.exp(-sign * (score - scores[j]))) for sign, j in zip(signs, partners, strict=True)]
        total += sum(losses) / max(1, len(losses))
    return total / len(scores)


def test_it_is_the_mean_over_patches_and_their_partners():
    scores = torch.randn(8, generator=torch.Generator().manual_seed(0)) * 2
    assert ranking_loss(scores, LABELS, BLOCKS).item() == pytest.approx(by_definition(scores.tolist()), rel=1e-6)


def test_a_batch_is_the_mean_of_its_parts():
    scores = torch.randn(8, generator=torch.Generator().manual_seed(1))
    parts = [ranking_loss(scores[part], LABELS[part], BLOCKS[part]) for part in (slice(0, 4), slice(4, 8))]
    assert ranking_loss(scores, LABELS, BLOCKS).item() == pytest.approx(sum(parts).item() / 2, rel=1e-6)


def test_only_the_order_within_a_block_has_a_gradient_and_it_mends_the_order():
    scores = torch.zeros(8, requires_grad=True)
    ranking_loss(scores, LABELS, BLOCKS).backward()
    assert scores.grad[6] == scores.grad[7] == 0, "nothing to compare with"
    assert scores.grad[0] < 0 < scores.grad[2], "the best goes up, the worst down"
    assert scores.grad[:4].sum().item() == pytest.approx(0, abs=1e-7)


def test_patches_without_partners_cost_nothing():
    scores = torch.zeros(2, requires_grad=True)
    loss = ranking_loss(scores, torch.tensor([3.0, 3.0]), torch.tensor([0, 0]))
    loss.backward()
    assert loss == 0 and not scores.grad.any()
