"""Score a folder of everything that can go wrong with an image, and print what each got as a Markdown table.

    python tests/trials/nasty_inputs.py
    python tests/trials/nasty_inputs.py --model . --without_heif

Root reads files without permission, unless it gives that up:

    setpriv --bounding-set=-dac_override,-dac_read_search python tests/trials/nasty_inputs.py
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import socket
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from factories import make_picture, make_tiny_model

from hybridiqa.commands import score
from hybridiqa.utils.files import as_text

RECORDED = Path(__file__).resolve().parents[1] / "recorded"
IMAGE = make_picture(150, 100)
GREY = IMAGE.convert("L")
WHITE = Image.new("RGB", IMAGE.size, "white")
MASK = Image.fromarray(np.kron(np.eye(2), np.ones((50, 75))).astype(np.uint8) * 255)  # two corners opaque
ON_WHITE = Image.composite(IMAGE, WHITE, MASK)
UNKNOWN = "not an image that Pillow knows"
TOO_MANY = "at most 64 megapixels are accepted, got "
BROKEN = "the {} image is broken or cut short"


@dataclass(frozen=True)
class NastyInput:
    """A file to be scored.

    Args:
        name: of the file.
        write: makes it at a path.
        reason: why it gets no score, as a regular expression; none where it gets one.
        like: an image whose score it gets, where its pixels are known.
        package: without which it cannot be read.
    """

    name: str
    write: Callable[[Path], object]
    reason: str | None = None
    like: Image.Image | None = None
    package: str | None = None


def encode(kind: str, image: Image.Image = IMAGE, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def holding(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour_type: int, compressed: bytes) -> bytes:
    """Return a PNG of these rows, each of which starts with its filter, compressed by zlib."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", compressed), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def with_chunk(chunk: bytes) -> bytes:
    """Return the image as a PNG with one more chunk after its header."""
    data = encode("PNG")
    return data[:33] + chunk + data[33:]


def oriented(kind: str, orientation: int, **options) -> bytes:
    """Return the image stored so that a viewer who follows the EXIF orientation sees it upright."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition whose inverse the viewer applies
    stored = IMAGE.transpose(Image.Transpose(undo[orientation])) if orientation in undo else IMAGE
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(kind, stored, exif=exif, **options)


def orientations() -> Iterator[NastyInput]:
    for orientation in range(1, 9):
        yield NastyInput(f"orientation_{orientation}.png", holding(oriented("PNG", orientation)), like=IMAGE)
    yield NastyInput("orientation_6.webp", holding(oriented("WEBP", 6, lossless=True)), like=IMAGE)
    yield NastyInput("orientation_6.tiff", holding(oriented("TIFF", 6)), like=IMAGE)
    for orientation in (0, 9):
        yield NastyInput(f"orientation_{orientation}.png", holding(oriented("PNG", orientation)), like=IMAGE)


def transparency() -> Iterator[NastyInput]:
    rgba, grey_alpha = IMAGE.copy(), GREY.copy()
    rgba.putalpha(MASK)
    grey_alpha.putalpha(MASK)
    for kind, options in {"PNG": {}, "WEBP": {"lossless": True, "exact": True}, "TIFF": {}}.items():
        yield NastyInput(f"alpha.{kind.lower()}", holding(encode(kind, rgba, **options)), like=ON_WHITE)
    on_white = Image.composite(GREY, WHITE.convert("L"), MASK)
    yield NastyInput("grey_alpha.png", holding(encode("PNG", grey_alpha)), like=on_white)
    palette = IMAGE.quantize(40)
    is_clear = Image.fromarray((np.asarray(palette) == 7).astype(np.uint8) * 255)
    without_7 = Image.composite(WHITE, palette.convert("RGB"), is_clear)
    yield NastyInput("palette.png", holding(encode("PNG", palette)), like=palette.convert("RGB"))
    yield NastyInput("palette_index_clear.png", holding(encode("PNG", palette, transparency=7)), like=without_7)
    alphas = bytes(0 if index == 7 else 255 for index in range(40))
    yield NastyInput("palette_alpha.png", holding(encode("PNG", palette, transparency=alphas)), like=without_7)
    yield NastyInput("clear_first_frame.gif", holding(encode("GIF", palette, transparency=7)), like=without_7)
    key = (1, 2, 3)
    keyed = Image.composite(IMAGE, Image.new("RGB", IMAGE.size, key), MASK)
    yield NastyInput("rgb_colour_clear.png", holding(encode("PNG", keyed, transparency=key)), like=ON_WHITE)


def depths() -> Iterator[NastyInput]:
    grey_16, values = np.asarray(GREY).astype(np.uint16) * 257, np.asarray(GREY).astype(np.float32)
    rgb_16 = (np.asarray(IMAGE).astype(">u2") * 257).astype(">u2").reshape(100, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in rgb_16)
    black_white = IMAGE.convert("1")
    cmyk = IMAGE.convert("CMYK")
    yield NastyInput("grey.png", holding(encode("PNG", GREY)), like=GREY)
    yield NastyInput("grey_16_bit.png", holding(encode("PNG", Image.fromarray(grey_16))), like=GREY)
    yield NastyInput("grey_16_bit.tiff", holding(encode("TIFF", Image.fromarray(grey_16))), like=GREY)
    yield NastyInput("rgb_16_bit.png", holding(png(150, 100, 16, 2, zlib.compress(rows))), like=IMAGE)
    yield NastyInput("1_bit.png", holding(encode("PNG", black_white)), like=black_white)
    yield NastyInput("1_bit_fax.tiff", holding(encode("TIFF", black_white, compression="group4")), like=black_white)
    yield NastyInput("cmyk.tiff", holding(encode("TIFF", cmyk)), like=cmyk.convert("RGB"))
    cmyk_jpeg = encode("JPEG", cmyk)
    yield NastyInput("cmyk.jpg", holding(cmyk_jpeg), like=Image.open(io.BytesIO(cmyk_jpeg)).convert("RGB"))
    yield NastyInput("float_0_to_1.tiff", holding(encode("TIFF", Image.fromarray(values / 255))), like=GREY)
    yield NastyInput(
        "float_0_to_255.tiff",
        holding(encode("TIFF", Image.fromarray(values))),
        "floating point 0-1, got float32 1.* to 2",
    )
    lab = Image.frombytes("LAB", IMAGE.size, IMAGE.tobytes())
    yield NastyInput("lab.tiff", holding(encode("TIFF", lab)), package="PIL._imagingcms")


def frames_and_formats() -> Iterator[NastyInput]:
    other = Image.new("RGB", IMAGE.size, "green")
    all_frames = {"save_all": True, "append_images": [other]}
    palette = IMAGE.quantize(256)
    first = palette.convert("RGB")
    yield NastyInput("animated.gif", holding(encode("GIF", palette, **all_frames)), like=first)
    yield NastyInput("animated.webp", holding(encode("WEBP", lossless=True, **all_frames)), like=IMAGE)
    yield NastyInput("animated.png", holding(encode("PNG", **all_frames)), like=IMAGE)
    yield NastyInput("two_pages.tiff", holding(encode("TIFF", **all_frames)), like=IMAGE)
    yield NastyInput("two_views.mpo", holding(encode("MPO", **all_frames)))
    yield NastyInput("icon.ico", holding(encode("ICO", sizes=[(32, 32), (150, 100)])))
    yield NastyInput("progressive.jpg", holding(encode("JPEG", progressive=True)))
    planes = np.asarray(IMAGE).transpose(2, 0, 1).tobytes()
    header = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 100, 150, 8, 3) + bytes(12) + struct.pack(">H", 0)
    yield NastyInput("photoshop.psd", holding(header + planes), like=IMAGE)
    for kind in ("bmp", "ppm", "tga", "qoi"):
        yield NastyInput(f"plain.{kind}", holding(encode(kind.upper())), like=IMAGE)
    yield NastyInput("phone.heic", holding((RECORDED / "small.heic").read_bytes()), package="pillow_heif")
    yield NastyInput("small.avif", holding((RECORDED / "small.avif").read_bytes()), package="PIL._avif")


def truncated() -> Iterator[NastyInput]:
    jpeg, whole_png, webp, gif = encode("JPEG"), encode("PNG"), encode("WEBP", lossless=True), encode("GIF")
    yield NastyInput("jpeg_header_only.jpg", holding(jpeg[:20]), BROKEN.format("JPEG"))
    yield NastyInput("jpeg_half.jpg", holding(jpeg[: len(jpeg) // 2]), "truncated")
    yield NastyInput("jpeg_last_bytes.jpg", holding(jpeg[:-20]), "truncated")
    yield NastyInput("png_header_only.png", holding(whole_png[:20]), BROKEN.format("PNG"))
    yield NastyInput("png_half.png", holding(whole_png[: len(whole_png) // 2]), "truncated")
    yield NastyInput("png_without_its_end.png", holding(whole_png[:-12]), like=IMAGE)  # all pixels are there
    yield NastyInput("webp_header_only.webp", holding(webp[:20]), BROKEN.format("WEBP"))
    yield NastyInput("webp_half.webp", holding(webp[: len(webp) // 2]), BROKEN.format("WEBP"))
    yield NastyInput("webp_last_bytes.webp", holding(webp[:-20]), BROKEN.format("WEBP"))
    yield NastyInput("gif_half.gif", holding(gif[: len(gif) // 2]), "truncated")
    garbled = bytearray(whole_png)
    garbled[len(garbled) // 2 : len(garbled) // 2 + 100] = bytes(100)
    yield NastyInput("png_garbled.png", holding(bytes(garbled)), "unrecognized data stream")


def _write_bomb(path: Path, side: int) -> None:
    """Write a few kilobytes of PNG that are a black square of that many pixels a side."""
    rows = zlib.compressobj()
    data = b"".join(rows.compress(bytes(side // 8 + 1)) for _ in range(side)) + rows.flush()
    path.write_bytes(png(side, side, 1, 0, data))


def sizes() -> Iterator[NastyInput]:
    for width, height in ((1, 1), (1, 300), (300, 1), (30_000, 100), (100, 20_000)):
        resized = IMAGE.resize((width, height))
        yield NastyInput(f"{width}_x_{height}.png", partial(resized.save, compress_level=1), like=resized)
    yield NastyInput("1_x_100000.png", Image.new("RGB", (1, 100_000)).save, "at most 64 megapixels are accepted when")
    for side in (12_000, 30_000):  # the smaller is one that Pillow decodes
        yield NastyInput(f"bomb_{side}.png", partial(_write_bomb, side=side), f"{TOO_MANY}{side} x {side}")
    jpeg, gif = encode("JPEG"), encode("GIF")
    start = jpeg.index(b"\xff\xc0") + 5  # of its height and width
    claims = jpeg[:start] + struct.pack(">HH", 65_500, 65_500) + jpeg[start + 4 :]
    yield NastyInput("bomb.jpg", holding(claims), TOO_MANY + "65500 x 65500")
    yield NastyInput("bomb.gif", holding(gif[:6] + b"\xff\xff\xff\xff" + gif[10:]), TOO_MANY + "65535 x 65535")


def metadata() -> Iterator[NastyInput]:
    jpeg = encode("JPEG")
    same = Image.open(io.BytesIO(jpeg)).convert("RGB")
    points_nowhere = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    for name, options in {
        "exif_garbage": {"exif": b"Exif\0\0garbage"},
        "exif_points_nowhere": {"exif": points_nowhere},
        "icc_garbage": {"icc_profile": b"garbage"},
        "xmp_garbage": {"xmp": b'\xff\xfe tiff:Orientation="9"'},
    }.items():
        yield NastyInput(f"{name}.jpg", holding(encode("JPEG", **options)), like=same)
    webp = encode("WEBP", lossless=True, exif=b"garbage", icc_profile=b"garbage")
    yield NastyInput("exif_and_icc_garbage.webp", holding(webp), like=IMAGE)
    huge_text = b"workflow\0\0" + zlib.compress(bytes(3_000_000))
    for name, chunk in {
        "exif_garbage": png_chunk(b"eXIf", b"garbage"),
        "icc_garbage": png_chunk(b"iCCP", b"garbage"),
        "wrong_checksum": png_chunk(b"tEXt", b"parameters\0masterpiece")[:-4] + bytes(4),
        "3_megabytes_of_text": png_chunk(b"zTXt", huge_text),
        "resolution_cut_short": png_chunk(b"pHYs", b"xy"),
    }.items():
        yield NastyInput(f"{name}.png", holding(with_chunk(chunk)), like=IMAGE)


def not_images() -> Iterator[NastyInput]:
    yield NastyInput("zero_bytes.png", holding(b""), "the file is empty")
    yield NastyInput("text.png", holding(b"masterpiece, best quality"), UNKNOWN)
    page = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>"
    yield NastyInput("web_page.jpg", holding(page), f"{UNKNOWN}, but a web page")
    drawing = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
    yield NastyInput("drawing.svg.png", holding(drawing), f"{UNKNOWN}, but an SVG drawing")
    yield NastyInput(
        "program.eps",
        holding(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
        f"{UNKNOWN}, but a PostScript",
    )
    yield NastyInput("document.png", holding(encode("PDF")), f"{UNKNOWN}, but a PDF")
    noise = np.random.default_rng(0).bytes(5000)
    yield NastyInput("noise.jpg", holding(noise), UNKNOWN)
    yield NastyInput("png_in_truth.jpg", holding(encode("PNG")), like=IMAGE)
    yield NastyInput("no_suffix", holding(encode("PNG")), like=IMAGE)


def names() -> Iterator[NastyInput]:
    plain = holding(encode("PNG"))
    strange = (
        os.fsdecode(b"not_utf_8_\xff\xe9.png"),
        "line\nbreak.png",
        'quote", comma.png',
        "-rf.png",
        "\\xff.png",
        "ünïcödé 画像 🎨.png",
        "n" * 251 + ".png",
    )
    for name in strange:
        yield NastyInput(name, plain, like=IMAGE)


def _write_inside(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    IMAGE.save(folder / "inside.png")


def _write_unreadable(path: Path) -> None:
    IMAGE.save(path)
    path.chmod(0)


def _permissions_bind() -> bool:
    """Return whether this user is refused a file without permission: root is not."""
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0)
        return not os.access(file.name, os.R_OK)


def _write_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # the length of its path is limited
        server.bind(path.name)


def special_files() -> Iterator[NastyInput]:
    yield NastyInput("folder.png/inside.png", lambda path: _write_inside(path.parent), like=IMAGE)
    expected = {"reason": "Permission denied"} if _permissions_bind() else {"like": IMAGE}
    yield NastyInput("no_permission.png", _write_unreadable, **expected)
    yield NastyInput("link_to_an_image.png", lambda path: path.symlink_to("grey.png"), like=GREY)
    nowhere = "no such file, or a link that leads nowhere"
    yield NastyInput("broken_link.png", lambda path: path.symlink_to("not_there.png"), nowhere)
    yield NastyInput("link_loop.png", lambda path: path.symlink_to("link_loop.png"), nowhere)
    yield NastyInput("endless.png", lambda path: path.symlink_to("/dev/zero"), "not a regular file")
    yield NastyInput("pipe.png", os.mkfifo, "not a regular file")
    yield NastyInput("socket.png", _write_socket, "not a regular file")


GROUPS = (
    orientations,
    transparency,
    depths,
    frames_and_formats,
    truncated,
    sizes,
    metadata,
    not_images,
    names,
    special_files,
)


def nasty_inputs() -> list[NastyInput]:
    """Return all of them, each under a name of its own."""
    return [nasty for group in GROUPS for nasty in group()]


def write_inputs(folder: Path, inputs: list[NastyInput]) -> None:
    """Make `folder/nasty` with all inputs, and `folder/plain` with a plain PNG of each one's pixels, by its number."""
    (folder / "nasty").mkdir()
    (folder / "plain").mkdir()
    for number, nasty in enumerate(inputs):
        nasty.write(folder / "nasty" / nasty.name)
        if nasty.like is not None:
            nasty.like.convert("RGB").save(folder / "plain" / f"{number}.png")


def score_inputs(folder: Path, inputs: list[NastyInput], *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Score what `write_inputs` made: the exit status of score.py, and its rows by path."""
    output_path = folder / "scores.csv"
    named = [str(folder / "nasty" / nasty.name) for nasty in inputs]  # a folder shows no other suffixes
    given = [str(folder / "nasty"), str(folder / "plain"), *named]
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        status = score.main([*given, "--output", str(output_path), *options])
    with open(output_path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["path"] for row in rows})
    return status, {row["path"]: row for row in rows}


def row_of(rows: dict[str, dict[str, str]], folder: Path, nasty: NastyInput) -> dict[str, str]:
    return rows[as_text(folder / "nasty" / nasty.name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: a tiny one")
    parser.add_argument("--without_heif", action="store_true", help="as if pillow-heif were not installed")
    args = parser.parse_args()
    if args.without_heif:
        sys.modules["pillow_heif"] = None
    inputs = nasty_inputs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, inputs)
        if args.model is None:
            make_tiny_model().save_pretrained(folder / "tiny")
        status, rows = score_inputs(folder, inputs, "--model", args.model or str(folder / "tiny"))
        print("| input | score, or why it has none |\n|---|---|")
        for nasty in inputs:
            row = row_of(rows, folder, nasty)
            shown = as_text(nasty.name).replace("\n", "\\n").replace("n" * 251, "n ... n")
            print(f"| `{shown}` | {row['error'] or format(float(row['score']), '.4f')} |")
    print(f"\n{len(inputs)} inputs, exit status {status}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
