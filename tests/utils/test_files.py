"""Zips, new folders, and what is an image by its name."""

import os
import zipfile

import pytest
from factories import write_zip

from hybridiqa.utils import files
from hybridiqa.utils.atomic import new_folder
from hybridiqa.utils.files import MAX_FOLDERS, error_reason, extract_zip, has_image_suffix, walk_files


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "4/../../evil.png", "..\\evil.png", "C:\\evil.png"])
def test_a_zip_that_leads_out_of_its_folder_is_refused_whole(tmp_path, name):
    archive = write_zip(tmp_path / "a.zip", ("4/good.png", b"x"), (name, b"x"))
    with pytest.raises(ValueError, match="leads out of the folder"):
        extract_zip(archive, tmp_path / "target")
    assert not list((tmp_path / "target").iterdir())


def test_links_bombs_and_broken_zips_are_refused(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with pytest.raises(ValueError, match="a link"):
        extract_zip(write_zip(tmp_path / "link.zip", (link, b"/etc")), tmp_path / "target")
    monkeypatch.setattr(files, "MAX_EXTRACTED_BYTES", 1000)
    with pytest.raises(ValueError, match="1001 bytes, 1000 are accepted"):
        extract_zip(write_zip(tmp_path / "bomb.zip", ("a", bytes(1001))), tmp_path / "target")
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="not a whole zip"):
        extract_zip(tmp_path / "broken.zip", tmp_path / "target")


def test_a_zip_with_windows_separators_unpacks_into_folders(tmp_path):
    extract_zip(write_zip(tmp_path / "a.zip", ("Perfect\\4\\a.txt", b"x")), tmp_path / "target")
    assert (tmp_path / "target" / "Perfect" / "4" / "a.txt").read_bytes() == b"x"


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "deep" / "out") as unfinished:
        (unfinished / "half").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as unfinished:
        (unfinished / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]
    with pytest.raises(ValueError, match="nothing is overwritten"), new_folder(tmp_path / "out"):
        pass


def test_an_error_is_told_in_the_systems_words_or_its_own_or_by_its_type():
    assert error_reason(FileNotFoundError(2, "No such file or directory", "a.png")) == "No such file or directory"
    assert error_reason(OSError("no image")) == error_reason(ValueError("no image")) == "no image"
    assert error_reason(EOFError()) == "EOFError"


def test_images_that_need_a_plugin_are_images_and_programs_are_not():
    assert all(has_image_suffix(name) for name in ("a.png", "b.JPG", "c.heic", "d.AVIF", "e.mpo"))
    assert not any(has_image_suffix(name) for name in ("a.txt", "film.mpg", "page.eps", "png", "x.svg"))


def test_folders_in_folders_without_end_are_refused_in_a_zip_and_told_on_a_disk(tmp_path):
    write_zip(tmp_path / "deep.zip", ("a/" * 1500 + "x.png", b""))
    with pytest.raises(
        ValueError, match=r"deep\.zip is refused: its entry 'a/a/.*\.\.\.' lies in more than 200 folders"
    ):
        extract_zip(tmp_path / "deep.zip", tmp_path / "out")
    (tmp_path / "root").mkdir()
    folder = os.open(tmp_path / "root", os.O_RDONLY)
    for _ in range(300):
        os.mkdir("a", dir_fd=folder)
        inner = os.open("a", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    [too_deep] = walk_files(tmp_path / "root")
    assert too_deep.is_dir() and len(too_deep.relative_to(tmp_path / "root").parts) == MAX_FOLDERS + 1
    (tmp_path / "root/b.png").touch()
    assert walk_files(tmp_path / "root") == [too_deep, tmp_path / "root/b.png"]
