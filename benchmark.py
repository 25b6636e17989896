"""Measure this repository beside the published system, both in one run.

    python benchmark.py training
    python benchmark.py training --layout r152 --batch_size 128 --json training.json

Both sides take turns, round by round. A row shows the round whose ratio is the median of all, so that what else the
machine does falls on both sides alike and the row's numbers belong together. A ratio above 1 means that ours is better.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig

from hybridiqa.loading import ROOT, choose_device, hub_class, silence_libraries
from hybridiqa.memory import keep_freed_memory
from hybridiqa.model_building import build_optimizer, total_gradient_norm
from hybridiqa.patch_sampling import PatchOptions, RandomPatches
from hybridiqa.published_training import PATCH_SIZE, PublishedPatches, PublishedTrainer, build_loader, to_device
from hybridiqa.resident_images import ResidentImages
from hybridiqa.training_arguments import TrainingArguments
from hybridiqa.versions import library_versions

DEPTHS = {"r50": [3, 4, 6, 3], "r152": [3, 8, 36, 3]}  # r50: what the published code builds
PRECISIONS = {"fp32": "no", "bf16": "bf16"}  # in a row's name, and for accelerate
DEFAULT_BATCH_SIZES = {"cpu": 8, "cuda": 300}  # 300: the published one
NUM_WARM_UPS = 3  # the first step makes the optimiser's state, the others find the memory that later ones reuse
NUM_PATCHES = 400  # an image and epoch, the published number
MATMUL_SIZE = 8192


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


def take_turns(
    ours: Callable[[], object], reference: Callable[[], object], num_rounds: int, device: torch.device
) -> list[tuple[float, float]]:
    """Seconds of both, round by round; who begins changes with every round."""
    rounds = []
    for index in range(num_rounds):
        if index % 2 == 0:
            our_seconds = time_call(ours, device)
            rounds.append((our_seconds, time_call(reference, device)))
        else:
            reference_seconds = time_call(reference, device)
            rounds.append((time_call(ours, device), reference_seconds))
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


def make_pictures(num_images: int, size: int, seed: int = 0) -> list[torch.Tensor]:
    """uint8 `(3, size, size)` RGB: smooth coloured structure with a little grain, decided by the seed."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for _ in range(num_images):
        coarse = 255 * torch.rand(1, 3, 9, 9, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0]
        grain = 6 * torch.randn(3, size, size, generator=generator)
        pictures.append((smooth + grain).clamp(0, 255).to(torch.uint8))
    return pictures


def our_batches(patches: RandomPatches, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """An epoch's batches, drawn as training draws them."""
    order = patches.order(epoch=0)
    for start in range(0, len(order), batch_size):
        yield patches.batch(0, order[start : start + batch_size])


def published_batches(
    patches: PublishedPatches, batch_size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """An epoch's batches, as the published loop gets them."""
    for batch in build_loader(patches, batch_size):
        yield to_device(batch, device)


class InputPipelines:
    """Both ways from the same pictures to batches; all pictures are in memory before the first batch.

    Args:
        num_images, image_size: how many pictures, and their side in pixels.
        num_batches, batch_size: what an epoch must have at least, so that no measured batch is a shorter, last one.
        device: where pictures and batches lie.
    """

    def __init__(self, num_images: int, image_size: int, num_batches: int, batch_size: int, device: torch.device):
        self.batch_size, self.device = batch_size, device
        num_patches = max(NUM_PATCHES, math.ceil(num_batches * batch_size / num_images))
        pictures = make_pictures(num_images, image_size)
        scores = np.linspace(1, 9, num_images)
        arrays = [picture.permute(1, 2, 0).numpy() for picture in pictures]
        self.published = PublishedPatches(arrays, scores, num_patches, device)
        for index in range(num_images):
            self.published[index * num_patches]  # the first access fills the cache
        normalize = hub_class("image_processing_hybridiqa.HybridIQAImageProcessor")().normalize_patches
        images = ResidentImages.from_tensors(pictures, device)
        self.ours = RandomPatches(images, scores, num_patches, PatchOptions(PATCH_SIZE), normalize)

    def compare_speed(self, num_rounds: int) -> Row:
        """patches/s of both."""
        ours = our_batches(self.ours, self.batch_size)
        reference = published_batches(self.published, self.batch_size, self.device)
        next(ours), next(reference)
        rounds = take_turns(lambda: next(ours), lambda: next(reference), num_rounds, self.device)
        return speed_row("input_pipeline", "patches/s", self.batch_size, rounds)

    def compare_memory(self) -> Row:
        """Bytes an image of both."""
        num_images = len(self.ours.images)
        ours, reference = self.ours.images.num_bytes / num_images, self.published.num_bytes / num_images
        return memory_row("input_memory", "bytes/image", ours, reference)

    def our_seconds(self, batch_size: int, num_rounds: int) -> float:
        """Median time of one of our batches of another size."""
        batches = our_batches(self.ours, min(batch_size, self.batch_size))
        next(batches)
        return statistics.median(time_call(lambda: next(batches), self.device) for _ in range(num_rounds))


class OurTrainer:
    """Model, optimiser and accelerator as `train.py` puts them together, with random weights.

    Args:
        depths: blocks of the backbone's four stages.
        accelerator: decides device and precision.
    """

    def __init__(self, depths: list[int], accelerator: Accelerator):
        self.accelerator = accelerator
        model_class = hub_class("modeling_hybridiqa.HybridIQAModel")
        model = model_class(model_class.config_class(backbone_config=ResNetConfig(depths=depths))).train()
        model.to(accelerator.device, memory_format=torch.channels_last)
        defaults = SimpleNamespace(**{option.name: option.default for option in fields(TrainingArguments)})
        optimizer = build_optimizer(model, defaults)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def step(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> None:
        """One update, from `(batch, 3, 224, 224)`, channels last, and `(batch,)` on the device."""
        loss = self.model(pixel_values, labels).loss
        self.accelerator.backward(loss)
        total_gradient_norm(self.model)  # which training looks at
        self.optimizer.step()
        self.optimizer.zero_grad()


@contextmanager
def fresh_accelerator(precision: str, device: torch.device) -> Iterator[Accelerator]:
    """An accelerator of that precision; accelerate allows a process one precision, unless its state is reset."""
    AcceleratorState._reset_state(reset_partial_state=True)
    gc.collect()  # a prepared model refers to itself: the one before would keep its memory
    try:
        yield Accelerator(cpu=device.type == "cpu", mixed_precision=PRECISIONS[precision])
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def warm_up(build_step: Callable[[], Callable[[], None]], device: torch.device) -> tuple[Callable[[], None], int]:
    """Build a side's step and call it, while the other side rests.

    Returns:
        The step, and the bytes that it took at most on a GPU, with its weights (0 on other devices).
    """
    if device.type != "cuda":
        before, peak = 0, lambda: 0
    else:
        before, peak = torch.cuda.memory_allocated(device), lambda: torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    step = build_step()
    for _ in range(NUM_WARM_UPS):
        step()
    return step, peak() - before


def compare_training(
    precision: str, depths: list[int], batch_size: int, num_rounds: int, device: torch.device
) -> tuple[list[Row], int]:
    """The whole training step of both, on a batch that is there: ours in a precision, the published in float32.

    Returns:
        Rows of speed and, on a GPU, memory; and the floating-point operations of our step, 0 on other devices.
    """
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.randn(batch_size, 3, PATCH_SIZE, PATCH_SIZE, generator=generator).to(device)
    labels = torch.linspace(1, 9, batch_size, device=device)
    with fresh_accelerator(precision, device) as accelerator:
        channels_last = pixel_values.contiguous(memory_format=torch.channels_last)
        ours, our_bytes = warm_up(lambda: partial(OurTrainer(depths, accelerator).step, channels_last, labels), device)
        reference, reference_bytes = warm_up(
            lambda: partial(PublishedTrainer(depths, device).step, pixel_values, labels), device
        )
        rounds = take_turns(ours, reference, num_rounds, device)
        rows = [speed_row(f"train_step_{precision}", "steps/s", 1, rounds)]
        if device.type != "cuda":
            return rows, 0
        with FlopCounterMode(display=False) as counter:
            ours()
    rows.append(memory_row(f"train_memory_{precision}", "bytes", our_bytes, reference_bytes))
    return rows, counter.get_total_flops()


def measure_matmul_rate(device: torch.device) -> float:
    """FLOP/s of bfloat16 matrix products of 8192 x 8192, the most that the device can be expected to reach."""
    matrix = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device, dtype=torch.bfloat16)
    num_products, num_timings = 20, 5

    def multiply() -> None:
        for _ in range(num_products):
            matrix @ matrix

    multiply()
    seconds = statistics.median(time_call(multiply, device) for _ in range(num_timings))
    return num_products * 2 * MATMUL_SIZE**3 / seconds


def measure_training(args: argparse.Namespace) -> tuple[list[Row], dict[str, float]]:
    """The rows of `benchmark.py training`, and what else is worth knowing, by name."""
    device = choose_device(args.device)
    if device.type == "cpu":
        keep_freed_memory()  # as train.py does; both sides have it
    batch_size = args.batch_size or DEFAULT_BATCH_SIZES[device.type]
    inputs = InputPipelines(
        args.num_images, args.image_size, args.rounds + 1, max(args.input_batch_size, batch_size), device
    )
    inputs.batch_size = args.input_batch_size
    rows = [inputs.compare_speed(args.rounds), inputs.compare_memory()]
    input_seconds = inputs.our_seconds(batch_size, args.rounds)
    del inputs
    facts = {}
    matmul_rate = measure_matmul_rate(device) if device.type == "cuda" else None
    for precision in PRECISIONS:
        step_rows, num_operations = compare_training(precision, DEPTHS[args.layout], batch_size, args.rounds, device)
        rows += step_rows
        facts[f"input_share_of_step_{precision}"] = input_seconds * step_rows[0].ours
        if matmul_rate:
            rate = num_operations * step_rows[0].ours
            facts |= {f"tflops_{precision}": rate / 1e12, f"share_of_matmul_rate_{precision}": rate / matmul_rate}
    if matmul_rate:
        facts["matmul_tflops_bf16"] = matmul_rate / 1e12
    return rows, facts


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit_hash() -> str | None:
    """The short hash of the checkout's commit; None outside a checkout."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def build_report(rows: list[Row], facts: dict[str, float], device: torch.device) -> dict:
    """What `--json` holds, for every command."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": [asdict(row) for row in rows],
        "facts": facts | {"peak_rss_bytes": peak if sys.platform == "darwin" else 1024 * peak},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
        "commit": commit_hash(),
    }


def print_report(report: dict) -> None:
    """The rows as a table, then all else."""
    print(f"{'':22}{'ours':>14}{'reference':>14}{'ratio':>8}  unit")
    for row in report["rows"]:
        print(f"{row['name']:22}{row['ours']:14,.6g}{row['reference']:14,.6g}{row['ratio']:8.2f}  {row['unit']}")
    print(f"\nmedian of {max(row['rounds'] for row in report['rows'])} rounds; ratio above 1: ours is better")
    for name, value in report["facts"].items():
        print(f"{name:32}{value:,.4g}")
    print(f"{report['device']}, {report['threads']} threads, commit {report['commit']}")
    print(", ".join(f"{name} {number}" for name, number in report["versions"].items()))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="a new file for the numbers")
    common.add_argument("--device", choices=DEFAULT_BATCH_SIZES, help="default: cuda, else cpu")
    common.add_argument("--threads", type=int, help="of the processor, for both sides (default: torch's own number)")
    common.add_argument("--rounds", type=int, default=9, help="turns of both sides (default 9)")
    training = commands.add_parser("training", parents=[common], help="input pipeline and training step")
    training.add_argument("--layout", choices=DEPTHS, default="r50", help="of the backbone (default r50)")
    training.add_argument("--batch_size", type=int, help="patches a training step (default 8 on a CPU, else 300)")
    training.add_argument("--input_batch_size", type=int, default=300, help="patches an input batch (default 300)")
    training.add_argument("--image_size", type=int, default=1024, help="side of the pictures, in pixels (default 1024)")
    training.add_argument("--num_images", type=int, default=32, help="pictures in memory (default 32)")
    training.set_defaults(measure=measure_training)
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for what cannot be measured."""
    if args.device is None:
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, value in vars(args).items():
        least = 2 if name == "batch_size" else 1  # the published step needs a batch that squeeze leaves a dimension
        if isinstance(value, int) and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    if args.json and (args.json.exists() or not args.json.absolute().parent.is_dir()):
        raise ValueError(f"--json must be a new file in a folder that is there, got {args.json}")


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    silence_libraries()
    try:
        check_arguments(args)
        device = choose_device(args.device)
        torch.set_num_threads(args.threads or torch.get_num_threads())
        report = build_report(*args.measure(args), device)
        print_report(report)
        if args.json:
            args.json.write_text(json.dumps(report, indent=2) + "\n")
    except (ValueError, OSError) as error:
        print(f"benchmark.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
