"""Antialiased bilinear resizing of many boxes at once, as matrix products with banded weights."""

from __future__ import annotations

import numpy as np
import torch

from hybridiqa.data.loading import ResidentImages

CHUNK_BYTES = 2**28  # of float32 pixels held at a time: the boxes of a chunk are padded to its largest


def bilinear_weights(
    sizes: torch.Tensor, new_sizes: torch.Tensor, starts: torch.Tensor, num_rows: int, padded_size: int
) -> torch.Tensor:
    """Return weights `(batch, num_rows, padded_size)` that resize a side, float32; torchvision's with `antialias=True`.

    Row r of a patch is row `start + r` of the side resized to its new size: a triangle over the old pixels, as wide as
    the scale where the side shrinks, cut at the borders, with a sum of 1.

    Args:
        sizes, new_sizes, starts: `(batch,)`, of the side, in pixels.
        num_rows: rows of a patch.
        padded_size: columns, at least the largest of `sizes`; those beyond a side weigh nothing.
    """
    # In float32 throughout, as torchvision: with exact centres the results differ from its own by 2e-5 of the range.
    scale = (sizes.float() / new_sizes.float()).view(-1, 1, 1)
    width = scale.clamp(min=1)  # half of the triangle's base, in old pixels
    rows = torch.arange(num_rows, device=sizes.device).view(1, -1, 1) + starts.view(-1, 1, 1)
    centres = scale * (rows + 0.5)  # (batch, num_rows, 1)
    columns = torch.arange(padded_size, device=sizes.device)
    weights = (1 - ((columns - centres + 0.5) / width).abs()).clamp(min=0)
    weights = weights * (columns < sizes.view(-1, 1, 1))
    return weights / weights.sum(dim=2, keepdim=True)


def _gather_boxes(images: ResidentImages, indices: np.ndarray, boxes: np.ndarray) -> torch.Tensor:
    """Return pixels `(batch, 3, height, width)` of boxes, float32; those beyond a smaller box weigh nothing."""
    device = images.pixels.device
    height, width = boxes[:, 2:].max(axis=0).tolist()
    row_bytes = torch.from_numpy(3 * images.widths[indices]).to(device, non_blocking=True).view(-1, 1, 1, 1)
    firsts = images.offsets[indices] + 3 * (boxes[:, 0] * images.widths[indices] + boxes[:, 1])
    firsts = torch.from_numpy(firsts).to(device, non_blocking=True).view(-1, 1, 1, 1)
    rows = torch.arange(height, device=device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=device) * 3
    channels = torch.arange(3, device=device).view(1, -1, 1, 1)
    places = (firsts + rows * row_bytes + (columns + channels)).clamp_(max=images.num_bytes - 1)
    return images.pixels[places].float()


def _resize_chunk(
    images: ResidentImages, indices: np.ndarray, boxes: np.ndarray, sizes: np.ndarray, starts: np.ndarray, side: int
) -> torch.Tensor:
    pixels = _gather_boxes(images, indices, boxes)  # (batch, 3, height, width)
    old_sizes, new_sizes, offsets = (
        torch.from_numpy(array).to(pixels.device, non_blocking=True) for array in (boxes[:, 2:], sizes, starts)
    )
    vertical, horizontal = (
        bilinear_weights(
            old_sizes[:, axis], new_sizes[:, axis], offsets[:, axis], side, pixels.shape[2 + axis]
        ).unsqueeze(1)
        for axis in (0, 1)
    )  # (batch, 1, side, height) and (batch, 1, side, width)
    return vertical @ (pixels @ horizontal.transpose(2, 3))  # (batch, 3, side, side)


def resize_boxes(
    images: ResidentImages, indices: np.ndarray, boxes: np.ndarray, sizes: np.ndarray, starts: np.ndarray, side: int
) -> torch.Tensor:
    """Resize boxes of images, each to a size of its own, and cut a square out of each result.

    Args:
        indices: `(batch,)`, of the images.
        boxes: `(batch, 4)`, top, left, height, width in pixels.
        sizes, starts: `(batch, 2)`, height and width after resizing; top and left of the square in it.
        side: of the squares, in pixels.

    Returns:
        `(batch, 3, side, side)`, float32, 0-255, on the images' device.
    """
    patches = torch.empty(len(indices), 3, side, side, device=images.pixels.device)
    largest_first = np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")  # alike in a chunk, little padding
    while largest_first.size:
        height, width = boxes[largest_first, 2:].max(axis=0)
        chunk_size = max(1, CHUNK_BYTES // int(3 * 4 * height * width))
        chosen, largest_first = largest_first[:chunk_size], largest_first[chunk_size:]
        with torch.autocast(patches.device.type, enabled=False):
            chunk = _resize_chunk(images, indices[chosen], boxes[chosen], sizes[chosen], starts[chosen], side)
        patches[torch.from_numpy(chosen).to(patches.device, non_blocking=True)] = chunk
    return patches
