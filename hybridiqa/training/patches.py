"""Random training patches: cropped, resized, flipped and grayed, each by draws that nothing else can change.

On a CPU every patch is resized as uint8 by torchvision, in threads. On other devices a batch is two matrix products
with banded bilinear weights, without a loop over patches.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from hybridiqa.data.loading import ResidentImages
from hybridiqa.training.blocks import PatchBlocks
from hybridiqa.training.resize import resize_boxes

CROP_ATTEMPTS = 10  # as torchvision's RandomResizedCrop, before it falls back to the middle of the image
CROP_RATIO = (3 / 4, 4 / 3)  # width / height
# Columns of a patch's draws.
AREAS, RATIOS, PLACE = slice(CROP_ATTEMPTS), slice(CROP_ATTEMPTS, 2 * CROP_ATTEMPTS), slice(-4, -2)  # top and left
FLIP, GRAY = -2, -1
NUM_DRAWS = 2 * CROP_ATTEMPTS + 4
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def balanced_repeats(scores: Sequence[float]) -> list[int]:
    """Return how often each image has to come so that rarer scores (as whole numbers) are as frequent as any.

    Every image comes at least once; whole repeats bring its score as near as they can.
    """
    nearest = [round(score) for score in scores]
    counts = Counter(nearest)
    most = max(counts.values())
    return [round(most / counts[score]) for score in nearest]


@dataclass(frozen=True)
class PatchOptions:
    """Options of how a training patch is made from an image.

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
    crop_scale: Sequence[float] = (0.08, 1.0)
    flip_probability: float = 0.5
    grayscale_probability: float = 0.15

    def __post_init__(self) -> None:
        if self.crop not in ("resized", "native"):
            raise ValueError(f"--train_crop must be resized or native, got {self.crop!r}")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"--crop_scale must be MIN MAX with 0 < MIN <= MAX <= 1, got {self.crop_scale}")
        for name in ("flip_probability", "grayscale_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} must be 0 to 1, got {getattr(self, name)}")


def _mix(state: np.ndarray) -> np.ndarray:
    """Make one step of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    state = state + GOLDEN_GAMMA
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniform_draws(seed: int, epoch: int, images: np.ndarray, patches: np.ndarray, num_draws: int) -> np.ndarray:
    """Draw numbers in [0, 1), `(len(images), num_draws)`, each decided by (seed, epoch, image, patch, column) alone."""
    state = np.zeros(len(images), np.uint64)
    for part in (seed, epoch, images, patches):
        state = _mix(state ^ np.asarray(part).astype(np.uint64))
    counters = np.arange(1, num_draws + 1, dtype=np.uint64) * GOLDEN_GAMMA
    return (_mix(state[:, None] + counters) >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class PatchDraws:
    """Draws for a batch of patches: a box of the image is resized, and a square is cut out of the result.

    Args:
        boxes: `(batch, 4)`, top, left, height, width in pixels of the image.
        sizes: `(batch, 2)`, height and width to which the box is resized.
        starts: `(batch, 2)`, top and left of the patch in the resized box.
        flips, grays: `(batch,)`, whether the patch is flipped, and grayed.
    """

    boxes: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    flips: np.ndarray
    grays: np.ndarray


def _choose_places(draws: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Map draws in [0, 1) to whole numbers 0 ... last."""
    return (draws * (last + 1)).astype(np.int64)


def draw_resized_boxes(
    draws: np.ndarray, heights: np.ndarray, widths: np.ndarray, crop_scale: Sequence[float]
) -> np.ndarray:
    """Draw boxes `(batch, 4)`: top, left, height, width in pixels, distributed as torchvision's RandomResizedCrop.

    Args:
        draws: `(batch, NUM_DRAWS)`, see `uniform_draws`.
        heights, widths: `(batch,)`, of the images, in pixels.
        crop_scale: smallest and largest share of the image's area.
    """
    areas = (heights * widths)[:, None] * (crop_scale[0] + (crop_scale[1] - crop_scale[0]) * draws[:, AREAS])
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    ratios = np.exp(low + (high - low) * draws[:, RATIOS])
    box_widths, box_heights = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))  # (batch, attempts)
    fits = (box_widths > 0) & (box_widths <= widths[:, None]) & (box_heights > 0) & (box_heights <= heights[:, None])
    rows, first = np.arange(len(draws)), fits.argmax(axis=1)
    has_fit = fits[rows, first]
    box_heights = np.where(has_fit, box_heights[rows, first], np.minimum(heights, np.rint(widths / CROP_RATIO[0])))
    box_widths = np.where(has_fit, box_widths[rows, first], np.minimum(widths, np.rint(heights * CROP_RATIO[1])))
    spaces = np.stack([heights - box_heights, widths - box_widths], axis=1).astype(np.int64)
    places = np.where(has_fit[:, None], _choose_places(draws[:, PLACE], spaces), spaces // 2)
    return np.concatenate([places, box_heights[:, None], box_widths[:, None]], axis=1).astype(np.int64)


def draw_patches(draws: np.ndarray, heights: np.ndarray, widths: np.ndarray, options: PatchOptions) -> PatchDraws:
    """Draw what a batch of patches is made of; the arguments are those of `draw_resized_boxes`."""
    patch_size = options.patch_size
    flips, grays = draws[:, FLIP] < options.flip_probability, draws[:, GRAY] < options.grayscale_probability
    if options.crop == "resized":
        boxes = draw_resized_boxes(draws, heights, widths, options.crop_scale)
        sizes = np.full((len(draws), 2), patch_size)
        return PatchDraws(boxes, sizes, np.zeros_like(sizes), flips, grays)
    shapes = np.stack([heights, widths], axis=1)
    # A small image is enlarged as for scoring, whole, and the patch cut out of it.
    enlarged = np.maximum(np.rint(shapes * (patch_size / shapes.min(axis=1, keepdims=True))), patch_size)
    is_small = shapes.min(axis=1, keepdims=True) < patch_size
    sizes = np.where(is_small, enlarged, patch_size).astype(np.int64)
    places = _choose_places(draws[:, PLACE], np.where(is_small, sizes, shapes) - patch_size)
    boxes = np.concatenate([np.where(is_small, 0, places), np.where(is_small, shapes, patch_size)], axis=1)
    return PatchDraws(boxes, sizes, np.where(is_small, places, 0), flips, grays)


def cut_patch(image: torch.Tensor, draws: PatchDraws, index: int, patch_size: int) -> torch.Tensor:
    """Cut a uint8 `(3, patch_size, patch_size)` out of a uint8 `(3, height, width)`, resized by torchvision."""
    top, left, height, width = draws.boxes[index].tolist()
    patch = image[:, top : top + height, left : left + width]
    size = draws.sizes[index].tolist()
    if size != [height, width]:
        patch = transforms.resize(patch, size, antialias=True)
    top, left = draws.starts[index].tolist()
    patch = patch[:, top : top + patch_size, left : left + patch_size]
    if draws.flips[index]:
        patch = patch.flip(-1)
    return transforms.rgb_to_grayscale(patch, num_output_channels=3) if draws.grays[index] else patch


def cut_patches(images: ResidentImages, indices: np.ndarray, draws: PatchDraws, patch_size: int) -> torch.Tensor:
    """Cut a batch by matrix products: `(batch, 3, patch_size, patch_size)`, float32, 0-255, on the images' device."""
    patches = resize_boxes(images, indices, draws.boxes, draws.sizes, draws.starts, patch_size)
    flips, grays = (
        torch.from_numpy(np.flatnonzero(chosen)).to(patches.device, non_blocking=True)
        for chosen in (draws.flips, draws.grays)
    )
    patches[flips] = patches[flips].flip(-1)
    patches[grays] = transforms.rgb_to_grayscale(patches[grays], num_output_channels=3)
    return patches


class RandomPatches:
    """Every image `num_patches` times an epoch, each time another patch, decided by (seed, epoch, image, patch) alone.

    Args:
        images: what the patches are cut from.
        scores: one an image.
        num_patches: patches an image and epoch.
        options: how a patch is made.
        normalize: RGB 0-255 `(..., 3, height, width)` -> what the model takes, float32; the image processor's.
        seed: of all draws, 0 or more.
        repeats: how often each image comes; by default once. A repetition brings other patches.
        reference_ids: of which reference image each image is a version. The patches of a block (see `PatchBlocks`) are
            then cut at the same place, flipped and grayed alike. By default every patch is a block of its own.
        device: of the batches; by default the images'. Images that lie elsewhere are copied as a batch needs them.
    """

    def __init__(
        self,
        images: ResidentImages,
        scores: Sequence[float],
        num_patches: int,
        options: PatchOptions,
        normalize: Callable[[torch.Tensor], torch.Tensor],
        seed: int = 0,
        repeats: Sequence[int] | None = None,
        reference_ids: Sequence[str] | None = None,
        device: torch.device | None = None,
    ):
        self.images = images
        self.scores = torch.as_tensor(scores, dtype=torch.float32)
        self.options = options
        self.normalize = normalize
        self.seed = seed
        self.device = torch.empty(0, device=device or images.pixels.device).device  # cuda -> cuda:0, as tensors say
        counts = np.full(len(images), num_patches) * (1 if repeats is None else np.asarray(repeats))
        self.pair_images = np.repeat(np.arange(len(images)), counts)
        self.pair_patches = np.concatenate([np.arange(count) for count in counts])
        pair_references = None if reference_ids is None else np.asarray(reference_ids)[self.pair_images]
        self.blocks = PatchBlocks(self.scores.numpy()[self.pair_images], pair_references, seed)
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def __len__(self) -> int:
        """Return the number of (image, patch) pairs in an epoch."""
        return len(self.pair_images)

    def batch(self, epoch: int, pairs: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return patches `(batch, 3, patch_size, patch_size)`, normalised, channels last, and labels `(batch,)`."""
        indices = self.pair_images[pairs]
        if self.blocks.are_single:
            drawn_by = (indices, self.pair_patches[pairs])
        else:
            blocks = self.blocks.numbers(epoch)[pairs]
            drawn_by = (blocks, np.zeros_like(blocks))
        uniforms = uniform_draws(self.seed, epoch, *drawn_by, NUM_DRAWS)
        draws = draw_patches(uniforms, self.images.heights[indices], self.images.widths[indices], self.options)
        if self.device.type == "cpu":
            pixel_values = self._cut_in_threads(indices, draws)
        else:
            images, positions = self.images, indices
            if images.pixels.device != self.device:
                needed, positions = np.unique(indices, return_inverse=True)
                images = images.select(needed, self.device)
            pixel_values = self.normalize(cut_patches(images, positions, draws, self.options.patch_size))
        labels = self.scores[indices].to(self.device, non_blocking=True)
        return pixel_values.contiguous(memory_format=torch.channels_last), labels

    def _cut_in_threads(self, indices: np.ndarray, draws: PatchDraws) -> torch.Tensor:
        side = self.options.patch_size
        pixel_values = torch.empty(len(indices), 3, side, side, memory_format=torch.channels_last)

        def cut(position: int) -> None:  # normalised while it is in the processor's cache
            patch = cut_patch(self.images[int(indices[position])], draws, position, side)
            pixel_values[position] = self.normalize(patch)

        list(self._threads.map(cut, range(len(indices))))
        return pixel_values
