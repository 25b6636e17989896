"""Scoring through the door: rows, files, errors and exit statuses."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import make_picture
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from transformers import AutoModel

import score

COLUMNS = ["path", "score", "score_std", "width", "height", "error"]


@pytest.fixture
def library(tmp_path) -> Path:
    """Three pictures, one below another folder, beside things that are none."""
    folder = tmp_path / "library"
    (folder / "deep").mkdir(parents=True)
    make_picture(150, 100, seed=1).save(folder / "a.png")
    make_picture(80, 90, seed=2).save(folder / "deep" / "b.JPG", format="JPEG")
    make_picture(300, 70, seed=3).save(folder / "c.webp")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_text("hidden")
    return folder


def break_two(library: Path) -> None:
    (library / "text.png").write_text("hello")
    (library / "cut.jpg").write_bytes((library / "deep" / "b.JPG").read_bytes()[:900])


def run(model: str, *arguments: str | Path) -> int:
    return score.main([*map(str, arguments), "--model", model])


def test_every_image_gets_the_score_of_the_model(library, tiny_checkpoint, tmp_path, capsys):
    assert run(tiny_checkpoint, library, "--output", tmp_path / "scores.csv") == 0
    with open(tmp_path / "scores.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == COLUMNS
    assert [row["path"] for row in rows] == [str(library / name) for name in ("a.png", "c.webp", "deep/b.JPG")]
    assert [(row["width"], row["height"]) for row in rows] == [("150", "100"), ("300", "70"), ("80", "90")]
    model = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    for row in rows:
        assert float(row["score"]) == model.score(row["path"]).item()
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
    model = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True)
    assert run(tiny_checkpoint, library / "a.png", "--num_patches", "9") == 0
    expected = model.score(library / "a.png", num_patches=9).item()
    assert float(capsys.readouterr().out.splitlines()[1].split()[0]) == pytest.approx(expected, abs=6e-4)
    assert run(tiny_checkpoint, library / "a.png", "--dtype", "bfloat16") == 0


def test_sampling_reaches_the_model(library, tiny_checkpoint, tmp_path):
    model, path = AutoModel.from_pretrained(tiny_checkpoint, trust_remote_code=True), library / "a.png"
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
    expected = model.score(library / "a.png", sampling="multiscale", num_patches=9).item()
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
        (["LIBRARY", "--batch_size", "0"], "--batch_size must be at least 1"),
        (["LIBRARY", "--num_patches", "0"], "--num_patches must be at least 1"),
        (["LIBRARY", "--device", "abacus"], "--device abacus cannot be used here"),
        (["LIBRARY", "--device", "cpu:7"], "--device cpu:7 cannot be used here"),
        (["LIBRARY", "--model", "nothing"], "must be a folder or a Hub id"),
        (["LIBRARY", "--model", "user/name"], "--trust_remote_code"),
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
    places["TAKEN"] = tmp_path / "taken.csv"
    arguments = [str(places.get(argument, argument)) for argument in arguments]
    assert score.main(["--model", tiny_checkpoint, *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert (tmp_path / "taken.csv").read_text() == "mine"


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
