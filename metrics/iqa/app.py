"""Page of the Space: a table or a CSV file of predictions and references in, the metrics and their intervals out.

    pip install gradio==6.31.0 -r requirements.txt && python app.py

gradio is imported where the page is built: what the page computes does without it.
"""

import csv
import html
import math
from collections.abc import Sequence

from iqa import bootstrap_intervals, compute_metrics

COLUMNS = ["predictions", "references"]
EXAMPLE = [[2.9, 3], [5.1, 4], [4.2, 5], [7.0, 7], [8.3, 9], [5.6, 6], [1.8, 1], [6.1, 6]]
MAX_ROWS = 10_000  # their intervals take half a minute of one CPU core, and twice that of coarse references


def read_rows(path: str) -> list[list[str | None]]:
    """Return the two cells of each row of a CSV file in UTF-8.

    Raises:
        ValueError: its first line does not name both columns.
    """
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        header = rows.fieldnames or []
        if not set(COLUMNS) <= set(header):
            raise ValueError(f"got a file whose first line is {str(header)[:80]}; the columns {COLUMNS} are wanted")
        return [[row[name] for name in COLUMNS] for row in rows]


def _parse_number(cell: float | str, row_number: int) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"row {row_number}: got {str(cell)[:40]!r}; finite numbers are accepted")
    return value


def pair_scores(rows: Sequence[Sequence[float | str | None]]) -> list[list[float]]:
    """Return the prediction and the reference of each row; empty ones are left out, but counted (from 1) in messages.

    Raises:
        ValueError: a cell that is no finite number, one score without the other, fewer than 2 rows or over 10,000.
    """
    pairs = []
    for row_number, row in enumerate(rows, 1):
        scores = [_parse_number(cell, row_number) for cell in row if cell is not None and str(cell).strip()]
        if len(scores) not in (0, 2):
            raise ValueError(f"row {row_number}: got {len(scores)} score(s); one in each of {COLUMNS} is accepted")
        pairs += [scores] if scores else []
    if not 2 <= len(pairs) <= MAX_ROWS:
        raise ValueError(f"got {len(pairs)} row(s) with scores; 2 to {MAX_ROWS} are accepted")
    return pairs


def measure_rows(rows: Sequence[Sequence[float | str | None]]) -> list[list[str]]:
    """Return name, value and both ends of the 95 % interval of each metric, as text; raises as `pair_scores`."""
    predictions, references = zip(*pair_scores(rows), strict=True)
    metrics, intervals = compute_metrics(predictions, references), bootstrap_intervals(predictions, references)
    return [
        [name, *(f"{number:#.4g}" if math.isfinite(number) else "not defined" for number in (value, *intervals[name]))]
        for name, value in metrics.items()
    ]


def build_page():
    """Return the page, a `gradio.Blocks`; wrong input becomes a message on it."""
    import gradio

    def compute(table, file):
        try:
            return measure_rows(read_rows(file) if file else table)
        except (ValueError, csv.Error) as error:  # shown as HTML, and it quotes what was given
            raise gradio.Error(html.escape(str(error), quote=False), print_exception=False) from error

    with gradio.Blocks(title="IQA metrics") as page:
        gradio.Markdown("# IQA metrics\nHow well predicted image quality scores agree with true ones: one image a row.")
        kind = {"datatype": "number", "type": "array", "column_count": 2, "show_row_numbers": True}
        table = gradio.Dataframe(EXAMPLE, headers=COLUMNS, **kind)
        file = gradio.File(label=f"Or a CSV file with the columns {' and '.join(COLUMNS)}", file_types=[".csv"])
        button = gradio.Button("Compute", variant="primary")
        result = gradio.Dataframe(headers=["metric", "value", "95 % from", "to"], interactive=False)
        button.click(compute, [table, file], result)
    return page


if __name__ == "__main__":
    build_page().launch(max_file_size="10mb")
