"""Description of a run, for what is measured in it: its command, code, device and libraries."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from hybridiqa.utils.devices import find_device_name
from hybridiqa.utils.files import as_text
from hybridiqa.utils.libraries import library_versions
from hybridiqa.utils.root import ROOT

if TYPE_CHECKING:
    import torch

# An absolute path, or one that leaves the working folder: both tell how somebody's disk is arranged.
OUTSIDE_PATH = re.compile(r"/|~|\.\.|\\\\|[A-Za-z]:[\\/]")


def show_argument(text: str) -> str:
    """Return an argument to show to others: of a path outside the working folder, the last component only."""
    text = as_text(text)
    return (PureWindowsPath(text).name or text) if OUTSIDE_PATH.match(text) else text


def show_command(command: Sequence[str]) -> str:
    """Return a command to show to others: of paths outside the working folder, the last component only."""
    arguments = []
    for argument in command:
        option, equals, value = argument.partition("=") if "=" in argument else ("", "", argument)
        arguments.append(option + equals + show_argument(value))
    return shlex.join(arguments)


def find_commit() -> str | None:
    """Return the short hash of the checkout's commit, with -dirty where files differ; None outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_run(command: Sequence[str], device: torch.device) -> dict:
    """Describe what numbers belong to: how they were made, with which code, where.

    Args:
        command: the arguments of `benchmark.py`.
    """
    import torch

    return {
        "command": show_command(["python", "benchmark.py", *command]),
        "commit": find_commit(),
        "device": find_device_name(device),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
    }
