"""Freed memory: kept in the block that asks for it, given back behind it."""

import os
import sys

import psutil
import pytest
import torch

from hybridiqa.utils.memory import freed_memory_kept

NUM_BYTES = 2 * 2**30  # addresses only: nothing is written there
IS_GLIBC = sys.platform.startswith("linux") and os.confstr("CS_GNU_LIBC_VERSION") is not None


def bytes_kept_after_a_tensor() -> int:
    """Take and free a large tensor: how many bytes of addresses the process still holds of it."""
    before = psutil.Process().memory_info().vms
    torch.empty(NUM_BYTES, dtype=torch.uint8)
    return psutil.Process().memory_info().vms - before


@pytest.mark.skipif(not IS_GLIBC, reason="only glibc is told")
def test_freed_memory_is_kept_in_the_block_and_given_back_behind_it():
    before = psutil.Process().memory_info().vms
    with freed_memory_kept():
        assert bytes_kept_after_a_tensor() > NUM_BYTES / 2
    assert psutil.Process().memory_info().vms - before < NUM_BYTES / 2
    assert bytes_kept_after_a_tensor() < NUM_BYTES / 2


def test_nothing_is_kept_where_it_is_not_wanted():
    with freed_memory_kept(False):
        assert bytes_kept_after_a_tensor() < NUM_BYTES / 2
