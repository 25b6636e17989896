"""Training beside the published one: from images to batches, and from a batch to an update."""

from __future__ import annotations

import gc
import math
import statistics
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig

from hybridiqa.benchmarks.options import DEPTHS
from hybridiqa.benchmarks.published import PATCH_SIZE, PublishedPatches, PublishedTrainer, build_loader, move_batch
from hybridiqa.benchmarks.timing import Measured, Row, make_images, memory_row, speed_row, take_turns, time_call
from hybridiqa.data.loading import ResidentImages
from hybridiqa.models import hub_code
from hybridiqa.training.arguments import TrainingArguments
from hybridiqa.training.model import build_optimizer, total_gradient_norm
from hybridiqa.training.patches import PatchOptions, RandomPatches
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.memory import freed_memory_kept

PRECISIONS = {"fp32": "no", "bf16": "bf16"}  # in a row's name, and for accelerate
NUM_WARM_UPS = 3  # the first step makes the optimiser's state, the others find the memory that later ones reuse
NUM_PATCHES = 400  # an image and epoch, the published number
MATMUL_SIZE = 8192


def our_batches(patches: RandomPatches, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield an epoch's batches, drawn as training draws them."""
    order = patches.blocks.order(epoch=0)
    for start in range(0, len(order), batch_size):
        yield patches.batch(0, order[start : start + batch_size])


def published_batches(
    patches: PublishedPatches, batch_size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield an epoch's batches, as the published loop gets them."""
    for batch in build_loader(patches, batch_size):
        yield move_batch(batch, device)


class InputPipelines:
    """Both ways from the same images to batches; all images are in memory before the first batch.

    Args:
        num_images, image_size: how many images, and their side in pixels.
        num_batches, batch_size: what an epoch must have at least, so that no measured batch is a shorter, last one.
        device: where images and batches lie.
    """

    def __init__(self, num_images: int, image_size: int, num_batches: int, batch_size: int, device: torch.device):
        self.batch_size, self.device = batch_size, device
        num_patches = max(NUM_PATCHES, math.ceil(num_batches * batch_size / num_images))
        images = make_images(num_images, image_size)
        scores = np.linspace(1, 9, num_images).tolist()
        arrays = [image.permute(1, 2, 0).numpy() for image in images]
        self.published = PublishedPatches(arrays, scores, num_patches, device)
        for index in range(num_images):
            self.published[index * num_patches]  # the first access fills the cache
        normalize = hub_code.HybridIQAImageProcessor().normalize_patches
        resident = ResidentImages.from_tensors(images, device)
        self.ours = RandomPatches(resident, scores, num_patches, PatchOptions(PATCH_SIZE), normalize)

    def compare_speed(self, num_rounds: int) -> Row:
        """Compare the patches/s of both."""
        ours = our_batches(self.ours, self.batch_size)
        reference = published_batches(self.published, self.batch_size, self.device)
        next(ours), next(reference)
        rounds = take_turns([lambda: next(ours), lambda: next(reference)], num_rounds, self.device)
        return speed_row("input_pipeline", "patches/s", self.batch_size, rounds)

    def compare_memory(self) -> Row:
        """Compare the bytes an image of both."""
        num_images = len(self.ours.images)
        ours, reference = self.ours.images.num_bytes / num_images, self.published.num_bytes / num_images
        return memory_row("input_memory", "bytes/image", ours, reference)

    def time_our_batches(self, batch_size: int, num_rounds: int) -> float:
        """Return the median time of one of our batches of another size."""
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
        model_class = hub_code.HybridIQAModel
        model = model_class(model_class.config_class(backbone_config=ResNetConfig(depths=depths))).train()
        model.to(accelerator.device, memory_format=torch.channels_last)
        # No `TrainingArguments`, which looks for the output folder.
        defaults: Any = SimpleNamespace(**{option.name: option.default for option in fields(TrainingArguments)})
        optimizer = build_optimizer(model, defaults)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def step(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> None:
        """Do one update, from `(batch, 3, 224, 224)`, channels last, and `(batch,)` on the device."""
        loss = self.model(pixel_values, labels).loss
        self.accelerator.backward(loss)
        total_gradient_norm(self.model)  # which training looks at
        self.optimizer.step()
        self.optimizer.zero_grad()


@contextmanager
def fresh_accelerator(precision: str, device: torch.device) -> Iterator[Accelerator]:
    """Make an accelerator of that precision; accelerate allows a process one precision, unless its state is reset."""
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
    """Compare the whole training step of both, on a batch that is there: ours in a precision, theirs in float32.

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
        rounds = take_turns([ours, reference], num_rounds, device)
        rows = [speed_row(f"train_step_{precision}", "steps/s", 1, rounds)]
        if device.type != "cuda":
            return rows, 0
        with FlopCounterMode(display=False) as counter:
            ours()
    rows.append(memory_row(f"train_memory_{precision}", "bytes", our_bytes, reference_bytes))
    return rows, counter.get_total_flops()


def measure_matmul_rate(device: torch.device) -> float:
    """Measure FLOP/s of bfloat16 matrix products of 8192 x 8192, the most that the device can be expected to reach."""
    matrix = torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=device, dtype=torch.bfloat16)
    num_products, num_timings = 20, 5

    def multiply() -> None:
        for _ in range(num_products):
            matrix @ matrix

    multiply()
    seconds = statistics.median(time_call(multiply, device) for _ in range(num_timings))
    return num_products * 2 * MATMUL_SIZE**3 / seconds


def measure_training(args: Namespace) -> Measured:
    """Return the rows of `benchmark.py training`, and what else is worth knowing."""
    device = choose_device(args.device)
    with freed_memory_kept(device.type == "cpu"):  # as train.py does; both sides have it
        return _measure_training(args, device)


def _measure_training(args: Namespace, device: torch.device) -> Measured:
    batch_size = args.batch_size
    inputs = InputPipelines(
        args.num_images, args.image_size, args.rounds + 1, max(args.input_batch_size, batch_size), device
    )
    inputs.batch_size = args.input_batch_size
    rows = [inputs.compare_speed(args.rounds), inputs.compare_memory()]
    input_seconds = inputs.time_our_batches(batch_size, args.rounds)
    del inputs
    facts: dict[str, float] = {}
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
    return Measured(facts, rows)
