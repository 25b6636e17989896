"""Measure this repository beside the published system, both in one run.

    python benchmark.py training
    python benchmark.py training --layout r152 --batch_size 128 --json training.json
    python benchmark.py scoring --json scoring.json
    python benchmark.py precision --images PICTURES/ --onnx scorer.onnx --int8_onnx scorer.int8.onnx

All sides take turns, round by round. A row shows the round whose ratio is the median of all, so that what else the
machine does falls on both sides alike and the row's numbers belong together. A ratio above 1 means that ours is better.
`precision` tells how much bfloat16 and int8 move the scores of a checkpoint on real pictures; `export.py` makes the
.onnx files.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

from hybridiqa.benchmark_report import build_report, print_report
from hybridiqa.loading import ROOT, choose_device, silence_libraries
from hybridiqa.precision_benchmark import measure_precision
from hybridiqa.published_layout import DEPTHS
from hybridiqa.scoring_benchmark import measure_scoring
from hybridiqa.training_benchmark import DEFAULT_BATCH_SIZES, measure_training


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="a new file for the numbers")
    common.add_argument("--device", choices=DEFAULT_BATCH_SIZES, help="default: cuda, else cpu")
    common.add_argument("--threads", type=int, help="of the processor, for both sides (default: torch's own number)")
    timed = argparse.ArgumentParser(add_help=False)
    timed.add_argument("--rounds", type=int, default=9, help="turns of all sides (default 9)")
    timed.add_argument("--image_size", type=int, default=1024, help="side of the pictures, in pixels (default 1024)")
    training = commands.add_parser("training", parents=[common, timed], help="input pipeline and training step")
    training.add_argument("--layout", choices=DEPTHS, default="r50", help="of the backbone (default r50)")
    training.add_argument("--batch_size", type=int, help="patches a training step (default 8 on a CPU, else 300)")
    training.add_argument("--input_batch_size", type=int, default=300, help="patches an input batch (default 300)")
    training.add_argument("--num_images", type=int, default=32, help="pictures in memory (default 32)")
    training.set_defaults(measure=measure_training)
    scoring = commands.add_parser("scoring", parents=[common, timed], help="a picture's file to its score")
    scoring.add_argument("--layout", choices=(*DEPTHS, "both"), default="both", help="of the backbone (default both)")
    scoring.add_argument("--num_patches", type=int, default=25, help="of a picture (default 25, the published number)")
    scoring.set_defaults(measure=measure_scoring)
    precision = commands.add_parser("precision", parents=[common], help="what bfloat16 and int8 do to the scores")
    precision.add_argument("--model", default=str(ROOT), help="folder (default: the embedded checkpoint)")
    precision.add_argument("--images", nargs="+", required=True, metavar="INPUT", help="image files and folders")
    precision.add_argument("--num_images", type=int, default=200, help="at most, evenly chosen (default 200)")
    precision.add_argument("--onnx", help="the checkpoint as export.py writes it, for OpenVINO")
    precision.add_argument("--int8_onnx", help="the same in int8")
    precision.set_defaults(measure=measure_precision)
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for what cannot be measured."""
    if args.device is None:
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, value in vars(args).items():
        least = 2 if name == "batch_size" else 1  # the published step needs a batch that squeeze leaves a dimension
        if isinstance(value, int) and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    if args.command == "scoring" and args.image_size < 224:
        raise ValueError(f"--image_size must be at least 224 for the published crops, got {args.image_size}")
    if args.json and (args.json.exists() or not args.json.absolute().parent.is_dir()):
        raise ValueError(f"--json must be a new file in a folder that is there, got {args.json}")


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    silence_libraries()
    logging.basicConfig(format="%(message)s")
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
