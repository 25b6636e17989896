"""What a benchmark prints and writes: its rows, other facts, and the machine that they belong to."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch

from hybridiqa.benchmarks.timing import Row
from hybridiqa.utils.runtime import describe_run


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
