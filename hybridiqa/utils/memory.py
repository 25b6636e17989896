"""Memory of the process, as the C library keeps it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
# What glibc uses by itself once it has freed a large block, where it was told nothing.
DEFAULT_MMAP_MAX, LARGEST_MMAP_THRESHOLD, LARGEST_TRIM_THRESHOLD = 65536, 32 * 2**20, 64 * 2**20


@contextmanager
def freed_memory_kept(is_wanted: bool = True) -> Iterator[None]:
    """Let the C library keep freed memory for the next tensor, instead of giving it back to the system.

    A training step allocates the same large tensors again and again. By default each of them is mapped anew, and the
    system clears it page by page: on two cores that cost a third of a step with a frozen backbone. The process holds on
    to its peak memory instead, until the block ends: a process that held 40 GB of addresses could start no other.

    Args:
        is_wanted: where not, and with other C libraries than glibc, nothing is changed.
    """
    library = _load_glibc() if is_wanted else None
    if library is None:
        yield
        return
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)
        library.malloc_trim(0)


def _load_glibc() -> ctypes.CDLL | None:
    """Return the C library where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
