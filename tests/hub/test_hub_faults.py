"""A Hub that fails at the n-th request: what arrives, what the user reads, and what is there afterwards."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from factories import CHECKPOINT, make_picture, make_tiny_model, original_state_dict
from fakes.hub_scripts import QUICK, prepare
from fakes.loopback_hub import IMPATIENT, LoopbackHub

from hybridiqa.utils.root import ROOT

# The Hub's client waits for seconds before it tries again.
QUICK_RETRIES = """
import time
time.sleep = lambda seconds, sleep=time.sleep: sleep(seconds / 20)
"""
PUSH = """
import json
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from hybridiqa.utils.hub import HubRepository, PushError, push_folder
for name in sys.stdin:
    try:
        push_folder(Path(sys.argv[2]), HubRepository(name.strip()), ("*",))
        print(json.dumps(None), flush=True)
    except PushError as error:
        print(json.dumps(str(error)), flush=True)
"""
PUSH_MODEL = """
import json
import sys
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
for name in sys.stdin:
    try:
        model.push_to_hub(name.strip())
        print(json.dumps(None), flush=True)
    except Exception as error:
        print(json.dumps(str(error)), flush=True)
"""
LOAD = """
import json
import sys
from transformers import AutoModel
for cache_dir in sys.stdin:
    try:
        model = AutoModel.from_pretrained("you/scorer", trust_remote_code=True, cache_dir=cache_dir.strip())
        print(json.dumps(["score", model.score(sys.argv[1]).item()]), flush=True)
    except (OSError, ValueError) as error:
        print(json.dumps(["error", str(error)]), flush=True)
"""
KINDS = ("500", "429", "cut before", "cut after", "slow")
FILES = {"README.md": b"# a card", "config.json": b"{}", "model.safetensors": b"weights" * 1000}


class Client:
    """A process of its own that does something with every line it is given, and answers with a line of JSON."""

    def __init__(self, hub: LoopbackHub, home: Path, code: str, *arguments: object, **environment: str):
        self.process = hub.start(
            "-c",
            QUICK_RETRIES + code,
            *arguments,
            home=home,
            stdin=subprocess.PIPE,
            stderr=None,
            environment=environment,
        )

    def __call__(self, line: str):
        print(line, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()


def push_with_faults(kind: str, folder: Path, home: Path) -> list[tuple[str, str, str | None]]:
    """Push to new and to existing repositories, the n-th request of each failing: (request, fault, what was read)."""
    outcomes = []
    with LoopbackHub() as hub, Client(hub, home, PUSH, ROOT, folder) as push:
        hub.slow_seconds = 0.3  # a push waits for a minute
        for place in ("new", "existing"):
            number, num_requests = 0, 0  # the first push is undisturbed
            while number <= num_requests:
                repository = f"you/{place}-{number}"
                if place == "existing":
                    hub.add(repository, {"kept.txt": b"kept"})
                before = hub.state()
                hub.blobs.clear()  # what is there already would not be uploaded again
                hub.faults.clear()
                hub.requests.clear()
                if number:
                    hub.fail(kind, at=number)
                said = push(repository)
                check_outcome(hub, repository, before, said, place == "existing")
                if number:
                    failed = hub.requests[number - 1].replace(repository, "REPO")
                    outcomes.append((f"{place}: {failed}", kind, said))
                else:
                    assert said is None
                    num_requests = len(hub.requests)
                number += 1
        assert hub.unknown == []
    return outcomes


def check_outcome(hub: LoopbackHub, repository: str, before: dict, said: str | None, was_there: bool) -> None:
    """Check that all of it is there, by one commit, or the Hub is as it was, and that what was said is true."""
    key = ("model", repository)
    if said is None or "there is a new commit" in said:
        _, files = hub.repositories[key].resolve("main")
        assert set(files) - {".gitattributes"} == set(FILES) | ({"kept.txt"} if was_there else set())
        assert all(hub.blobs[files[path].sha256] == data for path, data in FILES.items())
        assert len(hub.repositories[key].commits) == 2
        assert said is None or f"new commit, {hub.repositories[key].branches['main']}" in said
    else:
        assert hub.state() == before, said
        told = ("nothing there was changed", "did not begin", "made for it is removed again")
        assert any(words in said for words in told)
        assert "\n" not in said


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, list[tuple[str, str, str | None]]]:
    """Push with each kind of fault, all at once, since the client mostly waits before it tries again."""
    folder, homes = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("homes")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    with ThreadPoolExecutor() as pool:
        runs = {kind: pool.submit(push_with_faults, kind, folder, homes / kind) for kind in KINDS}
        return {kind: run.result() for kind, run in runs.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_push_arrives_whole_or_leaves_the_hub_as_it_was(outcomes, kind):
    places = [request for request, _, _ in outcomes[kind]]
    assert any("new: POST /api/models/REPO/commit" in place for place in places)
    assert any("existing: POST /api/models/REPO/commit" in place for place in places)
    assert any("PUT /lfs/" in place for place in places)
    for request, _, said in outcomes[kind]:
        print(f"{kind:10} {request}: {said or 'arrived'}")


def test_uploads_are_tried_again_and_commits_are_not(outcomes):
    said = {(kind, request): words for kind, rows in outcomes.items() for request, _, words in rows}
    uploads = {(kind, words) for (kind, request), words in said.items() if "PUT /lfs/" in request}
    assert all(words is None for kind, words in uploads if kind != "429")
    # huggingface_hub 0.36 gives an upload up at a 429, 2.4 tries again
    assert all(words is None or "Too many requests (HTTP 429)" in words for kind, words in uploads if kind == "429")
    assert all(words for (kind, request), words in said.items() if "/commit/main" in request and kind != "slow")
    assert not any(words for (kind, _), words in said.items() if kind == "slow")  # a push has patience


def test_a_hub_that_stays_away_is_said_to_hold_nobody_knows_what(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    hub.add("you/scorer", {"kept.txt": b"kept"})
    before = hub.state()
    with Client(hub, tmp_path / "home", PUSH, ROOT, tmp_path) as push:
        hub.fail("500", matching="/commit/|GET /api/models/you/scorer$", at=2, is_lasting=True)
        said = push("you/scorer")
    assert f"what {hub.endpoint}/you/scorer holds now could not be found out: Internal error (HTTP 500)" in said
    assert hub.state() == before


def test_the_push_of_transformers_leaves_no_half_of_a_model_either(hub, tmp_path, tiny_checkpoint):
    hub.add("you/existing", {"kept.txt": b"kept"})
    before = hub.state()
    with Client(hub, tmp_path / "home", PUSH_MODEL, tiny_checkpoint) as push:
        for how in ("500", "cut before"):
            for repository in ("you/existing", "you/new"):
                hub.faults.clear()
                hub.fail(how, matching="/commit/")
                assert push(repository)
        assert hub.state()["model", "you/existing"] == before["model", "you/existing"]
        assert hub.files("you/new") == {}  # transformers leaves the repository that it has made
        hub.faults.clear()
        assert push("you/new") is None
    assert set(hub.files("you/new")) == CHECKPOINT | {"README.md"}


def test_a_push_does_not_run_over_that_of_somebody_else(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    hub.add("you/scorer", {"kept.txt": b"kept"})
    with Client(hub, tmp_path / "home", PUSH, ROOT, tmp_path) as push:
        hub.on_request = lambda request: "/preupload/" in request and hub.add("you/scorer", {"theirs.txt": b"theirs"})
        said = push("you/scorer")
    assert "A commit has happened since" in said and "yet there is a new commit" in said
    assert hub.files("you/scorer") == {"theirs.txt": b"theirs"}


def test_a_load_that_fails_leaves_nothing_broken_in_the_cache(hub, tmp_path):
    model = make_tiny_model()
    model.save_pretrained(tmp_path / "model")
    make_picture().save(tmp_path / "a.png")
    hub.add("you/scorer", {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()})
    errors = []
    with Client(hub, tmp_path / "home", LOAD, tmp_path / "a.png", **IMPATIENT) as load:
        assert (undisturbed := load(str(tmp_path / "undisturbed")))[0] == "score"
        for kind in ("cut after", "slow"):
            for request in ("GET /you/scorer/resolve/.*/config.json", "GET /cdn/", "GET .*preprocessor_config.json"):
                cache_dir = str(tmp_path / kind / request.replace("/", "-"))
                hub.faults.clear()
                hub.fail(kind, matching=request)
                outcome = load(cache_dir)
                assert hub.faults[0].num_seen >= 1
                assert outcome == undisturbed or outcome[0] == "error"
                errors += outcome[1:] if outcome[0] == "error" else []
                assert load(cache_dir) == undisturbed
    assert all(error for error in errors)


def test_training_says_how_to_go_on_and_the_same_command_pushes(hub, script, images, tmp_path):
    prepare(script, images)
    make_tiny_model().save_pretrained(tmp_path / "start")
    hub.fail("500", matching="/commit/")
    command = ["train.py", "--dataset", "prepared", "--output_dir", "out", "--init_from", tmp_path / "start", *QUICK]
    command += ["--push_to_hub", "--hub_model_id", "you/scorer"]
    said = script(*command, status=1)
    assert "the push to you/scorer failed: Internal error (HTTP 500); the repository that was made for it is" in said
    assert "The trained model is whole in out; the same command with --resume pushes it." in said
    assert hub.state() == {}
    model = (tmp_path / "work/out/model.safetensors").read_bytes()
    script(*command, "--resume")
    assert set(hub.files("you/scorer")) == CHECKPOINT | {"README.md", "metrics.json"}
    assert hub.files("you/scorer")["model.safetensors"] == model


def test_a_dataset_that_did_not_arrive_is_pushed_by_the_command_that_is_told(hub, script, images):
    hub.fail("500", matching="/commit/")
    said = prepare(script, images, "--push_to_hub", "you/images", "--private", "--license", "mit", status=1)
    assert "the push to you/images failed: Internal error (HTTP 500); the repository" in said and hub.state() == {}
    script(*said.split("push it by: python ")[1].splitlines()[0].split())
    assert len(hub.files("you/images", "dataset")) == 3
    assert b"license: mit" in hub.files("you/images", "dataset")["README.md"]
    assert hub.repositories["dataset", "you/images"].is_private


def test_a_converted_checkpoint_that_did_not_arrive_is_pushed_by_the_command_that_is_told(hub, script, tmp_path):
    torch.save(original_state_dict([3, 4, 6, 3]), tmp_path / "published.pth")
    hub.fail("500", matching="/commit/")
    options = ["--output_dir", "converted", "--push_to_hub", "you/converted", "--private"]
    said = script("convert_checkpoint.py", tmp_path / "published.pth", *options, status=1)
    assert "the repository that was made for it is removed again" in said and hub.state() == {}
    command = said.split("push it by: hf ")[1].splitlines()[0].split()
    environment = os.environ | hub.environment(tmp_path / "home")
    hf = Path(sys.executable).with_name("hf")
    subprocess.run([hf, *command], cwd=tmp_path / "work", env=environment, check=True, capture_output=True)
    assert set(hub.files("you/converted")) == CHECKPOINT | {"README.md"}
    assert hub.repositories["model", "you/converted"].is_private


def test_scores_that_did_not_arrive_are_kept(hub, script, images, tiny_checkpoint):
    prepare(script, images)
    hub.fail("500", matching="/commit/")
    command = ["score.py", "--dataset", "prepared", "--output", "scored", "--model", tiny_checkpoint]
    command += ["--score_column", "model_score", "--push_to_hub", "you/scored"]
    said = script(*command, status=1)
    assert "the same command goes on from here" in said and hub.state() == {}
    assert "0 scored, 0 failed, 12 skipped as known" in script(*command)
    assert len(hub.files("you/scored", "dataset")) == 3


def test_a_stream_that_did_not_arrive_leaves_no_repository(hub, script, images, tiny_checkpoint):
    prepare(script, images)
    hub.fail("500", matching="/commit/", is_lasting=True)
    command = ["score.py", "--dataset", "prepared", "--streaming", "--model", tiny_checkpoint]
    command += ["--score_column", "model_score", "--push_to_hub", "you/scored"]
    said = script(*command, status=1)
    assert "the repository that was made for it is removed again; the same command begins anew" in said
    assert hub.state() == {}
