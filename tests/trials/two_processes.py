"""Train the same 20 steps with one process and with two, and compare every loss and the final weights.

    python tests/trials/two_processes.py                                    # tiny backbone, float32
    python tests/trials/two_processes.py --layout r50 --dtype float64       # the [3, 4, 6, 3] layout

Batch norm statistics are frozen: on a CPU they cannot be synchronised.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from factories import make_picture, make_tiny_model

from hybridiqa.data.loading import ResidentImages
from hybridiqa.models import hub_code
from hybridiqa.training.arguments import TrainingArguments
from hybridiqa.training.trainer import Split, Trainer

NUM_STEPS = 20
BATCH_SIZE = 7  # which two processes share unevenly
BLOCKS_BATCH_SIZE = 24  # three blocks of the ranking term
NUM_PATCHES = 33  # an image and epoch, of 3 images: the epoch ends within the 20 steps, on a batch of a single patch


@dataclass(frozen=True)
class Setting:
    """Setting of a training: a layout of the backbone, in a precision, with or without the ranking term."""

    layout: str = "tiny"
    patch_size: int = 64
    dtype: str = "float32"
    ranking_weight: float = 0.0


@dataclass
class Outcome:
    num_processes: int
    losses: list[float]
    validation: dict[str, float]
    weights: dict[str, torch.Tensor]


def make_split() -> Split:
    images = [make_picture(90 + 7 * index, 80 + 5 * index, seed=index) for index in range(3)]
    pixels = [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) for image in images]
    return Split(ResidentImages.from_tensors(pixels), [1.0, 3.0, 9.0], list("abc"), list("aab"))


def make_model(layout: str, patch_size: int):
    if layout == "tiny":
        return make_tiny_model(patch_size=patch_size)
    torch.manual_seed(0)
    model_class = hub_code.HybridIQAModel
    backbone_config = ResNetConfig(depths=[3, 4, 6, 3])
    return model_class(model_class.config_class(backbone_config=backbone_config, patch_size=patch_size))


def train(setting: Setting, output_dir: Path) -> None:
    """Train as each process does; the main one writes `result.json` and `weights`."""
    accelerator = Accelerator(mixed_precision="no")
    run_steps(setting, output_dir, accelerator)
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    accelerator.end_training()


def run_steps(setting: Setting, output_dir: Path, accelerator: Accelerator) -> None:
    args = TrainingArguments(
        dataset="made here",
        output_dir=str(output_dir / "run"),
        num_epochs=4,
        num_train_patches=NUM_PATCHES,
        num_eval_patches=1,
        batch_size=BLOCKS_BATCH_SIZE if setting.ranking_weight else BATCH_SIZE,
        ranking_weight=setting.ranking_weight,
        max_steps=NUM_STEPS,
        logging_steps=1,
        freeze_batch_norm=True,
        learning_rate=1e-5,
        max_grad_norm=100.0,
    )
    model = make_model(setting.layout, setting.patch_size).to(getattr(torch, setting.dtype))
    model.image_processor.num_patches = 1
    (output_dir / "run").mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args, model, make_split(), make_split(), accelerator, output_dir / "run" / "checkpoints")
    progress = trainer.fit()
    if accelerator.is_main_process:
        save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, output_dir / "weights")
        result = {
            "num_processes": accelerator.num_processes,
            "losses": [loss for _, loss in progress.losses],
            "validation": progress.history[-1]["validation"],
        }
        (output_dir / "result.json").write_text(json.dumps(result))


def read_outcome(output_dir: Path) -> Outcome:
    result = json.loads((output_dir / "result.json").read_text())
    return Outcome(**result, weights=load_file(output_dir / "weights"))


def train_here(setting: Setting) -> Outcome:
    """Train the steps in this process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    num_threads, is_cpu = torch.get_num_threads(), os.environ.get("ACCELERATE_USE_CPU")
    torch.set_num_threads(1)
    os.environ["ACCELERATE_USE_CPU"] = "true"
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(setting, Path(folder))
            return read_outcome(Path(folder))
    finally:
        torch.set_num_threads(num_threads)
        os.environ.pop("ACCELERATE_USE_CPU")
        os.environ |= {"ACCELERATE_USE_CPU": is_cpu} if is_cpu else {}


def train_in_two(setting: Setting) -> Outcome:
    """Train the steps in two processes of a launcher.

    Raises:
        RuntimeError: one of them failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        command += ["--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", __file__]
        for field, value in asdict(setting).items():
            command += [f"--{field}", str(value)]
        environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, "--worker", folder], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"two processes failed:\n{done.stderr[-3000:]}")
        return read_outcome(Path(folder))


def compare(one: Outcome, two: Outcome) -> tuple[float, float]:
    """Return the largest difference of the losses, and of the weights."""
    losses = max(abs(a - b) for a, b in zip(one.losses, two.losses, strict=True))
    weights = max(float((one.weights[name] - two.weights[name]).abs().max()) for name in one.weights)
    return losses, weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=["tiny", "r50"], default="tiny")
    parser.add_argument("--patch_size", type=int, default=64)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--ranking_weight", type=float, default=0.0)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    setting = Setting(args.layout, args.patch_size, args.dtype, args.ranking_weight)
    if args.worker:
        torch.set_num_threads(1)
        train(setting, args.worker)
        return 0
    one, two = train_here(setting), train_in_two(setting)
    print(f"num_processes == {one.num_processes} and num_processes == {two.num_processes}")
    print("step  one process        two processes      difference")
    for step, (first, second) in enumerate(zip(one.losses, two.losses, strict=True), start=1):
        print(f"{step:4}  {first:.14f}  {second:.14f}  {second - first:+.1e}")
    losses, weights = compare(one, two)
    print(f"largest difference of a loss {losses:.1e}, of a weight {weights:.1e}")
    print(f"validation {one.validation} and {two.validation}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
