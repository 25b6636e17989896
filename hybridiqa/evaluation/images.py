"""Named images that are read or made only when they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path


class LazyImages(ABC):
    """Names of images, each with its file or the file's bytes: `hybridiqa.inference.decoding.Sources`.

    Args:
        names: one an image.
    """

    def __init__(self, names: Sequence[str]):
        self.names = names

    @abstractmethod
    def load(self, index: int) -> Path | bytes:
        """Return the file of an image, or the file's bytes."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, Path | bytes]:
        number = range(len(self))[index]  # counted from the end where it is negative
        return self.names[number], self.load(number)
