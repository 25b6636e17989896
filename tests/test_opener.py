"""The one opener of pictures: what it never runs, what it refuses unread, and that everything uses it."""

import ast
import io
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_picture
from nasty_inputs import encode
from PIL import Image, PngImagePlugin

from hybridiqa.dataset_formats import read_picture
from hybridiqa.decoding import decode_image
from hybridiqa.files import has_image_suffix, hash_of
from hybridiqa.gallery import make_thumbnail
from hybridiqa.loading import ROOT, hub_class
from hybridiqa.rgb import FORMATS, decode_file, load_image

MAX_SCANS = hub_class("image_bounds_hybridiqa.MAX_SCANS")
OPENER = "image_loading_hybridiqa.py"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 150 150\n%%EndComments\nshowpage\n%%EOF\n"
SECONDS = 5  # in which every refusal comes, on a machine that is busy; the attacks take minutes


def test_no_other_file_of_the_project_opens_pictures():
    """`Image.open` under any name, and Pillow's `ImageFile` classes, are for the opener alone."""
    found = []
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT)
        if place.parts[0] == "tests" or any(part.startswith(".") or part == "venv" for part in place.parts):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {"Image", "PILImage"}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in ("PIL", "PIL.Image"):
                names |= {name.asname or name.name for name in node.names if name.name == "Image"}
                found += [f"{place}:{node.lineno}" for name in node.names if name.name == "open"]
            if isinstance(node, ast.Attribute) and node.attr == "open":
                owner = ast.unparse(node.value).split(".")[-1]
                found += [f"{place}:{node.lineno}"] if owner in names else []
            if isinstance(node, ast.Attribute) and node.attr == "OPEN" and place.name != OPENER:
                found.append(f"{place}:{node.lineno}")
    assert found == []


@pytest.fixture
def ghostscript(tmp_path, monkeypatch) -> Path:
    """A program `gs`, first on the path, that leaves this file where it runs."""
    folder, ran = tmp_path / "bin", tmp_path / "ran"
    folder.mkdir()
    (folder / "gs").write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "$*" >> {ran}\nexit 1\n')
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return ran


def iptc(payload: bytes) -> bytes:
    """An IPTC picture, whose payload Pillow hands to `Image.open`."""

    def field(number: tuple[int, int], data: bytes) -> bytes:
        return b"\x1c" + bytes(number) + struct.pack(">H", len(data)) + data

    numbers = ((3, 20), b"\0\x96"), ((3, 30), b"\0\x96"), ((3, 60), b"\1\1"), ((3, 65), b"\0"), ((3, 120), b"\1")
    return b"".join(field(number, data) for number, data in numbers) + field((8, 10), payload)


DOS_EPS = b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIH", 32, len(POSTSCRIPT), 0, 0, 0, 0, 0xFFFF) + b"\0\0" + POSTSCRIPT


@pytest.mark.parametrize(
    "data", [POSTSCRIPT, DOS_EPS, iptc(POSTSCRIPT), b"\r\n" + POSTSCRIPT, b"\xef\xbb\xbf" + POSTSCRIPT]
)
def test_postscript_is_never_run_whatever_it_is_called_and_wrapped_in(ghostscript, tmp_path, data):
    for name in ("a.png", "a.eps", "a.jpg", "a.tif", "a.iim"):
        (tmp_path / name).write_bytes(data)
        for read in (load_image, read_picture):
            with pytest.raises(ValueError):
                read(tmp_path / name)
        assert make_thumbnail(tmp_path / name) == b""
    with pytest.raises(ValueError):
        load_image(data)
    assert not ghostscript.exists()


def test_a_picture_that_others_have_opened_is_not_run_either(ghostscript):
    opened = Image.open(io.BytesIO(POSTSCRIPT))
    with pytest.raises(ValueError, match=r"accepted are PNG, JPEG, .* got EPS"):
        load_image(opened)
    opened.load = lambda *_: pytest.fail("it was run")
    assert not ghostscript.exists()


def test_no_script_runs_postscript(ghostscript, tmp_path):
    folder = tmp_path / "pictures/8"
    folder.mkdir(parents=True)
    for number in range(3):
        make_picture(150, 150, seed=number).save(folder / f"{number}.png")
    for name in ("drawing.eps", "picture.png"):
        (folder / name).write_bytes(POSTSCRIPT)
    for command in (
        ["prepare_dataset.py", tmp_path / "pictures", "--output_dir", tmp_path / "out"],
        ["prepare_dataset.py", "--synthesize_artifacts", tmp_path / "pictures", "--output_dir", tmp_path / "damaged"],
    ):
        subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True)
        assert (tmp_path / "out").exists()
    assert (tmp_path / "damaged").exists() and not ghostscript.exists()


def test_a_suffix_is_of_a_picture_where_its_format_is_read():
    for name in (
        "a.png",
        "a.JPG",
        "a.jpeg",
        "a.webp",
        "a.tiff",
        "a.bmp",
        "a.gif",
        "a.heic",
        "a.avif",
        "a.psd",
        "a.jp2",
    ):
        assert has_image_suffix(name), name
    for name in (
        "a.eps",
        "a.ps",
        "a.wmf",
        "a.emf",
        "a.iim",
        "a.mpg",
        "a.h5",
        "a.hdf",
        "a.grib",
        "a.bufr",
        "a.pdf",
        "a",
    ):
        assert not has_image_suffix(name), name


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM"])
def test_what_pillow_writes_is_read(kind):
    assert kind in FORMATS
    assert load_image(encode(kind, make_picture(64, 48))).size == (64, 48)


def refusal(data: bytes) -> str:
    started = time.monotonic()
    with pytest.raises(ValueError) as refused:
        load_image(data)
    assert time.monotonic() - started < SECONDS
    return str(refused.value)


def with_scans(jpeg: bytes, number: int) -> bytes:
    """A JPEG whose last scan comes `number` times more."""
    start, end = jpeg.rindex(b"\xff\xda"), jpeg.rindex(b"\xff\xd9")
    return jpeg[:end] + jpeg[start:end] * number + jpeg[end:]


@pytest.fixture(scope="module")
def progressive() -> bytes:
    """A grey JPEG of 64 megapixels in six scans, 270 kB."""
    encoded = io.BytesIO()
    Image.new("L", (8000, 8000), 120).save(encoded, "JPEG", progressive=True, quality=50)
    return encoded.getvalue()


def test_a_jpeg_of_hundreds_of_scans_is_refused_before_it_is_decoded(progressive):
    for number in (500, 99, MAX_SCANS):
        assert f"at most {MAX_SCANS} scans are accepted in a JPEG, got 33 or more" in refusal(
            with_scans(progressive, number)
        )
    padded = progressive.replace(b"\xff\xda", b"\xff\xff\xff\xda")  # fill bytes before a marker
    assert "scans are accepted" in refusal(with_scans(padded, 500))
    junk = b"\xff\xd8\xff\xe1\x00\x06\xff\xda" + b"\0\0"  # what looks like a scan inside a segment is none
    small = encode("JPEG", make_picture(), progressive=True)
    assert load_image(junk + small[2:]).size == make_picture().size


def test_jpegs_as_encoders_write_them_are_read():
    for options in ({}, {"progressive": True}, {"progressive": True, "quality": 100, "subsampling": 0}):
        assert load_image(encode("JPEG", make_picture(500, 400), **options)).size == (500, 400)
    assert load_image(with_scans(encode("JPEG", make_picture(), progressive=True), 20)).size == make_picture().size


def test_scans_are_counted_wherever_a_jpeg_is_decoded(progressive):
    evil = with_scans(progressive, 500)
    mpo = io.BytesIO()
    make_picture().save(mpo, "MPO", save_all=True, append_images=[make_picture(seed=1)])
    assert load_image(mpo.getvalue()).size == make_picture().size
    offset = 8
    tags = [(256, 3, 1, 8000), (257, 3, 1, 8000), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(278, 3, 1, 8000), (279, 4, 1, len(evil))]
    tags.append((273, 4, 1, offset))
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    tiff = b"II*\0" + struct.pack("<I", offset + len(evil)) + evil + body
    assert "scans are accepted in a JPEG" in refusal(tiff)


def test_tags_that_point_to_the_same_bytes_again_and_again_are_refused():
    data = bytes(2**20)
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64)]
    tags += [(40_000 + number, 1, len(data), 8) for number in range(2000)]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    assert "tags may point to about as many bytes as there are" in refusal(
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + body
    )


def test_a_gif_of_many_comments_is_read_in_no_time():
    gif = encode("GIF", make_picture(64, 48))
    start = 13 + (3 << (gif[10] & 7) + 1)
    comment = b"!\xfe" + (b"\xff" + bytes(255)) * 8000 + b"\0"
    started = time.monotonic()
    assert load_image(gif[:start] + comment * 2 + gif[start:]).size == (64, 48)
    assert time.monotonic() - started < SECONDS


def test_a_packed_fits_is_refused_and_a_plain_one_is_read():
    def card(text: str) -> bytes:
        return text.ljust(80).encode()

    def block(*cards: str) -> bytes:
        data = b"".join(map(card, (*cards, "END")))
        return data + b" " * (-len(data) % 2880)

    plain = block(
        "SIMPLE  =                    T",
        "BITPIX  =                    8",
        "NAXIS   =                    2",
        "NAXIS1  =                    8",
        "NAXIS2  =                    8",
    )
    assert load_image(plain + bytes(2880)).size == (8, 8)
    packed = block("SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0")
    packed += block(
        "XTENSION= 'BINTABLE'",
        "BITPIX  =                    8",
        "NAXIS   =                    2",
        "NAXIS1  =                    8",
        "NAXIS2  =                    8",
        "ZIMAGE  =                    T",
        "ZCMPTYPE= 'GZIP_1  '",
        "ZBITPIX =                    8",
        "ZNAXIS  =                    2",
        "ZNAXIS1 =                    8",
        "ZNAXIS2 =                    8",
    )
    assert "FITS that is packed" in refusal(packed + bytes(2880)) or "FITS" in refusal(packed + bytes(2880))


def comfy_png(picture: Image.Image) -> bytes:
    """A PNG with more than 1 MB of compressed text, as image generators write their workflows."""
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", '{"node": 1}' * 200_000, zip=True)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", pnginfo=info)
    return encoded.getvalue()


def test_a_png_with_a_large_workflow_is_read_everywhere(tmp_path):
    picture = make_picture(200, 160)
    data = comfy_png(picture)
    with pytest.raises(ValueError, match="Decompressed data too large"):
        Image.open(io.BytesIO(data)).load()  # Pillow by itself
    folder = tmp_path / "pictures/8"
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"{number}.png").write_bytes(comfy_png(make_picture(200, 160, seed=number)))
    assert np.array_equal(np.asarray(load_image(data)), np.asarray(picture))
    assert read_picture(folder / "0.png").rgb.size == (200, 160) and make_thumbnail(folder / "0.png")
    for command in (
        ["prepare_dataset.py", tmp_path / "pictures", "--output_dir", tmp_path / "out"],
        ["prepare_dataset.py", "--synthesize_artifacts", tmp_path / "pictures", "--output_dir", tmp_path / "damaged"],
    ):
        done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "damaged").rglob("*.png"))) >= 4


def test_heic_is_read_everywhere(tmp_path):
    pytest.importorskip("pillow_heif")
    heic = ROOT / "tests/recorded/small.heic"
    assert read_picture(heic).rgb.size == load_image(heic).size and make_thumbnail(heic)


def test_hash_pixels_and_size_are_of_the_same_bytes_while_the_file_is_written(tmp_path):
    """In place, too: what was read of a file is what is hashed and decoded."""
    pictures = [encode("PNG", Image.new("RGB", (side, 90), (side, 0, 0))) for side in (80, 120)]
    truth = {hash_of(data): load_image(data).size for data in pictures}
    path, is_over = tmp_path / "x.png", threading.Event()
    path.write_bytes(pictures[0])

    def rewrite():
        number = 0
        while not is_over.is_set():
            number += 1
            (tmp_path / "new").write_bytes(pictures[number % 2])
            os.replace(tmp_path / "new", path)

    writer = threading.Thread(target=rewrite)
    writer.start()
    extract = hub_class("image_processing_hybridiqa.HybridIQAImageProcessor")(
        patch_size=64, num_patches=1
    ).extract_patches
    try:
        rows = [decode_image(0, "x", path, extract, frozenset()) for _ in range(100)]
    finally:
        is_over.set()
        writer.join()
    assert all(truth[row.row.content_hash] == (row.row.width, row.row.height) for row in rows)
    assert {int(row.patches[0, 0].mean()) for row in rows} <= {80, 120}
    assert all(int(row.patches[0, 0].mean()) == row.row.width for row in rows)


def test_a_file_of_more_than_a_gigabyte_is_refused_unread(tmp_path):
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(2**30 + 1)
    started = time.monotonic()
    decoded = decode_image(0, "x", tmp_path / "large.png", None, frozenset())
    assert "at most 1024 MB are accepted in a file" in decoded.row.error and time.monotonic() - started < 30


def test_metadata_that_pillow_cannot_read_leave_the_pixels_as_they_are():
    opened, rgb = decode_file(comfy_png(make_picture(60, 50)))
    assert opened.format == "PNG" and rgb.size == (60, 50)
