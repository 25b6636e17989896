"""Python of README and docs, and their commands for the Hub, typed from their own text."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from documents import README, blocks, commands_of
from factories import CHECKPOINT, make_picture, original_state_dict
from fakes.hub_repositories import card_errors
from huggingface_hub import ModelCard
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from transformers import ResNetConfig, ResNetModel

from hybridiqa.utils.root import ROOT

NOT_COPIED = shutil.ignore_patterns(".git", ".*cache", "__pycache__", "recipes", "tests", "*.progress")
SHORTER = {
    "train.py": ["--num_epochs", "1", "--num_train_patches", "2", "--num_eval_patches", "2", "--num_resamples", "20"]
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the project, with what the commands of README and docs speak of."""
    folder = tmp_path_factory.mktemp("readme") / "checkout"
    shutil.copytree(ROOT, folder, ignore=NOT_COPIED)
    for index, name in enumerate(["images/Artifact/1", "images/Perfect/5", "library"]):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            make_picture(230, 226, seed=10 * index + number).save(folder / name / f"{number}.png")
    torch.save(original_state_dict([3, 4, 6, 3]), folder / "CHECKPOINT.pth")
    return folder


def run_in(hub, checkout: Path, commands: list[list[str]]) -> list[str]:
    """Run commands in one process, as in a shell whose environment is activated, and return what each printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | hub.environment(checkout.parent / "home") | {"PATH": path, "ACCELERATE_USE_CPU": "true"}
    program, outputs = ROOT / "tests/typed_commands.py", checkout.parent / "outputs.json"
    done = subprocess.run(
        [sys.executable, program, outputs],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        input=json.dumps(commands),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(outputs.read_text(encoding="utf-8"))


def test_its_metadata_is_what_the_hub_takes():
    assert card_errors(README, "model") == card_errors(README, "space") == []
    assert card_errors((ROOT / "metrics/iqa/README.md").read_text(encoding="utf-8"), "space") == []


def requirements(name: str) -> dict[str, Requirement]:
    lines = [line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_a_space_of_this_folder_runs_what_was_tested():
    space, metric = ModelCard(README).data, ModelCard.load(ROOT / "metrics/iqa/README.md").data
    assert (space.sdk, space.app_file) == ("gradio", "app.py") and (ROOT / space.app_file).exists()
    assert space.sdk_version == metric.sdk_version
    assert str(requirements("requirements-dev.txt")["gradio"].specifier) == f"=={space.sdk_version}"
    assert f"pip install gradio=={space.sdk_version} " in README
    assert f"pip install gradio=={space.sdk_version} " in (ROOT / "hybridiqa/commands/app.py").read_text(
        encoding="utf-8"
    )
    pinned, wanted = requirements("pre-requirements.txt"), requirements("requirements.txt")
    assert pinned.keys() == wanted.keys()
    for name, requirement in pinned.items():
        (pin,) = requirement.specifier
        assert pin.operator == "==" and wanted[name].specifier.contains(pin.version), name


def test_the_hub_document_works_from_top_to_bottom(hub, checkout, tmp_path):
    torch.manual_seed(0)  # a small backbone under the name of the recipe's
    config = ResNetConfig(embedding_size=8, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1])
    ResNetModel(config).save_pretrained(tmp_path)
    hub.add("microsoft/resnet-152", {path.name: path.read_bytes() for path in tmp_path.iterdir()})
    commands = [command for block in blocks("bash", document="docs/hub.md") for command in commands_of(block)]
    assert commands[0][1] == "prepare_dataset.py" and len(commands) == 6
    for command in commands:
        command += next((more for script, more in SHORTER.items() if script in command), [])
    examples = [["python", "-c", code] for code in blocks("python", document="docs/hub.md")]
    examples += [["python", "-c", code] for code in blocks("python", "Your own loop")]  # with what was prepared
    metric = 'import evaluate, json; print(json.dumps(evaluate.load("you/iqa").compute(predictions=[1, 2, 4], '
    metric += "references=[1, 3, 2], num_resamples=0)))"
    *printed, values = run_in(hub, checkout, [*commands, *examples, ["python", "-c", metric]])
    assert all(output.strip() for output in printed[len(commands) :])
    assert set(hub.files("you/my-scorer")) == CHECKPOINT | {"README.md", "metrics.json"}
    assert set(hub.files("you/converted")) == CHECKPOINT | {"README.md"}
    assert "data/train-00000-of-00001.parquet" in hub.files("you/my-images", "dataset")
    assert len((checkout / "scores.csv").read_text().splitlines()) == 1 + 6
    assert json.loads(values)["krcc"] == pytest.approx(1 / 3)
    assert set(hub.files("you/iqa", "space")) >= {"README.md", "app.py", "iqa.py", "requirements.txt"}


def test_the_folder_becomes_a_space_by_one_command(hub, tmp_path):
    checkout = shutil.copytree(ROOT, tmp_path / "checkout", ignore=NOT_COPIED)
    (block,) = blocks("bash", "As a Space")
    run_in(hub, checkout, commands_of(block))
    files = hub.files("you/hybridiqa", "space")
    assert set(files) >= {
        "README.md",
        "app.py",
        "pre-requirements.txt",
        "requirements.txt",
        "hybridiqa/webapp/page.css",
    }
    assert files["README.md"].decode() == README
    assert files["model.safetensors"] == (ROOT / "model.safetensors").read_bytes()


def test_the_python_examples_print_what_they_promise(hub, checkout):
    examples = blocks("python", "Score in Python")
    assert len(examples) == 2
    more = blocks("python", "In Python", "docs/scoring.md")
    assert len(more) == 1
    first, second, faster = run_in(hub, checkout, [["python", "-c", code] for code in examples + more])
    lines = first.splitlines()
    assert [len(re.findall(r"\d\.\d+", line)) for line in lines] == [1, 2]
    score = float(re.search(r"\d\.\d+", lines[0])[0])
    assert f" {score:.2f} |" in README  # under its picture
    assert float(re.search(r"\d\.\d+", faster)[0]) == pytest.approx(score, abs=1e-4)
    (result,) = eval(second)
    assert result["score"] == pytest.approx(score, abs=1e-4)
    assert set(result) == {"score", "score_std", "percentile"} and 0 < result["percentile"] < 100
    assert hub.requests == []  # nothing of the checkout's own is asked of the Hub
