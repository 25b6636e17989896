"""A run's rows and the rows of earlier runs -> one row an image and scorer, with the moved, the vanished, the ranks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from hybridiqa.models.percentiles import percentiles_among, percentiles_in
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import as_text, path_of


def within(inputs: Sequence[str]) -> Callable[[str], bool]:
    """Whether a row's path is one of the inputs of a run, or lies in one of its folders."""
    exact = {as_text(os.path.abspath(name)) for name in inputs}
    folders = tuple(os.path.join(name, "") for name in exact)

    def is_within(path: str) -> bool:
        path = os.path.abspath(path)
        return path in exact or path.startswith(folders)

    return is_within


def merge_rows(
    stored: Iterable[ScoreRow], added: Iterable[ScoreRow], is_searched: Callable[[str], bool]
) -> list[ScoreRow]:
    """One row an image and scorer, the added ones over the stored ones.

    A file that is gone from where the run searched keeps its row, marked as vanished; but where its content has turned
    up under a new name, it was moved, and the row of the new name is the only one.

    Args:
        stored: rows of the file of scores.
        added: rows of this run, and of those before it that did not reach their end.
        is_searched: whether the run would have found a file of this path.
    """
    stored_keys, rows = set(), {}
    for row in stored:
        stored_keys.add((row.path, row.scorer))
        rows[row.path, row.scorer] = row
    for row in added:
        rows[row.path, row.scorer] = row
    for key, row in rows.items():
        if not row.vanished and is_searched(row.path) and not os.path.lexists(path_of(row.path)):
            rows[key] = replace(row, vanished=True)
    for key in _moved(rows, stored_keys):
        del rows[key]
    return list(rows.values())


def _moved(rows: dict[tuple[str, str], ScoreRow], stored_keys: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """The keys of vanished rows whose content has a new name: one vanished row for each new one."""
    vanished = defaultdict(list)
    for key, row in sorted(rows.items()):
        if row.vanished and row.content_hash:
            vanished[row.content_hash, row.scorer].append(key)
    moved = []
    for key, row in rows.items():
        if key not in stored_keys and not row.vanished and (old := vanished.get((row.content_hash, row.scorer))):
            moved.append(old.pop())
    return moved


def with_percentiles(
    rows: Sequence[ScoreRow], scorer: str, quantiles: Sequence[float] | None, among_library: bool
) -> list[ScoreRow]:
    """The rows with the percentiles of this scorer's scores, in the order given.

    Args:
        quantiles: the checkpoint's own distribution; without one there are no percentiles.
        among_library: rank the scores among each other instead; vanished files do not count.
    """
    ranked = [row for row in rows if row.scorer == scorer and row.score is not None and not row.vanished]
    scores = [row.score for row in ranked]
    if not scores:
        percentiles = []
    elif among_library:
        percentiles = percentiles_among(scores)
    else:
        percentiles = percentiles_in(quantiles, scores) if quantiles else [None] * len(scores)
    by_path = dict(zip((row.path for row in ranked), percentiles, strict=True))
    return [replace(row, percentile=by_path.get(row.path)) if row.scorer == scorer else row for row in rows]
