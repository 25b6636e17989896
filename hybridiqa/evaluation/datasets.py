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
    """

    split: str
    names: Sequence[str]
    sources: Sources
    references: list[float]
    groups: list[str] | None
    data_hash: str


def _choose_split(splits: DatasetDict, split: str | None, dataset: str) -> str:
    accepted = [split] if split is not None else [*DEFAULT_SPLITS, *(splits if len(splits) == 1 else ())]
    chosen = next((name for name in accepted if name in splits), None)
    if chosen is None:
        raise ValueError(f"--split must be one of {', '.join(splits)} of {dataset}, got {split}")
    return chosen


def load_rated(dataset: str, split: str | None = None) -> RatedImages:
    """Load a split of what prepare_dataset.py wrote or pushed.

    Args:
        split: default test, or the only one that there is.

    Raises:
        ValueError: no such dataset or split.
    """
    splits = load_prepared(dataset)
    split = _choose_split(splits, split, dataset)
    rows, images = splits[split], DatasetImages({split: splits[split]}, "image")
    names = list(rows["path"]) if "path" in rows.column_names else images.names()
    groups = list(rows["group"]) if "group" in rows.column_names else None
    if groups is not None and len(set(groups)) == len(groups):
        groups = None
    data_hash = dataset_hash(DatasetDict({split: rows}))
    return RatedImages(split, names, NamedImages(images, names), list(rows["score"]), groups, data_hash)


def load_dataset(dataset: str, split: str | None = None) -> RatedImages | Preferences:
    """Load what `--dataset` names: a prepared dataset, a list of comparisons (.json), or Pick-a-Pic.

    Args:
        dataset: a file, a folder or a Hub id.
        split: of a dataset; default test_unique, test, or the only one that there is.

    Raises:
        ValueError: none of them, or no such split.
    """
    if Path(dataset).is_file():
        return read_comparisons(Path(dataset))
    if not any(Path(dataset, name).is_file() for name in SAVED_FILES):
        splits = load_splits(dataset, None, is_streaming=False)
        if is_pickapic(next(iter(splits.values()))):
            return read_pickapic(splits[_choose_split(splits, split, dataset)])
    return load_rated(dataset, split)
