"""Image processor: any image -> the patches that the model scores.

processor = AutoImageProcessor.from_pretrained(DIR_OR_REPO, trust_remote_code=True)
pixel_values = processor("image.png")["pixel_values"]  # (1, 25, 3, 224, 224)
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature

from .configuration_hybridiqa import MAX_PATCH_SIZE, MAX_PATCHES, check_whole_views
from .image_bounds_hybridiqa import TooMuchWork  # noqa: F401 (what a file imports itself travels with it, no more)
from .image_loading_hybridiqa import MAX_PIXELS, load_image

# Bounds of what an image processor may ask for, whoever wrote its file. One image's patches take 12 bytes a pixel.
MAX_PATCH_PIXELS = 2 * MAX_PIXELS  # of all patches of an image: 1.5 GB; 400 patches of 224 pixels are a sixth of that
MAX_SIDE = 32_768  # pixels, of what images are squeezed to
MIN_STD = 0.001  # below it, patches would be little but noise
MAX_MESSAGE = 300  # letters
SAMPLINGS = ("grid", "random", "multiscale")


def fit_dimensions(width: int, height: int, size: Sequence[int] | None, patch_size: int) -> tuple[int, int]:
    """Return (width, height) in pixels after `size`, and after what is too small for a patch is enlarged.

    Raises:
        ValueError: the result would exceed 64 megapixels.
    """
    if size is not None:
        height, width = size
    if min(width, height) < patch_size:
        scale = patch_size / min(width, height)
        width, height = max(patch_size, round(width * scale)), max(patch_size, round(height * scale))
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"at most {MAX_PIXELS // 10**6} megapixels are accepted when patches are cut, got {width} x {height}"
        )
    return width, height


def halve_dimensions(width: int, height: int, patch_size: int) -> tuple[int, int]:
    """Return (width, height) in pixels at half size, or as near to it as leaves no side smaller than a patch."""
    scale = max(1 / 2, patch_size / min(width, height))
    return round(width * scale), round(height * scale)


def grid_starts(width: int, height: int, num_patches: int, patch_size: int) -> list[tuple[int, int]]:
    """Return (top, left) of an even grid, row by row, in pixels, as near as can be to the image's shape."""
    factors = [(rows, num_patches // rows) for rows in range(1, num_patches + 1) if num_patches % rows == 0]
    rows, columns = min(factors, key=lambda pair: abs(math.log(pair[1] / pair[0]) - math.log(width / height)))
    tops, lefts = _even_starts(height - patch_size, rows), _even_starts(width - patch_size, columns)
    return [(top, left) for top in tops for left in lefts]


def _even_starts(last: int, count: int) -> list[int]:
    """Return `count` starts from 0 to `last`, both touched; a single one stands in the middle."""
    if count == 1:
        return [round(last / 2)]
    return [round(index * last / (count - 1)) for index in range(count)]


def random_starts(width: int, height: int, num_patches: int, patch_size: int, seed: int) -> list[tuple[int, int]]:
    """Draw (top, left) of random crops, in pixels, from a generator of its own that the seed alone decides."""
    generator = torch.Generator().manual_seed(seed)

    def draw(last: int) -> int:
        return int(torch.randint(0, last + 1, (), generator=generator))

    return [(draw(height - patch_size), draw(width - patch_size)) for _ in range(num_patches)]


@dataclass(frozen=True)
class View:
    """Image at one size, in pixels, and the (top, left) of each patch that is cut from it."""

    width: int
    height: int
    starts: list[tuple[int, int]]


def make_multiscale_views(width: int, height: int, num_patches: int, patch_size: int) -> list[View]:
    """Return views: the whole image as one patch, a quarter of the others at half size, the rest at native size.

    The dimensions are those of the image where it is large enough for a patch, and of the enlarged one where it is not.
    """
    num_halved = (num_patches - 1) // 4
    num_native = num_patches - 1 - num_halved
    views = [View(patch_size, patch_size, [(0, 0)])]
    for dimensions, count in (
        (halve_dimensions(width, height, patch_size), num_halved),
        ((width, height), num_native),
    ):
        if count:
            views.append(View(*dimensions, grid_starts(*dimensions, count, patch_size)))
    return views


def cut_patches(image: Image.Image, view: View, patch_size: int) -> list[np.ndarray]:
    """Cut the patches of one view of an image, each `(patch_size, patch_size, 3)`."""
    if image.size != (view.width, view.height):
        image = image.resize((view.width, view.height), Image.Resampling.BILINEAR)
    return [np.asarray(image.crop((left, top, left + patch_size, top + patch_size))) for top, left in view.starts]


def cut_whole_view(image: Image.Image, tiles: int, patch_size: int) -> list[np.ndarray]:
    """Cut the whole image into tiles x tiles patches, row by row, each `(patch_size, patch_size, 3)`.

    Its long side is reduced to that of all tiles in a row, aspect ratio kept, and never enlarged. It stands in the
    middle; what it leaves free is filled by its mirror images, so that the patches show nothing but the image.
    """
    side = tiles * patch_size
    scale = min(1, side / max(image.size))
    width, height = (max(1, round(length * scale)) for length in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    top, left = (side - height) // 2, (side - width) // 2
    borders = ((top, side - height - top), (left, side - width - left), (0, 0))
    pixels = np.pad(np.asarray(image), borders, mode="symmetric")  # (side, side, 3)
    rows = pixels.reshape(tiles, patch_size, tiles, patch_size, 3).swapaxes(1, 2)
    return list(rows.reshape(-1, patch_size, patch_size, 3))


class HybridIQAImageProcessor(BaseImageProcessor):
    """Image processor: images -> `pixel_values (batch, patches, 3, patch_size, patch_size)`.

    Args:
        patch_size: side of a patch, in pixels. A smaller image is enlarged to it, aspect ratio kept.
        num_patches: patches an image.
        sampling: "grid", evenly spaced over the whole image; "random", the crops that `seed` draws; or "multiscale", in
            this order: one patch that is the whole image resized, (num_patches - 1) // 4 on a grid over the image at
            half size (or as near to it as leaves no side smaller than a patch), the rest on a grid at native size.
            All resizing is bilinear with antialiasing.
        seed: of the random crops; every image starts from it afresh.
        size: (height, width) in pixels, or a dictionary of both, to which each image is squeezed first; none leaves it.
        image_mean, image_std: RGB, of values 0-1; ImageNet's.
        whole_views: views of the whole image, each by its tiles a side, whose patches stand before those of `sampling`,
            which `num_patches` does not count. A view's long side is `patch_size` times its tiles, or the image's own
            where that is smaller; aspect ratio kept, the rest filled by mirror images. None without a pooled head.

    Raises:
        ValueError: options that cannot work; the message says what was got and what is accepted.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012
    _auto_class = "AutoImageProcessor"

    def __init__(
        self,
        patch_size: int = 224,
        num_patches: int = 25,
        sampling: str = "grid",
        seed: int = 0,
        size: Sequence[int] | None = None,
        image_mean: Sequence[float] = (0.485, 0.456, 0.406),
        image_std: Sequence[float] = (0.229, 0.224, 0.225),
        whole_views: Sequence[int] = (),
        **kwargs,
    ):
        for name in kwargs:
            if name.startswith("__") or callable(getattr(type(self), name, None)):
                raise ValueError(f"an image processor has no option {name!r}"[:MAX_MESSAGE])
        super().__init__(**kwargs)
        if isinstance(size, dict) and set(size) == {"height", "width"}:
            size = (size["height"], size["width"])
        _check_whole("patch_size", patch_size, 1, MAX_PATCH_SIZE)
        if not isinstance(whole_views, list | tuple):
            raise ValueError(f"whole_views must be a list, got {whole_views!r}"[:MAX_MESSAGE])
        check_whole_views(whole_views)
        self.whole_views = list(whole_views)
        _check_options(sampling, num_patches, seed, patch_size, self.num_whole_patches)
        if size is not None and not (isinstance(size, list | tuple) and len(size) == 2):
            raise ValueError(f"size must be (height, width) in pixels or none, got {size!r}")
        for side in size or ():
            _check_whole("size", side, 1, MAX_SIDE)
        self.patch_size = int(patch_size)
        self.num_patches = int(num_patches)
        self.sampling = sampling
        self.seed = int(seed)
        self.size = None if size is None else [int(side) for side in size]
        self.image_mean = _to_three_numbers("image_mean", image_mean, 0.0)
        self.image_std = _to_three_numbers("image_std", image_std, MIN_STD)

    @property
    def num_whole_patches(self) -> int:
        """Return how many patches of an image are those of `whole_views`; they come first."""
        return sum(tiles**2 for tiles in self.whole_views)

    def preprocess(
        self,
        images: Any,
        sampling: str | None = None,
        seed: int | None = None,
        num_patches: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Return `{"pixel_values": (batch, patches, 3, patch_size, patch_size)}`, float32, of one image or a list.

        What is not given here is as the processor was made. `return_tensors`: "pt" (default) or "np".

        Raises:
            ValueError: something that is not an image, or wrong options; the message says what was got.
        """
        patches = [self.extract_patches(image, sampling, seed, num_patches) for image in self.as_list(images)]
        if not patches:
            raise ValueError("at least one image is needed, got an empty list")
        return BatchFeature({"pixel_values": self.normalize_patches(torch.stack(patches))}, tensor_type=return_tensors)

    def as_list(self, images: Any) -> list:
        """Return one image, a list or tuple of images, or a `(batch, ...)` array or tensor as a list of images."""
        if isinstance(images, list | tuple):
            return list(images)
        if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
            return list(images)
        return [images]

    def extract_patches(
        self, image: Any, sampling: str | None = None, seed: int | None = None, num_patches: int | None = None
    ) -> torch.Tensor:
        """Cut one image into patches, not yet normalised: `(patches, 3, height, width)`, uint8, RGB."""
        image = load_image(image)
        views = self._make_views(*image.size, sampling, seed, num_patches)
        if self.size is not None:
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        crops = [crop for tiles in self.whole_views for crop in cut_whole_view(image, tiles, self.patch_size)]
        crops += [crop for view in views for crop in cut_patches(image, view, self.patch_size)]
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()

    def patch_boxes(
        self,
        width: int,
        height: int,
        sampling: str | None = None,
        seed: int | None = None,
        num_patches: int | None = None,
    ) -> list[tuple[float, float, float, float]]:
        """Return (left, top, right, bottom) of each patch, in pixels of an upright image of this width and height.

        In the order of `extract_patches`, whose options these are, without the patches of `whole_views`. Where the
        image is squeezed, enlarged or halved before the patches are cut, the boxes are still those in the image as it
        was given, and fractions of pixels.

        Raises:
            ValueError: wrong options, or an image that is too large; the message says what was got.
        """
        boxes = []
        for view in self._make_views(width, height, sampling, seed, num_patches):
            across, down = width / view.width, height / view.height
            for top, left in view.starts:
                right, bottom = left + self.patch_size, top + self.patch_size
                boxes.append((left * across, top * down, right * across, bottom * down))
        return boxes

    def _make_views(
        self, width: int, height: int, sampling: str | None, seed: int | None, num_patches: int | None
    ) -> list[View]:
        """Return the views from which patches are cut, of an image of these dimensions, in pixels."""
        sampling = self.sampling if sampling is None else sampling
        seed = self.seed if seed is None else seed
        num_patches = self.num_patches if num_patches is None else num_patches
        _check_options(sampling, num_patches, seed, self.patch_size, self.num_whole_patches)
        if sampling == "multiscale" and self.whole_views:
            raise ValueError(
                "sampling multiscale shows the whole image by itself; with whole_views, grid and random do"
            )
        _check_whole("width", width, 1)
        _check_whole("height", height, 1)
        dimensions = fit_dimensions(width, height, self.size, self.patch_size)
        if sampling == "grid":
            return [View(*dimensions, grid_starts(*dimensions, num_patches, self.patch_size))]
        if sampling == "random":
            return [View(*dimensions, random_starts(*dimensions, num_patches, self.patch_size, seed))]
        return make_multiscale_views(*dimensions, num_patches, self.patch_size)

    def normalize_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Subtract the mean of uint8 RGB `(..., 3, height, width)` and divide by the standard deviation; float32."""
        mean = torch.tensor(self.image_mean, device=patches.device).view(3, 1, 1)
        std = torch.tensor(self.image_std, device=patches.device).view(3, 1, 1)
        return patches.float().div_(255).sub_(mean).div_(std)


def _check_options(sampling: str, num_patches: int, seed: int, patch_size: int, num_whole_patches: int) -> None:
    if not isinstance(sampling, str) or sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
    _check_whole("num_patches", num_patches, 1, MAX_PATCHES)
    _check_whole("seed", seed, 0, 2**63 - 1)
    if (num_whole_patches + num_patches) * patch_size**2 > MAX_PATCH_PIXELS:
        others = f", and {num_whole_patches} of the whole image" if num_whole_patches else ""
        raise ValueError(
            f"the patches of an image have at most {MAX_PATCH_PIXELS // 10**6} megapixels in all, got num_patches "
            f"{num_patches} x patch_size {patch_size} x {patch_size}{others}"
        )


def _to_three_numbers(name: str, values: Sequence[float], lowest: float) -> list[float]:
    """Return a mean or a standard deviation as a list; values are those of RGB 0-1."""
    values = values.tolist() if isinstance(values, np.ndarray) else values
    are_three = isinstance(values, list | tuple) and len(values) == 3
    if not are_three or not all(isinstance(value, int | float) and lowest <= value <= 1 for value in values):
        raise ValueError(f"{name} must be three numbers (RGB) from {lowest:g} to 1, got {values!r}"[:MAX_MESSAGE])
    return list(values)


def _check_whole(name: str, value: int, lowest: int, highest: int | None = None) -> None:
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < lowest or (highest is not None and value > highest):
        limits = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
        raise ValueError(f"{name} must be a whole number, {limits}, got {value!r}")
