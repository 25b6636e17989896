"""Running environment of a program: its root folder, libraries, device, memory and processes.

Importing this loads no torch: what needs it is loaded where it is called.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import TYPE_CHECKING

from hybridiqa.utils.files import as_text
from hybridiqa.utils.root import ROOT

if TYPE_CHECKING:
    import torch
HUB_ID = re.compile(r"\b[\w.-]+\b/\b[\w.-]+\b")  # user/name
# An absolute path, or one that leaves the working folder: both tell how somebody's disk is arranged.
OUTSIDE_PATH = re.compile(r"/|~|\.\.|\\\\|[A-Za-z]:[\\/]")

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
# What glibc uses by itself once it has freed a large block, where it was told nothing.
DEFAULT_MMAP_MAX, LARGEST_MMAP_THRESHOLD, LARGEST_TRIM_THRESHOLD = 65536, 32 * 2**20, 64 * 2**20

LIBRARIES = (
    *("torch", "torchvision", "transformers", "datasets", "huggingface_hub", "accelerate", "lion-pytorch"),
    *("onnxruntime", "openvino"),
)

LONGEST_WAIT = timedelta(days=30)  # for another process, whose share may take longer


def silence_libraries() -> None:
    """No bars of transformers and no retries of the Hub's client in what a door prints."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()


def first_line(error: Exception) -> str:
    """Return what went wrong, without the paragraphs that libraries add."""
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    return f"{first} {others[0].strip()}" if first.endswith(":") and others else first


def import_optional(name: str, install: str = "pip install -r requirements-optional.txt") -> ModuleType:
    """A library that is asked for only where it is used.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"this needs {name}: {install} ({first_line(error)})") from error


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, by default cuda, then mps, then cpu.

    Raises:
        ValueError: a device that this machine lacks.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name is None:
        return torch.device(next(kind for kind, is_there in available.items() if is_there))
    usable = ", ".join(kind for kind, is_there in available.items() if is_there)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device {name} cannot be used here, accepted is {usable}") from error
    if not available.get(device.type, False) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ValueError(f"--device {name} cannot be used here, accepted is {usable}")
    return device


def map_in_processes(function: Callable, items: list, num_workers: int) -> list:
    """The results in the order of the items; both must be picklable where there is more than one worker."""
    if num_workers == 1:
        return [function(item) for item in items]
    # Spawned, not forked: a fork beside torch's threads can hang.
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(function, items))


@contextmanager
def freed_memory_kept(is_wanted: bool = True) -> Iterator[None]:
    """Let the C library keep freed memory for the next tensor, instead of giving it back to the system.

    A training step allocates the same large tensors again and again. By default each of them is mapped anew, and the
    system clears it page by page: on two cores that cost a third of a step with a frozen backbone. The process holds on
    to its peak memory instead, until the block ends: a process that held 40 GB of addresses could start no other.

    Args:
        is_wanted: where not, and with other C libraries than glibc, nothing is changed.
    """
    library = _glibc() if is_wanted else None
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


def _glibc() -> ctypes.CDLL | None:
    """Return the C library where it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that a score can depend on, and Python's; what is missing is left out."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**versions, "python": platform.python_version()}


class Processes:
    """This process among those that share the work.

    Args:
        device: as the user named it, or none.

    Attributes:
        index, count: which this one is, of how many.
        device: the name of the device that is this one's.

    Raises:
        ValueError: accelerate does not see all that were started, or the device is not there.
    """

    def __init__(self, device: str | None):
        self.index, self.count, self.device = 0, int(os.environ.get("WORLD_SIZE", 1)), device
        if self.count == 1:
            return
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        is_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or choose_device(device).type == "cpu"
        self.state = PartialState(cpu=is_cpu, timeout=LONGEST_WAIT)
        if self.state.num_processes != self.count:
            raise ValueError(f"{self.count} processes were started and accelerate sees {self.state.num_processes}")
        self.index, self.device = self.state.process_index, str(self.state.device)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that speaks, and brings the others' results together."""
        return self.index == 0

    def gather(self, value: object) -> list:
        """The values of all processes, in their order, once all have come here."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])


def _shown(text: str) -> str:
    """The same, of a path outside the working folder its last component only."""
    text = as_text(text)
    return (PureWindowsPath(text).name or text) if OUTSIDE_PATH.match(text) else text


def shown_command(command: Sequence[str]) -> str:
    """A command to show to others: of paths outside the working folder, the last component only."""
    arguments = []
    for argument in command:
        option, equals, value = argument.partition("=") if "=" in argument else ("", "", argument)
        arguments.append(option + equals + _shown(value))
    return shlex.join(arguments)


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit_hash() -> str | None:
    """The short hash of the checkout's commit, with -dirty where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_run(command: Sequence[str], device: torch.device) -> dict:
    """What numbers belong to: how they were made, with which code, where.

    Args:
        command: the door's arguments.
    """
    import torch

    return {
        "command": shown_command(["python", "benchmark.py", *command]),
        "commit": commit_hash(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
    }
