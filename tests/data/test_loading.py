"""Prepared datasets: their hash, and their images decoded into memory."""

import importlib
import io
import re

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value
from factories import make_picture
from PIL import Image as PILImage

from hybridiqa.data import loading
from hybridiqa.data.loading import dataset_hash, load_resident


def make_splits(**changes) -> DatasetDict:
    columns = {
        "image": [{"bytes": data, "path": None} for data in (b"not decoded", b"at all")],
        "score": [1.5, 2.5],
        "group": ["a", "b"],
        "path": ["1/a.png", "2/b.png"],
    }
    features = Features(image=Image(mode="RGB"), score=Value("float32"), group=Value("string"), path=Value("string"))
    train = Dataset.from_dict(columns | changes, features=features)
    return DatasetDict(train=train, validation=train.select([0]))


def test_the_hash_is_the_same_for_the_same_data():
    splits = make_splits()
    digest = dataset_hash(splits)
    assert len(digest) == 16 and int(digest, 16)
    assert digest == dataset_hash(make_splits())
    assert digest == dataset_hash(DatasetDict(reversed(splits.items())))
    assert digest == dataset_hash(splits.with_format("torch")) == dataset_hash(splits.cast_column("image", Image()))


@pytest.mark.parametrize(
    "changes",
    [
        {"score": [1.5, 2.75]},
        {"group": ["a", "c"]},
        {"path": ["1/a.png", "2/c.png"]},
        {"image": [{"bytes": data, "path": None} for data in (b"not decoded", b"at alL")]},
    ],
)
def test_the_hash_tells_any_change_of_the_data(changes):
    assert dataset_hash(make_splits(**changes)) != dataset_hash(make_splits())


def test_the_hash_tells_order_split_and_columns():
    splits = make_splits()
    digests = {
        dataset_hash(splits),
        dataset_hash(DatasetDict(train=splits["train"].select([1, 0]), validation=splits["validation"])),
        dataset_hash(DatasetDict(train=splits["train"], test=splits["validation"])),
        dataset_hash(splits.remove_columns("group")),
    }
    assert len(digests) == 4


def test_images_that_lie_in_files_are_hashed_by_their_bytes(tmp_path):
    image_paths = [tmp_path / "one", tmp_path / "two"]
    for path, data in zip(image_paths, (b"not decoded", b"at all"), strict=True):
        path.write_bytes(data)
    splits = make_splits(image=[{"bytes": None, "path": str(path)} for path in image_paths])
    assert dataset_hash(splits) == dataset_hash(make_splits())


def save_images(folder) -> Dataset:
    """Save one that a viewer turns by a quarter, one as it is, and one with a palette."""
    exif = PILImage.Exif()
    exif[0x0112] = 6
    make_picture(90, 60).save(folder / "turned.jpg", exif=exif)
    make_picture(50, 70).save(folder / "plain.png")
    make_picture(40, 40).quantize(16).save(folder / "palette.png")
    paths = [str(folder / name) for name in ("turned.jpg", "plain.png", "palette.png")]
    return Dataset.from_dict({"image": paths}, features=Features({"image": Image(mode="RGB")}))


def test_images_in_memory_are_what_the_dataset_gives(tmp_path):
    dataset = save_images(tmp_path)
    images = load_resident(dataset, "cpu")
    assert images.num_bytes == 3 * (90 * 60 + 70 * 50 + 40 * 40)
    sizes = list(zip(images.heights.tolist(), images.widths.tolist(), strict=True))
    assert sizes == [(90, 60), (70, 50), (40, 40)]  # as decoding turns the images
    for index, row in enumerate(dataset):
        assert np.array_equal(images[index].permute(1, 2, 0).numpy(), np.asarray(row["image"]))


def encoded(**options) -> bytes:
    buffer = io.BytesIO()
    make_picture(90, 60).save(buffer, **options)
    return buffer.getvalue()


BROKEN = {
    "no image": (b"not an image", "not an image that Pillow knows"),
    "nothing": (b"", "the file is empty"),
    "cut JPEG": (encoded(format="JPEG")[:900], ""),
    "cut PNG": (encoded(format="PNG")[:-900], ""),
    "cut header": (encoded(format="PNG")[:20], ""),
}


@pytest.mark.parametrize("data, reason", BROKEN.values(), ids=BROKEN)
def test_a_broken_image_is_named_by_split_row_and_path(data, reason):
    images = [{"bytes": bytes_, "path": None} for bytes_ in (encoded(format="PNG"), data)]
    split = make_splits(image=images)["train"]
    with pytest.raises(ValueError, match=r"^cannot read the image in row 1 of the train split, 2/b\.png: " + reason):
        load_resident(split, "cpu", name="train")


def test_a_broken_image_without_a_path_column_is_named_as_it_is_stored():
    images = [{"bytes": data, "path": name} for data, name in ((encoded(format="PNG"), "c.png"), (b"no", "d.png"))]
    split = make_splits(image=images)["train"].remove_columns("path")
    with pytest.raises(ValueError, match=r"row 1 of the validation split, d\.png: "):
        load_resident(split, "cpu", name="validation")


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "gone/e.png"}])
def test_an_image_that_is_not_there_is_named_before_anything_is_decoded(image):
    splits = make_splits(image=[{"bytes": b"any", "path": None}, image])
    reason = "there is none" if image is None else "No such file or directory"
    expected = re.escape(f"cannot read the image in row 1 of the train split, 2/b.png: {reason}")
    with pytest.raises(ValueError, match=expected):
        dataset_hash(splits)
    with pytest.raises(ValueError, match=f"{expected}|row 0"):
        load_resident(splits["train"], "cpu", name="train")


@pytest.mark.parametrize("name", ["dataset_on_device", "load_resident"])
def test_the_old_place_of_what_is_public_says_where_it_is_now(name):
    with pytest.warns(DeprecationWarning, match=f"moved to hybridiqa.data.loading.{name}"):
        assert getattr(importlib.import_module("hybridiqa.dataset_loading"), name) is getattr(loading, name)
