"""Kill a scoring run (SIGKILL) again and again, begin it anew each time, and compare its file with an undisturbed one.

    python tests/trials/kill_scoring.py --num_kills 30 --num_images 1000 --seed 0

Moments are drawn from the seed: some before the run's first row, most while it scores, and some in the writing of the
final file. A run that reaches its end is compared, byte for byte, and another one is begun.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from factories import make_picture, make_tiny_model
from forked_scoring import ForkedRun

from hybridiqa.scores.ledger import progress_dir_of
from hybridiqa.scores.score_file import read_scores
from hybridiqa.utils.atomic import UNFINISHED_SUFFIX

SCORE = str(Path(__file__).resolve().parents[2] / "score.py")
NUM_BROKEN = 7


def make_library(folder: Path, num_images: int) -> None:
    """Write images of mixed sizes in three folders, some of them twice, and some broken."""
    for number in range(num_images - NUM_BROKEN):
        path = folder / f"folder{number % 3}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture(
            64 + number % 40, 64 + number % 30, seed=number - number % 50 if number % 50 == 1 else number
        ).save(path)
    for number in range(NUM_BROKEN):
        (folder / f"broken{number}.png").write_bytes(b"\x89PNG" * number)


Run = subprocess.Popen | ForkedRun


def start_script(arguments: Sequence[str], log: Path) -> Run:
    """Start score.py as a user does."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with open(log, "a") as file:
        return subprocess.Popen([sys.executable, SCORE, *arguments], env=environment, stdout=file, stderr=file)


def start(start_run: Callable[[Sequence[str], Path], Run], folder: Path, output: Path) -> Run:
    arguments = [str(folder / "library"), "--model", str(folder / "tiny"), "--output", str(output)]
    return start_run(arguments, folder / "log.txt")


def num_bytes(folder: Path) -> int:
    """Return how much a run's processes have written to their rows."""
    return sum(path.stat().st_size for path in folder.glob("rows-*.jsonl"))


def wait_until(process: Run, is_time: Callable[[], object]) -> bool:
    """Wait for a moment; return False if the run ended before."""
    while process.poll() is None:
        try:
            if is_time():
                return True
        except FileNotFoundError:  # what it looked at was removed meanwhile
            continue
        time.sleep(0.0005)
    return False


def kill_once(
    start_run: Callable[[Sequence[str], Path], Run], folder: Path, output: Path, delay: float, in_writing: bool
) -> str:
    """Start or go on, and kill `delay` seconds later, or in the writing of the final file.

    Returns:
        Where it hit: before a first row ("start-up"), "scoring", "writing", after that ("clearing up"), or "end" where
        the run was not killed.
    """

    def unfinished() -> list[Path]:
        return list(output.parent.glob(f".{output.name}.*{UNFINISHED_SUFFIX}"))

    before = num_bytes(progress_dir_of(output))
    process = start(start_run, folder, output)
    end = time.monotonic() + delay
    has_moment = wait_until(process, unfinished if in_writing else lambda: time.monotonic() >= end)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not has_moment:
        if process.returncode != 1:  # some images are broken
            raise RuntimeError(f"the run failed with {process.returncode}:\n{(folder / 'log.txt').read_text()[-3000:]}")
        return "end"
    if leftovers := unfinished():
        for leftover in leftovers:  # so that the next one is seen
            leftover.unlink()
        return "writing"
    now = num_bytes(progress_dir_of(output))
    return "clearing up" if now < before else "scoring" if now > before else "start-up"


def compare(output: Path, expected: bytes, num_images: int) -> None:
    """Raise RuntimeError unless the file is the undisturbed run's, each image in one row."""
    rows = read_scores(output)
    if len(rows) != num_images or max(Counter(row.path for row in rows).values()) != 1:
        raise RuntimeError(f"{output.name}: {len(rows)} rows of {len({row.path for row in rows})} images")
    if output.read_bytes() != expected:
        raise RuntimeError(f"{output.name} differs from the undisturbed run's file")
    if progress_dir_of(output).exists():
        raise RuntimeError(f"{progress_dir_of(output)} is still there")
    print(f"{output.name}: {len(rows)} rows, equal to the undisturbed run's file byte for byte")


def kill_and_go_on(
    folder: Path,
    num_kills: int,
    num_images: int,
    seed: int,
    start_run: Callable[[Sequence[str], Path], Run] = start_script,
) -> Counter:
    """Kill so often; return how many kills hit where.

    Args:
        start_run: starts score.py with arguments and a file for what it prints.

    Raises:
        RuntimeError: a run did not end with the undisturbed run's file.
    """
    make_library(folder / "library", num_images)
    make_tiny_model().save_pretrained(folder / "tiny")
    rng, undisturbed = random.Random(seed), folder / "undisturbed.csv"
    began = time.monotonic()
    process = start(start_run, folder, undisturbed)
    wait_until(process, progress_dir_of(undisturbed).exists)
    startup = time.monotonic() - began
    process.wait()
    duration = time.monotonic() - began - startup
    expected = undisturbed.read_bytes()
    print(f"undisturbed: {len(read_scores(undisturbed))} rows in {duration:.1f} s after its start-up")
    hits, number = Counter(), 0
    while hits.total() < num_kills:
        output = folder / f"killed{number}.csv"
        in_writing, delay = rng.random() < 0.15, startup + rng.uniform(-startup / 5, duration / 2)
        hit = kill_once(start_run, folder, output, delay, in_writing)
        if hit == "end":
            compare(output, expected, num_images)
            number += 1
            continue
        hits[hit] += 1
        written = num_bytes(progress_dir_of(output))
        print(f"kill {hits.total():2}: in {hit}, {delay:5.2f} s drawn, {written} bytes of rows there, {output.name}")
    output = folder / f"killed{number}.csv"
    start(start_run, folder, output).wait()
    compare(output, expected, num_images)
    return hits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_kills", type=int, default=30)
    parser.add_argument("--num_images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    with tempfile.TemporaryDirectory() as folder:
        hits = kill_and_go_on(Path(folder), args.num_kills, args.num_images, args.seed)
    print(f"{hits.total()} kills, {hits['writing']} of them in the writing of the final file: every end equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
