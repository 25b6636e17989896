"""`benchmark.py ranking`: every scorer on every dataset, and what is written of it."""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from hybridiqa.evaluation.datasets import RatedPictures, load_measured
from hybridiqa.evaluation.preferences import Preferences, preference_accuracy
from hybridiqa.evaluation.ranking import compare, measure_ranking, scored_by_all
from hybridiqa.evaluation.scorers import Scorer, ScorerOptions, load_scorers, split_label
from hybridiqa.evaluation.tables import CSV_COLUMNS, ranking_csv, ranking_markdown, write_csv
from hybridiqa.utils.atomic import new_folder, write_json
from hybridiqa.utils.plots import plot_ranking
from hybridiqa.utils.runtime import choose_device, describe_run
from metrics.iqa.iqa import intervals_of

CONFIDENCE = 0.95


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
