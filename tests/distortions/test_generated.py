"""Distortions of image generators: a higher level is more of them, and none comes near to a held-out one."""

import numpy as np
import pytest
from factories import difference, make_picture, textured_picture
from PIL import Image, ImageDraw
from scipy.ndimage import map_coordinates

from hybridiqa.distortions import generated
from hybridiqa.distortions.generated import GENERATED
from hybridiqa.distortions.held_out import HELD_OUT_DISTORTIONS
from hybridiqa.distortions.trained import DISTORTIONS, LEVELS, apply_distortion, has_effect

SEEDS = range(4)


def distort_generated(image: Image.Image, name: str, level: int, seed: int) -> Image.Image:
    return apply_distortion(GENERATED[name], image, level, seed)


def drawn_window() -> Image.Image:
    """Draw sharp edges and fine lines on flat colours."""
    image = Image.new("RGB", (160, 120), (90, 150, 210))
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 20, 130, 100), fill=(240, 230, 200), outline=(60, 40, 30), width=4)
    for position in range(45, 125, 8):
        draw.line((position, 24, position, 96), fill=(150, 60, 50))
    return image


IMAGES = (textured_picture(), textured_picture(200, 140, seed=1), make_picture(), drawn_window())


@pytest.mark.parametrize("name", GENERATED)
def test_a_higher_level_is_more_distortion(name):
    differences = np.array(
        [
            [[difference(clean, distort_generated(clean, name, level, seed)) for level in LEVELS] for seed in SEEDS]
            for clean in IMAGES
        ]
    )  # (images, seeds, levels)
    means = differences.mean(axis=(0, 1))
    assert (np.diff(means) > 0).all() and means[4] > 2.5 * means[0], means
    assert (np.diff(differences) > 0).mean() > 0.95, "of one image and seed, too"


@pytest.mark.parametrize("name", GENERATED)
def test_every_level_shows_on_a_textured_image_and_level_1_is_mild(name):
    clean = textured_picture(300, 200)
    for seed in SEEDS:
        assert all(has_effect(clean, distort_generated(clean, name, level, seed)) for level in LEVELS)
        assert 0.2 < difference(clean, distort_generated(clean, name, 1, seed)) < 10
        assert difference(clean, distort_generated(clean, name, 5, seed)) > 5


@pytest.mark.parametrize("name", GENERATED)
def test_a_distortion_keeps_size_and_mode_and_repeats_with_its_seed(name):
    for size in ((120, 90), (8, 8), (1, 50), (50, 1), (3, 2), (1, 1)):
        clean = textured_picture(*size)
        before = clean.tobytes()
        for level in LEVELS:
            distorted = distort_generated(clean, name, level, seed=11)
            assert (distorted.size, distorted.mode) == (size, "RGB")
            assert distorted.tobytes() == distort_generated(clean, name, level, seed=11).tobytes()
        assert clean.tobytes() == before


@pytest.mark.parametrize("name", GENERATED)
def test_another_seed_gives_another_distortion(name):
    clean = textured_picture()
    assert distort_generated(clean, name, 3, seed=1).tobytes() != distort_generated(clean, name, 3, seed=2).tobytes()


def test_the_types_are_neither_trained_by_default_nor_held_out():
    assert list(GENERATED) == ["melted", "repeated_tiles", "inpainted", "over_smoothed", "latent_grid", "upscaled"]
    assert not set(GENERATED) & {*DISTORTIONS, *HELD_OUT_DISTORTIONS}


@pytest.mark.parametrize("name", GENERATED)
def test_no_type_casts_a_colour_or_scatters_black_and_white(name):
    grey = Image.new("RGB", (96, 96), (128, 128, 128))
    for seed in SEEDS:
        pixels = np.asarray(distort_generated(grey, name, 3, seed))
        assert np.ptp(pixels.mean(axis=(0, 1))) < 0.5
        assert pixels.min() > 0 and pixels.max() < 255


def test_what_melts_does_not_turn(monkeypatch):
    fetched = []

    def recorded(pixels: np.ndarray, places: np.ndarray, **options) -> np.ndarray:
        fetched.append(places)
        return map_coordinates(pixels, places, **options)

    monkeypatch.setattr(generated, "map_coordinates", recorded)
    for seed in SEEDS:
        distort_generated(textured_picture(), "melted", 5, seed)
        down, across = fetched[-1] - np.indices((90, 120))
        assert np.abs(down).max() > 2
        turns = np.gradient(down, axis=1) - np.gradient(across, axis=0)
        assert np.abs(turns[2:-2, 2:-2]).max() < 1e-3 * np.abs(np.gradient(down, axis=1)).max()


def test_repeated_tiles_are_a_lattice():
    repeated = np.asarray(distort_generated(textured_picture(240, 240), "repeated_tiles", 5, seed=0), dtype=int)
    rows = repeated[100:140]
    errors = [np.abs(rows[:, 100:140] - rows[:, 100 + step : 140 + step]).mean() for step in range(5, 45)]
    assert min(errors) < 1 < np.median(errors)


def test_over_smoothing_takes_grain_and_leaves_edges():
    half = np.repeat([60.0, 190.0], 60)[None, :, None]
    grain = np.random.default_rng(0).normal(0, 8, (90, 120, 3))
    smooth = np.asarray(
        distort_generated(Image.fromarray((half + grain).astype(np.uint8)), "over_smoothed", 5, seed=0), dtype=float
    )
    assert smooth[:, 5:50].std() < 2 and smooth[:, 70:115].std() < 2
    assert smooth[:, 57].mean() < 70 and smooth[:, 62].mean() > 180


def test_a_latent_grid_repeats_every_8_pixels():
    pixels = np.asarray(distort_generated(Image.new("RGB", (96, 96), (128, 128, 128)), "latent_grid", 4, 0), dtype=int)
    assert (pixels[8:] == pixels[:-8]).all() and (pixels[:, 8:] == pixels[:, :-8]).all()
    assert (pixels[4:] != pixels[:-4]).any()


def test_upscaled_images_have_no_detail_of_their_size():
    pixels = np.asarray(distort_generated(textured_picture(256, 256), "upscaled", 3, 0).convert("L"), dtype=float)
    power = np.abs(np.fft.fft2(pixels - pixels.mean())) ** 2
    frequencies = np.maximum(*np.abs(np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256))))
    assert power[frequencies > 0.25].sum() < 0.02 * power.sum()  # cycles per pixel; scaled up 3.5 times
