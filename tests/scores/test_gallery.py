"""Page of scored images: its data, what it may load, hostile names, and files that are not its own."""

import base64
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from factories import make_picture
from PIL import Image

from hybridiqa.scores.gallery import MARKER, check_gallery_path, make_thumbnail, sample_evenly, write_gallery
from hybridiqa.scores.score_file import ScoreRow
from hybridiqa.utils.files import as_text

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE_NAMES = [
    b"<!--<script>alert(1)<script>.png",
    b"\"'><img src=x onerror=alert(1)>.png",
    b"two\nlines.png",
    b"caf\xe9.png",
    b"javascript:alert(1).png",
    "部屋 é.png".encode(),
    "evil\u202egnp.png".encode(),
    b"100% #1? &amp;.png",
    b"GALLERY_DATA CONTENT_SECURITY_POLICY.png",
]


def data_of(page_path: Path) -> dict:
    [content] = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page_path.read_text(), re.DOTALL
    )
    return json.loads(content)


def thumbnail_of(image: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image["thumbnail"])))


def make_library(folder: Path, count: int, **fields) -> list[ScoreRow]:
    """Write so many small images; return their rows, whose scores rise from 1."""
    rows = []
    for index in range(count):
        make_picture(60, 40, seed=index).save(folder / f"{index}.png")
        rows.append(ScoreRow(str(folder / f"{index}.png"), score=1 + index / 10, score_std=0.5, **fields))
    return rows


def test_the_page_holds_every_scored_image_best_first(tmp_path):
    rows = make_library(tmp_path, 4, percentile=50.0, width=60, height=40)
    page = tmp_path / "page.html"
    write_gallery(rows, page)
    data = data_of(page)
    assert [image["name"] for image in data["images"]] == ["3.png", "2.png", "1.png", "0.png"]
    assert (data["num_scored"], data["num_failed"], data["failed"]) == (4, 0, [])
    first = data["images"][0] | {"thumbnail": None}
    path = tmp_path / "3.png"
    assert first == {
        "path": str(path),
        "name": "3.png",
        "uri": path.as_uri(),
        "score": 1.3,
        "std": 0.5,
        "percentile": 50.0,
        "width": 60,
        "height": 40,
        "thumbnail": None,
    }
    assert thumbnail_of(data["images"][0]).size == (60, 40)  # nothing is enlarged
    assert page.read_text().splitlines()[0] == MARKER


def test_a_page_loads_nothing_and_runs_only_its_own_script(tmp_path):
    write_gallery(make_library(tmp_path, 1), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert not re.search(r"https?:|//[a-z]+\.|<link|@import|\ssrc=", page)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: file:;")
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def make_hostile_library(folder: Path) -> list[ScoreRow]:
    rows = []
    for index, name in enumerate(HOSTILE_NAMES):
        path = os.fsdecode(os.fsencode(folder) + b"/" + name)
        make_picture(30, 30, seed=index).save(path)
        rows.append(ScoreRow(as_text(path), score=float(index)))
    (folder / "<").mkdir()  # so that a path holds a closing tag
    make_picture(30, 30).save(folder / "<" / "script>.png")
    return [*rows, ScoreRow(str(folder / "<" / "script>.png"), score=99.0), ScoreRow("</script>", error="</script>")]


def test_a_hostile_name_is_text_in_the_page_and_its_link_leads_to_the_file(tmp_path):
    rows = make_hostile_library(tmp_path)
    write_gallery(rows, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("</script>") == 2 and page.count("<!--") == 1 and "<img src=x" not in page
    data = data_of(tmp_path / "page.html")
    assert len(data["images"]) == len(HOSTILE_NAMES) + 1
    assert data["failed"] == [{"path": "</script>", "error": "</script>"}]
    for image, row in zip(data["images"], sorted(rows[:-1], key=lambda row: -row.score), strict=True):
        assert image["thumbnail"] and image["path"].isprintable()
        assert image["uri"].startswith("file:///")
        found = os.fsdecode(unquote_to_bytes(urlsplit(image["uri"]).path))
        assert as_text(found) == row.path and os.path.exists(found)


def test_thumbnails_are_upright_on_white_and_at_most_192_pixels(tmp_path):
    turned = Image.new("RGB", (600, 300), "red")
    turned.paste("blue", (0, 0, 300, 300))  # the left half, which is the upper one when it is turned
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.jpg", exif=exif)
    thumbnail = Image.open(io.BytesIO(make_thumbnail(tmp_path / "turned.jpg")))
    assert thumbnail.format == "WEBP" and thumbnail.size == (96, 192)
    upper, lower = thumbnail.getpixel((48, 20)), thumbnail.getpixel((48, 170))
    assert upper[2] > 200 > upper[0] and lower[0] > 200 > lower[2]
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert Image.open(io.BytesIO(make_thumbnail(tmp_path / "clear.png"))).getpixel((25, 25)) == (255, 255, 255)


def test_what_cannot_be_read_any_more_keeps_its_place_without_a_thumbnail(tmp_path):
    rows = make_library(tmp_path, 4)
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_bytes(b"text")
    (tmp_path / "2.png").unlink()
    os.mkfifo(tmp_path / "2.png")
    write_gallery(rows, tmp_path / "page.html")
    assert [bool(image["thumbnail"]) for image in data_of(tmp_path / "page.html")["images"]] == [True, *[False] * 3]


def test_vanished_rows_are_left_out_and_failures_are_counted_and_named(tmp_path):
    rows = make_library(tmp_path, 2)
    rows += [ScoreRow("gone.png", score=9.0, vanished=True), ScoreRow("gone too.png", error="e", vanished=True)]
    rows += [ScoreRow(f"{index}.png", error="not an image") for index in range(1500)]
    write_gallery(rows, tmp_path / "page.html")
    data = data_of(tmp_path / "page.html")
    assert (data["num_scored"], data["num_failed"], len(data["failed"])) == (2, 1500, 1000)


def test_a_page_without_images_can_be_written(tmp_path):
    write_gallery([], tmp_path / "page.html")
    assert data_of(tmp_path / "page.html")["images"] == []


def test_of_more_images_than_fit_an_even_sample_is_shown(tmp_path):
    write_gallery(make_library(tmp_path, 9), tmp_path / "page.html", max_images=3)
    data = data_of(tmp_path / "page.html")
    assert [image["name"] for image in data["images"]] == ["8.png", "4.png", "0.png"]
    assert data["num_scored"] == 9


def test_samples_are_distinct_even_and_hold_both_ends():
    rows = [ScoreRow(str(index)) for index in range(1000)]
    for count in (2, 3, 499, 999, 1000, 5000):
        sample = [int(row.path) for row in sample_evenly(rows, count)]
        assert len(sample) == min(count, 1000) == len(set(sample))
        assert (sample[0], sample[-1]) == (0, 999)
        gaps = [after - before for before, after in itertools.pairwise(sample)]
        assert max(gaps) - min(gaps) <= 1
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        sample_evenly(rows, 1)


def test_a_gallery_is_replaced_and_anything_else_is_not(tmp_path):
    rows = make_library(tmp_path, 2)
    page, mine = tmp_path / "page.html", tmp_path / "mine.html"
    write_gallery(rows, page)
    write_gallery(rows[:1], page)
    assert len(data_of(page)["images"]) == 1
    mine.write_text("<!DOCTYPE html>\n<p>mine")
    with pytest.raises(ValueError, match=r"mine\.html is there already and is not a gallery; nothing is overwritten"):
        write_gallery(rows, mine)
    assert mine.read_text() == "<!DOCTYPE html>\n<p>mine"


def test_a_run_that_ends_in_the_middle_leaves_the_page_as_it_was(tmp_path, monkeypatch):
    rows = make_library(tmp_path, 3)
    write_gallery(rows[:1], tmp_path / "page.html")
    before = (tmp_path / "page.html").read_bytes()

    def stop(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("hybridiqa.scores.gallery.make_thumbnail", stop)
    with pytest.raises(KeyboardInterrupt):
        write_gallery(rows, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("page.png", r"a gallery must end in \.html or \.htm, got"),
        ("no/such/page.html", "there is no folder"),
        ("folder.html", "is there already and is not a gallery; nothing is overwritten"),
        ("dangling.html", "leads into a folder that is not there"),
    ],
)
def test_a_path_that_cannot_be_a_gallery_is_refused_beforehand(tmp_path, name, message):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "dangling.html").symlink_to(tmp_path / "nothing" / "page.html")
    with pytest.raises(ValueError, match=message):
        check_gallery_path(tmp_path / name)
    check_gallery_path(tmp_path / "new.html")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_script_runs_in_a_browser_under_the_policy_of_the_page(tmp_path):
    rows = make_hostile_library(tmp_path)
    write_gallery(rows, tmp_path / "page.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [BROWSER, *flags, "--dump-dom", (tmp_path / "page.html").as_uri()]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert page.count("<li ") == len(HOSTILE_NAMES) + 1
    assert f"{len(HOSTILE_NAMES) + 1} images, scores 0.00 to 99.00" in page
    assert "1 without a score" in page and "<li>&lt;/script&gt;: &lt;/script&gt;</li>" in page
