"""Many sessions of the page at once, whose answers are compared with those of `score.py`; speed and memory beside it.

    python tests/trials/page_clients.py --num_clients 20 --num_images 200

All images are different; each client brings its share of them in one call. What is printed: how many answers differ,
images/s of the page and of `score.py` on the same images, and the largest memory of both.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from factories import make_picture
from page_server import page_server

from hybridiqa.scores.score_file import read_scores
from hybridiqa.utils.root import ROOT


def make_images(folder: Path, num_images: int, side: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:04d}.png" for number in range(num_images)]
    for number, path in enumerate(paths):
        make_picture(side, side - number % 7, seed=number).save(path)
    return paths


class Memory:
    """Largest resident memory (bytes) of a process while the block lasts, read every 50 ms."""

    def __init__(self, pid: int):
        self.pid, self.largest, self.is_over = pid, 0, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join()

    def now(self) -> int:
        status = Path(f"/proc/{self.pid}/status")
        found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
        return int(found[1]) * 1024 if found else 0

    def _watch(self) -> None:
        while not self.is_over.wait(0.05):
            self.largest = max(self.largest, self.now())


def score_by_script(images: Path, output: Path, model: str) -> tuple[dict[str, float], float]:
    """Return scores by name, and images/s as `score.py` says it."""
    command = [sys.executable, str(ROOT / "score.py"), str(images), "--model", model, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {Path(row.path).name: row.score for row in read_scores(output)}, float(
        re.search(r"([\d.]+) images/s", done.stderr)[1]
    )


def score_by_clients(address: str, shares: list[list[Path]]) -> tuple[list[dict[str, float]], float]:
    """Return what each client got, and images/s from the first call to the last answer."""
    from gradio_client import Client, handle_file

    def ask(client: Client, paths: list[Path]) -> dict[str, float]:
        rows = client.predict([handle_file(str(path)) for path in paths], api_name="/score")
        return {row["name"]: row["score"] for row in rows}

    with ThreadPoolExecutor(len(shares)) as pool:
        clients = list(pool.map(lambda _: Client(address, verbose=False), shares))
        started = time.monotonic()
        answers = list(pool.map(ask, clients, shares))
        seconds = time.monotonic() - started
        list(pool.map(Client.close, clients))  # each waits for a thread of its own
    return answers, sum(map(len, shares)) / seconds


def count_wrong(answers: list[dict[str, float]], shares: list[list[Path]], expected: dict[str, float]) -> int:
    """Count the clients whose answer is not the scores of their images."""
    return sum(
        answer != {path.name: expected[path.name] for path in share}
        for answer, share in zip(answers, shares, strict=True)
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_clients", type=int, default=20)
    parser.add_argument("--num_images", type=int, default=200)
    parser.add_argument("--side", type=int, default=768, help="of an image, in pixels (default 768)")
    parser.add_argument("--model", default=str(ROOT), help="default: the embedded checkpoint")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_images(Path(folder, "images"), args.num_images, args.side)
        expected, script_speed = score_by_script(Path(folder, "images"), Path(folder, "scores.csv"), args.model)
        with page_server(Path(folder), "--model", args.model) as page, Memory(page.process.pid) as memory:
            before = memory.now()
            shares = [paths[index :: args.num_clients] for index in range(args.num_clients)]
            answers, speed = score_by_clients(page.address, shares)
    num_wrong = count_wrong(answers, shares, expected)
    print(f"{args.num_clients} clients, {args.num_images} images of {args.side} px: {num_wrong} wrong answers")
    print(f"images/s: page {speed:.2f}, score.py {script_speed:.2f}")
    print(f"memory of the page: {before / 2**20:.0f} MB before, {memory.largest / 2**20:.0f} MB at most")
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
