"""Scored images from folders, tables and zips."""

from pathlib import Path

import pytest
from PIL import Image

from hybridiqa.data.folders import BIN_NAMES, read_hybrid_folder, read_scored_folder, score_and_bin


def save_image(path: Path, color: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), color).save(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Artifact/1/a.png", (1.0, "Artifact/1")),
        ("Artifact/5/a.png", (5.0, "Artifact/5")),
        ("Perfect/1/a.png", (3.0, "Perfect/1")),
        ("Perfect/5/a.png", (7.0, "Perfect/5")),
        ("PERFECT/4/a.png", (6.0, "Perfect/4")),
        ("artifact/deep/er/2/x/y/a.png", (2.0, "Artifact/2")),
        ("8/a.png", (8.0, "8")),
        ("Perfect/8/a.png", (8.0, "8")),
        ("Artifact/9/a.png", (9.0, "9")),
        ("1/a.png", (1.0, "1")),
        ("7/a.png", (7.0, "7")),
        ("Perfect/4/2/a.png", (4.0, "Perfect/2")),
        ("Artifact/Perfect/3/a.png", (5.0, "Perfect/3")),
        ("Perfect/Artifact/3/a.png", (3.0, "Artifact/3")),
        ("4/Perfect/a.png", (4.0, "4")),
        ("Perfect/04/a.png", (6.0, "Perfect/4")),
        ("Perfect/4/3.5/a.png", (6.0, "Perfect/4")),
        ("Perfect/4/-1/a.png", (6.0, "Perfect/4")),
        ("Perfect/4/٣/a.png", (6.0, "Perfect/4")),
        ("Perfect/4/2nd/a.png", (6.0, "Perfect/4")),
        ("Artifact/6/a.png", None),
        ("Artifact/7/a.png", None),
        ("Perfect/6/a.png", None),
        ("0/a.png", None),
        ("Perfect/0/a.png", None),
        ("10/a.png", None),
        ("Perfect/4/2024/a.png", None),
        ("3.5/a.png", None),
        ("Perfect/a.png", None),
        ("Perfect/5.png", None),
        ("5.png", None),
        ("a.png", None),
    ],
)
def test_the_nearest_number_and_the_ladder_above_it_give_the_score(path, expected):
    assert score_and_bin(path) == expected
    assert expected is None or expected[1] in BIN_NAMES


def test_bin_names_are_fixed_in_number_and_order():
    assert (
        *("Artifact/1", "Artifact/2", "Artifact/3", "Artifact/4", "Artifact/5"),
        *("Perfect/1", "Perfect/2", "Perfect/3", "Perfect/4", "Perfect/5"),
        *("1", "2", "3", "4", "5", "6", "7", "8", "9"),
    ) == BIN_NAMES


def test_every_file_of_a_folder_ends_in_exactly_one_list(tmp_path):
    for name in ("Perfect/4/b.png", "Perfect/4/a.jpg", "Artifact/6/c.png", "d.webp", "8/no_suffix.png"):
        save_image(tmp_path / name)
    (tmp_path / "8" / "no_suffix.png").rename(tmp_path / "8" / "no_suffix")
    whole = (tmp_path / "Perfect/4/b.png").read_bytes()
    (tmp_path / "Perfect/4/cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "Perfect/4/text.jpg").write_text("not an image")
    (tmp_path / "Perfect/4/a.txt").write_text("a caption")
    (tmp_path / "Perfect/4/lost.png").symlink_to(tmp_path / "nowhere.png")
    for hidden in (".hidden.png", ".cache/4/x.png", "__MACOSX/Perfect/4/b.png"):
        save_image(tmp_path / hidden)
    contents = read_hybrid_folder(tmp_path)
    assert [record.relative_path for record in contents.records] == [
        "8/no_suffix",
        "Perfect/4/a.jpg",
        "Perfect/4/b.png",
    ]
    assert [record.group for record in contents.records] == ["8/no_suffix", "Perfect/4/a.jpg", "Perfect/4/b.png"]
    assert [record.score for record in contents.records] == [8.0, 6.0, 6.0]
    assert contents.unscored == ["Artifact/6/c.png", "d.webp"]
    assert [path for path, _ in contents.unreadable] == [
        "Perfect/4/cut.png",
        "Perfect/4/lost.png",
        "Perfect/4/text.jpg",
    ]
    assert contents.not_images == ["Perfect/4/a.txt"]


def test_a_group_pattern_names_the_groups_and_must_match_everywhere(tmp_path):
    save_image(tmp_path / "4" / "cat__1.png")
    save_image(tmp_path / "5" / "cat__2.png")
    assert {record.group for record in read_hybrid_folder(tmp_path, "([^/]+)__").records} == {"cat"}
    assert [record.group for record in read_hybrid_folder(tmp_path, "cat__[0-9]").records] == ["cat__1", "cat__2"]
    save_image(tmp_path / "5" / "dog.png")
    with pytest.raises(ValueError, match=r"no group in '5/dog.png'"):
        read_hybrid_folder(tmp_path, "([^/]+)__")


def test_a_table_gives_scores_groups_and_the_nearest_bin(tmp_path):
    for name in ("a.png", "sub/b.png", "c.png"):
        save_image(tmp_path / "images" / name)
    table = tmp_path / "scores.csv"
    table.write_text("name,mos,scene\na.png,2.5,s1\n./sub/b.png,11,s1\ngone.png,4,s2\n")
    columns = {"file_column": "name", "score_column": "mos", "group_column": "scene"}
    contents = read_scored_folder(tmp_path / "images", table, **columns)
    labels = [(record.relative_path, record.score, record.bin, record.group) for record in contents.records]
    assert labels == [("a.png", 2.5, "3", "s1"), ("sub/b.png", 11.0, "9", "s1")]
    assert (contents.unscored, contents.missing) == (["c.png"], ["gone.png"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,mos\na.png,1\n", "lacks the columns score"),
        ("file,score\na.png,good\n", "row 1"),
        ("file,score\na.png,nan\n", "row 1"),
        ("file,score\na.png\n", "row 1"),
        ("file,score,group\na.png,1,\n", "row 1"),
        ("file,score\na.png,1\n./a.png,2\n", "listed twice"),
        ("", "lacks the columns file, score"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path, text, message):
    save_image(tmp_path / "a.png")
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_scored_folder(tmp_path, tmp_path / "scores.csv")
