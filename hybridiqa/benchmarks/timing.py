"""Timed calls that take turns, the rows that they give, and the report that shows them with their machine."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from hybridiqa.utils.runs import describe_run


@dataclass(frozen=True)
class Row:
    """One measured thing.

    Args:
        unit: of `ours` and `reference`.
        ratio: above 1 where ours is better.
        rounds: in how many rounds both were measured.
    """

    name: str
    unit: str
    ours: float
    reference: float
    ratio: float
    rounds: int


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, until the device has done all of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def take_turns(calls: Sequence[Callable[[], object]], num_rounds: int, device: torch.device) -> list[tuple[float, ...]]:
    """Seconds of every call, in their order, round by round; who begins changes with every round."""
    rounds = []
    for index in range(num_rounds):
        order = sorted(range(len(calls)), key=lambda number: (number - index) % len(calls))
        seconds = {number: time_call(calls[number], device) for number in order}
        rounds.append(tuple(seconds[number] for number in range(len(calls))))
    return rounds


def speed_row(name: str, unit: str, amount: float, rounds: list[tuple[float, float]]) -> Row:
    """The round whose ratio is the median (of an even number the lower), as amount/s.

    Args:
        rounds: seconds of ours and of the reference.
    """
    by_ratio = sorted(rounds, key=lambda seconds: seconds[1] / seconds[0])
    our_seconds, reference_seconds = by_ratio[(len(by_ratio) - 1) // 2]
    ours, reference = amount / our_seconds, amount / reference_seconds
    return Row(name, unit, ours, reference, ours / reference, len(rounds))


def memory_row(name: str, unit: str, ours: float, reference: float) -> Row:
    """Bytes, of which fewer are better; nothing about them changes from round to round."""
    return Row(name, unit, ours, reference, reference / ours, 1)


def make_pictures(num_images: int, size: int, seed: int = 0) -> list[torch.Tensor]:
    """uint8 `(3, size, size)` RGB: smooth coloured structure with a little grain, decided by the seed."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for _ in range(num_images):
        coarse = 255 * torch.rand(1, 3, 9, 9, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0]
        grain = 6 * torch.randn(3, size, size, generator=generator)
        pictures.append((smooth + grain).clamp(0, 255).to(torch.uint8))
    return pictures


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
