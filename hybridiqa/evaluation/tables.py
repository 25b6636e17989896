"""Reports of `benchmark.py ranking` and `robustness`: tables in Markdown, numbers and scores as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from hybridiqa.distortions.trained import LEVELS
from metrics.iqa.iqa import is_defined

MEASURES = {"clean_over_damaged": "clean over damaged", "mild_over_strong": "milder over stronger"}

TITLES = {
    "srcc_within_group": "SRCC within group",
    "srcc": "SRCC",
    "krcc": "KRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC, 4 parameters",
    "plcc_logistic5": "PLCC, 5 parameters",
    "rmse": "RMSE",
    "rmse_logistic": "RMSE, 4 parameters",
    "pairwise_accuracy": "pairwise accuracy",
    "accuracy": "pairwise accuracy, ties wrong",
    "accuracy_ties_half": "pairwise accuracy, ties half",
}
CSV_COLUMNS = ("dataset", "model", "group", "num", "metric", "value", "low", "high", "note")


def number(value: float | None, num_digits: int = 3) -> str:
    return f"{value:.{num_digits}f}" if is_defined(value) else "not defined"


def with_interval(measured: dict) -> str:
    """`{"value", "interval"}` as text."""
    if not is_defined(measured["value"]) or not all(map(is_defined, measured["interval"])):
        return number(measured["value"])
    low, high = measured["interval"]
    return f"{number(measured['value'])} [{number(low)}, {number(high)}]"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _metric_names(rows: Sequence[dict]) -> list[str]:
    """What at least one row has, in the order of `TITLES`."""
    return [name for name in TITLES if any(name in row["metrics"] for row in rows)]


def agreement_table(rows: Sequence[dict], names: Sequence[str] | None = None) -> str:
    """One line a model: its metrics with their intervals."""
    names = names or _metric_names(rows)
    cells = [
        [row["model"], *(with_interval(row["metrics"][name]) if name in row["metrics"] else "" for name in names)]
        for row in rows
    ]
    return markdown_table(["model", *(TITLES[name] for name in names)], cells)


def difference_table(differences: Sequence[dict], names: Sequence[str]) -> str:
    """One line a pair of models: by how much the first is better, and whether the interval excludes 0."""
    header = ["first less second", *(TITLES[name] for name in names)]
    cells = []
    for pair in differences:
        line = [f"{pair['first']} less {pair['second']}"]
        for name in names:
            if (difference := pair["metrics"].get(name)) is None:
                line.append("")
            else:
                line.append(with_interval(difference) + ("" if difference["differ"] else ", not told apart"))
        cells.append(line)
    return markdown_table(header, cells)


def _group_table(rows: Sequence[dict]) -> str:
    """SRCC of every group (down) and model (across)."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    by_group: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_group.setdefault(row["group"], {})[row["model"]] = row
    cells = []
    for group, of_models in by_group.items():
        size = str(next(iter(of_models.values()))["num_images"])
        cells.append([group, size, *(with_interval(of_models[model]["metrics"]["srcc"]) for model in models)])
    return markdown_table(["group", "images", *(f"SRCC {model}" for model in models)], cells)


def _dataset_lines(name: str, result: dict) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{result['description']}; data hash {result['data_hash']}.\n"
    for model, reason in result["not_measured"].items():
        yield f"{model}: not measured, {reason}.\n"
    if result["left_out"]:
        yield f"Left out for all, since a model has no score for them: {', '.join(result['left_out'])}.\n"
    yield agreement_table(result["rows"]) + "\n"
    for row in (*result["rows"], *result["groups"]):
        for metric, reason in row.get("failed_fits", {}).items():
            of_group = f", group {row['group']}" if "group" in row else ""
            yield f"{row['model']}{of_group}: no {TITLES[metric]}: {reason}.\n"
    if result["differences"]:
        names = [name for name in TITLES if name in result["differences"][0]["metrics"]]
        yield "Do two models differ? (paired bootstrap)\n"
        yield difference_table(result["differences"], names) + "\n"
    if result["groups"]:
        yield _group_table(result["groups"]) + "\n"


def ranking_markdown(report: dict) -> str:
    """The whole report."""
    lines = ["# Ranking\n", f"`{report['command']}`\n", f"Commit {report['commit']}, {report['device']}.\n"]
    lines += [f"- {name}: {description}" for name, description in report["models"].items()]
    lines.append(
        f"\nIntervals are {report['confidence']:.0%}, of {report['num_resamples']} bootstrap resamples of whole groups "
        "(prompts, scenes), or of pictures where there are none.\n"
    )
    for name, result in report["datasets"].items():
        lines += _dataset_lines(name, result)
    return "\n".join(lines)


def ranking_csv(report: dict) -> Iterator[list]:
    """One line a number."""
    for dataset, result in report["datasets"].items():
        for row in (*result["rows"], *result["groups"]):
            for name, measured in row["metrics"].items():
                low, high = measured["interval"]
                note = row.get("failed_fits", {}).get(name, "")
                num = row.get("num_images", row.get("num_pairs"))
                yield [dataset, row["model"], row.get("group", ""), num, name, measured["value"], low, high, note]


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence]) -> None:
    """A table; what is not defined is left empty."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow(["" if isinstance(cell, float) and not is_defined(cell) else cell for cell in row])


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
    return markdown_table(["mean score", "clean", *(f"severity {severity}" for severity in LEVELS)], rows)


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
    by_severity = list(_ordering_rows(report, families_of(report), [*LEVELS]))
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
