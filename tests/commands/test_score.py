"""Scoring by score.py: rows, files, errors and exit statuses."""

import csv
import json
import os
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import make_picture
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedModel

from hybridiqa.commands import score
from hybridiqa.inference.engine_output import EngineOutput
from hybridiqa.inference.patch_maps import PatchMaps
from hybridiqa.inference.scoring import ScoredSource
from hybridiqa.scores import ledger
from hybridiqa.scores.ledger import ScoreProgress, progress_dir_of
from hybridiqa.scores.score_file import ScoreRow, read_scores, to_json_line, write_scores
from hybridiqa.utils.files import content_hash

COLUMNS = ["path", "score", "score_std", "percentile", "width", "height", "error", "vanished", "content_hash", "scorer"]


@pytest.fixture
def library(tmp_path) -> Path:
    """Make a folder of three images, one below another folder, beside things that are none."""
    folder = tmp_path / "library"
    (folder / "deep").mkdir(parents=True)
    make_picture(150, 100, seed=1).save(folder / "a.png")
    make_picture(80, 90, seed=2).save(folder / "deep" / "b.JPG", format="JPEG")
    make_picture(300, 70, seed=3).save(folder / "c.webp")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("hidden")
    return folder


def break_two(library: Path) -> None:
    (library / "text.png").write_text("hello")
    (library / "cut.jpg").write_bytes((library / "deep" / "b.JPG").read_bytes()[:900])


def load_for_scoring(checkpoint: str) -> PreTrainedModel:
    """Load the model as score.py scores with it: the same scores to the last bit."""
    return AutoModel.from_pretrained(checkpoint, trust_remote_code=True).prepare_for_scoring()


def read(path: Path) -> dict[str, ScoreRow]:
    """Return the rows of a file of scores, by the file's name."""
    return {Path(row.path).name: row for row in read_scores(path)}


def run(model: str, *arguments: str | Path) -> int:
    """Score, and decode in this process unless the arguments say otherwise."""
    return score.main(["--num_workers", "0", *map(str, arguments), "--model", model])


def test_every_image_gets_the_score_of_the_model(library, tiny_checkpoint, tmp_path, capsys):
    assert run(tiny_checkpoint, library, "--output", tmp_path / "scores.csv") == 0
    with open(tmp_path / "scores.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == COLUMNS
    assert [row["path"] for row in rows] == [str(library / name) for name in ("a.png", "c.webp", "deep/b.JPG")]
    assert [(row["width"], row["height"]) for row in rows] == [("150", "100"), ("300", "70"), ("80", "90")]
    model = load_for_scoring(tiny_checkpoint)
    for row in rows:
        assert float(row["score"]) == model.score(row["path"]).item()
        assert row["content_hash"] == content_hash(row["path"]) and row["vanished"] == row["percentile"] == ""
        assert row["scorer"].endswith(" grid-4 float32 torch")
        patch_scores = model.predict_patch_scores(model.image_processor(row["path"])["pixel_values"])
        assert float(row["score_std"]) == pytest.approx(patch_scores.std(correction=0).item())
        assert row["error"] == ""
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["score", "std", "path"]
    shown = [float(line.split()[0]) for line in lines[1:]]
    assert shown == sorted(shown, reverse=True) and len(shown) == 3
    assert captured.err.startswith("3 scored, 0 failed")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_every_format_holds_the_same_rows(library, tiny_checkpoint, tmp_path, suffix):
    break_two(library)
    path = tmp_path / f"scores.{suffix}"
    assert run(tiny_checkpoint, library, "--output", path) == 1
    if suffix == "parquet":
        rows = parquet.read_table(path).to_pylist()
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        with open(path, newline="") as file:
            rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    assert [list(row) for row in rows] == [COLUMNS] * 5
    assert [Path(row["path"]).name for row in rows] == ["a.png", "c.webp", "cut.jpg", "b.JPG", "text.png"]
    assert [row["score"] is None for row in rows] == [False, False, True, False, True]
    assert "truncated" in rows[2]["error"] and rows[4]["error"] == "not an image that Pillow knows"
    assert int(rows[0]["width"]) == 150


def test_broken_images_are_reported_and_the_run_goes_on(library, tiny_checkpoint, capsys):
    break_two(library)
    assert run(tiny_checkpoint, library, "--batch_size", "1") == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 6
    assert f"{library / 'text.png'}: not an image that Pillow knows" in captured.out
    assert "3 scored, 2 failed" in captured.err


def test_a_folder_of_broken_images_only(tmp_path, tiny_checkpoint, capsys):
    (tmp_path / "a.png").write_text("hello")
    assert run(tiny_checkpoint, tmp_path) == 1
    assert "0 scored, 1 failed" in capsys.readouterr().err


def test_a_file_named_twice_is_scored_once_and_any_suffix_will_do_for_a_file(library, tiny_checkpoint, capsys):
    (library / "a.png").rename(library / "a.dat")
    assert run(tiny_checkpoint, library / "a.dat", library / "a.dat") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_num_patches_and_dtype_reach_the_model(library, tiny_checkpoint, capsys):
    model = load_for_scoring(tiny_checkpoint)
    assert run(tiny_checkpoint, library / "a.png", "--num_patches", "9") == 0
    expected = model.score(library / "a.png", num_patches=9).item()
    assert float(capsys.readouterr().out.splitlines()[1].split()[0]) == pytest.approx(expected, abs=6e-4)
    assert run(tiny_checkpoint, library / "a.png", "--dtype", "bfloat16") == 0


def test_sampling_reaches_the_model(library, tiny_checkpoint, tmp_path):
    model, path = load_for_scoring(tiny_checkpoint), library / "a.png"
    scores = {}
    for sampling in ("grid", "random", "multiscale"):
        output = tmp_path / f"{sampling}.jsonl"
        assert run(tiny_checkpoint, path, "--sampling", sampling, "--num_patches", "6", "--output", output) == 0
        scores[sampling] = json.loads(output.read_text())["score"]
        assert scores[sampling] == model.score(path, sampling=sampling, num_patches=6).item()
    assert len(set(scores.values())) == 3
    assert run(tiny_checkpoint, path, "--num_patches", "6", "--output", tmp_path / "default.jsonl") == 0
    assert json.loads((tmp_path / "default.jsonl").read_text())["score"] == scores["grid"]


def test_a_checkpoint_that_was_saved_as_multiscale_is_scored_so(library, tiny_checkpoint, tmp_path):
    model = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    expected = load_for_scoring(tiny_checkpoint).score(library / "a.png", sampling="multiscale", num_patches=9).item()
    model.image_processor.sampling, model.image_processor.num_patches = "multiscale", 9
    model.save_pretrained(tmp_path / "multiscale")
    output = tmp_path / "scores.jsonl"
    assert run(str(tmp_path / "multiscale"), library / "a.png", "--output", output) == 0
    assert json.loads(output.read_text())["score"] == expected


def test_a_sampling_that_there_is_not_is_wrong_usage(library, tiny_checkpoint, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(tiny_checkpoint, library, "--sampling", "best")
    assert stopped.value.code == 2
    assert "--sampling: invalid choice: 'best'" in capsys.readouterr().err


def save_without_hyper_network(checkpoint: str, folder: Path) -> None:
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("hyper_network")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/path"], "there is no file or folder 'no/such/path'"),
        ([""], "there is no file or folder ''"),
        (["EMPTY"], "no images in the folder"),
        (["LIBRARY", "--output", "scores.txt"], "--output must end in .csv, .jsonl, .parquet"),
        (["LIBRARY", "--output", "no/such/folder/scores.csv"], "there is no folder no/such/folder"),
        (["LIBRARY", "--output", "TAKEN"], "nothing is overwritten"),
        (["LIBRARY", "--errors", "TAKEN"], "no list of errors; nothing is overwritten"),
        (["LIBRARY", "--errors", "LONG"], "no list of errors; nothing is overwritten"),
        (["LIBRARY", "--gallery", "TAKEN"], "a gallery must end in .html"),
        (["LIBRARY", "--map", "TAKEN"], "--map must be a folder"),
        (["LIBRARY", "--dataset", "EMPTY"], "give images and folders, or else --dataset"),
        ([], "give images and folders, or else --dataset"),
        (["LIBRARY", "--num_workers", "-1"], "--num_workers must be at least 0"),
        (["LIBRARY", "--dtype", "int8"], "--engine torch computes in float32, bfloat16, float16, got --dtype int8"),
        (["LIBRARY", "--batch_size", "0"], "--batch_size must be at least 1"),
        (["LIBRARY", "--num_patches", "0"], "--num_patches must be at least 1"),
        (["LIBRARY", "--device", "abacus"], "--device abacus cannot be used here"),
        (["LIBRARY", "--device", "cpu:7"], "--device cpu:7 cannot be used here"),
        (["LIBRARY", "--model", "nothing"], "must be a folder or a Hub id"),
        (["LIBRARY", "--model", "user/name"], "cannot load user/name: "),
        (["LIBRARY", "--model", "EMPTY"], "cannot load"),
        (["LIBRARY", "--model", "CUT"], "cannot load"),
        (["LIBRARY", "--model", "PART"], "weights, the first of them hyper_network.bias_layers.0.bias"),
    ],
)
def test_wrong_usage_is_one_clear_line(library, tmp_path, tiny_checkpoint, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken.csv").write_text("mine")
    shutil.copytree(tiny_checkpoint, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut off")
    save_without_hyper_network(tiny_checkpoint, tmp_path / "part")
    places = {name: tmp_path / name.lower() for name in ("LIBRARY", "EMPTY", "CUT", "PART")}
    places |= {"TAKEN": tmp_path / "taken.csv", "LONG": tmp_path / "long.csv"}
    places["LONG"].write_text("a" * 200_000 + ",b\n")  # more than a cell of a CSV may hold
    arguments = [str(places.get(argument, argument)) for argument in arguments]
    assert score.main(["--model", tiny_checkpoint, *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert (tmp_path / "taken.csv").read_text() == "mine"


@pytest.fixture
def no_model(monkeypatch):
    """Fail where a model is loaded: what is wrong must be told before."""
    monkeypatch.setattr(score, "load_engine", lambda *arguments, **options: pytest.fail("the model was loaded"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--output x.csv --errors x.csv", ("--output", "--errors")),
        ("--output x.csv --errors ./library/../x.csv", ("--output", "--errors")),
        ("--output scored.csv --errors scored.csv", ("--output", "--errors")),
        ("--output scored.csv --errors soft.csv", ("--output", "--errors")),
        ("--output scored.csv --errors hard.csv", ("--output", "--errors")),
        ("--output linked/x.csv --errors library/x.csv", ("--output", "--errors")),
        ("--errors g.html --gallery g.html", ("--errors", "--gallery")),
        ("--output nowhere.csv --gallery nowhere.html", ("--output", "--gallery")),
        ("--errors x --map x", ("--errors", "--map")),
        ("--errors x --map x/maps", ("--map", "lies below --errors")),
        ("--output x.csv --map x.csv.progress", ("--map", "x.csv.progress")),
        ("--output x.csv --map x.csv.progress/deep", ("--map", "x.csv.progress")),
        ("--output soft.csv --gallery scored.csv.progress/g.html", ("--gallery", "scored.csv.progress")),
        ("scored.csv --output soft.csv", ("--output", "is the input scored.csv")),
        ("hard.csv --output scored.csv", ("--output", "is the input hard.csv")),
        ("--map library", ("--map", "scored folder")),
        ("--map ./library/maps", ("--map", "scored folder")),
        ("--map linked/maps", ("--map", "scored folder")),
        ("library/deep --map library/deep/maps", ("--map", "scored folder")),
        ("library/deep/.. --map maps-with-link", ("--map", "scored folder")),
        ("nest --map .", ("--map", "scored folder")),
        ("--map scored.csv", ("--map must be a folder, got the file",)),
        ("--map scored.csv/maps", ("--map must be a folder, got the place below a file",)),
        ("--output folder.csv", ("--output", "is a folder")),
        ("--errors pipe", ("--errors", "is a pipe")),
        ("--gallery lost.html", ("--gallery", "leads into a folder that is not there")),
        ("--output unfinished.csv", ("unfinished.csv.progress is there already and no folder",)),
        ("--errors WEIGHTS", ("no list of errors; nothing is overwritten",)),
    ],
)
def test_an_output_that_would_take_anothers_place_is_refused_before_work(
    library, tiny_checkpoint, tmp_path, capsys, monkeypatch, no_model, arguments, named
):
    monkeypatch.chdir(tmp_path)
    write_scores(Path("scored.csv"), [ScoreRow("a.png", 5.0)])
    Path("soft.csv").symlink_to("scored.csv")
    os.link("scored.csv", "hard.csv")
    Path("linked").symlink_to("library")
    for name in ("nowhere.csv", "nowhere.html"):
        Path(name).symlink_to("nothing-yet")
    Path("maps-with-link").mkdir()
    Path("maps-with-link", "deep").symlink_to(library)
    shutil.copytree(library, "nest/nest")
    for name in ("folder.csv", "scored.csv.progress"):
        Path(name).mkdir()
    os.mkfifo("pipe")
    Path("lost.html").symlink_to("gone/g.html")
    Path("unfinished.csv.progress").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    arguments = arguments.replace("WEIGHTS", f"{tiny_checkpoint}/model.safetensors").split()
    assert run(tiny_checkpoint, "library", *arguments) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert all(text in line for text in named), line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_outputs_may_lie_in_the_library_and_maps_beside_an_image_that_was_named(library, tiny_checkpoint, tmp_path):
    outputs = ["--output", library / "s.csv", "--errors", library / "e.csv", "--gallery", library / "g.html"]
    for _ in range(2):
        assert run(tiny_checkpoint, library, *outputs, "--map", tmp_path / "maps") == 0
    assert len(read_scores(library / "s.csv")) == 3
    assert run(tiny_checkpoint, library / "a.png", "--map", library) == 0
    assert (library / "a.png.map.png").exists()


def test_linked_outputs_are_written_where_they_lead(library, tiny_checkpoint, tmp_path):
    (library / "text.png").write_text("hello")
    (tmp_path / "disk").mkdir()
    outputs = {"--output": "s.csv", "--errors": "e.csv", "--gallery": "g.html", "--map": "maps"}
    for name in outputs.values():
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    options = [part for option, name in outputs.items() for part in (option, tmp_path / name)]
    assert run(tiny_checkpoint, library, *options) == 1
    (tmp_path / "disk" / "s.csv").chmod(0o600)
    make_picture(90, 90, seed=7).save(library / "new.png")
    assert run(tiny_checkpoint, library, *options) == 1
    assert all((tmp_path / name).is_symlink() for name in outputs.values())
    assert len(read_scores(tmp_path / "disk" / "s.csv")) == 5
    assert (tmp_path / "disk" / "s.csv").stat().st_mode & 0o777 == 0o600
    assert "text.png" in (tmp_path / "disk" / "e.csv").read_text()
    assert "new.png" in (tmp_path / "disk" / "g.html").read_text()
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["e.csv", "g.html", "maps", "s.csv"]
    assert (tmp_path / "disk" / "maps" / "new.png.map.png").exists()


def test_a_run_goes_on_over_damaged_progress_and_says_what_it_kept(library, tiny_checkpoint, tmp_path, capsys):
    output = tmp_path / "scores.csv"
    assert run(tiny_checkpoint, library, "--output", output) == 0
    lines = [to_json_line(row) for row in read_scores(output)]
    output.unlink()
    folder = progress_dir_of(output)
    folder.mkdir()
    (folder / "rows-00000.jsonl").write_text(lines[0] + "damaged\n" + lines[1])
    (folder / "rows-00001.jsonl").write_text("damaged, too\n" + lines[2])
    capsys.readouterr()
    assert run(tiny_checkpoint, library, "--output", output) == 0
    assert "0 scored, 0 failed, 3 skipped as known" in capsys.readouterr().err
    assert len(read_scores(output)) == 3
    kept = {path.name: path.read_text() for path in folder.iterdir()}
    assert kept == {"rows-00000.jsonl.rejected": "damaged\n", "rows-00001.jsonl.rejected": "damaged, too\n"}
    assert run(tiny_checkpoint, library, "--output", output) == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == kept


def test_names_that_are_not_utf8_or_hold_a_new_line_are_rows_like_others(library, tiny_checkpoint, tmp_path, capsys):
    os.rename(library / "a.png", os.fsencode(library) + b"/caf\xe9.png")
    (library / "c.webp").rename(library / "two\nlines.webp")
    for suffix in ("csv", "jsonl", "parquet"):
        assert run(tiny_checkpoint, library, "--output", tmp_path / f"scores.{suffix}") == 0
    paths = parquet.read_table(tmp_path / "scores.parquet")["path"].to_pylist()
    assert str(library / "caf\\xe9.png") in paths
    printed = capsys.readouterr().out
    assert "caf\\xe9.png" in printed and "two\\nlines.webp" in printed


def test_what_is_no_file_is_a_row_with_its_reason(library, tiny_checkpoint, capsys):
    os.mkfifo(library / "pipe.png")
    (library / "folder.png").mkdir()
    (library / "dangling.png").symlink_to(library / "nothing")
    assert run(tiny_checkpoint, library, library / "folder.png" / ".." / "a.png") == 1
    printed = capsys.readouterr().out
    assert "pipe.png: not a regular file" in printed
    assert "dangling.png: no such file" in printed
    assert "folder.png" not in printed.replace("folder.png/..", "")  # an empty folder holds no image
    assert printed.count("a.png") == 1


def test_films_are_no_images_and_multi_picture_files_are(library, tiny_checkpoint, capsys):
    (library / "film.mpg").write_bytes(bytes(100))
    make_picture().save(library / "m.mpo", format="MPO", save_all=True, append_images=[make_picture(seed=1)])
    assert run(tiny_checkpoint, library) == 0
    printed = capsys.readouterr().out
    assert "m.mpo" in printed and "film.mpg" not in printed


def test_a_second_run_scores_only_what_is_new_or_changed(library, tiny_checkpoint, tmp_path, capsys):
    break_two(library)
    output = tmp_path / "scores.csv"
    assert run(tiny_checkpoint, library, "--output", output) == 1
    before = read(output)
    make_picture(90, 90, seed=7).save(library / "new.png")
    make_picture(150, 100, seed=8).save(library / "a.png")
    (library / "text.png").unlink()
    make_picture(60, 70, seed=9).save(library / "text.png")
    capsys.readouterr()
    assert run(tiny_checkpoint, library, "--output", output) == 1
    assert "3 scored, 1 failed, 2 skipped as known" in capsys.readouterr().err
    after = read(output)
    assert set(after) == {*before, "new.png"}
    assert after["c.webp"] == before["c.webp"] and after["b.JPG"] == before["b.JPG"]
    assert after["a.png"].score != before["a.png"].score and after["text.png"].error is None
    anew = tmp_path / "anew.csv"
    run(tiny_checkpoint, library, "--output", anew)
    assert anew.read_bytes() == output.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anew.csv", "library", "scores.csv"]


def test_moved_vanished_and_copied_files_are_known_by_their_content(library, tiny_checkpoint, tmp_path, capsys):
    output = tmp_path / "scores.jsonl"
    run(tiny_checkpoint, library, "--output", output)
    before = read(output)
    (library / "a.png").rename(library / "deep" / "moved.png")
    shutil.copy(library / "c.webp", library / "copy.webp")
    (library / "deep" / "b.JPG").unlink()
    capsys.readouterr()
    assert run(tiny_checkpoint, library, "--output", output) == 0
    assert "0 scored, 0 failed, 3 skipped as known" in capsys.readouterr().err
    after = read(output)
    assert sorted(after) == ["b.JPG", "c.webp", "copy.webp", "moved.png"]
    assert after["moved.png"] == replace(before["a.png"], path=str(library / "deep" / "moved.png"))
    assert after["copy.webp"].score == after["c.webp"].score == before["c.webp"].score
    assert [name for name, row in after.items() if row.vanished] == ["b.JPG"]
    assert after["b.JPG"].score == before["b.JPG"].score


def test_other_settings_are_scored_beside_those_that_are_there(library, tiny_checkpoint, tmp_path, capsys):
    output = tmp_path / "scores.csv"
    for arguments in ([], ["--num_patches", "9"], ["--dtype", "bf16"], ["--sampling", "random"]):
        capsys.readouterr()
        assert run(tiny_checkpoint, library, "--output", output, *arguments) == 0
        captured = capsys.readouterr()
        assert "3 scored, 0 failed" in captured.err and len(captured.out.splitlines()) == 4
    patches = {row.scorer.split(maxsplit=1)[1] for row in read_scores(output)}
    assert patches == {
        "grid-4 float32 torch",
        "grid-9 float32 torch",
        "grid-4 bfloat16 torch",
        "random-4-seed0 float32 torch",
    }
    assert len(read_scores(output)) == 12


def test_workers_and_batches_change_nothing(library, tiny_checkpoint, tmp_path):
    break_two(library)
    for name, arguments in {"a": ["--num_workers", "0"], "b": ["--num_workers", "3", "--batch_size", "4"]}.items():
        assert run(tiny_checkpoint, library, "--output", tmp_path / f"{name}.csv", *arguments) == 1
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_errors_are_listed_in_a_file_of_their_own(library, tiny_checkpoint, tmp_path):
    break_two(library)
    for _ in range(2):  # a list of errors may be written again
        assert run(tiny_checkpoint, library, "--errors", tmp_path / "errors.csv") == 1
    with open(tmp_path / "errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["path"]).name, list(row)) for row in rows] == [
        ("cut.jpg", ["path", "error"]),
        ("text.png", ["path", "error"]),
    ]
    assert "truncated" in rows[0]["error"]


def test_errors_are_in_the_order_of_the_files_whichever_was_found_first(library, tiny_checkpoint, tmp_path):
    break_two(library)
    options = ("--output", tmp_path / "scores.csv", "--errors", tmp_path / "errors.csv")
    assert run(tiny_checkpoint, library / "text.png", *options) == 1
    assert run(tiny_checkpoint, library, *options) == 1
    with open(tmp_path / "errors.csv", newline="") as file:
        assert [Path(row["path"]).name for row in csv.DictReader(file)] == ["cut.jpg", "text.png"]


def test_percentiles_are_the_checkpoints_or_the_librarys(library, tiny_checkpoint, tmp_path, capsys):
    model = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    model.config.score_quantiles = [-1.0, 0.0, 1.0]
    model.save_pretrained(tmp_path / "with_quantiles")
    output = tmp_path / "scores.csv"
    assert run(str(tmp_path / "with_quantiles"), library, "--output", output) == 0
    for row in read_scores(output):
        assert row.percentile == pytest.approx(50 * (row.score + 1), abs=0.006)
    assert run(str(tmp_path / "with_quantiles"), library, "--output", output, "--percentile_of", "library") == 0
    ranked = sorted(read_scores(output), key=lambda row: row.score)
    assert [row.percentile for row in ranked] == [16.67, 50.0, 83.33]
    assert capsys.readouterr().out.splitlines()[0].split() == ["score", "std", "%", "path"]


def test_without_a_file_of_scores_the_rows_are_the_same_and_there_is_no_ledger(
    library, tiny_checkpoint, tmp_path, capsys, monkeypatch
):
    break_two(library)
    shutil.copy(library / "c.webp", library / "copy.webp")
    (library / "dangling.png").symlink_to(library / "nothing")
    options = [library / "text.png", library, "--percentile_of", "library", "--errors", tmp_path / "errors.csv"]
    assert run(tiny_checkpoint, *options, "--output", tmp_path / "scores.csv") == 1
    expected, errors = capsys.readouterr(), (tmp_path / "errors.csv").read_text()
    monkeypatch.setattr(score, "ScoreLedger", lambda *arguments: pytest.fail("a ledger was opened"))
    assert run(tiny_checkpoint, *options) == 1
    printed = capsys.readouterr()
    assert printed.out == expected.out and (tmp_path / "errors.csv").read_text() == errors
    assert "3 scored, 3 failed, 1 skipped as known" in printed.err and "3 scored, 3 failed, 1 sk" in expected.err


def test_a_gallery_and_maps_are_written(library, tiny_checkpoint, tmp_path):
    output, maps = tmp_path / "scores.csv", tmp_path / "maps"
    assert run(tiny_checkpoint, library, "--output", output) == 0
    arguments = ["--output", output, "--gallery", tmp_path / "gallery.html", "--map", maps]
    before = output.read_bytes()
    assert run(tiny_checkpoint, library, *arguments) == 0  # known scores have maps, too
    assert output.read_bytes() == before
    assert sorted(path.relative_to(maps).as_posix() for path in maps.rglob("*.png")) == [
        "a.png.map.png",
        "c.webp.map.png",
        "deep/b.JPG.map.png",
    ]
    assert "c.webp" in (tmp_path / "gallery.html").read_text()


def test_a_file_of_scores_that_another_run_writes_is_left_alone(
    library, tiny_checkpoint, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(ledger, "LOCK_WAIT", 0)
    with closing(ScoreProgress(tmp_path / "scores.csv")):
        assert run(tiny_checkpoint, library, "--output", tmp_path / "scores.csv") == 2
    assert "another run is writing scores to" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_scored_and_the_command_goes_on(library, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    output, engine_class = tmp_path / "scores.csv", score.load_engine(tiny_checkpoint).__class__
    score_patches, calls = engine_class.score_patches, []

    def stop_at_the_second(self, patches):
        calls.append(len(patches))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score_patches(self, patches)

    monkeypatch.setattr(engine_class, "score_patches", stop_at_the_second)
    assert run(tiny_checkpoint, library, "--output", output) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert len(read_scores(output)) == 1
    assert run(tiny_checkpoint, library, "--output", output) == 0
    assert "2 scored, 0 failed, 1 skipped as known" in capsys.readouterr().err
    assert len(read_scores(output)) == 3 and [path.name for path in tmp_path.glob("scores.*")] == ["scores.csv"]


def test_a_score_that_is_no_number_is_an_error(library, tiny_checkpoint, tmp_path, capsys, monkeypatch):
    engine_class = score.load_engine(tiny_checkpoint).__class__

    def give_infinity(_, patches: torch.Tensor) -> EngineOutput:
        return EngineOutput(torch.full(patches.shape[:1], torch.inf), torch.zeros(patches.shape[:2]))

    monkeypatch.setattr(engine_class, "score_patches", give_infinity)
    assert run(tiny_checkpoint, library, "--output", tmp_path / "scores.csv") == 1
    assert "its score is inf, no number in float32" in capsys.readouterr().out
    assert [row.score for row in read_scores(tmp_path / "scores.csv")] == [None] * 3


def test_maps_are_written_again_over_themselves_alone(library, tiny_checkpoint, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "a.png.map.png").write_text("mine")
    for _ in range(2):
        assert run(tiny_checkpoint, library / "a.png", "--map", maps) == 0
    assert len(list(maps.iterdir())) == 2 and (maps / "a.png.map.png").read_text() == "mine"


def test_an_image_that_was_replaced_after_it_was_scored_gets_no_map(tmp_path, caplog):
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    make_picture(80, 80).save(path)
    make_picture(80, 80, seed=1).save(other)
    row = ScoreRow(str(path), 5.0, 0.1, content_hash=content_hash(other))
    PatchMaps(tmp_path / "maps", [str(tmp_path)], None, None).write(path, ScoredSource(0, row, patch_scores=[5.0]))
    path.unlink()
    PatchMaps(tmp_path / "maps", [str(tmp_path)], None, None).write(path, ScoredSource(0, row, patch_scores=[5.0]))
    changed, gone = (record.getMessage() for record in caplog.records)
    assert changed.endswith("a.png: it was changed after it was scored") and gone.endswith("No such file or directory")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["[]", '"x"', "null"])
def test_a_checkpoint_of_other_json_than_objects_is_refused_in_one_line(
    library, tiny_checkpoint, tmp_path, capsys, name, content
):
    shutil.copytree(tiny_checkpoint, tmp_path / "broken")
    (tmp_path / "broken" / name).write_text(content)
    assert run(str(tmp_path / "broken"), library) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"score.py: error: cannot load {tmp_path / 'broken'}: ")
