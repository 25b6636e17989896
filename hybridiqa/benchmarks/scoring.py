"""Scoring speed beside the published demo, from a PNG file to its score, and precision beside float32."""

from __future__ import annotations

import importlib
import logging
import tempfile
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hybridiqa.benchmarks.options import DEPTHS
from hybridiqa.benchmarks.published import (
    PublishedHyperNetwork,
    build_seeded_network,
    compute_published_score,
    compute_published_score_in_one_batch,
)
from hybridiqa.benchmarks.timing import Measured, Row, make_images, speed_row, take_turns
from hybridiqa.inference.engine import Engine, load_engine
from hybridiqa.inference.onnx_export import (
    choose_evenly,
    describe_float,
    describe_int8,
    export_network,
    quantize_backbone,
    serialize,
)
from hybridiqa.inference.scoring import find_images
from hybridiqa.models import hub_code
from hybridiqa.models.hyperiqa_weights import build_model
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.libraries import import_optional
from hybridiqa.utils.root import ROOT
from metrics.iqa.iqa import compute_metrics

SCORE_RANGE = [1.0, 9.0]
NUM_CALIBRATION_IMAGES = 4  # random weights rank nothing: only the speed of int8 is of interest
ONNX_ROWS = {  # engine and dtype of every row that needs an .onnx file
    "onnxruntime_fp32": ("onnxruntime", "float32"),
    "openvino_fp32": ("openvino", "float32"),
    "openvino_bf16": ("openvino", "bfloat16"),
    "openvino_int8": ("openvino", "int8"),
}
PYIQA_NETWORKS = {"r50": "resnet50", "r152": "resnet152"}

logger = logging.getLogger(__name__)


def compute_our_score(engine: Engine, path: Path, **options: Any) -> float:
    """Score one image as `score.py` does; the options are `extract_patches`'s."""
    image_processor: Any = engine.image_processor
    patches = image_processor.extract_patches(hub_code.load_image(path), **options)
    return engine.score_patches(patches.unsqueeze(0)).scores.item()


def load_onnx_engines(model: PreTrainedModel, folder: Path) -> dict[str, Engine]:
    """Load what reads .onnx files, by row, of the libraries that are installed; report what is missing.

    Args:
        model: not yet prepared for scoring.
        folder: for the files.
    """
    try:
        onnx = import_optional("onnx")
        image_processor: Any = model.image_processor  # which the class of all models does not declare
        export_network(model, str(folder / "network.onnx"))
        network, description = onnx.load(str(folder / "network.onnx")), describe_float(model)
        (folder / "float.onnx").write_bytes(serialize(network, description))
    except ValueError as error:
        logger.warning("no rows of ONNX engines: %s", error)
        return {}
    engines = {}
    for name, (engine, dtype) in ONNX_ROWS.items():
        try:
            if dtype == "int8":
                images = make_images(NUM_CALIBRATION_IMAGES, 512, seed=1)
                patches = torch.stack([image_processor.extract_patches(image) for image in images])
                network = quantize_backbone(network, patches, image_processor)
                (folder / "int8.onnx").write_bytes(serialize(network, describe_int8(description, network)))
            file = folder / ("int8.onnx" if dtype == "int8" else "float.onnx")
            engines[name] = load_engine(str(file), engine, dtype=dtype)
        except ValueError as error:
            logger.warning("no row %s: %s", name, error)
    return engines


def build_pyiqa_side(layout: str, num_patches: int, device: torch.device) -> Callable[[Path], float] | None:
    """Return what scores as pyiqa does, with random weights of this layout; None where it is not installed."""
    try:
        architecture = importlib.import_module("pyiqa.archs.hypernet_arch")
        to_tensor = importlib.import_module("torchvision.transforms.functional").to_tensor
    except ImportError as error:
        logger.warning("no row of pyiqa: %s", error)
        return None
    create_model = architecture.timm.create_model

    def without_download(name: str, **options) -> torch.nn.Module:
        return create_model(name, **(options | {"pretrained": False}))

    with patch.object(architecture.timm, "create_model", without_download):  # which it always asks for
        network = architecture.HyperNet(PYIQA_NETWORKS[layout], num_crop=num_patches, pretrained=False)
    network = network.to(device).eval()

    @torch.no_grad()
    def score(path: Path) -> float:
        return float(network(to_tensor(hub_code.load_image(path)).unsqueeze(0).to(device)).item())

    return score


def build_sides(
    layout: str, network: PublishedHyperNetwork, num_patches: int, folder: Path, device: torch.device
) -> tuple[dict[str, Callable[[Path], float]], dict[str, Engine]]:
    """Return what scores an image, by row, and the engines that have the weights of `network`; all on the device.

    All have the layout of `network`, but for the row of the embedded checkpoint, which has its own.
    """
    model = build_model(network.state_dict(), SCORE_RANGE)
    model.save_pretrained(folder / "model")
    engines = {
        "fp32": load_engine(str(folder / "model"), device=device.type),
        "bf16": load_engine(str(folder / "model"), device=device.type, dtype="bfloat16"),
    }
    if device.type == "cpu":
        engines |= load_onnx_engines(model, folder)
    network.to(device)
    sides: dict[str, Callable[[Path], float]] = {
        name: partial(compute_our_score, engine, num_patches=num_patches) for name, engine in engines.items()
    }
    sides["embedded"] = partial(compute_our_score, load_engine(str(ROOT), device=device.type), num_patches=num_patches)
    sides["one_batch"] = lambda path: compute_published_score_in_one_batch(network, path, device, num_patches)
    if pyiqa := build_pyiqa_side(layout, num_patches, device):
        sides["pyiqa"] = pyiqa
    return sides, engines


def compare_scoring(layout: str, image_size: int, num_patches: int, num_rounds: int, device: torch.device) -> Measured:
    """Compare images/s of one layout, and tell how far scores of the same crops are from the reference's."""
    network = build_seeded_network(DEPTHS[layout])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "image.png"
        hub_code.load_image(make_images(1, image_size)[0]).save(path)
        sides, engines = build_sides(layout, network, num_patches, folder, device)
        torch.manual_seed(0)
        expected = compute_published_score(network, path, device, num_patches)
        same_crops = {"sampling": "random", "seed": 0, "num_patches": num_patches}
        facts = {
            f"score_difference_{row}_{layout}": abs(compute_our_score(engine, path, **same_crops) - expected)
            for row, engine in engines.items()
        }
        calls = {"reference": lambda path: compute_published_score(network, path, device, num_patches), **sides}
        for call in calls.values():
            call(path)
        rounds = take_turns([partial(call, path) for call in calls.values()], num_rounds, device)
    seconds = dict(zip(calls, zip(*rounds, strict=True), strict=True))  # by row, a tuple over the rounds
    reference = seconds.pop("reference")
    rows = [
        speed_row(f"{row}_{layout}", "images/s", 1, list(zip(ours, reference, strict=True)))
        for row, ours in seconds.items()
    ]
    return Measured(facts, rows)


def measure_scoring(args: Namespace) -> Measured:
    """Return the rows of `benchmark.py scoring`, and how far scores are from the reference's."""
    device = choose_device(args.device)
    rows: list[Row] = []
    facts: dict[str, float] = {}
    for layout in DEPTHS if args.layout == "both" else [args.layout]:
        measured = compare_scoring(layout, args.image_size, args.num_patches, args.rounds, device)
        rows += measured.rows
        facts |= measured.facts
    return Measured(facts, rows)


def load_engines(args: Namespace) -> dict[str, Engine]:
    """Load the engines by name, float32 first, by which the others are judged."""
    engines = {
        "fp32": load_engine(args.model, device=args.device),
        "bf16": load_engine(args.model, device=args.device, dtype="bfloat16"),
    }
    if args.onnx:
        engines["openvino_fp32"] = load_engine(args.onnx, "openvino")
        engines["openvino_bf16"] = load_engine(args.onnx, "openvino", dtype="bfloat16")
    if args.int8_onnx:
        engines["int8"] = load_engine(args.int8_onnx, "openvino", dtype="int8")
    return engines


def measure_precision(args: Namespace) -> Measured:
    """Measure rank correlation with the scores in float32, and the largest difference, of every precision."""
    paths = choose_evenly(find_images(args.images), args.num_images)
    if len(paths) < 2:
        raise ValueError(f"--images must hold at least 2 images, got {len(paths)}")
    engines = load_engines(args)
    image_processor: Any = engines["fp32"].image_processor
    scores: dict[str, list[float]] = {name: [] for name in engines}
    for path in tqdm(paths, unit="image", disable=None, leave=False):
        patches = image_processor.extract_patches(path).unsqueeze(0)  # (1, patches, 3, height, width)
        for name, engine in engines.items():
            scores[name].append(engine.score_patches(patches).scores.item())
    expected = np.asarray(scores.pop("fp32"))
    facts = {"num_images": float(len(paths))}
    for name, values in scores.items():
        facts[f"rank_correlation_{name}"] = compute_metrics(values, expected)["srcc"]
        facts[f"largest_difference_{name}"] = float(np.abs(np.asarray(values) - expected).max())
    return Measured(facts)
