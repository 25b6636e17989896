"""Runs of score.py in processes of their own, forked from one that has loaded the libraries."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from hybridiqa.commands import score

LIBRARIES = (  # what a run loads before it reads a checkpoint, which takes 4 seconds
    *("torch", "torchvision", "scipy.stats", "pyarrow.parquet", "datasets", "accelerate"),
    *("transformers.modeling_utils", "transformers.models.auto.modeling_auto", "transformers.image_processing_utils"),
    "transformers.models.resnet.modeling_resnet",
)
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(list(LIBRARIES))


class ForkedRun:
    """Run of score.py that can be waited for and killed as a `subprocess.Popen` can.

    Args:
        log: file to which all that it prints is added.
        environment: further variables.
    """

    def __init__(self, arguments: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None):
        self.log = log
        self.process = FORKS.Process(target=_score, args=([*map(str, arguments)], log, dict(environment or {})))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> None:
        self.process.join()

    def send_signal(self, number: int) -> None:
        if self.process.pid is not None and self.poll() is None:
            os.kill(self.process.pid, number)


def start_group(num_processes: int, arguments: Sequence[str | Path], log: Path) -> list[ForkedRun]:
    """Start processes that share the work, in the environment that a launcher gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    group |= {"LOCAL_WORLD_SIZE": group["WORLD_SIZE"], "ACCELERATE_USE_CPU": "true"}
    return [
        ForkedRun(arguments, log, group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(num_processes)
    ]


def _score(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    sys.exit(score.main(arguments))
