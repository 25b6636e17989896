"""Every table in the README, by command: how well scorers judge, and this repository beside the published system.

    python benchmark.py ranking --model . my-scorer brisque --dataset prepared you/rated test.json --output_dir report
    python benchmark.py robustness --model . brisque --images PICTURES/ --output_dir report
    python benchmark.py training
    python benchmark.py training --layout r152 --batch_size 128 --json training.json
    python benchmark.py scoring --json scoring.json
    python benchmark.py precision --images PICTURES/ --onnx scorer.onnx --int8_onnx scorer.int8.onnx
    python benchmark.py tables

`ranking` compares scorers with true scores (of a dataset by prepare_dataset.py) or with people's preferences (the lists
of ImageReward and HPDv2, Pick-a-Pic), `robustness` on damaged versions of clean pictures. A model is a checkpoint's
folder or Hub id (user/name or user/name@commit), `brisque` or `pyiqa:METRIC` where these packages are installed, any
transformers model with a method `score`, for preferences also a CLIP-style one, or a table of scores (path, score) such
as score.py writes; NAME=MODEL and NAME=DATASET name a row.

In `training` and `scoring` all sides take turns, round by round. A row shows the round whose ratio is the median of
all, so that what else the machine does falls on both sides alike and the row's numbers belong together. A ratio above
1 means that ours is better. `precision` tells how much bfloat16 and int8 move the scores of a checkpoint on real
pictures; `export.py` makes the .onnx files. `tables` writes README.md's tables anew from the reports in results/.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch
from datasets import disable_progress_bars

from hybridiqa.benchmarks.scoring import measure_precision, measure_scoring
from hybridiqa.benchmarks.timing import build_report, print_report
from hybridiqa.benchmarks.training import DEFAULT_BATCH_SIZES, measure_training
from hybridiqa.evaluation.ranking import run_ranking
from hybridiqa.evaluation.readme_tables import write_tables
from hybridiqa.evaluation.robustness import run_robustness
from hybridiqa.evaluation.scorers import KINDS
from hybridiqa.models.hyperiqa_weights import DEPTHS
from hybridiqa.utils.atomic import check_new_folder, resolve_output, write_json
from hybridiqa.utils.cli import exit_status
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.libraries import silence_libraries
from hybridiqa.utils.root import ROOT

# Least values of options: the published step needs a batch that squeeze leaves a dimension, and its crops a size.
LEAST = {
    ("training", "batch_size"): 2,
    ("scoring", "image_size"): 224,
    "num_workers": 0,
    "seed": 0,
    "trust_remote_code": 0,
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--device", choices=DEFAULT_BATCH_SIZES, help="default: cuda, else cpu")
    common.add_argument("--threads", type=int, help="of the processor, for both sides (default: torch's own number)")
    numbers = argparse.ArgumentParser(add_help=False, parents=[common])
    numbers.add_argument("--json", type=Path, metavar="FILE", help="a new file for the numbers")
    timed = argparse.ArgumentParser(add_help=False)
    timed.add_argument("--rounds", type=int, default=9, help="turns of all sides (default 9)")
    timed.add_argument("--image_size", type=int, default=1024, help="side of the pictures, in pixels (default 1024)")
    judged = argparse.ArgumentParser(add_help=False, parents=[common])
    judged.add_argument("--model", nargs="+", required=True, help=f"{KINDS}; NAME=MODEL names its row")
    judged.add_argument("--output_dir", type=Path, required=True, help="for the report; must be new or empty")
    judged.add_argument("--num_patches", type=int, help="of a checkpoint's pictures (default: as it says)")
    judged.add_argument("--batch_size", type=int, help="pictures at a time (default 8, on a CPU 1)")
    judged.add_argument("--num_workers", type=int, default=2, help="processes that decode (default 2)")
    judged.add_argument("--num_resamples", type=int, default=1000, help="of the bootstrap (default 1000)")
    judged.add_argument("--seed", type=int, default=0, help="of the bootstrap, and of the damages (default 0)")
    judged.add_argument("--trust_remote_code", action="store_true", help="run code that a model brings")
    ranking = commands.add_parser("ranking", parents=[judged], help="agreement with people's scores or preferences")
    datasets = "what prepare_dataset.py wrote or pushed, a .json of ImageReward or HPDv2, Pick-a-Pic's folder or id"
    ranking.add_argument("--dataset", nargs="+", required=True, help=f"{datasets}; NAME=DATASET names it")
    ranking.add_argument("--split", help="of the datasets (default test, or the only one)")
    ranking.set_defaults(run=run_ranking)
    robustness = commands.add_parser("robustness", parents=[judged], help="clean over damaged, and stability")
    robustness.add_argument("--images", required=True, metavar="DIR", help="a folder of clean pictures")
    robustness.add_argument("--max_size", type=int, help="longer side in pixels (default: as it is)")
    robustness.set_defaults(run=run_robustness)
    tables = commands.add_parser("tables", help="write README.md's tables anew from results/")
    tables.add_argument("--check", action="store_true", help="change nothing; the exit status is 1 if they differ")
    training = commands.add_parser("training", parents=[numbers, timed], help="input pipeline and training step")
    training.add_argument("--layout", choices=DEPTHS, default="r50", help="of the backbone (default r50)")
    training.add_argument("--batch_size", type=int, help="patches a training step (default 8 on a CPU, else 300)")
    training.add_argument("--input_batch_size", type=int, default=300, help="patches an input batch (default 300)")
    training.add_argument("--num_images", type=int, default=32, help="pictures in memory (default 32)")
    training.set_defaults(measure=measure_training)
    scoring = commands.add_parser("scoring", parents=[numbers, timed], help="a picture's file to its score")
    scoring.add_argument("--layout", choices=(*DEPTHS, "both"), default="both", help="of the backbone (default both)")
    scoring.add_argument("--num_patches", type=int, default=25, help="of a picture (default 25, the published number)")
    scoring.set_defaults(measure=measure_scoring)
    precision = commands.add_parser("precision", parents=[numbers], help="what bfloat16 and int8 do to the scores")
    precision.add_argument("--model", default=str(ROOT), help="folder (default: the embedded checkpoint)")
    precision.add_argument("--images", nargs="+", required=True, metavar="INPUT", help="image files and folders")
    precision.add_argument("--num_images", type=int, default=200, help="at most, evenly chosen (default 200)")
    precision.add_argument("--onnx", help="the checkpoint as export.py writes it, for OpenVINO")
    precision.add_argument("--int8_onnx", help="the same in int8")
    precision.set_defaults(measure=measure_precision)
    args = parser.parse_args(argv)
    args.command_line = sys.argv[1:] if argv is None else argv
    return args


def check_arguments(args: argparse.Namespace) -> None:
    """Raise ValueError for what cannot be measured; fill in what depends on the device."""
    if args.device is None:
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.command in ("ranking", "robustness"):
        check_new_folder(args.output_dir)
        args.batch_size = args.batch_size or (1 if args.device == "cpu" else 8)
    for name, value in vars(args).items():
        least = LEAST.get((args.command, name), LEAST.get(name, 1))
        if isinstance(value, int) and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    json_path = getattr(args, "json", None)
    if json_path:
        if json_path.exists() or not json_path.absolute().parent.is_dir():
            raise ValueError(f"--json must be a new file in a folder that is there, got {json_path}")
        resolve_output(json_path, "--json")


def measure_speed(args: argparse.Namespace) -> None:
    """Run a command that has rows of ours and of a reference; print and write them."""
    report = build_report(args.command, *args.measure(args), args.command_line, choose_device(args.device))
    print_report(report)
    if args.json:
        write_json(args.json, report)


def run(args: argparse.Namespace) -> int:
    """Run one command; the exit status.

    Raises:
        ValueError: wrong usage, or data that cannot be used.
    """
    if args.command == "tables":
        return write_tables(args.check)
    check_arguments(args)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    if args.command in ("ranking", "robustness"):
        print(args.run(args))
    else:
        measure_speed(args)
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    silence_libraries()
    disable_progress_bars()
    logging.basicConfig(format="%(message)s")
    return exit_status("benchmark.py", lambda: run(args))
