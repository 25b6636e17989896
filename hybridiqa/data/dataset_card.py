"""The card of a prepared dataset: what is in it, how much of each, and how it is used."""

from __future__ import annotations

from collections import Counter

from datasets import ClassLabel, Dataset, DatasetDict
from huggingface_hub import DatasetCard, DatasetCardData

from hybridiqa.utils.hub import HubRepository

TAGS = ("image-quality-assessment", "aesthetic")
COLUMNS = {
    "image": "the picture, RGB",
    "score": "how good it looks, on the scale of its source; the hybrid dataset's is 1-9, higher is better",
    "bin": "where it was sorted: `Artifact/1` ... `Perfect/5`, `8`, `9`, `1` ...",
    "group": "what belongs together; no group stands in two splits",
    "path": "its file in the source",
}
BODY = """# {name}

Scored pictures to train a scorer of image quality on, prepared by hybridIQA's `prepare_dataset.py`.{licence}

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


def _split_row(name: str, split: Dataset) -> str:
    groups = len(set(split["group"])) if "group" in split.column_names else "none given"
    scores = split["score"]
    return f"| {name} | {len(split)} | {groups} | {min(scores):g} to {max(scores):g} |"


def _bins_table(splits: DatasetDict) -> str:
    """How many pictures of each bin each split has; nothing where there are no bins."""
    feature = next(iter(splits.values())).features.get("bin")
    if not isinstance(feature, ClassLabel):
        return ""
    counts = {name: Counter(split["bin"]) for name, split in splits.items()}
    used = [number for number in range(feature.num_classes) if any(count[number] for count in counts.values())]
    rows = [f"| {feature.int2str(number)} | {' | '.join(str(c[number]) for c in counts.values())} |" for number in used]
    return "\n".join(["", f"| bin | {' | '.join(splits)} |", "| --- " * (len(splits) + 1) + "|", *rows, ""])


def prepared_card(splits: DatasetDict, repository: HubRepository, license: str) -> DatasetCard:
    """The card of a dataset that `prepare_dataset.py` has made.

    Args:
        license: of the pictures, as the Hub spells it.
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
