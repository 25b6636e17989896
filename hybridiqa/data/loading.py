"""Prepared datasets, opened and decoded into memory of a device."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Image, load_dataset, load_from_disk
from PIL.Image import Image as PILImage
from tqdm.auto import tqdm

from hybridiqa.models import hub_code
from hybridiqa.utils.hub import HUB_ID
from hybridiqa.utils.libraries import first_line

logger = logging.getLogger(__name__)

HASHED_COLUMNS = ("path", "score", "group")
HASH_LENGTH = 16
MEMORY_SHARE = 0.5  # of the device's free memory that pictures may take; the rest is for the model and its gradients
NEEDED_COLUMNS = ("image", "score")


class ResidentImages:
    """Pictures of any sizes, one after another in a single uint8 tensor: three bytes a pixel and nothing else.

    Args:
        pixels: `(bytes,)`, uint8; each picture's rows of RGB pixels, 0-255.
        heights, widths: one a picture, in pixels.
    """

    def __init__(self, pixels: torch.Tensor, heights: Sequence[int], widths: Sequence[int]):
        self.pixels = pixels
        self.heights = np.asarray(heights, np.int64)
        self.widths = np.asarray(widths, np.int64)
        ends = np.cumsum(3 * self.heights * self.widths)
        self.offsets = ends - 3 * self.heights * self.widths  # of each picture's first byte
        num_bytes = int(ends[-1]) if ends.size else 0
        if pixels.dtype != torch.uint8 or pixels.numel() != num_bytes:
            raise ValueError(f"pixels must be {num_bytes} bytes of uint8, got {pixels.numel()} of {pixels.dtype}")

    @classmethod
    def from_tensors(cls, images: Sequence[torch.Tensor], device: str | torch.device | None = None) -> ResidentImages:
        """From uint8 `(3, height, width)` tensors; by default where they are."""
        pixels = torch.cat([image.permute(1, 2, 0).flatten() for image in images]).to(device)
        return cls(pixels, [image.shape[1] for image in images], [image.shape[2] for image in images])

    def __len__(self) -> int:
        return len(self.heights)

    def __getitem__(self, index: int) -> torch.Tensor:
        """One picture, uint8 `(3, height, width)`: a view of the buffer, its channels innermost in memory."""
        shape = (int(self.heights[index]), int(self.widths[index]), 3)
        start = int(self.offsets[index])
        return self.pixels[start : start + 3 * shape[0] * shape[1]].view(shape).permute(2, 0, 1)

    @property
    def num_bytes(self) -> int:
        return self.pixels.numel()

    def select(self, indices: Sequence[int], device: torch.device) -> ResidentImages:
        """Some of the pictures, on a device; copies from pinned memory overlap each other."""
        spans = [(int(self.offsets[i]), 3 * int(self.heights[i]) * int(self.widths[i])) for i in indices]
        pixels = torch.empty(sum(length for _, length in spans), dtype=torch.uint8, device=device)
        position = 0
        for start, length in spans:
            pixels[position : position + length].copy_(self.pixels[start : start + length], non_blocking=True)
            position += length
        return ResidentImages(pixels, self.heights[indices], self.widths[indices])


def is_on_hub(path: str | Path) -> bool:
    """Whether a dataset's name is that of a Hub repository, user/name, and not of a folder."""
    return not Path(path).exists() and HUB_ID.fullmatch(str(path)) is not None


def _load_splits(path: str | Path) -> Dataset | DatasetDict:
    try:
        if is_on_hub(path):
            return load_dataset(str(path))
        return load_from_disk(str(path))
    except FileNotFoundError as error:
        raise ValueError(f"{str(path)!r} is not a prepared dataset; prepare_dataset.py makes one") from error
    except IndexError as error:  # from inside of datasets
        raise ValueError(f"{str(path)!r} has a split without rows") from error
    except Exception as error:  # each reader and each version of the Hub's client has classes of its own
        raise ValueError(f"cannot load the dataset {str(path)!r}: {first_line(error)}") from error


def load_prepared(path: str | Path) -> DatasetDict:
    """The splits (`train`, `validation`, `test`, as far as they were made) of a prepared dataset: a folder or a Hub id.

    Every row has an `image` (PIL, RGB) and a `score` (float32, its source's scale), besides `bin`, `group` and `path`.
    Raises ValueError for a folder that prepare_dataset.py did not make, for what cannot be fetched from the Hub, or
    where these two columns are lacking.
    """
    splits = _load_splits(path)
    if not isinstance(splits, DatasetDict):
        raise ValueError(f"{str(path)!r} is a single split; a folder of splits by prepare_dataset.py is accepted")
    for name, split in splits.items():
        if not len(split):
            raise ValueError(f"{str(path)!r} has a split without rows: {name}")
        lacking = [column for column in NEEDED_COLUMNS if column not in split.column_names]
        if lacking:
            raise ValueError(f"split {name!r} of {str(path)!r} has no column {lacking}; it has {split.column_names}")
        image, score = split.features["image"], split.features["score"]
        if not isinstance(image, Image) or not getattr(score, "dtype", "").startswith(("float", "int")):
            raise ValueError(
                f"split {name!r} of {str(path)!r} must have images and numbers in 'image' and 'score', got {image} and "
                f"{score}"
            )
    return splits


def dataset_on_device(dataset: Dataset, device: str | torch.device) -> Dataset:
    """A prepared split whose rows are tensors on the device, decoded when they are asked for.

    `image` is uint8 (3, height, width), RGB, 0-255; `score` is float32. Of several rows, `score` is
    (rows,), and `image` is uint8 (rows, 3, height, width) if all have one size, a list of (3, height, width) if not.
    """
    return _undecoded(dataset).with_transform(partial(_rows_on_device, device=str(device)))


def _undecoded(dataset: Dataset) -> Dataset:
    """The split with its images as they are stored: `datasets` would decode any format that Pillow knows, EPS, too."""
    return dataset.cast_column("image", Image(decode=False))


def _rows_on_device(columns: dict[str, list], device: str) -> dict[str, torch.Tensor | list]:
    """Columns as tensors on the device where they are pictures or numbers, else as they are."""
    rows = {}
    for name, values in columns.items():
        if name == "image":
            images = [_pixels(hub_code.load_image(_image_bytes(value))).to(device) for value in values]
            rows[name] = torch.stack(images) if len({image.shape for image in images}) == 1 else images
        elif all(isinstance(value, int | float) for value in values):
            dtype = torch.float32 if any(isinstance(value, float) for value in values) else None
            rows[name] = torch.tensor(values, dtype=dtype, device=device)
        else:
            rows[name] = values
    return rows


def _pixels(picture: PILImage) -> torch.Tensor:
    """RGB as uint8 (3, height, width)."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def pictures(dataset: Dataset) -> Iterator[PILImage]:
    """Yield every row's picture, RGB."""
    for row in _undecoded(dataset.with_format(None).select_columns(["image"])):
        yield hub_code.load_image(_image_bytes(row["image"]))


def _image_bytes(image: dict | None) -> bytes:
    if image is None:
        raise ValueError("there is none")
    return hub_code.read_file(image["path"]) if image["bytes"] is None else image["bytes"]


def _describe_row(dataset: Dataset, name: str, row: int) -> str:
    """Return where a row stands: split, number and the path that is stored with the picture."""
    rows = dataset.with_format(None)
    if "path" in rows.column_names:
        path = rows.select_columns(["path"])[row]["path"]
    else:
        image = _undecoded(rows.select_columns(["image"]))[row]["image"]
        path = image and image["path"]
    return f"row {row} of the {name or dataset.split} split" + (f", {path}" if path else "")


@contextmanager
def _naming_row(dataset: Dataset, name: str, row: int) -> Iterator[None]:
    """Name the row whose picture cannot be read in what is raised, a ValueError."""
    try:
        yield
    except Exception as error:  # each decoder has errors of its own
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ValueError(f"cannot read the picture in {_describe_row(dataset, name, row)}: {reason}") from error


def image_sizes(dataset: Dataset, name: str = "") -> list[tuple[int, int]]:
    """(height, width) in pixels of every row's decoded `image`, read from the files' headers.

    Raises:
        ValueError: a picture that cannot be read; the row of the split `name` is named.
    """
    sizes = []
    for index, row in enumerate(_undecoded(dataset.with_format(None).select_columns(["image"]))):
        with _naming_row(dataset, name, index):
            width, height = hub_code.upright_size(_image_bytes(row["image"]))
        sizes.append((height, width))
    return sizes


def _new_buffer(num_bytes: int, device: torch.device, memory_share: float) -> torch.Tensor:
    """A buffer on the device where it fits, else in pinned host memory."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # what torch holds unused counts as taken
        free_bytes, _ = torch.cuda.mem_get_info(device)
        fits = num_bytes <= memory_share * free_bytes
        logger.info(
            f"{num_bytes / 1e6:.1f} MB of pictures on {device}"
            if fits
            else f"{num_bytes / 1e6:.1f} MB of pictures stay in pinned host memory: they exceed {memory_share:.0%} "
            f"of the {free_bytes / 1e6:.1f} MB that are free on {device}"
        )
        if not fits:
            return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
    return torch.empty(num_bytes, dtype=torch.uint8, device=device)


def load_resident(
    dataset: Dataset,
    device: str | torch.device,
    memory_share: float = MEMORY_SHARE,
    num_workers: int = 2,
    name: str = "",
) -> ResidentImages:
    """Decode a prepared split once, in parallel, into memory of the device.

    Args:
        dataset: a split with an `image` column, see `hybridiqa.data.loading.load_prepared`.
        memory_share: of the device's free memory, 0-1. What is larger stays in pinned host memory.
        num_workers: threads that decode.
        name: of the split, for the error.

    Raises:
        ValueError: a picture that cannot be read; its row is named.
    """
    device = torch.device(device)
    sizes = image_sizes(dataset, name)  # (height, width) each, from the headers
    pixels = _new_buffer(sum(3 * height * width for height, width in sizes), device, memory_share)
    images = ResidentImages(pixels, [height for height, _ in sizes], [width for _, width in sizes])
    rows = _undecoded(dataset.with_format(None).select_columns(["image"]))

    def decode(index: int) -> None:
        with _naming_row(dataset, name, index):
            images[index].copy_(_pixels(hub_code.decode_file(_image_bytes(rows[index]["image"]))[1]))

    with ThreadPoolExecutor(num_workers) as pool:
        list(tqdm(pool.map(decode, range(len(sizes))), "decode", len(sizes), leave=False, disable=None, unit="image"))
    return images


def _hash_split(digest, name: str, split: Dataset) -> None:
    columns = [column for column in HASHED_COLUMNS if column in split.column_names]
    rows = split.with_format(None).select_columns(["image", *columns]).cast_column("image", Image(decode=False))
    for index, row in enumerate(rows):
        with _naming_row(split, name, index):
            data = _image_bytes(row["image"])
        # The length makes it plain where the bytes end and the next row begins.
        digest.update(json.dumps([name, {column: row[column] for column in columns}, len(data)]).encode())
        digest.update(data)


def dataset_hash(splits: DatasetDict) -> str:
    """16 hexadecimal digits of the SHA-256 over split names and rows in order: path, score, group and image file.

    Nothing is decoded, and columns other than these do not count.
    """
    digest = hashlib.sha256()
    for name in sorted(splits):
        _hash_split(digest, name, splits[name])
    return digest.hexdigest()[:HASH_LENGTH]
