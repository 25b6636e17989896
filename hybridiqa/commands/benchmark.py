"""Every table in README and docs, by command: how well scorers judge, and this repository beside the published system.

    python benchmark.py ranking --model . my-scorer brisque --dataset prepared you/rated test.json --output_dir report
    python benchmark.py robustness --model . brisque --images clean/ --output_dir report
    python benchmark.py training
    python benchmark.py training --layout r152 --batch_size 128 --json training.json
    python benchmark.py scoring --json scoring.json
    python benchmark.py precision --images library/ --onnx scorer.onnx --int8_onnx scorer.int8.onnx
    python benchmark.py tables

`ranking` compares scorers with true scores (of a dataset by prepare_dataset.py) or with people's preferences (the lists
of ImageReward and HPDv2, Pick-a-Pic), `robustness` on distorted versions of clean images. A model is a checkpoint's
folder or Hub id (user/name or user/name@commit), `brisque` or `pyiqa:METRIC` where these packages are installed, any
transformers model with a method `score`, for preferences also a CLIP-style one, or a table of scores (path, score) such
as score.py writes; NAME=MODEL and NAME=DATASET name a row. `--subsets '^(ss[0-9]+)'` gives each subset of a dataset
rows of its own, by what the regular expression finds in the images' paths, and `--published results/published.csv`
shows published figures beside the measured ones.

In `training` and `scoring` all sides take turns, round by round. A row shows the round whose ratio is the median of
all, so that what else the machine does falls on both sides alike and the row's numbers belong together. A ratio above
1 means that ours is better. `precision` tells how much bfloat16 and int8 move the scores of a checkpoint on real
images; `export.py` makes the .onnx files. `tables` writes the tables of README.md and docs/ anew from the reports in
results/.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridiqa.benchmarks.options import DEFAULT_BATCH_SIZES, DEPTHS
from hybridiqa.evaluation.scorers import KINDS
from hybridiqa.utils.atomic import check_new_folder, resolve_output, write_json
from hybridiqa.utils.cli import exit_status
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.libraries import silence_libraries
from hybridiqa.utils.root import ROOT

if TYPE_CHECKING:
    from hybridiqa.benchmarks.timing import Measured

REPORTS = ("ranking", "robustness")  # the commands that write a folder


class AtLeast(argparse.Action):
    """Option that takes a whole number from `least` on."""

    def __init__(self, *, least: int = 1, **options: Any):
        super().__init__(type=int, **options)
        self.least = least

    def __call__(
        self, parser: argparse.ArgumentParser, args: argparse.Namespace, value: Any, option: str | None = None
    ) -> None:
        if value < self.least:
            raise ValueError(f"--{self.dest} must be at least {self.least}, got {value}")
        setattr(args, self.dest, value)


def _judging_options() -> argparse.ArgumentParser:
    """Return the options of `ranking` and `robustness`."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--model", nargs="+", required=True, help=f"{KINDS}; NAME=MODEL names its row")
    options.add_argument("--output_dir", type=Path, required=True, help="for the report; must be new or empty")
    options.add_argument("--num_patches", action=AtLeast, help="of a checkpoint's images (default: as it says)")
    options.add_argument("--batch_size", action=AtLeast, help="images at a time (default 8, on a CPU 1)")
    options.add_argument("--num_workers", action=AtLeast, least=0, default=2, help="processes that decode (default 2)")
    options.add_argument("--num_resamples", action=AtLeast, default=1000, help="of the bootstrap (default 1000)")
    seed_help = "of the bootstrap, and of the distortions (default 0)"
    options.add_argument("--seed", action=AtLeast, least=0, default=0, help=seed_help)
    options.add_argument("--trust_remote_code", action="store_true", help="run code that a model brings")
    return options


def _timing_options(least_image_size: int) -> argparse.ArgumentParser:
    """Return the options of `training` and `scoring`."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--rounds", action=AtLeast, default=9, help="turns of all sides (default 9)")
    size_help = "side of the images, in pixels (default 1024)"
    options.add_argument("--image_size", action=AtLeast, least=least_image_size, default=1024, help=size_help)
    return options


def _add_reports(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands that tell how well scorers judge."""
    parents = [common, _judging_options()]
    ranking = commands.add_parser("ranking", parents=parents, help="agreement with people's scores or preferences")
    datasets = "what prepare_dataset.py wrote or pushed, a .json of ImageReward or HPDv2, Pick-a-Pic's folder or id"
    ranking.add_argument("--dataset", nargs="+", required=True, help=f"{datasets}; NAME=DATASET names it")
    ranking.add_argument("--split", help="of the datasets (default test, or the only one)")
    ranking.add_argument("--limit", action=AtLeast, least=2, help="images of a dataset, evenly spread (default all)")
    subsets = "a regular expression in an image's path; its group 1 (or all of it) names a subset that gets own rows"
    ranking.add_argument("--subsets", nargs="+", metavar="[NAME=]REGEX", help=f"{subsets}; NAME= is one dataset's")
    published = "a table (dataset, model, srcc, plcc, source) of figures to show beside the measured ones"
    ranking.add_argument("--published", type=Path, metavar="FILE", help=published)
    robustness = commands.add_parser("robustness", parents=parents, help="clean over distorted, and stability")
    robustness.add_argument("--images", required=True, metavar="DIR", help="a folder of clean images")
    robustness.add_argument("--max_size", action=AtLeast, help="longer side in pixels (default: as it is)")
    tables = commands.add_parser("tables", help="write the tables of README.md and docs/ anew from results/")
    tables.add_argument("--check", action="store_true", help="change nothing; the exit status is 1 if they differ")


def _add_measurements(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands that measure speed, memory and precision; `recorded` names what their numbers depend on."""
    common = argparse.ArgumentParser(add_help=False, parents=[common])
    common.add_argument("--json", type=Path, metavar="FILE", help="a new file for the numbers")
    parents = [common, _timing_options(least_image_size=1)]
    training = commands.add_parser("training", parents=parents, help="input pipeline and training step")
    training.add_argument("--layout", choices=DEPTHS, default="r50", help="of the backbone (default r50)")
    # The published step needs a batch that squeeze leaves a dimension.
    batch_help = "patches a training step (default 8 on a CPU, else 300)"
    training.add_argument("--batch_size", action=AtLeast, least=2, help=batch_help)
    training.add_argument(
        "--input_batch_size", action=AtLeast, default=300, help="patches an input batch (default 300)"
    )
    training.add_argument("--num_images", action=AtLeast, default=32, help="images in memory (default 32)")
    sizes = ("image_size", "num_images", "batch_size", "input_batch_size")
    training.set_defaults(recorded=("layout", *sizes, "rounds"))
    parents = [common, _timing_options(least_image_size=224)]  # the published crops need it
    scoring = commands.add_parser("scoring", parents=parents, help="an image's file to its score")
    scoring.add_argument("--layout", choices=(*DEPTHS, "both"), default="both", help="of the backbone (default both)")
    patches_help = "of an image (default 25, the published number)"
    scoring.add_argument("--num_patches", action=AtLeast, default=25, help=patches_help)
    scoring.set_defaults(recorded=("layout", "image_size", "num_patches", "rounds"))
    precision = commands.add_parser("precision", parents=[common], help="what bfloat16 and int8 do to the scores")
    precision.add_argument("--model", default=str(ROOT), help="folder (default: the embedded checkpoint)")
    precision.add_argument("--images", nargs="+", required=True, metavar="INPUT", help="image files and folders")
    precision.add_argument("--num_images", action=AtLeast, default=200, help="at most, evenly chosen (default 200)")
    precision.add_argument("--onnx", help="the checkpoint as export.py writes it, for OpenVINO")
    precision.add_argument("--int8_onnx", help="the same in int8")
    precision.set_defaults(recorded=("num_images",))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of a command.

    Raises:
        ValueError: a number that is too small.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--device", choices=DEFAULT_BATCH_SIZES, help="default: cuda, else cpu")
    common.add_argument(
        "--threads", action=AtLeast, help="of the processor, for both sides (default: torch's own number)"
    )
    _add_reports(commands, common)
    _add_measurements(commands, common)
    args = parser.parse_args(argv)
    args.command_line = sys.argv[1:] if argv is None else argv
    return args


def complete_arguments(args: argparse.Namespace) -> None:
    """Fill in what depends on the device, and check where results go.

    Raises:
        ValueError: a folder or a file that cannot be written.
    """
    import torch

    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.command == "training":
        args.batch_size = args.batch_size or DEFAULT_BATCH_SIZES[args.device]
    elif args.command in REPORTS:
        args.batch_size = args.batch_size or (1 if args.device == "cpu" else 8)
        check_new_folder(args.output_dir)
    if args.command not in REPORTS and args.json:
        if args.json.exists() or not args.json.absolute().parent.is_dir():
            raise ValueError(f"--json must be a new file in a folder that is there, got {args.json}")
        resolve_output(args.json, "--json")


def write_report(args: argparse.Namespace) -> str:
    """Run `ranking` or `robustness`; return the report in Markdown."""
    from hybridiqa.evaluation.ranking import run_ranking
    from hybridiqa.evaluation.robustness import run_robustness

    return run_ranking(args) if args.command == "ranking" else run_robustness(args)


def measure(args: argparse.Namespace) -> Measured:
    """Run `training`, `scoring` or `precision`."""
    if args.command == "training":
        from hybridiqa.benchmarks.training import measure_training

        return measure_training(args)
    from hybridiqa.benchmarks.scoring import measure_precision, measure_scoring

    return measure_scoring(args) if args.command == "scoring" else measure_precision(args)


def run_measurement(args: argparse.Namespace) -> None:
    """Measure speed and memory, or precision; print and write what was found."""
    from hybridiqa.benchmarks.timing import build_report, print_report

    arguments = {name: getattr(args, name) for name in args.recorded}
    report = build_report(args.command, arguments, measure(args), args.command_line, choose_device(args.device))
    print_report(report)
    if args.json:
        write_json(args.json, report)


def run(argv: list[str] | None) -> int:
    """Run one command and return the exit status.

    Raises:
        ValueError: wrong usage, or data that cannot be used.
    """
    args = parse_arguments(argv)
    if args.command == "tables":
        from hybridiqa.evaluation.readme_tables import write_tables

        return write_tables(args.check)
    import torch
    from datasets import disable_progress_bars

    complete_arguments(args)
    silence_libraries()
    disable_progress_bars()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    if args.command in REPORTS:
        print(write_report(args))
    else:
        run_measurement(args)
    return 0


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s")
    return exit_status("benchmark.py", lambda: run(argv))
