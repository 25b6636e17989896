"""Agreement of scorers with people's scores, each by itself and two beside each other: `benchmark.py ranking`."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from hybridiqa.evaluation.datasets import RatedPictures, load_measured
from hybridiqa.evaluation.preferences import Preferences, preference_accuracy
from hybridiqa.evaluation.scorers import Scorer, ScorerOptions, load_scorers, split_label
from hybridiqa.evaluation.tables import CSV_COLUMNS, ranking_csv, ranking_markdown, write_csv
from hybridiqa.utils.atomic import new_folder, write_json
from hybridiqa.utils.devices import choose_device
from hybridiqa.utils.plots import plot_ranking
from hybridiqa.utils.processes import map_in_processes
from hybridiqa.utils.runs import describe_run
from metrics.iqa.iqa import (
    MIN_GROUP_SIZE,
    LogisticFitError,
    bootstrap_samples,
    compute_metrics,
    difference_intervals,
    fit_logistic,
    fit_logistic5,
    intervals_of,
    is_defined,
)

CONFIDENCE = 0.95

FITS = {"plcc_logistic": fit_logistic, "plcc_logistic5": fit_logistic5}
# Errors are no measure of two scorers of different scales; all others are the higher the better.
NOT_COMPARED = ("rmse", "rmse_logistic")


def failed_fits(predictions: np.ndarray, references: np.ndarray) -> dict[str, str]:
    """Why a fit has no value, by the metric that needs it."""
    failed = {}
    for name, fit in FITS.items():
        try:
            fit(predictions, references)
        except (ValueError, LogisticFitError) as error:
            failed[name] = str(error)
    return failed


def _agreement(
    predictions: np.ndarray, references: np.ndarray, groups: Sequence[str] | None, num_resamples: int, seed: int
) -> tuple[dict, dict[str, np.ndarray]]:
    """A row's metrics with their intervals and failed fits, and the metrics' bootstrap samples."""
    metrics = compute_metrics(predictions, references, groups)
    samples = bootstrap_samples(predictions, references, groups, num_resamples, seed)
    intervals = intervals_of(samples)
    row = {
        "num_images": len(references),
        "metrics": {name: {"value": value, "interval": intervals[name]} for name, value in metrics.items()},
        "failed_fits": failed_fits(predictions, references),
    }
    return row, samples


def _group_row(job: tuple[str, str, np.ndarray, np.ndarray], num_resamples: int, seed: int) -> dict:
    model, group, predictions, references = job
    row, _ = _agreement(predictions, references, None, num_resamples, seed)
    return {"model": model, "group": group, **row}


def _group_jobs(
    model: str, predictions: np.ndarray, references: np.ndarray, groups: Sequence[str]
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Predictions and references of each group that is large enough."""
    labels = np.asarray(groups)
    for group in dict.fromkeys(groups):
        is_member = labels == group
        if is_member.sum() >= MIN_GROUP_SIZE:
            yield model, group, predictions[is_member], references[is_member]


def compare(first: dict, second: dict, samples: Mapping[str, dict[str, np.ndarray]]) -> dict:
    """First less second, metric by metric, with the interval of the paired bootstrap and whether it excludes 0.

    Args:
        first, second: rows, with the names of their models.
        samples: of both, by model.
    """
    intervals = difference_intervals(samples[first["model"]], samples[second["model"]])
    differences = {}
    for name, interval in intervals.items():
        if name not in NOT_COMPARED:
            value = first["metrics"][name]["value"] - second["metrics"][name]["value"]
            differ = all(map(is_defined, interval)) and not interval[0] <= 0 <= interval[1]
            differences[name] = {"value": value, "interval": interval, "differ": differ}
    return {"first": first["model"], "second": second["model"], "metrics": differences}


def scored_by_all(scores: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Which pictures every scorer has a score for: `(pictures,)`, so that all are measured on the same.

    Raises:
        ValueError: fewer than two.
    """
    is_scored = np.all([np.isfinite(values) for values in scores.values()], axis=0)
    if is_scored.sum() < 2:
        raise ValueError(
            f"{int(is_scored.sum())} of {is_scored.size} pictures have a score of every model; 2 are needed"
        )
    return is_scored


def measure_ranking(
    data: RatedPictures,
    scores: Mapping[str, Sequence[float]],
    num_resamples: int = 1000,
    seed: int = 0,
    num_workers: int = 1,
) -> dict:
    """The agreement of every scorer with the true scores, in all, within groups, and scorer against scorer.

    Pictures that one of the scorers has no score for are left out for all. Intervals are 95 %: whole groups are
    resampled where there are any, the images of a group for its own row.

    Args:
        scores: one a picture, NaN for none, by scorer.
        num_workers: processes that share the groups' rows, which take as long as all pictures' own.

    Returns:
        `rows` (one a model), `groups` (one a model and group), `differences` (one a pair of models), `left_out`.

    Raises:
        ValueError: fewer than two pictures are left.
    """
    is_scored = scored_by_all(scores)
    references = np.asarray(data.references, float)[is_scored]
    groups = data.groups and [group for group, kept in zip(data.groups, is_scored, strict=True) if kept]
    rows, jobs, samples = [], [], {}
    for model, values in scores.items():
        predictions = np.asarray(values, float)[is_scored]
        row, samples[model] = _agreement(predictions, references, groups, num_resamples, seed)
        rows.append({"model": model, **row})
        jobs += _group_jobs(model, predictions, references, groups or ())
    return {
        "rows": rows,
        "groups": map_in_processes(partial(_group_row, num_resamples=num_resamples, seed=seed), jobs, num_workers),
        "differences": [compare(first, second, samples) for first, second in itertools.combinations(rows, 2)],
        "left_out": [name for name, kept in zip(data.names, is_scored, strict=True) if not kept],
    }


def measure_preferences(
    data: Preferences, scores: Mapping[str, list[float]], num_resamples: int = 1000, seed: int = 0
) -> dict:
    """Every scorer's agreement with people's preferences; as `measure_ranking`, without groups.

    Raises:
        ValueError: no pair is left that every scorer has scored.
    """
    is_scored = scored_by_all(scores)
    rows, samples = [], {}
    for model, values in scores.items():
        kept = np.where(is_scored, values, np.nan)
        row, samples[model] = preference_accuracy(data.comparisons, kept, num_resamples, seed)
        intervals = intervals_of(samples[model])
        metrics = {name: {"value": value, "interval": intervals[name]} for name, value in row["metrics"].items()}
        rows.append({"model": model, **row, "metrics": metrics})
    left_out = [name for name, kept in zip(data.names, is_scored, strict=True) if not kept]
    return {
        "rows": rows,
        "groups": [],
        "differences": [compare(first, second, samples) for first, second in itertools.combinations(rows, 2)],
        "left_out": data.missing + left_out,
    }


def _describe(data: RatedPictures | Preferences) -> str:
    if isinstance(data, Preferences):
        prompts = len({comparison.prompt for comparison in data.comparisons})
        return f"{data.layout}: {len(data.sources):,} pictures of {prompts:,} prompts"
    groups = f" in {len(set(data.groups)):,} groups" if data.groups else ""
    return f"split {data.split}: {len(data.sources):,} pictures{groups}"


def measure_dataset(
    name: str,
    data: RatedPictures | Preferences,
    scorers: Mapping[str, Scorer],
    num_resamples: int,
    seed: int,
    num_workers: int,
) -> tuple[dict, dict[str, list[float]]]:
    """One dataset's part of the report, and the scores of every model that can score its pictures.

    Raises:
        ValueError: none of the scorers can, or they have scores for too few.
    """
    prompts = data.prompts if isinstance(data, Preferences) else None
    able = {model: scorer for model, scorer in scorers.items() if prompts or not scorer.needs_prompts}
    if not able:
        raise ValueError(f"{name} has no prompts, which every one of the models needs")
    scores = {model: scorer.score(data.sources, prompts) for model, scorer in able.items()}
    if isinstance(data, Preferences):
        measured = measure_preferences(data, scores, num_resamples, seed)
    else:
        measured = measure_ranking(data, scores, num_resamples, seed, num_workers)
    result = {
        "description": _describe(data),
        "data_hash": data.data_hash,
        "not_measured": {model: "it needs prompts" for model in scorers if model not in able},
        **measured,
    }
    return result, scores


def _score_lines(
    name: str, data: RatedPictures | Preferences, scores: Mapping[str, list[float]], models: Iterable[str]
) -> Iterator[list]:
    for index, picture in enumerate(data.names):
        reference = data.references[index] if isinstance(data, RatedPictures) else ""
        yield [name, picture, reference, *(scores[model][index] if model in scores else "" for model in models)]


def run_ranking(args: Namespace) -> str:
    """Measure and write everything; returns the report in Markdown.

    Raises:
        ValueError: wrong usage, found before the long work as far as it can be, or nothing to measure.
    """
    named = [split_label(dataset) for dataset in args.dataset]
    if len({name for name, _ in named}) < len(named):
        raise ValueError(f"--dataset has a name twice ({', '.join(name for name, _ in named)}): use NAME=DATASET")
    with new_folder(args.output_dir) as unfinished:
        datasets = {name: load_measured(dataset, args.split) for name, dataset in named}
        options = ScorerOptions(
            args.device, args.num_patches, args.batch_size, args.num_workers, args.trust_remote_code
        )
        scorers = load_scorers(args.model, options)
        results, lines = {}, []
        for name, data in datasets.items():
            results[name], scores = measure_dataset(
                name, data, scorers, args.num_resamples, args.seed, max(1, args.num_workers)
            )
            lines += _score_lines(name, data, scores, scorers)
            if isinstance(data, RatedPictures):
                plot_ranking(scores, data.references, unfinished / f"{name}.png", name)
        report = {
            "kind": "ranking",
            **describe_run(args.command_line, choose_device(args.device)),
            "num_resamples": args.num_resamples,
            "seed": args.seed,
            "confidence": CONFIDENCE,
            "models": {name: scorer.description for name, scorer in scorers.items()},
            "datasets": results,
        }
        write_json(unfinished / "report.json", report)
        (unfinished / "report.md").write_text(ranking_markdown(report), encoding="utf-8")
        write_csv(unfinished / "metrics.csv", CSV_COLUMNS, ranking_csv(report))
        write_csv(unfinished / "scores.csv", ["dataset", "path", "reference", *scorers], lines)
    return ranking_markdown(report)
