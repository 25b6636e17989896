"""Several processes share the work of score.py and leave the file that one leaves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset
from factories import make_split
from trials.kill_scoring import make_library

from hybridiqa.scores.score_file import read_scores
from hybridiqa.utils.root import ROOT

LAUNCHER = ("-m", "torch.distributed.run", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0")


def run_door(num_processes: int, *arguments: str | Path) -> subprocess.CompletedProcess:
    launcher = [*LAUNCHER, "--nproc_per_node", str(num_processes)] if num_processes > 1 else []
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, str(ROOT / "score.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(tmp_path, tiny_checkpoint):
    make_library(tmp_path / "library", num_images=49)  # an odd number: the shares differ
    outputs = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for output, num_processes in zip(outputs, (1, 2), strict=True):
        done = run_door(num_processes, tmp_path / "library", "--model", tiny_checkpoint, "--output", output)
        assert "failed, " in done.stderr and done.returncode == (1 if num_processes == 1 else 0), done.stderr[-3000:]
        assert done.stdout.count("broken0.png") == 1  # the main process alone speaks
    assert "7 failed" in done.stderr
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert len(read_scores(outputs[0])) == 49
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library", "one.csv", "two.csv"]


@pytest.mark.slow
def test_two_processes_share_a_stream(tmp_path, tiny_checkpoint):
    (tmp_path / "rows").mkdir()
    for number in range(2):
        make_split(10 * number, 5).to_parquet(tmp_path / "rows" / f"train-{number}.parquet")
    options = ["--image_column", "picture", "--model", tiny_checkpoint, "--streaming"]
    for num_processes in (1, 2):
        done = run_door(
            num_processes, "--dataset", tmp_path / "rows", "--output", tmp_path / f"{num_processes}", *options
        )
        assert "8 scored, 2 failed" in done.stderr, done.stderr[-3000:]
    one, two = (
        load_dataset(str(tmp_path / name), cache_dir=str(tmp_path / "cache"), split="train").sort("name")
        for name in ("1", "2")
    )
    assert one["name"][:] == two["name"][:] and one["score"][:] == two["score"][:]
    assert len(list((tmp_path / "2" / "data").iterdir())) == 2


@pytest.mark.slow
def test_several_processes_need_a_file(tmp_path, tiny_checkpoint):
    make_library(tmp_path / "library", num_images=9)
    done = run_door(2, tmp_path / "library", "--model", tiny_checkpoint)
    assert done.returncode != 0
    assert "several processes need --output, where their scores come together" in done.stderr
