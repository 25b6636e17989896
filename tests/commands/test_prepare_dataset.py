"""The command from scored images to a dataset, and the way back out of it."""

import json
import shutil
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from factories import make_picture
from PIL import Image, ImageOps

from hybridiqa.commands.prepare_dataset import main, parse_arguments
from hybridiqa.data.loading import dataset_on_device, load_prepared


@pytest.fixture(autouse=True)
def datasets_cache_stays_unused(tmp_path_factory, monkeypatch):
    """Check that nothing depends on the shared cache, nor is left in it."""
    cache_dir = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache_dir)
    yield
    assert not list(cache_dir.iterdir())


def save_scored_folder(folder: Path, num_images: int = 10) -> Path:
    for bin_name in ("Artifact/2", "Perfect/4", "9"):
        (folder / bin_name).mkdir(parents=True)
        for index in range(num_images):
            Image.new("RGB", (12 + index % 2, 8), (index, 100, 200)).save(folder / bin_name / f"{index}.png")
    return folder


def run(*args) -> int:
    return main([str(arg) for arg in args])


def only_row(source: Path, output_dir: Path) -> dict:
    """Return the row of a source of one image, which stands in `9/`."""
    assert run(source, "--output_dir", output_dir, "--validation_fraction", 0, "--test_fraction", 0) == 0
    splits = load_prepared(output_dir)
    assert list(splits) == ["train"] and len(splits["train"]) == 1
    return splits["train"][0]


def test_a_scored_folder_becomes_stratified_splits_that_hold_the_images(tmp_path, capsys):
    source = save_scored_folder(tmp_path / "source")
    assert run(source, "--output_dir", tmp_path / "out") == 0
    shutil.rmtree(source)
    (tmp_path / "out").rename(tmp_path / "moved")
    splits = load_prepared(tmp_path / "moved")
    assert {name: len(split) for name, split in splits.items()} == {"train": 24, "validation": 3, "test": 3}
    for name in ("validation", "test"):
        assert sorted(splits[name]["score"]) == [2.0, 6.0, 9.0]
    row = next(row for row in splits["train"] if row["path"] == "Perfect/4/3.png" or row["path"] == "Perfect/4/5.png")
    assert row["image"].mode == "RGB" and row["image"].getpixel((0, 0)) == (int(row["path"][-5]), 100, 200)
    assert splits["train"].features["bin"].int2str(row["bin"]) == "Perfect/4"
    printed = capsys.readouterr().out
    assert "train: 24 images in 24 groups" in printed
    assert "Artifact/2: 8  Perfect/4: 8  9: 8" in printed


def test_the_device_function_gives_uint8_images_and_float32_scores(tmp_path):
    assert run(save_scored_folder(tmp_path / "source"), "--output_dir", tmp_path / "out") == 0
    split = dataset_on_device(load_prepared(tmp_path / "out")["train"], torch.device("cpu"))
    row = split[0]
    assert (row["image"].dtype, tuple(row["image"].shape[:2])) == (torch.uint8, (3, 8))
    assert (row["score"].dtype, row["score"].shape) == (torch.float32, ())
    mixed = split[: len(split)]
    assert isinstance(mixed["image"], list) and {tuple(i.shape) for i in mixed["image"]} == {(3, 8, 12), (3, 8, 13)}
    assert mixed["score"].dtype == torch.float32 and mixed["score"].shape == (24,)
    equal = split.filter(lambda path: path.endswith("0.png"), input_columns="path", keep_in_memory=True)[:]
    assert equal["image"].dtype == torch.uint8 and equal["image"].shape[1:] == (3, 8, 12)
    assert equal["image"][0, :, 0, 0].tolist() == [0, 100, 200]


def test_a_turned_image_is_embedded_upright(tmp_path):
    (tmp_path / "source" / "9").mkdir(parents=True)
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255  # the left half is white; turned clockwise (6) it is the upper half
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "source" / "9" / "a.jpg", exif=exif)
    image = only_row(tmp_path / "source", tmp_path / "out")["image"]
    assert image.size == (16, 32)
    assert image.getpixel((8, 4))[0] > 250 and image.getpixel((8, 28))[0] < 5


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("a.png", Image.new("RGBA", (4, 4), (0, 0, 0, 51)), (204, 204, 204)),
        ("a.png", Image.new("LA", (4, 4), (0, 0)), (255, 255, 255)),
        ("a.png", Image.fromarray(np.full((4, 4), 40000, np.uint16)), (156, 156, 156)),
        ("a.tif", Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
        ("a.png", Image.new("1", (4, 4), 1), (255, 255, 255)),
        ("a.bmp", Image.new("RGB", (4, 4), (1, 2, 3)), (1, 2, 3)),
        ("a.gif", Image.new("L", (4, 4), 7), (7, 7, 7)),
    ],
)
def test_every_kind_of_image_is_embedded_as_the_scorer_sees_it(tmp_path, name, image, expected):
    (tmp_path / "source" / "9").mkdir(parents=True)
    image.save(tmp_path / "source" / "9" / name)
    assert only_row(tmp_path / "source", tmp_path / "out")["image"].getpixel((1, 1)) == expected


def test_plain_files_keep_their_bytes(tmp_path):
    (tmp_path / "source" / "9").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "source" / "9" / "a.jpg")
    original = (tmp_path / "source" / "9" / "a.jpg").read_bytes()
    only_row(tmp_path / "source", tmp_path / "out")
    split = load_prepared(tmp_path / "out")["train"].cast_column("image", datasets.Image(decode=False))
    assert split[0]["image"]["bytes"] == original


def test_what_is_left_out_is_listed_on_screen_and_in_the_report(tmp_path, capsys):
    source = save_scored_folder(tmp_path / "source")
    for index in range(12):
        Image.new("RGB", (4, 4)).save(source / f"unscored{index:02}.png")
    (source / "9" / "broken.png").write_bytes(b"nothing")
    (source / "9" / "a.txt").write_text("caption")
    assert run(source, "--output_dir", tmp_path / "out", "--seed", 3) == 1
    printed = capsys.readouterr().out
    assert "without a score: 12" in printed and "unscored09.png" in printed and "unscored10.png" not in printed
    assert "unreadable: 1" in printed and "9/broken.png: not an image" in printed
    assert "other files: 1" in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["source"] == str(source) and report["arguments"]["seed"] == 3
    assert len(report["unscored"]) == 12 and report["unreadable"][0]["path"] == "9/broken.png"
    assert report["not_images"] == ["9/a.txt"]
    assert report["splits"]["test"] == {
        "num_images": 3,
        "num_groups": 3,
        "bins": {"Artifact/2": 1, "Perfect/4": 1, "9": 1},
    }


def test_the_seed_and_not_the_number_of_workers_decides_the_splits(tmp_path):
    source = save_scored_folder(tmp_path / "source")
    for name, *options in (("a",), ("b", "--num_workers", 1), ("c", "--seed", 1)):
        assert run(source, "--output_dir", tmp_path / name, *options) == 0
    paths = {name: load_prepared(tmp_path / name)["train"]["path"][:] for name in "abc"}
    assert paths["a"] == paths["b"] != paths["c"]


def test_a_zip_is_read_like_the_folder_in_it(tmp_path):
    source = save_scored_folder(tmp_path / "source")
    shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    assert run(source, "--output_dir", tmp_path / "folder") == 0
    assert run(tmp_path / "packed.zip", "--output_dir", tmp_path / "zip") == 0
    for name, split in load_prepared(tmp_path / "folder").items():
        assert load_prepared(tmp_path / "zip")[name].to_list() == split.to_list()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "packed.zip", "source", "zip"]


def test_a_hub_dataset_is_fetched_and_its_zips_unpacked(tmp_path, monkeypatch):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    shutil.make_archive(str(snapshot / "data"), "zip", save_scored_folder(tmp_path / "source"))
    (snapshot / "README.md").write_text("card")
    monkeypatch.setattr("hybridiqa.data.sources.snapshot_download", lambda name, repo_type: str(snapshot))
    assert run("user/name", "--output_dir", tmp_path / "out") == 0
    assert all(path.startswith("data/") for path in load_prepared(tmp_path / "out")["train"]["path"])


def test_an_unreachable_hub_is_one_clear_line(tmp_path, monkeypatch, capsys):
    def fail(name, repo_type):
        raise ConnectionError("no network\nmany\nlines")

    monkeypatch.setattr("hybridiqa.data.sources.snapshot_download", fail)
    assert run("user/name", "--output_dir", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("prepare_dataset.py: error: ") and error.count("\n") == 1 and "no network" in error


def test_a_table_of_scores_serves_a_plain_folder_and_scenes_can_be_left_out(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    rows = ["name,mos,scene"]
    for index in range(12):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / "images" / f"{index}.png")
        rows.append(f"{index}.png,{1 + index / 4},scene{index // 3}")
    (tmp_path / "scores.csv").write_text("\n".join([*rows, "gone.png,3,scene9"]))
    columns = ("--file_column", "name", "--score_column", "mos", "--group_column", "scene")
    command = (tmp_path / "images", "--scores_csv", tmp_path / "scores.csv", *columns, "--output_dir")
    assert run(*command, tmp_path / "out", "--test_groups", "scene[13]", "--validation_fraction", 0.5) == 1
    splits = load_prepared(tmp_path / "out")
    assert set(splits["test"]["group"]) == {"scene1", "scene3"}
    assert {frozenset(splits[name]["group"]) for name in ("train", "validation")} == {
        frozenset({"scene0"}),
        frozenset({"scene2"}),
    }
    assert dict(zip(splits["test"]["path"], splits["test"]["score"], strict=True))["4.png"] == 2.0
    assert "in the table, not in the folder: 1\n    gone.png" in capsys.readouterr().out
    assert run(*command, tmp_path / "none", "--test_groups", "scene") == 2
    assert "no group matches" in capsys.readouterr().err
    named = ("--validation_groups", "scene[12]", "--test_fraction", 0.5)
    assert run(*command, tmp_path / "named", *named) == 1
    splits = load_prepared(tmp_path / "named")
    assert set(splits["validation"]["group"]) == {"scene1", "scene2"}
    assert {len(set(splits[name]["group"])) for name in ("train", "test")} == {1}
    both = ("--test_groups", "scene1", "--validation_groups", "scene[12]")
    assert run(*command, tmp_path / "both", *both) == 1
    assert {name: set(split["group"]) for name, split in load_prepared(tmp_path / "both").items()} == {
        "train": {"scene0", "scene3"},
        "validation": {"scene2"},
        "test": {"scene1"},
    }
    assert run(*command, tmp_path / "none", "--validation_groups", "scene9") == 2
    assert "no group matches --validation_groups 'scene9'" in capsys.readouterr().err


@pytest.mark.parametrize("form", [("synthesize", ["build"]), ("--synthesize_artifacts", [])], ids=["new", "old"])
def test_clean_images_become_a_dataset_in_two_commands(tmp_path, capsys, form):
    rng = np.random.default_rng(0)
    (tmp_path / "clean").mkdir()
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / "clean" / f"{index}.png")
    options = ("--versions_per_image", 5, "--num_workers", 1, "--max_size", 16)
    synthesize, build = form
    assert run(synthesize, tmp_path / "clean", "--output_dir", tmp_path / "distorted", *options) == 0
    printed = capsys.readouterr().out
    assert "4 clean and 20 distorted images" in printed and "--group_pattern '([^/]+)__'" in printed
    fractions = ("--validation_fraction", 0.25, "--test_fraction", 0.25)
    command = (*build, tmp_path / "distorted", "--output_dir", tmp_path / "out", "--group_pattern", "([^/]+)__")
    assert run(*command, *fractions) == 0
    splits = load_prepared(tmp_path / "out")
    assert {name: len(split) for name, split in splits.items()} == {"train": 12, "validation": 6, "test": 6}
    assert sorted(splits["test"]["score"]) == [1.0, 2.0, 3.0, 4.0, 5.0, 7.0]
    assert len({group for split in splits.values() for group in set(split["group"])}) == 4
    assert splits["test"][0]["image"].size == (16, 12)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "either a source or --synthesize_artifacts"),
        (("{source}", "--synthesize_artifacts", "{source}"), "either a source or --synthesize_artifacts"),
        (("{source}", "--validation_fraction", "0.6", "--test_fraction", "0.6"), "less than 1 together"),
        (("{source}", "--validation_fraction", "-0.1"), "0 or more"),
        (("{source}", "--group_pattern", "("), "no regular expression"),
        (("{source}", "--group_pattern", "nowhere"), "finds no group"),
        (("{source}", "--num_workers", "0"), "1 or more"),
        (("{source}", "--colour", "red"), "unrecognized arguments"),
        (("{source}/9",), "no image in"),
        (("{source}/9/0.png",), "a folder, a .zip or a Hub dataset's name is accepted"),
        (("nowhere",), "there is no folder or zip 'nowhere'"),
        (("{source}", "--scores_csv", "nowhere.csv"), "nowhere.csv"),
        (("--synthesize_artifacts", "nowhere"), "'nowhere' is not a folder"),
        (("--synthesize_artifacts", "{source}", "--crop_size", "64"), "crops per image and their size go together"),
        (("{source}", "--mixes_per_image", "3"), "--mixes_per_image has no effect here"),
        (("--synthesize_artifacts", "{source}", "--deduplicate"), "--deduplicate has no effect here"),
        (("build",), "the following arguments are required: source"),
        (("build", "{source}", "--mixes_per_image", "3"), "unrecognized arguments: --mixes_per_image 3"),
        (("build", "{source}", "--synthesize_artifacts", "{source}"), "unrecognized arguments"),
        (("build", "{source}", "--group_column", "scene"), "--group_column has no effect here"),
        (("build", "{source}", "--private"), "--private has no effect here"),
        (("build", "{source}", "--num_workers", "0"), "argument --num_workers: got 0; accepted: 1 or more"),
        (("build", "{source}", "--test_fraction", "1"), "argument --test_fraction: got 1; accepted: 0 or more"),
        (("synthesize", "{source}", "--deduplicate"), "unrecognized arguments: --deduplicate"),
        (("synthesize", "nowhere"), "'nowhere' is not a folder"),
        (("push", "{source}", "you/data"), "unrecognized arguments: --output_dir"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing_behind(tmp_path, capsys, args, message):
    source = save_scored_folder(tmp_path / "source")
    before = sorted(tmp_path.rglob("*"))
    assert run(*(arg.format(source=source) for arg in args), "--output_dir", tmp_path / "deep" / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("prepare_dataset.py: error: ") and error.count("\n") == 1
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_half_way_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    source = save_scored_folder(tmp_path / "source")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(datasets.DatasetDict, "save_to_disk", fail)
    assert run(source, "--output_dir", tmp_path / "out") == 2
    assert "error: disk full" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_used_output_folder_and_an_unsafe_zip_are_refused(tmp_path, capsys):
    source = save_scored_folder(tmp_path / "source")
    assert run(source, "--output_dir", source) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil.png", b"x")
    assert run(tmp_path / "evil.zip", "--output_dir", tmp_path / "out") == 2
    assert "leads out of the folder" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.zip", "source"]


def test_distorted_versions_are_not_put_among_the_clean_images(tmp_path, capsys):
    clean = save_scored_folder(tmp_path / "clean")
    (tmp_path / "link").symlink_to(clean)
    before = sorted(tmp_path.rglob("*"))
    for output_dir in (clean / "d", tmp_path / "link" / "deep" / "d", tmp_path / "x" / ".." / "clean" / "d"):
        assert run("--synthesize_artifacts", clean, "--output_dir", output_dir) == 2
        assert "lies in the folder of clean images" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_only_prepared_datasets_are_loaded(tmp_path):
    with pytest.raises(ValueError, match="not a prepared dataset"):
        load_prepared(tmp_path)
    datasets.Dataset.from_dict({"score": [1.0]}).save_to_disk(tmp_path / "single")
    with pytest.raises(ValueError, match="a single split"):
        load_prepared(tmp_path / "single")
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"score": [1.0]})}).save_to_disk(tmp_path / "lacking")
    with pytest.raises(ValueError, match=r"no column \['image'\]"):
        load_prepared(tmp_path / "lacking")


def save_images_and_their_copies(folder: Path, num_images: int = 9) -> Path:
    """Save images in `9/` and of each a small mirrored copy in `Perfect/2/`, whose names differ."""
    for bin_name in ("9", "Perfect/2"):
        (folder / bin_name).mkdir(parents=True)
    for seed in range(num_images):
        image = make_picture(120, 80, seed)
        image.save(folder / "9" / f"{seed}.png")
        ImageOps.mirror(image).resize((90, 60)).save(folder / "Perfect/2" / f"copy{seed}.jpg", quality=40)
    return folder


def seeds_of(split: datasets.Dataset) -> list[str]:
    return sorted(Path(path).stem[-1] for path in split["path"])


def test_deduplicate_keeps_near_duplicates_on_one_side_and_lists_them(tmp_path, capsys):
    source = save_images_and_their_copies(tmp_path / "source")
    shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    fractions = ("--validation_fraction", 0.25, "--test_fraction", 0.25)
    for name, given in (("folder", source), ("zip", tmp_path / "packed.zip")):
        assert run(given, "--output_dir", tmp_path / name, "--deduplicate", *fractions) == 0
        assert "near duplicates: 18 images merged into 9 groups" in capsys.readouterr().out
        splits = load_prepared(tmp_path / name)
        assert sorted(seed for split in splits.values() for seed in seeds_of(split)[::2]) == list("012345678")
        assert all(seeds_of(split)[::2] == seeds_of(split)[1::2] for split in splits.values())
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert report["near_duplicates"] == [[f"9/{seed}.png", f"Perfect/2/copy{seed}.jpg"] for seed in range(9)]
        assert sum(split["num_groups"] for split in report["splits"].values()) == 9


def test_near_duplicates_are_looked_for_only_where_asked(tmp_path, capsys):
    source = save_images_and_their_copies(tmp_path / "source")
    assert run(source, "--output_dir", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["near_duplicates"] is None
    assert "near duplicates" not in capsys.readouterr().out
    assert sum(len(set(split["group"])) for split in load_prepared(tmp_path / "out").values()) == 18


def test_what_is_near_to_a_test_image_becomes_test_with_its_group(tmp_path, capsys):
    source = save_images_and_their_copies(tmp_path / "source") / "9"
    shutil.copytree(source.parent / "Perfect/2", source / "copies")
    rows = ["file,score,scene"]
    rows += [f"{seed}.png,5,scene{seed}" for seed in range(9)]
    rows += [f"copies/copy{seed}.jpg,4,{'elsewhere' if seed < 3 else 'far'}" for seed in range(4)]
    (tmp_path / "scores.csv").write_text("\n".join(rows))
    command = (source, "--scores_csv", tmp_path / "scores.csv", "--group_column", "scene", "--deduplicate")
    assert run(*command, "--output_dir", tmp_path / "out", "--test_groups", "scene1") == 0
    splits = load_prepared(tmp_path / "out")
    assert seeds_of(splits["test"]) == list("001122")  # the copies of 0, 1 and 2 were a group before
    assert set(splits["test"]["group"]) == {"elsewhere"}
    assert sorted(seeds_of(splits["train"]) + seeds_of(splits["validation"])) == list("3345678")
    assert run(*command, "--output_dir", tmp_path / "none", "--test_groups", "nowhere") == 2
    assert "no group matches" in capsys.readouterr().err


def test_both_forms_of_a_command_line_say_the_same():
    def parse(line: str) -> dict:
        return {name: value for name, value in vars(parse_arguments(line.split())).items() if value is not None}

    options = "--output_dir out --seed 3 --num_workers 2"
    card = "--license mit --private"
    build = f"{options} --deduplicate --test_fraction 0.2 --group_pattern x --push_to_hub you/data {card}"
    synthesize = f"{options} --versions_per_image 5 --crops_per_image 2 --crop_size 64"
    for new, old in (
        (f"build images {build}", f"images {build}"),
        (f"build {build} ./build", f"{build} ./build"),
        (f"synthesize clean {synthesize}", f"--synthesize_artifacts clean {synthesize}"),
        (f"synthesize {synthesize} clean", f"{synthesize} --synth clean"),
        (f"push out you/data {card}", f"--output_dir out --push_to_hub you/data {card}"),
    ):
        assert parse(new).items() <= parse(old).items(), new


@pytest.mark.parametrize("word", ["build", "synthesize", "push"])
def test_a_command_that_is_also_a_folder_is_refused_and_the_folder_is_named(tmp_path, monkeypatch, capsys, word):
    save_scored_folder(tmp_path / word)
    monkeypatch.chdir(tmp_path)
    for words in ([word], [word, "images"]):
        assert run(*words, "--output_dir", "out") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"./{word}" in error
    assert run(f"./{word}", "--output_dir", "old") == 0
    assert run("build", f"./{word}", "--output_dir", "new") == (2 if word == "build" else 0)


def test_help_shows_the_commands_and_that_the_form_without_one_goes_on(capsys):
    for words, expected in (
        ([], ("build images --scores_csv", "The form without a command goes on to be understood")),
        (["build"], ("--deduplicate", "koniq10k: KonIQ-10k")),
        (["synthesize"], ("CLEAN_DIR", "--crop_size")),
        (["push"], ("USER/NAME", "--license")),
    ):
        with pytest.raises(SystemExit) as stop:
            run(*words, "--help")
        printed = capsys.readouterr().out
        assert stop.value.code == 0 and all(text in printed for text in expected)
        assert ("--deduplicate" in printed) == (words == ["build"])


def test_a_required_split_that_is_not_there_is_named(tmp_path):
    only_row_source = tmp_path / "source" / "9"
    only_row_source.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(only_row_source / "a.png")
    only_row(tmp_path / "source", tmp_path / "out")
    with pytest.raises(ValueError, match="out lacks the split test and validation, it has train"):
        load_prepared(tmp_path / "out", ("train", "validation", "test"))
