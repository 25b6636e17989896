"""Distortions that synthesized datasets are made of.

A distortion has a level from 1 (just visible) to 5 (ruined). Within one seed, what has no order (the filter, the
places) is the same for all levels of a distortion type, so that a higher level is more distortion.

Everything here is Pillow, NumPy and SciPy, which give the same bytes whatever the number of threads or processes.
"""

import io
import math
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.signal import oaconvolve

from hybridiqa.models import hub_code

LEVELS = (1, 2, 3, 4, 5)
# A model should not learn five exact strengths by heart; below 0.5, neighbouring levels cannot change places.
LEVEL_JITTER = 0.3
# Mean difference (0-255) below which a distortion found nothing to work on: colour on a grey image, blur on a flat one.
NO_EFFECT = 0.02
NUM_WARPED_PLACES = 8


def interpolate(level: float, *values: float) -> float:
    """Return the value at a level, of values given for levels 1 to 5."""
    return float(np.interp(level, LEVELS, values))


def recompress(image: Image.Image, **options) -> Image.Image:
    """Return what is left of an image that was saved with Pillow's `options`."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return hub_code.load_image(buffer.getvalue())


def shrink(image: Image.Image, factor: float, resample: Image.Resampling) -> Image.Image:
    """Divide an image's sides by a factor; at least one pixel each is left."""
    width, height = (max(1, round(side / factor)) for side in image.size)
    return image.resize((width, height), resample)


def to_image(pixels: np.ndarray) -> Image.Image:
    """Round and clip numbers about 0-255, `(height, width, 3)`."""
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Compress as JPEG, with or without colour subsampling."""
    quality = round(interpolate(level, 60, 35, 18, 9, 3))
    return recompress(image, format="JPEG", quality=quality, subsampling=int(rng.choice([0, 2])))


def webp(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Compress as WebP; as its lowest quality is still fair, high levels also pack fewer pixels."""
    factor = interpolate(level, 1, 1, 1.2, 1.7, 3.5)
    packed = recompress(
        shrink(image, factor, Image.Resampling.BICUBIC),
        format="WEBP",
        quality=round(interpolate(level, 45, 20, 8, 3, 0)),
    )
    return packed.resize(image.size, Image.Resampling.BICUBIC)


def _defocus(image: Image.Image, radius: float) -> Image.Image:
    """Take the mean of a disc about each pixel, as of a lens out of focus; its radius in pixels."""
    reach = math.ceil(radius)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    padded = np.pad(np.asarray(image, dtype=float), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    blurred = oaconvolve(padded, (disc / disc.sum())[..., None], mode="valid", axes=(0, 1))
    return to_image(blurred)


def _smear(image: Image.Image, size: int, num_times: int) -> Image.Image:
    """Take medians, as of a denoiser that leaves blots: what is smaller than `size` pixels goes, edges stay."""
    for _ in range(num_times):
        image = image.filter(ImageFilter.MedianFilter(size))
    return image


def blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Blur as a Gaussian, as a lens out of focus, or as the smear of a denoiser."""
    kind = rng.choice(["gaussian", "gaussian", "defocus", "smear"])
    if kind == "defocus":
        return _defocus(image, interpolate(level, 1.2, 2.3, 4, 7, 12))
    if kind == "smear":
        return _smear(image, size=round(interpolate(level, 1, 2, 2, 3, 4)) * 2 + 1, num_times=round(level))
    return image.filter(ImageFilter.GaussianBlur(interpolate(level, 0.7, 1.3, 2.3, 4, 7)))


def noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Add Gaussian noise, to brightness alone or each colour channel apart, as fine as the pixels or coarser."""
    channels = int(rng.choice([1, 3]))
    coarseness = rng.choice([0, rng.uniform(0.4, 1.2)])  # standard deviation in pixels
    grain = rng.standard_normal((image.height, image.width, channels))  # (height, width, 1 or 3)
    if coarseness:
        grain = gaussian_filter(grain, (coarseness, coarseness, 0), mode="wrap")
        grain /= max(grain.std(), 1e-12)
    return to_image(np.asarray(image) + interpolate(level, 6, 12, 24, 45, 80) * grain)


def rescale(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Scale down and up again, each way with a random filter."""
    smooth = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]
    down = smooth[rng.integers(3)]
    up = [*smooth, Image.Resampling.NEAREST][rng.integers(4)]
    return shrink(image, interpolate(level, 1.5, 2.2, 3.5, 6, 10), down).resize(image.size, up)


def banding(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Posterise to 22 down to 2 evenly spaced tones a channel.

    Their number stays even: an odd one has mid-grey among them and can distort less than the next larger one.
    """
    last_level = 2 * round(interpolate(level, 10, 6, 3, 1.6, 0)) + 1
    return to_image(np.rint(np.asarray(image) / 255 * last_level) * 255 / last_level)


def oversharpen(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Sharpen by unsharp masking; radius in pixels, strength in percent."""
    radius = rng.uniform(1, 3)
    return image.filter(
        ImageFilter.UnsharpMask(radius, round(interpolate(level, 60, 140, 300, 600, 1200)), threshold=0)
    )


def oversaturate(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Move colours away from grey by a factor."""
    return ImageEnhance.Color(image).enhance(interpolate(level, 1.5, 2.1, 3.2, 5, 9))


def exposure(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Make it too bright, too dark, faded or too hard; all channels alike."""
    kind = rng.choice(["bright", "dark", "faded", "hard"])
    grey = rng.uniform(80, 190)
    pixels = np.asarray(image, dtype=float)
    if kind == "faded":
        return to_image(grey + (pixels - grey) * interpolate(level, 0.8, 0.65, 0.5, 0.33, 0.17))
    if kind == "hard":
        return to_image(grey + (pixels - grey) * interpolate(level, 1.3, 1.6, 2.2, 3.2, 5.5))
    stops = interpolate(level, 0.3, 0.6, 0.95, 1.4, 2.1)
    return to_image(255 * (pixels / 255) ** 2 ** (stops if kind == "dark" else -stops))


def elastic(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Warp the whole image or a few places in it, smoothly and at random, as a molten face; waves of many sizes."""
    pixels = np.asarray(image)  # (height, width, 3)
    side = min(image.size)
    shape = (2, image.height, image.width)
    reach = rng.uniform(0.015, 0.035) * side
    is_local = rng.random() < 0.5
    spots = rng.random((NUM_WARPED_PLACES, 3))  # row, column, size
    shifts = gaussian_filter(rng.standard_normal(shape), sigma=(0, reach, reach), mode="reflect")
    steepness = (
        interpolate(level, 0.4, 0.55, 0.75, 1, 1.3) if is_local else interpolate(level, 0.08, 0.18, 0.36, 0.7, 1.2)
    )
    shifts *= steepness * reach / max(shifts.std(), 1e-12)
    places = np.indices(shape[1:])
    if is_local:
        strength = np.zeros(shape[1:])
        for row, column, size in spots[: round(interpolate(level, 1, 2, 3, 5, NUM_WARPED_PLACES))]:
            distances = np.hypot(places[0] - row * (image.height - 1), places[1] - column * (image.width - 1))
            strength = np.maximum(strength, np.exp(-0.5 * (distances / ((0.04 + 0.08 * size) * side)) ** 2))
        shifts *= strength
    places = places + shifts  # (2, height, width): row and column each pixel is fetched from
    channels = [map_coordinates(pixels[..., c], places, order=1, mode="nearest") for c in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1))


def _find_most_different(pixels: np.ndarray, patch: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the rectangle at one of these corners that is least like the patch: sky on sky is no distortion."""
    height, width = patch.shape[:2]
    rectangles = [pixels[top : top + height, left : left + width] for top, left in corners]
    return max(rectangles, key=lambda rectangle: float(np.abs(rectangle - patch.astype(int)).mean()))


def wrong_patches(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Let rectangles show another part of the image."""
    pixels = np.asarray(image)  # (height, width, 3)
    distorted = pixels.copy()
    for _ in range(round(interpolate(level, 2, 4, 7, 12, 22))):
        share = interpolate(level, 0.05, 0.08, 0.12, 0.16, 0.2) * rng.uniform(0.5, 1.5, size=2)
        corners = rng.random((3, 2))  # where it goes, and two places that it may come from
        size = np.maximum(1, share * pixels.shape[:2]).astype(int)
        corners = (corners * (pixels.shape[:2] - size + 1)).astype(int)
        (top, left), (height, width) = corners[0], size
        patch = pixels[top : top + height, left : left + width]
        distorted[top : top + height, left : left + width] = _find_most_different(pixels, patch, corners[1:])
    return Image.fromarray(distorted)


def shuffled_blocks(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Let a share of the small square blocks show what lies some way off; sizes and distances in pixels."""
    pixels = np.asarray(image)  # (height, width, 3)
    block = int(rng.integers(10, 25))
    rows, columns = np.indices(pixels.shape[:2])  # (height, width) each
    blocks = (rows // block, columns // block)
    grid_shape = ((image.height - 1) // block + 1, (image.width - 1) // block + 1)
    draws = rng.random(grid_shape)
    is_moved = draws <= max(draws.min(), interpolate(level, 0.04, 0.15, 0.35, 0.7, 1))  # one at least
    angles = rng.uniform(0, 2 * np.pi, grid_shape)
    distances = is_moved * block * interpolate(level, 0.3, 0.6, 1.1, 2, 3.5)
    rows = rows + np.rint(distances * np.sin(angles)).astype(int)[blocks]
    columns = columns + np.rint(distances * np.cos(angles)).astype(int)[blocks]
    return Image.fromarray(pixels[np.clip(rows, 0, image.height - 1), np.clip(columns, 0, image.width - 1)])


Distortion = Callable[[Image.Image, float, np.random.Generator], Image.Image]

# Five types stay out of this table forever, in any form: motion blur, swirls, impulse (salt-and-pepper) noise, JPEG
# 2000 and colour casts. They are what a trained model is tested on as distortions that it has never seen (held_out.py,
# which nothing that trains may import).
DISTORTIONS: dict[str, Distortion] = {
    function.__name__: function
    for function in (
        jpeg,
        webp,
        blur,
        noise,
        rescale,
        banding,
        oversharpen,
        oversaturate,
        exposure,
        elastic,
        wrong_patches,
        shuffled_blocks,
    )
}


def apply_distortion(function: Distortion, image: Image.Image, level: int, seed: int) -> Image.Image:
    """Return the image distorted by a type's function: RGB in, RGB of the same size out.

    `level` is 1 (just visible) to 5 (ruined); seed (0 or more) and the function's name decide what is random. Raises
    ValueError for another level, or an image that is not RGB.
    """
    if level not in LEVELS:
        raise ValueError(f"got the level {level!r}; accepted: {LEVELS}")
    if image.mode != "RGB":
        raise ValueError(f"got an image of mode {image.mode!r}; accepted: 'RGB'")
    type_seed = [seed, zlib.crc32(function.__name__.encode())]
    jitter = np.random.default_rng([*type_seed, level]).uniform(-LEVEL_JITTER, LEVEL_JITTER)
    return function(image, level + jitter, np.random.default_rng(type_seed))


def distort(image: Image.Image, distortion_type: str, level: int, seed: int) -> Image.Image:
    """Return the image with one distortion: RGB in, RGB of the same size out, the same for the same seed (0 or more).

    `level` is 1 (just visible) to 5 (ruined). Raises ValueError for another level, an unknown distortion type, or an
    image that is not RGB.
    """
    if distortion_type not in DISTORTIONS:
        raise ValueError(f"got the distortion type {distortion_type!r}; accepted: {', '.join(DISTORTIONS)}")
    return apply_distortion(DISTORTIONS[distortion_type], image, level, seed)


def has_effect(clean: Image.Image, distorted: Image.Image) -> bool:
    """Return whether a distortion found anything to work on; the images are of one size."""
    return bool(np.abs(np.asarray(distorted, dtype=int) - np.asarray(clean)).mean() >= NO_EFFECT)
