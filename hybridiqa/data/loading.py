"""Prepared datasets, opened and decoded into memory of a device."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import logging
from collections.abc import Collection, Iterator, Sequence
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
MEMORY_SHARE = 0.5  # of the device's free memory that images may take; the rest is for the model and its gradients
NEEDED_COLUMNS = ("image", "score")


class ResidentImages:
    """Images of any sizes, one after another in a single uint8 tensor: three bytes a pixel and nothing else.

    Args:
        pixels: `(bytes,)`, uint8; each image's rows of RGB pixels, 0-255.
        heights, widths: one an image, in pixels.
    """

    def __init__(self, pixels: torch.Tensor, heights: Sequence[int] | np.ndarray, widths: Sequence[int] | np.ndarray):
        self.pixels = pixels
        self.heights = np.asarray(heights, np.int64)
        self.widths = np.asarray(widths, np.int64)
        ends = np.cumsum(3 * self.heights * self.widths)
        self.offsets = ends - 3 * self.heights * self.widths  # of each image's first byte
        num_bytes = int(ends[-1]) if ends.size else 0
        if pixels.dtype != torch.uint8 or pixels.numel() != num_bytes:
            raise ValueError(f"pixels must be {num_bytes} bytes of uint8, got {pixels.numel()} of {pixels.dtype}")

    @classmethod
    def from_tensors(cls, images: Sequence[torch.Tensor], device: str | torch.device | None = None) -> ResidentImages:
        """Copy uint8 `(3, height, width)` tensors, by default to where they are."""
        pixels = torch.cat([image.permute(1, 2, 0).flatten() for image in images]).to(device)
        return cls(pixels, [image.shape[1] for image in images], [image.shape[2] for image in images])

    def __len__(self) -> int:
        return len(self.heights)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return one image, uint8 `(3, height, width)`: a view of the buffer, its channels innermost in memory."""
        shape = (int(self.heights[index]), int(self.widths[index]), 3)
        start = int(self.offsets[index])
        return self.pixels[start : start + 3 * shape[0] * shape[1]].view(shape).permute(2, 0, 1)

    @property
    def num_bytes(self) -> int:
        return self.pixels.numel()

    def select(self, indices: Sequence[int] | np.ndarray, device: torch.device) -> ResidentImages:
        """Copy some of the images to a device; copies from pinned memory overlap each other."""
        spans = [(int(self.offsets[i]), 3 * int(self.heights[i]) * int(self.widths[i])) for i in indices]
        pixels = torch.empty(sum(length for _, length in spans), dtype=torch.uint8, device=device)
        position = 0
        for start, length in spans:
            pixels[position : position + length].copy_(self.pixels[start : start + length], non_blocking=True)
            position += length
        return ResidentImages(pixels, self.heights[indices], self.widths[indices])


def is_on_hub(path: str | Path) -> bool:
    """Return whether a dataset's name is that of a Hub repository, user/name, and not of a folder."""
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


def _check_columns(path: str | Path, name: str, split: Dataset) -> None:
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


def load_prepared(path: str | Path, required_splits: Collection[str] = ()) -> DatasetDict:
    """Load the splits (`train`, `validation`, `test`, as far as they were made) of a prepared dataset.

    Every row has an `image` (PIL, RGB) and a `score` (float32, its source's scale), besides `bin`, `group` and `path`.

    Args:
        path: a folder or a Hub id.

    Raises:
        ValueError: a folder that prepare_dataset.py did not make, what cannot be fetched from the Hub, or a split or
            one of these two columns that is lacking.
    """
    splits = _load_splits(path)
    if not isinstance(splits, DatasetDict):
        raise ValueError(f"{str(path)!r} is a single split; a folder of splits by prepare_dataset.py is accepted")
    for name, split in splits.items():
        _check_columns(path, name, split)
    if missing := set(required_splits) - set(splits):
        raise ValueError(f"{path} lacks the split {' and '.join(sorted(missing))}, it has {', '.join(splits)}")
    return splits


def dataset_on_device(dataset: Dataset, device: str | torch.device) -> Dataset:
    """Return a prepared split whose rows are tensors on the device, decoded when they are asked for.

    `image` is uint8 (3, height, width), RGB, 0-255; `score` is float32. Of several rows, `score` is
    (rows,), and `image` is uint8 (rows, 3, height, width) if all have one size, a list of (3, height, width) if not.
    """
    return _undecoded(dataset).with_transform(partial(_rows_on_device, device=str(device)))


def _undecoded(dataset: Dataset) -> Dataset:
    """Return the split with its images as they are stored: `datasets` would decode whatever Pillow knows, EPS, too."""
    return dataset.cast_column("image", Image(decode=False))


def _rows_on_device(columns: dict[str, list], device: str) -> dict[str, torch.Tensor | list]:
    """Return columns as tensors on the device where they are images or numbers, else as they are."""
    rows: dict[str, torch.Tensor | list] = {}
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


def _pixels(image: PILImage) -> torch.Tensor:
    """Return RGB as uint8 (3, height, width)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class DatasetImages:
    """Images of a prepared split, RGB, each decoded when it is asked for.

    Args:
        name: of the split, for the error about an image that cannot be read, a ValueError.
    """

    def __init__(self, dataset: Dataset, name: str = ""):
        self.dataset, self.name, self.rows = dataset, name, _image_rows(dataset)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PILImage:
        with _naming_row(self.dataset, self.name, index):
            return hub_code.load_image(_image_bytes(self.rows[index]["image"]))

    def __iter__(self) -> Iterator[PILImage]:
        return map(self.__getitem__, range(len(self)))


def _image_rows(dataset: Dataset, *columns: str) -> Dataset:
    """Return the split's images as they are stored, and some of its other columns."""
    return _undecoded(dataset.with_format(None).select_columns(["image", *columns]))


def _image_bytes(image: dict | None) -> bytes:
    """Return the bytes of an image as a dataset stores it: within the dataset, or in a file."""
    if image is None:
        raise ValueError("there is none")
    return hub_code.read_file(image["path"]) if image["bytes"] is None else image["bytes"]


def _describe_row(dataset: Dataset, name: str, row: int) -> str:
    """Return where a row stands: split, number and the path that is stored with the image."""
    rows = dataset.with_format(None)
    if "path" in rows.column_names:
        path = rows.select_columns(["path"])[row]["path"]
    else:
        image = _image_rows(dataset)[row]["image"]
        path = image and image["path"]
    return f"row {row} of the {name or dataset.split} split" + (f", {path}" if path else "")


@contextmanager
def _naming_row(dataset: Dataset, name: str, row: int) -> Iterator[None]:
    """Name the row whose image cannot be read in what is raised, a ValueError."""
    try:
        yield
    except Exception as error:  # each decoder has errors of its own
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ValueError(f"cannot read the image in {_describe_row(dataset, name, row)}: {reason}") from error


def _num_pixels(data: bytes) -> int:
    """Return the number of pixels that an image file's header tells of; none of them is decoded."""
    try:
        width, height = hub_code.open_image(io.BytesIO(data)).size
    except ValueError:  # of its metadata alone, perhaps
        width, height = hub_code.upright_size(data)
    return width * height


def _count_bytes(dataset: Dataset, name: str) -> list[int]:
    """Return the bytes that each row's image takes decoded, as uint8 RGB."""
    counts = []
    for index, row in enumerate(_image_rows(dataset)):
        with _naming_row(dataset, name, index):
            counts.append(3 * _num_pixels(_image_bytes(row["image"])))
    return counts


def _new_buffer(num_bytes: int, device: torch.device, memory_share: float) -> torch.Tensor:
    """Allocate a buffer on the device where it fits, else in pinned host memory."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # what torch holds unused counts as taken
        free_bytes, _ = torch.cuda.mem_get_info(device)
        fits = num_bytes <= memory_share * free_bytes
        logger.info(
            f"{num_bytes / 1e6:.1f} MB of images on {device}"
            if fits
            else f"{num_bytes / 1e6:.1f} MB of images stay in pinned host memory: they exceed {memory_share:.0%} "
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
        ValueError: an image that cannot be read; its row is named.
    """
    counts = _count_bytes(dataset, name)
    ends = np.cumsum(counts, dtype=np.int64)
    pixels = _new_buffer(int(ends[-1]) if len(ends) else 0, torch.device(device), memory_share)
    rows = _image_rows(dataset)

    def decode(index: int) -> tuple[int, int]:
        with _naming_row(dataset, name, index):
            _, image = hub_code.decode_file(_image_bytes(rows[index]["image"]))
            decoded = torch.from_numpy(np.array(image)).flatten()  # rows of RGB pixels
            pixels[ends[index] - counts[index] : ends[index]].copy_(decoded)
        return image.height, image.width  # upright, which the header need not be

    with ThreadPoolExecutor(num_workers) as pool:
        bar = tqdm(pool.map(decode, range(len(rows))), "decode", len(rows), leave=False, disable=None, unit="image")
        sizes = list(bar)
    return ResidentImages(pixels, [height for height, _ in sizes], [width for _, width in sizes])


def _hash_split(digest: hashlib._Hash, name: str, split: Dataset) -> None:
    columns = [column for column in HASHED_COLUMNS if column in split.column_names]
    for index, row in enumerate(_image_rows(split, *columns)):
        with _naming_row(split, name, index):
            data = _image_bytes(row["image"])
        # The length makes it plain where the bytes end and the next row begins.
        digest.update(json.dumps([name, {column: row[column] for column in columns}, len(data)]).encode())
        digest.update(data)


def dataset_hash(splits: DatasetDict) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over split names and rows: path, score, group and image file.

    Rows count in their order. Nothing is decoded, and other columns do not count.
    """
    digest = hashlib.sha256()
    for name in sorted(splits):
        _hash_split(digest, name, splits[name])
    return digest.hexdigest()[:HASH_LENGTH]
