"""Whatever stops a run, at whatever step: the journal holds what was done, and undo restores what was there."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from factories import make_picture
from scored_files import make_files, make_scores, sort, undo
from trials.organize_trial import manifest

from hybridiqa.commands import organize
from hybridiqa.organize import actions as file_actions
from hybridiqa.organize.journal import Action, Journal, Splice, read_journal

# Each of these changes something on the disk, so between any two of them a kill leaves another state.
STEPS = [(os, name) for name in ("link", "unlink", "replace", "mkdir", "rmdir", "symlink")]
STEPS += [(shutil, "copyfile")]


def die_at(number: int) -> None:
    """End this process without any cleaning up, in front of the step of that number."""
    steps_left = [number]

    def deadly(function):
        def call(*args, **options):
            if steps_left[0] == 0:
                os._exit(9)
            steps_left[0] -= 1
            return function(*args, **options)

        return call

    for module, name in STEPS:
        setattr(module, name, deadly(getattr(module, name)))


def killed_at(number: int, command: list[str], prepare=lambda: None) -> bool:
    """Run a command in a process of its own that dies at that step; False if it came to its end before."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            prepare()
            die_at(number)
            status = organize.main(command)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def no_hard_links() -> None:
    def link(old, new):
        raise OSError(errno.EPERM, "Operation not permitted")

    os.link = link


def two_file_systems() -> None:
    """As if every folder were a file system of its own."""
    real_link = os.link

    def link(old, new):
        if os.path.dirname(old) != os.path.dirname(new):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real_link(old, new)

    os.link = link


def make_library(folder: Path) -> str:
    make_files(folder / "lib", "a.txt", "x/b.png", "x/b.jpg", "x/b.txt", "c.png")
    make_picture(20, 20).save(folder / "lib" / "a.png")
    make_picture(20, 20).save(folder / "lib" / "x" / "b.jpg")
    (folder / "lib" / "c.txt").touch()
    names = {"a.png": 2.0, "x/b.jpg": 4.0}
    return make_scores(folder / "s.csv", {folder / "lib" / name: score for name, score in names.items()})


def commands(scores: str, out: Path) -> dict[str, list[str]]:
    into = ["sort", scores, "--into", str(out), "--edges", "3", "--mode"]
    return {
        "copy": [*into, "copy"],
        "move": [*into, "move"],
        "symlink": [*into, "symlink"],
        "hardlink": [*into, "hardlink"],
        "tag": ["tag", scores, "--edges", "3", "--tags", "bad", "good", "--caption_suffix", ".txt"],
        "embed": ["embed", scores],
    }


ENVIRONMENTS = {"as it is": lambda: None, "no hard links": no_hard_links, "two file systems": two_file_systems}
CASES = [(command, "as it is") for command in ("copy", "move", "symlink", "hardlink", "tag", "embed")]
CASES += [(command, "no hard links") for command in ("copy", "move", "tag")] + [("move", "two file systems")]


@pytest.fixture
def no_waiting(monkeypatch):
    """A kill, unlike a power cut, loses nothing that was written: without waiting for the disk all is the same."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize(("command", "environment"), CASES)
def test_a_run_killed_before_any_of_its_steps_can_be_undone(tmp_path, no_waiting, command, environment):
    prepare = ENVIRONMENTS[environment]
    scores = make_library(tmp_path)
    before, number, is_killed = manifest(tmp_path), 0, True
    while is_killed:
        journal = tmp_path / f"{number}.journal"
        argv = [*commands(scores, tmp_path / "out")[command], "--journal", str(journal)]
        is_killed = killed_at(number, argv, prepare)
        if journal.exists() and journal.stat().st_size:  # else it died before there was anything to undo
            assert organize.main(["undo", str(journal)]) == 0
        journal.unlink(missing_ok=True)
        assert manifest(tmp_path) == before
        number += 1
    assert number > 3


@pytest.mark.parametrize(("command", "environment"), CASES)
def test_an_undoing_killed_before_any_of_its_steps_can_be_done_again(tmp_path, no_waiting, command, environment):
    prepare = ENVIRONMENTS[environment]
    scores = make_library(tmp_path)
    before, number, is_killed = manifest(tmp_path), 0, True
    while is_killed:
        journal = tmp_path / f"{number}.journal"
        argv = [*commands(scores, tmp_path / "out")[command], "--journal", str(journal)]
        assert not killed_at(10**9, argv, prepare)
        is_killed = killed_at(number, ["undo", str(journal)], prepare)
        assert organize.main(["undo", str(journal)]) == 0
        journal.unlink()
        assert manifest(tmp_path) == before
        number += 1
    assert number > 2


def test_a_torn_last_line_is_an_action_that_was_not_begun(tmp_path, capsys):
    scores = make_library(tmp_path)
    before = manifest(tmp_path / "lib")
    assert sort(scores, tmp_path / "out", "--mode", "move", "--journal", str(tmp_path / "j")) == 0
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(lines) + lines[-1][:40])
    assert len(read_journal(tmp_path / "j")) == len(lines) - 1
    assert organize.main(["undo", str(tmp_path / "j")]) == 0
    assert manifest(tmp_path / "lib") == before


def test_a_damaged_journal_undoes_nothing(tmp_path, capsys):
    scores = make_library(tmp_path)
    assert sort(scores, tmp_path / "out", "--journal", str(tmp_path / "j")) == 0
    after = manifest(tmp_path / "out")
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join([*lines[:2], lines[2][:30] + b"\n", *lines[3:]]))
    assert organize.main(["undo", str(tmp_path / "j")]) == 2
    assert "line 3 of the journal" in capsys.readouterr().err
    assert manifest(tmp_path / "out") == after


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]\n", b'{"journal": "another"}\n', b"\xff\n"])
def test_what_is_no_journal_is_refused(tmp_path, content, capsys):
    (tmp_path / "j").write_bytes(content)
    assert organize.main(["undo", str(tmp_path / "j")]) == 2
    assert "is not a journal of organize.py" in capsys.readouterr().err
    assert organize.main(["undo", str(tmp_path / "none")]) == 2


def test_any_action_is_read_as_it_was_written(tmp_path):
    journal = Journal(tmp_path / "j", ["tag"])
    name = os.fsdecode(b"/two\nlines caf\xe9 \xf0\x9f\x98\x80")
    actions = [
        Action("mkdir", name),
        Action("move", name, "/source", content_hash="ab", temporary=journal.new_name()),
        Action("rewrite", "/a", "", "ab", "cd", (Splice(3, b"\0\xff", b""), Splice(9, b"", b"x")), journal.new_name()),
    ]
    journal.write(actions)
    journal.close()
    assert read_journal(tmp_path / "j") == actions
    assert os.fsencode(read_journal(tmp_path / "j")[0].target) == b"/two\nlines caf\xe9 \xf0\x9f\x98\x80"


def test_a_full_disk_stops_the_run_and_leaves_no_temporary_file(tmp_path, monkeypatch, capsys):
    scores = make_library(tmp_path)
    before = manifest(tmp_path / "lib")
    real_copy, copied = shutil.copyfile, []

    def copyfile(source, target):
        copied.append(target)
        real_copy(source, target)
        if len(copied) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", source, None, target)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    assert sort(scores, tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert f"stopped, no space left on device: {tmp_path}/out" in printed.err and "undo with" in printed.out
    assert len(copied) == 3 and len([name for name in manifest(tmp_path / "out") if "." in name]) == 2
    assert undo(scores) == 0
    assert manifest(tmp_path / "lib") == before and not (tmp_path / "out").exists()


def test_a_journal_that_cannot_be_written_stops_the_run_before_anything_is_done(tmp_path, monkeypatch, capsys):
    scores = make_library(tmp_path)

    def fsync(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    assert sort(scores, tmp_path / "out") == 2
    assert "cannot write the journal" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_name_taken_between_plan_and_action_is_not_overwritten_nor_removed_by_undo(tmp_path, monkeypatch, capsys):
    scores = make_library(tmp_path)
    target = tmp_path / "out" / "below_3" / "a.png"
    real_do = file_actions._do

    def do(action):
        if action.target == str(target):
            shutil.copyfile(tmp_path / "lib" / "a.png", target)  # by somebody else, even with the very same bytes
        real_do(action)

    monkeypatch.setattr(file_actions, "_do", do)
    assert sort(scores, tmp_path / "out", "--mode", "move") == 1
    assert "a.png: File exists" in capsys.readouterr().out
    assert (tmp_path / "lib" / "a.png").exists() and (tmp_path / "lib" / "a.txt").exists()
    assert undo(scores) == 1  # the folder cannot be removed
    assert target.exists()


def test_a_source_that_cannot_be_removed_is_not_moved(tmp_path, monkeypatch, capsys):
    scores = make_library(tmp_path)
    before = manifest(tmp_path / "lib")
    real_link, real_unlink = os.link, os.unlink

    def unlink(path):
        if str(path).startswith(str(tmp_path / "lib")):
            raise OSError(errno.EROFS, "Read-only file system")
        real_unlink(path)

    monkeypatch.setattr(os, "unlink", unlink)
    for name in ("as it is", "two file systems"):
        monkeypatch.setattr(os, "link", real_link)
        ENVIRONMENTS[name]()
        assert sort(scores, tmp_path / name, "--mode", "move") == 1
        assert manifest(tmp_path / "lib") == before
        assert set(manifest(tmp_path / name).values()) == {"folder"}
        assert undo(scores) == 0 and not (tmp_path / name).exists()
    assert "Read-only file system" in capsys.readouterr().out
