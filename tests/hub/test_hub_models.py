"""Models on the Hub: what is pushed is what is loaded, by processes that share nothing but the Hub."""

import json

import pytest
from factories import CHECKPOINT, make_picture, make_tiny_model

NOTICES = "THIRD_PARTY_NOTICES.md"
PUSH = """
import sys
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
print(model.score(sys.argv[2]).item().hex())
model.push_to_hub(sys.argv[3])
"""
SCORE = """
import sys
from transformers import AutoModel
print(AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).score(sys.argv[2]).item().hex())
"""
PUSH_PROCESSOR = """
import sys
from transformers import AutoImageProcessor
processor = AutoImageProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
processor.num_patches = 6
processor.push_to_hub(sys.argv[2])
"""
LOAD = """
import json
import sys
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, pipeline

repository, image = sys.argv[1:3]
options = {"trust_remote_code": True, **json.loads(sys.argv[3])}
model = AutoModel.from_pretrained(repository, **options)
scores = {"model": model.score(image).item()}
processor = AutoImageProcessor.from_pretrained(repository, **options)
scores["parts"] = model.predict_patch_scores(processor(image)["pixel_values"]).mean().item()
scores["device_map"] = AutoModel.from_pretrained(repository, device_map="auto", **options).score(image).item()
scorer = pipeline("image-quality-assessment", model=repository, **options)
results = scorer([image, image], batch_size=2)
assert scorer(image) == results[:1] == results[1:]
scores["pipeline"] = results[0]["score"]
half = AutoModel.from_pretrained(repository, dtype=torch.bfloat16, **options)
print(json.dumps({
    "scores": {name: score.hex() for name, score in scores.items()},
    "result": results[0],
    "std": model.predict_patch_scores(processor(image)["pixel_values"]).std(correction=0).item(),
    "config": AutoConfig.from_pretrained(repository, **options).model_type,
    "half": [str(half.dtype), half.score(image).item()],
}))
"""


@pytest.fixture
def image(tmp_path) -> str:
    path = tmp_path / "a.png"
    make_picture().save(path)
    return str(path)


def push(hub, tmp_path, image, repository, *, source=None, home="pusher") -> str:
    """Push a checkpoint by `model.push_to_hub`; its score of the image, in hexadecimal."""
    if source is None:
        source = tmp_path / "source"
        make_tiny_model(score_quantiles=[-1.0, 0.0, 1.0]).save_pretrained(source)
    done = hub.run("-c", PUSH, source, image, repository, home=tmp_path / home)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


def load(hub, tmp_path, image, repository, home="loader", environment=None, **options) -> dict:
    """Load a checkpoint in every way; what came out."""
    command = ["-c", LOAD, repository, image, json.dumps(options)]
    done = hub.run(*command, home=tmp_path / home, cwd=tmp_path, environment=environment or {})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_pushed_model_scores_the_same_to_the_last_bit_however_it_is_loaded(hub, tmp_path, image):
    score = push(hub, tmp_path, image, "you/scorer")
    assert set(hub.files("you/scorer")) == CHECKPOINT | {"README.md"}
    loaded = load(hub, tmp_path, image, "you/scorer")
    assert set(loaded["scores"].values()) == {score}
    assert loaded["config"] == "hybridiqa"
    result = loaded["result"]
    assert result["score_std"] == loaded["std"]
    assert result["percentile"] == pytest.approx(50 * (float.fromhex(score) + 1), abs=0.006)
    assert loaded["half"][0] == "torch.bfloat16"
    assert loaded["half"][1] == pytest.approx(float.fromhex(score), abs=0.02)
    requests = len(hub.requests)
    offline = load(hub, tmp_path, image, "you/scorer", environment={"HF_HUB_OFFLINE": "1"})
    assert offline == loaded
    assert len(hub.requests) == requests


def test_a_revision_stays_what_it_was(hub, tmp_path, image):
    first = push(hub, tmp_path, image, "you/scorer")
    hub.repositories["model", "you/scorer"].tags["v1"] = hub.repositories["model", "you/scorer"].branches["main"]
    make_tiny_model(seed=1).save_pretrained(tmp_path / "other")
    second = push(hub, tmp_path, image, "you/scorer", source=tmp_path / "other")
    assert first != second
    assert load(hub, tmp_path, image, "you/scorer", revision="v1")["scores"]["model"] == first
    assert load(hub, tmp_path, image, "you/scorer")["scores"]["model"] == second


def test_weights_and_processor_are_of_one_commit_though_another_comes_in_between(hub, tmp_path, image):
    score = push(hub, tmp_path, image, "you/scorer")
    files = hub.files("you/scorer")
    newer = json.loads(files["preprocessor_config.json"]) | {"num_patches": 1}
    files["preprocessor_config.json"] = json.dumps(newer).encode()
    commits = hub.repositories["model", "you/scorer"].commits

    def push_meanwhile(request: str) -> None:
        if request.startswith("GET /cdn/") and len(commits) == 2:  # the weights are on their way
            hub.add("you/scorer", files)

    hub.on_request = push_meanwhile
    command = ["-c", SCORE, "you/scorer", image]
    done = hub.run(*command, home=tmp_path / "loader", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(commits) == 3 and done.stdout.strip() == score


def test_what_came_from_the_hub_and_is_pushed_again_stands_alone(hub, tmp_path, image):
    score = push(hub, tmp_path, image, "you/first")
    hub.add("you/first", hub.files("you/first") | {NOTICES: b"Whoever passes these weights on must pass this on."})
    assert push(hub, tmp_path, image, "you/second", source="you/first") == score
    assert set(hub.files("you/second")) == CHECKPOINT | {"README.md", NOTICES}
    assert hub.files("you/second")[NOTICES] == hub.files("you/first")[NOTICES]
    assert not [name for name, data in hub.files("you/second").items() if b"you/first" in data]
    del hub.repositories["model", "you/first"]
    assert set(load(hub, tmp_path, image, "you/second")["scores"].values()) == {score}


def test_a_pushed_processor_changes_how_patches_are_cut(hub, tmp_path, image):
    push(hub, tmp_path, image, "you/scorer")
    done = hub.run("-c", PUSH_PROCESSOR, "you/scorer", "you/scorer", home=tmp_path / "pusher")
    assert done.returncode == 0, done.stderr
    assert set(hub.files("you/scorer")) == CHECKPOINT | {"README.md"}
    assert json.loads(hub.files("you/scorer")["preprocessor_config.json"])["num_patches"] == 6
    loaded = load(hub, tmp_path, image, "you/scorer")
    assert set(loaded["scores"].values()) == {loaded["scores"]["model"]}


def test_a_model_that_is_only_there_as_a_pickle_is_refused(hub, tmp_path, image):
    push(hub, tmp_path, image, "you/scorer")
    files = hub.files("you/scorer")
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    hub.add("you/pickle", files)
    done = hub.run("-c", LOAD, "you/pickle", image, "{}", home=tmp_path / "loader")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "you/pickle has no model.safetensors: weights are read from safetensors only"
    )
    assert "GET /api/models/you/pickle/commits/main" not in hub.requests  # no service is asked to convert it
