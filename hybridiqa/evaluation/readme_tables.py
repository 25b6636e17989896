"""README.md's tables, made from the reports in results/: each stands between two comments that name its report.

<!-- table ranking results/hecd.json -->
<!-- end of table -->
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from pathlib import Path

from hybridiqa.evaluation.robustness import GROUPS_OF_FAMILIES
from hybridiqa.evaluation.tables import (
    agreement_table,
    difference_table,
    families_of,
    markdown_table,
    mean_score_table,
    ordering_table,
    stability_table,
)
from hybridiqa.utils.atomic import write_text_atomically
from hybridiqa.utils.root import ROOT

BLOCK = re.compile(r"(?P<start><!-- table (?P<name>\w+) (?P<report>\S+) -->\n).*?(?P<end><!-- end of table -->)", re.S)
RANKING_METRICS = ("srcc_within_group", "srcc", "krcc", "plcc_logistic", "pairwise_accuracy")
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
TRAINING_ROWS = {
    "input_pipeline": "patches cut from 1024 px pictures, batch 300",
    "input_memory": "memory a picture",
    "train_step_fp32": "training step, [3,4,6,3] layout, batch 8, float32",
    "train_step_bf16": "the same in bf16, against its float32",
}


def _only_dataset(report: dict) -> dict:
    (result,) = report["datasets"].values()
    return result


def ranking_table(report: dict) -> str:
    result = _only_dataset(report)
    return agreement_table(result["rows"], [name for name in RANKING_METRICS if name in result["rows"][0]["metrics"]])


def differences_table(report: dict) -> str:
    result = _only_dataset(report)
    names = [name for name in COMPARED_METRICS if name in result["differences"][0]["metrics"]]
    return difference_table(result["differences"], names)


def robustness_table(report: dict) -> str:
    return ordering_table(report, list(GROUPS_OF_FAMILIES))


def families_table(report: dict) -> str:
    return ordering_table(report, [name for name in families_of(report) if name not in GROUPS_OF_FAMILIES])


def scoring_table(report: dict) -> str:
    """Ratios to the published demo, a line a layout."""
    ratios = {row["name"]: row["ratio"] for row in report["rows"]}
    rows = []
    for layout, shown in LAYOUTS.items():
        cells = [ratios.get(f"{column}_{layout}") for column in SCORING_COLUMNS]
        rows.append([shown, *("" if ratio is None else f"{ratio:.1f}" for ratio in cells)])
    return markdown_table(["layout", *SCORING_COLUMNS.values()], rows)


def _amount(value: float, unit: str) -> str:
    if unit.startswith("bytes"):
        return f"{value / 1e6:.1f} MB"
    return f"{value:,.0f} /s" if value >= 10 else f"{value:.2f} /s"


def training_table(report: dict) -> str:
    rows = []
    for row in report["rows"]:
        ours, reference = (_amount(row[side], row["unit"]) for side in ("ours", "reference"))
        rows.append([TRAINING_ROWS[row["name"]], ours, reference, f"{row['ratio']:.1f}"])
    return markdown_table(["what", "ours", "published", "ratio"], rows)


TABLES: dict[str, Callable[[dict], str]] = {
    "ranking": ranking_table,
    "differences": differences_table,
    "robustness": robustness_table,
    "families": families_table,
    "stability": stability_table,
    "means": mean_score_table,
    "scoring": scoring_table,
    "training": training_table,
}


def with_tables(text: str, root: Path = ROOT) -> str:
    """A Markdown text with every table made anew from its report.

    Raises:
        ValueError: a table or a report that there is not.
    """

    def block(match: re.Match) -> str:
        if match["name"] not in TABLES:
            raise ValueError(f"there is no table {match['name']!r}; there are {', '.join(TABLES)}")
        try:
            report = json.loads((root / match["report"]).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{match['report']} is no report: {error}") from error
        return f"{match['start']}{TABLES[match['name']](report)}\n{match['end']}"

    return BLOCK.sub(block, text)


def write_tables(is_check: bool, root: Path = ROOT) -> int:
    """Write README.md's tables anew, or print in which lines they differ; the exit status, 1 if a check finds any.

    Raises:
        ValueError: as `with_tables`.
    """
    path = root / "README.md"
    old = path.read_text(encoding="utf-8")
    new = with_tables(old, root)
    if is_check:
        lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "README.md", "results/", n=0, lineterm="")
        print("\n".join(lines) or "README.md's tables are those of results/")
        return int(old != new)
    if old != new:
        write_text_atomically(path, new)
    print(f"{len(BLOCK.findall(new))} tables in README.md")
    return 0
