"""Opener of images, the only one in the project: any file, address or array -> plain 8-bit RGB."""

from __future__ import annotations

import importlib
import io
import os
import stat
import struct
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile

from .image_bounds_hybridiqa import MAX_SCANS, TooMuchWork, check_tags, count_scans, remove_traps

# Formats whose decoders turn bytes into pixels and do nothing else; Pillow reads HEIF and JXL with a plugin. Of what it
# registers these are left out: EPS and WMF are programs that it has others run (Ghostscript, Windows); BUFR, GRIB, HDF5
# and MPEG are only recognised; IPTC hands what it holds to `Image.open`, which takes it for any of these; FPX and MIC
# hide their images in a file system of their own.
# fmt: off
FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JXL", "GIF", "TIFF", "BMP", "DIB", "ICO", "CUR", "ICNS", "JPEG2000",
    "PPM", "TGA", "PSD", "PCX", "DCX", "SGI", "QOI", "DDS", "BLP", "FTEX", "FLI", "FITS", "GBR", "IM", "IMT", "MCIDAS",
    "MSP", "PCD", "PIXAR", "SPIDER", "SUN", "XBM", "XPM", "XVTHUMB",
)
# fmt: on
MAX_FILE_BYTES = 2**30  # 64 megapixels of four 32-bit channels, which is the most that an image holds, and metadata
MAX_PIXELS = 64_000_000
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
QUARTER_TURNS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)


class UnknownFormat(ValueError):
    """File of none of the formats that are read."""


class TooManyPixels(TooMuchWork):
    """Image of more than 64 megapixels."""


def load_image(image: Any) -> Image.Image:
    """Return the image behind anything accepted, as an 8-bit RGB PIL image.

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
        return _read(lambda: decode_file(bytes(image))[1], f"{len(image)} bytes")
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return _read(lambda: decode_file(_download(image))[1], image)
    if isinstance(image, str | Path):
        return _read(lambda: decode_file(read_file(image))[1], str(image))
    raise ValueError(f"an image must be {ACCEPTED}, got {type(image).__name__}")


def _read(read: Callable[[], Image.Image], name: str) -> Image.Image:
    try:
        return read()
    except Exception as error:  # decoders raise whatever their format's parser does: OSError, struct.error, ...
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"cannot read {name}: {reason}") from error


def read_file(path: str | Path) -> bytes:
    """Read a file whole, once: its hash and its pixels are then of the same bytes, whoever writes there meanwhile.

    Raises:
        OSError: it cannot be read.
        ValueError: not a regular file (a pipe would be waited for for ever), or more than 1 GiB.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):  # a folder has an error of its own
        raise ValueError("not a regular file")
    _check_num_bytes(found.st_size)
    with open(path, "rb") as file:
        data = file.read()
    _check_num_bytes(len(data))
    return data


def _check_num_bytes(num_bytes: int) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise TooMuchWork(f"at most {MAX_FILE_BYTES // 2**20} MB are accepted in a file, got more")


def decode_file(data: bytes, draft_size: int | None = None) -> tuple[Image.Image, Image.Image]:
    """Decode a file's bytes: the image as its format holds it (for format and mode), and upright RGB of it.

    Metadata in which Pillow finds a fault, such as a PNG's text of more than 1 MB, are left aside.

    Args:
        draft_size: pixels of both sides that will do: a JPEG is decoded at a fraction of its size.

    Raises:
        Exception: whatever the format's decoder raises.
    """
    try:
        return _decode(data, draft_size)
    except TooMuchWork:
        raise
    except Exception:
        if not data.startswith(PNG_SIGNATURE):
            raise
    return _decode(_drop_metadata(data), draft_size)


def upright_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels of what `decode_file` gives, from the header.

    Raises:
        ValueError: not an image.
    """
    try:
        image = open_image(io.BytesIO(data))
    except TooMuchWork:
        raise
    except ValueError:
        if not data.startswith(PNG_SIGNATURE):
            raise
        image = open_image(io.BytesIO(_drop_metadata(data)))
    width, height = image.size
    return (height, width) if _find_turn(image) in QUARTER_TURNS else (width, height)


def _decode(data: bytes, draft_size: int | None) -> tuple[Image.Image, Image.Image]:
    opened = open_image(io.BytesIO(data))
    if draft_size is not None:
        opened.draft(None, (draft_size, draft_size))
    return opened, to_rgb(opened)


def _drop_metadata(png: bytes) -> bytes:
    """Return a PNG of the chunks that decide its pixels, and of its EXIF where that is whole."""
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
    """Open an image, whose header is read while nothing is decoded: `Image.open` without its check of the size.

    That check warns or raises by a limit that all users of Pillow in the process share; `to_rgb` has one of its own.
    What is not one of `FORMATS` by its content is not opened, whatever it is called.

    Raises:
        UnknownFormat: none of these; the message says what it seems to be.
        ValueError: its header is broken.
    """
    file.seek(0)
    head = file.read(HEAD_SIZE)
    if _is_heic(head):
        register_heic()
    Image.preinit()  # the common formats come first, as in Image.open
    Image.init()
    broken_kind = None
    for kind in filter(FORMATS.__contains__, Image.ID):
        factory, accepts = Image.OPEN[kind]
        try:
            accepted = accepts is None or accepts(head[:16])
            if not accepted or isinstance(accepted, str):  # a text excuses that this Pillow lacks the format
                continue
            return factory(remove_traps(kind, file), "")
        except TooMuchWork:
            raise
        except (SyntaxError, IndexError, TypeError, struct.error):  # another format, as in Image.open
            broken_kind = kind if accepts else broken_kind
        except Exception as error:
            raise ValueError(f"the {kind} image is broken or cut short ({error})") from error
    raise UnknownFormat(_explain_unknown(head, broken_kind))


def register_heic() -> None:
    """Let Pillow read HEIC in this process from here on, where the optional package pillow-heif is installed."""
    try:
        plugin = importlib.import_module("pillow_heif")
    except ImportError:
        return
    plugin.register_heif_opener()


def _is_heic(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS


def _explain_unknown(head: bytes, broken_kind: str | None) -> str:
    """Return why Pillow cannot open a file, from its first bytes and the format that they promise."""
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
        data = response.read(MAX_FILE_BYTES + 1)
    _check_num_bytes(len(data))
    return data


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
    """Convert to RGB: EXIF orientation applied, alpha on white, 16-bit and floating point grey scaled to 8 bits.

    An image that is plain RGB and upright already comes back itself.

    Raises:
        ValueError: a format that is not decoded, more than 64 megapixels, a JPEG of more than 32 scans, or floating
            point values beyond 0-1.
    """
    _check_pixels(*image.size)
    _check_undecoded(image)
    image.load()
    _check_pixels(*image.size)  # some headers are found wrong
    turn = _find_turn(image)
    if image.mode != "RGB" or image.has_transparency_data:
        image = _convert_in_strips(image)
    if turn is not None:
        image = image.transpose(turn)
        image.info = {}  # not to be turned again
    return image


def _check_undecoded(image: Image.Image) -> None:
    """Raise ValueError for an image that is still to be decoded, and that should not be."""
    is_stub = isinstance(image, ImageFile.StubImageFile)
    if not is_stub and not getattr(image, "tile", None):
        return
    codec = "" if is_stub else image.tile[0][0]
    if image.format not in FORMATS or codec == "fits_gzip":  # which is unpacked whatever its size
        kind = f"{image.format} that is packed" if codec == "fits_gzip" else image.format
        raise ValueError(f"accepted are {', '.join(FORMATS)}, and what is decoded already; got {kind}")
    num_scans = count_scans(image)
    if num_scans > MAX_SCANS:
        raise TooMuchWork(f"at most {MAX_SCANS} scans are accepted in a JPEG, got {num_scans} or more")


def _find_turn(image: Image.Image) -> Image.Transpose | None:
    try:
        exif = image.info.get("exif", b"")
        check_tags(exif if isinstance(exif, bytes) else b"")
        return TURNS.get(image.getexif().get(ORIENTATION_TAG))
    except Exception:  # parsers of metadata raise all kinds of errors; the pixels are whole
        return None


def _convert_in_strips(image: Image.Image) -> Image.Image:
    """Convert to RGB a megapixel at a time, so that no more than the image and the result is held in memory."""
    rgb = Image.new("RGB", image.size)
    num_rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, num_rows):
        strip = image.crop((0, top, image.width, min(top + num_rows, image.height)))
        rgb.paste(_convert_strip(strip), (0, top))
    return rgb


def _convert_strip(image: Image.Image) -> Image.Image:
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
