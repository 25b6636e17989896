"""Report of a finished run, beside its model: metrics, predictions, plots and the model card."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator

from hybridiqa.data.loading import is_on_hub
from hybridiqa.models import hub_code
from hybridiqa.models.model_card import RunFacts, SplitFacts, write_model_card
from hybridiqa.models.percentiles import score_quantiles
from hybridiqa.training.arguments import TrainingArguments
from hybridiqa.training.checkpoints import WriteError, new_files, write_reason
from hybridiqa.training.trainer import Progress, Split, predict
from hybridiqa.utils.atomic import write_json
from hybridiqa.utils.plots import plot_predictions, plot_training
from metrics.iqa.iqa import bootstrap_intervals, compute_metrics

METRICS_FILE = "metrics.json"
PRECISION_NAMES = {"no": "float32", "bf16": "bfloat16 mixed precision", "fp16": "float16 mixed precision"}


def _write_rows(path: Path, header: list[str], rows: list[list]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def write_run(
    model: hub_code.HybridIQAModel,
    data: Mapping[str, Split],
    progress: Progress,
    args: TrainingArguments,
    accelerator: Accelerator,
    output_dir: Path,
    data_hash: str,
) -> dict:
    """Score the splits that were not learned from by the best model, as its users will load it, and write all results.

    Args:
        model: the best epoch's, loaded from its folder.
        data: the run's splits by name.

    Returns:
        What `metrics.json` holds; on processes other than the main one, which writes nothing, without the intervals.
        That file is written last: it says that the run is complete.

    Raises:
        WriteError: one of the files could not be written; the model is there whole, as before, or not at all.
    """
    scored = {name: split for name, split in data.items() if name != "train"}
    predictions = {name: predict(model, split.images, accelerator) for name, split in scored.items()}
    results = {
        "num_images": {name: len(split.scores) for name, split in data.items()},
        "best_epoch": progress.find_best()["epoch"],
        "num_steps": progress.step,
    }
    for name, split in scored.items():
        results[name] = compute_metrics(predictions[name], split.scores, split.groups)
    if not accelerator.is_main_process:
        return results
    results["intervals"] = {
        name: bootstrap_intervals(predictions[name], split.scores, split.groups, args.num_resamples)
        for name, split in scored.items()
    }
    results["history"] = progress.history
    model.config.score_quantiles = score_quantiles(predictions["validation"])
    num_bytes = model.get_memory_footprint()
    with new_files(output_dir, num_bytes) as unfinished:
        model.save_pretrained(unfinished)
    try:
        _write_report(output_dir, data, predictions, progress)
        write_model_card(output_dir, _card_facts(model, data, results, args, accelerator, data_hash))
        write_json(output_dir / METRICS_FILE, results)
    except OSError as error:
        raise WriteError(Path(error.filename or output_dir), write_reason(error), num_bytes) from error
    return results


def _write_report(
    output_dir: Path, data: Mapping[str, Split], predictions: dict[str, list[float]], progress: Progress
) -> None:
    """Write predictions, losses and plots."""
    rows = [
        [name, path, score, prediction]
        for name in predictions
        for path, score, prediction in zip(data[name].paths, data[name].scores, predictions[name], strict=True)
    ]
    _write_rows(output_dir / "predictions.csv", ["split", "path", "score", "prediction"], rows)
    _write_rows(output_dir / "losses.csv", ["step", "loss"], progress.losses)
    plot_training(progress.history, [(int(step), loss) for step, loss in progress.losses], output_dir / "training.png")
    for name in predictions:
        plot_predictions(predictions[name], data[name].scores, output_dir / f"{name}.png", f"{name} split")


def _card_facts(
    model: hub_code.HybridIQAModel,
    data: Mapping[str, Split],
    results: dict,
    args: TrainingArguments,
    accelerator: Accelerator,
    data_hash: str,
) -> RunFacts:
    splits = {
        name: SplitFacts(
            len(split.scores),
            len(set(split.groups)) if split.groups else None,
            results.get(name, {}),
            results["intervals"].get(name, {}),
        )
        for name, split in data.items()
    }
    return RunFacts(
        dataset=args.dataset,
        dataset_hash=data_hash,
        splits=splits,
        score_range=model.config.score_range,
        score_quantiles=model.config.score_quantiles,
        num_epochs=len(results["history"]),
        best_epoch=results["best_epoch"],
        num_steps=results["num_steps"],
        num_eval_patches=model.image_processor.num_patches,
        seed=args.seed,
        hub_dataset_id=args.dataset if is_on_hub(args.dataset) else None,
        hub_model_id=args.hub_model_id if args.push_to_hub else None,
        command=sys.argv,
        device=f"{accelerator.num_processes} x {accelerator.device.type}",
        precision=f"trained in {PRECISION_NAMES[accelerator.mixed_precision]}, measured in float32",
    )
