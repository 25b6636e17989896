"""Export a checkpoint to one .onnx file, which `score.py --engine onnxruntime` and `--engine openvino` read.

    python export.py . --output scorer.onnx
    python score.py IMAGES/ --engine openvino --model scorer.onnx

In int8, calibrated on images like those that are to be scored; fastest in OpenVINO:

    python export.py . --output scorer.int8.onnx --dtype int8 --calibration_images IMAGES/
    python score.py IMAGES/ --engine openvino --dtype int8 --model scorer.int8.onnx

What is written has been compared with the checkpoint: in float32 no patch score may differ by more than 1e-4 (on the
1-9 scale), in int8 the calibration images must be ranked as before (SRCC of 0.99 or more). It needs
requirements-optional.txt. Exit status: 0 written, 2 not, and then nothing is left behind.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from hybridiqa.inference.onnx_engine import OnnxDescription
from hybridiqa.inference.onnx_export import (
    choose_evenly,
    describe_float,
    describe_int8,
    export_network,
    measure_difference,
    measure_rank_correlation,
    quantize_backbone,
    read_images,
    serialize,
)
from hybridiqa.inference.scoring import find_images
from hybridiqa.models.loading import load_model
from hybridiqa.utils.cli import exit_status
from hybridiqa.utils.libraries import import_optional, silence_libraries
from hybridiqa.utils.root import ROOT

LARGEST_DIFFERENCE = 1e-4 / 8  # of a patch score, in widths of the score range
LEAST_RANK_CORRELATION = 0.99


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for wrong usage and missing libraries, before anything is loaded."""
    if args.output.suffix != ".onnx":
        raise ValueError(f"--output must end in .onnx, got {args.output}")
    if not args.output.absolute().parent.is_dir():
        raise ValueError(f"--output: there is no folder {args.output.parent}")
    if os.path.lexists(args.output):
        raise ValueError(f"--output: {args.output} is there already; nothing is overwritten")
    if args.dtype == "int8" and not args.calibration_images:
        raise ValueError("--dtype int8 needs --calibration_images: images like those that are to be scored")
    if args.dtype != "int8" and args.calibration_images:
        raise ValueError("--calibration_images are for --dtype int8")
    if args.num_calibration_images < 1:
        raise ValueError(f"--num_calibration_images must be at least 1, got {args.num_calibration_images}")
    for name in ("onnx", "onnxruntime", *(("openvino", "nncf") if args.dtype == "int8" else ())):
        import_optional(name)


def export_float(model: Any, folder: str) -> tuple[OnnxDescription, bytes]:
    """Make the description and the content of the float32 file.

    Args:
        folder: for the exporter's own file.

    Raises:
        ValueError: scores that differ from torch's.
    """
    path = str(Path(folder, "network.onnx"))
    export_network(model, path)
    description = describe_float(model)
    content = serialize(import_optional("onnx").load(path), description)
    low, high = model.config.score_range
    difference, accepted = measure_difference(model, content), LARGEST_DIFFERENCE * (high - low)
    print(f"largest difference of a patch score from torch's: {difference:.2g} (accepted: {accepted:.2g})")
    if not difference <= accepted:
        raise ValueError("the exported network differs from torch's; nothing is written")
    return description, content


def export_int8(description: OnnxDescription, float_content: bytes, patches: torch.Tensor) -> bytes:
    """Make the content of the int8 file.

    Args:
        patches: uint8 `(images, patches, 3, height, width)`, to calibrate and compare on.

    Raises:
        ValueError: a network that ranks the images otherwise than the float one.
    """
    float_network = import_optional("onnx").load_from_string(float_content)
    network = quantize_backbone(float_network, patches, description.image_processor)
    content = serialize(network, describe_int8(description, network))
    srcc = measure_rank_correlation(float_content, content, patches)
    print(f"rank correlation of int8 with float32 on {len(patches)} images: {srcc:.4f}")
    if not srcc >= LEAST_RANK_CORRELATION:
        raise ValueError(
            f"int8 ranks the calibration images too differently: SRCC {srcc:.4f}, at least {LEAST_RANK_CORRELATION} is "
            "accepted. Nothing is written; more, and more varied, calibration images may help"
        )
    return content


def run(args: argparse.Namespace) -> None:
    """Export and compare.

    Raises:
        ValueError: wrong usage, or scores that differ.
    """
    check_arguments(args)
    paths = choose_evenly(find_images(args.calibration_images), args.num_calibration_images)
    model: Any = load_model(args.model, torch.device("cpu"), torch.float32, args.trust_remote_code, args.model_revision)
    patches = read_images(paths, model.image_processor) if args.dtype == "int8" else None
    with tempfile.TemporaryDirectory(dir=args.output.absolute().parent, prefix=f".{args.output.name}-") as folder:
        description, content = export_float(model, folder)
        if patches is not None:
            content = export_int8(description, content, patches)
        unfinished = Path(folder, "unfinished.onnx")
        unfinished.write_bytes(content)
        check_arguments(args)  # minutes have passed
        unfinished.rename(args.output)
    print(f"{args.output}: {len(content) / 1e6:.1f} MB")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(ROOT), help="folder or Hub id (default: the embedded one)")
    parser.add_argument("--output", type=Path, required=True, help="a new .onnx file")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that a Hub checkpoint brings")
    parser.add_argument("--model_revision", help="of a Hub checkpoint: branch, tag or commit (default: the newest)")
    parser.add_argument("--dtype", choices=("float32", "int8"), default="float32")
    parser.add_argument(
        "--calibration_images", nargs="+", default=[], metavar="INPUT", help="image files and folders, for int8"
    )
    parser.add_argument("--num_calibration_images", type=int, default=100, help="at most, evenly chosen (default 100)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    silence_libraries()
    logging.basicConfig(format="%(message)s")
    return exit_status("export.py", lambda: run(args))
