"""Two processes train the model that one does; see `two_processes.py` for the steps and the table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_tiny_model
from trials.kill_and_resume import TRAIN, make_dataset
from trials.two_processes import NUM_STEPS, compare, launch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "dtype", "ranking_weight", "tolerance"),
    # Lion's sign turns float noise into steps.
    [("tiny", "float32", 0, 1e-4), ("tiny", "float64", 1, 1e-9), ("r50", "float64", 0, 1e-9)],
)
def test_two_processes_train_as_one(layout, dtype, ranking_weight, tolerance):
    one, two = (launch(number, layout, 64, dtype, ranking_weight) for number in (1, 2))
    assert (one.num_processes, two.num_processes) == (1, 2)
    assert len(one.losses) == len(two.losses) == NUM_STEPS
    assert len(set(one.losses)) == NUM_STEPS  # it did train
    losses, weights = compare(one, two)
    assert losses < tolerance and weights < tolerance
    assert one.validation == pytest.approx(two.validation, abs=tolerance, nan_ok=True)


def run_door(folder: Path, output_dir: Path, *launcher: str) -> str:
    """Two repeats of train.py, whose messages are returned."""
    command = [sys.executable, *launcher, TRAIN, "--dataset", str(folder / "prepared"), "--output_dir", str(output_dir)]
    command += ["--config", str(folder / "config"), "--from_scratch", "--freeze_batch_norm", "--mixed_precision", "no"]
    command += ["--num_train_patches", "4", "--num_eval_patches", "1", "--batch_size", "6", "--num_epochs", "1"]
    command += ["--num_resamples", "20"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, "--num_repeats", "2"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.slow
def test_the_door_runs_and_repeats_in_two_processes(tmp_path):
    make_dataset(tmp_path / "prepared")
    make_tiny_model().config.save_pretrained(tmp_path / "config")
    run_door(tmp_path, tmp_path / "one")
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d")
    messages = run_door(tmp_path, tmp_path / "two", *launcher, "--rdzv_endpoint", "localhost:0")
    assert messages.count("processes: 2 on cpu") == 2  # once a repeat, by the main process alone
    one, two = (json.loads((tmp_path / name / "repeats.json").read_text()) for name in ("one", "two"))
    for first, second in zip(one["repeats"], two["repeats"], strict=True):
        assert first == pytest.approx(second, abs=1e-4, nan_ok=True)
