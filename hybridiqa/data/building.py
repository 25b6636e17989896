"""Dataset built of scored images: their files as they are where everybody decodes them alike, else their pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature

from hybridiqa.data.folders import BIN_NAMES, ScoredImage
from hybridiqa.models import hub_code
from hybridiqa.utils.files import as_text

FEATURES = Features(
    {
        "image": ImageFeature(mode="RGB"),
        "score": Value("float32"),
        "bin": ClassLabel(names=list(BIN_NAMES)),
        "group": Value("string"),
        "path": Value("string"),
    }
)


def image_bytes(record: ScoredImage) -> bytes:
    """Return the image's file as it is where it is plain, else the pixels that we see in it as PNG.

    PNG is smaller than BMP, and shown by every viewer. Raises ValueError where the file has changed.
    """
    data = record.read()
    if record.is_plain:
        return data
    buffer = io.BytesIO()
    hub_code.load_image(data).save(buffer, format="PNG")
    return buffer.getvalue()


def _rows(records: list[ScoredImage], num_workers: int) -> Iterator[dict]:
    chunk_size = 8 * num_workers  # `map` would otherwise read all images ahead of the writer
    with ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, len(records), chunk_size):
            chunk = records[start : start + chunk_size]
            for record, data in zip(chunk, pool.map(image_bytes, chunk), strict=True):
                yield {
                    "image": {"bytes": data, "path": as_text(record.path.name)},
                    "score": record.score,
                    "bin": record.bin,
                    "group": record.group,
                    "path": record.relative_path,
                }


def build_datasets(splits: dict[str, list[ScoredImage]], cache_dir: str, num_workers: int) -> DatasetDict:
    """Write the rows of all splits into `cache_dir` and return them as datasets, which read from there."""
    datasets = {}
    for name, records in splits.items():
        arguments = {"records": records, "num_workers": num_workers}
        # A cache of this run alone: the shared one would hand out old images under the same names.
        datasets[name] = Dataset.from_generator(
            _rows, features=FEATURES, cache_dir=os.path.join(cache_dir, name), gen_kwargs=arguments
        )
    return DatasetDict(datasets)
