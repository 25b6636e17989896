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
    """Speed or memory, ours and the published one's.

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


@dataclass(frozen=True)
class Measured:
    """Results of a command.

    Args:
        facts: what else is worth knowing, by name.
        rows: nothing where nothing is compared with the published system.
    """

    facts: dict[str, float]
    rows: Sequence[Row] = ()


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a call takes, until the device has done all of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def take_turns(calls: Sequence[Callable[[], object]], num_rounds: int, device: torch.device) -> list[tuple[float, ...]]:
    """Return the seconds of every call, in their order, by round; who begins changes with every round."""
    rounds = []
    for index in range(num_rounds):
        order = sorted(range(len(calls)), key=lambda number: (number - index) % len(calls))
        seconds = {number: time_call(calls[number], device) for number in order}
        rounds.append(tuple(seconds[number] for number in range(len(calls))))
    return rounds


def speed_row(name: str, unit: str, amount: float, rounds: Sequence[tuple[float, ...]]) -> Row:
    """Return the round whose ratio is the median (of an even number the lower), as amount/s.

    Args:
        rounds: seconds of ours and of the reference.
    """
    by_ratio = sorted(rounds, key=lambda seconds: seconds[1] / seconds[0])
    our_seconds, reference_seconds = by_ratio[(len(by_ratio) - 1) // 2]
    ours, reference = amount / our_seconds, amount / reference_seconds
    return Row(name, unit, ours, reference, ours / reference, len(rounds))


def memory_row(name: str, unit: str, ours: float, reference: float) -> Row:
    """Return a row of bytes, of which fewer are better; nothing about them changes from round to round."""
    return Row(name, unit, ours, reference, reference / ours, 1)


def make_images(num_images: int, size: int, seed: int = 0) -> list[torch.Tensor]:
    """Make uint8 `(3, size, size)` RGB images: smooth coloured structure with a little grain, decided by the seed."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(num_images):
        coarse = 255 * torch.rand(1, 3, 9, 9, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0]
        grain = 6 * torch.randn(3, size, size, generator=generator)
        images.append((smooth + grain).clamp(0, 255).to(torch.uint8))
    return images


def build_report(
    kind: str,
    arguments: Mapping[str, object],
    measured: Measured,
    command: Sequence[str],
    device: torch.device,
) -> dict:
    """Return what `--json` holds, for the commands that measure speed and precision.

    Args:
        arguments: what the numbers depend on, by the names of the options.
        command: the words after `benchmark.py`.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "kind": kind,
        **describe_run(command, device),
        "arguments": dict(arguments),
        "rows": [asdict(row) for row in measured.rows],
        "facts": {**measured.facts, "peak_rss_bytes": peak if sys.platform == "darwin" else 1024 * peak},
    }


def print_report(report: dict) -> None:
    """Print the rows as a table, then all else."""
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
