"""Agreement of scorers with people's scores, each by itself and two beside each other: `benchmark.py ranking`."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from hybridiqa.evaluation.datasets import RatedImages, load_dataset
from hybridiqa.evaluation.preferences import Preferences, measure_accuracy
from hybridiqa.evaluation.published import choose_published
from hybridiqa.evaluation.scorers import Scorer, ScorerOptions, load_scorers, split_label
from hybridiqa.evaluation.subsets import assign_subsets, read_patterns
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
    compute_intervals,
    compute_metrics,
    difference_intervals,
    fit_logistic,
    fit_logistic5,
    is_defined,
)

CONFIDENCE = 0.95

FITS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, ...]]] = {
    "plcc_logistic": fit_logistic,
    "plcc_logistic5": fit_logistic5,
}
# Errors are no measure of two scorers of different scales; all others are the higher the better.
NOT_COMPARED = ("rmse", "rmse_logistic")


def explain_failed_fits(predictions: np.ndarray, references: np.ndarray) -> dict[str, str]:
    """Return why a fit has no value, by the metric that needs it."""
    failed = {}
    for name, fit in FITS.items():
        try:
            fit(predictions, references)
        except (ValueError, LogisticFitError) as error:
            failed[name] = str(error)
    return failed


def _measure_agreement(
    predictions: np.ndarray, references: np.ndarray, groups: Sequence[str] | None, num_resamples: int, seed: int
) -> tuple[dict, dict[str, np.ndarray]]:
    """Return a row's metrics with their intervals and failed fits, and the metrics' bootstrap samples."""
    metrics = compute_metrics(predictions, references, groups)
    samples = bootstrap_samples(predictions, references, groups, num_resamples, seed)
    intervals = compute_intervals(samples)
    row = {
        "num_images": len(references),
        "metrics": {name: {"value": value, "interval": intervals[name]} for name, value in metrics.items()},
        "failed_fits": explain_failed_fits(predictions, references),
    }
    return row, samples


@dataclass(frozen=True)
class Part:
    """Images of one group or one subset, with one model's predictions.

    Args:
        labels: what its row is called: `model` and `group`, or `model` and `subset`.
        groups: one an image, where whole groups are resampled.
    """

    labels: dict[str, str]
    predictions: np.ndarray
    references: np.ndarray
    groups: list[str] | None = None


def _measure_part(part: Part, num_resamples: int, seed: int) -> dict:
    row, _ = _measure_agreement(part.predictions, part.references, part.groups, num_resamples, seed)
    return {**part.labels, **row}


def _split_by_group(
    model: str, predictions: np.ndarray, references: np.ndarray, groups: Sequence[str]
) -> Iterator[Part]:
    """Yield each group that is large enough."""
    labels = np.asarray(groups)
    for group in dict.fromkeys(groups):
        is_member = labels == group
        if is_member.sum() >= MIN_GROUP_SIZE:
            yield Part({"model": model, "group": group}, predictions[is_member], references[is_member])


def _split_by_subset(
    model: str,
    predictions: np.ndarray,
    references: np.ndarray,
    groups: Sequence[str] | None,
    subsets: Sequence[str | None],
) -> Iterator[Part]:
    """Yield each subset, however small, by name; one that lies in a single group is resampled by its images."""
    for subset in sorted({name for name in subsets if name is not None}):
        members = [index for index, name in enumerate(subsets) if name == subset]
        of_members = [groups[index] for index in members] if groups else []
        part_groups = of_members if len(set(of_members)) > 1 else None
        yield Part({"model": model, "subset": subset}, predictions[members], references[members], part_groups)


def compare_models(first: dict, second: dict, samples: Mapping[str, dict[str, np.ndarray]]) -> dict:
    """Return first less second by metric, with the interval of the paired bootstrap and whether it excludes 0.

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


def find_scored_by_all(scores: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Return which images every scorer has a score for: `(images,)`, so that all are measured on the same.

    Raises:
        ValueError: fewer than two.
    """
    is_scored = np.all([np.isfinite(values) for values in scores.values()], axis=0)
    if is_scored.sum() < 2:
        raise ValueError(f"{int(is_scored.sum())} of {is_scored.size} images have a score of every model; 2 are needed")
    return is_scored


def measure_ranking(
    data: RatedImages,
    scores: Mapping[str, Sequence[float]],
    num_resamples: int = 1000,
    seed: int = 0,
    num_workers: int = 1,
) -> dict:
    """Measure how every scorer agrees with the true scores: in all, by group and by subset, and scorer against scorer.

    Images that one of the scorers has no score for are left out for all. Intervals are 95 %: whole groups are
    resampled where there are any, the images of a group for its own row.

    Args:
        scores: one an image, NaN for none, by scorer.
        num_workers: processes that share the groups' and subsets' rows, which take as long as all images' own.

    Returns:
        `rows` (one a model), `groups` (one a model and group), `subsets` (one a model and subset), `differences` (one
        a pair of models), `left_out`.

    Raises:
        ValueError: fewer than two images are left.
    """
    is_scored = find_scored_by_all(scores)
    references = np.asarray(data.references, float)[is_scored]
    groups = data.groups and list(itertools.compress(data.groups, is_scored))
    subsets = list(itertools.compress(data.subsets or (), is_scored))
    rows, samples = [], {}
    parts: list[Part] = []
    for model, values in scores.items():
        predictions = np.asarray(values, float)[is_scored]
        row, samples[model] = _measure_agreement(predictions, references, groups, num_resamples, seed)
        rows.append({"model": model, **row})
        parts += _split_by_group(model, predictions, references, groups or ())
        parts += _split_by_subset(model, predictions, references, groups, subsets)
    measure = partial(_measure_part, num_resamples=num_resamples, seed=seed)
    part_rows = map_in_processes(measure, parts, num_workers)
    return {
        "rows": rows,
        "groups": [row for row in part_rows if "group" in row],
        "subsets": [row for row in part_rows if "subset" in row],
        "differences": [compare_models(first, second, samples) for first, second in itertools.combinations(rows, 2)],
        "left_out": [name for name, kept in zip(data.names, is_scored, strict=True) if not kept],
    }


def measure_preferences(
    data: Preferences, scores: Mapping[str, list[float]], num_resamples: int = 1000, seed: int = 0
) -> dict:
    """Measure every scorer's agreement with people's preferences; as `measure_ranking`, without groups and subsets.

    Raises:
        ValueError: no pair is left that every scorer has scored.
    """
    is_scored = find_scored_by_all(scores)
    rows, samples = [], {}
    for model, values in scores.items():
        kept = np.where(is_scored, values, np.nan)
        row, samples[model] = measure_accuracy(data.comparisons, kept, num_resamples, seed)
        intervals = compute_intervals(samples[model])
        metrics = {name: {"value": value, "interval": intervals[name]} for name, value in row["metrics"].items()}
        rows.append({"model": model, **row, "metrics": metrics})
    left_out = [name for name, kept in zip(data.names, is_scored, strict=True) if not kept]
    return {
        "rows": rows,
        "groups": [],
        "subsets": [],
        "differences": [compare_models(first, second, samples) for first, second in itertools.combinations(rows, 2)],
        "left_out": data.missing + left_out,
    }


def _describe(data: RatedImages | Preferences) -> str:
    if isinstance(data, Preferences):
        prompts = len({comparison.prompt for comparison in data.comparisons})
        return f"{data.layout}: {len(data.sources):,} images of {prompts:,} prompts"
    groups = f" in {len(set(data.groups)):,} groups" if data.groups else ""
    of_split = "" if data.num_in_split is None else f" of {data.num_in_split:,}"
    in_no_subset = (data.subsets or []).count(None)
    outside = f", {in_no_subset:,} in no subset" if in_no_subset else ""
    return f"split {data.split}: {len(data.sources):,}{of_split} images{groups}{outside}"


def measure_dataset(
    name: str,
    data: RatedImages | Preferences,
    scorers: Mapping[str, Scorer],
    num_resamples: int,
    seed: int,
    num_workers: int,
) -> tuple[dict, dict[str, list[float]]]:
    """Return one dataset's part of the report, and the scores of every model that can score its images.

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
    name: str, data: RatedImages | Preferences, scores: Mapping[str, list[float]], models: Iterable[str]
) -> Iterator[list]:
    for index, image in enumerate(data.names):
        reference = data.references[index] if isinstance(data, RatedImages) else ""
        yield [name, image, reference, *(scores[model][index] if model in scores else "" for model in models)]


def _name_datasets(given: Sequence[str]) -> dict[str, str]:
    """Return datasets by name."""
    named = [split_label(dataset) for dataset in given]
    if len({name for name, _ in named}) < len(named):
        raise ValueError(f"--dataset has a name twice ({', '.join(name for name, _ in named)}): use NAME=DATASET")
    return dict(named)


def _load_datasets(args: Namespace, published: Mapping[str, list[dict]]) -> dict[str, RatedImages | Preferences]:
    """Load the datasets, each image with its subset where there are subsets.

    Raises:
        ValueError: one that cannot be loaded, or preferences where true scores are needed.
    """
    named = _name_datasets(args.dataset)
    patterns = read_patterns(args.subsets or (), named)
    datasets = {name: load_dataset(dataset, args.split, args.limit) for name, dataset in named.items()}
    for name, data in datasets.items():
        if isinstance(data, RatedImages):
            if name in patterns:
                datasets[name] = replace(data, subsets=assign_subsets(patterns[name], data.names, name))
        elif name in patterns or args.limit is not None or published[name]:
            raise ValueError(f"{name} holds preferences: --subsets, --limit and --published are for true scores")
    return datasets


def run_ranking(args: Namespace) -> str:
    """Measure and write everything; return the report in Markdown.

    Raises:
        ValueError: wrong usage, found before the long work as far as it can be, or nothing to measure.
    """
    published = choose_published(args.published, _name_datasets(args.dataset))
    with new_folder(args.output_dir) as unfinished:
        datasets = _load_datasets(args, published)
        scorers = load_scorers(args.model, ScorerOptions.from_arguments(args))
        results = {}
        lines: list[list] = []
        for name, data in datasets.items():
            measured, scores = measure_dataset(
                name, data, scorers, args.num_resamples, args.seed, max(1, args.num_workers)
            )
            results[name] = {**measured, "published": published[name]}
            lines += _score_lines(name, data, scores, scorers)
            if isinstance(data, RatedImages):
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
