"""Datasets that scorers are measured on: images with true scores, or with people's preferences among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict

from hybridiqa.data.loading import dataset_hash, load_prepared
from hybridiqa.evaluation.images import LazyImages
from hybridiqa.evaluation.preferences import Preferences, is_pickapic, read_comparisons, read_pickapic
from hybridiqa.inference.dataset_scoring import SAVED_FILES, DatasetImages, load_splits
from hybridiqa.inference.decoding import Sources

DEFAULT_SPLITS = ("test_unique", "test")  # the first is Pick-a-Pic's, with one pair a prompt


class NamedImages(LazyImages):
    """Images of a split, called by their paths where it has a column of those.

    Args:
        images: of one split.
        names: one an image.
    """

    def __init__(self, images: DatasetImages, names: Sequence[str]):
        super().__init__(names)
        self.images = images

    def load(self, index: int) -> Path | bytes:
        _, source = self.images[index]
        return source


@dataclass(frozen=True)
class RatedImages:
    """Images with true scores.

    Args:
        split: of the dataset.
        names: of the images.
        sources: name, and file or its bytes, of each.
        references: the true scores, the higher the better.
        groups: one an image; None where no two images share a group.
        data_hash: see `hybridiqa.data.loading.dataset_hash`.
        num_in_split: images of the whole split, where these are some of them; None where they are all.
        subsets: one an image, None where it is in none of them; None where no subsets are told apart.
    """

    split: str
    names: Sequence[str]
    sources: Sources
    references: list[float]
    groups: list[str] | None
    data_hash: str
    num_in_split: int | None = None
    subsets: list[str | None] | None = None


def _choose_split(splits: DatasetDict, split: str | None, dataset: str) -> str:
    accepted = [split] if split is not None else [*DEFAULT_SPLITS, *(splits if len(splits) == 1 else ())]
    chosen = next((name for name in accepted if name in splits), None)
    if chosen is None:
        raise ValueError(f"--split must be one of {', '.join(splits)} of {dataset}, got {split}")
    return chosen


def load_rated(dataset: str, split: str | None = None, limit: int | None = None) -> RatedImages:
    """Load a split of what prepare_dataset.py wrote or pushed; an image is read where it is asked for, none is kept.

    Args:
        split: default test, or the only one that there is.
        limit: images at most, evenly spread over the split; default all.

    Raises:
        ValueError: no such dataset or split.
    """
    splits = load_prepared(dataset)
    split = _choose_split(splits, split, dataset)
    rows = splits[split]
    num_in_split = None
    if limit is not None and limit < len(rows):
        num_in_split = len(rows)
        rows = rows.select([index * num_in_split // limit for index in range(limit)])
    images = DatasetImages({split: rows}, "image")
    names = list(rows["path"]) if "path" in rows.column_names else images.names()
    groups = list(rows["group"]) if "group" in rows.column_names else None
    if groups is not None and len(set(groups)) == len(groups):
        groups = None
    data_hash = dataset_hash(DatasetDict({split: rows}))
    sources, references = NamedImages(images, names), list(rows["score"])
    return RatedImages(split, names, sources, references, groups, data_hash, num_in_split)


def load_dataset(dataset: str, split: str | None = None, limit: int | None = None) -> RatedImages | Preferences:
    """Load what `--dataset` names: a prepared dataset, a list of comparisons (.json), or Pick-a-Pic.

    Args:
        dataset: a file, a folder or a Hub id.
        split: of a dataset; default test_unique, test, or the only one that there is.
        limit: see `load_rated`; preferences are always measured whole.

    Raises:
        ValueError: none of them, or no such split.
    """
    if Path(dataset).is_file():
        return read_comparisons(Path(dataset))
    if not any(Path(dataset, name).is_file() for name in SAVED_FILES):
        splits = load_splits(dataset, None, is_streaming=False)
        if is_pickapic(next(iter(splits.values()))):
            return read_pickapic(splits[_choose_split(splits, split, dataset)])
    return load_rated(dataset, split, limit)
