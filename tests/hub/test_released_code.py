"""Checkpoints that users have saved or pushed: the code in them is known as ours, and today's loads them, unasked."""

import hashlib
import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from fakes.fresh_python import run_fresh

from hybridiqa.models import hub_code
from hybridiqa.models.loading import HUB_CODE, code_hash, hashes_of_ours, load_model
from hybridiqa.utils.root import ROOT

PICTURE = ROOT / "tests/recorded/image.png"
SCORE = -1.0846385955810547  # of that picture, by the code that saved the checkpoint


@pytest.fixture
def released(tmp_path) -> Path:
    """A checkpoint as the release of commit f6603b1 saved it, before configurations had bounds."""
    with zipfile.ZipFile(ROOT / "tests/recorded/checkpoint_of_f6603b1.zip") as archive:
        archive.extractall(tmp_path / "released")
    return tmp_path / "released"


def change_config(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_a_released_checkpoint_in_a_folder_is_loaded_by_todays_code(released):
    model = load_model(released)
    assert type(model) is hub_code.HybridIQAModel
    assert model.score(PICTURE).item() == pytest.approx(SCORE, abs=1e-5)
    change_config(released, target_widths=[8] * 1000)  # what its own code would build
    with pytest.raises(ValueError, match="target_widths has at most 16 layers, got 1000"):
        load_model(released)


def test_a_released_checkpoint_with_the_line_ends_of_windows_is_ours(released):
    for path in released.glob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert type(load_model(released)) is hub_code.HybridIQAModel


def test_a_released_checkpoint_scores_as_it_did_by_its_own_code_too(released):
    code = (
        "import sys; from transformers import AutoModel, pipeline; folder, picture = sys.argv[1:]\n"
        "print(AutoModel.from_pretrained(folder, trust_remote_code=True).score(picture).item())\n"
        "scorer = pipeline('image-quality-assessment', model=folder, trust_remote_code=True)\n"
        "print(scorer(picture)[0]['score'])"
    )
    done = run_fresh(["-c", code, released, PICTURE], os.environ)
    assert done.returncode == 0, done.stderr
    assert [float(line) for line in done.stdout.split()] == pytest.approx([SCORE, SCORE], abs=1e-5)


def test_a_released_checkpoint_on_the_hub_is_loaded_unasked_and_one_with_other_code_is_not(hub, released, tmp_path):
    files = {path.name: path.read_bytes() for path in released.iterdir()}
    hub.add("you/scorer", files)
    hub.add("you/other", files | {"modeling_hybridiqa.py": files["modeling_hybridiqa.py"] + b"\n# more\n"})
    hub.add("you/bare", {name: data for name, data in files.items() if name not in HUB_CODE})
    door = [ROOT / "score.py", PICTURE, "--model"]
    done = hub.run(*door, "you/scorer", "--output", tmp_path / "s.jsonl", home=tmp_path / "home", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "s.jsonl").read_text())["score"] == pytest.approx(SCORE, abs=1e-5)
    for name in ("you/other", "you/bare"):
        done = hub.run(*door, name, home=tmp_path / "home", cwd=tmp_path)
        assert done.returncode == 2 and "brings code that is not this project's" in done.stderr


def test_a_folder_with_code_of_its_own_is_trusted_but_not_code_of_another_repository(released):
    with open(released / "modeling_hybridiqa.py", "a") as file:
        file.write("\nHybridIQAModel.is_another = True\n")
    assert load_model(released).is_another
    auto_map = {"AutoConfig": "configuration_hybridiqa.HybridIQAConfig", "AutoModel": "evil/code--mod.Model"}
    change_config(released, auto_map=auto_map)
    with pytest.raises(ValueError, match=r"names code of another repository, evil/code--mod\.Model: read it, then"):
        load_model(released)


def test_code_of_another_repository_is_not_asked_for_where_the_files_are_ours(released):
    change_config(released, auto_map={"AutoModel": "evil/code--mod.Model"})
    assert load_model(released).score(PICTURE).item() == pytest.approx(SCORE, abs=1e-5)  # that class is not wanted


def test_every_version_of_the_files_that_was_committed_is_on_the_list():
    log = subprocess.run(["git", "log", "--format=%H", "--", *HUB_CODE], cwd=ROOT, capture_output=True, text=True)
    if log.returncode or not log.stdout:
        pytest.skip("no history here")
    listed = hashes_of_ours()
    assert all(code_hash(ROOT / name) in listed[name] for name in HUB_CODE)
    for commit in log.stdout.split():
        for name in HUB_CODE:
            shown = subprocess.run(["git", "show", f"{commit}:{name}"], cwd=ROOT, capture_output=True)
            if shown.returncode == 0:
                digest = hashlib.sha256(shown.stdout).hexdigest()
                assert digest in listed[name], f"add to hybridiqa/models/released_hub_files.txt: {digest}  {name}"
