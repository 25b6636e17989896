"""organize.py tag and embed: one tag in a caption, the score in a picture, and both taken back."""

import os
from pathlib import Path

import pytest
from factories import make_picture
from PIL import Image
from scored_files import make_files, make_scores, read_embedded_score, undo
from trials.organize_trial import manifest

from hybridiqa.commands import organize
from hybridiqa.scores.score_file import ScoreRow, write_scores

TAGS = ["worst", "low", "good", "best"]


def tag(scores: str, *options: str) -> int:
    return organize.main(["tag", scores, "--edges", "3", "5", "7", "--tags", *TAGS, *options])


@pytest.fixture
def library(tmp_path) -> Path:
    make_files(tmp_path / "lib", "a.png", "b.png", "c.png", "d.png")
    (tmp_path / "lib" / "a.txt").write_bytes(b"1girl, best, solo\r\n")
    (tmp_path / "lib" / "b.TXT").write_bytes(b"\xef\xbb\xbfold,  Good\n")
    return tmp_path / "lib"


def scores_of(library: Path, *values: float) -> str:
    paths = [library / f"{name}.png" for name in "abcd"]
    return make_scores(library.parent / "scores.csv", dict(zip(paths, values, strict=False)))


def test_captions_get_one_tag_and_a_second_run_changes_nothing(library, capsys):
    scores = scores_of(library, 2.0, 6.0, 8.0)
    before = manifest(library)
    assert tag(scores) == 0
    assert (library / "a.txt").read_bytes() == b"1girl, worst, solo\r\n"
    assert (library / "b.TXT").read_bytes() == b"\xef\xbb\xbfold,  Good\n"
    assert (library / "c.txt").read_bytes() == b"best"
    assert not (library / "b.txt").exists() and not (library / "d.txt").exists()
    assert "0  good (1 more were so already)" in capsys.readouterr().out
    after = manifest(library)
    assert tag(scores) == 0
    assert manifest(library) == after
    assert "nothing was changed" in capsys.readouterr().out
    assert undo(scores) == 0
    assert manifest(library) == before


def test_scores_that_have_changed_change_the_tag(library):
    assert tag(scores_of(library, 2.0, 6.0, 8.0)) == 0
    assert tag(scores_of(library, 8.0, 2.0, 4.0)) == 0
    assert (library / "a.txt").read_bytes() == b"1girl, best, solo\r\n"
    assert (library / "b.TXT").read_bytes() == b"\xef\xbb\xbfold,  worst\n"
    assert (library / "c.txt").read_bytes() == b"low"


def test_other_captions_and_places_can_be_chosen(library):
    (library / "a.caption").write_text("A girl.")
    assert tag(scores_of(library, 8.0), "--caption_suffix", ".caption", "--position", "last") == 0
    assert (library / "a.caption").read_text() == "A girl., best"
    assert (library / "a.txt").read_bytes() == b"1girl, best, solo\r\n"


def test_a_caption_in_another_encoding_is_left_as_it_is(library, capsys):
    (library / "a.txt").write_bytes("schön".encode("latin-1"))
    assert tag(scores_of(library, 8.0, 8.0)) == 1
    assert "a.png: not a caption in UTF-8" in capsys.readouterr().out
    assert (library / "a.txt").read_bytes() == "schön".encode("latin-1")
    assert (library / "b.TXT").read_bytes() == b"\xef\xbb\xbfold,  best\n"


def test_two_images_that_share_a_caption_must_agree(library, capsys):
    make_files(library, "a.jpg", "c.jpg")
    names = {"a.png": 8.0, "a.jpg": 2.0, "c.png": 6.0, "c.jpg": 6.5}
    scores = make_scores(library.parent / "s.csv", {library / name: score for name, score in names.items()})
    assert tag(scores) == 1
    printed = capsys.readouterr().out
    assert "a.png: " in printed and "which makes it worst, not best" in printed
    assert (library / "c.txt").read_bytes() == b"good" and "1  good (1 more were so already)" in printed
    assert (library / "a.txt").read_bytes() == b"1girl, worst, solo\r\n"  # rows are sorted: a.jpg comes first


def test_a_caption_that_is_a_link_stays_one(library):
    (library / "d.txt").symlink_to("a.txt")
    assert tag(make_scores(library.parent / "s.csv", {library / "d.png": 4.0})) == 0
    assert (library / "d.txt").is_symlink() and (library / "a.txt").read_bytes() == b"1girl, low, solo\r\n"


def test_an_image_that_is_gone_gets_no_caption(library):
    assert tag(make_scores(library.parent / "s.csv", {library / "gone.png": 4.0, library / "c.png": 4.0})) == 1
    assert not (library / "gone.txt").exists() and (library / "c.txt").exists()


def test_undo_leaves_a_caption_that_was_edited_since(library, capsys):
    scores = scores_of(library, 2.0, 2.0)
    assert tag(scores) == 0
    (library / "a.txt").write_text("1girl, worst, solo, hat")
    assert undo(scores) == 1
    assert (library / "a.txt").read_text() == "1girl, worst, solo, hat"
    assert (library / "b.TXT").read_bytes() == b"\xef\xbb\xbfold,  Good\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tags", "a", "b"], "3 --edges make 4 bins and need as many --tags, got 2"),
        (["--tags", "a", "b", "c", "A"], "must differ"),
        (["--tags", "a", "b", "c", "d,e"], "a tag is a word"),
        (["--caption_suffix", "txt"], "begins with a dot"),
    ],
)
def test_wrong_tags_are_told_before_anything_is_done(library, options, message, capsys):
    before = manifest(library)
    assert tag(scores_of(library, 2.0), *options) == 2
    assert message in capsys.readouterr().err and manifest(library) == before


def test_scores_are_embedded_read_back_and_taken_out_again(tmp_path, capsys):
    for name in ("a.png", "b.jpg", "c.webp", "d.gif", "wrong suffix.jpg"):
        make_picture(40, 30).save(tmp_path / name, "PNG" if "wrong" in name else None)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    (tmp_path / "a.png").chmod(0o640)
    os.utime(tmp_path / "a.png", ns=(10**18, 10**18))
    names = ["a.png", "b.jpg", "c.webp", "d.gif", "wrong suffix.jpg", "broken.png"]
    rows = [ScoreRow(str(tmp_path / name), number + 0.5, scorer="grid") for number, name in enumerate(names)]
    write_scores(tmp_path / "s.csv", rows)
    before = manifest(tmp_path)
    assert organize.main(["embed", str(tmp_path / "s.csv")]) == 1
    printed = capsys.readouterr().out
    assert "4  score embedded" in printed
    assert "d.gif: not supported" in printed and "broken.png: a PNG that is cut off" in printed
    scores = [read_embedded_score((tmp_path / name).read_bytes()) for name in names[:5]]
    assert scores == [0.5, 1.5, 2.5, None, 4.5]
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["hybridIQA"] == "score=0.500, scorer=grid"
    state = (tmp_path / "a.png").stat()
    assert state.st_mtime_ns == 10**18 and state.st_mode & 0o777 == 0o640
    after = manifest(tmp_path)
    assert organize.main(["embed", str(tmp_path / "s.csv")]) == 1
    assert manifest(tmp_path) == after
    assert undo(str(tmp_path / "s.csv")) == 0
    assert {name: value for name, value in manifest(tmp_path).items() if name in before} == before
    assert (tmp_path / "a.png").stat().st_mtime_ns == 10**18


def test_a_linked_image_gets_its_score_and_the_link_stays(tmp_path):
    make_picture(40, 30).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    scores = make_scores(tmp_path / "s.csv", {tmp_path / "a.png": 4.0, tmp_path / "b.png": 4.0})
    assert organize.main(["embed", scores]) == 0
    assert (tmp_path / "b.png").is_symlink() and read_embedded_score((tmp_path / "a.png").read_bytes()) == 4.0


def test_embed_and_tag_have_dry_runs(library, capsys):
    scores = scores_of(library, 2.0, 2.0, 2.0)
    make_picture(40, 30).save(library / "c.png")
    before = manifest(library.parent)
    assert tag(scores, "--dry_run") == 0
    assert organize.main(["embed", scores, "--dry_run"]) == 1  # a.png and b.png are no pictures
    assert manifest(library.parent) == before
    printed = capsys.readouterr().out
    assert f"worst: rewrite {library}/a.txt" in printed and f"worst: create {library}/c.txt" in printed
    assert f"score embedded: rewrite {library}/c.png" in printed


def test_a_read_only_caption_is_left_and_named(library, monkeypatch, capsys):
    before = manifest(library)
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("a.txt"))  # root may write anything
    assert tag(scores_of(library, 2.0)) == 1
    assert "a.png: a.txt: it is read-only" in capsys.readouterr().out
    assert manifest(library) == before
