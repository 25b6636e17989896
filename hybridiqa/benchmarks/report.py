"""What a benchmark prints and writes: its rows, other facts, and the machine that they belong to."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from hybridiqa.benchmarks.timing import Row
from hybridiqa.models.loading import ROOT
from hybridiqa.models.model_card import shown_command
from hybridiqa.utils.versions import library_versions


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name."""
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
    return {
        "command": shown_command(["python", "benchmark.py", *command]),
        "commit": commit_hash(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
    }


def build_report(
    kind: str, rows: Sequence[Row], facts: Mapping[str, float], command: Sequence[str], device: torch.device
) -> dict:
    """What `--json` holds, for the commands that measure speed and precision."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "kind": kind,
        **describe_run(command, device),
        "rows": [asdict(row) for row in rows],
        "facts": {**facts, "peak_rss_bytes": peak if sys.platform == "darwin" else 1024 * peak},
    }


def print_report(report: dict) -> None:
    """The rows as a table, then all else."""
    if report["rows"]:
        print(f"{'':22}{'ours':>14}{'reference':>14}{'ratio':>8}  unit")
    for row in report["rows"]:
        print(f"{row['name']:22}{row['ours']:14,.6g}{row['reference']:14,.6g}{row['ratio']:8.2f}  {row['unit']}")
    if report["rows"]:
        print(f"\nmedian of {max(row['rounds'] for row in report['rows'])} rounds; ratio above 1: ours is better")
    for name, value in report["facts"].items():
        print(f"{name:40}{value:,.6g}")
    print(f"{report['device']}, {report['threads']} threads, commit {report['commit']}")
    print(", ".join(f"{name} {number}" for name, number in report["versions"].items()))
