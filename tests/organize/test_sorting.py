"""organize.py sort and undo: files go where they belong, none is lost or overwritten, and all comes back."""

import os
from pathlib import Path

import pytest
from scored_files import make_files, make_scores, sort, undo
from trials.organize_trial import manifest

from hybridiqa.commands import organize
from hybridiqa.organize.sorting import find_bin, name_bins
from hybridiqa.scores.score_file import ScoreRow, write_scores


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture
def library(tmp_path) -> Path:
    make_files(tmp_path / "lib", "a.png", "a.txt", "album/b.PNG", "album/b.TXT", "album/b.json", "album/c.jpg")
    return tmp_path / "lib"


@pytest.fixture
def scores(library) -> str:
    paths = {library / "a.png": 2.9, library / "album" / "b.PNG": 3.0, library / "album" / "c.jpg": 7.0}
    return make_scores(library.parent / "scores.csv", paths)


def test_bins_are_named_by_range_and_an_edge_belongs_above():
    assert name_bins([3, 5.5, 7]) == ["below_3", "3_to_5.5", "5.5_to_7", "7_and_above"]
    assert name_bins([0.0]) == ["below_0", "0_and_above"]
    values = [find_bin(ScoreRow("a", value), "score", [3, 5]) for value in (2.99, 3, 4.99, 5)]
    assert values == [0, 1, 1, 2]


@pytest.mark.parametrize("mode", ["copy", "move", "symlink", "hardlink"])
def test_images_go_into_bins_with_their_sidecars_and_come_back(library, scores, mode, capsys):
    before = manifest(library.parent)
    assert sort(scores, library.parent / "out", "--mode", mode) == 0
    out = library.parent / "out"
    expected = ["3_to_5/album/b.PNG", "3_to_5/album/b.TXT", "3_to_5/album/b.json"]
    assert tree(out) == [*expected, "7_and_above/album/c.jpg", "below_3/a.png", "below_3/a.txt"]
    assert (out / "below_3" / "a.png").read_text() == "content of lib/a.png"
    assert (out / "below_3" / "a.png").is_symlink() == (mode == "symlink")
    assert (library / "a.png").exists() == (mode != "move")
    if mode == "hardlink":
        assert (out / "below_3" / "a.png").samefile(library / "a.png")
    printed = capsys.readouterr().out
    assert "1  below_3" in printed and "undo with: python organize.py undo" in printed
    assert undo(scores) == 0
    after = manifest(library.parent)
    assert {name: after[name] for name in after if not name.endswith(".journal")} == before
    assert undo(scores) == 0
    assert "there was nothing to undo" in capsys.readouterr().out


def test_times_and_permissions_are_kept(library, scores):
    os.utime(library / "a.png", ns=(10**18, 10**18))
    (library / "a.png").chmod(0o640)
    assert sort(scores, library.parent / "out") == 0
    copy = (library.parent / "out" / "below_3" / "a.png").stat()
    assert copy.st_mtime_ns == 10**18 and copy.st_mode & 0o777 == 0o640


def test_a_dry_run_prints_every_action_and_touches_nothing(library, scores, capsys):
    before = manifest(library.parent)
    assert sort(scores, library.parent / "out", "--dry_run") == 0
    assert manifest(library.parent) == before
    printed = capsys.readouterr().out
    assert f"below_3: copy {library}/a.txt -> {library.parent}/out/below_3/a.txt" in printed
    assert "nothing was done" in printed


def test_a_second_copy_finds_all_there_and_writes_no_journal(library, scores, capsys):
    assert sort(scores, library.parent / "out") == 0
    (library.parent / "out" / "below_3" / "a.txt").unlink()  # as if a kill had come in between
    before = manifest(library)
    assert sort(scores, library.parent / "out") == 0
    assert (library.parent / "out" / "below_3" / "a.txt").exists()
    assert sort(scores, library.parent / "out") == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert manifest(library) == before
    assert len(list(library.parent.glob("*.journal"))) == 2
    assert not [name for name in tree(library.parent / "out") if "_2" in name]


def test_nothing_is_overwritten_a_taken_name_gets_a_number_for_image_and_sidecars(library, scores, capsys):
    make_files(library.parent / "out", "below_3/a.txt", "3_to_5/album/B.png", "below_3/a_2.json")
    before = manifest(library.parent / "out")
    assert sort(scores, library.parent / "out", "--mode", "move") == 0
    out = library.parent / "out"
    assert {name: value for name, value in manifest(out).items() if name in before} == before
    assert (out / "below_3" / "a_2.png").exists() and (out / "below_3" / "a_2.txt").exists()
    assert (out / "3_to_5" / "album" / "b_2.PNG").exists() and (out / "3_to_5" / "album" / "b_2.json").exists()
    assert "2 got another name" in capsys.readouterr().out
    assert undo(scores) == 0
    assert manifest(out) == before


def test_sidecars_that_differ_in_case_stay_together_when_a_killed_copy_goes_on(library, scores):
    (library / "a.TXT").write_text("another")
    if len(tree(library)) == 6:
        pytest.skip("this file system takes a.txt and a.TXT for the same")
    assert sort(scores, library.parent / "out") == 0
    copied = tree(library.parent / "out")
    assert {"below_3/a.png", "below_3/a.txt", "below_3/a.TXT"} < set(copied)
    (library.parent / "out" / "below_3" / "a.txt").unlink()
    assert sort(scores, library.parent / "out") == 0
    assert tree(library.parent / "out") == copied


def test_two_roots_with_the_same_names_collide_and_both_are_kept(tmp_path):
    for root in ("one", "two"):
        make_files(tmp_path / root, "x/a.png", "x/a.txt")
    paths = {tmp_path / root / "x" / "a.png": 4.0 for root in ("one", "two")}
    scores = make_scores(tmp_path / "scores.jsonl", paths)
    roots = ["--root", str(tmp_path / "one"), "--root", str(tmp_path / "two")]
    for _ in range(2):  # the second time all is there
        assert sort(scores, tmp_path / "out", *roots) == 0
        kept = tmp_path / "out" / "3_to_5" / "x"
        assert tree(kept) == ["a.png", "a.txt", "a_2.png", "a_2.txt"]
        assert (kept / "a_2.png").read_text() == "content of two/x/a.png"


def test_a_sidecar_of_several_images_goes_with_each_of_them(tmp_path):
    make_files(tmp_path / "lib", "a.png", "a.jpg", "a.txt", "b.png", "b.jpg", "b.txt")
    lib = tmp_path / "lib"
    scores = make_scores(tmp_path / "s.csv", {lib / "a.png": 2.0, lib / "a.jpg": 8.0, lib / "b.png": 2.0})
    before = manifest(lib)
    assert sort(scores, tmp_path / "out", "--mode", "move") == 0
    assert tree(lib) == ["b.jpg", "b.txt"]  # which was not scored, and needs its caption
    expected = ["7_and_above/a.jpg", "7_and_above/a.txt", "below_3/a.png", "below_3/a.txt"]
    assert tree(tmp_path / "out") == [*expected, "below_3/b.png", "below_3/b.txt"]
    assert undo(scores, "--dry_run") == 0
    assert undo(scores) == 0
    assert manifest(lib) == before and not (tmp_path / "out").exists()


def test_what_leads_out_of_the_roots_is_refused_and_the_rest_is_done(tmp_path, capsys):
    make_files(tmp_path / "lib", "good.png", "linked.png")
    make_files(tmp_path / "secret", "s.png", "s.txt")
    lib = tmp_path / "lib"
    (lib / "out.png").symlink_to(tmp_path / "secret" / "s.png")
    (lib / "in.png").symlink_to(lib / "linked.png")
    (lib / "loop.png").symlink_to(lib / "loop.png")
    (lib / "folder.png").mkdir()
    (lib / "linked_folder").symlink_to(tmp_path / "secret")
    os.mkfifo(lib / "pipe.png")
    (lib / "good.txt").symlink_to(tmp_path / "secret" / "s.txt")
    names = ["good", "out", "in", "loop", "folder", "pipe", "linked_folder/s", "../secret/s", "gone"]
    scores = make_scores(tmp_path / "s.csv", {f"{lib}/{name}.png": 8.0 for name in names})
    before = manifest(tmp_path)
    assert sort(scores, tmp_path / "out", "--root", str(lib), "--dry_run") == 1
    printed = capsys.readouterr().out
    assert sort(scores, tmp_path / "out", "--root", str(lib), "--mode", "move") == 1
    assert tree(tmp_path / "out") == ["7_and_above/good.png"]
    assert undo(scores) == 0
    assert sort(scores, tmp_path / "out", "--root", str(lib), "--journal", str(tmp_path / "second.journal")) == 1
    assert tree(tmp_path / "out") == ["7_and_above/good.png", "7_and_above/in.png"]
    assert (tmp_path / "out" / "7_and_above" / "in.png").read_text() == "content of lib/linked.png"
    assert not (tmp_path / "out" / "7_and_above" / "in.png").is_symlink()
    assert organize.main(["undo", str(tmp_path / "second.journal")]) == 0
    after = manifest(tmp_path)
    assert {name: after[name] for name in before} == before
    for reason in ("out.png: a link that leads out of", "linked_folder/s.png: outside of", "loop.png: no such file"):
        assert reason in printed
    for reason in ("folder.png: a folder", "pipe.png: not a regular file", "good.txt: a link that leads out of"):
        assert reason in printed


def test_a_bin_that_is_a_link_is_not_written_through(library, scores, capsys):
    elsewhere = library.parent / "elsewhere"
    elsewhere.mkdir()
    (library.parent / "out").mkdir()
    (library.parent / "out" / "below_3").symlink_to(elsewhere)
    assert sort(scores, library.parent / "out", "--mode", "move") == 1
    assert "leads through a link" in capsys.readouterr().out
    assert not list(elsewhere.iterdir()) and (library / "a.png").exists()
    assert (library.parent / "out" / "3_to_5" / "album" / "b.PNG").exists()


def test_sorting_inside_of_the_tree_and_sorting_again_moves_nothing_twice(library, capsys):
    paths = {library / "a.png": 2.0, library / "album" / "b.PNG": 4.0}
    scores = make_scores(library / "scores.csv", paths)
    before = manifest(library)
    assert sort(scores, library, "--mode", "move") == 0
    assert tree(library / "below_3") == ["a.png", "a.txt"] and (library / "scores.csv").exists()
    sorted_scores = make_scores(library / "sorted.csv", {library / "below_3" / "a.png": 2.0})
    assert sort(sorted_scores, library, "--mode", "move", "--root", str(library / "below_3")) == 0
    assert "(1 more were so already)" in capsys.readouterr().out
    assert undo(str(library / "scores.csv")) == 0
    assert {name: value for name, value in manifest(library).items() if name in before} == before


@pytest.mark.parametrize("name", [b"-rf.png", b"two\nlines.png", "😀 ü.png".encode(), b"caf\xe9.png", b"\\x41.png"])
@pytest.mark.parametrize("mode", ["copy", "move", "symlink"])
def test_any_name_goes_and_comes_back(tmp_path, name, mode, monkeypatch):
    (tmp_path / "lib").mkdir()
    monkeypatch.chdir(tmp_path / "lib")
    path = os.fsdecode(name)
    Path(path).write_text("content")
    Path(path).with_suffix(".txt").write_text("tags")
    scores = make_scores(tmp_path / "s.csv", {path: 4.0})  # relative to the working directory
    before = manifest(tmp_path / "lib")
    assert sort(scores, Path("../out"), "--mode", mode) == 0
    assert (tmp_path / "out" / "3_to_5" / path).read_text() == "content"
    monkeypatch.chdir("/")
    assert undo(scores) == 0
    assert manifest(tmp_path / "lib") == before and not (tmp_path / "out").exists()


def test_rows_without_the_number_are_counted_and_not_acted_on(library, capsys):
    rows = [ScoreRow(str(library / "a.png"), 4.0), ScoreRow("gone.png", 5.0, vanished=True)]
    rows += [ScoreRow("broken.png", error="not an image")]
    write_scores(library.parent / "s.parquet", rows)
    assert sort(str(library.parent / "s.parquet"), library.parent / "out") == 0
    assert "not looked at: 1 not scored (error), 1 vanished" in capsys.readouterr().out
    assert sort(str(library.parent / "s.parquet"), library.parent / "out", "--by", "percentile") == 2
    assert "no image has a percentile to go by" in capsys.readouterr().err


def test_percentiles_sort_as_scores_do(library):
    rows = [ScoreRow(str(library / "a.png"), 4.0, percentile=95.0), ScoreRow(str(library / "album/c.jpg"), 5.0)]
    write_scores(library.parent / "s.csv", rows)
    into = ["--into", str(library.parent / "out"), "--by", "percentile", "--edges", "50", "90"]
    assert organize.main(["sort", str(library.parent / "s.csv"), *into]) == 0
    assert tree(library.parent / "out") == ["90_and_above/a.png", "90_and_above/a.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--edges", "3", "3"], "each above the one before"),
        (["--edges", "3", "nan"], "each above the one before"),
        (["--into", "scores.csv"], "--into must be a folder"),
        (["--root", "nowhere"], "--root must be a folder"),
        (["--journal", "scores.csv"], "there already"),
        (["--journal", "nowhere/x"], "no folder"),
        (["--scorer", "other"], "there are no scores of"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(library, scores, options, message, capsys, monkeypatch):
    monkeypatch.chdir(library.parent)
    before = manifest(library.parent)
    assert sort(scores, library.parent / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert manifest(library.parent) == before


def test_two_scorers_in_one_file_need_a_choice(library, capsys):
    rows = [ScoreRow(str(library / "a.png"), score, scorer=scorer) for score, scorer in ((2.0, "one"), (8.0, "two"))]
    write_scores(library.parent / "s.csv", rows)
    assert sort(str(library.parent / "s.csv"), library.parent / "out") == 2
    assert "one; two" in capsys.readouterr().err
    assert sort(str(library.parent / "s.csv"), library.parent / "out", "--scorer", "two") == 0
    assert tree(library.parent / "out") == ["7_and_above/a.png", "7_and_above/a.txt"]


def test_undo_refuses_file_by_file_what_has_changed(library, scores, capsys):
    out = library.parent / "out"
    assert sort(scores, out, "--mode", "move") == 0
    (out / "below_3" / "a.png").write_text("edited")
    (library / "album" / "c.jpg").write_text("a new one of the same name")
    (out / "3_to_5" / "album" / "b.json").unlink()
    assert undo(scores) == 1
    printed = capsys.readouterr().out
    assert "a.png: it has changed since" in printed and "c.jpg now" in printed and "b.json: it is no longer" in printed
    assert (library / "a.txt").exists() and (library / "album" / "b.PNG").exists()
    assert (out / "below_3" / "a.png").read_text() == "edited"
    assert (out / "7_and_above" / "album" / "c.jpg").read_text() == "content of lib/album/c.jpg"
    assert (library / "album" / "c.jpg").read_text() == "a new one of the same name"


def test_undo_does_not_remove_a_copy_that_has_become_the_only_one(library, scores, capsys):
    assert sort(scores, library.parent / "out") == 0
    (library / "a.png").unlink()
    assert undo(scores) == 1
    assert "the last of its kind" in capsys.readouterr().out
    assert tree(library.parent / "out") == ["below_3/a.png"]


def test_a_folder_that_holds_something_new_stays(library, scores, capsys):
    assert sort(scores, library.parent / "out") == 0
    (library.parent / "out" / "below_3" / "mine").touch()
    assert undo(scores) == 1
    assert tree(library.parent / "out") == ["below_3/mine"]
    assert "not empty" in capsys.readouterr().out
