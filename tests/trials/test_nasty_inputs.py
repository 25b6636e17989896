"""Everything that can go wrong with an image, through score.py: each gets its score or a clear reason."""

import importlib.util
import math
import os
import re
import sys
import tempfile

import pytest
from factories import make_picture
from PIL import AvifImagePlugin, Image, ImageFile
from trials.nasty_inputs import RECORDED, nasty_inputs, row_of, score_inputs, write_inputs

from hybridiqa.models import hub_code

NASTY_INPUTS = nasty_inputs()


@pytest.fixture(scope="module")
def scored(tmp_path_factory, tiny_checkpoint):
    """Return the folder, the exit status of score.py and its rows."""
    folder = tmp_path_factory.mktemp("nasty")
    write_inputs(folder, NASTY_INPUTS)
    return folder, *score_inputs(folder, NASTY_INPUTS, "--model", tiny_checkpoint)


def test_a_run_over_all_of_them_ends_well_with_a_row_for_each(scored):
    folder, status, rows = scored
    assert status == 1  # some had no score
    assert len(NASTY_INPUTS) >= 40
    assert all(row_of(rows, folder, nasty) for nasty in NASTY_INPUTS)


@pytest.mark.parametrize("number", range(len(NASTY_INPUTS)), ids=[nasty.name for nasty in NASTY_INPUTS])
def test_it_gets_its_score_or_the_reason(scored, number):
    folder, _, rows = scored
    nasty = NASTY_INPUTS[number]
    if nasty.package and not importlib.util.find_spec(nasty.package):
        pytest.skip(f"{nasty.package} is not installed")
    row = row_of(rows, folder, nasty)
    if nasty.reason is not None:
        assert re.search(nasty.reason, row["error"])
        assert row["score"] == ""
        return
    assert row["error"] == ""
    assert math.isfinite(float(row["score"]))
    if nasty.like is not None:
        assert row["score"] == rows[str(folder / "plain" / f"{number}.png")]["score"]
        assert (int(row["width"]), int(row["height"])) == nasty.like.size


@pytest.mark.parametrize("name", ["bomb_12000.png", "bomb_30000.png", "bomb.jpg", "bomb.gif"])
def test_nothing_of_a_bomb_is_decoded_and_nothing_is_warned_of(tmp_path, monkeypatch, recwarn, name):
    path = tmp_path / name
    next(nasty for nasty in NASTY_INPUTS if nasty.name == name).write(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    for given in (path, str(path), path.read_bytes()):
        with pytest.raises(ValueError, match=r"cannot read .*: at most 64 megapixels are accepted, got \d+ x \d+$"):
            hub_code.load_image(given)
    assert not recwarn.list


def test_an_open_pil_image_of_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("1", (8001, 8000)).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    with (
        Image.open(tmp_path / "a.png") as opened,
        pytest.raises(ValueError, match="at most 64 megapixels are accepted, got 8001 x 8000"),
    ):
        hub_code.load_image(opened)


def test_an_image_of_64_megapixels_is_read(tmp_path):
    Image.new("1", (8000, 8000)).save(tmp_path / "a.png")
    assert hub_code.load_image(tmp_path / "a.png").size == (8000, 8000)


def test_heic_needs_a_package_and_the_reason_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    with pytest.raises(ValueError, match=r"small\.heic: HEIC is read with .*: pip install pillow-heif$"):
        hub_code.load_image(RECORDED / "small.heic")


@pytest.mark.skipif(not importlib.util.find_spec("pillow_heif"), reason="pillow-heif is not installed")
def test_heic_is_read_where_its_package_is_installed():
    assert hub_code.load_image(RECORDED / "small.heic").size == (120, 80)


def test_avif_that_pillow_was_built_without_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    with pytest.raises(ValueError, match="this Pillow was built without AVIF: pip install --upgrade pillow"):
        hub_code.load_image(RECORDED / "small.avif")


def test_a_file_without_permission_is_refused_with_that_reason():
    with tempfile.NamedTemporaryFile(suffix=".png") as file:  # in a folder that every user can enter
        make_picture().save(file, "PNG")
        file.flush()
        os.chmod(file.name, 0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)  # nobody: root reads everything
            with pytest.raises(ValueError, match="Permission denied"):
                hub_code.load_image(file.name)
        finally:
            os.seteuid(user)
        os.chmod(file.name, 0o600)
        assert hub_code.load_image(file.name).size == (150, 100)
