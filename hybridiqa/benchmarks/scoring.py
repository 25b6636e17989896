"""Scoring speed beside the published demo, from a PNG file to its score, and precision beside float32."""

from __future__ import annotations

import importlib
import logging
import tempfile
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hybridiqa.benchmarks.published import (
    PublishedHyperNetwork,
    published_score,
    published_score_in_one_batch,
    seeded_network,
)
from hybridiqa.benchmarks.timing import Row, make_pictures, speed_row, take_turns
from hybridiqa.inference.engine import Engine, load_engine
from hybridiqa.inference.onnx_export import (
    describe,
    description_of,
    export_network,
    find_pictures,
    int8_description,
    quantize_backbone,
)
from hybridiqa.models import hub_code
from hybridiqa.models.hyperiqa_weights import DEPTHS, build_model
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.libraries import import_optional
from hybridiqa.utils.root import ROOT
from metrics.iqa.iqa import compute_metrics

SCORE_RANGE = [1.0, 9.0]
NUM_CALIBRATION_PICTURES = 4  # random weights rank nothing: only the speed of int8 is of interest
ONNX_ROWS = {  # engine and dtype of every row that needs an .onnx file
    "onnxruntime_fp32": ("onnxruntime", "float32"),
    "openvino_fp32": ("openvino", "float32"),
    "openvino_bf16": ("openvino", "bfloat16"),
    "openvino_int8": ("openvino", "int8"),
}
PYIQA_NETWORKS = {"r50": "resnet50", "r152": "resnet152"}

logger = logging.getLogger(__name__)


def our_score(engine: Engine, path: Path, **options) -> float:
    """What `score.py` does with one picture; the options are `extract_patches`'s."""
    patches = engine.image_processor.extract_patches(hub_code.load_image(path), **options)
    return engine.score_patches(patches.unsqueeze(0)).mean().item()


def onnx_engines(model: PreTrainedModel, folder: Path) -> dict[str, Engine]:
    """What reads .onnx files, by row, of the libraries that are installed; reports what is missing.

    Args:
        model: not yet prepared for scoring.
        folder: for the files.
    """
    try:
        onnx = import_optional("onnx")
        export_network(model, str(folder / "network.onnx"))
        network, description = onnx.load(str(folder / "network.onnx")), description_of(model)
        (folder / "float.onnx").write_bytes(describe(network, description))
    except ValueError as error:
        logger.warning("no rows of ONNX engines: %s", error)
        return {}
    engines = {}
    for name, (engine, dtype) in ONNX_ROWS.items():
        try:
            if dtype == "int8":
                pictures = make_pictures(NUM_CALIBRATION_PICTURES, 512, seed=1)
                patches = torch.stack([model.image_processor.extract_patches(picture) for picture in pictures])
                network = quantize_backbone(network, patches, model.image_processor)
                (folder / "int8.onnx").write_bytes(describe(network, int8_description(description, network)))
            file = folder / ("int8.onnx" if dtype == "int8" else "float.onnx")
            engines[name] = load_engine(str(file), engine, dtype=dtype)
        except ValueError as error:
            logger.warning("no row %s: %s", name, error)
    return engines


def pyiqa_score(layout: str, num_patches: int, device: torch.device) -> Callable[[Path], float] | None:
    """The way of the package pyiqa, with random weights of the same layout; None where it is not installed."""
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
    """What scores a picture, by row, and the engines that have the weights of `network`; all on the device.

    All have the layout of `network`, but for the row of the embedded checkpoint, which has its own.
    """
    model = build_model(network.state_dict(), SCORE_RANGE)
    model.save_pretrained(folder / "model")
    engines = {
        "fp32": load_engine(str(folder / "model"), device=device.type),
        "bf16": load_engine(str(folder / "model"), device=device.type, dtype="bfloat16"),
    }
    if device.type == "cpu":
        engines |= onnx_engines(model, folder)
    network.to(device)
    sides = {name: partial(our_score, engine, num_patches=num_patches) for name, engine in engines.items()}
    sides["embedded"] = partial(our_score, load_engine(str(ROOT), device=device.type), num_patches=num_patches)
    sides["one_batch"] = lambda path: published_score_in_one_batch(network, path, device, num_patches)
    if pyiqa := pyiqa_score(layout, num_patches, device):
        sides["pyiqa"] = pyiqa
    return sides, engines


def compare_scoring(
    layout: str, image_size: int, num_patches: int, num_rounds: int, device: torch.device
) -> tuple[list[Row], dict[str, float]]:
    """Rows of images/s of one layout, and how far scores of the same crops are from the reference's."""
    network = seeded_network(DEPTHS[layout])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "picture.png"
        hub_code.load_image(make_pictures(1, image_size)[0]).save(path)
        sides, engines = build_sides(layout, network, num_patches, folder, device)
        torch.manual_seed(0)
        expected = published_score(network, path, device, num_patches)
        same_crops = {"sampling": "random", "seed": 0, "num_patches": num_patches}
        facts = {
            f"score_difference_{row}_{layout}": abs(our_score(engine, path, **same_crops) - expected)
            for row, engine in engines.items()
        }
        calls = {"reference": lambda path: published_score(network, path, device, num_patches), **sides}
        for call in calls.values():
            call(path)
        rounds = take_turns([partial(call, path) for call in calls.values()], num_rounds, device)
    seconds = dict(zip(calls, zip(*rounds, strict=True), strict=True))  # by row, a tuple over the rounds
    reference = seconds.pop("reference")
    rows = [
        speed_row(f"{row}_{layout}", "images/s", 1, list(zip(ours, reference, strict=True)))
        for row, ours in seconds.items()
    ]
    return rows, facts


def measure_scoring(args: Namespace) -> tuple[list[Row], dict[str, float]]:
    """The rows of `benchmark.py scoring`, and how far scores are from the reference's."""
    device = choose_device(args.device)
    rows, facts = [], {}
    for layout in DEPTHS if args.layout == "both" else [args.layout]:
        layout_rows, layout_facts = compare_scoring(layout, args.image_size, args.num_patches, args.rounds, device)
        rows += layout_rows
        facts |= layout_facts
    return rows, facts


def load_engines(args: Namespace) -> dict[str, Engine]:
    """By name, float32 first, of which the others are judged."""
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


def measure_precision(args: Namespace) -> tuple[list[Row], dict[str, float]]:
    """Rank correlation with the scores in float32, and the largest difference, of every precision."""
    paths = find_pictures(args.images, args.num_images)
    if len(paths) < 2:
        raise ValueError(f"--images must hold at least 2 pictures, got {len(paths)}")
    engines = load_engines(args)
    scores = {name: [] for name in engines}
    for path in tqdm(paths, unit="image", disable=None, leave=False):
        patches = engines["fp32"].image_processor.extract_patches(path).unsqueeze(0)  # (1, patches, 3, height, width)
        for name, engine in engines.items():
            scores[name].append(torch.mean(engine.score_patches(patches)).item())
    expected = np.asarray(scores.pop("fp32"))
    facts = {"num_images": float(len(paths))}
    for name, values in scores.items():
        facts[f"rank_correlation_{name}"] = compute_metrics(values, expected)["srcc"]
        facts[f"largest_difference_{name}"] = float(np.abs(np.asarray(values) - expected).max())
    return [], facts
