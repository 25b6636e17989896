"""Distortions that training never sees: what a trained model is tested on besides those it knows (trained.py).

Nothing that trains or makes training data may import this file. Levels, seeds and bytes are as in trained.py:
1 is just visible, 5 ruined; within one seed, what has no order (direction, places, tint) is the same for all of them.
"""

import numpy as np
from PIL import Image, features
from scipy.ndimage import map_coordinates

from hybridiqa.distortions.trained import Distortion, interpolate, recompress, to_image

SAMPLES_PER_PIXEL = 8  # along the path of a moving camera
# A swirl's centre lies at 0.35 to 0.65 of each side, so the nearest corner is at least 0.35 diagonals away.
SWIRL_MARGIN = 0.35
LEAST_ERROR = 0.25  # root mean square, in grey levels: what rounding leaves anyway


def _line_weights(length: float, angle: float) -> dict[tuple[int, int], float]:
    """Return the shares, by row and column offset, that a line of `length` pixels has in its neighbourhood."""
    steps = np.linspace(-length / 2, length / 2, max(2, round(SAMPLES_PER_PIXEL * length)))
    places = np.outer(steps, [np.sin(angle), np.cos(angle)])  # (samples, 2): row and column
    whole = np.floor(places).astype(int)
    fraction = places - whole
    weights: dict[tuple[int, int], float] = {}
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        shares = np.where(corner, fraction, 1 - fraction).prod(axis=1) / len(steps)
        for (row, column), share in zip((whole + corner).tolist(), shares.tolist(), strict=True):
            weights[row, column] = weights.get((row, column), 0.0) + share
    return weights


def motion_blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Take the mean along a straight line, as of a camera that moved; length in pixels, as blur's deviation is."""
    length = interpolate(level, 3, 6, 12, 24, 45)
    weights = _line_weights(length, rng.uniform(0, np.pi))
    reach = int(np.ceil(length / 2)) + 1
    padded = np.pad(np.asarray(image, dtype=np.float32), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    mean = np.zeros((image.height, image.width, 3), dtype=np.float32)
    for (row, column), share in weights.items():
        top, left = reach + row, reach + column
        mean += np.float32(share) * padded[top : top + image.height, left : left + image.width]
    return to_image(mean)


def swirl(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Turn about a place near the middle, the less the farther away; the turn at that place in radians."""
    pixels = np.asarray(image)  # (height, width, 3)
    extent = np.subtract(pixels.shape[:2], 1)
    middle = rng.uniform(SWIRL_MARGIN, 1 - SWIRL_MARGIN, size=2) * extent
    turn = rng.choice([-1, 1]) * interpolate(level, 0.15, 0.45, 1.1, 2.4, 5)
    rows, columns = np.indices(pixels.shape[:2]) - middle[:, None, None]  # (height, width) each
    radius = max(SWIRL_MARGIN * np.hypot(*extent), 1e-12)
    angles = turn * np.clip(1 - np.hypot(rows, columns) / radius, 0, 1) ** 2
    places = np.stack(
        [
            middle[0] + rows * np.cos(angles) + columns * np.sin(angles),
            middle[1] + columns * np.cos(angles) - rows * np.sin(angles),
        ]
    )  # (2, height, width): row and column each pixel is fetched from
    channels = [map_coordinates(pixels[..., c], places, order=1, mode="reflect") for c in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1))


def impulse_noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Set a share of the pixels, or of the values of each channel apart, to 0 or 255 (salt and pepper)."""
    channels = int(rng.choice([1, 3]))
    draws = rng.random((image.height, image.width, channels))  # (height, width, 1 or 3)
    values = rng.choice(np.array([0, 255], dtype=np.uint8), draws.shape)
    is_hit = draws <= max(draws.min(), interpolate(level, 0.01, 0.03, 0.08, 0.2, 0.45))  # one at least
    return Image.fromarray(np.where(is_hit, values, np.asarray(image)))


def check_jpeg2000() -> None:
    """Raise ValueError where this Pillow cannot write JPEG 2000."""
    if not features.check("jpg_2000"):
        raise ValueError("this Pillow was built without OpenJPEG, which JPEG 2000 needs: pip install a wheel of pillow")


def jpeg2000(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Compress as JPEG 2000, to an error that is a share of the image's contrast.

    Sizes would ruin small images, which are mostly header, and errors in grey levels shift the colour of flat ones.
    Raises ValueError where Pillow has no such codec.
    """
    check_jpeg2000()
    contrast = np.sqrt(np.asarray(image).var(axis=(0, 1)).mean())  # 0-127.5
    error = max(LEAST_ERROR, interpolate(level, 0.07, 0.12, 0.19, 0.32, 0.55) * contrast)
    ratio = float(20 * np.log10(255 / error))  # peak signal to noise, in decibels
    return recompress(image, format="JPEG2000", irreversible=True, quality_mode="dB", quality_layers=[ratio])


def colour_cast(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Multiply each channel by a factor about 1, as under coloured light or with a wrong white balance."""
    tint = np.cos(rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3)  # (3,), sum 0
    pixels = np.asarray(image) * (1 + interpolate(level, 0.07, 0.15, 0.3, 0.5, 0.85) * tint)
    return to_image(pixels)


HELD_OUT_DISTORTIONS: dict[str, Distortion] = {
    function.__name__: function for function in (motion_blur, swirl, impulse_noise, jpeg2000, colour_cast)
}
