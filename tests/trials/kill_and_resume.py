"""Kill a training run (SIGKILL) again and again, resume it each time, and compare it with one that was left alone.

    python tests/trials/kill_and_resume.py --num_kills 20 --num_in_writing 5 --seed 0

Some kills fall at moments drawn from the seed, the others inside the writing of a checkpoint. After each of them every
checkpoint that has a name must be whole. A run that reaches its end is compared, and another one is begun.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from factories import make_picture, make_tiny_model

TRAIN = str(Path(__file__).resolve().parents[2] / "train.py")
NUM_EPOCHS, NUM_IMAGES, NUM_PATCHES, BATCH_SIZE = 6, 12, 16, 4
COMPARED_FILES = ("model.safetensors", "config.json", "metrics.json", "predictions.csv", "losses.csv", "README.md")


def make_dataset(folder: Path) -> None:
    def rows(first: int, count: int) -> dict:
        numbers = range(first, first + count)
        return {
            "image": [make_picture(80, 72, seed=number) for number in numbers],
            "score": [1.0 + number % 9 for number in numbers],
            "path": [f"{number}.png" for number in numbers],
        }

    splits = {"train": rows(0, NUM_IMAGES), "validation": rows(20, 4), "test": rows(30, 4)}
    DatasetDict({name: Dataset.from_dict(split) for name, split in splits.items()}).save_to_disk(folder)


class Runs:
    """Runs of one command, in processes of their own."""

    def __init__(self, folder: Path, num_epochs: int):
        self.folder, self.num_epochs = folder, num_epochs
        self.num_steps = num_epochs * NUM_IMAGES * NUM_PATCHES // BATCH_SIZE
        make_dataset(folder / "prepared")
        make_tiny_model().config.save_pretrained(folder / "config")

    def start(self, name: str) -> subprocess.Popen:
        command = [sys.executable, TRAIN, "--dataset", str(self.folder / "prepared"), "--from_scratch", "--resume"]
        command += ["--output_dir", str(self.folder / name / "out"), "--config", str(self.folder / "config")]
        command += ["--num_train_patches", str(NUM_PATCHES), "--num_eval_patches", "1", "--save_steps", "3"]
        command += ["--num_resamples", "20"]
        command += [
            "--batch_size",
            str(BATCH_SIZE),
            "--num_epochs",
            str(self.num_epochs),
            "--learning_rate",
            "1e-4",
            "--mixed_precision",
            "no",
        ]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        (self.folder / name).mkdir(exist_ok=True)
        log = open(self.folder / name / "log.txt", "a")  # noqa: SIM115 (the process keeps it)
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def checkpoints(self, name: str) -> Path:
        return self.folder / name / "out" / "checkpoints"

    def files(self, name: str) -> dict[str, str]:
        """Return hashes of what a run has left."""
        output_dir = self.folder / name / "out"
        return {file: hashlib.sha256((output_dir / file).read_bytes()).hexdigest() for file in COMPARED_FILES}

    def check_checkpoints(self, name: str) -> None:
        """Raise where a checkpoint with a name cannot be read whole."""
        for folder in self.checkpoints(name).glob("step-*"):
            state = json.loads((folder / "progress.json").read_text())
            if int(folder.name.removeprefix("step-")) != state["step"]:
                raise RuntimeError(f"{folder} holds step {state['step']}")
            load_file(folder / "model.safetensors")
            torch.load(folder / "optimizer.bin", weights_only=True)
            if state["best"]:
                load_file(folder.parent / state["best"]["model"] / "model.safetensors")


def is_writing(checkpoints_dir: Path) -> bool:
    """Return whether a checkpoint is half-written at this moment."""
    try:
        return any(entry.name.startswith(".unfinished-") for entry in os.scandir(checkpoints_dir))
    except FileNotFoundError:
        return False


def last_step(checkpoints_dir: Path) -> int:
    """Return the step of the newest whole checkpoint, 0 where there is none."""
    return max((int(path.name.removeprefix("step-")) for path in checkpoints_dir.glob("step-*")), default=0)


def wait_for_training(process: subprocess.Popen, runs: Runs, name: str, start: int) -> bool:
    """Wait until the run has begun its steps; return False if it ended before."""
    log = runs.folder / name / "log.txt"
    while process.poll() is None:
        if b"processes:" in log.read_bytes()[start:]:
            return True
        time.sleep(0.01)
    return False


def wait_for_moment(process: subprocess.Popen, checkpoints_dir: Path, delay: float, in_writing: bool) -> bool:
    """Wait `delay` seconds, and then for the next writing of a checkpoint if asked; False: the run ended."""
    end = time.monotonic() + delay
    while process.poll() is None:
        if time.monotonic() >= end and (not in_writing or is_writing(checkpoints_dir)):
            return True
        time.sleep(0.0002)
    return False


def kill_once(runs: Runs, name: str, delay: float, in_writing: bool) -> str:
    """Start or resume the run and kill it: in its "steps", in "writing" a checkpoint, in the "report" after all steps.

    Returns:
        Which of these, or "end" where the run was not killed.
    """
    log = runs.folder / name / "log.txt"
    start = log.stat().st_size if log.exists() else 0
    process = runs.start(name)
    checkpoints_dir = runs.checkpoints(name)
    has_moment = wait_for_training(process, runs, name, start)
    has_moment = has_moment and wait_for_moment(process, checkpoints_dir, delay, in_writing)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not has_moment and process.returncode == 0:
        return "end"
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the run failed:\n{log.read_text()[-3000:]}")
    runs.check_checkpoints(name)
    if is_writing(checkpoints_dir):
        return "writing"
    return "report" if last_step(checkpoints_dir) == runs.num_steps else "steps"


def kill_and_resume(
    folder: Path, num_kills: int, num_in_writing: int, seed: int, num_epochs: int = NUM_EPOCHS
) -> list[str]:
    """Kill until there were enough of both kinds; return where each kill hit.

    Raises:
        RuntimeError: a resumed run did not end as the undisturbed one.
    """
    runs, rng = Runs(folder, num_epochs), random.Random(seed)
    undisturbed = runs.start("undisturbed")
    began = time.monotonic()
    if not wait_for_training(undisturbed, runs, "undisturbed", 0):
        raise RuntimeError((folder / "undisturbed" / "log.txt").read_text()[-3000:])
    startup = time.monotonic() - began
    undisturbed.wait()
    duration = time.monotonic() - began - startup
    expected = runs.files("undisturbed")
    print(f"undisturbed run: {duration:.1f} s after its start-up; weights {expected['model.safetensors'][:16]}")
    hits: list[str] = []
    hit, number = "", 0
    while len(hits) < num_kills or hits.count("writing") < num_in_writing:
        name = f"killed-{number}"
        num_wanted = num_in_writing - hits.count("writing")
        in_writing = num_wanted > 0 and (num_wanted >= num_kills - len(hits) or rng.random() < 0.5)
        delay = rng.uniform(0, duration / 6)
        if hit == "report":  # one kill after the last step is enough for this run
            delay = math.inf
        hit = kill_once(runs, name, delay, in_writing)
        if hit == "end":
            compare(runs, name, expected)
            number += 1
            continue
        hits.append(hit)
        last = last_step(runs.checkpoints(name))
        print(f"kill {len(hits):2}: {delay:5.2f} s after the start-up, in {hit}; last whole checkpoint: step {last}")
    runs.start(name).wait()
    compare(runs, name, expected)
    return hits


def compare(runs: Runs, name: str, expected: dict[str, str]) -> None:
    """Raise RuntimeError unless a run that has ended left the expected files."""
    found = runs.files(name)
    log = (runs.folder / name / "log.txt").read_text()
    resumed = [line.split()[-1] for line in log.splitlines() if "goes on from" in line]
    print(
        f"{name} ended, having gone on from {' '.join(resumed) or 'nothing'}; weights {found['model.safetensors'][:16]}"
    )
    if differing := [file for file in expected if found[file] != expected[file]]:
        raise RuntimeError(f"{name} differs from the undisturbed run in {differing}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_kills", type=int, default=20)
    parser.add_argument("--num_in_writing", type=int, default=5, help="of them, at least")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    with tempfile.TemporaryDirectory() as folder:
        hits = kill_and_resume(Path(folder), args.num_kills, args.num_in_writing, args.seed)
    print(f"{len(hits)} kills, {hits.count('writing')} of them in the writing of a checkpoint: all ends equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
