"""What scorers are measured on: pictures with true scores, or with people's preferences among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict

from hybridiqa.data.loading import dataset_hash, load_prepared
from hybridiqa.evaluation.preferences import Preferences, is_pickapic, read_comparisons, read_pickapic
from hybridiqa.inference.dataset_scoring import SAVED_FILES, DatasetImages, load_splits

DEFAULT_SPLITS = ("test_unique", "test")  # the first is Pick-a-Pic's, with one pair a prompt


class NamedImages(Sequence):
    """The images of a split, called by their paths where it has a column of those.

    Args:
        images: of one split.
        names: one an image.
    """

    def __init__(self, images: DatasetImages, names: Sequence[str]):
        self.images, self.names = images, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, Path | bytes]:
        return self.names[index], self.images[index][1]


@dataclass(frozen=True)
class RatedPictures:
    """Pictures with true scores.

    Args:
        split: of the dataset.
        names: of the pictures.
        sources: name, and file or its bytes, of each.
        references: the true scores, the higher the better.
        groups: one a picture; None where no two pictures share a group.
        data_hash: see `hybridiqa.data.loading.dataset_hash`.
    """

    split: str
    names: list[str]
    sources: Sequence[tuple[str, Path | bytes]]
    references: list[float]
    groups: list[str] | None
    data_hash: str


def _choose_split(splits: DatasetDict, split: str | None, dataset: str) -> str:
    if split is None:
        split = next((name for name in DEFAULT_SPLITS if name in splits), None)
        split = next(iter(splits)) if split is None and len(splits) == 1 else split
    if split not in splits:
        raise ValueError(f"--split must be one of {', '.join(splits)} of {dataset}, got {split}")
    return split


def load_rated(dataset: str, split: str | None = None) -> RatedPictures:
    """A split of what prepare_dataset.py wrote or pushed.

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
    return RatedPictures(split, names, NamedImages(images, names), list(rows["score"]), groups, data_hash)


def load_measured(dataset: str, split: str | None = None) -> RatedPictures | Preferences:
    """What `--dataset` names: a prepared dataset, a list of comparisons (.json), or Pick-a-Pic (a folder or a Hub id).

    Args:
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
