"""Sides of a benchmark take turns; what comes out is a row of numbers that belong together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


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
