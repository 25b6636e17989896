"""Two processes train the model that one does; see `two_processes.py` for the steps and the table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from factories import make_tiny_model
from trials.kill_and_resume import TRAIN, make_dataset
from trials.two_processes import NUM_STEPS, Setting, compare, train_here, train_in_two

from hybridiqa.commands.train import main


@pytest.mark.parametrize(
    ("setting", "tolerance"),
    [  # Lion's sign turns float noise into steps.
        (Setting(dtype="float64", ranking_weight=1), 1e-9),
        pytest.param(Setting(dtype="float32"), 1e-4, marks=pytest.mark.slow),
        pytest.param(Setting("r50", dtype="float64"), 1e-9, marks=pytest.mark.slow),
    ],
    ids=["tiny float64 ranking", "tiny float32", "r50 float64"],
)
def test_two_processes_train_as_one(setting, tolerance):
    one, two = train_here(setting), train_in_two(setting)
    assert (one.num_processes, two.num_processes) == (1, 2)
    assert len(one.losses) == len(two.losses) == NUM_STEPS
    assert len(set(one.losses)) == NUM_STEPS  # it did train
    losses, weights = compare(one, two)
    assert losses < tolerance and weights < tolerance
    assert one.validation == pytest.approx(two.validation, abs=tolerance, nan_ok=True)


def repeat_options(folder: Path, output_dir: Path) -> list[str]:
    options = ["--dataset", str(folder / "prepared"), "--output_dir", str(output_dir), "--config"]
    options += [str(folder / "config"), "--from_scratch", "--freeze_batch_norm", "--mixed_precision", "no"]
    options += ["--num_train_patches", "4", "--num_eval_patches", "1", "--batch_size", "6", "--num_epochs", "1"]
    return [*options, "--num_resamples", "20", "--num_repeats", "2"]


@pytest.mark.slow  # one run of two processes is stopped and goes on in test_checkpoints.py
def test_the_command_runs_and_repeats_in_two_processes(tmp_path, monkeypatch):
    make_dataset(tmp_path / "prepared")
    make_tiny_model().config.save_pretrained(tmp_path / "config")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert main(repeat_options(tmp_path, tmp_path / "one")) == 0
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    command = [sys.executable, *launcher, "--rdzv_endpoint", "localhost:0", TRAIN]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command += repeat_options(tmp_path, tmp_path / "two")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("processes: 2 on cpu") == 2  # once a repeat, by the main process alone
    one, two = (json.loads((tmp_path / name / "repeats.json").read_text()) for name in ("one", "two"))
    for first, second in zip(one["repeats"], two["repeats"], strict=True):
        assert first == pytest.approx(second, abs=1e-4, nan_ok=True)
