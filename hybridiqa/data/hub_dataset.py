"""Datasets on the Hub: Parquet files that hold the images themselves, and a card, all in one commit."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from datasets.table import embed_table_storage
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import CardData, DatasetCard, DatasetCardData
from huggingface_hub.utils import EntryNotFoundError, RepositoryNotFoundError

from hybridiqa.utils.hub import HubRepository, PushError, explain_hub_error, push_folder

TAGS = ("image-quality-assessment", "aesthetic")
COLUMNS = {
    "image": "the image, RGB",
    "score": "how good it looks, on the scale of its source; the hybrid dataset's is 1-9, higher is better",
    "bin": "where it was sorted: `Artifact/1` ... `Perfect/5`, `8`, `9`, `1` ...",
    "group": "what belongs together; no group stands in two splits",
    "path": "its file in the source",
}
BODY = """# {name}

Scored images to train a scorer of image quality on, prepared by hybridIQA's `prepare_dataset.py`.{licence}

| split | images | groups | scores |
| --- | --- | --- | --- |
{splits}
{bins}
| column | |
| --- | --- |
{columns}

```bash
accelerate launch train.py --dataset {repo_id} --output_dir my-scorer
```

```python
from datasets import load_dataset

splits = load_dataset("{repo_id}")
```
"""
NO_LICENCE = " No licence was given for them: ask before you publish them, or what was trained on them."

SHARD_BYTES = 500_000_000
EMBED_BATCH_SIZE = 100
FILES = ("data/*.parquet", "README.md")
REPLACED = ("data/*.parquet",)  # of an earlier push: its rows would be read with the new ones


def _split_row(name: str, split: Dataset) -> str:
    groups = len(set(split["group"])) if "group" in split.column_names else "none given"
    scores = split["score"]
    return f"| {name} | {len(split)} | {groups} | {min(scores):g} to {max(scores):g} |"


def _bins_table(splits: DatasetDict) -> str:
    """Return a table of how many images of each bin each split has; nothing where there are no bins."""
    feature = next(iter(splits.values())).features.get("bin")
    if not isinstance(feature, ClassLabel):
        return ""
    counts = {name: Counter(split["bin"]) for name, split in splits.items()}
    used = [number for number in range(feature.num_classes) if any(count[number] for count in counts.values())]
    rows = [f"| {feature.int2str(number)} | {' | '.join(str(c[number]) for c in counts.values())} |" for number in used]
    return "\n".join(["", f"| bin | {' | '.join(splits)} |", "| --- " * (len(splits) + 1) + "|", *rows, ""])


def build_card(splits: DatasetDict, repository: HubRepository, license: str) -> DatasetCard:
    """Return the card of a dataset that `prepare_dataset.py` has made.

    Args:
        license: of the images, as the Hub spells it.
    """
    names = next(iter(splits.values())).column_names
    body = BODY.format(
        name=repository.repo_id.split("/")[-1],
        repo_id=repository.repo_id,
        licence=NO_LICENCE if license == "unknown" else "",
        splits="\n".join(_split_row(name, split) for name, split in splits.items()),
        bins=_bins_table(splits),
        columns="\n".join(f"| `{name}` | {COLUMNS.get(name, '')} |" for name in names),
    )
    data = DatasetCardData(license=license, task_categories=["image-classification"], tags=list(TAGS))
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


def _write_shards(dataset: Dataset, folder: Path, split: str, cache_path: Path) -> int:
    """Write a split as `data/SPLIT-00000-of-00001.parquet` ... and return the number of bytes written."""
    embedded = dataset.with_format("arrow").map(
        embed_table_storage, batched=True, batch_size=EMBED_BATCH_SIZE, cache_file_name=str(cache_path)
    )  # without a name of ours, the copy would be left beside the user's files
    num_shards = max(1, math.ceil(embedded.data.nbytes / SHARD_BYTES))
    paths = [folder / "data" / f"{split}-{index:05d}-of-{num_shards:05d}.parquet" for index in range(num_shards)]
    for index, path in enumerate(paths):
        embedded.shard(num_shards, index, contiguous=True).with_format(None).to_parquet(path)
    return sum(path.stat().st_size for path in paths)


def _describe(data: CardData, splits: DatasetDict, num_bytes: dict[str, int]) -> None:
    """Put features, splits and the files of each split into a card's metadata, as the Hub and `datasets` read them."""
    features = next(iter(splits.values())).features
    infos = {name: SplitInfo(name, num_bytes[name], len(split)) for name, split in splits.items()}
    total = sum(num_bytes.values())
    info = DatasetInfo(features=features, splits=SplitDict(infos), download_size=total, dataset_size=total)
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    files = [{"split": name, "path": f"data/{name}-*"} for name in splits]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(data)


def fetch_card(repository: HubRepository) -> DatasetCard:
    """Return the card that a dataset has on the Hub, or an empty one.

    Raises:
        PushError: the Hub cannot be asked.
    """
    try:
        return DatasetCard.load(repository.repo_id)
    except (EntryNotFoundError, RepositoryNotFoundError):
        return DatasetCard("---\nlicense: unknown\n---\n")
    except Exception as error:  # each version of the Hub's client has classes of its own
        raise PushError(f"the push to {repository.repo_id} did not begin: {explain_hub_error(error)}") from error


def push_splits(splits: DatasetDict, repository: HubRepository, card: DatasetCard) -> str:
    """Push all splits and the card, with what they are put into its metadata; return the repository's address.

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
