"""The checkpoint at the repository's root: what a newcomer's first command runs."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from factories import CHECKPOINT
from fakes.fresh_python import run_fresh
from PIL import Image
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoModel

from hybridiqa.utils.root import ROOT

EXAMPLES = ROOT / "examples"
DISTORTED = sorted(path for path in EXAMPLES.glob("*.png") if not path.stem.endswith("_clean"))


SCORE_BY_ITS_OWN_FILES = """
import importlib.util
import sys
from transformers import AutoImageProcessor, AutoModel
assert importlib.util.find_spec("hybridiqa") is None
folder, image = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
print(model.score(image).item().hex())
print(processor(image)["pixel_values"].shape[1])
"""


@pytest.fixture(scope="module")
def model():
    return AutoModel.from_pretrained(ROOT, trust_remote_code=True)


@pytest.fixture(scope="module")
def scores(model) -> dict[str, float]:
    """Scores of all examples, by the names of their files without the suffix."""
    paths = sorted(EXAMPLES.glob("*.png"))
    return dict(zip([path.stem for path in paths], model.score(paths).tolist(), strict=True))


def test_it_is_small_stored_in_float16_and_loads_in_float32(model):
    path = ROOT / "model.safetensors"
    assert path.stat().st_size <= 40e6
    with safe_open(path, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16", "I64"}  # noqa: SIM118
    config = json.loads((ROOT / "config.json").read_text())
    assert (config.get("dtype") or config.get("torch_dtype")) == "float32"
    assert model.dtype == torch.float32
    assert model.score(Image.new("RGB", (128, 128)), num_patches=1).dtype == torch.float32


def test_its_processor_gives_25_patches_of_128_pixels():
    processor = AutoImageProcessor.from_pretrained(ROOT, trust_remote_code=True)
    assert processor(EXAMPLES / "lake_clean.png")["pixel_values"].shape == (1, 25, 3, 128, 128)


def test_it_is_of_the_architecture_that_its_recipe_trains():
    config = json.loads((ROOT / "config.json").read_text(encoding="utf-8"))
    wanted = json.loads((ROOT / "recipes" / "embedded_checkpoint.json").read_text(encoding="utf-8"))
    backbone = wanted.pop("backbone_config")
    assert wanted.items() <= config.items()
    assert backbone.items() <= config["backbone_config"].items()


def test_there_are_four_pairs_of_examples():
    assert len(DISTORTED) == 4


@pytest.mark.parametrize("distorted", DISTORTED, ids=lambda path: path.stem)
def test_every_clean_example_ranks_over_its_distorted_twin(model, scores, distorted):
    clean_score, distorted_score = scores[f"{distorted.stem.split('_')[0]}_clean"], scores[distorted.stem]
    low, high = model.config.score_range
    assert low - 1 < distorted_score < clean_score < high + 1


def test_the_main_command_scores_the_examples_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, str(ROOT / "score.py"), str(EXAMPLES)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1 + 2 * len(DISTORTED)
    assert "8 scored, 0 failed" in done.stderr


def test_it_loads_by_its_own_files_where_the_rest_of_the_repository_is_not(scores, tmp_path):
    for name in CHECKPOINT:
        shutil.copy(ROOT / name, tmp_path / name)
    image = EXAMPLES / "lake_clean.png"
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # on which the last bits depend
    done = run_fresh(["-c", SCORE_BY_ITS_OWN_FILES, tmp_path, image], environment, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [scores[image.stem].hex(), "25"]


def test_the_readmes_table_shows_what_the_checkpoint_gives(scores):
    readme = Path(ROOT, "README.md").read_text(encoding="utf-8")
    lines = readme.splitlines()
    shown = {}
    for above, below in itertools.pairwise(lines):
        names = [cell.split("(examples/")[1].split(".png")[0] for cell in above.split("|") if "(examples/" in cell]
        if names:
            shown |= dict(zip(names, [cell.strip(" *") for cell in below.strip("|").split("|")], strict=True))
    assert len(shown) == 8
    for name, cell in shown.items():
        assert float(cell) == pytest.approx(scores[name], abs=0.006), name
