"""Named images that are read or made only when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import overload

Sources = Sequence[tuple[str, Path | bytes]]  # name, and file or its bytes


class LazyImages(Sources):
    """Names of images, each with its file or the file's bytes; a slice is a list.

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

    @overload
    def __getitem__(self, index: int) -> tuple[str, Path | bytes]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, Path | bytes]]: ...

    def __getitem__(self, index: int | slice) -> tuple[str, Path | bytes] | list[tuple[str, Path | bytes]]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]  # counted from the end where it is negative
        return self.names[number], self.load(number)
