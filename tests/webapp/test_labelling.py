"""Labelling by hand: copies in the folders of a scored dataset, taken back, gone on with, and made a dataset."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from page_sessions import FIVE, NAMES, bring, make_session, score_all
from PIL import Image

from hybridiqa.commands import prepare_dataset
from hybridiqa.data.folders import read_hybrid_folder
from hybridiqa.data.loading import load_prepared
from hybridiqa.utils.files import content_hash, hash_of
from hybridiqa.utils.root import ROOT
from hybridiqa.webapp import labelling
from hybridiqa.webapp.labelling import (
    CHOICES,
    LABEL_BINS,
    LOCK_NAME,
    ORDERS,
    RECORD_NAME,
    SKIPPED,
    LabelFolder,
    score_of_bin,
    sort_for_labelling,
)
from hybridiqa.webapp.model_pool import SharedModels

SCORES = {
    **{f"Artifact/{number}": number for number in range(1, 6)},
    **{f"Perfect/{number}": number + 2 for number in range(1, 6)},
    "8": 8,
    "9": 9,
}
DIGESTS = [hash_of(bytes([number])) for number in range(20)]


@pytest.fixture
def images(tmp_path) -> list[Path]:
    """Make twelve images."""
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{index:02}.png" for index in range(12)]
    for index, path in enumerate(paths):
        Image.new("RGB", (12, 8), (20 * index, 100, 200)).save(path)
    return paths


@pytest.fixture
def labels(tmp_path) -> LabelFolder:
    """Give a folder that is not there yet."""
    return LabelFolder(tmp_path / "labels")


def reopen(labels: LabelFolder) -> LabelFolder:
    """Return the folder as the next page finds it."""
    return LabelFolder(labels.folder)


def files_in(folder: Path) -> list[str]:
    """Return all that lies in it, hidden files too, but for the record and its lock."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.name not in (RECORD_NAME, LOCK_NAME))


def test_a_label_is_a_copy_and_the_image_stays_as_it_was(labels, images):
    before, data = images[0].stat(), images[0].read_bytes()
    assert not labels.folder.exists()  # nothing appears before the first label
    label = labels.choose(images[0], "holiday/beach.png", "Artifact/3")
    copy = labels.folder / "Artifact/3/beach.png"
    assert (label.choice, label.file, label.content_hash) == ("Artifact/3", "Artifact/3/beach.png", content_hash(copy))
    assert copy.read_bytes() == images[0].read_bytes() == data
    after = images[0].stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_nlink) == (before.st_ino, before.st_mtime_ns, 1)
    assert files_in(labels.folder) == ["Artifact/3/beach.png"]
    assert labels.list_copies() == [copy] and labels.find_label(label.content_hash) == label


def test_the_copy_of_a_linked_image_is_a_file_of_its_own(labels, images, tmp_path):
    (tmp_path / "link.png").symlink_to(images[0])
    labels.choose(tmp_path / "link.png", "link.png", "9")
    copy = labels.folder / "9/link.png"
    assert not copy.is_symlink() and copy.read_bytes() == images[0].read_bytes()
    assert copy.stat().st_ino != images[0].stat().st_ino


def test_a_name_that_is_taken_gets_a_number_and_nothing_is_overwritten(labels, images):
    (labels.folder / "8").mkdir(parents=True)
    (labels.folder / "8/a.png").write_bytes(b"somebody's")
    (labels.folder / "8/a_2.png").symlink_to("nowhere")
    names = [labels.choose(image, "a.png", choice).file for image, choice in zip(images, "889", strict=False)]
    assert names == ["8/a_3.png", "8/a_4.png", "9/a.png"]
    assert (labels.folder / "8/a.png").read_bytes() == b"somebody's"
    assert os.readlink(labels.folder / "8/a_2.png") == "nowhere"
    assert [labels.folder.joinpath(name).read_bytes() for name in names] == [p.read_bytes() for p in images[:3]]


@pytest.mark.parametrize(
    ("name", "copied_as"),
    [
        ("../../etc/a.png", "a.png"),
        ("/etc/a.png", "a.png"),
        ("C:\\folder\\a.png", "a.png"),
        (".hidden.png", "hidden.png"),
        ("...png", "png"),
        ("..", "picture"),
        ("", "picture"),
        ("two\nlines <b>\u202e.png", "two\nlines <b>\u202e.png"),
    ],
)
def test_a_copy_stays_in_its_bin_and_is_never_hidden(labels, images, name, copied_as):
    labels.choose(images[0], name, "Perfect/1")
    assert files_in(labels.folder) == [f"Perfect/1/{copied_as}"]
    assert reopen(labels).history == labels.history


@pytest.mark.parametrize("letter", ["x", "é", "部", "😀"])
def test_a_very_long_name_is_cut_between_letters_and_keeps_its_suffix(labels, images, letter):
    first, second = (labels.choose(image, 300 * letter + ".png", "8").file for image in images[:2])
    stem = first.removeprefix("8/").removesuffix(".png")
    assert set(stem) == {letter} and 190 < len(os.fsencode(f"{stem}.png")) <= 200
    assert second == f"8/{stem}_2.png"
    assert read_hybrid_folder(labels.folder).records[0].score == 8


@pytest.mark.parametrize("choice", ["Artifact/6", "artifact/1", "7", "undo", "", "../8", "8/"])
def test_an_unknown_choice_is_refused_before_anything_is_made(labels, images, choice):
    with pytest.raises(ValueError, match=r"must be one of Artifact/1, .*, 8, 9, skip, got"):
        labels.choose(images[0], "a.png", choice)
    assert not labels.folder.exists() and not labels.history


def test_a_image_is_labelled_once_whatever_it_is_called(labels, images):
    labels.choose(images[0], "a.png", "Perfect/5")
    labels.choose(images[1], "b.png", SKIPPED)
    for path, choice in ((images[0], "Perfect/5"), (images[1], SKIPPED)):
        with pytest.raises(ValueError, match=f"other.png is labelled already: {choice}"):
            labels.choose(path, "other.png", "9")
    assert files_in(labels.folder) == ["Perfect/5/a.png"] and len(labels.history) == 2


def test_a_image_that_cannot_be_read_gets_no_label(labels, tmp_path):
    with pytest.raises(ValueError, match=r"cannot label gone.png: No such file"):
        labels.choose(tmp_path / "gone.png", "gone.png", "8")
    assert not labels.history and not labels.count_choices()


def test_a_file_is_no_folder_of_labels(images):
    with pytest.raises(ValueError, match="got the file"):
        LabelFolder(images[0])


def test_undo_takes_back_one_label_after_the_other(labels, images):
    made = [labels.choose(path, path.name, choice) for path, choice in zip(images, ("8", SKIPPED, "9"), strict=False)]
    assert labels.count_choices() == {"8": 1, "9": 1, SKIPPED: 1}
    assert [labels.undo(), labels.undo()] == [made[2], made[1]]
    assert files_in(labels.folder) == ["8/00.png"] and reopen(labels).history == made[:1]
    again = labels.choose(images[2], "02.png", "Artifact/1")  # what was taken back can be labelled anew
    assert [labels.undo(), labels.undo(), labels.undo()] == [again, made[0], None]
    assert not files_in(labels.folder) and not reopen(labels).history
    assert all(path.exists() for path in images)


def test_a_copy_that_was_changed_since_is_not_removed_by_undo(labels, images):
    labels.choose(images[0], "a.png", "8")
    (labels.folder / "8/a.png").write_bytes(b"painted over")
    with pytest.raises(ValueError, match=r"8/a\.png was changed since it was labelled; it stays"):
        labels.undo()
    assert (labels.folder / "8/a.png").read_bytes() == b"painted over"
    assert labels.count_choices() == reopen(labels).count_choices() == {"8": 1}


def test_labelling_goes_on_where_it_was(labels, images):
    for path, choice in zip(images, ("Artifact/1", SKIPPED, "9"), strict=False):
        labels.choose(path, path.name, choice)
    labels.undo()
    later = reopen(labels)
    assert later.history == labels.history and later.count_choices() == {"Artifact/1": 1, SKIPPED: 1}
    with pytest.raises(ValueError, match="labelled already: Artifact/1"):
        later.choose(images[0], "a.png", "9")
    later.choose(images[2], "02.png", "8")
    assert later.undo().choice == "8" and later.undo().choice == SKIPPED
    assert reopen(labels).count_choices() == {"Artifact/1": 1}


def test_a_last_line_that_was_torn_hinders_neither_reading_nor_the_next_label(labels, images):
    labels.choose(images[0], "a.png", "8")
    with open(labels.record_path, "ab") as file:
        file.write(labels.record_path.read_bytes()[:30])
    later = reopen(labels)
    assert later.count_choices() == {"8": 1}
    later.choose(images[1], "b.png", "9")
    assert later.count_choices() == {"8": 1, "9": 1} and files_in(labels.folder) == ["8/a.png", "9/b.png"]
    assert reopen(labels).history == later.history


DAMAGED_LINES = [
    b"",
    b"{",
    b"[]",
    b"5",
    b"null",
    b"[" * 100_000,
    b'{"content_hash": "x", "choice": "8", "file": 5}',
    b"\xff\x00",
    b'{"content_hash": "x"}',
    b'{"content_hash": "x", "choice": "8", "file": null, "other": 1}',
    b'{"content_hash": "x", "choice": "8", "file": "8/a.png", "undone": true}',  # what was never done
    b'{"content_hash": "x", "choice": "8", "file": "8/a.png", "undone": 1}',
    b'{"content_hash": 5, "choice": "8", "file": "8/a.png"}',
    b'{"content_hash": "x", "choice": "7", "file": "7/a.png"}',
    b'{"content_hash": "x", "choice": ["8"], "file": "8/a.png"}',
    b'{"content_hash": "x", "choice": "8", "file": null}',
    b'{"content_hash": "x", "choice": "skip", "file": "8/a.png"}',
    b'{"content_hash": "x", "choice": "8", "file": "9/a.png"}',
    b'{"content_hash": "x", "choice": "8", "file": "8/.."}',
    b'{"content_hash": "x", "choice": "8", "file": "8/"}',
    b'{"content_hash": "x", "choice": "8", "file": "8/a\\u0000.png"}',
]


@pytest.mark.parametrize("line", DAMAGED_LINES)
def test_a_damaged_line_costs_that_line_is_told_once_and_stays(labels, images, line, caplog):
    labels.choose(images[0], "a.png", "8")
    whole = labels.record_path.read_bytes()
    labels.choose(images[1], "b.png", "9")
    rest = labels.record_path.read_bytes().removeprefix(whole)
    labels.record_path.write_bytes(whole + line + b"\n" + rest)
    later = reopen(labels)
    assert later.count_choices() == labels.count_choices() == {"8": 1, "9": 1}
    later.choose(images[2], "c.png", "Artifact/1")
    assert later.undo().choice == "Artifact/1" and later.undo().choice == "9" and later.count_choices() == {"8": 1}
    assert labels.record_path.read_bytes().startswith(whole + line + b"\n" + rest)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and all("line 2 of " in text and "is damaged" in text for text in told)  # once a page


@pytest.mark.parametrize("name", ["../outside.png", "8/../../outside.png", "/", "8/link/outside.png"])
def test_undo_never_removes_what_lies_outside_of_the_folder(labels, images, tmp_path, name):
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"somebody's")
    (labels.folder / "8").mkdir(parents=True)
    (labels.folder / "8/link").symlink_to(tmp_path)
    name = str(outside) if name == "/" else name
    line = json.dumps({"content_hash": hash_of(b"somebody's"), "choice": "8", "file": name})
    labels.record_path.write_text(line + "\n")
    assert labels.undo() is None and reopen(labels).undo() is None
    assert outside.read_bytes() == b"somebody's"


def test_undo_does_not_follow_a_bin_that_is_a_link(labels, images, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    labels.folder.mkdir()
    (labels.folder / "8").symlink_to(tmp_path / "elsewhere")
    labels.choose(images[0], "a.png", "8")
    with pytest.raises(ValueError, match=r"8/a.png lies behind a link that leads out of its bin; it stays"):
        labels.undo()
    assert (tmp_path / "elsewhere/a.png").read_bytes() == images[0].read_bytes() and labels.count_choices() == {"8": 1}


def test_a_folder_of_labels_that_is_a_link_is_labelled_into_and_undone(images, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    labels = LabelFolder(tmp_path / "link")
    labels.choose(images[0], "a.png", "Artifact/2")
    assert files_in(tmp_path / "real") == ["Artifact/2/a.png"]
    assert labels.undo().choice == "Artifact/2" and not files_in(tmp_path / "real")


def test_two_pages_see_each_others_labels_and_put_no_image_into_two_bins(labels, images):
    other = reopen(labels)
    first = labels.choose(images[0], "a.png", "8")
    assert (
        other.history == [first] and other.count_choices() == {"8": 1} and other.find_label(first.content_hash) == first
    )
    with pytest.raises(ValueError, match=r"again\.png is labelled already: 8"):
        other.choose(images[0], "again.png", "9")
    second = other.choose(images[1], "a.png", "8")
    assert second.file == "8/a_2.png" and labels.history == [first, second]
    assert labels.list_copies() == other.list_copies() and files_in(labels.folder) == ["8/a.png", "8/a_2.png"]


def test_undo_takes_back_a_pages_own_labels_and_leaves_those_of_another(labels, images):
    before = labels.choose(images[0], "a.png", "8")
    one, other = reopen(labels), reopen(labels)
    first, second = one.choose(images[1], "b.png", "8"), other.choose(images[2], "c.png", "9")
    assert one.undo() == first and other.history == [before, second]
    assert one.undo() == before and one.undo() is None  # what stood there when it was opened
    assert other.history == one.history == [second]
    assert other.choose(images[1], "b.png", "9").file == "9/b.png"  # what the other has taken back
    assert one.undo() is None and len(one.history) == len(reopen(labels).history) == 2
    assert [label.choice for label in (other.undo(), other.undo())] == ["9", "9"] and other.undo() is None
    assert not reopen(labels).history and not files_in(labels.folder)


def test_the_record_of_two_older_pages_that_labelled_one_image_is_read(labels):
    """Read a record such as each could write without a lock; the undo of the one is not about the last label."""
    for choice in "89":
        (labels.folder / choice).mkdir(parents=True)
    (labels.folder / "9/a.png").write_bytes(b"")
    lines = [{"content_hash": hash_of(b""), "choice": choice, "file": f"{choice}/a.png"} for choice in "89"]
    labels.record_path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0] | {"undone": True}]))
    assert labels.count_choices() == {"9": 1} and reopen(labels).undo().file == "9/a.png" and not labels.history


LABEL_ALL = """
import sys
from pathlib import Path
from hybridiqa.webapp.labelling import LabelFolder
labels = LabelFolder(Path(sys.argv[1]))
for path in sorted(Path(sys.argv[2]).iterdir()):
    try:
        labels.choose(path, path.name, sys.argv[3])
        labels.undo()
        labels.choose(path, path.name, sys.argv[3])
    except ValueError as error:
        if "labelled already" not in str(error):
            raise
"""


def test_two_processes_label_the_same_images_at_once_and_each_has_one_bin(labels, images):
    arguments = [sys.executable, "-c", LABEL_ALL, str(labels.folder), str(images[0].parent)]
    pages = [subprocess.Popen([*arguments, choice], cwd=ROOT, stderr=subprocess.PIPE, text=True) for choice in "89"]
    errors = [page.communicate(timeout=120)[1] for page in pages]
    assert [page.returncode for page in pages] == [0, 0], errors
    assert sorted(Path(name).name for name in files_in(labels.folder)) == [path.name for path in images]
    assert len(labels.history) == len(images) and len(reopen(labels).history) == len(images)


def test_many_threads_of_two_pages_label_each_image_once(labels, images):
    other = reopen(labels)

    def label(task: tuple[LabelFolder, Path, str]) -> bool:
        page, path, choice = task
        try:
            return page.choose(path, path.name, choice) is not None
        except ValueError:
            return False

    tasks = [(page, path, choice) for path in images for page, choice in ((labels, "8"), (other, "9"))]
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(label, tasks)) == len(images)
    assert sorted(Path(name).name for name in files_in(labels.folder)) == [path.name for path in images]
    assert labels.history == other.history == reopen(labels).history


def test_a_lock_that_cannot_be_had_is_one_line_and_nothing_is_copied(labels, images, monkeypatch):
    labels.choose(images[0], "a.png", "8")
    monkeypatch.setattr(labelling, "LOCK_WAIT", 0.2)
    with FileLock(labels.folder / LOCK_NAME):
        with pytest.raises(
            ValueError, match=r"cannot label b.png: the folder of labels labels has been in use .* 0.2 s"
        ):
            reopen(labels).choose(images[1], "b.png", "9")
        with pytest.raises(ValueError, match="cannot undo the last label: the folder of labels labels has been in use"):
            labels.undo()
    assert files_in(labels.folder) == ["8/a.png"]
    assert labels.undo().choice == "8"


def test_a_killed_page_leaves_no_lock(labels, images):
    labels.choose(images[0], "a.png", "8")
    hold = f"from filelock import FileLock; FileLock({str(labels.folder / LOCK_NAME)!r}).acquire(); print(flush=True); "
    page = subprocess.Popen([sys.executable, "-c", hold + "import time; time.sleep(60)"], stdout=subprocess.PIPE)
    page.stdout.readline()
    page.kill()
    page.wait()
    page.stdout.close()
    assert labels.choose(images[1], "b.png", "9").file == "9/b.png"


def test_a_link_in_the_place_of_the_lock_is_not_followed(labels, images, tmp_path):
    labels.folder.mkdir()
    (tmp_path / "precious.txt").write_text("mine")
    (labels.folder / LOCK_NAME).symlink_to(tmp_path / "precious.txt")
    with pytest.raises(ValueError, match=r"cannot label a.png: \.hybridiqa-labels\.lock in .* is a link"):
        labels.choose(images[0], "a.png", "8")
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions bind neither root nor Windows")
def test_a_folder_that_cannot_be_written_to_is_one_line(labels, images):
    labels.choose(images[0], "a.png", "8")
    for path in (labels.folder / LOCK_NAME, labels.folder):
        path.chmod(0o555)
    try:
        with pytest.raises(ValueError, match=r"cannot label b.png: .*labels cannot be written to: Permission denied"):
            labels.choose(images[1], "b.png", "9")
        assert reopen(labels).count_choices() == {"8": 1}
    finally:
        labels.folder.chmod(0o755)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_takes_no_lock_is_one_line(labels, images, monkeypatch, number):
    def refuse(lock, **_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(labelling.FileLock, "acquire", refuse)
    with pytest.raises(ValueError, match=f"folder of labels labels cannot be written to: {os.strerror(number)}"):
        labels.choose(images[0], "a.png", "8")


def test_where_the_record_cannot_be_written_the_copy_is_taken_away_again(labels, images, monkeypatch):
    labels.choose(images[0], "a.png", "8")
    before = labels.record_path.read_bytes()

    def refuse(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(labelling.os, "fsync", lambda number: refuse(number) if is_record(number) else None)
        with pytest.raises(ValueError, match=r"cannot label b\.png: No space left on device"):
            labels.choose(images[1], "b.png", "9")
    assert files_in(labels.folder) == ["8/a.png"] and labels.record_path.read_bytes() == before
    assert labels.choose(images[1], "b.png", "9").file == "9/b.png"


def is_record(descriptor: int) -> bool:
    """Return whether a descriptor is open for adding to a file, as only a record's is."""
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)


def test_a_whole_line_without_its_end_counts_and_the_next_label_keeps_it(labels, images):
    labels.choose(images[0], "a.png", "8")
    labels.record_path.write_bytes(labels.record_path.read_bytes().rstrip(b"\n"))  # as some editors do
    later = reopen(labels)
    assert later.count_choices() == {"8": 1}
    later.choose(images[1], "b.png", "9")
    assert reopen(labels).count_choices() == labels.count_choices() == {"8": 1, "9": 1}


def test_a_record_that_is_removed_while_a_page_runs_begins_anew(labels, images):
    labels.choose(images[0], "a.png", "8")
    labels.record_path.unlink()
    assert not labels.history and labels.undo() is None
    assert labels.choose(images[1], "b.png", "9").file == "9/b.png"
    shutil.rmtree(labels.folder)
    assert not labels.count_choices() and labels.choose(images[1], "b.png", "8").file == "8/b.png"


def test_a_record_that_is_no_file_is_one_line(labels):
    labels.record_path.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"cannot read the record of labels .*: not a regular file"):
        reopen(labels)


def test_a_name_that_is_free_again_belongs_to_the_new_copy_alone(labels, images):
    labels.choose(images[0], "a.png", "8")
    (labels.folder / "8/a.png").unlink()
    second = labels.choose(images[1], "a.png", "8")
    assert second.file == "8/a.png" and labels.history == reopen(labels).history == [second]


def test_a_copy_that_was_removed_by_hand_no_longer_counts(labels, images):
    for path, choice in zip(images, ("8", "9"), strict=False):
        labels.choose(path, path.name, choice)
    (labels.folder / "8/00.png").unlink()
    later = reopen(labels)
    assert later.count_choices() == {"9": 1} and later.find_label(content_hash(images[0])) is None
    later.choose(images[0], "00.png", "Perfect/2")
    assert reopen(labels).count_choices() == {"9": 1, "Perfect/2": 1}
    (labels.folder / "Perfect/2/00.png").unlink()
    reopen(labels).choose(images[0], "00.png", "Perfect/2")  # the same once more
    assert reopen(labels).count_choices() == {"9": 1, "Perfect/2": 1}


def test_a_copy_that_was_removed_by_hand_can_be_taken_back(labels, images):
    label = labels.choose(images[0], "a.png", "8")
    (labels.folder / "8/a.png").unlink()
    assert labels.undo() == label and labels.undo() is None and not reopen(labels).history


def label_one_in_each_bin(labels: LabelFolder, images: list[Path]) -> None:
    for path, name in zip(images, LABEL_BINS, strict=True):
        labels.choose(path, path.name, name)


def test_every_bin_counts_as_the_score_that_its_folder_gives(labels, images):
    assert set(LABEL_BINS) == set(SCORES) == set(CHOICES) - {SKIPPED}
    label_one_in_each_bin(labels, images)
    contents = read_hybrid_folder(labels.folder)
    assert {record.bin: record.score for record in contents.records} == SCORES
    assert {name: score_of_bin(name) for name in LABEL_BINS} == SCORES
    assert {record.path.read_bytes() for record in contents.records} == {path.read_bytes() for path in images}
    assert not (contents.unscored or contents.unreadable or contents.not_images)


def test_a_labelled_folder_goes_through_the_script_of_datasets(labels, images, tmp_path):
    label_one_in_each_bin(labels, images)
    assert prepare_dataset.main([str(labels.folder), "--output_dir", str(tmp_path / "out")]) == 0
    splits = load_prepared(tmp_path / "out")
    assert set(splits) == {"train", "validation", "test"}
    rows = [row for split in splits.values() for row in split]
    expected = {f"{name}/{path.name}": SCORES[name] for path, name in zip(images, LABEL_BINS, strict=True)}
    assert {row["path"]: row["score"] for row in rows} == expected


def test_the_random_order_is_one_for_all_times_and_for_every_subset():
    order = sort_for_labelling(DIGESTS, "random", {})
    assert sorted(order) == sorted(DIGESTS) and order not in (DIGESTS, sorted(DIGESTS))
    assert sort_for_labelling(reversed(DIGESTS), "random", {DIGESTS[0]: 9.0}) == order
    some = set(DIGESTS[::3])
    assert sort_for_labelling(some, "random", {}) == [digest for digest in order if digest in some]
    assert sort_for_labelling(DIGESTS, "random", {}, seed=1) != order


def test_the_order_by_score_std_has_the_largest_first_and_unknown_ones_last():
    score_stds = {DIGESTS[0]: 0.2, DIGESTS[1]: 0.0, DIGESTS[2]: 1.5, DIGESTS[3]: 0.2}
    order = sort_for_labelling(DIGESTS, "spread", score_stds)
    assert order[0] == DIGESTS[2] and set(order[1:3]) == {DIGESTS[0], DIGESTS[3]} and order[3] == DIGESTS[1]
    drawn = sort_for_labelling(DIGESTS, "random", {})
    assert order[4:] == [digest for digest in drawn if digest not in score_stds]
    assert order[1:3] == [digest for digest in drawn if digest in order[1:3]]  # ties, too, are drawn


def test_another_order_is_refused():
    with pytest.raises(ValueError, match="must be one of random, spread, got 'best'"):
        sort_for_labelling(DIGESTS, "best", {})


def test_a_sessions_next_image_stays_until_it_is_labelled_and_comes_back_with_undo(tiny_checkpoint, tmp_path):
    session = bring(make_session(tmp_path / "session", SharedModels(tiny_checkpoint)), [*FIVE, ("broken.png", b"x")])
    assert len(session.labels.list_waiting("spread")) == 6  # nothing is known yet
    first = next(image for image in session.labels.list_waiting("spread") if image.name in NAMES)
    session.labels.folder.choose(session.uploads.find_image("broken.png").path, "broken.png", SKIPPED)
    assert session.labels.list_next("spread")[0] == first
    score_all(session)
    key = (session.scores.model.scorer_id, first.content_hash)
    session.scores.results[key] = replace(
        session.scores.results[key], row=replace(session.scores.results[key].row, score_std=0.0)
    )
    assert session.labels.list_waiting("spread")[-1] == first  # it would be the last by now
    assert session.labels.list_next("spread")[0] == session.labels.list_next("spread")[0] == first
    session.labels.folder.choose(first.path, first.name, "8")
    second, *others = session.labels.list_next("spread")
    assert second == session.labels.list_waiting("spread")[0] and len(others) == 3
    session.labels.folder.choose(others[0].path, others[0].name, "9")
    assert session.labels.undo("spread").startswith(f"Taken back: {others[0].name}, ")
    assert session.labels.list_next("spread")[0] == others[0] and second in session.labels.list_next("spread")


def test_nobody_is_asked_about_what_cannot_be_read(tiny_checkpoint, tmp_path):
    session = bring(make_session(tmp_path / "session", SharedModels(tiny_checkpoint)), [*FIVE, ("broken.png", b"x")])
    score_all(session)
    for order in ORDERS:
        assert sorted(image.name for image in session.labels.list_waiting(order)) == NAMES
