"""The score in PNG, JPEG and WebP: readable, replaceable, and nothing else of the file changes."""

import io
import struct
import zlib

import pytest
from factories import make_picture
from PIL import Image, PngImagePlugin
from scored_files import read_embedded_score

from hybridiqa.organize.journal import apply_splices, reverse_splices
from hybridiqa.organize.score_metadata import _png_chunks, _webp_chunks, embed_score

SCORER = "3f2a91c0d4e5b6a7 grid-25 float32 torch"
PARAMETERS = "1girl, <lora:x:0.8>\nSteps: 20, Sampler: Euler a, Größe: 512x768"
ORIENTATION, USER_COMMENT = 0x0112, 0x9286
LIGHTROOM_PACKET = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n<rdf:Description rdf:about="uuid:1234"\n'
    b' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"><dc:x xmlns:dc="d">a prompt</dc:x></rdf:Description>\n'
    b"</rdf:RDF>\n</x:xmpmeta>\n%s<?xpacket end='w'?>"
)


def picture_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif.get_ifd(0x8769)[USER_COMMENT] = b"UNICODE\0" + PARAMETERS.encode("utf-16-be")
    return exif


def saved(kind: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("parameters", PARAMETERS)
        text.add_itxt("prompt", '{"3": {"inputs": {}}}')
        options = {"pnginfo": text} | options
    options = {"exif": picture_exif(), "icc_profile": b"a profile"} | options
    (image or make_picture(61, 40)).save(buffer, kind, **{name: value for name, value in options.items() if value})
    return buffer.getvalue()


def embedded(data: bytes, score: float = 6.7849) -> bytes:
    """The file with the score, after checks that hold for all."""
    splices = embed_score(data, score, SCORER)
    new = apply_splices(data, splices)
    assert read_embedded_score(new) == pytest.approx(score, abs=5e-4)
    assert embed_score(new, score, SCORER) == []
    assert apply_splices(new, reverse_splices(splices)) == data
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(new)) as after:
        assert getattr(after, "n_frames", 1) == getattr(before, "n_frames", 1)
        for frame in range(getattr(before, "n_frames", 1)):
            before.seek(frame)
            after.seek(frame)
            assert after.mode == before.mode and after.tobytes() == before.tobytes()
        assert after.getexif() == before.getexif()
        assert after.getexif().get_ifd(0x8769) == before.getexif().get_ifd(0x8769)
        for name in set(before.info) - {"xmp", "hybridIQA"}:
            assert after.info[name] == before.info[name]
    return new


def xmp_of(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.info["xmp"]


def with_xmp(data: bytes, packet: bytes) -> bytes:
    """A JPEG with a packet of its own after the Exif."""
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet
    place = 2 + 2 + struct.unpack(">H", data[4:6])[0] if data[2:4] == b"\xff\xe1" else 20
    return data[:place] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[place:]


def frames() -> list[Image.Image]:
    return [make_picture(61, 40, seed=seed) for seed in (1, 2)]


FILES = {
    "png": lambda: saved("PNG"),
    "png without any text": lambda: saved("PNG", pnginfo=None, exif=None, icc_profile=None),
    "png with a palette": lambda: saved("PNG", make_picture().quantize(16)),
    "animated png": lambda: saved("PNG", save_all=True, append_images=frames()),
    "jpeg": lambda: saved("JPEG"),
    "progressive grey jpeg": lambda: saved("JPEG", make_picture().convert("L"), progressive=True),
    "jpeg without any metadata": lambda: saved("JPEG", exif=None, icc_profile=None),
    "jpeg with xmp": lambda: with_xmp(saved("JPEG"), LIGHTROOM_PACKET % b""),
    "jpeg of two pictures": lambda: saved("MPO", save_all=True, append_images=frames(), icc_profile=None),
    "webp": lambda: saved("WEBP"),
    "lossy webp without metadata": lambda: saved("WEBP", exif=None, icc_profile=None),
    "lossless webp without metadata": lambda: saved("WEBP", exif=None, icc_profile=None, lossless=True),
    "webp with alpha": lambda: saved(
        "WEBP", make_picture().convert("RGBA"), exif=None, icc_profile=None, lossless=True
    ),
    "lossy webp with alpha": lambda: saved("WEBP", Image.new("RGBA", (33, 21), (9, 90, 200, 80)), icc_profile=None),
    "webp with xmp": lambda: saved("WEBP", xmp=LIGHTROOM_PACKET % b""),
    "animated webp": lambda: saved("WEBP", save_all=True, append_images=frames()),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_and_other_metadata_stay_and_the_score_is_read_back(name):
    data = FILES[name]()
    new = embedded(data)
    assert embedded(embedded(new, 10.25), 6.7849) == new  # replaced, not added again
    if "png" in name:
        with Image.open(io.BytesIO(new)) as image:
            assert image.text["hybridIQA"] == f"score=6.785, scorer={SCORER}"
    else:
        assert b">6.785<" in xmp_of(new)


@pytest.mark.parametrize("name", FILES)
def test_bytes_after_the_picture_stay(name):
    data = FILES[name]() + b"a zip, perhaps"
    if name != "jpeg of two pictures":
        assert embedded(data).endswith(b"a zip, perhaps")


def test_all_other_chunks_of_a_png_are_the_same_and_checksums_right():
    data = saved("PNG", save_all=True, append_images=frames())
    new = embedded(data)
    chunks = [new[start:end] for _, start, end in _png_chunks(new)]
    ours = [chunk for chunk in chunks if chunk[8:].startswith(b"hybridIQA")]
    assert [chunk for chunk in chunks if chunk not in ours] == [data[start:end] for _, start, end in _png_chunks(data)]
    assert len(ours) == 1 and int.from_bytes(ours[0][-4:], "big") == zlib.crc32(ours[0][4:-4])
    kinds = [chunk[4:8] for chunk in chunks]
    assert kinds.index(b"fcTL") == chunks.index(ours[0]) + 1  # before the first frame


def test_several_scores_in_one_png_become_one():
    data = embedded(saved("PNG"), 3.0)
    start, end = next((start, end) for _, start, end in _png_chunks(data) if data[start + 8 :][:9] == b"hybridIQA")
    new = apply_splices(data[:end] + data[start:], embed_score(data[:end] + data[start:], 4.0, SCORER))
    assert new.count(b"hybridIQA") == 1 and read_embedded_score(new) == 4.0


def test_properties_of_others_stay_in_the_xmp_and_the_subject_is_theirs():
    packet = xmp_of(embedded(with_xmp(saved("JPEG"), LIGHTROOM_PACKET % b"")))
    assert b'xmp:Rating="4"' in packet and b"a prompt" in packet
    assert packet.count(b'about="uuid:1234"') == 2
    assert packet.index(b"hybridIQA:score") < packet.index(b"</rdf:RDF>")


def test_the_padding_of_a_packet_gives_the_room():
    data = with_xmp(saved("JPEG"), LIGHTROOM_PACKET % (b" " * 2000))
    assert len(embedded(data)) == len(data)


def test_a_score_that_another_program_has_rewritten_as_an_attribute_is_replaced():
    rewritten = LIGHTROOM_PACKET.replace(
        b'xmp:Rating="4"',
        b'xmp:Rating="4" xmlns:q=\'https://huggingface.co/hybridIQA/ns/1.0/\' q:scorer="old" q:score="2.5"',
    )
    data = with_xmp(saved("JPEG"), rewritten % b"")
    assert read_embedded_score(data) == 2.5
    packet = xmp_of(embedded(data))
    assert b'q:score="6.785"' in packet and b'xmp:Rating="4"' in packet and b"hybridIQA:score" not in packet


def test_a_jpeg_whose_xmp_is_full_is_refused():
    packet = LIGHTROOM_PACKET % b"" + b"<!--" + b"x" * 64_950 + b"-->"
    with pytest.raises(ValueError, match="has room for 65535"):
        embed_score(with_xmp(saved("JPEG"), packet), 5.0, SCORER)


def test_the_header_of_an_extended_webp_is_right():
    picture = make_picture(301, 7).convert("RGBA")
    picture.putalpha(100)
    new = embedded(saved("WEBP", picture, lossless=True, exif=None, icc_profile=None))
    kinds = [kind for kind, _, _ in _webp_chunks(new)]
    assert kinds == [b"VP8X", b"VP8L", b"XMP "]
    assert new[20] == 0x14  # alpha and XMP
    assert int.from_bytes(new[24:27], "little") == 300 and int.from_bytes(new[27:30], "little") == 6
    assert int.from_bytes(new[4:8], "little") == len(new) - 8 and len(new) % 2 == 0


def test_a_webp_without_its_last_padding_gets_it():
    data = saved("WEBP", exif=b"Exif\0\0odd", icc_profile=None)
    if data[-1:] == b"\0" and len(data) % 2 == 0:
        data = data[:4] + struct.pack("<I", len(data) - 9) + data[8:-1]
    kinds = [kind for kind, _, _ in _webp_chunks(apply_splices(data, embed_score(data, 5.0, SCORER)))]
    assert kinds[-2:] == [b"EXIF", b"XMP "]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_broken_file_is_refused(kind):
    data = saved(kind)
    for length in (13, 30, len(data) // 2, len(data) - 3):
        with pytest.raises(ValueError, match="cut off or broken"):
            embed_score(data[:length], 5.0, SCORER)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"BM", b"\x89PNG"])
def test_other_formats_are_refused(data):
    with pytest.raises(ValueError, match="PNG, JPEG and WebP"):
        embed_score(data, 5.0, SCORER)
    assert read_embedded_score(data) is None


def test_a_packet_that_is_no_utf_8_xmp_is_refused():
    with pytest.raises(ValueError, match="can be added to"):
        embed_score(with_xmp(saved("JPEG"), "<rdf:RDF></rdf:RDF>".encode("utf-16")), 5.0, SCORER)
