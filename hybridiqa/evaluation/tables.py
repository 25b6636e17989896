"""Reports of `benchmark.py ranking` and `robustness`: tables in Markdown, numbers and scores as CSV.

In a report, which is what `report.json` holds, `families` are distortion types and a `severity` is a level: the keys
are those of a format that has been released.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hybridiqa.distortions.trained import LEVELS
from hybridiqa.utils.tables import METRIC_TITLES, markdown_table
from metrics.iqa.iqa import is_defined

MEASURES = {"clean_over_damaged": "clean over damaged", "mild_over_strong": "milder over stronger"}

CSV_COLUMNS = ("dataset", "model", "group", "num", "metric", "value", "low", "high", "note", "subset")
SUBSET_METRICS = ("srcc", "plcc_logistic")


PUBLISHED_NOTE = (
    "(published): a figure of its source, of the images that it was measured on there. It is not measured here, so it "
    "has no interval and is in no test of difference; PLCC is as the source has it, whether or not after a fit.\n"
)


def format_number(value: float | None, num_digits: int = 3) -> str:
    if value is None or not is_defined(value):
        return "not defined"
    return f"{value:.{num_digits}f}"


def format_measured(measured: dict) -> str:
    """Return `{"value", "interval"}` as text."""
    if not is_defined(measured["value"]) or not all(map(is_defined, measured["interval"])):
        return format_number(measured["value"])
    low, high = measured["interval"]
    return f"{format_number(measured['value'])} [{format_number(low)}, {format_number(high)}]"


def _list_metrics(rows: Sequence[dict]) -> list[str]:
    """Return the metrics that at least one row has, in the order of their titles."""
    return [name for name in METRIC_TITLES if any(name in row["metrics"] for row in rows)]


def _measured_cells(row: dict, names: Iterable[str]) -> list[str]:
    return [format_measured(row["metrics"][name]) if name in row["metrics"] else "" for name in names]


def agreement_table(rows: Sequence[dict], names: Sequence[str] | None = None, published: Sequence[dict] = ()) -> str:
    """Return a table of one line a model: its metrics with their intervals.

    Args:
        names: of the metrics; default all that a row has.
        published: figures that were not measured here (see `published.read_published`): lines below the measured ones,
            without intervals and marked as such, their sources in a last column.
    """
    names = names or _list_metrics(rows)
    header = ["model", *(METRIC_TITLES[name] for name in names)]
    cells = [[row["model"], *_measured_cells(row, names)] for row in rows]
    if published:
        header.append("source")
        cells = [[*line, "measured"] for line in cells]
    for figures in published:
        shown = ("" if figures.get(name) is None else format_number(figures[name]) for name in names)
        cells.append([f"{figures['model']} (published)", *shown, figures["source"]])
    return markdown_table(header, cells)


def subset_table(rows: Sequence[dict]) -> str:
    """Return a table of one line a subset and model: SRCC and PLCC after the logistic, with their intervals."""
    ordered = sorted(rows, key=lambda row: row["subset"])  # the models of a subset one below another
    cells = [[row["subset"], row["num_images"], row["model"], *_measured_cells(row, SUBSET_METRICS)] for row in ordered]
    return markdown_table(["subset", "images", "model", *(METRIC_TITLES[name] for name in SUBSET_METRICS)], cells)


def difference_table(differences: Sequence[dict], names: Sequence[str]) -> str:
    """Return a table of one line a pair of models: by how much the first is better, if the interval excludes 0."""
    header = ["first less second", *(METRIC_TITLES[name] for name in names)]
    cells = []
    for pair in differences:
        line = [f"{pair['first']} less {pair['second']}"]
        for name in names:
            if (difference := pair["metrics"].get(name)) is None:
                line.append("")
            else:
                line.append(format_measured(difference) + ("" if difference["differ"] else ", not told apart"))
        cells.append(line)
    return markdown_table(header, cells)


def _group_table(rows: Sequence[dict]) -> str:
    """Return a table of the SRCC of every group (down) and model (across)."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    by_group: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_group.setdefault(row["group"], {})[row["model"]] = row
    cells = []
    for group, row_of in by_group.items():
        size = next(iter(row_of.values()))["num_images"]
        cells.append([group, size, *(format_measured(row_of[model]["metrics"]["srcc"]) for model in models)])
    return markdown_table(["group", "images", *(f"{METRIC_TITLES['srcc']} {model}" for model in models)], cells)


def _dataset_lines(name: str, result: dict) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{result['description']}; data hash {result['data_hash']}.\n"
    for model, reason in result["not_measured"].items():
        yield f"{model}: not measured, {reason}.\n"
    if result["left_out"]:
        yield f"Left out for all, since a model has no score for them: {', '.join(result['left_out'])}.\n"
    published, subsets = result.get("published", []), result.get("subsets", [])  # older reports have neither
    yield agreement_table(result["rows"], published=published) + "\n"
    if published:
        yield PUBLISHED_NOTE
    for row in (*result["rows"], *result["groups"], *subsets):
        for metric, reason in row.get("failed_fits", {}).items():
            of_part = "".join(f", {part} {row[part]}" for part in ("group", "subset") if part in row)
            yield f"{row['model']}{of_part}: no {METRIC_TITLES[metric]}: {reason}.\n"
    if result["differences"]:
        names = [name for name in METRIC_TITLES if name in result["differences"][0]["metrics"]]
        yield "Do two models differ? (paired bootstrap)\n"
        yield difference_table(result["differences"], names) + "\n"
    if subsets:
        yield subset_table(subsets) + "\n"
    if result["groups"]:
        yield _group_table(result["groups"]) + "\n"


def ranking_markdown(report: dict) -> str:
    """Return the whole report of `benchmark.py ranking`."""
    lines = ["# Ranking\n", f"`{report['command']}`\n", f"Commit {report['commit']}, {report['device']}.\n"]
    lines += [f"- {name}: {description}" for name, description in report["models"].items()]
    lines.append(
        f"\nIntervals are {report['confidence']:.0%}, of {report['num_resamples']} bootstrap resamples of whole groups "
        "(prompts, scenes), or of images where there are none.\n"
    )
    for name, result in report["datasets"].items():
        lines += _dataset_lines(name, result)
    return "\n".join(lines)


def ranking_csv(report: dict) -> Iterator[list]:
    """Yield one line a number."""
    for dataset, result in report["datasets"].items():
        for row in (*result["rows"], *result["groups"], *result.get("subsets", ())):
            for name, measured in row["metrics"].items():
                low, high = measured["interval"]
                note = row.get("failed_fits", {}).get(name, "")
                num = row.get("num_images", row.get("num_pairs"))
                group, subset = row.get("group", ""), row.get("subset", "")
                yield [dataset, row["model"], group, num, name, measured["value"], low, high, note, subset]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table; what is not defined is left empty."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow(["" if isinstance(cell, float) and not is_defined(cell) else cell for cell in row])


def list_distortions(report: dict) -> list[str]:
    """Return what the report has measures of: groups of distortion types (`robustness.GROUPS`) first, then types."""
    result = next(iter(report["models"].values()))
    return list(dict.fromkeys(row["families"] for row in result["ordering"]))


def _ordering_rows(report: dict, distortions: Iterable[str], levels: Iterable[int | None]) -> Iterator[list[object]]:
    for distortion, level in itertools.product(distortions, levels):
        for model, result in report["models"].items():
            (row,) = [row for row in result["ordering"] if (row["families"], row["severity"]) == (distortion, level)]
            measures = [format_measured(row[measure]) for measure in MEASURES]
            yield [distortion, *([] if level is None else [level]), model, *measures]


def ordering_table(report: dict, distortions: Iterable[str] | None = None) -> str:
    """Return a table of one line a distortion type, or group of them, and model, over all levels."""
    rows = _ordering_rows(report, distortions or list_distortions(report), [None])
    return markdown_table(["damage", "model", *MEASURES.values()], rows)


def stability_table(report: dict) -> str:
    """Return a table of one line a change and model."""
    changes = [row["change"] for row in next(iter(report["models"].values()))["stability"]]
    rows = []
    for index, change in enumerate(changes):
        for model, result in report["models"].items():
            row = result["stability"][index]
            shown = (format_number(row[name]) for name in ("median", "percentile_95", "relative_median"))
            rows.append([change, model, *shown])
    return markdown_table(["change", "model", "median", "95th percentile", "median / spread of its scores"], rows)


def mean_score_table(report: dict) -> str:
    """Return a table of one line a model: its mean score of clean images and of each level."""
    rows = [
        [model, *(format_number(score, 2) for score in result["mean_scores"])]
        for model, result in report["models"].items()
    ]
    return markdown_table(["mean score", "clean", *(f"severity {level}" for level in LEVELS)], rows)


def _unscored_lines(report: dict) -> list[str]:
    """Return a line that names the versions without a score, with their models; no line where all have one."""
    models_of: dict[str, list[str]] = {}
    for model, result in report["models"].items():
        for name in result["unscored"]:
            models_of.setdefault(name, []).append(model)
    if not models_of:
        return []
    shown = ", ".join(f"{name} ({', '.join(models)})" for name, models in models_of.items())
    return [f"No score (a distortion without effect, or no whole image), left out: {shown}"]


def robustness_markdown(report: dict) -> str:
    """Return the whole report of `benchmark.py robustness`."""
    by_level = _ordering_rows(report, list_distortions(report), LEVELS)
    return "\n\n".join(
        [
            "# Robustness",
            f"`{report['command']}`",
            f"Commit {report['commit']}, {report['device']}. {report['num_pictures']} images, data hash "
            f"{report['data_hash']}. Intervals are 95 %, over images; a tie counts as wrong.",
            *(f"- {model}: {result['description']}" for model, result in report["models"].items()),
            *_unscored_lines(report),
            ordering_table(report),
            "How much the score changes where it should not:",
            stability_table(report),
            mean_score_table(report),
            "By severity (level); milder over stronger tells of this one over all stronger ones:",
            markdown_table(["damage", "severity", "model", *MEASURES.values()], by_level),
        ]
    )


def robustness_csv(report: dict) -> Iterator[list]:
    """Yield one line a number."""
    for model, result in report["models"].items():
        for row in result["ordering"]:
            for measure in MEASURES:
                low, high = row[measure]["interval"]
                severity = row["severity"] or "all"
                yield [model, row["families"], severity, measure, row[measure]["value"], low, high]
        for row in result["stability"]:
            for measure in ("median", "percentile_95", "relative_median"):
                yield [model, row["change"], "", measure, row[measure], "", ""]
