"""Versions of one image share a group; other images do not."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_picture
from PIL import Image, ImageDraw, ImageOps

from hybridiqa.data.fingerprints import make_fingerprint
from hybridiqa.data.folders import ScoredImage, read_labelled_folder
from hybridiqa.data.near_duplicates import merge_near_duplicates
from hybridiqa.data.splits import split_by_group


def save(folder: Path, images: dict[str, Image.Image], groups: dict[str, str] | None = None) -> list[ScoredImage]:
    """Return a record for each image, of the group that is given or else its own."""
    for name, image in images.items():
        options = {"quality": 30} if name.endswith(".jpg") else {}
        image.save(folder / name, **options)
    return read(folder, groups)


def read(folder: Path, groups: dict[str, str] | None = None, num_workers: int = 4) -> list[ScoredImage]:
    labels = (lambda _: (5.0, "5")), (lambda name: (groups or {}).get(name, name))
    return read_labelled_folder(folder, *labels, num_workers, make_fingerprint).records


def versions(image: Image.Image) -> dict[str, Image.Image]:
    width, height = image.size
    red, green, _ = image.split()
    return {
        "original.png": image,
        "again.jpg": image,
        "half.png": image.resize((width // 2, height // 2)),
        "mirrored.jpg": ImageOps.mirror(image).resize((width // 2, height // 2)),
        "cropped.png": image.crop((2, 1, width - 1, height - 1)),
        "recoloured.png": Image.merge("RGB", (green.point(lambda level: level // 2 + 60), green, red)),
        "grey.png": image.convert("L"),
    }


def figure_on_white(seed: int) -> Image.Image:
    """Draw one of the images whose outline is the same and whose inside is not."""
    mask = Image.new("L", (96, 96))
    ImageDraw.Draw(mask).ellipse((32, 10, 64, 86), fill=255)
    return Image.composite(make_picture(96, 96, seed), Image.new("RGB", (96, 96), "white"), mask)


def test_versions_of_one_image_become_one_group_named_by_its_smallest_name(tmp_path):
    records = save(tmp_path, versions(make_picture()))
    merged, clusters = merge_near_duplicates(records)
    assert {record.group for record in merged} == {"again.jpg"}
    assert clusters == [sorted(record.relative_path for record in records)]
    assert [(r.path, r.score, r.bin) for r in merged] == [(r.path, r.score, r.bin) for r in records]


def test_a_compressed_a_halved_and_a_mirrored_copy_land_in_the_same_split(tmp_path):
    images = {f"{seed}-{n}": p for seed in range(8) for n, p in list(versions(make_picture(seed=seed)).items())[:4]}
    merged, clusters = merge_near_duplicates(save(tmp_path, images))
    assert [len(cluster) for cluster in clusters] == [4] * 8
    splits = split_by_group([r.score for r in merged], [r.group for r in merged], [0.5, 0.25, 0.25], seed=0)
    originals = [{merged[index].relative_path[0] for index in split} for split in splits]
    assert [len(split) for split in splits] == [16, 8, 8] and sorted(map(len, originals)) == [2, 2, 4]


def test_distinct_images_stay_apart(tmp_path):
    records = save(tmp_path, {f"{seed}.png": make_picture(seed=seed) for seed in range(60)})
    assert merge_near_duplicates(records) == (records, [])


def test_figures_of_one_outline_on_white_stay_apart_and_their_copies_do_not(tmp_path):
    figures = {f"{seed:02}.png": figure_on_white(seed) for seed in range(20)}
    records = save(tmp_path, figures | {"00-copy.png": ImageOps.mirror(figures["00.png"])})
    assert merge_near_duplicates(records)[1] == [["00-copy.png", "00.png"]]


def test_flat_images_are_near_to_their_own_pixels_alone(tmp_path):
    rng = np.random.default_rng(0)
    images = {f"{level}.png": Image.new("RGB", (40, 30), (level, level, 90)) for level in range(0, 250, 10)}
    for seed in range(10):
        grain = rng.normal(seed * 20, 3, (30, 40, 3)).clip(0, 255).astype(np.uint8)
        images[f"grain{seed}.png"] = Image.fromarray(grain)
    gradient = np.linspace(0, 20, 40)[None, :, None] * np.ones((30, 1, 3))
    images |= {f"sky{seed}.png": Image.fromarray((gradient + 20 * seed).astype(np.uint8)) for seed in range(10)}
    copies = {"copy.bmp": images["0.png"], "mirrored.bmp": ImageOps.mirror(images["grain3.png"])}
    _, clusters = merge_near_duplicates(save(tmp_path, images | copies))
    assert clusters == [["0.png", "copy.bmp"], ["grain3.png", "mirrored.bmp"]]


def test_groups_that_a_near_duplicate_links_become_one_with_all_their_members(tmp_path):
    images = {f"{seed}.png": make_picture(seed=seed) for seed in range(6)}
    images["copy.jpg"] = images["1.png"]
    groups = {"0.png": "b", "1.png": "b", "2.png": "c", "copy.jpg": "c", "3.png": "a", "4.png": "a"}
    merged, clusters = merge_near_duplicates(save(tmp_path, images, groups))
    assert {record.relative_path: record.group for record in merged} == {
        **dict.fromkeys(("0.png", "1.png", "2.png", "copy.jpg"), "b"),
        **dict.fromkeys(("3.png", "4.png"), "a"),
        "5.png": "5.png",
    }
    assert clusters == [["0.png", "1.png", "2.png", "copy.jpg"]]


def test_neither_the_order_nor_the_number_of_workers_changes_anything(tmp_path):
    images = {f"{seed}-{n}": p for seed in range(5) for n, p in versions(make_picture(seed=seed)).items()}
    records = save(tmp_path, images)
    merged, clusters = merge_near_duplicates(records)
    shuffled = random.Random(0).sample(records, len(records))
    merged_shuffled, clusters_shuffled = merge_near_duplicates(shuffled)
    by_path = {record.relative_path: record for record in merged}
    assert merged_shuffled == [by_path[record.relative_path] for record in shuffled]
    assert clusters_shuffled == clusters and len(clusters) == 5
    assert merge_near_duplicates(read(tmp_path, num_workers=1)) == (merged, clusters)


def test_comparing_a_few_rows_at_a_time_changes_nothing(tmp_path, monkeypatch):
    images = {f"{seed}-{n}": p for seed in range(3) for n, p in versions(make_picture(seed=seed)).items()}
    records = save(tmp_path, images)
    expected = merge_near_duplicates(records)
    monkeypatch.setattr("hybridiqa.data.near_duplicates.MAX_PAIRS_AT_ONCE", 50)
    assert merge_near_duplicates(records) == expected


def test_no_image_and_one_image_are_fine(tmp_path):
    records = save(tmp_path, {"a.png": make_picture()})
    assert merge_near_duplicates(records) == (records, [])
    assert merge_near_duplicates([]) == ([], [])


def test_distance_0_merges_equal_pixels_only(tmp_path):
    image = make_picture()
    records = save(tmp_path, {"a.png": image, "b.png": image, "c.png": image.crop((4, 4, 150, 100))})
    assert merge_near_duplicates(records, max_distance=0)[1] == [["a.png", "b.png"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_distance": -1}, "0 to 71"), ({"max_distance": 72}, "0 to 71")],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        merge_near_duplicates([], **options)


def test_a_record_that_was_read_without_its_fingerprint_is_named(tmp_path):
    [record] = save(tmp_path, {"a.png": make_picture()})
    with pytest.raises(RuntimeError, match=r"a\.png has no fingerprint"):
        merge_near_duplicates([replace(record, fingerprint=None)])
