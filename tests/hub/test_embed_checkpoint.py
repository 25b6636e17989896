"""Calibrating a checkpoint: other numbers, the same order."""

import pytest
import torch
from factories import make_picture, make_tiny_model

from recipes.embed_checkpoint import calibrate


def test_calibration_moves_the_means_of_the_lowest_and_the_highest_label_to_these_labels():
    model = make_tiny_model().eval()
    images = [make_picture(90, 80, seed=seed) for seed in range(6)]
    before = model.score(images)
    labels = torch.tensor([1.0, 1.0, 5.0, 3.0, 7.0, 7.0])[before.argsort().argsort()]
    promised = calibrate(model, before, labels)
    after = model.score(images)
    assert torch.allclose(after, promised, atol=1e-3)
    assert after[labels == 1].mean().item() == pytest.approx(1, abs=1e-3)
    assert after[labels == 7].mean().item() == pytest.approx(7, abs=1e-3)
    assert after.argsort().tolist() == before.argsort().tolist()
