"""Maps of patch scores: their colours and sizes, the patches beside them, and the files that they become."""

import math
import os

import numpy as np
import pytest
from factories import make_picture
from PIL import Image

from hybridiqa.inference.patch_maps import GAP, draw_patch_map, find_map_path, mean_scores, save_patch_map
from hybridiqa.models import hub_code

RED, YELLOW, BLUE = (165, 0, 38), (255, 255, 191), (49, 54, 149)  # the map's colours of 1, 5 and 9
GREY = Image.new("RGB", (1024, 1024), (100, 100, 100))
SCORE_RANGE = (1, 9)


def draw(image: Image.Image, sampling: str = "grid", **options) -> Image.Image:
    """Draw a map of an image whose patches score 1 to 9."""
    processor = hub_code.HybridIQAImageProcessor()
    boxes = processor.patch_boxes(*image.size, sampling=sampling, **options)
    return draw_patch_map(image, boxes, np.linspace(1, 9, len(boxes)).tolist(), 5.0, SCORE_RANGE)


def find(page: Image.Image, tile: Image.Image) -> bool:
    """Return whether the tile stands somewhere in the page, pixel by pixel."""
    pixels, wanted = np.asarray(page), np.asarray(tile)
    rows, columns = np.nonzero((pixels == wanted[0, 0]).all(-1))
    places = (pixels[y : y + tile.height, x : x + tile.width] for y, x in zip(rows, columns, strict=True))
    return any(np.array_equal(place, wanted) for place in places)


def test_a_pixel_has_the_mean_score_of_the_patches_that_cover_it():
    scores = mean_scores(4, 2, [(0, 0, 2, 2), (1, 0, 3, 1)], [2.0, 6.0])
    expected = [[2, 4, 6, math.nan], [2, 2, math.nan, math.nan]]
    np.testing.assert_array_equal(scores, expected)


def test_low_is_red_high_is_blue_and_where_no_patch_is_the_image_stays():
    boxes = [(0, 0, 256, 1024), (256, 0, 512, 1024), (512, 0, 768, 1024)]
    page = draw_patch_map(GREY, boxes, [-3.0, 5.0, 9.0], 3.7, SCORE_RANGE)
    for x, colour in ((128, RED), (384, YELLOW), (640, BLUE)):
        expected = [(100 + side) / 2 for side in colour]
        assert page.getpixel((GAP + x, GAP + 300)) == pytest.approx(expected, abs=2)
    assert page.getpixel((GAP + 900, GAP + 300)) == (100, 100, 100)


@pytest.mark.parametrize(("width", "height"), [(1024, 900), (900, 1024)])
def test_the_worst_and_the_best_patch_stand_beside_the_image_as_they_are(width, height):
    image = make_picture(width, height)
    boxes = [(0, 0, 224, 224), (300, 400, 524, 624), (600, 600, 824, 824)]
    page = draw_patch_map(image, boxes, [4.0, 2.0, 8.0], 4.7, SCORE_RANGE)
    assert find(page, image.crop(boxes[1])) and find(page, image.crop(boxes[2]))
    assert not find(page, image.crop(boxes[0]))


def test_numbers_are_written_where_patches_of_one_size_have_their_middles():
    boxes = [(0, 0, 1024, 1024), (100, 100, 324, 324), (700, 700, 924, 924)]
    pixels = np.asarray(draw_patch_map(GREY, boxes, [5.0, 5.0, 5.1], 5.0, SCORE_RANGE))
    is_ink = (pixels == (30, 30, 30)).all(-1)[GAP:, GAP : GAP + 1024]
    ys, xs = np.nonzero(is_ink)
    assert {(round(x / 100), round(y / 100)) for x, y in zip(xs, ys, strict=True)} <= {(2, 2), (8, 8)}
    assert is_ink[190:235, 180:245].any() and is_ink[790:835, 780:845].any()


def test_the_colour_bar_is_marked_at_the_score():
    low, high = (np.asarray(draw_patch_map(GREY, [(0, 0, 9, 9)], [5.0], score, SCORE_RANGE)) for score in (2.0, 8.0))
    columns = np.nonzero((low != high)[80:88].any(axis=(0, 2)))[0]  # where the mark stands in either bar
    assert columns.max() - columns.min() == pytest.approx(266 * 6 / 8, abs=4)


@pytest.mark.parametrize("sampling", ["grid", "random", "multiscale"])
@pytest.mark.parametrize("size", [(1024, 1024), (60, 40), (1, 1), (224, 224), (230, 240), (300, 6000), (1200, 300)])
def test_every_shape_of_image_has_a_legible_map(sampling, size):
    page = draw(make_picture(*size), sampling)
    assert min(page.size) >= 320 and max(page.size) <= 8192 + 2 * GAP


def test_a_very_long_image_is_not_enlarged_without_limit():
    page = draw(make_picture(20000, 300))
    assert page.width == 8192 + 2 * GAP


def test_a_single_patch_is_neither_worst_nor_best():
    image = make_picture(500, 400)
    page = draw(image, num_patches=1)
    assert not find(page, image.crop((138, 88, 362, 312)))
    assert not any(np.all(np.asarray(page) == colour, axis=-1).sum() > 1000 for colour in (RED, BLUE))


@pytest.mark.parametrize(("boxes", "scores"), [([], []), ([(0, 0, 9, 9)], [1.0, 2.0])])
def test_a_map_needs_one_score_a_patch(boxes, scores):
    with pytest.raises(ValueError, match=f"got {len(boxes)} boxes and {len(scores)} scores"):
        draw_patch_map(GREY, boxes, scores, 5.0, SCORE_RANGE)


def test_maps_keep_the_tree_below_their_folder(tmp_path, monkeypatch):
    root, maps = tmp_path / "library", tmp_path / "maps"
    assert find_map_path(root / "a" / "b.png", root, maps) == maps / "a" / "b.png.map.png"
    monkeypatch.chdir(tmp_path)
    relative = find_map_path(tmp_path / "library" / "a" / ".." / "b.jpg", "library", "maps")
    assert str(relative) == os.path.join("maps", "b.jpg.map.png")
    with pytest.raises(ValueError, match="is not in the subpath"):
        find_map_path(tmp_path / "elsewhere" / "b.png", root, maps)


def test_a_map_replaces_the_same_images_map_and_nothing_else(tmp_path):
    one, other, maps = tmp_path / "one", tmp_path / "other", tmp_path / "maps"
    red, blue = Image.new("RGB", (9, 9), RED), Image.new("RGB", (9, 9), BLUE)
    first = save_patch_map(red, one / "a.png", one, maps)
    assert save_patch_map(blue, one / "a.png", one, maps) == first == maps / "a.png.map.png"
    assert Image.open(first).getpixel((0, 0)) == BLUE
    second = save_patch_map(red, other / "a.png", other, maps)
    assert second == maps / "a.png.1.map.png" and Image.open(first).getpixel((0, 0)) == BLUE
    assert save_patch_map(blue, other / "a.png", other, maps) == second
    (maps / "b.png.map.png").write_text("mine")
    (maps / "c.png.map.png").symlink_to(tmp_path / "nothing")
    assert save_patch_map(red, one / "b.png", one, maps) == maps / "b.png.1.map.png"
    assert save_patch_map(red, one / "c.png", one, maps) == maps / "c.png.1.map.png"
    assert (maps / "b.png.map.png").read_text() == "mine"
    assert sorted(path.name[:5] for path in maps.iterdir()) == ["a.png"] * 2 + ["b.png"] * 2 + ["c.png"] * 2


def test_a_map_does_not_tell_where_its_image_stood(tmp_path):
    path = save_patch_map(GREY, tmp_path / "a.png", tmp_path, tmp_path / "maps")
    assert os.fsencode(tmp_path) not in path.read_bytes()


@pytest.mark.parametrize("name", [b"prompt " * 35 + b".png", "部屋".encode() * 41 + b".png", b"caf\xe9.png"])
def test_names_of_any_length_and_bytes_have_maps(tmp_path, name):
    image_path = tmp_path / os.fsdecode(name)
    paths = [save_patch_map(GREY, image_path, tmp_path, tmp_path / "maps") for _ in range(2)]
    assert paths[0] == paths[1] and paths[0].name.endswith(".map.png")
    assert os.fsencode(paths[0].name).startswith(name[:200])
