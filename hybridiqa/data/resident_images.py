"""Decoded pictures of any sizes in one buffer on one device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class ResidentImages:
    """Pictures of any sizes, one after another in a single uint8 tensor: three bytes a pixel and nothing else.

    Args:
        pixels: `(bytes,)`, uint8; each picture's rows of RGB pixels, 0-255.
        heights, widths: one a picture, in pixels.
    """

    def __init__(self, pixels: torch.Tensor, heights: Sequence[int], widths: Sequence[int]):
        self.pixels = pixels
        self.heights = np.asarray(heights, np.int64)
        self.widths = np.asarray(widths, np.int64)
        ends = np.cumsum(3 * self.heights * self.widths)
        self.offsets = ends - 3 * self.heights * self.widths  # of each picture's first byte
        num_bytes = int(ends[-1]) if ends.size else 0
        if pixels.dtype != torch.uint8 or pixels.numel() != num_bytes:
            raise ValueError(f"pixels must be {num_bytes} bytes of uint8, got {pixels.numel()} of {pixels.dtype}")

    @classmethod
    def from_tensors(cls, images: Sequence[torch.Tensor], device: str | torch.device | None = None) -> ResidentImages:
        """From uint8 `(3, height, width)` tensors; by default where they are."""
        pixels = torch.cat([image.permute(1, 2, 0).flatten() for image in images]).to(device)
        return cls(pixels, [image.shape[1] for image in images], [image.shape[2] for image in images])

    def __len__(self) -> int:
        return len(self.heights)

    def __getitem__(self, index: int) -> torch.Tensor:
        """One picture, uint8 `(3, height, width)`: a view of the buffer, its channels innermost in memory."""
        shape = (int(self.heights[index]), int(self.widths[index]), 3)
        start = int(self.offsets[index])
        return self.pixels[start : start + 3 * shape[0] * shape[1]].view(shape).permute(2, 0, 1)

    @property
    def num_bytes(self) -> int:
        return self.pixels.numel()

    def select(self, indices: Sequence[int], device: torch.device) -> ResidentImages:
        """Some of the pictures, on a device; copies from pinned memory overlap each other."""
        spans = [(int(self.offsets[i]), 3 * int(self.heights[i]) * int(self.widths[i])) for i in indices]
        pixels = torch.empty(sum(length for _, length in spans), dtype=torch.uint8, device=device)
        position = 0
        for start, length in spans:
            pixels[position : position + length].copy_(self.pixels[start : start + length], non_blocking=True)
            position += length
        return ResidentImages(pixels, self.heights[indices], self.widths[indices])
