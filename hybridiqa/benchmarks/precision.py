"""How much faster precisions move a checkpoint's scores, on real pictures."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import torch
from tqdm.auto import tqdm

from hybridiqa.benchmarks.timing import Row
from hybridiqa.inference.engine import Engine, load_engine
from hybridiqa.inference.onnx_export import find_pictures
from metrics.iqa.iqa import compute_metrics


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
