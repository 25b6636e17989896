"""Several processes share the work of score.py and leave the file that one leaves."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import load_dataset
from factories import make_split
from forked_scoring import start_group
from trials.kill_scoring import make_library

from hybridiqa.commands import score
from hybridiqa.scores.score_file import read_scores
from hybridiqa.utils.root import ROOT

LAUNCHER = ("-m", "torch.distributed.run", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0")
Run = Callable[..., tuple[str, list[int]]]  # number of processes, arguments -> what was printed, exit statuses


def run_forked(num_processes: int, *arguments: str | Path, log: Path) -> tuple[str, list[int]]:
    """Score in processes that know each other as a launcher's do."""
    runs = start_group(num_processes, arguments, log)
    for run in runs:
        run.wait()
    return log.read_text(), [run.returncode for run in runs]


def run_launched(num_processes: int, *arguments: str | Path, log: Path) -> tuple[str, list[int]]:
    """Score by the launcher that accelerate uses, or without one."""
    launcher = [*LAUNCHER, "--nproc_per_node", str(num_processes)] if num_processes > 1 else []
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, str(ROOT / "score.py"), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr, [done.returncode]


@pytest.fixture(params=[run_forked, pytest.param(run_launched, marks=pytest.mark.slow)])
def run(request, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("logs")
    return lambda number, *arguments: request.param(number, *arguments, log=folder / f"{number}.txt")


def test_two_processes_give_the_rows_of_one(run, tmp_path, tiny_checkpoint):
    make_library(tmp_path / "library", num_images=49)  # an odd number: the shares differ
    outputs = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for output, num_processes in zip(outputs, (1, 2), strict=True):
        printed, statuses = run(num_processes, tmp_path / "library", "--model", tiny_checkpoint, "--output", output)
        expected_status = 1 if num_processes == 1 else 0
        assert "failed, " in printed and set(statuses) == {expected_status}, printed[-3000:]
        assert printed.count("broken0.png") == 1  # the main process alone speaks
    assert "7 failed" in printed
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert len(read_scores(outputs[0])) == 49
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library", "one.csv", "two.csv"]


def test_two_processes_share_a_stream(run, tmp_path, tiny_checkpoint):
    (tmp_path / "rows").mkdir()
    for number in range(2):
        make_split(10 * number, 5).to_parquet(tmp_path / "rows" / f"train-{number}.parquet")
    options = ["--image_column", "picture", "--model", tiny_checkpoint, "--streaming"]
    for num_processes in (1, 2):
        printed, _ = run(
            num_processes, "--dataset", tmp_path / "rows", "--output", tmp_path / f"{num_processes}", *options
        )
        assert "8 scored, 2 failed" in printed, printed[-3000:]
    one, two = (
        load_dataset(str(tmp_path / name), cache_dir=str(tmp_path / "cache"), split="train").sort("name")
        for name in ("1", "2")
    )
    assert one["name"][:] == two["name"][:] and one["score"][:] == two["score"][:]
    assert len(list((tmp_path / "2" / "data").iterdir())) == 2


def test_several_processes_need_a_file(tmp_path, tiny_checkpoint, monkeypatch, capsys):
    make_library(tmp_path / "library", num_images=9)
    monkeypatch.setattr(score, "Processes", lambda device: SimpleNamespace(index=0, count=2, device="cpu"))
    assert score.main([str(tmp_path / "library"), "--model", tiny_checkpoint]) == 2
    assert "several processes need --output, where their scores come together" in capsys.readouterr().err
