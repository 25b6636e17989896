"""Any image -> the patches that the model scores.

processor = AutoImageProcessor.from_pretrained(DIR_OR_REPO, trust_remote_code=True)
pixel_values = processor("picture.png")["pixel_values"]  # (1, 25, 3, 224, 224)
"""

from __future__ import annotations

import importlib
import io
import math
import numbers
import os
import re
import stat
import struct
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile
from transformers import BaseImageProcessor, BatchFeature

# Formats whose decoders turn bytes into pixels and do nothing else; Pillow reads HEIF and JXL with a plugin. Of what it
# registers these are left out: EPS and WMF are programs that it has others run (Ghostscript, Windows); BUFR, GRIB, HDF5
# and MPEG are only recognised; IPTC hands what it holds to `Image.open`, which takes it for any of these; FPX and MIC
# hide their pictures in a file system of their own.
# fmt: off
FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JXL", "GIF", "TIFF", "BMP", "DIB", "ICO", "CUR", "ICNS", "JPEG2000",
    "PPM", "TGA", "PSD", "PCX", "DCX", "SGI", "QOI", "DDS", "BLP", "FTEX", "FLI", "FITS", "GBR", "IM", "IMT", "MCIDAS",
    "MSP", "PCD", "PIXAR", "SPIDER", "SUN", "XBM", "XPM", "XVTHUMB",
)
# fmt: on
MAX_FILE_BYTES = 2**30  # 64 megapixels of four 32-bit channels, which is the most that a picture holds, and metadata
MAX_PIXELS = 64_000_000
MAX_CODE_BLOCKS = 2**20  # of a JPEG 2000: of 64 x 64 pixels, as encoders write, 64 megapixels of RGB have 47,000
MAX_SCANS = 32  # of a JPEG: encoders write about 10, and the decoder goes through all pixels for each of them
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
QUARTER_TURNS = tuple(TURNS[orientation] for orientation in (5, 6, 7, 8))


JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # what compressed pixels do not hold
JPEG_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
FRAME_MARKERS = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
PROGRESSIVE_MARKERS = (0xC2, 0xC6, 0xCA, 0xCE)
SCAN_MARKER, END_MARKER, APP1_MARKER = 0xDA, 0xD9, 0xE1
MARKERS_WITHOUT_LENGTH = (0x01, 0xD8)
EXIF_HEADER = b"Exif\0\0"
JPEG2000_START = re.compile(rb"\xff\x4f\xff\x51")
COD, COC, TILE_MARKER, DATA_MARKER = b"\xff\x52", b"\xff\x53", b"\xff\x90", b"\xff\x93"  # of JPEG 2000
PPM_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")
TIFF_HEADER = re.compile(rb"II\*\0|MM\0\*")
TIFF_OFFSETS = (273, 324)  # tags: where strips or tiles start
SHARED_TAG_BYTES = 2**20  # that tags may point to again: a few do, in files that are sound
TAG_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # bytes, by type


class UnknownFormat(ValueError):
    """A file of none of the formats that are read."""


class TooMuchWork(ValueError):
    """A picture that would take the decoder out of proportion to its file."""


class TooManyPixels(TooMuchWork):
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
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a folder has an error of its own
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        return _within_limit(file.read(MAX_FILE_BYTES + 1))


def _within_limit(data: bytes) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise TooMuchWork(f"at most {MAX_FILE_BYTES // 2**20} MB are accepted in a file, got more")
    return data


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
    return _decode(_without_metadata(data), draft_size)


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
        image = open_image(io.BytesIO(_without_metadata(data)))
    width, height = image.size
    return (height, width) if _turn(image) in QUARTER_TURNS else (width, height)


def _decode(data: bytes, draft_size: int | None) -> tuple[Image.Image, Image.Image]:
    opened = open_image(io.BytesIO(data))
    if draft_size is not None:
        opened.draft(None, (draft_size, draft_size))
    return opened, to_rgb(opened)


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
            return factory(_without_traps(kind, file), "")
        except TooMuchWork:
            raise
        except (SyntaxError, IndexError, TypeError, struct.error):  # another format, as in Image.open
            broken_kind = kind if accepts else broken_kind
        except Exception as error:
            raise ValueError(f"the {kind} image is broken or cut short ({error})") from error
    raise UnknownFormat(_why_unknown(head, broken_kind))


def _without_traps(kind: str, file: BinaryIO) -> BinaryIO:
    """The file from its start, such that opening and decoding it takes no time out of proportion to it.

    Raises:
        TooMuchWork: it would.
    """
    file.seek(0)
    data = file.read() if kind in ("GIF", "PPM", "TIFF", "JPEG", "AVIF", "JPEG2000", "ICNS") else b""
    if kind == "GIF":
        return io.BytesIO(_without_comments(data))
    if kind == "PPM" and data[:2] in (b"P1", b"P2", b"P3"):  # numbers as text; Pillow copies all for each comment
        return io.BytesIO(PPM_COMMENT.sub(b"", data))
    if kind == "TIFF":
        _check_tags(data)
    elif kind == "JPEG":
        _check_tags(_jpeg_exif(data))
    elif kind == "AVIF":
        for match in TIFF_HEADER.finditer(data):  # of its EXIF, wherever that lies
            _check_tags(data[match.start() :])
    elif kind in ("JPEG2000", "ICNS"):  # the latter may hold the former
        for match in JPEG2000_START.finditer(data):
            _check_code_blocks(data, match.start())
    file.seek(0)
    return file


def _without_comments(gif: bytes) -> bytes:
    """A GIF without comments before its first image: Pillow adds each piece to a copy of all before, in square time."""
    if len(gif) < 13:
        return gif
    start = 13 + (3 << (gif[10] & 7) + 1 if gif[10] & 0x80 else 0)  # after the global palette
    kept = [gif[:start]]
    while gif[start : start + 1] == b"!":  # an extension: its kind, then blocks, each after its length
        end = start + 2
        while end < len(gif) and gif[end]:
            end += 1 + gif[end]
        end += 1
        if gif[start + 1 : start + 2] != b"\xfe":
            kept.append(gif[start:end])
        start = end
    return b"".join([*kept, gif[start:]])


def _check_tags(data: bytes) -> None:
    """Check the tags of a TIFF or of EXIF, which is one: Pillow copies what each points to, all the same bytes or not.

    Raises:
        TooMuchWork: they point to more bytes than there are.
    """
    data = data.removeprefix(EXIF_HEADER)
    order = "little" if data[:2] == b"II" else "big"
    is_big = 43 in data[2:4]  # BigTIFF

    def number(start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], order)

    num_bytes, entry_size, value_size = 0, 20 if is_big else 12, 8 if is_big else 4
    directory = number(8, 8) if is_big else number(4, 4)
    first = directory + (8 if is_big else 2)
    num_tags = min(number(directory, 8 if is_big else 2), len(data) // entry_size)
    for entry in range(first, first + num_tags * entry_size, entry_size):
        size = TAG_SIZES.get(number(entry + 2, 2), 0) * number(entry + 4, value_size)
        num_bytes += size if value_size < size <= len(data) else 0  # larger ones are an error on reading
    if num_bytes > len(data) + SHARED_TAG_BYTES:
        raise TooMuchWork(f"tags may point to about as many bytes as there are, {len(data)}; got {num_bytes}")


def _check_code_blocks(data: bytes, start: int) -> None:
    """Check the stream of a JPEG 2000 that starts there.

    Raises:
        TooMuchWork: its pixels lie in more than a million blocks.
    """
    width, height, num_components = struct.unpack_from(">II24xH", data, start + 8)
    for marker, content in _jpeg2000_segments(data, start + 2):
        style = content[0] & 1 if marker == COD else content[1 + (num_components > 256)] & 1
        levels, x, y, *precincts = content[5:] if marker == COD else content[2 + (num_components > 256) :]
        # Without precincts, as where they are of the largest size, blocks have the size that they are said to have.
        sides = [(size & 15, size >> 4) for size in precincts[: levels + 1]] if style else [(15, 15)] * (levels + 1)
        num_blocks = 0
        for level, (across, down) in enumerate(reversed(sides)):  # from the whole size down
            block = 2 ** (min((x & 15) + 2, max(0, across - 1)) + min((y & 15) + 2, max(0, down - 1)))
            num_blocks += num_components * width * height // 4**level // block
        if num_blocks > MAX_CODE_BLOCKS:
            raise TooMuchWork(f"at most {MAX_CODE_BLOCKS} blocks are accepted in a JPEG 2000, got {num_blocks}")


def _jpeg2000_segments(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield marker and content of what tells the size of blocks, in the headers of a JPEG 2000 and of its tiles."""
    tile_start = start
    while len(marker := data[start : start + 2]) == 2:
        if marker == DATA_MARKER:
            num_bytes = int.from_bytes(data[tile_start + 6 : tile_start + 10], "big")  # 0: up to the end
            if num_bytes == 0 or tile_start + num_bytes <= start:
                return
            start = tile_start + num_bytes
            continue
        tile_start = start if marker == TILE_MARKER else tile_start
        end = start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        if marker in (COD, COC):
            yield marker, data[start + 4 : end]
        start = end


def _jpeg_exif(jpeg: bytes) -> bytes:
    """The EXIF of a JPEG, which may come in several segments."""
    parts = []
    for marker, start, end in _jpeg_segments(jpeg, 0):
        if marker == SCAN_MARKER:
            break
        if marker == APP1_MARKER and jpeg.startswith(EXIF_HEADER, start):
            parts.append(jpeg[start + len(EXIF_HEADER) : end])
    return b"".join(parts)


def _jpeg_segments(data: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of the content of every segment of a JPEG, as a decoder finds them, up to its end."""
    while match := JPEG_MARKER.search(data, start):
        start = match.end()
        marker = data[start - 1]
        if marker == END_MARKER:
            return
        if marker not in MARKERS_WITHOUT_LENGTH:
            end = start + max(2, int.from_bytes(data[start : start + 2], "big"))
            yield marker, start + 2, end
            start = end


def _num_scans(data: bytes, start: int) -> int:
    """How many scans the decoder of a JPEG goes through, counted to one more than are accepted."""
    num_scans, num_components, is_progressive = 0, 0, False
    for marker, content, _ in _jpeg_segments(data, start):
        if marker in FRAME_MARKERS:
            num_components = int.from_bytes(data[content + 5 : content + 6], "big")
            is_progressive = marker in PROGRESSIVE_MARKERS
        elif marker == SCAN_MARKER:
            num_scans += 1
            has_all = int.from_bytes(data[content : content + 1], "big") >= num_components
            if (has_all and not is_progressive) or num_scans > MAX_SCANS:
                break
    return num_scans


def _most_scans(image: ImageFile.ImageFile) -> int:
    """The number of scans of an image that is not decoded yet: the most of any JPEG in it, 0 where there is none."""
    is_tiff = image.format == "TIFF" and image.info.get("compression") == "jpeg"
    if image.format not in ("JPEG", "MPO", "BLP") and not is_tiff:
        return 0
    image.fp.seek(0)
    data = image.fp.read()
    if image.format == "BLP":  # its header, elsewhere, belongs to every JPEG
        return sum(1 for _ in JPEG_SCAN.finditer(data))
    if is_tiff:
        starts = next((image.tag_v2[tag] for tag in TIFF_OFFSETS if tag in image.tag_v2), ())
        return max((_num_scans(data, start) for start in set(starts)), default=0)
    return _num_scans(data, image.tile[0][2])


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
        return _within_limit(response.read(MAX_FILE_BYTES + 1))


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
        ValueError: a format that is not decoded, more than 64 megapixels, a JPEG of more than 32 scans, or floating
            point values beyond 0-1.
    """
    _check_pixels(*image.size)
    _check_undecoded(image)
    image.load()
    _check_pixels(*image.size)  # some headers are found wrong
    turn = _turn(image)
    if image.mode != "RGB" or image.has_transparency_data:
        image = _in_strips(image)
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
    num_scans = _most_scans(image)
    if num_scans > MAX_SCANS:
        raise TooMuchWork(f"at most {MAX_SCANS} scans are accepted in a JPEG, got {num_scans} or more")


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        exif = image.info.get("exif", b"")
        _check_tags(exif if isinstance(exif, bytes) else b"")
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
