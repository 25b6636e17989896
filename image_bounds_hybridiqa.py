"""Image files that would take a decoder out of proportion to their size, told by their headers before decoding.

Each bound has a file behind it: of some hundred kilobytes, and minutes of work in Pillow.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

from PIL import ImageFile

MAX_CODE_BLOCKS = 2**20  # of a JPEG 2000: of 64 x 64 pixels, as encoders write, 64 megapixels of RGB have 47,000
MAX_SCANS = 32  # of a JPEG: encoders write about 10, and the decoder goes through all pixels for each of them
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # what compressed pixels do not hold
JPEG_SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
FRAME_MARKERS = (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
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


class TooMuchWork(ValueError):
    """Image that would take the decoder out of proportion to its file."""


def remove_traps(kind: str, file: BinaryIO) -> BinaryIO:
    """Return the file from its start, such that opening and decoding it takes no time out of proportion to it.

    Raises:
        TooMuchWork: it would.
    """
    file.seek(0)
    data = file.read() if kind in ("GIF", "PPM", "TIFF", "JPEG", "AVIF", "JPEG2000", "ICNS") else b""
    if kind == "GIF":
        return io.BytesIO(_drop_comments(data))
    if kind == "PPM" and data[:2] in (b"P1", b"P2", b"P3"):  # numbers as text; Pillow copies all for each comment
        return io.BytesIO(PPM_COMMENT.sub(b"", data))
    if kind == "TIFF":
        check_tags(data)
    elif kind == "JPEG":
        check_tags(_read_jpeg_exif(data))
    elif kind == "AVIF":
        for match in TIFF_HEADER.finditer(data):  # of its EXIF, wherever that lies
            check_tags(data[match.start() :])
    elif kind in ("JPEG2000", "ICNS"):  # the latter may hold the former
        for match in JPEG2000_START.finditer(data):
            _check_code_blocks(data, match.start())
    file.seek(0)
    return file


def _drop_comments(gif: bytes) -> bytes:
    """Return a GIF without comments before its first image: for each piece of them Pillow copies all pieces before."""
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


def check_tags(data: bytes) -> None:
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
    """Check the code blocks of a JPEG 2000 whose stream starts there.

    Raises:
        TooMuchWork: its pixels lie in more than a million blocks.
    """
    width, height, num_components = struct.unpack_from(">II24xH", data, start + 8)
    for marker, content in _jpeg2000_segments(data, start + 2):
        place = 0 if marker == COD else 1 + (num_components > 256)  # after the number of a single component
        has_precincts = content[place] & 1
        levels, x, y, _, _, *precincts = content[place + 5 if marker == COD else place + 1 :]
        # No block is larger than its precinct, which by default is as large as can be.
        sides = [(size & 15, size >> 4) for size in precincts] if has_precincts else [(15, 15)] * (levels + 1)
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


def _read_jpeg_exif(jpeg: bytes) -> bytes:
    """Return the EXIF of a JPEG, which may come in several segments."""
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


def _count_scans(data: bytes, start: int) -> int:
    """Count the scans that the decoder of a JPEG goes through, to one more than are accepted."""
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


def count_scans(image: ImageFile.ImageFile) -> int:
    """Count the scans of an image that is not decoded yet: the most of any JPEG in it, 0 where there is none."""
    is_tiff = image.format == "TIFF" and image.info.get("compression") == "jpeg"
    if image.format not in ("JPEG", "MPO", "BLP") and not is_tiff:
        return 0
    image.fp.seek(0)
    data = image.fp.read()
    if image.format == "BLP":  # its header, elsewhere, belongs to every JPEG
        return sum(1 for _ in JPEG_SCAN.finditer(data))
    if is_tiff:
        starts = next((image.tag_v2[tag] for tag in TIFF_OFFSETS if tag in image.tag_v2), ())
        return max((_count_scans(data, start) for start in set(starts)), default=0)
    return _count_scans(data, image.tile[0][2])
