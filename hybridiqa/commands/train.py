"""Train a scorer on a prepared dataset; the output folder is ready for the Hub.

    accelerate launch train.py --dataset DIR --output_dir OUT

The defaults are the published recipe: ResNet-152 from ImageNet, 400 patches an image and epoch, batches of 300, Lion,
9 epochs. The best epoch is chosen on the validation split; the test split is read once, at the end. A run that was
stopped (Ctrl-C and SIGTERM write a checkpoint first) goes on with the same command and --resume.

    python train.py --dataset DIR --output_dir OUT --init_from . --freeze_backbone --learning_rate 4e-5
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.logging import get_logger
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from accelerate.utils import parse_flag_from_env, set_seed
from datasets import Dataset, DatasetDict, concatenate_datasets
from transformers import HfArgumentParser

from hybridiqa.data.loading import DatasetImages, ResidentImages, dataset_hash, load_prepared
from hybridiqa.data.splits import split_by_group
from hybridiqa.models import hub_code
from hybridiqa.models.loading import find_head_type, load_model
from hybridiqa.organize.actions import DISK_FULL
from hybridiqa.training import checkpoints
from hybridiqa.training.arguments import ARGUMENTS_FILE, TrainingArguments
from hybridiqa.training.checkpoints import WriteError, latest_state, write_reason
from hybridiqa.training.model import build_model
from hybridiqa.training.pooled import PooledTrainer, load_sources
from hybridiqa.training.report import METRICS_FILE, write_run
from hybridiqa.training.stopping import STATUS_OF_SIGNALS, Stopped, StopSignals, is_speaking_process
from hybridiqa.training.trainer import GROUP_NAMES, Progress, Split, Trainer, format_metrics
from hybridiqa.utils.atomic import write_json
from hybridiqa.utils.cli import CommandFailure, exit_status
from hybridiqa.utils.hub import MODEL_FILES, WEIGHTS, HubRepository, PushError, push_folder
from hybridiqa.utils.libraries import silence_libraries
from hybridiqa.utils.memory import freed_memory_kept

logger = get_logger(__name__)

CHECKPOINTS_FOLDER = "checkpoints"
STATISTICS_FOLDER = "statistics"
BYTES_PER_WEIGHT = 4  # float32; a trained weight has a gradient and Lion's momentum beside it


def default_precision(device: torch.device) -> str:
    """Return bf16 where the device computes it, float32 ("no") elsewhere."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "no"


def build_accelerator(args: TrainingArguments) -> Accelerator:
    """Set accelerate up as it was launched, with the run's precision and trackers.

    Raises:
        ValueError: a tracker that accelerate does not know or that is not installed.
    """
    for name in args.report_to:
        if name not in [str(known) for known in LOGGER_TYPE_TO_CLASS]:
            raise ValueError(f"--report_to {name} is not known; accepted: {', '.join(map(str, LOGGER_TYPE_TO_CLASS))}")
    device = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).device
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision or default_precision(device),
        log_with=args.report_to or None,
        project_dir=args.output_dir,
    )
    accelerator.gradient_accumulation_steps = 1  # ours counts the parts by itself
    if int(os.environ.get("WORLD_SIZE", 1)) != accelerator.num_processes:
        raise ValueError(
            f"{os.environ['WORLD_SIZE']} processes were started and accelerate sees {accelerator.num_processes}: "
            "on CPUs, set ACCELERATE_USE_CPU=true"
        )
    if len(accelerator.log_with) < len(set(args.report_to)):
        found = [str(getattr(tracker, "name", tracker)) for tracker in accelerator.log_with]
        raise ValueError(f"--report_to {' '.join(args.report_to)}: only {found} of these are installed")
    return accelerator


def check_scores(splits: DatasetDict, score_range: list[float]) -> None:
    """Raise ValueError where a label is missing or lies outside the range that the model's scores speak in."""
    for name, split in splits.items():
        if missing := [row for row, score in enumerate(split["score"]) if score is None or not math.isfinite(score)]:
            raise ValueError(
                f"the {name} split has {len(missing)} rows without a finite score, the first is {missing[0]}"
            )
        low, high = min(split["score"]), max(split["score"])
        if low < score_range[0] or high > score_range[1]:
            raise ValueError(
                f"the {name} split has scores {low:g} to {high:g}, outside {score_range}: give --score_range MIN MAX"
            )


def summarize(trainer: Trainer, data: dict[str, Split[ResidentImages]]) -> str:
    """Return what the run will do, before its first step."""
    args, accelerator, model = trainer.args, trainer.accelerator, trainer.model
    num_steps = args.num_epochs * trainer.steps_per_epoch
    groups = [
        f"    {name}: {sum(weight.numel() for weight in group['params']) / 1e6:.2f} M parameters at rate {rate:g}"
        for name, group, rate in zip(GROUP_NAMES, trainer.optimizer.param_groups, trainer.base_rates, strict=True)
    ]
    num_trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    num_bytes = BYTES_PER_WEIGHT * (model.num_parameters() + 2 * num_trained)
    sizes = [f"{name} {split.images.num_bytes / 1e6:.1f} MB" for name, split in data.items()]
    return "\n".join(
        [
            f"images: {', '.join(f'{name} {len(split.scores)}' for name, split in data.items())}",
            f"patches: {len(trainer.patches)} an epoch, {args.batch_size} a step",
            f"steps: {trainer.steps_per_epoch} an epoch, {min(num_steps, args.max_steps or num_steps)} at most",
            f"trained: {num_trained / 1e6:.2f} M of {model.num_parameters() / 1e6:.2f} M parameters",
            *groups,
            f"memory: {num_bytes / 1e6:.1f} MB for weights, gradients and momentum, without activations",
            f"in memory: {', '.join(sizes)}, the train split on {data['train'].images.pixels.device}",
            f"processes: {accelerator.num_processes} on {accelerator.device}, {accelerator.mixed_precision} precision",
        ]
    )


def run_once(
    args: TrainingArguments, splits: DatasetDict, accelerator: Accelerator, output_dir: Path, signals: StopSignals
) -> dict:
    """Train on the train split and write everything to the output folder; return what `metrics.json` holds."""
    set_seed(args.seed)
    with accelerator.main_process_first():  # which may have to fetch or copy what the others then find
        model = build_model(args)
    if not args.more_datasets or args.calibrate_on in (None, args.dataset):
        check_scores(splits, model.config.score_range)
    data_hash = dataset_hash(splits)
    data: Mapping[str, Split]
    if find_head_type(model.config) == "pooled":
        _begin_output(args, accelerator, output_dir)
        data, progress = fit_pooled_head(args, splits, model, accelerator, output_dir)
    else:
        data, progress = fit_network(args, splits, model, accelerator, output_dir, data_hash, signals)
    chosen = progress.find_best()
    if not math.isfinite(chosen["validation"]["srcc"]):
        logger.warning("SRCC is not defined on validation (too few images, or all scored alike): RMSE chose the epoch")
    with accelerator.main_process_first():
        best = load_model(output_dir / CHECKPOINTS_FOLDER / chosen["model"], accelerator.device, torch.float32)
    results = write_run(best, data, progress, args, accelerator, output_dir, data_hash)
    for name in ("validation", "test"):
        if name in results:
            logger.info(f"best epoch {results['best_epoch']}, {name} {format_metrics(results[name])}")
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []
    accelerator.wait_for_everyone()  # the main process is still writing
    accelerator.free_memory()
    return results


def _begin_output(args: TrainingArguments, accelerator: Accelerator, output_dir: Path) -> None:
    """Write the run's arguments into its folder, and let its trackers begin."""
    if accelerator.is_main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_json(output_dir / ARGUMENTS_FILE, asdict(args))
    if args.report_to:
        accelerator.project_configuration.set_directories(str(output_dir))
        accelerator.init_trackers("hybridIQA", {name: str(value) for name, value in asdict(args).items()})


def _refuse_complete(args: TrainingArguments, output_dir: Path) -> None:
    """Raise ValueError where a run that is complete is to go on without a checkpoint."""
    if args.resume and (output_dir / METRICS_FILE).exists():
        raise ValueError(f"--resume: {output_dir} holds a run that is complete and has no checkpoint to go on from")


def fit_network(
    args: TrainingArguments,
    splits: DatasetDict,
    model: hub_code.HybridIQAModel,
    accelerator: Accelerator,
    output_dir: Path,
    data_hash: str,
    signals: StopSignals,
) -> tuple[dict[str, Split[ResidentImages]], Progress]:
    """Train a model with the hyper head, patch by patch; return the splits and what the run came to."""
    data = {
        name: Split.load(split, accelerator.device if name == "train" else torch.device("cpu"), args, name)
        for name, split in splits.items()
    }
    _begin_output(args, accelerator, output_dir)
    model.to(accelerator.device, memory_format=torch.channels_last)
    checkpoints_dir = output_dir / CHECKPOINTS_FOLDER
    trainer = Trainer(args, model, data["train"], data["validation"], accelerator, checkpoints_dir, data_hash, signals)
    logger.info(summarize(trainer, data))
    if args.resume and not trainer.resume():
        _refuse_complete(args, output_dir)
        logger.info(f"no checkpoint in {checkpoints_dir}: begins at the first step")
    return data, trainer.fit()


def fit_pooled_head(
    args: TrainingArguments,
    splits: DatasetDict,
    model: hub_code.HybridIQAModel,
    accelerator: Accelerator,
    output_dir: Path,
) -> tuple[dict[str, Split[DatasetImages]], Progress]:
    """Train a pooled head on the frozen backbone; return the splits of --dataset and what the run came to."""
    _refuse_complete(args, output_dir)
    checkpoints_dir = output_dir / CHECKPOINTS_FOLDER
    folder = Path(args.statistics_dir) if args.statistics_dir else checkpoints_dir / STATISTICS_FOLDER
    datasets = {args.dataset: splits}
    for name in args.more_datasets:
        datasets[name] = load_prepared(name, ("train", "validation"))
        check_scores(datasets[name], model.config.score_range if name == args.calibrate_on else [-math.inf, math.inf])
    model.to(accelerator.device)
    sources = load_sources(datasets, model, args, accelerator, folder)
    trainer = PooledTrainer(model, sources, args)
    trainer.fit()
    progress = Progress(step=args.pooled_steps, losses=trainer.losses, history=trainer.history)
    epoch = trainer.find_best()["epoch"]
    num_bytes = model.get_memory_footprint()
    name = checkpoints.save_model(accelerator, checkpoints_dir, epoch, model, model.state_dict(), num_bytes)
    progress.best = trainer.find_best() | {"model": name}
    return {name: Split.open(split, name) for name, split in splits.items()}, progress


def resplit(dataset: Dataset, shares: dict[str, float], seed: int) -> DatasetDict:
    """Deal the rows anew into splits of these shares, whole groups (or rows, where there are none) together."""
    groups = dataset["group"] if "group" in dataset.column_names else [str(row) for row in range(len(dataset))]
    indices = split_by_group(list(dataset["score"]), list(groups), list(shares.values()), seed)
    return DatasetDict({name: dataset.select(rows) for name, rows in zip(shares, indices, strict=True)})


def run_repeats(
    args: TrainingArguments, num_repeats: int, splits: DatasetDict, accelerator: Accelerator, signals: StopSignals
) -> dict:
    """Train on many random splits by group, as is the field's protocol; return what `repeats.json` holds.

    Every repeat is a run of its own in `repeat-01`, `repeat-02` ..., split and seeded by --seed, --seed + 1 ...; those
    that are complete are not run again. Reported are median and standard deviation of the metrics on the test splits.

    Raises:
        ValueError: no test split, whose share the random ones could take.
    """
    if "test" not in splits:
        raise ValueError(f"--num_repeats needs a dataset with a test split, {args.dataset} has {', '.join(splits)}")
    dataset = concatenate_datasets(list(splits.values()))
    shares = {name: len(split) / len(dataset) for name, split in splits.items()}
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        write_json(Path(args.output_dir, ARGUMENTS_FILE), asdict(args))
    rows = []
    for number in range(num_repeats):
        output_dir = Path(args.output_dir, f"repeat-{number + 1:02d}")
        repeat = replace(args, output_dir=str(output_dir), seed=args.seed + number, num_repeats=None)
        if (output_dir / METRICS_FILE).exists():
            rows.append(json.loads((output_dir / METRICS_FILE).read_text(encoding="utf-8"))["test"])
        else:
            repeat_splits = resplit(dataset, shares, repeat.seed)
            rows.append(run_once(repeat, repeat_splits, accelerator, output_dir, signals)["test"])
        logger.info(f"repeat {number + 1}/{num_repeats}, test {format_metrics(rows[-1])}")
    results = {"num_repeats": num_repeats, "shares": shares, "test": _summarize_repeats(rows), "repeats": rows}
    if accelerator.is_main_process:
        write_json(Path(args.output_dir, "repeats.json"), results)
    return results


def _summarize_repeats(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Return median and standard deviation of each metric over the repeats in which it is defined."""
    summary = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if row.get(name) is not None and math.isfinite(row[name])]
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        summary[name] = {"median": statistics.median(values) if values else math.nan, "standard_deviation": deviation}
    return summary


def run(args: TrainingArguments, signals: StopSignals) -> dict:
    """Do the whole run; return what `metrics.json`, or with --num_repeats `repeats.json`, holds."""
    accelerator = build_accelerator(args)
    repository = HubRepository(args.hub_model_id, "model", args.hub_private) if args.hub_model_id else None
    if repository and accelerator.is_main_process:
        repository.check()
    with freed_memory_kept(accelerator.device.type == "cpu"):
        splits = load_prepared(args.dataset, ("train", "validation"))
        if args.num_repeats is None:
            results = run_once(args, splits, accelerator, Path(args.output_dir), signals)
        else:
            results = run_repeats(args, args.num_repeats, splits, accelerator, signals)
    # What wraps the model has to go before the process group: as its last owner, it would wait for gloo's threads with
    # Python's lock held, which they may need to let go of a tensor.
    accelerator.free_memory()
    accelerator.end_training()
    if repository and accelerator.is_main_process:
        url = push_folder(Path(args.output_dir), repository, MODEL_FILES, WEIGHTS, "Trained by hybridIQA's train.py")
        print(f"pushed to {url}")
    return results


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help with one spelling and one line an option, and the default where the text does not tell it."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=120)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        takes_value = action.nargs != 0 and not isinstance(action.default, bool)
        return action.option_strings[0] + (" ..." if takes_value else "")

    def _get_help_string(self, action: argparse.Action) -> str | None:
        is_told = (
            action.default in (None, argparse.SUPPRESS) or isinstance(action.default, bool | list) or action.required
        )
        return action.help if is_told else f"{action.help} (default: {action.default})"


def how_to_go_on(args: TrainingArguments) -> str:
    """Return where the last checkpoint of a run is that ended early, and how it goes on."""
    runs = [Path(args.output_dir), *sorted(Path(args.output_dir).glob("repeat-*"))]
    found = [folder for run in runs if (folder := latest_state(run / CHECKPOINTS_FOLDER)) is not None]
    if not found:
        return "there is no checkpoint yet, the same command with --resume begins at the first step"
    return f"the last checkpoint is {found[-1]}, the same command with --resume goes on from it"


def parse_arguments(argv: list[str] | None) -> TrainingArguments:
    """Parse a command line. Raises ValueError for values that no run can have."""
    parser = HfArgumentParser(
        TrainingArguments,  # type: ignore[arg-type]  # it is annotated with a NewType that no class has
        usage="accelerate launch train.py --dataset DIR --output_dir OUT [options]",
        description=__doc__,
        formatter_class=_HelpFormatter,
    )
    (args,) = parser.parse_args_into_dataclasses(argv)
    return args


def _failure(message: str, status: int = 1) -> CommandFailure:
    """Return what ends a run in every process, told by the one that speaks."""
    return CommandFailure(message if is_speaking_process() else "", status)


def run_to_the_end(argv: list[str] | None) -> None:
    """Train; whatever ends a run early says how it goes on.

    Raises:
        ValueError: wrong usage or input, found before training.
        CommandFailure: a signal, a full disk, a loss that is no number, or a push that did not arrive.
    """
    args, signals = parse_arguments(argv), StopSignals()
    try:
        with signals:
            run(args, signals)
    except Stopped as stop:
        raise _failure(f"stopped by {stop}: {how_to_go_on(args)}", STATUS_OF_SIGNALS + stop.number) from stop
    except WriteError as error:
        raise _failure(f"stopped: {error}; {how_to_go_on(args)}") from error
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        reason = f"cannot write {error.filename}: {write_reason(error)}"
        raise _failure(f"stopped: {reason}; {how_to_go_on(args)}") from error
    except FloatingPointError as error:
        raise CommandFailure(f"stopped: {error}") from error
    except PushError as error:
        again = f"The trained model is whole in {args.output_dir}; the same command with --resume pushes it."
        raise CommandFailure(f"{error}. {again}") from error
    except RuntimeError as error:
        if signals.received is None or is_speaking_process():
            raise
        raise _failure("", STATUS_OF_SIGNALS + signals.received) from error  # the one that speaks was gone before


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s")
    for name in (__name__, "hybridiqa"):
        logging.getLogger(name).setLevel(logging.INFO)
    silence_libraries()
    return exit_status("train.py", lambda: run_to_the_end(argv))
