"""Files are written whole, through links, with the mode that they had, and never through a planted name."""

import os
import stat
from pathlib import Path

import pytest

from hybridiqa.utils.atomic import is_same_place, is_within, open_atomically, resolve_output, write_text_atomically


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask_022():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_link_stays_and_the_file_it_leads_to_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "s.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("middle.csv")  # relative, and over a second link
    (tmp_path / "middle.csv").symlink_to(tmp_path / "disk" / "s.csv")
    write_text_atomically(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "middle.csv").is_symlink()
    assert (tmp_path / "disk" / "s.csv").read_text() == "new"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["s.csv"]


def test_a_link_to_nowhere_makes_the_file_it_leads_to_where_there_is_a_folder(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "s.csv")
    write_text_atomically(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "s.csv").read_text() == "new"


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444, 0o755])
def test_the_mode_of_a_file_that_is_there_is_kept(tmp_path, umask_022, mode):
    path = tmp_path / "s.csv"
    path.write_text("old")
    path.chmod(mode)
    with open_atomically(path) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode  # at no time more open
        file.write(b"new")
    assert mode_of(path) == mode and path.read_text() == "new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text_atomically(tmp_path / "new.txt", "new")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "new.txt") == 0o666 & ~umask


def test_a_name_that_is_taken_is_not_written_through(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / ".s.csv.unfinished").symlink_to(tmp_path / "mine.txt")  # the fixed name of earlier versions
    write_text_atomically(tmp_path / "s.csv", "new")
    monkeypatch.setattr("hybridiqa.utils.atomic.secrets.token_hex", lambda num_bytes: "guessed")
    (tmp_path / ".s.csv.guessed.unfinished").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(FileExistsError):
        write_text_atomically(tmp_path / "s.csv", "newer")
    assert (tmp_path / "mine.txt").read_text() == "mine" and (tmp_path / "s.csv").read_text() == "new"
    assert (tmp_path / ".s.csv.guessed.unfinished").is_symlink()


def test_a_block_that_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path):
    (tmp_path / "s.csv").write_text("old")
    with pytest.raises(KeyboardInterrupt), open_atomically(tmp_path / "s.csv") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "s.csv").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("a" * 251 + ".csv", "\N{CAT FACE}" * 62 + ".csv"):
        write_text_atomically(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "--output: .*folder is a folder, accepted is a file"),
        ("pipe", "--output: .*pipe is a pipe, accepted is a file"),
        ("/dev/null", "--output: /dev/null is a device, accepted is a file"),
        ("link-to-folder", "link-to-folder, a link to .*folder, is a folder"),
        ("link-to-device", "link-to-device, a link to /dev/null, is a device"),
        ("lost", "lost, a link to .*gone/s.csv, leads into a folder that is not there"),
        ("circle", "circle cannot be a file: Too many levels of symbolic links"),
        ("no/folder", "there is no folder .*no"),
        ("file/s.csv", "there is no folder .*file"),
        ("a" * 300, "cannot be a file: File name too long"),
    ],
)
def test_what_cannot_be_an_output_is_said(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for link, target in {"link-to-folder": "folder", "link-to-device": "/dev/null", "lost": "gone/s.csv"}.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(ValueError, match=message):
        resolve_output(tmp_path / name, "--output")
    with pytest.raises(ValueError):
        write_text_atomically(tmp_path / name, "new")


def test_places_are_the_same_through_links_of_both_kinds_and_dots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("a")
    (tmp_path / "soft").symlink_to("a")
    os.link("a", "hard")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").symlink_to("folder")
    for name in ("a", "./a", "soft", "hard", "folder/../a", str(tmp_path / "a")):
        assert is_same_place(Path(name), Path("a"))
    assert is_same_place(Path("folder/new"), Path("other/new")) and not is_same_place(Path("new"), Path("newer"))
    assert is_within(Path("other/deep/new"), Path("folder")) and is_within(Path("folder"), Path("other"))
    assert not is_within(Path("folder/../new"), Path("folder")) and not is_within(Path("folders"), Path("folder"))
    assert is_within(Path("gone/new"), Path("gone"))
