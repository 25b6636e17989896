"""People's preferences among images of one prompt, as they are released, and how often a scorer agrees with them.

- ImageReward: `test.json`, a list of `{"prompt", "generations", "ranking"}` (1 is the best, ties occur), the images
  in a folder beside it. After THUDM/ImageReward `test.py` and tgxs002/HPSv2 `hpsv2/evaluation.py`.
- HPDv2: `test.json`, a list of `{"prompt", "image_path", "rank"}` (0 is the best), and the pairs of `train.json`,
  `{"prompt", "image_path" or "file_path", "human_preference"}` (1 for the preferred one). After the README of
  tgxs002/HPSv2 and `train.json`'s readers.
- Pick-a-Pic: rows with `caption`, `jpg_0`, `jpg_1`, `label_0`, `label_1` (1 for the preferred one, 0.5 for a tie).
  After the dataset's card and yuvalkirstain/PickScore `trainer/datasetss/clip_hf_dataset.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from hybridiqa.data.database_reader import ReleaseFiles
from hybridiqa.data.loading import HASH_LENGTH
from hybridiqa.evaluation.images import LazyImages
from hybridiqa.inference.decoding import Sources
from hybridiqa.utils.files import content_hash
from metrics.iqa.iqa import Scores

IMAGE_KEYS = ("generations", "image_path", "file_path")
RANK_KEYS = ("ranking", "rank")
ALL_RANK_KEYS = (*RANK_KEYS, "human_preference")
PICKAPIC_COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")


@dataclass(frozen=True)
class Comparison:
    """Images of one prompt.

    Args:
        images: their indices among all sources.
        ranks: one an image, the lower the better; equal ones are ties.
    """

    prompt: str
    images: tuple[int, ...]
    ranks: tuple[float, ...]


@dataclass(frozen=True)
class Preferences:
    """Images that people have compared.

    Args:
        layout: where they come from.
        names: of the images.
        sources: name, and file or its bytes, of each.
        prompts: one an image.
        missing: names of listed images that are not there; they are no sources.
        data_hash: 16 hexadecimal digits over prompts, ranks and image files.
    """

    layout: str
    names: Sequence[str]
    sources: Sources
    prompts: list[str]
    comparisons: list[Comparison]
    missing: list[str]
    data_hash: str


class ListedComparison(NamedTuple):
    """Row of a list of comparisons: names of images of one prompt, and a rank for each."""

    prompt: str
    names: list[str]
    ranks: list[float]


def _first_value(row: dict, keys: Sequence[str]) -> object:
    """Return the value of the first of the keys that a row has, None where it has none."""
    return next((row[key] for key in keys if key in row), None)


def _parse_comparison(row: object) -> ListedComparison:
    """Return what a row of a list of comparisons says.

    Raises:
        ValueError: not such a row.
    """
    fields = row if isinstance(row, dict) else {}
    prompt, names, ranks = fields.get("prompt"), _first_value(fields, IMAGE_KEYS), _first_value(fields, ALL_RANK_KEYS)
    if isinstance(prompt, str) and isinstance(names, list) and isinstance(ranks, list) and len(names) == len(ranks):
        are_ranks = all(isinstance(rank, int | float) and math.isfinite(rank) for rank in ranks)
        if are_ranks and all(isinstance(name, str) for name in names):
            sign = 1 if any(key in fields for key in RANK_KEYS) else -1  # of preferences, the higher is the better
            return ListedComparison(prompt, names, [sign * float(rank) for rank in ranks])
    raise ValueError(
        f"a comparison has a prompt, one of {', '.join(IMAGE_KEYS)}, and as many values of one of "
        f"{', '.join(ALL_RANK_KEYS)}; got {row!r:.200}"
    )


def _parse_list(list_path: Path) -> tuple[str, list[ListedComparison]]:
    """Return the layout of a list of comparisons, and its rows.

    Raises:
        ValueError: not such a list.
    """
    try:
        rows = json.loads(list_path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError(f"got {rows!r:.200}")
        listed = [_parse_comparison(row) for row in rows]
    except ValueError as error:
        raise ValueError(f"{list_path} is no list of comparisons: {error}") from error
    return "ImageReward" if rows and "ranking" in rows[0] else "HPDv2", listed


def read_comparisons(list_path: Path) -> Preferences:
    """Read the comparisons of an ImageReward or HPDv2 list; its images lie in folders beside it, or below those.

    Raises:
        ValueError: not such a list, or none of its images is there.
    """
    layout, listed = _parse_list(list_path)
    split = list_path.stem  # whose folder is preferred where a name lies in several
    finder = ReleaseFiles(list_path.parent, (f"{split}_images", split))
    indices: dict[tuple[str, str], int] = {}  # among the sources, of file and prompt
    missing: dict[str, None] = {}
    comparisons, digest = [], hashlib.sha256()
    for prompt, names, ranks in listed:
        there = []  # index and rank
        for name, rank in zip(names, ranks, strict=True):
            if (found := finder.find(name)) is None:
                missing[name] = None
                continue
            if (found, prompt) not in indices:
                indices[found, prompt] = len(indices)
                digest.update(content_hash(list_path.parent / found).encode())
            there.append((indices[found, prompt], rank))
        if len(there) > 1:
            comparisons.append(Comparison(prompt, *zip(*there, strict=True)))
            digest.update(json.dumps([prompt, there]).encode())
    if not comparisons:
        raise ValueError(f"{list_path} lists no two images of a prompt that are there; missing: {list(missing)[:3]}")
    names, prompts = [name for name, _ in indices], [prompt for _, prompt in indices]
    sources = [(name, list_path.parent / name) for name in names]
    return Preferences(layout, names, sources, prompts, comparisons, list(missing), digest.hexdigest()[:HASH_LENGTH])


class PairedImages(LazyImages):
    """Images of Pick-a-Pic's rows, two a row."""

    def __init__(self, rows: Dataset):
        super().__init__([f"{row}/jpg_{side}" for row in range(len(rows)) for side in (0, 1)])
        self.sides = [rows.select_columns([column]) for column in ("jpg_0", "jpg_1")]

    def load(self, index: int) -> bytes:
        row, side = divmod(index, 2)
        return self.sides[side][row][f"jpg_{side}"]


def is_pickapic(rows: Dataset) -> bool:
    return set(PICKAPIC_COLUMNS) <= set(rows.column_names)


def read_pickapic(rows: Dataset) -> Preferences:
    """Read the pairs of a split of Pick-a-Pic that have a label.

    Raises:
        ValueError: none has.
    """
    if "has_label" in rows.column_names:
        rows = rows.select(np.flatnonzero(rows["has_label"]))
    if not len(rows):
        raise ValueError("no pair of the split has a label")
    sources, digest = PairedImages(rows), hashlib.sha256()
    prompts, comparisons = [], []
    for index, row in enumerate(rows.select_columns(["caption", "label_0", "label_1"])):
        images, ranks = (2 * index, 2 * index + 1), (-row["label_0"], -row["label_1"])
        prompts += [row["caption"]] * 2
        comparisons.append(Comparison(row["caption"], images, ranks))
        digest.update(json.dumps([row["caption"], ranks]).encode())
    for index in range(len(sources)):
        digest.update(hashlib.sha256(sources.load(index)).digest())
    return Preferences("Pick-a-Pic", sources.names, sources, prompts, comparisons, [], digest.hexdigest()[:HASH_LENGTH])


def count_pairs(ranks: Sequence[float], scores: Sequence[float]) -> tuple[int, int, int]:
    """Count the pairs of different ranks that the scores order likewise, those that they tie, and all of them.

    Pairs with a score that is NaN do not count.
    """
    people, scorer = np.asarray(ranks, float), np.asarray(scores, float)
    first, second = np.triu_indices(people.size, k=1)
    by_people = np.sign(people[second] - people[first])  # 1 where the first is preferred
    by_scorer = np.sign(scorer[first] - scorer[second])
    counts = (by_people != 0) & ~np.isnan(by_scorer)
    is_right, is_tied = counts & (by_people == by_scorer), counts & (by_scorer == 0)
    return int(is_right.sum()), int(is_tied.sum()), int(counts.sum())


def _compute_accuracies(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return `accuracy` as the published scripts count, a tied score being wrong, and `accuracy_ties_half`.

    Args:
        counts: `(..., 3)`: pairs that are right, tied, and all.
    """
    right, tied, pairs = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return {"accuracy": right / pairs, "accuracy_ties_half": (right + tied / 2) / pairs}


def _count_by_prompt(comparisons: Sequence[Comparison], scores: Scores) -> np.ndarray:
    """Return `count_pairs` of each prompt that has a pair to count: `(prompts, 3)`.

    Raises:
        ValueError: none has.
    """
    by_prompt: dict[str, np.ndarray] = {}
    for comparison in comparisons:
        counts = count_pairs(comparison.ranks, [scores[index] for index in comparison.images])
        by_prompt[comparison.prompt] = by_prompt.get(comparison.prompt, np.zeros(3, int)) + np.array(counts)
    counted = np.array([row for row in by_prompt.values() if row[2]])
    if not counted.size:
        raise ValueError("no two images of a prompt have different ranks and a score each")
    return counted


def measure_accuracy(
    comparisons: Sequence[Comparison], scores: Scores, num_resamples: int = 1000, seed: int = 0
) -> tuple[dict, dict[str, np.ndarray]]:
    """Measure how often the scores prefer what people prefer: counts with `metrics`, and their bootstrap samples.

    Pairs that people ranked alike are skipped. Whole prompts are resampled, for pairs of one prompt share images.

    Args:
        scores: one a source, NaN for none.

    Raises:
        ValueError: no pair is left.
    """
    counts = _count_by_prompt(comparisons, scores)
    total = counts.sum(axis=0)
    generator, num_prompts = np.random.default_rng(seed), len(counts)
    draws = [counts[generator.integers(num_prompts, size=num_prompts)].sum(axis=0) for _ in range(num_resamples)]
    samples = _compute_accuracies(np.array(draws))
    if num_prompts == 1:
        samples = {name: np.full(num_resamples, np.nan) for name in samples}
    values = {name: float(value) for name, value in _compute_accuracies(total).items()}
    row = {"num_pairs": int(total[2]), "num_tied": int(total[1]), "num_prompts": num_prompts, "metrics": values}
    return row, samples
