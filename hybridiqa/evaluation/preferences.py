"""People's preferences among pictures of one prompt, as they are released, and how often a scorer agrees with them.

- ImageReward: `test.json`, a list of `{"prompt", "generations", "ranking"}` (1 is the best, ties occur), the pictures
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
from types import UnionType

import numpy as np
from datasets import Dataset

from hybridiqa.data.database_reader import ReleaseFiles
from hybridiqa.data.loading import HASH_LENGTH
from hybridiqa.utils.files import content_hash

PICTURE_KEYS = ("generations", "image_path", "file_path")
RANK_KEYS = ("ranking", "rank")
PAIR_KEY = "human_preference"
PICKAPIC_COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")


@dataclass(frozen=True)
class Comparison:
    """Pictures of one prompt.

    Args:
        pictures: their indices among all sources.
        ranks: one a picture, the lower the better; equal ones are ties.
    """

    prompt: str
    pictures: tuple[int, ...]
    ranks: tuple[float, ...]


@dataclass(frozen=True)
class Preferences:
    """Pictures that people have compared.

    Args:
        layout: where they come from.
        names: of the pictures.
        sources: name, and file or its bytes, of each.
        prompts: one a picture.
        missing: names of listed pictures that are not there; they are no sources.
        data_hash: 16 hexadecimal digits over prompts, ranks and picture files.
    """

    layout: str
    names: list[str]
    sources: Sequence[tuple[str, Path | bytes]]
    prompts: list[str]
    comparisons: list[Comparison]
    missing: list[str]
    data_hash: str


def _key_of(row: dict, keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in row), None)


def _is_list_of(kind: type | UnionType, values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _parse_comparison(row: object) -> tuple[str, list[str], list[float]]:
    """Prompt, pictures and ranks that a row of a list of comparisons says.

    Raises:
        ValueError: not such a row.
    """
    fields = row if isinstance(row, dict) else {}
    rank_key = _key_of(fields, (*RANK_KEYS, PAIR_KEY))
    prompt, pictures, ranks = (fields.get(key) for key in ("prompt", _key_of(fields, PICTURE_KEYS), rank_key))
    is_typed = isinstance(prompt, str) and _is_list_of(str, pictures) and _is_list_of(int | float, ranks)
    if not is_typed or len(pictures) != len(ranks) or not all(map(math.isfinite, ranks)):
        raise ValueError(
            f"a comparison has a prompt, one of {', '.join(PICTURE_KEYS)}, and as many values of one of "
            f"{', '.join((*RANK_KEYS, PAIR_KEY))}; got {row!r:.200}"
        )
    sign = -1 if rank_key == PAIR_KEY else 1
    return prompt, pictures, [sign * float(rank) for rank in ranks]


def read_comparisons(list_path: Path) -> Preferences:
    """The comparisons of an ImageReward or HPDv2 list; its pictures lie in folders beside it, or below those.

    Raises:
        ValueError: not such a list, or none of its pictures is there.
    """
    try:
        rows = json.loads(list_path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError(f"got {rows!r:.200}")
        listed = [_parse_comparison(row) for row in rows]
    except ValueError as error:
        raise ValueError(f"{list_path} is no list of comparisons: {error}") from error
    split = list_path.stem  # whose folder is preferred where a name lies in several
    finder, indices, missing = ReleaseFiles(list_path.parent, (f"{split}_images", split)), {}, {}
    sources, prompts, comparisons, digest = [], [], [], hashlib.sha256()
    for prompt, names, ranks in listed:
        there = []
        for name, rank in zip(names, ranks, strict=True):
            if (found := finder.find(name)) is None:
                missing[name] = None
                continue
            if (found, prompt) not in indices:
                indices[found, prompt] = len(sources)
                sources.append((found, list_path.parent / found))
                prompts.append(prompt)
                digest.update(content_hash(sources[-1][1]).encode())
            there.append((indices[found, prompt], rank))
        if len(there) > 1:
            comparisons.append(Comparison(prompt, *zip(*there, strict=True)))
            digest.update(json.dumps([prompt, there]).encode())
    if not comparisons:
        raise ValueError(f"{list_path} lists no two pictures of a prompt that are there; missing: {list(missing)[:3]}")
    layout = "ImageReward" if "ranking" in rows[0] else "HPDv2"
    names = [name for name, _ in sources]
    return Preferences(layout, names, sources, prompts, comparisons, list(missing), digest.hexdigest()[:HASH_LENGTH])


class PairedImages(Sequence):
    """The pictures of Pick-a-Pic's rows, two a row, read when they are asked for."""

    def __init__(self, rows: Dataset):
        self.names = [f"{row}/jpg_{side}" for row in range(len(rows)) for side in (0, 1)]
        self.rows = [rows.select_columns([column]) for column in ("jpg_0", "jpg_1")]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        row, side = divmod(index, 2)
        return self.names[index], self.rows[side][row][f"jpg_{side}"]


def is_pickapic(rows: Dataset) -> bool:
    return set(PICKAPIC_COLUMNS) <= set(rows.column_names)


def read_pickapic(rows: Dataset) -> Preferences:
    """The pairs of a split of Pick-a-Pic that have a label.

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
        pictures, ranks = (2 * index, 2 * index + 1), (-row["label_0"], -row["label_1"])
        prompts += [row["caption"]] * 2
        comparisons.append(Comparison(row["caption"], pictures, ranks))
        digest.update(json.dumps([row["caption"], ranks]).encode())
    for _, image in sources:
        digest.update(hashlib.sha256(image).digest())
    return Preferences("Pick-a-Pic", sources.names, sources, prompts, comparisons, [], digest.hexdigest()[:HASH_LENGTH])


def count_pairs(ranks: Sequence[float], scores: Sequence[float]) -> tuple[int, int, int]:
    """Of the pairs of different ranks: how many the scores order likewise, how many they tie, how many there are.

    Pairs with a score that is NaN do not count.
    """
    ranks, scores = np.asarray(ranks, float), np.asarray(scores, float)
    first, second = np.triu_indices(ranks.size, k=1)
    by_people = np.sign(ranks[second] - ranks[first])  # 1 where the first is preferred
    by_scorer = np.sign(scores[first] - scores[second])
    counts = (by_people != 0) & ~np.isnan(by_scorer)
    is_right, is_tied = counts & (by_people == by_scorer), counts & (by_scorer == 0)
    return int(is_right.sum()), int(is_tied.sum()), int(counts.sum())


def _accuracies(right: np.ndarray, tied: np.ndarray, pairs: np.ndarray) -> dict[str, np.ndarray]:
    """`accuracy` as the published scripts count, a tied score being wrong, and `accuracy_ties_half`."""
    with np.errstate(invalid="ignore"):
        return {"accuracy": right / pairs, "accuracy_ties_half": (right + tied / 2) / pairs}


def preference_accuracy(
    comparisons: Sequence[Comparison], scores: Sequence[float], num_resamples: int = 1000, seed: int = 0
) -> tuple[dict, dict[str, np.ndarray]]:
    """How often the scores prefer what people prefer: counts with `metrics`, and their bootstrap samples.

    Pairs that people ranked alike are skipped. Whole prompts are resampled, for pairs of one prompt share pictures.

    Args:
        scores: one a source, NaN for none.

    Raises:
        ValueError: no pair is left.
    """
    by_prompt: dict[str, np.ndarray] = {}
    for comparison in comparisons:
        counts = count_pairs(comparison.ranks, [scores[index] for index in comparison.pictures])
        by_prompt[comparison.prompt] = by_prompt.get(comparison.prompt, 0) + np.array(counts)
    counts = np.array([row for row in by_prompt.values() if row[2]])  # (prompts, 3): right, tied, all
    if not counts.size:
        raise ValueError("no two pictures of a prompt have different ranks and a score each")
    right, tied, pairs = counts.sum(axis=0)
    generator, num_prompts = np.random.default_rng(seed), len(counts)
    draws = np.array(
        [counts[generator.integers(num_prompts, size=num_prompts)].sum(axis=0) for _ in range(num_resamples)]
    )
    samples = _accuracies(*draws.T)
    if num_prompts == 1:
        samples = {name: np.full(num_resamples, np.nan) for name in samples}
    values = {name: float(value) for name, value in _accuracies(right, tied, pairs).items()}
    row = {"num_pairs": int(pairs), "num_tied": int(tied), "num_prompts": num_prompts, "metrics": values}
    return row, samples
