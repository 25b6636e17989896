"""Pictures to measure with, made anew wherever they are needed."""

from __future__ import annotations

import torch


def make_pictures(num_images: int, size: int, seed: int = 0) -> list[torch.Tensor]:
    """uint8 `(3, size, size)` RGB: smooth coloured structure with a little grain, decided by the seed."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for _ in range(num_images):
        coarse = 255 * torch.rand(1, 3, 9, 9, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0]
        grain = 6 * torch.randn(3, size, size, generator=generator)
        pictures.append((smooth + grain).clamp(0, 255).to(torch.uint8))
    return pictures
