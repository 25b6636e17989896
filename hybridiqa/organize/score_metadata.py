"""Score inside of an image file, without touching pixels or other metadata: PNG text, XMP in JPEG and WebP.

A file is edited as bytes, never decoded. `embed_score` gives splices, small changes that can be taken back.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from xml.sax.saxutils import escape

from hybridiqa.organize.journal import Splice, splice_between

KEYWORD = b"hybridIQA"
NAMESPACE = b"https://huggingface.co/hybridIQA/ns/1.0/"  # a name, not an address: XML asks for one that is ours alone

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
APP0, APP1, APP2, START_OF_SCAN, END_OF_IMAGE = 0xE0, 0xE1, 0xE2, 0xDA, 0xD9
MARKERS_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
MULTI_PICTURE_HEADER = b"MPF\0"
MAX_SEGMENT_SIZE = 65_535  # its two bytes of length count themselves
WEBP_ALPHA, WEBP_XMP = 0x10, 0x04  # flags of VP8X

PACKET_START = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'  # begin and id are the standard's
PACKET_END = b'<?xpacket end="w"?>'
EMPTY_PACKET = (
    PACKET_START + b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta>' + PACKET_END
)
CLOSING_RDF = re.compile(rb"</([\w.-]+):RDF\s*>")
ABOUT = re.compile(rb"\babout\s*=\s*(\"[^\"]*\"|'[^']*')")
OUR_PREFIX = re.compile(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(NAMESPACE))


def _compile_property(prefix: bytes, name: bytes) -> re.Pattern[bytes]:
    """Return what finds a property's value, in an element as we write it or an attribute as others may rewrite it."""
    full_name = re.escape(prefix + b":" + name)
    return re.compile(rb"(?:<%b>|\b%b\s*=\s*[\"'])([^<\"']*)" % (full_name, full_name))


def _replace_values(packet: bytes, values: dict[bytes, bytes]) -> bytes:
    prefix = OUR_PREFIX.search(packet)
    for name, value in values.items():
        found = list(_compile_property(prefix[1], name).finditer(packet)) if prefix else []
        if len(found) != 1:
            raise ValueError("its XMP holds a score of hybridIQA in a form that cannot be replaced")
        packet = packet[: found[0].start(1)] + value + packet[found[0].end(1) :]
    return packet


def _add_to_packet(packet: bytes, values: dict[bytes, bytes]) -> bytes:
    """Return an XMP packet with our properties in it. Their room is taken from its padding where it has some."""
    if NAMESPACE in packet:
        return _replace_values(packet, values)
    closings = list(CLOSING_RDF.finditer(packet))
    if not closings:
        raise ValueError("its XMP is not in the form that can be added to (UTF-8, rdf:RDF)")
    rdf, place = closings[-1][1], closings[-1].start()
    about = ABOUT.search(packet)  # one packet's descriptions must all name the same subject
    properties = b"".join(b"<hybridIQA:%b>%b</hybridIQA:%b>" % (name, text, name) for name, text in values.items())
    description = b'<%b:Description %b:about=%b xmlns:hybridIQA="%b">%b</%b:Description>' % (
        *(rdf, rdf, about[1] if about else b'""', NAMESPACE, properties, rdf),
    )
    end = max(packet.rfind(b"<?xpacket end"), place)
    before_end = packet[place:end]
    padding = len(before_end) - len(before_end.rstrip())
    return packet[:place] + description + packet[place : end - min(padding, len(description))] + packet[end:]


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of every chunk up to IEND."""
    kind, end = b"", len(PNG_SIGNATURE)
    while kind != b"IEND":
        start, kind = end, data[end + 4 : end + 8]
        end = start + 12 + int.from_bytes(data[start : start + 4])
        if len(kind) < 4 or end > len(data):
            raise ValueError("a PNG that is cut off or broken")
        yield kind, start, end


def _is_our_chunk(data: bytes, start: int) -> bool:
    return data.startswith(b"tEXt" + KEYWORD + b"\0", start + 4)


def _embed_in_png(data: bytes, values: dict[bytes, bytes]) -> list[Splice]:
    chunks = list(_png_chunks(data))
    image_starts = [start for kind, start, _ in chunks if kind in (b"IDAT", b"fcTL")]
    if chunks[0][0] != b"IHDR" or b"IDAT" not in {kind for kind, _, _ in chunks}:
        raise ValueError("a PNG that is cut off or broken")
    content = b"tEXt" + KEYWORD + b"\0" + b", ".join(b"%b=%b" % pair for pair in values.items())
    chunk = (len(content) - 4).to_bytes(4) + content + zlib.crc32(content).to_bytes(4)
    ours = [(start, end) for _, start, end in chunks if _is_our_chunk(data, start)]
    if not ours:
        return [Splice(image_starts[0], b"", chunk)]
    splices = splice_between(ours[0][0], data[slice(*ours[0])], chunk)
    return splices + [Splice(start, data[start:end], b"") for start, end in ours[1:]]


def _jpeg_segments(data: bytes) -> list[tuple[int, int, int]]:
    """Return (marker, start, end) of every segment before the image itself."""
    segments: list[tuple[int, int, int]] = []
    end = 2
    while True:
        start = end
        while data[start + 1 : start + 2] == b"\xff":  # fill bytes
            start += 1
        if data[start : start + 1] != b"\xff" or len(data) < start + 4:
            raise ValueError("a JPEG that is cut off or broken")
        marker = data[start + 1]
        if marker == START_OF_SCAN:
            if data.rfind(b"\xff\xd9", start) < 0:  # END_OF_IMAGE
                raise ValueError("a JPEG that is cut off or broken")
            return segments
        has_length = marker not in MARKERS_WITHOUT_LENGTH
        end = start + 2 + (int.from_bytes(data[start + 2 : start + 4]) if has_length else 0)
        if marker in (0, END_OF_IMAGE) or end > len(data) or (has_length and end < start + 4):
            raise ValueError("a JPEG that is cut off or broken")
        segments.append((marker, start, end))


def _find_jpeg_packet(data: bytes, segments: list[tuple[int, int, int]]) -> tuple[int, int] | None:
    """Return start and end of the XMP packet, if there is one."""
    for marker, start, end in segments:
        if marker == APP1 and data.startswith(XMP_HEADER, start + 4):
            return start + 4 + len(XMP_HEADER), end
    return None


def _embed_in_jpeg(data: bytes, values: dict[bytes, bytes]) -> list[Splice]:
    segments = _jpeg_segments(data)
    packet_place = _find_jpeg_packet(data, segments)
    packet = data[slice(*packet_place)] if packet_place else EMPTY_PACKET
    new_packet = _add_to_packet(packet, values)
    size = 2 + len(XMP_HEADER) + len(new_packet)
    if size > MAX_SEGMENT_SIZE:
        raise ValueError(f"its XMP would take {size} bytes, a JPEG has room for {MAX_SEGMENT_SIZE}")
    if packet_place is None:
        place = 2
        for marker, _, end in segments:
            if marker not in (APP0, APP1):
                break
            place = end
        return [Splice(place, b"", b"\xff\xe1" + size.to_bytes(2) + XMP_HEADER + new_packet)]
    start, end = packet_place
    images = [
        place for marker, place, _ in segments if marker == APP2 and data.startswith(MULTI_PICTURE_HEADER, place + 4)
    ]
    if len(new_packet) != len(packet) and any(place < start for place in images):
        raise ValueError("its further images stand at places counted from before its XMP, which has no room left")
    length_place = start - len(XMP_HEADER) - 2
    splices = splice_between(length_place, data[length_place : length_place + 2], size.to_bytes(2))
    return splices + splice_between(start, packet, new_packet)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of every chunk of a RIFF container, `end` without the byte that makes its size even."""
    riff_end = 8 + int.from_bytes(data[4:8], "little")
    if riff_end > len(data):
        raise ValueError("a WebP that is cut off or broken")
    start = 12
    while start < riff_end:
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        end = start + 8 + size
        if end > riff_end:
            raise ValueError("a WebP that is cut off or broken")
        yield data[start : start + 4], start, end
        start = end + size % 2


def _make_extended_header(data: bytes) -> bytes:
    """Return the VP8X chunk for a WebP that has none, from the header of its only frame, with the flag for XMP set."""
    if data[12:16] == b"VP8L" and data[20:21] == b"\x2f":
        bits = int.from_bytes(data[21:25], "little")
        width, height, has_alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bits >> 28 & 1
    elif data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(data[place : place + 2], "little") & 0x3FFF for place in (26, 28))
        has_alpha = 0
    else:
        raise ValueError("a WebP that is cut off or broken")
    flags = WEBP_XMP | (WEBP_ALPHA if has_alpha else 0)
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X" + (10).to_bytes(4, "little") + flags.to_bytes(4, "little") + sizes


def _make_webp_chunk(packet: bytes) -> bytes:
    return b"XMP " + len(packet).to_bytes(4, "little") + packet + bytes(len(packet) % 2)


def _embed_in_webp(data: bytes, values: dict[bytes, bytes]) -> list[Splice]:
    chunks = list(_webp_chunks(data))
    riff_end = 8 + int.from_bytes(data[4:8], "little")
    if chunks and chunks[0][0] == b"VP8X":
        splices = splice_between(20, data[20:21], bytes([data[20] | WEBP_XMP]))
    else:
        splices = [Splice(12, b"", _make_extended_header(data))]
    packets = [(start, end) for kind, start, end in chunks if kind == b"XMP "]
    if packets:
        start, end = packets[0]
        old = data[start : min(end + (end - start) % 2, riff_end)]
        splices += splice_between(start, old, _make_webp_chunk(_add_to_packet(data[start + 8 : end], values)))
    else:
        missing_padding = bytes(riff_end % 2)
        splices.append(Splice(riff_end, b"", missing_padding + _make_webp_chunk(_add_to_packet(EMPTY_PACKET, values))))
    growth = sum(len(splice.inserted) - len(splice.removed) for splice in splices)
    new_size = riff_end - 8 + growth
    if new_size >= 2**32:
        raise ValueError("a WebP has no room for more than 4 GB")
    return splice_between(4, data[4:8], new_size.to_bytes(4, "little")) + splices


def _find_format(data: bytes) -> str | None:
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    if data.startswith(JPEG_SIGNATURE):
        return "JPEG"
    return "WebP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def embed_score(data: bytes, score: float, scorer_id: str) -> list[Splice]:
    """Return the changes that write a score into an image file; none where that very score stands there.

    PNG: one text chunk `hybridIQA`, "score=6.785, scorer=...". JPEG and WebP: the properties `score` and `scorer` of a
    namespace of our own in the XMP. A score written earlier is replaced; all other bytes stay.

    Args:
        data: the whole file.
        score: on the scorer's range; three decimals are written.
        scorer_id: of what made the score.

    Raises:
        ValueError: neither PNG nor JPEG nor WebP, or broken, or without room for it.
    """
    text = scorer_id.encode("ascii", "backslashreplace").decode()
    values = {b"score": b"%.3f" % score, b"scorer": text.encode()}
    kind = _find_format(data)
    if kind == "PNG":
        return _embed_in_png(data, values)
    values[b"scorer"] = escape(text, {'"': "&quot;", "'": "&apos;"}).encode()
    if kind == "JPEG":
        return _embed_in_jpeg(data, values)
    if kind == "WebP":
        return _embed_in_webp(data, values)
    raise ValueError("not supported: a score is embedded in PNG, JPEG and WebP")
