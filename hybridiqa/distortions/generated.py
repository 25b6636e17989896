"""Distortions that image generators leave: molten places, repeated tiles, seams of inpainting, lost detail.

Levels, seeds and bytes are as in trained.py: 1 is just visible, 5 ruined; within one seed, what has no order (places,
tiles, kinds) is the same for all of them. The five held-out distortions (see there) stay out here, too: warps follow
the slopes of a surface and turn nothing, blurs have no direction, and what is added is grey in the mean.
"""

import numpy as np
from PIL import Image, ImageFilter
from scipy.fft import dctn, idctn
from scipy.ndimage import map_coordinates, uniform_filter

from hybridiqa.distortions.trained import Distortion, interpolate, shrink, to_image

NUM_CANDIDATES = 24  # places, of which those with the most detail melt: an empty wall shows nothing
DETAIL_MAP_SIZE = 32  # pixels; fine enough for places of a tenth of the image
NUM_REGIONS = 6
LATENT_CELL = 8  # pixels of an image, along a side, that one latent of a Stable Diffusion autoencoder stands for


def _draw_smooth_field(image: Image.Image, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Draw numbers about 0 that change smoothly over some `reach` pixels, `(height, width)`."""
    grid = rng.standard_normal([int(np.ceil(side / reach)) + 1 for side in (image.height, image.width)])
    return np.asarray(Image.fromarray(grid.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC))


def _make_blobs(image: Image.Image, spots: np.ndarray) -> np.ndarray:
    """Return 1 at some spots and less about them, `(height, width)`.

    `spots` are `(spots, 3)`: row, column and standard deviation, the first two as shares of the image, the last as one
    of its shorter side.
    """
    strength = np.zeros((image.height, image.width), dtype=np.float32)
    for row, column, deviation in spots:
        extent = max(deviation * min(image.size), 0.5)
        down, across = (
            np.exp(-0.5 * ((np.arange(side) - place * (side - 1)) / extent) ** 2)
            for side, place in ((image.height, row), (image.width, column))
        )
        strength = np.maximum(strength, np.outer(down, across))
    return strength


def _find_slopes(surface: np.ndarray) -> np.ndarray:
    """Return how a surface rises by row and by column, `(2, height, width)`; a single row or column is flat."""
    return np.stack(np.gradient(np.pad(surface, 1, mode="edge")))[:, 1:-1, 1:-1]


def _sort_by_detail(image: Image.Image, spots: np.ndarray) -> np.ndarray:
    """Sort spots as of `_make_blobs`, the one with the most contrast in its neighbourhood first."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    steepness = Image.fromarray(np.abs(_find_slopes(grey)).sum(axis=0))
    detail = uniform_filter(np.asarray(steepness.resize((DETAIL_MAP_SIZE, DETAIL_MAP_SIZE), Image.Resampling.BOX)), 5)
    rows, columns = (spots[:, :2] * DETAIL_MAP_SIZE).astype(int).T
    return spots[np.argsort(-detail[rows, columns], kind="stable")]


def melted(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Let a few places flow and lose their detail, as a molten face or hand.

    Pixels move along the slopes of a random surface, so that nothing turns.
    """
    reach = max(rng.uniform(0.03, 0.06) * min(image.size), 1)  # pixels
    spots = _sort_by_detail(image, rng.random((NUM_CANDIDATES, 3)) * [1, 1, 0.07] + [0, 0, 0.05])
    surface = _draw_smooth_field(image, reach, rng)
    strength = _make_blobs(image, spots[: round(interpolate(level, 2, 3, 4, 6, 9))])
    shifts = interpolate(level, 0.12, 0.22, 0.4, 0.75, 1.3) * reach**2 * _find_slopes(surface * strength)
    places = np.indices(strength.shape) + shifts  # (2, height, width): row and column each pixel is fetched from
    pixels = np.asarray(image)  # (height, width, 3)
    channels = [map_coordinates(pixels[..., c], places, order=1, mode="nearest") for c in range(3)]
    warped = Image.fromarray(np.stack(channels, axis=-1))
    smooth = warped.filter(ImageFilter.GaussianBlur(interpolate(level, 0.8, 1.4, 2.2, 3.5, 6)))
    return Image.composite(smooth, warped, Image.fromarray(np.rint(255 * strength).astype(np.uint8)))


def _find_most_varied(pixels: np.ndarray, corners: np.ndarray, size: np.ndarray) -> tuple[int, int]:
    """Return the corner, row and column, of the rectangle with the most contrast: sky repeated is still sky."""
    height, width = size
    return max(
        ((int(top), int(left)) for top, left in corners),
        key=lambda corner: float(pixels[corner[0] : corner[0] + height, corner[1] : corner[1] + width].std()),
    )


def repeated_tiles(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Let one small part repeat in a regular lattice about itself, over a region that grows with the level."""
    pixels = np.asarray(image)  # (height, width, 3)
    shape = np.array(pixels.shape[:2])
    tile_size = np.maximum(1, rng.uniform(0.06, 0.16, size=2) * min(image.size)).astype(int)
    corners = (rng.uniform(0.15, 0.85, (6, 2)) * (shape - tile_size + 1)).astype(int)
    top_left = _find_most_varied(pixels, corners, tile_size)
    rows, columns = (
        first + (np.arange(side) - first) % length
        for first, side, length in zip(top_left, shape, tile_size, strict=True)
    )
    tiled = pixels[rows[:, None], columns].astype(np.float32)
    middle = top_left + tile_size / 2
    reach = interpolate(level, 0.13, 0.17, 0.22, 0.3, 0.4) * shape  # of the region from its middle, in pixels
    feather = max(0.02 * min(image.size), 1)  # width of the region's border, in pixels
    down, across = (
        np.clip((reach[axis] - np.abs(np.arange(shape[axis]) - middle[axis])) / feather, 0, 1) for axis in (0, 1)
    )
    weights = interpolate(level, 0.4, 0.6, 0.8, 0.95, 1) * np.outer(down, across)[..., None]  # (height, width, 1)
    return to_image(pixels + weights * (tiled - pixels))


def _make_region(image: Image.Image, region: np.ndarray, power: int, softness: float) -> np.ndarray:
    """Return 1 in an ellipse (power 2) or a rounded rectangle (more), 0 around it; the border in pixels is `softness`.

    `region` is row, column, height and width, as shares of the image.
    """
    row, column, height, width = region
    down, across = (
        np.abs(np.arange(side) - place * side) / max(length * side / 2, 0.5)
        for side, place, length in ((image.height, row, height), (image.width, column, width))
    )
    distances = np.add.outer(down**power, across**power) ** (1 / power)  # 1 at the border
    extent = min(height * image.height, width * image.width) / 2  # pixels
    return np.clip((1 - distances) * extent / softness + 0.5, 0, 1)


def inpainted(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Fill regions anew, with a seam: brightness, sharpness, grain and place differ a little from those around them."""
    power, softness = int(rng.choice([2, 8])), rng.choice([0.5, 0.02 * min(image.size) + 0.5])
    is_sharper = rng.random() < 0.4
    regions = rng.random((NUM_REGIONS, 4)) * [0.7, 0.7, 0.2, 0.2] + [0.15, 0.15, 0.2, 0.2]
    signs = rng.choice([-1, 1], size=(NUM_REGIONS, 3))  # of brightness, and of the shift by row and by column
    grain = rng.standard_normal((image.height, image.width, 1))
    if is_sharper:
        filled = image.filter(ImageFilter.UnsharpMask(2, round(interpolate(level, 40, 80, 150, 260, 450)), threshold=0))
    else:
        filled = image.filter(ImageFilter.GaussianBlur(interpolate(level, 0.7, 1.1, 1.8, 3, 5)))
    fill = np.asarray(filled) + interpolate(level, 1.5, 3, 6, 11, 20) * grain  # grey levels
    brightness = interpolate(level, 6, 11, 19, 32, 55)  # grey levels
    shift = round(interpolate(level, 0.003, 0.006, 0.012, 0.025, 0.05) * min(image.size))  # pixels
    pixels = np.asarray(image, dtype=float)
    num_regions = round(interpolate(level, 2, 2, 3, 4, NUM_REGIONS))
    for region, (sign, down, across) in zip(regions[:num_regions], signs[:num_regions], strict=True):
        mask = _make_region(image, region, power, softness)[..., None]  # (height, width, 1)
        pixels += mask * (np.roll(fill, (down * shift, across * shift), axis=(0, 1)) + sign * brightness - pixels)
    return to_image(pixels)


def _smooth_within_edges(pixels: np.ndarray, reach: int) -> np.ndarray:
    """Take the mean of whichever square beside a pixel is the most even, so that edges stay; its side is 2 reaches + 1.

    Filter of Kuwahara et al. (1976), weighted as by Papari et al. (2007), who found blocks where the choice is hard.
    """
    size = (2 * reach + 1, 2 * reach + 1, 1)
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    means = uniform_filter(padded, size, mode="nearest")
    variances = (uniform_filter(padded**2, size, mode="nearest") - means**2).mean(axis=2, keepdims=True)
    weights = np.maximum(variances, 1) ** -3  # below 1 grey level, squares are equally even
    height, width = pixels.shape[:2]
    squares = [
        (slice(top, top + height), slice(left, left + width)) for top in (0, 2 * reach) for left in (0, 2 * reach)
    ]
    total = sum(weights[square] for square in squares)
    return sum(weights[square] * means[square] for square in squares) / total


def over_smoothed(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Take the detail out of large regions and leave the edges, as skin of wax."""
    pixels = np.asarray(image, dtype=np.float32)
    field = _draw_smooth_field(image, max(image.size) / 4, rng)
    share = interpolate(level, 0.5, 0.65, 0.8, 0.95, 1)  # of the image
    mask = np.clip((field - np.quantile(field, 1 - share)) / 0.2 + 1, 0, 1)[..., None]  # (height, width, 1)
    smooth = _smooth_within_edges(pixels, round(interpolate(level, 1, 2, 4, 7, 12)))
    return to_image(pixels + interpolate(level, 0.6, 0.8, 1, 1, 1) * mask * (smooth - pixels))


def latent_grid(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Decode badly from latents: edges ring, and a pattern of 8 pixels repeats, strongest where there is detail."""
    pixels = np.asarray(image, dtype=np.float32)  # (height, width, 3)
    tile = rng.standard_normal((LATENT_CELL, LATENT_CELL, int(rng.choice([1, 3]))))
    rows, columns = np.indices((LATENT_CELL, LATENT_CELL))
    tile += 1.5 * (-1.0) ** (rows + columns)[..., None]  # the checkerboard of transposed convolutions
    tile = (tile - tile.mean(axis=(0, 1))) / tile.std()  # no channel grows brighter
    repeats = [side // LATENT_CELL + 1 for side in pixels.shape[:2]]
    pattern = np.tile(tile, (*repeats, 1))[: image.height, : image.width]
    # A sharp end of the spectrum rings; of the frequencies along each side, this share stays.
    spectrum = dctn(pixels, axes=(0, 1), norm="ortho")
    share = interpolate(level, 0.75, 0.6, 0.45, 0.3, 0.18)
    height, width = (max(1, round(share * side)) for side in pixels.shape[:2])
    spectrum[height:], spectrum[:, width:] = 0, 0
    rung = idctn(spectrum, axes=(0, 1), norm="ortho")
    detail = uniform_filter(np.abs(pixels - rung).mean(axis=2, keepdims=True), (LATENT_CELL, LATENT_CELL, 1))
    strength = interpolate(level, 1.5, 3, 7, 15, 30) * (0.5 + detail / max(detail.mean(), 1e-12)).clip(0, 2.5)
    return to_image(rung + strength * pattern)


def upscaled(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Generate at 1/2 to 1/6 of the size, then sharpen (which leaves halos), invent grain and scale up."""
    small = shrink(image, interpolate(level, 2, 2.6, 3.5, 4.6, 6), Image.Resampling.LANCZOS)
    radius = rng.uniform(0.8, 1.6)  # of the halos, in pixels of the small image
    sharp = small.filter(ImageFilter.UnsharpMask(radius, round(interpolate(level, 50, 80, 120, 170, 240)), threshold=0))
    grain = rng.standard_normal((small.height, small.width, 1))
    grainy = to_image(np.asarray(sharp) + interpolate(level, 1, 2, 4, 8, 14) * grain)  # grey levels
    return grainy.resize(image.size, Image.Resampling.LANCZOS)


GENERATED: dict[str, Distortion] = {
    function.__name__: function
    for function in (melted, repeated_tiles, inpainted, over_smoothed, latent_grid, upscaled)
}
