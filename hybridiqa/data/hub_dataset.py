"""A dataset -> Parquet files that hold the pictures themselves, and a card, on the Hub: all in one commit."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from datasets import Dataset, DatasetDict, DatasetInfo
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.table import embed_table_storage
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from huggingface_hub.utils import EntryNotFoundError, RepositoryNotFoundError

from hybridiqa.utils.hub import HubRepository, PushError, push_folder, reason_of

SHARD_BYTES = 500_000_000
EMBED_BATCH_SIZE = 100
FILES = ("data/*.parquet", "README.md")
REPLACED = ("data/*.parquet",)  # of an earlier push: its rows would be read with the new ones


def _write_shards(dataset: Dataset, folder: Path, split: str, cache_path: Path) -> int:
    """Write a split as `data/SPLIT-00000-of-00001.parquet` ...; the bytes written."""
    embedded = dataset.with_format("arrow").map(
        embed_table_storage, batched=True, batch_size=EMBED_BATCH_SIZE, cache_file_name=str(cache_path)
    )  # without a name of ours, the copy would be left beside the user's files
    num_shards = max(1, math.ceil(embedded.data.nbytes / SHARD_BYTES))
    paths = [folder / "data" / f"{split}-{index:05d}-of-{num_shards:05d}.parquet" for index in range(num_shards)]
    for index, path in enumerate(paths):
        embedded.shard(num_shards, index, contiguous=True).with_format(None).to_parquet(path)
    return sum(path.stat().st_size for path in paths)


def _describe(data: DatasetCardData, splits: DatasetDict, num_bytes: dict[str, int]) -> None:
    """Put features, splits and the files of each split into a card's metadata, as the Hub and `datasets` read them."""
    features = next(iter(splits.values())).features
    infos = {name: SplitInfo(name, num_bytes[name], len(split)) for name, split in splits.items()}
    total = sum(num_bytes.values())
    info = DatasetInfo(features=features, splits=SplitDict(infos), download_size=total, dataset_size=total)
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    files = [{"split": name, "path": f"data/{name}-*"} for name in splits]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(data)


def present_card(repository: HubRepository) -> DatasetCard:
    """The card that a dataset has on the Hub, or an empty one.

    Raises:
        PushError: the Hub cannot be asked.
    """
    try:
        return DatasetCard.load(repository.repo_id)
    except (EntryNotFoundError, RepositoryNotFoundError):
        return DatasetCard("---\nlicense: unknown\n---\n")
    except Exception as error:  # each version of the Hub's client has classes of its own
        raise PushError(f"the push to {repository.repo_id} did not begin: {reason_of(error)}") from error


def push_splits(splits: DatasetDict, repository: HubRepository, card: DatasetCard) -> str:
    """Push all splits, and the card with what they are put into its metadata; the repository's address.

    Raises:
        PushError: it did not arrive.
    """
    with tempfile.TemporaryDirectory(prefix="hybridiqa-push-") as scratch:
        folder = Path(scratch, "repository")
        (folder / "data").mkdir(parents=True)
        num_bytes = {
            name: _write_shards(split, folder, name, Path(scratch, f"{name}.arrow")) for name, split in splits.items()
        }
        _describe(card.data, splits, num_bytes)
        card.save(folder / "README.md")
        return push_folder(folder, repository, FILES, REPLACED, "Upload a dataset by hybridIQA")
