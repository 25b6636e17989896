"""Order of the patches of an epoch, in blocks of those that belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BLOCK_SIZE = 8  # versions of a reference image that are compared with each other


class PatchBlocks:
    """Patches of an epoch in blocks: up to BLOCK_SIZE versions of one reference image, of scores as various as can be.

    Batches, and what processes share of them, keep blocks whole. Numbers of blocks and batches are the same in every
    epoch; what is in them is decided by (seed, epoch) alone.

    Args:
        scores: `(patches,)`, of the image that each patch is cut from.
        reference_ids: `(patches,)`, what that image is a version of; none makes every patch a block of its own.
        seed: of all draws, 0 or more.
    """

    def __init__(self, scores: np.ndarray, reference_ids: np.ndarray | None, seed: int):
        self.scores, self.seed = scores, seed
        self.are_single = reference_ids is None
        self._members = [] if reference_ids is None else _group_positions(reference_ids)
        self._drawn: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))  # the numbers of the last epoch asked for

    def __len__(self) -> int:
        return len(self.scores) if self.are_single else sum(map(_num_blocks, self._members))

    def numbers(self, epoch: int) -> np.ndarray:
        """Return the number of the block that each patch belongs to, `(patches,)`."""
        if self.are_single:
            return np.arange(len(self.scores))
        if self._drawn[0] != epoch:
            rng, first = np.random.default_rng((self.seed, epoch, BLOCK_SIZE)), 0
            numbers = np.empty(len(self.scores), np.int64)
            for patches in self._members:
                # Dealt out in the order of their scores, so that each block gets some of all.
                order = np.lexsort([rng.random(len(patches)), self.scores[patches]])
                numbers[patches[order]] = first + np.arange(len(patches)) % _num_blocks(patches)
                first += _num_blocks(patches)
            self._drawn = (epoch, numbers)
        return self._drawn[1]

    def order(self, epoch: int) -> np.ndarray:
        """Return all patches, those of a block side by side."""
        places = np.random.default_rng((self.seed, epoch)).permutation(len(self))
        return places if self.are_single else np.argsort(places[self.numbers(epoch)], kind="stable")

    def num_batches(self, batch_size: int) -> int:
        """Return the number of batches in an epoch, of at most `batch_size` patches (or one block, if that is more)."""
        return math.ceil(len(self) / self._blocks_in_batch(batch_size))

    def batches(self, epoch: int, batch_size: int) -> list[np.ndarray]:
        """Return the epoch's order in parts of whole blocks."""
        firsts = range(0, len(self), self._blocks_in_batch(batch_size))
        return self._cut(epoch, self.order(epoch), firsts)

    def split(self, epoch: int, patches: np.ndarray, num_parts: int) -> list[np.ndarray]:
        """Divide patches of the epoch's order into nearly equal parts of whole blocks; what is over is empty."""
        num_blocks = len(np.unique(self.numbers(epoch)[patches]))
        firsts = [part[0] if len(part) else num_blocks for part in np.array_split(np.arange(num_blocks), num_parts)]
        return self._cut(epoch, patches, firsts)

    def _blocks_in_batch(self, batch_size: int) -> int:
        return batch_size if self.are_single else max(1, batch_size // BLOCK_SIZE)

    def _cut(self, epoch: int, patches: np.ndarray, firsts: Sequence[int]) -> list[np.ndarray]:
        """Cut patches before the blocks that `firsts` count in their order; the first of them is 0."""
        starts = np.append(np.flatnonzero(np.diff(self.numbers(epoch)[patches], prepend=-1)), len(patches))
        return np.split(patches, starts[list(firsts)[1:]])


def _group_positions(names: np.ndarray) -> list[np.ndarray]:
    """Return the positions of each name, names in their order."""
    _, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
    return np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])


def _num_blocks(patches: np.ndarray) -> int:
    return math.ceil(len(patches) / BLOCK_SIZE)
