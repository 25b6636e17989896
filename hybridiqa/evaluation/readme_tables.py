"""Tables of README.md and docs/, made from the reports in results/: each stands between two comments, its markers.

<!-- table ranking results/hecd.json -->
<!-- end of table -->
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from pathlib import Path

from hybridiqa.evaluation.robustness import GROUPS
from hybridiqa.evaluation.tables import (
    agreement_table,
    difference_table,
    list_distortions,
    mean_score_table,
    ordering_table,
    stability_table,
    subset_table,
)
from hybridiqa.utils.atomic import write_text_atomically
from hybridiqa.utils.root import ROOT
from hybridiqa.utils.tables import markdown_table

BLOCK = re.compile(r"(?P<start><!-- table (?P<name>\w+) (?P<report>\S+) -->\n).*?(?P<end><!-- end of table -->)", re.S)
RANKING_METRICS = ("srcc_within_group", "srcc", "krcc", "plcc_logistic", "pairwise_accuracy")
METRICS_BESIDE_PUBLISHED = ("srcc_within_group", "srcc", "plcc", "plcc_logistic")  # they have SRCC and PLCC alone
COMPARED_METRICS = ("srcc_within_group", "srcc", "pairwise_accuracy")
SCORING_COLUMNS = {  # rows of `benchmark.py scoring`, less the layout
    "fp32": "float32",
    "bf16": "bf16",
    "onnxruntime_fp32": "ONNX Runtime",
    "openvino_fp32": "OpenVINO float32",
    "openvino_bf16": "OpenVINO bf16",
    "openvino_int8": "OpenVINO int8",
    "pyiqa": "pyiqa",
}
LAYOUTS = {"r50": "[3,4,6,3]", "r152": "[3,8,36,3]"}
TRAINING_ROWS = {  # filled in with the report's arguments
    "input_pipeline": "patches cut from {image_size} px pictures, batch {input_batch_size}",
    "input_memory": "memory a picture",
    "train_step_fp32": "training step, {layout} layout, batch {batch_size}, float32",
    "train_step_bf16": "the same in bf16, against its float32",
}


def _only_dataset(report: dict) -> dict:
    (result,) = report["datasets"].values()
    return result


def ranking_table(report: dict) -> str:
    result = _only_dataset(report)
    published = result.get("published", [])  # older reports have none
    names = METRICS_BESIDE_PUBLISHED if published else RANKING_METRICS
    return agreement_table(result["rows"], [name for name in names if name in result["rows"][0]["metrics"]], published)


def differences_table(report: dict) -> str:
    result = _only_dataset(report)
    names = [name for name in COMPARED_METRICS if name in result["differences"][0]["metrics"]]
    return difference_table(result["differences"], names)


def subsets_table(report: dict) -> str:
    if rows := _only_dataset(report).get("subsets"):
        return subset_table(rows)
    raise ValueError("a table of subsets needs a report that was made with --subsets")


def groups_table(report: dict) -> str:
    return ordering_table(report, GROUPS)


def types_table(report: dict) -> str:
    return ordering_table(report, [name for name in list_distortions(report) if name not in GROUPS])


def scoring_table(report: dict) -> str:
    """Return a table of ratios to the published demo, a line a layout."""
    ratios = {row["name"]: row["ratio"] for row in report["rows"]}
    rows = []
    for layout, shown in LAYOUTS.items():
        cells = [ratios.get(f"{column}_{layout}") for column in SCORING_COLUMNS]
        rows.append([shown, *("" if ratio is None else f"{ratio:.1f}" for ratio in cells)])
    return markdown_table(["layout", *SCORING_COLUMNS.values()], rows)


def _format_amount(value: float, unit: str) -> str:
    if unit.startswith("bytes"):
        return f"{value / 1e6:.1f} MB"
    return f"{value:,.0f} /s" if value >= 10 else f"{value:.2f} /s"


def training_table(report: dict) -> str:
    arguments = {**report["arguments"], "layout": LAYOUTS[report["arguments"]["layout"]]}
    rows = []
    for row in report["rows"]:
        ours, reference = (_format_amount(row[side], row["unit"]) for side in ("ours", "reference"))
        rows.append([TRAINING_ROWS[row["name"]].format(**arguments), ours, reference, f"{row['ratio']:.1f}"])
    return markdown_table(["what", "ours", "published", "ratio"], rows)


TABLES: dict[str, Callable[[dict], str]] = {
    "ranking": ranking_table,
    "differences": differences_table,
    "subsets": subsets_table,
    "robustness": groups_table,
    "families": types_table,
    "stability": stability_table,
    "means": mean_score_table,
    "scoring": scoring_table,
    "training": training_table,
}
TABLES_OF_KIND = {  # which a report of that kind must have in some document
    "ranking": ("ranking",),
    "robustness": ("robustness", "families", "stability", "means"),
    "scoring": ("scoring",),
    "training": ("training",),
}


def _read_report(path: Path) -> dict:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report, dict):
            raise ValueError(f"got {report!r:.50}")
        return report
    except (OSError, ValueError) as error:
        raise ValueError(f"results/{path.name} is no report: {error}") from error


def fill_tables(text: str, root: Path = ROOT) -> str:
    """Return a Markdown text with every table made anew from its report.

    Raises:
        ValueError: a table or a report that there is not.
    """

    def fill(match: re.Match) -> str:
        if match["name"] not in TABLES:
            raise ValueError(f"there is no table {match['name']!r}; there are {', '.join(TABLES)}")
        table = TABLES[match["name"]](_read_report(root / match["report"]))
        return f"{match['start']}{table}\n{match['end']}"

    return BLOCK.sub(fill, text)


def read_documents(root: Path = ROOT) -> dict[str, str]:
    """Return the texts of README.md and of every docs/*.md that have tables, by name."""
    paths = [root / "README.md", *sorted(root.glob("docs/*.md"))]
    texts = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return {name: text for name, text in texts.items() if BLOCK.search(text)}


def _wanted_tables(root: Path) -> list[tuple[str, str]]:
    """Return the tables, and their reports, that some document must have."""
    wanted = []
    for path in sorted(root.glob("results/*.json")):
        kind = _read_report(path).get("kind", "")
        wanted += [(name, f"results/{path.name}") for name in TABLES_OF_KIND.get(kind, ())]
    return wanted


def check_places(documents: dict[str, str], root: Path = ROOT) -> None:
    """Check that every report has its tables, and each of them one place in all documents.

    Raises:
        ValueError: a table that is in none of them, or in two places.
    """
    places: dict[tuple[str, str], list[str]] = {table: [] for table in _wanted_tables(root)}
    for document, text in documents.items():
        for match in BLOCK.finditer(text):
            places.setdefault((match["name"], match["report"]), []).append(document)
    for (name, report), found in places.items():
        if len(found) != 1:
            where = f"twice, in {' and '.join(found)}" if found else "nowhere in README.md and docs/*.md"
            raise ValueError(f"the marker <!-- table {name} {report} --> is {where}; it must stand in one place")


def write_tables(is_check: bool, root: Path = ROOT) -> int:
    """Write the documents' tables anew, or print in which lines they differ; return the exit status, 1 if any does.

    Raises:
        ValueError: as `fill_tables` and `check_places`.
    """
    old = read_documents(root)
    check_places(old, root)
    new = {name: fill_tables(text, root) for name, text in old.items()}
    if is_check:
        lines: list[str] = []
        for name, text in old.items():
            lines += difflib.unified_diff(text.splitlines(), new[name].splitlines(), name, "results/", n=0, lineterm="")
        print("\n".join(lines or [f"{name}'s tables are those of results/" for name in new]))
        return int(old != new)
    for name, text in new.items():
        if text != old[name]:
            write_text_atomically(root / name, text)
        print(f"{len(BLOCK.findall(text))} tables in {name}")
    return 0
