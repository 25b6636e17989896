"""Any image -> the patches that the model scores.

processor = AutoImageProcessor.from_pretrained(DIR_OR_REPO, trust_remote_code=True)
pixel_values = processor("picture.png")["pixel_values"]  # (1, 25, 3, 224, 224)
"""

from __future__ import annotations

import importlib
import io
import math
import numbers
import struct
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, BatchFeature

MAX_PIXELS = 64_000_000
# Bounds of what an image processor may ask for, whoever wrote its file. One image's patches take 12 bytes a pixel.
MAX_PATCHES = 10_000
MAX_PATCH_SIZE = 2048  # pixels
MAX_PATCH_PIXELS = 2 * MAX_PIXELS  # of all patches of an image: 1.5 GB; 400 patches of 224 pixels are a sixth of that
MAX_SIDE = 32_768  # pixels, of what images are squeezed to
MIN_STD = 0.001  # below it, patches would be little but noise
MAX_MESSAGE = 300  # letters
SAMPLINGS = ("grid", "random", "multiscale")
ACCEPTED = "a path, an http(s) URL, bytes, a PIL image, a NumPy array or a torch tensor"
DOWNLOAD_TIMEOUT = 30  # seconds
STRIP_PIXELS = 2**20  # that are converted to RGB at a time
HEAD_SIZE = 1024  # bytes, from which the kind of a file is told
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
NO_IMAGES = {
    b"<svg": "an SVG drawing, which has no pixels",
    b"<html": "a web page",
    b"<!doctype html": "a web page",
    b"%!ps": "a PostScript program",
    b"%pdf": "a PDF document",
}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
ORIENTATION_TAG = 0x0112  # of EXIF
TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TooManyPixels(ValueError):
    """An image of more than 64 megapixels."""


def load_image(image: Any) -> Image.Image:
    """The picture behind anything accepted, as an 8-bit RGB PIL image.

    EXIF orientation is applied, alpha is composited on white, an animation gives its first frame (a PIL image the frame
    that it stands at). Colour profiles are ignored, as in training; broken metadata do no harm. Arrays and tensors are
    `(height, width)`, `(height, width, channels)` or `(channels, height, width)` with 1-4 channels: uint8 0-255,
    uint16 0-65535, or floating point 0-1. HEIC needs the package pillow-heif.

    Raises:
        ValueError: not a whole image, or more than 64 megapixels; the message says what was got.
    """
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    if isinstance(image, np.ndarray):
        return to_rgb(_from_array(image))
    if isinstance(image, Image.Image):
        return _read(lambda: to_rgb(image), "the PIL image")
    if isinstance(image, bytes | bytearray | memoryview):
        return _read(lambda: _decode(io.BytesIO(image)), f"{len(image)} bytes")
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return _read(lambda: _decode(io.BytesIO(_download(image))), image)
    if isinstance(image, str | Path):
        return _read(lambda: _decode(open(image, "rb")), str(image))
    raise ValueError(f"an image must be {ACCEPTED}, got {type(image).__name__}")


def _read(read: Callable[[], Image.Image], name: str) -> Image.Image:
    try:
        return read()
    except Exception as error:  # decoders raise whatever their format's parser does: OSError, struct.error, ...
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"cannot read {name}: {reason}") from error


def _decode(file: BinaryIO) -> Image.Image:
    with file:
        try:
            return to_rgb(open_image(file))
        except TooManyPixels:
            raise
        except Exception:
            file.seek(0)
            png = file.read(len(PNG_SIGNATURE))
            if png != PNG_SIGNATURE:
                raise
            png += file.read()
    return to_rgb(open_image(io.BytesIO(_without_metadata(png))))


def _without_metadata(png: bytes) -> bytes:
    """A PNG's chunks that decide its pixels, and its EXIF where that is whole."""
    kept, start = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")  # length, name, data, checksum
        name = png[start + 4 : start + 8]
        is_whole = zlib.crc32(png[start + 4 : end - 4]) == int.from_bytes(png[end - 4 : end], "big")
        if name in PNG_PIXEL_CHUNKS or (name == b"eXIf" and is_whole):
            kept.append(png[start:end])
        start = end
    return b"".join(kept)


def open_image(file: BinaryIO) -> Image.Image:
    """An image of which the header is read and nothing decoded: `Image.open` without its check of the size.

    That check warns or raises by a limit that all users of Pillow in the process share; `to_rgb` has one of its own.

    Raises:
        ValueError: not an image; the message says what it seems to be.
    """
    file.seek(0)
    head = file.read(HEAD_SIZE)
    if _is_heic(head):
        register_heic()
    Image.preinit()  # the common formats come first, as in Image.open
    Image.init()
    broken_kind = None
    for kind in Image.ID:
        factory, accepts = Image.OPEN[kind]
        try:
            accepted = kind != "EPS" and (
                accepts is None or accepts(head[:16])
            )  # EPS is a program, which Pillow has run
            if not accepted or isinstance(accepted, str):  # a text excuses that this Pillow lacks the format
                continue
            file.seek(0)
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # another format, as in Image.open
            broken_kind = kind if accepts else broken_kind
        except Exception as error:
            raise ValueError(f"the {kind} image is broken or cut short ({error})") from error
    raise ValueError(_why_unknown(head, broken_kind))


def register_heic() -> None:
    """From here on Pillow reads HEIC in this process, where the optional package pillow-heif is installed."""
    try:
        plugin = importlib.import_module("pillow_heif")
    except ImportError:
        return
    plugin.register_heif_opener()


def _is_heic(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS


def _why_unknown(head: bytes, broken_kind: str | None) -> str:
    """The reason for a file that Pillow cannot open, from its first bytes and the format that they promise."""
    if not head:
        return "the file is empty"
    if _is_heic(head) and "HEIF" not in Image.OPEN:
        return "HEIC is read with the package pillow-heif: pip install pillow-heif"
    if broken_kind is not None:
        return f"the {broken_kind} image is broken or cut short"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "this Pillow was built without AVIF: pip install --upgrade pillow"
    text = head.lower()
    kind = next((kind for mark, kind in NO_IMAGES.items() if mark in text), None)
    return "not an image that Pillow knows" + (f", but {kind}" if kind else "")


def _download(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "hybridIQA"})
    with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT) as response:
        return response.read()


def _from_array(array: np.ndarray) -> Image.Image:
    shape = array.shape
    if array.ndim == 3 and shape[2] > 4 and shape[0] <= 4:
        array = array.transpose(1, 2, 0)  # (channels, height, width) -> (height, width, channels)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 2 <= array.shape[2] <= 4) or array.size == 0:
        raise ValueError(
            "an array must be (height, width), (height, width, channels) or (channels, height, width) with 1-4 "
            f"channels, got {shape}"
        )
    return Image.fromarray(np.ascontiguousarray(_to_uint8(array)))


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        return np.rint(array / 257).astype(np.uint8)
    low, high = float(array.min()), float(array.max())
    if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:  # also refuses NaN
        return np.rint(array * 255).astype(np.uint8)
    raise ValueError(
        f"values must be uint8 0-255, uint16 0-65535 or floating point 0-1, got {array.dtype} {low:g} to {high:g}"
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """EXIF orientation applied, alpha on white, 16-bit and floating point grey scaled to 8 bits, then RGB.

    What is plain RGB and upright already comes back itself.

    Raises:
        ValueError: more than 64 megapixels, which are not decoded, or floating point values beyond 0-1.
    """
    _check_pixels(*image.size)
    image.load()
    _check_pixels(*image.size)  # some headers are found wrong
    turn = _turn(image)
    if image.mode != "RGB" or image.has_transparency_data:
        image = _in_strips(image)
    if turn is not None:
        image = image.transpose(turn)
        image.info = {}  # not to be turned again
    return image


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ORIENTATION_TAG))
    except Exception:  # parsers of metadata raise all kinds of errors; the pixels are whole
        return None


def _in_strips(image: Image.Image) -> Image.Image:
    """As RGB, a megapixel at a time: what a large image takes meanwhile is itself and the result."""
    rgb = Image.new("RGB", image.size)
    num_rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, num_rows):
        strip = image.crop((0, top, image.width, min(top + num_rows, image.height)))
        rgb.paste(_strip_to_rgb(strip), (0, top))
    return rgb


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray(_to_uint8(np.asarray(image).astype(np.uint16)))
    elif image.mode == "I":  # what 16-bit grey is read as by some formats
        image = Image.fromarray(_to_uint8(np.clip(np.asarray(image), 0, 65535).astype(np.uint16)))
    elif image.mode == "F":
        image = Image.fromarray(_to_uint8(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise TooManyPixels(f"at most {MAX_PIXELS // 10**6} megapixels are accepted, got {width} x {height}")


def resized_dimensions(width: int, height: int, size: Sequence[int] | None, patch_size: int) -> tuple[int, int]:
    """(width, height) in pixels after `size` and after what is too small for a patch is enlarged.

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


def halved_dimensions(width: int, height: int, patch_size: int) -> tuple[int, int]:
    """(width, height) in pixels at half size, or as near to it as leaves no side smaller than a patch."""
    scale = max(1 / 2, patch_size / min(width, height))
    return round(width * scale), round(height * scale)


def grid_starts(width: int, height: int, num_patches: int, patch_size: int) -> list[tuple[int, int]]:
    """(top, left) of an even grid, row by row, in pixels; rows x columns is as near as can be to the image's shape."""
    factors = [(rows, num_patches // rows) for rows in range(1, num_patches + 1) if num_patches % rows == 0]
    rows, columns = min(factors, key=lambda pair: abs(math.log(pair[1] / pair[0]) - math.log(width / height)))
    tops, lefts = _even_starts(height - patch_size, rows), _even_starts(width - patch_size, columns)
    return [(top, left) for top in tops for left in lefts]


def _even_starts(last: int, count: int) -> list[int]:
    """`count` starts from 0 to `last`, both touched; a single one stands in the middle."""
    if count == 1:
        return [round(last / 2)]
    return [round(index * last / (count - 1)) for index in range(count)]


def random_starts(width: int, height: int, num_patches: int, patch_size: int, seed: int) -> list[tuple[int, int]]:
    """(top, left) of random crops, in pixels, from a generator of its own that the seed alone decides."""
    generator = torch.Generator().manual_seed(seed)

    def draw(last: int) -> int:
        return int(torch.randint(0, last + 1, (), generator=generator))

    return [(draw(height - patch_size), draw(width - patch_size)) for _ in range(num_patches)]


@dataclass(frozen=True)
class View:
    """An image at one size, in pixels, and the (top, left) of each patch that is cut from it."""

    width: int
    height: int
    starts: list[tuple[int, int]]


def multiscale_views(width: int, height: int, num_patches: int, patch_size: int) -> list[View]:
    """First the whole image as one patch, then a quarter of the others at half size, the rest at native size.

    The dimensions are those of the image where it is large enough for a patch, and of the enlarged one where it is not.
    """
    num_halved = (num_patches - 1) // 4
    num_native = num_patches - 1 - num_halved
    views = [View(patch_size, patch_size, [(0, 0)])]
    for dimensions, count in (
        (halved_dimensions(width, height, patch_size), num_halved),
        ((width, height), num_native),
    ):
        if count:
            views.append(View(*dimensions, grid_starts(*dimensions, count, patch_size)))
    return views


def cut(image: Image.Image, view: View, patch_size: int) -> list[np.ndarray]:
    """The patches of one view of an image, each `(patch_size, patch_size, 3)`."""
    if image.size != (view.width, view.height):
        image = image.resize((view.width, view.height), Image.Resampling.BILINEAR)
    return [np.asarray(image.crop((left, top, left + patch_size, top + patch_size))) for top, left in view.starts]


class HybridIQAImageProcessor(BaseImageProcessor):
    """Images -> `pixel_values (batch, patches, 3, patch_size, patch_size)`.

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
        **kwargs,
    ):
        super().__init__(**kwargs)
        if isinstance(size, dict) and set(size) == {"height", "width"}:
            size = (size["height"], size["width"])
        _check_whole("patch_size", patch_size, 1, MAX_PATCH_SIZE)
        _check_options(sampling, num_patches, seed, patch_size)
        if size is not None and not (isinstance(size, list | tuple) and len(size) == 2):
            raise ValueError(f"size must be (height, width) in pixels or none, got {size!r}")
        for side in size or ():
            _check_whole("size", side, 1, MAX_SIDE)
        self.patch_size = int(patch_size)
        self.num_patches = int(num_patches)
        self.sampling = sampling
        self.seed = int(seed)
        self.size = None if size is None else [int(side) for side in size]
        self.image_mean = _three_numbers("image_mean", image_mean, 0.0)
        self.image_std = _three_numbers("image_std", image_std, MIN_STD)

    def preprocess(
        self,
        images: Any,
        sampling: str | None = None,
        seed: int | None = None,
        num_patches: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """One image or a list of them -> `{"pixel_values": (batch, patches, 3, patch_size, patch_size)}`, float32.

        What is not given here is as the processor was made. `return_tensors`: "pt" (default) or "np".

        Raises:
            ValueError: something that is not an image, or wrong options; the message says what was got.
        """
        patches = [self.extract_patches(image, sampling, seed, num_patches) for image in self.as_list(images)]
        if not patches:
            raise ValueError("at least one image is needed, got an empty list")
        return BatchFeature({"pixel_values": self.normalize_patches(torch.stack(patches))}, tensor_type=return_tensors)

    def as_list(self, images: Any) -> list:
        """One image, a list or tuple of images, or a `(batch, ...)` array or tensor -> a list of images."""
        if isinstance(images, list | tuple):
            return list(images)
        if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
            return list(images)
        return [images]

    def extract_patches(
        self, image: Any, sampling: str | None = None, seed: int | None = None, num_patches: int | None = None
    ) -> torch.Tensor:
        """The patches of one image, as they are before normalisation: `(patches, 3, height, width)`, uint8, RGB."""
        image = load_image(image)
        views = self._views(*image.size, sampling, seed, num_patches)
        if self.size is not None:
            image = image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        crops = [crop for view in views for crop in cut(image, view, self.patch_size)]
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()

    def patch_boxes(
        self,
        width: int,
        height: int,
        sampling: str | None = None,
        seed: int | None = None,
        num_patches: int | None = None,
    ) -> list[tuple[float, float, float, float]]:
        """(left, top, right, bottom) of what each patch shows, in pixels of an upright image of this width and height.

        In the order of `extract_patches`, whose options these are. Where the image is squeezed, enlarged or halved
        before the patches are cut, the boxes are still those in the image as it was given, and fractions of pixels.

        Raises:
            ValueError: wrong options, or an image that is too large; the message says what was got.
        """
        boxes = []
        for view in self._views(width, height, sampling, seed, num_patches):
            across, down = width / view.width, height / view.height
            for top, left in view.starts:
                right, bottom = left + self.patch_size, top + self.patch_size
                boxes.append((left * across, top * down, right * across, bottom * down))
        return boxes

    def _views(
        self, width: int, height: int, sampling: str | None, seed: int | None, num_patches: int | None
    ) -> list[View]:
        """What patches are cut from an image of these dimensions, in pixels."""
        sampling = self.sampling if sampling is None else sampling
        seed = self.seed if seed is None else seed
        num_patches = self.num_patches if num_patches is None else num_patches
        _check_options(sampling, num_patches, seed, self.patch_size)
        _check_whole("width", width, 1)
        _check_whole("height", height, 1)
        dimensions = resized_dimensions(width, height, self.size, self.patch_size)
        if sampling == "grid":
            return [View(*dimensions, grid_starts(*dimensions, num_patches, self.patch_size))]
        if sampling == "random":
            return [View(*dimensions, random_starts(*dimensions, num_patches, self.patch_size, seed))]
        return multiscale_views(*dimensions, num_patches, self.patch_size)

    def normalize_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """uint8 RGB `(..., 3, height, width)` -> float32, less the mean and divided by the standard deviation."""
        mean = torch.tensor(self.image_mean, device=patches.device).view(3, 1, 1)
        std = torch.tensor(self.image_std, device=patches.device).view(3, 1, 1)
        return patches.float().div_(255).sub_(mean).div_(std)


def _check_options(sampling: str, num_patches: int, seed: int, patch_size: int) -> None:
    if not isinstance(sampling, str) or sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
    _check_whole("num_patches", num_patches, 1, MAX_PATCHES)
    _check_whole("seed", seed, 0, 2**63 - 1)
    if num_patches * patch_size**2 > MAX_PATCH_PIXELS:
        raise ValueError(
            f"the patches of an image have at most {MAX_PATCH_PIXELS // 10**6} megapixels in all, got num_patches "
            f"{num_patches} x patch_size {patch_size} x {patch_size}"
        )


def _three_numbers(name: str, values: Sequence[float], lowest: float) -> list[float]:
    """Return a mean or a standard deviation as a list; values are those of RGB 0-1."""
    are_three = isinstance(values, list | tuple) and len(values) == 3
    if not are_three or not all(isinstance(value, int | float) and lowest <= value <= 1 for value in values):
        raise ValueError(f"{name} must be three numbers (RGB) from {lowest:g} to 1, got {values!r}"[:MAX_MESSAGE])
    return list(values)


def _check_whole(name: str, value: int, lowest: int, highest: int | None = None) -> None:
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < lowest or (highest is not None and value > highest):
        limits = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
        raise ValueError(f"{name} must be a whole number, {limits}, got {value!r}")
