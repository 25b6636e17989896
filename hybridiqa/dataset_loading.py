"""Open what prepare_dataset.py wrote, and hand it to torch on a device."""

from pathlib import Path

import torch
from datasets import Dataset, DatasetDict, load_from_disk

NEEDED_COLUMNS = ("image", "score")


def load_prepared(path: str | Path) -> DatasetDict:
    """The splits (`train`, `validation`, `test`, as far as they were made) of a prepared dataset's folder.

    Every row has an `image` (PIL, RGB) and a `score` (float32, its source's scale), besides `bin`, `group` and `path`.
    Raises ValueError for a folder that prepare_dataset.py did not make, or where these two columns are lacking.
    """
    try:
        splits = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise ValueError(f"{str(path)!r} is not a prepared dataset; prepare_dataset.py makes one") from error
    if not isinstance(splits, DatasetDict):
        raise ValueError(f"{str(path)!r} is a single split; a folder of splits by prepare_dataset.py is accepted")
    for name, split in splits.items():
        lacking = [column for column in NEEDED_COLUMNS if column not in split.column_names]
        if lacking:
            raise ValueError(f"split {name!r} of {str(path)!r} has no column {lacking}; it has {split.column_names}")
    return splits


def dataset_on_device(dataset: Dataset, device: str | torch.device) -> Dataset:
    """A prepared split whose rows are tensors on the device, decoded when they are asked for.

    `image` is uint8 (3, height, width), RGB, 0-255; `score` is float32. Of several rows, `score` is
    (rows,), and `image` is uint8 (rows, 3, height, width) if all have one size, a list of (3, height, width) if not.
    """
    return dataset.with_format("torch", device=str(device))
