"""`benchmark.py robustness`: damaged versions of clean pictures, put in order by every scorer."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hybridiqa.data.loading import HASH_LENGTH
from hybridiqa.distortions.trained import SEVERITIES
from hybridiqa.evaluation.robustness import DamagedPictures, mean_scores, ordering, stability
from hybridiqa.evaluation.scorers import ScorerOptions, load_scorers
from hybridiqa.evaluation.tables import markdown_table, number, with_interval, write_csv
from hybridiqa.utils.atomic import new_folder, write_json
from hybridiqa.utils.files import as_text, content_hash, has_image_suffix, walk_files
from hybridiqa.utils.runtime import choose_device, describe_run

MEASURES = {"clean_over_damaged": "clean over damaged", "mild_over_strong": "milder over stronger"}


def hash_pictures(root: Path, paths: list[Path]) -> str:
    """16 hexadecimal digits over the pictures' names below the folder and their bytes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{as_text(path.relative_to(root).as_posix())} {content_hash(path)}\n".encode())
    return digest.hexdigest()[:HASH_LENGTH]


def families_of(report: dict) -> list[str]:
    """What the report has measures of: groups of families (`robustness.GROUPS_OF_FAMILIES`) first, then families."""
    result = next(iter(report["models"].values()))
    return list(dict.fromkeys(row["families"] for row in result["ordering"]))


def _ordering_rows(report: dict, families: list[str], severities: list[int | None]) -> Iterator[list[str]]:
    for family in families:
        for severity in severities:
            for model, result in report["models"].items():
                row = next(
                    row for row in result["ordering"] if (row["families"], row["severity"]) == (family, severity)
                )
                shown = [with_interval(row[measure]) for measure in MEASURES]
                yield [family, *([] if severity is None else [str(severity)]), model, *shown]


def ordering_table(report: dict, families: list[str] | None = None) -> str:
    """One line a family and model, over all severities."""
    families = families or families_of(report)
    return markdown_table(["damage", "model", *MEASURES.values()], list(_ordering_rows(report, families, [None])))


def stability_table(report: dict) -> str:
    """One line a change and model."""
    changes = [row["change"] for row in next(iter(report["models"].values()))["stability"]]
    rows = []
    for index, change in enumerate(changes):
        for model, result in report["models"].items():
            row = result["stability"][index]
            shown = (number(row[name]) for name in ("median", "percentile_95", "relative_median"))
            rows.append([change, model, *shown])
    return markdown_table(["change", "model", "median", "95th percentile", "median / spread of its scores"], rows)


def mean_score_table(report: dict) -> str:
    """One line a model: its mean score of clean pictures and of each severity."""
    rows = [
        [model, *(number(score, 2) for score in result["mean_scores"])] for model, result in report["models"].items()
    ]
    return markdown_table(["mean score", "clean", *(f"severity {severity}" for severity in SEVERITIES)], rows)


def _unscored_lines(report: dict) -> list[str]:
    """One line that names the versions without a score, and the models that have none; nothing where all have one."""
    models_of = {}
    for model, result in report["models"].items():
        for name in result["unscored"]:
            models_of.setdefault(name, []).append(model)
    if not models_of:
        return []
    shown = ", ".join(f"{name} ({', '.join(models)})" for name, models in models_of.items())
    return [f"No score (a damage without effect, or no whole picture), left out: {shown}"]


def robustness_markdown(report: dict) -> str:
    """The whole report."""
    by_severity = list(_ordering_rows(report, families_of(report), [*SEVERITIES]))
    return "\n\n".join(
        [
            "# Robustness",
            f"`{report['command']}`",
            f"Commit {report['commit']}, {report['device']}. {report['num_pictures']} pictures, data hash "
            f"{report['data_hash']}. Intervals are 95 %, over pictures; a tie counts as wrong.",
            *(f"- {model}: {result['description']}" for model, result in report["models"].items()),
            *_unscored_lines(report),
            ordering_table(report),
            "How much the score changes where it should not:",
            stability_table(report),
            mean_score_table(report),
            "By severity; milder over stronger tells of this severity over all stronger ones:",
            markdown_table(["damage", "severity", "model", *MEASURES.values()], by_severity),
        ]
    )


def _csv_rows(report: dict) -> Iterator[list]:
    for model, result in report["models"].items():
        for row in result["ordering"]:
            for measure in MEASURES:
                low, high = row[measure]["interval"]
                severity = row["severity"] or "all"
                yield [model, row["families"], severity, measure, row[measure]["value"], low, high]
        for row in result["stability"]:
            for measure in ("median", "percentile_95", "relative_median"):
                yield [model, row["change"], "", measure, row[measure], "", ""]


def run_robustness(args: Namespace) -> str:
    """Measure and write everything; returns the report in Markdown.

    Raises:
        ValueError: wrong usage, found before the long work as far as it can be, or nothing to measure.
    """
    root = Path(args.images)
    if not root.is_dir():
        raise ValueError(f"--images must be a folder, got {args.images}")
    paths = [path for path in walk_files(root) if has_image_suffix(path)]
    if not paths:
        raise ValueError(f"no images in the folder {args.images}")
    pictures = DamagedPictures(paths, root, args.seed, args.max_size)
    with new_folder(args.output_dir) as unfinished:
        options = ScorerOptions(
            args.device, args.num_patches, args.batch_size, args.num_workers, args.trust_remote_code
        )
        scorers, results, columns = load_scorers(args.model, options), {}, []
        if unable := [model for model, scorer in scorers.items() if scorer.needs_prompts]:
            raise ValueError(f"--images have no prompts, which {', '.join(unable)} needs")
        for model, scorer in scorers.items():
            scores = scorer.score(pictures)
            columns.append(scores)
            results[model] = {
                "description": scorer.description,
                "ordering": ordering(pictures.versions, scores, args.num_resamples, args.seed),
                "stability": stability(pictures.versions, scores),
                "mean_scores": mean_scores(pictures.versions, scores),
                "unscored": [pictures.names[index] for index in np.flatnonzero(np.isnan(scores))],
            }
        report = {
            "kind": "robustness",
            **describe_run(args.command_line, choose_device(args.device)),
            "num_pictures": len(paths),
            "data_hash": hash_pictures(root, paths),
            "seed": args.seed,
            "models": results,
        }
        write_json(unfinished / "report.json", report)
        (unfinished / "report.md").write_text(robustness_markdown(report) + "\n", encoding="utf-8")
        header = ["model", "damage or change", "severity", "measure", "value", "low", "high"]
        write_csv(unfinished / "metrics.csv", header, _csv_rows(report))
        write_csv(unfinished / "scores.csv", ["version", *scorers], zip(pictures.names, *columns, strict=True))
    return robustness_markdown(report)
