"""All scores around a run: what was known before, what it adds, and the one file of scores at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hybridiqa.scores.merge import merge_rows, with_percentiles
from hybridiqa.scores.progress import ScoreProgress, read_progress, remove_progress
from hybridiqa.scores.score_file import ScoreRow, read_scores, write_scores


class ScoreLedger:
    """Where a run finds and leaves its rows; several processes may each have one of the same file.

    Args:
        output: the file of scores; none keeps the rows in memory.
        scorer: whose scores the run gives.
        process_index: of this process among those that share the work.

    Raises:
        ValueError: `output` is no file of scores, or another run is writing to it.
    """

    def __init__(self, output: Path | None, scorer: str, process_index: int = 0):
        self.output, self.scorer = output, scorer
        self.added: list[ScoreRow] = []
        self.progress = ScoreProgress(output, process_index) if output else None
        rows = [*self._stored(), *read_progress(output)] if output else []
        self.rows = {row.path: row for row in rows if row.scorer == scorer}

    def _stored(self) -> list[ScoreRow]:
        return read_scores(self.output) if self.output.exists() else []

    def known(self) -> dict[str, ScoreRow]:
        """The rows that hold a score, by content."""
        return {row.content_hash: row for row in self.rows.values() if row.score is not None}

    def add(self, rows: Iterable[ScoreRow]) -> None:
        """Keep the rows; those that stand in the file already are not written again."""
        if self.progress is None:
            self.added += rows
        else:
            self.progress.write(row for row in rows if not self._holds(row))

    def _holds(self, row: ScoreRow) -> bool:
        held = self.rows.get(row.path)
        return held is not None and replace(held, percentile=None) == row

    def added_rows(self) -> list[ScoreRow]:
        """What this run has added, in all its processes, and what those before it have that did not reach their end."""
        return read_progress(self.output) if self.output else self.added

    def merge(
        self, is_searched: Callable[[str], bool], quantiles: Sequence[float] | None, among_library: bool
    ) -> list[ScoreRow]:
        """Bring all rows of all processes together, in the file of scores if there is one; for one process to call.

        The arguments are those of `merge_rows` and `with_percentiles`.
        """
        stored = self._stored() if self.output else []
        merged = merge_rows(stored, self.added_rows(), is_searched)
        rows = with_percentiles(merged, self.scorer, quantiles, among_library)
        if self.output:
            write_scores(self.output, rows)
            remove_progress(self.output)
        return rows

    def close(self) -> None:
        """Let other runs write to the file."""
        if self.progress is not None:
            self.progress.close()
