"""Distortions: a higher level is more distortion, and the same seed the same bytes."""

import numpy as np
import pytest
from factories import difference, textured_picture
from PIL import Image

from hybridiqa.distortions.trained import DISTORTIONS, LEVELS, distort


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_higher_level_is_more_distortion(name):
    clean = textured_picture()
    for seed in range(5):
        differences = [difference(clean, distort(clean, name, level, seed)) for level in LEVELS]
        assert differences[0] > 0
        assert differences == sorted(differences), f"{name}, seed {seed}: {differences}"
        assert differences[4] > 1.8 * differences[0]


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_distortion_keeps_size_and_mode_and_repeats_with_its_seed(name):
    for size in ((120, 90), (7, 50), (1, 1)):
        clean = textured_picture(*size)
        distorted = distort(clean, name, 4, seed=11)
        assert (distorted.size, distorted.mode) == (size, "RGB")
        assert distorted.tobytes() == distort(clean, name, 4, seed=11).tobytes()


def test_another_seed_gives_another_distortion():
    clean = textured_picture()
    for name in ("noise", "elastic", "wrong_patches", "shuffled_blocks", "blur"):
        assert distort(clean, name, 3, seed=1).tobytes() != distort(clean, name, 3, seed=2).tobytes()


def test_the_distortions_kept_for_testing_are_absent():
    assert list(DISTORTIONS) == [
        *("jpeg", "webp", "blur", "noise", "rescale", "banding", "oversharpen", "oversaturate"),
        *("exposure", "elastic", "wrong_patches", "shuffled_blocks"),
    ]


def test_noise_is_not_impulse_noise():
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    changes = np.abs(np.asarray(distort(grey, "noise", 3, seed=0), dtype=int) - 128)
    assert (changes > 0).mean() > 0.9, "nearly every pixel moves"
    assert 10 < changes.std() < 30


def test_blur_is_of_three_kinds_and_none_has_a_direction():
    dot = Image.new("RGB", (81, 81))
    dot.paste((255, 255, 255), (36, 36, 45, 45))  # too large for the medians of level 3
    spreads = set()
    for seed in range(12):
        spread = np.asarray(distort(dot, "blur", 3, seed), dtype=int)[..., 0]
        assert np.abs(spread - spread.T).max() <= 1 and np.abs(spread - spread[::-1]).max() <= 1
        profile = spread[40, 40:]  # from the middle to the right
        assert (np.diff(profile) <= 0).all()
        spreads.add("smear" if set(np.unique(spread)) == {0, 255} else "gaussian" if profile[10] else "defocus")
    assert spreads == {"smear", "gaussian", "defocus"}


def test_blur_keeps_a_flat_image():
    flat = Image.new("RGB", (40, 30), (10, 128, 250))
    for seed in range(6):
        assert distort(flat, "blur", 5, seed).tobytes() == flat.tobytes()


def test_exposure_treats_all_channels_alike():
    grey = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (40, 1))).convert("RGB")
    means, contrasts = [], []
    for seed in range(20):
        exposed = np.asarray(distort(grey, "exposure", 3, seed), dtype=int)
        assert np.ptp(exposed, axis=2).max() == 0, "no colour appears"
        assert (np.diff(exposed[0, :, 0]) >= 0).all(), "what was brighter stays so"
        means.append(exposed.mean())
        contrasts.append(exposed.std())
    assert min(means) < 100 and max(means) > 155
    assert min(contrasts) < 50 and max(contrasts) > 95  # 74 before


def test_unknown_distortion_types_and_levels_are_named_in_the_error():
    clean = textured_picture()
    with pytest.raises(ValueError, match=r"'sepia'.*jpeg, webp"):
        distort(clean, "sepia", 1, 0)
    with pytest.raises(ValueError, match="got the level 6"):
        distort(clean, "blur", 6, 0)
    with pytest.raises(ValueError, match="mode 'L'"):
        distort(clean.convert("L"), "blur", 1, 0)
