"""How a process on a CPU holds its memory."""

import ctypes
import sys

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensor, instead of giving it back to the system.

    A training step allocates the same large tensors again and again. By default each of them is mapped anew, and the
    system clears it page by page: on two cores that cost a third of a step with a frozen backbone. The process holds on
    to its peak memory instead.

    Returns:
        Whether the C library is one that can be told (glibc, on Linux).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
