"""Random training patches: cropped, resized, flipped and grayed, each by a draw that nothing else can change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

CROP_ATTEMPTS = 10  # as torchvision's RandomResizedCrop, before it falls back to the middle of the image
CROP_RATIO = (3 / 4, 4 / 3)  # width / height


def balanced_indices(scores: Sequence[float]) -> list[int]:
    """Image indices in which rarer scores (to the nearest whole number) come as often as the most frequent one.

    Every image is there at least once; whole repeats bring its score as near as they can.
    """
    nearest = [round(score) for score in scores]
    counts = Counter(nearest)
    most = max(counts.values())
    return [index for index, score in enumerate(nearest) for _ in range(round(most / counts[score]))]


@dataclass(frozen=True)
class PatchOptions:
    """How a training patch is made from an image.

    Args:
        patch_size: side, in pixels.
        crop: "resized", a part of the image resized to the patch (the published RandomResizedCrop), or "native", cut
            as it is.
        crop_scale: smallest and largest share of the image's area that a resized crop covers.
        flip_probability: of a horizontal flip.
        grayscale_probability: of losing all colour.
    """

    patch_size: int
    crop: str = "resized"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip_probability: float = 0.5
    grayscale_probability: float = 0.15

    def __post_init__(self) -> None:
        if self.crop not in ("resized", "native"):
            raise ValueError(f"--train_crop must be resized or native, got {self.crop!r}")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"--crop_scale must be 0 < MIN <= MAX <= 1, got {self.crop_scale}")
        for name in ("flip_probability", "grayscale_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} must be 0 to 1, got {getattr(self, name)}")


def draw_resized_box(
    rng: np.random.Generator, height: int, width: int, crop_scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels, distributed as torchvision's RandomResizedCrop."""
    area = height * width * rng.uniform(*crop_scale, CROP_ATTEMPTS)
    ratio = np.exp(rng.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]), CROP_ATTEMPTS))
    widths, heights = np.rint(np.sqrt(area * ratio)).astype(int), np.rint(np.sqrt(area / ratio)).astype(int)
    fits = np.flatnonzero((widths > 0) & (widths <= width) & (heights > 0) & (heights <= height))
    if fits.size:
        box_height, box_width = int(heights[fits[0]]), int(widths[fits[0]])
        return (
            int(rng.integers(height - box_height + 1)),
            int(rng.integers(width - box_width + 1)),
            box_height,
            box_width,
        )
    box_width = min(width, round(height * CROP_RATIO[1]))
    box_height = min(height, round(width / CROP_RATIO[0]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def cut_patch(image: torch.Tensor, rng: np.random.Generator, options: PatchOptions) -> torch.Tensor:
    """uint8 `(3, height, width)` -> uint8 `(3, patch_size, patch_size)`, bilinear and antialiased."""
    height, width = image.shape[1:]
    size = [options.patch_size, options.patch_size]
    if options.crop == "resized":
        return transforms.resized_crop(image, *draw_resized_box(rng, height, width, options.crop_scale), size=size)
    if min(height, width) < options.patch_size:  # enlarged as for scoring
        image = transforms.resize(image, options.patch_size)
        height, width = image.shape[1:]
    top, left = (int(rng.integers(side - options.patch_size + 1)) for side in (height, width))
    return image[:, top : top + options.patch_size, left : left + options.patch_size]


class RandomPatchDataset(Dataset):
    """Every image `num_patches` times an epoch, each time another patch, decided by (seed, epoch, image, patch) alone.

    Args:
        images: uint8 `(3, height, width)` RGB tensors, of any sizes.
        scores: one an image.
        num_patches: patches an image and epoch.
        options: how a patch is made.
        seed: of all draws.
    """

    def __init__(
        self,
        images: Sequence[torch.Tensor],
        scores: Sequence[float],
        num_patches: int,
        options: PatchOptions,
        seed: int = 0,
    ):
        self.images = images
        self.scores = torch.as_tensor(scores, dtype=torch.float32)
        self.num_patches = num_patches
        self.options = options
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.images) * self.num_patches

    def set_epoch(self, epoch: int) -> None:
        """Another epoch, other patches."""
        self.epoch = epoch

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        """A batch: `patches` uint8 `(batch, 3, patch_size, patch_size)` and `labels` `(batch,)`."""
        image_indices = [index // self.num_patches for index in indices]
        patches, flips, grays = [], [], []
        for index, image_index in zip(indices, image_indices, strict=True):
            rng = np.random.default_rng((self.seed, self.epoch, image_index, index % self.num_patches))
            patches.append(cut_patch(self.images[image_index], rng, self.options))
            flips.append(rng.random() < self.options.flip_probability)
            grays.append(rng.random() < self.options.grayscale_probability)
        batch = torch.stack(patches)
        flip, gray = (torch.tensor(chosen, device=batch.device) for chosen in (flips, grays))
        batch[flip] = batch[flip].flip(-1)
        batch[gray] = transforms.rgb_to_grayscale(batch[gray], num_output_channels=3)
        return {"patches": batch, "labels": self.scores[image_indices].to(batch.device)}
