"""Opener of images, the only one: which formats it takes, how far it decodes, and that nothing else opens any."""

import ast
import io
import os
import struct
import subprocess
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image
from factories import hub_object, make_picture
from fakes.fresh_python import run_fresh
from PIL import Image as PILImage

from hybridiqa.data.building import image_bytes
from hybridiqa.data.folders import NOT_AN_IMAGE, read_image, read_labelled_folder
from hybridiqa.data.loading import dataset_on_device, load_resident
from hybridiqa.distortions.synthesis import read_clean
from hybridiqa.distortions.trained import recompress
from hybridiqa.inference.decoding import decode_image
from hybridiqa.models import hub_code
from hybridiqa.scores.gallery import make_thumbnail
from hybridiqa.utils.files import content_hash, has_image_suffix
from hybridiqa.utils.root import ROOT

OPENER = "image_loading_hybridiqa.py"
MAX_SCANS = hub_object("image_bounds_hybridiqa.MAX_SCANS")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 150 150\n%%EndComments\nshowpage\n%%EOF\n"
DOS_EPS = b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + bytes(20) + EPS
IPTC = (
    b"".join(
        b"\x1c\3" + bytes([field]) + struct.pack(">H", len(data)) + data
        for field, data in ((60, b"\1\0"), (20, b"\0\x96"), (30, b"\0\x96"), (120, b"\5"))
    )
    + b"\x1c\x08\x0a"
    + struct.pack(">H", len(EPS))
    + EPS
)
PLACEABLE_WMF = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<4hH", 0, 0, 150, 150, 96) + bytes(6) + b"\1\0\t\0" + bytes(50)
PROGRAMS = {"eps": EPS, "dos_eps": DOS_EPS, "iptc": IPTC, "wmf": PLACEABLE_WMF}
HUGE_TEXT = b"workflow\0\0" + zlib.compress(bytes(3_000_000))


def encode(kind: str, image: PILImage.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    (image or make_picture(150, 100)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_huge_text(png: bytes, is_last: bool = False) -> bytes:
    """Return the PNG with 3 MB of text behind its header, or before its end."""
    chunk = struct.pack(">I", len(HUGE_TEXT)) + b"zTXt" + HUGE_TEXT
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + HUGE_TEXT))
    place = len(png) - 12 if is_last else 33
    return png[:place] + chunk + png[place:]


def with_scans(num_scans: int, size: int = 64) -> bytes:
    """Make a progressive grey JPEG of so many scans: its last one again and again."""
    jpeg = encode("JPEG", make_picture(size, size).convert("L"), progressive=True)
    starts = [index for index in range(len(jpeg)) if jpeg.startswith(b"\xff\xda", index)]
    last = jpeg[starts[-1] : -2]
    return jpeg[:-2] + last * (num_scans - len(starts)) + jpeg[-2:]


def tiff_of(data: bytes, compression: int, size: int, extra: tuple[tuple[int, int, int, int], ...] = ()) -> bytes:
    """Make a grey TIFF of one strip; `extra` are tags: number, type, count, value or offset (8: of the strip)."""
    tags = [(256, 4, 1, size), (257, 4, 1, size), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, size), (279, 4, 1, len(data)), *extra]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.fixture
def ghostscript(tmp_path, monkeypatch) -> Path:
    """Put a program in Ghostscript's place that leaves a file where it is run."""
    (tmp_path / "bin").mkdir()
    program, ran = tmp_path / "bin" / "gs", tmp_path / "ran"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "$*" >> {ran}\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # looked for anew
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_windows_binary", None)
    return ran


def opens_images(tree: ast.AST) -> list[int]:
    """Return lines that use Pillow's `Image.open`, whatever `Image` is called there."""
    names = {"Image", "PILImage"}
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "PIL":
            names |= {alias.asname or alias.name for alias in node.names if alias.name == "Image"}
        if isinstance(node, ast.Import):
            names |= {alias.asname for alias in node.names if alias.name == "PIL.Image" and alias.asname}
        if isinstance(node, ast.ImportFrom) and node.module == "PIL.Image":
            lines += [node.lineno for alias in node.names if alias.name in ("open", "*")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "open":
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", None)
            lines += [node.lineno] if owner in names else []
    return lines


def test_nothing_but_the_opener_opens_images():
    sources = [path for path in ROOT.rglob("*.py") if not {"tests", ".venv", "venv"} & set(path.parts[:-1])]
    assert len(sources) > 80
    found = {path.relative_to(ROOT).as_posix(): opens_images(ast.parse(path.read_text("utf-8"))) for path in sources}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "from PIL import Image\nImage.open(x)",
        "import PIL.Image\nPIL.Image.open(x)",
        "from PIL import Image as Photo\nwith Photo.open(x) as y: pass",
        "import PIL.Image as P\nmap(P.open, x)",
        "from PIL.Image import open as read",
    ],
)
def test_every_way_to_open_an_image_is_found(code):
    assert opens_images(ast.parse(code)) == [2 if "\n" in code else 1]


def test_opener_and_suffixes_go_by_one_list():
    PILImage.init()
    for suffix, kind in PILImage.registered_extensions().items():
        assert has_image_suffix(f"a{suffix}") == (kind in hub_code.FORMATS), suffix
    never = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC", "FPX", "MIC"}
    assert not never & set(hub_code.FORMATS)
    assert set(PILImage.OPEN) <= set(hub_code.FORMATS) | never  # else a new Pillow has a format that was not looked at


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_never_run_whatever_they_are_called(tmp_path, ghostscript, name):
    for suffix in (".png", ".eps", ".iim", ".jpg", ""):
        path = tmp_path / f"image{suffix}"
        path.write_bytes(PROGRAMS[name])
        for read in (hub_code.load_image, lambda path: read_clean(path, None)):
            with pytest.raises(ValueError):
                read(path)
        assert make_thumbnail(path) == b""
        with pytest.raises(ValueError, match=NOT_AN_IMAGE if not has_image_suffix(path) else "in spite of its suffix"):
            read_image(path)
        with pytest.raises(hub_code.UnknownFormat), open(path, "rb") as file:
            hub_code.open_image(file)
    assert not ghostscript.exists()


@pytest.mark.parametrize("name", ["eps", "dos_eps", "iptc"])
def test_an_image_that_a_caller_opened_lazily_is_refused_by_its_format(ghostscript, name):
    lazy = PILImage.open(io.BytesIO(PROGRAMS[name]))
    with pytest.raises(ValueError, match=f"accepted are PNG, JPEG, .* got {lazy.format}"):
        hub_code.load_image(lazy)
    assert not ghostscript.exists()
    with pytest.raises(subprocess.CalledProcessError):
        lazy.load()
    assert ghostscript.exists()  # where Pillow is left to itself
    assert hub_code.load_image(PILImage.open(io.BytesIO(encode("PNG")))).size == (150, 100)
    drawn = make_picture(150, 100)
    drawn.format = "EPS"  # decoded already, by whom it may concern
    assert hub_code.load_image(drawn).size == (150, 100)


def test_programs_in_a_dataset_are_not_run_either(ghostscript):
    features = Features({"image": Image()})
    dataset = Dataset.from_dict({"image": [{"bytes": EPS, "path": "image.png"}]}, features=features)
    for read in (lambda rows: load_resident(rows, "cpu"), lambda rows: dataset_on_device(rows, "cpu")[0]):
        with pytest.raises(ValueError, match="a PostScript program"):
            read(dataset)
    assert not ghostscript.exists()


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(monkeypatch):
    assert hub_code.load_image(with_scans(MAX_SCANS)).size == (64, 64)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    for data in (with_scans(MAX_SCANS + 1), with_scans(500), b"\xff\xd8" + b"\xff" * 9 + with_scans(33)[2:]):
        with pytest.raises(ValueError, match="at most 32 scans are accepted in a JPEG, got 33 or more"):
            hub_code.load_image(data)
        with pytest.raises(ValueError, match="at most 32 scans"):
            hub_code.load_image(PILImage.open(io.BytesIO(data)))


def test_scans_count_where_another_format_holds_the_jpeg():
    for num_scans, is_accepted in ((MAX_SCANS, True), (MAX_SCANS + 1, False)):
        jpeg = with_scans(num_scans)
        header = b"BLP1" + struct.pack("<iIIIii", 0, 0, 64, 64, 5, 0)
        blp = header + struct.pack("<32I", 160, *[0] * 15, len(jpeg), *[0] * 15) + struct.pack("<I", 0) + jpeg
        for data in (tiff_of(jpeg, 7, 64), blp):
            if is_accepted:
                assert hub_code.open_image(io.BytesIO(data)).size == (64, 64)
                continue
            with pytest.raises(ValueError, match="at most 32 scans"):
                hub_code.load_image(data)
    assert hub_code.load_image(tiff_of(with_scans(MAX_SCANS), 7, 64)).size == (64, 64)


def test_what_does_not_cost_scans_does_not_count():
    thumbnail = with_scans(40)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail  # in a segment, which the decoder skips
    for jpeg in (encode("JPEG", exif=exif), encode("JPEG", progressive=True, exif=exif), encode("JPEG") + thumbnail):
        assert hub_code.load_image(jpeg).size == (150, 100)
    frames = [make_picture(150, 100, seed=seed) for seed in range(5)]
    album = encode("MPO", save_all=True, append_images=frames, progressive=True)  # 60 scans, of which one image has 10
    assert hub_code.load_image(album).size == (150, 100)


def test_tags_that_share_their_bytes_are_refused_before_they_are_read(tmp_path):
    shared = bytes(100_000)
    tags = tuple((1000 + number, 1, len(shared), 8) for number in range(3000))
    tiff = tiff_of(shared, 1, 8, tags)
    for data in (tiff, encode("AVIF", exif=b"Exif\0\0" + tiff)):
        with pytest.raises(ValueError, match="tags may point to about as many bytes as there are"):
            hub_code.load_image(data)
    exif = b"Exif\0\0" + tiff  # metadata that can be left aside
    assert (
        hub_code.load_image(encode("WEBP", exif=exif)).size
        == hub_code.load_image(encode("PNG", exif=exif)).size
        == (150, 100)
    )
    few = tuple((1000 + number, 1, 40, 8) for number in range(30))
    assert hub_code.load_image(tiff_of(bytes(64), 1, 8, few)).size == (8, 8)


def test_comments_take_no_time_and_change_nothing():
    gif = encode("GIF", make_picture(50, 40).quantize(256))
    start = 13 + 768
    commented = gif[:start] + b"\x21\xfe" + b"\1x" * 2_000_000 + b"\0" + gif[start:]
    assert np.array_equal(hub_code.load_image(commented), hub_code.load_image(gif))
    numbers = b"1 2 3 4 5 6 7 8 9 10 11 12"
    plain, noted = b"P3 2 2 255 " + numbers, b"P3 2 2 255 " + b"#\n" * 1_500_000 + numbers
    assert np.array_equal(hub_code.load_image(noted), hub_code.load_image(plain))


def test_a_jpeg_2000_of_tiny_blocks_is_refused_and_common_ones_are_not():
    image = PILImage.new("L", (4096, 4096))
    precincts = {"codeblock_size": (16, 16), "precinct_size": (16, 16), "num_resolutions": 2}
    for options, message in (({}, "at most 1048576 blocks are accepted in a JPEG 2000, got 13"), (precincts, "blocks")):
        data = bytearray(encode("JPEG2000", image, **options))
        sides = data.index(b"\xff\x52") + 10  # of the blocks, as powers of two above 4
        data[sides : sides + 2] = b"\0\0"  # to encode blocks of 4 takes seconds
        with pytest.raises(ValueError, match=message):
            hub_code.load_image(bytes(data))
    for options in ({}, {"tile_size": (256, 256)}, {"codeblock_size": (32, 32), "precinct_size": (256, 256)}):
        assert hub_code.load_image(encode("JPEG2000", image, **options)).size == image.size
    assert hub_code.load_image(encode("JPEG2000", make_picture(90, 60), codeblock_size=(4, 4))).size == (90, 60)


def test_a_packed_fits_is_refused_and_a_plain_one_is_read():
    def fits(*cards: str, data: bytes) -> bytes:
        header = "".join(card.ljust(80) for card in (*cards, "END"))
        return header.ljust(2880).encode() + data

    axes = ["NAXIS   = 2", "NAXIS1  = 8", "NAXIS2  = 8"]
    plain = fits("SIMPLE  =                    T", "BITPIX  = 8", *axes, data=bytes(64))
    assert hub_code.load_image(plain).size == (8, 8)
    table = ["XTENSION= 'BINTABLE'", "BITPIX  = 8", *axes, "ZIMAGE  = T", "ZCMPTYPE= 'GZIP_1  '", "ZBITPIX = 8"]
    table += ["ZNAXIS  = 2", "ZNAXIS1 = 8", "ZNAXIS2 = 8"]
    packed = fits("SIMPLE  =                    T", "BITPIX  = 8", "NAXIS   = 0", data=fits(*table, data=bytes(200)))
    with pytest.raises(ValueError, match="got FITS that is packed"):
        hub_code.load_image(packed)


@pytest.mark.parametrize("is_last", [False, True])
def test_a_png_with_megabytes_of_text_is_an_image_everywhere(tmp_path, is_last):
    plain = encode("PNG")
    path = tmp_path / "workflow.png"
    path.write_bytes(with_huge_text(plain, is_last))
    expected = np.asarray(hub_code.load_image(plain))
    assert np.array_equal(hub_code.load_image(path), expected)
    assert np.array_equal(read_image(path).rgb, expected)
    assert np.array_equal(read_clean(path, None), expected)
    assert hub_code.upright_size(path.read_bytes()) == (150, 100)
    assert PILImage.open(io.BytesIO(make_thumbnail(path))).size == (150, 100)
    [record] = read_labelled_folder(tmp_path, lambda _: (5.0, "5"), str, 1).records
    kept = image_bytes(record)
    with PILImage.open(io.BytesIO(kept)) as opened:  # as datasets does
        assert np.array_equal(opened.convert("RGB"), expected)
    dataset = Dataset.from_dict({"image": [{"bytes": path.read_bytes(), "path": None}]}, Features({"image": Image()}))
    assert np.array_equal(load_resident(dataset, "cpu")[0].permute(1, 2, 0).numpy(), expected)


def test_a_draft_is_decoded_at_a_fraction_and_says_what_was_opened():
    opened, rgb = hub_code.decode_file(encode("JPEG", make_picture(1600, 1200)), draft_size=200)
    assert (opened.format, rgb.mode) == ("JPEG", "RGB") and rgb.width < 1600
    assert hub_code.decode_file(encode("PNG", make_picture(90, 60).quantize(16)))[0].mode == "P"


def test_what_a_codec_gives_back_is_rgb():
    image = make_picture(90, 60)
    assert np.array_equal(recompress(image, format="PNG"), image)


def test_a_file_is_read_once_within_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(encode("PNG"))
    assert hub_code.read_file(path) == path.read_bytes()
    os.mkfifo(tmp_path / "pipe.png")
    for read in (hub_code.read_file, hub_code.load_image):
        with pytest.raises(ValueError, match="not a regular file"):
            read(tmp_path / "pipe.png")
    monkeypatch.setitem(hub_code.read_file.__globals__, "MAX_FILE_BYTES", 2**20)
    with open(path, "ab") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(ValueError, match="at most 1 MB are accepted in a file, got more"):
        hub_code.load_image(path)


def test_hash_pixels_and_size_are_of_the_same_bytes_while_a_file_is_rewritten(tmp_path):
    path, contents = tmp_path / "x.png", {}
    for side, grey in ((300, 10), (200, 240)):
        data = encode("PNG", PILImage.new("RGB", (side, side), (grey,) * 3), compress_level=0)
        (tmp_path / f"{side}.png").write_bytes(data)
        contents[content_hash(tmp_path / f"{side}.png")] = (side, grey)
    is_over = threading.Event()

    def rewrite() -> None:
        while not is_over.is_set():
            for side in (300, 200):
                (tmp_path / "new").write_bytes((tmp_path / f"{side}.png").read_bytes())
                os.replace(tmp_path / "new", path)

    def extract_first(image: PILImage.Image) -> torch.Tensor:
        return torch.tensor(image.getpixel((0, 0))[0])

    path.write_bytes((tmp_path / "300.png").read_bytes())
    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        decoded = [decode_image(0, "x", path, extract_first, frozenset()) for _ in range(100)]
    finally:
        is_over.set()
        thread.join()
    for image in decoded:
        assert contents[image.row.content_hash] == (image.row.width, int(image.patches))


def test_an_image_that_changed_while_it_was_prepared_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode("PNG"))
    [record] = read_labelled_folder(tmp_path, lambda _: (5.0, "5"), str, 1).records
    assert image_bytes(record) == path.read_bytes()
    path.write_bytes(encode("PNG", make_picture(20, 30)))
    with pytest.raises(ValueError, match=r"a\.png was changed while it was prepared"):
        image_bytes(record)


def test_no_script_runs_a_program_that_is_called_an_image(ghostscript, tmp_path):
    folder = tmp_path / "images/8"
    folder.mkdir(parents=True)
    for number in range(3):
        make_picture(150, 150, seed=number).save(folder / f"{number}.png")
    for name in ("drawing.eps", "image.png"):
        (folder / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 150 150\n%%EndComments\nshowpage\n")
    for output, source in (("out", []), ("damaged", ["--synthesize_artifacts"])):
        command = ["prepare_dataset.py", *source, tmp_path / "images", "--output_dir", tmp_path / output]
        done = run_fresh(command, os.environ, ROOT)
        assert (tmp_path / output).exists(), done.stderr  # with status 1 for the two that are no images
    assert not ghostscript.exists()
