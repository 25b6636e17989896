"""The scripts and the Hub: what each of them pushes and fetches, and what it says where that cannot be."""

import json

import numpy as np
import pytest
import torch
from datasets import Image as ImageFeature
from datasets import load_from_disk
from factories import CHECKPOINT, make_picture, make_tiny_model, original_state_dict
from fakes.hub_protocol import READ_TOKEN
from fakes.hub_scripts import QUICK, prepare
from PIL import Image

from hybridiqa.data.loading import dataset_hash, load_prepared

LOAD_DATASET = """
import sys
from datasets import load_dataset
load_dataset(sys.argv[1]).save_to_disk(sys.argv[2])
"""


def test_images_dataset_training_scores_all_by_way_of_the_hub(hub, script, images, tmp_path):
    made = prepare(script, images, "--push_to_hub", "you/images", "--license", "cc0-1.0")
    assert made.splitlines()[-1] == f"pushed to {hub.endpoint}/datasets/you/images"
    files = hub.files("you/images", "dataset")
    names = [f"data/{split}-00000-of-00001.parquet" for split in ("train", "validation")]
    assert list(files) == ["README.md", *names]
    card = files["README.md"].decode()
    assert "license: cc0-1.0" in card and "No licence" not in card
    assert "| train | 8 |" in card and "| Perfect/5 | 4 | 2 |" in card

    make_tiny_model().save_pretrained(tmp_path / "start")
    start = ["--init_from", tmp_path / "start", *QUICK]
    hub_options = ["--push_to_hub", "--hub_model_id", "you/scorer", "--hub_private"]
    trained = script("train.py", "--dataset", "you/images", "--output_dir", "trained", *start, *hub_options)
    assert trained.splitlines()[-1] == f"pushed to {hub.endpoint}/you/scorer"
    assert set(hub.files("you/scorer")) == CHECKPOINT | {"README.md", "metrics.json"}
    assert hub.repositories["model", "you/scorer"].is_private
    card = hub.files("you/scorer")["README.md"].decode()
    assert "datasets:\n- you/images" in card and 'from_pretrained("you/scorer"' in card

    elsewhere = {"home": tmp_path / "another home"}
    from_folder = script("score.py", images, "--model", "trained", "--output", "folder.csv", **elsewhere)
    from_hub = script("score.py", images, "--model", "you/scorer", "--output", "hub.csv", **elsewhere)
    assert "12 scored, 0 failed" in from_folder and "12 scored, 0 failed" in from_hub
    assert (tmp_path / "work/hub.csv").read_text() == (tmp_path / "work/folder.csv").read_text()
    arguments = [images, "--model", "you/scorer", "--output", "offline.csv"]
    script("score.py", *arguments, environment={"HF_HUB_OFFLINE": "1"}, **elsewhere)
    assert (tmp_path / "work/offline.csv").read_text() == (tmp_path / "work/hub.csv").read_text()
    again = ["--dataset", "you/images", "--init_from", "you/scorer", *QUICK]
    script("train.py", *again, "--output_dir", "again", **elsewhere)
    assert json.loads((tmp_path / "work/again/training_arguments.json").read_text())["init_from"] == "you/scorer"


def test_a_prepared_dataset_comes_back_as_it_was_and_a_second_push_replaces_it(hub, script, images, tmp_path):
    prepare(script, images)
    left = sorted((tmp_path / "work/prepared").rglob("*"))
    made = script("prepare_dataset.py", "--output_dir", "prepared", "--push_to_hub", "you/images", "--private")
    assert made.splitlines()[-1] == f"pushed to {hub.endpoint}/datasets/you/images"
    assert sorted((tmp_path / "work/prepared").rglob("*")) == left
    assert hub.repositories["dataset", "you/images"].is_private
    done = hub.run("-c", LOAD_DATASET, "you/images", tmp_path / "loaded", home=tmp_path / "another home")
    assert done.returncode == 0, done.stderr
    before, loaded = load_prepared(tmp_path / "work/prepared"), load_prepared(tmp_path / "loaded")
    assert dataset_hash(loaded) == dataset_hash(before)
    assert loaded["train"].features == before["train"].features
    hub.repositories["dataset", "you/images"].resolve("main")[1]["data/train-00001-of-00002.parquet"] = hub.store(
        "data/train-00001-of-00002.parquet", b"of an earlier push"
    )
    script("prepare_dataset.py", "--output_dir", "prepared", "--push_to_hub", "you/images")
    assert "data/train-00001-of-00002.parquet" not in hub.files("you/images", "dataset")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_scored_copy_of_a_hub_dataset_goes_to_the_hub(hub, script, images, tmp_path, tiny_checkpoint, streaming):
    prepare(script, images, "--push_to_hub", "you/images")
    options = ["--streaming"] if streaming else ["--output", "scored"]
    options += ["--score_column", "model_score", "--model", tiny_checkpoint, "--num_workers", 0]
    said = script("score.py", "--dataset", "you/images", "--push_to_hub", "you/scored", *options)
    assert f"pushed to {hub.endpoint}/datasets/you/scored" in said
    done = hub.run("-c", LOAD_DATASET, "you/scored", tmp_path / "loaded", home=tmp_path / "another home")
    assert done.returncode == 0, done.stderr
    loaded = load_from_disk(tmp_path / "loaded")
    assert {name: len(split) for name, split in loaded.items()} == {"train": 8, "validation": 4}
    assert np.isfinite(loaded["train"]["model_score"]).all()
    rows = loaded["train"].cast_column("image", ImageFeature(decode=False))
    assert all(image["bytes"] for image in rows["image"])
    assert (tmp_path / "work/scored").exists() is not streaming


def test_a_published_checkpoint_goes_to_the_hub_converted(hub, script, tmp_path):
    torch.save(original_state_dict([3, 4, 6, 3]), tmp_path / "published.pth")
    hub.add("somebody/published", {"best.pth": (tmp_path / "published.pth").read_bytes()})
    options = ["--output_dir", "converted", "--push_to_hub", "you/converted", "--license", "mit"]
    made = script("convert_checkpoint.py", "somebody/published", *options)
    assert made.splitlines()[-1] == f"pushed to {hub.endpoint}/you/converted"
    assert set(hub.files("you/converted")) == CHECKPOINT | {"README.md"}
    assert "`somebody/published`" in hub.files("you/converted")["README.md"].decode()
    make_picture(300, 260).save(tmp_path / "a.png")
    scores = [
        script("score.py", tmp_path / "a.png", "--model", model, "--num_patches", 1).splitlines()[-1].split("\t")[1:]
        for model in ("converted", "you/converted")
    ]
    assert scores[0] == scores[1]


REFUSED = {
    "no token": ({"token": None}, "you/x", [], "log in to the Hub: `hf auth login`, or set HF_TOKEN"),
    "a wrong token": ({"token": "hf_wrong"}, "you/x", [], "cannot push to you/x: Invalid user token"),
    "a reading token": ({"token": READ_TOKEN}, "you/x", [], "the token may only read"),
    "no user": ({}, "x", [], "must be named user/name, got 'x'"),
    "a name": ({}, "you/x--y", [], "must be named user/name, got 'you/x--y'"),
    "public": ({}, "you/public", ["--private"], "is there already and public"),
}


@pytest.mark.parametrize(("options", "repository", "arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_pushed_is_one_line_before_any_work(
    hub, script, images, tmp_path, options, repository, arguments, message
):
    hub.add("you/public", {"a.txt": b"a"}, "dataset")
    before = hub.state()
    said = prepare(script, images, "--push_to_hub", repository, *arguments, status=2, **options)
    assert message in said and len(said.splitlines()) == 1
    assert hub.state() == before and not (tmp_path / "work/prepared").exists()


def test_without_a_token_no_script_begins(hub, script, images, tmp_path, tiny_checkpoint):
    torch.save({}, tmp_path / "empty.pth")
    prepare(script, images)
    hub_id = ["--push_to_hub", "you/x"]
    scripts = [
        ("train.py", "--dataset", "prepared", "--output_dir", "t", *QUICK, "--push_to_hub", "--hub_model_id", "you/x"),
        ("convert_checkpoint.py", tmp_path / "empty.pth", "--output_dir", "t", *hub_id),
        ("score.py", "--dataset", "prepared", "--output", "t", "--model", tiny_checkpoint, *hub_id),
    ]
    for name, *arguments in scripts:
        said = script(name, *arguments, status=2, token=None)
        assert said.count("\n") == 0 and "to push to you/x, log in to the Hub" in said
        assert not (tmp_path / "work/t").exists()


def test_foreign_code_runs_only_where_it_was_allowed(hub, script, tmp_path):
    make_tiny_model().save_pretrained(tmp_path / "ours")
    files = {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()}
    foreign = f"\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n".encode()
    commit = hub.add("somebody/scorer", files | {"pipeline_hybridiqa.py": files["pipeline_hybridiqa.py"] + foreign})
    make_picture().save(tmp_path / "a.png")
    asked = script("score.py", tmp_path / "a.png", "--model", "somebody/scorer", status=2)
    address = f"{hub.endpoint}/somebody/scorer/tree/{commit}"
    assert f"read it at {address}, then allow just that with" in asked and asked.count("\n") == 0
    allowing = asked.split("allow just that with ")[1].split()
    assert allowing == ["--trust_remote_code", "--model_revision", commit]
    arguments = ["--dataset", "none", "--output_dir", "t", "--init_from", "somebody/scorer"]
    assert not (tmp_path / "ran").exists()
    script("score.py", tmp_path / "a.png", "--model", "somebody/scorer", *allowing)
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    newer = hub.add("somebody/scorer", files | {"modeling_hybridiqa.py": files["modeling_hybridiqa.py"] + foreign})
    script("score.py", tmp_path / "a.png", "--model", "somebody/scorer", *allowing)  # still what was read
    assert newer not in "".join(hub.requests[-20:])
    arguments = ["--init_from", "somebody/scorer", *QUICK]
    for bin_name in ("1", "9"):
        (tmp_path / "images" / bin_name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (80, 80), (index, 9, 9)).save(tmp_path / "images" / bin_name / f"{index}.png")
    prepare(script, tmp_path / "images")
    (tmp_path / "ran").unlink()
    asked = script("train.py", "--dataset", "prepared", "--output_dir", "t", *arguments, status=2)
    assert f"--trust_remote_code --model_revision {newer}" in asked and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../../escaped.png", "Perfect/5/../../../../escaped.png"])
def test_no_path_of_a_repository_leads_out_of_its_folder(hub, script, tmp_path, name):
    hub.add("somebody/images", {"Perfect/5/a.png": b"", name: b"out"}, "dataset")
    said = script("prepare_dataset.py", "somebody/images", "--output_dir", "prepared", status=2)
    assert "was not fetched" in said and len(said.splitlines()) == 1
    assert not list(tmp_path.rglob("escaped.png"))
