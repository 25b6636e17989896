"""Distortions that training never sees, and that it cannot see them."""

import ast
import hashlib
import itertools
import zlib
from collections.abc import Iterable

import numpy as np
import PIL
import pytest
import scipy
from factories import difference, textured_picture
from PIL import Image, ImageDraw, features

from hybridiqa.distortions.held_out import (
    HELD_OUT_DISTORTIONS,
    colour_cast,
    impulse_noise,
    jpeg2000,
    motion_blur,
    swirl,
)
from hybridiqa.distortions.trained import DISTORTIONS, LEVEL_JITTER, LEVELS, apply_distortion, distort, interpolate
from hybridiqa.utils.root import ROOT

# SHA-256 over levels 1 to 5 with the seeds 0 and 7, of what `distort` gives.
RECORDED_WITH = {"pillow": "12.3.0", "numpy": "2.4.6", "scipy": "1.17.1"}
RECORDED = {
    "jpeg": "a1755069d743f2b4",
    "webp": "4c85ba08b327c600",
    "blur": "b03ca33f8d7d4560",
    "noise": "d01dc287aab2b16b",
    "rescale": "cdc886eb44cae533",
    "banding": "8e29d4b2fbdf3cd0",
    "oversharpen": "2196488ecef75351",
    "oversaturate": "1fb26bd2d4b0c81c",
    "exposure": "dc5e6ca2ffbab571",
    "elastic": "14f3535f91aecc06",
    "wrong_patches": "d5c8c08a737605dd",
    "shuffled_blocks": "32c1d06cf5a85760",
}
# The same with the seeds 1 to 6, of the types of several kinds: all of them are drawn there.
RECORDED_KINDS = {"blur": "afb05ce44ec1b2c9", "noise": "7b12aebac16ad24d", "exposure": "f35b14d527ba348a"}
INSTALLED = {"pillow": PIL.__version__, "numpy": np.__version__, "scipy": scipy.__version__}


def distort_held_out(image: Image.Image, name: str, level: int, seed: int) -> Image.Image:
    return apply_distortion(HELD_OUT_DISTORTIONS[name], image, level, seed)


def drawn_shapes() -> Image.Image:
    """Draw flat colours and sharp edges."""
    image = Image.new("RGB", (160, 120), (230, 200, 60))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 20, 90, 100), fill=(20, 60, 200))
    draw.rectangle((80, 50, 150, 110), fill=(200, 30, 40))
    draw.line((0, 119, 159, 0), fill=(250, 250, 250), width=3)
    return image


def drawn_ramp() -> Image.Image:
    """Draw colours that change slowly."""
    across, down = np.meshgrid(np.linspace(20, 220, 160), np.linspace(220, 40, 120))
    return Image.fromarray(np.stack([across, down, (across + down) / 2], axis=-1).astype(np.uint8))


IMAGES = {"textured": textured_picture(), "shapes": drawn_shapes(), "ramp": drawn_ramp()}


@pytest.mark.parametrize("name", RECORDED)
def test_the_distortions_of_training_data_are_what_they_were(name):
    clean = textured_picture()
    for level, seed in itertools.product(LEVELS, (0, 7)):
        type_seed = [seed, zlib.crc32(name.encode())]
        jitter = np.random.default_rng([*type_seed, level]).uniform(-LEVEL_JITTER, LEVEL_JITTER)
        expected = DISTORTIONS[name](clean, level + jitter, np.random.default_rng(type_seed))
        assert distort(clean, name, level, seed).tobytes() == expected.tobytes()
        assert apply_distortion(DISTORTIONS[name], clean, level, seed).tobytes() == expected.tobytes()


@pytest.mark.skipif(INSTALLED != RECORDED_WITH, reason=f"recorded with {RECORDED_WITH}, whose codecs differ")
def test_the_bytes_of_training_data_are_as_recorded():
    clean = textured_picture()

    def digest(name: str, seeds: Iterable[int]) -> str:
        distorted = (distort(clean, name, level, seed) for level in LEVELS for seed in seeds)
        return hashlib.sha256(b"".join(image.tobytes() for image in distorted)).hexdigest()[:16]

    assert {name: digest(name, (0, 7)) for name in DISTORTIONS} == RECORDED
    assert {name: digest(name, range(1, 7)) for name in RECORDED_KINDS} == RECORDED_KINDS


def reachable_files(*scripts: str) -> set[str]:
    """Return the files of ours that scripts import, directly or not, wherever in them."""
    found, left = set(), [ROOT / script for script in scripts]
    while left:
        path = left.pop()
        name = path.relative_to(ROOT).as_posix()
        if name in found or not path.is_file():
            continue
        found.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            left += [ROOT / f"{module.replace('.', '/')}.py" for module in modules]
    return found


def test_training_cannot_reach_these_distortions():
    files = reachable_files("train.py", "prepare_dataset.py")
    assert "hybridiqa/distortions/trained.py" in files and len(files) > 30
    assert not {file for file in files if "held_out" in file or "/evaluation/" in file}
    assert "hybridiqa/distortions/held_out.py" in reachable_files("benchmark.py")


def test_no_distortion_type_is_both_trained_and_held_out():
    assert list(HELD_OUT_DISTORTIONS) == ["motion_blur", "swirl", "impulse_noise", "jpeg2000", "colour_cast"]
    assert not set(HELD_OUT_DISTORTIONS) & set(DISTORTIONS)
    with pytest.raises(ValueError, match=r"'swirl'.*jpeg, webp"):
        distort(textured_picture(), "swirl", 1, 0)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name", HELD_OUT_DISTORTIONS)
def test_a_higher_level_is_more_distortion(name, image):
    clean = IMAGES[image]
    for seed in range(5):
        differences = [difference(clean, distort_held_out(clean, name, level, seed)) for level in LEVELS]
        assert differences == sorted(differences), f"{name}, seed {seed}: {differences}"
        assert differences[4] > 2.5 * differences[0]


@pytest.mark.parametrize("name", HELD_OUT_DISTORTIONS)
def test_level_1_is_visible_but_mild_and_level_5_is_neither_small(name):
    clean = textured_picture(300, 200)
    for seed in range(5):
        assert 0.5 < difference(clean, distort_held_out(clean, name, 1, seed)) < 10
        assert difference(clean, distort_held_out(clean, name, 5, seed)) > 10


@pytest.mark.parametrize("name", HELD_OUT_DISTORTIONS)
def test_a_distortion_keeps_size_and_mode_and_repeats_with_its_seed(name):
    for size in ((120, 90), (8, 8), (1, 50), (50, 1), (3, 2), (1, 1)):
        clean = textured_picture(*size)
        before = clean.tobytes()
        for level in LEVELS:
            distorted = distort_held_out(clean, name, level, seed=11)
            assert (distorted.size, distorted.mode) == (size, "RGB")
            assert distorted.tobytes() == distort_held_out(clean, name, level, seed=11).tobytes()
        assert clean.tobytes() == before


@pytest.mark.parametrize("name", HELD_OUT_DISTORTIONS)
def test_another_seed_gives_another_distortion(name):
    clean = textured_picture()
    assert distort_held_out(clean, name, 3, seed=1).tobytes() != distort_held_out(clean, name, 3, seed=2).tobytes()


@pytest.mark.parametrize("name", HELD_OUT_DISTORTIONS)
def test_a_tiny_image_is_distorted_the_more_the_higher_the_level(name):
    clean = textured_picture(8, 8)
    differences = [difference(clean, distort_held_out(clean, name, level, seed=0)) for level in LEVELS]
    assert differences == sorted(differences) and differences[0] < differences[4]


def test_unknown_levels_and_modes_are_named_in_the_error():
    clean = textured_picture()
    with pytest.raises(ValueError, match="got the level 0"):
        distort_held_out(clean, "swirl", 0, 0)
    with pytest.raises(ValueError, match="mode 'L'"):
        distort_held_out(clean.convert("L"), "swirl", 1, 0)


def stripes_along(angle: float) -> Image.Image:
    """Draw waves whose lines run in a direction: an angle from the row axis towards the lower rows, in radians."""
    rows, columns = np.indices((120, 160))
    waves = 128 + 100 * np.sin((rows * np.cos(angle) - columns * np.sin(angle)) / 2.5)
    return Image.fromarray(np.rint(waves).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("seed", range(6))
def test_motion_blur_spares_what_is_constant_along_its_direction(seed):
    angle = np.random.default_rng(seed).uniform(0, np.pi)
    along, across = stripes_along(angle), stripes_along(angle + np.pi / 2)
    inner = (30, 30, 130, 90)  # away from the repeated edge
    moved = [motion_blur(image, 5, np.random.default_rng(seed)).crop(inner) for image in (along, across)]
    assert difference(moved[0], along.crop(inner)) < 4
    assert difference(moved[1], across.crop(inner)) > 50


def test_motion_blur_keeps_the_brightness_and_spreads_a_dot_over_its_length():
    dot = Image.new("RGB", (101, 101))
    dot.putpixel((50, 50), (255, 255, 255))
    spread = np.asarray(motion_blur(dot, 3, np.random.default_rng(4)))[..., 0]
    rows, columns = np.nonzero(spread)
    assert np.hypot(np.ptp(rows), np.ptp(columns)) == pytest.approx(12, abs=2.5)
    assert int(spread.sum()) == pytest.approx(255, rel=0.1)
    flat = Image.new("RGB", (40, 30), (10, 128, 250))
    assert motion_blur(flat, 5, np.random.default_rng(0)).tobytes() == flat.tobytes()


@pytest.mark.parametrize("size", [(120, 90), (90, 120), (400, 40), (64, 64)])
def test_swirl_turns_the_middle_and_keeps_the_corners(size):
    clean = textured_picture(*size)
    for seed in range(8):
        before, after = np.asarray(clean), np.asarray(swirl(clean, 5, np.random.default_rng(seed)))
        for row in (0, -1):
            for column in (0, -1):
                assert (after[row, column] == before[row, column]).all()
        thirds = slice(size[1] // 3, -size[1] // 3), slice(size[0] // 3, -size[0] // 3)
        assert (after[thirds] != before[thirds]).mean() > 0.8
    assert after.max() <= before.max() and after.min() >= before.min()


def test_swirl_turns_a_disc_into_itself():
    rng = np.random.default_rng(3)
    middle = rng.uniform(0.35, 0.65, size=2) * 100
    rows, columns = np.indices((101, 101))
    distances = np.hypot(rows - middle[0], columns - middle[1])
    disc = Image.fromarray(np.rint(128 + 100 * np.cos(distances / 8)).astype(np.uint8)).convert("RGB")
    turned = swirl(disc, 5, np.random.default_rng(3))
    near = distances < 35  # the circles beyond leave the image
    assert np.abs(np.asarray(turned, dtype=int) - np.asarray(disc))[near].max() <= 4


@pytest.mark.parametrize("level", LEVELS)
def test_impulse_noise_writes_black_and_white_at_its_share(level):
    grey = np.asarray(Image.new("RGB", (200, 200), (128, 128, 128)))
    share = interpolate(level, 0.01, 0.03, 0.08, 0.2, 0.45)
    num_coloured = 0
    for seed in range(6):
        noisy = np.asarray(impulse_noise(Image.fromarray(grey), level, np.random.default_rng(seed)))
        is_hit = noisy != 128
        assert set(np.unique(noisy[is_hit])) == {0, 255}
        assert is_hit.mean() == pytest.approx(share, rel=0.2)
        assert (noisy[is_hit] == 255).mean() == pytest.approx(0.5, abs=0.1)
        num_coloured += bool((noisy != noisy[..., :1]).any())
    assert 0 < num_coloured < 6, "of each channel apart, or of all together"


def test_stronger_impulse_noise_hits_the_same_places_and_more():
    grey = Image.new("RGB", (50, 50), (128, 128, 128))
    mild, strong = (np.asarray(distort_held_out(grey, "impulse_noise", level, seed=5)) for level in (2, 4))
    assert (strong[mild != 128] == mild[mild != 128]).all()


def test_jpeg2000_loses_the_stated_share_of_contrast_and_no_colour_of_a_flat_image():
    clean = np.asarray(textured_picture(), dtype=float)
    contrast = np.sqrt(clean.var(axis=(0, 1)).mean())
    for level, share in ((1, 0.07), (3, 0.19), (5, 0.55)):
        lossy = np.asarray(jpeg2000(textured_picture(), level, np.random.default_rng(0)), dtype=float)
        assert np.sqrt(np.square(lossy - clean).mean()) / contrast == pytest.approx(share, rel=0.3)
    flat = Image.new("RGB", (64, 48), (200, 120, 30))
    assert difference(flat, jpeg2000(flat, 5, np.random.default_rng(0))) <= 1


def test_a_pillow_without_jpeg2000_is_named(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "jpg_2000")
    with pytest.raises(ValueError, match=r"OpenJPEG.*pip install"):
        distort_held_out(textured_picture(), "jpeg2000", 1, 0)
    assert distort_held_out(textured_picture(), "swirl", 1, 0).size == (120, 90)


def test_jpeg2000_writes_fewer_bytes_the_higher_the_level(monkeypatch):
    sizes, save = [], Image.Image.save

    def measured_save(image: Image.Image, file, **options) -> None:
        save(image, file, **options)
        sizes.append(file.tell())

    monkeypatch.setattr(Image.Image, "save", measured_save)
    for level in LEVELS:
        jpeg2000(textured_picture(), level, np.random.default_rng(0))
    assert len(sizes) == 5 and sizes[0] < 120 * 90 * 3
    assert all(second < first for first, second in itertools.pairwise(sizes))


@pytest.mark.parametrize("level", LEVELS)
def test_colour_cast_multiplies_each_channel_by_its_factor(level):
    dark = np.asarray(textured_picture()) // 3 + 20  # nothing is clipped
    for seed in range(4):
        hue = np.random.default_rng(seed).uniform(0, 2 * np.pi)
        strength = interpolate(level, 0.07, 0.15, 0.3, 0.5, 0.85)
        factors = [1 + strength * np.cos(hue + channel * 2 * np.pi / 3) for channel in range(3)]
        cast = np.asarray(colour_cast(Image.fromarray(dark), level, np.random.default_rng(seed)))
        assert cast.mean(axis=(0, 1)) / dark.mean(axis=(0, 1)) == pytest.approx(factors, rel=0.01)
        assert sum(factors) == pytest.approx(3)


def test_a_colour_cast_shows_on_a_grey_image():
    grey = Image.new("RGB", (20, 20), (128, 128, 128))
    assert np.ptp(np.asarray(distort_held_out(grey, "colour_cast", 1, seed=0))) >= 5
