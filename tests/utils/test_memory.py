"""Freed memory: kept in the block that asks for it, given back behind it."""

import os
import subprocess
import sys

import pytest

from hybridiqa.utils.root import ROOT

IS_GLIBC = sys.platform.startswith("linux") and os.confstr("CS_GNU_LIBC_VERSION") is not None
# A process of its own, whose heap holds nothing behind the array. Addresses only: nothing is written there.
SCRIPT = """
import numpy as np
import psutil
from hybridiqa.utils.memory import freed_memory_kept

def gigabytes():
    return psutil.Process().memory_info().vms / 2**30

def take_and_free():
    before = gigabytes()
    np.empty(2 * 2**30, np.uint8)
    print(round(gigabytes() - before))

before = gigabytes()
with freed_memory_kept({is_wanted}):
    take_and_free()
print(round(gigabytes() - before))
take_and_free()
"""


@pytest.mark.skipif(not IS_GLIBC, reason="only glibc is told")
@pytest.mark.parametrize(("is_wanted", "expected"), [(True, ["2", "0", "0"]), (False, ["0", "0", "0"])])
def test_freed_memory_is_kept_in_the_block_and_given_back_behind_it(is_wanted, expected):
    command = [sys.executable, "-c", SCRIPT.format(is_wanted=is_wanted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == expected, done.stderr
